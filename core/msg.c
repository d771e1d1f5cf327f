/* SPDX-License-Identifier: BSD-3-Clause */
/* The codec: one table of layouts, one reader, one writer (wire.md 2; vmsg/wire.h). */
#include <vmsg/msg.h>
#include <vmsg/port.h>

/* A field is a width and the place of its member; the last entry of a layout is its tail. */
enum {
	TAIL_END,
	TAIL_BLOCKS,
	TAIL_BYTES,
	TAIL_MAYBE,
	TAIL_BITMAP,
	WIDTH_U16,
	WIDTH_U32,
	WIDTH_U64,
	WIDTH_L32,
	WIDTH_UUID,
	WIDTH_BITS,
	WIDTH_ZERO,
};

static const uint8_t wire_bytes[] = {
	[WIDTH_U16] = 2,   [WIDTH_U32] = 4,  [WIDTH_U64] = 8,  [WIDTH_L32] = 4,
	[WIDTH_UUID] = 16, [WIDTH_BITS] = 4, [WIDTH_ZERO] = 4,
};

struct field {
	uint8_t width, at;
};

#define FIELD(width, member) { WIDTH_##width, (uint8_t)offsetof(struct vmsg_msg, member) },
#define LAYOUT(name, tail)                                                                         \
	static const struct field layout_##name[] = { VMSG_LAYOUT_##name(FIELD){ TAIL_##tail, 0 } };
VMSG_WIRE_LAYOUTS(LAYOUT)

#define LAYOUT_INDEX(name, tail) INDEX_##name,
enum { VMSG_WIRE_LAYOUTS(LAYOUT_INDEX) };

#define LAYOUT_ENTRY(name, tail) layout_##name,
static const struct field *const layouts[] = { VMSG_WIRE_LAYOUTS(LAYOUT_ENTRY) };

struct row {
	uint8_t type, msg_id;
	uint8_t layout[2][3]; /* request and response, by dialect */
};

#define ROW(name, bus, id, a, b, c, d, e, f)                                                       \
	{ bus, id, { { INDEX_##a, INDEX_##b, INDEX_##c }, { INDEX_##d, INDEX_##e, INDEX_##f } } },
static const struct row rows[] = { VMSG_WIRE_ROWS(ROW) };

static const struct field *find_layout(enum vmsg_dialect dialect, uint8_t type, uint8_t msg_id)
{
	uint32_t column = dialect == VMSG_AUTO ? VMSG_V2 : (uint32_t)dialect;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].msg_id == msg_id && rows[i].type == (type & VMSG_TYPE_BUS)) {
			uint32_t index = rows[i].layout[type & VMSG_TYPE_RESPONSE][column];

			return index == INDEX_NEVER ? NULL : layouts[index];
		}
	}
	return NULL;
}

/* What the fields say about the tail; 64 bits, since the counts are the peer's. */
static uint64_t tail_length(const struct vmsg_msg *msg, uint8_t tail)
{
	switch (tail) {
	case TAIL_BLOCKS:
		return (uint64_t)msg->features.num_blocks * 4;
	case TAIL_BYTES:
	case TAIL_MAYBE:
		return msg->config.length;
	case TAIL_BITMAP:
		return (msg->devices.count + 7) / 8;
	default:
		return 0;
	}
}

static void read_field(const struct field *field, const uint8_t *wire, void *member)
{
	uint32_t *narrow = member;

	switch (field->width) {
	case WIDTH_U16:
		*narrow = vmsg_get16(wire);
		break;
	case WIDTH_U32:
		*narrow = vmsg_get32(wire);
		break;
	case WIDTH_BITS:
		*narrow = vmsg_get32(wire) / 32 + (vmsg_get32(wire) % 32 != 0);
		break;
	case WIDTH_UUID:
		memcpy(member, wire, 16);
		break;
	case WIDTH_ZERO:
		*narrow = 0;
		break;
	default: {
		uint64_t *wide = member;

		*wide = vmsg_get32(wire);
		if (field->width == WIDTH_U64)
			*wide |= (uint64_t)vmsg_get32(wire + 4) << 32;
		break;
	}
	}
}

static void write_field(const struct field *field, uint8_t *wire, const void *member)
{
	const uint32_t *narrow = member;

	switch (field->width) {
	case WIDTH_U16:
		vmsg_put16(wire, (uint16_t)*narrow);
		break;
	case WIDTH_U32:
		vmsg_put32(wire, *narrow);
		break;
	case WIDTH_BITS:
		vmsg_put32(wire, *narrow * 32);
		break;
	case WIDTH_UUID:
		memcpy(wire, member, 16);
		break;
	case WIDTH_ZERO:
		vmsg_put32(wire, 0);
		break;
	default: {
		const uint64_t *wide = member;

		vmsg_put32(wire, (uint32_t)*wide);
		if (field->width == WIDTH_U64)
			vmsg_put32(wire + 4, (uint32_t)(*wide >> 32));
		break;
	}
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
	uint64_t tail;

	if (size < at || size > len)
		return VMSG_ERR_BADMSG;
	msg->type = wire[0] & (VMSG_TYPE_RESPONSE | VMSG_TYPE_BUS);
	msg->msg_id = wire[1];
	msg->dev_num = vmsg_get16(wire + 2);
	msg->token = dialect == VMSG_RFC2 ? 0 : vmsg_get16(wire + 4);
	field = find_layout(dialect, msg->type, msg->msg_id);
	if (!field)
		return VMSG_ERR_NOENT;

	for (; field->width > TAIL_BITMAP; field++) {
		if (wire_bytes[field->width] > size - at)
			return VMSG_ERR_BADMSG;
		read_field(field, wire + at, (uint8_t *)msg + field->at);
		at += wire_bytes[field->width];
	}
	tail = tail_length(msg, field->width);
	/* Linux of the rfc2 days counts only the fixed part of what carries a tail (wire.md 2.6). */
	if (dialect == VMSG_RFC2 && size == at)
		size = len;
	if (tail > size - at) {
		if (field->width != TAIL_MAYBE)
			return VMSG_ERR_BADMSG;
		tail = 0;
	}
	msg->tail = wire + at;
	msg->tail_bytes = (uint16_t)tail;
	return 0;
}

int vmsg_msg_encode(enum vmsg_dialect dialect, const struct vmsg_msg *msg, void *buf, uint32_t size)
{
	uint8_t *wire = buf;
	uint32_t at = vmsg_msg_header_bytes(dialect);
	const struct field *field = find_layout(dialect, msg->type, msg->msg_id);
	uint64_t tail = 0;
	uint32_t total = at;

	VMSG_ASSERT(field);
	for (const struct field *f = field; f->width > TAIL_BITMAP; f++)
		total += wire_bytes[f->width];
	while (field->width > TAIL_BITMAP)
		field++;
	if (msg->tail || field->width != TAIL_MAYBE)
		tail = tail_length(msg, field->width);
	if (total > size || tail > size - total || total + tail > UINT16_MAX)
		return VMSG_ERR_MSGSIZE;
	/* The tail first: it may lie in buf already, but the fields do not. */
	if (tail)
		memmove(wire + total, msg->tail, (size_t)tail);

	wire[0] = msg->type;
	wire[1] = msg->msg_id;
	vmsg_put16(wire + 2, msg->dev_num);
	vmsg_put16(wire + 4, msg->token);
	vmsg_put16(wire + at - 2, (uint16_t)(total + tail));
	for (field = find_layout(dialect, msg->type, msg->msg_id); field->width > TAIL_BITMAP;
	     field++) {
		write_field(field, wire + at, (const uint8_t *)msg + field->at);
		at += wire_bytes[field->width];
	}
	return (int)(total + (uint32_t)tail);
}
