/* SPDX-License-Identifier: BSD-3-Clause */
/* The codec: one table of layouts, one reader, one writer (wire.md 2; vmsg/wire.h). */
#include <vmsg/msg.h>
#include <vmsg/port.h>

/*
 * A field is a width and the place of its member; the low bits of a width are its bytes on the
 * wire.
 * The last entry of a layout is its tail, which has none.
 */
enum {
	TAIL_END,
	TAIL_BLOCKS,
	TAIL_BYTES,
	TAIL_MAYBE,
	TAIL_BITMAP,
	WIDTH_U16 = 0x20 | 2,
	WIDTH_U32 = 0x20 | 4,
	WIDTH_U64 = 0x20 | 8,
	WIDTH_UUID = 0x20 | 16,
	WIDTH_L32 = 0x40 | 4,
	WIDTH_BITS = 0x60 | 4,
	WIDTH_ZERO = 0x80 | 4,
};

struct field {
	uint8_t width, at;
};

static bool is_tail(const struct field *field)
{
	return field->width <= TAIL_BITMAP;
}

static uint32_t wire_bytes(const struct field *field)
{
	return field->width & 0x1f;
}

/* All layouts in one object, so that a row names one by a byte. */
#define ONE(width, member)   +1
#define ARRAY(name, tail)    struct field name[VMSG_LAYOUT_##name(ONE) + 1];
#define FIELD(width, member) { WIDTH_##width, (uint8_t)offsetof(struct vmsg_msg, member) },
#define LAYOUT(name, tail)   { VMSG_LAYOUT_##name(FIELD){ TAIL_##tail, 0 } },
struct layouts {
	VMSG_WIRE_LAYOUTS(ARRAY)
};
static const struct layouts layouts = { VMSG_WIRE_LAYOUTS(LAYOUT) };

#define INDEX(name) (offsetof(struct layouts, name) / sizeof(struct field))

struct row {
	uint8_t type, msg_id;
	uint8_t layout[2][3]; /* request and response, by dialect */
};

#define ROW(name, bus, id, a, b, c, d, e, f)                                                      \
	{ bus, id, { { INDEX(a), INDEX(b), INDEX(c) }, { INDEX(d), INDEX(e), INDEX(f) } } },
static const struct row rows[] = { VMSG_WIRE_ROWS(ROW) };

static const struct field *find_layout(enum vmsg_dialect dialect, uint8_t type, uint8_t msg_id)
{
	uint32_t column = dialect == VMSG_AUTO ? VMSG_V2 : (uint32_t)dialect;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].msg_id == msg_id && rows[i].type == (type & VMSG_TYPE_BUS)) {
			uint32_t index = rows[i].layout[type & VMSG_TYPE_RESPONSE][column];

			return index == INDEX(NEVER) ? NULL
						     : (const struct field *)&layouts + index;
		}
	}
	return NULL;
}

/* What the fields say about the tail; more than any message holds when the count is absurd. */
static uint32_t tail_length(const struct vmsg_msg *msg, uint8_t tail)
{
	switch (tail) {
	case TAIL_BLOCKS:
		return msg->features.num_blocks > UINT16_MAX ? UINT32_MAX
							     : msg->features.num_blocks * 4;
	case TAIL_BYTES:
	case TAIL_MAYBE:
		return msg->config.length;
	case TAIL_BITMAP:
		return (msg->devices.count + 7) / 8;
	default:
		return 0;
	}
}

static void read_field(uint8_t width, const uint8_t *wire, void *member)
{
	uint32_t low = width == WIDTH_U16 ? vmsg_get16(wire) : vmsg_get32(wire);
	uint32_t *narrow = member;
	uint64_t *wide = member;

	switch (width) {
	case WIDTH_UUID:
		memcpy(member, wire, 16);
		break;
	case WIDTH_U64:
		*wide = vmsg_get64(wire);
		break;
	case WIDTH_L32:
		*wide = low;
		break;
	case WIDTH_BITS:
		*narrow = low / 32;
		break;
	case WIDTH_ZERO:
		break;
	default:
		*narrow = low;
		break;
	}
}

static void write_field(uint8_t width, uint8_t *wire, const void *member)
{
	const uint32_t *narrow = member;
	const uint64_t *wide = member;

	switch (width) {
	case WIDTH_UUID:
		memcpy(wire, member, 16);
		break;
	case WIDTH_U64:
		vmsg_put64(wire, *wide);
		break;
	case WIDTH_L32:
		vmsg_put32(wire, (uint32_t)*wide);
		break;
	case WIDTH_BITS:
		vmsg_put32(wire, *narrow * 32);
		break;
	case WIDTH_ZERO:
		vmsg_put32(wire, 0);
		break;
	case WIDTH_U16:
		vmsg_put16(wire, (uint16_t)*narrow);
		break;
	default:
		vmsg_put32(wire, *narrow);
		break;
	}
}

uint32_t vmsg_msg_size(enum vmsg_dialect dialect, const void *buf, uint32_t len)
{
	uint32_t header = vmsg_msg_header_bytes(dialect);

	return len < header ? 0 : vmsg_get16((const uint8_t *)buf + header - 2);
}

int vmsg_msg_decode(enum vmsg_dialect dialect, const void *buf, uint32_t len, struct vmsg_msg *msg)
{
	const uint8_t *wire = buf;
	uint32_t at = vmsg_msg_header_bytes(dialect);
	uint32_t size = vmsg_msg_size(dialect, buf, len);
	const struct field *field;
	uint32_t tail;

	if (size < at || size > len)
		return VMSG_ERR_BADMSG;
	/* What a dialect does not carry reads 0. */
	memset(msg, 0, sizeof(*msg));
	msg->type = wire[0] & (VMSG_TYPE_RESPONSE | VMSG_TYPE_BUS);
	msg->msg_id = wire[1];
	msg->dev_num = vmsg_get16(wire + 2);
	msg->token = dialect == VMSG_RFC2 ? 0 : vmsg_get16(wire + 4);
	field = find_layout(dialect, msg->type, msg->msg_id);
	if (!field)
		return VMSG_ERR_NOENT;

	for (; !is_tail(field); field++) {
		if (wire_bytes(field) > size - at)
			return VMSG_ERR_BADMSG;
		read_field(field->width, wire + at, (uint8_t *)msg + field->at);
		at += wire_bytes(field);
	}
	tail = tail_length(msg, field->width);
	if (tail > size - at && field->width == TAIL_MAYBE)
		tail = 0;
	/* Linux of the rfc2 days counts only what precedes the tail (wire.md 2.6). */
	if (dialect == VMSG_RFC2 && size == at)
		size = len;
	if (tail > size - at)
		return VMSG_ERR_BADMSG;
	msg->tail = tail ? wire + at : NULL;
	msg->tail_bytes = (uint16_t)tail;
	return 0;
}

int vmsg_msg_encode(enum vmsg_dialect dialect, const struct vmsg_msg *msg, void *buf, uint32_t size)
{
	uint8_t *wire = buf;
	uint32_t header = vmsg_msg_header_bytes(dialect), at = header;
	const struct field *field = find_layout(dialect, msg->type, msg->msg_id);
	uint32_t tail = 0;

	VMSG_ASSERT(field);
	if (size > UINT16_MAX)
		size = UINT16_MAX;
	if (size < header)
		return VMSG_ERR_MSGSIZE;
	for (; !is_tail(field); field++) {
		if (wire_bytes(field) > size - at)
			return VMSG_ERR_MSGSIZE;
		write_field(field->width, wire + at, (const uint8_t *)msg + field->at);
		at += wire_bytes(field);
	}
	if (msg->tail || field->width != TAIL_MAYBE)
		tail = tail_length(msg, field->width);
	if (tail > size - at)
		return VMSG_ERR_MSGSIZE;
	if (tail)
		memmove(wire + at, msg->tail, tail);
	at += tail;

	wire[0] = msg->type;
	wire[1] = msg->msg_id;
	vmsg_put16(wire + 2, msg->dev_num);
	vmsg_put16(wire + 4, msg->token);
	vmsg_put16(wire + header - 2, (uint16_t)at);
	return (int)at;
}
