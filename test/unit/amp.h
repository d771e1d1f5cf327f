/* SPDX-License-Identifier: BSD-3-Clause */
/* Both sides of an AMP bus over one buffer, with devices and drivers on them, for the amp tests. */
#ifndef TEST_UNIT_AMP_H
#define TEST_UNIT_AMP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmsg/amp.h>
#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/port.h>

#include "test.h"

#define AREA_BYTES   (256u * 1024) /* the queue area; the arena follows */
#define ARENA_BYTES  (256u * 1024)
#define BUFFER_BYTES 1024u
#define MODELS_MAX   6u
#define QUEUES       10u
#define QUEUE_SIZE   4u

struct amp_model {
	struct vmsg_device device; /* first */
	struct vmsg_vq_device vqs[QUEUES];
	uint32_t kicks[QUEUES];
	uint32_t resets;
	bool busy; /* reset has to wait */
};

struct amp_user {
	struct vmsg_driver driver; /* first */
	struct vmsg_vq_driver vqs[QUEUES];
	struct vmsg_vq_state state[QUEUES][QUEUE_SIZE];
	uint32_t used[QUEUES];
	uint32_t gone;
};

struct amp_side {
	struct vmsg_amp amp; /* first */
	uint8_t frame[BUFFER_BYTES], element[BUFFER_BYTES];
	uint32_t rings; /* doorbells that reached this side */
	uint32_t ups, downs;
	struct amp_pair *pair;
};

struct amp_pair {
	struct amp_side device, driver;
	uint8_t *area;
	struct vmsg_mem mem;
	struct vmsg_region region;
	struct vmsg_arena arena;
	struct amp_model models[MODELS_MAX];
	struct amp_user users[MODELS_MAX];
	uint32_t model_count;
	bool deaf; /* the driver side's sleep does not let the device side run */
};

static inline struct amp_pair *pair_of(struct vmsg_amp *amp)
{
	return ((struct amp_side *)amp)->pair;
}

static inline void side_ring(struct vmsg_amp *amp)
{
	struct amp_pair *pair = pair_of(amp);

	if (amp == &pair->device.amp)
		pair->driver.rings++;
	else
		pair->device.rings++;
}

static inline void side_state(struct vmsg_amp *amp, bool up)
{
	struct amp_side *side = (struct amp_side *)amp;

	if (up)
		side->ups++;
	else
		side->downs++;
}

/* A sleep lets the other side run, and a millisecond pass. */
static inline int side_sleep(struct vmsg_amp *amp, uint32_t ms)
{
	struct amp_pair *pair = pair_of(amp);

	if (ms) {
		pair->driver.amp.bus.now_ms++;
		pair->device.amp.bus.now_ms++;
	}
	if (!pair->deaf)
		vmsg_amp_poll(&pair->device.amp);
	return 0;
}

static inline void side_prepare(struct amp_pair *pair, struct amp_side *side,
				const struct vmsg_amp_format *format)
{
	side->pair = pair;
	side->amp.base = pair->area;
	side->amp.len_bytes = AREA_BYTES;
	side->amp.format = format;
	side->amp.frame = side->frame;
	side->amp.element = side->element;
	side->amp.buffer_bytes = BUFFER_BYTES;
	side->amp.ring = side_ring;
	side->amp.sleep = side_sleep;
	side->amp.peer_state = side_state;
}

static inline struct amp_pair *pair_new(const struct vmsg_amp_format *format)
{
	struct amp_pair *pair = calloc(1, sizeof(*pair));
	uint32_t total = AREA_BYTES + ARENA_BYTES;

	CHECK(pair);
	pair->area = aligned_alloc(4096, total);
	CHECK(pair->area);
	memset(pair->area, 0, total);
	side_prepare(pair, &pair->device, format);
	side_prepare(pair, &pair->driver, format);
	pair->region.addr = (uint64_t)VMSG_AREA_SHARED << VMSG_AREA_SHIFT;
	pair->region.len_bytes = total;
	pair->region.ptr = pair->area;
	pair->region.access = VMSG_MEM_READ | VMSG_MEM_WRITE;
	pair->region.fd = -1;
	CHECK_EQ(vmsg_mem_init(&pair->mem, &pair->region, 1), 0);
	pair->arena.addr = pair->region.addr + AREA_BYTES;
	pair->arena.ptr = pair->area + AREA_BYTES;
	pair->arena.len_bytes = ARENA_BYTES;
	return pair;
}

static inline void pair_free(struct amp_pair *pair)
{
	free(pair->area);
	free(pair);
}

static inline void pair_open(struct amp_pair *pair)
{
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
}

/* Polls both until neither has anything to do. */
static inline void pair_settle(struct amp_pair *pair)
{
	uint32_t quiet = 0;

	for (uint32_t i = 0; i < 10000 && quiet < 2; i++) {
		uint32_t done = vmsg_amp_poll(&pair->device.amp);

		done += vmsg_amp_poll(&pair->driver.amp);
		quiet = done ? 0 : quiet + 1;
	}
	CHECK(quiet == 2);
}

static inline bool pair_is_up(const struct amp_pair *pair)
{
	return pair->device.amp.up && pair->driver.amp.up;
}

/* Both ways work: an answer to a PING came back. */
static inline void pair_check(struct amp_pair *pair)
{
	CHECK(pair_is_up(pair));
	CHECK_EQ(vmsg_bus_ping(&pair->driver.amp.bus, 0x12345678, 100), 0);
}

static inline void pair_start(struct amp_pair *pair)
{
	pair_open(pair);
	pair_settle(pair);
	pair_check(pair);
}

static inline void model_kick(struct vmsg_device *device, uint32_t vq_index)
{
	((struct amp_model *)device)->kicks[vq_index]++;
}

static inline int model_reset(struct vmsg_device *device)
{
	struct amp_model *model = (struct amp_model *)device;

	model->resets++;
	return model->busy ? VMSG_ERR_AGAIN : 0;
}

static const struct vmsg_device_ops model_ops = {
	.name = "test",
	.device_id = 4,
	.reset = model_reset,
	.kick = model_kick,
};

static inline void user_used(struct vmsg_driver *driver, uint32_t vq_index)
{
	((struct amp_user *)driver)->used[vq_index]++;
}

static inline void user_gone(struct vmsg_driver *driver)
{
	((struct amp_user *)driver)->gone++;
}

static const struct vmsg_driver_ops user_ops = {
	.used = user_used,
	.gone = user_gone,
};

static inline struct amp_model *pair_add(struct amp_pair *pair, uint16_t dev_num)
{
	struct amp_model *model = &pair->models[pair->model_count++];

	CHECK(pair->model_count <= MODELS_MAX);
	model->device.ops = &model_ops;
	model->device.vqs = model->vqs;
	model->device.vq_count = QUEUES;
	model->device.mem = &pair->mem;
	model->device.split = &vmsg_vq_split_device;
	for (uint32_t i = 0; i < QUEUES; i++)
		model->vqs[i].max_size = QUEUE_SIZE;
	vmsg_device_init(&model->device);
	CHECK_EQ(vmsg_bus_add(&pair->device.amp.bus, &model->device, dev_num), 0);
	return model;
}

/* Brings the device up to DRIVER_OK with all its queues, from the driver's side. */
static inline struct amp_user *pair_use(struct amp_pair *pair, uint16_t dev_num)
{
	struct amp_user *user = &pair->users[0];

	while (user->driver.bus && !user->driver.gone)
		user++;
	CHECK(user < &pair->users[MODELS_MAX]);
	if (user->driver.bus)
		vmsg_driver_exit(&user->driver);
	memset(user, 0, sizeof(*user));
	vmsg_driver_init(&user->driver, &pair->driver.amp.bus, dev_num, &user_ops);
	user->driver.split = &vmsg_vq_split_driver;
	user->driver.vqs = user->vqs;
	user->driver.vq_count = QUEUES;
	CHECK_EQ(vmsg_driver_identify(&user->driver), 0);
	CHECK_EQ(vmsg_driver_negotiate(&user->driver, 0), 0);
	for (uint32_t i = 0; i < QUEUES; i++)
		CHECK_EQ(vmsg_driver_setup_vq(&user->driver, i, QUEUE_SIZE, 0, &pair->arena,
					      user->state[i]),
			 0);
	CHECK_EQ(vmsg_driver_ready(&user->driver), 0);
	return user;
}

/* A small generator, the same everywhere. */
static inline uint32_t amp_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

#endif
