/* SPDX-License-Identifier: BSD-3-Clause */
/* device/console.c and driver/console.c, with each other over a terminal that a test commands. */
#include <stdlib.h>
#include <string.h>

#include <vmsg/console.h>
#include <vmsg/loop.h>
#include <vmsg/port.h>

#include "test.h"

#define COUNT_OF(a)  (sizeof(a) / sizeof((a)[0]))
#define MEMORY_BYTES (256u << 10)
#define MEMORY_ADDR  0x0010000000000000u
#define TEXT_BYTES   (256u << 10)

struct rig {
	struct vmsg_loop loop;
	uint8_t *memory;
	struct vmsg_region region;
	struct vmsg_mem mem;
	struct vmsg_arena arena;
	struct vmsg_console device;
	struct vmsg_console_driver driver;

	/* The terminal. */
	uint8_t *shown, *typed;
	uint32_t shown_bytes, typed_bytes, typed_at;
	uint32_t room;	  /* bytes it takes until it says AGAIN */
	uint32_t at_most; /* per call */
	bool broken;
	uint32_t reads;

	/* What the driver has seen. */
	uint8_t *received;
	uint32_t received_bytes, writables, resizes, lost;
	bool pause_soon;
};

static int write_terminal(void *backend, const uint8_t *ptr, uint32_t len)
{
	struct rig *rig = backend;

	CHECK(len > 0);
	if (rig->broken)
		return VMSG_ERR_IO;
	if (rig->room == 0)
		return VMSG_ERR_AGAIN;
	if (len > rig->room)
		len = rig->room;
	if (len > rig->at_most)
		len = rig->at_most;
	CHECK(len <= TEXT_BYTES - rig->shown_bytes);
	memcpy(rig->shown + rig->shown_bytes, ptr, len);
	rig->shown_bytes += len;
	rig->room -= len;
	return (int)len;
}

static int read_terminal(void *backend, uint8_t *ptr, uint32_t len)
{
	struct rig *rig = backend;
	uint32_t left = rig->typed_bytes - rig->typed_at;

	CHECK(len > 0);
	rig->reads++;
	if (left == 0)
		return VMSG_ERR_AGAIN;
	if (len > left)
		len = left;
	if (len > rig->at_most)
		len = rig->at_most;
	memcpy(ptr, rig->typed + rig->typed_at, len);
	rig->typed_at += len;
	return (int)len;
}

static const struct vmsg_console_backend terminal = {
	.name = "test",
	.write = write_terminal,
	.read = read_terminal,
};

static void type(struct rig *rig, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		rig->typed[rig->typed_bytes] = (uint8_t)(rig->typed_bytes * 11 + 5);
		rig->typed_bytes++;
	}
}

static void received(struct vmsg_console_driver *driver, const uint8_t *data, uint32_t len)
{
	struct rig *rig = driver->user;

	CHECK(len <= TEXT_BYTES - rig->received_bytes);
	memcpy(rig->received + rig->received_bytes, data, len);
	rig->received_bytes += len;
	if (rig->pause_soon)
		vmsg_console_driver_pause(driver, true);
}

static void writable(struct vmsg_console_driver *driver)
{
	((struct rig *)driver->user)->writables++;
}

static void resized(struct vmsg_console_driver *driver)
{
	((struct rig *)driver->user)->resizes++;
}

static void lost(struct vmsg_console_driver *driver)
{
	((struct rig *)driver->user)->lost++;
}

static struct rig *rig_open(bool packed)
{
	struct vmsg_loop_options options = { 0 };
	struct rig *rig = calloc(1, sizeof(*rig));
	struct vmsg_console_driver *driver = &rig->driver;

	rig->memory = aligned_alloc(4096, MEMORY_BYTES);
	rig->shown = malloc(TEXT_BYTES);
	rig->typed = malloc(TEXT_BYTES);
	rig->received = malloc(TEXT_BYTES);
	rig->room = rig->at_most = UINT32_MAX;
	rig->region = (struct vmsg_region){ MEMORY_ADDR, MEMORY_BYTES,
					    rig->memory, VMSG_MEM_READ | VMSG_MEM_WRITE,
					    -1,		 0 };
	CHECK_EQ(vmsg_mem_init(&rig->mem, &rig->region, 1), 0);
	rig->arena = (struct vmsg_arena){ MEMORY_ADDR, rig->memory, MEMORY_BYTES, 0 };
	vmsg_loop_init(&rig->loop, &options);
	rig->device.device.mem = &rig->mem;
	rig->device.device.split = &vmsg_vq_split_device;
	rig->device.device.packed = packed ? &vmsg_vq_packed_device : NULL;
	rig->device.backend = &terminal;
	rig->device.backend_data = rig;
	rig->device.cols = 80;
	rig->device.rows = 25;
	vmsg_console_init(&rig->device);
	CHECK_EQ(vmsg_bus_add(&rig->loop.device.bus, &rig->device.device, 1), 0);
	vmsg_console_driver_init(driver, &rig->loop.driver.bus, 1);
	driver->driver.split = &vmsg_vq_split_driver;
	driver->driver.packed = &vmsg_vq_packed_driver;
	driver->arena = &rig->arena;
	driver->user = rig;
	driver->received = received;
	driver->writable = writable;
	driver->resized = resized;
	driver->lost = lost;
	CHECK_EQ(vmsg_console_driver_start(driver), 0);
	vmsg_loop_run(&rig->loop);
	return rig;
}

static void rig_close(struct rig *rig)
{
	free(rig->received);
	free(rig->typed);
	free(rig->shown);
	free(rig->memory);
	free(rig);
}

static void turn(struct rig *rig)
{
	if (rig->device.device.more) {
		rig->device.device.more = false;
		vmsg_device_poll(&rig->device.device);
	}
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(vmsg_console_driver_poll(&rig->driver), 0);
}

/* ---- Output ---- */

static void test_send(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	uint8_t text[10000];
	uint32_t sent = 0;

	for (uint32_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 3);
	/* Seven bytes at a time at the other end. */
	rig->at_most = 7;
	for (uint32_t i = 0; i < 100 && sent < sizeof(text); i++) {
		int rc = vmsg_console_driver_send(&rig->driver, text + sent,
						  (uint32_t)sizeof(text) - sent);

		CHECK(rc >= 0);
		sent += (uint32_t)rc;
		turn(rig);
	}
	CHECK_EQ(sent, sizeof(text));
	CHECK(vmsg_console_driver_sent(&rig->driver));
	CHECK_EQ(rig->shown_bytes, sizeof(text));
	CHECK_MEM(rig->shown, text, sizeof(text));
	CHECK_EQ(rig->device.transmitted_bytes, sizeof(text));
	CHECK(rig->writables > 0);
	rig_close(rig);
}

/* A terminal that is full stops the queue, and nothing is lost or doubled. */
static void test_backpressure(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	uint8_t text[8192];
	uint32_t sent = 0;

	memset(text, 'x', sizeof(text));
	rig->room = 1000;
	for (uint32_t i = 0; i < 10; i++) {
		int rc = vmsg_console_driver_send(&rig->driver, text, sizeof(text));

		CHECK(rc >= 0);
		sent += (uint32_t)rc;
		turn(rig);
	}
	CHECK_EQ(rig->shown_bytes, 1000);
	/* One buffer has gone, the next was begun: eight are all there are. */
	CHECK_EQ(sent, 512 * (VMSG_CONSOLE_DRIVER_BUFFERS + 1));
	CHECK(rig->device.wants_output);
	CHECK(!vmsg_console_driver_sent(&rig->driver));
	rig->room = UINT32_MAX;
	vmsg_console_ready(&rig->device);
	turn(rig);
	CHECK(!rig->device.wants_output);
	CHECK_EQ(rig->shown_bytes, sent);
	CHECK(vmsg_console_driver_sent(&rig->driver));
	rig_close(rig);
}

/* Output that fails is dropped and counted; the driver is not held up. */
static void test_broken(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);

	rig->broken = true;
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "hello", 5), 5);
	turn(rig);
	CHECK(vmsg_console_driver_sent(&rig->driver));
	CHECK_EQ(rig->device.dropped_bytes, 5);
	rig_close(rig);
}

static void test_emergency(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	const uint8_t zero[4] = { 0 };

	CHECK_EQ(vmsg_console_driver_emergency(&rig->driver, '!'), 0);
	CHECK_EQ(rig->shown_bytes, 1);
	CHECK_EQ(rig->shown[0], '!');
	CHECK_EQ(vmsg_driver_write_config(&rig->driver.driver, 0, zero, 4), VMSG_ERR_IO);
	CHECK_EQ(vmsg_driver_write_config(&rig->driver.driver, 6, zero, 4), VMSG_ERR_IO);
	/* Before anything is negotiated, too. */
	CHECK_EQ(vmsg_driver_reset(&rig->driver.driver), 0);
	CHECK_EQ(vmsg_console_driver_emergency(&rig->driver, '?'), 0);
	CHECK_EQ(rig->shown[1], '?');
	rig_close(rig);
}

/* ---- Input ---- */

static void test_receive(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);

	CHECK(rig->device.wants_input);
	CHECK_EQ(rig->reads, 1);
	/* A kick for nothing does not ask the terminal again. */
	vmsg_device_poll(&rig->device.device);
	CHECK_EQ(rig->reads, 1);
	type(rig, 10);
	vmsg_console_ready(&rig->device);
	turn(rig);
	CHECK_EQ(rig->received_bytes, 10);
	type(rig, 20000);
	for (uint32_t i = 0; i < 100 && rig->received_bytes < 20010; i++) {
		vmsg_console_ready(&rig->device);
		turn(rig);
	}
	CHECK_EQ(rig->received_bytes, 20010);
	CHECK_MEM(rig->received, rig->typed, 20010);
	CHECK_EQ(rig->device.received_bytes, 20010);
	rig_close(rig);
}

/* Without buffers of the driver the terminal is not even asked. */
static void test_no_buffers(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	const uint32_t all = 512 * VMSG_CONSOLE_DRIVER_BUFFERS;
	uint32_t reads;

	vmsg_console_driver_pause(&rig->driver, true);
	type(rig, 10000);
	vmsg_console_ready(&rig->device);
	turn(rig);
	CHECK_EQ(rig->typed_at, all);
	CHECK(!rig->device.wants_input);
	reads = rig->reads;
	vmsg_console_ready(&rig->device);
	turn(rig);
	CHECK_EQ(rig->reads, reads);
	CHECK_EQ(rig->received_bytes, 0);
	/* Paused again from within. */
	rig->pause_soon = true;
	vmsg_console_driver_pause(&rig->driver, false);
	CHECK_EQ(rig->received_bytes, 512);
	rig->pause_soon = false;
	vmsg_console_driver_pause(&rig->driver, false);
	for (uint32_t i = 0; i < 100 && rig->received_bytes < 10000; i++) {
		vmsg_console_ready(&rig->device);
		turn(rig);
	}
	CHECK_MEM(rig->received, rig->typed, 10000);
	CHECK(rig->device.wants_input);
	rig_close(rig);
}

static void test_reset(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);

	/* A chain in hand in both directions. */
	rig->room = 0;
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "hello", 5), 5);
	turn(rig);
	CHECK(rig->device.wants_output && rig->device.wants_input);
	CHECK_EQ(vmsg_driver_reset(&rig->driver.driver), 0);
	CHECK(!rig->device.wants_output && !rig->device.wants_input);
	type(rig, 10);
	rig->room = 100;
	vmsg_console_ready(&rig->device);
	CHECK_EQ(rig->reads, 1); /* that of the start */
	CHECK_EQ(rig->shown_bytes, 0);
	CHECK_EQ(vmsg_console_driver_start(&rig->driver), 0);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "world", 5), 5);
	turn(rig);
	CHECK_EQ(rig->received_bytes, 10);
	CHECK_EQ(rig->shown_bytes, 5);
	CHECK_MEM(rig->shown, "world", 5);
	rig_close(rig);
}

/* One turn does its share and says that there is more. */
static void test_share(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	static struct vmsg_console_buffer own;
	struct vmsg_buf buf = { .len = 150000 };

	CHECK(vmsg_arena_take(&rig->arena, buf.len, 1, &buf.addr) != NULL);
	CHECK_EQ(vmsg_vq_add(&rig->driver.vqs[VMSG_CONSOLE_TX], &buf, 1, 0, &own), 0);
	vmsg_driver_kick(&rig->driver.driver, VMSG_CONSOLE_TX);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(rig->shown_bytes, VMSG_CONSOLE_TURN_BYTES);
	CHECK(rig->device.device.more);
	CHECK(!rig->device.wants_output);
	turn(rig);
	CHECK_EQ(rig->shown_bytes, 2 * VMSG_CONSOLE_TURN_BYTES);
	turn(rig);
	CHECK_EQ(rig->shown_bytes, buf.len);
	CHECK(!rig->device.device.more);
	rig_close(rig);
}

/* ---- Size and life ---- */

static void test_size(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	uint16_t cols = 0, rows = 0;

	CHECK_EQ(vmsg_console_driver_size(&rig->driver, &cols, &rows), 0);
	CHECK_EQ(cols, 80);
	CHECK_EQ(rows, 25);
	vmsg_console_set_size(&rig->device, 80, 25);
	turn(rig);
	CHECK_EQ(rig->resizes, 0);
	vmsg_console_set_size(&rig->device, 300, 100);
	turn(rig);
	CHECK_EQ(rig->resizes, 1);
	CHECK_EQ(vmsg_console_driver_size(&rig->driver, &cols, &rows), 0);
	CHECK_EQ(cols, 300);
	CHECK_EQ(rows, 100);
	rig_close(rig);
}

static void test_lost_notifications(void *arg)
{
	const struct vmsg_loop_plan plan = { .fault = VMSG_LOOP_DROP,
					     .to_device = true,
					     .to_driver = true,
					     .period = 1,
					     .count = 4 };
	struct rig *rig = rig_open(arg != NULL);

	vmsg_loop_set_plan(&rig->loop, &plan);
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "hello", 5), 5);
	for (uint32_t i = 0; i < 1000 && !vmsg_console_driver_sent(&rig->driver); i++) {
		rig->loop.driver.bus.ops->wait(&rig->loop.driver.bus, 1);
		CHECK_EQ(vmsg_console_driver_poll(&rig->driver), 0);
	}
	CHECK(vmsg_console_driver_sent(&rig->driver));
	CHECK_EQ(rig->shown_bytes, 5);
	rig_close(rig);
}

/* The very first kick of the receive queue is lost: no input could ever come. */
static void test_lost_first(void *arg)
{
	const struct vmsg_loop_plan plan = {
		.fault = VMSG_LOOP_DROP, .to_device = true, .period = 1, .count = 2
	};
	struct rig *rig = rig_open(arg != NULL);

	CHECK_EQ(vmsg_driver_reset(&rig->driver.driver), 0);
	vmsg_loop_set_plan(&rig->loop, &plan);
	CHECK_EQ(vmsg_console_driver_start(&rig->driver), 0);
	type(rig, 10);
	for (uint32_t i = 0; i < 2000 && rig->received_bytes == 0; i++) {
		rig->loop.driver.bus.ops->wait(&rig->loop.driver.bus, 1);
		CHECK_EQ(vmsg_console_driver_poll(&rig->driver), 0);
	}
	CHECK_EQ(rig->received_bytes, 10);
	rig_close(rig);
}

static void test_gone(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);

	vmsg_bus_remove(&rig->loop.device.bus, &rig->device.device);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(rig->lost, 1);
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "x", 1), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_console_driver_poll(&rig->driver), VMSG_ERR_SHUTDOWN);
	type(rig, 1);
	vmsg_console_ready(&rig->device);
	rig_close(rig);
}

/* ---- A bad partner ---- */

static void lying_kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_iov iov[4];
	struct vmsg_chain chain = { .iov = iov, .iov_max = 4 };

	if (vmsg_device_pop(device, vq_index, &chain) == 1) {
		struct vmsg_vq_device *vq = &device->vqs[vq_index];

		vmsg_device_push(device, vq_index, &chain, 0);
		vmsg_put32(vq->device + 4 + 8 * ((vq->used_idx - 1u) % vq->size) + 4,
			   chain.writable_bytes + 1);
	}
	vmsg_device_used(device, vq_index);
}

static void test_lie(void *arg)
{
	struct rig *rig = rig_open(false);
	const struct vmsg_device_ops *honest = rig->device.device.ops;
	struct vmsg_device_ops ops = *honest;

	(void)arg;
	CHECK_EQ(vmsg_driver_reset(&rig->driver.driver), 0);
	ops.kick = lying_kick;
	rig->device.device.ops = &ops;
	CHECK_EQ(vmsg_console_driver_start(&rig->driver), 0);
	vmsg_loop_run(&rig->loop);
	CHECK_EQ(vmsg_console_driver_poll(&rig->driver), VMSG_ERR_PROTO);
	CHECK_EQ(rig->received_bytes, 0);
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "x", 1), VMSG_ERR_PROTO);
	rig->device.device.ops = honest;
	CHECK_EQ(vmsg_console_driver_start(&rig->driver), 0);
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "x", 1), 1);
	turn(rig);
	CHECK_EQ(rig->shown_bytes, 1);
	rig_close(rig);
}

/* Empty answers and buffers turned the wrong way round. */
static void test_odd_chains(void *arg)
{
	struct rig *rig = rig_open(arg != NULL);
	struct vmsg_vq_driver *vqs = rig->driver.vqs;
	static struct vmsg_console_buffer own;
	struct vmsg_buf buf;
	uint8_t *ptr = vmsg_arena_take(&rig->arena, 64, 1, &buf.addr);

	CHECK(ptr != NULL);
	buf.len = 64;
	memset(ptr, 'z', 64);
	/* Something to write to in the transmit queue: nothing to show, and left alone. */
	CHECK_EQ(vmsg_vq_add(&vqs[VMSG_CONSOLE_TX], &buf, 0, 1, &own), 0);
	vmsg_driver_kick(&rig->driver.driver, VMSG_CONSOLE_TX);
	turn(rig);
	CHECK_EQ(rig->shown_bytes, 0);
	CHECK_EQ(ptr[0], 'z');
	CHECK_EQ(vmsg_console_driver_send(&rig->driver, "ok", 2), 2);
	turn(rig);
	CHECK_EQ(rig->shown_bytes, 2);
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
		BOTH("send", test_send),
		BOTH("backpressure", test_backpressure),
		BOTH("broken", test_broken),
		BOTH("emergency", test_emergency),
		BOTH("receive", test_receive),
		BOTH("no buffers", test_no_buffers),
		BOTH("reset", test_reset),
		BOTH("share", test_share),
		BOTH("size", test_size),
		BOTH("lost notifications", test_lost_notifications),
		BOTH("lost first kick", test_lost_first),
		BOTH("gone", test_gone),
		BOTH("odd chains", test_odd_chains),
		{ "lie", test_lie, NULL },
	};

	return test_main("device_console", tests, COUNT_OF(tests), argc, argv);
}
