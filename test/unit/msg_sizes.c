/* SPDX-License-Identifier: BSD-3-Clause */
/* What decodes and what does not: the sizes of every kind of message, headers, unknown kinds. */
#include "test.h"

#include <vmsg/msg.h>
#include <vmsg/port.h>

#include <string.h>

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

/* Messages of wire.h by kind, for the tests that go through the whole table. */
struct kind {
	const char *name;
	uint8_t type, msg_id;
	uint16_t size[3];      /* the smallest, by dialect; 0: there is no such message */
	uint8_t tail_at;       /* payload offset of the field that says how long the tail is */
	uint8_t tail_width;    /* of that field in bytes; 0: no tail */
	uint8_t tail_per_byte; /* units of the field in a byte of tail, or 0: 4 bytes a unit */
	bool optional[3];      /* the tail may be missing, by dialect */
};

#define FIXED(text, type, id, a, b, c)                \
	{                                             \
		text, type, id, { a, b, c }, 0, 0, 0, \
		{                                     \
			0                             \
		}                                     \
	}
static const struct kind kinds[] = {
	FIXED("INFO req", 0, 0x02, 8, 8, 6),
	FIXED("INFO resp", 1, 0x02, 52, 32, 30),
	FIXED("GET_DEVICE_FEATURES req", 0, 0x03, 16, 16, 14),
	{ "GET_DEVICE_FEATURES resp", 1, 0x03, { 16, 16, 14 }, 4, 4, 0, { 0 } },
	{ "SET_DRIVER_FEATURES req", 0, 0x04, { 16, 16, 14 }, 4, 4, 0, { 0 } },
	FIXED("SET_DRIVER_FEATURES resp", 1, 0x04, 8, 8, 6),
	FIXED("GET_CONFIG req", 0, 0x05, 16, 16, 14),
	{ "GET_CONFIG resp", 1, 0x05, { 20, 20, 18 }, 8, 4, 1, { 0 } },
	{ "SET_CONFIG req", 0, 0x06, { 20, 20, 18 }, 8, 4, 1, { 0 } },
	{ "SET_CONFIG resp", 1, 0x06, { 20, 20, 18 }, 8, 4, 1, { false, true, true } },
	FIXED("GET_DEVICE_STATUS req", 0, 0x07, 8, 8, 6),
	FIXED("GET_DEVICE_STATUS resp", 1, 0x07, 12, 12, 10),
	FIXED("SET_DEVICE_STATUS req", 0, 0x08, 12, 12, 10),
	FIXED("SET_DEVICE_STATUS resp", 1, 0x08, 12, 12, 10),
	FIXED("GET_VQUEUE req", 0, 0x09, 12, 12, 10),
	FIXED("GET_VQUEUE resp", 1, 0x09, 48, 48, 42),
	FIXED("SET_VQUEUE req", 0, 0x0a, 48, 48, 42),
	FIXED("SET_VQUEUE resp", 1, 0x0a, 8, 8, 6),
	FIXED("RESET_VQUEUE req", 0, 0x0b, 12, 12, 10),
	FIXED("RESET_VQUEUE resp", 1, 0x0b, 8, 8, 6),
	FIXED("GET_SHM req", 0, 0x0c, 12, 12, 10),
	FIXED("GET_SHM resp", 1, 0x0c, 32, 20, 18),
	{ "EVENT_CONFIG", 0, 0x40, { 24, 24, 22 }, 12, 4, 1, { true, true, true } },
	FIXED("EVENT_AVAIL", 0, 0x41, 16, 16, 14),
	FIXED("EVENT_USED", 0, 0x42, 12, 12, 10),
	FIXED("bus GET_DEVICES req", 2, 0x02, 12, 12, 10),
	FIXED("bus PING req", 2, 0x03, 12, 12, 10),
	FIXED("bus PING resp", 3, 0x03, 12, 12, 10),
	FIXED("bus EVENT_DEVICE", 2, 0x40, 12, 12, 10),
};

/* GET_DEVICES resp stands apart: its count moves between the dialects. */
static const struct kind devices_v2 = {
	"bus GET_DEVICES resp", 3, 0x02, { 14, 0, 0 }, 4, 2, 8, { 0 }
};
static const struct kind devices_old = {
	"bus GET_DEVICES resp", 3, 0x02, { 0, 14, 12 }, 2, 2, 8, { 0 }
};

static void put_header(enum vmsg_dialect dialect, uint8_t *wire, const struct kind *kind,
		       uint32_t size)
{
	uint32_t header = vmsg_msg_header_bytes(dialect);

	wire[0] = kind->type;
	wire[1] = kind->msg_id;
	vmsg_put16(wire + header - 2, (uint16_t)size);
}

/* A message of this kind at its smallest, with one byte less, with more behind it. */
static void try_sizes(const struct kind *kind, enum vmsg_dialect dialect)
{
	uint8_t wire[64] = { 0 };
	uint32_t size = kind->size[dialect];
	struct vmsg_msg msg;

	test_context("%s, %s", kind->name, vmsg_dialect_name(dialect));
	put_header(dialect, wire, kind, size);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, size, &msg), 0);
	CHECK_EQ(msg.tail_bytes, 0);
	/* The frame is longer than the message. */
	CHECK_EQ(vmsg_msg_decode(dialect, wire, sizeof(wire), &msg), 0);
	/* The frame is shorter than the message says. */
	CHECK_EQ(vmsg_msg_decode(dialect, wire, size - 1, &msg), VMSG_ERR_BADMSG);
	/* The message says it is shorter than it can be. */
	put_header(dialect, wire, kind, size - 1);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, sizeof(wire), &msg), VMSG_ERR_BADMSG);
	/* And longer than it must be. */
	put_header(dialect, wire, kind, size + 5);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, sizeof(wire), &msg), 0);
}

static void put_count(const struct kind *kind, uint8_t *field, uint64_t count)
{
	if (kind->tail_width == 2)
		vmsg_put16(field, (uint16_t)count);
	else
		vmsg_put32(field, (uint32_t)count);
}

/* A tail that fits, one that is a byte short, one that is as long as the field can say. */
static void try_tail(const struct kind *kind, enum vmsg_dialect dialect)
{
	uint8_t wire[128] = { 0 };
	uint32_t size = kind->size[dialect], header = vmsg_msg_header_bytes(dialect);
	uint8_t *field = wire + header + kind->tail_at;
	uint64_t most = kind->tail_width == 2 ? UINT16_MAX : UINT32_MAX;
	uint32_t per_byte = kind->tail_per_byte, tail = 12;
	struct vmsg_msg msg;

	test_context("tail of %s, %s", kind->name, vmsg_dialect_name(dialect));
	put_header(dialect, wire, kind, size + tail);
	put_count(kind, field, per_byte ? tail * per_byte : tail / 4);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, size + tail, &msg), 0);
	CHECK_EQ(msg.tail_bytes, tail);
	CHECK(msg.tail == wire + size);
	put_header(dialect, wire, kind, size + tail - 1);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, sizeof(wire), &msg),
		 kind->optional[dialect] ? 0 : VMSG_ERR_BADMSG);
	if (kind->optional[dialect])
		CHECK_EQ(msg.tail_bytes, 0);
	put_header(dialect, wire, kind, size + tail);
	put_count(kind, field, most);
	CHECK_EQ(vmsg_msg_decode(dialect, wire, sizeof(wire), &msg),
		 kind->optional[dialect] ? 0 : VMSG_ERR_BADMSG);
}

static void sizes_of_every_kind(void *arg)
{
	(void)arg;
	for (uint32_t d = VMSG_V2; d <= VMSG_RFC2; d++) {
		enum vmsg_dialect dialect = (enum vmsg_dialect)d;
		const struct kind *devices = d == VMSG_V2 ? &devices_v2 : &devices_old;

		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			try_sizes(&kinds[i], dialect);
			if (kinds[i].tail_width)
				try_tail(&kinds[i], dialect);
		}
		try_sizes(devices, dialect);
		try_tail(devices, dialect);
	}
}

static void reserved_type_bits(void *arg)
{
	uint8_t wire[16];
	struct vmsg_msg msg;

	(void)arg;
	for (uint32_t bits = 0; bits < 256; bits += 4) {
		parse("00 07 05 00 02 01 08 00", wire);
		wire[0] = (uint8_t)bits;
		CHECK_EQ(vmsg_msg_decode(VMSG_V2, wire, 8, &msg), 0);
		CHECK_EQ(msg.type, 0);
		wire[0] |= 3;
		wire[1] = VMSG_PING;
		vmsg_put16(wire + 6, 12);
		CHECK_EQ(vmsg_msg_decode(VMSG_V2, wire, 12, &msg), 0);
		CHECK_EQ(msg.type, 3);
	}
}

static bool known(uint8_t type, uint8_t msg_id)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].type == type && kinds[i].msg_id == msg_id)
			return true;
	}
	return type == 3 && msg_id == VMSG_GET_DEVICES;
}

/* All 1024 combinations of type and id: the known ones are those of the table, no other. */
static void unknown_kinds(void *arg)
{
	uint8_t wire[64] = { 0 };
	struct vmsg_msg msg;

	(void)arg;
	for (uint32_t i = 0; i < 4 * 256; i++) {
		struct kind kind = { .type = (uint8_t)(i >> 8), .msg_id = (uint8_t)i };

		for (uint32_t d = VMSG_V2; d <= VMSG_RFC2; d++) {
			test_context("type %u id 0x%02x", kind.type, kind.msg_id);
			memset(wire, 0, sizeof(wire));
			put_header((enum vmsg_dialect)d, wire, &kind, 64);
			vmsg_put16(wire + 2, 0x1234);
			CHECK_EQ(vmsg_msg_decode((enum vmsg_dialect)d, wire, 64, &msg),
				 known(kind.type, kind.msg_id) ? 0 : VMSG_ERR_NOENT);
			CHECK_EQ(msg.type, kind.type);
			CHECK_EQ(msg.msg_id, kind.msg_id);
			CHECK_EQ(msg.dev_num, 0x1234);
		}
	}
}

static void bad_headers(void *arg)
{
	static const struct {
		const char *hex;
		uint32_t len;
	} bad[] = {
		{ "00 07 05 00 02 01 08 00", 0 }, { "00 07 05 00 02 01 08 00", 7 },
		{ "00 07 05 00 02 01 07 00", 8 }, { "00 07 05 00 02 01 00 00", 8 },
		{ "00 07 05 00 02 01 09 00", 8 }, { "00 07 05 00 02 01 ff ff", 8 },
		{ "00 3f 05 00 02 01 07 00", 8 },
	};
	uint8_t wire[8];
	struct vmsg_msg msg;

	(void)arg;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		test_context("%s, %u bytes", bad[i].hex, bad[i].len);
		parse(bad[i].hex, wire);
		CHECK_EQ(vmsg_msg_decode(VMSG_V2, wire, bad[i].len, &msg), VMSG_ERR_BADMSG);
		CHECK_EQ(vmsg_msg_decode(VMSG_V1, wire, bad[i].len, &msg), VMSG_ERR_BADMSG);
	}
	CHECK_EQ(vmsg_msg_size(VMSG_V2, wire, 7), 0);
	CHECK_EQ(vmsg_msg_size(VMSG_RFC2, wire, 5), 0);
}

/* Linux of the rfc2 days counts only the fixed part of what carries a tail (wire.md 2.6). */
static void short_msg_size_of_rfc2(void *arg)
{
	uint8_t wire[64] = { 0 };
	struct vmsg_msg msg;

	(void)arg;
	parse("00 04 05 00 0e 00 00 00 00 00 02 00 00 00 20 00 00 00 01 00 00 00", wire);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 22, &msg), 0);
	CHECK_EQ(msg.tail_bytes, 8);
	CHECK_MEM(msg.tail, "\x20\x00\x00\x00\x01\x00\x00\x00", 8);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 21, &msg), VMSG_ERR_BADMSG);
	/* Short by anything else is an error. */
	wire[4] = 0x0f;
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 22, &msg), VMSG_ERR_BADMSG);
	parse("00 06 05 00 12 00 00 00 00 00 08 00 00 00 02 00 00 00 01 00", wire);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 20, &msg), 0);
	CHECK_EQ(msg.tail_bytes, 2);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 19, &msg), VMSG_ERR_BADMSG);
	/* What may have no tail has none: the rest of the slot is not one. */
	parse("01 06 05 00 12 00 00 00 00 00 08 00 00 00 02 00 00 00 ff ff", wire);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 64, &msg), 0);
	CHECK_EQ(msg.tail_bytes, 0);
	parse("00 40 05 00 16 00 0f 00 00 00 09 00 00 00 06 00 00 00 02 00 00 00 ff ff", wire);
	CHECK_EQ(vmsg_msg_decode(VMSG_RFC2, wire, 64, &msg), 0);
	CHECK_EQ(msg.tail_bytes, 0);
	/* The other dialects know no such kindness. */
	parse("00 04 05 00 02 01 10 00 00 00 00 00 02 00 00 00 20 00 00 00 01 00 00 00", wire);
	CHECK_EQ(vmsg_msg_decode(VMSG_V1, wire, 24, &msg), VMSG_ERR_BADMSG);
}

static const struct test tests[] = {
	{ "DRV-13 DEV-21 DEV-27 sizes of every kind", sizes_of_every_kind, NULL },
	{ "GEN-01 DRV-17 DEV-24 reserved type bits are ignored", reserved_type_bits, NULL },
	{ "DRV-04 DEV-02 unknown kinds", unknown_kinds, NULL },
	{ "BUS-24 bad headers", bad_headers, NULL },
	{ "short msg_size of rfc2", short_msg_size_of_rfc2, NULL },
};

int main(int argc, char **argv)
{
	return test_main("msg_sizes", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
