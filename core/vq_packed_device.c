/* SPDX-License-Identifier: BSD-3-Clause */
/* Packed virtqueue, device side (virtio 1.4, 2.8). */
#include "vq_ring.h"

/* Bits AVAIL and USED of the descriptor where the next chain starts. */
static uint16_t next_bits(const struct vmsg_vq_device *vq)
{
	const uint8_t *flags = vmsg_packed_desc(vq->desc, vq->avail_idx) + PACKED_FLAGS;

	VMSG_CACHE_INVALIDATE(flags, 2);
	return vmsg_load16(flags) & PACKED_BITS;
}

static int packed_pop(struct vmsg_vq_device *vq, struct vmsg_chain *chain)
{
	uint16_t bits = next_bits(vq);
	uint16_t idx = vq->avail_idx;
	struct vmsg_desc desc;

	/* Only we mark descriptors used, and not yet in this lap. */
	if (bits == vmsg_packed_used(idx))
		return VMSG_ERR_PROTO;
	if (bits != vmsg_packed_avail(idx))
		return 0;
	vmsg_rmb(); /* pairs with the driver's publish */
	do {
		/* Not more slots than the ring has: this also ends loops. */
		if (chain->slots >= vq->size - vq->in_flight)
			return VMSG_ERR_PROTO;
		vmsg_desc_read(vmsg_packed_desc(vq->desc, idx), true, &desc);
		if ((desc.flags & PACKED_BITS) != vmsg_packed_avail(idx) ||
		    vmsg_vq_append(vq, chain, &desc) < 0)
			return VMSG_ERR_PROTO;
		idx = vmsg_packed_advance(idx, 1, vq->size);
		chain->slots++;
	} while (desc.flags & VMSG_DESC_NEXT);
	/* Ids are the driver's affair, but models may count on them to be small. */
	if (desc.next >= vq->size)
		return VMSG_ERR_PROTO;
	chain->id = desc.next;
	vq->avail_idx = idx;
	return 1;
}

static void packed_push(struct vmsg_vq_device *vq, const struct vmsg_chain *chain, uint32_t written)
{
	uint8_t *ptr = vmsg_packed_desc(vq->desc, vq->used_idx);
	uint32_t flags = vmsg_packed_used(vq->used_idx);

	if (written > 0)
		flags |= VMSG_DESC_WRITE; /* the length counts */
	vmsg_store32(ptr + 8, written);
	VMSG_CACHE_CLEAN(ptr + 8, 4);
	vmsg_wmb(); /* pairs with the driver's look */
	vmsg_store32(ptr + PACKED_WORD, chain->id | flags << 16);
	VMSG_CACHE_CLEAN(ptr + PACKED_WORD, 4);
	vq->used_idx = vmsg_packed_advance(vq->used_idx, chain->slots, vq->size);
}

static bool packed_used_event(const struct vmsg_vq_device *vq)
{
	return vmsg_packed_asked(vq->driver, vmsg_has(vq->features, VMSG_F_EVENT_IDX), vq->size,
				 vq->used_idx, vq->unsignalled);
}

static bool packed_want_kicks(const struct vmsg_vq_device *vq)
{
	vmsg_packed_ask(vq->device, vmsg_has(vq->features, VMSG_F_EVENT_IDX), vq->avail_idx,
			vq->kicks_wanted);
	return next_bits(vq) == vmsg_packed_avail(vq->avail_idx);
}

const struct vmsg_vq_device_format vmsg_vq_packed_device = {
	.packed = true,
	.areas = vmsg_packed_areas,
	.pop = packed_pop,
	.push = packed_push,
	.used_event = packed_used_event,
	.want_kicks = packed_want_kicks,
};
