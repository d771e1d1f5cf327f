/* SPDX-License-Identifier: BSD-3-Clause */
/* Split virtqueue, driver side (virtio 1.4, 2.7). */
#include "vq_ring.h"

static void split_put(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs,
		      uint32_t readable_count, uint32_t count, uint32_t flags)
{
	uint8_t *entry = vq->memory.driver + SPLIT_RING +
			 SPLIT_AVAIL_BYTES * (vq->avail_idx & (vq->size - 1u));
	uint32_t index = vq->free_head;

	vmsg_store16(entry, vq->free_head);
	VMSG_CACHE_CLEAN(entry, SPLIT_AVAIL_BYTES);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *ptr = vq->memory.desc + VMSG_DESC_BYTES * index;

		index = vq->state[index].next;
		vmsg_desc_write(ptr, &bufs[i],
				flags | vmsg_desc_flags(i, readable_count, count) | index << 16);
	}
	vq->free_head = (uint16_t)index;
	vq->avail_idx++;
	vq->added++;
}

static bool split_publish(struct vmsg_vq_driver *vq)
{
	vmsg_wmb(); /* pairs with the device's pop */
	vmsg_store16(vq->memory.driver + SPLIT_IDX, vq->avail_idx);
	VMSG_CACHE_CLEAN(vq->memory.driver + SPLIT_IDX, 2);
	vmsg_mb(); /* pairs with vmsg_vq_want_kicks */
	return vmsg_split_asked(vq->memory.device,
				vmsg_split_event(vq->features, vq->size, SPLIT_USED_BYTES),
				vq->avail_idx, vq->added);
}

/* How many chains the device says to have used and we have not taken back. */
static uint16_t count_waiting(const struct vmsg_vq_driver *vq)
{
	VMSG_CACHE_INVALIDATE(vq->memory.device + SPLIT_IDX, 2);
	return (uint16_t)(vmsg_load16(vq->memory.device + SPLIT_IDX) - vq->used_idx);
}

static int split_look(struct vmsg_vq_driver *vq)
{
	const uint8_t *entry = vq->memory.device + SPLIT_RING +
			       SPLIT_USED_BYTES * (vq->used_idx & (vq->size - 1u));

	if (vq->used_seen == vq->used_idx) {
		uint16_t waiting = count_waiting(vq);

		if (vq->in_batch) /* it was longer than the index went on */
			return VMSG_ERR_PROTO;
		if (waiting == 0)
			return 0;
		if (waiting > (uint16_t)(vq->published - vq->used_idx))
			return VMSG_ERR_PROTO;
		vq->used_seen = (uint16_t)(vq->used_idx + waiting);
		vmsg_rmb(); /* pairs with the device's push */
	}
	if (vq->in_batch)
		return 1;
	VMSG_CACHE_INVALIDATE(entry, SPLIT_USED_BYTES);
	vq->used_id = vmsg_load32(entry);
	vq->used_bytes = vmsg_load32(entry + 4);
	return 1;
}

static bool split_want_used(const struct vmsg_vq_driver *vq)
{
	vmsg_split_ask(vq->memory.driver,
		       vmsg_split_event(vq->features, vq->size, SPLIT_AVAIL_BYTES), vq->used_idx,
		       vq->used_wanted);
	return count_waiting(vq) != 0;
}

const struct vmsg_vq_driver_format vmsg_vq_split_driver = {
	.packed = false,
	.areas = vmsg_split_areas,
	.put = split_put,
	.publish = split_publish,
	.look = split_look,
	.want_used = split_want_used,
};
