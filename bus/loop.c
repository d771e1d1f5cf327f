/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop bus: two ends in one process, moved by hand, with a plan of faults (design.md 12). */
#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/loop.h>
#include <vmsg/port.h>

#define ROUNDS_PER_RUN 256u /* frames moved by one run, at most: faults may echo for ever */

static struct vmsg_loop_end *end_of(struct vmsg_bus *bus)
{
	return (struct vmsg_loop_end *)bus;
}

static struct vmsg_loop_way *way_from(struct vmsg_loop_end *end)
{
	return end == &end->loop->device ? &end->loop->to_driver : &end->loop->to_device;
}

/* Whether this frame or doorbell is one that suffers. */
static bool strikes(struct vmsg_loop *loop, struct vmsg_loop_way *way, bool event)
{
	const struct vmsg_loop_plan *plan = &loop->plan;
	bool here = way == &loop->to_device ? plan->to_device : plan->to_driver;

	if (plan->fault == VMSG_LOOP_NONE || !here || !(event || plan->requests_too))
		return false;
	way->seen++;
	if (way->faults >= plan->count || way->seen % plan->period)
		return false;
	way->faults++;
	return true;
}

static uint32_t chance(struct vmsg_loop *loop)
{
	loop->plan.seed = loop->plan.seed * 1664525u + 1013904223u;
	return loop->plan.seed >> 16;
}

static void damage(struct vmsg_loop *loop, struct vmsg_loop_frame *frame)
{
	uint32_t header = vmsg_msg_header_bytes((enum vmsg_dialect)loop->device.bus.dialect);
	uint32_t dice = chance(loop);

	if (loop->plan.fault == VMSG_LOOP_TRUNCATE)
		frame->len = dice % frame->len;
	else if (loop->plan.fault == VMSG_LOOP_FLIP)
		frame->bytes[dice % header] ^= (uint8_t)(1u << (dice >> 8) % 8);
	else if (loop->plan.fault == VMSG_LOOP_DELAY)
		frame->due_ms = loop->now_ms + loop->plan.delay_ms;
}

/* The fault FULL: three sends in a row find no room. */
static int begin_full(struct vmsg_loop_way *way)
{
	way->full_left = 2;
	return VMSG_ERR_AGAIN;
}

static bool is_full(struct vmsg_loop_way *way)
{
	if (way->full_left == 0)
		return false;
	way->full_left--;
	return true;
}

static int send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct vmsg_loop_end *end = end_of(bus);
	struct vmsg_loop *loop = end->loop;
	struct vmsg_loop_way *way = way_from(end);
	bool event = ((const uint8_t *)buf)[1] & VMSG_ID_EVENT, hit;
	enum vmsg_loop_fault fault = loop->plan.fault;
	struct vmsg_loop_frame *frame;

	if (loop->cut)
		return VMSG_ERR_SHUTDOWN;
	VMSG_ASSERT(len <= VMSG_LOOP_BYTES);
	/* One place stays free for the second copy of a duplicate. */
	if (is_full(way) || way->frame_count + 1 >= loop->capacity)
		return VMSG_ERR_AGAIN;
	hit = strikes(loop, way, event);
	if (hit && fault == VMSG_LOOP_FULL)
		return begin_full(way);
	if (hit && fault == VMSG_LOOP_DROP)
		return 0;
	frame = &way->frames[way->frame_count++];
	frame->len = len;
	frame->due_ms = loop->now_ms;
	memcpy(frame->bytes, buf, len);
	if (hit && fault == VMSG_LOOP_DUPLICATE)
		way->frames[way->frame_count++] = *frame;
	else if (hit && fault == VMSG_LOOP_REORDER && way->frame_count > 1) {
		struct vmsg_loop_frame before = frame[-1];

		frame[-1] = *frame;
		*frame = before;
	} else if (hit) {
		damage(loop, frame);
	}
	return 0;
}

static int notify(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index)
{
	struct vmsg_loop_end *end = end_of(bus);
	struct vmsg_loop *loop = end->loop;
	struct vmsg_loop_way *way = way_from(end);
	struct vmsg_loop_bell bell = { dev_num, vq_index, loop->now_ms };
	bool hit;

	if (loop->cut)
		return VMSG_ERR_SHUTDOWN;
	if (is_full(way))
		return VMSG_ERR_AGAIN;
	hit = strikes(loop, way, true);
	if (hit && loop->plan.fault == VMSG_LOOP_FULL)
		return begin_full(way);
	if (hit && loop->plan.fault == VMSG_LOOP_DROP)
		return 0;
	if (hit && loop->plan.fault == VMSG_LOOP_DELAY)
		bell.due_ms += loop->plan.delay_ms;
	/* A doorbell says "look"; two of them say no more than one. */
	for (uint32_t i = 0; i < way->bell_count; i++) {
		if (way->bells[i].dev_num == dev_num && way->bells[i].vq_index == vq_index &&
		    way->bells[i].due_ms <= bell.due_ms)
			return 0;
	}
	if (way->bell_count == VMSG_LOOP_BELLS)
		return VMSG_ERR_AGAIN;
	way->bells[way->bell_count++] = bell;
	if (hit && loop->plan.fault == VMSG_LOOP_DUPLICATE && way->bell_count < VMSG_LOOP_BELLS)
		way->bells[way->bell_count++] = bell;
	return 0;
}

static bool due(const struct vmsg_loop *loop, uint32_t due_ms)
{
	return (int32_t)(loop->now_ms - due_ms) >= 0;
}

/* Hands the oldest due frame to the receiving end. False when nothing could be moved. */
static bool move_frame(struct vmsg_loop *loop, struct vmsg_loop_way *way, struct vmsg_bus *to)
{
	struct vmsg_loop_frame frame;
	uint32_t i = 0;

	while (i < way->frame_count && !due(loop, way->frames[i].due_ms))
		i++;
	if (i == way->frame_count)
		return false;
	frame = way->frames[i];
	/* Out of the way first: the receiver may send, and may find room. */
	way->frame_count--;
	memmove(&way->frames[i], &way->frames[i + 1],
		(way->frame_count - i) * sizeof(way->frames[0]));
	if (vmsg_bus_receive(to, frame.bytes, frame.len) == 0)
		return true;
	/* A reply is held over there: it goes back to the front. */
	memmove(&way->frames[1], &way->frames[0], way->frame_count * sizeof(way->frames[0]));
	way->frames[0] = frame;
	way->frame_count++;
	return false;
}

static bool move_bell(struct vmsg_loop *loop, struct vmsg_loop_way *way)
{
	struct vmsg_loop_bell bell;
	uint32_t i = 0;

	while (i < way->bell_count && !due(loop, way->bells[i].due_ms))
		i++;
	if (i == way->bell_count)
		return false;
	bell = way->bells[i];
	way->bells[i] = way->bells[--way->bell_count];
	if (way == &loop->to_device) {
		for (struct vmsg_device *d = loop->device.bus.devices; d; d = d->next) {
			if (d->dev_num == bell.dev_num && !d->removed) {
				vmsg_device_kicked(d, bell.vq_index);
				break;
			}
		}
	} else {
		for (struct vmsg_driver *d = loop->driver.bus.drivers; d; d = d->next) {
			if (d->dev_num == bell.dev_num) {
				vmsg_driver_notified(d, bell.vq_index);
				break;
			}
		}
	}
	return true;
}

bool vmsg_loop_run(struct vmsg_loop *loop)
{
	bool any = false, moved = true;

	loop->device.bus.now_ms = loop->driver.bus.now_ms = loop->now_ms;
	for (uint32_t round = 0; moved && round < ROUNDS_PER_RUN && !loop->cut; round++) {
		moved = move_frame(loop, &loop->to_device, &loop->device.bus);
		moved |= move_bell(loop, &loop->to_device);
		vmsg_bus_flush(&loop->device.bus);
		moved |= move_frame(loop, &loop->to_driver, &loop->driver.bus);
		moved |= move_bell(loop, &loop->to_driver);
		vmsg_bus_flush(&loop->driver.bus);
		any |= moved;
	}
	return any;
}

static int wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct vmsg_loop *loop = end_of(bus)->loop;

	(void)ms;
	if (!loop->cut && !vmsg_loop_run(loop))
		loop->now_ms++;
	loop->device.bus.now_ms = loop->driver.bus.now_ms = loop->now_ms;
	return loop->cut ? VMSG_ERR_SHUTDOWN : 0;
}

static const struct vmsg_bus_ops in_band = {
	.name = "loop",
	.send = send,
	.wait = wait,
};

static const struct vmsg_bus_ops with_doorbells = {
	.name = "loop",
	.send = send,
	.notify = notify,
	.wait = wait,
};

static void init_end(struct vmsg_loop *loop, struct vmsg_loop_end *end,
		     const struct vmsg_loop_options *options)
{
	end->loop = loop;
	end->bus.ops = options->doorbells ? &with_doorbells : &in_band;
	end->bus.frame = end->frame;
	end->bus.max_msg_size = options->max_msg_size ? options->max_msg_size : VMSG_MSG_DEFAULT;
	VMSG_ASSERT(end->bus.max_msg_size <= VMSG_LOOP_BYTES);
}

void vmsg_loop_init(struct vmsg_loop *loop, const struct vmsg_loop_options *options)
{
	memset(loop, 0, sizeof(*loop));
	loop->doorbells = options->doorbells;
	loop->capacity = options->capacity ? options->capacity : VMSG_LOOP_FRAMES;
	VMSG_ASSERT(loop->capacity >= 2 && loop->capacity <= VMSG_LOOP_FRAMES);
	init_end(loop, &loop->device, options);
	init_end(loop, &loop->driver, options);
	vmsg_bus_init_device(&loop->device.bus, options->device_dialect, options->features);
	loop->driver.bus.learn = vmsg_msg_learn;
	vmsg_bus_init_driver(&loop->driver.bus, options->driver_dialect, options->features);
}

void vmsg_loop_set_plan(struct vmsg_loop *loop, const struct vmsg_loop_plan *plan)
{
	loop->plan = *plan;
	loop->to_device.seen = loop->to_device.faults = loop->to_device.full_left = 0;
	loop->to_driver.seen = loop->to_driver.faults = loop->to_driver.full_left = 0;
}
