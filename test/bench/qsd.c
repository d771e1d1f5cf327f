/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The same reads from vmsgd and from QEMU's storage daemon, which does the same job over
 * vhost-user: blocks of one and the other in turn, on the same processors, one daemon standing
 * still while the other works (goals P3 to P6). The driver polls; each daemon does as it is made:
 * vmsgd polls and sleeps by turns, and so does the other with an iothread's default.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common_daemon.h"
#include "common_qsd.h"

#define DISK_BYTES (64u << 20)
#define BLOCK_NS   2500000u
#define STARTS	   5u
#define BLOCKS	   20u

enum {
	TMPFS, /* numbers of disks, with both */
	EMPTY,
	RAM, /* with vmsgd only */
};

static const struct workload {
	const char *goal_id, *what;
	uint32_t ours, theirs, bytes, depth;
	bool blocking;
	enum bench_sense sense;
	double goal; /* of time for AT_MOST, of speed for AT_LEAST */
} workloads[] = {
	{ "P3", "4K depth 1, ram, time / q-s-d's from tmpfs", RAM, TMPFS, 4096, 1, false,
	  BENCH_AT_MOST, 0.12 },
	{ "P3", "4K depth 1, tmpfs, time / q-s-d's from tmpfs", TMPFS, TMPFS, 4096, 1, false,
	  BENCH_AT_MOST, 0.12 },
	{ "P3", "4K depth 1, null, time / q-s-d's from null", EMPTY, EMPTY, 4096, 1, false,
	  BENCH_AT_MOST, 0.25 },
	{ "P4", "4K depth 32, ram, speed / q-s-d's from tmpfs", RAM, TMPFS, 4096, 32, false,
	  BENCH_AT_LEAST, 6 },
	{ "P4", "4K depth 32, tmpfs, speed / q-s-d's from tmpfs", TMPFS, TMPFS, 4096, 32, false,
	  BENCH_AT_LEAST, 6 },
	{ "P4", "4K depth 32, null, speed / q-s-d's from null", EMPTY, EMPTY, 4096, 32, false,
	  BENCH_AT_LEAST, 4 },
	{ "P5", "128K depth 8, ram, speed / q-s-d's from tmpfs", RAM, TMPFS, 131072, 8, false,
	  BENCH_AT_LEAST, 2.5 },
	{ "P5", "128K depth 8, tmpfs, speed / q-s-d's from tmpfs", TMPFS, TMPFS, 131072, 8, false,
	  BENCH_AT_LEAST, 2.5 },
	{ "P6", "4K depth 1, tmpfs, blocking, time / q-s-d's", TMPFS, TMPFS, 4096, 1, true,
	  BENCH_AT_MOST, 1 },
};

#define WORKLOADS (sizeof(workloads) / sizeof(workloads[0]))

struct rig {
	struct bench_daemon daemon;
	struct bench_link link;
	struct qsd qsd;
	uint32_t cpus[2];
	struct bench_series ours[WORKLOADS], theirs[WORKLOADS], ratio[WORKLOADS];
};

static double time_ours(struct rig *rig, const struct workload *workload, uint32_t ops)
{
	uint64_t start;

	bench_daemon_thaw(&rig->daemon);
	bench_disk_read(&rig->link, workload->ours, workload->bytes, workload->depth,
			ops / 10 + workload->depth);
	start = bench_ns();
	bench_disk_read(&rig->link, workload->ours, workload->bytes, workload->depth, ops);
	start = bench_ns() - start;
	bench_daemon_freeze(&rig->daemon);
	if (workload->ours != EMPTY)
		bench_disk_check(&rig->link, workload->depth);
	return (double)start / ops;
}

static double time_theirs(struct rig *rig, const struct workload *workload, uint32_t ops)
{
	uint64_t start;

	qsd_thaw(&rig->qsd);
	rig->qsd.disks[workload->theirs].blocking = workload->blocking;
	qsd_read(&rig->qsd, workload->theirs, workload->bytes, workload->depth,
		 ops / 10 + workload->depth);
	start = bench_ns();
	qsd_read(&rig->qsd, workload->theirs, workload->bytes, workload->depth, ops);
	start = bench_ns() - start;
	qsd_freeze(&rig->qsd);
	if (workload->theirs == TMPFS)
		qsd_check(&rig->qsd, workload->theirs, workload->depth);
	return (double)start / ops;
}

static uint32_t as_many(double ns)
{
	double count = BLOCK_NS / ns;

	return count < 40 ? 40 : count > 100000 ? 100000 : (uint32_t)count;
}

static void measure(struct rig *rig, uint32_t index)
{
	const struct workload *workload = &workloads[index];
	uint32_t our_ops = as_many(time_ours(rig, workload, 100));
	uint32_t their_ops = as_many(time_theirs(rig, workload, 100));
	double before = time_theirs(rig, workload, their_ops), after;

	for (uint32_t block = 0; block < BLOCKS; block++) {
		double ours = time_ours(rig, workload, our_ops);

		after = time_theirs(rig, workload, their_ops);
		bench_append(&rig->ours[index], ours / 1e3 * workload->depth);
		bench_append(&rig->theirs[index], after / 1e3 * workload->depth);
		bench_append(&rig->ratio[index], workload->sense == BENCH_AT_MOST
							 ? 2 * ours / (before + after)
							 : (before + after) / (2 * ours));
		before = after;
	}
}

static void run_start(struct rig *rig, const char *path, bool blocking)
{
	char device[128];
	const char *devices[] = { device, "blk,path=null:1G", "blk,path=ram:64M", NULL };

	snprintf(device, sizeof(device), "blk,ro,path=%s", path);
	bench_daemon_start(&rig->daemon, blocking ? "never" : NULL, devices);
	bench_link_open(&rig->link, &rig->daemon, blocking ? VMSG_SPIN_NEVER : VMSG_SPIN_ALWAYS,
			false);
	rig->qsd.sockets[0] = rig->daemon.others[0];
	rig->qsd.sockets[1] = rig->daemon.others[1];
	qsd_start(&rig->qsd, path, DISK_BYTES, rig->cpus[1]);
	bench_pin(rig->daemon.pid, rig->cpus[1]);
	bench_pin(0, rig->cpus[0]);
	bench_realtime(rig->daemon.pid);
	bench_realtime(0);
	for (uint32_t disk = 0; disk < BENCH_DISKS; disk++)
		bench_disk_start(&rig->link, disk, true);
	bench_disk_fill(&rig->link, RAM);
	bench_daemon_freeze(&rig->daemon);
	qsd_freeze(&rig->qsd);
	for (uint32_t i = 0; i < WORKLOADS; i++) {
		if (workloads[i].blocking == blocking)
			measure(rig, i);
	}
	bench_daemon_thaw(&rig->daemon);
	bench_link_close(&rig->link);
	qsd_stop(&rig->qsd);
	bench_daemon_stop(&rig->daemon);
	bench_unpin(0);
	bench_ordinary(0);
}

int main(int argc, char **argv)
{
	static struct rig rig;
	char path[64];

	bench_json = argc == 2 && strcmp(argv[1], "--json") == 0;
	if (argc > 1 && !bench_json) {
		fprintf(stderr, "usage: qsd [--json]\n");
		return 2;
	}
	if (!bench_cpus(rig.cpus) || !qsd_is_there()) {
		fprintf(stderr, "qsd: needs two processors, and qemu-storage-daemon (package "
				"qemu-system-common)\n");
		return 77;
	}
	snprintf(path, sizeof(path), "/dev/shm/vmsg-bench-%d", (int)getpid());
	close(bench_file_make(path, DISK_BYTES));
	for (uint32_t start = 0; start < STARTS; start++) {
		run_start(&rig, path, false);
		run_start(&rig, path, true);
	}
	bench_note("\nqsd: reads from vmsgd and from qemu-storage-daemon (q-s-d) in turn, %u "
		   "blocks of each\n",
		   rig.ratio[0].count);
	bench_heading();
	for (uint32_t i = 0; i < WORKLOADS; i++) {
		bench_report_series(workloads[i].goal_id, workloads[i].what, "x", &rig.ratio[i],
				    workloads[i].sense, workloads[i].goal);
		bench_report_series("", "     vmsgd", "us", &rig.ours[i], BENCH_INFO, 0);
		bench_report_series("", "     qemu-storage-daemon", "us", &rig.theirs[i],
				    BENCH_INFO, 0);
	}
	return 0;
}
