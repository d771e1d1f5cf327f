/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a virtqueue costs between two processes that poll (goal P2), every check switched on (there
 * is no other way to build it), notifications looked at on both sides and wanted on none: round
 * trips of one split descriptor, a split chain of three and one packed descriptor. Everything is
 * compared with cache-line ping-pong; see common_pair.h.
 */
#include <vmsg/vq.h>

#include "common_pair.h"

#define MEMORY_BYTES (256u * 1024)
#define MEMORY_ADDR  0x0010000000000000u /* as an AMP memory reference: area 1 */
#define SIZE	     256u /* so that rings fill many cache lines, as they do in earnest */
#define MAX_BUFS     3u

enum kind {
	SPLIT_1,
	SPLIT_3,
	PACKED_1,
	KINDS,
};

static const struct bench_kind kinds[KINDS] = {
	[SPLIT_1] = { "split_1", "P2", "split queue, 1 descriptor / ping-pong", 1.65 },
	[SPLIT_3] = { "split_3", "P2", "split queue, chain of 3 / ping-pong", 2.0 },
	[PACKED_1] = { "packed_1", "P2", "packed queue, 1 descriptor / ping-pong", 0.85 },
};

static const uint16_t readable_counts[KINDS] = { 1, 2, 1 };
static const uint16_t writable_counts[KINDS] = { 0, 1, 0 };

static struct vmsg_region region;
static struct vmsg_mem mem;
static struct vmsg_buf bufs[MAX_BUFS];
static struct vmsg_vq_driver drivers[KINDS];
static struct vmsg_vq_device devices[KINDS];

static void require(bool truth)
{
	if (truth)
		return;
	bench_fail("vq: the queue does not work");
}

static void set_up_kind(int kind, struct vmsg_arena *arena)
{
	static struct vmsg_vq_state states[KINDS][SIZE];
	bool packed = kind == PACKED_1;
	const struct vmsg_vq_driver_format *format =
		packed ? &vmsg_vq_packed_driver : &vmsg_vq_split_driver;
	struct vmsg_vq_device *device = &devices[kind];
	uint64_t features =
		VMSG_BIT(VMSG_F_VERSION_1) | (packed ? VMSG_BIT(VMSG_F_RING_PACKED) : 0);
	struct vmsg_vq_memory memory;

	require(vmsg_vq_memory_take(&memory, format, SIZE, 0, arena) == 0);
	require(vmsg_vq_driver_init(&drivers[kind], format, features, SIZE, &memory,
				    states[kind]) == 0);
	device->max_size = SIZE;
	device->size = SIZE;
	device->desc_addr = memory.desc_addr;
	device->driver_addr = memory.driver_addr;
	device->device_addr = memory.device_addr;
	require(vmsg_vq_device_enable(device,
				      packed ? &vmsg_vq_packed_device : &vmsg_vq_split_device, &mem,
				      features) == 0);
	vmsg_vq_want_kicks(device, false);
	vmsg_vq_want_used(&drivers[kind], false);
}

static void set_up(uint8_t *memory)
{
	struct vmsg_arena arena = {
		.addr = MEMORY_ADDR,
		.ptr = memory,
		.len_bytes = MEMORY_BYTES,
	};

	region = (struct vmsg_region){
		.addr = MEMORY_ADDR,
		.len_bytes = MEMORY_BYTES,
		.ptr = memory,
		.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = -1,
	};
	require(vmsg_mem_init(&mem, &region, 1) == 0);
	for (int kind = 0; kind < KINDS; kind++)
		set_up_kind(kind, &arena);
	for (uint32_t i = 0; i < MAX_BUFS; i++) {
		bufs[i].len = 64;
		require(vmsg_arena_take(&arena, 64, 64, &bufs[i].addr) != NULL);
	}
}

static void send_one(int kind)
{
	require(vmsg_vq_add(&drivers[kind], bufs, readable_counts[kind], writable_counts[kind],
			    bufs) == 0);
	/* Nobody asked for kicks. */
	require(!vmsg_vq_publish(&drivers[kind]));
}

static bool receive_one(int kind)
{
	uint32_t written;
	void *cookie;
	int rc = vmsg_vq_get(&drivers[kind], &cookie, &written);

	require(rc >= 0);
	return rc > 0;
}

static bool serve_one(int kind)
{
	struct vmsg_iov iov[MAX_BUFS];
	struct vmsg_chain chain = { .iov = iov, .iov_max = MAX_BUFS };
	int rc = vmsg_vq_pop(&devices[kind], &chain);

	require(rc >= 0);
	if (rc == 0)
		return false;
	vmsg_vq_push(&devices[kind], &chain, chain.writable_bytes);
	require(!vmsg_vq_used_event(&devices[kind]));
	return true;
}

static void drive(int kind, uint32_t ops)
{
	for (uint32_t i = 0; i < ops; i++) {
		send_one(kind);
		while (!receive_one(kind))
			;
	}
}

static void serve(int kind, uint32_t ops)
{
	for (uint32_t i = 0; i < ops; i++) {
		while (!serve_one(kind))
			;
	}
}

static void single(int kind, uint32_t ops)
{
	for (uint32_t i = 0; i < ops; i++) {
		send_one(kind);
		require(serve_one(kind));
		require(receive_one(kind));
	}
}

int main(int argc, char **argv)
{
	struct bench_pair pair = {
		.name = "vq",
		.title = "virtqueue round trips, polled, every check on",
		.kinds = kinds,
		.kind_count = KINDS,
		.memory_bytes = MEMORY_BYTES,
		.set_up = set_up,
		.drive = drive,
		.serve = serve,
		.single = single,
		.starts = 5,
		.blocks = 60,
		.ops = 3000,
		.seconds = 10,
	};

	return bench_pair_main(&pair, argc, argv);
}
