/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that a peer may name by address. What an address means is the bus's (design.md 7): an
 * offset in the shared area, a driver-physical address, an area id in the upper bits. All are
 * regions in one table, and vmsg_mem_at() alone makes pointers of peer addresses.
 */
#ifndef VMSG_MEM_H
#define VMSG_MEM_H

#include <vmsg/vmsg.h>

/* AMP memory reference (buses.md 3.2): bits 63:52 area id, bits 51:0 offset. */
#define VMSG_AREA_SHIFT  52
#define VMSG_AREA_DRIVER 0 /* driver-physical addresses */
#define VMSG_AREA_SHARED 1 /* the one shared area, offset from its first byte */

#define VMSG_MEM_READ  0x1u /* the device may read */
#define VMSG_MEM_WRITE 0x2u /* the device may write */

struct vmsg_region {
	uint64_t addr;      /* first address, as the peer writes it */
	uint64_t len_bytes; /* > 0; addr + len_bytes <= 2^64 */
	uint8_t *ptr;       /* where we see it; at least as aligned as addr, up to 16 bytes */
	uint32_t access;    /* VMSG_MEM_* */
	int fd;             /* hosted: the file behind it, so that it can be handed on; else -1 */
	uint64_t fd_offset; /* where the region starts in that file */
};

struct vmsg_mem {
	const struct vmsg_region *regions; /* no two overlap; checked by vmsg_mem_init */
	uint32_t count;
};

/* Keeps `regions`. 0, or VMSG_ERR_INVAL when one is empty, wraps 2^64 or overlaps another. */
int vmsg_mem_init(struct vmsg_mem *mem, const struct vmsg_region *regions, uint32_t count);

/*
 * The pointer to [addr, addr + len) if the whole range lies in one region that allows all of
 * `access`, else NULL. len 0 gives NULL. Cost: one comparison per region.
 */
void *vmsg_mem_at(const struct vmsg_mem *mem, uint64_t addr, size_t len, uint32_t access);

/*
 * An arena hands out pieces of a region from its start, for virtqueues and buffers that a driver
 * places in the shared area. Pieces are not given back; start over by setting used_bytes.
 */
struct vmsg_arena {
	uint64_t addr; /* address of the first byte, as the device will see it */
	uint8_t *ptr;
	size_t len_bytes;
	size_t used_bytes;
};

/*
 * len bytes, zeroed, aligned to `align` (a power of two) both as pointer offset and as address.
 * The address goes to *addr. NULL when the arena has no room.
 */
void *vmsg_arena_take(struct vmsg_arena *arena, size_t len, size_t align, uint64_t *addr);

#endif
