/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An AMP bus whose peer writes into the shared area what the input says, between any two things we
 * do: both formats, both sides, with and without notification words. Besides not crashing, one call
 * does a bounded amount of work, nothing outside the area and our buffers is touched, and a proper
 * peer that comes afterwards can work with us.
 */
#include <stdlib.h>
#include <string.h>

#include <vmsg/amp.h>
#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define AREA_BYTES    32768u
#define BUFFER_BYTES  264u
#define QUEUES        3u
#define QUEUE_SIZE    4u
#define REQUESTS      4u
#define POLL_WORK_MAX 5000u /* elements and words there can be, and what they cause */

struct side {
	struct vmsg_amp amp; /* first */
	uint8_t frame[BUFFER_BYTES], element[BUFFER_BYTES];
};

struct user {
	struct vmsg_driver driver; /* first */
	struct vmsg_vq_driver vqs[QUEUES];
	struct vmsg_vq_state state[QUEUES][QUEUE_SIZE];
	struct vmsg_request requests[REQUESTS];
};

static struct {
	uint8_t *memory;
	struct side device, driver;
	struct vmsg_device model;
	struct vmsg_vq_device vqs[QUEUES];
	uint8_t config[16];
	struct user user;
	struct vmsg_mem mem;
	struct vmsg_region region;
	struct vmsg_arena arena;
	bool busy; /* the model cannot stop now */
} world;

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void poll_side(struct side *side)
{
	require(vmsg_amp_poll(&side->amp) < POLL_WORK_MAX);
}

static int sleep_side(struct vmsg_amp *amp, uint32_t ms)
{
	amp->bus.now_ms += ms ? ms : 1;
	if (world.device.amp.base)
		poll_side(&world.device);
	return 0;
}

static int model_reset(struct vmsg_device *device)
{
	(void)device;
	return world.busy ? VMSG_ERR_AGAIN : 0;
}

static void model_kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_iov iov[QUEUE_SIZE];
	struct vmsg_chain chain = { .iov = iov, .iov_max = QUEUE_SIZE };

	for (uint32_t i = 0; i < QUEUE_SIZE && vmsg_device_pop(device, vq_index, &chain) == 1;
	     i++) {
		for (uint32_t n = 0; n < chain.writable_count; n++)
			memset(iov[chain.readable_count + n].ptr, 0, 1);
		vmsg_device_push(device, vq_index, &chain, chain.writable_bytes ? 1 : 0);
	}
	vmsg_device_used(device, vq_index);
}

static const struct vmsg_device_ops model_ops = {
	.name = "fuzz",
	.device_id = 4,
	.reset = model_reset,
	.kick = model_kick,
};

static void user_used(struct vmsg_driver *driver, uint32_t vq_index)
{
	uint32_t written;
	void *cookie;

	while (vmsg_vq_get(&driver->vqs[vq_index], &cookie, &written) == 1)
		;
}

static const struct vmsg_driver_ops user_ops = { .used = user_used };

/* input[0..2]: format, side, words, masks, dialect, element sizes. */
static void prepare(struct side *side, const uint8_t *input)
{
	struct vmsg_amp *amp = &side->amp;

	memset(side, 0, sizeof(*side));
	amp->base = world.memory;
	amp->len_bytes = AREA_BYTES;
	amp->format = input[0] & 1 ? &vmsg_amp_spsc : &vmsg_amp_layout;
	amp->frame = side->frame;
	amp->element = side->element;
	amp->buffer_bytes = BUFFER_BYTES;
	amp->sleep = sleep_side;
	amp->words = input[1] & 0x3f;
	amp->bits_per_device = (uint8_t)(1u << input[2] % 5);
	amp->masks = amp->words && input[1] & 0x40;
	amp->element_count = input[0] & 0x40 ? 2 : 0;
	amp->element_bytes = input[0] & 0x80 ? 77 : 0;
}

static enum vmsg_dialect dialect_of(const uint8_t *input)
{
	return input[0] & 4 ? VMSG_V1 : VMSG_V2;
}

static void add_model(void)
{
	struct vmsg_device *model = &world.model;

	memset(model, 0, sizeof(*model));
	memset(world.vqs, 0, sizeof(world.vqs));
	model->ops = &model_ops;
	model->vqs = world.vqs;
	model->vq_count = QUEUES;
	model->config = world.config;
	model->config_size = sizeof(world.config);
	model->mem = &world.mem;
	model->split = &vmsg_vq_split_device;
	for (uint32_t i = 0; i < QUEUES; i++)
		world.vqs[i].max_size = QUEUE_SIZE;
	vmsg_device_init(model);
	require(vmsg_bus_add(&world.device.amp.bus, model, 1) == 0);
}

static void tie_user(void)
{
	struct vmsg_driver *driver = &world.user.driver;

	memset(&world.user, 0, sizeof(world.user));
	vmsg_driver_init(driver, &world.driver.amp.bus, 1, &user_ops);
	driver->split = &vmsg_vq_split_driver;
	driver->vqs = world.user.vqs;
	driver->vq_count = QUEUES;
}

/* Everything up to DRIVER_OK, so that the input does not have to find the way. */
static void start(const uint8_t *input)
{
	struct vmsg_driver *driver = &world.user.driver;

	prepare(&world.device, input);
	prepare(&world.driver, input);
	require(vmsg_amp_open_device(&world.device.amp, dialect_of(input), 0) == 0);
	require(vmsg_amp_open_driver(&world.driver.amp, dialect_of(input), 0) == 0);
	add_model();
	tie_user();
	if (input[0] & 8)
		return;
	require(vmsg_amp_connect(&world.driver.amp, 1000) == 0);
	require(vmsg_driver_identify(driver) == 0);
	require(vmsg_driver_negotiate(driver, 0) == 0);
	for (uint32_t i = 0; i < QUEUES; i++)
		require(vmsg_driver_setup_vq(driver, i, QUEUE_SIZE, 0, &world.arena,
					     world.user.state[i]) == 0);
	require(vmsg_driver_ready(driver) == 0);
}

static void driver_does(uint8_t what)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = 1 };
	struct vmsg_request *request = &world.user.requests[what % REQUESTS];
	struct vmsg_bus *bus = &world.driver.amp.bus;

	switch (what >> 6) {
	case 0:
		if (!request->waiting)
			vmsg_request_start(bus, request, &msg, 50);
		break;
	case 1:
		vmsg_driver_kick_again(&world.user.driver, what % QUEUES);
		break;
	case 2:
		vmsg_request_expire(bus);
		break;
	default:
		msg.type = VMSG_TYPE_BUS;
		msg.msg_id = VMSG_PING;
		msg.dev_num = 0;
		if (!request->waiting)
			vmsg_request_start(bus, request, &msg, 50);
		break;
	}
}

static void device_does(uint8_t what)
{
	switch (what >> 6) {
	case 0:
		vmsg_device_config_changed(&world.model, what % 8, what % 9);
		break;
	case 1:
		vmsg_device_used(&world.model, what % QUEUES);
		break;
	case 2:
		world.busy = what & 1;
		if (!world.busy)
			vmsg_device_reset_done(&world.model);
		break;
	default:
		vmsg_device_needs_reset(&world.model);
		break;
	}
}

/* One step of the input: what the peer writes, or what we do. Returns the bytes it took. */
static size_t act(struct side *side, const uint8_t *input, size_t len)
{
	struct vmsg_amp *amp = &side->amp;
	uint32_t at, count;

	if (len < 4)
		return len;
	switch (input[0] % 8) {
	case 0: /* bytes anywhere in the area */
	case 1: /* or near its start, where heads and words are */
		at = vmsg_get16(input + 1) % (input[0] % 8 ? 160 : AREA_BYTES);
		count = input[3] % 64;
		if (count > len - 4)
			count = (uint32_t)(len - 4);
		if (count > AREA_BYTES - at)
			count = AREA_BYTES - at;
		memcpy(world.memory + at, input + 4, count);
		return 4 + count;
	case 2: /* an index, as the format has it */
		at = amp->peer.head + (amp->format == &vmsg_amp_spsc ? 0 : input[1] & 1 ? 6 : 4);
		if (amp->format == &vmsg_amp_spsc && input[1] & 1)
			at = amp->own.head + 64;
		world.memory[at] = input[2];
		world.memory[at + 1] = input[3] & 0x80 ? input[3] : 0;
		return 4;
	case 3:
		world.memory[amp->peer.head + 2] = input[1] % 6;
		return 2;
	case 4:
		if (side == &world.driver)
			driver_does(input[1]);
		else
			device_does(input[1]);
		return 2;
	case 5:
		vmsg_amp_want_doorbells(amp, input[1] & 1);
		amp->bus.now_ms += input[1];
		return 2;
	case 6:
		if (input[1] == 77)
			vmsg_amp_peer_lost(amp);
		else if (input[1] % 4 == 0) /* our own words */
			world.memory[amp->own.head + input[1] / 32] = input[2];
		return 3;
	default:
		poll_side(side);
		return 1;
	}
}

/* Whatever it was, the next peer is a proper one. */
static void prove_alive(bool is_device, const uint8_t *input)
{
	int rc;

	world.busy = false;
	vmsg_device_reset_done(&world.model);
	if (is_device) {
		world.driver.amp.base = world.memory;
		prepare(&world.driver, input);
		require(vmsg_amp_open_driver(&world.driver.amp, dialect_of(input), 0) == 0);
	} else {
		prepare(&world.device, input);
		require(vmsg_amp_open_device(&world.device.amp, dialect_of(input), 0) == 0);
	}
	/* Rings of the old kind stay nonsense until somebody zeroes them. */
	if (input[0] & 1)
		memset(world.memory, 0, VMSG_AMP_SPSC_BYTES);
	for (uint32_t i = 0; i < 100; i++) {
		world.device.amp.bus.now_ms++;
		world.driver.amp.bus.now_ms++;
		poll_side(&world.device);
		poll_side(&world.driver);
	}
	require(world.device.amp.up && world.driver.amp.up);
	rc = vmsg_bus_ping(&world.driver.amp.bus, 0x600d, 1000);
	require(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	bool is_device;
	size_t at = 3;

	if (len < 4)
		return 0;
	is_device = input[0] & 2;
	/* On the heap: what lies around it is poisoned. */
	memset(&world, 0, sizeof(world));
	world.memory = aligned_alloc(64, 2 * AREA_BYTES);
	require(world.memory != NULL);
	memset(world.memory, input[0] & 0x10 ? 0xa5 : 0, 2 * AREA_BYTES);
	world.region = (struct vmsg_region){ .addr = (uint64_t)VMSG_AREA_SHARED << VMSG_AREA_SHIFT,
					     .len_bytes = 2 * AREA_BYTES,
					     .ptr = world.memory,
					     .access = VMSG_MEM_READ | VMSG_MEM_WRITE,
					     .fd = -1 };
	require(vmsg_mem_init(&world.mem, &world.region, 1) == 0);
	world.arena = (struct vmsg_arena){ .addr = world.region.addr + AREA_BYTES,
					   .ptr = world.memory + AREA_BYTES,
					   .len_bytes = AREA_BYTES };
	if (!(input[0] & 8) && (input[0] & 0x11) == 0x11)
		memset(world.memory, 0, AREA_BYTES); /* old rings need a clean start */
	start(input);
	if (is_device)
		world.driver.amp.base = NULL;
	else
		world.device.amp.base = NULL;
	while (at < len)
		at += act(is_device ? &world.device : &world.driver, input + at, len - at);
	prove_alive(is_device, input);
	free(world.memory);
	return 0;
}
