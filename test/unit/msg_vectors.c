/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The byte vectors of the wire, both ways: what decodes must have these fields, what has these
 * fields must encode to these bytes. A network device: device 5, token 0x0102, vendor 0x554d4551.
 */
#include "test.h"

#include <vmsg/msg.h>
#include <vmsg/port.h>

#include <string.h>

#define IN_V2	(1u << VMSG_V2)
#define IN_V1	(1u << VMSG_V1)
#define IN_RFC2 (1u << VMSG_RFC2)
#define IN_BOTH (IN_V2 | IN_V1)

#define REQUEST(id)	 .type = 0, .msg_id = VMSG_##id, .dev_num = 5, .token = 0x0102
#define RESPONSE(id)	 .type = 1, .msg_id = VMSG_##id, .dev_num = 5, .token = 0x0102
#define EVENT(id)	 .type = 0, .msg_id = VMSG_##id, .dev_num = 5
#define BUS_REQUEST(id)	 .type = 2, .msg_id = VMSG_##id, .token = 0x0102
#define BUS_RESPONSE(id) .type = 3, .msg_id = VMSG_##id, .token = 0x0102
#define TAIL(text)	 .tail = (text), .tail_bytes = sizeof(text) - 1

#define INFO_V1                            \
	.info = { .device_id = 1,          \
		  .vendor_id = 0x554d4551, \
		  .num_feature_blocks = 2, \
		  .config_size = 24,       \
		  .max_virtqueues = 3 }
#define UUID                                                                                  \
	{                                                                                     \
		0x6f, 0x1c, 0x2d, 0x3e, 0x4a, 0x5b, 0x4c, 0x6d, 0x8e, 0x7f, 0x00, 0x11, 0x22, \
			0x33, 0x44, 0xff                                                      \
	}
#define ADDRESSES .desc_addr = 0x100000, .driver_addr = 0x101000, .device_addr = 0x102000

struct vector {
	const char *name;
	uint32_t dialects;
	const char *hex;
	struct vmsg_msg msg;
};

static const struct vector vectors[] = {
	{ "INFO req", IN_BOTH, "00 02 05 00 02 01 08 00", { REQUEST(GET_DEVICE_INFO) } },
	{ "INFO resp v2",
	  IN_V2,
	  "01 02 05 00 02 01 34 00 01 00 00 00 51 45 4d 55 6f 1c 2d 3e 4a 5b 4c 6d 8e 7f 00 11"
	  "22 33 44 ff 02 00 00 00 18 00 00 00 03 00 00 00 00 00 00 00 00 00 00 00",
	  { RESPONSE(GET_DEVICE_INFO), .info = { .device_id = 1,
						 .vendor_id = 0x554d4551,
						 .device_uuid = UUID,
						 .num_feature_blocks = 2,
						 .config_size = 24,
						 .max_virtqueues = 3 } } },
	{ "INFO resp v1",
	  IN_V1,
	  "01 02 05 00 02 01 20 00 01 00 00 00 51 45 4d 55 40 00 00 00 18 00 00 00 03 00 00 00"
	  "00 00 00 00",
	  { RESPONSE(GET_DEVICE_INFO), INFO_V1 } },
	{ "INFO req RFC2",
	  IN_RFC2,
	  "00 02 05 00 06 00",
	  { .msg_id = VMSG_GET_DEVICE_INFO, .dev_num = 5 } },
	{ "INFO resp RFC2",
	  IN_RFC2,
	  "01 02 05 00 1e 00 01 00 00 00 51 45 4d 55 40 00 00 00 18 00 00 00 03 00 00 00 00 00"
	  "00 00",
	  { .type = 1, .msg_id = VMSG_GET_DEVICE_INFO, .dev_num = 5, INFO_V1 } },
	{ "GET_DEVICE_FEATURES req",
	  IN_BOTH,
	  "00 03 05 00 02 01 10 00 00 00 00 00 02 00 00 00",
	  { REQUEST(GET_DEVICE_FEATURES), .features = { .num_blocks = 2 } } },
	{ "GET_DEVICE_FEATURES resp",
	  IN_BOTH,
	  "01 03 05 00 02 01 18 00 00 00 00 00 02 00 00 00 20 00 01 00 01 00 00 00",
	  { RESPONSE(GET_DEVICE_FEATURES), .features = { .num_blocks = 2 },
	    TAIL("\x20\x00\x01\x00\x01\x00\x00\x00") } },
	{ "SET_DRIVER_FEATURES req",
	  IN_BOTH,
	  "00 04 05 00 02 01 18 00 00 00 00 00 02 00 00 00 20 00 00 00 01 00 00 00",
	  { REQUEST(SET_DRIVER_FEATURES), .features = { .num_blocks = 2 },
	    TAIL("\x20\x00\x00\x00\x01\x00\x00\x00") } },
	{ "SET_DRIVER_FEATURES resp",
	  IN_BOTH,
	  "01 04 05 00 02 01 08 00",
	  { RESPONSE(SET_DRIVER_FEATURES) } },
	{ "GET_CONFIG req",
	  IN_BOTH,
	  "00 05 05 00 02 01 10 00 00 00 00 00 06 00 00 00",
	  { REQUEST(GET_CONFIG), .config = { .length = 6 } } },
	{ "GET_CONFIG resp",
	  IN_BOTH,
	  "01 05 05 00 02 01 1a 00 07 00 00 00 00 00 00 00 06 00 00 00 52 54 00 12 34 56",
	  { RESPONSE(GET_CONFIG), .config = { .generation = 7, .length = 6 },
	    TAIL("\x52\x54\x00\x12\x34\x56") } },
	{ "SET_CONFIG req v2 baseline",
	  IN_BOTH,
	  "00 06 05 00 02 01 16 00 00 00 00 00 08 00 00 00 02 00 00 00 01 00",
	  { REQUEST(SET_CONFIG), .config = { .offset = 8, .length = 2 }, TAIL("\x01\x00") } },
	{ "SET_CONFIG resp applied",
	  IN_BOTH,
	  "01 06 05 00 02 01 16 00 08 00 00 00 08 00 00 00 02 00 00 00 01 00",
	  { RESPONSE(SET_CONFIG), .config = { .generation = 8, .offset = 8, .length = 2 },
	    TAIL("\x01\x00") } },
	{ "SET_CONFIG resp refused",
	  IN_BOTH,
	  "01 06 05 00 02 01 14 00 08 00 00 00 08 00 00 00 00 00 00 00",
	  { RESPONSE(SET_CONFIG), .config = { .generation = 8, .offset = 8 } } },
	{ "GET_DEVICE_STATUS req",
	  IN_BOTH,
	  "00 07 05 00 02 01 08 00",
	  { REQUEST(GET_DEVICE_STATUS) } },
	{ "GET_DEVICE_STATUS resp",
	  IN_BOTH,
	  "01 07 05 00 02 01 0c 00 0f 00 00 00",
	  { RESPONSE(GET_DEVICE_STATUS), .status = { 15 } } },
	{ "SET_DEVICE_STATUS req",
	  IN_BOTH,
	  "00 08 05 00 02 01 0c 00 0b 00 00 00",
	  { REQUEST(SET_DEVICE_STATUS), .status = { 11 } } },
	{ "GET_VQUEUE req",
	  IN_BOTH,
	  "00 09 05 00 02 01 0c 00 01 00 00 00",
	  { REQUEST(GET_VQUEUE), .vqueue = { .index = 1 } } },
	{ "GET_VQUEUE resp v2 enabled",
	  IN_V2,
	  "01 09 05 00 02 01 30 00 01 00 00 00 00 01 00 00 80 00 00 00 01 00 00 00 00 00 10 00"
	  "00 00 00 00 00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00",
	  { RESPONSE(GET_VQUEUE), .vqueue = { .index = 1,
					      .max_size = 256,
					      .size = 128,
					      .flags = VMSG_VQUEUE_ENABLED,
					      ADDRESSES } } },
	{ "GET_VQUEUE resp v2 absent",
	  IN_V2,
	  "01 09 05 00 02 01 30 00 09 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
	  "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
	  { RESPONSE(GET_VQUEUE), .vqueue = { .index = 9 } } },
	{ "SET_VQUEUE v2 set+enable",
	  IN_V2,
	  "00 0a 05 00 02 01 30 00 01 00 00 00 01 00 00 00 80 00 00 00 00 00 00 00 00 00 10 00"
	  "00 00 00 00 00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00",
	  { REQUEST(SET_VQUEUE),
	    .vqueue = { .index = 1, .flags = VMSG_VQUEUE_OP_ENABLE, .size = 128, ADDRESSES } } },
	{ "SET_VQUEUE v2 enable only",
	  IN_V2,
	  "00 0a 05 00 02 01 30 00 01 00 00 00 3d 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
	  "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
	  { REQUEST(SET_VQUEUE),
	    .vqueue = { .index = 1, .flags = VMSG_VQUEUE_OP_ENABLE | VMSG_VQUEUE_KEEP_ALL } } },
	{ "SET_VQUEUE v1",
	  IN_BOTH,
	  "00 0a 05 00 02 01 30 00 01 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00 00 00 10 00"
	  "00 00 00 00 00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00",
	  { REQUEST(SET_VQUEUE), .vqueue = { .index = 1, .size = 128, ADDRESSES } } },
	{ "SET_VQUEUE RFC2",
	  IN_RFC2,
	  "00 0a 05 00 2a 00 01 00 00 00 00 00 00 00 80 00 00 00 00 00 10 00 00 00 00 00 00 10"
	  "10 00 00 00 00 00 00 20 10 00 00 00 00 00",
	  { .msg_id = VMSG_SET_VQUEUE,
	    .dev_num = 5,
	    .vqueue = { .index = 1, .size = 128, ADDRESSES } } },
	{ "RESET_VQUEUE req",
	  IN_BOTH,
	  "00 0b 05 00 02 01 0c 00 01 00 00 00",
	  { REQUEST(RESET_VQUEUE), .vqueue = { .index = 1 } } },
	{ "GET_SHM req", IN_BOTH, "00 0c 05 00 02 01 0c 00 00 00 00 00", { REQUEST(GET_SHM) } },
	{ "GET_SHM resp v2",
	  IN_V2,
	  "01 0c 05 00 02 01 20 00 00 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00"
	  "80 00 00 00",
	  { RESPONSE(GET_SHM),
	    .shm = { .length = UINT64_C(0x200000000), .address = UINT64_C(0x8000000000) } } },
	{ "GET_SHM resp v1",
	  IN_V1,
	  "01 0c 05 00 02 01 14 00 00 00 00 00 00 00 10 00 00 00 00 80",
	  { RESPONSE(GET_SHM), .shm = { .length = 0x100000, .address = 0x80000000 } } },
	{ "EVENT_CONFIG generic",
	  IN_BOTH,
	  "00 40 05 00 00 00 18 00 0f 00 00 00 09 00 00 00 00 00 00 00 00 00 00 00",
	  { EVENT(EVENT_CONFIG), .config = { .device_status = 15, .generation = 9 } } },
	{ "EVENT_CONFIG data",
	  IN_BOTH,
	  "00 40 05 00 00 00 1a 00 0f 00 00 00 09 00 00 00 06 00 00 00 02 00 00 00 01 00",
	  { EVENT(EVENT_CONFIG),
	    .config = { .device_status = 15, .generation = 9, .offset = 6, .length = 2 },
	    TAIL("\x01\x00") } },
	{ "EVENT_AVAIL plain",
	  IN_BOTH,
	  "00 41 05 00 00 00 10 00 01 00 00 00 00 00 00 00",
	  { EVENT(EVENT_AVAIL), .event = { .vq_index = 1 } } },
	{ "EVENT_AVAIL packed wrap",
	  IN_BOTH,
	  "00 41 05 00 00 00 10 00 01 00 00 00 03 00 00 80",
	  { EVENT(EVENT_AVAIL), .event = { .vq_index = 1, .next_offset = 0x80000003 } } },
	{ "EVENT_USED",
	  IN_BOTH,
	  "00 42 05 00 00 00 0c 00 01 00 00 00",
	  { EVENT(EVENT_USED), .event = { .vq_index = 1 } } },
	{ "GET_DEVICES req",
	  IN_BOTH,
	  "02 02 00 00 02 01 0c 00 00 00 10 00",
	  { BUS_REQUEST(GET_DEVICES), .devices = { .count = 16 } } },
	{ "GET_DEVICES resp v2 terminal",
	  IN_V2,
	  "03 02 00 00 02 01 10 00 00 00 00 00 10 00 25 00",
	  { BUS_RESPONSE(GET_DEVICES), .devices = { .count = 16 }, TAIL("\x25\x00") } },
	{ "GET_DEVICES resp v1 terminal",
	  IN_V1,
	  "03 02 00 00 02 01 10 00 00 00 10 00 00 00 25 00",
	  { BUS_RESPONSE(GET_DEVICES), .devices = { .count = 16 }, TAIL("\x25\x00") } },
	{ "GET_DEVICES resp v2 trimmed",
	  IN_V2,
	  "03 02 00 00 02 01 0f 00 00 00 00 00 06 00 25",
	  { BUS_RESPONSE(GET_DEVICES), .devices = { .count = 6 }, TAIL("\x25") } },
	{ "GET_DEVICES req RFC2",
	  IN_RFC2,
	  "02 02 00 00 0a 00 00 00 10 00",
	  { .type = 2, .msg_id = VMSG_GET_DEVICES, .devices = { .count = 16 } } },
	{ "PING req",
	  IN_BOTH,
	  "02 03 00 00 02 01 0c 00 ef be ad de",
	  { BUS_REQUEST(PING), .ping = { 0xdeadbeef } } },
	{ "EVENT_DEVICE added",
	  IN_BOTH,
	  "02 40 00 00 00 00 0c 00 05 00 01 00",
	  { .type = 2, .msg_id = VMSG_EVENT_DEVICE, .event_device = { 5, VMSG_DEVICE_ADDED } } },
	{ "universal probe",
	  IN_BOTH,
	  "00 02 05 00 06 00 08 00",
	  { .msg_id = VMSG_GET_DEVICE_INFO, .dev_num = 5, .token = VMSG_AUTO_TOKEN } },
	{ "universal probe as an rfc2 device sees it",
	  IN_RFC2,
	  "00 02 05 00 06 00",
	  { .msg_id = VMSG_GET_DEVICE_INFO, .dev_num = 5 } },
};

static uint8_t nibble(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static uint32_t parse(const char *hex, uint8_t *bytes)
{
	uint32_t len = 0;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		bytes[len++] = (uint8_t)(nibble(hex[0]) << 4 | nibble(hex[1]));
		hex++;
	}
	return len;
}

/* The members between the header and the end; what a dialect does not carry reads 0. */
static void check_fields(const struct vmsg_msg *got, const struct vmsg_msg *wanted)
{
	size_t at = offsetof(struct vmsg_msg, info);

	CHECK_EQ(got->type, wanted->type);
	CHECK_EQ(got->msg_id, wanted->msg_id);
	CHECK_EQ(got->dev_num, wanted->dev_num);
	CHECK_EQ(got->token, wanted->token);
	CHECK_MEM((const uint8_t *)got + at, (const uint8_t *)wanted + at, sizeof(*got) - at);
	CHECK_EQ(got->tail_bytes, wanted->tail_bytes);
	CHECK_MEM(got->tail, wanted->tail, wanted->tail_bytes);
}

static void both_ways(const struct vector *vector, enum vmsg_dialect dialect)
{
	uint8_t wire[VMSG_MSG_DEFAULT], again[VMSG_MSG_DEFAULT];
	uint32_t len = parse(vector->hex, wire);
	struct vmsg_msg msg;

	/* A v1 reader has no flags word, so this SET_VQUEUE is two vectors in one. */
	test_context("%s, %s", vector->name, vmsg_dialect_name(dialect));
	memset(&msg, 0xa5, sizeof(msg));
	CHECK_EQ(vmsg_msg_decode(dialect, wire, len, &msg), 0);
	check_fields(&msg, &vector->msg);
	CHECK_EQ(vmsg_msg_size(dialect, wire, len), len);
	memset(again, 0xa5, sizeof(again));
	CHECK_EQ(vmsg_msg_encode(dialect, &vector->msg, again, sizeof(again)), len);
	CHECK_MEM(again, wire, len);
	CHECK_EQ(again[len], 0xa5);
	/* Exactly enough room is enough, one byte less is not. */
	CHECK_EQ(vmsg_msg_encode(dialect, &vector->msg, again, len), len);
	CHECK_EQ(vmsg_msg_encode(dialect, &vector->msg, again, len - 1), VMSG_ERR_MSGSIZE);
}

static void vectors_both_ways(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		for (uint32_t d = VMSG_V2; d <= VMSG_RFC2; d++) {
			if (vectors[i].dialects & 1u << d)
				both_ways(&vectors[i], (enum vmsg_dialect)d);
		}
	}
}

/* AUTO reads and writes as v2 does. */
static void auto_counts_as_v2(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		if (vectors[i].dialects & IN_V2)
			both_ways(&vectors[i], VMSG_AUTO);
	}
}

/* A tail may already stand where it will end up. */
static void encodes_in_place(void *arg)
{
	uint8_t buf[32];
	struct vmsg_msg msg = { RESPONSE(GET_CONFIG), .config = { .generation = 7, .length = 6 } };

	(void)arg;
	memset(buf, 0, sizeof(buf));
	memcpy(buf + 20, "\x52\x54\x00\x12\x34\x56", 6);
	msg.tail = buf + 20;
	CHECK_EQ(vmsg_msg_encode(VMSG_V2, &msg, buf, sizeof(buf)), 26);
	CHECK_MEM(buf,
		  "\x01\x05\x05\x00\x02\x01\x1a\x00\x07\x00\x00\x00\x00\x00\x00\x00"
		  "\x06\x00\x00\x00\x52\x54\x00\x12\x34\x56",
		  26);
}

/* Bits that fill no whole block are none: the number is to be a multiple of 32. */
static void bits_become_blocks(void *arg)
{
	static const uint32_t bits[] = { 0, 31, 32, 33, 64, 4096, UINT32_MAX };
	uint8_t wire[32];
	struct vmsg_msg msg;

	(void)arg;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		parse("01 02 05 00 02 01 20 00 01 00 00 00 51 45 4d 55 40 00 00 00 18 00 00 00"
		      "03 00 00 00 00 00 00 00",
		      wire);
		vmsg_put32(wire + 16, bits[i]);
		CHECK_EQ(vmsg_msg_decode(VMSG_V1, wire, 32, &msg), 0);
		CHECK_EQ(msg.info.num_feature_blocks, bits[i] / 32);
	}
}

/* The 16-bit msg_size bounds a message whatever room there is. */
static void longest_message(void *arg)
{
	static uint8_t data[70000], wire[70000];
	struct vmsg_msg msg = { .type = 1, .msg_id = VMSG_GET_CONFIG, .tail = data };

	(void)arg;
	msg.config.length = 65535 - 20;
	CHECK_EQ(vmsg_msg_encode(VMSG_V2, &msg, wire, sizeof(wire)), 65535);
	CHECK_EQ(vmsg_msg_decode(VMSG_V2, wire, sizeof(wire), &msg), 0);
	CHECK_EQ(msg.tail_bytes, 65515);
	msg.config.length++;
	CHECK_EQ(vmsg_msg_encode(VMSG_V2, &msg, wire, sizeof(wire)), VMSG_ERR_MSGSIZE);
	msg.config.length = UINT32_MAX;
	CHECK_EQ(vmsg_msg_encode(VMSG_V2, &msg, wire, sizeof(wire)), VMSG_ERR_MSGSIZE);
}

static const struct test tests[] = {
	{ "DRV-16 DEV-23 byte vectors both ways", vectors_both_ways, NULL },
	{ "auto counts as v2", auto_counts_as_v2, NULL },
	{ "encodes in place", encodes_in_place, NULL },
	{ "V1-DEV-09 feature bits become blocks", bits_become_blocks, NULL },
	{ "longest message", longest_message, NULL },
};

int main(int argc, char **argv)
{
	return test_main("msg_vectors", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
