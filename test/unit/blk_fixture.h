/* SPDX-License-Identifier: BSD-3-Clause */
/* A block device and its driver in one process over the loop bus, on any backend. */
#ifndef TEST_UNIT_BLK_FIXTURE_H
#define TEST_UNIT_BLK_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include <vmsg/blk.h>
#include <vmsg/loop.h>

#include "test.h"

#define BLK_QUEUES	 3u
#define BLK_QUEUE_SIZE	 16u
#define BLK_IOVS	 16u
#define BLK_MEMORY_ADDR	 0x0010000000000000u
#define BLK_QUEUE_BYTES	 (256u << 10)
#define BLK_MEMORY_BYTES (4u << 20)

struct blk_pair {
	struct vmsg_loop loop;
	struct vmsg_bus_ops ops; /* of the driver's end: the loop's, with a wait of ours */
	uint8_t *memory;
	struct vmsg_region region;
	struct vmsg_mem mem;
	struct vmsg_arena queues, data;

	struct vmsg_blk blk;
	struct vmsg_vq_device device_vqs[BLK_QUEUES];
	struct vmsg_blk_queue blk_queues[BLK_QUEUES];
	struct vmsg_blk_request requests[BLK_QUEUES][BLK_QUEUE_SIZE];
	struct vmsg_iov iovs[BLK_QUEUES][BLK_QUEUE_SIZE * BLK_IOVS];

	struct vmsg_blk_driver driver;
	struct vmsg_vq_driver driver_vqs[BLK_QUEUES];
	struct vmsg_vq_state states[BLK_QUEUES * BLK_QUEUE_SIZE];

	/* Lets the backend work; called in every wait of the driver. May be NULL. */
	void (*work)(struct blk_pair *pair);
	void *user;
};

static int (*blk_pair_loop_wait)(struct vmsg_bus *bus, uint32_t ms);

static inline int blk_pair_wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct blk_pair *pair = bus->user;

	if (pair->work)
		pair->work(pair);
	if (pair->blk.device.more) {
		pair->blk.device.more = false;
		vmsg_device_poll(&pair->blk.device);
	}
	return blk_pair_loop_wait(bus, ms);
}

/* The loop and the memory; the caller fills in pair->blk and calls blk_pair_add(). */
static inline void blk_pair_open(struct blk_pair *pair, bool packed, uint32_t queue_count)
{
	struct vmsg_loop_options options = { 0 };

	memset(pair, 0, sizeof(*pair));
	pair->memory = aligned_alloc(4096, BLK_MEMORY_BYTES);
	CHECK(pair->memory != NULL);
	memset(pair->memory, 0xee, BLK_MEMORY_BYTES);
	pair->region = (struct vmsg_region){
		.addr = BLK_MEMORY_ADDR,
		.len_bytes = BLK_MEMORY_BYTES,
		.ptr = pair->memory,
		.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = -1,
	};
	CHECK_EQ(vmsg_mem_init(&pair->mem, &pair->region, 1), 0);
	pair->queues = (struct vmsg_arena){ BLK_MEMORY_ADDR, pair->memory, BLK_QUEUE_BYTES, 0 };
	pair->data = (struct vmsg_arena){ BLK_MEMORY_ADDR + BLK_QUEUE_BYTES,
					  pair->memory + BLK_QUEUE_BYTES,
					  BLK_MEMORY_BYTES - BLK_QUEUE_BYTES, 0 };
	vmsg_loop_init(&pair->loop, &options);
	pair->ops = *pair->loop.driver.bus.ops;
	blk_pair_loop_wait = pair->ops.wait;
	pair->ops.wait = blk_pair_wait;
	pair->loop.driver.bus.ops = &pair->ops;
	pair->loop.driver.bus.user = pair;

	pair->blk.device.mem = &pair->mem;
	pair->blk.device.split = &vmsg_vq_split_device;
	pair->blk.device.packed = packed ? &vmsg_vq_packed_device : NULL;
	pair->blk.device.vqs = pair->device_vqs;
	pair->blk.device.vq_count = queue_count;
	pair->blk.queues = pair->blk_queues;
	for (uint32_t i = 0; i < queue_count; i++) {
		pair->device_vqs[i].max_size = BLK_QUEUE_SIZE;
		pair->blk_queues[i].requests = pair->requests[i];
		pair->blk_queues[i].iovs = pair->iovs[i];
		pair->blk_queues[i].iov_max = BLK_IOVS;
	}
}

static inline void blk_pair_add(struct blk_pair *pair)
{
	struct vmsg_blk_driver *driver = &pair->driver;

	vmsg_blk_init(&pair->blk);
	CHECK_EQ(vmsg_bus_add(&pair->loop.device.bus, &pair->blk.device, 3), 0);
	vmsg_blk_driver_init(driver, &pair->loop.driver.bus, 3);
	driver->driver.split = &vmsg_vq_split_driver;
	driver->driver.packed = &vmsg_vq_packed_driver;
	driver->driver.vqs = pair->driver_vqs;
	driver->driver.vq_count = BLK_QUEUES;
	driver->states = pair->states;
	driver->queue_size = BLK_QUEUE_SIZE;
	driver->indirect_max = 8;
	driver->arena = &pair->queues;
}

static inline void blk_pair_close(struct blk_pair *pair)
{
	free(pair->memory);
}

/* One whole request, waited for. bytes come from or go to *buf in the shared memory. */
static inline int blk_pair_call(struct blk_pair *pair, struct vmsg_blk_io *io, uint32_t type,
				uint64_t sector, struct vmsg_buf buf)
{
	io->type = type;
	io->sector = sector;
	io->bufs = &buf;
	io->buf_count = buf.len ? 1 : 0;
	return vmsg_blk_driver_call(&pair->driver, io, 10000);
}

#endif
