/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Driver and device in one process, over the loop bus (design.md 12). A case is a point of the
 * product {ring format, event index, indirect, doorbells, dialect, message size, fault, ...}; its
 * name is its tuple, and running the program with that name runs that case alone.
 *
 * A file of this folder adds its tests with PAIR_TESTS; echo.h has a device and a driver that
 * compare every byte, blk.c and the like use the real models.
 */
#ifndef TEST_PAIR_H
#define TEST_PAIR_H

#include "test.h"

#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/loop.h>

/* Where the shared memory lies, as virtqueues name it: area 1, from its first byte. */
#define PAIR_ADDR      ((uint64_t)VMSG_AREA_SHARED << VMSG_AREA_SHIFT)
#define PAIR_RAM_BYTES 0x40000u

struct pair_case {
	uint8_t dialect; /* enum vmsg_dialect, of the device */
	bool learns;	 /* the driver does not know the dialect */
	uint16_t max_msg_size;
	uint8_t capacity;				  /* frames in flight each way; 0: enough */
	bool packed, event_idx, indirect, in_order, data; /* data: NOTIFICATION_DATA */
	bool doorbells, strict;
	bool async; /* the device completes later, in any order if it may */
	struct vmsg_loop_plan plan;
};

struct pair {
	const struct pair_case *c;
	struct vmsg_loop loop;
	struct vmsg_region region;
	struct vmsg_mem mem;
	struct vmsg_arena arena;
};

extern uint8_t pair_ram[PAIR_RAM_BYTES];

/* The tuple as text, for names and for test_context(). */
void pair_text(const struct pair_case *c, char *text, size_t size);

/* A loop, its memory empty, no fault yet. */
void pair_open(struct pair *pair, const struct pair_case *c);

/* The case's faults begin, or end. */
void pair_faults(struct pair *pair, bool on);

/* What the driver is to ask for in this case. */
uint64_t pair_features(const struct pair_case *c);

/* Everything that moves, moves; if nothing did, a millisecond passes. */
void pair_step(struct pair *pair);

/* Nothing is left: no request, no frame, no doorbell, no debt. */
void pair_check_quiet(struct pair *pair);

/* ---- Adding tests ---- */

struct pair_suite {
	const struct test *tests;
	size_t count;
	/* Or: makes the tests when the program starts. Returns them, and their number. */
	const struct test *(*make)(size_t *count);
	struct pair_suite *next;
};

void pair_register(struct pair_suite *suite);

#define PAIR_SUITE(...)                                                   \
	static struct pair_suite pair_suite_here = { __VA_ARGS__ };       \
	__attribute__((constructor)) static void pair_register_here(void) \
	{                                                                 \
		pair_register(&pair_suite_here);                          \
	}                                                                 \
	struct pair_suite

/* At the end of a file: PAIR_TESTS(tests); where tests is an array of struct test. */
#define PAIR_TESTS(array) PAIR_SUITE(.tests = (array), .count = sizeof(array) / sizeof((array)[0]))

/* PAIR_MAKES(function); for tests whose names are made. */
#define PAIR_MAKES(function) PAIR_SUITE(.make = (function))

#endif
