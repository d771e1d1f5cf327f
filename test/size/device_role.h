/* SPDX-License-Identifier: BSD-3-Clause */
/* A device with a queue and some config bytes, as a program on a microcontroller would have it. */
#ifndef TEST_SIZE_DEVICE_ROLE_H
#define TEST_SIZE_DEVICE_ROLE_H

#include <vmsg/device.h>

#include "carrier.h"

static void serve(struct vmsg_device *served, uint32_t vq_index)
{
	struct vmsg_iov iov[QUEUE_SIZE];
	struct vmsg_chain chain = { .iov = iov, .iov_max = QUEUE_SIZE };

	while (vmsg_device_pop(served, vq_index, &chain) > 0)
		vmsg_device_push(served, vq_index, &chain, 0);
	vmsg_device_used(served, vq_index);
}

static const struct vmsg_device_ops device_ops = {
	.name = "size",
	.device_id = 4,
	.kick = serve,
};

static const struct vmsg_region region = {
	.len_bytes = sizeof(shared),
	.ptr = shared,
	.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
	.fd = -1,
};

static struct vmsg_bus device_bus = {
	.ops = &carrier_ops,
	.frame = frame,
	.max_msg_size = sizeof(frame),
};
static struct vmsg_mem mem;
static uint8_t device_config[8];
static struct vmsg_vq_device device_vq = { .max_size = QUEUE_SIZE };
static struct vmsg_device device = {
	.ops = &device_ops,
	.offered = VMSG_BIT(VMSG_F_EVENT_IDX),
	.config = device_config,
	.config_size = sizeof(device_config),
	.vqs = &device_vq,
	.vq_count = 1,
	.mem = &mem,
};

/* The formats are what the caller wants to have linked; NULL for none. */
static inline int run_device(const struct vmsg_vq_device_format *split,
			     const struct vmsg_vq_device_format *packed)
{
	int error = vmsg_mem_init(&mem, &region, 1);

	if (error)
		return error;
	device.split = split;
	device.packed = packed;
	vmsg_bus_init_device(&device_bus, VMSG_V2, 0);
	vmsg_device_init(&device);
	error = vmsg_bus_add(&device_bus, &device, 0);
	if (error)
		return error;
	do {
		error = vmsg_bus_receive(&device_bus, received, sizeof(received));
		vmsg_device_poll(&device);
	} while (vmsg_bus_flush(&device_bus) && !error);
	return error;
}

#endif
