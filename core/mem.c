/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions, and the one translation of a peer's address (design.md 7). */
#include <vmsg/mem.h>
#include <vmsg/port.h>

static bool overlap(const struct vmsg_region *a, const struct vmsg_region *b)
{
	/* Neither wraps, so distances are safe. */
	return a->addr <= b->addr ? b->addr - a->addr < a->len_bytes
				  : a->addr - b->addr < b->len_bytes;
}

int vmsg_mem_init(struct vmsg_mem *mem, const struct vmsg_region *regions, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct vmsg_region *region = &regions[i];

		if (!region->ptr || !region->len_bytes ||
		    region->len_bytes - 1 > UINT64_MAX - region->addr)
			return VMSG_ERR_INVAL;
		for (uint32_t j = 0; j < i; j++) {
			if (overlap(region, &regions[j]))
				return VMSG_ERR_INVAL;
		}
	}
	mem->regions = regions;
	mem->count = count;
	return 0;
}

void *vmsg_mem_at(const struct vmsg_mem *mem, uint64_t addr, size_t len, uint32_t access)
{
	if (len == 0)
		return NULL;
	for (uint32_t i = 0; i < mem->count; i++) {
		const struct vmsg_region *region = &mem->regions[i];
		uint64_t offset = addr - region->addr;

		/* Below the region, the difference wraps to more than its length. */
		if (offset < region->len_bytes) {
			if (len > region->len_bytes - offset || (access & ~region->access))
				return NULL;
			return region->ptr + offset;
		}
	}
	return NULL;
}

void *vmsg_arena_take(struct vmsg_arena *arena, size_t len, size_t align, uint64_t *addr)
{
	size_t room = arena->len_bytes - arena->used_bytes;
	size_t pad = (size_t)(0 - (arena->addr + arena->used_bytes)) & (align - 1);
	uint8_t *ptr;

	VMSG_ASSERT(align && (align & (align - 1)) == 0);
	if (pad > room || len > room - pad)
		return NULL;
	arena->used_bytes += pad;
	ptr = arena->ptr + arena->used_bytes;
	*addr = arena->addr + arena->used_bytes;
	VMSG_ASSERT(((uintptr_t)ptr & (align - 1) & 15) == 0);
	arena->used_bytes += len;
	memset(ptr, 0, len);
	return ptr;
}
