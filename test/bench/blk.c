/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random reads through a vmsgd in a second process, on a processor of its own: from memory, from
 * nothing, and from a file in tmpfs; both ends polling, adaptive (the default), and sleeping, then
 * on two processors and on one. Each block stands between blocks of what it is compared with:
 *
 *	line      cache-line ping-pong between the same two processors, the daemon standing still
 *	eventfd   an eventfd round trip between them, or on the one
 *	pread     reads of the same size from the same file, without any daemon
 *	memcpy    copies of the same size from 64 MiB of memory
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common_daemon.h"

#define DISK_BYTES (64u << 20)
#define BLOCK_NS   2500000u
#define CHUNK_NS   400000u /* of each thing compared with */

enum mode {
	POLLED,
	ADAPTIVE,
	BLOCKING,
	ONE_CPU,
	ONE_CPU_LAZY,
	MODES
};

static const struct {
	const char *name, *poll;
	uint32_t spin_us;
	bool sleeps, one_cpu, lazy;
} modes[MODES] = {
	[POLLED] = { "polled", "always", VMSG_SPIN_ALWAYS, false, false, false },
	[ADAPTIVE] = { "adaptive", NULL, VMSG_SPIN_DEFAULT, false, false, false },
	[BLOCKING] = { "blocking", "never", VMSG_SPIN_NEVER, true, false, false },
	[ONE_CPU] = { "blocking, one CPU", "never", VMSG_SPIN_NEVER, true, true, false },
	[ONE_CPU_LAZY] = { "blocking, one CPU, doorbell with the sleep", "never", VMSG_SPIN_NEVER,
			   true, true, true },
};

enum {
	RAM,
	EMPTY,
	TMPFS
};

static const char *const disk_names[] = { [RAM] = "ram", [EMPTY] = "null", [TMPFS] = "tmpfs" };

#define WORKLOADS 8

static const struct workload {
	uint32_t disk, bytes, depth;
} workloads[WORKLOADS] = {
	{ RAM, 4096, 1 },    { RAM, 4096, 32 },	 { RAM, 131072, 8 },  { EMPTY, 4096, 1 },
	{ EMPTY, 4096, 32 }, { TMPFS, 4096, 1 }, { TMPFS, 4096, 32 }, { TMPFS, 131072, 8 },
};

enum {
	LINE,
	EVENTFD,
	PREAD,
	MEMCPY,
	ANCHORS
};

static const char *const anchor_names[ANCHORS] = { "line", "eventfd", "pread", "memcpy" };

struct outcome {
	struct bench_series ns; /* per request */
	struct bench_series ratio[ANCHORS], anchor_ns[ANCHORS];
};

struct options {
	uint32_t starts, blocks, seconds;
	int mode, workload; /* this one only; -1: all */
};

struct rig {
	const struct options *options;
	struct bench_daemon daemon;
	struct bench_link link;
	struct bench_anchor far, near; /* on the daemon's processor, and on ours */
	uint32_t cpus[2];
	int file;
	uint8_t *memory; /* DISK_BYTES */
	uint64_t seed;
	struct outcome outcomes[MODES][2][WORKLOADS];
};

/* ---- What reads are compared with ---- */

static double time_reads(struct rig *rig, uint32_t bytes, bool copy, uint32_t ops)
{
	uint64_t blocks = DISK_BYTES / bytes;
	uint8_t *to = rig->link.buffer_ptr;
	uint64_t start = bench_ns();

	for (uint32_t i = 0; i < ops; i++) {
		uint64_t from = bench_random(&rig->seed) % blocks * bytes;
		struct iovec iov = { to + (size_t)(i % 8) * bytes, bytes };

		if (copy)
			memcpy(iov.iov_base, rig->memory + from, bytes);
		else if (preadv(rig->file, &iov, 1, (off_t)from) != (ssize_t)bytes)
			bench_die("preadv");
	}
	return (double)(bench_ns() - start) / ops;
}

static uint32_t as_many(double ns, uint32_t budget_ns)
{
	double count = budget_ns / ns;

	return count < 20 ? 20 : count > 100000 ? 100000 : (uint32_t)count;
}

/* One block of each; the daemon stands still meanwhile. */
static void measure_anchors(struct rig *rig, enum mode mode, const struct workload *workload,
			    double ns[ANCHORS])
{
	uint32_t reads = as_many(workload->bytes > 4096 ? 12000 : 700, CHUNK_NS);
	struct bench_anchor *other = modes[mode].one_cpu ? &rig->near : &rig->far;

	bench_daemon_freeze(&rig->daemon);
	ns[LINE] = modes[mode].one_cpu ? 0 : bench_anchor_line(&rig->far, 1000);
	ns[EVENTFD] = modes[mode].sleeps ? bench_anchor_eventfd(other, 20) : 0;
	ns[PREAD] = time_reads(rig, workload->bytes, false, reads);
	ns[MEMCPY] = time_reads(rig, workload->bytes, true, reads);
	bench_daemon_thaw(&rig->daemon);
}

/* ---- Blocks ---- */

static double time_block(struct rig *rig, const struct workload *workload, uint32_t ops)
{
	uint64_t start;

	/* Both ends have found their way again. */
	bench_disk_read(&rig->link, workload->disk, workload->bytes, workload->depth,
			ops / 10 + workload->depth);
	start = bench_ns();
	bench_disk_read(&rig->link, workload->disk, workload->bytes, workload->depth, ops);
	start = bench_ns() - start;
	if (workload->disk != EMPTY)
		bench_disk_check(&rig->link, workload->depth);
	return (double)start / ops;
}

static void measure(struct rig *rig, enum mode mode, const struct workload *workload,
		    struct outcome *outcome)
{
	double before[ANCHORS], after[ANCHORS];
	double guess = time_block(rig, workload, 100);
	uint32_t ops = as_many(guess, BLOCK_NS);

	measure_anchors(rig, mode, workload, before);
	for (uint32_t block = 0; block < rig->options->blocks; block++) {
		double ns = time_block(rig, workload, ops);

		measure_anchors(rig, mode, workload, after);
		bench_append(&outcome->ns, ns);
		for (uint32_t i = 0; i < ANCHORS; i++) {
			if (after[i] == 0)
				continue;
			bench_append(&outcome->ratio[i], 2 * ns / (before[i] + after[i]));
			bench_append(&outcome->anchor_ns[i], after[i]);
		}
		memcpy(before, after, sizeof(before));
	}
}

/* ---- Starts ---- */

static void open_rig(struct rig *rig, enum mode mode, const char *path)
{
	char device[128];
	const char *devices[] = { "blk,path=ram:64M", "blk,path=null:1G", device, NULL };

	snprintf(device, sizeof(device), "blk,path=%s", path);
	bench_daemon_start(&rig->daemon, modes[mode].poll, devices);
	bench_link_open(&rig->link, &rig->daemon, modes[mode].spin_us, modes[mode].lazy);
	/* Only now: with one processor from the start, neither end would spin. */
	bench_pin(rig->daemon.pid, rig->cpus[modes[mode].one_cpu ? 0 : 1]);
	bench_pin(0, rig->cpus[0]);
	bench_realtime(rig->daemon.pid);
	bench_realtime(0);
}

static void close_rig(struct rig *rig)
{
	bench_link_close(&rig->link);
	bench_daemon_stop(&rig->daemon);
	bench_unpin(0);
	bench_ordinary(0);
}

static bool is_wanted(const struct options *options, enum mode mode, uint32_t workload)
{
	if (options->workload >= 0 && (uint32_t)options->workload != workload)
		return false;
	/* What is asked about one processor is the price of two wake-ups. */
	return !modes[mode].one_cpu || workloads[workload].bytes == 4096;
}

static void run_start(struct rig *rig, enum mode mode, const char *path)
{
	open_rig(rig, mode, path);
	for (int packed = 0; packed < 2; packed++) {
		for (uint32_t disk = 0; disk < BENCH_DISKS; disk++)
			bench_disk_start(&rig->link, disk, packed);
		if (!packed)
			bench_disk_fill(&rig->link, RAM);
		for (uint32_t i = 0; i < WORKLOADS; i++) {
			if (is_wanted(rig->options, mode, i))
				measure(rig, mode, &workloads[i], &rig->outcomes[mode][packed][i]);
		}
	}
	close_rig(rig);
}

/* ---- Results ---- */

static void print_json(enum mode mode, int packed, const struct workload *workload,
		       struct outcome *outcome)
{
	double ns = bench_percentile(&outcome->ns, 50);

	printf("{\"bench\":\"blk\",\"mode\":\"%s\",\"disk\":\"%s\",\"ring\":\"%s\",\"bytes\":%u,"
	       "\"depth\":%u,\"blocks\":%u,\"ns\":%.1f,\"p10\":%.1f,\"p90\":%.1f",
	       modes[mode].name, disk_names[workload->disk], packed ? "packed" : "split",
	       workload->bytes, workload->depth, outcome->ns.count, ns,
	       bench_percentile(&outcome->ns, 10), bench_percentile(&outcome->ns, 90));
	for (uint32_t i = 0; i < ANCHORS; i++) {
		if (outcome->ratio[i].count == 0)
			continue;
		printf(",\"%s\":{\"ns\":%.1f,\"ratio\":%.4f,\"p10\":%.4f,\"p90\":%.4f}",
		       anchor_names[i], bench_percentile(&outcome->anchor_ns[i], 50),
		       bench_percentile(&outcome->ratio[i], 50),
		       bench_percentile(&outcome->ratio[i], 10),
		       bench_percentile(&outcome->ratio[i], 90));
	}
	printf("}\n");
}

static void print_ratio(struct bench_series *ratio)
{
	char text[32] = "";

	if (ratio->count)
		snprintf(text, sizeof(text), "%.2f", bench_percentile(ratio, 50));
	printf(" %8s", text);
}

static void print_line(int packed, const struct workload *workload, struct outcome *outcome)
{
	double ns = bench_percentile(&outcome->ns, 50);

	printf("%-6s %-6s %4uK x%-3u %10.2f %8.2f %8.2f %8.0f %8.0f", disk_names[workload->disk],
	       packed ? "packed" : "split", workload->bytes / 1024, workload->depth,
	       ns * workload->depth / 1e3,
	       bench_percentile(&outcome->ns, 10) * workload->depth / 1e3,
	       bench_percentile(&outcome->ns, 90) * workload->depth / 1e3, 1e6 / ns,
	       workload->bytes / ns * 1e9 / (1 << 20));
	for (uint32_t i = 0; i < ANCHORS; i++)
		print_ratio(&outcome->ratio[i]);
	putchar('\n');
}

static void print_mode(struct rig *rig, enum mode mode)
{
	for (uint32_t i = 0; i < WORKLOADS; i++) {
		for (int packed = 0; packed < 2; packed++) {
			struct outcome *outcome = &rig->outcomes[mode][packed][i];

			if (outcome->ns.count == 0)
				continue;
			if (bench_json)
				print_json(mode, packed, &workloads[i], outcome);
			else
				print_line(packed, &workloads[i], outcome);
		}
	}
}

static void print_details(struct rig *rig)
{
	bench_note("\nblk: random reads through vmsgd in a second process, %u starts of %u blocks "
		   "each",
		   rig->options->starts, rig->options->blocks);
	for (enum mode mode = 0; mode < MODES; mode++) {
		if (rig->options->mode >= 0 && (enum mode)rig->options->mode != mode)
			continue;
		bench_note(
			"\n%s\n%-6s %-6s %-10s %10s %8s %8s %8s %8s   time per request divided by "
			"that of a\n%-24s %10s %8s %8s %8s %8s %8s %8s %8s %8s",
			modes[mode].name, "disk", "ring", "reads", "mean", "p10", "p90", "1000/s",
			"MiB/s", "", "us", "us", "us", "", "", anchor_names[0], anchor_names[1],
			anchor_names[2], anchor_names[3]);
		print_mode(rig, mode);
	}
	bench_note("%s", "");
}

static uint32_t find_workload(uint32_t disk, uint32_t bytes, uint32_t depth)
{
	uint32_t i = 0;

	while (workloads[i].disk != disk || workloads[i].bytes != bytes ||
	       workloads[i].depth != depth)
		i++;
	return i;
}

/* The one of the two rings that does better. */
static struct outcome *better(struct rig *rig, enum mode mode, uint32_t disk, uint32_t bytes,
			      uint32_t depth)
{
	uint32_t workload = find_workload(disk, bytes, depth);
	struct outcome *split = &rig->outcomes[mode][0][workload];
	struct outcome *packed = &rig->outcomes[mode][1][workload];

	return bench_percentile(&packed->ns, 50) < bench_percentile(&split->ns, 50) ? packed
										    : split;
}

static void report_inverse(const char *goal_id, const char *what, struct bench_series *ratio,
			   double goal)
{
	struct bench_result result = {
		.goal_id = goal_id,
		.what = what,
		.unit = "x",
		.value = 1 / bench_percentile(ratio, 50),
		.has_range = true,
		.p10 = 1 / bench_percentile(ratio, 90),
		.p90 = 1 / bench_percentile(ratio, 10),
		.sense = BENCH_AT_LEAST,
		.goal = goal,
	};

	bench_report(&result);
}

static void report_adaptive(struct rig *rig, const char *what, uint32_t depth)
{
	struct outcome *polled = better(rig, POLLED, TMPFS, 4096, depth);
	struct outcome *adaptive = better(rig, ADAPTIVE, TMPFS, 4096, depth);
	struct bench_result result = {
		.goal_id = "P6",
		.what = what,
		.unit = "x",
		.value = bench_percentile(&adaptive->ratio[LINE], 50) /
			 bench_percentile(&polled->ratio[LINE], 50),
		.sense = BENCH_AT_MOST,
		.goal = 1.5,
	};

	bench_report(&result);
}

static void report_goals(struct rig *rig)
{
	bench_heading();
	bench_report_series("P3", "4K depth 1 from tmpfs, polled / pread of the file", "x",
			    &better(rig, POLLED, TMPFS, 4096, 1)->ratio[PREAD], BENCH_AT_MOST,
			    1.25);
	bench_report_series("P3", "4K depth 1 from ram, polled / pread of a tmpfs file", "x",
			    &better(rig, POLLED, RAM, 4096, 1)->ratio[PREAD], BENCH_AT_MOST, 1.25);
	bench_report_series("", "4K depth 1 from nothing, polled / cache-line ping-pong", "x",
			    &better(rig, POLLED, EMPTY, 4096, 1)->ratio[LINE], BENCH_INFO, 0);
	report_inverse("P5", "128K depth 8 from ram, polled: speed / memcpy",
		       &better(rig, POLLED, RAM, 131072, 8)->ratio[MEMCPY], 0.8);
	report_inverse("P5", "128K depth 8 from tmpfs, polled: speed / memcpy",
		       &better(rig, POLLED, TMPFS, 131072, 8)->ratio[MEMCPY], 0.8);
	report_adaptive(rig, "4K depth 1 from tmpfs: adaptive / polled", 1);
	report_adaptive(rig, "4K depth 32 from tmpfs: adaptive / polled", 32);
	bench_report_series("P6", "4K depth 1 from ram, blocking, one CPU / eventfd", "x",
			    &better(rig, ONE_CPU, RAM, 4096, 1)->ratio[EVENTFD], BENCH_AT_MOST,
			    1.25);
	bench_report_series("P6", "4K depth 1 from ram, blocking, two CPUs / eventfd", "x",
			    &better(rig, BLOCKING, RAM, 4096, 1)->ratio[EVENTFD], BENCH_INFO, 0);
}

/* ---- One workload for a while, for a profiler ---- */

static void run_single(struct rig *rig, const char *path)
{
	enum mode mode = (enum mode)rig->options->mode;
	const struct workload *workload = &workloads[rig->options->workload];
	uint64_t end;

	open_rig(rig, mode, path);
	bench_disk_start(&rig->link, workload->disk, true);
	fprintf(stderr, "bench: %s, daemon %d, driver %d\n", modes[mode].name, (int)rig->daemon.pid,
		(int)getpid());
	end = bench_ns() + (uint64_t)rig->options->seconds * 1000000000u;
	while (bench_ns() < end) {
		uint64_t start = bench_ns();

		bench_disk_read(&rig->link, workload->disk, workload->bytes, workload->depth,
				100000);
		fprintf(stderr, "%.1f ns\n", (double)(bench_ns() - start) / 100000);
	}
	close_rig(rig);
}

/* ---- Options ---- */

static void usage(void)
{
	fprintf(stderr,
		"usage: blk [--starts N] [--blocks N] [--json] [--mode N] [--workload N]\n"
		"       blk --seconds N --mode N --workload N   just run it, for a profiler\n"
		"modes: 0 polled, 1 adaptive, 2 blocking, 3 blocking on one CPU,\n"
		"       4 the same, the doorbell rung with the sleep\n"
		"workloads: 0 to 7, in the order of the table\n");
	exit(2);
}

static uint32_t number(const char *text, uint32_t max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!*text || *end || value > max)
		usage();
	return (uint32_t)value;
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "starts", required_argument, NULL, 's' },
		{ "blocks", required_argument, NULL, 'b' },
		{ "json", no_argument, NULL, 'j' },
		{ "mode", required_argument, NULL, 'm' },
		{ "workload", required_argument, NULL, 'w' },
		{ "seconds", required_argument, NULL, 't' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 's':
			options->starts = number(optarg, 1000);
			break;
		case 'b':
			options->blocks = number(optarg, 100000);
			break;
		case 'j':
			bench_json = true;
			break;
		case 'm':
			options->mode = (int)number(optarg, MODES - 1);
			break;
		case 'w':
			options->workload = (int)number(optarg, WORKLOADS - 1);
			break;
		case 't':
			options->seconds = number(optarg, 3600);
			break;
		default:
			usage();
		}
	}
	if (optind != argc || (options->seconds && (options->mode < 0 || options->workload < 0)))
		usage();
}

static void make_data(struct rig *rig, char *path, size_t size)
{
	snprintf(path, size, "/dev/shm/vmsg-bench-%d", (int)getpid());
	rig->file = bench_file_make(path, DISK_BYTES);
	rig->memory = mmap(NULL, DISK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (rig->memory == MAP_FAILED)
		bench_die("mmap");
	memset(rig->memory, 1, DISK_BYTES);
}

int main(int argc, char **argv)
{
	static struct rig rig;
	struct options options = { .starts = 5, .blocks = 16, .mode = -1, .workload = -1 };
	char path[64];

	parse(&options, argc, argv);
	rig.options = &options;
	rig.seed = 88172645463325252u;
	if (!bench_cpus(rig.cpus)) {
		fprintf(stderr, "blk: needs two processors\n");
		return 77;
	}
	make_data(&rig, path, sizeof(path));
	if (options.seconds) {
		run_single(&rig, path);
		return 0;
	}
	bench_anchor_start(&rig.far, rig.cpus[1]);
	bench_anchor_start(&rig.near, rig.cpus[0]);
	for (uint32_t start = 0; start < options.starts; start++) {
		for (enum mode mode = 0; mode < MODES; mode++) {
			if (options.mode < 0 || (enum mode)options.mode == mode)
				run_start(&rig, mode, path);
		}
	}
	bench_anchor_stop(&rig.far);
	bench_anchor_stop(&rig.near);
	print_details(&rig);
	if (options.mode < 0 && options.workload < 0)
		report_goals(&rig);
	return 0;
}
