/* SPDX-License-Identifier: BSD-3-Clause */
/* What the benchmarks share. */
#include "common_bench.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

bool bench_json;

void bench_die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

void bench_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* ---- Processors and time ---- */

uint64_t bench_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What we were given. */
static cpu_set_t all_cpus;

bool bench_cpus(uint32_t cpus[2])
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 2)
		return false;
	for (cpus[0] = 0; !CPU_ISSET(cpus[0], &set); cpus[0]++)
		;
	for (cpus[1] = CPU_SETSIZE - 1; !CPU_ISSET(cpus[1], &set); cpus[1]--)
		;
	all_cpus = set;
	return true;
}

void bench_pin(pid_t pid, uint32_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(pid, sizeof(set), &set) != 0)
		bench_die("sched_setaffinity");
}

void bench_unpin(pid_t pid)
{
	if (sched_setaffinity(pid, sizeof(all_cpus), &all_cpus) != 0)
		bench_die("sched_setaffinity");
}

bool bench_realtime(pid_t pid)
{
	const struct sched_param param = { .sched_priority = 1 };
	const char *wish = getenv("BENCH_REALTIME");

	if (wish && strcmp(wish, "0") == 0)
		return false;
	return sched_setscheduler(pid, SCHED_FIFO, &param) == 0;
}

void bench_ordinary(pid_t pid)
{
	const struct sched_param param = { 0 };

	sched_setscheduler(pid, SCHED_OTHER, &param);
}

/* ---- The anchor ---- */

struct bench_anchor_shared {
	struct bench_ball ball;
	uint32_t ops;
	bool eventfd, end;
};

static void wait_fd(int fd)
{
	uint64_t value;

	if (read(fd, &value, sizeof(value)) != (ssize_t)sizeof(value))
		exit(1);
}

static void ring_fd(int fd)
{
	static const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
		exit(1);
}

static void answer(const struct bench_anchor *anchor)
{
	struct bench_anchor_shared *shared = anchor->shared;
	uint32_t count = 0;

	for (;;) {
		wait_fd(anchor->wake);
		if (shared->end)
			_exit(0);
		if (!shared->eventfd)
			bench_pong(&shared->ball, &count, shared->ops);
		for (uint32_t i = 0; shared->eventfd && i < shared->ops; i++) {
			wait_fd(anchor->to);
			ring_fd(anchor->from);
		}
	}
}

void bench_anchor_start(struct bench_anchor *anchor, uint32_t cpu)
{
	anchor->shared = mmap(NULL, sizeof(*anchor->shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (anchor->shared == MAP_FAILED)
		bench_die("mmap");
	anchor->count = 0;
	anchor->to = eventfd(0, EFD_CLOEXEC);
	anchor->from = eventfd(0, EFD_CLOEXEC);
	anchor->wake = eventfd(0, EFD_CLOEXEC);
	if (anchor->to < 0 || anchor->from < 0 || anchor->wake < 0)
		bench_die("eventfd");
	fflush(NULL);
	anchor->pid = fork();
	if (anchor->pid < 0)
		bench_die("fork");
	if (anchor->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		answer(anchor);
	}
	bench_pin(anchor->pid, cpu);
	bench_realtime(anchor->pid);
}

void bench_anchor_stop(struct bench_anchor *anchor)
{
	anchor->shared->end = true;
	ring_fd(anchor->wake);
	waitpid(anchor->pid, NULL, 0);
	close(anchor->to);
	close(anchor->from);
	close(anchor->wake);
	munmap(anchor->shared, sizeof(*anchor->shared));
}

static void wake_anchor(struct bench_anchor *anchor, bool eventfd, uint32_t ops)
{
	anchor->shared->ops = ops;
	anchor->shared->eventfd = eventfd;
	ring_fd(anchor->wake);
}

double bench_anchor_line(struct bench_anchor *anchor, uint32_t ops)
{
	struct bench_ball *ball = &anchor->shared->ball;
	uint32_t warm = ops / 10;
	uint64_t start;

	wake_anchor(anchor, false, ops);
	/* The first round trips wake the other side and warm the caches. */
	bench_ping(ball, &anchor->count, warm);
	start = bench_ns();
	bench_ping(ball, &anchor->count, ops - warm);
	return (double)(bench_ns() - start) / (ops - warm);
}

double bench_anchor_eventfd(struct bench_anchor *anchor, uint32_t ops)
{
	uint32_t warm = ops / 10;
	uint64_t start = 0;

	wake_anchor(anchor, true, ops);
	for (uint32_t i = 0; i < ops; i++) {
		if (i == warm)
			start = bench_ns();
		ring_fd(anchor->to);
		wait_fd(anchor->from);
	}
	return (double)(bench_ns() - start) / (ops - warm);
}

/* ---- Series ---- */

void bench_append(struct bench_series *series, double value)
{
	if (series->count == series->room) {
		series->room = series->room ? 2 * series->room : 64;
		series->values = realloc(series->values, series->room * sizeof(double));
		if (!series->values)
			bench_die("realloc");
	}
	series->values[series->count++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double bench_percentile(struct bench_series *series, uint32_t percent)
{
	if (series->count == 0)
		return 0;
	qsort(series->values, series->count, sizeof(double), compare);
	return series->values[(uint64_t)(series->count - 1) * percent / 100];
}

void bench_clear(struct bench_series *series)
{
	free(series->values);
	*series = (struct bench_series){ 0 };
}

/* ---- Results ---- */

void bench_note(const char *format, ...)
{
	va_list args;

	if (bench_json)
		return;
	va_start(args, format);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
}

void bench_heading(void)
{
	if (!bench_json)
		printf("%-4s %-60s %9s %8s %8s %8s\n", "goal", "", "median", "p10", "p90", "aim");
}

/* Four digits, as far as there are so many. */
static const char *number(char text[16], double value)
{
	int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;

	snprintf(text, 16, "%.*f", value > 0 && value < 0.0995 ? 3 : digits, value);
	return text;
}

/* To the digits that are shown. */
static bool met(const struct bench_result *result)
{
	double slack = 0.005 * (result->goal > 1 ? result->goal : 1);

	return result->sense == BENCH_AT_MOST ? result->value <= result->goal + slack
					      : result->value >= result->goal - slack;
}

static void report_json(const struct bench_result *result)
{
	printf("{\"goal\":\"%s\",\"what\":\"%s\",\"unit\":\"%s\",\"value\":%.6g", result->goal_id,
	       result->what, result->unit, result->value);
	if (result->has_range)
		printf(",\"p10\":%.6g,\"p90\":%.6g", result->p10, result->p90);
	if (result->sense != BENCH_INFO)
		printf(",\"%s\":%.6g,\"met\":%s",
		       result->sense == BENCH_AT_MOST ? "at_most" : "at_least", result->goal,
		       met(result) ? "true" : "false");
	printf("}\n");
}

void bench_report(const struct bench_result *result)
{
	char value[16], p10[16] = "", p90[16] = "", goal[16] = "", aim[24] = "";

	if (bench_json) {
		report_json(result);
		return;
	}
	if (result->has_range) {
		number(p10, result->p10);
		number(p90, result->p90);
	}
	if (result->sense != BENCH_INFO)
		snprintf(aim, sizeof(aim), "%s%s",
			 result->sense == BENCH_AT_MOST ? "<=" : ">=", number(goal, result->goal));
	printf("%-4s %-60s %9s %8s %8s %8s %s%s%s\n", result->goal_id, result->what,
	       number(value, result->value), p10, p90, aim, result->unit,
	       result->sense == BENCH_INFO ? "" : "  ",
	       result->sense == BENCH_INFO ? ""
	       : met(result)		   ? "reached"
					   : "missed");
	fflush(stdout);
}

void bench_report_series(const char *goal_id, const char *what, const char *unit,
			 struct bench_series *series, enum bench_sense sense, double goal)
{
	struct bench_result result = {
		.goal_id = goal_id,
		.what = what,
		.unit = unit,
		.value = bench_percentile(series, 50),
		.has_range = true,
		.p10 = bench_percentile(series, 10),
		.p90 = bench_percentile(series, 90),
		.sense = sense,
		.goal = goal,
	};

	bench_report(&result);
}
