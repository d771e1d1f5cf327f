/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side against a hostile device: from enumeration through the start sequence to I/O and
 * reset, each answer a good one, a changed one, one made of the input, or none; events of any kind
 * in between; and a shared memory that changes under the driver's hands. Whatever happened, all
 * calls end in time, no more bytes are said to be written than were offered, and with a good device
 * a fresh start succeeds.
 */
#include "common_input.h"

#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define RAM	   UINT64_C(0x10000)
#define RAM_SIZE   8192u
#define QUEUES	   2u
#define QUEUE_SIZE 8u
#define DEV	   1
#define REQUEST_MS 2
#define RESET_MS   11
#define ANSWERS	   8u

struct frame {
	uint32_t len;
	uint8_t bytes[VMSG_MSG_DEFAULT];
};

static uint8_t ram[RAM_SIZE] __attribute__((aligned(64)));
static struct {
	struct input *input;
	uint32_t waits;
	bool good; /* the device behaves from here on */
	bool down;

	/* The driver's end. */
	struct vmsg_bus bus;
	uint8_t frame[VMSG_MSG_DEFAULT];
	struct vmsg_driver driver;
	struct vmsg_vq_driver vqs[QUEUES];
	struct vmsg_vq_state state[QUEUES][QUEUE_SIZE];
	struct vmsg_arena arena;
	struct vmsg_buf buf;
	struct frame asked; /* the last request, not yet answered */
	uint32_t used, outstanding;

	/* A good device, whose answers are the starting point. */
	struct vmsg_bus far;
	uint8_t far_frame[VMSG_MSG_DEFAULT];
	struct vmsg_device device;
	struct vmsg_vq_device device_vqs[QUEUES];
	uint8_t config[40];
	struct frame said[ANSWERS];
	uint32_t said_count;

	struct vmsg_region region;
	struct vmsg_mem mem;
} world;

/* ---- The good device ---- */

static int far_send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct frame *frame = &world.said[world.said_count];

	(void)bus;
	if (world.said_count == ANSWERS)
		return VMSG_ERR_AGAIN;
	world.said_count++;
	frame->len = len;
	memcpy(frame->bytes, buf, len);
	return 0;
}

static const struct vmsg_bus_ops far_ops = { .name = "far", .send = far_send };

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_iov iov[QUEUE_SIZE];
	struct vmsg_chain chain = { .iov = iov, .iov_max = QUEUE_SIZE };

	for (uint32_t i = 0; i < QUEUE_SIZE && vmsg_device_pop(device, vq_index, &chain) > 0; i++)
		vmsg_device_push(device, vq_index, &chain, chain.writable_bytes);
	vmsg_device_used(device, vq_index);
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	memcpy(device->config + offset, data, len);
	return 0;
}

static const struct vmsg_device_ops device_ops = {
	.name = "fuzz",
	.device_id = 1,
	.configure = configure,
	.kick = kick,
};

/* ---- The driver's bus ---- */

static int send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	const uint8_t *wire = buf;

	require(len <= bus->max_msg_size && (wire[0] & 0xfc) == 0);
	require(vmsg_msg_size((enum vmsg_dialect)bus->dialect, buf, len) == len);
	if (world.down)
		return VMSG_ERR_SHUTDOWN;
	/* Events go where they belong; of requests the last one is remembered. */
	if (wire[1] & VMSG_ID_EVENT || wire[0] & VMSG_TYPE_RESPONSE) {
		vmsg_bus_receive(&world.far, buf, len);
		return 0;
	}
	if (!world.good && world.input->left && (take8(world.input) & 31) == 31)
		return VMSG_ERR_AGAIN;
	world.asked.len = len;
	memcpy(world.asked.bytes, buf, len);
	return 0;
}

static void receive(const uint8_t *bytes, uint32_t len)
{
	require(vmsg_bus_receive(&world.bus, end_of_memory(bytes, len), len) == 0);
}

/* Lets the good device answer, and hands over what it says; flips a byte of the first if asked. */
static bool pass(uint32_t at, uint8_t flip)
{
	uint32_t count;

	if (world.asked.len)
		vmsg_bus_receive(&world.far, world.asked.bytes, world.asked.len);
	world.asked.len = 0;
	vmsg_bus_flush(&world.far);
	count = world.said_count;
	for (uint32_t i = 0; i < count; i++) {
		struct frame frame = world.said[i];

		if (i == 0 && flip)
			frame.bytes[at % frame.len] ^= flip;
		receive(frame.bytes, frame.len);
	}
	world.said_count -= count;
	memmove(&world.said[0], &world.said[count], world.said_count * sizeof(world.said[0]));
	return count != 0;
}

/* An answer that fits the request by its header, and by nothing else. */
static void fabricate(struct input *input)
{
	enum vmsg_dialect dialect = (enum vmsg_dialect)world.bus.dialect;
	uint32_t header = vmsg_msg_header_bytes(dialect), len = header + take8(input) % 100;
	uint8_t wire[VMSG_MSG_DEFAULT] = { 0 };

	memcpy(wire, world.asked.bytes, header);
	wire[0] |= VMSG_TYPE_RESPONSE;
	vmsg_put16(wire + header - 2, (uint16_t)len);
	take_bytes(input, wire + header, len - header);
	receive(wire, len);
}

static void event(struct input *input, uint32_t what)
{
	struct vmsg_msg msg = { .msg_id = what & 0x40 ? VMSG_EVENT_USED : VMSG_EVENT_CONFIG,
				.dev_num = DEV };
	uint8_t wire[64];
	int len;

	if (what & 0x80) {
		msg.type = VMSG_TYPE_BUS;
		msg.msg_id = what & 0x40 ? VMSG_EVENT_DEVICE : VMSG_PING;
		msg.dev_num = 0;
		msg.event_device.device_number = take8(input);
		msg.event_device.device_bus_state = what >> 3 & 3;
	} else {
		msg.event.vq_index = what & 0x20 ? take32(input) : take8(input) % 3;
		msg.config.generation = take8(input);
	}
	len = vmsg_msg_encode((enum vmsg_dialect)world.bus.dialect, &msg, wire, sizeof(wire));
	require(len > 0);
	receive(wire, (uint32_t)len);
}

static void scribble(struct input *input)
{
	uint32_t at = take16(input) % RAM_SIZE, len = take8(input) % 64;

	take_bytes(input, ram + at, len < RAM_SIZE - at ? len : RAM_SIZE - at);
}

static int wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct input *input = world.input;
	uint8_t wire[VMSG_MSG_DEFAULT];
	uint32_t what;

	world.waits++;
	if (world.down)
		return VMSG_ERR_SHUTDOWN;
	what = world.good || !input->left ? 0 : take8(input);
	switch (what & 7) {
	case 3:
		fabricate(input);
		return 0;
	case 4:
		receive(wire, take_bytes(input, wire, what >> 3 ? what >> 3 : take8(input)));
		return 0;
	case 5:
		event(input, what);
		return 0;
	case 6:
		scribble(input);
		break;
	case 7:
		if (what == 0xff)
			world.down = true;
		break;
	case 2:
		if (pass(take8(input), take8(input)))
			return 0;
		break;
	default:
		if (pass(0, 0))
			return 0;
		break;
	}
	bus->now_ms += ms ? ms : 1;
	world.far.now_ms = bus->now_ms;
	return 0;
}

static const struct vmsg_bus_ops ops = { .name = "fuzz", .send = send, .wait = wait };

/* ---- The user of the driver ---- */

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct vmsg_vq_driver *vq = &world.vqs[vq_index];
	uint32_t written;
	void *cookie;

	require(vq_index < QUEUES && vq->size);
	(void)driver;
	for (uint32_t i = 0; vmsg_vq_get(vq, &cookie, &written) > 0; i++) {
		require(i < QUEUE_SIZE && cookie == &world.buf && written <= world.buf.len);
		require(world.outstanding > 0);
		world.outstanding--;
		world.used++;
	}
}

static const struct vmsg_driver_ops driver_ops = { .used = used };

static void drain(void)
{
	for (uint32_t i = 0; i < QUEUES; i++) {
		void *cookie;

		while ((cookie = vmsg_vq_drain(&world.vqs[i])) != NULL) {
			require(cookie == &world.buf && world.outstanding > 0);
			world.outstanding--;
		}
	}
	require(world.outstanding == 0);
}

static void init_driver(void)
{
	memset(world.vqs, 0, sizeof(world.vqs));
	vmsg_driver_init(&world.driver, &world.bus, DEV, &driver_ops);
	world.driver.split = &vmsg_vq_split_driver;
	world.driver.packed = &vmsg_vq_packed_driver;
	world.driver.vqs = world.vqs;
	world.driver.vq_count = QUEUES;
	world.driver.timeout_ms = REQUEST_MS;
	world.driver.reset_timeout_ms = RESET_MS;
	world.arena.used_bytes = 0;
}

static int setup_vq(uint32_t index)
{
	return vmsg_driver_setup_vq(&world.driver, index, QUEUE_SIZE, 2, &world.arena,
				    world.state[index]);
}

static int start(uint64_t wanted)
{
	uint8_t config[sizeof(world.config)], bitmap[4];
	int rc = vmsg_bus_get_devices(&world.bus, bitmap, 32, REQUEST_MS);

	if (rc < 0 && world.good)
		return rc;
	rc = vmsg_driver_identify(&world.driver);
	if (rc == 0)
		rc = vmsg_driver_negotiate(&world.driver, wanted);
	if (rc < 0)
		return rc;
	if (world.driver.config_size >= 4) {
		vmsg_driver_read_config(&world.driver, 0, config,
					world.driver.config_size < sizeof(config)
						? world.driver.config_size
						: (uint32_t)sizeof(config));
		vmsg_driver_write_config(&world.driver, 2, "ab", 2);
	}
	for (uint32_t i = 0; i < QUEUES && rc == 0; i++)
		rc = setup_vq(i);
	return rc < 0 ? rc : vmsg_driver_ready(&world.driver);
}

static void submit(uint32_t count)
{
	struct vmsg_buf bufs[2] = { world.buf, world.buf };

	bufs[0].len = 8;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = i % QUEUES;

		if (world.vqs[index].size &&
		    vmsg_vq_add(&world.vqs[index], bufs, 1, 1, &world.buf) == 0)
			world.outstanding++;
		if (world.vqs[index].size)
			vmsg_driver_kick(&world.driver, index);
	}
}

/* What a driver does in its life, in an order that the input chooses. */
static void live(struct input *input)
{
	uint64_t addr, len;

	for (uint32_t i = 0; i < 8 && input->left; i++) {
		uint32_t what = take8(input);

		switch (what % 8) {
		case 0:
			vmsg_driver_read_status(&world.driver);
			break;
		case 1:
			vmsg_driver_get_shm(&world.driver, what, &addr, &len);
			break;
		case 2:
			if (world.vqs[what >> 3 & 1].size &&
			    vmsg_driver_reset_vq(&world.driver, what >> 3 & 1) == 0) {
				void *cookie;

				while ((cookie = vmsg_vq_drain(&world.vqs[what >> 3 & 1])) != NULL)
					world.outstanding--;
				if (setup_vq(what >> 3 & 1) < 0)
					memset(&world.vqs[what >> 3 & 1], 0, sizeof(world.vqs[0]));
			}
			break;
		case 3:
			vmsg_driver_poll(&world.driver);
			break;
		case 4:
			vmsg_bus_ping(&world.bus, what, REQUEST_MS);
			break;
		case 5:
			vmsg_driver_read_config(&world.driver, 0, world.frame, 0);
			wait(&world.bus, 1);
			break;
		default:
			submit(what >> 3 & 7);
			wait(&world.bus, 1);
			break;
		}
	}
}

/* ---- One run ---- */

static const uint64_t some_features[2] = {
	VMSG_BIT(VMSG_F_INDIRECT_DESC) | VMSG_BIT(VMSG_F_RING_RESET),
	VMSG_BIT(VMSG_F_RING_PACKED) | VMSG_BIT(VMSG_F_EVENT_IDX),
};

static void set_up(struct input *input)
{
	uint32_t what = take8(input);
	enum vmsg_dialect dialect = (enum vmsg_dialect)(what % 3);

	memset(&world, 0, sizeof(world));
	world.input = input;
	memset(ram, 0, RAM_SIZE);
	world.region = (struct vmsg_region){ .addr = RAM,
					     .len_bytes = RAM_SIZE,
					     .ptr = ram,
					     .access = VMSG_MEM_READ | VMSG_MEM_WRITE,
					     .fd = -1 };
	require(vmsg_mem_init(&world.mem, &world.region, 1) == 0);
	world.buf = (struct vmsg_buf){ RAM + RAM_SIZE - 64, 64 };
	world.arena = (struct vmsg_arena){ .addr = RAM, .ptr = ram, .len_bytes = RAM_SIZE - 64 };

	world.far.ops = &far_ops;
	world.far.frame = world.far_frame;
	world.far.max_msg_size = world.bus.max_msg_size = what & 0x10 ? 264 : 52;
	vmsg_bus_init_device(&world.far, dialect, 0);
	for (uint32_t i = 0; i < QUEUES; i++)
		world.device_vqs[i].max_size = QUEUE_SIZE;
	world.device.ops = &device_ops;
	world.device.config = world.config;
	world.device.config_size = sizeof(world.config);
	world.device.vqs = world.device_vqs;
	world.device.vq_count = QUEUES;
	world.device.mem = &world.mem;
	world.device.split = &vmsg_vq_split_device;
	world.device.packed = &vmsg_vq_packed_device;
	vmsg_device_init(&world.device);
	require(vmsg_bus_add(&world.far, &world.device, DEV) == 0);

	world.bus.ops = &ops;
	world.bus.frame = world.frame;
	world.bus.learn = vmsg_msg_learn;
	vmsg_bus_init_driver(&world.bus, what & 0x20 ? VMSG_AUTO : dialect, 0);
	world.bus.quirks = what & 0x40 ? VMSG_QUIRK_NO_ECHO : 0;
	init_driver();
	world.driver.retries = what >> 7;
}

/* The peer is replaced by one that behaves. */
static void check_recovery(enum vmsg_dialect dialect)
{
	uint32_t before;

	world.good = true;
	world.down = false;
	vmsg_bus_peer_gone(&world.bus);
	require(world.bus.requests == NULL);
	drain();
	vmsg_driver_exit(&world.driver);
	vmsg_bus_peer_reset(&world.far);
	world.asked.len = world.said_count = 0;
	vmsg_bus_init_driver(&world.bus, dialect, 0);
	memset(ram, 0, RAM_SIZE);
	init_driver();
	require(start(VMSG_BIT(VMSG_F_EVENT_IDX)) == 0);
	before = world.used;
	submit(4);
	for (uint32_t i = 0; i < 8; i++)
		wait(&world.bus, 1);
	require(world.used == before + 4 && world.outstanding == 0);
	vmsg_driver_exit(&world.driver);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	enum vmsg_dialect dialect = (enum vmsg_dialect)((size ? data[0] : 0) % 3);

	set_up(&input);
	if (start(some_features[take8(&input) & 1]) == 0)
		live(&input);
	if (input.left)
		vmsg_driver_reset(&world.driver);
	/* However long the input: no call waits for more than its time. */
	require(world.waits < 8192);
	/* It takes most of the time, so not always. */
	if ((size & 7) == 7)
		check_recovery(dialect);
	return 0;
}
