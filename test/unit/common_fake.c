/* SPDX-License-Identifier: BSD-3-Clause */
/* The bench for the driver role; see common_fake.h. */
#include "common_fake.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

uint8_t fake_shared[0x20000] __attribute__((aligned(4096)));

static struct fake *fake_of(struct vmsg_bus *bus)
{
	return (struct fake *)bus;
}

/* ---- The device ---- */

static void answer_info(const struct fake *fake, struct vmsg_msg *reply)
{
	reply->info.device_id = fake->device_id;
	reply->info.vendor_id = fake->vendor_id;
	memcpy(reply->info.device_uuid, fake->uuid, 16);
	reply->info.num_feature_blocks = fake->num_blocks;
	reply->info.config_size = fake->config_size;
	reply->info.max_virtqueues = fake->max_virtqueues;
	reply->info.admin_vq_start = fake->admin_vq_start;
	reply->info.admin_vq_count = fake->admin_vq_count;
}

static void answer_get_features(const struct fake *fake, const struct vmsg_msg *msg,
				struct vmsg_msg *reply)
{
	static uint8_t blocks[64];

	CHECK(msg->features.num_blocks <= 16);
	reply->features = msg->features;
	reply->tail = blocks;
	memset(blocks, 0, sizeof(blocks));
	for (uint32_t i = 0; i < msg->features.num_blocks; i++) {
		uint32_t index = msg->features.block_index + i;

		if (index < 2)
			vmsg_put32(blocks + 4 * i, (uint32_t)(fake->offered >> 32 * index));
	}
}

static void take_features(struct fake *fake, const struct vmsg_msg *msg)
{
	for (uint32_t i = 0; i < msg->features.num_blocks; i++) {
		uint32_t index = msg->features.block_index + i;

		CHECK(index < 2);
		fake->selected &= ~((uint64_t)UINT32_MAX << 32 * index);
		fake->selected |= (uint64_t)vmsg_get32((const uint8_t *)msg->tail + 4 * i)
				  << 32 * index;
	}
}

static void answer_config(struct fake *fake, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	/* DRV-27, DRV-49, DRV-50: never outside. */
	CHECK(msg->config.offset <= fake->config_size);
	CHECK(msg->config.length <= fake->config_size - msg->config.offset);
	reply->config.offset = msg->config.offset;
	reply->config.length = msg->config.length;
	reply->tail = fake->config + msg->config.offset;
	if (msg->msg_id == VMSG_SET_CONFIG) {
		memcpy(fake->config + msg->config.offset, msg->tail, msg->config.length);
		fake->generation++;
	}
	reply->config.generation = fake->generation;
}

static void take_status(struct fake *fake, uint32_t status)
{
	if (status == 0) {
		memset(&fake->selected, 0, sizeof(fake->selected));
		for (uint32_t i = 0; i < FAKE_QUEUES; i++)
			fake->vqs[i] = (struct fake_vq){ .max_size = fake->vqs[i].max_size };
		if (fake->reset_polls)
			return;
	}
	fake->status = status & fake->status_mask;
}

static uint32_t read_status(struct fake *fake)
{
	if (fake->reset_polls && --fake->reset_polls == 0)
		fake->status = 0;
	return fake->status;
}

static void answer_vqueue(struct fake *fake, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	uint32_t index = msg->vqueue.index;
	struct fake_vq *vq = &fake->vqs[index];

	if (index >= FAKE_QUEUES)
		return;
	if (msg->msg_id == VMSG_RESET_VQUEUE)
		*vq = (struct fake_vq){ .max_size = vq->max_size };
	if (msg->msg_id == VMSG_SET_VQUEUE) {
		vq->size = msg->vqueue.size;
		vq->flags = fake->dialect == VMSG_V2 ? msg->vqueue.flags & 1 : 0;
		vq->desc_addr = msg->vqueue.desc_addr;
		vq->driver_addr = msg->vqueue.driver_addr;
		vq->device_addr = msg->vqueue.device_addr;
	}
	if (msg->msg_id == VMSG_GET_VQUEUE) {
		reply->vqueue.index = index;
		reply->vqueue.max_size = vq->max_size;
		reply->vqueue.size = vq->size;
		reply->vqueue.flags = vq->flags;
		reply->vqueue.desc_addr = vq->desc_addr;
		reply->vqueue.driver_addr = vq->driver_addr;
		reply->vqueue.device_addr = vq->device_addr;
	}
}

static void answer_devices(const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	static uint8_t map[256];

	reply->devices = msg->devices;
	reply->devices.next_offset = 0;
	memset(map, 0, sizeof(map));
	if (FAKE_DEV >= msg->devices.offset && FAKE_DEV - msg->devices.offset < msg->devices.count)
		map[(FAKE_DEV - msg->devices.offset) / 8] |=
			(uint8_t)(1u << (FAKE_DEV - msg->devices.offset) % 8);
	reply->tail = map;
}

static void make_answer(struct fake *fake, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	if (msg->type & VMSG_TYPE_BUS) {
		if (msg->msg_id == VMSG_GET_DEVICES)
			answer_devices(msg, reply);
		else
			reply->ping = msg->ping;
		return;
	}
	switch (msg->msg_id) {
	case VMSG_GET_DEVICE_INFO:
		answer_info(fake, reply);
		break;
	case VMSG_GET_DEVICE_FEATURES:
		answer_get_features(fake, msg, reply);
		break;
	case VMSG_SET_DRIVER_FEATURES:
		take_features(fake, msg);
		break;
	case VMSG_GET_CONFIG:
	case VMSG_SET_CONFIG:
		answer_config(fake, msg, reply);
		break;
	case VMSG_SET_DEVICE_STATUS:
		take_status(fake, msg->status.status);
		reply->status.status = fake->status;
		break;
	case VMSG_GET_DEVICE_STATUS:
		reply->status.status = read_status(fake);
		break;
	case VMSG_GET_SHM:
		reply->shm.shmid = msg->shm.shmid;
		reply->shm.length = msg->shm.shmid == 1 ? 0x2000 : 0;
		reply->shm.address = msg->shm.shmid == 1 ? 0x80000000 : 0;
		break;
	default:
		answer_vqueue(fake, msg, reply);
		break;
	}
}

static void answer(struct fake *fake, const struct vmsg_msg *msg)
{
	struct vmsg_msg reply = { 0 };

	if ((msg->type & VMSG_TYPE_RESPONSE) || (msg->msg_id & VMSG_ID_EVENT))
		return;
	reply.type = msg->type | VMSG_TYPE_RESPONSE;
	reply.msg_id = msg->msg_id;
	reply.dev_num = msg->dev_num;
	reply.token = msg->token;
	make_answer(fake, msg, &reply);
	if (fake->swallow && (!fake->swallow_id || fake->swallow_id == msg->msg_id)) {
		fake->swallow--;
		return;
	}
	if (!fake->hook || fake->hook(fake, msg, &reply))
		fake_say(fake, &reply);
}

/* ---- The bus ---- */

static int send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct fake *fake = fake_of(bus);
	struct fake_frame *frame = &fake->log[fake->log_count];
	int rc;

	if (fake->down)
		return VMSG_ERR_SHUTDOWN;
	if (fake->room == 0)
		return VMSG_ERR_AGAIN;
	fake->room--;
	CHECK(fake->log_count < FAKE_LOG);
	/* DRV-01, DRV-17, DRV-18: of anything that is sent. */
	CHECK(len <= bus->max_msg_size);
	CHECK_EQ(vmsg_msg_size((enum vmsg_dialect)bus->dialect, buf, len), len);
	CHECK_EQ(((const uint8_t *)buf)[0] & 0xfc, 0);
	fake->log_count++;
	frame->len = len;
	memcpy(frame->bytes, buf, len);
	rc = vmsg_msg_decode(fake->dialect, frame->bytes, len, &frame->msg);
	if (rc < 0)
		return 0; /* in a dialect that this device does not speak */
	/* DRV-02: no id but those of the table. DRV-19: the right number. */
	CHECK_EQ(frame->msg.dev_num, frame->msg.type & VMSG_TYPE_BUS ? 0 : FAKE_DEV);
	answer(fake, &frame->msg);
	return 0;
}

static int notify(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index)
{
	CHECK_EQ(dev_num, FAKE_DEV);
	(void)vq_index;
	if (fake_of(bus)->bell_result == 0)
		fake_of(bus)->bells++;
	return fake_of(bus)->bell_result;
}

static int wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct fake *fake = fake_of(bus);

	fake->waits++;
	if (fake->down)
		return VMSG_ERR_SHUTDOWN;
	if (fake->out_count && !fake->hold)
		fake_deliver(fake);
	else
		bus->now_ms += ms ? ms : 1;
	return 0;
}

void fake_deliver(struct fake *fake)
{
	for (uint32_t i = 0; i < fake->out_count; i++) {
		/* A copy of the exact size, so that a sanitizer sees every byte too many. */
		uint8_t copy[FAKE_BYTES];
		uint32_t len = fake->out[i].len;

		memcpy(copy + sizeof(copy) - len, fake->out[i].bytes, len);
		CHECK_EQ(vmsg_bus_receive(&fake->bus, copy + sizeof(copy) - len, len), 0);
	}
	fake->out_count = 0;
}

void fake_say_raw(struct fake *fake, const void *buf, uint32_t len)
{
	struct fake_frame *frame = &fake->out[fake->out_count++];

	CHECK(fake->out_count <= 64 && len <= FAKE_BYTES);
	frame->len = len;
	memcpy(frame->bytes, buf, len);
}

void fake_say(struct fake *fake, const struct vmsg_msg *msg)
{
	uint8_t buf[FAKE_BYTES];
	int len = vmsg_msg_encode(fake->dialect, msg, buf, sizeof(buf));

	CHECK(len > 0);
	fake_say_raw(fake, buf, (uint32_t)len);
}

void fake_used(struct fake *fake, uint32_t vq_index)
{
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_USED, .dev_num = FAKE_DEV };

	event.event.vq_index = vq_index;
	fake_say(fake, &event);
	fake_deliver(fake);
}

void fake_config_event(struct fake *fake, uint32_t offset, uint32_t length, const void *data)
{
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_CONFIG, .dev_num = FAKE_DEV };

	event.config.device_status = fake->status;
	event.config.generation = fake->generation;
	event.config.offset = offset;
	event.config.length = length;
	event.tail = data;
	fake_say(fake, &event);
	fake_deliver(fake);
}

uint32_t fake_count(const struct fake *fake, uint8_t type, uint8_t msg_id, struct vmsg_msg *msg)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < fake->log_count; i++) {
		if (fake->log[i].msg.type != type || fake->log[i].msg.msg_id != msg_id)
			continue;
		count++;
		if (msg)
			*msg = fake->log[i].msg;
	}
	return count;
}

void fake_forget(struct fake *fake)
{
	fake->log_count = 0;
}

static const struct vmsg_bus_ops plain_ops = { .name = "fake", .send = send, .wait = wait };
static const struct vmsg_bus_ops bell_ops = {
	.name = "fake",
	.send = send,
	.notify = notify,
	.wait = wait,
};

void fake_use_bells(struct fake *fake)
{
	fake->bus.ops = &bell_ops;
}

void fake_init(struct fake *fake, enum vmsg_dialect device_dialect,
	       enum vmsg_dialect driver_dialect, uint32_t features, uint16_t max_msg_size)
{
	static const uint32_t sizes[FAKE_QUEUES] = { 8, 16, 0, 64, 8, 8, 8, 8 };

	memset(fake, 0, sizeof(*fake));
	fake->room = UINT32_MAX;
	fake->dialect = device_dialect;
	fake->device_id = 1;
	fake->vendor_id = 0x554d4551;
	fake->num_blocks = 2;
	fake->config_size = 24;
	fake->max_virtqueues = 4;
	fake->status_mask = 0xff;
	fake->offered = VMSG_BIT(5) | VMSG_BIT(VMSG_F_VERSION_1);
	for (uint32_t i = 0; i < FAKE_QUEUES; i++)
		fake->vqs[i].max_size = sizes[i];
	for (uint32_t i = 0; i < sizeof(fake->config); i++)
		fake->config[i] = (uint8_t)(i + 1);
	fake->bus.ops = &plain_ops;
	fake->bus.frame = fake->frame;
	fake->bus.max_msg_size = max_msg_size ? max_msg_size : VMSG_MSG_DEFAULT;
	fake->bus.learn = vmsg_msg_learn;
	vmsg_bus_init_driver(&fake->bus, driver_dialect, features);
}

/* ---- The driver ---- */

static struct fake_user *user_of(struct vmsg_driver *driver)
{
	return (struct fake_user *)driver;
}

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	user_of(driver)->used++;
	user_of(driver)->last_used = vq_index;
}

static void config_changed(struct vmsg_driver *driver, uint32_t device_status)
{
	user_of(driver)->config_changed++;
	user_of(driver)->last_status = device_status;
}

static void gone(struct vmsg_driver *driver)
{
	user_of(driver)->gone++;
}

static const struct vmsg_driver_ops user_ops = {
	.used = used,
	.config_changed = config_changed,
	.gone = gone,
};

void fake_user_init(struct fake_user *user, struct fake *fake)
{
	memset(user, 0, sizeof(*user));
	vmsg_driver_init(&user->driver, &fake->bus, FAKE_DEV, &user_ops);
	user->driver.split = &vmsg_vq_split_driver;
	user->driver.packed = &vmsg_vq_packed_driver;
	user->driver.vqs = user->vqs;
	user->driver.vq_count = 4;
	user->arena.addr = FAKE_SHARED;
	user->arena.ptr = fake_shared;
	user->arena.len_bytes = sizeof(fake_shared);
}

int fake_user_setup(struct fake_user *user, uint32_t index, uint16_t size)
{
	return vmsg_driver_setup_vq(&user->driver, index, size, 0, &user->arena,
				    user->state[index]);
}

void fake_user_start(struct fake_user *user, uint64_t wanted)
{
	CHECK_EQ(vmsg_driver_identify(&user->driver), 0);
	CHECK_EQ(vmsg_driver_negotiate(&user->driver, wanted), 0);
	CHECK_EQ(fake_user_setup(user, 0, 8), 0);
	CHECK_EQ(vmsg_driver_ready(&user->driver), 0);
}
