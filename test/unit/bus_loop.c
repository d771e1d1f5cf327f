/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop bus: what a bus owes its ends (wire.md 3.1), and each fault of its plan by itself. */
#include "test.h"

#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/loop.h>
#include <vmsg/port.h>

#include <string.h>

#define DEV    5
#define SEEN   64
#define QUEUES 2

static struct vmsg_loop loop;

/* A device that only counts, and a driver that only counts. */
static struct {
	struct vmsg_device device;
	struct vmsg_vq_device vqs[QUEUES];
	uint8_t config[16];
	int reset_vq_result;
	uint32_t kicks;
} model;

static struct {
	struct vmsg_driver driver;
	struct vmsg_vq_driver vqs[QUEUES];
	struct vmsg_vq_state state[QUEUES][8];
	struct vmsg_arena arena;
	uint32_t used, config_changed;
} user;

static uint8_t ram[8192] __attribute__((aligned(4096)));
static struct vmsg_region region = { .addr = 0x1000,
				     .len_bytes = sizeof(ram),
				     .ptr = ram,
				     .access = VMSG_MEM_READ | VMSG_MEM_WRITE,
				     .fd = -1 };
static struct vmsg_mem mem;

/* Every frame that an end received. */
static struct {
	uint32_t count;
	struct {
		uint32_t len;
		uint8_t bytes[VMSG_LOOP_BYTES];
	} frames[SEEN];
} seen;

static void write_down(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	(void)bus;
	if (sent)
		return;
	CHECK(seen.count < SEEN);
	seen.frames[seen.count].len = len;
	memcpy(seen.frames[seen.count++].bytes, buf, len);
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	(void)device;
	(void)vq_index;
	model.kicks++;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	(void)device;
	(void)vq_index;
	return model.reset_vq_result;
}

static const struct vmsg_device_ops device_ops = {
	.name = "loop",
	.device_id = 1,
	.kick = kick,
	.reset_vq = reset_vq,
};

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	(void)driver;
	(void)vq_index;
	user.used++;
}

static void config_changed(struct vmsg_driver *driver, uint32_t device_status)
{
	(void)driver;
	(void)device_status;
	user.config_changed++;
}

static const struct vmsg_driver_ops driver_ops = { .used = used, .config_changed = config_changed };

static void open_loop(const struct vmsg_loop_options *options)
{
	memset(&model, 0, sizeof(model));
	memset(&user, 0, sizeof(user));
	memset(&seen, 0, sizeof(seen));
	memset(ram, 0, sizeof(ram));
	CHECK_EQ(vmsg_mem_init(&mem, &region, 1), 0);
	vmsg_loop_init(&loop, options);
	for (uint32_t i = 0; i < QUEUES; i++)
		model.vqs[i].max_size = 8;
	model.device.ops = &device_ops;
	model.device.config = model.config;
	model.device.config_size = sizeof(model.config);
	model.device.vqs = model.vqs;
	model.device.vq_count = QUEUES;
	model.device.mem = &mem;
	model.device.split = &vmsg_vq_split_device;
	vmsg_device_init(&model.device);
	CHECK_EQ(vmsg_bus_add(&loop.device.bus, &model.device, DEV), 0);
	vmsg_driver_init(&user.driver, &loop.driver.bus, DEV, &driver_ops);
	user.driver.split = &vmsg_vq_split_driver;
	user.driver.vqs = user.vqs;
	user.driver.vq_count = QUEUES;
	user.arena.addr = region.addr;
	user.arena.ptr = ram;
	user.arena.len_bytes = sizeof(ram);
	vmsg_loop_run(&loop);
}

static void open_plain(void)
{
	static const struct vmsg_loop_options plain;

	open_loop(&plain);
}

static void start(uint64_t wanted)
{
	CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
	CHECK_EQ(vmsg_driver_negotiate(&user.driver, wanted), 0);
	for (uint32_t i = 0; i < QUEUES; i++)
		CHECK_EQ(vmsg_driver_setup_vq(&user.driver, i, 8, 0, &user.arena, user.state[i]),
			 0);
	CHECK_EQ(vmsg_driver_ready(&user.driver), 0);
	user.used = model.kicks = 0;
}

static void plan(enum vmsg_loop_fault fault, uint32_t period, uint32_t count)
{
	struct vmsg_loop_plan made = { .fault = fault,
				       .to_device = true,
				       .requests_too = true,
				       .period = period,
				       .count = count,
				       .delay_ms = 4 };

	vmsg_loop_set_plan(&loop, &made);
}

/* ---- What a bus owes ---- */

static void limits(void *arg)
{
	static const struct vmsg_loop_options strict = {
		.features = VMSG_BIT(VMSG_F_STRICT_CONFIG_GENERATION),
	};

	(void)arg;
	open_loop(&strict);
	for (uint32_t i = 0; i < 2; i++) {
		/* Known before the first message, the same at both ends, and after a session. */
		CHECK_EQ(loop.device.bus.revision, 1);
		CHECK_EQ(loop.driver.bus.revision, 1);
		CHECK_EQ(loop.device.bus.max_msg_size, 264);
		CHECK_EQ(loop.driver.bus.max_msg_size, 264);
		CHECK_EQ(loop.device.bus.features, 1);
		CHECK_EQ(loop.driver.bus.features, 1);
		start(0);
	}
}

/* The carrier looks at nothing but the length. */
static void opaque(void *arg)
{
	static const uint8_t ids[] = { 0x3f, 0x7f, 0xbf, 0xff, 0x02, 0x41 };
	uint8_t wire[VMSG_MSG_DEFAULT];
	uint32_t dice = 1;

	(void)arg;
	open_plain();
	loop.device.bus.trace = write_down;
	for (uint32_t i = 0; i < SEEN / 2; i++) {
		uint32_t len = 8 + i * 8;

		for (uint32_t j = 0; j < len; j++) {
			dice = dice * 1664525u + 1013904223u;
			wire[j] = (uint8_t)(dice >> 24);
		}
		wire[0] = (uint8_t)((i * 4) & 0xfc); /* reserved bits set */
		wire[1] = ids[i % sizeof(ids)];
		vmsg_put16(wire + 6, (uint16_t)len);
		CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, len), 0);
		vmsg_loop_run(&loop);
		CHECK_EQ(seen.count, i + 1);
		CHECK_EQ(seen.frames[i].len, len);
		CHECK_MEM(seen.frames[i].bytes, wire, len);
	}
}

/* Eight requests without waiting: they arrive as they were sent. */
static void in_order(void *arg)
{
	struct vmsg_request requests[8] = { 0 };
	uint8_t tails[8][4];

	(void)arg;
	open_plain();
	loop.device.bus.trace = write_down;
	for (uint32_t i = 0; i < 8; i++) {
		struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG, .dev_num = DEV };

		msg.config.offset = i;
		msg.config.length = 1;
		requests[i].tail = tails[i];
		requests[i].tail_size = 4;
		CHECK_EQ(vmsg_request_start(&loop.driver.bus, &requests[i], &msg, 100), 0);
	}
	vmsg_loop_run(&loop);
	for (uint32_t i = 0; i < 8; i++) {
		CHECK_EQ(vmsg_get32(seen.frames[i].bytes + 8), i);
		CHECK(!requests[i].waiting);
		CHECK_EQ(requests[i].result, 0);
		CHECK_EQ(requests[i].reply.config.offset, i);
	}
}

/* An event does not wait for the answer that is pending. */
static void event_before_the_answer(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_RESET_VQUEUE, .dev_num = DEV };
	struct vmsg_request request = { 0 };

	(void)arg;
	open_plain();
	start(VMSG_BIT(VMSG_F_RING_RESET));
	model.reset_vq_result = VMSG_ERR_AGAIN;
	CHECK_EQ(vmsg_request_start(&loop.driver.bus, &request, &msg, 100), 0);
	vmsg_loop_run(&loop);
	vmsg_device_config_changed(&model.device, 0, 1);
	vmsg_loop_run(&loop);
	CHECK(request.waiting);
	CHECK_EQ(user.config_changed, 1);
	vmsg_device_vq_reset_done(&model.device, 0);
	vmsg_loop_run(&loop);
	CHECK(!request.waiting);
	CHECK_EQ(request.result, 0);
}

/* N kicks in, N kicks seen; by doorbell, those that wait together count as one. */
static void events_one_by_one(void *arg)
{
	static const struct vmsg_loop_options bells = { .doorbells = true };

	(void)arg;
	open_plain();
	start(0);
	for (uint32_t i = 1; i <= 20; i++) {
		vmsg_driver_kick_again(&user.driver, i % QUEUES);
		vmsg_loop_run(&loop);
		CHECK_EQ(model.kicks, i);
	}
	for (uint32_t i = 0; i < 5; i++)
		vmsg_driver_kick_again(&user.driver, 0);
	vmsg_loop_run(&loop);
	CHECK_EQ(model.kicks, 25);
	open_loop(&bells);
	start(0);
	loop.device.bus.trace = write_down;
	for (uint32_t i = 0; i < 5; i++) {
		vmsg_driver_kick_again(&user.driver, 0);
		vmsg_driver_kick_again(&user.driver, 1);
	}
	vmsg_loop_run(&loop);
	CHECK_EQ(model.kicks, 2);
	/* The bell is all there is: no message says the same again. */
	CHECK_EQ(seen.count, 0);
	/* A bell for nothing is seen by nobody but the model, which looks and finds nothing. */
	vmsg_device_kicked(&model.device, 0);
	vmsg_driver_notified(&user.driver, 0);
	CHECK_EQ(user.used, 1);
	CHECK_EQ(loop.driver.bus.counters.malformed + loop.device.bus.counters.malformed, 0);
}

static void number_without_a_device(void *arg)
{
	(void)arg;
	open_plain();
	CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
	user.driver.dev_num = DEV + 1;
	CHECK_EQ(vmsg_driver_identify(&user.driver), VMSG_ERR_NODEV);
	CHECK_EQ(loop.device.bus.counters.no_device, 2);
	vmsg_driver_kick_again(&user.driver, 0); /* not started: not even sent */
	CHECK_EQ(model.kicks, 0);
}

static void as_large_as_the_bus(void *arg)
{
	struct vmsg_loop_options options = { .max_msg_size = 52 };
	uint8_t wire[64] = { 0, VMSG_GET_DEVICE_STATUS, DEV, 0, 1, 0, 52 };

	(void)arg;
	open_loop(&options);
	CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 52), 0);
	vmsg_loop_run(&loop);
	CHECK_EQ(loop.device.bus.counters.malformed, 0);
	wire[6] = 53;
	CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 53), 0);
	CHECK_EQ(vmsg_bus_send_frame(&loop.device.bus, wire, 53), 0);
	vmsg_loop_run(&loop);
	CHECK_EQ(loop.device.bus.counters.malformed, 1);
	CHECK_EQ(loop.driver.bus.counters.malformed, 1);
}

/* The far end does not read: sends say so, nothing is lost, and time passes in wait. */
static void far_end_does_not_read(void *arg)
{
	struct vmsg_loop_options options = { .capacity = 4 };
	uint8_t wire[8] = { 0, VMSG_GET_DEVICE_STATUS, DEV, 0, 1, 0, 8 };
	uint32_t sent = 0;

	(void)arg;
	open_loop(&options);
	while (vmsg_bus_send_frame(&loop.driver.bus, wire, 8) == 0)
		sent++;
	CHECK_EQ(sent, 3);
	CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 8), VMSG_ERR_AGAIN);
	vmsg_loop_run(&loop);
	CHECK_EQ(loop.device.bus.counters.received, 3);
	CHECK_EQ(loop.driver.bus.counters.stray, 3);
	CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
}

/* ---- Faults ---- */

static void send_numbered(uint32_t count)
{
	uint8_t wire[12] = { 2, VMSG_PING, 0, 0, 1, 0, 12 };

	for (uint32_t i = 1; i <= count; i++) {
		wire[8] = (uint8_t)i;
		CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 12), 0);
	}
}

/* The numbers of the frames that arrived, in order. */
static void expect_numbers(const char *numbers)
{
	vmsg_loop_run(&loop);
	CHECK_EQ(seen.count, strlen(numbers));
	for (uint32_t i = 0; i < seen.count; i++)
		CHECK_EQ(seen.frames[i].bytes[8], numbers[i] - '0');
	seen.count = 0;
}

static void open_faulty(enum vmsg_loop_fault fault, uint32_t period, uint32_t count)
{
	open_plain();
	loop.device.bus.trace = write_down;
	plan(fault, period, count);
}

static void each_fault(void *arg)
{
	(void)arg;
	open_faulty(VMSG_LOOP_NONE, 1, 9);
	send_numbered(5);
	expect_numbers("12345");
	open_faulty(VMSG_LOOP_DROP, 2, 2);
	send_numbered(8);
	expect_numbers("135678");
	open_faulty(VMSG_LOOP_DUPLICATE, 3, 9);
	send_numbered(6);
	expect_numbers("12334566");
	open_faulty(VMSG_LOOP_REORDER, 3, 9);
	send_numbered(6);
	expect_numbers("132465");
	open_faulty(VMSG_LOOP_DELAY, 3, 1);
	send_numbered(5);
	expect_numbers("1245");
	loop.now_ms += 3;
	expect_numbers("");
	loop.now_ms += 1;
	expect_numbers("3");
}

static void damage(void *arg)
{
	uint32_t shorter = 0;

	(void)arg;
	open_faulty(VMSG_LOOP_TRUNCATE, 1, 20);
	send_numbered(20);
	vmsg_loop_run(&loop);
	CHECK_EQ(seen.count, 20);
	for (uint32_t i = 0; i < 20; i++)
		shorter += seen.frames[i].len < 12;
	CHECK_EQ(shorter, 20);
	CHECK_EQ(loop.device.bus.counters.malformed, 20);
	for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++) {
		struct vmsg_loop_options options = { .device_dialect = d, .driver_dialect = d };
		uint32_t header = vmsg_msg_header_bytes(d);
		uint8_t wire[12] = { 2, VMSG_PING, 0, 0, 1, 0, 12, 0, 1, 2, 3, 4 };

		open_loop(&options);
		loop.device.bus.trace = write_down;
		plan(VMSG_LOOP_FLIP, 1, 60);
		for (uint32_t i = 0; i < 60; i++) {
			uint32_t bits = 0;

			CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 12), 0);
			vmsg_loop_run(&loop);
			/* One bit, and of the header alone. */
			for (uint32_t j = 0; j < 96; j++)
				bits += (seen.frames[i].bytes[j / 8] ^ wire[j / 8]) >> j % 8 & 1;
			CHECK_EQ(bits, 1);
			CHECK_MEM(seen.frames[i].bytes + header, wire + header, 12 - header);
		}
	}
}

static void no_room(void *arg)
{
	static const struct vmsg_loop_options bells = { .doorbells = true };
	uint8_t wire[12] = { 2, VMSG_PING, 0, 0, 1, 0, 12 };

	(void)arg;
	open_faulty(VMSG_LOOP_FULL, 3, 1);
	send_numbered(2);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(vmsg_bus_send_frame(&loop.driver.bus, wire, 12), VMSG_ERR_AGAIN);
	send_numbered(2);
	expect_numbers("1212");
	/* Doorbells have no room either; the kicks come all the same. */
	open_loop(&bells);
	start(0);
	plan(VMSG_LOOP_FULL, 1, 1);
	vmsg_driver_kick_again(&user.driver, 0);
	CHECK(!vmsg_bus_flush(&loop.driver.bus));
	CHECK(!vmsg_bus_flush(&loop.driver.bus));
	CHECK(vmsg_bus_flush(&loop.driver.bus));
	vmsg_loop_run(&loop);
	CHECK_EQ(model.kicks, 1);
}

static void events_only_and_one_way(void *arg)
{
	struct vmsg_loop_plan made = {
		.fault = VMSG_LOOP_DROP, .to_driver = true, .period = 1, .count = 100
	};

	(void)arg;
	open_plain();
	vmsg_loop_set_plan(&loop, &made);
	start(0);
	vmsg_driver_kick_again(&user.driver, 0);
	vmsg_device_config_changed(&model.device, 0, 1);
	vmsg_loop_run(&loop);
	CHECK_EQ(model.kicks, 1);
	CHECK_EQ(user.config_changed, 0);
	made.to_driver = false;
	made.to_device = true;
	vmsg_loop_set_plan(&loop, &made);
	vmsg_driver_kick_again(&user.driver, 0);
	vmsg_device_config_changed(&model.device, 0, 1);
	CHECK_EQ(vmsg_driver_read_status(&user.driver), 0x0f);
	CHECK_EQ(model.kicks, 1);
	CHECK_EQ(user.config_changed, 1);
}

static void cut(void *arg)
{
	(void)arg;
	open_plain();
	start(0);
	loop.cut = true;
	CHECK_EQ(vmsg_driver_read_status(&user.driver), VMSG_ERR_SHUTDOWN);
	vmsg_driver_kick_again(&user.driver, 0);
	vmsg_device_config_changed(&model.device, 0, 1);
	CHECK(vmsg_bus_flush(&loop.driver.bus));
	CHECK(vmsg_bus_flush(&loop.device.bus));
	CHECK(!vmsg_loop_run(&loop));
	CHECK_EQ(loop.to_device.frame_count + loop.to_driver.frame_count, 0);
}

static const struct test tests[] = {
	{ "BUS-08 BUS-10 BUS-12 BUS-15 BUS-16 limits", limits, NULL },
	{ "BUS-05 BUS-25 BUS-29 opaque", opaque, NULL },
	{ "BUS-35 BUS-36 V1-BUS-01 in order", in_order, NULL },
	{ "BUS-38 event before the answer", event_before_the_answer, NULL },
	{ "BUS-46 BUS-47 BUS-48 V1-BUS-02 V1-BUS-03 V1-BUS-04 events one by one", events_one_by_one,
	  NULL },
	{ "BUS-03 BUS-06 BUS-07 number without a device", number_without_a_device, NULL },
	{ "BUS-11 as large as the bus", as_large_as_the_bus, NULL },
	{ "BUS-50 far end does not read", far_end_does_not_read, NULL },
	{ "each fault", each_fault, NULL },
	{ "damage", damage, NULL },
	{ "no room", no_room, NULL },
	{ "events only, and one way", events_only_and_one_way, NULL },
	{ "cut", cut, NULL },
};

int main(int argc, char **argv)
{
	return test_main("bus_loop", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
