/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: configuration space, its generation, EVENT_CONFIG (wire.md 3.3). */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)
#define STRICT		VMSG_BIT(VMSG_F_STRICT_CONFIG_GENERATION)

static struct rig rig;

static struct vmsg_msg get_config(uint32_t offset, uint32_t length)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG };

	msg.config.offset = offset;
	msg.config.length = length;
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.config.offset, offset);
	CHECK_EQ(msg.tail_bytes, msg.config.length);
	return msg;
}

static uint32_t generation(void)
{
	return get_config(0, 0).config.generation;
}

/* Writes `byte` length times. The answer's generation is always the current one (DEV-50). */
static struct vmsg_msg set_config(uint32_t generation_sent, uint32_t offset, uint32_t length,
				  uint8_t byte)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_CONFIG };
	uint8_t data[64];

	memset(data, byte, sizeof(data));
	msg.config.generation = generation_sent;
	msg.config.offset = offset;
	msg.config.length = length;
	msg.tail = data;
	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.config.offset, offset);
	CHECK(msg.config.length == length || msg.config.length == 0);
	if (msg.config.length)
		CHECK_MEM(msg.tail, data, length);
	CHECK_EQ(msg.config.generation, rig.model.device.generation);
	return msg;
}

static void three_places_of_the_generation(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		rig_forget(&rig);
		vmsg_device_config_changed(&rig.model.device, 4, 2);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &msg), 1);
		CHECK_EQ(msg.config.generation, rig.model.device.generation);
		CHECK_EQ(generation(), rig.model.device.generation);
		msg = set_config(rig.model.device.generation, 0, 2, 1);
		CHECK_EQ(msg.config.length, 2);
		CHECK_EQ(generation(), msg.config.generation);
		msg = set_config(rig.model.device.generation, RIG_CONFIG, 1, 1);
		CHECK_EQ(msg.config.length, 0);
		CHECK_EQ(generation(), msg.config.generation);
	}
}

static void generation_moves_with_every_change(void *arg)
{
	uint32_t before;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		before = generation();
		CHECK_EQ(generation(), before);
		vmsg_device_config_changed(&rig.model.device, 0, 1);
		CHECK_EQ(generation(), before + 1);
		vmsg_device_config_changed(&rig.model.device, 0, 0);
		CHECK_EQ(generation(), before + 2);
		set_config(before + 2, 0, 1, 7);
		CHECK_EQ(generation(), before + 3);
		/* Also while no driver is there. */
		rig_set_status(&rig, 0);
		before = generation();
		vmsg_device_config_changed(&rig.model.device, 0, 1);
		CHECK_EQ(generation(), before + 1);
	}
}

static void reads(void *arg)
{
	static const struct {
		uint32_t offset, length;
		bool good;
	} cases[] = {
		{ 0, RIG_CONFIG, true },      { RIG_CONFIG - 1, 1, true },
		{ RIG_CONFIG, 0, true },      { 3, 5, true },
		{ RIG_CONFIG, 1, false },     { 0, RIG_CONFIG + 1, false },
		{ RIG_CONFIG + 1, 0, false }, { UINT32_MAX, 1, false },
		{ UINT32_MAX, 2, false },     { 20, 5, false },
	};
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			test_context("%s: %u bytes at %u", vmsg_dialect_name(d), cases[i].length,
				     cases[i].offset);
			msg = get_config(cases[i].offset, cases[i].length);
			CHECK_EQ(msg.config.length, cases[i].good ? cases[i].length : 0);
			if (msg.config.length)
				CHECK_MEM(msg.tail, rig.model.config + cases[i].offset,
					  msg.config.length);
		}
	}
}

/* The largest maximum leaves 32 bytes of config in a message. */
static void read_larger_than_the_bus(void *arg)
{
	uint8_t wire[16] = { 0, VMSG_GET_CONFIG, RIG_DEV, 0, 1, 0, 16 };
	static uint8_t config[400];

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 52);
	rig.model.device.config = config;
	rig.model.device.config_size = sizeof(config);
	wire[12] = 32;
	CHECK_EQ(rig_raw(&rig, wire, 16), 0);
	CHECK_EQ(rig.sent[0].len, 52);
	wire[12] = 33;
	rig_quiet(&rig, wire, 16);
	memset(wire + 12, 0xff, 4);
	rig_quiet(&rig, wire, 16);
}

static void baseline_ignores_the_generation(void *arg)
{
	static const uint32_t sent[] = { 0, 1, 77, UINT32_MAX };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, 0);
	vmsg_device_config_changed(&rig.model.device, 0, 1);
	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
		CHECK_EQ(set_config(sent[i], 4, 4, (uint8_t)i).config.length, 4);
		CHECK_EQ(rig.model.config[4], i);
		CHECK_EQ(rig.sent_count, 1);
	}
	CHECK_EQ(set_config(generation(), 4, 4, 9).config.length, 4);
}

/* The profile is the bus's: v2 with the bit, and always before v2. A mismatch is no event. */
static void strict_refuses_a_mismatch(void *arg)
{
	uint32_t now;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, d == VMSG_V2 ? STRICT : 0, 0);
		rig_start(&rig, 0);
		vmsg_device_config_changed(&rig.model.device, 0, 1);
		now = generation();
		CHECK_EQ(set_config(now - 1, 4, 4, 1).config.length, 0);
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(set_config(now + 1, 4, 4, 1).config.length, 0);
		CHECK_EQ(set_config(0x80000000, 4, 4, 1).config.length, 0);
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(rig.model.config[4], 0x44);
		CHECK_EQ(generation(), now);
		CHECK_EQ(set_config(now, 4, 4, 1).config.length, 4);
		CHECK_EQ(rig.model.config[4], 1);
	}
}

static void quirk_any_generation(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V1, 0, 0);
	rig.bus.quirks = VMSG_QUIRK_ANY_GENERATION;
	rig_start(&rig, 0);
	vmsg_device_config_changed(&rig.model.device, 0, 1);
	CHECK_EQ(set_config(UINT32_MAX, 4, 4, 1).config.length, 4);
}

static void write_of_nothing(void *arg)
{
	uint32_t before;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		before = generation();
		CHECK_EQ(set_config(before, 4, 0, 1).config.length, 0);
		CHECK_EQ(rig.model.config[4], 0x44);
		CHECK_EQ(generation(), before);
		CHECK_EQ(rig.model.device.counters.refused, 0);
	}
}

static void all_or_nothing(void *arg)
{
	static const struct {
		uint32_t offset, length;
	} bad[] = {
		{ 20, 5 },	   { 0, RIG_CONFIG + 1 }, { RIG_CONFIG, 1 },
		{ UINT32_MAX, 1 }, { UINT32_MAX - 1, 4 },
	};
	uint8_t before[RIG_CONFIG];
	uint32_t now;

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		now = generation();
		memcpy(before, rig.model.config, sizeof(before));
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			test_context("%s: %u bytes at %u", vmsg_dialect_name(d), bad[i].length,
				     bad[i].offset);
			CHECK_EQ(set_config(now, bad[i].offset, bad[i].length, 1).config.length, 0);
			/* DEV-53: no data behind a length of 0. */
			CHECK_EQ(rig.sent[0].len, d == VMSG_RFC2 ? 18 : 20);
			CHECK_MEM(rig.model.config, before, sizeof(before));
			CHECK_EQ(generation(), now);
		}
		/* The model may refuse as well, or know nothing writable. */
		rig.model.configure_result = VMSG_ERR_INVAL;
		CHECK_EQ(set_config(now, 0, 4, 1).config.length, 0);
		CHECK_EQ(generation(), now);
		CHECK_MEM(rig.model.config, before, sizeof(before));
	}
}

static void nothing_writable(void *arg)
{
	static const struct vmsg_device_ops ops = { .name = "bare", .device_id = 1 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.device.ops = &ops;
	CHECK_EQ(set_config(0, 0, 1, 1).config.length, 0);
	CHECK_EQ(rig.model.config[0], 0x40);
}

/* ---- EVENT_CONFIG ---- */

static void change(uint32_t offset, uint32_t len, struct vmsg_msg *event)
{
	rig_forget(&rig);
	vmsg_device_config_changed(&rig.model.device, offset, len);
	CHECK_EQ(rig.sent_count, 1);
	CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, event), 1);
	CHECK_EQ(event->dev_num, RIG_DEV);
	CHECK_EQ(event->token, 0);
	CHECK_EQ(event->config.device_status, rig.model.device.status);
	CHECK_EQ(event->config.generation, rig.model.device.generation);
}

static void change_is_an_event(void *arg)
{
	struct vmsg_msg event;
	uint32_t last;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		change(6, 2, &event);
		CHECK_EQ(event.config.offset, 6);
		CHECK_EQ(event.config.length, 2);
		CHECK_EQ(event.tail_bytes, 2);
		CHECK_MEM(event.tail, rig.model.config + 6, 2);
		/* V1-DEV-01: no two of them share a value. */
		last = event.config.generation;
		change(6, 2, &event);
		CHECK(event.config.generation != last);
		/* Somewhere. */
		change(0, 0, &event);
		CHECK_EQ(event.config.offset, 0);
		CHECK_EQ(event.config.length, 0);
		CHECK_EQ(event.tail_bytes, 0);
	}
}

/* Larger than an event carries: without data; strict v2 gives the range, others drop such. */
static void change_too_big_for_an_event(void *arg)
{
	static uint8_t config[300];
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		for (uint32_t strict = 0; strict <= (d == VMSG_V2); strict++) {
			test_context("%s strict %u", vmsg_dialect_name(d), strict);
			rig_init(&rig, d, strict, d == VMSG_RFC2 ? 44 : 52);
			rig.model.device.config = config;
			rig.model.device.config_size = sizeof(config);
			rig_start(&rig, 0);
			change(100, 29, &event);
			CHECK_EQ(event.tail_bytes, 0);
			CHECK_EQ(event.config.offset, strict ? 100 : 0);
			CHECK_EQ(event.config.length, strict ? 29 : 0);
			/* What just fits is carried. */
			change(100, d == VMSG_RFC2 ? 20 : 28, &event);
			CHECK_EQ(event.tail_bytes, d == VMSG_RFC2 ? 20 : 28);
		}
	}
}

/* Before there is a driver, and after a reset, nobody is to be told of config. */
static void no_driver_no_event(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	vmsg_device_config_changed(&rig.model.device, 4, 2);
	CHECK_EQ(rig.sent_count, 0);
	rig_set_status(&rig, 1);
	rig_set_status(&rig, 3);
	rig_set_features(&rig, VMSG_BIT(VMSG_F_VERSION_1));
	rig_set_status(&rig, 0x0b);
	rig_set_status(&rig, 0x0f);
	rig_forget(&rig);
	/* And what nobody was told is not told with something else (DEV-14). */
	vmsg_device_needs_reset(&rig.model.device);
	CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
	CHECK_EQ(event.config.offset, 0);
	CHECK_EQ(event.config.length, 0);
	rig_set_status(&rig, 0);
	rig_forget(&rig);
	vmsg_device_config_changed(&rig.model.device, 4, 2);
	CHECK_EQ(rig.sent_count, 0);
}

/* A bus without room: any number of changes costs one event, which spans them all. */
static void changes_are_joined(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		rig_forget(&rig);
		rig.room = 0;
		vmsg_device_config_changed(&rig.model.device, 8, 2);
		vmsg_device_config_changed(&rig.model.device, 4, 1);
		vmsg_device_config_changed(&rig.model.device, 12, 4);
		CHECK(!vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 0);
		rig.room = UINT32_MAX;
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.config.offset, 4);
		CHECK_EQ(event.config.length, 12);
		CHECK_MEM(event.tail, rig.model.config + 4, 12);
		CHECK_EQ(event.config.generation, rig.model.device.generation);
		CHECK_EQ(rig.bus.counters.events_delayed, 3);
		/* The other way round. */
		rig.room = 0;
		vmsg_device_config_changed(&rig.model.device, 12, 4);
		vmsg_device_config_changed(&rig.model.device, 4, 1);
		rig.room = UINT32_MAX;
		rig_forget(&rig);
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.config.offset, 4);
		CHECK_EQ(event.config.length, 12);
		/* One of them did not say where. */
		rig.room = 0;
		vmsg_device_config_changed(&rig.model.device, 8, 2);
		vmsg_device_config_changed(&rig.model.device, 0, 0);
		vmsg_device_config_changed(&rig.model.device, 8, 2);
		rig.room = UINT32_MAX;
		change(8, 2, &event);
		CHECK_EQ(event.config.length, 0);
		CHECK_EQ(event.tail_bytes, 0);
		/* A change that is told at once leaves nothing behind. */
		change(8, 2, &event);
		CHECK_EQ(event.config.length, 2);
		rig_forget(&rig);
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 0);
	}
}

static void reset_forgets_events(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, 0);
	rig.room = 0;
	vmsg_device_config_changed(&rig.model.device, 8, 2);
	rig.room = 1;
	CHECK_EQ(rig_set_status(&rig, 0), 0);
	rig.room = UINT32_MAX;
	rig_forget(&rig);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 0);
}

/* v2 may start from 0 again, which suits drivers that send 0; v1 must not by itself. */
static void generation_over_a_reset(void *arg)
{
	uint32_t before;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		vmsg_device_config_changed(&rig.model.device, 0, 1);
		before = generation();
		CHECK(before != 0);
		rig_set_status(&rig, 0);
		CHECK_EQ(generation(), d == VMSG_V2 ? 0 : before);
	}
}

/* A write and a read in one go: the read sees the write. */
static void pipelined(void *arg)
{
	static const uint8_t write[] = {
		0,   VMSG_SET_CONFIG, RIG_DEV, 0, 1, 0, 21, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0,
		0x99
	};
	static const uint8_t read[] = {
		0, VMSG_GET_CONFIG, RIG_DEV, 0, 2, 0, 16, 0, 4, 0, 0, 0, 1, 0, 0, 0
	};
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	CHECK_EQ(vmsg_bus_receive(&rig.bus, write, sizeof(write)), 0);
	CHECK_EQ(vmsg_bus_receive(&rig.bus, read, sizeof(read)), 0);
	CHECK_EQ(rig.sent_count, 2);
	CHECK_EQ(rig.sent[0].bytes[1], VMSG_SET_CONFIG);
	CHECK_EQ(rig_count(&rig, 1, VMSG_GET_CONFIG, &msg), 1);
	CHECK_EQ(*(const uint8_t *)msg.tail, 0x99);
}

static const struct test tests[] = {
	{ "DEV-06 DEV-49 DEV-50 the three places of the generation", three_places_of_the_generation,
	  NULL },
	{ "DEV-07 generation moves with every change", generation_moves_with_every_change, NULL },
	{ "DEV-49 reads, in range and out of it", reads, NULL },
	{ "DEV-01 read larger than the bus", read_larger_than_the_bus, NULL },
	{ "DEV-05 DEV-08 baseline ignores the generation", baseline_ignores_the_generation, NULL },
	{ "DEV-05 DEV-09 DEV-16 V1-DEV-02 strict refuses a mismatch", strict_refuses_a_mismatch,
	  NULL },
	{ "quirk any generation", quirk_any_generation, NULL },
	{ "DEV-51 write of nothing", write_of_nothing, NULL },
	{ "DEV-52 DEV-53 all or nothing", all_or_nothing, NULL },
	{ "DEV-52 nothing writable", nothing_writable, NULL },
	{ "DEV-10 DEV-11 V1-DEV-01 V1-DEV-03 a change is an event", change_is_an_event, NULL },
	{ "DEV-17 change too big for an event", change_too_big_for_an_event, NULL },
	{ "DEV-14 no driver, no event", no_driver_no_event, NULL },
	{ "DEV-11 changes are joined", changes_are_joined, NULL },
	{ "DEV-59 reset forgets events", reset_forgets_events, NULL },
	{ "DEV-15 generation over a reset", generation_over_a_reset, NULL },
	{ "DEV-30 pipelined requests", pipelined, NULL },
};

int main(int argc, char **argv)
{
	return test_main("device_config", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
