/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * System calls and notifications per request, both ends together (goal P7). These do not depend on
 * how fast or busy the machine is.
 *
 * Strace counts system calls, over this program and the daemon, in two runs of different length:
 * the difference of the two is what requests cost. But it makes system calls slow, so that an end
 * which would sleep finds its work done already. Therefore doorbells rung and times slept, each of
 * which is one system call, come from the counters of both ends, in runs without strace.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common_daemon.h"

#define FILE_BYTES  (8u << 20)
#define SHORT_COUNT 1000u
#define NAMES_MAX   64u

#define TMPFS "tmpfs" /* stands for the file */

struct test {
	const char *what, *poll, *device;
	uint32_t spin_us, depth, count;
	double goal; /* of system calls; below 0: none */
	bool lazy;
};

/* Of polling ends the goal is 0. What is left is a look at sockets and timers now and then. */
static const struct test traced[] = {
	{ "polled, null, depth 1", "always", "null:1G", VMSG_SPIN_ALWAYS, 1, 100000, 0.01, false },
	{ "polled, ram, depth 32", "always", "ram:8M", VMSG_SPIN_ALWAYS, 32, 100000, 0.01, false },
	{ "polled, tmpfs, depth 1", "always", TMPFS, VMSG_SPIN_ALWAYS, 1, 20000, 1, false },
	{ "blocking, ram, depth 1", "never", "ram:8M", VMSG_SPIN_NEVER, 1, 3000, 0, false },
	{ "blocking, ram, depth 32", "never", "ram:8M", VMSG_SPIN_NEVER, 32, 30000, 0, false },
};

static const struct test counted[] = {
	{ "polled, ram, depth 32", "always", "ram:8M", VMSG_SPIN_ALWAYS, 32, 64000, -1, false },
	{ "adaptive, ram, depth 32", NULL, "ram:8M", VMSG_SPIN_DEFAULT, 32, 64000, -1, false },
	{ "blocking, ram, depth 32", "never", "ram:8M", VMSG_SPIN_NEVER, 32, 64000, 0.15, false },
	{ "blocking, ram, depth 1", "never", "ram:8M", VMSG_SPIN_NEVER, 1, 10000, 3, false },
	{ "blocking, lazy doorbell, depth 1", "never", "ram:8M", VMSG_SPIN_NEVER, 1, 10000, 3,
	  true },
};

#define TRACED	(sizeof(traced) / sizeof(traced[0]))
#define COUNTED (sizeof(counted) / sizeof(counted[0]))

static uint32_t cpus[2];

/* ---- A run, with or without strace ---- */

struct run {
	struct bench_daemon daemon;
	struct bench_link link;
	char path[64];
};

static void open_run(struct run *run, const struct test *test)
{
	char device[96];
	const char *devices[] = { device, NULL };
	bool file = strcmp(test->device, TMPFS) == 0;

	snprintf(run->path, sizeof(run->path), "/dev/shm/vmsg-bench-%d", (int)getpid());
	if (file)
		close(bench_file_make(run->path, FILE_BYTES));
	snprintf(device, sizeof(device), "blk,path=%s", file ? run->path : test->device);
	bench_daemon_start(&run->daemon, test->poll, devices);
	bench_link_open(&run->link, &run->daemon, test->spin_us, test->lazy);
	bench_pin(run->daemon.pid, cpus[1]);
	bench_pin(0, cpus[0]);
	bench_realtime(run->daemon.pid);
	bench_realtime(0);
	bench_disk_start(&run->link, 0, true);
}

static void close_run(struct run *run)
{
	bench_link_close(&run->link);
	bench_daemon_stop(&run->daemon);
	bench_ordinary(0);
	bench_unpin(0);
}

/* ---- System calls ---- */

struct call {
	char name[32];
	double count;
};

struct calls {
	struct call calls[NAMES_MAX];
	uint32_t count;
};

/* Reads what "strace -c" says: percent, seconds, usecs/call, calls, maybe errors, name. */
static void read_calls(int fd, struct calls *calls)
{
	FILE *file = lseek(fd, 0, SEEK_SET) == 0 ? fdopen(fd, "r") : NULL;
	char line[256], name[32];
	double count;

	if (!file)
		bench_die("strace");
	calls->count = 0;
	while (fgets(line, sizeof(line), file) && calls->count < NAMES_MAX) {
		if (sscanf(line, "%*f %*f %*u %lf %31s", &count, name) != 2)
			continue;
		if (name[0] >= '0' && name[0] <= '9' &&
		    sscanf(line, "%*f %*f %*u %lf %*u %31s", &count, name) != 2)
			continue;
		if (strcmp(name, "total") == 0)
			continue;
		snprintf(calls->calls[calls->count].name, sizeof(name), "%s", name);
		calls->calls[calls->count++].count = count;
	}
	fclose(file);
}

static void run_strace(uint32_t test, uint32_t count, struct calls *calls)
{
	/* Strace inherits it; nothing is left behind whatever happens. */
	int fd = memfd_create("strace", 0), status;
	char number[16], length[16], out[32];
	pid_t pid;

	if (fd < 0)
		bench_die("memfd_create");
	snprintf(out, sizeof(out), "/dev/fd/%d", fd);
	snprintf(number, sizeof(number), "%u", test);
	snprintf(length, sizeof(length), "%u", count);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork");
	if (pid == 0) {
		char self[512];
		ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

		self[len > 0 ? len : 0] = '\0';
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execlp("strace", "strace", "-f", "-c", "-o", out, self, "--inner", number, length,
		       (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		bench_fail("system calls are counted with strace, which is not installed");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_fail("strace ended with status 0x%x", (unsigned int)status);
	read_calls(fd, calls);
}

static double count_of(const struct calls *calls, const char *name)
{
	for (uint32_t i = 0; i < calls->count; i++) {
		if (strcmp(calls->calls[i].name, name) == 0)
			return calls->calls[i].count;
	}
	return 0;
}

/* Ringing and sleeping in a way that strace changes. */
static bool is_disturbed(const struct test *test, const char *name)
{
	if (strcmp(name, "epoll_wait") == 0)
		return test->goal == 0 || test->goal >= 1;
	return test->spin_us == VMSG_SPIN_NEVER && strcmp(name, "write") == 0;
}

static void measure_calls(uint32_t index)
{
	const struct test *test = &traced[index];
	struct bench_result result = { .goal_id = "P7", .unit = "calls" };
	struct calls few, many;
	char what[128];

	run_strace(index, SHORT_COUNT, &few);
	run_strace(index, SHORT_COUNT + test->count, &many);
	for (uint32_t i = 0; i < many.count; i++) {
		const char *name = many.calls[i].name;

		if (!is_disturbed(test, name))
			result.value += (many.calls[i].count - count_of(&few, name)) / test->count;
	}
	/* Start and end differ by a few calls from run to run. */
	if (result.value < 0.0005)
		result.value = 0;
	snprintf(what, sizeof(what), "system calls%s: %s",
		 test->goal > 0 && test->goal < 1 ? "" : ", others", test->what);
	result.what = what;
	result.sense = BENCH_AT_MOST;
	result.goal = test->goal;
	bench_report(&result);
}

/* ---- Notifications ---- */

static void report_count(const struct test *test, const char *what, double value, double goal)
{
	char text[128];
	struct bench_result result = {
		.goal_id = "P7",
		.what = text,
		.unit = "",
		.value = value,
		.sense = goal > 0 ? BENCH_AT_MOST : BENCH_INFO,
		.goal = goal,
	};

	snprintf(text, sizeof(text), "%s: %s", what, test->what);
	bench_report(&result);
}

/* What both ends have counted. */
struct counts {
	uint64_t notifications, doorbells, sleeps;
};

static struct counts count_all(const struct run *run, bool lazy)
{
	const struct bench_daemon *daemon = &run->daemon;
	const struct bench_link *link = &run->link;
	const char *used = "devices.0.instances.0.used_notifications";
	struct counts counts = {
		.notifications = link->disks[0].driver.driver.counters.kicks,
		.doorbells = bench_daemon_stat(daemon, "buses.0.peers.0.doorbells"),
		.sleeps = link->client.link.sleeps + bench_daemon_stat(daemon, "daemon.wakes"),
	};

	counts.notifications += bench_daemon_stat(daemon, used);
	/* A lazy doorbell is rung by the system call that sleeps. */
	if (!lazy)
		counts.doorbells += link->client.amp.counters.doorbells;
	return counts;
}

static void measure_notifications(const struct test *test)
{
	static struct run run;
	struct counts before, after;
	double doorbells, sleeps, notifications;

	open_run(&run, test);
	before = count_all(&run, test->lazy);
	bench_disk_read(&run.link, 0, 4096, test->depth, test->count);
	after = count_all(&run, test->lazy);
	close_run(&run);
	notifications = (double)(after.notifications - before.notifications) / test->count;
	doorbells = (double)(after.doorbells - before.doorbells) / test->count;
	sleeps = (double)(after.sleeps - before.sleeps) / test->count;
	if (test->depth > 1)
		report_count(test, "notifications", notifications, 0.1);
	report_count(test, "doorbells and sleeps", doorbells + sleeps, test->goal);
}

/* ---- Start ---- */

static int run_inner(const char *number, const char *length)
{
	static struct run run;
	const struct test *test = &traced[strtoul(number, NULL, 10) % TRACED];

	open_run(&run, test);
	bench_disk_read(&run.link, 0, 4096, test->depth, strtoul(length, NULL, 10));
	close_run(&run);
	return 0;
}

int main(int argc, char **argv)
{
	if (!bench_cpus(cpus)) {
		fprintf(stderr, "calls: needs two processors\n");
		return 77;
	}
	if (argc == 4 && strcmp(argv[1], "--inner") == 0)
		return run_inner(argv[2], argv[3]);
	bench_json = argc == 2 && strcmp(argv[1], "--json") == 0;
	if (argc > 1 && !bench_json) {
		fprintf(stderr, "usage: calls [--json]\n");
		return 2;
	}
	bench_note(
		"\ncalls: system calls and notifications per read of 4 KiB, both ends together\n");
	bench_heading();
	for (uint32_t i = 0; i < COUNTED; i++)
		measure_notifications(&counted[i]);
	for (uint32_t i = 0; i < TRACED; i++)
		measure_calls(i);
	return 0;
}
