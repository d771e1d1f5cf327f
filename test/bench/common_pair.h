/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Paired measurements between two processes that poll, on two processors: blocks of each kind of
 * operation alternate with blocks of cache-line ping-pong, and each is divided by the mean of the
 * ping-pong blocks right before and after it. The ratio is stable where times are not.
 *
 * A benchmark fills in a struct bench_pair and calls bench_pair_main(). set_up() makes both sides
 * in memory that both processes share; after the fork each of them uses one half of what it made.
 */
#ifndef BENCH_COMMON_PAIR_H
#define BENCH_COMMON_PAIR_H

#include <stddef.h>

#include "common_bench.h"

#define BENCH_KINDS 16

struct bench_kind {
	const char *name;
	const char *goal_id, *what; /* of the result */
	double goal;		    /* ratio; 0: none */
};

struct bench_pair {
	const char *name, *title;
	const struct bench_kind *kinds;
	int kind_count;
	size_t memory_bytes;
	void (*set_up)(uint8_t *memory);
	/* ops round trips, from either side. */
	void (*drive)(int kind, uint32_t ops);
	void (*serve)(int kind, uint32_t ops);
	/* Both sides in turn in one thread, for counting instructions. */
	void (*single)(int kind, uint32_t ops);
	/* Options; set defaults before. */
	uint32_t starts, blocks, ops, seconds;
	uint32_t cpus[2];
	int single_kind;
};

/* What main() returns: 77 when there are not two processors. */
int bench_pair_main(struct bench_pair *pair, int argc, char **argv);

#endif
