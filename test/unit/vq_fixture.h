/* SPDX-License-Identifier: BSD-3-Clause */
/* Both sides of one virtqueue over one piece of memory, for the tests of core/vq*.c. */
#ifndef TEST_UNIT_VQ_FIXTURE_H
#define TEST_UNIT_VQ_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include <vmsg/port.h>
#include <vmsg/vq.h>

#include "test.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Beyond 32 bits, with an area id in the upper ones. */
#define PAIR_ADDR 0x0010000340000000u

struct pair {
	bool packed;
	uint64_t features;
	uint16_t size, indirect_max;
	size_t bytes; /* of the memory; in a block of exactly this size */
	uint8_t *ptr;
	struct vmsg_region region[2]; /* the second one is a test's own */
	struct vmsg_mem mem;
	struct vmsg_arena arena;
	struct vmsg_vq_memory memory;
	struct vmsg_vq_state *state;
	struct vmsg_vq_driver driver;
	struct vmsg_vq_device device;
	struct vmsg_chain chain;
	uint8_t *data; /* the rest of the memory, for buffers */
	uint64_t data_addr;
	size_t data_bytes;
};

/* Starts both sides, the first time or after a reset. */
static inline void pair_start(struct pair *pair)
{
	CHECK_EQ(vmsg_vq_driver_init(&pair->driver,
				     pair->packed ? &vmsg_vq_packed_driver : &vmsg_vq_split_driver,
				     pair->features, pair->size, &pair->memory, pair->state),
		 0);
	pair->device.max_size = VMSG_VQ_MAX_SIZE;
	pair->device.size = pair->size;
	pair->device.desc_addr = pair->memory.desc_addr;
	pair->device.driver_addr = pair->memory.driver_addr;
	pair->device.device_addr = pair->memory.device_addr;
	CHECK_EQ(vmsg_vq_device_enable(&pair->device,
				       pair->packed ? &vmsg_vq_packed_device
						    : &vmsg_vq_split_device,
				       &pair->mem, pair->features),
		 0);
}

static inline void pair_open(struct pair *pair, bool packed, uint64_t features, uint16_t size,
			     uint16_t indirect_max, size_t data_bytes)
{
	size_t table_bytes = (size_t)size * indirect_max * VMSG_DESC_BYTES;
	void *ptr = NULL;

	memset(pair, 0, sizeof(*pair));
	pair->packed = packed;
	pair->features = features | VMSG_BIT(VMSG_F_VERSION_1);
	if (packed)
		pair->features |= VMSG_BIT(VMSG_F_RING_PACKED);
	pair->size = size;
	pair->indirect_max = indirect_max;
	pair->bytes = (size_t)size * 26 + table_bytes + data_bytes + 4 * 64;
	CHECK_EQ(posix_memalign(&ptr, 64, pair->bytes), 0);
	pair->ptr = ptr;
	memset(pair->ptr, 0xa5, pair->bytes);
	pair->region[0] = (struct vmsg_region){
		.addr = PAIR_ADDR,
		.len_bytes = pair->bytes,
		.ptr = pair->ptr,
		.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = -1,
	};
	CHECK_EQ(vmsg_mem_init(&pair->mem, pair->region, 1), 0);
	pair->arena = (struct vmsg_arena){
		.addr = PAIR_ADDR,
		.ptr = pair->ptr,
		.len_bytes = pair->bytes,
	};
	CHECK_EQ(vmsg_vq_memory_take(&pair->memory,
				     packed ? &vmsg_vq_packed_driver : &vmsg_vq_split_driver, size,
				     indirect_max, &pair->arena),
		 0);
	pair->data = pair->ptr + pair->arena.used_bytes;
	pair->data_addr = PAIR_ADDR + pair->arena.used_bytes;
	pair->data_bytes = pair->bytes - (size_t)pair->arena.used_bytes;
	CHECK(pair->data_bytes >= data_bytes);
	pair->state = calloc(size, sizeof(*pair->state));
	pair->chain.iov = calloc(size, sizeof(*pair->chain.iov));
	pair->chain.iov_max = size;
	CHECK(pair->state && pair->chain.iov);
	pair_start(pair);
}

static inline void pair_close(struct pair *pair)
{
	free(pair->chain.iov);
	free(pair->state);
	free(pair->ptr);
}

/* As after a reset of the device: the driver collects its chains, and both sides start again. */
static inline void pair_restart(struct pair *pair)
{
	vmsg_vq_device_reset(&pair->device);
	while (vmsg_vq_drain(&pair->driver))
		;
	pair_start(pair);
}

/* One chain there and back: the proof that a queue works. */
static inline void pair_round_trip(struct pair *pair, uint8_t value)
{
	struct vmsg_buf bufs[2] = {
		{ pair->data_addr, 4 },
		{ pair->data_addr + 8, 8 },
	};
	uint16_t writable = pair->size > 1 ? 1 : 0;
	uint8_t copy[4], answer[8];
	uint32_t written = 99;
	void *cookie = NULL;

	memset(pair->data, value, 4);
	memset(pair->data + 8, 0, 8);
	memset(answer, value ^ 0xff, sizeof(answer));
	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 0);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 0);
	CHECK_EQ(vmsg_vq_add(&pair->driver, bufs, 1, writable, bufs), 0);
	vmsg_vq_publish(&pair->driver);
	CHECK_EQ(vmsg_vq_pop(&pair->device, &pair->chain), 1);
	CHECK_EQ(pair->chain.readable_count, 1);
	CHECK_EQ(pair->chain.writable_count, writable);
	CHECK_EQ(vmsg_chain_read(&pair->chain, 0, copy, 4), 4);
	CHECK_MEM(copy, pair->data, 4);
	CHECK_EQ(vmsg_chain_write(&pair->chain, 0, answer, 8), 8 * writable);
	vmsg_vq_push(&pair->device, &pair->chain, 8u * writable);
	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 1);
	CHECK(cookie == bufs);
	CHECK_EQ(written, 8 * writable);
	CHECK_MEM(pair->data + 8, answer, written);
	CHECK_EQ(vmsg_vq_get(&pair->driver, &cookie, &written), 0);
}

/* Adds a chain of one buffer and shows it to the device. */
static inline bool pair_send(struct pair *pair, bool writable, void *cookie)
{
	struct vmsg_buf buf = { pair->data_addr, 16 };

	CHECK_EQ(vmsg_vq_add(&pair->driver, &buf, !writable, writable, cookie), 0);
	return vmsg_vq_publish(&pair->driver);
}

/* What the other side's words say, and how to forge them. */

static inline void raw_desc(struct pair *pair, unsigned int slot, uint64_t addr, uint32_t len,
			    unsigned int flags, unsigned int next)
{
	uint8_t *ptr = pair->memory.desc + (size_t)VMSG_DESC_BYTES * slot;

	vmsg_put64(ptr, addr);
	vmsg_put32(ptr + 8, len);
	vmsg_put16(ptr + 12, (uint16_t)flags);
	vmsg_put16(ptr + 14, (uint16_t)next);
}

/* The flags are as given: availability is up to the caller. */
static inline void raw_packed(struct pair *pair, unsigned int slot, uint64_t addr, uint32_t len,
			      unsigned int id, unsigned int flags)
{
	raw_desc(pair, slot, addr, len, id, flags);
}

static inline void raw_avail(struct pair *pair, unsigned int entry, unsigned int head)
{
	vmsg_put16(pair->memory.driver + 4 + 2 * (size_t)entry, (uint16_t)head);
}

static inline void raw_avail_idx(struct pair *pair, unsigned int idx)
{
	vmsg_put16(pair->memory.driver + 2, (uint16_t)idx);
}

static inline void raw_used(struct pair *pair, unsigned int entry, uint32_t id, uint32_t len)
{
	vmsg_put32(pair->memory.device + 4 + 8 * (size_t)entry, id);
	vmsg_put32(pair->memory.device + 8 + 8 * (size_t)entry, len);
}

static inline void raw_used_idx(struct pair *pair, unsigned int idx)
{
	vmsg_put16(pair->memory.device + 2, (uint16_t)idx);
}

/* A small generator, the same everywhere. */
static inline uint32_t test_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

#endif
