/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A message: what travels. An 8-byte header (6 in rfc2), a few fields, maybe a tail.
 * Source: wire.md 2; the layouts are in vmsg/wire.h.
 */
#ifndef VMSG_MSG_H
#define VMSG_MSG_H

#include <vmsg/vmsg.h>
#include <vmsg/wire.h>

/* The dialects (wire.md 1). AUTO is for drivers only: learned from the first answer. */
enum vmsg_dialect {
	VMSG_V2,
	VMSG_V1,
	VMSG_RFC2,
	VMSG_AUTO,
};

/* Header byte 0. Bits 2..7 are sent 0 and ignored on receipt (GEN-01). */
#define VMSG_TYPE_RESPONSE 0x01u
#define VMSG_TYPE_BUS      0x02u

/* Bit 6 of msg_id: events. Bit 7: private to a bus. */
#define VMSG_ID_EVENT   0x40u
#define VMSG_ID_PRIVATE 0x80u

#define VMSG_ID(name, bus, id, a, b, c, d, e, f) VMSG_##name = (id),
enum vmsg_msg_id { VMSG_WIRE_ROWS(VMSG_ID) };
#undef VMSG_ID

/* SET_VQUEUE flags: bits 1:0 operation, then what to keep. GET_VQUEUE: bit 0 is "enabled". */
#define VMSG_VQUEUE_OP_MASK     0x03u
#define VMSG_VQUEUE_OP_KEEP     0u /* leave disabled */
#define VMSG_VQUEUE_OP_ENABLE   1u
#define VMSG_VQUEUE_OP_DISABLE  2u /* stay disabled; never turns a queue off (DEV-69) */
#define VMSG_VQUEUE_KEEP_SIZE   0x04u
#define VMSG_VQUEUE_KEEP_DESC   0x08u
#define VMSG_VQUEUE_KEEP_DRIVER 0x10u
#define VMSG_VQUEUE_KEEP_DEVICE 0x20u
#define VMSG_VQUEUE_KEEP_ALL    0x3cu
#define VMSG_VQUEUE_FLAGS       0x3fu
#define VMSG_VQUEUE_ENABLED     0x01u

/* EVENT_DEVICE states. */
#define VMSG_DEVICE_ADDED   1u
#define VMSG_DEVICE_REMOVED 2u

#define VMSG_MSG_MIN_V2 52u /* smallest maximum a v2 bus may have (BUS-14) */
#define VMSG_MSG_MIN_V1 48u /* what v1's own SET_VQUEUE needs */
#define VMSG_MSG_MIN_RFC2 44u
#define VMSG_MSG_DEFAULT 264u /* the recommended ceiling (BUS-15) */

/*
 * A message in host order. Which member of the union is meant follows from (type, msg_id); see the
 * rows in wire.h. Members count what their names say; `length` is in bytes.
 */
struct vmsg_msg {
	uint8_t type;   /* VMSG_TYPE_* */
	uint8_t msg_id; /* VMSG_* */
	uint16_t dev_num;
	uint16_t token; /* 0 in rfc2, which has none */
	uint16_t tail_bytes;
	const void *tail; /* bytes after the fields: a view into the received buffer */
	union {
		struct {
			uint32_t device_id, vendor_id;
			uint8_t device_uuid[16];
			uint32_t num_feature_blocks; /* 32-bit blocks, in every dialect */
			uint32_t config_size, max_virtqueues, admin_vq_start, admin_vq_count;
		} info;
		struct {
			uint32_t block_index, num_blocks;
		} features;
		struct {
			uint32_t device_status, generation, offset, length;
		} config; /* GET_CONFIG, SET_CONFIG, EVENT_CONFIG */
		struct {
			uint32_t status;
		} status;
		struct {
			uint32_t index, flags, size, max_size, reserved;
			union {
				struct {
					uint64_t desc_addr, driver_addr, device_addr;
				};
				uint64_t addrs[3];
			};
		} vqueue; /* size is cur_size in the answer of GET_VQUEUE */
		struct {
			uint32_t shmid, reserved;
			uint64_t length, address;
		} shm;
		struct {
			uint32_t vq_index, next_offset;
		} event; /* EVENT_AVAIL, EVENT_USED */
		struct {
			uint32_t offset, count, next_offset;
		} devices;
		struct {
			uint32_t data;
		} ping;
		struct {
			uint32_t device_number, device_bus_state;
		} event_device;
	};
};

/* Header size of a dialect in bytes. AUTO counts as v2 here and below. */
static inline uint32_t vmsg_msg_header_bytes(enum vmsg_dialect dialect)
{
	return dialect == VMSG_RFC2 ? 6 : 8;
}

/*
 * Reads one message from buf, of which len bytes may be looked at (a whole slot, if the carrier has
 * slots; bytes past msg_size are ignored). Fields that the message does not have become 0.
 * msg->tail points into buf.
 * 0; VMSG_ERR_BADMSG when the header, a size or a count is wrong; VMSG_ERR_NOENT when the message
 * is well framed but of no kind we know (the header fields of *msg are then valid).
 */
int vmsg_msg_decode(enum vmsg_dialect dialect, const void *buf, uint32_t len, struct vmsg_msg *msg);

/*
 * Writes msg to buf and returns its length in bytes. The tail has the length that the fields state,
 * or is absent where the layout allows that and msg->tail is NULL; it may lie inside buf where it
 * will end up. VMSG_ERR_MSGSIZE when it does not fit size bytes or 16 bits.
 */
int vmsg_msg_encode(enum vmsg_dialect dialect, const struct vmsg_msg *msg, void *buf,
		    uint32_t size);

/* msg_size of a received header, or 0 when fewer than header bytes are there. For framing. */
uint32_t vmsg_msg_size(enum vmsg_dialect dialect, const void *buf, uint32_t len);

/*
 * Learning the dialect from the first answers (wire.md 5.3, 5.5): buf holds the answer to a
 * GET_DEVICE_INFO that was sent in the 8-byte form with token VMSG_AUTO_TOKEN, or to GET_DEVICES in
 * that form. VMSG_AUTO when it does not tell.
 */
#define VMSG_AUTO_TOKEN 6u
enum vmsg_dialect vmsg_msg_learn(const void *buf, uint32_t len);

/* For people; in core/msg_text.c, which nothing else needs. */
const char *vmsg_dialect_name(enum vmsg_dialect dialect);
bool vmsg_dialect_parse(const char *name, enum vmsg_dialect *dialect);
/* "GET_VQUEUE", or NULL for a kind we do not know. */
const char *vmsg_msg_name(uint8_t type, uint8_t msg_id);
/*
 * One line about a raw message: name, device, token, every field by its name in the specification.
 * Never fails: what cannot be decoded is said so. Returns the length, at most size - 1; out is
 * terminated when size > 0.
 */
uint32_t vmsg_msg_text(enum vmsg_dialect dialect, const void *buf, uint32_t len, char *out,
		       uint32_t size);

#endif
