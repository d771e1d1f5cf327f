/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the benchmarks share: processors, the clock, cache-line ping-pong, series of numbers, and
 * results. Times are not stable, not even from one second to the next; ratios of neighbouring
 * blocks are. So everything is measured in short blocks, each next to a block of something well
 * known.
 */
#ifndef BENCH_COMMON_BENCH_H
#define BENCH_COMMON_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmsg/port.h>

/* Ends the program with the error of errno. */
void bench_die(const char *what) __attribute__((noreturn));
/* Ends the program with a message. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- Processors and time ---- */

uint64_t bench_ns(void);

/* The first and the last processor we may use; false when there is only one. */
bool bench_cpus(uint32_t cpus[2]);

/* Ties a process (0: this one) to a processor. */
void bench_pin(pid_t pid, uint32_t cpu);
/* Takes that back; after bench_cpus(). */
void bench_unpin(pid_t pid);

/*
 * Has a process (0: this one) go before all others, if we may: without that, a busy machine shows
 * up in the results. The system still keeps 5 % for the rest. BENCH_REALTIME=0 in the environment
 * forbids it. False when it could not.
 */
bool bench_realtime(pid_t pid);
void bench_ordinary(pid_t pid);

/* ---- Cache-line ping-pong: two words in lines of their own ---- */

struct bench_line {
	uint32_t word;
	uint8_t rest[124]; /* processors fetch lines in pairs */
};

struct bench_ball {
	struct bench_line ping, pong;
};

/* count is where the side has got to; both start at the same number. */
static inline void bench_ping(struct bench_ball *ball, uint32_t *count, uint32_t ops)
{
	for (uint32_t i = 0; i < ops; i++) {
		++*count;
		vmsg_wmb(); /* pairs with bench_pong */
		vmsg_store32(&ball->ping.word, *count);
		while (vmsg_load32(&ball->pong.word) != *count)
			;
		vmsg_rmb(); /* pairs with bench_pong */
	}
}

static inline void bench_pong(struct bench_ball *ball, uint32_t *count, uint32_t ops)
{
	for (uint32_t i = 0; i < ops; i++) {
		++*count;
		while (vmsg_load32(&ball->ping.word) != *count)
			;
		vmsg_rmb(); /* pairs with bench_ping */
		vmsg_wmb(); /* pairs with bench_ping */
		vmsg_store32(&ball->pong.word, *count);
	}
}

/*
 * A process that does nothing but answer: cache-line ping-pong, or an eventfd. Between blocks it
 * sleeps, so that another can have its processor.
 */
struct bench_anchor {
	struct bench_anchor_shared *shared;
	pid_t pid;
	uint32_t count;
	int to, from, wake; /* eventfds */
};

void bench_anchor_start(struct bench_anchor *anchor, uint32_t cpu);
void bench_anchor_stop(struct bench_anchor *anchor);
/* Nanoseconds per round trip. */
double bench_anchor_line(struct bench_anchor *anchor, uint32_t ops);
double bench_anchor_eventfd(struct bench_anchor *anchor, uint32_t ops);

/* ---- Series ---- */

struct bench_series {
	double *values;
	uint32_t count, room;
};

void bench_append(struct bench_series *series, double value);
/* 0 when there are no values. Sorts. */
double bench_percentile(struct bench_series *series, uint32_t percent);
void bench_clear(struct bench_series *series);

/* ---- Results ---- */

enum bench_sense {
	BENCH_INFO, /* there is no goal */
	BENCH_AT_MOST,
	BENCH_AT_LEAST,
};

/* One line of a table, or with bench_json one JSON object on a line of its own. */
struct bench_result {
	const char *goal_id; /* P1, ..., or "" */
	const char *what;
	const char *unit; /* "x": a ratio */
	double value;
	bool has_range;
	double p10, p90;
	enum bench_sense sense;
	double goal;
};

extern bool bench_json;
/* Like this, but without a goal of its own: a line of text among the results. */
void bench_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void bench_heading(void);
void bench_report(const struct bench_result *result);
/* The median of a series with its range. */
void bench_report_series(const char *goal_id, const char *what, const char *unit,
			 struct bench_series *series, enum bench_sense sense, double goal);

#endif
