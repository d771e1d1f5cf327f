/* SPDX-License-Identifier: BSD-3-Clause */
/* A driver from nothing to I/O and back, as a program on a microcontroller would have it. */
#ifndef TEST_SIZE_DRIVER_ROLE_H
#define TEST_SIZE_DRIVER_ROLE_H

#include <vmsg/driver.h>

#include "carrier.h"

static struct vmsg_bus driver_bus = {
	.ops = &carrier_ops,
	.frame = frame,
	.max_msg_size = sizeof(frame),
};
static struct vmsg_driver driver;
static struct vmsg_vq_driver driver_vq;
static struct vmsg_vq_state state[QUEUE_SIZE];
static struct vmsg_arena arena = { .ptr = shared, .len_bytes = sizeof(shared) };
static uint8_t config[8];

static void take_used(struct vmsg_driver *done, uint32_t vq_index)
{
	void *cookie;
	uint32_t written;

	(void)done;
	(void)vq_index;
	while (vmsg_vq_get(&driver_vq, &cookie, &written) > 0)
		;
}

static const struct vmsg_driver_ops driver_ops = { .used = take_used };

/* The formats are what the caller wants to have linked; NULL for none. */
static inline int run_driver(const struct vmsg_vq_driver_format *split,
			     const struct vmsg_vq_driver_format *packed)
{
	struct vmsg_buf buf = { .len = 16 };
	int error;

	vmsg_bus_init_driver(&driver_bus, VMSG_V2, 0);
	vmsg_driver_init(&driver, &driver_bus, 0, &driver_ops);
	driver.split = split;
	driver.packed = packed;
	driver.vqs = &driver_vq;
	driver.vq_count = 1;
	error = vmsg_driver_identify(&driver);
	if (!error)
		error = vmsg_driver_negotiate(&driver, VMSG_BIT(VMSG_F_EVENT_IDX));
	if (!error)
		error = vmsg_driver_read_config(&driver, 0, config, sizeof(config));
	if (!error)
		error = vmsg_driver_setup_vq(&driver, 0, QUEUE_SIZE, 0, &arena, state);
	if (!error)
		error = vmsg_driver_ready(&driver);
	if (!error)
		error = vmsg_vq_add(&driver_vq, &buf, 0, 1, &buf);
	if (error)
		return error;
	vmsg_driver_kick(&driver, 0);
	driver_bus.ops->wait(&driver_bus, 10);
	vmsg_bus_flush(&driver_bus);
	return vmsg_driver_reset(&driver);
}

#endif
