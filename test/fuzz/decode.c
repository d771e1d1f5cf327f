/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The codec on any bytes: what decodes must encode to the same bytes, but for what is reserved; the
 * text of anything ends; learning a dialect reads nothing it should not.
 */
#include "common_input.h"

#include <vmsg/msg.h>
#include <vmsg/port.h>

#define LIMIT 320

/* Payload bytes that a decoder does not keep: reserved words, and v1's count of feature bits. */
static const struct {
	uint8_t dialect, type, msg_id, offset, len;
} lost[] = {
	{ VMSG_V2, 1, VMSG_GET_SHM, 4, 4 },	      { VMSG_V1, 1, VMSG_GET_VQUEUE, 12, 4 },
	{ VMSG_V1, 0, VMSG_SET_VQUEUE, 4, 4 },	      { VMSG_V1, 0, VMSG_SET_VQUEUE, 12, 4 },
	{ VMSG_RFC2, 0, VMSG_SET_VQUEUE, 4, 4 },      { VMSG_V1, 1, VMSG_GET_DEVICE_INFO, 8, 4 },
	{ VMSG_RFC2, 1, VMSG_GET_DEVICE_INFO, 8, 4 },
};

/* The bytes of wire as they come back: reserved ones 0, the size that of the message alone. */
static void expected(enum vmsg_dialect dialect, const struct vmsg_msg *msg, uint8_t *wire,
		     uint32_t len)
{
	uint32_t header = vmsg_msg_header_bytes(dialect);

	wire[0] &= 3;
	vmsg_put16(wire + header - 2, (uint16_t)len);
	for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
		uint8_t *at = wire + header + lost[i].offset;

		if (lost[i].dialect != dialect || lost[i].type != msg->type ||
		    lost[i].msg_id != msg->msg_id)
			continue;
		if (msg->msg_id == VMSG_GET_DEVICE_INFO)
			vmsg_put32(at, vmsg_get32(at) & ~31u);
		else
			memset(at, 0, lost[i].len);
	}
}

static void round_trip(enum vmsg_dialect dialect, const struct vmsg_msg *msg, const uint8_t *bytes)
{
	uint8_t wire[LIMIT], again[LIMIT];
	int len = vmsg_msg_encode(dialect, msg, again, sizeof(again));

	require(len > 0 && len <= LIMIT);
	/* Exactly that room is enough, one byte less is not. */
	require(vmsg_msg_encode(dialect, msg, wire, (uint32_t)len) == len);
	require(vmsg_msg_encode(dialect, msg, wire, (uint32_t)len - 1) == VMSG_ERR_MSGSIZE);
	memcpy(wire, bytes, (size_t)len);
	expected(dialect == VMSG_AUTO ? VMSG_V2 : dialect, msg, wire, (uint32_t)len);
	require(memcmp(wire, again, (size_t)len) == 0);
}

static void describe(enum vmsg_dialect dialect, const uint8_t *bytes, uint32_t len, uint32_t room)
{
	char *text = malloc(room + 1);
	uint32_t written;

	require(text != NULL);
	text[room] = '!';
	written = vmsg_msg_text(dialect, bytes, len, text, room);
	require(text[room] == '!');
	if (room)
		require(written < room && text[written] == 0 && strlen(text) == written);
	else
		require(written == 0);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	enum vmsg_dialect dialect = (enum vmsg_dialect)(take8(&input) % 4);
	uint32_t room = take8(&input) * 4u, len = (uint32_t)input.left;
	struct vmsg_msg msg;
	uint8_t *bytes;
	int rc;

	if (len > LIMIT)
		return 0;
	/* The exact size, so that a sanitizer sees every byte too many. */
	bytes = malloc(len ? len : 1);
	require(bytes != NULL);
	take_bytes(&input, bytes, len);
	rc = vmsg_msg_decode(dialect, bytes, len, &msg);
	if (rc == 0)
		round_trip(dialect, &msg, bytes);
	else
		require(rc == VMSG_ERR_BADMSG || rc == VMSG_ERR_NOENT);
	require(vmsg_msg_learn(bytes, len) <= VMSG_AUTO);
	describe(dialect, bytes, len, room);
	free(bytes);
	return 0;
}
