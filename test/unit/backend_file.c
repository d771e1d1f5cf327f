/* SPDX-License-Identifier: BSD-3-Clause */
/* backend/file*.c behind a whole block device and its driver, on real files, with every engine. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "file_fixture.h"

static uint32_t random_state;

static uint32_t dice(uint32_t sides)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)(random_state ^ random_state >> 15) * sides) >> 32);
}

/* ---- Random requests, several at a time, compared with an image in memory ---- */

struct slot_plan {
	uint32_t type, sector, sectors;
	struct vmsg_buf bufs[4];
};

static bool overlaps(const struct slot_plan *plans, uint32_t count, const struct slot_plan *plan)
{
	for (uint32_t i = 0; i < count; i++) {
		if (plan->sector < plans[i].sector + plans[i].sectors &&
		    plans[i].sector < plan->sector + plan->sectors)
			return true;
	}
	return false;
}

/* Cuts the slot's memory into up to four buffers at odd places. */
static uint16_t cut(struct rig *rig, uint32_t slot, struct slot_plan *plan, bool odd)
{
	uint32_t left = plan->sectors * VMSG_BLK_SECTOR_BYTES, at = 0;
	uint16_t count = 0;

	while (left) {
		uint32_t len = count == 3 ? left : 1 + dice(left);

		if (!odd)
			len = left;
		plan->bufs[count++] = (struct vmsg_buf){ rig->slot_addr[slot] + at, len };
		at += len;
		left -= len;
	}
	return count;
}

static void make_plan(struct slot_plan *plans, uint32_t count, uint32_t unit)
{
	static const uint32_t types[] = { VMSG_BLK_T_IN,      VMSG_BLK_T_IN,
					  VMSG_BLK_T_OUT,     VMSG_BLK_T_OUT,
					  VMSG_BLK_T_OUT,     VMSG_BLK_T_WRITE_ZEROES,
					  VMSG_BLK_T_DISCARD, VMSG_BLK_T_FLUSH };
	struct slot_plan *plan = &plans[count];

	do {
		plan->type = types[dice(8)];
		plan->sectors = unit * (1 + dice(SLOT_BYTES / VMSG_BLK_SECTOR_BYTES / unit));
		plan->sector = unit * dice((IMAGE_SECTORS - plan->sectors) / unit + 1);
	} while (overlaps(plans, count, plan));
}

static void submit_plan(struct rig *rig, uint32_t slot, struct slot_plan *plan, bool odd)
{
	struct vmsg_blk_io *io = &rig->io[slot];

	io->type = plan->type;
	io->sector = plan->sector;
	io->sector_count = plan->sectors;
	io->may_unmap = dice(2);
	io->bufs = plan->bufs;
	io->buf_count = cut(rig, slot, plan, odd);
	for (uint32_t i = 0; i < plan->sectors * VMSG_BLK_SECTOR_BYTES; i++)
		rig->slot[slot][i] = (uint8_t)dice(256);
	CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, io), 0);
}

static void check_plan(struct rig *rig, uint32_t slot, const struct slot_plan *plan, uint8_t *image)
{
	uint8_t *at = image + (size_t)plan->sector * VMSG_BLK_SECTOR_BYTES;
	size_t len = (size_t)plan->sectors * VMSG_BLK_SECTOR_BYTES;

	CHECK_EQ(rig->io[slot].result, 0);
	if (plan->type == VMSG_BLK_T_IN)
		CHECK_MEM(rig->slot[slot], at, len);
	else if (plan->type == VMSG_BLK_T_OUT)
		memcpy(at, rig->slot[slot], len);
	else if (plan->type != VMSG_BLK_T_FLUSH)
		memset(at, 0, len); /* these file systems read zeros after a discard */
}

static void test_random(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(setting, IMAGE_BYTES);
	uint8_t *image = calloc(1, IMAGE_BYTES), *seen = malloc(IMAGE_BYTES);
	uint32_t unit = rig->pair.blk.info.block_bytes / VMSG_BLK_SECTOR_BYTES;

	random_state = 1;
	for (uint32_t round = 0; round < 100; round++) {
		struct slot_plan plans[DEPTH];
		uint32_t count = 1 + dice(DEPTH);
		bool odd = dice(2);

		test_context("round %u", round);
		for (uint32_t i = 0; i < count; i++) {
			make_plan(plans, i, unit);
			submit_plan(rig, i, &plans[i], odd);
		}
		vmsg_blk_driver_kick(&rig->pair.driver, 0);
		while (rig->pair.driver.in_flight) {
			CHECK_EQ(rig->pair.ops.wait(&rig->pair.loop.driver.bus, 1), 0);
			CHECK_EQ(vmsg_blk_driver_poll(&rig->pair.driver), 0);
		}
		for (uint32_t i = 0; i < count; i++)
			check_plan(rig, i, &plans[i], image);
	}
	test_context(" ");
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_FLUSH, 0,
			       (struct vmsg_buf){ 0, 0 }),
		 0);
	read_image(rig->path, seen, IMAGE_BYTES);
	CHECK_MEM(seen, image, IMAGE_BYTES);
	CHECK_EQ(vmsg_file_counters(rig->file)->failed, 0);
	free(seen);
	free(image);
	rig_close(rig);
}

/* Zeros where something else was, whatever the file system can do for it, and over many pieces. */
static void test_zeroes(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	uint8_t *seen = malloc(IMAGE_BYTES), *image = malloc(IMAGE_BYTES);

	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		test_context("unmap %u", unmap);
		for (uint64_t i = 0; i < IMAGE_BYTES / SLOT_BYTES; i++) {
			memset(rig->slot[0], 0x77, SLOT_BYTES);
			CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, i * 128,
					       slot_buf(rig, 0, SLOT_BYTES)),
				 0);
		}
		rig->io[0].sector_count = IMAGE_SECTORS - 16;
		rig->io[0].may_unmap = unmap;
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_WRITE_ZEROES, 8,
				       slot_buf(rig, 0, 0)),
			 0);
		read_image(rig->path, seen, IMAGE_BYTES);
		memset(image, 0x77, IMAGE_BYTES);
		memset(image + 4096, 0, IMAGE_BYTES - 8192);
		CHECK_MEM(seen, image, IMAGE_BYTES);
	}
	free(image);
	free(seen);
	rig_close(rig);
}

/* What the page cache has is read before submit returns; what bypasses it is not. */
static void test_in_place(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(setting, IMAGE_BYTES);
	const struct vmsg_file_counters *counters = vmsg_file_counters(rig->file);
	uint64_t before;

	for (uint64_t i = 0; i < 2; i++) {
		memset(rig->slot[0], 0x5a, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 8,
				       slot_buf(rig, 0, 4096)),
			 0);
	}
	before = counters->in_place;
	for (uint32_t i = 0; i < 10; i++) {
		memset(rig->slot[0], 0, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, 8,
				       slot_buf(rig, 0, 4096)),
			 0);
		CHECK_EQ(rig->slot[0][4095], 0x5a);
	}
	CHECK_EQ(counters->in_place - before, setting->direct ? 0 : 10);
	rig_close(rig);
}

/* Writes are on the disk one by one when the cache is off, and on FLUSH when it is on. */
static void test_durable(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	uint8_t seen[4096];

	for (uint8_t writeback = 0; writeback < 2; writeback++) {
		CHECK_EQ(vmsg_blk_driver_set_writeback(&rig->pair.driver, writeback), 0);
		CHECK_EQ(vmsg_blk_writeback(&rig->pair.blk), writeback);
		CHECK_EQ(vmsg_blk_driver_refresh(&rig->pair.driver), 0);
		CHECK_EQ(rig->pair.driver.config.writeback, writeback);
		memset(rig->slot[0], 0x70 + writeback, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 0,
				       slot_buf(rig, 0, 4096)),
			 0);
		rig->io[0].sector_count = 8;
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_DISCARD, 16,
				       slot_buf(rig, 0, 0)),
			 0);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_WRITE_ZEROES, 24,
				       slot_buf(rig, 0, 0)),
			 0);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_FLUSH, 0,
				       slot_buf(rig, 0, 0)),
			 0);
		read_image(rig->path, seen, sizeof(seen));
		CHECK_MEM(seen, rig->slot[0], sizeof(seen));
	}
	rig_close(rig);
}

/* The file gets shorter behind our back: an error for the request, and life goes on. */
static void test_shrunk(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	const uint64_t last = IMAGE_SECTORS - 8;

	CHECK_EQ(truncate(rig->path, IMAGE_BYTES / 2), 0);
	CHECK_EQ(
		blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, last, slot_buf(rig, 0, 4096)),
		VMSG_ERR_IO);
	/* Half of it is there. */
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, IMAGE_SECTORS / 2 - 8,
			       slot_buf(rig, 0, 8192)),
		 VMSG_ERR_IO);
	CHECK_EQ(vmsg_file_counters(rig->file)->failed, 2);
	CHECK_EQ(vmsg_file_counters(rig->file)->last_error, EIO);
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, 0, slot_buf(rig, 0, 4096)),
		 0);
	rig_close(rig);
}

/* The disk refuses: beyond the limit for files there is no room. */
static void test_no_room(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	struct rlimit before, limit;
	int refused, accepted;

	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	limit = before;
	limit.rlim_cur = IMAGE_BYTES / 2;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	memset(rig->slot[0], 0x33, SLOT_BYTES);
	refused = blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, IMAGE_SECTORS - 8,
				slot_buf(rig, 0, 4096));
	accepted =
		blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 0, slot_buf(rig, 0, 4096));
	setrlimit(RLIMIT_FSIZE, &before);
	CHECK_EQ(refused, VMSG_ERR_IO);
	CHECK_EQ(vmsg_file_counters(rig->file)->last_error, EFBIG);
	CHECK_EQ(accepted, 0);
	CHECK_EQ(rig->pair.blk.device.status & VMSG_STATUS_NEEDS_RESET, 0);
	rig_close(rig);
}

/* A reset with requests in flight: after status 0 not a byte of the driver's memory changes. */
static void test_reset_in_flight(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	uint8_t *copy = malloc(BLK_MEMORY_BYTES);
	uint32_t pending = 0;

	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < DEPTH; i++) {
			struct vmsg_buf buf = slot_buf(rig, i, SLOT_BYTES);

			rig->io[i].type = i % 2 ? VMSG_BLK_T_IN : VMSG_BLK_T_OUT;
			rig->io[i].sector = i * SLOT_BYTES / VMSG_BLK_SECTOR_BYTES;
			rig->io[i].bufs = &buf;
			rig->io[i].buf_count = 1;
			CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[i]), 0);
		}
		vmsg_blk_driver_kick(&rig->pair.driver, 0);
		vmsg_loop_run(&rig->pair.loop);
		pending += rig->pair.blk.in_flight;
		CHECK_EQ(vmsg_blk_driver_reset(&rig->pair.driver), 0);
		CHECK_EQ(rig->pair.blk.in_flight, 0);
		for (uint32_t i = 0; i < DEPTH; i++)
			CHECK(!rig->io[i].busy);
		memcpy(copy, rig->pair.memory, BLK_MEMORY_BYTES);
		usleep(1000);
		work(&rig->pair);
		CHECK_MEM(copy, rig->pair.memory, BLK_MEMORY_BYTES);
		CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), 0);
	}
	/* Direct I/O is never done in place, so something was under way. */
	CHECK(pending > 0 || !setting->direct);
	free(copy);
	rig_close(rig);
}

/* ---- The matrix ---- */

static const struct setting settings[] = {
	{ "uring", "/tmp", false, true },     { "uring", "/tmp", true, false },
	{ "uring", "/dev/shm", false, true }, { "threads", "/tmp", false, false },
	{ "threads", "/tmp", true, true },    { "sync", "/tmp", false, true },
	{ "sync", "/dev/shm", false, false },
};

static const struct {
	const char *name;
	void (*run)(void *arg);
} matrix[] = {
	{ "random", test_random },
	{ "zeroes", test_zeroes },
	{ "in place", test_in_place },
	{ "durable", test_durable },
	{ "shrunk", test_shrunk },
	{ "no room", test_no_room },
	{ "reset in flight", test_reset_in_flight },
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))
#define MATRIX	 (sizeof(matrix) / sizeof(matrix[0]))

int main(int argc, char **argv)
{
	static char names[SETTINGS * MATRIX][64];
	static struct test tests[SETTINGS * MATRIX];
	size_t count = 0;

	for (size_t m = 0; m < MATRIX; m++) {
		for (size_t s = 0; s < SETTINGS; s++, count++) {
			snprintf(names[count], sizeof(names[count]), "%s: %s %s%s", matrix[m].name,
				 settings[s].engine, settings[s].dir,
				 settings[s].direct ? " direct" : "");
			tests[count].name = names[count];
			tests[count].run = matrix[m].run;
			tests[count].arg = (void *)&settings[s];
		}
	}
	return test_main("backend_file", tests, count, argc, argv);
}
