/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for people: every field by its name, nothing too broken to be shown. */
#include "test.h"

#include <vmsg/msg.h>
#include <vmsg/port.h>

#include <stdio.h>
#include <string.h>

static uint8_t wire[256];
static char text[1024];

/* The names of a layout's fields, from the wire table itself. */
#define NAME(width, member) NAME_##width(#member)
#define NAME_U16(member)    member,
#define NAME_U32(member)    member,
#define NAME_U64(member)    member,
#define NAME_L32(member)    member,
#define NAME_UUID(member)   member,
#define NAME_BITS(member)   member,
#define NAME_ZERO(member)
#define LAYOUT(name, tail) \
	static const char *const names_##name[] = { VMSG_LAYOUT_##name(NAME) NULL };
VMSG_WIRE_LAYOUTS(LAYOUT)

struct row {
	const char *name;
	uint8_t type, msg_id;
	const char *const *names[2][3];
};
#define ROW(name, bus, id, a, b, c, d, e, f) \
	{ #name,                             \
	  bus,                               \
	  id,                                \
	  { { names_##a, names_##b, names_##c }, { names_##d, names_##e, names_##f } } },
static const struct row rows[] = { VMSG_WIRE_ROWS(ROW) };

static uint32_t say(enum vmsg_dialect dialect, const struct vmsg_msg *msg)
{
	int len = vmsg_msg_encode(dialect, msg, wire, sizeof(wire));

	CHECK(len > 0);
	return vmsg_msg_text(dialect, wire, (uint32_t)len, text, sizeof(text));
}

static void say_row(const struct row *row, uint8_t response, enum vmsg_dialect dialect)
{
	uint32_t size = vmsg_msg_header_bytes(dialect) == 6 ? 44 : 52, len;

	test_context("%s %u in %s", row->name, response, vmsg_dialect_name(dialect));
	memset(wire, 0, sizeof(wire));
	wire[0] = row->type | response;
	wire[1] = row->msg_id;
	vmsg_put16(wire + vmsg_msg_header_bytes(dialect) - 2, (uint16_t)size);
	len = vmsg_msg_text(dialect, wire, size, text, sizeof(text));
	CHECK_EQ(len, strlen(text));
	CHECK(strstr(text, row->name) == text);
	CHECK(strstr(text, "malformed") == NULL && strstr(text, "unknown") == NULL);
	for (const char *const *name = row->names[response][dialect]; *name; name++) {
		char field[64];

		snprintf(field, sizeof(field), " %s=", strchr(*name, '.') + 1);
		test_context("%s in \"%s\"", field, text);
		CHECK(strstr(text, field) != NULL);
	}
	CHECK_EQ(strstr(text, " response") != NULL, response);
	CHECK_EQ(strstr(text, "token=") != NULL, dialect != VMSG_RFC2);
	CHECK_EQ(strstr(text, "dev=") != NULL, row->type == 0);
}

static void every_field_has_its_name(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_STR(vmsg_msg_name(rows[i].type, rows[i].msg_id), rows[i].name);
		for (uint32_t d = VMSG_V2; d <= VMSG_RFC2; d++) {
			say_row(&rows[i], 0, (enum vmsg_dialect)d);
			if (!(rows[i].msg_id & VMSG_ID_EVENT))
				say_row(&rows[i], 1, (enum vmsg_dialect)d);
		}
	}
	CHECK(vmsg_msg_name(0, 0x3f) == NULL);
	CHECK(vmsg_msg_name(VMSG_TYPE_BUS, VMSG_GET_CONFIG) == NULL);
}

static void values(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_VQUEUE, .dev_num = 5, .token = 258 };

	(void)arg;
	msg.vqueue.index = 1;
	msg.vqueue.size = 128;
	msg.vqueue.flags = 1;
	msg.vqueue.desc_addr = UINT64_C(0xfedcba9876543210);
	say(VMSG_V2, &msg);
	CHECK_STR(text, "SET_VQUEUE dev=5 token=258 index=1 flags=0x1 size=128 reserved=0"
			" desc_addr=0xfedcba9876543210 driver_addr=0x0 device_addr=0x0");
	memset(&msg, 0, sizeof(msg));
	msg.type = VMSG_TYPE_RESPONSE;
	msg.msg_id = VMSG_GET_CONFIG;
	msg.config.generation = UINT32_MAX;
	msg.config.length = 3;
	msg.tail = "\x01\xab\xff";
	say(VMSG_RFC2, &msg);
	CHECK_STR(text, "GET_CONFIG response dev=0 generation=4294967295 offset=0 length=3"
			" tail=01abff");
}

static void what_cannot_be_decoded_is_said_so(void *arg)
{
	(void)arg;
	memcpy(wire, "\x00\x3f\x05\x00\x02\x01\x0a\x00\x11\x22", 10);
	vmsg_msg_text(VMSG_V2, wire, 10, text, sizeof(text));
	CHECK_STR(text, "id 0x3f dev=5 token=258 unknown kind, 10 bytes");
	wire[0] = VMSG_TYPE_BUS;
	vmsg_msg_text(VMSG_V2, wire, 10, text, sizeof(text));
	CHECK_STR(text, "bus id 0x3f token=258 unknown kind, 10 bytes");
	vmsg_msg_text(VMSG_V2, wire, 9, text, sizeof(text));
	CHECK_STR(text, "malformed 9 bytes: 023f050002010a0011");
	vmsg_msg_text(VMSG_V2, wire, 0, text, sizeof(text));
	CHECK_STR(text, "malformed 0 bytes: ");
}

/* Whatever room there is, the text is cut to it and ends with a zero. */
static void room(void *arg)
{
	char whole[256];
	uint32_t len;

	(void)arg;
	memcpy(wire, "\x00\x02\x05\x00\x02\x01\x08\x00", 8);
	len = vmsg_msg_text(VMSG_V2, wire, 8, whole, sizeof(whole));
	CHECK_EQ(len, strlen(whole));
	for (uint32_t size = 0; size <= len + 2; size++) {
		uint32_t fits = size == 0 ? 0 : size - 1 < len ? size - 1 : len;

		memset(text, 'x', sizeof(text));
		CHECK_EQ(vmsg_msg_text(VMSG_V2, wire, 8, text, size), fits);
		CHECK_MEM(text, whole, fits);
		CHECK_EQ(text[fits], size ? 0 : 'x');
		CHECK_EQ(text[fits + 1], 'x');
	}
}

static void dialects_by_name(void *arg)
{
	enum vmsg_dialect dialect;

	(void)arg;
	for (uint32_t d = VMSG_V2; d <= VMSG_AUTO; d++) {
		dialect = d == VMSG_V2 ? VMSG_V1 : VMSG_V2;
		CHECK(vmsg_dialect_parse(vmsg_dialect_name((enum vmsg_dialect)d), &dialect));
		CHECK_EQ(dialect, d);
	}
	CHECK(!vmsg_dialect_parse("v", &dialect));
	CHECK(!vmsg_dialect_parse("v22", &dialect));
	CHECK(!vmsg_dialect_parse("", &dialect));
}

static void errors_have_words(void *arg)
{
	static const int errors[] = {
		0,
		VMSG_ERR_NOENT,
		VMSG_ERR_IO,
		VMSG_ERR_AGAIN,
		VMSG_ERR_NOMEM,
		VMSG_ERR_BUSY,
		VMSG_ERR_NODEV,
		VMSG_ERR_INVAL,
		VMSG_ERR_PROTO,
		VMSG_ERR_BADMSG,
		VMSG_ERR_MSGSIZE,
		VMSG_ERR_NOTSUP,
		VMSG_ERR_SHUTDOWN,
		VMSG_ERR_TIMEDOUT,
	};

	(void)arg;
	CHECK_STR(vmsg_error_text(-12345), "unknown error");
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		CHECK(strcmp(vmsg_error_text(errors[i]), "unknown error") != 0);
		for (size_t j = 0; j < i; j++)
			CHECK(strcmp(vmsg_error_text(errors[i]), vmsg_error_text(errors[j])) != 0);
	}
}

static const struct test tests[] = {
	{ "every field has its name", every_field_has_its_name, NULL },
	{ "values", values, NULL },
	{ "what cannot be decoded is said so", what_cannot_be_decoded_is_said_so, NULL },
	{ "room", room, NULL },
	{ "dialects by name", dialects_by_name, NULL },
	{ "errors have words", errors_have_words, NULL },
};

int main(int argc, char **argv)
{
	return test_main("msg_text", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
