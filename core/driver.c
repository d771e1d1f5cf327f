/* SPDX-License-Identifier: BSD-3-Clause */
/* Driver role: requests to one device, its events, config space, kicks (wire.md 3.2). */
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define EVENT_ROOM       16
#define CONFIG_FIXED     12u /* bytes before the data in GET_CONFIG and SET_CONFIG */
#define CONFIG_OLD_CHUNK 28u /* what QEMU of the v1 days can answer (wire.md 4.4) */
#define CONFIG_RETRIES   8u

void vmsg_driver_init(struct vmsg_driver *driver, struct vmsg_bus *bus, uint16_t dev_num,
		      const struct vmsg_driver_ops *ops)
{
	memset(driver, 0, sizeof(*driver));
	driver->bus = bus;
	driver->ops = ops;
	driver->dev_num = dev_num;
	driver->timeout_ms = 1000;
	driver->retries = 1;
	driver->reset_timeout_ms = 5000;
	driver->next = bus->drivers;
	bus->drivers = driver;
}

void vmsg_driver_exit(struct vmsg_driver *driver)
{
	struct vmsg_driver **link = &driver->bus->drivers;

	while (*link && *link != driver)
		link = &(*link)->next;
	if (*link)
		*link = driver->next;
}

int vmsg_driver_request(struct vmsg_driver *driver, struct vmsg_request *request,
			struct vmsg_msg *msg)
{
	int rc = VMSG_ERR_TIMEDOUT;

	msg->dev_num = driver->dev_num;
	for (uint32_t i = 0; i <= driver->retries && rc == VMSG_ERR_TIMEDOUT; i++) {
		if (driver->gone)
			return VMSG_ERR_SHUTDOWN;
		rc = vmsg_request_call(driver->bus, request, msg, driver->timeout_ms);
	}
	if (rc == VMSG_ERR_TIMEDOUT && driver->status) {
		struct vmsg_msg ask = { .msg_id = VMSG_GET_DEVICE_STATUS,
					.dev_num = driver->dev_num };
		struct vmsg_request look = { 0 };

		if (vmsg_request_call(driver->bus, &look, &ask, driver->timeout_ms) == 0)
			driver->status = (uint8_t)look.reply.status.status;
	}
	return rc;
}

int vmsg_driver_read_status(struct vmsg_driver *driver)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS };
	struct vmsg_request request = { 0 };
	int rc = vmsg_driver_request(driver, &request, &msg);

	if (rc < 0)
		return rc;
	driver->status = (uint8_t)request.reply.status.status;
	return driver->status;
}

/* ---- Config space ---- */

/* v1 and rfc2 always were what v2 calls strict (wire.md 2.9). */
static bool is_strict(const struct vmsg_driver *driver)
{
	return driver->bus->dialect != VMSG_V2 ||
	       vmsg_has(driver->bus->features, VMSG_F_STRICT_CONFIG_GENERATION);
}

/* One GET_CONFIG. The generation goes to *generation. */
static int read_chunk(struct vmsg_driver *driver, uint32_t offset, void *data, uint32_t len,
		      uint32_t *generation)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG };
	struct vmsg_request request = { .tail = data, .tail_size = len };
	int rc;

	msg.config.offset = offset;
	msg.config.length = len;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc == VMSG_ERR_MSGSIZE)
		return VMSG_ERR_PROTO;
	if (rc < 0)
		return rc;
	if (request.reply.config.offset != offset)
		return VMSG_ERR_PROTO;
	*generation = request.reply.config.generation;
	return request.reply.config.length == len ? 0 : VMSG_ERR_IO;
}

/* All pieces once: 0 when the generation stood still, else VMSG_ERR_BUSY. */
static int read_once(struct vmsg_driver *driver, uint32_t offset, uint8_t *data, uint32_t len,
		     uint32_t chunk)
{
	uint32_t generation = 0, first = 0;

	for (uint32_t at = 0; at < len; at += chunk) {
		uint32_t piece = len - at < chunk ? len - at : chunk;
		int rc = read_chunk(driver, offset + at, data + at, piece, &generation);

		if (rc < 0)
			return rc;
		if (at == 0)
			first = generation;
		if (generation != first)
			return VMSG_ERR_BUSY;
	}
	driver->generation = generation;
	return 0;
}

int vmsg_driver_read_config(struct vmsg_driver *driver, uint32_t offset, void *data, uint32_t len)
{
	uint32_t chunk = vmsg_bus_room(driver->bus, CONFIG_FIXED);
	int rc = VMSG_ERR_BUSY;

	if (offset > driver->config_size || len > driver->config_size - offset)
		return VMSG_ERR_INVAL;
	if (len == 0)
		return 0;
	for (uint32_t i = 0; i < CONFIG_RETRIES && rc == VMSG_ERR_BUSY; i++) {
		rc = read_once(driver, offset, data, len, chunk);
		if (rc == VMSG_ERR_TIMEDOUT && driver->bus->dialect != VMSG_V2 &&
		    chunk > CONFIG_OLD_CHUNK) {
			chunk = CONFIG_OLD_CHUNK;
			rc = VMSG_ERR_BUSY;
		}
		driver->counters.config_retries += rc == VMSG_ERR_BUSY;
	}
	return rc;
}

static int write_chunk(struct vmsg_driver *driver, uint32_t offset, const void *data, uint32_t len)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_CONFIG, .tail = data };
	uint8_t echo[VMSG_MSG_DEFAULT];
	struct vmsg_request request = { .tail = echo, .tail_size = sizeof(echo) };
	int rc;

	msg.config.generation = is_strict(driver) ? driver->generation : 0;
	msg.config.offset = offset;
	msg.config.length = len;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc < 0)
		return rc == VMSG_ERR_MSGSIZE ? VMSG_ERR_PROTO : rc;
	if (request.reply.config.offset != offset)
		return VMSG_ERR_PROTO;
	driver->generation = request.reply.config.generation;
	return request.reply.config.length == len ? 0 : VMSG_ERR_IO;
}

int vmsg_driver_write_config(struct vmsg_driver *driver, uint32_t offset, const void *data,
			     uint32_t len)
{
	uint32_t chunk = vmsg_bus_room(driver->bus, CONFIG_FIXED), generation;
	uint8_t byte;

	if (offset > driver->config_size || len > driver->config_size - offset)
		return VMSG_ERR_INVAL;
	if (chunk > VMSG_MSG_DEFAULT - CONFIG_FIXED)
		chunk = VMSG_MSG_DEFAULT - CONFIG_FIXED;
	for (uint32_t at = 0; at < len; at += chunk) {
		uint32_t piece = len - at < chunk ? len - at : chunk;
		const uint8_t *from = (const uint8_t *)data + at;
		int rc = write_chunk(driver, offset + at, from, piece);

		/* Refused: somebody was faster; look before trying once more (DRV-11). */
		if (rc == VMSG_ERR_IO && is_strict(driver)) {
			rc = read_chunk(driver, offset + at, &byte, 1, &generation);
			if (rc == 0) {
				driver->generation = generation;
				rc = write_chunk(driver, offset + at, from, piece);
			}
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

int vmsg_driver_get_shm(struct vmsg_driver *driver, uint32_t shmid, uint64_t *addr,
			uint64_t *len_bytes)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_SHM };
	struct vmsg_request request = { 0 };
	int rc;

	msg.shm.shmid = shmid;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc < 0)
		return rc;
	if (request.reply.shm.shmid != shmid)
		return VMSG_ERR_PROTO;
	*addr = request.reply.shm.address;
	*len_bytes = request.reply.shm.length;
	return *len_bytes ? 0 : VMSG_ERR_NOENT;
}

/* ---- Kicks ---- */

static bool send_kick(struct vmsg_driver *driver, uint32_t index)
{
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_AVAIL, .dev_num = driver->dev_num };
	struct vmsg_vq_driver *vq = &driver->vqs[index];
	struct vmsg_bus *bus = driver->bus;
	uint8_t buf[EVENT_ROOM];
	int rc = VMSG_ERR_NOTSUP;

	if (bus->ops->notify)
		rc = bus->ops->notify(bus, driver->dev_num, index);
	if (rc == VMSG_ERR_NOTSUP) {
		event.event.vq_index = index;
		if (vmsg_has(driver->features, VMSG_F_NOTIFICATION_DATA))
			event.event.next_offset = vmsg_vq_next_offset(vq);
		rc = vmsg_bus_send(bus, &event, buf, sizeof(buf));
	}
	vq->owes_kick = rc == VMSG_ERR_AGAIN;
	driver->counters.kicks += rc == 0;
	return !vq->owes_kick;
}

void vmsg_driver_kick_again(struct vmsg_driver *driver, uint32_t index)
{
	if (driver->gone || !driver->started || send_kick(driver, index))
		return;
	driver->owes_kick = true;
	driver->bus->pending = true;
	driver->bus->counters.events_delayed++;
}

void vmsg_driver_kick(struct vmsg_driver *driver, uint32_t index)
{
	if (vmsg_vq_publish(&driver->vqs[index]))
		vmsg_driver_kick_again(driver, index);
}

bool vmsg_driver_flush(struct vmsg_driver *driver)
{
	for (uint32_t i = 0; driver->owes_kick && i < driver->vq_count; i++) {
		if (driver->vqs[i].owes_kick && !send_kick(driver, i))
			return false;
	}
	driver->owes_kick = false;
	return true;
}

/* ---- Events ---- */

void vmsg_driver_notified(struct vmsg_driver *driver, uint32_t index)
{
	if (!driver->started || driver->gone)
		return;
	if (index >= driver->vq_count || !driver->vqs[index].size) {
		driver->counters.bad_events++;
		return;
	}
	driver->counters.used_events++;
	driver->ops->used(driver, index);
}

void vmsg_driver_poll(struct vmsg_driver *driver)
{
	for (uint32_t i = 0; i < driver->vq_count; i++) {
		if (driver->started && !driver->gone && driver->vqs[i].size)
			driver->ops->used(driver, i);
	}
}

void vmsg_driver_handle(struct vmsg_driver *driver, const struct vmsg_msg *msg)
{
	/* What comes between a reset and the new start belongs to the past (wire.md 4.10). */
	if (!driver->status || driver->gone)
		return;
	if (msg->msg_id == VMSG_EVENT_USED) {
		vmsg_driver_notified(driver, msg->event.vq_index);
		return;
	}
	driver->counters.config_events++;
	driver->generation = msg->config.generation;
	if (msg->config.device_status & VMSG_STATUS_NEEDS_RESET)
		driver->needs_reset = true;
	if (driver->ops->config_changed)
		driver->ops->config_changed(driver, msg->config.device_status);
}

void vmsg_driver_lost(struct vmsg_driver *driver)
{
	if (driver->gone)
		return;
	driver->gone = true;
	driver->started = false;
	if (driver->ops->gone)
		driver->ops->gone(driver);
}
