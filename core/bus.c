/* SPDX-License-Identifier: BSD-3-Clause */
/* What both sides of a bus share: framing, sending, the order of receipt (wire.md 3.1). */
#include <vmsg/bus.h>
#include <vmsg/port.h>

static uint16_t smallest_maximum(enum vmsg_dialect dialect)
{
	switch (dialect) {
	case VMSG_V1:
		return VMSG_MSG_MIN_V1;
	case VMSG_RFC2:
		return VMSG_MSG_MIN_RFC2;
	default:
		return VMSG_MSG_MIN_V2;
	}
}

void vmsg_bus_init_common(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features,
			  const struct vmsg_bus_side *side)
{
	VMSG_ASSERT(bus->ops && bus->ops->send && bus->frame);
	VMSG_ASSERT(bus->max_msg_size >= smallest_maximum(dialect));
	bus->side = side;
	bus->dialect = (uint8_t)dialect;
	bus->revision = 1;
	bus->features = features;
	bus->next_token = 0;
	bus->held_bytes = 0;
	bus->pending = false;
}

int vmsg_bus_send_frame(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	int rc = bus->ops->send(bus, buf, len);

	if (rc == 0) {
		bus->counters.sent++;
		if (bus->trace)
			bus->trace(bus, true, buf, len);
	} else if (rc != VMSG_ERR_AGAIN) {
		bus->counters.send_failed++;
	}
	return rc;
}

int vmsg_bus_send(struct vmsg_bus *bus, const struct vmsg_msg *msg, void *buf, uint32_t size)
{
	int len = vmsg_msg_encode((enum vmsg_dialect)bus->dialect, msg, buf, size);

	return len < 0 ? len : vmsg_bus_send_frame(bus, buf, (uint32_t)len);
}

int vmsg_bus_receive(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct vmsg_msg msg;
	int rc;

	/* Rule 1 of design.md 6: with a reply held, nothing more is read. */
	if (bus->side->stops_reading && vmsg_bus_holds(bus) && !vmsg_bus_flush(bus))
		return VMSG_ERR_AGAIN;
	bus->counters.received++;
	if (bus->dialect == VMSG_AUTO && bus->learn)
		bus->dialect = (uint8_t)bus->learn(buf, len);
	if (bus->trace)
		bus->trace(bus, false, buf, len);

	rc = vmsg_msg_decode((enum vmsg_dialect)bus->dialect, buf, len, &msg);
	if (rc == 0 && vmsg_msg_size((enum vmsg_dialect)bus->dialect, buf, len) > bus->max_msg_size)
		rc = VMSG_ERR_BADMSG;
	if (rc == 0 && (msg.type & VMSG_TYPE_BUS) && msg.dev_num)
		rc = VMSG_ERR_BADMSG;
	if (rc == 0) {
		bus->busy = true;
		bus->side->handle(bus, &msg);
		bus->busy = false;
		vmsg_bus_flush(bus);
	} else if (rc == VMSG_ERR_NOENT) {
		bus->counters.unknown++;
	} else {
		bus->counters.malformed++;
	}
	return 0;
}

bool vmsg_bus_flush(struct vmsg_bus *bus)
{
	if (!vmsg_bus_holds(bus) && !bus->pending)
		return true;
	/* A reply is being made: nothing may come between it and the frame buffer. */
	if (bus->busy)
		return false;
	bus->pending = false;
	if (!bus->side->flush(bus)) {
		bus->pending = true;
		return false;
	}
	return true;
}
