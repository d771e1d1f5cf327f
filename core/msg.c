/* SPDX-License-Identifier: BSD-3-Clause */
/* The codec: one table of layouts, one reader, one writer (wire.md 2; vmsg/wire.h). */
#include <vmsg/msg.h>
#include <vmsg/port.h>

/*
 * A field is a byte: how it travels in the upper half, and in the lower where its member is, in
 * 32-bit words from the start of the union. Bits 5:4 say how long it is on the wire. A layout
 * ends with its tail: 3 in bits 7:6, the size of a unit in 5:3 (2^n bits, counting n from 1; 0:
 * nothing), in 2 whether it may be missing, in 1:0 which word says how many units there are.
 */
enum {
	KIND_U16 = 0x00,
	KIND_U32 = 0x10,
	KIND_U64 = 0x20,
	KIND_UUID = 0x30,
	KIND_ZERO = 0x50,
	KIND_BITS = 0x90,
	KIND_L32 = KIND_U32 + VMSG_BIG_ENDIAN, /* the lower word */
	TAIL_END = 0xc0,
	TAIL_BITMAP = 0xc0 | 1 << 3 | 1,
	TAIL_BYTES = 0xc0 | 4 << 3 | 3,
	TAIL_MAYBE = TAIL_BYTES | 4,
	TAIL_BLOCKS = 0xc0 | 6 << 3 | 1,
};

#define UNION_START offsetof(struct vmsg_msg, info)
_Static_assert(offsetof(struct vmsg_msg, features.num_blocks) == UNION_START + 4, "TAIL_BLOCKS");
_Static_assert(offsetof(struct vmsg_msg, devices.count) == UNION_START + 4, "TAIL_BITMAP");
_Static_assert(offsetof(struct vmsg_msg, config.length) == UNION_START + 12, "TAIL_BYTES");

/* All layouts in one object, so that a row names one by a byte. */
#define ONE(kind, member)   +1
#define ARRAY(name, tail)   uint8_t name[VMSG_LAYOUT_##name(ONE) + 1];
#define FIELD(kind, member) KIND_##kind + (offsetof(struct vmsg_msg, member) - UNION_START) / 4,
#define LAYOUT(name, tail)  { VMSG_LAYOUT_##name(FIELD) TAIL_##tail },
struct layouts {
	VMSG_WIRE_LAYOUTS(ARRAY)
};
static const struct layouts layouts = { VMSG_WIRE_LAYOUTS(LAYOUT) };

#define INDEX(name) offsetof(struct layouts, name)

/* No message of the specification has bit 7 of its id set: for us it tells those of the bus. */
#define KEY(bus, id) ((bus) << 6 | (id))

struct row {
	uint8_t key;
	uint8_t layout[2][3]; /* request and response, by dialect */
};

#define ROW(name, bus, id, a, b, c, d, e, f)                                                       \
	{ KEY(bus, id), { { INDEX(a), INDEX(b), INDEX(c) }, { INDEX(d), INDEX(e), INDEX(f) } } },
static const struct row rows[] = { VMSG_WIRE_ROWS(ROW) };

/* The first field of a message, or NULL for a kind we do not know. */
static const uint8_t *find_layout(enum vmsg_dialect dialect, uint32_t type, uint32_t msg_id)
{
	uint32_t column = dialect == VMSG_AUTO ? VMSG_V2 : (uint32_t)dialect;
	uint32_t key = KEY(type & VMSG_TYPE_BUS, msg_id);

	if (msg_id & VMSG_ID_PRIVATE)
		return NULL;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].key == key) {
			uint32_t index = rows[i].layout[type & VMSG_TYPE_RESPONSE][column];

			if (index != INDEX(NEVER))
				return (const uint8_t *)&layouts + index;
			break;
		}
	}
	return NULL;
}

/* What the fields say about the tail, or more than any message holds. */
static uint32_t tail_length(const uint32_t *words, uint32_t tail)
{
	uint32_t count = words[tail & 3];
	uint32_t unit_bits = 1u << (tail >> 3 & 7) >> 1;

	if (count > 1u << 20)
		count = 1u << 20;
	return (count * unit_bits + 7) / 8;
}

/* Moves one field from its member to the wire, or back. */
static void move_field(uint32_t kind, uint32_t *member, uint8_t *wire, uint32_t bytes, bool write)
{
	uint8_t *low = vmsg_low_end(member, bytes);
	uint8_t *to = write ? wire : low;
	const uint8_t *from = write ? low : wire;

	if (kind == KIND_ZERO)
		memset(to, 0, bytes);
	else
		vmsg_copy_le(to, from, bytes);
	if (kind == KIND_BITS && write)
		vmsg_put32(wire, *member * 32);
	else if (kind == KIND_BITS)
		*member /= 32;
}

/*
 * Goes through the fields and the tail of a message and returns where they end, or NULL when that
 * is behind `end`. Reads if there is a `limit`: a tail of which nothing comes before `end` may go
 * up to there. Else writes.
 */
static uint8_t *walk(const uint8_t *field, struct vmsg_msg *msg, uint8_t *wire, const uint8_t *end,
		     const uint8_t *limit)
{
	uint32_t *words = &msg->info.device_id;
	uint32_t tail;

	for (; *field < TAIL_END; field++) {
		uint32_t bytes = 2u << (*field >> 4 & 3);

		if (bytes > (uint32_t)(end - wire))
			return NULL;
		move_field(*field & 0xf0, words + (*field & 0xf), wire, bytes, !limit);
		wire += bytes;
	}
	tail = tail_length(words, *field);
	if (*field == TAIL_MAYBE && (limit ? tail > (uint32_t)(end - wire) : !msg->tail))
		tail = 0;
	if (limit && end == wire)
		end = limit;
	if (tail > (uint32_t)(end - wire))
		return NULL;
	if (limit) {
		msg->tail = tail ? wire : NULL;
		msg->tail_bytes = (uint16_t)tail;
	} else if (tail) {
		memmove(wire, msg->tail, tail);
	}
	return wire + tail;
}

static uint32_t read_size(const uint8_t *wire, uint32_t header, uint32_t len)
{
	return len < header ? 0 : vmsg_get16(wire + header - 2);
}

uint32_t vmsg_msg_size(enum vmsg_dialect dialect, const void *buf, uint32_t len)
{
	return read_size(buf, vmsg_msg_header_bytes(dialect), len);
}

int vmsg_msg_decode(enum vmsg_dialect dialect, const void *buf, uint32_t len, struct vmsg_msg *msg)
{
	uint8_t *wire = (uint8_t *)(uintptr_t)buf; /* only read, as walk is told */
	uint32_t header = vmsg_msg_header_bytes(dialect);
	uint32_t size = read_size(wire, header, len);
	const uint8_t *field;

	if (size < header || size > len)
		return VMSG_ERR_BADMSG;
	/* What a dialect does not carry reads 0. */
	memset(msg, 0, sizeof(*msg));
	msg->type = wire[0] & (VMSG_TYPE_RESPONSE | VMSG_TYPE_BUS);
	msg->msg_id = wire[1];
	msg->dev_num = vmsg_get16(wire + 2);
	if (dialect != VMSG_RFC2) {
		msg->token = vmsg_get16(wire + 4);
		len = size;
	}
	field = find_layout(dialect, msg->type, msg->msg_id);
	if (!field)
		return VMSG_ERR_NOENT;
	/* Linux of the rfc2 days counts only what precedes the tail (wire.md 2.6). */
	return walk(field, msg, wire + header, wire + size, wire + len) ? 0 : VMSG_ERR_BADMSG;
}

int vmsg_msg_encode(enum vmsg_dialect dialect, const struct vmsg_msg *msg, void *buf, uint32_t size)
{
	uint8_t *wire = buf;
	uint32_t header = vmsg_msg_header_bytes(dialect);
	const uint8_t *field = find_layout(dialect, msg->type, msg->msg_id);
	uint8_t *end;

	VMSG_ASSERT(field);
	if (size > UINT16_MAX)
		size = UINT16_MAX;
	if (size < header)
		return VMSG_ERR_MSGSIZE;
	end = walk(field, (struct vmsg_msg *)(uintptr_t)msg, wire + header, wire + size, NULL);
	if (!end)
		return VMSG_ERR_MSGSIZE;
	wire[0] = msg->type;
	wire[1] = msg->msg_id;
	vmsg_put16(wire + 2, msg->dev_num);
	vmsg_put16(wire + 4, msg->token);
	vmsg_put16(wire + header - 2, (uint16_t)(end - wire));
	return (int)(end - wire);
}
