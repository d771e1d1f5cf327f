/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loop bus: both sides in one process, and a plan of faults (design.md 12). For tests, for
 * trying out a device model, and as the smallest example of a bus implementation.
 *
 * Nothing moves by itself: frames and doorbells wait in the loop until vmsg_loop_run() or a wait of
 * the driver side moves them. A wait that moved nothing lets one virtual millisecond pass.
 */
#ifndef VMSG_LOOP_H
#define VMSG_LOOP_H

#include <vmsg/bus.h>

#define VMSG_LOOP_FRAMES 32u  /* frames in flight per direction */
#define VMSG_LOOP_BYTES  512u /* largest frame */
#define VMSG_LOOP_BELLS  64u  /* doorbells in flight per direction */

enum vmsg_loop_fault {
	VMSG_LOOP_NONE,
	VMSG_LOOP_DROP,      /* the frame or doorbell vanishes */
	VMSG_LOOP_DELAY,     /* it comes delay_ms later */
	VMSG_LOOP_DUPLICATE, /* it comes twice */
	VMSG_LOOP_REORDER,   /* it changes places with the next one */
	VMSG_LOOP_TRUNCATE,  /* fewer bytes arrive than msg_size says */
	VMSG_LOOP_FLIP,      /* one bit of the header changes */
	VMSG_LOOP_FULL,      /* send says AGAIN, three times */
};

/* Every `period`th frame (and doorbell) of a direction suffers `fault`, `count` times in all. */
struct vmsg_loop_plan {
	enum vmsg_loop_fault fault;
	bool to_device, to_driver; /* which directions */
	bool requests_too;         /* false: events and doorbells only */
	uint32_t period, count, delay_ms;
	uint32_t seed; /* varies which bit flips and how much is cut */
};

struct vmsg_loop_frame {
	uint32_t len, due_ms;
	uint8_t bytes[VMSG_LOOP_BYTES];
};

struct vmsg_loop_bell {
	uint16_t dev_num;
	uint32_t vq_index, due_ms;
};

struct vmsg_loop_way {
	struct vmsg_loop_frame frames[VMSG_LOOP_FRAMES];
	struct vmsg_loop_bell bells[VMSG_LOOP_BELLS];
	uint32_t frame_count, bell_count;
	uint32_t seen, faults, full_left;
};

struct vmsg_loop;

struct vmsg_loop_end {
	struct vmsg_bus bus; /* first */
	struct vmsg_loop *loop;
	uint8_t frame[VMSG_LOOP_BYTES];
};

struct vmsg_loop {
	struct vmsg_loop_end device, driver;
	struct vmsg_loop_way to_device, to_driver;
	struct vmsg_loop_plan plan;
	uint32_t now_ms;
	uint32_t capacity; /* frames per direction, at most VMSG_LOOP_FRAMES */
	bool doorbells;
	bool cut; /* set: the device side's process is gone; sends fail, wait says so */
};

struct vmsg_loop_options {
	enum vmsg_dialect device_dialect, driver_dialect; /* driver may be AUTO */
	uint32_t features;     /* transport features */
	uint16_t max_msg_size; /* 0: VMSG_MSG_DEFAULT */
	uint32_t capacity;     /* 0: VMSG_LOOP_FRAMES */
	bool doorbells;        /* notify instead of EVENT_AVAIL and EVENT_USED */
};

/* Both ends ready: devices can be added to loop->device.bus, drivers tied to loop->driver.bus. */
void vmsg_loop_init(struct vmsg_loop *loop, const struct vmsg_loop_options *options);

/* Replaces the plan and starts counting anew. */
void vmsg_loop_set_plan(struct vmsg_loop *loop, const struct vmsg_loop_plan *plan);

/* Moves everything that is due, in both directions, until nothing moves. True if anything did. */
bool vmsg_loop_run(struct vmsg_loop *loop);

#endif
