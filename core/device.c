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
 * A request becomes its reply: fields that it does not have are 0, and what is to be echoed is
 * there already. Functions that may leave a request without one say whether there is a reply.
 */

/* "No", where that changes nothing but a count. */
static void refuse(struct vmsg_device *device)
{
	device->counters.refused++;
}

static void get_info(struct vmsg_device *device, struct vmsg_msg *msg)
{
	msg->info.device_id = device->ops->device_id;
	msg->info.vendor_id = device->vendor_id;
	memcpy(msg->info.device_uuid, device->uuid, 16);
	msg->info.num_feature_blocks = FEATURE_BLOCKS;
	msg->info.config_size = device->config_size;
	msg->info.max_virtqueues = device->vq_count;
	msg->info.admin_vq_start = device->admin_vq_start;
	msg->info.admin_vq_count = device->admin_vq_count;
}

/* The i-th block that a message names: below FEATURE_BLOCKS when it is one of ours. */
static uint32_t block_at(const struct vmsg_msg *msg, uint32_t i)
{
	uint32_t index = msg->features.block_index + i;

	return index < i ? UINT32_MAX : index; /* no wrapping around to block 0 */
}

static bool get_features(struct vmsg_device *device, struct vmsg_msg *msg)
{
	uint64_t features = offered(device);
	uint32_t blocks[FEATURE_BLOCKS] = { (uint32_t)features, (uint32_t)(features >> 32) };
	uint32_t room = vmsg_bus_room(device->bus, 8);
	uint8_t *wire = device->bus->reply + device->bus->max_msg_size - room;

	if (msg->features.num_blocks > room / 4) {
		refuse(device);
		return false;
	}
	msg->tail = wire;
	for (uint32_t i = 0; i < msg->features.num_blocks; i++) {
		uint32_t index = block_at(msg, i);

		vmsg_put32(wire + 4 * i, index < FEATURE_BLOCKS ? blocks[index] : 0);
	}
	return true;
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

static bool get_config(struct vmsg_device *device, struct vmsg_msg *msg)
{
	bool fits = msg->config.length <= vmsg_bus_room(device->bus, 12);

	msg->config.generation = device->generation;
	/* Length 0 asks for the generation; out of range is answered with nothing (4.5). */
	if (fits && in_config(device, msg)) {
		msg->tail = device->config + msg->config.offset;
	} else {
		msg->config.length = 0;
		refuse(device);
	}
	return fits;
}

static void set_config(struct vmsg_device *device, struct vmsg_msg *msg)
{
	uint32_t length = msg->config.length;
	bool good = in_config(device, msg) && (!vmsg_device_is_strict(device) ||
					       msg->config.generation == device->generation);

	if (good && length) {
		good = device->ops->configure &&
		       device->ops->configure(device, msg->config.offset, msg->tail, length) == 0;
		device->generation += good;
	}
	msg->config.generation = device->generation;
	if (!good) {
		msg->config.length = 0;
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

static void get_vqueue(struct vmsg_device *device, struct vmsg_msg *msg)
{
	const struct vmsg_vq_device *vq = vmsg_device_vq(device, msg->vqueue.index);

	if (!vq)
		return;
	msg->vqueue.max_size = vq->max_size;
	msg->vqueue.size = vq->size;
	msg->vqueue.flags = vq->enabled ? VMSG_VQUEUE_ENABLED : 0;
	memcpy(msg->vqueue.addrs, vq->addrs, sizeof(vq->addrs));
}

/* Applies what flags do not keep, then the operation: all of it or nothing (DEV-63..69). */
static bool apply_vqueue(struct vmsg_device *device, struct vmsg_vq_device *vq,
			 const struct vmsg_msg *msg, uint32_t flags)
{
	const struct vmsg_vq_device_format *format =
		vmsg_has(device->features, VMSG_F_RING_PACKED) ? device->packed : device->split;
	bool format_known = device->status & VMSG_STATUS_FEATURES_OK;
	struct vmsg_vq_device fresh = *vq;

	if (!(flags & VMSG_VQUEUE_KEEP_SIZE)) {
		if (msg->vqueue.size - 1 >= vq->max_size ||
		    (format_known && !vmsg_vq_size_is_legal(format->packed, msg->vqueue.size)))
			return false;
		fresh.size = (uint16_t)msg->vqueue.size;
	}
	for (uint32_t i = 0; i < VMSG_VQ_AREAS; i++) {
		if (!(flags & VMSG_VQUEUE_KEEP_DESC << i))
			fresh.addrs[i] = msg->vqueue.addrs[i];
	}
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

static bool reset_vqueue(struct vmsg_device *device, const struct vmsg_msg *msg)
{
	uint32_t index = msg->vqueue.index;
	struct vmsg_vq_device *vq = vmsg_device_vq(device, index);

	if (!vq || !vmsg_has(device->features, VMSG_F_RING_RESET)) {
		refuse(device);
		return true;
	}
	/* Asked again while it is not quiet: the answer, when it is, goes to whoever asked last. */
	if (device->resetting || (vq->owes & VMSG_VQ_OWES_RESETTING) ||
	    (device->started && vq->enabled && device->ops->reset_vq &&
	     device->ops->reset_vq(device, index) == VMSG_ERR_AGAIN)) {
		vq->owes = VMSG_VQ_OWES_RESETTING;
		vq->reset_token = msg->token;
		return false;
	}
	vmsg_vq_device_reset(vq);
	return true;
}

static void get_shm(struct vmsg_device *device, struct vmsg_msg *msg)
{
	for (uint32_t i = 0; i < device->shm_count; i++) {
		if (device->shms[i].shmid == msg->shm.shmid) {
			msg->shm.length = device->shms[i].len_bytes;
			msg->shm.address = device->shms[i].addr;
		}
	}
}

/* Does what a message asks for. False when it gets no reply. */
static bool carry_out(struct vmsg_device *device, struct vmsg_msg *msg)
{
	switch (msg->msg_id) {
	case VMSG_GET_DEVICE_INFO:
		get_info(device, msg);
		break;
	case VMSG_GET_DEVICE_FEATURES:
		return get_features(device, msg);
	case VMSG_SET_DRIVER_FEATURES:
		set_features(device, msg);
		break;
	case VMSG_GET_CONFIG:
		return get_config(device, msg);
	case VMSG_SET_CONFIG:
		set_config(device, msg);
		break;
	case VMSG_SET_DEVICE_STATUS:
		set_status(device, msg->status.status);
		msg->status.status = device->status;
		break;
	case VMSG_GET_DEVICE_STATUS:
		msg->status.status = device->status;
		break;
	case VMSG_GET_VQUEUE:
		get_vqueue(device, msg);
		break;
	case VMSG_SET_VQUEUE:
		set_vqueue(device, msg);
		break;
	case VMSG_RESET_VQUEUE:
		return reset_vqueue(device, msg);
	case VMSG_GET_SHM:
		get_shm(device, msg);
		break;
	case VMSG_EVENT_AVAIL:
		vmsg_device_kicked(device, msg->event.vq_index);
		return false;
	default: /* events of the device's own */
		device->bus->counters.malformed++;
		return false;
	}
	return true;
}

void vmsg_device_handle(struct vmsg_device *device, struct vmsg_msg *msg)
{
	if (carry_out(device, msg))
		vmsg_bus_reply(device->bus, msg);
}
