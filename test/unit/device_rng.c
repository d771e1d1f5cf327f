/* SPDX-License-Identifier: BSD-3-Clause */
/* device/rng.c and driver/rng.c, with each other and with a bad partner. */
#include <stdlib.h>
#include <string.h>

#include <vmsg/loop.h>
#include <vmsg/port.h>
#include <vmsg/rng.h>

#include "test.h"

#define COUNT_OF(a)  (sizeof(a) / sizeof((a)[0]))
#define MEMORY_BYTES (2u << 20)
#define MEMORY_ADDR  0x0010000000000000u
#define BIG_BYTES    (VMSG_RNG_TURN_BYTES + 5000u)

struct rig {
	struct vmsg_loop loop;
	uint8_t *memory;
	struct vmsg_region region;
	struct vmsg_mem mem;
	struct vmsg_arena arena, data;
	struct vmsg_rng device;
	struct vmsg_rng_driver driver;

	/* The source. */
	uint64_t state;
	uint32_t available; /* bytes until it says AGAIN */
	uint32_t at_most;   /* bytes per call */
	bool fails;

	/* A driver without rng.c, and what came back to it. */
	struct vmsg_driver raw;
	struct vmsg_vq_driver raw_vq;
	struct vmsg_vq_state raw_state[VMSG_RNG_QUEUE_SIZE];
	uint32_t written[64], came_back;
};

/* xorshift: anything that is not the memory's filling will do. */
static uint8_t next_byte(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint8_t)(*state >> 24);
}

static int fill(void *source, uint8_t *ptr, uint32_t len)
{
	struct rig *rig = source;

	CHECK(len > 0 && len <= VMSG_RNG_TURN_BYTES);
	if (rig->fails)
		return VMSG_ERR_IO;
	if (rig->available == 0)
		return VMSG_ERR_AGAIN;
	if (len > rig->at_most)
		len = rig->at_most;
	if (len > rig->available)
		len = rig->available;
	rig->available -= len;
	for (uint32_t i = 0; i < len; i++)
		ptr[i] = next_byte(&rig->state);
	return (int)len;
}

static void raw_used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct rig *rig = driver->user;
	uint32_t written;
	void *cookie;

	(void)vq_index;
	while (vmsg_vq_get(&rig->raw_vq, &cookie, &written) == 1)
		rig->written[rig->came_back++ % COUNT_OF(rig->written)] = written;
}

static const struct vmsg_driver_ops raw_ops = { .used = raw_used };

static struct rig *rig_open(bool packed)
{
	struct vmsg_loop_options options = { 0 };
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->memory = aligned_alloc(4096, MEMORY_BYTES);
	memset(rig->memory, 0xee, MEMORY_BYTES);
	rig->region = (struct vmsg_region){ MEMORY_ADDR, MEMORY_BYTES,
					    rig->memory, VMSG_MEM_READ | VMSG_MEM_WRITE,
					    -1,		 0 };
	CHECK_EQ(vmsg_mem_init(&rig->mem, &rig->region, 1), 0);
	rig->arena = (struct vmsg_arena){ MEMORY_ADDR, rig->memory, MEMORY_BYTES / 4, 0 };
	rig->data = (struct vmsg_arena){ MEMORY_ADDR + MEMORY_BYTES / 4,
					 rig->memory + MEMORY_BYTES / 4, MEMORY_BYTES / 4 * 3, 0 };
	rig->state = 88172645463325252u;
	rig->available = rig->at_most = UINT32_MAX;
	vmsg_loop_init(&rig->loop, &options);
	rig->device.device.mem = &rig->mem;
	rig->device.device.split = &vmsg_vq_split_device;
	rig->device.device.packed = packed ? &vmsg_vq_packed_device : NULL;
	rig->device.fill = fill;
	rig->device.source = rig;
	vmsg_rng_init(&rig->device);
	CHECK_EQ(vmsg_bus_add(&rig->loop.device.bus, &rig->device.device, 1), 0);
	return rig;
}

static struct rig *with_driver(bool packed)
{
	struct rig *rig = rig_open(packed);

	vmsg_rng_driver_init(&rig->driver, &rig->loop.driver.bus, 1);
	rig->driver.driver.split = &vmsg_vq_split_driver;
	rig->driver.driver.packed = &vmsg_vq_packed_driver;
	rig->driver.arena = &rig->arena;
	rig->driver.buffer_bytes = 1000;
	return rig;
}

static struct rig *with_raw(bool packed)
{
	struct rig *rig = rig_open(packed);

	vmsg_driver_init(&rig->raw, &rig->loop.driver.bus, 1, &raw_ops);
	rig->raw.user = rig;
	rig->raw.split = &vmsg_vq_split_driver;
	rig->raw.packed = &vmsg_vq_packed_driver;
	rig->raw.vqs = &rig->raw_vq;
	rig->raw.vq_count = 1;
	CHECK_EQ(vmsg_driver_identify(&rig->raw), 0);
	CHECK_EQ(vmsg_driver_negotiate(&rig->raw, ~VMSG_BIT(VMSG_F_NOTIFICATION_DATA)), 0);
	CHECK_EQ(vmsg_driver_setup_vq(&rig->raw, 0, 64, 0, &rig->arena, rig->raw_state), 0);
	CHECK_EQ(rig->raw_vq.size, VMSG_RNG_QUEUE_SIZE);
	CHECK_EQ(vmsg_driver_ready(&rig->raw), 0);
	return rig;
}

static void rig_close(struct rig *rig)
{
	free(rig->memory);
	free(rig);
}

/* Adds a chain of these lengths; the first `readable` buffers are the driver's own. */
static uint8_t *add(struct rig *rig, const uint32_t *lens, uint16_t count, uint16_t readable)
{
	struct vmsg_buf bufs[8];
	uint8_t *first = NULL;

	for (uint16_t i = 0; i < count; i++) {
		uint8_t *ptr = vmsg_arena_take(&rig->data, lens[i], 1, &bufs[i].addr);

		CHECK(ptr != NULL);
		memset(ptr, 0xaa, lens[i]);
		bufs[i].len = lens[i];
		if (!first)
			first = ptr;
	}
	CHECK_EQ(vmsg_vq_add(&rig->raw_vq, bufs, readable, (uint16_t)(count - readable), rig), 0);
	return first;
}

static void kick(struct rig *rig)
{
	vmsg_driver_kick(&rig->raw, 0);
	vmsg_loop_run(&rig->loop);
}

static void check_bytes(uint64_t *state, const uint8_t *bytes, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		CHECK_EQ(bytes[i], next_byte(state));
}

/* ---- The device alone ---- */

static void test_chains(void *arg)
{
	const uint32_t one[] = { 64 }, three[] = { 7, 100, 1 }, mixed[] = { 32, 50 },
		       none[] = { 9 };
	struct rig *rig = with_raw(arg != NULL);
	uint64_t state = rig->state;
	uint8_t *a = add(rig, one, 1, 0), *b = add(rig, three, 3, 0), *c = add(rig, mixed, 2, 1);

	add(rig, none, 1, 1);
	kick(rig);
	CHECK_EQ(rig->came_back, 4);
	CHECK_EQ(rig->written[0], 64);
	CHECK_EQ(rig->written[1], 108);
	CHECK_EQ(rig->written[2], 50);
	CHECK_EQ(rig->written[3], 0);
	CHECK_EQ(rig->device.empty_chains, 1);
	CHECK_EQ(rig->device.filled_bytes, 222);
	check_bytes(&state, a, 64);
	check_bytes(&state, b, 108);
	for (uint32_t i = 0; i < 32; i++)
		CHECK_EQ(c[i], 0xaa); /* what the driver wrote is left alone */
	check_bytes(&state, c + 32, 50);
	CHECK_EQ(rig->device.device.counters.used_notifications, 1);
	rig_close(rig);
}

/* A source that has less than is asked for: what there is, at once; with nothing, later. */
static void test_slow_source(void *arg)
{
	const uint32_t lens[] = { 64, 64 };
	struct rig *rig = with_raw(arg != NULL);

	rig->available = 70;
	add(rig, lens, 2, 0);
	add(rig, lens, 2, 0);
	kick(rig);
	CHECK_EQ(rig->came_back, 1);
	CHECK_EQ(rig->written[0], 70);
	CHECK(!rig->device.device.more);
	rig->available = 1;
	vmsg_device_poll(&rig->device.device);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(rig->came_back, 2);
	CHECK_EQ(rig->written[1], 1);
	rig_close(rig);
}

static void test_reset_while_waiting(void *arg)
{
	const uint32_t lens[] = { 64 };
	struct rig *rig = with_raw(arg != NULL);
	uint8_t *bytes;

	rig->available = 0;
	bytes = add(rig, lens, 1, 0);
	kick(rig);
	CHECK_EQ(vmsg_driver_reset(&rig->raw), 0);
	rig->available = 1000;
	vmsg_device_poll(&rig->device.device);
	CHECK_EQ(bytes[0], 0xaa);
	CHECK_EQ(rig->device.filled_bytes, 0);
	rig_close(rig);
}

static void test_queue_reset(void *arg)
{
	const uint32_t lens[] = { 64 };
	struct rig *rig = with_raw(arg != NULL);

	rig->available = 0;
	add(rig, lens, 1, 0);
	kick(rig);
	CHECK_EQ(vmsg_driver_reset_vq(&rig->raw, 0), 0);
	rig->available = 1000;
	CHECK_EQ(vmsg_driver_setup_vq(&rig->raw, 0, 16, 0, &rig->arena, rig->raw_state), 0);
	add(rig, lens, 1, 0);
	kick(rig);
	CHECK_EQ(rig->came_back, 1);
	CHECK_EQ(rig->device.filled_bytes, 64);
	rig_close(rig);
}

static void test_broken_source(void *arg)
{
	const uint32_t lens[] = { 64 };
	struct rig *rig = with_raw(arg != NULL);

	rig->fails = true;
	add(rig, lens, 1, 0);
	kick(rig);
	CHECK(rig->raw.needs_reset);
	CHECK_EQ(rig->came_back, 0);
	CHECK_EQ(vmsg_driver_reset(&rig->raw), 0);
	CHECK_EQ(rig->device.device.status, 0);
	rig_close(rig);
}

/* One turn does its share and says that there is more. */
static void test_share(void *arg)
{
	const uint32_t big[] = { BIG_BYTES };
	struct rig *rig = with_raw(arg != NULL);

	for (uint32_t i = 0; i < 3; i++)
		add(rig, big, 1, 0);
	kick(rig);
	CHECK_EQ(rig->came_back, 1);
	CHECK_EQ(rig->written[0], VMSG_RNG_TURN_BYTES);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK(rig->device.device.more);
		rig->device.device.more = false;
		vmsg_device_poll(&rig->device.device);
		vmsg_loop_run(&rig->loop);
	}
	CHECK_EQ(rig->came_back, 3);
	rig_close(rig);
}

/* ---- With its driver ---- */

static void test_read(void *arg)
{
	struct rig *rig = with_driver(arg != NULL);
	uint64_t state = rig->state;
	uint8_t bytes[5000];

	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
	CHECK_EQ(vmsg_has(rig->driver.driver.features, VMSG_F_RING_PACKED), arg != NULL);
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 5000, 100), 0);
	check_bytes(&state, bytes, 5000);
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 1, 100), 0);
	check_bytes(&state, bytes, 1);
	/* Seventeen bytes at a time. */
	rig->at_most = 17;
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 3000, 100), 0);
	check_bytes(&state, bytes, 3000);
	rig_close(rig);
}

static void test_no_entropy(void *arg)
{
	struct rig *rig = with_driver(arg != NULL);
	uint8_t bytes[100];

	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
	rig->available = 60;
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 300), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(vmsg_rng_driver_take(&rig->driver, bytes, 100), VMSG_ERR_AGAIN);
	rig->available = 100;
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 300), 0);
	rig_close(rig);
}

static void test_lost_notifications(void *arg)
{
	const struct vmsg_loop_plan plan = { .fault = VMSG_LOOP_DROP,
					     .to_device = true,
					     .to_driver = true,
					     .period = 1,
					     .count = 3 };
	struct rig *rig = with_driver(arg != NULL);
	uint8_t bytes[100];

	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
	vmsg_loop_set_plan(&rig->loop, &plan);
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 5000), 0);
	rig_close(rig);
}

static void test_gone(void *arg)
{
	struct rig *rig = with_driver(arg != NULL);
	uint8_t bytes[100];

	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
	vmsg_bus_remove(&rig->loop.device.bus, &rig->device.device);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 5000), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_rng_driver_take(&rig->driver, bytes, 100), VMSG_ERR_SHUTDOWN);
	rig_close(rig);
}

/* A device that gives empty answers, and one that claims more than the buffer holds. */
static int lie;

static void lying_kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_iov iov[4];
	struct vmsg_chain chain = { .iov = iov, .iov_max = 4 };

	while (vmsg_device_pop(device, vq_index, &chain) == 1) {
		struct vmsg_vq_device *vq = &device->vqs[vq_index];

		vmsg_device_push(device, vq_index, &chain, 0);
		if (lie)
			vmsg_put32(vq->device + 4 + 8 * ((vq->used_idx - 1u) % vq->size) + 4,
				   chain.writable_bytes + 1);
	}
	vmsg_device_used(device, vq_index);
}

static void test_lies(void *arg)
{
	const struct vmsg_device_ops *honest;
	struct rig *rig = with_driver(false);
	struct vmsg_device_ops ops;
	uint8_t bytes[100];

	(void)arg;
	honest = rig->device.device.ops;
	ops = *honest;
	ops.kick = lying_kick;
	for (lie = 0; lie < 2; lie++) {
		rig->device.device.ops = &ops;
		CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
		CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 5000), VMSG_ERR_PROTO);
		CHECK(rig->driver.failed);
		rig->device.device.ops = honest;
		CHECK_EQ(vmsg_rng_driver_start(&rig->driver), 0);
		CHECK_EQ(vmsg_rng_driver_read(&rig->driver, bytes, 100, 5000), 0);
	}
	rig_close(rig);
}

static void test_no_device(void *arg)
{
	struct rig *rig = with_driver(false);
	struct vmsg_device_ops disk = *rig->device.device.ops;

	(void)arg;
	disk.device_id = 2;
	rig->device.device.ops = &disk;
	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), VMSG_ERR_NODEV);
	rig->driver.driver.dev_num = 2;
	CHECK_EQ(vmsg_rng_driver_start(&rig->driver), VMSG_ERR_NODEV);
	rig_close(rig);
}

#define BOTH(name, function)                       \
	{ name ", split", function, NULL },        \
	{                                          \
		name ", packed", function, &packed \
	}

int main(int argc, char **argv)
{
	static int packed;
	const struct test tests[] = {
		BOTH("chains", test_chains),
		BOTH("slow source", test_slow_source),
		BOTH("reset while waiting", test_reset_while_waiting),
		BOTH("queue reset", test_queue_reset),
		BOTH("broken source", test_broken_source),
		BOTH("share", test_share),
		BOTH("read", test_read),
		BOTH("no entropy", test_no_entropy),
		BOTH("lost notifications", test_lost_notifications),
		BOTH("gone", test_gone),
		{ "lies", test_lies, NULL },
		{ "no device", test_no_device, NULL },
	};

	return test_main("device_rng", tests, COUNT_OF(tests), argc, argv);
}
