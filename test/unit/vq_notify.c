/* SPDX-License-Identifier: BSD-3-Clause */
/* Notifications of virtqueues: when, and how many (virtio 1.4, 2.7.10 and 2.8.14). */
#include "vq_fixture.h"

#define EVENT_IDX VMSG_BIT(VMSG_F_EVENT_IDX)

/* Moves `count` chains of one buffer to the device and back, silently. */
static void cycle(struct pair *pair, uint32_t count)
{
	uint32_t written;
	void *cookie;

	while (count-- > 0) {
		pair_send(pair, false, pair);
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
		vmsg_vq_push(&pair->device, &pair->chain, 0);
		vmsg_vq_used_event(&pair->device);
		CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 1);
	}
}

static void send_many(struct pair *pair, uint32_t count)
{
	struct vmsg_buf buf = { pair->data_addr, 16 };

	while (count-- > 0)
		CHECK_EQ(vmsg_vq_add(&pair->driver, &buf, 1, 0, pair), 0);
}

/* Without the event index every publish asks for a kick, and no empty one does. */
static void test_always(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, 8, 0, 64);
		for (int i = 0; i < 20; i++) {
			uint32_t written;
			void *cookie;

			CHECK(!vmsg_vq_publish(&pair.driver));
			CHECK(!vmsg_vq_used_event(&pair.device));
			send_many(&pair, 2);
			CHECK(vmsg_vq_publish(&pair.driver));
			CHECK(!vmsg_vq_publish(&pair.driver));
			for (int j = 0; j < 2; j++) {
				CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
				vmsg_vq_push(&pair.device, &pair.chain, 0);
			}
			CHECK(vmsg_vq_used_event(&pair.device));
			CHECK(!vmsg_vq_used_event(&pair.device));
			while (vmsg_vq_get(&pair.driver, &cookie, &written) == 1)
				;
		}
		pair_close(&pair);
	}
}

/* Suppressed notifications do not come, in either mode; wanted again, they do. */
static void test_suppressed(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		bool packed = i & 1;
		struct pair pair;
		uint32_t written;
		void *cookie;

		test_context("packed %d event_idx %d", packed, i / 2);
		pair_open(&pair, packed, i / 2 ? EVENT_IDX : 0, 8, 0, 64);
		CHECK(!vmsg_vq_want_kicks(&pair.device, false));
		CHECK(!vmsg_vq_want_used(&pair.driver, false));
		for (int j = 0; j < 50; j++) {
			CHECK(!pair_send(&pair, false, &pair));
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
			CHECK(!vmsg_vq_used_event(&pair.device));
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 0);
		}
		CHECK(!vmsg_vq_want_kicks(&pair.device, true));
		CHECK(!vmsg_vq_want_used(&pair.driver, true));
		CHECK(pair_send(&pair, false, &pair));
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		vmsg_vq_push(&pair.device, &pair.chain, 0);
		CHECK(vmsg_vq_used_event(&pair.device));
		pair_close(&pair);
	}
}

/* What arrives between the last look and "notify me" is reported by saying so. */
static void test_recheck(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		bool packed = i & 1;
		struct pair pair;
		uint32_t written;
		void *cookie;

		test_context("packed %d event_idx %d", packed, i / 2);
		pair_open(&pair, packed, i / 2 ? EVENT_IDX : 0, 4, 0, 64);
		for (int j = 0; j < 30; j++) {
			vmsg_vq_want_kicks(&pair.device, false);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
			CHECK(!pair_send(&pair, false, &pair));
			CHECK(vmsg_vq_want_kicks(&pair.device, true));
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			CHECK(!vmsg_vq_want_kicks(&pair.device, true));

			vmsg_vq_want_used(&pair.driver, false);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 0);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
			CHECK(!vmsg_vq_used_event(&pair.device));
			CHECK(vmsg_vq_want_used(&pair.driver, true));
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
			CHECK(!vmsg_vq_want_used(&pair.driver, true));
		}
		pair_close(&pair);
	}
}

/*
 * With the event index a side that takes all there is and then sleeps gets exactly one
 * notification per sleep, however much is published before it wakes up.
 */
static void test_one_per_sleep(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		uint32_t kicks = 0, calls = 0, written;
		struct pair pair;
		void *cookie;

		test_context("packed %d", packed);
		pair_open(&pair, packed, EVENT_IDX, 8, 0, 64);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
		CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 0);
		for (int i = 0; i < 100; i++) {
			for (int j = 0; j < 5; j++)
				kicks += pair_send(&pair, false, &pair);
			CHECK_EQ(kicks, i + 1);
			for (int j = 0; j < 5; j++) {
				CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
				vmsg_vq_push(&pair.device, &pair.chain, 0);
				calls += vmsg_vq_used_event(&pair.device);
			}
			CHECK_EQ(calls, i + 1);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
			for (int j = 0; j < 5; j++)
				CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 0);
		}
		pair_close(&pair);
	}
}

/* The split rule taken literally: one of the indices passed is the event index. */
static bool split_rule(uint32_t old, uint32_t now, uint16_t event)
{
	while (old != now) {
		if ((uint16_t)old++ == event)
			return true;
	}
	return false;
}

static void test_split_rule(void *arg)
{
	uint32_t seed = 99, published = 0, used = 0, hits = 0;
	struct pair pair;

	(void)arg;
	pair_open(&pair, false, EVENT_IDX, 16, 0, 64);
	/* The device writes no events of its own. */
	pair.device.kicks_wanted = false;
	pair.driver.used_wanted = false;
	for (int i = 0; i < 20000; i++) {
		uint32_t count = test_random(&seed) % 17, written;
		uint16_t event = (uint16_t)(published + test_random(&seed) % 40 - 10);
		void *cookie;
		bool kick;

		if (test_random(&seed) % 8 == 0)
			event = (uint16_t)test_random(&seed);
		vmsg_put16(pair.memory.device + 4 + 8 * 16, event);
		send_many(&pair, count);
		kick = vmsg_vq_publish(&pair.driver);
		CHECK_EQ(kick, split_rule(published, published + count, event));
		published += count;
		hits += kick;

		event = (uint16_t)(used + test_random(&seed) % 40 - 10);
		vmsg_put16(pair.memory.driver + 4 + 2 * 16, event);
		for (uint32_t j = 0; j < count; j++) {
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
		}
		CHECK_EQ(vmsg_vq_used_event(&pair.device),
			 split_rule(used, used + count, event));
		used += count;
		while (vmsg_vq_get(&pair.driver, &cookie, &written) == 1)
			;
	}
	CHECK(published > 100000 && hits > 3000 && hits < 17000);
	pair_close(&pair);
}

/* A place in the packed ring: slots counted from the start; odd laps have wrap counter 0. */
static uint16_t off_wrap(uint64_t position, uint16_t size)
{
	return (uint16_t)(position % size | (position / size % 2 ? 0 : 0x8000u));
}

static bool packed_rule(uint64_t old, uint64_t now, uint16_t size, uint16_t event)
{
	while (old != now) {
		if (off_wrap(old++, size) == event)
			return true;
	}
	return false;
}

static void packed_rule_for(uint16_t size)
{
	uint32_t seed = 7u + size, hits = 0;
	uint64_t published = 0, used = 0;
	struct pair pair;

	test_context("size %u", size);
	pair_open(&pair, true, EVENT_IDX, size, 0, 64);
	pair.device.kicks_wanted = false;
	pair.driver.used_wanted = false;
	for (int i = 0; i < 5000; i++) {
		uint32_t count = test_random(&seed) % (size + 1u), written;
		uint16_t event = off_wrap(published + test_random(&seed) % (2 * size), size);
		void *cookie;
		bool kick;

		vmsg_put32(pair.memory.device, event | VMSG_EVENT_DESC << 16);
		send_many(&pair, count);
		kick = vmsg_vq_publish(&pair.driver);
		CHECK_EQ(kick, packed_rule(published, published + count, size, event));
		published += count;
		hits += kick;

		event = off_wrap(used + test_random(&seed) % (2 * size), size);
		vmsg_put32(pair.memory.driver, event | VMSG_EVENT_DESC << 16);
		for (uint32_t j = 0; j < count; j++) {
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
		}
		CHECK_EQ(vmsg_vq_used_event(&pair.device),
			 packed_rule(used, used + count, size, event));
		used += count;
		while (vmsg_vq_get(&pair.driver, &cookie, &written) == 1)
			;
	}
	CHECK(hits > 500 && hits < 4500);
	pair_close(&pair);
}

static void test_packed_rule(void *arg)
{
	static const uint16_t sizes[] = { 1, 2, 3, 7, 8, 16 };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(sizes); i++)
		packed_rule_for(sizes[i]);
	/* Where slots and the wrap counter meet in the 16 bits. */
	for (int i = 0; i < 2; i++) {
		uint16_t size = i ? 32768 : 32767;
		struct pair pair;
		uint64_t position = 0;

		test_context("size %u", size);
		pair_open(&pair, true, EVENT_IDX, size, 0, 64);
		for (int j = 0; j < 6; j++) {
			uint32_t count = j % 2 ? size - 5u : 9, written;
			void *cookie;

			/* Asked for at the slot before the next: not yet, then at once. */
			vmsg_put32(pair.memory.device,
				   off_wrap(position + count, size) | VMSG_EVENT_DESC << 16);
			send_many(&pair, count);
			CHECK(!vmsg_vq_publish(&pair.driver));
			position += count;
			send_many(&pair, 1);
			CHECK(vmsg_vq_publish(&pair.driver));
			position++;
			CHECK_EQ(vmsg_vq_next_offset(&pair.driver),
				 position % size | (position / size % 2 ? 0 : 0x80000000u));
			while (vmsg_vq_pop(&pair.device, &pair.chain) == 1)
				vmsg_vq_push(&pair.device, &pair.chain, 0);
			while (vmsg_vq_get(&pair.driver, &cookie, &written) == 1)
				;
		}
		pair_close(&pair);
	}
}

/* RING_EVENT_FLAGS: what is reserved, or not negotiated, never suppresses. */
static void test_packed_flags(void *arg)
{
	static const struct {
		uint64_t features;
		uint32_t word;
		bool kick;
	} cases[] = {
		{ 0, VMSG_EVENT_ENABLE << 16 | 0xffff, true },
		{ 0, VMSG_EVENT_DISABLE << 16, false },
		{ 0, VMSG_EVENT_DESC << 16 | 0x8005, true },
		{ 0, 3u << 16, true },
		{ EVENT_IDX, VMSG_EVENT_ENABLE << 16 | 0x8005, true },
		{ EVENT_IDX, VMSG_EVENT_DISABLE << 16 | 0x8000, false },
		{ EVENT_IDX, 3u << 16 | 0x8005, true },
		{ EVENT_IDX, 0xfffc0000u | VMSG_EVENT_DISABLE << 16 | 0x8000, false },
		{ EVENT_IDX, VMSG_EVENT_DESC << 16 | 0x8000, true },
		{ EVENT_IDX, VMSG_EVENT_DESC << 16 | 0x8005, false },
		/* Beyond the ring: the driver gets what it asked for, nothing. */
		{ EVENT_IDX, VMSG_EVENT_DESC << 16 | 0xffff, false },
	};

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct pair pair;

		test_context("case %zu", i);
		pair_open(&pair, true, cases[i].features, 8, 0, 64);
		vmsg_put32(pair.memory.device, cases[i].word);
		vmsg_put32(pair.memory.driver, cases[i].word);
		CHECK_EQ(pair_send(&pair, false, &pair), cases[i].kick);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		vmsg_vq_push(&pair.device, &pair.chain, 0);
		CHECK_EQ(vmsg_vq_used_event(&pair.device), cases[i].kick);
		pair_close(&pair);
	}
}

/* What each side writes into its own area, byte for byte. */
static void test_words(void *arg)
{
	struct pair pair;

	(void)arg;
	pair_open(&pair, false, 0, 8, 0, 64);
	cycle(&pair, 3);
	vmsg_vq_want_kicks(&pair.device, false);
	CHECK_EQ(vmsg_get16(pair.memory.device), 1);
	vmsg_vq_want_kicks(&pair.device, true);
	CHECK_EQ(vmsg_get16(pair.memory.device), 0);
	vmsg_vq_want_used(&pair.driver, false);
	CHECK_EQ(vmsg_get16(pair.memory.driver), 1);
	vmsg_vq_want_used(&pair.driver, true);
	CHECK_EQ(vmsg_get16(pair.memory.driver), 0);
	/* Without the event index its place stays untouched. */
	CHECK_EQ(vmsg_get16(pair.memory.device + 4 + 64), 0);
	CHECK_EQ(vmsg_get16(pair.memory.driver + 4 + 16), 0);
	pair_close(&pair);

	pair_open(&pair, false, EVENT_IDX, 8, 0, 64);
	cycle(&pair, 3);
	vmsg_vq_want_kicks(&pair.device, false);
	vmsg_vq_want_used(&pair.driver, false);
	/* The flags stay 0 with the event index (virtio 1.4, 2.7.7.1). */
	CHECK_EQ(vmsg_get16(pair.memory.device), 0);
	CHECK_EQ(vmsg_get16(pair.memory.driver), 0);
	CHECK_EQ(vmsg_get16(pair.memory.device + 4 + 64), 2);
	CHECK_EQ(vmsg_get16(pair.memory.driver + 4 + 16), 2);
	vmsg_vq_want_kicks(&pair.device, true);
	vmsg_vq_want_used(&pair.driver, true);
	CHECK_EQ(vmsg_get16(pair.memory.device + 4 + 64), 3);
	CHECK_EQ(vmsg_get16(pair.memory.driver + 4 + 16), 3);
	pair_close(&pair);

	for (int i = 0; i < 2; i++) {
		uint32_t on = i ? VMSG_EVENT_DESC << 16 | 3 : VMSG_EVENT_ENABLE << 16 | 3;

		pair_open(&pair, true, i ? EVENT_IDX : 0, 8, 0, 64);
		cycle(&pair, 11);
		vmsg_vq_want_kicks(&pair.device, false);
		vmsg_vq_want_used(&pair.driver, false);
		CHECK_EQ(vmsg_get16(pair.memory.device + 2), VMSG_EVENT_DISABLE);
		CHECK_EQ(vmsg_get16(pair.memory.driver + 2), VMSG_EVENT_DISABLE);
		vmsg_vq_want_kicks(&pair.device, true);
		vmsg_vq_want_used(&pair.driver, true);
		CHECK_EQ(vmsg_get32(pair.memory.device), on);
		CHECK_EQ(vmsg_get32(pair.memory.driver), on);
		pair_close(&pair);
	}
}

/* The device did not ask for longer than the index counts: it must say yes rather than no. */
static void test_long_silence(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		uint32_t written;
		void *cookie;

		test_context("packed %d", packed);
		pair_open(&pair, packed, EVENT_IDX, 4, 0, 64);
		vmsg_vq_want_used(&pair.driver, false);
		for (uint32_t i = 0; i < 65536 + 3; i++) {
			/* Asleep from here on; the device pushes on and on without a look. */
			if (i == 10)
				vmsg_vq_want_used(&pair.driver, true);
			pair.driver.used_wanted = false;
			pair_send(&pair, false, &pair);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
		}
		CHECK(vmsg_vq_used_event(&pair.device));
		pair_close(&pair);
	}
}

/* NOTIFICATION_DATA: the position after what the device was shown. */
static void test_next_offset(void *arg)
{
	static const uint16_t sizes[] = { 1, 4, 7, 8 };
	struct pair pair;

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		uint16_t size = sizes[i];

		test_context("size %u", size);
		pair_open(&pair, true, 0, size, 0, 64);
		CHECK_EQ(vmsg_vq_next_offset(&pair.driver), 0x80000000u);
		for (uint32_t n = 1; n < 100; n++) {
			cycle(&pair, 1);
			CHECK_EQ(vmsg_vq_next_offset(&pair.driver),
				 n % size | (n / size % 2 ? 0 : 0x80000000u));
		}
		pair_close(&pair);
	}
	test_context("split");
	pair_open(&pair, false, 0, 4, 0, 64);
	for (uint32_t n = 0; n < 65540; n++) {
		CHECK_EQ(vmsg_vq_next_offset(&pair.driver), n & 0xffff);
		cycle(&pair, 1);
	}
	pair_close(&pair);
	for (int packed = 0; packed < 2; packed++) {
		uint32_t base = packed ? 0x80000000u : 0;

		test_context("unpublished, packed %d", packed);
		pair_open(&pair, packed, 0, 8, 0, 64);
		send_many(&pair, 3);
		CHECK_EQ(vmsg_vq_next_offset(&pair.driver), base);
		vmsg_vq_publish(&pair.driver);
		CHECK_EQ(vmsg_vq_next_offset(&pair.driver), base | 3);
		send_many(&pair, 2);
		CHECK_EQ(vmsg_vq_next_offset(&pair.driver), base | 3);
		pair_close(&pair);
	}
}

/* What was added is not the device's before publish, whatever order it was written in. */
static void test_unpublished(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		struct vmsg_buf bufs[3];

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, 8, 0, 64);
		for (uint32_t i = 0; i < 3; i++)
			bufs[i] = (struct vmsg_buf){ pair.data_addr + i, 1 };
		for (int lap = 0; lap < 9; lap++) {
			uint32_t written;
			void *cookie;

			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, bufs), 0);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 1, bufs), 0);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
			CHECK(!vmsg_vq_want_kicks(&pair.device, true));
			vmsg_vq_publish(&pair.driver);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			CHECK_EQ(pair.chain.readable_count, 2);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			CHECK_EQ(pair.chain.readable_count, 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
		}
		pair_close(&pair);
	}
}

static const struct test tests[] = {
	{ "always", test_always, NULL },
	{ "suppressed", test_suppressed, NULL },
	{ "recheck", test_recheck, NULL },
	{ "one_per_sleep", test_one_per_sleep, NULL },
	{ "split_rule", test_split_rule, NULL },
	{ "packed_rule", test_packed_rule, NULL },
	{ "packed_flags", test_packed_flags, NULL },
	{ "words", test_words, NULL },
	{ "long_silence", test_long_silence, NULL },
	{ "next_offset", test_next_offset, NULL },
	{ "unpublished", test_unpublished, NULL },
};

int main(int argc, char **argv)
{
	return test_main("vq_notify", tests, COUNT_OF(tests), argc, argv);
}
