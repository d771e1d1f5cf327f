/* SPDX-License-Identifier: BSD-3-Clause */
/* Split virtqueue, device side (virtio 1.4, 2.7). */
#include "vq_ring.h"

/* How many chains the driver says to have published and we have not taken. */
static uint16_t count_waiting(const struct vmsg_vq_device *vq)
{
	VMSG_CACHE_INVALIDATE(vq->driver + SPLIT_IDX, 2);
	return (uint16_t)(vmsg_load16(vq->driver + SPLIT_IDX) - vq->avail_idx);
}

static int split_pop(struct vmsg_vq_device *vq, struct vmsg_chain *chain)
{
	const uint8_t *entry = vq->driver + SPLIT_RING +
			       SPLIT_AVAIL_BYTES * (vq->avail_idx & (vq->size - 1u));
	struct vmsg_desc desc;

	if (vq->avail_seen == vq->avail_idx) {
		uint16_t waiting = count_waiting(vq);

		if (waiting == 0)
			return 0;
		/* Each chain has a descriptor of its own until it is given back. */
		if (waiting > vq->size - vq->in_flight)
			return VMSG_ERR_PROTO;
		vq->avail_seen = (uint16_t)(vq->avail_idx + waiting);
		/* A driver likes to use the same head again: fetch it along with the entry. */
		VMSG_PREFETCH(vq->desc + VMSG_DESC_BYTES * vq->last_head);
		vmsg_rmb(); /* pairs with the driver's publish */
	}
	VMSG_CACHE_INVALIDATE(entry, SPLIT_AVAIL_BYTES);
	chain->id = vmsg_load16(entry);
	chain->slots = 1;
	desc.next = chain->id;
	do {
		/* Not more buffers than descriptors: this also ends loops. */
		if (desc.next >= vq->size ||
		    chain->readable_count + chain->writable_count >= vq->size)
			return VMSG_ERR_PROTO;
		vmsg_desc_read(vq->desc + VMSG_DESC_BYTES * desc.next, false, &desc);
		if (vmsg_vq_append(vq, chain, &desc) < 0)
			return VMSG_ERR_PROTO;
	} while (desc.flags & VMSG_DESC_NEXT);
	vq->last_head = chain->id;
	vq->avail_idx++;
	return 1;
}

static void split_push(struct vmsg_vq_device *vq, const struct vmsg_chain *chain, uint32_t written)
{
	uint8_t *entry = vq->device + SPLIT_RING +
			 SPLIT_USED_BYTES * (vq->used_idx & (vq->size - 1u));

	vmsg_store32(entry, chain->id);
	vmsg_store32(entry + 4, written);
	VMSG_CACHE_CLEAN(entry, SPLIT_USED_BYTES);
	vmsg_wmb(); /* pairs with the driver's look */
	vmsg_store16(vq->device + SPLIT_IDX, ++vq->used_idx);
	VMSG_CACHE_CLEAN(vq->device + SPLIT_IDX, 2);
}

static bool split_used_event(const struct vmsg_vq_device *vq)
{
	return vmsg_split_asked(vq->driver,
				vmsg_split_event(vq->features, vq->size, SPLIT_AVAIL_BYTES),
				vq->used_idx, vq->unsignalled);
}

static bool split_want_kicks(const struct vmsg_vq_device *vq)
{
	vmsg_split_ask(vq->device, vmsg_split_event(vq->features, vq->size, SPLIT_USED_BYTES),
		       vq->avail_idx, vq->kicks_wanted);
	return count_waiting(vq) != 0;
}

const struct vmsg_vq_device_format vmsg_vq_split_device = {
	.packed = false,
	.areas = vmsg_split_areas,
	.pop = split_pop,
	.push = split_push,
	.used_event = split_used_event,
	.want_kicks = split_want_kicks,
};
