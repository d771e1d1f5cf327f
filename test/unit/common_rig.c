/* SPDX-License-Identifier: BSD-3-Clause */
/* The bench for the device role; see common_rig.h. */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

uint8_t rig_ram[RIG_RAM_SIZE] __attribute__((aligned(4096)));

static const struct vmsg_region ram_region = {
	.addr = RIG_RAM,
	.len_bytes = RIG_RAM_SIZE,
	.ptr = rig_ram,
	.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
	.fd = -1,
};
const struct vmsg_mem rig_mem = { .regions = &ram_region, .count = 1 };

/* ---- The bus ---- */

static struct rig *rig_of(struct vmsg_bus *bus)
{
	return (struct rig *)bus;
}

static enum vmsg_dialect dialect_of(const struct rig *rig)
{
	return (enum vmsg_dialect)rig->bus.dialect;
}

static int send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct rig *rig = rig_of(bus);
	struct rig_frame *frame = &rig->sent[rig->sent_count];

	if (rig->down)
		return VMSG_ERR_SHUTDOWN;
	if (rig->room == 0)
		return VMSG_ERR_AGAIN;
	rig->room--;
	CHECK(rig->sent_count < RIG_FRAMES);
	/* DEV-01, DEV-25, GEN-01, BUS-28: of anything that is sent. */
	CHECK(len <= bus->max_msg_size);
	CHECK_EQ(vmsg_msg_size(dialect_of(rig), buf, len), len);
	CHECK_EQ(((const uint8_t *)buf)[0] & 0xfc, 0);
	if (((const uint8_t *)buf)[0] & VMSG_TYPE_BUS)
		CHECK_EQ(vmsg_get16((const uint8_t *)buf + 2), 0);
	rig->sent_count++;
	frame->len = len;
	memcpy(frame->bytes, buf, len);
	return 0;
}

static int notify(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index)
{
	struct rig *rig = rig_of(bus);

	if (rig->bell_result < 0)
		return rig->bell_result;
	CHECK_EQ(dev_num, rig->dev_num);
	rig->bells++;
	rig->bell_vq = vq_index;
	return 0;
}

static const struct vmsg_bus_ops plain_ops = { .name = "rig", .send = send };
static const struct vmsg_bus_ops bell_ops = { .name = "rig", .send = send, .notify = notify };

/* ---- The model ---- */

static struct rig_device *model_of(struct vmsg_device *device)
{
	return (struct rig_device *)device;
}

static int model_reset(struct vmsg_device *device)
{
	model_of(device)->resets++;
	return model_of(device)->reset_result;
}

static int model_start(struct vmsg_device *device)
{
	model_of(device)->starts++;
	return model_of(device)->start_result;
}

static int model_configure(struct vmsg_device *device, uint32_t offset, const void *data,
			   uint32_t len)
{
	struct rig_device *model = model_of(device);

	CHECK(len > 0 && offset <= RIG_CONFIG && len <= RIG_CONFIG - offset);
	if (model->configure_result == 0)
		memcpy(model->config + offset, data, len);
	return model->configure_result;
}

static void model_kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct rig_device *model = model_of(device);
	struct vmsg_chain chain = { .iov = model->iov, .iov_max = 16 };

	model->kicks++;
	model->last_kick = vq_index;
	while (model->serves && vmsg_device_pop(device, vq_index, &chain) > 0) {
		model->served++;
		vmsg_device_push(device, vq_index, &chain, 0);
	}
	while (model->keeps && model->kept_count < 8 &&
	       vmsg_device_pop(device, vq_index, &chain) > 0)
		model->kept[model->kept_count++] = chain;
	vmsg_device_used(device, vq_index);
}

static int model_reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	(void)vq_index;
	model_of(device)->resets_vq++;
	return model_of(device)->reset_vq_result;
}

static const struct vmsg_device_ops model_ops = {
	.name = "rig",
	.device_id = 1,
	.reset = model_reset,
	.start = model_start,
	.configure = model_configure,
	.kick = model_kick,
	.reset_vq = model_reset_vq,
};

void rig_device_init(struct rig_device *model)
{
	static const uint16_t sizes[RIG_QUEUES] = { 8, 16, 0, 8 };

	memset(model, 0, sizeof(*model));
	for (uint32_t i = 0; i < RIG_CONFIG; i++)
		model->config[i] = (uint8_t)(0x40 + i);
	for (uint32_t i = 0; i < RIG_QUEUES; i++)
		model->vqs[i].max_size = sizes[i];
	model->shm.shmid = RIG_SHM_ID;
	model->shm.len_bytes = 0x2000;
	model->shm.addr = 0x80000000;
	model->device.ops = &model_ops;
	model->device.offered = VMSG_BIT(5) | VMSG_BIT(41);
	model->device.config = model->config;
	model->device.config_size = RIG_CONFIG;
	model->device.vqs = model->vqs;
	model->device.vq_count = RIG_QUEUES;
	model->device.admin_vq_start = 3;
	model->device.admin_vq_count = 1;
	model->device.mem = &rig_mem;
	model->device.split = &vmsg_vq_split_device;
	model->device.packed = &vmsg_vq_packed_device;
	model->device.shms = &model->shm;
	model->device.shm_count = 1;
	model->device.vendor_id = 0x554d4551;
	vmsg_device_init(&model->device);
}

static void init(struct rig *rig, const struct vmsg_bus_ops *ops, enum vmsg_dialect dialect,
		 uint32_t features, uint16_t max_msg_size)
{
	memset(rig, 0, sizeof(*rig));
	memset(rig_ram, 0, sizeof(rig_ram));
	rig->room = UINT32_MAX;
	rig->dev_num = RIG_DEV;
	rig->bus.ops = ops;
	rig->bus.frame = rig->frame;
	rig->bus.max_msg_size = max_msg_size ? max_msg_size : VMSG_MSG_DEFAULT;
	vmsg_bus_init_device(&rig->bus, dialect, features);
	rig_device_init(&rig->model);
	CHECK_EQ(vmsg_bus_add(&rig->bus, &rig->model.device, RIG_DEV), 0);
	rig_forget(rig);
}

void rig_init(struct rig *rig, enum vmsg_dialect dialect, uint32_t features, uint16_t max_msg_size)
{
	init(rig, &plain_ops, dialect, features, max_msg_size);
}

void rig_init_bells(struct rig *rig, enum vmsg_dialect dialect)
{
	init(rig, &bell_ops, dialect, 0, 0);
}

/* ---- Messages ---- */

void rig_forget(struct rig *rig)
{
	rig->sent_count = 0;
}

int rig_raw(struct rig *rig, const void *buf, uint32_t len)
{
	/* A copy of the exact size, so that a sanitizer sees every byte too many. */
	uint8_t copy[RIG_BYTES];

	CHECK(len <= sizeof(copy));
	memcpy(copy + sizeof(copy) - len, buf, len);
	rig_forget(rig);
	return vmsg_bus_receive(&rig->bus, copy + sizeof(copy) - len, len);
}

void rig_quiet(struct rig *rig, const void *buf, uint32_t len)
{
	struct vmsg_bus_counters *counters = &rig->bus.counters;
	uint32_t before = counters->malformed + counters->unknown + counters->no_device +
			  counters->stray + rig->model.device.counters.refused;
	uint32_t after;

	CHECK_EQ(rig_raw(rig, buf, len), 0);
	CHECK_EQ(rig->sent_count, 0);
	after = counters->malformed + counters->unknown + counters->no_device + counters->stray +
		rig->model.device.counters.refused;
	CHECK_EQ(after, before + 1);
	rig_status(rig);
}

int rig_send(struct rig *rig, struct vmsg_msg *msg)
{
	uint8_t buf[RIG_BYTES];
	int len;

	rig->token = (uint16_t)(rig->token * 25173u + 13849u);
	if (!(msg->type & VMSG_TYPE_BUS))
		msg->dev_num = rig->dev_num;
	msg->token = msg->msg_id & VMSG_ID_EVENT || dialect_of(rig) == VMSG_RFC2 ? 0 : rig->token;
	len = vmsg_msg_encode(dialect_of(rig), msg, buf, sizeof(buf));
	CHECK(len > 0);
	return rig_raw(rig, buf, (uint32_t)len);
}

struct vmsg_msg rig_call(struct rig *rig, struct vmsg_msg msg)
{
	struct vmsg_msg reply = { 0 };

	CHECK_EQ(rig_send(rig, &msg), 0);
	CHECK_EQ(rig_count(rig, msg.type | VMSG_TYPE_RESPONSE, msg.msg_id, &reply), 1);
	/* DEV-26, DEV-29, DEV-31: exactly one, from this device, with this token. */
	CHECK_EQ(reply.dev_num, msg.dev_num);
	CHECK_EQ(reply.token, msg.token);
	for (uint32_t i = 0; i < rig->sent_count; i++) {
		const uint8_t *bytes = rig->sent[i].bytes;

		CHECK(bytes[1] == msg.msg_id || (bytes[1] & VMSG_ID_EVENT));
	}
	return reply;
}

uint32_t rig_count(const struct rig *rig, uint8_t type, uint8_t msg_id, struct vmsg_msg *msg)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < rig->sent_count; i++) {
		struct vmsg_msg found = { 0 };

		CHECK_EQ(vmsg_msg_decode(dialect_of(rig), rig->sent[i].bytes, rig->sent[i].len,
					 &found),
			 0);
		if (found.type != type || found.msg_id != msg_id)
			continue;
		count++;
		if (msg)
			*msg = found;
	}
	return count;
}

/* ---- The scripted driver ---- */

uint32_t rig_status(struct rig *rig)
{
	return rig_call(rig, (struct vmsg_msg){ .msg_id = VMSG_GET_DEVICE_STATUS }).status.status;
}

uint32_t rig_set_status(struct rig *rig, uint32_t status)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DEVICE_STATUS, .status = { status } };

	return rig_call(rig, msg).status.status;
}

uint64_t rig_features(struct rig *rig)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_FEATURES, .features = { 0, 2 } };

	msg = rig_call(rig, msg);
	CHECK_EQ(msg.tail_bytes, 8);
	return vmsg_get64(msg.tail);
}

void rig_set_features(struct rig *rig, uint64_t features)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DRIVER_FEATURES, .features = { 0, 2 } };
	uint8_t blocks[8];

	vmsg_put64(blocks, features);
	msg.tail = blocks;
	rig_call(rig, msg);
}

struct vmsg_msg rig_get_vqueue(struct rig *rig, uint32_t index)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_VQUEUE, .vqueue = { .index = index } };

	msg = rig_call(rig, msg);
	CHECK_EQ(msg.vqueue.index, index);
	return msg;
}

struct vmsg_msg rig_vqueue(uint32_t index, uint32_t flags, uint32_t size)
{
	uint64_t at = RIG_RAM + 0x1000 * (uint64_t)(index % 8);
	struct vmsg_msg msg = { .msg_id = VMSG_SET_VQUEUE };

	msg.vqueue.index = index;
	msg.vqueue.flags = flags;
	msg.vqueue.size = size;
	msg.vqueue.desc_addr = at;
	msg.vqueue.driver_addr = at + 0x400;
	msg.vqueue.device_addr = at + 0x800;
	return msg;
}

void rig_set_vqueue(struct rig *rig, uint32_t index, uint32_t flags, uint32_t size)
{
	rig_call(rig, rig_vqueue(index, flags, size));
}

void rig_avail(struct rig *rig, uint32_t index)
{
	struct vmsg_msg msg = { .msg_id = VMSG_EVENT_AVAIL, .event = { .vq_index = index } };

	CHECK_EQ(rig_send(rig, &msg), 0);
}

void rig_negotiate(struct rig *rig, uint64_t features)
{
	CHECK_EQ(rig_set_status(rig, 0), 0);
	CHECK_EQ(rig_set_status(rig, 1), 1);
	CHECK_EQ(rig_set_status(rig, 3), 3);
	rig_set_features(rig, features | VMSG_BIT(VMSG_F_VERSION_1));
	CHECK_EQ(rig_set_status(rig, 0x0b), 0x0b);
}

void rig_start(struct rig *rig, uint64_t features)
{
	rig_negotiate(rig, features);
	rig_set_vqueue(rig, 0, VMSG_VQUEUE_OP_ENABLE, 8);
	CHECK_EQ(rig_set_status(rig, 0x0f), 0x0f);
}

void rig_vq_open(struct vmsg_vq_driver *vq, struct vmsg_vq_state *state, uint32_t index,
		 uint16_t size, uint64_t features)
{
	struct vmsg_vq_memory memory = { 0 };

	memory.desc_addr = rig_vqueue(index, 0, 0).vqueue.desc_addr;
	memory.driver_addr = memory.desc_addr + 0x400;
	memory.device_addr = memory.desc_addr + 0x800;
	memory.desc = rig_ram + (memory.desc_addr - RIG_RAM);
	memory.driver = memory.desc + 0x400;
	memory.device = memory.desc + 0x800;
	CHECK_EQ(vmsg_vq_driver_init(vq,
				     vmsg_has(features, VMSG_F_RING_PACKED) ? &vmsg_vq_packed_driver
									    : &vmsg_vq_split_driver,
				     features, size, &memory, state),
		 0);
}

void rig_vq_add(struct vmsg_vq_driver *vq)
{
	struct vmsg_buf buf = { .addr = RIG_RAM + 0x8000, .len = 16 };

	CHECK_EQ(vmsg_vq_add(vq, &buf, 0, 1, vq), 0);
	vmsg_vq_publish(vq);
}
