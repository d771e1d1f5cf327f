/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole device side under a hostile driver: frames of any kind, a memory it writes what it
 * likes into, a bus without room, a peer that is replaced, a model that takes its time. Whatever
 * happened, every request got at most one answer, everything sent was well formed, and a plain
 * reset brings the device back to service.
 */
#include "common_input.h"

#include <vmsg/device.h>
#include <vmsg/port.h>

#define RAM	 UINT64_C(0x10000)
#define RAM_SIZE 4096u
#define QUEUES	 3u
#define MAX_SIZE 8u
#define KEPT	 8u
#define DEV	 1
#define STEPS	 20u /* of a run; more only cost time */

struct kept {
	uint32_t vq_index;
	struct vmsg_chain chain;
	struct vmsg_iov iov[MAX_SIZE];
};

static uint8_t ram[RAM_SIZE] __attribute__((aligned(64)));
static struct {
	struct vmsg_bus bus;
	uint8_t frame[VMSG_MSG_DEFAULT];
	struct vmsg_device device;
	struct vmsg_vq_device vqs[QUEUES];
	uint8_t config[40];
	struct vmsg_shm shm;
	struct vmsg_region region;
	struct vmsg_mem mem;
	uint32_t room, answers;
	uint8_t last[VMSG_MSG_DEFAULT]; /* last answer */
	bool async, busy, resetting, resetting_vq[QUEUES];
	struct kept kept[KEPT];
	uint32_t kept_count;
} world;

/* ---- The bus ---- */

static int send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	const uint8_t *wire = buf;
	struct vmsg_msg msg;

	require(len <= bus->max_msg_size);
	require(vmsg_msg_decode((enum vmsg_dialect)bus->dialect, buf, len, &msg) == 0);
	require(vmsg_msg_size((enum vmsg_dialect)bus->dialect, buf, len) == len);
	require((wire[0] & 0xfc) == 0);
	if (world.room == 0)
		return VMSG_ERR_AGAIN;
	if (world.room != UINT32_MAX)
		world.room--;
	if (msg.type & VMSG_TYPE_RESPONSE) {
		world.answers++;
		memcpy(world.last, buf, len);
	} else {
		require(msg.msg_id & VMSG_ID_EVENT);
	}
	return 0;
}

static int notify(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index)
{
	(void)bus;
	require(dev_num == DEV && vq_index < QUEUES);
	if (world.room == 0)
		return VMSG_ERR_AGAIN;
	return vq_index == 2 ? VMSG_ERR_NOTSUP : 0;
}

static const struct vmsg_bus_ops plain_ops = { .name = "fuzz", .send = send };
static const struct vmsg_bus_ops bell_ops = { .name = "fuzz", .send = send, .notify = notify };

/* ---- The model ---- */

/* Touches every byte, which a sanitizer watches. */
static void finish(uint32_t vq_index, const struct vmsg_chain *chain)
{
	uint8_t buf[64];

	for (size_t at = 0; at < chain->readable_bytes && at < 4096; at += sizeof(buf))
		vmsg_chain_read(chain, at, buf, sizeof(buf));
	memset(buf, 0xee, sizeof(buf));
	for (size_t at = 0; at < chain->writable_bytes && at < 4096; at += sizeof(buf))
		vmsg_chain_write(chain, at, buf, sizeof(buf));
	vmsg_device_push(&world.device, vq_index, chain, chain->writable_bytes);
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct kept *kept = &world.kept[world.kept_count];

	require(device->status & VMSG_STATUS_DRIVER_OK);
	require(vq_index < QUEUES && world.vqs[vq_index].enabled);
	/* No more than a queue can hold: what was given back may be there again. */
	for (uint32_t i = 0; i < MAX_SIZE && world.kept_count < KEPT; i++) {
		kept->vq_index = vq_index;
		kept->chain.iov = kept->iov;
		kept->chain.iov_max = MAX_SIZE;
		if (vmsg_device_pop(device, vq_index, &kept->chain) <= 0)
			break;
		require(kept->chain.readable_count + kept->chain.writable_count <= MAX_SIZE);
		if (world.async)
			kept = &world.kept[++world.kept_count];
		else
			finish(vq_index, &kept->chain);
		if (world.kept_count == KEPT)
			break;
	}
	vmsg_device_used(device, vq_index);
}

static void drop_kept(uint32_t vq_index, bool all)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < world.kept_count; i++) {
		if (all || world.kept[i].vq_index == vq_index)
			continue;
		world.kept[count] = world.kept[i];
		world.kept[count].chain.iov = world.kept[count].iov;
		count++;
	}
	world.kept_count = count;
}

static int reset(struct vmsg_device *device)
{
	(void)device;
	if (world.busy) {
		world.resetting = true;
		return VMSG_ERR_AGAIN;
	}
	drop_kept(0, true);
	return 0;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	(void)device;
	require(vq_index < QUEUES);
	if (world.busy) {
		world.resetting_vq[vq_index] = true;
		return VMSG_ERR_AGAIN;
	}
	drop_kept(vq_index, false);
	return 0;
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	require(len && offset <= device->config_size && len <= device->config_size - offset);
	if (offset & 1)
		return VMSG_ERR_INVAL;
	memcpy(device->config + offset, data, len);
	return 0;
}

static const struct vmsg_device_ops ops = {
	.name = "fuzz",
	.device_id = 1,
	.reset = reset,
	.configure = configure,
	.kick = kick,
	.reset_vq = reset_vq,
};

/* What was put off is finished, oldest first. */
static void work(void)
{
	if (world.kept_count) {
		struct kept first = world.kept[0];

		first.chain.iov = first.iov;
		memmove(&world.kept[0], &world.kept[1], (KEPT - 1) * sizeof(first));
		world.kept_count--;
		for (uint32_t i = 0; i < world.kept_count; i++)
			world.kept[i].chain.iov = world.kept[i].iov;
		finish(first.vq_index, &first.chain);
		vmsg_device_used(&world.device, first.vq_index);
		return;
	}
	world.busy = false;
	for (uint32_t i = 0; i < QUEUES; i++) {
		bool was = world.resetting_vq[i];

		world.resetting_vq[i] = false;
		if (was)
			vmsg_device_vq_reset_done(&world.device, i);
	}
	if (world.resetting) {
		world.resetting = false;
		vmsg_device_reset_done(&world.device);
	}
}

/* ---- The driver ---- */

static void receive(const uint8_t *bytes, uint32_t len)
{
	uint32_t held = vmsg_bus_holds(&world.bus);
	int rc;

	world.answers = 0;
	rc = vmsg_bus_receive(&world.bus, end_of_memory(bytes, len), len);
	require(rc == 0 || (rc == VMSG_ERR_AGAIN && held));
	/* One for this request, one that was held, and one for each queue whose reset has ended. */
	require(world.answers <= 1 + held + QUEUES);
}

static void send_msg(struct vmsg_msg *msg)
{
	uint8_t wire[VMSG_MSG_DEFAULT];
	int len;

	msg->dev_num = msg->type & VMSG_TYPE_BUS ? 0 : DEV;
	len = vmsg_msg_encode((enum vmsg_dialect)world.bus.dialect, msg, wire, sizeof(wire));
	if (len > 0)
		receive(wire, (uint32_t)len);
}

static void set_status(uint32_t status)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DEVICE_STATUS, .status = { status } };

	send_msg(&msg);
}

static void set_features(uint64_t features)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DRIVER_FEATURES, .features = { 0, 2 } };
	uint8_t blocks[8];

	vmsg_put64(blocks, features);
	msg.tail = blocks;
	send_msg(&msg);
}

static void set_vqueue(uint32_t index, uint32_t flags, uint32_t size, uint32_t place)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_VQUEUE };

	msg.vqueue.index = index;
	msg.vqueue.flags = flags;
	msg.vqueue.size = size;
	msg.vqueue.desc_addr = RAM + 16 * place;
	msg.vqueue.driver_addr = RAM + 16 * place + 128;
	msg.vqueue.device_addr = RAM + 16 * place + 192;
	send_msg(&msg);
}

/* To DRIVER_OK, as a good driver would. */
static void start(uint64_t features)
{
	set_status(0);
	set_status(1);
	set_status(3);
	set_features(features | VMSG_BIT(VMSG_F_VERSION_1));
	set_status(0x0b);
	set_vqueue(0, VMSG_VQUEUE_OP_ENABLE, MAX_SIZE, 0);
	set_vqueue(1, VMSG_VQUEUE_OP_ENABLE, 4, 32);
	set_status(0x0f);
}

static const uint64_t some_features[8] = {
	0,
	VMSG_BIT(VMSG_F_RING_PACKED),
	VMSG_BIT(VMSG_F_EVENT_IDX) | VMSG_BIT(VMSG_F_INDIRECT_DESC),
	VMSG_BIT(VMSG_F_RING_PACKED) | VMSG_BIT(VMSG_F_EVENT_IDX) | VMSG_BIT(VMSG_F_INDIRECT_DESC),
	VMSG_BIT(VMSG_F_RING_RESET),
	VMSG_BIT(VMSG_F_RING_RESET) | VMSG_BIT(VMSG_F_RING_PACKED),
	VMSG_BIT(VMSG_F_RING_RESET) | VMSG_BIT(VMSG_F_INDIRECT_DESC),
	VMSG_BIT(VMSG_F_IN_ORDER),
};

/* A well framed message of a kind we know, its payload from the input. */
static void framed(struct input *input)
{
	enum vmsg_dialect dialect = (enum vmsg_dialect)world.bus.dialect;
	uint32_t header = vmsg_msg_header_bytes(dialect), what = take8(input);
	uint8_t wire[VMSG_MSG_DEFAULT] = { 0 };
	uint32_t len = header + take8(input) % 60;

	wire[0] = what & 0x80 ? VMSG_TYPE_BUS : 0;
	wire[1] = what & 0x40 ? VMSG_EVENT_CONFIG + what % 3 : 2 + what % 11;
	wire[2] = what & 0x80 ? 0 : DEV;
	vmsg_put16(wire + 4, take16(input));
	vmsg_put16(wire + header - 2, (uint16_t)len);
	take_bytes(input, wire + header, len - header);
	receive(wire, len);
}

static void raw(struct input *input)
{
	uint8_t wire[VMSG_MSG_DEFAULT];

	receive(wire, take_bytes(input, wire, take8(input)));
}

static void scribble(struct input *input)
{
	uint32_t at = take16(input) % RAM_SIZE, len = take8(input);

	take_bytes(input, ram + at, len < RAM_SIZE - at ? len : RAM_SIZE - at);
}

/* Gone and offered again, as new. */
static void replace(void)
{
	while (world.kept_count || world.resetting || world.busy)
		work();
	world.room = UINT32_MAX;
	vmsg_bus_remove(&world.bus, &world.device);
	require(vmsg_bus_flush(&world.bus));
	require(vmsg_bus_add(&world.bus, &world.device, DEV) == 0);
}

static void step(struct input *input)
{
	uint32_t what = take8(input);

	switch (what % 16) {
	case 0:
		raw(input);
		break;
	case 1:
	case 2:
	case 3:
		framed(input);
		break;
	case 4:
	case 5:
		scribble(input);
		break;
	case 6:
		start(some_features[what >> 4 & 7]);
		break;
	case 7:
		world.room = what >> 4 & 8 ? UINT32_MAX : what >> 4;
		break;
	case 8:
		vmsg_bus_flush(&world.bus);
		break;
	case 9:
		work();
		break;
	case 10:
		vmsg_device_config_changed(&world.device, what >> 4, what & 0x80 ? 0 : 20);
		break;
	case 11:
		vmsg_device_kicked(&world.device, what & 0x80 ? take32(input) : what >> 4 & 3);
		break;
	case 12:
		set_vqueue(what >> 4 & 3, take8(input), take8(input), take8(input) % 200);
		break;
	case 13:
		world.busy = what & 0x10;
		vmsg_device_poll(&world.device);
		break;
	case 14:
		if (what & 0x80)
			replace();
		else
			vmsg_bus_peer_reset(&world.bus);
		break;
	default:
		set_status(what >> 4);
		break;
	}
}

/* Whatever came before: work ends, there is room again, a reset is all it takes. */
static void check_recovery(void)
{
	uint32_t at = vmsg_msg_header_bytes((enum vmsg_dialect)world.bus.dialect);

	world.room = UINT32_MAX;
	require(vmsg_bus_flush(&world.bus));
	set_status(0);
	while (world.kept_count || world.resetting || world.busy)
		work();
	require(vmsg_bus_flush(&world.bus));
	memset(ram, 0, RAM_SIZE);
	start(0);
	require(world.last[1] == VMSG_SET_DEVICE_STATUS);
	require(vmsg_get32(world.last + at) == 0x0f);
	require(world.vqs[0].enabled && world.vqs[1].enabled);
	require(!vmsg_bus_holds(&world.bus));
}

static void set_up(struct input *input)
{
	uint32_t what = take8(input);
	enum vmsg_dialect dialect = (enum vmsg_dialect)(what % 3);

	memset(&world, 0, sizeof(world));
	memset(ram, 0, RAM_SIZE);
	world.region = (struct vmsg_region){ .addr = RAM,
					     .len_bytes = RAM_SIZE,
					     .ptr = ram,
					     .access = VMSG_MEM_READ | VMSG_MEM_WRITE,
					     .fd = -1 };
	require(vmsg_mem_init(&world.mem, &world.region, 1) == 0);
	world.room = UINT32_MAX;
	world.async = what & 0x40;
	world.bus.ops = what & 0x10 ? &bell_ops : &plain_ops;
	world.bus.frame = world.frame;
	world.bus.max_msg_size = what & 0x20 ? 264 : 52;
	vmsg_bus_init_device(&world.bus, dialect, what & 0x80 ? 1 : 0);
	world.vqs[0].max_size = world.vqs[2].max_size = MAX_SIZE;
	world.vqs[1].max_size = 4;
	world.shm = (struct vmsg_shm){ 1, 4096, RAM };
	world.device.ops = &ops;
	world.device.offered = VMSG_BIT(VMSG_F_IN_ORDER);
	world.device.config = world.config;
	world.device.config_size = sizeof(world.config);
	world.device.vqs = world.vqs;
	world.device.vq_count = QUEUES;
	world.device.mem = &world.mem;
	world.device.split = &vmsg_vq_split_device;
	world.device.packed = &vmsg_vq_packed_device;
	world.device.shms = &world.shm;
	world.device.shm_count = 1;
	vmsg_device_init(&world.device);
	require(vmsg_bus_add(&world.bus, &world.device, DEV) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };

	set_up(&input);
	for (uint32_t i = 0; i < STEPS && input.left; i++)
		step(&input);
	/* It takes half of the time, so not always. */
	if ((size & 3) == 3)
		check_recovery();
	return 0;
}
