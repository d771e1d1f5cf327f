/* SPDX-License-Identifier: BSD-3-Clause */
/* Telling dialects apart by the first answers: the tables of wire.md 5.3 to 5.5, row by row. */
#include "test.h"

#include <vmsg/msg.h>
#include <vmsg/port.h>

#include <string.h>

static uint8_t wire[96];

static void answer(uint8_t type, uint8_t msg_id, uint16_t token, uint16_t size)
{
	memset(wire, 0, sizeof(wire));
	wire[0] = type;
	wire[1] = msg_id;
	vmsg_put16(wire + 4, token);
	vmsg_put16(wire + 6, size);
}

/* wire.md 5.3: the le16 words at 4 and 6 of an INFO answer. */
static void info_by_size(void *arg)
{
	static const struct {
		uint16_t at4, at6;
		enum vmsg_dialect dialect;
	} rows[] = {
		{ 30, 2, VMSG_RFC2 },	 { 30, 0x101, VMSG_RFC2 }, { 6, 52, VMSG_V2 },
		{ 6, 32, VMSG_V1 },	 { 6, 33, VMSG_V1 },	   { 6, 50, VMSG_V1 },
		{ 6, 51, VMSG_V1 },	 { 0, 52, VMSG_V2 },	   { 1, 32, VMSG_V1 },
		{ 0xffff, 50, VMSG_V1 }, { 6, 31, VMSG_AUTO },	   { 6, 8, VMSG_AUTO },
		{ 6, 0, VMSG_AUTO },	 { 6, 97, VMSG_AUTO },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		test_context("%u at 4, %u at 6", rows[i].at4, rows[i].at6);
		answer(VMSG_TYPE_RESPONSE, VMSG_GET_DEVICE_INFO, rows[i].at4, rows[i].at6);
		CHECK_EQ(vmsg_msg_learn(wire, sizeof(wire)), rows[i].dialect);
	}
}

/* wire.md 5.4: the answer fills a slot of 64 bytes. */
static void info_by_payload(void *arg)
{
	(void)arg;
	answer(VMSG_TYPE_RESPONSE, VMSG_GET_DEVICE_INFO, 6, 64);
	vmsg_put32(wire + 8, 4);
	test_context("no device anywhere");
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_AUTO);
	test_context("v1: bits, then zeros");
	vmsg_put32(wire + 16, 64);
	vmsg_put32(wire + 20, 24);
	vmsg_put32(wire + 24, 3);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_V1);
	vmsg_put32(wire + 16, 4096);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_V1);
	vmsg_put32(wire + 16, 4128);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_AUTO);
	vmsg_put32(wire + 16, 65);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_AUTO);
	test_context("v2 without a UUID");
	memset(wire + 16, 0, 16);
	vmsg_put32(wire + 32, 2);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_V2);
	vmsg_put32(wire + 32, 64);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_V2);
	vmsg_put32(wire + 32, 65);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_AUTO);
	test_context("v2 with a UUID that begins like 64 bits");
	vmsg_put32(wire + 32, 2);
	memcpy(wire + 16, "\x40\x00\x00\x00\x4a\x5b\x4c\x6d\x8e\x7f\x00\x11\x22\x33\x44\xff", 16);
	CHECK_EQ(vmsg_msg_learn(wire, 64), VMSG_V2);
	test_context("the frame ends before the payload of v2 does");
	CHECK_EQ(vmsg_msg_learn(wire, 52), VMSG_AUTO);
}

/* wire.md 5.5: S is the size of the bitmap, c1 and c2 the words at 10 and 12. */
static void devices_by_window(void *arg)
{
	static const struct {
		uint16_t map, c1, c2;
		enum vmsg_dialect dialect;
	} rows[] = {
		{ 2, 16, 0, VMSG_V1 },	  { 2, 16, 48, VMSG_V1 },   { 2, 0, 16, VMSG_V2 },
		{ 1, 0, 6, VMSG_V2 },	  { 2, 48, 9, VMSG_V2 },    { 4, 32, 32, VMSG_AUTO },
		{ 2, 16, 9, VMSG_AUTO },  { 2, 9, 16, VMSG_V2 },    { 2, 9, 10, VMSG_V2 },
		{ 2, 48, 48, VMSG_AUTO }, { 0, 0, 0, VMSG_AUTO },   { 0, 0, 32, VMSG_V1 },
		{ 0, 32, 0, VMSG_V2 },	  { 0, 32, 32, VMSG_AUTO }, { 0, 32, 64, VMSG_AUTO },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint16_t size = (uint16_t)(14 + rows[i].map);

		test_context("map of %u, words %u and %u", rows[i].map, rows[i].c1, rows[i].c2);
		answer(VMSG_TYPE_BUS | VMSG_TYPE_RESPONSE, VMSG_GET_DEVICES, 1, size);
		vmsg_put16(wire + 10, rows[i].c1);
		vmsg_put16(wire + 12, rows[i].c2);
		CHECK_EQ(vmsg_msg_learn(wire, size), rows[i].dialect);
		CHECK_EQ(vmsg_msg_learn(wire, sizeof(wire)), rows[i].dialect);
		CHECK_EQ(vmsg_msg_learn(wire, size - 1u), VMSG_AUTO);
	}
}

/* Everything else says nothing, above all what we sent ourselves. */
static void other_messages(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; i < 4 * 256; i++) {
		uint8_t type = (uint8_t)(i >> 8), msg_id = (uint8_t)i;

		if (msg_id == VMSG_GET_DEVICES && (type & VMSG_TYPE_RESPONSE))
			continue;
		test_context("type %u id %u", type, msg_id);
		answer(type, msg_id, 30, 52);
		CHECK_EQ(vmsg_msg_learn(wire, sizeof(wire)), VMSG_AUTO);
	}
	answer(VMSG_TYPE_RESPONSE, VMSG_GET_DEVICE_INFO, 6, 52);
	for (uint32_t len = 0; len < 8; len++)
		CHECK_EQ(vmsg_msg_learn(wire, len), VMSG_AUTO);
}

static const struct test tests[] = {
	{ "5.3 INFO by its size", info_by_size, NULL },
	{ "5.4 INFO by its payload", info_by_payload, NULL },
	{ "5.5 GET_DEVICES by its window", devices_by_window, NULL },
	{ "other messages tell nothing", other_messages, NULL },
};

int main(int argc, char **argv)
{
	return test_main("msg_learn", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
