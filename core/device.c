/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: one small function per message, the switch last (wire.md 3.3). */
#include <vmsg/device.h>
#include <vmsg/port.h>

#define STATUS_BITS                                                                                \
	(VMSG_STATUS_ACKNOWLEDGE | VMSG_STATUS_DRIVER | VMSG_STATUS_FEATURES_OK |                  \
	 VMSG_STATUS_DRIVER_OK | VMSG_STATUS_FAILED)

#define FEATURE_BLOCKS 2 /* 64 feature bits */

static bool is_v2(const struct vmsg_device *device)
{
	return device->bus->dialect == VMSG_V2;
}

/* What the driver is shown: what this bus can carry of what the device has (BUS-51, DEV-33). */
static uint64_t offered(const struct vmsg_device *device)
{
	uint64_t features = device->offered & ~VMSG_BIT(VMSG_F_NOTIF_CONFIG_DATA);

	if (device->bus->ops->notify || device->bus->dialect == VMSG_RFC2)
		features &= ~VMSG_BIT(VMSG_F_NOTIFICATION_DATA);
	return features;
}

/*
 * ---- Messages ----
 *
 * A reply starts as a copy of its request, whose other fields are 0, so what is to be echoed is
 * there already. Type 0 means that there is no reply.
 */

/* "No", where that changes nothing but a count. */
static void refuse(struct vmsg_device *device)
{
	device->counters.refused++;
}

static void drop(struct vmsg_device *device, struct vmsg_msg *reply)
{
	refuse(device);
	reply->type = 0;
}

static void get_info(struct vmsg_device *device, struct vmsg_msg *reply)
{
	reply->info.device_id = device->ops->device_id;
	reply->info.vendor_id = device->vendor_id;
	memcpy(reply->info.device_uuid, device->uuid, 16);
	reply->info.num_feature_blocks = FEATURE_BLOCKS;
	reply->info.config_size = device->config_size;
	reply->info.max_virtqueues = device->vq_count;
	reply->info.admin_vq_start = device->admin_vq_start;
	reply->info.admin_vq_count = device->admin_vq_count;
}

/* Bytes that fit behind the fixed part of a message. */
static uint32_t room_after(const struct vmsg_device *device, uint32_t fixed_bytes)
{
	return device->bus->max_msg_size -
	       vmsg_msg_header_bytes((enum vmsg_dialect)device->bus->dialect) - fixed_bytes;
}

/* The i-th block that a message names: below FEATURE_BLOCKS when it is one of ours. */
static uint32_t block_at(const struct vmsg_msg *msg, uint32_t i)
{
	uint32_t index = msg->features.block_index + i;

	return index < i ? UINT32_MAX : index; /* no wrapping around to block 0 */
}

static void get_features(struct vmsg_device *device, const struct vmsg_msg *msg,
			 struct vmsg_msg *reply)
{
	uint64_t features = offered(device);
	uint32_t blocks[FEATURE_BLOCKS] = { (uint32_t)features, (uint32_t)(features >> 32) };
	uint32_t room = room_after(device, 8);
	uint8_t *wire = device->bus->frame + device->bus->max_msg_size - room;

	if (msg->features.num_blocks > room / 4) {
		drop(device, reply);
		return;
	}
	reply->tail = wire;
	for (uint32_t i = 0; i < msg->features.num_blocks; i++) {
		uint32_t index = block_at(msg, i);

		vmsg_put32(wire + 4 * i, index < FEATURE_BLOCKS ? blocks[index] : 0);
	}
}

static void set_features(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	const uint8_t *wire = msg->tail;

	/* Once FEATURES_OK stands, the set is closed. */
	if (device->status & VMSG_STATUS_FEATURES_OK) {
		refuse(device);
		return;
	}
	for (uint32_t i = 0; i < msg->features.num_blocks; i++) {
		uint32_t index = block_at(msg, i), bits = vmsg_get32(wire + 4 * i);

		if (index < FEATURE_BLOCKS)
			device->selected[index] = bits;
		else if (bits)
			device->selected_bad = true;
	}
}

static bool in_config(const struct vmsg_device *device, const struct vmsg_msg *msg)
{
	return msg->config.offset <= device->config_size &&
	       msg->config.length <= device->config_size - msg->config.offset;
}

static void get_config(struct vmsg_device *device, const struct vmsg_msg *msg,
		       struct vmsg_msg *reply)
{
	if (msg->config.length > room_after(device, 12)) {
		drop(device, reply);
		return;
	}
	reply->config.generation = device->generation;
	/* Length 0 asks for the generation; out of range is answered with nothing (4.5). */
	if (in_config(device, msg)) {
		reply->tail = device->config + msg->config.offset;
	} else {
		reply->config.length = 0;
		refuse(device);
	}
}

static void set_config(struct vmsg_device *device, const struct vmsg_msg *msg,
		       struct vmsg_msg *reply)
{
	uint32_t length = msg->config.length;
	bool good = in_config(device, msg) && (!vmsg_device_is_strict(device) ||
					       msg->config.generation == device->generation);

	if (good && length) {
		good = device->ops->configure &&
		       device->ops->configure(device, msg->config.offset, msg->tail, length) == 0;
		device->generation += good;
	}
	reply->config.generation = device->generation;
	if (good) {
		reply->tail = msg->tail;
	} else {
		reply->config.length = 0;
		refuse(device);
	}
}

static bool features_acceptable(const struct vmsg_device *device, uint64_t selected)
{
	return !device->selected_bad && !(selected & ~offered(device)) &&
	       vmsg_has(selected, VMSG_F_VERSION_1) &&
	       (vmsg_has(selected, VMSG_F_RING_PACKED) || device->split);
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

static void set_status(struct vmsg_device *device, uint32_t wanted)
{
	uint64_t selected = device->selected[0] | (uint64_t)device->selected[1] << 32;
	uint32_t fresh;

	if (wanted == 0)
		vmsg_device_start_reset(device);
	if (wanted == 0 || device->resetting)
		return;
	/* A driver cannot clear a bit but by reset, and bits we do not know stay 0. */
	fresh = wanted & STATUS_BITS & ~(uint32_t)device->status;
	device->status |= (uint8_t)(fresh & ~(VMSG_STATUS_FEATURES_OK | VMSG_STATUS_DRIVER_OK));
	if ((fresh & VMSG_STATUS_FEATURES_OK) && (device->status & VMSG_STATUS_DRIVER) &&
	    features_acceptable(device, selected)) {
		device->features = selected;
		device->status |= VMSG_STATUS_FEATURES_OK;
	}
	if ((fresh & VMSG_STATUS_DRIVER_OK) && (device->status & VMSG_STATUS_FEATURES_OK))
		set_driver_ok(device);
}

static void get_vqueue(struct vmsg_device *device, uint32_t index, struct vmsg_msg *reply)
{
	const struct vmsg_vq_device *vq = vmsg_device_vq(device, index);

	if (!vq)
		return;
	reply->vqueue.max_size = vq->max_size;
	reply->vqueue.size = vq->size;
	reply->vqueue.flags = vq->enabled ? VMSG_VQUEUE_ENABLED : 0;
	reply->vqueue.desc_addr = vq->desc_addr;
	reply->vqueue.driver_addr = vq->driver_addr;
	reply->vqueue.device_addr = vq->device_addr;
}

/* Applies what flags do not keep, then the operation: all of it or nothing (DEV-63..69). */
static bool apply_vqueue(struct vmsg_device *device, struct vmsg_vq_device *vq,
			 const struct vmsg_msg *msg, uint32_t flags)
{
	const struct vmsg_vq_device_format *format =
		vmsg_has(device->features, VMSG_F_RING_PACKED) ? device->packed : device->split;
	bool format_known = device->status & VMSG_STATUS_FEATURES_OK;
	struct vmsg_vq_device fresh = *vq;
	struct vmsg_vq_bytes bytes;

	if (!(flags & VMSG_VQUEUE_KEEP_SIZE)) {
		if (msg->vqueue.size - 1 >= vq->max_size ||
		    (format_known && !format->bytes(msg->vqueue.size, &bytes)))
			return false;
		fresh.size = (uint16_t)msg->vqueue.size;
	}
	if (!(flags & VMSG_VQUEUE_KEEP_DESC))
		fresh.desc_addr = msg->vqueue.desc_addr;
	if (!(flags & VMSG_VQUEUE_KEEP_DRIVER))
		fresh.driver_addr = msg->vqueue.driver_addr;
	if (!(flags & VMSG_VQUEUE_KEEP_DEVICE))
		fresh.device_addr = msg->vqueue.device_addr;
	if ((flags & VMSG_VQUEUE_OP_MASK) == VMSG_VQUEUE_OP_ENABLE &&
	    (!format_known ||
	     vmsg_vq_device_enable(&fresh, format, device->mem, device->features)))
		return false;
	*vq = fresh;
	return true;
}

static void set_vqueue(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	struct vmsg_vq_device *vq = vmsg_device_vq(device, msg->vqueue.index);
	uint32_t flags = is_v2(device) ? msg->vqueue.flags : VMSG_VQUEUE_OP_ENABLE;
	bool good = vq && !msg->vqueue.reserved && !(flags & ~VMSG_VQUEUE_FLAGS) &&
		    (flags & VMSG_VQUEUE_OP_MASK) != 3 && !device->resetting;

	/* v1 may program a queue anew (V1-DEV-06), but not under our own feet. */
	if (good && vq->enabled)
		good = !is_v2(device) && !vq->in_flight && !vq->owes;
	if (!good || !apply_vqueue(device, vq, msg, flags))
		refuse(device);
	else if (vq->enabled && vmsg_device_live(device))
		/* A queue that came late may already hold something. */
		device->ops->kick(device, msg->vqueue.index);
}

static void reset_vqueue(struct vmsg_device *device, const struct vmsg_msg *msg,
			 struct vmsg_msg *reply)
{
	uint32_t index = msg->vqueue.index;
	struct vmsg_vq_device *vq = vmsg_device_vq(device, index);

	if (!vq || !vmsg_has(device->features, VMSG_F_RING_RESET)) {
		refuse(device);
		return;
	}
	/* Asked again while it is not quiet: the answer, when it is, goes to whoever asked last. */
	if (device->resetting || (vq->owes & VMSG_VQ_OWES_RESETTING) ||
	    (device->started && vq->enabled && device->ops->reset_vq &&
	     device->ops->reset_vq(device, index) == VMSG_ERR_AGAIN)) {
		vq->owes = VMSG_VQ_OWES_RESETTING;
		vq->reset_token = msg->token;
		reply->type = 0;
		return;
	}
	vmsg_vq_device_reset(vq);
}

static void get_shm(struct vmsg_device *device, uint32_t shmid, struct vmsg_msg *reply)
{
	for (uint32_t i = 0; i < device->shm_count; i++) {
		if (device->shms[i].shmid == shmid) {
			reply->shm.length = device->shms[i].len_bytes;
			reply->shm.address = device->shms[i].addr;
		}
	}
}

void vmsg_device_handle(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	struct vmsg_msg reply = *msg;

	reply.type |= VMSG_TYPE_RESPONSE;
	switch (msg->msg_id) {
	case VMSG_GET_DEVICE_INFO:
		get_info(device, &reply);
		break;
	case VMSG_GET_DEVICE_FEATURES:
		get_features(device, msg, &reply);
		break;
	case VMSG_SET_DRIVER_FEATURES:
		set_features(device, msg);
		break;
	case VMSG_GET_CONFIG:
		get_config(device, msg, &reply);
		break;
	case VMSG_SET_CONFIG:
		set_config(device, msg, &reply);
		break;
	case VMSG_SET_DEVICE_STATUS:
		set_status(device, msg->status.status);
		reply.status.status = device->status;
		break;
	case VMSG_GET_DEVICE_STATUS:
		reply.status.status = device->status;
		break;
	case VMSG_GET_VQUEUE:
		get_vqueue(device, msg->vqueue.index, &reply);
		break;
	case VMSG_SET_VQUEUE:
		set_vqueue(device, msg);
		break;
	case VMSG_RESET_VQUEUE:
		reset_vqueue(device, msg, &reply);
		break;
	case VMSG_GET_SHM:
		get_shm(device, msg->shm.shmid, &reply);
		break;
	case VMSG_EVENT_AVAIL:
		vmsg_device_kicked(device, msg->event.vq_index);
		return;
	default: /* events of the device's own */
		device->bus->counters.malformed++;
		return;
	}
	if (reply.type)
		vmsg_bus_reply(device->bus, &reply);
}
