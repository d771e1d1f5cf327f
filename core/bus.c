/* SPDX-License-Identifier: BSD-3-Clause */
/* What both sides of a bus share: framing, sending, the order of receipt (wire.md 3.1). */
#include <vmsg/bus.h>
#include <vmsg/port.h>

void vmsg_bus_init_common(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features,
			  const struct vmsg_bus_side *side)
{
	static const uint8_t smallest_maximum[] = {
		[VMSG_V2] = VMSG_MSG_MIN_V2,
		[VMSG_V1] = VMSG_MSG_MIN_V1,
		[VMSG_RFC2] = VMSG_MSG_MIN_RFC2,
		[VMSG_AUTO] = VMSG_MSG_MIN_V2,
	};

	VMSG_ASSERT(bus->ops && bus->ops->send && bus->frame);
	VMSG_ASSERT(bus->max_msg_size >= smallest_maximum[dialect]);
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

uint32_t vmsg_bus_room(const struct vmsg_bus *bus, uint32_t fixed_bytes)
{
	return bus->max_msg_size - vmsg_msg_header_bytes((enum vmsg_dialect)bus->dialect) -
	       fixed_bytes;
}

void vmsg_bus_reply(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	int len;

	msg->type |= VMSG_TYPE_RESPONSE;
	len = vmsg_msg_encode((enum vmsg_dialect)bus->dialect, msg, bus->reply, bus->max_msg_size);
	VMSG_ASSERT(!vmsg_bus_holds(bus) && len > 0);
	if (vmsg_bus_send_frame(bus, bus->reply, (uint32_t)len) == VMSG_ERR_AGAIN) {
		bus->held_bytes = (uint32_t)len;
		bus->counters.held++;
	}
}

static void handle(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	if (msg->type != VMSG_TYPE_BUS || msg->msg_id != VMSG_PING)
		bus->side->handle(bus, msg);
	else if (vmsg_bus_holds(bus)) /* rule 2 of design.md 6 */
		bus->counters.pings_dropped++;
	else
		vmsg_bus_reply(bus, msg);
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

	if (len > bus->max_msg_size)
		len = bus->max_msg_size;
	rc = vmsg_msg_decode((enum vmsg_dialect)bus->dialect, buf, len, &msg);
	if (rc == VMSG_ERR_NOENT) {
		bus->counters.unknown++;
	} else if (rc < 0 || ((msg.type & VMSG_TYPE_BUS) && msg.dev_num)) {
		bus->counters.malformed++;
	} else {
		bus->busy = true;
		handle(bus, &msg);
		bus->busy = false;
		vmsg_bus_flush(bus);
	}
	return 0;
}

bool vmsg_bus_flush(struct vmsg_bus *bus)
{
	if (!vmsg_bus_holds(bus) && !bus->pending)
		return true;
	/* A reply is being made: nothing may come between it and its buffer. */
	if (bus->busy)
		return false;
	if (vmsg_bus_holds(bus)) {
		if (vmsg_bus_send_frame(bus, bus->reply, bus->held_bytes) == VMSG_ERR_AGAIN)
			return false;
		bus->held_bytes = 0;
	}
	bus->pending = !bus->side->flush(bus);
	return !bus->pending;
}
