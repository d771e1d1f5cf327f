/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of any size must not keep the others waiting: the memory disk does large ones piece by
 * piece, and the device begins no more than its share in one kick.
 */
#include <stdlib.h>
#include <string.h>

#include <vmsg/backend.h>

#include "test.h"

#include "blk_fixture.h"

#define DISK_BYTES (64u << 20)
#define WHOLE	   (256u << 10)
#define SEGMENTS   32u

struct rig {
	struct blk_pair pair;
	struct vmsg_ram ram;
	struct vmsg_blk_io io[3];
	struct vmsg_buf bufs[SEGMENTS];
	uint8_t *data;
	uint64_t data_addr;
	uint32_t pieces;
};

static void work(struct blk_pair *pair)
{
	struct rig *rig = pair->user;

	rig->pieces += vmsg_ram_poll(&rig->ram);
}

/* Where reads go, over and over: 32 buffers of the same 256 KiB make 8 MiB. */
static struct rig *rig_open(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	char error[256];

	CHECK(rig != NULL);
	CHECK_EQ(vmsg_ram_open(&rig->ram, DISK_BYTES, false, error, sizeof(error)), 0);
	blk_pair_open(&rig->pair, false, 1);
	rig->pair.blk.backend = &vmsg_ram_backend;
	rig->pair.blk.backend_data = &rig->ram;
	rig->pair.blk.info = rig->ram.info;
	for (uint32_t i = 0; i < BLK_QUEUES; i++)
		rig->pair.blk_queues[i].iov_max = BLK_IOVS;
	rig->pair.work = work;
	rig->pair.user = rig;
	blk_pair_add(&rig->pair);
	rig->pair.driver.indirect_max = 0;
	CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), 0);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(vmsg_blk_io_init(&rig->io[i], &rig->pair.data), 0);
	rig->data = vmsg_arena_take(&rig->pair.data, WHOLE, 4096, &rig->data_addr);
	CHECK(rig->data != NULL);
	return rig;
}

static void rig_close(struct rig *rig)
{
	CHECK(vmsg_blk_stop(&rig->pair.blk));
	vmsg_ram_close(&rig->ram);
	blk_pair_close(&rig->pair);
	free(rig);
}

/* As many buffers as the device takes in one request, all of them the same memory. */
static void prepare(struct rig *rig, uint32_t index, uint32_t type, uint64_t sector)
{
	struct vmsg_blk_io *io = &rig->io[index];
	uint32_t count = rig->pair.driver.config.seg_max;

	if (count > SEGMENTS)
		count = SEGMENTS;
	for (uint32_t i = 0; i < count; i++)
		rig->bufs[i] = (struct vmsg_buf){ rig->data_addr, WHOLE };
	io->type = type;
	io->sector = sector;
	io->bufs = rig->bufs;
	io->buf_count = (uint16_t)count;
}

static void test_large_read_and_write(void *arg)
{
	struct rig *rig = rig_open();
	uint32_t bytes;

	(void)arg;
	for (uint32_t i = 0; i < DISK_BYTES; i++)
		rig->ram.ptr[i] = (uint8_t)(i >> 9 ^ i);
	prepare(rig, 0, VMSG_BLK_T_IN, 8);
	bytes = rig->io[0].buf_count * WHOLE;
	CHECK(bytes > 1u << 20);
	CHECK_EQ(vmsg_blk_driver_call(&rig->pair.driver, &rig->io[0], 10000), 0);
	CHECK_EQ(rig->pieces, (bytes + (1u << 20) - 1) >> 20);
	/* The last buffer's contents stayed. */
	CHECK_MEM(rig->data, rig->ram.ptr + 4096 + bytes - WHOLE, WHOLE);
	memset(rig->data, 0x3c, WHOLE);
	prepare(rig, 0, VMSG_BLK_T_OUT, 0);
	CHECK_EQ(vmsg_blk_driver_call(&rig->pair.driver, &rig->io[0], 10000), 0);
	for (uint32_t i = 0; i < bytes; i++)
		CHECK_EQ(rig->ram.ptr[i], 0x3c);
	CHECK_EQ(rig->ram.ptr[bytes], (uint8_t)(bytes >> 9 ^ bytes));
	rig_close(rig);
}

static void test_large_zero(void *arg)
{
	struct rig *rig = rig_open();
	struct vmsg_blk_io *io = &rig->io[0];

	(void)arg;
	memset(rig->ram.ptr, 0xff, DISK_BYTES);
	io->type = VMSG_BLK_T_WRITE_ZEROES;
	io->sector = 1;
	io->sector_count = (5u << 20) / 512 + 3;
	CHECK_EQ(vmsg_blk_driver_call(&rig->pair.driver, io, 10000), 0);
	CHECK_EQ(rig->pieces, 6);
	CHECK_EQ(rig->ram.ptr[511], 0xff);
	for (uint32_t i = 512; i < 512 * (1 + io->sector_count); i++)
		CHECK_EQ(rig->ram.ptr[i], 0);
	CHECK_EQ(rig->ram.ptr[512 * (1 + io->sector_count)], 0xff);
	rig_close(rig);
}

/* Two large ones wait, the first half done; a reset ends both, and the memory is left alone. */
static void test_reset_between_pieces(void *arg)
{
	struct rig *rig = rig_open();
	uint32_t pieces;

	(void)arg;
	rig->pair.driver.queue_size = BLK_QUEUE_SIZE;
	for (uint32_t i = 0; i < 2; i++) {
		prepare(rig, i, VMSG_BLK_T_IN, 0);
		if (rig->io[i].buf_count > BLK_QUEUE_SIZE / 2 - 2)
			rig->io[i].buf_count = BLK_QUEUE_SIZE / 2 - 2;
		CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[i]), 0);
	}
	vmsg_blk_driver_kick(&rig->pair.driver, 0);
	vmsg_loop_run(&rig->pair.loop);
	rig->pair.blk.device.more = false;
	vmsg_device_poll(&rig->pair.blk.device);
	CHECK_EQ(rig->pair.blk.in_flight, 2);
	CHECK(vmsg_ram_poll(&rig->ram));
	CHECK_EQ(vmsg_blk_driver_reset(&rig->pair.driver), 0);
	CHECK_EQ(rig->pair.blk.in_flight, 0);
	CHECK_EQ(rig->io[0].result, VMSG_ERR_SHUTDOWN);
	memset(rig->data, 0x77, WHOLE);
	pieces = rig->pieces;
	CHECK(!vmsg_ram_poll(&rig->ram));
	CHECK_EQ(rig->pieces, pieces);
	for (uint32_t i = 0; i < WHOLE; i++)
		CHECK_EQ(rig->data[i], 0x77);
	rig_close(rig);
}

/* Of many requests that wait, one kick begins half a megabyte, and each poll as much again. */
static void test_share_of_bytes(void *arg)
{
	struct rig *rig = rig_open();
	struct vmsg_blk *blk = &rig->pair.blk;

	(void)arg;
	for (uint32_t i = 0; i < 3; i++) {
		prepare(rig, i, VMSG_BLK_T_IN, 0);
		rig->io[i].buf_count = 2;
		CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[i]), 0);
	}
	vmsg_vq_publish(&rig->pair.driver_vqs[0]);
	vmsg_device_kicked(&blk->device, 0);
	CHECK_EQ(blk->counters.reads, 1);
	CHECK(blk->device.more);
	vmsg_device_kicked(&blk->device, 0);
	CHECK_EQ(blk->counters.reads, 1);
	for (uint32_t i = 2; i < 4; i++) {
		blk->device.more = false;
		vmsg_device_poll(&blk->device);
		CHECK_EQ(blk->counters.reads, i);
	}
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(vmsg_blk_driver_poll(&rig->pair.driver), 0);
	CHECK_EQ(rig->pair.driver.in_flight, 0);
	rig_close(rig);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "large_read_and_write", test_large_read_and_write, NULL },
		{ "large_zero", test_large_zero, NULL },
		{ "reset_between_pieces", test_reset_between_pieces, NULL },
		{ "share_of_bytes", test_share_of_bytes, NULL },
	};

	return test_main("backend_break", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
