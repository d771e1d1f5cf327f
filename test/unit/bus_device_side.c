/* SPDX-License-Identifier: BSD-3-Clause */
/* The device side of a bus: routing, enumeration, PING, presence, the held reply (wire.md 3.1). */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)
#define OTHERS		4

static struct rig rig;
static struct rig_device others[OTHERS];

static void add(uint32_t i, uint16_t dev_num)
{
	rig_device_init(&others[i]);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[i].device, dev_num), 0);
}

/* Devices 0, 2 and 5. */
static void open_three(enum vmsg_dialect dialect, uint16_t max_msg_size)
{
	rig_init(&rig, dialect, 0, max_msg_size);
	add(0, 0);
	add(1, 2);
	rig_forget(&rig);
}

static struct vmsg_msg get_devices(uint32_t offset, uint32_t count)
{
	struct vmsg_msg msg = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_GET_DEVICES };

	msg.devices.offset = offset;
	msg.devices.count = count;
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.devices.offset, offset);
	CHECK(msg.devices.count <= count);
	CHECK_EQ(msg.tail_bytes, (msg.devices.count + 7) / 8);
	return msg;
}

/* ---- GET_DEVICES ---- */

static void window_and_bitmap(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_three(d, 0);
		msg = get_devices(0, 16);
		CHECK_EQ(msg.devices.count, 16);
		CHECK_EQ(msg.devices.next_offset, 0);
		CHECK_MEM(msg.tail, "\x25\x00", 2);
		msg = get_devices(0, 32);
		CHECK_EQ(msg.devices.count, 32);
		CHECK_EQ(msg.devices.next_offset, 0);
		msg = get_devices(8, 8);
		CHECK_MEM(msg.tail, "\x00", 1);
		CHECK_EQ(msg.devices.next_offset, 0);
	}
}

static void window_of_nothing(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	open_three(VMSG_V2, 0);
	msg = get_devices(0, 0);
	CHECK_EQ(msg.devices.count, 0);
	CHECK_EQ(rig.sent[0].len, 14);
	msg = get_devices(100, 0);
	CHECK_EQ(msg.devices.count, 0);
	CHECK_EQ(msg.devices.next_offset, 0);
}

static void spare_bits(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	add(0, 6);
	add(1, 7);
	msg = get_devices(0, 5);
	CHECK_EQ(msg.devices.count, 5);
	CHECK_MEM(msg.tail, "\x00", 1);
	CHECK_EQ(msg.devices.next_offset, 5);
	msg = get_devices(5, 1);
	CHECK_MEM(msg.tail, "\x01", 1);
	msg = get_devices(5, 2);
	CHECK_MEM(msg.tail, "\x03", 1);
	CHECK_EQ(msg.devices.next_offset, 7);
	msg = get_devices(5, 3);
	CHECK_MEM(msg.tail, "\x07", 1);
	CHECK_EQ(msg.devices.next_offset, 0);
}

/* Any window size finds every device once, in a bounded number of steps. */
static void walk(void *arg)
{
	static const uint32_t windows[] = { 64, 256, 300, 0xffff };

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		add(0, 0);
		add(1, 0x102);
		add(2, 0xfffe);
		add(3, 0xffff);
		for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
			uint32_t offset = 0, found = 0, steps = 0;
			struct vmsg_msg msg;

			if (d != VMSG_V2 && windows[i] % 8)
				continue;
			do {
				test_context("%s window %u at %u", vmsg_dialect_name(d), windows[i],
					     offset);
				msg = get_devices(offset, windows[i]);
				for (uint32_t j = 0; j < msg.tail_bytes * 8u; j++)
					found += ((const uint8_t *)msg.tail)[j / 8] >> j % 8 & 1;
				CHECK(!msg.devices.next_offset || msg.devices.next_offset > offset);
				offset = msg.devices.next_offset;
				CHECK(steps++ < 65536);
			} while (offset);
			CHECK_EQ(found, 5);
		}
	}
}

static void walk_in_small_steps(void *arg)
{
	static const uint32_t windows[] = { 1, 3, 7, 8, 13 };

	(void)arg;
	for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
		uint32_t offset = 0, found = 0, steps = 0;

		open_three(VMSG_V2, 0);
		do {
			struct vmsg_msg msg = get_devices(offset, windows[i]);

			for (uint32_t j = 0; j < msg.tail_bytes * 8u; j++)
				found += ((const uint8_t *)msg.tail)[j / 8] >> j % 8 & 1;
			offset = msg.devices.next_offset;
			CHECK(steps++ <= 6);
		} while (offset);
		CHECK_EQ(found, 3);
	}
}

static void window_larger_than_the_bus(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_three(d, 52);
		add(2, 1000);
		msg = get_devices(0, 1000);
		CHECK_EQ(msg.devices.count, d == VMSG_RFC2 ? 320 : 304);
		CHECK_EQ(msg.devices.next_offset, msg.devices.count);
		CHECK_MEM(msg.tail, "\x25\x00\x00", 3);
		msg = get_devices(65528, 65535);
		CHECK_EQ(msg.devices.count, 8);
		CHECK_EQ(msg.devices.next_offset, 0);
	}
	open_three(VMSG_V2, 0);
	CHECK_EQ(get_devices(65535, 65535).devices.count, 1);
}

/* Before v2 windows are whole bytes: what is asked otherwise is rounded down. */
static void odd_windows_before_v2(void *arg)
{
	(void)arg;
	open_three(VMSG_V1, 0);
	CHECK_EQ(get_devices(3, 5).devices.count, 0);
	CHECK_EQ(get_devices(0, 255).devices.count, 248);
}

/* ---- PING ---- */

static void ping(void *arg)
{
	static const uint32_t data[] = { 0, UINT32_MAX, 0xdeadbeef };

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
			struct vmsg_msg msg = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING };

			msg.ping.data = data[i];
			CHECK_EQ(rig_call(&rig, msg).ping.data, data[i]);
		}
	}
}

/* An answer is never answered: two such ends would go on for ever. */
static void ping_answer_is_not_answered(void *arg)
{
	struct vmsg_msg msg = { .type = VMSG_TYPE_BUS | VMSG_TYPE_RESPONSE, .msg_id = VMSG_PING };

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		CHECK_EQ(rig_send(&rig, &msg), 0);
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig.bus.counters.stray, 1);
	}
}

static void bus_messages_carry_number_0(void *arg)
{
	uint8_t wire[12] = { 2, VMSG_PING, RIG_DEV, 0, 1, 0, 12 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_quiet(&rig, wire, sizeof(wire));
	wire[2] = 0;
	CHECK_EQ(rig_raw(&rig, wire, sizeof(wire)), 0);
	CHECK_EQ(rig.sent_count, 1);
}

static void malformed_bus_messages(void *arg)
{
	uint8_t wire[64] = { 2, 0x3f, 0, 0, 1, 0, 12 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_quiet(&rig, wire, 64);
	wire[1] = VMSG_PING;
	wire[6] = 7;
	rig_quiet(&rig, wire, 64);
	wire[6] = 65;
	rig_quiet(&rig, wire, 64);
	wire[6] = 11;
	rig_quiet(&rig, wire, 64);
	wire[1] = VMSG_GET_DEVICES;
	rig_quiet(&rig, wire, 64);
}

/* ---- Routing ---- */

static void routed_to_the_right_device(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_three(d, 0);
		rig.dev_num = 2;
		rig_start(&rig, 0);
		CHECK_EQ(others[1].starts, 1);
		CHECK_EQ(others[0].starts + rig.model.starts, 0);
		rig_avail(&rig, 0);
		CHECK_EQ(others[1].kicks, 2);
		CHECK_EQ(others[0].kicks + rig.model.kicks, 0);
		rig.dev_num = 0;
		CHECK_EQ(rig_status(&rig), 0);
	}
}

/* v2 says nothing to numbers without a device; before, drivers wait for every answer. */
static void numbers_without_a_device(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		open_three(d, 0);
		rig.dev_num = 4;
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			struct vmsg_msg msg = { .msg_id = id }, reply;

			test_context("%s id %u", vmsg_dialect_name(d), id);
			CHECK_EQ(rig_send(&rig, &msg), 0);
			CHECK_EQ(rig.bus.counters.no_device, id - 1);
			CHECK_EQ(rig.sent_count, d != VMSG_V2);
			if (d == VMSG_V2)
				continue;
			CHECK_EQ(rig_count(&rig, VMSG_TYPE_RESPONSE, id, &reply), 1);
			CHECK_EQ(reply.dev_num, 4);
			CHECK_EQ(reply.info.device_id, 0);
		}
		rig_avail(&rig, 0);
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig.model.kicks + others[0].kicks + others[1].kicks, 0);
	}
}

/* What an answer of zeros echoes. */
static void echo_of_a_missing_device(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG };

	(void)arg;
	rig_init(&rig, VMSG_V1, 0, 0);
	rig.dev_num = 4;
	msg.config.offset = 32;
	msg.config.length = 4;
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.config.offset, 32);
	CHECK_EQ(msg.config.length, 0);
	msg = (struct vmsg_msg){ .msg_id = VMSG_GET_VQUEUE, .vqueue = { .index = 7 } };
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.vqueue.index, 7);
	CHECK_EQ(msg.vqueue.max_size, 0);
	msg = (struct vmsg_msg){ .msg_id = VMSG_GET_DEVICE_FEATURES, .features = { 1, 1 } };
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.features.block_index, 1);
	CHECK_EQ(msg.features.num_blocks, 0);
	msg = (struct vmsg_msg){ .msg_id = VMSG_GET_SHM, .shm = { .shmid = 9 } };
	CHECK_EQ(rig_call(&rig, msg).shm.shmid, 9);
}

/* ---- Arrival and departure ---- */

static void added_and_removed(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_forget(&rig);
		add(0, 0x1234);
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(rig_count(&rig, VMSG_TYPE_BUS, VMSG_EVENT_DEVICE, &event), 1);
		CHECK_EQ(event.event_device.device_number, 0x1234);
		CHECK_EQ(event.event_device.device_bus_state, VMSG_DEVICE_ADDED);
		/* From here on it takes messages, and is listed. */
		rig.dev_num = 0x1234;
		CHECK_EQ(rig_call(&rig, (struct vmsg_msg){ .msg_id = VMSG_GET_DEVICE_INFO })
				 .info.device_id,
			 1);
		rig_start(&rig, 0);
		rig_forget(&rig);
		vmsg_bus_remove(&rig.bus, &others[0].device);
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(rig_count(&rig, VMSG_TYPE_BUS, VMSG_EVENT_DEVICE, &event), 1);
		CHECK_EQ(event.event_device.device_number, 0x1234);
		CHECK_EQ(event.event_device.device_bus_state, VMSG_DEVICE_REMOVED);
		CHECK(others[0].device.bus == NULL);
		others[0].kicks = 0;
		rig_avail(&rig, 0);
		CHECK_EQ(others[0].kicks, 0);
		CHECK_EQ(get_devices(0x1230, 8).tail_bytes, 1);
		CHECK_EQ(*(const uint8_t *)get_devices(0x1230, 8).tail, 0);
		/* What the model still says finds nobody. */
		rig_forget(&rig);
		vmsg_device_config_changed(&others[0].device, 0, 1);
		vmsg_device_used(&others[0].device, 0);
		vmsg_device_reset_done(&others[0].device);
		vmsg_device_poll(&others[0].device);
		CHECK_EQ(rig.sent_count, 0);
	}
}

/* Under a new number the same device starts as if it were new. */
static void removed_and_added_again(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	add(0, 7);
	rig.dev_num = 7;
	rig_start(&rig, VMSG_BIT(5));
	vmsg_bus_remove(&rig.bus, &others[0].device);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[0].device, 8), 0);
	rig.dev_num = 8;
	CHECK_EQ(rig_status(&rig), 0);
	CHECK_EQ(rig_get_vqueue(&rig, 0).vqueue.size, 0);
	vmsg_device_poll(&others[0].device);
	CHECK_EQ(others[0].kicks, 1); /* the one of the first DRIVER_OK */
	rig_start(&rig, 0);
	CHECK_EQ(others[0].starts, 2);
}

/* Removed while a reset takes its time. */
static void removed_in_reset(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	add(0, 7);
	rig.dev_num = 7;
	rig_start(&rig, 0);
	others[0].reset_result = VMSG_ERR_AGAIN;
	CHECK_EQ(rig_set_status(&rig, 0), 0x0f);
	vmsg_bus_remove(&rig.bus, &others[0].device);
	CHECK(others[0].device.bus == NULL);
	vmsg_device_reset_done(&others[0].device);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[0].device, 8), 0);
	rig.dev_num = 8;
	CHECK_EQ(rig_status(&rig), 0);
}

static void numbers_are_unique(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_device_init(&others[0]);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[0].device, RIG_DEV), VMSG_ERR_BUSY);
	CHECK(others[0].device.bus == NULL);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[0].device, RIG_DEV + 1), 0);
	/* Not even while the last word about the old one waits for room. */
	rig.room = 0;
	vmsg_bus_remove(&rig.bus, &others[0].device);
	rig_device_init(&others[1]);
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[1].device, RIG_DEV + 1), VMSG_ERR_BUSY);
	rig.room = UINT32_MAX;
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(vmsg_bus_add(&rig.bus, &others[1].device, RIG_DEV + 1), 0);
}

static void presence_waits_for_room(void *arg)
{
	struct vmsg_msg event, msg = { 0 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_forget(&rig);
	rig.room = 0;
	add(0, 7);
	add(1, 8);
	CHECK(!vmsg_bus_flush(&rig.bus));
	/* Came and went unheard: not worth a word. */
	vmsg_bus_remove(&rig.bus, &others[1].device);
	rig.room = UINT32_MAX;
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 1);
	CHECK_EQ(rig_count(&rig, VMSG_TYPE_BUS, VMSG_EVENT_DEVICE, &event), 1);
	CHECK_EQ(event.event_device.device_number, 7);
	CHECK(others[1].device.bus == NULL);
	rig.room = 0;
	vmsg_bus_remove(&rig.bus, &others[0].device);
	CHECK(!vmsg_bus_flush(&rig.bus));
	CHECK(others[0].device.bus == &rig.bus);
	/* What is asked of it meanwhile reaches it no more. */
	rig.dev_num = 7;
	msg.msg_id = VMSG_SET_DEVICE_STATUS;
	msg.status.status = 1;
	CHECK_EQ(rig_send(&rig, &msg), 0);
	CHECK_EQ(others[0].device.status, 0);
	CHECK_EQ(rig.bus.counters.no_device, 1);
	rig_forget(&rig);
	rig.room = UINT32_MAX;
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig_count(&rig, VMSG_TYPE_BUS, VMSG_EVENT_DEVICE, &event), 1);
	CHECK_EQ(event.event_device.device_bus_state, VMSG_DEVICE_REMOVED);
	CHECK(others[0].device.bus == NULL);
}

/* ---- Flow control (design.md 6) ---- */

/* With a reply held, nothing more is read; the reply leaves first, then the next is taken. */
static void held_reply(void *arg)
{
	uint8_t first[8] = { 0, VMSG_GET_DEVICE_STATUS, RIG_DEV, 0, 1, 0, 8 };
	uint8_t second[12] = { 2, VMSG_PING, 0, 0, 2, 0, 12, 0, 1, 2, 3, 4 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.room = 0;
	CHECK_EQ(rig_raw(&rig, first, sizeof(first)), 0);
	CHECK(vmsg_bus_holds(&rig.bus));
	CHECK_EQ(rig.bus.counters.held, 1);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(rig_raw(&rig, second, sizeof(second)), VMSG_ERR_AGAIN);
	CHECK_EQ(rig.bus.counters.received, 1);
	CHECK(!vmsg_bus_flush(&rig.bus));
	/* Room for one: the held one leaves, and its place is taken by the next reply. */
	rig.room = 1;
	CHECK_EQ(rig_raw(&rig, second, sizeof(second)), 0);
	CHECK_EQ(rig.sent_count, 1);
	CHECK_EQ(rig.sent[0].bytes[1], VMSG_GET_DEVICE_STATUS);
	CHECK(vmsg_bus_holds(&rig.bus));
	rig.room = UINT32_MAX;
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 2);
	CHECK_EQ(rig.sent[1].bytes[1], VMSG_PING);
	CHECK_MEM(rig.sent[1].bytes + 8, second + 8, 4);
	CHECK(!vmsg_bus_holds(&rig.bus));
}

/* A peer that is not there takes what is sent to it along; nothing waits. */
static void no_peer(void *arg)
{
	uint8_t wire[8] = { 0, VMSG_GET_DEVICE_STATUS, RIG_DEV, 0, 1, 0, 8 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, 0);
	rig.down = true;
	CHECK_EQ(rig_raw(&rig, wire, sizeof(wire)), 0);
	vmsg_device_config_changed(&rig.model.device, 0, 1);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK(!vmsg_bus_holds(&rig.bus));
	CHECK_EQ(rig.bus.counters.send_failed, 2);
	rig.down = false;
	rig_forget(&rig);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 0);
	rig_status(&rig);
}

static void held_reply_of_a_lost_peer(void *arg)
{
	uint8_t wire[8] = { 0, VMSG_GET_DEVICE_STATUS, RIG_DEV, 0, 1, 0, 8 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.room = 0;
	CHECK_EQ(rig_raw(&rig, wire, sizeof(wire)), 0);
	vmsg_bus_peer_reset(&rig.bus);
	rig.room = UINT32_MAX;
	rig_forget(&rig);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 0);
}

static uint32_t traced[2];

static void count_trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	(void)buf;
	CHECK(bus == &rig.bus);
	CHECK_EQ(len, sent ? 12 : 8);
	traced[sent]++;
}

static void trace(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.bus.trace = count_trace;
	memset(traced, 0, sizeof(traced));
	rig_status(&rig);
	CHECK_EQ(traced[0], 1);
	CHECK_EQ(traced[1], 1);
}

static const struct test tests[] = {
	{ "BUS-02 BUS-52 window and bitmap", window_and_bitmap, NULL },
	{ "BUS-53 BUS-59 window of nothing", window_of_nothing, NULL },
	{ "BUS-54 BUS-55 spare bits", spare_bits, NULL },
	{ "BUS-18 BUS-20 BUS-39 BUS-56 BUS-57 walk", walk, NULL },
	{ "BUS-56 BUS-57 walk in small steps", walk_in_small_steps, NULL },
	{ "BUS-58 window larger than the bus", window_larger_than_the_bus, NULL },
	{ "V1-BUS-06 odd windows before v2", odd_windows_before_v2, NULL },
	{ "BUS-02 BUS-60 PING", ping, NULL },
	{ "PING answer is not answered", ping_answer_is_not_answered, NULL },
	{ "BUS-28 bus messages carry number 0", bus_messages_carry_number_0, NULL },
	{ "BUS-24 malformed bus messages", malformed_bus_messages, NULL },
	{ "BUS-04 routed to the right device", routed_to_the_right_device, NULL },
	{ "BUS-03 BUS-07 numbers without a device", numbers_without_a_device, NULL },
	{ "BUS-03 echo of a missing device", echo_of_a_missing_device, NULL },
	{ "BUS-42 BUS-43 BUS-61 BUS-62 BUS-63 added and removed", added_and_removed, NULL },
	{ "BUS-43 removed and added again", removed_and_added_again, NULL },
	{ "BUS-43 removed in reset", removed_in_reset, NULL },
	{ "BUS-18 numbers are unique", numbers_are_unique, NULL },
	{ "BUS-42 presence waits for room", presence_waits_for_room, NULL },
	{ "DEV-30 held reply", held_reply, NULL },
	{ "no peer", no_peer, NULL },
	{ "held reply of a lost peer", held_reply_of_a_lost_peer, NULL },
	{ "trace", trace, NULL },
};

int main(int argc, char **argv)
{
	return test_main("bus_device_side", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
