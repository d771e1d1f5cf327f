/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Round trips through a virtqueue, both sides, contents compared, in every combination of format,
 * event index, indirect tables, order and size.
 */
#include <stdio.h>

#include "vq_fixture.h"

#define MAX_BUFS   6u
#define BUF_BYTES  24u /* room for one buffer */
#define SLOT_BYTES (MAX_BUFS * BUF_BYTES)
#define TABLE_MAX  4u /* so that some chains have no table */

/* What the driver asked for. The cookie of a chain. */
struct op {
	uint32_t seed, answer_bytes;
	uint16_t readable_count, writable_count;
	uint32_t readable_bytes, writable_bytes;
	struct vmsg_buf bufs[MAX_BUFS];
	bool busy;
};

/* What the device holds. */
struct held {
	struct vmsg_chain chain;
	struct vmsg_iov iov[MAX_BUFS];
};

struct run {
	struct pair pair;
	bool in_order;
	uint32_t seed;
	struct op *ops;
	struct held *held;
	uint32_t first_held, held_count; /* a ring of size */
	uint32_t next_op;
	uint32_t added, popped, done;
};

static uint8_t pattern(uint32_t seed, uint32_t i)
{
	return (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static uint8_t *buf_ptr(struct run *run, const struct vmsg_buf *buf)
{
	return run->pair.data + (buf->addr - run->pair.data_addr);
}

static void choose_bufs(struct run *run, uint32_t slot)
{
	struct op *op = &run->ops[slot];
	uint32_t max = run->pair.size < MAX_BUFS ? run->pair.size : MAX_BUFS;
	uint32_t count = 1 + test_random(&run->seed) % max;

	op->readable_count = (uint16_t)(test_random(&run->seed) % (count + 1));
	op->writable_count = (uint16_t)(count - op->readable_count);
	op->readable_bytes = 0;
	op->writable_bytes = 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t len = 1 + test_random(&run->seed) % BUF_BYTES;
		uint32_t offset = slot * SLOT_BYTES + i * BUF_BYTES;

		op->bufs[i] = (struct vmsg_buf){ run->pair.data_addr + offset, len };
		if (i < op->readable_count)
			op->readable_bytes += len;
		else
			op->writable_bytes += len;
	}
}

static void fill_bufs(struct run *run, struct op *op)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < (uint32_t)op->readable_count + op->writable_count; i++) {
		uint8_t *ptr = buf_ptr(run, &op->bufs[i]);

		for (uint32_t j = 0; j < op->bufs[i].len; j++)
			ptr[j] = i < op->readable_count ? pattern(op->seed, at++) : 0xee;
	}
}

/* Adds one chain if there is room, and says so. */
static bool driver_add(struct run *run)
{
	uint32_t slot = run->next_op;
	struct op *op = &run->ops[slot];
	int rc;

	if (op->busy)
		return false;
	op->seed = test_random(&run->seed);
	choose_bufs(run, slot);
	fill_bufs(run, op);
	rc = vmsg_vq_add(&run->pair.driver, op->bufs, op->readable_count, op->writable_count, op);
	if (rc == VMSG_ERR_AGAIN)
		return false;
	CHECK_EQ(rc, 0);
	op->busy = true;
	run->next_op = (slot + 1) % run->pair.size;
	run->added++;
	return true;
}

static bool device_pop(struct run *run)
{
	struct held *held;
	uint8_t data[SLOT_BYTES + 1];
	uint32_t slot = (run->first_held + run->held_count) % run->pair.size;
	int rc;

	if (run->held_count == run->pair.size)
		return false;
	held = &run->held[slot];
	held->chain.iov = held->iov;
	held->chain.iov_max = MAX_BUFS;
	rc = vmsg_vq_pop(&run->pair.device, &held->chain);
	if (rc == 0)
		return false;
	CHECK_EQ(rc, 1);
	CHECK(held->chain.id < run->pair.size);
	CHECK_EQ(vmsg_chain_read(&held->chain, 0, data, sizeof(data)), held->chain.readable_bytes);
	run->held_count++;
	run->popped++;
	return true;
}

/* The operation a chain belongs to, found by the address of its first buffer. */
static struct op *op_of(struct run *run, const struct vmsg_chain *chain)
{
	size_t offset = (size_t)(chain->iov[0].ptr - run->pair.data);

	CHECK_EQ(offset % SLOT_BYTES, 0);
	return &run->ops[offset / SLOT_BYTES];
}

static void device_push(struct run *run)
{
	uint32_t last = (run->first_held + run->held_count - 1) % run->pair.size;
	uint8_t data[SLOT_BYTES];
	struct held held;
	struct op *op;

	/* Out of order: any of them, and the last one takes its place. */
	if (!run->in_order) {
		uint32_t i = (run->first_held + test_random(&run->seed) % run->held_count) %
			     run->pair.size;

		held = run->held[i];
		held.chain.iov = held.iov;
		run->held[i] = run->held[last];
		run->held[i].chain.iov = run->held[i].iov;
	} else {
		held = run->held[run->first_held];
		held.chain.iov = held.iov;
		run->first_held = (run->first_held + 1) % run->pair.size;
	}
	run->held_count--;
	op = op_of(run, &held.chain);
	CHECK(op->busy);
	CHECK_EQ(held.chain.readable_count, op->readable_count);
	CHECK_EQ(held.chain.writable_count, op->writable_count);
	CHECK_EQ(held.chain.readable_bytes, op->readable_bytes);
	CHECK_EQ(held.chain.writable_bytes, op->writable_bytes);
	CHECK_EQ(vmsg_chain_read(&held.chain, 0, data, sizeof(data)), op->readable_bytes);
	for (uint32_t i = 0; i < op->readable_bytes; i++)
		CHECK_EQ(data[i], pattern(op->seed, i));
	op->answer_bytes = test_random(&run->seed) % (op->writable_bytes + 1);
	for (uint32_t i = 0; i < op->answer_bytes; i++)
		data[i] = pattern(~op->seed, i);
	CHECK_EQ(vmsg_chain_write(&held.chain, 0, data, op->answer_bytes), op->answer_bytes);
	vmsg_vq_push(&run->pair.device, &held.chain, op->answer_bytes);
}

static bool driver_get(struct run *run)
{
	void *cookie = NULL;
	uint32_t written = 0, at = 0;
	struct op *op;
	int rc = vmsg_vq_get(&run->pair.driver, &cookie, &written);

	if (rc == 0)
		return false;
	CHECK_EQ(rc, 1);
	op = cookie;
	CHECK(op >= run->ops && op < run->ops + run->pair.size && op->busy);
	CHECK_EQ(written, op->answer_bytes);
	for (uint32_t i = op->readable_count; i < (uint32_t)op->readable_count + op->writable_count;
	     i++) {
		const uint8_t *ptr = buf_ptr(run, &op->bufs[i]);

		for (uint32_t j = 0; j < op->bufs[i].len; j++, at++)
			CHECK_EQ(ptr[j], at < written ? pattern(~op->seed, at) : 0xee);
	}
	if (run->in_order)
		CHECK_EQ(op - run->ops, run->done % run->pair.size);
	op->busy = false;
	run->done++;
	return true;
}

static void exchange(struct run *run, uint32_t count)
{
	uint32_t burst = run->pair.size < 300 ? run->pair.size + 1u : 300;

	while (run->done < count) {
		uint32_t before = run->added + run->popped + run->done;

		for (uint32_t n = test_random(&run->seed) % burst; n > 0 && driver_add(run); n--)
			;
		if (test_random(&run->seed) % 4 != 0)
			vmsg_vq_publish(&run->pair.driver);
		for (uint32_t n = test_random(&run->seed) % burst; n > 0 && device_pop(run); n--)
			;
		for (uint32_t n = test_random(&run->seed) % burst; n > 0 && run->held_count; n--)
			device_push(run);
		for (uint32_t n = test_random(&run->seed) % burst; n > 0 && driver_get(run); n--)
			;
		if (before != run->added + run->popped + run->done)
			continue;
		/* Nothing moved: hand over everything, so that something must. */
		vmsg_vq_publish(&run->pair.driver);
		while (device_pop(run))
			;
		while (run->held_count)
			device_push(run);
		while (driver_get(run))
			;
		CHECK(driver_add(run));
	}
}

/* Takes everything back: the accounts of both sides must be as in the beginning. */
static void finish(struct run *run)
{
	vmsg_vq_publish(&run->pair.driver);
	while (device_pop(run))
		;
	while (run->held_count)
		device_push(run);
	while (driver_get(run))
		;
	CHECK_EQ(run->added, run->done);
	CHECK_EQ(run->popped, run->done);
	CHECK_EQ(run->pair.driver.free_count, run->pair.size);
	CHECK_EQ(run->pair.device.in_flight, 0);
	CHECK(vmsg_vq_drain(&run->pair.driver) == NULL);
}

static void run_combination(bool packed, uint64_t features, uint16_t size, uint32_t count)
{
	static struct run run;

	memset(&run, 0, sizeof(run));
	test_context("packed %d features %#llx size %u", packed, (unsigned long long)features,
		     size);
	run.seed = 12345 + size + (uint32_t)(features >> 28) + packed;
	run.in_order = vmsg_has(features, VMSG_F_IN_ORDER);
	/* Tables are there without INDIRECT_DESC too: then they must not be used. */
	pair_open(&run.pair, packed, features, size, TABLE_MAX, (size_t)size * SLOT_BYTES);
	run.ops = calloc(size, sizeof(*run.ops));
	run.held = calloc(size, sizeof(*run.held));
	CHECK(run.ops && run.held);
	exchange(&run, count);
	finish(&run);
	free(run.held);
	free(run.ops);
	pair_close(&run.pair);
}

static const uint64_t mixtures[] = {
	0,
	VMSG_BIT(VMSG_F_EVENT_IDX),
	VMSG_BIT(VMSG_F_INDIRECT_DESC),
	VMSG_BIT(VMSG_F_INDIRECT_DESC) | VMSG_BIT(VMSG_F_EVENT_IDX),
	VMSG_BIT(VMSG_F_IN_ORDER),
	VMSG_BIT(VMSG_F_IN_ORDER) | VMSG_BIT(VMSG_F_EVENT_IDX),
	VMSG_BIT(VMSG_F_IN_ORDER) | VMSG_BIT(VMSG_F_INDIRECT_DESC),
	VMSG_BIT(VMSG_F_IN_ORDER) | VMSG_BIT(VMSG_F_INDIRECT_DESC) | VMSG_BIT(VMSG_F_EVENT_IDX),
};

static const uint16_t split_sizes[] = { 1, 2, 4, 8, 256 };
static const uint16_t packed_sizes[] = { 1, 2, 3, 4, 7, 8, 100, 256 };

static void test_split(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < COUNT_OF(mixtures); i++) {
		for (size_t j = 0; j < COUNT_OF(split_sizes); j++)
			run_combination(false, mixtures[i], split_sizes[j], 3000);
	}
}

static void test_packed(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < COUNT_OF(mixtures); i++) {
		for (size_t j = 0; j < COUNT_OF(packed_sizes); j++)
			run_combination(true, mixtures[i], packed_sizes[j], 3000);
	}
}

/* The free-running index passes 65535; the packed ring laps thousands of times. */
static void test_index_wrap(void *arg)
{
	(void)arg;
	run_combination(false, mixtures[3], 4, 140000);
	run_combination(false, mixtures[5], 4, 70000);
	run_combination(true, mixtures[3], 7, 70000);
}

static void test_largest(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < COUNT_OF(mixtures); i += 3) {
		run_combination(false, mixtures[i], 32768, 40000);
		run_combination(true, mixtures[i], 32768, 40000);
	}
	run_combination(true, mixtures[1], 32767, 40000);
	run_combination(true, mixtures[4], 30000, 40000);
}

/* A chain of as many buffers as the queue has entries, directly and through one table. */
static void full_chain(bool packed, bool indirect, uint16_t size)
{
	struct pair pair;
	struct vmsg_buf *bufs = calloc(size, sizeof(*bufs));
	uint8_t *data = malloc(size);
	uint32_t written = 0;
	void *cookie = NULL;

	test_context("packed %d indirect %d size %u", packed, indirect, size);
	CHECK(bufs && data);
	pair_open(&pair, packed, indirect ? VMSG_BIT(VMSG_F_INDIRECT_DESC) : 0, size,
		  indirect ? size : 0, size);
	for (uint32_t lap = 0; lap < 3; lap++) {
		uint16_t readable = (uint16_t)(size / 2);

		for (uint32_t i = 0; i < size; i++) {
			bufs[i] = (struct vmsg_buf){ pair.data_addr + i, 1 };
			pair.data[i] = pattern(lap, i);
		}
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, readable, (uint16_t)(size - readable),
				     bufs),
			 0);
		CHECK_EQ(pair.driver.free_count, indirect && size > 1 ? size - 1 : 0);
		vmsg_vq_publish(&pair.driver);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		CHECK_EQ(pair.chain.readable_count, readable);
		CHECK_EQ(pair.chain.writable_count, size - readable);
		CHECK_EQ(vmsg_chain_read(&pair.chain, 0, data, size), readable);
		for (uint32_t i = 0; i < readable; i++)
			CHECK_EQ(data[i], pattern(lap, i));
		for (uint32_t i = 0; i < size; i++)
			data[i] = pattern(lap + 9, i);
		CHECK_EQ(vmsg_chain_write(&pair.chain, 0, data, size), size - readable);
		vmsg_vq_push(&pair.device, &pair.chain, (uint32_t)(size - readable));
		CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
		CHECK(cookie == bufs);
		CHECK_EQ(written, size - readable);
		CHECK_MEM(pair.data + readable, data, written);
	}
	pair_close(&pair);
	free(data);
	free(bufs);
}

static void test_full_chain(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		for (int indirect = 0; indirect < 2; indirect++) {
			for (size_t i = 0; i < COUNT_OF(split_sizes); i++)
				full_chain(packed, indirect, split_sizes[i]);
		}
	}
	full_chain(true, false, 7);
	full_chain(false, false, 32768);
	full_chain(true, false, 32768);
}

static void full_queue(bool packed, uint64_t features, uint16_t size)
{
	struct pair pair;
	struct vmsg_buf bufs[2];
	uint32_t written;
	void *cookie;

	test_context("packed %d features %#llx size %u", packed, (unsigned long long)features,
		     size);
	pair_open(&pair, packed, features, size, 2, 64);
	bufs[0] = (struct vmsg_buf){ pair.data_addr, 8 };
	bufs[1] = (struct vmsg_buf){ pair.data_addr + 8, 8 };
	for (uint32_t lap = 0; lap < 5; lap++) {
		bool tables = vmsg_has(features, VMSG_F_INDIRECT_DESC);
		uint32_t count = tables ? size : size / 2u;

		/* Fills it with pairs of buffers; the odd entry takes a single one. */
		for (uint32_t i = 0; i < count; i++)
			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 1, bufs), 0);
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 1, bufs),
			 size == 1 && !tables ? VMSG_ERR_INVAL : VMSG_ERR_AGAIN);
		if (!tables && size % 2) {
			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 0, bufs), 0);
			count++;
		}
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 0, bufs), VMSG_ERR_AGAIN);
		vmsg_vq_publish(&pair.driver);
		for (uint32_t i = 0; i < count; i++) {
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			vmsg_vq_push(&pair.device, &pair.chain, 0);
		}
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 0);
		for (uint32_t i = 0; i < count; i++)
			CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
		CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 0);
		CHECK_EQ(pair.driver.free_count, size);
	}
	pair_close(&pair);
}

static void test_full_queue(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < COUNT_OF(mixtures); i++) {
		for (size_t j = 1; j < COUNT_OF(split_sizes); j++)
			full_queue(false, mixtures[i], split_sizes[j]);
		for (size_t j = 1; j < COUNT_OF(packed_sizes); j++)
			full_queue(true, mixtures[i], packed_sizes[j]);
	}
	full_queue(false, 0, 1);
	full_queue(true, 0, 1);
}

/* Chains that the device never gave back, published or not, come out of drain once each. */
static void drain(bool packed, uint64_t features)
{
	struct pair pair;
	struct vmsg_buf bufs[3];
	int cookies[16] = { 0 };
	uint32_t count = 0, written;
	void *cookie;

	test_context("packed %d features %#llx", packed, (unsigned long long)features);
	pair_open(&pair, packed, features, 16, 3, 64);
	for (uint32_t i = 0; i < 3; i++)
		bufs[i] = (struct vmsg_buf){ pair.data_addr + 16 * i, 16 };
	for (uint32_t lap = 0; lap < 3; lap++) {
		memset(cookies, 0, sizeof(cookies));
		for (count = 0; count < 5; count++)
			CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 1, &cookies[count]), 0);
		vmsg_vq_publish(&pair.driver);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		vmsg_vq_push(&pair.device, &pair.chain, 5);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		CHECK_EQ(vmsg_vq_get(&pair.driver, &cookie, &written), 1);
		CHECK(cookie == &cookies[0]);
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 0, &cookies[5]), 0);
		vmsg_vq_device_reset(&pair.device);
		while ((cookie = vmsg_vq_drain(&pair.driver)) != NULL)
			++*(int *)cookie;
		CHECK(vmsg_vq_drain(&pair.driver) == NULL);
		CHECK_EQ(cookies[0], 0);
		for (uint32_t i = 1; i <= 5; i++)
			CHECK_EQ(cookies[i], 1);
		pair_start(&pair);
		pair_round_trip(&pair, (uint8_t)lap);
		vmsg_vq_device_reset(&pair.device);
		pair_start(&pair);
	}
	pair_close(&pair);
}

static void test_drain(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < COUNT_OF(mixtures); i++) {
		drain(false, mixtures[i]);
		drain(true, mixtures[i]);
	}
}

/* RING_RESET: the same queue comes back with another size and other addresses, in mid-use. */
static void test_resize(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;

		pair_open(&pair, packed,
			  VMSG_BIT(VMSG_F_RING_RESET) | VMSG_BIT(VMSG_F_IN_ORDER) |
				  VMSG_BIT(VMSG_F_EVENT_IDX),
			  16, 0, 64);
		for (uint32_t i = 0; i < 21; i++)
			pair_round_trip(&pair, (uint8_t)i);
		for (int i = 0; i < 3; i++)
			pair_send(&pair, false, &pair);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		pair.size = 4;
		pair.memory.desc += 64;
		pair.memory.desc_addr += 64;
		pair_restart(&pair);
		for (uint32_t i = 0; i < 21; i++)
			pair_round_trip(&pair, (uint8_t)i);
		CHECK_EQ(pair.driver.free_count, 4);
		pair.size = 16;
		pair.memory.desc -= 64;
		pair.memory.desc_addr -= 64;
		pair_restart(&pair);
		for (uint32_t i = 0; i < 21; i++)
			pair_round_trip(&pair, (uint8_t)i);
		CHECK_EQ(pair.driver.free_count, 16);
		pair_close(&pair);
	}
}

/* A driver that adds what it must not is told so, and nothing is taken from the queue. */
static void test_bad_add(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		struct vmsg_buf bufs[5];

		test_context("packed %d", packed);
		pair_open(&pair, packed, VMSG_BIT(VMSG_F_INDIRECT_DESC), 4, 8, 64);
		for (size_t i = 0; i < COUNT_OF(bufs); i++)
			bufs[i] = (struct vmsg_buf){ pair.data_addr, 16 };
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 0, 0, bufs), VMSG_ERR_INVAL);
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 3, bufs), VMSG_ERR_INVAL);
		bufs[1].len = 0;
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 2, 0, bufs), VMSG_ERR_INVAL);
		bufs[0].len = 0x80000000u;
		bufs[1].len = 0x80000000u;
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 1, bufs), VMSG_ERR_INVAL);
		bufs[1].len = 0x7fffffffu;
		CHECK_EQ(vmsg_vq_add(&pair.driver, bufs, 1, 1, bufs), 0);
		CHECK_EQ(pair.driver.free_count, 3);
		pair_close(&pair);
	}
}

static const struct test tests[] = {
	{ "split", test_split, NULL },
	{ "packed", test_packed, NULL },
	{ "index_wrap", test_index_wrap, NULL },
	{ "largest", test_largest, NULL },
	{ "full_chain", test_full_chain, NULL },
	{ "full_queue", test_full_queue, NULL },
	{ "drain", test_drain, NULL },
	{ "resize", test_resize, NULL },
	{ "bad_add", test_bad_add, NULL },
};

int main(int argc, char **argv)
{
	return test_main("vq_round", tests, COUNT_OF(tests), argc, argv);
}
