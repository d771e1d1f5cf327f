/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a message costs on the AMP bus between two processes that poll (goal P1): round trips of 52
 * bytes each way, all the way (request with its token, encode, queue, poll, decode, find the
 * device, handle, answer, match), and PINGs, over both queue formats. "raw" is the queue alone:
 * put, get and echo of 52 bytes. Everything is compared with cache-line ping-pong; see
 * common_pair.h.
 */
#include <vmsg/amp.h>
#include <vmsg/device.h>
#include <vmsg/driver.h>

#include "common_pair.h"

#define AREA_BYTES    16384u
#define MESSAGE_BYTES 52u
#define CONFIG_BYTES  32u /* SET_CONFIG with these is 52 bytes, and so is its answer */

enum bus_kind {
	LAYOUT,
	WORDS,
	SPSC,
	BUSES,
};

enum kind {
	LAYOUT_52,
	LAYOUT_PING,
	LAYOUT_RAW,
	WORDS_52,
	SPSC_52,
	SPSC_PING,
	SPSC_RAW,
	KINDS,
};

static const struct bench_kind kinds[KINDS] = {
	[LAYOUT_52] = { "layout_52", "P1", "message of 52 bytes, layout / ping-pong", 2.0 },
	[LAYOUT_PING] = { "layout_ping", "", "PING, layout / ping-pong", 0 },
	[LAYOUT_RAW] = { "layout_raw", "", "queue alone, layout / ping-pong", 0 },
	[WORDS_52] = { "words_52", "", "message, layout with notification words / ping-pong", 0 },
	[SPSC_52] = { "spsc_52", "P1", "message of 52 bytes, spsc / ping-pong", 2.0 },
	[SPSC_PING] = { "spsc_ping", "", "PING, spsc / ping-pong", 0 },
	[SPSC_RAW] = { "spsc_raw", "", "queue alone, spsc / ping-pong", 0 },
};

static const enum bus_kind bus_of[KINDS] = { LAYOUT, LAYOUT, LAYOUT, WORDS, SPSC, SPSC, SPSC };

struct side {
	struct vmsg_amp amp; /* first */
	uint8_t frame[VMSG_AMP_ELEMENT_BYTES], element[VMSG_AMP_ELEMENT_BYTES];
};

struct pair {
	struct side device, driver;
	struct vmsg_device model;
	struct vmsg_vq_device vq;
	uint8_t config[CONFIG_BYTES];
	struct vmsg_mem mem;
};

static struct pair pairs[BUSES];

static int sleep_not(struct vmsg_amp *amp, uint32_t ms)
{
	amp->bus.now_ms += ms;
	return 0;
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	memcpy(device->config + offset, data, len);
	return 0;
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	(void)device;
	(void)vq_index;
}

static const struct vmsg_device_ops model_ops = {
	.name = "bench",
	.device_id = 4,
	.configure = configure,
	.kick = kick,
};

static void fill_in(struct side *side, uint8_t *area, enum bus_kind bus)
{
	struct vmsg_amp *amp = &side->amp;

	memset(side, 0, sizeof(*side));
	amp->base = area;
	amp->len_bytes = AREA_BYTES;
	amp->format = bus == SPSC ? &vmsg_amp_spsc : &vmsg_amp_layout;
	amp->frame = side->frame;
	amp->element = side->element;
	amp->buffer_bytes = sizeof(side->element);
	amp->sleep = sleep_not;
	amp->words = bus == WORDS ? 2 : 0;
	amp->bits_per_device = 8;
	amp->masks = bus == WORDS;
}

static void require(bool truth)
{
	if (truth)
		return;
	bench_fail("amp: the bus does not work");
}

static void add_model(struct pair *pair)
{
	struct vmsg_device *model = &pair->model;

	memset(model, 0, sizeof(*model));
	memset(&pair->vq, 0, sizeof(pair->vq));
	pair->vq.max_size = 4;
	model->ops = &model_ops;
	model->vqs = &pair->vq;
	model->vq_count = 1;
	model->config = pair->config;
	model->config_size = CONFIG_BYTES;
	model->mem = &pair->mem;
	model->split = &vmsg_vq_split_device;
	vmsg_device_init(model);
	require(vmsg_bus_add(&pair->device.amp.bus, model, 3) == 0);
}

/* One request from its start to its answer, as a polling program makes it. */
static void request(struct pair *pair, const struct vmsg_msg *msg, bool alone)
{
	static uint8_t tail[CONFIG_BYTES];
	struct vmsg_request request = { .tail = tail, .tail_size = sizeof(tail) };

	require(vmsg_request_start(&pair->driver.amp.bus, &request, msg, 1000) == 0);
	while (request.waiting) {
		if (alone)
			vmsg_amp_poll(&pair->device.amp);
		vmsg_amp_poll(&pair->driver.amp);
	}
	require(request.result == 0);
}

static const uint8_t config[CONFIG_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8 };

static struct vmsg_msg message(int kind)
{
	struct vmsg_msg msg = { .msg_id = VMSG_PING, .type = VMSG_TYPE_BUS };

	if (kind == LAYOUT_PING || kind == SPSC_PING)
		return msg;
	msg.type = 0;
	msg.msg_id = VMSG_SET_CONFIG;
	msg.dev_num = 3;
	msg.config.length = CONFIG_BYTES;
	msg.tail = config;
	msg.tail_bytes = CONFIG_BYTES;
	return msg;
}

static void set_up(uint8_t *memory)
{
	struct vmsg_msg status = { .msg_id = VMSG_SET_DEVICE_STATUS, .dev_num = 3 };

	for (int bus = 0; bus < BUSES; bus++) {
		struct pair *pair = &pairs[bus];
		uint8_t *area = memory + (size_t)bus * AREA_BYTES;

		fill_in(&pair->device, area, (enum bus_kind)bus);
		fill_in(&pair->driver, area, (enum bus_kind)bus);
		require(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0) == 0);
		require(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0) == 0);
		for (uint32_t i = 0; i < 10; i++) {
			vmsg_amp_poll(&pair->device.amp);
			vmsg_amp_poll(&pair->driver.amp);
		}
		require(pair->device.amp.up && pair->driver.amp.up);
		vmsg_amp_want_doorbells(&pair->device.amp, false);
		vmsg_amp_want_doorbells(&pair->driver.amp, false);
		add_model(pair);
		for (uint32_t i = 0; i < 4; i++) {
			static const uint8_t steps[4] = { 0, 1, 3, 0x0b };

			status.status.status = steps[i];
			request(pair, &status, true);
		}
	}
}

static void send_raw(struct side *side)
{
	static const uint8_t bytes[MESSAGE_BYTES] = { 1 };

	require(side->amp.format->put(&side->amp, bytes, MESSAGE_BYTES) >= 0);
}

static bool receive_raw(struct side *side)
{
	int rc = side->amp.format->get(&side->amp);

	require(rc >= 0);
	return rc > 0;
}

static bool is_raw(int kind)
{
	return kind == LAYOUT_RAW || kind == SPSC_RAW;
}

static void drive(int kind, uint32_t ops)
{
	struct pair *pair = &pairs[bus_of[kind]];
	struct vmsg_msg msg = message(kind);

	for (uint32_t i = 0; i < ops; i++) {
		if (!is_raw(kind)) {
			request(pair, &msg, false);
			continue;
		}
		send_raw(&pair->driver);
		while (!receive_raw(&pair->driver))
			;
	}
}

static void serve(int kind, uint32_t ops)
{
	struct side *side = &pairs[bus_of[kind]].device;
	uint32_t until = side->amp.bus.counters.sent + ops;

	if (!is_raw(kind)) {
		while (side->amp.bus.counters.sent != until)
			vmsg_amp_poll(&side->amp);
		return;
	}
	for (uint32_t i = 0; i < ops; i++) {
		while (!receive_raw(side))
			;
		send_raw(side);
	}
}

static void single(int kind, uint32_t ops)
{
	struct pair *pair = &pairs[bus_of[kind]];
	struct vmsg_msg msg = message(kind);

	for (uint32_t i = 0; i < ops; i++) {
		if (!is_raw(kind)) {
			request(pair, &msg, true);
			continue;
		}
		send_raw(&pair->driver);
		require(receive_raw(&pair->device));
		send_raw(&pair->device);
		require(receive_raw(&pair->driver));
	}
}

int main(int argc, char **argv)
{
	struct bench_pair pair = {
		.name = "amp",
		.title = "messages there and back, polled, every check on",
		.kinds = kinds,
		.kind_count = KINDS,
		.memory_bytes = BUSES * (size_t)AREA_BYTES,
		.set_up = set_up,
		.drive = drive,
		.serve = serve,
		.single = single,
		.starts = 5,
		.blocks = 40,
		.ops = 3000,
		.seconds = 15,
	};

	return bench_pair_main(&pair, argc, argv);
}
