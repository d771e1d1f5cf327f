/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A lying device against the driver side of a virtqueue (catalogue L1, L2, L3, L5): the queue must
 * be broken at the get that meets the lie, every chain must come out of drain, and after a reset
 * the queue must work again. Also the batches that IN_ORDER allows a device to complete at once.
 */
#include "vq_fixture.h"

#define SIZE     8u
#define IN_ORDER VMSG_BIT(VMSG_F_IN_ORDER)

/* Sends `count` chains of one buffer of 16 bytes, the cookies being from a row of ints. */
static void send(struct pair *pair, int *cookies, uint32_t count, bool writable)
{
	for (uint32_t i = 0; i < count; i++) {
		cookies[i] = 0;
		pair_send(pair, writable, &cookies[i]);
	}
}

/* The next get must find the lie. `left` chains are still the device's. */
static void must_break(struct pair *pair, int left)
{
	struct vmsg_buf buf = { pair->data_addr, 16 };
	uint32_t written;
	void *cookie;
	int count = 0;

	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), VMSG_ERR_PROTO);
	CHECK(pair->driver.broken);
	/* Whatever the device mends now. */
	memset(pair->memory.device, 0, pair->packed ? 4 : 6 + 8 * SIZE);
	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), VMSG_ERR_PROTO);
	CHECK(!vmsg_vq_want_used(&pair->driver, true));
	CHECK_EQ(vmsg_vq_add(&pair->driver, &buf, 1, 0, pair), VMSG_ERR_PROTO);
	while ((cookie = vmsg_vq_drain(&pair->driver)) != NULL) {
		CHECK_EQ(*(int *)cookie, 0);
		++*(int *)cookie;
		count++;
	}
	CHECK_EQ(count, left);
	vmsg_vq_device_reset(&pair->device);
	pair_start(pair);
	for (uint8_t i = 0; i < 2 * SIZE + 1; i++)
		pair_round_trip(pair, i);
}

static void must_get(struct pair *pair, const int *expected, uint32_t bytes)
{
	uint32_t written = 99;
	void *cookie = NULL;

	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 1);
	CHECK(cookie == expected);
	CHECK_EQ(written, bytes);
}

static void must_be_empty(struct pair *pair)
{
	uint32_t written;
	void *cookie;

	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 0);
}

/* A used descriptor of the packed ring, in the first lap. */
static void packed_used(struct pair *pair, unsigned int slot, unsigned int id, uint32_t len,
			bool write)
{
	uint8_t *ptr = pair->memory.desc + 16 * (size_t)slot;

	vmsg_put32(ptr + 8, len);
	vmsg_put16(ptr + 12, (uint16_t)id);
	vmsg_put16(ptr + 14, (uint16_t)(0x8080u | (write ? VMSG_DESC_WRITE : 0)));
}

/* Reports a chain as used, in either format, in the first lap. */
static void forge(struct pair *pair, unsigned int entry, uint32_t id, uint32_t len)
{
	if (pair->packed) {
		packed_used(pair, entry, id, len, true);
	} else {
		raw_used(pair, entry, id, len);
		raw_used_idx(pair, entry + 1);
	}
}

static void test_id(void *arg)
{
	static const uint32_t ids[] = { SIZE, SIZE + 1, 0x7fff, 0xffff, 0x10000, 0xffffffff };

	(void)arg;
	for (size_t i = 0; i < 4 * COUNT_OF(ids); i++) {
		uint32_t id = ids[i / 4];
		struct pair pair;
		int cookies[3];

		if ((i & 1) && id > 0xffff)
			continue;
		test_context("packed %zu in order %zu id %u", i & 1, i >> 1 & 1, id);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		forge(&pair, 0, id, 0);
		must_break(&pair, 3);
		pair_close(&pair);
	}
}

static void test_not_outstanding(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		struct pair pair;
		int cookies[3];

		test_context("packed %d in order %d", i & 1, i >> 1);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		forge(&pair, 0, 3, 0);
		must_break(&pair, 3);
		pair_close(&pair);
	}
}

/* A descriptor in the middle of a chain is no chain. */
static void test_not_a_head(void *arg)
{
	struct pair pair;
	struct vmsg_buf bufs[3];
	int cookie = 0;

	(void)arg;
	pair_open(&pair, false, 0, SIZE, 0, 64);
	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair.data_addr, 16 };
	CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 2, &cookie), 0);
	vmsg_vq_publish(&pair.driver);
	forge(&pair, 0, 1, 0);
	must_break(&pair, 1);
	pair_close(&pair);
}

static void test_twice(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		struct pair pair;
		int cookies[3];

		test_context("packed %d in order %d", i & 1, i >> 1);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		forge(&pair, 0, 0, 5);
		must_get(&pair, &cookies[0], 5);
		forge(&pair, 1, 0, 5);
		must_break(&pair, 2);
		pair_close(&pair);
	}
}

/* L2: more bytes than were offered; none were offered at all. */
static void test_length(void *arg)
{
	static const struct {
		uint32_t len;
		bool writable, good;
	} cases[] = {
		{ 16, true, true },  { 17, true, false },         { 0xffffffffu, true, false },
		{ 0, false, true },  { 1, false, false },         { 0x80000000u, true, false },
		{ 0, true, true },   { 0x10000010u, true, false },
	};

	(void)arg;
	for (size_t i = 0; i < 4 * COUNT_OF(cases); i++) {
		struct pair pair;
		int cookie;
		size_t n = i / 4;

		test_context("packed %zu in order %zu case %zu", i & 1, i >> 1 & 1, n);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		send(&pair, &cookie, 1, cases[n].writable);
		forge(&pair, 0, 0, cases[n].len);
		if (cases[n].good)
			must_get(&pair, &cookie, cases[n].len);
		else
			must_break(&pair, 1);
		pair_close(&pair);
	}
}

/* Packed: without WRITE the length says nothing (virtio 1.4, 2.8.5). */
static void test_length_without_write(void *arg)
{
	struct pair pair;
	int cookie;

	(void)arg;
	pair_open(&pair, true, 0, SIZE, 0, 64);
	send(&pair, &cookie, 1, true);
	packed_used(&pair, 0, 0, 0xffffffff, false);
	must_get(&pair, &cookie, 0);
	pair_close(&pair);
}

/* L3, L5: the index goes on further than there is anything, or backwards. */
static void test_index_jump(void *arg)
{
	static const unsigned int jumps[] = { 3, 4, SIZE, SIZE + 1, 0x8000, 0xfff0, 0xffff };
	static const unsigned int starts[] = { 0, 3, 0xfffd };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(jumps) * COUNT_OF(starts); i++) {
		unsigned int start = starts[i / COUNT_OF(jumps)];
		unsigned int jump = jumps[i % COUNT_OF(jumps)];
		struct pair pair;
		int cookies[2];

		test_context("start %u jump %u", start, jump);
		pair_open(&pair, false, 0, SIZE, 0, 64);
		for (unsigned int n = 0; n < start; n++)
			pair_round_trip(&pair, 1);
		send(&pair, cookies, 2, true);
		raw_used_idx(&pair, start + jump);
		must_break(&pair, 2);
		pair_close(&pair);
	}
}

/* The index counts a chain that was not published, beside one that was. */
static void test_index_unpublished(void *arg)
{
	struct vmsg_buf buf;
	struct pair pair;
	int cookies[2] = { 0, 0 };

	(void)arg;
	pair_open(&pair, false, 0, SIZE, 0, 64);
	send(&pair, cookies, 1, true);
	buf = (struct vmsg_buf){ pair.data_addr, 16 };
	CHECK_EQ(vmsg_vq_add(&pair.driver, &buf, 1, 0, &cookies[1]), 0);
	raw_used_idx(&pair, 2);
	must_break(&pair, 2);
	pair_close(&pair);
}

static void test_nothing_sent(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		struct pair pair;

		test_context("packed %d in order %d", i & 1, i >> 1);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		forge(&pair, 0, 0, 0);
		must_break(&pair, 0);
		pair_close(&pair);
	}
}

/* L5: added, but never shown to the device. */
static void test_unpublished(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		struct pair pair;
		struct vmsg_buf bufs[3];
		int cookie = 0;

		test_context("packed %d in order %d", i & 1, i >> 1);
		pair_open(&pair, i & 1, i & 2 ? IN_ORDER : 0, SIZE, 0, 64);
		for (uint32_t j = 0; j < 3; j++)
			bufs[j] = (struct vmsg_buf){ pair.data_addr, 16 };
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, &cookie), 0);
		forge(&pair, 0, 0, 0);
		must_break(&pair, 1);
		pair_close(&pair);
	}
}

/* Packed: a chain of more slots than were published. */
static void test_more_slots(void *arg)
{
	struct pair pair;
	struct vmsg_buf bufs[3];
	int cookies[2] = { 0, 0 };

	(void)arg;
	pair_open(&pair, true, 0, SIZE, 0, 64);
	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair.data_addr, 16 };
	CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 0, &cookies[0]), 0);
	vmsg_vq_publish(&pair.driver);
	CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, &cookies[1]), 0);
	forge(&pair, 0, 1, 0);
	must_break(&pair, 2);
	pair_close(&pair);
}

/* L5: the device goes on where it was before the reset. */
static void test_after_reset(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		int cookies[3];

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		forge(&pair, 0, 0, 0);
		must_get(&pair, &cookies[0], 0);
		pair_restart(&pair);
		if (packed)
			packed_used(&pair, 0, 1, 0, false);
		else
			forge(&pair, 1, 1, 0);
		must_break(&pair, 0);
		pair_close(&pair);
	}
}

/* L5: a completion that comes after the chains were drained. */
static void test_after_drain(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		int cookies[3];

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		CHECK(vmsg_vq_drain(&pair.driver) == &cookies[0]);
		while (vmsg_vq_drain(&pair.driver))
			;
		forge(&pair, 0, 0, 0);
		must_break(&pair, 0);
		pair_close(&pair);
	}
}

static void test_all_ones(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		int cookies[3];

		test_context("packed %d", packed);
		pair_open(&pair, packed, ~(uint64_t)0, SIZE, 0, 64);
		send(&pair, cookies, 3, true);
		memset(pair.ptr, 0xff, pair.bytes);
		must_break(&pair, 3);
		pair_close(&pair);
	}
}

/* What the driver wrote is not what it goes by: a device that scribbles there confuses nobody. */
static void test_descriptors_scribbled(void *arg)
{
	struct pair pair;
	struct vmsg_buf bufs[3];
	int cookies[2] = { 0, 0 };

	(void)arg;
	pair_open(&pair, false, 0, SIZE, 0, 64);
	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair.data_addr, 16 };
	CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 2, &cookies[0]), 0);
	CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, &cookies[1]), 0);
	vmsg_vq_publish(&pair.driver);
	memset(pair.memory.desc, 0xff, 16 * SIZE);
	memset(pair.memory.driver, 0xff, 6 + 2 * SIZE);
	raw_used(&pair, 0, 3, 16);
	raw_used(&pair, 1, 0, 32);
	raw_used_idx(&pair, 2);
	must_get(&pair, &cookies[1], 16);
	must_get(&pair, &cookies[0], 32);
	CHECK_EQ(pair.driver.free_count, SIZE);
	/* All descriptors are free again, each once. */
	for (int n = 0; n < 2; n++) {
		bool seen[SIZE] = { false };

		for (uint32_t i = 0; i < SIZE; i++)
			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 0, &cookies[0]), 0);
		vmsg_vq_publish(&pair.driver);
		for (uint32_t i = 0; i < SIZE; i++) {
			unsigned int entry = (2 + SIZE * (unsigned int)n + i) % SIZE;
			uint16_t head = vmsg_get16(pair.memory.driver + 4 + 2 * (size_t)entry);

			CHECK(head < SIZE && !seen[head]);
			seen[head] = true;
			raw_used(&pair, entry, head, 0);
		}
		raw_used_idx(&pair, 2 + SIZE * ((unsigned int)n + 1));
		for (uint32_t i = 0; i < SIZE; i++)
			must_get(&pair, &cookies[0], 0);
	}
	must_be_empty(&pair);
	pair_close(&pair);
}

/* ---- IN_ORDER ---- */

/* Chains of 1, 2, 3, 1 and 1 buffers, the last one of each writable. */
static void send_mixed(struct pair *pair, int *cookies)
{
	static const uint16_t counts[] = { 1, 2, 3, 1, 1 };
	struct vmsg_buf bufs[3];

	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair->data_addr, 16 + i };
	for (uint32_t i = 0; i < COUNT_OF(counts); i++) {
		cookies[i] = 0;
		CHECK_EQ(vmsg_vq_add(&pair->driver, bufs, (uint16_t)(counts[i] - 1), 1,
				     &cookies[i]),
			 0);
	}
	vmsg_vq_publish(&pair->driver);
}

/*
 * One used entry for three chains, then one for two, many times round the ring: the entry is where
 * the first of the batch would be, and the device goes on by the whole batch.
 */
static void test_batch(void *arg)
{
	(void)arg;
	for (int i = 0; i < 4; i++) {
		bool packed = i & 1;
		struct pair pair;
		int cookies[5];

		test_context("packed %d indirect %d", packed, i >> 1);
		pair_open(&pair, packed, IN_ORDER | (i & 2 ? VMSG_BIT(VMSG_F_INDIRECT_DESC) : 0),
			  SIZE, i & 2 ? 3 : 0, 64);
		for (int lap = 0; lap < 40; lap++) {
			struct vmsg_chain chains[5];
			struct vmsg_iov iov[3];
			struct vmsg_vq_device *device = &pair.device;

			send_mixed(&pair, cookies);
			for (int n = 0; n < 5; n++) {
				chains[n].iov = iov;
				chains[n].iov_max = 3;
				CHECK_EQ(vmsg_vq_pop(device, &chains[n]), 1);
			}
			must_be_empty(&pair);
			/* Our device side knows no batches: one is pushed as its last chain. */
			chains[2].slots = (uint16_t)(chains[0].slots + chains[1].slots +
						     chains[2].slots);
			chains[4].slots = (uint16_t)(chains[3].slots + chains[4].slots);
			vmsg_vq_push(device, &chains[2], 7);
			if (!packed) {
				device->used_idx = (uint16_t)(device->used_idx + 2);
				raw_used_idx(&pair, device->used_idx);
			}
			CHECK(vmsg_vq_want_used(&pair.driver, true));
			must_get(&pair, &cookies[0], 16);
			/* In mid-batch there is more, though the ring does not say so. */
			CHECK(vmsg_vq_want_used(&pair.driver, true));
			must_get(&pair, &cookies[1], 17);
			must_get(&pair, &cookies[2], 7);
			must_be_empty(&pair);
			CHECK(!vmsg_vq_want_used(&pair.driver, true));
			vmsg_vq_push(device, &chains[4], 0);
			if (!packed) {
				device->used_idx = (uint16_t)(device->used_idx + 1);
				raw_used_idx(&pair, device->used_idx);
			}
			must_get(&pair, &cookies[3], 16);
			must_get(&pair, &cookies[4], 0);
			must_be_empty(&pair);
			CHECK_EQ(pair.driver.free_count, SIZE);
		}
		pair_close(&pair);
	}
}

/* Descriptors are used in ring order, as IN_ORDER demands of a split ring (virtio 1.4, 2.7.5.1). */
static void test_ring_order(void *arg)
{
	struct pair pair;
	struct vmsg_buf bufs[3];
	unsigned int index = 0;

	(void)arg;
	pair_open(&pair, false, IN_ORDER, SIZE, 0, 64);
	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair.data_addr, 16 };
	for (unsigned int n = 0; n < 50; n++) {
		uint32_t written;
		void *cookie;

		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, &pair), 0);
		vmsg_vq_publish(&pair.driver);
		CHECK_EQ(vmsg_get16(pair.memory.driver + 4 + 2 * (size_t)(n % SIZE)), index);
		for (int i = 0; i < 3; i++) {
			const uint8_t *ptr = pair.memory.desc + 16 * (size_t)index;

			index = (index + 1) % SIZE;
			CHECK_EQ(vmsg_get16(ptr + 12),
				 i < 2 ? VMSG_DESC_NEXT : VMSG_DESC_WRITE);
			if (i < 2)
				CHECK_EQ(vmsg_get16(ptr + 14), index);
		}
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		vmsg_vq_push(&pair.device, &pair.chain, 0);
		CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
	}
	pair_close(&pair);
}

/* Split: the entry names a later chain, but the index went on by less. */
static void test_batch_too_long(void *arg)
{
	struct pair pair;
	int cookies[5];

	(void)arg;
	pair_open(&pair, false, IN_ORDER, SIZE, 0, 64);
	send_mixed(&pair, cookies);
	raw_used(&pair, 0, 3, 0); /* the third chain */
	raw_used_idx(&pair, 2);
	must_get(&pair, &cookies[0], 16);
	must_get(&pair, &cookies[1], 17);
	must_break(&pair, 3);
	pair_close(&pair);
}

/* The index went on by more than the batch: the rest is taken as entries of their own. */
static void test_batch_too_short(void *arg)
{
	struct pair pair;
	int cookies[5];

	(void)arg;
	pair_open(&pair, false, IN_ORDER, SIZE, 0, 64);
	send_mixed(&pair, cookies);
	raw_used(&pair, 0, 1, 0); /* the second chain */
	raw_used(&pair, 2, 1, 0); /* and once more */
	raw_used_idx(&pair, 3);
	must_get(&pair, &cookies[0], 16);
	must_get(&pair, &cookies[1], 0);
	must_break(&pair, 3);
	pair_close(&pair);
}

/* A batch up to a chain that was never published. */
static void test_batch_unpublished(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		struct vmsg_buf buf;
		int cookies[3] = { 0, 0, 0 };

		test_context("packed %d", packed);
		pair_open(&pair, packed, IN_ORDER, SIZE, 0, 64);
		buf = (struct vmsg_buf){ pair.data_addr, 16 };
		send(&pair, cookies, 2, true);
		CHECK_EQ(vmsg_vq_add(&pair.driver, &buf, 0, 1, &cookies[2]), 0);
		if (packed) {
			packed_used(&pair, 0, 2, 0, false);
		} else {
			raw_used(&pair, 0, 2, 0);
			raw_used_idx(&pair, 2);
		}
		must_get(&pair, &cookies[0], 16);
		must_get(&pair, &cookies[1], 16);
		must_break(&pair, 1);
		pair_close(&pair);
	}
}

/* The length of a batch's last chain is checked against that chain, before or after the others. */
static void test_batch_length(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		int cookies[2];

		test_context("packed %d", packed);
		pair_open(&pair, packed, IN_ORDER, SIZE, 0, 64);
		send(&pair, cookies, 2, true);
		if (packed) {
			packed_used(&pair, 0, 1, 17, true);
		} else {
			raw_used(&pair, 0, 1, 17);
			raw_used_idx(&pair, 2);
		}
		must_get(&pair, &cookies[0], 16);
		must_break(&pair, 1);
		pair_close(&pair);
	}
}

static const struct test tests[] = {
	{ "id", test_id, NULL },
	{ "not_outstanding", test_not_outstanding, NULL },
	{ "not_a_head", test_not_a_head, NULL },
	{ "twice", test_twice, NULL },
	{ "length", test_length, NULL },
	{ "length_without_write", test_length_without_write, NULL },
	{ "index_jump", test_index_jump, NULL },
	{ "index_unpublished", test_index_unpublished, NULL },
	{ "nothing_sent", test_nothing_sent, NULL },
	{ "unpublished", test_unpublished, NULL },
	{ "more_slots", test_more_slots, NULL },
	{ "after_reset", test_after_reset, NULL },
	{ "after_drain", test_after_drain, NULL },
	{ "all_ones", test_all_ones, NULL },
	{ "descriptors_scribbled", test_descriptors_scribbled, NULL },
	{ "batch", test_batch, NULL },
	{ "ring_order", test_ring_order, NULL },
	{ "batch_too_long", test_batch_too_long, NULL },
	{ "batch_too_short", test_batch_too_short, NULL },
	{ "batch_unpublished", test_batch_unpublished, NULL },
	{ "batch_length", test_batch_length, NULL },
};

int main(int argc, char **argv)
{
	return test_main("vq_liar", tests, COUNT_OF(tests), argc, argv);
}
