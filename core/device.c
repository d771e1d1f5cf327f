/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: one small function per message, the switch last (wire.md 3.3). */
#include <vmsg/device.h>
#include <vmsg/port.h>

#define STATUS_BITS                                                                                \
	(VMSG_STATUS_ACKNOWLEDGE | VMSG_STATUS_DRIVER | VMSG_STATUS_FEATURES_OK |                  \
	 VMSG_STATUS_DRIVER_OK | VMSG_STATUS_FAILED)

#define FEATURE_BLOCKS 2 /* 64 feature bits */
#define EVENT_ROOM     64

/* What a queue owes: bits of vmsg_vq_device.owes. */
#define OWES_USED       0x1u /* EVENT_USED, or the doorbell */
#define OWES_RESETTING  0x2u /* RESET_VQUEUE is being carried out */
#define OWES_RESET_DONE 0x4u /* its answer */

static bool is_v2(const struct vmsg_device *device)
{
	return device->bus->dialect == VMSG_V2;
}

/* v1 and rfc2 always were what v2 calls strict (wire.md 2.9). */
static bool is_strict(const struct vmsg_device *device)
{
	if (!is_v2(device))
		return !(device->bus->quirks & VMSG_QUIRK_ANY_GENERATION);
	return vmsg_has(device->bus->features, VMSG_F_STRICT_CONFIG_GENERATION);
}

/* What the driver is shown: what this bus can carry of what the device has (BUS-51, DEV-33). */
static uint64_t offered(const struct vmsg_device *device)
{
	uint64_t features = device->offered & ~VMSG_BIT(VMSG_F_NOTIF_CONFIG_DATA);

	if (device->bus->ops->notify || device->bus->dialect == VMSG_RFC2)
		features &= ~VMSG_BIT(VMSG_F_NOTIFICATION_DATA);
	return features;
}

static const struct vmsg_vq_device_format *format_of(const struct vmsg_device *device)
{
	return vmsg_has(device->features, VMSG_F_RING_PACKED) ? device->packed : device->split;
}

static struct vmsg_vq_device *find_vq(struct vmsg_device *device, uint32_t index)
{
	if (index >= device->vq_count || !device->vqs[index].max_size)
		return NULL;
	return &device->vqs[index];
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
	} else if (len && is_strict(device) && is_v2(device)) {
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
		.type = VMSG_TYPE_RESPONSE,
		.msg_id = VMSG_RESET_VQUEUE,
		.dev_num = device->dev_num,
		.token = vq->reset_token,
	};

	vq->owes &= (uint8_t)~OWES_RESET_DONE;
	vmsg_bus_reply(device->bus, &reply);
}

bool vmsg_device_flush(struct vmsg_device *device)
{
	if (device->config_event && !send_config_event(device))
		return false;
	for (uint32_t i = 0; i < device->vq_count; i++) {
		struct vmsg_vq_device *vq = &device->vqs[i];

		if (vq->owes & OWES_RESET_DONE) {
			send_reset_vq_done(device, vq);
			if (vmsg_bus_holds(device->bus))
				return false;
		}
		if (vq->owes & OWES_USED) {
			if (!send_used(device, i))
				return false;
			vq->owes &= (uint8_t)~OWES_USED;
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
		vq->owes |= OWES_USED;
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
	if (device->config_event && device->changed_bytes && len) {
		uint32_t old_end = device->changed_offset + device->changed_bytes;

		offset = offset < device->changed_offset ? offset : device->changed_offset;
		end = end > old_end ? end : old_end;
	} else if (device->config_event) {
		end = offset; /* one of the two did not say where */
	}
	device->changed_offset = offset;
	device->changed_bytes = end - offset;
	/* Before the driver is there, nobody holds an older copy. */
	if (device->status)
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

	if (!vmsg_device_live(device) || (vq->owes & OWES_RESETTING))
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
	for (uint32_t i = 0; i < device->vq_count; i++) {
		/* The model may be stopped by what it finds, so this is asked each time. */
		if (vmsg_device_live(device) && device->vqs[i].enabled)
			device->ops->kick(device, i);
	}
}

void vmsg_device_kicked(struct vmsg_device *device, uint32_t index)
{
	if (!(device->status & VMSG_STATUS_DRIVER_OK)) {
		device->counters.early_kicks++;
		return; /* DRIVER_OK looks at every queue (DEV-35, DEV-36) */
	}
	device->counters.kicks++;
	/* v1 drivers of the field mix up queues on SMP (peers.md 5.1): look at all of them. */
	if (!is_v2(device))
		vmsg_device_poll(device);
	else if (vmsg_device_live(device) && find_vq(device, index) && device->vqs[index].enabled)
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
		if (owes & (OWES_RESETTING | OWES_RESET_DONE)) {
			vq->owes = OWES_RESET_DONE;
			vq->reset_token = token;
			device->bus->pending = true;
		}
	}
	device->features = 0;
	device->selected = 0;
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

static void start_reset(struct vmsg_device *device)
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
	/* Whoever asked for RESET_VQUEUE is gone. */
	for (uint32_t i = 0; i < device->vq_count; i++)
		device->vqs[i].owes = 0;
	start_reset(device);
}

void vmsg_device_vq_reset_done(struct vmsg_device *device, uint32_t index)
{
	struct vmsg_vq_device *vq = &device->vqs[index];
	uint16_t token = vq->reset_token;

	if (!(vq->owes & OWES_RESETTING))
		return;
	vmsg_vq_device_reset(vq);
	vq->owes = OWES_RESET_DONE;
	vq->reset_token = token;
	device->bus->pending = true;
	vmsg_bus_flush(device->bus);
}

/* ---- Messages: each returns whether there is an answer ---- */

static bool get_info(struct vmsg_device *device, struct vmsg_msg *reply)
{
	reply->info.device_id = device->ops->device_id;
	reply->info.vendor_id = device->vendor_id;
	memcpy(reply->info.device_uuid, device->uuid, 16);
	reply->info.num_feature_blocks = FEATURE_BLOCKS;
	reply->info.config_size = device->config_size;
	reply->info.max_virtqueues = device->vq_count;
	reply->info.admin_vq_start = device->admin_vq_start;
	reply->info.admin_vq_count = device->admin_vq_count;
	return true;
}

/* Bytes that fit behind the fixed part of a message. */
static uint32_t room_after(const struct vmsg_device *device, uint32_t fixed_bytes)
{
	return device->bus->max_msg_size -
	       vmsg_msg_header_bytes((enum vmsg_dialect)device->bus->dialect) - fixed_bytes;
}

static bool get_features(struct vmsg_device *device, const struct vmsg_msg *msg,
			 struct vmsg_msg *reply)
{
	uint32_t count = msg->features.num_blocks;
	uint64_t features = offered(device);
	uint8_t *block = device->bus->frame +
			 vmsg_msg_header_bytes((enum vmsg_dialect)device->bus->dialect) + 8;

	if (count > room_after(device, 8) / 4)
		return false;
	reply->features = msg->features;
	reply->tail = block;
	for (uint32_t i = 0; i < count; i++, block += 4) {
		uint64_t index = (uint64_t)msg->features.block_index + i;

		vmsg_put32(block, index < FEATURE_BLOCKS ? (uint32_t)(features >> 32 * index) : 0);
	}
	return true;
}

static bool set_features(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	const uint8_t *block = msg->tail;

	/* Once FEATURES_OK stands, the set is closed. */
	if (device->status & VMSG_STATUS_FEATURES_OK) {
		device->counters.refused++;
		return true;
	}
	for (uint32_t i = 0; i < msg->features.num_blocks; i++, block += 4) {
		uint64_t index = (uint64_t)msg->features.block_index + i;
		uint32_t bits = vmsg_get32(block);

		if (index < FEATURE_BLOCKS) {
			device->selected &= ~((uint64_t)UINT32_MAX << 32 * index);
			device->selected |= (uint64_t)bits << 32 * index;
		} else if (bits) {
			device->selected_bad = true;
		}
	}
	return true;
}

static bool in_config(const struct vmsg_device *device, uint32_t offset, uint32_t length)
{
	return offset <= device->config_size && length <= device->config_size - offset;
}

static bool get_config(struct vmsg_device *device, const struct vmsg_msg *msg,
		       struct vmsg_msg *reply)
{
	if (msg->config.length > room_after(device, 12))
		return false;
	reply->config.generation = device->generation;
	reply->config.offset = msg->config.offset;
	/* Length 0 is a question for the generation; out of range is answered with nothing (4.5). */
	if (in_config(device, msg->config.offset, msg->config.length)) {
		reply->config.length = msg->config.length;
		reply->tail = device->config + msg->config.offset;
	} else {
		device->counters.refused++;
	}
	return true;
}

static bool set_config(struct vmsg_device *device, const struct vmsg_msg *msg,
		       struct vmsg_msg *reply)
{
	uint32_t offset = msg->config.offset, length = msg->config.length;
	bool good = in_config(device, offset, length) &&
		    (!is_strict(device) || msg->config.generation == device->generation);

	if (good && length) {
		good = device->ops->configure &&
		       device->ops->configure(device, offset, msg->tail, length) == 0;
		device->generation += good;
	}
	reply->config.generation = device->generation;
	reply->config.offset = offset;
	if (good) {
		reply->config.length = length;
		reply->tail = msg->tail;
	} else {
		device->counters.refused++;
	}
	return true;
}

static bool features_acceptable(const struct vmsg_device *device)
{
	return !device->selected_bad && !(device->selected & ~offered(device)) &&
	       vmsg_has(device->selected, VMSG_F_VERSION_1) &&
	       (vmsg_has(device->selected, VMSG_F_RING_PACKED) || device->split);
}

static void set_driver_ok(struct vmsg_device *device)
{
	device->status |= VMSG_STATUS_DRIVER_OK;
	device->started = true;
	if (device->ops->start && device->ops->start(device) != 0) {
		vmsg_device_needs_reset(device);
		return;
	}
	vmsg_device_poll(device);
}

static bool set_status(struct vmsg_device *device, uint32_t wanted)
{
	uint32_t fresh;

	if (wanted == 0) {
		start_reset(device);
		return true;
	}
	if (device->resetting)
		return true;
	/* A driver cannot clear a bit but by reset, and bits we do not know stay 0. */
	fresh = wanted & STATUS_BITS & ~(uint32_t)device->status;
	device->status |= (uint8_t)(fresh & ~(VMSG_STATUS_FEATURES_OK | VMSG_STATUS_DRIVER_OK));
	if ((fresh & VMSG_STATUS_FEATURES_OK) && (device->status & VMSG_STATUS_DRIVER) &&
	    features_acceptable(device)) {
		device->features = device->selected;
		device->status |= VMSG_STATUS_FEATURES_OK;
	}
	if ((fresh & VMSG_STATUS_DRIVER_OK) && (device->status & VMSG_STATUS_FEATURES_OK))
		set_driver_ok(device);
	return true;
}

static bool get_vqueue(struct vmsg_device *device, uint32_t index, struct vmsg_msg *reply)
{
	const struct vmsg_vq_device *vq = find_vq(device, index);

	reply->vqueue.index = index;
	if (!vq)
		return true;
	reply->vqueue.max_size = vq->max_size;
	reply->vqueue.size = vq->size;
	reply->vqueue.flags = vq->enabled ? VMSG_VQUEUE_ENABLED : 0;
	reply->vqueue.desc_addr = vq->desc_addr;
	reply->vqueue.driver_addr = vq->driver_addr;
	reply->vqueue.device_addr = vq->device_addr;
	return true;
}

/* Whether the fields that are to be applied make sense; alignment needs the format to be known. */
static bool vqueue_acceptable(const struct vmsg_device *device, const struct vmsg_vq_device *vq,
			      uint32_t flags)
{
	const struct vmsg_vq_device_format *format = format_of(device);
	struct vmsg_vq_bytes bytes;

	if (flags & VMSG_VQUEUE_KEEP_SIZE)
		return true;
	if (!vq->size || vq->size > vq->max_size)
		return false;
	return !(device->status & VMSG_STATUS_FEATURES_OK) || format->bytes(vq->size, &bytes);
}

/* Applies what flags do not keep, then the operation: all of it or nothing (DEV-63..69). */
static bool apply_vqueue(struct vmsg_device *device, struct vmsg_vq_device *vq,
			 const struct vmsg_msg *msg, uint32_t flags)
{
	struct vmsg_vq_device fresh = *vq;

	if (!(flags & VMSG_VQUEUE_KEEP_SIZE)) {
		if (msg->vqueue.size > vq->max_size)
			return false;
		fresh.size = (uint16_t)msg->vqueue.size;
	}
	if (!(flags & VMSG_VQUEUE_KEEP_DESC))
		fresh.desc_addr = msg->vqueue.desc_addr;
	if (!(flags & VMSG_VQUEUE_KEEP_DRIVER))
		fresh.driver_addr = msg->vqueue.driver_addr;
	if (!(flags & VMSG_VQUEUE_KEEP_DEVICE))
		fresh.device_addr = msg->vqueue.device_addr;
	if (!vqueue_acceptable(device, &fresh, flags))
		return false;
	if ((flags & VMSG_VQUEUE_OP_MASK) == VMSG_VQUEUE_OP_ENABLE &&
	    (!(device->status & VMSG_STATUS_FEATURES_OK) ||
	     vmsg_vq_device_enable(&fresh, format_of(device), device->mem, device->features)))
		return false;
	*vq = fresh;
	return true;
}

static bool set_vqueue(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	struct vmsg_vq_device *vq = find_vq(device, msg->vqueue.index);
	uint32_t flags = is_v2(device) ? msg->vqueue.flags : VMSG_VQUEUE_OP_ENABLE;
	bool good = vq && !msg->vqueue.reserved && !(flags & ~VMSG_VQUEUE_FLAGS) &&
		    (flags & VMSG_VQUEUE_OP_MASK) != 3 && !device->resetting;

	if (good && vq->enabled) {
		/* v1 may program a queue anew (V1-DEV-06), but not under our own feet. */
		good = !is_v2(device) && !vq->in_flight && !vq->owes;
	}
	if (!good || !apply_vqueue(device, vq, msg, flags)) {
		device->counters.refused++;
		return true;
	}
	/* A queue that came late may already hold something. */
	if (vq->enabled && vmsg_device_live(device))
		device->ops->kick(device, msg->vqueue.index);
	return true;
}

static bool reset_vqueue(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	uint32_t index = msg->vqueue.index;
	struct vmsg_vq_device *vq = find_vq(device, index);

	if (!vq || !vmsg_has(device->features, VMSG_F_RING_RESET) || device->resetting ||
	    (vq->owes & OWES_RESETTING)) {
		device->counters.refused++;
		return true;
	}
	if (device->started && vq->enabled && device->ops->reset_vq &&
	    device->ops->reset_vq(device, index) == VMSG_ERR_AGAIN) {
		vq->owes = OWES_RESETTING;
		vq->reset_token = msg->token;
		return false;
	}
	vmsg_vq_device_reset(vq);
	return true;
}

static bool get_shm(struct vmsg_device *device, uint32_t shmid, struct vmsg_msg *reply)
{
	reply->shm.shmid = shmid;
	for (uint32_t i = 0; i < device->shm_count; i++) {
		if (device->shms[i].shmid == shmid) {
			reply->shm.length = device->shms[i].len_bytes;
			reply->shm.address = device->shms[i].addr;
		}
	}
	return true;
}

static bool answer(struct vmsg_device *device, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	switch (msg->msg_id) {
	case VMSG_GET_DEVICE_INFO:
		return get_info(device, reply);
	case VMSG_GET_DEVICE_FEATURES:
		return get_features(device, msg, reply);
	case VMSG_SET_DRIVER_FEATURES:
		return set_features(device, msg);
	case VMSG_GET_CONFIG:
		return get_config(device, msg, reply);
	case VMSG_SET_CONFIG:
		return set_config(device, msg, reply);
	case VMSG_SET_DEVICE_STATUS:
		set_status(device, msg->status.status);
		reply->status.status = device->status;
		return true;
	case VMSG_GET_DEVICE_STATUS:
		reply->status.status = device->status;
		return true;
	case VMSG_GET_VQUEUE:
		return get_vqueue(device, msg->vqueue.index, reply);
	case VMSG_SET_VQUEUE:
		return set_vqueue(device, msg);
	case VMSG_RESET_VQUEUE:
		return reset_vqueue(device, msg);
	case VMSG_GET_SHM:
		return get_shm(device, msg->shm.shmid, reply);
	case VMSG_EVENT_AVAIL:
		vmsg_device_kicked(device, msg->event.vq_index);
		return false;
	default: /* events of the device's own */
		device->bus->counters.malformed++;
		return false;
	}
}

void vmsg_device_handle(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	struct vmsg_msg reply = { 0 };

	reply.type = VMSG_TYPE_RESPONSE;
	reply.msg_id = msg->msg_id;
	reply.dev_num = msg->dev_num;
	reply.token = msg->token;
	if (answer(device, msg, &reply))
		vmsg_bus_reply(device->bus, &reply);
}
