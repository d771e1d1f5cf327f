/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Paired measurements between two processes that poll, on two processors: blocks of each kind of
 * operation alternate with blocks of cache-line ping-pong, and each is divided by the mean of the
 * ping-pong blocks right before and after it. The ratio is stable where times are not.
 *
 * A benchmark fills in a struct bench and calls bench_main(). set_up() makes both sides in memory
 * that both processes share; after the fork each of them uses one half of what it made.
 */
#ifndef TEST_BENCH_BENCH_H
#define TEST_BENCH_BENCH_H

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vmsg/port.h>

#define BENCH_KINDS     16
#define BENCH_PING_PONG BENCH_KINDS
#define BENCH_QUIT      (BENCH_KINDS + 1)

struct bench_kind {
	const char *name;
	double goal; /* ratio; 0: none */
};

struct bench {
	const char *name, *title;
	const struct bench_kind *kinds;
	int kind_count;
	size_t memory_bytes;
	void (*set_up)(uint8_t *memory);
	/* ops round trips, from either side. */
	void (*drive)(int kind, uint32_t ops);
	void (*serve)(int kind, uint32_t ops);
	/* Both sides in turn in one thread, for counting instructions; may be NULL. */
	void (*single)(int kind, uint32_t ops);
	/* Options; set defaults before. */
	uint32_t starts, blocks, ops, seconds;
	uint32_t cpus[2];
	bool json;
	int single_kind;
};

struct bench_line {
	uint32_t word;
	uint8_t rest[124]; /* processors fetch lines in pairs */
};

/* What the two processes share, beside the benchmark's own memory. */
struct bench_shared {
	struct bench_line ping, pong;
	struct bench_line order, ready; /* which block is next, and that the other side is at it */
	uint32_t order_kind;
};

struct bench_series {
	double *values;
	uint32_t count;
};

static uint32_t bench_ping_count;

static inline void bench_die(const char *what)
{
	perror(what);
	exit(1);
}

static inline void bench_pin(uint32_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		bench_die("sched_setaffinity");
}

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void bench_drive(const struct bench *bench, struct bench_shared *shared, int kind,
			       uint32_t ops)
{
	if (kind != BENCH_PING_PONG) {
		bench->drive(kind, ops);
		return;
	}
	for (uint32_t i = 0; i < ops; i++) {
		bench_ping_count++;
		vmsg_wmb(); /* pairs with bench_answer */
		vmsg_store32(&shared->ping.word, bench_ping_count);
		while (vmsg_load32(&shared->pong.word) != bench_ping_count)
			;
		vmsg_rmb(); /* pairs with bench_answer */
	}
}

static inline void bench_answer(const struct bench *bench, struct bench_shared *shared, int kind,
				uint32_t ops)
{
	if (kind != BENCH_PING_PONG) {
		bench->serve(kind, ops);
		return;
	}
	for (uint32_t i = 0; i < ops; i++) {
		bench_ping_count++;
		while (vmsg_load32(&shared->ping.word) != bench_ping_count)
			;
		vmsg_rmb(); /* pairs with bench_drive */
		vmsg_wmb(); /* pairs with bench_drive */
		vmsg_store32(&shared->pong.word, bench_ping_count);
	}
}

static inline void bench_serve(const struct bench *bench, struct bench_shared *shared)
{
	uint32_t seen = 0;

	for (;;) {
		while (vmsg_load32(&shared->order.word) == seen)
			;
		vmsg_rmb(); /* pairs with bench_block */
		seen++;
		if (shared->order_kind == BENCH_QUIT)
			_exit(0);
		vmsg_store32(&shared->ready.word, seen);
		bench_answer(bench, shared, (int)shared->order_kind, bench->ops);
	}
}

/* One block; nanoseconds per round trip. */
static inline double bench_block(const struct bench *bench, struct bench_shared *shared, int kind)
{
	uint32_t order = vmsg_load32(&shared->order.word) + 1, warm = bench->ops / 10;
	uint64_t start;

	shared->order_kind = (uint32_t)kind;
	vmsg_wmb(); /* pairs with bench_serve */
	vmsg_store32(&shared->order.word, order);
	if (kind == BENCH_QUIT)
		return 0;
	while (vmsg_load32(&shared->ready.word) != order)
		;
	/* Until both sides have found their way into the caches. */
	bench_drive(bench, shared, kind, warm);
	start = bench_now_ns();
	bench_drive(bench, shared, kind, bench->ops - warm);
	return (double)(bench_now_ns() - start) / (bench->ops - warm);
}

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static inline double bench_percentile(struct bench_series *series, uint32_t percent)
{
	qsort(series->values, series->count, sizeof(double), bench_compare);
	return series->values[(uint64_t)(series->count - 1) * percent / 100];
}

static inline void bench_append(struct bench_series *series, double value)
{
	series->values[series->count++] = value;
}

/* One pair of processes, until the end. */
static inline void bench_start(const struct bench *bench, uint64_t end,
			       struct bench_series *ratios, struct bench_series *ns)
{
	size_t offset = (bench->memory_bytes + 4095) & ~(size_t)4095;
	size_t bytes = offset + sizeof(struct bench_shared);
	uint8_t *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct bench_shared *shared = (struct bench_shared *)(void *)(ptr + offset);
	double before, after, took;
	pid_t child;

	if (ptr == MAP_FAILED)
		bench_die("mmap");
	bench_ping_count = 0;
	bench->set_up(ptr);
	bench_pin(bench->cpus[1]); /* the child stays there */
	child = fork();
	if (child < 0)
		bench_die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bench_serve(bench, shared);
	}
	bench_pin(bench->cpus[0]);
	before = bench_block(bench, shared, BENCH_PING_PONG);
	for (uint32_t block = 0; block < bench->blocks && bench_now_ns() < end; block++) {
		for (int kind = 0; kind < bench->kind_count; kind++) {
			took = bench_block(bench, shared, kind);
			after = bench_block(bench, shared, BENCH_PING_PONG);
			bench_append(&ratios[kind], 2 * took / (before + after));
			bench_append(&ns[kind], took);
			bench_append(&ns[BENCH_PING_PONG], after);
			before = after;
		}
	}
	bench_block(bench, shared, BENCH_QUIT);
	waitpid(child, NULL, 0);
	munmap(ptr, bytes);
}

static inline void bench_print(const struct bench *bench, struct bench_series *ratios,
			       struct bench_series *ns)
{
	double line_ns = bench_percentile(&ns[BENCH_PING_PONG], 50);

	if (bench->json)
		printf("{\"bench\":\"%s\",\"starts\":%u,\"blocks\":%u,\"ops\":%u,"
		       "\"ping_pong_ns\":%.1f",
		       bench->name, bench->starts, ratios[0].count, bench->ops, line_ns);
	else
		printf("%s\n%u starts, %u blocks of %u round trips of each\n\n"
		       "%-14s %8s %8s %8s %8s %8s\n%-14s %8s %8s %8s %8.1f\n",
		       bench->title, bench->starts, ratios[0].count, bench->ops, "", "ratio", "p10",
		       "p90", "ns", "goal", "ping-pong", "1", "", "", line_ns);
	for (int kind = 0; kind < bench->kind_count; kind++) {
		const struct bench_kind *k = &bench->kinds[kind];
		double median = bench_percentile(&ratios[kind], 50);
		double p10 = bench_percentile(&ratios[kind], 10);
		double p90 = bench_percentile(&ratios[kind], 90);
		double took = bench_percentile(&ns[kind], 50);

		if (bench->json) {
			printf(",\"%s\":{\"ratio\":%.3f,\"p10\":%.3f,\"p90\":%.3f,\"ns\":%.1f",
			       k->name, median, p10, p90, took);
			if (k->goal > 0)
				printf(",\"goal\":%.2f", k->goal);
			printf("}");
			continue;
		}
		printf("%-14s %8.2f %8.2f %8.2f %8.1f", k->name, median, p10, p90, took);
		if (k->goal > 0)
			printf(" %8.2f", k->goal);
		printf("\n");
	}
	if (bench->json)
		printf("}\n");
}

static inline void bench_usage(const struct bench *bench)
{
	fprintf(stderr,
		"usage: %s [--starts N] [--blocks N] [--ops N] [--cpus A,B] [--seconds N] [--json]\n",
		bench->name);
	if (bench->single) {
		fprintf(stderr, "       %s --single KIND [--ops N]   both sides in one thread, for "
				"callgrind; KIND:", bench->name);
		for (int kind = 0; kind < bench->kind_count; kind++)
			fprintf(stderr, " %s", bench->kinds[kind].name);
		fprintf(stderr, "\n");
	}
	exit(2);
}

static inline uint32_t bench_number(const struct bench *bench, const char *text, uint32_t min,
				    uint32_t max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || value < min || value > max)
		bench_usage(bench);
	return (uint32_t)value;
}

static inline int bench_find(const struct bench *bench, const char *name)
{
	int kind = 0;

	while (kind < bench->kind_count && strcmp(name, bench->kinds[kind].name) != 0)
		kind++;
	if (kind == bench->kind_count || !bench->single)
		bench_usage(bench);
	return kind;
}

static inline void bench_parse(struct bench *bench, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(name, "--json") == 0) {
			bench->json = true;
			continue;
		}
		if (!value)
			bench_usage(bench);
		i++;
		if (strcmp(name, "--starts") == 0)
			bench->starts = bench_number(bench, value, 1, 1000);
		else if (strcmp(name, "--blocks") == 0)
			bench->blocks = bench_number(bench, value, 1, 100000);
		else if (strcmp(name, "--ops") == 0)
			bench->ops = bench_number(bench, value, 10, 100000000);
		else if (strcmp(name, "--seconds") == 0)
			bench->seconds = bench_number(bench, value, 1, 100000);
		else if (strcmp(name, "--single") == 0)
			bench->single_kind = bench_find(bench, value);
		else if (strcmp(name, "--cpus") != 0 ||
			 sscanf(value, "%u,%u", &bench->cpus[0], &bench->cpus[1]) != 2)
			bench_usage(bench);
	}
}

/* The first and the last processor we may use. */
static inline bool bench_choose_cpus(struct bench *bench)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 2)
		return false;
	for (bench->cpus[0] = 0; !CPU_ISSET(bench->cpus[0], &set); bench->cpus[0]++)
		;
	for (bench->cpus[1] = CPU_SETSIZE - 1; !CPU_ISSET(bench->cpus[1], &set); bench->cpus[1]--)
		;
	return true;
}

static inline int bench_run_single(struct bench *bench)
{
	uint8_t *ptr = mmap(NULL, bench->memory_bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (ptr == MAP_FAILED)
		bench_die("mmap");
	bench->set_up(ptr);
	bench->single(bench->single_kind, bench->ops);
	printf("%s: %u round trips\n", bench->kinds[bench->single_kind].name, bench->ops);
	return 0;
}

static inline int bench_main(struct bench *bench, int argc, char **argv)
{
	struct bench_series ratios[BENCH_KINDS + 1], ns[BENCH_KINDS + 1];
	bool two_cpus = bench_choose_cpus(bench);

	bench->single_kind = -1;
	bench_parse(bench, argc, argv);
	if (bench->single_kind >= 0)
		return bench_run_single(bench);
	if (!two_cpus) {
		fprintf(stderr, "%s: needs two processors\n", bench->name);
		return 77;
	}
	for (int kind = 0; kind <= BENCH_KINDS; kind++) {
		size_t count = (size_t)bench->starts * bench->blocks * BENCH_KINDS;

		ratios[kind] = (struct bench_series){ malloc(count * sizeof(double)), 0 };
		ns[kind] = (struct bench_series){ malloc(count * sizeof(double)), 0 };
		if (!ratios[kind].values || !ns[kind].values)
			bench_die("malloc");
	}
	for (uint32_t start = 0; start < bench->starts; start++)
		bench_start(bench,
			    bench_now_ns() + bench->seconds * (uint64_t)1000000000 / bench->starts,
			    ratios, ns);
	if (ratios[0].count == 0) {
		fprintf(stderr, "%s: not one block was done in %u s\n", bench->name,
			bench->seconds);
		return 1;
	}
	bench_print(bench, ratios, ns);
	for (int kind = 0; kind <= BENCH_KINDS; kind++) {
		free(ratios[kind].values);
		free(ns[kind].values);
	}
	return 0;
}

#endif
