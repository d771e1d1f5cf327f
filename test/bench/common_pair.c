/* SPDX-License-Identifier: BSD-3-Clause */
/* Paired measurements between two processes that poll. */
#include "common_pair.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PING_PONG BENCH_KINDS
#define QUIT	  (BENCH_KINDS + 1)

/* What the two processes share, beside the benchmark's own memory. */
struct shared {
	struct bench_ball ball;
	struct bench_line order, ready; /* which block is next, and that the other side is at it */
	uint32_t order_kind;
};

static uint32_t ping_count;

static void drive(const struct bench_pair *pair, struct shared *shared, int kind, uint32_t ops)
{
	if (kind == PING_PONG)
		bench_ping(&shared->ball, &ping_count, ops);
	else
		pair->drive(kind, ops);
}

static void serve(const struct bench_pair *pair, struct shared *shared)
{
	uint32_t seen = 0;

	for (;;) {
		while (vmsg_load32(&shared->order.word) == seen)
			;
		vmsg_rmb(); /* pairs with time_block */
		seen++;
		if (shared->order_kind == QUIT)
			_exit(0);
		vmsg_store32(&shared->ready.word, seen);
		if (shared->order_kind == PING_PONG)
			bench_pong(&shared->ball, &ping_count, pair->ops);
		else
			pair->serve((int)shared->order_kind, pair->ops);
	}
}

/* One block; nanoseconds per round trip. */
static double time_block(const struct bench_pair *pair, struct shared *shared, int kind)
{
	uint32_t order = vmsg_load32(&shared->order.word) + 1, warm = pair->ops / 10;
	uint64_t start;

	shared->order_kind = (uint32_t)kind;
	vmsg_wmb(); /* pairs with serve */
	vmsg_store32(&shared->order.word, order);
	if (kind == QUIT)
		return 0;
	while (vmsg_load32(&shared->ready.word) != order)
		;
	/* Until both sides have found their way into the caches. */
	drive(pair, shared, kind, warm);
	start = bench_ns();
	drive(pair, shared, kind, pair->ops - warm);
	return (double)(bench_ns() - start) / (pair->ops - warm);
}

static pid_t start_server(const struct bench_pair *pair, struct shared *shared)
{
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child < 0)
		bench_die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(pair, shared);
	}
	/* Not by itself: it might never get to run next to us. */
	bench_pin(child, pair->cpus[1]);
	bench_realtime(child);
	bench_pin(0, pair->cpus[0]);
	bench_realtime(0);
	return child;
}

/* One pair of processes, until the end. */
static void run_start(const struct bench_pair *pair, uint64_t end, struct bench_series *ratios,
		      struct bench_series *ns)
{
	size_t offset = (pair->memory_bytes + 4095) & ~(size_t)4095;
	size_t bytes = offset + sizeof(struct shared);
	uint8_t *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct shared *shared = (struct shared *)(void *)(ptr + offset);
	double before, after, took;
	pid_t child;

	if (ptr == MAP_FAILED)
		bench_die("mmap");
	ping_count = 0;
	pair->set_up(ptr);
	child = start_server(pair, shared);
	before = time_block(pair, shared, PING_PONG);
	for (uint32_t block = 0; block < pair->blocks && bench_ns() < end; block++) {
		for (int kind = 0; kind < pair->kind_count; kind++) {
			took = time_block(pair, shared, kind);
			after = time_block(pair, shared, PING_PONG);
			bench_append(&ratios[kind], 2 * took / (before + after));
			bench_append(&ns[kind], took);
			bench_append(&ns[PING_PONG], after);
			before = after;
		}
	}
	time_block(pair, shared, QUIT);
	waitpid(child, NULL, 0);
	munmap(ptr, bytes);
}

/* ---- Results ---- */

static void print_results(const struct bench_pair *pair, struct bench_series *ratios,
			  struct bench_series *ns)
{
	bench_note("\n%s: %s; %u blocks of %u of each\n", pair->name, pair->title, ratios[0].count,
		   pair->ops);
	bench_heading();
	bench_report_series("", "cache-line ping-pong", "ns", &ns[PING_PONG], BENCH_INFO, 0);
	for (int kind = 0; kind < pair->kind_count; kind++) {
		const struct bench_kind *k = &pair->kinds[kind];

		bench_report_series(k->goal_id, k->what, "x", &ratios[kind],
				    k->goal > 0 ? BENCH_AT_MOST : BENCH_INFO, k->goal);
	}
}

static int run_single(const struct bench_pair *pair)
{
	uint8_t *ptr = mmap(NULL, pair->memory_bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (ptr == MAP_FAILED)
		bench_die("mmap");
	pair->set_up(ptr);
	pair->single(pair->single_kind, pair->ops);
	printf("%s: %u round trips\n", pair->kinds[pair->single_kind].name, pair->ops);
	return 0;
}

/* ---- Options ---- */

static void usage(const struct bench_pair *pair)
{
	fprintf(stderr,
		"usage: %s [--starts N] [--blocks N] [--ops N] [--cpus A,B] [--seconds N] "
		"[--json]\n"
		"       %s --single KIND [--ops N]   both sides in one thread, for callgrind; "
		"KIND:",
		pair->name, pair->name);
	for (int kind = 0; kind < pair->kind_count; kind++)
		fprintf(stderr, " %s", pair->kinds[kind].name);
	fputc('\n', stderr);
	exit(2);
}

static uint32_t number(const struct bench_pair *pair, const char *text, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (!*text || *end || value < min || value > max)
		usage(pair);
	return (uint32_t)value;
}

static int find_kind(const struct bench_pair *pair, const char *name)
{
	int kind = 0;

	while (kind < pair->kind_count && strcmp(name, pair->kinds[kind].name) != 0)
		kind++;
	if (kind == pair->kind_count)
		usage(pair);
	return kind;
}

static void parse(struct bench_pair *pair, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(name, "--json") == 0) {
			bench_json = true;
			continue;
		}
		if (!value)
			usage(pair);
		i++;
		if (strcmp(name, "--starts") == 0)
			pair->starts = number(pair, value, 1, 1000);
		else if (strcmp(name, "--blocks") == 0)
			pair->blocks = number(pair, value, 1, 100000);
		else if (strcmp(name, "--ops") == 0)
			pair->ops = number(pair, value, 10, 100000000);
		else if (strcmp(name, "--seconds") == 0)
			pair->seconds = number(pair, value, 1, 100000);
		else if (strcmp(name, "--single") == 0)
			pair->single_kind = find_kind(pair, value);
		else if (strcmp(name, "--cpus") != 0 ||
			 sscanf(value, "%u,%u", &pair->cpus[0], &pair->cpus[1]) != 2)
			usage(pair);
	}
}

int bench_pair_main(struct bench_pair *pair, int argc, char **argv)
{
	struct bench_series ratios[BENCH_KINDS] = { 0 }, ns[BENCH_KINDS + 1] = { 0 };
	bool two_cpus = bench_cpus(pair->cpus);

	pair->single_kind = -1;
	parse(pair, argc, argv);
	if (pair->single_kind >= 0)
		return run_single(pair);
	if (!two_cpus) {
		fprintf(stderr, "%s: needs two processors\n", pair->name);
		return 77;
	}
	for (uint32_t start = 0; start < pair->starts; start++)
		run_start(pair, bench_ns() + pair->seconds * (uint64_t)1000000000 / pair->starts,
			  ratios, ns);
	if (ratios[0].count == 0)
		bench_fail("%s: not one block was done in %u s", pair->name, pair->seconds);
	print_results(pair, ratios, ns);
	for (int kind = 0; kind <= BENCH_KINDS; kind++) {
		if (kind < BENCH_KINDS)
			bench_clear(&ratios[kind]);
		bench_clear(&ns[kind]);
	}
	return 0;
}
