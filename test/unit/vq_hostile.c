/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A hostile driver against the device side of a virtqueue: every forged ring must make the queue
 * broken at the pop that meets it, and after a reset the queue must work again.
 */
#include "vq_fixture.h"

#define SIZE     8u
#define INDIRECT VMSG_BIT(VMSG_F_INDIRECT_DESC)
#define EXTRA    64u /* bytes of a second region, right behind the first one */

/* What addresses are counted from. */
enum base {
	DATA,  /* the buffers' area */
	END,   /* the first byte after the region; the second region starts there */
	ZERO,  /* nothing */
	TABLE, /* where the case's indirect table is put */
};

#define TABLE_OFFSET 256u /* in DATA */

struct entry {
	enum base base;
	uint64_t offset;
	uint32_t len;
	uint16_t flags;
	uint16_t next; /* split: 0 is the following entry */
};

#define NEXT VMSG_DESC_NEXT
#define WRIT VMSG_DESC_WRITE
#define INDI VMSG_DESC_INDIRECT

/*
 * One chain, put at the start of the ring in either format, and the table it may name. A case with
 * `good` must be taken, with these numbers of buffers: so near the limit, and yet allowed.
 */
struct chain_case {
	const char *name;
	uint64_t features;
	struct entry ring[SIZE];
	struct entry table[SIZE + 2];
	uint16_t iov_max;      /* 0: SIZE */
	uint32_t extra_access; /* of the second region; 0: both */
	bool good;
	uint16_t readable_count, writable_count;
	bool split_only;
};

static const struct chain_case chain_cases[] = {
	/* Addresses: catalogue R6 */
	{ .name = "before_region", .ring = { { END, -0x100000000u, 16, 0, 0 } } },
	{ .name = "address_zero", .ring = { { ZERO, 0, 16, 0, 0 } } },
	{ .name = "behind_regions", .ring = { { END, EXTRA, 1, 0, 0 } } },
	{ .name = "far_behind", .ring = { { END, 0x100000000u, 16, 0, 0 } } },
	{ .name = "crosses_end", .ring = { { END, EXTRA - 15, 16, 0, 0 } } },
	{ .name = "crosses_into_neighbour", .ring = { { END, -8ull, 16, 0, 0 } } },
	{ .name = "crosses_start", .ring = { { ZERO, PAIR_ADDR - 8, 16, 0, 0 } } },
	{ .name = "wraps_64_bits", .ring = { { ZERO, UINT64_MAX - 7, 16, 0, 0 } } },
	{ .name = "wraps_into_region", .ring = { { DATA, 0, UINT32_MAX, 0, 0 } } },
	{ .name = "low_half_only", .ring = { { ZERO, PAIR_ADDR & UINT32_MAX, 16, 0, 0 } } },
	{ .name = "second_outside",
	  .ring = { { DATA, 0, 16, NEXT, 0 }, { END, EXTRA - 1, 2, WRIT, 0 } } },
	{ .name = "up_to_end", .ring = { { END, EXTRA - 16, 16, 0, 0 } },
	  .good = true, .readable_count = 1 },
	{ .name = "up_to_neighbour",
	  .ring = { { END, -8ull, 8, NEXT, 0 }, { END, 0, 8, 0, 0 } },
	  .good = true, .readable_count = 2 },

	/* Lengths: R7 */
	{ .name = "empty", .ring = { { DATA, 0, 0, 0, 0 } } },
	{ .name = "empty_writable", .ring = { { DATA, 0, 0, WRIT, 0 } } },
	{ .name = "empty_second", .ring = { { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 0, 0, 0 } } },
	{ .name = "all_ones_length", .ring = { { DATA, 0, UINT32_MAX, WRIT, 0 } } },
	{ .name = "one_byte", .ring = { { DATA, 0, 1, 0, 0 } }, .good = true, .readable_count = 1 },

	/* Directions: R8 */
	{ .name = "readable_after_writable",
	  .ring = { { DATA, 0, 4, NEXT | WRIT, 0 }, { DATA, 8, 4, 0, 0 } } },
	{ .name = "readable_between_writable",
	  .ring = { { DATA, 0, 4, NEXT, 0 }, { DATA, 4, 4, NEXT | WRIT, 0 },
		    { DATA, 8, 4, NEXT, 0 }, { DATA, 12, 4, WRIT, 0 } } },
	{ .name = "both_directions",
	  .ring = { { DATA, 0, 4, NEXT, 0 }, { DATA, 4, 4, NEXT | WRIT, 0 },
		    { DATA, 12, 4, WRIT, 0 } },
	  .good = true, .readable_count = 1, .writable_count = 2 },

	/* Permissions of a region */
	{ .name = "writes_read_only", .ring = { { END, 0, 4, WRIT, 0 } },
	  .extra_access = VMSG_MEM_READ },
	{ .name = "reads_write_only", .ring = { { END, 0, 4, 0, 0 } },
	  .extra_access = VMSG_MEM_WRITE },
	{ .name = "reads_read_only", .ring = { { END, 0, 4, 0, 0 } },
	  .extra_access = VMSG_MEM_READ, .good = true, .readable_count = 1 },
	{ .name = "writes_write_only", .ring = { { END, 0, 4, WRIT, 0 } },
	  .extra_access = VMSG_MEM_WRITE, .good = true, .writable_count = 1 },

	/* Longer than the device made room for: R5 */
	{ .name = "more_than_iov_max",
	  .ring = { { DATA, 0, 4, NEXT, 0 }, { DATA, 4, 4, NEXT, 0 }, { DATA, 8, 4, 0, 0 } },
	  .iov_max = 2 },
	{ .name = "table_more_than_iov_max", .features = INDIRECT,
	  .ring = { { TABLE, 0, 48, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { DATA, 4, 4, NEXT, 0 }, { DATA, 8, 4, 0, 0 } },
	  .iov_max = 2 },

	/* Split links: R3, R4 */
	{ .name = "next_is_size", .split_only = true, .ring = { { DATA, 0, 4, NEXT, SIZE } } },
	{ .name = "next_all_ones", .split_only = true, .ring = { { DATA, 0, 4, NEXT, 0xffff } } },
	{ .name = "loop_of_2", .split_only = true,
	  .ring = { { DATA, 0, 4, NEXT, 1 }, { DATA, 0, 4, NEXT, 2 }, { DATA, 0, 4, NEXT, 1 } },
	  .iov_max = 100 },
	{ .name = "loop_of_all", .split_only = true,
	  .ring = { { DATA, 0, 4, NEXT, 1 }, { DATA, 0, 4, NEXT, 2 }, { DATA, 0, 4, NEXT, 3 },
		    { DATA, 0, 4, NEXT, 4 }, { DATA, 0, 4, NEXT, 5 }, { DATA, 0, 4, NEXT, 6 },
		    { DATA, 0, 4, NEXT, 7 }, { DATA, 0, 4, NEXT, 1 } },
	  .iov_max = 100 },
	{ .name = "loop_within_iov_max", .split_only = true,
	  .ring = { { DATA, 0, 4, NEXT, 1 }, { DATA, 0, 4, NEXT, 2 }, { DATA, 0, 4, NEXT, 1 } } },

	/* Indirect tables: R9, K3, K4 */
	{ .name = "table_not_negotiated", .ring = { { TABLE, 0, 16, INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_and_next", .features = INDIRECT,
	  .ring = { { TABLE, 0, 16, INDI | NEXT, 0 }, { DATA, 0, 4, 0, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "two_tables", .features = INDIRECT,
	  .ring = { { TABLE, 0, 16, INDI | NEXT, 0 }, { TABLE, 0, 16, INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_in_table", .features = INDIRECT, .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { TABLE, 0, 16, INDI, 0 } } },
	{ .name = "table_empty", .features = INDIRECT, .ring = { { TABLE, 0, 0, INDI, 0 } } },
	{ .name = "table_15_bytes", .features = INDIRECT, .ring = { { TABLE, 0, 15, INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_17_bytes", .features = INDIRECT, .ring = { { TABLE, 0, 17, INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_larger_than_queue", .features = INDIRECT,
	  .ring = { { TABLE, 0, 16 * (SIZE + 1), INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 },
		     { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 },
		     { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 }, { DATA, 0, 4, 0, 0 } },
	  .iov_max = 100 },
	{ .name = "table_huge", .features = INDIRECT,
	  .ring = { { TABLE, 0, 0xfffffff0u, INDI, 0 } }, .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_outside", .features = INDIRECT, .ring = { { END, EXTRA, 16, INDI, 0 } } },
	{ .name = "table_crosses_end", .features = INDIRECT, .ring = { { END, 56, 16, INDI, 0 } } },
	{ .name = "table_write_only", .features = INDIRECT, .ring = { { END, 0, 16, INDI, 0 } },
	  .extra_access = VMSG_MEM_WRITE },
	{ .name = "table_misaligned", .features = INDIRECT, .ring = { { TABLE, 2, 16, INDI, 0 } },
	  .table = { { DATA, 0, 4, 0, 0 } } },
	{ .name = "table_entry_outside", .features = INDIRECT,
	  .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { END, EXTRA, 4, 0, 0 } } },
	{ .name = "table_entry_empty", .features = INDIRECT, .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { DATA, 4, 0, 0, 0 } } },
	{ .name = "table_readable_after_writable", .features = INDIRECT,
	  .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT | WRIT, 0 }, { DATA, 4, 4, 0, 0 } } },
	{ .name = "table_after_writable", .features = INDIRECT,
	  .ring = { { DATA, 0, 4, NEXT | WRIT, 0 }, { TABLE, 0, 16, INDI, 0 } },
	  .table = { { DATA, 4, 4, 0, 0 } } },
	{ .name = "table_makes_chain_too_long", .features = INDIRECT,
	  .ring = { { DATA, 0, 4, NEXT, 0 }, { TABLE, 0, 16 * SIZE, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 },
		     { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 },
		     { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, 0, 0 } },
	  .iov_max = 100 },
	{ .name = "table_loop_of_1", .split_only = true, .features = INDIRECT,
	  .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 1 }, { DATA, 4, 4, NEXT, 1 } }, .iov_max = 100 },
	{ .name = "table_next_outside", .split_only = true, .features = INDIRECT,
	  .ring = { { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 2 }, { DATA, 4, 4, 0, 0 }, { DATA, 8, 4, 0, 0 } } },
	{ .name = "table_full", .features = INDIRECT,
	  .ring = { { TABLE, 0, 16 * SIZE, INDI, 0 } },
	  .table = { { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 },
		     { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 }, { DATA, 0, 4, NEXT, 0 },
		     { DATA, 0, 4, NEXT | WRIT, 0 }, { DATA, 0, 4, WRIT, 0 } },
	  .good = true, .readable_count = 6, .writable_count = 2 },
	/* Direct descriptors may precede a table (virtio 1.4, 2.7.5.3.2). */
	{ .name = "direct_then_table", .features = INDIRECT,
	  .ring = { { DATA, 0, 4, NEXT, 0 }, { TABLE, 0, 32, INDI, 0 } },
	  .table = { { DATA, 4, 4, NEXT, 0 }, { DATA, 8, 4, WRIT, 0 } },
	  .good = true, .readable_count = 2, .writable_count = 1 },
	/* WRITE on the descriptor of a table is ignored (virtio 1.4, 2.7.5.3.2). */
	{ .name = "table_write_flag", .features = INDIRECT,
	  .ring = { { TABLE, 0, 16, INDI | WRIT, 0 } }, .table = { { DATA, 4, 4, 0, 0 } },
	  .good = true, .readable_count = 1 },
	{ .name = "table_aligned_to_4", .features = INDIRECT,
	  .ring = { { END, 4, 16, INDI, 0 } }, .good = true, .readable_count = 1 },
};

static uint64_t address(const struct pair *pair, const struct entry *entry)
{
	switch (entry->base) {
	case DATA:
		return pair->data_addr + entry->offset;
	case TABLE:
		return pair->data_addr + TABLE_OFFSET + entry->offset;
	case END:
		return PAIR_ADDR + pair->bytes + entry->offset;
	case ZERO:
		break;
	}
	return entry->offset;
}

static void write_table(struct pair *pair, const struct entry *table, uint8_t *ptr)
{
	for (uint32_t i = 0; i < SIZE + 2 && table[i].len | table[i].flags; i++, ptr += 16) {
		vmsg_put64(ptr, address(pair, &table[i]));
		vmsg_put32(ptr + 8, table[i].len);
		if (pair->packed) {
			vmsg_put16(ptr + 12, 0);
			vmsg_put16(ptr + 14, table[i].flags);
		} else {
			vmsg_put16(ptr + 12, table[i].flags);
			vmsg_put16(ptr + 14,
				   (uint16_t)(table[i].next ? table[i].next : i + 1));
		}
	}
}

/* Puts the chain at the start of the ring, in the first lap. */
static void write_ring(struct pair *pair, const struct entry *ring)
{
	for (uint32_t i = 0; i < SIZE; i++) {
		const struct entry *entry = &ring[i];
		uint32_t next = entry->next ? entry->next : i + 1;

		if (pair->packed)
			raw_packed(pair, i, address(pair, entry), entry->len, 5,
				   entry->flags | VMSG_DESC_AVAIL);
		else
			raw_desc(pair, i, address(pair, entry), entry->len, entry->flags, next);
		if (!(entry->flags & NEXT))
			break;
	}
	if (!pair->packed) {
		raw_avail(pair, 0, 0);
		raw_avail_idx(pair, 1);
	}
}

/* The next pop must find the ring bad; then a reset must heal it. */
static void must_break(struct pair *pair)
{
	uint16_t in_flight = pair->device.in_flight;

	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), VMSG_ERR_PROTO);
	CHECK(pair->device.broken);
	CHECK_EQ(pair->device.in_flight, in_flight);
	/* Loops are not followed further than a chain can be long. */
	CHECK(pair->chain.readable_count + pair->chain.writable_count <= SIZE);
	/* Whatever the driver mends now. */
	memset(pair->memory.desc, 0, SIZE * 16);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), VMSG_ERR_PROTO);
	CHECK(!vmsg_vq_want_kicks(&pair->device, true));
	vmsg_vq_device_reset(&pair->device);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	pair_restart(pair);
	for (uint8_t i = 0; i < 2 * SIZE + 1; i++)
		pair_round_trip(pair, i);
}

static void run_chain_case(const struct chain_case *test, bool packed)
{
	static struct vmsg_iov iov[100];
	void *extra = NULL;
	struct pair pair;
	uint8_t *table;

	test_context("packed %d", packed);
	pair_open(&pair, packed, test->features, SIZE, 0, 512);
	CHECK_EQ(posix_memalign(&extra, 64, EXTRA), 0);
	memset(extra, 0, EXTRA);
	pair.region[1] = (struct vmsg_region){
		.addr = PAIR_ADDR + pair.bytes,
		.len_bytes = EXTRA,
		.ptr = extra,
		.access = test->extra_access ? test->extra_access : VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = -1,
	};
	CHECK_EQ(vmsg_mem_init(&pair.mem, pair.region, 2), 0);
	free(pair.chain.iov);
	pair.chain.iov = iov;
	pair.chain.iov_max = test->iov_max ? test->iov_max : SIZE;
	/* A misaligned one is good but for that. */
	table = pair.data + TABLE_OFFSET;
	if (test->ring[0].base == TABLE)
		table += test->ring[0].offset;
	write_table(&pair, test->table, table);
	if (test->ring[0].base == END && (test->ring[0].flags & INDI)) {
		const struct entry entries[SIZE + 2] = { { DATA, 0, 4, 0, 0 } };

		write_table(&pair, entries, (uint8_t *)extra + 4);
	}
	write_ring(&pair, test->ring);
	if (test->good) {
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		CHECK_EQ(pair.chain.readable_count, test->readable_count);
		CHECK_EQ(pair.chain.writable_count, test->writable_count);
		CHECK_EQ(pair.chain.id, packed ? 5 : 0);
		vmsg_vq_push(&pair.device, &pair.chain, 0);
	} else {
		must_break(&pair);
	}
	pair.chain.iov = NULL;
	pair_close(&pair);
	free(extra);
}

static void test_chain(void *arg)
{
	const struct chain_case *test = arg;

	run_chain_case(test, false);
	if (!test->split_only)
		run_chain_case(test, true);
}

/* 2^32 bytes in one chain: needs a region of that size, which nobody touches. */
static void test_sum(void *arg)
{
	(void)arg;
	for (int i = 0; i < 8; i++) {
		bool packed = i & 1, table = i & 2, good = i & 4;
		struct pair pair;
		const struct entry parts[SIZE + 2] = {
			{ ZERO, 0x1000, 0x80000000u, NEXT, 0 },
			{ ZERO, 0x1000, 0x7fffffffu, NEXT | WRIT, 0 },
			{ ZERO, 0x1000, good ? 0 : 1, WRIT, 0 },
		};
		const struct entry ring[SIZE] = { { TABLE, 0, good ? 32 : 48, INDI, 0 } };

		test_context("packed %d table %d good %d", packed, table, good);
		pair_open(&pair, packed, INDIRECT, SIZE, 0, 512);
		pair.region[1] = (struct vmsg_region){
			.addr = 0x1000,
			.len_bytes = 0x80000000u,
			.ptr = pair.ptr,
			.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
			.fd = -1,
		};
		CHECK_EQ(vmsg_mem_init(&pair.mem, pair.region, 2), 0);
		write_table(&pair, parts, pair.data + TABLE_OFFSET);
		write_ring(&pair, table ? ring : parts);
		if (good) {
			size_t last = table ? (size_t)(pair.data + TABLE_OFFSET - pair.ptr) + 16
					    : (size_t)(pair.memory.desc - pair.ptr) + 16;
			size_t flags = last + (packed ? 14 : 12);

			/* One byte less: ends with the second part. */
			vmsg_put16(pair.ptr + flags,
				   (uint16_t)(vmsg_get16(pair.ptr + flags) & ~NEXT));
			CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
			CHECK_EQ(pair.chain.readable_bytes, 0x80000000u);
			CHECK_EQ(pair.chain.writable_bytes, 0x7fffffffu);
		} else {
			must_break(&pair);
		}
		pair_close(&pair);
	}
}

static struct pair *open_split(uint64_t features)
{
	static struct pair pair;

	pair_open(&pair, false, features, SIZE, 0, 512);
	for (uint32_t i = 0; i < SIZE; i++)
		raw_desc(&pair, i, pair.data_addr, 4, 0, 0);
	return &pair;
}

static void test_head(void *arg)
{
	static const unsigned int heads[] = { SIZE, SIZE + 1, 0x7fff, 0xffff };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(heads); i++) {
		struct pair *pair = open_split(0);

		test_context("head %u", heads[i]);
		raw_avail(pair, 0, heads[i]);
		raw_avail_idx(pair, 1);
		must_break(pair);
		pair_close(pair);
	}
}

/* R2: from several starting points, some with the index about to wrap. */
static void test_avail_jump(void *arg)
{
	static const unsigned int jumps[] = { SIZE + 1, SIZE + 2, 0x7fff, 0x8000, 0xfff7, 0xffff };
	static const unsigned int starts[] = { 0, 1, 5, 0xfffe };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(jumps) * COUNT_OF(starts); i++) {
		unsigned int start = starts[i / COUNT_OF(jumps)];
		unsigned int jump = jumps[i % COUNT_OF(jumps)];
		struct pair *pair = open_split(0);

		test_context("start %u jump %u", start, jump);
		for (unsigned int idx = 1; idx <= start; idx++) {
			raw_avail_idx(pair, idx);
			CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
			vmsg_vq_push(&pair->device, &pair->chain, 0);
		}
		raw_avail_idx(pair, start + jump);
		must_break(pair);
		pair_close(pair);
	}
}

/* The whole queue at once is no jump. */
static void test_avail_full(void *arg)
{
	struct pair *pair = open_split(0);

	(void)arg;
	for (unsigned int i = 0; i < SIZE; i++)
		raw_avail(pair, i, SIZE - 1 - i);
	raw_avail_idx(pair, SIZE);
	for (unsigned int i = 0; i < SIZE; i++) {
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
		CHECK_EQ(pair->chain.id, SIZE - 1 - i);
	}
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	CHECK_EQ(pair->device.in_flight, SIZE);
	/* All descriptors are with us: there is nothing left to publish (R10). */
	raw_avail_idx(pair, SIZE + 1);
	must_break(pair);
	pair_close(pair);
}

/* R10: one head over and over costs the device no more than the queue size. */
static void test_same_head(void *arg)
{
	struct pair *pair = open_split(0);
	unsigned int taken = 0;

	(void)arg;
	for (unsigned int idx = 1; idx <= SIZE; idx++) {
		raw_avail(pair, (idx - 1) % SIZE, 3);
		raw_avail_idx(pair, idx);
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
		CHECK_EQ(pair->chain.id, 3);
		taken++;
	}
	CHECK_EQ(pair->device.in_flight, taken);
	raw_avail(pair, 0, 3);
	raw_avail_idx(pair, SIZE + 1);
	must_break(pair);
	pair_close(pair);
}

/* R11: what is popped is a private copy. */
static void test_rewritten(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, SIZE, 0, 64);
		pair_send(&pair, true, &pair);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		memset(pair.memory.desc, 0xff, SIZE * 16);
		CHECK(pair.chain.iov[0].ptr == pair.data);
		CHECK_EQ(pair.chain.iov[0].len, 16);
		CHECK_EQ(pair.chain.id, 0);
		vmsg_vq_push(&pair.device, &pair.chain, 16);
		if (packed)
			CHECK_EQ(vmsg_get32(pair.memory.desc + 12), 0x80820000u);
		else
			CHECK_EQ(vmsg_get32(pair.memory.device + 4), 0);
		pair_close(&pair);
	}
}

/* R12: buffers on the rings. The device may write there; it breaks at worst. */
static void test_ring_as_buffer(void *arg)
{
	uint8_t ones[SIZE * 16];

	(void)arg;
	memset(ones, 0xff, sizeof(ones));
	for (int i = 0; i < 6; i++) {
		const uint64_t areas[] = { 0, 1, 2 };
		bool packed = i & 1;
		struct pair pair;
		struct vmsg_buf buf = { 0, 2 };

		test_context("packed %d area %d", packed, i / 2);
		pair_open(&pair, packed, VMSG_BIT(VMSG_F_EVENT_IDX), SIZE, 0, 64);
		buf.addr = areas[i / 2] == 0 ? pair.memory.desc_addr
			   : areas[i / 2] == 1 ? pair.memory.driver_addr
					       : pair.memory.device_addr;
		buf.len = areas[i / 2] == 0 ? SIZE * 16 : 4;
		CHECK_EQ(vmsg_vq_add(&pair.driver, &buf, 0, 1, &pair), 0);
		vmsg_vq_publish(&pair.driver);
		CHECK_EQ(vmsg_vq_pop(&pair.device, &pair.chain), 1);
		CHECK_EQ(vmsg_chain_write(&pair.chain, 0, ones, buf.len), buf.len);
		CHECK(vmsg_vq_pop(&pair.device, &pair.chain) <= 0);
		vmsg_vq_used_event(&pair.device);
		pair_restart(&pair);
		pair_round_trip(&pair, 1);
		pair_close(&pair);
	}
}

/* R13: the device keeps its own index of the used ring. */
static void test_used_scribbled(void *arg)
{
	struct pair *pair = open_split(0);

	(void)arg;
	raw_avail(pair, 0, 2);
	raw_avail(pair, 1, 6);
	raw_avail_idx(pair, 2);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	vmsg_vq_push(&pair->device, &pair->chain, 0);
	memset(pair->memory.device, 0xff, 6 + 8 * SIZE);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	vmsg_vq_push(&pair->device, &pair->chain, 0);
	CHECK_EQ(vmsg_get16(pair->memory.device + 2), 2);
	CHECK_EQ(vmsg_get32(pair->memory.device + 12), 6);
	CHECK_EQ(vmsg_get32(pair->memory.device + 20), 0xffffffffu);
	pair_close(pair);
}

/* R15: a queue that is not enabled has nothing, and a broken one takes no more. */
static void test_not_enabled(void *arg)
{
	struct pair *pair = open_split(0);

	(void)arg;
	raw_avail_idx(pair, 1);
	vmsg_vq_device_reset(&pair->device);
	CHECK_EQ(pair->device.max_size, VMSG_VQ_MAX_SIZE);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	CHECK(!vmsg_vq_want_kicks(&pair->device, true));
	CHECK(!vmsg_vq_used_event(&pair->device));
	pair_close(pair);
}

/* R16 */
static void test_all_ones(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;

		test_context("packed %d", packed);
		pair_open(&pair, packed, ~(uint64_t)0, SIZE, 0, 64);
		memset(pair.ptr, 0xff, pair.bytes);
		must_break(&pair);
		pair_close(&pair);
	}
}

static struct pair *open_packed(uint64_t features, uint16_t size)
{
	static struct pair pair;

	pair_open(&pair, true, features, size, 0, 512);
	return &pair;
}

static void put_packed(struct pair *pair, unsigned int slot, unsigned int id, unsigned int flags)
{
	raw_packed(pair, slot, pair->data_addr, 4, id, flags);
}

#define BOTH (VMSG_DESC_AVAIL | VMSG_DESC_USED)

/* K1: the flags of a descriptor that claims to be used already. */
static void test_packed_both_bits(void *arg)
{
	struct pair *pair = open_packed(0, SIZE);

	(void)arg;
	put_packed(pair, 0, 0, BOTH);
	must_break(pair);
	pair_close(pair);

	/* In the second lap used means neither bit. */
	pair = open_packed(0, 2);
	pair_round_trip(pair, 1);
	put_packed(pair, 0, 0, 0);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), VMSG_ERR_PROTO);
	pair_close(pair);
}

/* K1: left over from the lap before, or of a lap that has not come: not there, and no harm. */
static void test_packed_other_lap(void *arg)
{
	struct pair *pair = open_packed(0, SIZE);

	(void)arg;
	put_packed(pair, 0, 0, VMSG_DESC_USED);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	put_packed(pair, 0, 0, 0);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	CHECK(!pair->device.broken);
	pair_close(pair);
}

/* K1: a chain whose later descriptors are not available. */
static void test_packed_mid_chain(void *arg)
{
	static const unsigned int flags[] = { 0, VMSG_DESC_USED, BOTH };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(flags); i++) {
		for (unsigned int bad = 1; bad < 3; bad++) {
			struct pair *pair = open_packed(0, SIZE);

			test_context("flags %#x at %u", flags[i], bad);
			for (unsigned int slot = 0; slot < 3; slot++)
				put_packed(pair, slot, 0,
					   (slot == bad ? flags[i] : VMSG_DESC_AVAIL) |
						   (slot < 2 ? NEXT : 0));
			must_break(pair);
			pair_close(pair);
		}
	}
}

/* K2 */
static void test_packed_id(void *arg)
{
	static const unsigned int ids[] = { SIZE, SIZE + 1, 0x8000, 0xffff };
	struct pair *pair;

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		pair = open_packed(0, SIZE);
		test_context("id %u", ids[i]);
		put_packed(pair, 0, 1, VMSG_DESC_AVAIL | NEXT);
		put_packed(pair, 1, ids[i], VMSG_DESC_AVAIL);
		must_break(pair);
		pair_close(pair);
	}
	/* Only the id of the last one counts. One that is out already is the driver's trouble. */
	test_context("duplicate");
	pair = open_packed(0, SIZE);
	put_packed(pair, 0, 0xffff, VMSG_DESC_AVAIL | NEXT);
	put_packed(pair, 1, 7, VMSG_DESC_AVAIL);
	put_packed(pair, 2, 7, VMSG_DESC_AVAIL);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
		CHECK_EQ(pair->chain.id, 7);
	}
	pair_close(pair);
}

/* K5: a ring that is one chain without end, of any size, with room in iov for more. */
static void test_packed_endless(void *arg)
{
	static struct vmsg_iov iov[100];
	static const uint16_t sizes[] = { 1, 2, 7, SIZE };

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		struct pair *pair = open_packed(0, sizes[i]);
		struct vmsg_chain chain = { .iov = iov, .iov_max = 100 };

		test_context("size %u", sizes[i]);
		for (unsigned int slot = 0; slot < sizes[i]; slot++)
			put_packed(pair, slot, 0, VMSG_DESC_AVAIL | NEXT);
		CHECK_EQ(vmsg_vq_pop(&pair->device, &chain), VMSG_ERR_PROTO);
		CHECK(pair->device.broken);
		pair_restart(pair);
		pair_round_trip(pair, 2);
		pair_close(pair);
	}
}

/* K5: a chain over the end of the ring is fine, with the bits of each lap. */
static void test_packed_over_end(void *arg)
{
	struct pair *pair = open_packed(0, SIZE);

	(void)arg;
	for (unsigned int i = 0; i < SIZE - 1; i++)
		pair_round_trip(pair, 1);
	/* Each of those took two slots: the next is slot 6 of the second lap, wrap counter 0. */
	put_packed(pair, 6, 0, VMSG_DESC_USED | NEXT);
	put_packed(pair, 7, 0, VMSG_DESC_USED | NEXT);
	put_packed(pair, 0, 4, VMSG_DESC_AVAIL);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	CHECK_EQ(pair->chain.readable_count, 3);
	CHECK_EQ(pair->chain.slots, 3);
	CHECK_EQ(pair->chain.id, 4);
	vmsg_vq_push(&pair->device, &pair->chain, 0);
	CHECK_EQ(vmsg_get16(pair->memory.desc + 6 * 16 + 14), 0);
	CHECK_EQ(vmsg_get16(pair->memory.desc + 6 * 16 + 12), 4);
	/* With the bits of the lap before, the end of the chain is not there. */
	pair_restart(pair);
	for (unsigned int i = 0; i < SIZE - 1; i++)
		pair_round_trip(pair, 1);
	put_packed(pair, 6, 0, VMSG_DESC_USED | NEXT);
	put_packed(pair, 7, 0, VMSG_DESC_USED | NEXT);
	put_packed(pair, 0, 4, VMSG_DESC_USED);
	must_break(pair);
	pair_close(pair);
}

/* More than the ring holds: slots made available again that the device still has. */
static void test_packed_overtaken(void *arg)
{
	struct pair *pair = open_packed(0, SIZE);

	(void)arg;
	for (unsigned int slot = 0; slot < SIZE; slot++) {
		put_packed(pair, slot, slot, VMSG_DESC_AVAIL);
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	}
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	put_packed(pair, 0, 0, VMSG_DESC_USED);
	must_break(pair);

	/* The same with a chain that needs one slot more than are free. */
	put_packed(pair, 1, 0, VMSG_DESC_USED);
	pair_restart(pair);
	for (unsigned int slot = 0; slot < SIZE - 1; slot++) {
		put_packed(pair, slot, slot, VMSG_DESC_AVAIL);
		CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	}
	put_packed(pair, SIZE - 1, 0, VMSG_DESC_AVAIL | NEXT);
	put_packed(pair, 0, 0, VMSG_DESC_USED);
	must_break(pair);
	pair_close(pair);
}

/* Geometry that vmsg_vq_device_enable() must refuse, leaving the queue as it was: M14 */
static void test_enable(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		const struct vmsg_vq_device_format *format =
			packed ? &vmsg_vq_packed_device : &vmsg_vq_split_device;
		static const struct {
			int64_t desc, driver, device;
			uint32_t size;
			bool split_only;
		} cases[] = {
			{ 0, 0, 0, 0, false },
			{ 0, 0, 0, 32769, false },
			{ 0, 0, 0, 65535, false },
			{ 0, 0, 0, 3, true },
			{ 0, 0, 0, 32767, true },
			{ 8, 0, 0, 8, false },
			{ 1, 0, 0, 8, false },
			{ 0, 1, 0, 8, false },
			{ 0, 0, 2, 8, false },
			{ -0x100000, 0, 0, 8, false },
			{ 0, -0x100000, 0, 8, false },
			{ 0, 0, -0x100000, 8, false },
			{ 0x100000, 0, 0, 8, false },
			{ 0, 0x100000, 0, 8, false },
			{ 0, 0, 0x100000, 8, false },
			{ 0, 0, 0, 64, false }, /* crosses the end: max_size below */
		};
		struct pair pair;

		pair_open(&pair, packed, 0, SIZE, 0, 64);
		vmsg_vq_device_reset(&pair.device);
		for (size_t i = 0; i < COUNT_OF(cases); i++) {
			struct vmsg_vq_device vq = { .max_size = 65535 };
			struct vmsg_vq_device before;

			test_context("packed %d case %zu", packed, i);
			if (packed && cases[i].split_only)
				continue;
			vq.size = (uint16_t)cases[i].size;
			vq.desc_addr = pair.memory.desc_addr + (uint64_t)cases[i].desc;
			vq.driver_addr = pair.memory.driver_addr + (uint64_t)cases[i].driver;
			vq.device_addr = pair.memory.device_addr + (uint64_t)cases[i].device;
			before = vq;
			CHECK_EQ(vmsg_vq_device_enable(&vq, format, &pair.mem, 0), VMSG_ERR_INVAL);
			CHECK_MEM(&vq, &before, sizeof(vq));
		}
		/* Larger than the device allows. */
		pair.device.size = SIZE;
		pair.device.max_size = SIZE - 1;
		pair.device.desc_addr = pair.memory.desc_addr;
		pair.device.driver_addr = pair.memory.driver_addr;
		pair.device.device_addr = pair.memory.device_addr;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, format, &pair.mem, 0), VMSG_ERR_INVAL);
		pair.device.max_size = SIZE;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, format, &pair.mem, 0), 0);
		/* The rings need permissions too; the packed one both. */
		pair.region[0].access = VMSG_MEM_READ;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, format, &pair.mem, 0), VMSG_ERR_INVAL);
		pair.region[0].access = VMSG_MEM_WRITE;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, format, &pair.mem, 0), VMSG_ERR_INVAL);
		pair_close(&pair);
	}
}

/* The descriptors alone in a region that the device may not write: split rings need no more. */
static void test_enable_read_only(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, SIZE, 0, 64);
		pair.region[1] = pair.region[0];
		pair.region[0].len_bytes = 16 * SIZE;
		pair.region[0].access = VMSG_MEM_READ;
		pair.region[1].addr += 16 * SIZE;
		pair.region[1].ptr += 16 * SIZE;
		pair.region[1].len_bytes -= 16 * SIZE;
		CHECK_EQ(vmsg_mem_init(&pair.mem, pair.region, 2), 0);
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, pair.device.format, &pair.mem, 0),
			 packed ? VMSG_ERR_INVAL : 0);
		pair.region[0].access = VMSG_MEM_WRITE;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, pair.device.format, &pair.mem, 0),
			 VMSG_ERR_INVAL);
		pair_close(&pair);
	}
}

/* A ring that ends with its region to the byte, and one byte beyond. */
static void test_enable_edge(void *arg)
{
	(void)arg;
	for (int packed = 0; packed < 2; packed++) {
		struct pair pair;
		const struct vmsg_vq_area *areas;

		test_context("packed %d", packed);
		pair_open(&pair, packed, 0, SIZE, 0, 64);
		areas = pair.driver.format->areas;
		CHECK_EQ(vmsg_vq_area_bytes(&areas[0], SIZE), 16 * SIZE);
		CHECK_EQ(vmsg_vq_area_bytes(&areas[1], SIZE), packed ? 4 : 6 + 2 * SIZE);
		CHECK_EQ(vmsg_vq_area_bytes(&areas[2], SIZE), packed ? 4 : 6 + 8 * SIZE);
		pair.region[0].len_bytes = pair.memory.device_addr - PAIR_ADDR +
					   vmsg_vq_area_bytes(&areas[2], SIZE);
		pair_restart(&pair);
		pair.region[0].len_bytes--;
		CHECK_EQ(vmsg_vq_device_enable(&pair.device, pair.device.format, &pair.mem, 0),
			 VMSG_ERR_INVAL);
		pair_close(&pair);
	}
}

/* vmsg_chain_read and _write over parts of 1, 2 and 3 bytes, every offset and length. */
static void test_copy(void *arg)
{
	uint8_t bytes[12] = "abcdefghijkl", copy[16], back[12];
	struct vmsg_iov iov[6];
	struct vmsg_chain chain = { .iov = iov, .readable_count = 3, .writable_count = 3 };

	(void)arg;
	for (size_t i = 0, at = 0; i < 6; i++) {
		iov[i].ptr = bytes + at;
		iov[i].len = i % 3 + 1;
		at += iov[i].len;
	}
	for (size_t offset = 0; offset <= 8; offset++) {
		for (size_t len = 0; len <= 8; len++) {
			size_t expect = offset >= 6 ? 0 : len < 6 - offset ? len : 6 - offset;

			test_context("offset %zu len %zu", offset, len);
			memset(copy, '-', sizeof(copy));
			CHECK_EQ(vmsg_chain_read(&chain, offset, copy, len), expect);
			CHECK_MEM(copy, bytes + offset, expect);
			CHECK_EQ(copy[expect], '-');

			memcpy(back, bytes, sizeof(back));
			CHECK_EQ(vmsg_chain_write(&chain, offset, "123456789", len), expect);
			CHECK_MEM(bytes, back, 6 + (offset < 6 ? offset : 6));
			CHECK_MEM(bytes + 6 + (expect ? offset : 0), "123456789", expect);
			for (size_t i = 6 + offset + expect; i < 12; i++)
				CHECK_EQ(bytes[i], back[i]);
			memcpy(bytes, back, sizeof(back));
		}
	}
}

static const struct test fixed[] = {
	{ "sum", test_sum, NULL },
	{ "head", test_head, NULL },
	{ "avail_jump", test_avail_jump, NULL },
	{ "avail_full", test_avail_full, NULL },
	{ "same_head", test_same_head, NULL },
	{ "rewritten", test_rewritten, NULL },
	{ "ring_as_buffer", test_ring_as_buffer, NULL },
	{ "used_scribbled", test_used_scribbled, NULL },
	{ "not_enabled", test_not_enabled, NULL },
	{ "all_ones", test_all_ones, NULL },
	{ "packed_both_bits", test_packed_both_bits, NULL },
	{ "packed_other_lap", test_packed_other_lap, NULL },
	{ "packed_mid_chain", test_packed_mid_chain, NULL },
	{ "packed_id", test_packed_id, NULL },
	{ "packed_endless", test_packed_endless, NULL },
	{ "packed_over_end", test_packed_over_end, NULL },
	{ "packed_overtaken", test_packed_overtaken, NULL },
	{ "enable", test_enable, NULL },
	{ "enable_read_only", test_enable_read_only, NULL },
	{ "enable_edge", test_enable_edge, NULL },
	{ "copy", test_copy, NULL },
};

int main(int argc, char **argv)
{
	static struct test tests[COUNT_OF(chain_cases) + COUNT_OF(fixed)];

	for (size_t i = 0; i < COUNT_OF(chain_cases); i++)
		tests[i] = (struct test){ chain_cases[i].name, test_chain,
					  (void *)(uintptr_t)&chain_cases[i] };
	memcpy(tests + COUNT_OF(chain_cases), fixed, sizeof(fixed));
	return test_main("vq_hostile", tests, COUNT_OF(tests), argc, argv);
}
