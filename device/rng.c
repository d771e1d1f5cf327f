/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The entropy device (virtio 1.4, 5.4): one queue, no features, no config. Each chain gets at least
 * one random byte and at most what a turn allows: the device may use less than the whole buffer.
 */
#include <vmsg/port.h>
#include <vmsg/rng.h>

/* Fills the chain's writable part. The bytes written, or an error when there are none. */
static int fill_chain(struct vmsg_rng *rng, uint32_t budget)
{
	const struct vmsg_iov *iov = rng->chain.iov + rng->chain.readable_count;
	uint32_t written = 0;

	for (uint16_t i = 0; i < rng->chain.writable_count && written < budget; i++) {
		uint32_t left = budget - written;
		uint32_t len = iov[i].len < left ? (uint32_t)iov[i].len : left;
		int got = rng->fill(rng->source, iov[i].ptr, len);

		if (got < 0 && !written)
			return got;
		if (got <= 0)
			break;
		VMSG_ASSERT((uint32_t)got <= len);
		VMSG_CACHE_CLEAN(iov[i].ptr, (uint32_t)got);
		written += (uint32_t)got;
		if ((uint32_t)got < len)
			break;
	}
	return (int)written;
}

/* Works on one chain: its share of the budget, or 0 when nothing can be done now. */
static uint32_t serve(struct vmsg_rng *rng, uint32_t budget)
{
	struct vmsg_chain *chain = &rng->chain;
	int written = 0;

	if (!rng->holding && vmsg_device_pop(&rng->device, 0, chain) != 1)
		return 0;
	rng->holding = true;
	if (chain->writable_bytes)
		written = fill_chain(rng, budget);
	else
		rng->empty_chains++;
	if (written == VMSG_ERR_AGAIN || (written == 0 && chain->writable_bytes))
		return 0;
	rng->holding = false;
	if (written < 0) {
		vmsg_device_needs_reset(&rng->device); /* a source that has failed */
		return 0;
	}
	vmsg_device_push(&rng->device, 0, chain, (uint32_t)written);
	rng->filled_bytes += (uint32_t)written;
	return written ? (uint32_t)written : 1;
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_rng *rng = (struct vmsg_rng *)device;
	uint32_t budget = VMSG_RNG_TURN_BYTES, used;

	while (budget && (used = serve(rng, budget)) != 0)
		budget -= used;
	if (budget == 0)
		device->more = true;
	if (budget != VMSG_RNG_TURN_BYTES)
		vmsg_device_used(device, vq_index);
}

static int reset(struct vmsg_device *device)
{
	((struct vmsg_rng *)device)->holding = false;
	return 0;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	(void)vq_index;
	return reset(device);
}

static const struct vmsg_device_ops ops = {
	.name = "rng",
	.device_id = VMSG_RNG_DEVICE_ID,
	.reset = reset,
	.kick = kick,
	.reset_vq = reset_vq,
};

void vmsg_rng_init(struct vmsg_rng *rng)
{
	VMSG_ASSERT(rng->fill);
	rng->vq.max_size = VMSG_RNG_QUEUE_SIZE;
	rng->chain.iov = rng->iov;
	rng->chain.iov_max = VMSG_RNG_QUEUE_SIZE;
	rng->holding = false;
	rng->device.ops = &ops;
	rng->device.vqs = &rng->vq;
	rng->device.vq_count = 1;
	vmsg_device_init(&rng->device);
}
