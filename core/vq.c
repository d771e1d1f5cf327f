/* SPDX-License-Identifier: BSD-3-Clause */
/* What all virtqueues share: set-up, chains, accounts, notifications (virtio 1.4, 2.6 to 2.8). */
#include "vq_ring.h"

#define LINE_BYTES 64u /* of a cache */

bool vmsg_vq_size_is_legal(bool packed, uint32_t size)
{
	return size - 1 < VMSG_VQ_MAX_SIZE && (packed || (size & (size - 1)) == 0);
}

/* ---- Device side ---- */

int vmsg_vq_device_enable(struct vmsg_vq_device *vq, const struct vmsg_vq_device_format *format,
			  const struct vmsg_mem *mem, uint64_t features)
{
	uint8_t *areas[VMSG_VQ_AREAS];

	if (vq->size > vq->max_size || !vmsg_vq_size_is_legal(format->packed, vq->size))
		return VMSG_ERR_INVAL;
	for (uint32_t i = 0; i < VMSG_VQ_AREAS; i++) {
		const struct vmsg_vq_area *area = &format->areas[i];

		areas[i] = vmsg_mem_at(mem, vq->addrs[i], vmsg_vq_area_bytes(area, vq->size),
				       area->access);
		if (!areas[i] || (vq->addrs[i] & (area->align - 1u)))
			return VMSG_ERR_INVAL;
	}
	memcpy(vq->areas, areas, sizeof(areas));
	vq->format = format;
	vq->mem = mem;
	vq->features = features;
	vq->avail_idx = format->packed ? PACKED_WRAP : 0;
	vq->used_idx = vq->avail_idx;
	vq->avail_seen = vq->avail_idx;
	vq->armed = 0; /* what zeroed rings ask for: split: from 0 on; packed: always */
	vq->kicks_wanted = true;
	vq->last_head = 0;
	vq->in_flight = 0;
	vq->unsignalled = 0;
	vq->broken = false;
	vq->enabled = true;
	return 0;
}

void vmsg_vq_device_reset(struct vmsg_vq_device *vq)
{
	uint16_t max_size = vq->max_size;

	memset(vq, 0, sizeof(*vq));
	vq->max_size = max_size;
}

static int pop(struct vmsg_vq_device *vq, struct vmsg_chain *chain)
{
	chain->readable_count = 0;
	chain->writable_count = 0;
	chain->readable_bytes = 0;
	chain->writable_bytes = 0;
	chain->slots = 0;
	return vq->format->pop(vq, chain);
}

int vmsg_vq_pop(struct vmsg_vq_device *vq, struct vmsg_chain *chain)
{
	int result;

	if (vq->broken)
		return VMSG_ERR_PROTO;
	if (!vq->enabled)
		return 0;
	result = pop(vq, chain);
	/* With the event index, kicks were asked for from an older position on. */
	if (result == 0 && vq->kicks_wanted && vq->armed != vq->avail_idx &&
	    vmsg_has(vq->features, VMSG_F_EVENT_IDX) && vmsg_vq_want_kicks(vq, true))
		result = pop(vq, chain);
	vq->in_flight = (uint16_t)(vq->in_flight + (result > 0 ? chain->slots : 0));
	vq->broken = result < 0;
	return result;
}

void vmsg_vq_push(struct vmsg_vq_device *vq, const struct vmsg_chain *chain, uint32_t written)
{
	uint32_t unsignalled = (uint32_t)vq->unsignalled + chain->slots;

	VMSG_ASSERT(chain->slots > 0 && chain->slots <= vq->in_flight);
	VMSG_ASSERT(written <= chain->writable_bytes);
	vq->in_flight = (uint16_t)(vq->in_flight - chain->slots);
	vq->unsignalled = (uint16_t)(unsignalled < UINT16_MAX ? unsignalled : UINT16_MAX);
	vq->format->push(vq, chain, written);
}

bool vmsg_vq_used_event(struct vmsg_vq_device *vq)
{
	bool asked;

	if (vq->unsignalled == 0)
		return false;
	vmsg_mb(); /* pairs with vmsg_vq_want_used */
	asked = vq->format->used_event(vq);
	vq->unsignalled = 0;
	return asked;
}

bool vmsg_vq_want_kicks(struct vmsg_vq_device *vq, bool on)
{
	if (!vq->enabled || vq->broken)
		return false;
	vq->kicks_wanted = on;
	vq->armed = vq->avail_idx;
	return vq->format->want_kicks(vq);
}

/* ---- Chains ---- */

void vmsg_desc_read(const uint8_t *ptr, bool packed, struct vmsg_desc *desc)
{
	uint32_t word;

	VMSG_CACHE_INVALIDATE(ptr, VMSG_DESC_BYTES);
	desc->addr = vmsg_load32(ptr) | (uint64_t)vmsg_load32(ptr + 4) << 32;
	desc->len = vmsg_load32(ptr + 8);
	word = vmsg_load32(ptr + 12);
	if (packed)
		word = word >> 16 | word << 16;
	desc->flags = (uint16_t)word;
	desc->next = (uint16_t)(word >> 16);
}

int vmsg_chain_append(struct vmsg_chain *chain, const struct vmsg_mem *mem,
		      const struct vmsg_desc *desc)
{
	uint32_t count = (uint32_t)chain->readable_count + chain->writable_count;
	bool writable = desc->flags & VMSG_DESC_WRITE;
	uint8_t *ptr;

	if (count >= chain->iov_max || (chain->writable_count && !writable) ||
	    desc->len > UINT32_MAX - chain->readable_bytes - chain->writable_bytes)
		return VMSG_ERR_PROTO;
	ptr = vmsg_mem_at(mem, desc->addr, desc->len, writable ? VMSG_MEM_WRITE : VMSG_MEM_READ);
	if (!ptr) /* also when it is empty */
		return VMSG_ERR_PROTO;
	chain->iov[count].ptr = ptr;
	chain->iov[count].len = desc->len;
	if (writable) {
		chain->writable_count++;
		chain->writable_bytes += desc->len;
	} else {
		chain->readable_count++;
		chain->readable_bytes += desc->len;
	}
	return 0;
}

int vmsg_chain_append_table(struct vmsg_chain *chain, const struct vmsg_mem *mem,
			    const struct vmsg_desc *desc, bool packed, uint16_t limit)
{
	const uint8_t *table = vmsg_mem_at(mem, desc->addr, desc->len, VMSG_MEM_READ);
	uint32_t count = desc->len / VMSG_DESC_BYTES;
	uint32_t index = 0;
	struct vmsg_desc entry;

	/* The specification aligns tables no further than our loads need it. */
	if (!table || (uintptr_t)table % 4 || desc->len % VMSG_DESC_BYTES ||
	    count + chain->readable_count + chain->writable_count > limit)
		return VMSG_ERR_PROTO;
	for (uint32_t left = count; left > 0; left--) {
		vmsg_desc_read(table + VMSG_DESC_BYTES * index, packed, &entry);
		if ((entry.flags & VMSG_DESC_INDIRECT) || vmsg_chain_append(chain, mem, &entry) < 0)
			return VMSG_ERR_PROTO;
		if (packed) {
			index++;
			continue;
		}
		if (!(entry.flags & VMSG_DESC_NEXT))
			return 0;
		index = entry.next;
		if (index >= count)
			return VMSG_ERR_PROTO;
	}
	/* A split table has an entry without NEXT, or it is a loop. */
	return packed ? 0 : VMSG_ERR_PROTO;
}

int vmsg_vq_append(const struct vmsg_vq_device *vq, struct vmsg_chain *chain,
		   const struct vmsg_desc *desc)
{
	if (!(desc->flags & VMSG_DESC_INDIRECT))
		return vmsg_chain_append(chain, vq->mem, desc);
	/* A table ends its chain. */
	if ((desc->flags & VMSG_DESC_NEXT) || !vmsg_has(vq->features, VMSG_F_INDIRECT_DESC))
		return VMSG_ERR_PROTO;
	return vmsg_chain_append_table(chain, vq->mem, desc, vq->format->packed, vq->size);
}

/* Copies between buf and one half of a chain. */
static size_t copy(const struct vmsg_chain *chain, size_t offset, uint8_t *buf, size_t len,
		   bool write)
{
	const struct vmsg_iov *iov = chain->iov + (write ? chain->readable_count : 0);
	uint32_t count = write ? chain->writable_count : chain->readable_count;
	size_t done = 0;

	for (; count > 0 && done < len; count--, iov++) {
		uint8_t *ptr;
		size_t piece;

		if (offset >= iov->len) {
			offset -= iov->len;
			continue;
		}
		ptr = iov->ptr + offset;
		piece = iov->len - offset;
		if (piece > len - done)
			piece = len - done;
		if (write) {
			memcpy(ptr, buf + done, piece);
			VMSG_CACHE_CLEAN(ptr, piece);
		} else {
			VMSG_CACHE_INVALIDATE(ptr, piece);
			memcpy(buf + done, ptr, piece);
		}
		done += piece;
		offset = 0;
	}
	return done;
}

size_t vmsg_chain_read(const struct vmsg_chain *chain, size_t offset, void *buf, size_t len)
{
	return copy(chain, offset, buf, len, false);
}

size_t vmsg_chain_write(const struct vmsg_chain *chain, size_t offset, const void *buf, size_t len)
{
	/* Only read, as write says. */
	return copy(chain, offset, (uint8_t *)(uintptr_t)buf, len, true);
}

/* ---- Driver side ---- */

static uint32_t whole_lines(uint32_t len)
{
	return (len + LINE_BYTES - 1) & ~(LINE_BYTES - 1);
}

int vmsg_vq_memory_take(struct vmsg_vq_memory *memory, const struct vmsg_vq_driver_format *format,
			uint16_t size, uint16_t indirect_max, struct vmsg_arena *arena)
{
	size_t tables = (size_t)size * indirect_max, bytes[VMSG_VQ_AREAS], total;
	uint64_t addr;
	uint8_t *ptr;

	if (!vmsg_vq_size_is_legal(format->packed, size))
		return VMSG_ERR_INVAL;
	if (tables > arena->len_bytes / VMSG_DESC_BYTES)
		return VMSG_ERR_NOMEM;
	total = tables * VMSG_DESC_BYTES;
	/* No area shares a cache line with what the other side writes. */
	for (uint32_t i = 0; i < VMSG_VQ_AREAS; i++) {
		bytes[i] = whole_lines(vmsg_vq_area_bytes(&format->areas[i], size));
		total += bytes[i];
	}
	ptr = vmsg_arena_take(arena, total, LINE_BYTES, &addr);
	if (!ptr)
		return VMSG_ERR_NOMEM;
	for (uint32_t i = 0; i < VMSG_VQ_AREAS; i++) {
		memory->areas[i] = ptr;
		memory->addrs[i] = addr;
		ptr += bytes[i];
		addr += bytes[i];
	}
	memory->indirect = ptr;
	memory->indirect_addr = addr;
	memory->indirect_max = indirect_max;
	return 0;
}

int vmsg_vq_driver_init(struct vmsg_vq_driver *vq, const struct vmsg_vq_driver_format *format,
			uint64_t features, uint16_t size, const struct vmsg_vq_memory *memory,
			struct vmsg_vq_state *state)
{
	if (!vmsg_vq_size_is_legal(format->packed, size))
		return VMSG_ERR_INVAL;
	memset(vq, 0, sizeof(*vq));
	vq->format = format;
	vq->memory = *memory;
	vq->state = state;
	vq->features = features;
	vq->size = size;
	vq->free_count = size;
	vq->avail_idx = format->packed ? PACKED_WRAP : 0;
	vq->published = vq->avail_idx;
	vq->used_idx = vq->avail_idx;
	vq->used_seen = vq->avail_idx;
	vq->used_wanted = true;
	for (uint32_t i = 0; i < VMSG_VQ_AREAS; i++) {
		memset(memory->areas[i], 0, vmsg_vq_area_bytes(&format->areas[i], size));
		VMSG_CACHE_CLEAN(memory->areas[i], vmsg_vq_area_bytes(&format->areas[i], size));
	}
	for (uint32_t i = 0; i < size; i++) {
		state[i].slots = 0;
		state[i].next = (uint16_t)(i + 1 < size ? i + 1 : 0);
	}
	return 0;
}

void vmsg_desc_write(uint8_t *ptr, const struct vmsg_buf *buf, uint32_t word)
{
	vmsg_store32(ptr, (uint32_t)buf->addr);
	vmsg_store32(ptr + 4, (uint32_t)(buf->addr >> 32));
	vmsg_store32(ptr + 8, buf->len);
	vmsg_store32(ptr + 12, word);
	VMSG_CACHE_CLEAN(ptr, VMSG_DESC_BYTES);
}

/* Fills in the table that belongs to the chain free_head, and names it in *buf. */
static void write_table(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs,
			uint32_t readable_count, uint32_t count, struct vmsg_buf *buf)
{
	size_t offset = (size_t)VMSG_DESC_BYTES * vq->memory.indirect_max * vq->free_head;
	uint8_t *ptr = vq->memory.indirect + offset;

	buf->addr = vq->memory.indirect_addr + offset;
	buf->len = VMSG_DESC_BYTES * count;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t flags = vmsg_desc_flags(i, readable_count, count);

		/* A packed table has no links. */
		vmsg_desc_write(ptr + VMSG_DESC_BYTES * i, &bufs[i],
				vq->format->packed ? (flags & VMSG_DESC_WRITE) << 16
						   : flags | (i + 1) << 16);
	}
}

int vmsg_vq_add(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs, uint16_t readable_count,
		uint16_t writable_count, void *cookie)
{
	uint32_t count = (uint32_t)readable_count + writable_count;
	uint32_t bytes = 0, readable_bytes = 0, slots = count;
	struct vmsg_vq_state *state = &vq->state[vq->free_head];
	struct vmsg_buf table;

	VMSG_ASSERT(cookie);
	if (vq->broken)
		return VMSG_ERR_PROTO;
	if (count - 1 >= vq->size) /* 0 as well */
		return VMSG_ERR_INVAL;
	for (uint32_t i = 0; i < count; i++) {
		if (bufs[i].len - 1 >= UINT32_MAX - bytes) /* 0 as well */
			return VMSG_ERR_INVAL;
		bytes += bufs[i].len;
		if (i < readable_count)
			readable_bytes = bytes;
	}
	if (vmsg_has(vq->features, VMSG_F_INDIRECT_DESC) && count <= vq->memory.indirect_max)
		slots = 1;
	if (slots > vq->free_count)
		return VMSG_ERR_AGAIN;
	state->cookie = cookie;
	state->writable_bytes = bytes - readable_bytes;
	state->slots = (uint16_t)slots;
	vq->free_count = (uint16_t)(vq->free_count - slots);
	if (slots == count) {
		vq->format->put(vq, bufs, readable_count, count, 0);
		return 0;
	}
	write_table(vq, bufs, readable_count, count, &table);
	vq->format->put(vq, &table, 1, 1, VMSG_DESC_INDIRECT);
	return 0;
}

bool vmsg_vq_publish(struct vmsg_vq_driver *vq)
{
	bool asked;

	if (vq->added == 0)
		return false;
	vq->published = vq->avail_idx;
	asked = vq->format->publish(vq);
	vq->added = 0;
	return asked;
}

/* Takes the next chain that a used entry completes out of the accounts. */
static int take_back(struct vmsg_vq_driver *vq, void **cookie, uint32_t *written)
{
	bool in_order = vmsg_has(vq->features, VMSG_F_IN_ORDER);
	struct vmsg_vq_state *state, *last;
	uint32_t id = vq->used_id, slots;

	if (id >= vq->size || vq->state[id].slots == 0)
		return VMSG_ERR_PROTO;
	*written = vq->used_bytes;
	vq->in_batch = in_order && id != vq->oldest;
	if (vq->in_batch)
		id = vq->oldest;
	state = &vq->state[id];
	/* Of a batch only the last one's length is known: the others were used entirely. */
	if (vq->in_batch)
		*written = state->writable_bytes;
	slots = state->slots;
	if (*written > state->writable_bytes || slots + vq->free_count + vq->added > vq->size)
		return VMSG_ERR_PROTO;
	*cookie = state->cookie;
	state->slots = 0;
	vq->free_count = (uint16_t)(vq->free_count + slots);
	last = state;
	if (vq->format->packed) {
		vq->used_idx = vmsg_packed_advance(vq->used_idx, slots, vq->size);
	} else {
		vq->used_idx++;
		while (--slots > 0)
			last = &vq->state[last->next];
	}
	if (in_order) {
		/* Ring order: the links stay as init made them. */
		vq->oldest = last->next;
	} else {
		last->next = vq->free_head;
		vq->free_head = (uint16_t)id;
	}
	return 1;
}

int vmsg_vq_get(struct vmsg_vq_driver *vq, void **cookie, uint32_t *written)
{
	int result;

	if (vq->broken)
		return VMSG_ERR_PROTO;
	result = vq->format->look(vq);
	/* With the event index, notifications were asked for from an older position on. */
	if (result == 0 && vq->used_wanted && vq->armed != vq->used_idx &&
	    vmsg_has(vq->features, VMSG_F_EVENT_IDX) && vmsg_vq_want_used(vq, true))
		result = vq->format->look(vq);
	if (result > 0)
		result = take_back(vq, cookie, written);
	vq->broken = result < 0;
	return result;
}

bool vmsg_vq_want_used(struct vmsg_vq_driver *vq, bool on)
{
	if (vq->broken)
		return false;
	vq->used_wanted = on;
	vq->armed = vq->used_idx;
	return vq->format->want_used(vq) || vq->in_batch;
}

void *vmsg_vq_drain(struct vmsg_vq_driver *vq)
{
	while (vq->drain_next < vq->size) {
		struct vmsg_vq_state *state = &vq->state[vq->drain_next++];

		if (state->slots > 0) {
			state->slots = 0;
			return state->cookie;
		}
	}
	return NULL;
}

/* ---- Notifications ---- */

const struct vmsg_vq_area vmsg_split_areas[VMSG_VQ_AREAS] = {
	{ VMSG_DESC_BYTES, 0, 16, VMSG_MEM_READ },
	{ SPLIT_AVAIL_BYTES, SPLIT_RING + 2, 2, VMSG_MEM_READ },
	{ SPLIT_USED_BYTES, SPLIT_RING + 2, 4, VMSG_MEM_WRITE },
};

void vmsg_split_ask(uint8_t *area, uint32_t event, uint16_t idx, bool on)
{
	/* The position before idx was passed, and comes again after 65535 entries. */
	if (event != 0)
		vmsg_store16(area + event, (uint16_t)(on ? idx : idx - 1));
	else
		vmsg_store16(area, (uint16_t)(on ? 0 : VMSG_SPLIT_NO_EVENT));
	VMSG_CACHE_CLEAN(area + event, 2);
	vmsg_mb(); /* pairs with vmsg_vq_publish, vmsg_vq_used_event */
}

bool vmsg_split_asked(const uint8_t *area, uint32_t event, uint16_t idx, uint16_t count)
{
	uint16_t word;

	VMSG_CACHE_INVALIDATE(area + event, 2);
	word = vmsg_load16(area + event);
	if (event != 0)
		return vmsg_need_event(word, idx, (uint16_t)(idx - count));
	return !(word & VMSG_SPLIT_NO_EVENT);
}

/* The ring is written by both sides. */
const struct vmsg_vq_area vmsg_packed_areas[VMSG_VQ_AREAS] = {
	{ VMSG_DESC_BYTES, 0, 16, VMSG_MEM_READ | VMSG_MEM_WRITE },
	{ 0, 4, 4, VMSG_MEM_READ },
	{ 0, 4, 4, VMSG_MEM_WRITE },
};

void vmsg_packed_ask(uint8_t *area, bool event_idx, uint16_t idx, bool on)
{
	uint32_t flags = !on ? VMSG_EVENT_DISABLE : event_idx ? VMSG_EVENT_DESC : VMSG_EVENT_ENABLE;

	vmsg_store32(area, flags << 16 | idx);
	VMSG_CACHE_CLEAN(area, 4);
	vmsg_mb(); /* pairs with vmsg_vq_publish, vmsg_vq_used_event */
}

bool vmsg_packed_asked(const uint8_t *area, bool event_idx, uint16_t size, uint16_t idx,
		       uint16_t count)
{
	uint32_t word, flags;
	uint16_t event;

	VMSG_CACHE_INVALIDATE(area, 4);
	word = vmsg_load32(area);
	flags = word >> 16 & 3;
	if (flags != VMSG_EVENT_DESC || !event_idx)
		return flags != VMSG_EVENT_DISABLE;
	/* Both as distances from the start of this lap; the event may lie in the one before. */
	event = (uint16_t)((word & PACKED_SLOT) - ((word ^ idx) & PACKED_WRAP ? size : 0));
	idx &= PACKED_SLOT;
	return vmsg_need_event(event, idx, (uint16_t)(idx - count));
}
