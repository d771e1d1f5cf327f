/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver side of a bus: requests and their answers, enumeration, PING, EVENT_DEVICE. */
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define WINDOW_SLOTS 256u  /* device numbers asked for at a time */
#define WINDOW_LIMIT 4096u /* answers to GET_DEVICES before a peer counts as broken */

/* ---- Requests ---- */

/* Peers whose answers carry no token of ours: rfc2 has none, some do not echo (peers.md 5). */
static bool tokenless(const struct vmsg_bus *bus)
{
	return bus->dialect == VMSG_RFC2 || (bus->quirks & VMSG_QUIRK_NO_ECHO);
}

static bool same_kind(const struct vmsg_request *request, uint8_t type, uint8_t msg_id,
		      uint16_t dev_num)
{
	return request->msg_id == msg_id && request->dev_num == dev_num &&
	       request->type == (type & VMSG_TYPE_BUS);
}

static bool answers(const struct vmsg_bus *bus, const struct vmsg_msg *msg,
		    const struct vmsg_request *request)
{
	if (!same_kind(request, msg->type, msg->msg_id, msg->dev_num))
		return false;
	if (msg->token == request->token || tokenless(bus))
		return true;
	/* QEMU of the v1 days answers bus messages with token 0 (wire.md 4.7). */
	return bus->dialect != VMSG_V2 && (msg->type & VMSG_TYPE_BUS) && msg->token == 0;
}

static void finish(struct vmsg_bus *bus, struct vmsg_request *request, int result)
{
	vmsg_request_cancel(bus, request);
	request->result = result;
	if (request->done)
		request->done(request);
}

static void handle_response(struct vmsg_bus *bus, const struct vmsg_msg *msg)
{
	struct vmsg_request *request = bus->requests;
	int result = 0;

	while (request && !answers(bus, msg, request))
		request = request->next;
	if (!request) {
		bus->counters.stray++;
		return;
	}
	request->reply = *msg;
	request->reply.tail = request->tail;
	if (msg->tail_bytes > request->tail_size)
		result = VMSG_ERR_MSGSIZE;
	else if (msg->tail_bytes)
		memcpy(request->tail, msg->tail, msg->tail_bytes);
	finish(bus, request, result);
}

static bool token_in_use(const struct vmsg_bus *bus, uint16_t token)
{
	for (const struct vmsg_request *r = bus->requests; r; r = r->next) {
		if (r->token == token)
			return true;
	}
	return token == 0;
}

static uint16_t choose_token(struct vmsg_bus *bus, const struct vmsg_msg *msg)
{
	/* The probe that tells dialects apart needs its own number (wire.md 5.3). */
	if (bus->dialect == VMSG_AUTO && msg->msg_id == VMSG_GET_DEVICE_INFO && !msg->type)
		return VMSG_AUTO_TOKEN;
	do {
		bus->next_token++;
	} while (token_in_use(bus, bus->next_token));
	return bus->next_token;
}

int vmsg_request_start(struct vmsg_bus *bus, struct vmsg_request *request,
		       const struct vmsg_msg *msg, uint32_t timeout_ms)
{
	struct vmsg_msg out = *msg;
	int rc;

	VMSG_ASSERT(!request->waiting);
	for (struct vmsg_request *r = bus->requests; r && tokenless(bus); r = r->next) {
		if (same_kind(r, msg->type, msg->msg_id, msg->dev_num))
			return VMSG_ERR_AGAIN;
	}
	out.token = choose_token(bus, msg);
	request->type = msg->type;
	request->msg_id = msg->msg_id;
	request->dev_num = msg->dev_num;
	request->token = out.token;
	request->since_ms = bus->now_ms;
	request->timeout_ms = timeout_ms;

	/* On the list first: a carrier may deliver the answer before send returns. */
	request->waiting = true;
	request->next = bus->requests;
	bus->requests = request;
	rc = vmsg_bus_send(bus, &out, bus->frame, bus->max_msg_size);
	if (rc < 0)
		vmsg_request_cancel(bus, request);
	return rc;
}

void vmsg_request_cancel(struct vmsg_bus *bus, struct vmsg_request *request)
{
	struct vmsg_request **link = &bus->requests;

	while (*link && *link != request)
		link = &(*link)->next;
	if (*link)
		*link = request->next;
	request->waiting = false;
}

void vmsg_request_expire(struct vmsg_bus *bus)
{
	struct vmsg_request *request = bus->requests;

	while (request) {
		if (bus->now_ms - request->since_ms < request->timeout_ms) {
			request = request->next;
			continue;
		}
		bus->counters.timeouts++;
		finish(bus, request, VMSG_ERR_TIMEDOUT);
		request = bus->requests; /* done() may have changed the list */
	}
}

int vmsg_request_call(struct vmsg_bus *bus, struct vmsg_request *request,
		      const struct vmsg_msg *msg, uint32_t timeout_ms)
{
	uint32_t start = bus->now_ms, passed = 0;
	int rc = vmsg_request_start(bus, request, msg, timeout_ms);

	while (rc == VMSG_ERR_AGAIN && passed < timeout_ms) {
		rc = bus->ops->wait(bus, 1);
		if (rc == 0)
			rc = vmsg_request_start(bus, request, msg, timeout_ms - passed);
		passed = bus->now_ms - start;
	}
	if (rc < 0)
		return rc == VMSG_ERR_AGAIN ? VMSG_ERR_TIMEDOUT : rc;

	while (request->waiting) {
		passed = bus->now_ms - request->since_ms;
		rc = bus->ops->wait(bus, passed < request->timeout_ms ? request->timeout_ms - passed
								      : 0);
		if (rc < 0 && request->waiting) {
			vmsg_request_cancel(bus, request);
			return rc;
		}
		vmsg_request_expire(bus);
	}
	return request->result;
}

/* ---- What comes unasked ---- */

static struct vmsg_driver *find_driver(struct vmsg_bus *bus, uint32_t dev_num)
{
	struct vmsg_driver *driver = bus->drivers;

	while (driver && driver->dev_num != dev_num)
		driver = driver->next;
	return driver;
}

static void handle_event_device(struct vmsg_bus *bus, const struct vmsg_msg *msg)
{
	uint32_t state = msg->event_device.device_bus_state;
	uint32_t dev_num = msg->event_device.device_number;
	struct vmsg_driver *driver = find_driver(bus, dev_num);

	/* May come twice or for a device never seen (V1-DRV-05): lost is said once. */
	if (state == VMSG_DEVICE_REMOVED && driver)
		vmsg_driver_lost(driver);
	if (bus->device_event)
		bus->device_event(bus, (uint16_t)dev_num, state);
}

static void handle(struct vmsg_bus *bus, struct vmsg_msg *msg)
{
	struct vmsg_driver *driver;

	if (msg->type & VMSG_TYPE_RESPONSE) {
		handle_response(bus, msg);
	} else if (msg->type & VMSG_TYPE_BUS) {
		if (msg->msg_id == VMSG_EVENT_DEVICE)
			handle_event_device(bus, msg);
		else
			bus->counters.malformed++;
	} else if (msg->msg_id == VMSG_EVENT_USED || msg->msg_id == VMSG_EVENT_CONFIG) {
		driver = find_driver(bus, msg->dev_num);
		if (driver)
			vmsg_driver_handle(driver, msg);
		else
			bus->counters.no_device++;
	} else { /* requests go the other way */
		bus->counters.malformed++;
	}
}

static bool flush(struct vmsg_bus *bus)
{
	for (struct vmsg_driver *driver = bus->drivers; driver; driver = driver->next) {
		if (!vmsg_driver_flush(driver))
			return false;
	}
	return true;
}

static const struct vmsg_bus_side driver_side = {
	.stops_reading = false,
	.handle = handle,
	.flush = flush,
};

void vmsg_bus_init_driver(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features)
{
	VMSG_ASSERT(dialect != VMSG_AUTO || bus->learn);
	bus->reply = bus->ping;
	vmsg_bus_init_common(bus, dialect, features, &driver_side);
}

/* ---- Bus messages of our own ---- */

static uint32_t mark(uint8_t *bitmap, uint32_t slots, const struct vmsg_msg *reply)
{
	const uint8_t *map = reply->tail;
	uint32_t found = 0;

	for (uint32_t i = 0; i < reply->devices.count; i++) {
		uint32_t dev_num = reply->devices.offset + i;
		uint8_t bit = (uint8_t)(1u << dev_num % 8);

		if (dev_num >= slots || !(map[i / 8] & 1u << i % 8) || (bitmap[dev_num / 8] & bit))
			continue;
		bitmap[dev_num / 8] |= bit;
		found++;
	}
	return found;
}

static int walk_devices(struct vmsg_bus *bus, uint8_t *bitmap, uint32_t slots, uint32_t timeout_ms)
{
	struct vmsg_msg ask = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_GET_DEVICES };
	uint32_t room = (bus->max_msg_size - 14u) * 8;
	uint32_t window = room < WINDOW_SLOTS ? room & ~7u : WINDOW_SLOTS;
	uint32_t found = 0, offset = 0, next;
	uint8_t map[WINDOW_SLOTS / 8];

	for (uint32_t i = 0; i < WINDOW_LIMIT; i++) {
		struct vmsg_request request = { .tail = map, .tail_size = sizeof(map) };
		int rc;

		ask.devices.offset = offset;
		ask.devices.count = window < slots - offset ? window : slots - offset;
		rc = vmsg_request_call(bus, &request, &ask, timeout_ms);
		if (rc < 0)
			return rc;
		if (request.reply.devices.offset != offset)
			return VMSG_ERR_PROTO;
		found += mark(bitmap, slots, &request.reply);
		/* Peers of the field do not all end with 0 (wire.md 4.3). */
		next = request.reply.devices.next_offset;
		if (next <= offset || next >= slots)
			return (int)found;
		offset = next;
	}
	return VMSG_ERR_PROTO;
}

int vmsg_bus_get_devices(struct vmsg_bus *bus, uint8_t *bitmap, uint32_t slots, uint32_t timeout_ms)
{
	int rc;

	VMSG_ASSERT(slots && slots % 8 == 0 && slots <= 65536);
	memset(bitmap, 0, slots / 8);
	rc = walk_devices(bus, bitmap, slots, timeout_ms);
	/* An rfc2 device cannot read the 8-byte form: ask again in its own. */
	if (rc == VMSG_ERR_TIMEDOUT && bus->dialect == VMSG_AUTO) {
		bus->dialect = VMSG_RFC2;
		rc = walk_devices(bus, bitmap, slots, timeout_ms);
		if (rc < 0)
			bus->dialect = VMSG_AUTO;
	}
	return rc;
}

int vmsg_bus_ping(struct vmsg_bus *bus, uint32_t data, uint32_t timeout_ms)
{
	struct vmsg_msg ask = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING };
	struct vmsg_request request = { 0 };
	int rc;

	ask.ping.data = data;
	rc = vmsg_request_call(bus, &request, &ask, timeout_ms);
	if (rc == 0 && request.reply.ping.data != data)
		rc = VMSG_ERR_PROTO;
	return rc;
}

void vmsg_bus_peer_gone(struct vmsg_bus *bus)
{
	bus->held_bytes = 0;
	bus->pending = false;
	while (bus->requests)
		finish(bus, bus->requests, VMSG_ERR_SHUTDOWN);
	for (struct vmsg_driver *driver = bus->drivers; driver; driver = driver->next)
		vmsg_driver_lost(driver);
}
