/* SPDX-License-Identifier: BSD-3-Clause */
/* device/blk.c against a driver that sends whatever a test likes, over a backend it commands. */
#include <vmsg/port.h>

#include "blk_fixture.h"

#define CAPACITY    64u /* sectors */
#define SLOTS	    BLK_QUEUE_SIZE
#define PART_BYTES  8192u
#define SEG_BYTES   VMSG_BLK_SEGMENT_BYTES
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define NOT_USED    0xfffffffeu

/* A chain of the driver: its readable part, its writable part, and what became of it. */
struct slot {
	uint8_t *out, *in;
	uint64_t out_addr, in_addr;
	uint32_t written; /* NOT_USED until then */
	uint32_t order;	  /* it came back as the n-th */
};

struct rig {
	struct blk_pair pair;
	struct vmsg_driver driver;
	struct slot slots[SLOTS];
	uint32_t came_back;

	/* The backend: a disk in memory that ends requests at once, or when told to. */
	uint8_t disk[CAPACITY * VMSG_BLK_SECTOR_BYTES];
	bool late, cancel_ends;
	int result;	  /* of every request */
	uint32_t partial; /* bytes moved before a request fails */
	struct vmsg_blk_request *held[SLOTS * BLK_QUEUES];
	uint32_t held_count, submits, cancels, starts;
	struct vmsg_blk_request last; /* as submitted */
	uint32_t waits_left;	      /* then the held ones end */
	bool add_more;
};

static struct rig *the_rig;

/* ---- The backend ---- */

static void move(struct rig *rig, struct vmsg_blk_request *request, uint32_t limit)
{
	while (limit && request->iov_count) {
		struct vmsg_iov *iov = request->iov;
		uint8_t *at = rig->disk + request->offset_bytes;
		uint32_t len = iov->len < limit ? (uint32_t)iov->len : limit;

		if (request->op == VMSG_BLK_READ)
			memcpy(iov->ptr, at, len);
		else
			memcpy(at, iov->ptr, len);
		request->offset_bytes += len;
		limit -= len;
		iov->ptr += len;
		iov->len -= len;
		if (iov->len == 0) {
			request->iov++;
			request->iov_count--;
		}
	}
}

static void finish(struct rig *rig, struct vmsg_blk_request *request, int result)
{
	if (request->op == VMSG_BLK_READ || request->op == VMSG_BLK_WRITE)
		move(rig, request, result ? rig->partial : UINT32_MAX);
	else if (request->op != VMSG_BLK_FLUSH && !result)
		memset(rig->disk + request->offset_bytes, 0, (size_t)request->len_bytes);
	vmsg_blk_done(request, result);
}

static uint32_t send_read(struct rig *rig, uint32_t vq_index, uint32_t index, uint64_t sector);

static void submit(void *backend, struct vmsg_blk_request *request)
{
	struct rig *rig = backend;

	rig->submits++;
	rig->last = *request;
	if (rig->late) {
		rig->held[rig->held_count++] = request;
		return;
	}
	finish(rig, request, rig->result);
	if (rig->add_more) {
		/* A driver that is always faster: it takes back and sends again at once. */
		void *cookie;
		uint32_t written;

		CHECK_EQ(vmsg_vq_get(&rig->driver.vqs[0], &cookie, &written), 1);
		send_read(rig, 0, 0, 0);
		vmsg_vq_publish(&rig->driver.vqs[0]);
	}
}

static void start(void *backend)
{
	((struct rig *)backend)->starts++;
}

static void release(struct rig *rig, uint32_t index, int result)
{
	struct vmsg_blk_request *request = rig->held[index];

	rig->held_count--;
	memmove(&rig->held[index], &rig->held[index + 1],
		(rig->held_count - index) * sizeof(rig->held[0]));
	finish(rig, request, result);
}

static void cancel(void *backend, struct vmsg_blk_request *request)
{
	struct rig *rig = backend;

	rig->cancels++;
	for (uint32_t i = 0; rig->cancel_ends && i < rig->held_count; i++) {
		if (rig->held[i] == request) {
			rig->partial = 0;
			release(rig, i, VMSG_ERR_IO);
			return;
		}
	}
}

static const struct vmsg_blk_backend backend = {
	.name = "test",
	.submit = submit,
	.start = start,
	.cancel = cancel,
};

static void end_held(struct blk_pair *pair)
{
	struct rig *rig = pair->user;

	/* Then one in each wait. */
	if (rig->waits_left > 1) {
		rig->waits_left--;
	} else if (rig->waits_left && rig->held_count) {
		release(rig, 0, 0);
		vmsg_blk_batch_done(&pair->blk);
	}
}

/* ---- The driver ---- */

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct slot *slot;
	uint32_t written;
	void *cookie;

	while (vmsg_vq_get(&driver->vqs[vq_index], &cookie, &written) == 1) {
		slot = cookie;
		slot->written = written;
		slot->order = the_rig->came_back++;
	}
}

static const struct vmsg_driver_ops driver_ops = { .used = used };

struct options {
	bool packed, read_only, in_order;
	uint32_t queues, block_bytes;
	uint64_t unwanted;
};

static void rig_start(struct rig *rig, const struct options *options)
{
	uint64_t wanted = ~(uint64_t)0 & ~options->unwanted;

	if (!options->in_order)
		wanted &= ~VMSG_BIT(VMSG_F_IN_ORDER);
	wanted &= ~VMSG_BIT(VMSG_F_NOTIFICATION_DATA);
	CHECK_EQ(vmsg_driver_identify(&rig->driver), 0);
	CHECK_EQ(rig->driver.device_id, VMSG_BLK_DEVICE_ID);
	CHECK_EQ(vmsg_driver_negotiate(&rig->driver, wanted), 0);
	rig->pair.queues.used_bytes = 0;
	for (uint32_t i = 0; i < options->queues; i++)
		CHECK_EQ(vmsg_driver_setup_vq(&rig->driver, i, BLK_QUEUE_SIZE, 0, &rig->pair.queues,
					      rig->pair.states + i * BLK_QUEUE_SIZE),
			 0);
	CHECK_EQ(vmsg_driver_ready(&rig->driver), 0);
	rig->came_back = 0;
}

static struct rig *rig_open(const struct options *options)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct blk_pair *pair = &rig->pair;

	the_rig = rig;
	blk_pair_open(pair, options->packed, options->queues);
	for (uint32_t i = 0; i < sizeof(rig->disk); i++)
		rig->disk[i] = (uint8_t)(i * 7 + i / 512);
	pair->blk.backend = &backend;
	pair->blk.backend_data = rig;
	pair->blk.info.capacity_sectors = CAPACITY;
	pair->blk.info.block_bytes = options->block_bytes ? options->block_bytes : 512;
	pair->blk.info.read_only = options->read_only;
	pair->blk.info.max_discard_sectors = 16;
	pair->blk.info.max_zeroes_sectors = 8;
	pair->blk.info.zeroes_may_unmap = true;
	memcpy(pair->blk.id, "serial-0123456789abc", VMSG_BLK_ID_BYTES);
	if (options->in_order)
		pair->blk.device.offered = VMSG_BIT(VMSG_F_IN_ORDER);
	vmsg_blk_init(&pair->blk);
	CHECK_EQ(vmsg_bus_add(&pair->loop.device.bus, &pair->blk.device, 3), 0);
	pair->user = rig;
	pair->work = end_held;
	vmsg_driver_init(&rig->driver, &pair->loop.driver.bus, 3, &driver_ops);
	rig->driver.split = &vmsg_vq_split_driver;
	rig->driver.packed = &vmsg_vq_packed_driver;
	rig->driver.vqs = pair->driver_vqs;
	rig->driver.vq_count = BLK_QUEUES;
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct slot *slot = &rig->slots[i];

		slot->out = vmsg_arena_take(&pair->data, PART_BYTES, 64, &slot->out_addr);
		slot->in = vmsg_arena_take(&pair->data, PART_BYTES, 64, &slot->in_addr);
		CHECK(slot->out && slot->in);
	}
	rig_start(rig, options);
	return rig;
}

static void rig_close(struct rig *rig)
{
	CHECK_EQ(rig->pair.blk.in_flight, 0);
	blk_pair_close(&rig->pair);
	free(rig);
}

/* Cuts [addr, addr + len) after each of `cuts` (ended by 0). */
static uint16_t lay_out(struct vmsg_buf *bufs, uint64_t addr, uint32_t len, const uint16_t *cuts)
{
	uint16_t count = 0;

	while (len) {
		uint32_t piece = cuts && *cuts && *cuts < len ? *cuts++ : len;

		bufs[count++] = (struct vmsg_buf){ addr, piece };
		addr += piece;
		len -= piece;
	}
	return count;
}

static void send(struct rig *rig, uint32_t vq_index, uint32_t index, uint32_t readable,
		 uint32_t writable, const uint16_t *cuts)
{
	struct slot *slot = &rig->slots[index];
	struct vmsg_buf bufs[BLK_IOVS];
	uint16_t out = lay_out(bufs, slot->out_addr, readable, cuts);
	uint16_t in = lay_out(bufs + out, slot->in_addr, writable, cuts);

	slot->written = NOT_USED;
	memset(slot->in, 0xaa, PART_BYTES);
	CHECK_EQ(vmsg_vq_add(&rig->driver.vqs[vq_index], bufs, out, in, slot), 0);
}

static void header(struct rig *rig, uint32_t index, uint32_t type, uint64_t sector)
{
	uint8_t *out = rig->slots[index].out;

	vmsg_put32(out, type);
	vmsg_put32(out + 4, 0x5555); /* reserved: to be ignored */
	vmsg_put64(out + 8, sector);
}

static uint32_t send_read(struct rig *rig, uint32_t vq_index, uint32_t index, uint64_t sector)
{
	header(rig, index, VMSG_BLK_T_IN, sector);
	send(rig, vq_index, index, VMSG_BLK_HEADER_BYTES, 513, NULL);
	return index;
}

/* Kicks, and lets both sides run until nothing moves. */
static void run(struct rig *rig, uint32_t vq_index)
{
	vmsg_driver_kick(&rig->driver, vq_index);
	vmsg_loop_run(&rig->pair.loop);
}

/* One request in slot 0 of queue 0. The length in the used ring. */
static uint32_t call(struct rig *rig, uint32_t readable, uint32_t writable, const uint16_t *cuts)
{
	send(rig, 0, 0, readable, writable, cuts);
	run(rig, 0);
	return rig->slots[0].written;
}

static void check_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		CHECK_EQ(bytes[i], 0);
}

/* ---- Every type, cut in every way ---- */

static const uint16_t cut_whole[] = { 0 }, cut_header[] = { 5, 11, 512, 0 },
		      cut_odd[] = { 1, 2, 13, 100, 0 }, cut_ends[] = { 16, 512, 1, 0 },
		      cut_status[] = { 17, 511, 512, 0 };
static const uint16_t *const cuttings[] = { cut_whole, cut_header, cut_odd, cut_ends, cut_status };

static void put_segment(struct rig *rig, uint64_t sector, uint32_t count, uint32_t flags)
{
	uint8_t *out = rig->slots[0].out + VMSG_BLK_HEADER_BYTES;

	vmsg_put64(out, sector);
	vmsg_put32(out + 8, count);
	vmsg_put32(out + 12, flags);
}

static void check_types(struct rig *rig, const uint16_t *cuts)
{
	struct slot *slot = &rig->slots[0];
	const uint8_t *disk = rig->disk;

	header(rig, 0, VMSG_BLK_T_IN, 3);
	CHECK_EQ(call(rig, 16, 1025, cuts), 1025);
	CHECK_MEM(slot->in, disk + 3 * 512, 1024);
	CHECK_EQ(slot->in[1024], VMSG_BLK_S_OK);
	CHECK_EQ(slot->in[1025], 0xaa);

	header(rig, 0, VMSG_BLK_T_OUT, CAPACITY - 2);
	memset(slot->out + 16, 0x42, 1024);
	CHECK_EQ(call(rig, 16 + 1024, 1, cuts), 1);
	CHECK_EQ(slot->in[0], VMSG_BLK_S_OK);
	CHECK_MEM(disk + (CAPACITY - 2) * 512, slot->out + 16, 1024);
	CHECK_EQ(rig->last.len_bytes, 1024);
	CHECK(!rig->last.durable);

	header(rig, 0, VMSG_BLK_T_FLUSH, 0);
	CHECK_EQ(call(rig, 16, 1, cuts), 1);
	CHECK_EQ(slot->in[0], VMSG_BLK_S_OK);
	CHECK_EQ(rig->last.op, VMSG_BLK_FLUSH);

	header(rig, 0, VMSG_BLK_T_GET_ID, 0);
	CHECK_EQ(call(rig, 16, 21, cuts), 21);
	CHECK_MEM(slot->in, "serial-0123456789abc", 20);
	CHECK_EQ(slot->in[20], VMSG_BLK_S_OK);

	header(rig, 0, VMSG_BLK_T_DISCARD, 0);
	put_segment(rig, CAPACITY - 16, 16, 0);
	CHECK_EQ(call(rig, 16 + SEG_BYTES, 1, cuts), 1);
	CHECK_EQ(slot->in[0], VMSG_BLK_S_OK);
	CHECK_EQ(rig->last.op, VMSG_BLK_DISCARD);
	CHECK_EQ(rig->last.offset_bytes, (CAPACITY - 16) * 512);
	CHECK_EQ(rig->last.len_bytes, 16 * 512);

	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		header(rig, 0, VMSG_BLK_T_WRITE_ZEROES, 0);
		put_segment(rig, 8, 8, unmap);
		CHECK_EQ(call(rig, 16 + SEG_BYTES, 1, cuts), 1);
		CHECK_EQ(slot->in[0], VMSG_BLK_S_OK);
		CHECK_EQ(rig->last.op, VMSG_BLK_ZERO);
		CHECK_EQ(rig->last.may_unmap, unmap);
	}
	check_zero(disk + 8 * 512, 8 * 512);
}

static void test_types(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 1 };
	struct rig *rig = rig_open(&options);

	for (size_t i = 0; i < COUNT_OF(cuttings); i++) {
		test_context("cutting %zu", i);
		check_types(rig, cuttings[i]);
	}
	CHECK_EQ(rig->pair.blk.counters.reads, COUNT_OF(cuttings));
	CHECK_EQ(rig->pair.blk.counters.malformed, 0);
	CHECK_EQ(rig->pair.blk.counters.in_place, rig->submits);
	rig_close(rig);
}

/* ---- What is not acceptable ---- */

struct bad {
	const char *name;
	uint32_t type;
	uint64_t sector;
	uint32_t readable, writable, written;
	int status; /* -1: none expected */
	bool reaches_disk;
};

static const struct bad bads[] = {
	{ "no room for a status", VMSG_BLK_T_IN, 0, 16, 0, 0, -1, false },
	{ "write without a status", VMSG_BLK_T_OUT, 0, 528, 0, 0, -1, false },
	{ "no header", VMSG_BLK_T_IN, 0, 0, 513, 513, 1, false },
	{ "short header", VMSG_BLK_T_IN, 0, 15, 513, 513, 1, false },
	{ "short header, status alone", VMSG_BLK_T_FLUSH, 0, 1, 1, 1, 1, false },
	{ "read of 511", VMSG_BLK_T_IN, 0, 16, 512, 512, 1, false },
	{ "read of 513", VMSG_BLK_T_IN, 0, 16, 514, 514, 1, false },
	{ "read of nothing", VMSG_BLK_T_IN, 0, 16, 1, 1, 0, false },
	{ "read of the last sector", VMSG_BLK_T_IN, CAPACITY - 1, 16, 513, 513, 0, true },
	{ "read over the end", VMSG_BLK_T_IN, CAPACITY - 1, 16, 1025, 1025, 1, false },
	{ "read behind the end", VMSG_BLK_T_IN, CAPACITY, 16, 513, 513, 1, false },
	{ "nothing at the end", VMSG_BLK_T_IN, CAPACITY, 16, 1, 1, 0, false },
	{ "nothing behind the end", VMSG_BLK_T_IN, CAPACITY + 1, 16, 1, 1, 1, false },
	{ "sector 2^64 - 1", VMSG_BLK_T_IN, UINT64_MAX, 16, 513, 513, 1, false },
	{ "sector 2^55", VMSG_BLK_T_IN, (uint64_t)1 << 55, 16, 513, 513, 1, false },
	{ "write of 100", VMSG_BLK_T_OUT, 0, 116, 1, 1, 1, false },
	{ "write of nothing", VMSG_BLK_T_OUT, 0, 16, 1, 1, 0, false },
	{ "write over the end", VMSG_BLK_T_OUT, CAPACITY - 1, 1040, 1, 1, 1, false },
	{ "write at 2^64 - 1", VMSG_BLK_T_OUT, UINT64_MAX, 528, 1, 1, 1, false },
	{ "write with room for more", VMSG_BLK_T_OUT, 0, 528, 101, 101, 0, true },
	{ "flush with room for more", VMSG_BLK_T_FLUSH, 0, 16, 101, 101, 0, true },
	{ "flush with data", VMSG_BLK_T_FLUSH, 0, 528, 1, 1, 0, true },
	{ "short id", VMSG_BLK_T_GET_ID, 0, 16, 6, 6, 0, false },
	{ "no room for the id", VMSG_BLK_T_GET_ID, 0, 16, 1, 1, 0, false },
	{ "unknown type", 99, 0, 16, 513, 513, 2, false },
	{ "barrier of old", 0x80000000u, 0, 16, 513, 513, 2, false },
	{ "secure erase", 14, 0, 32, 1, 1, 2, false },
	{ "discard of nothing", VMSG_BLK_T_DISCARD, 0, 16, 1, 1, 1, false },
	{ "discard, short segment", VMSG_BLK_T_DISCARD, 0, 31, 1, 1, 1, false },
	{ "discard, two segments", VMSG_BLK_T_DISCARD, 0, 48, 1, 1, 1, false },
};

static void check_bad(struct rig *rig, const struct bad *bad)
{
	struct slot *slot = &rig->slots[0];
	uint32_t before = rig->submits;

	test_context("%s", bad->name);
	header(rig, 0, bad->type, bad->sector);
	CHECK_EQ(call(rig, bad->readable, bad->writable, NULL), bad->written);
	CHECK_EQ(rig->submits - before, bad->reaches_disk);
	if (bad->status >= 0)
		CHECK_EQ(slot->in[bad->writable - 1], bad->status);
	/* All that the length covers was written: data, an id, or zeros. */
	if (bad->status > 0 || bad->type == VMSG_BLK_T_OUT || bad->type == VMSG_BLK_T_FLUSH)
		check_zero(slot->in, bad->writable ? bad->writable - 1 : 0);
	CHECK_EQ(slot->in[bad->writable], 0xaa);
	CHECK_EQ(rig->pair.blk.device.status & VMSG_STATUS_NEEDS_RESET, 0);
}

static void test_bad(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 1 };
	struct rig *rig = rig_open(&options);
	const struct vmsg_blk_counters *counters = &rig->pair.blk.counters;

	for (size_t i = 0; i < COUNT_OF(bads); i++)
		check_bad(rig, &bads[i]);
	test_context(" ");
	CHECK_EQ(counters->out_of_range, 7);
	CHECK_EQ(counters->unsupported, 3);
	CHECK_EQ(counters->malformed, 11);
	rig_close(rig);
}

struct segment {
	uint32_t type;
	uint64_t sector;
	uint32_t count, flags;
	uint8_t status;
};

static void test_segments(void *arg)
{
	const uint32_t discard = VMSG_BLK_T_DISCARD, zero = VMSG_BLK_T_WRITE_ZEROES;
	const struct segment segments[] = {
		{ discard, 0, 0, 0, 0 },
		{ discard, CAPACITY, 0, 0, 0 },
		{ discard, CAPACITY + 1, 0, 0, 1 },
		{ discard, 0, 17, 0, 1 },
		{ discard, CAPACITY - 1, 2, 0, 1 },
		{ discard, UINT64_MAX, 2, 0, 1 },
		{ discard, 0, UINT32_MAX, 0, 1 },
		{ discard, 0, 1, 1, 2 },
		{ discard, 0, 1, 0x80000000u, 2 },
		{ zero, 0, 9, 0, 1 },
		{ zero, 0, 1, 2, 2 },
		{ zero, 0, 1, UINT32_MAX, 2 },
		{ zero, CAPACITY - 1, 1, 1, 0 },
		{ zero, UINT64_MAX - 1, 8, 1, 1 },
	};
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(segments); i++) {
		const struct segment *s = &segments[i];

		test_context("segment %zu", i);
		header(rig, 0, s->type, 77);
		put_segment(rig, s->sector, s->count, s->flags);
		CHECK_EQ(call(rig, 16 + SEG_BYTES, 1, NULL), 1);
		CHECK_EQ(rig->slots[0].in[0], s->status);
	}
	CHECK_EQ(rig->submits, 1);
	rig_close(rig);
}

/* What was not negotiated does not exist. */
static void test_not_negotiated(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig;

	(void)arg;
	options.unwanted = VMSG_BIT(VMSG_BLK_F_DISCARD) | VMSG_BIT(VMSG_BLK_F_WRITE_ZEROES) |
			   VMSG_BIT(VMSG_BLK_F_FLUSH) | VMSG_BIT(VMSG_BLK_F_CONFIG_WCE);
	rig = rig_open(&options);
	for (uint32_t type = VMSG_BLK_T_DISCARD; type <= VMSG_BLK_T_WRITE_ZEROES; type += 2) {
		header(rig, 0, type, 0);
		put_segment(rig, 0, 1, 0);
		CHECK_EQ(call(rig, 16 + SEG_BYTES, 1, NULL), 1);
		CHECK_EQ(rig->slots[0].in[0], VMSG_BLK_S_UNSUPP);
	}
	CHECK_EQ(rig->submits, 0);
	/* Without FLUSH every write is durable at once. */
	header(rig, 0, VMSG_BLK_T_OUT, 0);
	CHECK_EQ(call(rig, 528, 1, NULL), 1);
	CHECK(rig->last.durable);
	rig_close(rig);
}

static void test_read_only(void *arg)
{
	struct options options = { .queues = 1, .read_only = true };
	struct rig *rig = rig_open(&options);
	uint8_t before[sizeof(rig->disk)];

	(void)arg;
	memcpy(before, rig->disk, sizeof(before));
	CHECK(vmsg_has(rig->driver.features, VMSG_BLK_F_RO));
	CHECK(!vmsg_has(rig->driver.offered, VMSG_BLK_F_DISCARD));
	header(rig, 0, VMSG_BLK_T_OUT, 0);
	CHECK_EQ(call(rig, 528, 1, NULL), 1);
	CHECK_EQ(rig->slots[0].in[0], VMSG_BLK_S_IOERR);
	header(rig, 0, VMSG_BLK_T_DISCARD, 0);
	put_segment(rig, 0, 1, 0);
	CHECK_EQ(call(rig, 32, 1, NULL), 1);
	CHECK_EQ(rig->slots[0].in[0], VMSG_BLK_S_IOERR);
	CHECK_EQ(rig->submits, 0);
	CHECK_EQ(rig->pair.blk.counters.refused, 2);
	header(rig, 0, VMSG_BLK_T_IN, 0);
	CHECK_EQ(call(rig, 16, 513, NULL), 513);
	CHECK_MEM(rig->slots[0].in, before, 512);
	CHECK_MEM(rig->disk, before, sizeof(before));
	rig_close(rig);
}

/* I/O is in blocks, and these have 4096 bytes. */
static void test_large_blocks(void *arg)
{
	struct options options = { .queues = 1, .block_bytes = 4096 };
	struct rig *rig = rig_open(&options);

	(void)arg;
	header(rig, 0, VMSG_BLK_T_IN, 0);
	CHECK_EQ(call(rig, 16, 513, NULL), 513);
	CHECK_EQ(rig->slots[0].in[512], VMSG_BLK_S_IOERR);
	header(rig, 0, VMSG_BLK_T_IN, 4);
	CHECK_EQ(call(rig, 16, 4097, NULL), 4097);
	CHECK_EQ(rig->slots[0].in[4096], VMSG_BLK_S_IOERR);
	header(rig, 0, VMSG_BLK_T_IN, 8);
	CHECK_EQ(call(rig, 16, 4097, NULL), 4097);
	CHECK_EQ(rig->slots[0].in[4096], VMSG_BLK_S_OK);
	header(rig, 0, VMSG_BLK_T_WRITE_ZEROES, 0);
	put_segment(rig, 8, 4, 0);
	CHECK_EQ(call(rig, 32, 1, NULL), 1);
	CHECK_EQ(rig->slots[0].in[0], VMSG_BLK_S_IOERR);
	CHECK_EQ(rig->submits, 1);
	rig_close(rig);
}

/* ---- A disk that fails ---- */

static void test_failure(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);
	struct slot *slot = &rig->slots[0];

	(void)arg;
	rig->result = -28; /* ENOSPC */
	header(rig, 0, VMSG_BLK_T_OUT, 0);
	CHECK_EQ(call(rig, 528, 1, NULL), 1);
	CHECK_EQ(slot->in[0], VMSG_BLK_S_IOERR);
	/* A read that fails in the middle: what was read, then zeros. */
	rig->result = VMSG_ERR_IO;
	rig->partial = 700;
	header(rig, 0, VMSG_BLK_T_IN, 2);
	CHECK_EQ(call(rig, 16, 2049, cut_odd), 2049);
	CHECK_EQ(slot->in[2048], VMSG_BLK_S_IOERR);
	CHECK_MEM(slot->in, rig->disk + 1024, 700);
	check_zero(slot->in + 700, 2048 - 700);
	rig->result = VMSG_ERR_NOTSUP;
	header(rig, 0, VMSG_BLK_T_DISCARD, 0);
	put_segment(rig, 0, 1, 0);
	CHECK_EQ(call(rig, 32, 1, NULL), 1);
	CHECK_EQ(slot->in[0], VMSG_BLK_S_UNSUPP);
	CHECK_EQ(rig->pair.blk.counters.failed, 3);
	rig->result = 0;
	header(rig, 0, VMSG_BLK_T_IN, 2);
	CHECK_EQ(call(rig, 16, 513, NULL), 513);
	CHECK_EQ(slot->in[512], VMSG_BLK_S_OK);
	rig_close(rig);
}

/* ---- Requests that take their time ---- */

static void test_batches(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 2 };
	struct rig *rig = rig_open(&options);
	struct blk_pair *pair = &rig->pair;

	rig->late = true;
	for (uint32_t i = 0; i < 8; i++)
		send_read(rig, i / 4, i, i);
	vmsg_driver_kick(&rig->driver, 0);
	run(rig, 1);
	CHECK_EQ(rig->held_count, 8);
	CHECK_EQ(rig->starts, 2);
	CHECK_EQ(pair->blk.in_flight, 8);
	CHECK_EQ(rig->came_back, 0);
	while (rig->held_count)
		release(rig, rig->held_count - 1, 0);
	CHECK_EQ(pair->blk.device.counters.used_notifications, 0);
	vmsg_blk_batch_done(&pair->blk);
	vmsg_loop_run(&pair->loop);
	CHECK_EQ(pair->blk.device.counters.used_notifications, 2);
	CHECK_EQ(rig->came_back, 8);
	for (uint32_t i = 0; i < 8; i++) {
		CHECK_EQ(rig->slots[i].written, 513);
		CHECK_MEM(rig->slots[i].in, rig->disk + 512 * i, 512);
	}
	/* Out of order, as they ended. */
	CHECK_EQ(rig->slots[3].order, 0);
	rig_close(rig);
}

static void test_in_order(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 1, .in_order = true };
	struct rig *rig = rig_open(&options);

	CHECK(vmsg_has(rig->driver.features, VMSG_F_IN_ORDER));
	rig->late = true;
	for (uint32_t i = 0; i < 6; i++)
		send_read(rig, 0, i, i);
	run(rig, 0);
	for (uint32_t i = 5; i > 0; i--)
		release(rig, i, i == 3 ? VMSG_ERR_IO : 0);
	vmsg_blk_batch_done(&rig->pair.blk);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->came_back, 0);
	release(rig, 0, 0);
	vmsg_blk_batch_done(&rig->pair.blk);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->came_back, 6);
	for (uint32_t i = 0; i < 6; i++) {
		CHECK_EQ(rig->slots[i].order, i);
		CHECK_EQ(rig->slots[i].in[512], i == 3);
	}
	/* A reset ends also those that wait for their turn. */
	for (uint32_t i = 0; i < 4; i++)
		send_read(rig, 0, i, i);
	run(rig, 0);
	release(rig, 2, 0);
	rig->cancel_ends = true;
	CHECK_EQ(vmsg_driver_reset(&rig->driver), 0);
	CHECK_EQ(rig->cancels, 3);
	rig_start(rig, &options);
	rig->late = false;
	send_read(rig, 0, 0, 1);
	run(rig, 0);
	CHECK_EQ(rig->slots[0].written, 513);
	rig_close(rig);
}

static void test_reset(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 3 };
	struct rig *rig = rig_open(&options);
	struct blk_pair *pair = &rig->pair;
	uint8_t *copy = malloc(BLK_MEMORY_BYTES);

	for (uint32_t mode = 0; mode < 3; mode++) {
		test_context("mode %u", mode);
		rig->late = true;
		rig->cancel_ends = mode == 1;
		rig->cancels = 0;
		for (uint32_t i = 0; i < 9; i++)
			send_read(rig, i % 3, i, i);
		for (uint32_t i = 0; i < 3; i++)
			vmsg_driver_kick(&rig->driver, i);
		vmsg_loop_run(&pair->loop);
		CHECK_EQ(rig->held_count, 9);
		/* The reset is done only when the last one is. */
		rig->waits_left = mode == 1 ? 0 : 50;
		CHECK_EQ(vmsg_driver_reset(&rig->driver), 0);
		CHECK_EQ(rig->held_count, 0);
		rig->waits_left = 0;
		CHECK_EQ(rig->cancels, 9);
		CHECK_EQ(pair->blk.device.status, 0);
		memcpy(copy, pair->memory, BLK_MEMORY_BYTES);
		vmsg_blk_batch_done(&pair->blk);
		vmsg_loop_run(&pair->loop);
		CHECK_MEM(copy, pair->memory, BLK_MEMORY_BYTES);
		CHECK_EQ(rig->came_back, 0);
		rig->late = false;
		rig_start(rig, &options);
		send_read(rig, 2, 0, 5);
		run(rig, 2);
		CHECK_EQ(rig->slots[0].written, 513);
		rig->came_back = 0;
	}
	free(copy);
	rig_close(rig);
}

/* One queue is reset with requests in flight; the other one does not notice. */
static void test_queue_reset(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 2 };
	struct rig *rig = rig_open(&options);
	struct blk_pair *pair = &rig->pair;

	rig->late = true;
	for (uint32_t i = 0; i < 4; i++)
		send_read(rig, i % 2, i, i);
	vmsg_driver_kick(&rig->driver, 0);
	run(rig, 1);
	CHECK_EQ(rig->held_count, 4);
	/* They end during the wait for the answer, those of this queue last. */
	rig->waits_left = 20;
	CHECK_EQ(vmsg_driver_reset_vq(&rig->driver, 1), 0);
	CHECK_EQ(rig->cancels, 2);
	CHECK_EQ(rig->held_count, 0);
	vmsg_loop_run(&pair->loop);
	CHECK_EQ(rig->slots[0].written, 513);
	CHECK_EQ(rig->slots[2].written, 513);
	CHECK_EQ(rig->slots[1].written, NOT_USED);
	CHECK_EQ(rig->slots[3].written, NOT_USED);
	CHECK(!pair->device_vqs[1].enabled);
	while (vmsg_vq_drain(&rig->driver.vqs[1]))
		;
	CHECK_EQ(vmsg_driver_setup_vq(&rig->driver, 1, BLK_QUEUE_SIZE, 0, &pair->queues,
				      pair->states + BLK_QUEUE_SIZE),
		 0);
	rig->late = false;
	send_read(rig, 1, 1, 9);
	run(rig, 1);
	CHECK_EQ(rig->slots[1].written, 513);
	CHECK_MEM(rig->slots[1].in, rig->disk + 9 * 512, 512);
	rig_close(rig);
}

static void test_stop(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);
	struct vmsg_blk *blk = &rig->pair.blk;

	(void)arg;
	rig->late = true;
	send_read(rig, 0, 0, 0);
	run(rig, 0);
	CHECK(!vmsg_blk_stop(blk));
	CHECK(!vmsg_blk_stop(blk));
	CHECK_EQ(rig->cancels, 1);
	/* Nothing more is taken. */
	send_read(rig, 0, 1, 0);
	run(rig, 0);
	CHECK_EQ(rig->held_count, 1);
	release(rig, 0, 0);
	CHECK(vmsg_blk_stop(blk));
	CHECK_EQ(rig->slots[0].written, NOT_USED);
	vmsg_bus_remove(&rig->pair.loop.device.bus, &blk->device);
	vmsg_loop_run(&rig->pair.loop);
	CHECK(rig->driver.gone);
	rig_close(rig);
}

/* The peer dies with requests in flight: its memory is touched until the last has ended only. */
static void test_peer_gone(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);

	(void)arg;
	rig->late = true;
	send_read(rig, 0, 0, 0);
	run(rig, 0);
	vmsg_bus_peer_reset(&rig->pair.loop.device.bus);
	CHECK_EQ(rig->cancels, 1);
	CHECK(rig->pair.blk.device.status != 0);
	release(rig, 0, 0);
	vmsg_blk_batch_done(&rig->pair.blk);
	CHECK_EQ(rig->pair.blk.device.status, 0);
	CHECK_EQ(rig->slots[0].in[512], 0xaa);
	rig_close(rig);
}

/* A driver that is always faster than the device gets its share, and no more. */
static void test_share(void *arg)
{
	struct options options = { .packed = arg != NULL, .queues = 1 };
	struct rig *rig = rig_open(&options);

	rig->add_more = true;
	send_read(rig, 0, 0, 0);
	vmsg_vq_publish(&rig->driver.vqs[0]);
	vmsg_device_kicked(&rig->pair.blk.device, 0);
	CHECK_EQ(rig->submits, BLK_QUEUE_SIZE + 1);
	CHECK(rig->pair.blk.device.more);
	rig->add_more = false;
	rig->pair.blk.device.more = false;
	vmsg_device_poll(&rig->pair.blk.device);
	CHECK_EQ(rig->submits, BLK_QUEUE_SIZE + 2);
	CHECK(!rig->pair.blk.device.more);
	vmsg_loop_run(&rig->pair.loop);
	rig_close(rig);
}

/* ---- Config ---- */

static void test_resize(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);
	uint8_t capacity[8];

	(void)arg;
	vmsg_blk_set_capacity(&rig->pair.blk, CAPACITY / 2);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->driver.counters.config_events, 1);
	CHECK_EQ(vmsg_driver_read_config(&rig->driver, 0, capacity, 8), 0);
	CHECK_EQ(vmsg_get64(capacity), CAPACITY / 2);
	send_read(rig, 0, 0, CAPACITY / 2);
	run(rig, 0);
	CHECK_EQ(rig->slots[0].in[512], VMSG_BLK_S_IOERR);
	vmsg_blk_set_capacity(&rig->pair.blk, CAPACITY / 2);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->driver.counters.config_events, 1);
	vmsg_blk_set_capacity(&rig->pair.blk, CAPACITY);
	send_read(rig, 0, 0, CAPACITY / 2);
	run(rig, 0);
	CHECK_EQ(rig->slots[0].in[512], VMSG_BLK_S_OK);
	rig_close(rig);
}

static void test_cache_mode(void *arg)
{
	struct options options = { .queues = 1 };
	struct rig *rig = rig_open(&options);
	const uint8_t off = 0, on = 1, odd = 2, word[4] = { 0, 0, 0, 0 };
	uint8_t now = 9;

	(void)arg;
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &odd, 1),
		 VMSG_ERR_IO);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, word, 4),
		 VMSG_ERR_IO);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, 0, word, 4), VMSG_ERR_IO);
	CHECK(vmsg_blk_writeback(&rig->pair.blk));
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &off, 1), 0);
	CHECK(!vmsg_blk_writeback(&rig->pair.blk));
	header(rig, 0, VMSG_BLK_T_OUT, 0);
	CHECK_EQ(call(rig, 528, 1, NULL), 1);
	CHECK(rig->last.durable);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &on, 1), 0);
	CHECK_EQ(call(rig, 528, 1, NULL), 1);
	CHECK(!rig->last.durable);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &off, 1), 0);
	/* A reset brings back the mode of the beginning; without FLUSH there is no cache. */
	CHECK_EQ(vmsg_driver_reset(&rig->driver), 0);
	CHECK_EQ(vmsg_driver_read_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &now, 1), 0);
	CHECK_EQ(now, 1);
	options.unwanted = VMSG_BIT(VMSG_BLK_F_FLUSH);
	rig_start(rig, &options);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver, VMSG_BLK_CONFIG_WRITEBACK, &on, 1),
		 VMSG_ERR_IO);
	CHECK(!vmsg_blk_writeback(&rig->pair.blk));
	rig_close(rig);
}

/* The bytes of the whole config space, as the specification lays them out. */
static void test_config(void *arg)
{
	static const uint8_t expected[VMSG_BLK_CONFIG_BYTES] = {
		[0] = CAPACITY, [12] = BLK_IOVS - 2,
		[20] = 0,	[21] = 0x10,
		[24] = 3,	[25] = 1,
		[26] = 2,	[28] = 0,
		[29] = 1,	[32] = 1,
		[34] = 3,	[36] = 16,
		[40] = 1,	[44] = 8,
		[48] = 8,	[52] = 1,
		[56] = 1,
	};
	struct options options = { .queues = 3, .block_bytes = 4096 };
	struct rig *rig = rig_open(&options);
	struct blk_pair *pair = &rig->pair;
	uint8_t bytes[VMSG_BLK_CONFIG_BYTES];

	(void)arg;
	vmsg_bus_remove(&pair->loop.device.bus, &pair->blk.device);
	vmsg_loop_run(&pair->loop);
	pair->blk.info.physical_exp = 3;
	pair->blk.info.alignment_blocks = 1;
	pair->blk.info.min_io_blocks = 2;
	pair->blk.info.opt_io_blocks = 256;
	pair->blk.info.discard_align_sectors = 8;
	vmsg_blk_init(&pair->blk);
	CHECK_EQ(vmsg_bus_add(&pair->loop.device.bus, &pair->blk.device, 4), 0);
	rig->driver.gone = false;
	rig->driver.dev_num = 4;
	CHECK_EQ(vmsg_driver_identify(&rig->driver), 0);
	CHECK_EQ(rig->driver.config_size, VMSG_BLK_CONFIG_BYTES);
	CHECK_EQ(vmsg_driver_read_config(&rig->driver, 0, bytes, sizeof(bytes)), 0);
	CHECK_MEM(bytes, expected, sizeof(bytes));
	rig_close(rig);
}

int main(int argc, char **argv)
{
	static int packed;
	const struct test tests[] = {
		{ "types, split", test_types, NULL },
		{ "types, packed", test_types, &packed },
		{ "bad requests, split", test_bad, NULL },
		{ "bad requests, packed", test_bad, &packed },
		{ "segments", test_segments, NULL },
		{ "not negotiated", test_not_negotiated, NULL },
		{ "read-only", test_read_only, NULL },
		{ "large blocks", test_large_blocks, NULL },
		{ "failure", test_failure, NULL },
		{ "batches, split", test_batches, NULL },
		{ "batches, packed", test_batches, &packed },
		{ "in order, split", test_in_order, NULL },
		{ "in order, packed", test_in_order, &packed },
		{ "reset, split", test_reset, NULL },
		{ "reset, packed", test_reset, &packed },
		{ "queue reset, split", test_queue_reset, NULL },
		{ "queue reset, packed", test_queue_reset, &packed },
		{ "stop", test_stop, NULL },
		{ "peer gone", test_peer_gone, NULL },
		{ "share, split", test_share, NULL },
		{ "share, packed", test_share, &packed },
		{ "resize", test_resize, NULL },
		{ "cache mode", test_cache_mode, NULL },
		{ "config", test_config, NULL },
	};

	return test_main("device_blk", tests, COUNT_OF(tests), argc, argv);
}
