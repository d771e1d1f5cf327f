/* SPDX-License-Identifier: BSD-3-Clause */
/* What happens to driver and device together: resets, departures, faults of either, tiny buses. */
#include "echo.h"

#include <vmsg/port.h>

#include <string.h>

static struct pair pair;
static struct echo_device device;
static struct echo_driver driver;

/* ---- What all of them do ---- */

static struct vmsg_bus_ops ticking_ops;
static int (*loop_wait)(struct vmsg_bus *bus, uint32_t ms);

/* While the driver waits, the device works. */
static int ticking_wait(struct vmsg_bus *bus, uint32_t ms)
{
	echo_tick(&device);
	return loop_wait(bus, ms);
}

static void open_pair(const struct pair_case *c)
{
	memset(&driver, 0, sizeof(driver));
	pair_open(&pair, c);
	ticking_ops = *pair.loop.driver.bus.ops;
	loop_wait = ticking_ops.wait;
	ticking_ops.wait = ticking_wait;
	pair.loop.driver.bus.ops = &ticking_ops;
	echo_device_init(&device, &pair);
	CHECK_EQ(vmsg_bus_add(&pair.loop.device.bus, &device.device, ECHO_DEV), 0);
	vmsg_loop_run(&pair.loop);
	echo_driver_init(&driver, &pair);
}

static void start(uint64_t more_features)
{
	CHECK_EQ(echo_begin(&driver, more_features), 0);
	CHECK_EQ(echo_setup(&driver), 0);
}

static void close_pair(void)
{
	pair_check_quiet(&pair);
	CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		echo_drain(&driver, i);
	vmsg_driver_exit(&driver.driver);
	vmsg_bus_remove(&pair.loop.device.bus, &device.device);
	pair_check_quiet(&pair);
	CHECK(device.device.bus == NULL);
}

/* Requests in both queues, given to the device and not completed. */
static void leave_in_flight(uint32_t count)
{
	for (uint32_t i = 0; i < ECHO_QUEUES; i++) {
		CHECK(echo_submit(&driver, i));
		for (uint32_t j = 1; j < count; j++)
			echo_submit(&driver, i); /* if there is room */
		vmsg_driver_kick(&driver.driver, i);
	}
	vmsg_loop_run(&pair.loop);
}

/* Once over the formats, ways of notification and dialects. */
static void each(void (*run)(const struct pair_case *c), bool async)
{
	for (uint32_t i = 0; i < 12; i++) {
		struct pair_case c = { .max_msg_size = 264 };
		char text[128];

		c.dialect = (uint8_t)(i / 4);
		c.packed = i & 1;
		c.doorbells = i & 2;
		c.event_idx = i % 3 == 0;
		c.indirect = i % 3 != 1;
		c.async = async;
		pair_text(&c, text, sizeof(text));
		test_context("%s", text);
		run(&c);
	}
}

static void check_untouched(void)
{
	memset(pair_ram, 0x77, sizeof(pair_ram));
	for (uint32_t i = 0; i < 50; i++)
		pair_step(&pair);
	vmsg_device_poll(&device.device);
	for (uint32_t i = 0; i < sizeof(pair_ram); i++) {
		if (pair_ram[i] != 0x77)
			CHECK_EQ(pair_ram[i], 0x77);
	}
}

/* ---- Resets ---- */

/* The device drops what it holds, or finishes it first: after the reset nothing is touched. */
static void reset_in_flight_case(const struct pair_case *c)
{
	for (uint32_t waits = 0; waits < 2; waits++) {
		open_pair(c);
		device.waits = waits;
		start(0);
		echo_transfer(&driver, &device, 30);
		leave_in_flight(1);
		CHECK_EQ(device.work_count, 2);
		CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
		CHECK_EQ(device.work_count, 0);
		CHECK_EQ(device.device.status, 0);
		for (uint32_t i = 0; i < ECHO_QUEUES; i++)
			echo_drain(&driver, i);
		check_untouched();
		start(0);
		echo_transfer(&driver, &device, 60);
		close_pair();
	}
}

static void reset_in_flight(void *arg)
{
	(void)arg;
	each(reset_in_flight_case, true);
}

/* One queue is reset, the other goes on; the device answers when the queue is quiet. */
static void reset_vq_case(const struct pair_case *c)
{
	for (uint32_t waits = 0; waits < 2; waits++) {
		open_pair(c);
		device.waits = waits;
		start(VMSG_BIT(VMSG_F_RING_RESET));
		echo_transfer(&driver, &device, 30);
		for (uint32_t round = 0; round < 5; round++) {
			uint32_t vq_index = round % 2, busy = 0;

			leave_in_flight(1);
			CHECK_EQ(vmsg_driver_reset_vq(&driver.driver, vq_index), 0);
			CHECK(!device.resetting_vq[vq_index]);
			CHECK(!device.vqs[vq_index].enabled);
			CHECK(device.vqs[!vq_index].enabled);
			echo_drain(&driver, vq_index);
			for (uint32_t i = 0; i < ECHO_SIZE; i++)
				busy += driver.requests[!vq_index][i].busy;
			CHECK(busy <= 1);
			CHECK_EQ(vmsg_driver_setup_vq(&driver.driver, vq_index, ECHO_SIZE,
						      ECHO_PARTS, &pair.arena,
						      driver.state[vq_index]),
				 0);
			echo_transfer(&driver, &device, 30);
		}
		close_pair();
	}
}

static void reset_vq(void *arg)
{
	(void)arg;
	each(reset_vq_case, true);
}

static void resets_back_to_back_case(const struct pair_case *c)
{
	open_pair(c);
	device.waits = true;
	start(0);
	for (uint32_t i = 0; i < 20; i++) {
		leave_in_flight(1 + i % 2);
		CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
		CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
		for (uint32_t j = 0; j < ECHO_QUEUES; j++)
			echo_drain(&driver, j);
		/* Sometimes from the middle of a start. */
		if (i % 3 == 0)
			CHECK_EQ(echo_begin(&driver, 0), 0);
		start(0);
	}
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void resets_back_to_back(void *arg)
{
	(void)arg;
	each(resets_back_to_back_case, true);
}

/* ---- Either gives up ---- */

static void needs_reset_case(const struct pair_case *c)
{
	open_pair(c);
	start(0);
	echo_transfer(&driver, &device, 30);
	device.fails = true;
	leave_in_flight(1);
	for (uint32_t i = 0; i < 10; i++)
		pair_step(&pair);
	CHECK(driver.driver.needs_reset);
	CHECK_EQ(vmsg_driver_read_status(&driver.driver), 0x4f);
	/* Nothing is processed any more. */
	CHECK_EQ(device.work_count, 0);
	vmsg_driver_kick_again(&driver.driver, 0);
	pair_step(&pair);
	CHECK_EQ(device.work_count, 0);
	CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		echo_drain(&driver, i);
	start(0);
	CHECK(!driver.driver.needs_reset);
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void needs_reset(void *arg)
{
	(void)arg;
	each(needs_reset_case, true);
}

/* The driver's ring makes no sense: the device says so, and a reset mends it. */
static void driver_breaks_the_ring_case(const struct pair_case *c)
{
	const struct vmsg_vq_memory *memory = &driver.vqs[0].memory;

	open_pair(c);
	start(0);
	echo_transfer(&driver, &device, 30);
	if (c->packed) {
		/* A buffer that lies nowhere, in every descriptor. */
		for (uint32_t i = 0; i < ECHO_SIZE; i++)
			vmsg_put64(memory->desc + 16 * i, 1);
		CHECK(echo_submit(&driver, 0));
		for (uint32_t i = 0; i < ECHO_SIZE; i++)
			vmsg_put64(memory->desc + 16 * i, 1);
	} else {
		CHECK(echo_submit(&driver, 0));
	}
	vmsg_driver_kick(&driver.driver, 0);
	if (!c->packed)
		vmsg_store16(memory->driver + 2, (uint16_t)(vmsg_load16(memory->driver + 2) + 100));
	vmsg_driver_kick_again(&driver.driver, 0);
	for (uint32_t i = 0; i < 10; i++)
		pair_step(&pair);
	CHECK_EQ(device.device.counters.needs_reset, 1);
	CHECK(driver.driver.needs_reset);
	CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		echo_drain(&driver, i);
	start(0);
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void driver_breaks_the_ring(void *arg)
{
	(void)arg;
	each(driver_breaks_the_ring_case, true);
}

/* The device says it used what it never got: the driver gives it up, and starts anew. */
static void device_breaks_the_ring_case(const struct pair_case *c)
{
	uint8_t *area;

	open_pair(c);
	start(0);
	echo_transfer(&driver, &device, 30);
	leave_in_flight(1);
	if (c->packed) {
		area = driver.vqs[0].memory.desc + 16 * (driver.vqs[0].used_idx & 0x7fff);
		vmsg_store16(area + 12, 0x3fff);
		vmsg_store16(area + 14, driver.vqs[0].used_idx & 0x8000 ? 0x8080 : 0);
	} else {
		area = driver.vqs[0].memory.device;
		vmsg_store16(area + 2, (uint16_t)(vmsg_load16(area + 2) + 100));
	}
	vmsg_driver_poll(&driver.driver);
	CHECK(driver.broken);
	driver.broken = false;
	CHECK_EQ(vmsg_driver_fail(&driver.driver), 0);
	CHECK(device.device.status & VMSG_STATUS_FAILED);
	CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		echo_drain(&driver, i);
	start(0);
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void device_breaks_the_ring(void *arg)
{
	(void)arg;
	each(device_breaks_the_ring_case, true);
}

/* ---- Coming and going ---- */

static uint32_t added, removed;

static void device_event(struct vmsg_bus *bus, uint16_t dev_num, uint32_t state)
{
	(void)bus;
	if (state == VMSG_DEVICE_ADDED)
		added = dev_num;
	else if (state == VMSG_DEVICE_REMOVED)
		removed = dev_num;
}

static void hot_remove_and_add_case(const struct pair_case *c)
{
	struct vmsg_bus *bus = &pair.loop.device.bus;

	open_pair(c);
	pair.loop.driver.bus.device_event = device_event;
	added = removed = 0;
	start(0);
	echo_transfer(&driver, &device, 30);
	for (uint16_t dev_num = 2; dev_num < 5; dev_num++) {
		leave_in_flight(1);
		/* As the contract has it: the model stops first. */
		device.work_count = 0;
		vmsg_bus_remove(bus, &device.device);
		pair_step(&pair);
		CHECK_EQ(removed, dev_num - 1u);
		CHECK_EQ(driver.gone, 1);
		CHECK_EQ(vmsg_driver_read_status(&driver.driver), VMSG_ERR_SHUTDOWN);
		CHECK(device.device.bus == NULL);
		for (uint32_t i = 0; i < ECHO_QUEUES; i++)
			echo_drain(&driver, i);
		check_untouched();
		CHECK_EQ(vmsg_bus_add(bus, &device.device, dev_num), 0);
		pair_step(&pair);
		CHECK_EQ(added, dev_num);
		vmsg_driver_exit(&driver.driver);
		echo_driver_init(&driver, &pair);
		driver.driver.dev_num = dev_num;
		start(0);
		echo_transfer(&driver, &device, 60);
	}
	close_pair();
}

static void hot_remove_and_add(void *arg)
{
	(void)arg;
	each(hot_remove_and_add_case, true);
}

/* As a bus does when its peer's process is gone, and when it is there again. */
static void cut(void)
{
	struct vmsg_loop *loop = &pair.loop;

	loop->cut = true;
	CHECK_EQ(loop->driver.bus.ops->wait(&loop->driver.bus, 1), VMSG_ERR_SHUTDOWN);
	loop->to_device.frame_count = loop->to_device.bell_count = 0;
	loop->to_driver.frame_count = loop->to_driver.bell_count = 0;
	vmsg_bus_peer_gone(&loop->driver.bus);
	vmsg_bus_peer_reset(&loop->device.bus);
}

static void peer_gone_and_back_case(const struct pair_case *c)
{
	open_pair(c);
	start(0);
	for (uint32_t i = 0; i < 5; i++) {
		echo_transfer(&driver, &device, 30);
		leave_in_flight(1);
		cut();
		CHECK_EQ(driver.gone, 1);
		CHECK_EQ(device.device.status, 0);
		CHECK_EQ(device.work_count, 0);
		CHECK_EQ(vmsg_driver_read_status(&driver.driver), VMSG_ERR_SHUTDOWN);
		for (uint32_t j = 0; j < ECHO_QUEUES; j++)
			echo_drain(&driver, j);
		vmsg_driver_exit(&driver.driver);
		echo_driver_init(&driver, &pair);
		CHECK_EQ(echo_start(&driver), VMSG_ERR_SHUTDOWN);
		CHECK(pair.loop.driver.bus.requests == NULL);
		pair.loop.cut = false;
		CHECK_EQ(echo_start(&driver), 0);
	}
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void peer_gone_and_back(void *arg)
{
	(void)arg;
	each(peer_gone_and_back_case, true);
}

static uint32_t traced, cut_after;

static void cut_trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	(void)bus;
	(void)sent;
	(void)buf;
	(void)len;
	if (++traced == cut_after)
		pair.loop.cut = true;
}

/* At every message of a start: an error at once, nothing left, and a fresh start succeeds. */
static void cut_at_every_message_case(const struct pair_case *c)
{
	uint32_t messages;

	open_pair(c);
	pair.loop.driver.bus.trace = cut_trace;
	traced = cut_after = 0;
	CHECK_EQ(echo_start(&driver), 0);
	messages = traced;
	CHECK(messages > 30);
	close_pair();
	/* With the last of them the start is done. */
	for (uint32_t i = 1; i < messages; i++) {
		uint32_t began;

		open_pair(c);
		pair.loop.driver.bus.trace = cut_trace;
		traced = 0;
		cut_after = i;
		began = pair.loop.now_ms;
		CHECK_EQ(echo_start(&driver), VMSG_ERR_SHUTDOWN);
		CHECK(pair.loop.now_ms - began < 100);
		cut();
		CHECK(pair.loop.driver.bus.requests == NULL);
		pair.loop.cut = false;
		cut_after = 0;
		vmsg_driver_exit(&driver.driver);
		echo_driver_init(&driver, &pair);
		CHECK_EQ(echo_start(&driver), 0);
		echo_transfer(&driver, &device, 10);
		close_pair();
	}
}

static void cut_at_every_message(void *arg)
{
	(void)arg;
	each(cut_at_every_message_case, false);
}

/* ---- Config that moves while it is read ---- */

static uint32_t changes_left, reads_seen;

static void changing_trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	const uint8_t *wire = buf;

	(void)bus;
	if (sent || len < 2 || wire[0] || wire[1] != VMSG_GET_CONFIG)
		return;
	if (changes_left && reads_seen++ % 2) {
		changes_left--;
		echo_change(&device);
	}
}

static void config_moves_case(const struct pair_case *given)
{
	struct pair_case c = *given;
	int version;

	c.max_msg_size = 52; /* so that it takes several messages */
	open_pair(&c);
	start(0);
	pair.loop.device.bus.trace = changing_trace;
	reads_seen = 0;
	changes_left = 5;
	version = echo_read_config(&driver);
	CHECK_EQ(version, 6);
	CHECK_EQ(device.version, 6);
	CHECK(driver.driver.counters.config_retries >= 3);
	CHECK_EQ(driver.config_events, 5);
	/* One that never stands still is given up in the end. */
	changes_left = UINT32_MAX;
	CHECK_EQ(echo_read_config(&driver), VMSG_ERR_BUSY);
	changes_left = 0;
	CHECK_EQ(echo_read_config(&driver), device.version);
	echo_transfer(&driver, &device, 60);
	close_pair();
}

static void config_moves(void *arg)
{
	(void)arg;
	each(config_moves_case, false);
}

/* ---- Several of everything ---- */

static void two_pairs_case(const struct pair_case *c)
{
	static struct echo_device other_device;
	static struct echo_driver other_driver;
	size_t used_bytes;

	open_pair(c);
	memset(&other_driver, 0, sizeof(other_driver));
	echo_device_init(&other_device, &pair);
	CHECK_EQ(vmsg_bus_add(&pair.loop.device.bus, &other_device.device, 200), 0);
	start(0);
	used_bytes = pair.arena.used_bytes;
	echo_driver_init(&other_driver, &pair);
	other_driver.driver.dev_num = 200;
	/* Both live in the one memory, one behind the other. */
	pair.arena.used_bytes = used_bytes;
	for (uint32_t i = 0; i < ECHO_QUEUES; i++) {
		for (uint32_t j = 0; j < ECHO_SIZE; j++) {
			struct echo_request *request = &other_driver.requests[i][j];

			request->ptr = vmsg_arena_take(&pair.arena, ECHO_PARTS * ECHO_PART, 1,
						       &request->addr);
			CHECK(request->ptr != NULL);
		}
	}
	CHECK_EQ(echo_begin(&other_driver, 0), 0);
	CHECK_EQ(echo_setup(&other_driver), 0);
	for (uint32_t i = 0; i < 10; i++) {
		leave_in_flight(1);
		echo_transfer(&other_driver, &other_device, 20);
		echo_transfer(&driver, &device, 20);
	}
	/* One ends, the other does not notice. */
	CHECK_EQ(vmsg_driver_reset(&other_driver.driver), 0);
	vmsg_driver_exit(&other_driver.driver);
	vmsg_bus_remove(&pair.loop.device.bus, &other_device.device);
	echo_transfer(&driver, &device, 60);
	CHECK_EQ(driver.gone, 0);
	close_pair();
}

static void two_pairs(void *arg)
{
	(void)arg;
	each(two_pairs_case, true);
}

/* Room for one frame each way: replies and events wait for each other, and all get through. */
static void tiny_bus_case(const struct pair_case *given)
{
	struct pair_case c = *given;
	uint32_t rescues = echo_rescues;

	c.capacity = 2;
	open_pair(&c);
	CHECK_EQ(echo_start(&driver), 0);
	for (uint32_t i = 0; i < 10; i++) {
		struct vmsg_request requests[4] = { 0 };
		uint32_t sent = 0;

		/* More requests at once than there is room for, and kicks in between. */
		for (uint32_t j = 0; j < 4; j++) {
			struct vmsg_msg msg = { .msg_id = VMSG_GET_VQUEUE, .dev_num = ECHO_DEV };

			msg.vqueue.index = j;
			if (vmsg_request_start(driver.driver.bus, &requests[j], &msg, 100) == 0)
				sent++;
			vmsg_driver_kick_again(&driver.driver, j % 2);
		}
		CHECK(sent >= 1);
		echo_transfer(&driver, &device, 20);
		for (uint32_t j = 0; j < 4; j++) {
			CHECK(!requests[j].waiting);
			CHECK_EQ(requests[j].result, 0);
		}
		CHECK_EQ(vmsg_driver_read_status(&driver.driver), 0x0f);
		CHECK_EQ(vmsg_bus_ping(driver.driver.bus, i, 100), 0);
	}
	CHECK_EQ(echo_rescues, rescues);
	close_pair();
}

static void tiny_bus(void *arg)
{
	(void)arg;
	each(tiny_bus_case, false);
	each(tiny_bus_case, true);
}

/* The device side asks whether the driver's is alive, in the midst of everything. */
static void pings_from_the_device_case(const struct pair_case *c)
{
	struct vmsg_msg ping = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING, .token = 7 };
	uint8_t buf[12];

	open_pair(c);
	CHECK_EQ(echo_start(&driver), 0);
	for (uint32_t i = 0; i < 20; i++) {
		ping.ping.data = i;
		CHECK_EQ(vmsg_bus_send(&pair.loop.device.bus, &ping, buf, sizeof(buf)), 0);
		echo_transfer(&driver, &device, 5);
	}
	/* Its answers are nobody's: the device side never waits for anything. */
	CHECK_EQ(pair.loop.device.bus.counters.stray, 20);
	close_pair();
}

static void pings_from_the_device(void *arg)
{
	(void)arg;
	each(pings_from_the_device_case, false);
}

static const struct test tests[] = {
	{ "scenario reset in flight", reset_in_flight, NULL },
	{ "scenario RESET_VQUEUE in flight", reset_vq, NULL },
	{ "scenario resets back to back", resets_back_to_back, NULL },
	{ "scenario NEEDS_RESET", needs_reset, NULL },
	{ "scenario driver breaks the ring", driver_breaks_the_ring, NULL },
	{ "scenario device breaks the ring", device_breaks_the_ring, NULL },
	{ "scenario hot remove and add", hot_remove_and_add, NULL },
	{ "scenario peer gone and back", peer_gone_and_back, NULL },
	{ "scenario cut at every message", cut_at_every_message, NULL },
	{ "scenario config moves while it is read", config_moves, NULL },
	{ "scenario two devices, two drivers", two_pairs, NULL },
	{ "scenario tiny bus", tiny_bus, NULL },
	{ "scenario pings from the device", pings_from_the_device, NULL },
};

PAIR_TESTS(tests);
