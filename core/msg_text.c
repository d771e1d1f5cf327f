/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for people: names and one-line texts, from the same table as the codec. */
#include <vmsg/msg.h>
#include <vmsg/port.h>

struct field_text {
	const char *name; /* as #member gives it: "info.device_id" */
	uint8_t at;
	uint8_t bytes; /* of the member, 0 for what is not shown */
};

#define BYTES_U16(member)  sizeof(uint32_t)
#define BYTES_U32(member)  sizeof(uint32_t)
#define BYTES_BITS(member) sizeof(uint32_t)
#define BYTES_U64(member)  sizeof(uint64_t)
#define BYTES_L32(member)  sizeof(uint64_t)
#define BYTES_UUID(member) 16
#define BYTES_ZERO(member) 0

#define FIELD(width, member)                                                                       \
	{ #member, (uint8_t)offsetof(struct vmsg_msg, member), BYTES_##width(member) },
#define LAYOUT(name, tail)                                                                         \
	static const struct field_text text_##name[] = { VMSG_LAYOUT_##name(FIELD){ NULL, 0, 0 } };
VMSG_WIRE_LAYOUTS(LAYOUT)

struct row_text {
	const char *name;
	uint8_t type, msg_id;
	const struct field_text *fields[2][3];
};

#define ROW(name, bus, id, a, b, c, d, e, f)                                                       \
	{ #name, bus, id, { { text_##a, text_##b, text_##c }, { text_##d, text_##e, text_##f } } },
static const struct row_text rows[] = { VMSG_WIRE_ROWS(ROW) };

static const struct row_text *find_row(uint8_t type, uint8_t msg_id)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].msg_id == msg_id && rows[i].type == (type & VMSG_TYPE_BUS))
			return &rows[i];
	}
	return NULL;
}

const char *vmsg_msg_name(uint8_t type, uint8_t msg_id)
{
	const struct row_text *row = find_row(type, msg_id);

	return row ? row->name : NULL;
}

static const char *const dialect_names[] = { "v2", "v1", "rfc2", "auto" };

const char *vmsg_dialect_name(enum vmsg_dialect dialect)
{
	return dialect_names[dialect];
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

bool vmsg_dialect_parse(const char *name, enum vmsg_dialect *dialect)
{
	for (uint32_t i = 0; i <= VMSG_AUTO; i++) {
		if (same(name, dialect_names[i])) {
			*dialect = (enum vmsg_dialect)i;
			return true;
		}
	}
	return false;
}

const char *vmsg_error_text(int error)
{
	switch (error) {
	case 0:
		return "no error";
	case VMSG_ERR_NOENT:
		return "there is no such thing";
	case VMSG_ERR_IO:
		return "the device refused or failed";
	case VMSG_ERR_AGAIN:
		return "no room at the moment";
	case VMSG_ERR_NOMEM:
		return "too little memory was given";
	case VMSG_ERR_BUSY:
		return "in use, or still changing";
	case VMSG_ERR_NODEV:
		return "no such device";
	case VMSG_ERR_INVAL:
		return "an argument is out of range";
	case VMSG_ERR_PROTO:
		return "the peer broke the protocol";
	case VMSG_ERR_BADMSG:
		return "malformed message";
	case VMSG_ERR_MSGSIZE:
		return "too large for this bus";
	case VMSG_ERR_NOTSUP:
		return "not offered by the peer";
	case VMSG_ERR_SHUTDOWN:
		return "the peer is gone";
	case VMSG_ERR_TIMEDOUT:
		return "no answer in time";
	default:
		return "unknown error";
	}
}

struct out {
	char *at;
	uint32_t left, written;
};

static void put_char(struct out *out, char c)
{
	if (out->left > 1) {
		*out->at++ = c;
		*out->at = 0;
		out->left--;
		out->written++;
	}
}

static void put_text(struct out *out, const char *text)
{
	while (*text)
		put_char(out, *text++);
}

static void put_hex(struct out *out, uint64_t value, uint32_t digits)
{
	while (digits < 16 && value >> (4 * digits))
		digits++;
	while (digits--)
		put_char(out, "0123456789abcdef"[value >> (4 * digits) & 15]);
}

static void put_decimal(struct out *out, uint32_t value)
{
	char digits[10];
	uint32_t count = 0;

	do {
		digits[count++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (count)
		put_char(out, digits[--count]);
}

static void put_bytes(struct out *out, const uint8_t *bytes, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		put_hex(out, bytes[i], 2);
}

/* Numbers that are counts or offsets are decimal; addresses, flags and ids are hexadecimal. */
static bool reads_as_hex(const char *name)
{
	static const char *const hex[] = { "vendor_id", "flags",  "status",
					   "device_status", "data", "next_offset" };

	for (size_t i = 0; i < sizeof(hex) / sizeof(hex[0]); i++) {
		if (same(name, hex[i]))
			return true;
	}
	return false;
}

static void put_field(struct out *out, const struct field_text *field, const struct vmsg_msg *msg)
{
	const uint8_t *member = (const uint8_t *)msg + field->at;
	const char *name = field->name;
	uint32_t narrow;
	uint64_t wide;

	while (*name++ != '.')
		;
	put_char(out, ' ');
	put_text(out, name);
	put_char(out, '=');
	if (field->bytes == 16) {
		put_bytes(out, member, 16);
	} else if (field->bytes == sizeof(wide)) {
		memcpy(&wide, member, sizeof(wide));
		put_text(out, "0x");
		put_hex(out, wide, 1);
	} else {
		memcpy(&narrow, member, sizeof(narrow));
		if (reads_as_hex(name)) {
			put_text(out, "0x");
			put_hex(out, narrow, 1);
		} else {
			put_decimal(out, narrow);
		}
	}
}

static void put_kind(struct out *out, uint8_t type, uint8_t msg_id, uint32_t dev_num)
{
	const char *name = vmsg_msg_name(type, msg_id);

	if (name) {
		put_text(out, name);
	} else {
		put_text(out, type & VMSG_TYPE_BUS ? "bus id 0x" : "id 0x");
		put_hex(out, msg_id, 2);
	}
	if (type & VMSG_TYPE_RESPONSE)
		put_text(out, " response");
	if (!(type & VMSG_TYPE_BUS)) {
		put_text(out, " dev=");
		put_decimal(out, dev_num);
	}
}

static void put_fields(struct out *out, const struct field_text *fields, const struct vmsg_msg *msg)
{
	for (; fields->name; fields++) {
		if (fields->bytes)
			put_field(out, fields, msg);
	}
	if (msg->tail_bytes) {
		put_text(out, " tail=");
		put_bytes(out, msg->tail, msg->tail_bytes);
	}
}

uint32_t vmsg_msg_text(enum vmsg_dialect dialect, const void *buf, uint32_t len, char *text,
		       uint32_t size)
{
	struct out out = { text, size, 0 };
	const uint8_t *wire = buf;
	struct vmsg_msg msg;
	int rc = vmsg_msg_decode(dialect, buf, len, &msg);

	if (size)
		*text = 0;
	if (rc == 0 || rc == VMSG_ERR_NOENT) {
		put_kind(&out, msg.type, msg.msg_id, msg.dev_num);
		if (dialect != VMSG_RFC2) {
			put_text(&out, " token=");
			put_decimal(&out, msg.token);
		}
	}
	if (rc == 0) {
		const struct row_text *row = find_row(msg.type, msg.msg_id);
		uint32_t column = dialect == VMSG_AUTO ? VMSG_V2 : (uint32_t)dialect;

		put_fields(&out, row->fields[msg.type & VMSG_TYPE_RESPONSE][column], &msg);
	} else if (rc == VMSG_ERR_NOENT) {
		put_text(&out, " unknown kind, ");
		put_decimal(&out, vmsg_msg_size(dialect, buf, len));
		put_text(&out, " bytes");
	} else {
		put_text(&out, "malformed ");
		put_decimal(&out, len);
		put_text(&out, " bytes: ");
		put_bytes(&out, wire, len < 52 ? len : 52);
	}
	return out.written;
}
