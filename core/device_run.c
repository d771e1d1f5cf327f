/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role, while it runs: events, virtqueues for the model, reset (wire.md 3.3). */
#include <vmsg/device.h>
#include <vmsg/port.h>

#define EVENT_ROOM 64

static bool is_v2(const struct vmsg_device *device)
{
	return device->bus->dialect == VMSG_V2;
}

/* v1 and rfc2 always were what v2 calls strict (wire.md 2.9). */
bool vmsg_device_is_strict(const struct vmsg_device *device)
{
	if (!is_v2(device))
		return !(device->bus->quirks & VMSG_QUIRK_ANY_GENERATION);
	return vmsg_has(device->bus->features, VMSG_F_STRICT_CONFIG_GENERATION);
}

void vmsg_device_init(struct vmsg_device *device)
{
	VMSG_ASSERT(device->ops && (device->split || device->packed) && device->mem);
	VMSG_ASSERT(device->vq_count <= 65536 && (device->config || !device->config_size));
	VMSG_ASSERT(device->admin_vq_count ? device->admin_vq_start <= device->vq_count &&
			    device->admin_vq_count <= device->vq_count - device->admin_vq_start
					   : !device->admin_vq_start);
	device->offered |= VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(VMSG_F_INDIRECT_DESC) |
			   VMSG_BIT(VMSG_F_EVENT_IDX) | VMSG_BIT(VMSG_F_RING_RESET) |
			   VMSG_BIT(VMSG_F_NOTIFICATION_DATA);
	if (device->packed)
		device->offered |= VMSG_BIT(VMSG_F_RING_PACKED);
	for (uint32_t i = 0; i < device->vq_count; i++)
		VMSG_ASSERT(device->vqs[i].max_size <= VMSG_VQ_MAX_SIZE);
}

/* ---- Events ---- */

static bool send_config_event(struct vmsg_device *device)
{
	struct vmsg_msg event = {
		.msg_id = VMSG_EVENT_CONFIG,
		.dev_num = device->dev_num,
		.config = { .device_status = device->status, .generation = device->generation },
	};
	uint32_t len = device->changed_bytes;
	uint8_t buf[EVENT_ROOM];
	uint32_t room = device->bus->max_msg_size < sizeof(buf) ? device->bus->max_msg_size
								: (uint32_t)sizeof(buf);
	int rc;

	/* The range with its data, or nothing: peers drop a range without data (wire.md 4.9). */
	if (len && len <= room - 24) {
		event.config.offset = device->changed_offset;
		event.config.length = len;
		event.tail = device->config + device->changed_offset;
	} else if (len && vmsg_device_is_strict(device) && is_v2(device)) {
		event.config.offset = device->changed_offset;
		event.config.length = len;
	}
	rc = vmsg_bus_send(device->bus, &event, buf, room);
	if (rc == VMSG_ERR_AGAIN)
		return false;
	device->counters.config_events++;
	device->changed_bytes = 0;
	device->config_event = false;
	return true;
}

static bool send_used(struct vmsg_device *device, uint32_t index)
{
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_USED, .dev_num = device->dev_num };
	struct vmsg_bus *bus = device->bus;
	uint8_t buf[EVENT_ROOM];
	int rc = VMSG_ERR_NOTSUP;

	event.event.vq_index = index;
	if (bus->ops->notify)
		rc = bus->ops->notify(bus, device->dev_num, index);
	if (rc == VMSG_ERR_NOTSUP)
		rc = vmsg_bus_send(bus, &event, buf, sizeof(buf));
	return rc != VMSG_ERR_AGAIN;
}

static void owe(struct vmsg_device *device)
{
	device->bus->pending = true;
	device->bus->counters.events_delayed++;
}

/* The answer to a RESET_VQUEUE that took its time. */
static void send_reset_vq_done(struct vmsg_device *device, struct vmsg_vq_device *vq)
{
	struct vmsg_msg reply = {
		.msg_id = VMSG_RESET_VQUEUE,
		.dev_num = device->dev_num,
		.token = vq->reset_token,
	};

	vq->owes &= (uint8_t)~VMSG_VQ_OWES_RESET_DONE;
	vmsg_bus_reply(device->bus, &reply);
}

bool vmsg_device_flush(struct vmsg_device *device)
{
	if (device->config_event && !send_config_event(device))
		return false;
	for (uint32_t i = 0; i < device->vq_count; i++) {
		struct vmsg_vq_device *vq = &device->vqs[i];

		if (vq->owes & VMSG_VQ_OWES_RESET_DONE) {
			send_reset_vq_done(device, vq);
			if (vmsg_bus_holds(device->bus))
				return false;
		}
		if (vq->owes & VMSG_VQ_OWES_USED) {
			if (!send_used(device, i))
				return false;
			vq->owes &= (uint8_t)~VMSG_VQ_OWES_USED;
		}
	}
	return true;
}

void vmsg_device_used(struct vmsg_device *device, uint32_t index)
{
	struct vmsg_vq_device *vq = &device->vqs[index];

	if (!vmsg_device_live(device) || !vq->enabled || vq->broken || !vmsg_vq_used_event(vq))
		return;
	device->counters.used_notifications++;
	if (!send_used(device, index)) {
		vq->owes |= VMSG_VQ_OWES_USED;
		owe(device);
	}
}

static void tell_config(struct vmsg_device *device)
{
	device->config_event = true;
	if (device->bus && !device->removed && !send_config_event(device))
		owe(device);
}

void vmsg_device_config_changed(struct vmsg_device *device, uint32_t offset, uint32_t len)
{
	uint32_t end = offset + len;

	VMSG_ASSERT(offset <= device->config_size && len <= device->config_size - offset);
	device->generation++;
	/* Before the driver is there, nobody holds an older copy. */
	if (!device->status)
		return;
	if (device->config_event && device->changed_bytes && len) {
		uint32_t old_end = device->changed_offset + device->changed_bytes;

		offset = offset < device->changed_offset ? offset : device->changed_offset;
		end = end > old_end ? end : old_end;
	} else if (device->config_event) {
		end = offset; /* one of the two did not say where */
	}
	device->changed_offset = offset;
	device->changed_bytes = end - offset;
	tell_config(device);
}

void vmsg_device_needs_reset(struct vmsg_device *device)
{
	if (device->status & VMSG_STATUS_NEEDS_RESET)
		return;
	device->counters.needs_reset++;
	device->status |= VMSG_STATUS_NEEDS_RESET;
	if (device->status & VMSG_STATUS_DRIVER_OK)
		tell_config(device);
}

/* ---- Queues, for the model ---- */

int vmsg_device_pop(struct vmsg_device *device, uint32_t index, struct vmsg_chain *chain)
{
	struct vmsg_vq_device *vq = &device->vqs[index];
	int rc;

	if (!vmsg_device_live(device) || (vq->owes & VMSG_VQ_OWES_RESETTING))
		return 0;
	rc = vmsg_vq_pop(vq, chain);
	if (rc < 0) {
		vmsg_device_needs_reset(device);
		return 0;
	}
	return rc;
}

void vmsg_device_push(struct vmsg_device *device, uint32_t index, const struct vmsg_chain *chain,
		      uint32_t written)
{
	struct vmsg_vq_device *vq = &device->vqs[index];

	if (vq->enabled && !vq->broken && !device->removed)
		vmsg_vq_push(vq, chain, written);
}

void vmsg_device_poll(struct vmsg_device *device)
{
	uint32_t index = device->poll_from;

	for (uint32_t i = 0; i < device->vq_count; i++) {
		if (index >= device->vq_count)
			index = 0;
		/* The model may be stopped by what it finds, so this is asked each time. */
		if (vmsg_device_live(device) && device->vqs[index].enabled)
			device->ops->kick(device, index);
		index++;
		/* Then the others are due, and not the rest of this device's queues. */
		if (device->more)
			break;
	}
	device->poll_from = index;
}

void vmsg_device_kicked(struct vmsg_device *device, uint32_t index)
{
	if (!(device->status & VMSG_STATUS_DRIVER_OK)) {
		device->counters.early_kicks++;
		return; /* DRIVER_OK looks at every queue (DEV-35, DEV-36) */
	}
	device->counters.kicks++;
	/* It has had its share; the poll that it is owed finds this, too. */
	if (device->more)
		return;
	/* v1 drivers of the field mix up queues on SMP (peers.md 5.1): look at all of them. */
	if (!is_v2(device))
		vmsg_device_poll(device);
	else if (vmsg_device_live(device) && vmsg_device_vq(device, index) &&
		 device->vqs[index].enabled)
		device->ops->kick(device, index);
}

/* ---- Reset ---- */

/* Nothing of the driver's is touched any more; answers to RESET_VQUEUE are now due. */
static void finish_reset(struct vmsg_device *device)
{
	for (uint32_t i = 0; i < device->vq_count; i++) {
		struct vmsg_vq_device *vq = &device->vqs[i];
		uint16_t token = vq->reset_token;
		uint8_t owes = vq->owes;

		vmsg_vq_device_reset(vq);
		if (owes & (VMSG_VQ_OWES_RESETTING | VMSG_VQ_OWES_RESET_DONE)) {
			vq->owes = VMSG_VQ_OWES_RESET_DONE;
			vq->reset_token = token;
			device->bus->pending = true;
		}
	}
	device->features = 0;
	device->selected[0] = 0;
	device->selected[1] = 0;
	device->selected_bad = false;
	device->started = false;
	device->resetting = false;
	device->config_event = false;
	device->changed_bytes = 0;
	/* Zero suits v2 drivers and those that send what they saw last; v1 keeps it (V1-DEV-01). */
	if (is_v2(device))
		device->generation = 0;
	device->status = 0;
}

void vmsg_device_start_reset(struct vmsg_device *device)
{
	if (device->resetting)
		return;
	device->counters.resets++;
	if (device->started && device->ops->reset && device->ops->reset(device) == VMSG_ERR_AGAIN) {
		device->resetting = true;
		return;
	}
	finish_reset(device);
}

void vmsg_device_reset_done(struct vmsg_device *device)
{
	if (!device->resetting)
		return;
	finish_reset(device);
	vmsg_bus_flush(device->bus);
}

void vmsg_device_reset(struct vmsg_device *device)
{
	/* Whoever asked for RESET_VQUEUE, or was to be told, is gone. */
	for (uint32_t i = 0; i < device->vq_count; i++)
		device->vqs[i].owes = 0;
	device->config_event = false;
	vmsg_device_start_reset(device);
}

void vmsg_device_vq_reset_done(struct vmsg_device *device, uint32_t index)
{
	struct vmsg_vq_device *vq = &device->vqs[index];
	uint16_t token = vq->reset_token;

	if (!(vq->owes & VMSG_VQ_OWES_RESETTING))
		return;
	vmsg_vq_device_reset(vq);
	vq->owes = VMSG_VQ_OWES_RESET_DONE;
	vq->reset_token = token;
	device->bus->pending = true;
	vmsg_bus_flush(device->bus);
}
