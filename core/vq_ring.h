/* SPDX-License-Identifier: BSD-3-Clause */
/* What core/vq.c and the four formats share (virtio 1.4, 2.7 and 2.8). */
#ifndef VMSG_CORE_VQ_RING_H
#define VMSG_CORE_VQ_RING_H

#include <vmsg/port.h>
#include <vmsg/vq.h>

/*
 * Fences. Each side shows entries with a store and looks at the other's with a load:
 *
 *	shower                          looker
 *	entries                         index or flags: something there
 *	vmsg_wmb()       pairs with     vmsg_rmb()
 *	index or flags                  entries
 *
 * and each side says whether it wants to be notified, in vmsg_vq_want_kicks or _want_used:
 *
 *	shower                          looker, before it sleeps
 *	index or flags                  "notify me from here on"
 *	vmsg_mb()        pairs with     vmsg_mb()
 *	is it wanted?                   index or flags: nothing there
 *
 * so that one of the two sees what the other wrote.
 */

/* Only saves time. */
#if defined(__GNUC__)
#define VMSG_PREFETCH(ptr) __builtin_prefetch(ptr)
#else
#define VMSG_PREFETCH(ptr) ((void)(ptr))
#endif

/* Split: areas of the driver and the device. Flags, index, entries, and the event index last. */
#define SPLIT_IDX         2u
#define SPLIT_RING        4u
#define SPLIT_AVAIL_BYTES 2u /* of an entry */
#define SPLIT_USED_BYTES  8u

/* Packed: the last word of a descriptor is its id and its flags. */
#define PACKED_WORD  12u
#define PACKED_FLAGS 14u
#define PACKED_BITS  (VMSG_DESC_AVAIL | VMSG_DESC_USED)
#define PACKED_SLOT  0x7fffu /* of a position */
#define PACKED_WRAP  0x8000u

extern const struct vmsg_vq_area vmsg_split_areas[VMSG_VQ_AREAS];
extern const struct vmsg_vq_area vmsg_packed_areas[VMSG_VQ_AREAS];

/* Writes a descriptor with this last word. */
void vmsg_desc_write(uint8_t *ptr, const struct vmsg_buf *buf, uint32_t word);

/* The flags of buffer i of count, of which the first readable_count are readable. */
static inline uint32_t vmsg_desc_flags(uint32_t i, uint32_t readable_count, uint32_t count)
{
	return (i < readable_count ? 0 : VMSG_DESC_WRITE) | (i + 1 < count ? VMSG_DESC_NEXT : 0);
}

/* Appends what a descriptor of the ring names: a buffer, or a table if that is allowed here. */
int vmsg_vq_append(const struct vmsg_vq_device *vq, struct vmsg_chain *chain,
		   const struct vmsg_desc *desc);

/*
 * Notifications. ask() writes into our own area whether we want them, with the event index from
 * position idx on; asked() looks into the peer's area after `count` entries were shown, the last
 * of them before position idx.
 */
void vmsg_split_ask(uint8_t *area, uint32_t event, uint16_t idx, bool on);
bool vmsg_split_asked(const uint8_t *area, uint32_t event, uint16_t idx, uint16_t count);

void vmsg_packed_ask(uint8_t *area, bool event_idx, uint16_t idx, bool on);
bool vmsg_packed_asked(const uint8_t *area, bool event_idx, uint16_t size, uint16_t idx,
		       uint16_t count);

/* Split: where in an area the event index lies; 0 without: the flags, which are there, count. */
static inline uint32_t vmsg_split_event(uint64_t features, uint16_t size, uint32_t entry_bytes)
{
	return vmsg_has(features, VMSG_F_EVENT_IDX) ? SPLIT_RING + entry_bytes * size : 0;
}

/* Packed: the flags that make a descriptor available at a position, or mark it used there. */
static inline uint16_t vmsg_packed_avail(uint16_t idx)
{
	return idx & PACKED_WRAP ? VMSG_DESC_AVAIL : VMSG_DESC_USED;
}

static inline uint16_t vmsg_packed_used(uint16_t idx)
{
	return idx & PACKED_WRAP ? PACKED_BITS : 0;
}

/* Packed: the descriptor at a position. */
static inline uint8_t *vmsg_packed_desc(uint8_t *ring, uint16_t idx)
{
	return ring + VMSG_DESC_BYTES * (idx & PACKED_SLOT);
}

/* Packed: the position `slots`, at most size, further on. */
static inline uint16_t vmsg_packed_advance(uint16_t idx, uint32_t slots, uint32_t size)
{
	/* Past the end, the rest carries into the wrap counter. */
	if ((idx & PACKED_SLOT) + slots >= size)
		slots += PACKED_WRAP - size;
	return (uint16_t)(idx + slots);
}

#endif
