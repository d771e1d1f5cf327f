/* SPDX-License-Identifier: BSD-3-Clause */
/* Packed virtqueue, driver side (virtio 1.4, 2.8). */
#include "vq_ring.h"

static void packed_put(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs,
		       uint32_t readable_count, uint32_t count, uint32_t flags)
{
	uint16_t id = vq->free_head;

	for (uint32_t i = 0; i < count; i++) {
		uint8_t *ptr = vmsg_packed_desc(vq->memory.desc, vq->avail_idx);
		uint32_t word = flags | vmsg_packed_avail(vq->avail_idx) |
				vmsg_desc_flags(i, readable_count, count);

		word = word << 16 | id;
		/*
		 * The device goes no further than to the first one it may not have, so only that
		 * is held back: its flags are those of the other lap until publish.
		 */
		if (vq->added == 0) {
			vq->held = ptr + PACKED_WORD;
			vq->held_word = word;
			word ^= PACKED_BITS << 16;
		}
		vmsg_desc_write(ptr, &bufs[i], word);
		vq->avail_idx = vmsg_packed_advance(vq->avail_idx, 1, vq->size);
		vq->added++;
	}
	vq->free_head = vq->state[id].next;
}

static bool packed_publish(struct vmsg_vq_driver *vq)
{
	vmsg_wmb(); /* pairs with the device's pop */
	vmsg_store32(vq->held, vq->held_word);
	VMSG_CACHE_CLEAN(vq->held, 4);
	vmsg_mb(); /* pairs with vmsg_vq_want_kicks */
	return vmsg_packed_asked(vq->memory.device, vmsg_has(vq->features, VMSG_F_EVENT_IDX),
				 vq->size, vq->avail_idx, vq->added);
}

/* Whether the descriptor where the next used entry goes is marked used. */
static bool is_used(const struct vmsg_vq_driver *vq)
{
	const uint8_t *flags = vmsg_packed_desc(vq->memory.desc, vq->used_idx) + PACKED_FLAGS;

	VMSG_CACHE_INVALIDATE(flags, 2);
	return (vmsg_load16(flags) & PACKED_BITS) == vmsg_packed_used(vq->used_idx);
}

static int packed_look(struct vmsg_vq_driver *vq)
{
	const uint8_t *ptr = vmsg_packed_desc(vq->memory.desc, vq->used_idx);
	uint32_t word;

	if (vq->in_batch)
		return 1;
	if (!is_used(vq))
		return 0;
	vmsg_rmb(); /* pairs with the device's push */
	VMSG_CACHE_INVALIDATE(ptr, VMSG_DESC_BYTES);
	word = vmsg_load32(ptr + PACKED_WORD);
	vq->used_id = (uint16_t)word;
	vq->used_bytes = word >> 16 & VMSG_DESC_WRITE ? vmsg_load32(ptr + 8) : 0;
	return 1;
}

static bool packed_want_used(const struct vmsg_vq_driver *vq)
{
	vmsg_packed_ask(vq->memory.driver, vmsg_has(vq->features, VMSG_F_EVENT_IDX), vq->used_idx,
			vq->used_wanted);
	return is_used(vq);
}

const struct vmsg_vq_driver_format vmsg_vq_packed_driver = {
	.packed = true,
	.areas = vmsg_packed_areas,
	.put = packed_put,
	.publish = packed_publish,
	.look = packed_look,
	.want_used = packed_want_used,
};
