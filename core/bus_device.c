/* SPDX-License-Identifier: BSD-3-Clause */
/* The device side of a bus: routing, the held reply, GET_DEVICES, PING, EVENT_DEVICE. */
#include <vmsg/device.h>
#include <vmsg/port.h>

#define EVENT_ROOM 24 /* the largest event this file sends */

static void answer_get_devices(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	uint32_t offset = msg->devices.offset, count = msg->devices.count;
	uint32_t room = vmsg_bus_room(bus, 6);
	uint8_t *bitmap = bus->reply + bus->max_msg_size - room;

	if (count > room * 8)
		count = room * 8;
	if (count > 65536 - offset)
		count = 65536 - offset;
	/* Before v2 windows are whole bytes; peers that ask otherwise get fewer (V1-BUS-06). */
	if (bus->dialect != VMSG_V2)
		count &= ~7u;
	memset(bitmap, 0, (count + 7) / 8);
	for (struct vmsg_device *device = bus->devices; device; device = device->next) {
		uint32_t slot = device->dev_num - offset;

		if (device->removed || device->dev_num < offset)
			continue;
		if (slot < count)
			bitmap[slot / 8] |= (uint8_t)(1u << slot % 8);
		else if (count)
			msg->devices.next_offset = offset + count;
	}
	msg->devices.count = count;
	msg->tail = bitmap;
	vmsg_bus_reply(bus, msg);
}

/*
 * A number without a device. v2 says nothing to it (BUS-06, wire.md 4.1); drivers of the older
 * dialects wait for every answer for many seconds, so they get zeros.
 */
static void answer_absent(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	bus->counters.no_device++;
	if (bus->dialect == VMSG_V2 || (msg->msg_id & VMSG_ID_EVENT))
		return;
	/* Index, offset and the like are echoed; what counts or states something is 0. */
	if (msg->msg_id == VMSG_GET_CONFIG || msg->msg_id == VMSG_SET_CONFIG)
		msg->config.length = 0;
	else if (msg->msg_id == VMSG_GET_DEVICE_FEATURES)
		msg->features.num_blocks = 0;
	else if (msg->msg_id == VMSG_SET_DEVICE_STATUS)
		msg->status.status = 0;
	vmsg_bus_reply(bus, msg);
}

static struct vmsg_device *find_device(struct vmsg_bus *bus, uint16_t dev_num)
{
	struct vmsg_device *device = bus->devices;

	while (device && (device->dev_num != dev_num || device->removed))
		device = device->next;
	return device;
}

static void handle(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	struct vmsg_device *device;

	/* Nothing on this side asks, so nothing is answered: a PING storm ends here (rule 5). */
	if (msg->type & VMSG_TYPE_RESPONSE) {
		bus->counters.stray++;
	} else if (!(msg->type & VMSG_TYPE_BUS)) {
		device = find_device(bus, msg->dev_num);
		if (device)
			vmsg_device_handle(device, msg);
		else
			answer_absent(bus, msg);
	} else if (msg->msg_id == VMSG_GET_DEVICES) {
		answer_get_devices(bus, msg);
	} else { /* EVENT_DEVICE travels the other way */
		bus->counters.malformed++;
	}
}

/* EVENT_DEVICE for an arrival or a departure. False when there is no room. */
static bool flush_presence(struct vmsg_bus *bus, struct vmsg_device *device)
{
	struct vmsg_msg event = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_EVENT_DEVICE };
	uint8_t buf[EVENT_ROOM];

	if (!device->announce)
		return true;
	event.event_device.device_number = device->dev_num;
	event.event_device.device_bus_state = device->announce;
	if (vmsg_bus_send(bus, &event, buf, sizeof(buf)) == VMSG_ERR_AGAIN) {
		bus->counters.events_delayed++;
		return false;
	}
	device->announce = 0;
	return true;
}

static bool flush(struct vmsg_bus *bus)
{
	struct vmsg_device **link = &bus->devices;

	while (*link) {
		struct vmsg_device *device = *link;

		if (!flush_presence(bus, device))
			return false;
		if (device->removed) {
			*link = device->next;
			device->bus = NULL;
			continue;
		}
		if (!vmsg_device_flush(device))
			return false;
		link = &device->next;
	}
	return true;
}

static const struct vmsg_bus_side device_side = {
	.stops_reading = true,
	.handle = handle,
	.flush = flush,
};

void vmsg_bus_init_device(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features)
{
	VMSG_ASSERT(dialect != VMSG_AUTO);
	bus->reply = bus->frame;
	vmsg_bus_init_common(bus, dialect, features, &device_side);
}

int vmsg_bus_add(struct vmsg_bus *bus, struct vmsg_device *device, uint16_t dev_num)
{
	struct vmsg_device **link = &bus->devices;

	VMSG_ASSERT(!device->bus);
	while (*link && (*link)->dev_num < dev_num)
		link = &(*link)->next;
	if (*link && (*link)->dev_num == dev_num)
		return VMSG_ERR_BUSY;
	device->next = *link;
	*link = device;
	device->bus = bus;
	device->dev_num = dev_num;
	device->removed = false;
	device->announce = VMSG_DEVICE_ADDED;
	bus->pending = true;
	vmsg_bus_flush(bus);
	return 0;
}

void vmsg_bus_remove(struct vmsg_bus *bus, struct vmsg_device *device)
{
	VMSG_ASSERT(device->bus == bus && !device->removed);
	device->removed = true;
	/* A departure nobody heard the arrival of is not worth a word. */
	device->announce = device->announce == VMSG_DEVICE_ADDED ? 0 : VMSG_DEVICE_REMOVED;
	for (uint32_t i = 0; i < device->vq_count; i++)
		vmsg_vq_device_reset(&device->vqs[i]);
	/* As new, should it be offered again. */
	device->started = false;
	device->resetting = false;
	device->config_event = false;
	device->status = 0;
	bus->pending = true;
	vmsg_bus_flush(bus);
}

void vmsg_bus_peer_reset(struct vmsg_bus *bus)
{
	bus->held_bytes = 0;
	for (struct vmsg_device *device = bus->devices; device; device = device->next) {
		device->announce = 0;
		if (!device->removed)
			vmsg_device_reset(device);
	}
	/* Removed devices leave the list now: nobody is there to be told. */
	bus->pending = true;
	vmsg_bus_flush(bus);
}
