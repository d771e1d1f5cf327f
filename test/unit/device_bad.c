/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: what no driver should send, and what holds of everything the device sends. */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)

static struct rig rig;

/* A good request of this id; the number of its bytes. */
static uint32_t request(enum vmsg_dialect dialect, uint8_t msg_id, uint8_t *wire, uint32_t size)
{
	struct vmsg_msg msg = { .msg_id = msg_id, .dev_num = RIG_DEV, .token = 0x1234 };
	static const uint8_t tail[16];
	int len;

	msg.tail = tail;
	if (msg_id == VMSG_GET_DEVICE_FEATURES || msg_id == VMSG_SET_DRIVER_FEATURES)
		msg.features.num_blocks = 2;
	if (msg_id == VMSG_GET_CONFIG || msg_id == VMSG_SET_CONFIG)
		msg.config.length = 4;
	if (msg_id == VMSG_SET_DEVICE_STATUS)
		msg.status.status = 1;
	len = vmsg_msg_encode(dialect, &msg, wire, size);
	CHECK(len > 0);
	return (uint32_t)len;
}

static void put_size(enum vmsg_dialect dialect, uint8_t *wire, uint32_t size)
{
	vmsg_put16(wire + vmsg_msg_header_bytes(dialect) - 2, (uint16_t)size);
}

/* Every request, cut at every byte: as a short frame, and as a message that says it is short. */
static void truncated(void *arg)
{
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			uint32_t len = request(d, id, wire, sizeof(wire));

			for (uint32_t cut = 0; cut < len; cut++) {
				test_context("%s id %u cut at %u of %u", vmsg_dialect_name(d), id,
					     cut, len);
				put_size(d, wire, len);
				rig_quiet(&rig, wire, cut);
				put_size(d, wire, cut);
				/* The tail that rfc2 drivers do not count (wire.md 2.6). */
				if (d == VMSG_RFC2 && cut >= 14)
					rig_quiet(&rig, wire, cut);
				else
					rig_quiet(&rig, wire, len);
			}
		}
		CHECK_EQ(rig.model.device.counters.refused, 0);
	}
}

/* Longer than needed is no fault, in the frame or in msg_size; nor is a full slot. */
static void longer_than_needed(void *arg)
{
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 64);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			uint32_t len = request(d, id, wire, sizeof(wire));

			test_context("%s id %u", vmsg_dialect_name(d), id);
			memset(wire + len, 0xee, sizeof(wire) - len);
			CHECK_EQ(rig_raw(&rig, wire, sizeof(wire)), 0);
			CHECK_EQ(rig.sent_count, 1);
			put_size(d, wire, sizeof(wire));
			CHECK_EQ(rig_raw(&rig, wire, sizeof(wire)), 0);
			CHECK_EQ(rig.sent_count, 1);
			CHECK_EQ(rig.sent[0].bytes[1], id);
		}
	}
}

static void longer_than_the_bus(void *arg)
{
	uint8_t wire[80] = { 0 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 64);
	request(VMSG_V2, VMSG_GET_DEVICE_STATUS, wire, sizeof(wire));
	put_size(VMSG_V2, wire, 65);
	rig_quiet(&rig, wire, 65);
	put_size(VMSG_V2, wire, 64);
	CHECK_EQ(rig_raw(&rig, wire, 65), 0);
	CHECK_EQ(rig.sent_count, 1);
}

/* Every id in every namespace, with and without the response bit. */
static void unsupported(void *arg)
{
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (uint32_t i = 0; i < 4 * 256; i++) {
			uint8_t type = (uint8_t)(i >> 8), id = (uint8_t)i;

			if (type == 0 && id >= VMSG_GET_DEVICE_INFO && id <= VMSG_GET_SHM)
				continue;
			if (type == 0 && id == VMSG_EVENT_AVAIL)
				continue;
			if (type == 2 && (id == VMSG_GET_DEVICES || id == VMSG_PING))
				continue;
			test_context("%s type %u id 0x%02x", vmsg_dialect_name(d), type, id);
			memset(wire, 0, sizeof(wire));
			wire[0] = type;
			wire[1] = id;
			if (!(type & VMSG_TYPE_BUS))
				wire[2] = RIG_DEV;
			put_size(d, wire, 64);
			rig_quiet(&rig, wire, sizeof(wire));
		}
		CHECK_EQ(rig.model.kicks + rig.model.starts + rig.model.resets, 0);
	}
}

/* Counts that would wrap 32 bits. */
static void absurd_counts(void *arg)
{
	static const uint32_t counts[] = { 0x40000000, 0x3fffffff, 0x80000002, UINT32_MAX };
	uint8_t wire[64];

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		test_context("0x%x", counts[i]);
		request(VMSG_V2, VMSG_SET_DRIVER_FEATURES, wire, sizeof(wire));
		vmsg_put32(wire + 12, counts[i]);
		rig_quiet(&rig, wire, 24);
		request(VMSG_V2, VMSG_SET_CONFIG, wire, sizeof(wire));
		vmsg_put32(wire + 16, counts[i]);
		rig_quiet(&rig, wire, 24);
		request(VMSG_V2, VMSG_GET_CONFIG, wire, sizeof(wire));
		vmsg_put32(wire + 12, counts[i]);
		rig_quiet(&rig, wire, 16);
	}
}

static void reserved_bits(void *arg)
{
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			uint32_t len = request(d, id, wire, sizeof(wire));

			for (uint32_t bit = 2; bit < 8; bit++) {
				test_context("%s id %u bit %u", vmsg_dialect_name(d), id, bit);
				wire[0] = (uint8_t)(1u << bit);
				CHECK_EQ(rig_raw(&rig, wire, len), 0);
				CHECK_EQ(rig.sent_count, 1);
				CHECK_EQ(rig.sent[0].bytes[0], VMSG_TYPE_RESPONSE);
			}
		}
	}
}

/* What is reserved is sent as 0: the whole of every answer is what the codec makes of its fields,
 * and no byte of the frame buffer's past shows. */
static void nothing_old_is_sent(void *arg)
{
	uint8_t wire[64];
	struct rig_frame first;

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			uint32_t len = request(d, id, wire, sizeof(wire));

			test_context("%s id %u", vmsg_dialect_name(d), id);
			if (id == VMSG_SET_CONFIG)
				continue; /* its generation moves */
			memset(rig.frame, 0, sizeof(rig.frame));
			CHECK_EQ(rig_raw(&rig, wire, len), 0);
			first = rig.sent[0];
			memset(rig.frame, 0xff, sizeof(rig.frame));
			CHECK_EQ(rig_raw(&rig, wire, len), 0);
			CHECK_EQ(rig.sent[0].len, first.len);
			CHECK_MEM(rig.sent[0].bytes, first.bytes, first.len);
		}
	}
}

static void tokens(void *arg)
{
	static const uint16_t tokens[] = { 0, 1, 0x7fff, 0x8000, 0xffff };
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		if (d == VMSG_RFC2)
			continue;
		rig_init(&rig, d, 0, 0);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			uint32_t len = request(d, id, wire, sizeof(wire));

			for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
				vmsg_put16(wire + 4, tokens[i]);
				CHECK_EQ(rig_raw(&rig, wire, len), 0);
				CHECK_EQ(rig.sent_count, 1);
				CHECK_EQ(vmsg_get16(rig.sent[0].bytes + 4), tokens[i]);
				CHECK_EQ(rig.sent[0].bytes[1], id);
			}
		}
	}
}

/* Two devices: each speaks under its own number and has its own state. */
static void two_devices(void *arg)
{
	static struct rig_device other;
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_device_init(&other);
		CHECK_EQ(vmsg_bus_add(&rig.bus, &other.device, 0x1234), 0);
		rig_start(&rig, 0);
		rig.dev_num = 0x1234;
		CHECK_EQ(rig_status(&rig), 0);
		rig_start(&rig, 0);
		rig_forget(&rig);
		vmsg_device_config_changed(&other.device, 0, 1);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.dev_num, 0x1234);
		rig_forget(&rig);
		vmsg_device_config_changed(&rig.model.device, 0, 1);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.dev_num, RIG_DEV);
		rig_set_status(&rig, 0);
		CHECK_EQ(other.device.status, 0);
		CHECK_EQ(rig.model.device.status, 0x0f);
	}
}

static const struct test tests[] = {
	{ "DEV-21 DEV-32 truncated requests", truncated, NULL },
	{ "DEV-27 longer than needed", longer_than_needed, NULL },
	{ "DEV-25 BUS-11 longer than the bus", longer_than_the_bus, NULL },
	{ "DEV-02 DEV-03 DEV-04 DEV-21 BUS-16 unsupported kinds", unsupported, NULL },
	{ "DEV-21 absurd counts", absurd_counts, NULL },
	{ "GEN-01 DEV-24 reserved bits", reserved_bits, NULL },
	{ "GEN-01 DEV-27 BUS-30 nothing old is sent", nothing_old_is_sent, NULL },
	{ "DEV-28 DEV-29 tokens", tokens, NULL },
	{ "DEV-26 two devices", two_devices, NULL },
};

int main(int argc, char **argv)
{
	return test_main("device_bad", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
