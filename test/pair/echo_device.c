/* SPDX-License-Identifier: BSD-3-Clause */
/* The device side of the echo; see echo.h. */
#include "echo.h"

#include <vmsg/port.h>

#include <string.h>

uint32_t echo_dice(uint32_t *dice)
{
	*dice = *dice * 1664525u + 1013904223u;
	return *dice >> 8;
}

static struct echo_device *echo_of(struct vmsg_device *device)
{
	return (struct echo_device *)device;
}

/* Every writable byte but the last few: those show whether the length is kept. */
static uint32_t echo_length(const struct vmsg_chain *chain)
{
	uint32_t less = chain->readable_bytes % 3;

	return chain->writable_bytes > less ? chain->writable_bytes - less : 0;
}

static void serve(struct echo_device *echo, const struct echo_work *work)
{
	const struct vmsg_chain *chain = &work->chain;
	uint32_t written = echo_length(chain);
	uint8_t in[ECHO_PARTS * ECHO_PART], out[ECHO_PARTS * ECHO_PART];
	size_t len = vmsg_chain_read(chain, 0, in, sizeof(in));

	CHECK_EQ(len, chain->readable_bytes);
	CHECK(written <= sizeof(out));
	for (uint32_t i = 0; i < written; i++)
		out[i] = (uint8_t)((len ? in[i % len] : 0xa5) + i);
	CHECK_EQ(vmsg_chain_write(chain, 0, out, written), written);
	vmsg_device_push(&echo->device, work->vq_index, chain, written);
	echo->served++;
}

static void take(struct echo_device *echo, uint32_t vq_index)
{
	/* There is room for all that both queues hold at once; then nothing more can come. */
	while (echo->work_count < ECHO_QUEUES * ECHO_SIZE) {
		struct echo_work *work = &echo->work[echo->work_count];

		work->vq_index = vq_index;
		work->chain.iov = work->iov;
		work->chain.iov_max = ECHO_PARTS;
		if (vmsg_device_pop(&echo->device, vq_index, &work->chain) <= 0)
			return;
		if (echo->async)
			echo->work_count++;
		else
			serve(echo, work);
	}
	/* Only a queue that was found empty brings a kick with what is next. */
	echo->stopped = true;
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct echo_device *echo = echo_of(device);

	if (echo->fails) {
		echo->fails = false;
		vmsg_device_needs_reset(device);
		return;
	}
	take(echo, vq_index);
	vmsg_device_used(device, vq_index);
}

static void forget(struct echo_device *echo, uint32_t i)
{
	echo->work_count--;
	for (; i < echo->work_count; i++) {
		echo->work[i] = echo->work[i + 1];
		echo->work[i].chain.iov = echo->work[i].iov;
	}
}

static uint32_t count_work(const struct echo_device *echo, uint32_t vq_index)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < echo->work_count; i++)
		count += echo->work[i].vq_index == vq_index;
	return count;
}

void echo_tick(struct echo_device *echo)
{
	uint32_t i = 0, vq_index;
	struct echo_work work;

	if (echo->work_count == 0)
		return;
	if (!echo->in_order)
		i = echo_dice(&echo->dice) % echo->work_count;
	work = echo->work[i];
	work.chain.iov = work.iov;
	vq_index = work.vq_index;
	forget(echo, i);
	serve(echo, &work);
	if (echo->resetting_vq[vq_index] && count_work(echo, vq_index) == 0) {
		echo->resetting_vq[vq_index] = false;
		vmsg_device_vq_reset_done(&echo->device, vq_index);
	}
	if (echo->resetting && echo->work_count == 0) {
		echo->resetting = false;
		vmsg_device_reset_done(&echo->device);
	}
	vmsg_device_used(&echo->device, vq_index);
	if (echo->stopped) {
		echo->stopped = false;
		vmsg_device_poll(&echo->device);
	}
}

static int reset(struct vmsg_device *device)
{
	struct echo_device *echo = echo_of(device);

	if (echo->waits && echo->work_count) {
		echo->resetting = true;
		return VMSG_ERR_AGAIN;
	}
	echo->work_count = 0;
	return 0;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	struct echo_device *echo = echo_of(device);

	if (echo->waits && count_work(echo, vq_index)) {
		echo->resetting_vq[vq_index] = true;
		return VMSG_ERR_AGAIN;
	}
	for (uint32_t i = 0; i < echo->work_count;) {
		if (echo->work[i].vq_index == vq_index)
			forget(echo, i);
		else
			i++;
	}
	return 0;
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	if (offset >= ECHO_WRITABLE || len > ECHO_WRITABLE - offset)
		return VMSG_ERR_INVAL;
	memcpy(device->config + offset, data, len);
	return 0;
}

static const struct vmsg_device_ops echo_ops = {
	.name = "echo",
	.device_id = ECHO_DEVICE_ID,
	.reset = reset,
	.configure = configure,
	.kick = kick,
	.reset_vq = reset_vq,
};

static void write_version(struct echo_device *echo)
{
	vmsg_put32(echo->config + ECHO_WRITABLE, echo->version);
	for (uint32_t i = ECHO_WRITABLE + 4; i < ECHO_CONFIG; i++)
		echo->config[i] = (uint8_t)(echo->version * 7 + i);
}

void echo_change(struct echo_device *echo)
{
	echo->version++;
	write_version(echo);
	vmsg_device_config_changed(&echo->device, ECHO_WRITABLE, ECHO_CONFIG - ECHO_WRITABLE);
}

void echo_device_init(struct echo_device *echo, struct pair *pair)
{
	memset(echo, 0, sizeof(*echo));
	echo->version = 1;
	write_version(echo);
	echo->async = pair->c->async;
	echo->in_order = pair->c->in_order;
	echo->dice = 1;
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		echo->vqs[i].max_size = ECHO_SIZE;
	echo->device.ops = &echo_ops;
	echo->device.offered = VMSG_BIT(VMSG_F_IN_ORDER);
	echo->device.config = echo->config;
	echo->device.config_size = ECHO_CONFIG;
	echo->device.vqs = echo->vqs;
	echo->device.vq_count = ECHO_QUEUES;
	echo->device.mem = &pair->mem;
	echo->device.split = &vmsg_vq_split_device;
	echo->device.packed = &vmsg_vq_packed_device;
	vmsg_device_init(&echo->device);
}
