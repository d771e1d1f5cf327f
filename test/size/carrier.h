/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The smallest carrier there can be, for programs that are linked and measured and never run: what
 * they weigh is the library.
 */
#ifndef TEST_SIZE_CARRIER_H
#define TEST_SIZE_CARRIER_H

#include <vmsg/bus.h>
#include <vmsg/mem.h>

#define QUEUE_SIZE 16

static uint8_t frame[VMSG_MSG_DEFAULT];
static uint8_t received[VMSG_MSG_DEFAULT];
static uint8_t shared[4096];

static inline int carrier_send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	(void)bus;
	(void)buf;
	(void)len;
	return 0;
}

static inline int carrier_wait(struct vmsg_bus *bus, uint32_t ms)
{
	bus->now_ms += ms;
	return vmsg_bus_receive(bus, received, sizeof(received));
}

static const struct vmsg_bus_ops carrier_ops = {
	.name = "carrier",
	.send = carrier_send,
	.wait = carrier_wait,
};

#endif
