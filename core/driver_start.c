/* SPDX-License-Identifier: BSD-3-Clause */
/* From GET_DEVICE_INFO to DRIVER_OK and back to reset, in the order of wire.md 2.13. */
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define RESET_POLL_MS 10u

/* ---- Status ---- */

/* Writes status and keeps what the device answers. */
static int write_status(struct vmsg_driver *driver, uint32_t status)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DEVICE_STATUS };
	struct vmsg_request request = { 0 };
	int rc;

	msg.status.status = status;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc == 0)
		driver->status = (uint8_t)request.reply.status.status;
	return rc;
}

static int add_status(struct vmsg_driver *driver, uint32_t bit)
{
	int rc = write_status(driver, driver->status | bit);

	if (rc == 0 && !(driver->status & bit))
		rc = VMSG_ERR_IO;
	return rc;
}

int vmsg_driver_fail(struct vmsg_driver *driver)
{
	driver->started = false;
	return write_status(driver, driver->status | VMSG_STATUS_FAILED);
}

int vmsg_driver_reset(struct vmsg_driver *driver)
{
	struct vmsg_bus *bus = driver->bus;
	uint32_t start = bus->now_ms, pause;
	int rc;

	driver->started = false;
	driver->status = 0; /* events from here on are of the past */
	driver->features = 0;
	driver->owes_kick = false;
	rc = write_status(driver, 0);
	while (rc >= 0 && driver->status) {
		if (bus->now_ms - start >= driver->reset_timeout_ms)
			return VMSG_ERR_TIMEDOUT;
		pause = bus->now_ms;
		do {
			rc = bus->ops->wait(bus, RESET_POLL_MS);
		} while (rc == 0 && bus->now_ms - pause < RESET_POLL_MS);
		if (rc == 0)
			rc = vmsg_driver_read_status(driver);
	}
	/* What the device still said about itself while it was being reset is of the past, too. */
	driver->needs_reset = false;
	return rc < 0 ? rc : 0;
}

/* ---- Who is there ---- */

static int ask_info(struct vmsg_driver *driver, struct vmsg_request *request)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_INFO };
	uint32_t heard = driver->bus->counters.received;
	int rc = vmsg_driver_request(driver, request, &msg);

	/* A v2 bus is silent about numbers it does not know; a dead one never spoke. */
	return rc == VMSG_ERR_TIMEDOUT && heard ? VMSG_ERR_NODEV : rc;
}

int vmsg_driver_identify(struct vmsg_driver *driver)
{
	struct vmsg_request request = { 0 };
	const struct vmsg_msg *reply = &request.reply;
	int rc = ask_info(driver, &request);

	if (rc < 0)
		return rc;
	if (reply->info.device_id == 0)
		return VMSG_ERR_NODEV;
	if (reply->info.max_virtqueues > 65536)
		return VMSG_ERR_PROTO;
	if (reply->info.admin_vq_count &&
	    (reply->info.admin_vq_start > reply->info.max_virtqueues ||
	     reply->info.admin_vq_count > reply->info.max_virtqueues - reply->info.admin_vq_start))
		return VMSG_ERR_PROTO;
	driver->device_id = reply->info.device_id;
	driver->vendor_id = reply->info.vendor_id;
	memcpy(driver->uuid, reply->info.device_uuid, sizeof(driver->uuid));
	driver->num_feature_blocks = reply->info.num_feature_blocks;
	driver->config_size = reply->info.config_size;
	driver->max_virtqueues = reply->info.max_virtqueues;
	driver->admin_vq_start = reply->info.admin_vq_count ? reply->info.admin_vq_start : 0;
	driver->admin_vq_count = reply->info.admin_vq_count;
	return 0;
}

/* ---- Features ---- */

static int read_features(struct vmsg_driver *driver)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_FEATURES };
	uint8_t blocks[8];
	struct vmsg_request request = { .tail = blocks, .tail_size = sizeof(blocks) };
	int rc;

	memset(blocks, 0, sizeof(blocks));
	msg.features.num_blocks = driver->num_feature_blocks < 2 ? driver->num_feature_blocks : 2;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc < 0)
		return rc == VMSG_ERR_MSGSIZE ? VMSG_ERR_PROTO : rc;
	if (request.reply.features.block_index)
		return VMSG_ERR_PROTO;
	driver->offered = vmsg_get64(blocks);
	return 0;
}

static int write_features(struct vmsg_driver *driver)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DRIVER_FEATURES };
	struct vmsg_request request = { 0 };
	uint8_t blocks[8];

	vmsg_put64(blocks, driver->features);
	msg.features.num_blocks = 2;
	msg.tail = blocks;
	return vmsg_driver_request(driver, &request, &msg);
}

/* What this driver and this bus can do of what is wanted (DRV-28, DRV-29, BUS-51). */
static uint64_t choose_features(const struct vmsg_driver *driver, uint64_t wanted)
{
	const struct vmsg_bus *bus = driver->bus;

	wanted |= VMSG_BIT(VMSG_F_VERSION_1);
	wanted &= ~VMSG_BIT(VMSG_F_NOTIF_CONFIG_DATA);
	if (bus->ops->notify || bus->dialect == VMSG_RFC2)
		wanted &= ~VMSG_BIT(VMSG_F_NOTIFICATION_DATA);
	if (!driver->packed)
		wanted &= ~VMSG_BIT(VMSG_F_RING_PACKED);
	else if (!driver->split)
		wanted |= VMSG_BIT(VMSG_F_RING_PACKED);
	return wanted & driver->offered;
}

static const struct vmsg_vq_driver_format *format_of(const struct vmsg_driver *driver)
{
	return vmsg_has(driver->features, VMSG_F_RING_PACKED) ? driver->packed : driver->split;
}

/* The first half of the sequence: each line is one step of DRV-22. */
static int negotiate(struct vmsg_driver *driver, uint64_t wanted)
{
	int rc = vmsg_driver_reset(driver);

	if (rc == 0)
		rc = add_status(driver, VMSG_STATUS_ACKNOWLEDGE);
	if (rc == 0)
		rc = add_status(driver, VMSG_STATUS_DRIVER);
	if (rc == 0)
		rc = read_features(driver);
	if (rc < 0)
		return rc;
	driver->features = choose_features(driver, wanted);
	if (!vmsg_has(driver->features, VMSG_F_VERSION_1) || !format_of(driver))
		return VMSG_ERR_NOTSUP;
	rc = write_features(driver);
	if (rc == 0)
		rc = add_status(driver, VMSG_STATUS_FEATURES_OK);
	return rc == VMSG_ERR_IO ? VMSG_ERR_NOTSUP : rc;
}

int vmsg_driver_negotiate(struct vmsg_driver *driver, uint64_t wanted)
{
	int rc;

	/* Queues of an earlier start are forgotten; drain them before. */
	for (uint32_t i = 0; i < driver->vq_count; i++)
		memset(&driver->vqs[i], 0, sizeof(driver->vqs[i]));
	rc = negotiate(driver, wanted);
	if (rc == VMSG_ERR_NOTSUP)
		vmsg_driver_fail(driver);
	return rc;
}

/* ---- Queues ---- */

static int read_vqueue(struct vmsg_driver *driver, uint32_t index, struct vmsg_request *request)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_VQUEUE };
	int rc;

	memset(request, 0, sizeof(*request));
	msg.vqueue.index = index;
	rc = vmsg_driver_request(driver, request, &msg);
	return rc == 0 && request->reply.vqueue.index != index ? VMSG_ERR_PROTO : rc;
}

static int write_vqueue(struct vmsg_driver *driver, uint32_t index)
{
	const struct vmsg_vq_driver *vq = &driver->vqs[index];
	struct vmsg_msg msg = { .msg_id = VMSG_SET_VQUEUE };
	struct vmsg_request request = { 0 };

	msg.vqueue.index = index;
	msg.vqueue.flags = VMSG_VQUEUE_OP_ENABLE;
	msg.vqueue.size = vq->size;
	memcpy(msg.vqueue.addrs, vq->memory.addrs, sizeof(vq->memory.addrs));
	return vmsg_driver_request(driver, &request, &msg);
}

/* Whether the device has taken what we wrote; v1 peers do not all show it (wire.md 4.11). */
static bool took_vqueue(const struct vmsg_driver *driver, const struct vmsg_vq_driver *vq,
			const struct vmsg_msg *reply)
{
	if (driver->bus->dialect == VMSG_V2 && !(reply->vqueue.flags & VMSG_VQUEUE_ENABLED))
		return false;
	if (driver->bus->dialect != VMSG_V2 && !reply->vqueue.desc_addr)
		return true;
	return reply->vqueue.size == vq->size &&
	       memcmp(reply->vqueue.addrs, vq->memory.addrs, sizeof(vq->memory.addrs)) == 0;
}

/* The largest size of at most `limit` that the format allows: any, or a power of two. */
static uint16_t legal_size(const struct vmsg_vq_driver_format *format, uint32_t limit)
{
	while (limit && !vmsg_vq_size_is_legal(format->packed, limit))
		limit &= limit - 1;
	return (uint16_t)limit;
}

static int prepare_vq(struct vmsg_driver *driver, uint32_t index, uint16_t size,
		      uint16_t indirect_max, struct vmsg_arena *arena, struct vmsg_vq_state *state)
{
	const struct vmsg_vq_driver_format *format = format_of(driver);
	struct vmsg_vq_driver *vq = &driver->vqs[index];
	struct vmsg_vq_memory memory = vq->memory;
	int rc = 0;

	if (!vmsg_has(driver->features, VMSG_F_INDIRECT_DESC))
		indirect_max = 0;
	/* A queue that was set up before, and reset since, has its memory already. */
	if (!memory.desc || vq->size != size || memory.indirect_max != indirect_max)
		rc = vmsg_vq_memory_take(&memory, format, size, indirect_max, arena);
	if (rc == 0)
		rc = vmsg_vq_driver_init(vq, format, driver->features, size, &memory, state);
	return rc;
}

int vmsg_driver_setup_vq(struct vmsg_driver *driver, uint32_t index, uint16_t size,
			 uint16_t indirect_max, struct vmsg_arena *arena,
			 struct vmsg_vq_state *state)
{
	const struct vmsg_msg *reply;
	struct vmsg_request request;
	int rc;

	VMSG_ASSERT(index < driver->vq_count);
	rc = read_vqueue(driver, index, &request);
	if (rc < 0)
		return rc;
	reply = &request.reply;
	if (reply->vqueue.max_size == 0)
		return VMSG_ERR_NOENT;
	/* QEMU of the v1 days shows its maximum as the current size: an address tells more. */
	if ((reply->vqueue.flags & VMSG_VQUEUE_ENABLED) ||
	    (driver->bus->dialect != VMSG_V2 && reply->vqueue.size && reply->vqueue.desc_addr))
		return VMSG_ERR_BUSY;
	if (size > reply->vqueue.max_size)
		size = (uint16_t)reply->vqueue.max_size;
	size = legal_size(format_of(driver), size);
	if (!size)
		return VMSG_ERR_INVAL;
	rc = prepare_vq(driver, index, size, indirect_max, arena, state);
	if (rc == 0)
		rc = write_vqueue(driver, index);
	if (rc == 0)
		rc = read_vqueue(driver, index, &request);
	if (rc == 0 && !took_vqueue(driver, &driver->vqs[index], reply))
		rc = VMSG_ERR_IO;
	return rc;
}

int vmsg_driver_reset_vq(struct vmsg_driver *driver, uint32_t index)
{
	struct vmsg_msg msg = { .msg_id = VMSG_RESET_VQUEUE };
	struct vmsg_request request = { 0 };
	int rc;

	if (!vmsg_has(driver->features, VMSG_F_RING_RESET))
		return VMSG_ERR_NOTSUP;
	driver->vqs[index].owes_kick = false;
	msg.vqueue.index = index;
	rc = vmsg_driver_request(driver, &request, &msg);
	if (rc == 0)
		rc = read_vqueue(driver, index, &request);
	if (rc == 0 && (request.reply.vqueue.flags & VMSG_VQUEUE_ENABLED))
		rc = VMSG_ERR_IO;
	return rc;
}

int vmsg_driver_ready(struct vmsg_driver *driver)
{
	int rc = add_status(driver, VMSG_STATUS_DRIVER_OK);

	driver->started = rc == 0;
	/* The first used buffers may have been announced before the answer. */
	vmsg_driver_poll(driver);
	return rc;
}
