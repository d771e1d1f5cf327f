/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long it takes to get going. The daemon: from fork() to its line "ready", and what it weighs
 * (goal P9). A disk: from the first message to the first completed read, in requests and in time
 * (goal P8), over a bus where both ends poll; and the same with the connection made as well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common_daemon.h"

#define STARTS	     15u
#define BRINGUPS     300u
#define CONNECTS     30u
#define MORE_DEVICES 16u
#define DEVICES_MAX  (MORE_DEVICES + 2)

static uint32_t requests;
static uint32_t cpus[2];

static void count_requests(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	struct vmsg_msg msg;

	if (!sent || vmsg_msg_decode((enum vmsg_dialect)bus->dialect, buf, len, &msg) != 0)
		return;
	/* Events have numbers from 0x40 on. */
	if (!(msg.type & VMSG_TYPE_RESPONSE) && msg.msg_id < VMSG_EVENT_CONFIG)
		requests++;
}

/* ---- A disk ---- */

/* One that had not been told anything yet, to its first completed read. */
static double bring_up(struct bench_link *link)
{
	uint64_t start = bench_ns();

	bench_disk_start(link, 0, true);
	bench_disk_read(link, 0, 4096, 1, 1);
	return (double)(bench_ns() - start) / 1e3;
}

static void report_requests(void)
{
	struct bench_result result = {
		.goal_id = "P8",
		.what = "requests from bus to first completed read, 1 queue",
		.unit = "requests",
		.value = requests,
		.sense = BENCH_AT_MOST,
		.goal = 13,
	};

	bench_report(&result);
}

static void measure_disk(void)
{
	static const char *const devices[] = { "blk,path=ram:64M", NULL };
	static struct bench_link link;
	struct bench_series up = { 0 }, connect = { 0 };
	struct bench_daemon daemon;

	bench_daemon_start(&daemon, "always", devices);
	bench_pin(daemon.pid, cpus[1]);
	bench_realtime(daemon.pid);
	bench_pin(0, cpus[0]);
	for (uint32_t i = 0; i < CONNECTS; i++) {
		uint64_t start = bench_ns();

		bench_link_open(&link, &daemon, VMSG_SPIN_ALWAYS, false);
		bring_up(&link);
		bench_append(&connect, (double)(bench_ns() - start) / 1e3);
		bench_link_close(&link);
		usleep(20000); /* it clears the memory for the next one */
	}
	bench_link_open(&link, &daemon, VMSG_SPIN_ALWAYS, false);
	link.client.amp.bus.trace = count_requests;
	bring_up(&link);
	link.client.amp.bus.trace = NULL;
	for (uint32_t i = 0; i < BRINGUPS; i++) {
		vmsg_blk_driver_reset(&link.disks[0].driver);
		vmsg_driver_exit(&link.disks[0].driver.driver);
		link.disks[0].driver.driver.bus = NULL;
		bench_append(&up, bring_up(&link));
	}
	report_requests();
	bench_report_series("P8", "bus to first completed read, both ends polling", "us", &up,
			    BENCH_AT_MOST, 60);
	bench_report_series("P8", "the same, with connecting over the Unix socket before", "us",
			    &connect, BENCH_INFO, 0);
	bench_link_close(&link);
	bench_daemon_stop(&daemon);
	bench_unpin(0);
	bench_clear(&up);
	bench_clear(&connect);
}

/* ---- The daemon ---- */

static void report_number(const char *what, const char *unit, double value, double goal)
{
	struct bench_result result = {
		.goal_id = "P9",
		.what = what,
		.unit = unit,
		.value = value,
		.sense = goal > 0 ? BENCH_AT_MOST : BENCH_INFO,
		.goal = goal,
	};

	bench_report(&result);
}

/* What `more` further devices of this kind add, each. */
static double kib_of_device(const char *device, uint64_t without_kib)
{
	const char *devices[DEVICES_MAX] = { "blk,path=ram:64M" };
	struct bench_daemon daemon;
	double kib;

	for (uint32_t i = 0; i < MORE_DEVICES; i++)
		devices[i + 1] = device;
	bench_daemon_start(&daemon, NULL, devices);
	kib = (double)bench_daemon_kib(&daemon, "RssAnon");
	bench_daemon_stop(&daemon);
	return (kib - (double)without_kib) / MORE_DEVICES;
}

static uint64_t switches(const struct bench_daemon *daemon)
{
	return bench_daemon_kib(daemon, "voluntary_ctxt_switches");
}

/* How often an idle daemon wakes in a second. */
static void measure_idle(struct bench_daemon *daemon)
{
	static struct bench_link link;
	uint64_t before = switches(daemon);

	sleep(1);
	report_number("wake-ups of an idle daemon without a peer", "per s",
		      (double)(switches(daemon) - before), 0);
	bench_link_open(&link, daemon, VMSG_SPIN_DEFAULT, false);
	bench_disk_start(&link, 0, true);
	usleep(300000);
	before = switches(daemon);
	sleep(1);
	report_number("wake-ups of an idle daemon with a peer", "per s",
		      (double)(switches(daemon) - before), 0);
	bench_link_close(&link);
}

static void measure_daemon(void)
{
	static const char *const devices[] = { "blk,path=ram:64M", NULL };
	struct bench_series start = { 0 };
	struct bench_daemon daemon;
	uint64_t kib = 0, own_kib = 0;

	for (uint32_t i = 0; i <= STARTS; i++) {
		bench_daemon_start(&daemon, NULL, devices);
		if (i) /* the first one reads the program from disk */
			bench_append(&start, (double)daemon.start_ns / 1e6);
		kib = bench_daemon_kib(&daemon, "VmRSS");
		own_kib = bench_daemon_kib(&daemon, "RssAnon");
		if (i < STARTS)
			bench_daemon_stop(&daemon);
	}
	bench_report_series("P9", "vmsgd: start to ready", "ms", &start, BENCH_AT_MOST, 3);
	report_number("vmsgd: resident memory with one disk", "KiB", (double)kib, 3072);
	report_number("vmsgd: of that not shared with other programs", "KiB", (double)own_kib, 0);
	report_number("vmsgd: shared libraries, libc included", "", bench_daemon_libraries(&daemon),
		      4);
	measure_idle(&daemon);
	bench_daemon_stop(&daemon);
	report_number("vmsgd: each further disk", "KiB", kib_of_device("blk,path=null:1G", own_kib),
		      64);
	report_number("vmsgd: each further entropy source", "KiB", kib_of_device("rng", own_kib),
		      64);
	bench_clear(&start);
}

int main(int argc, char **argv)
{
	bench_json = argc == 2 && strcmp(argv[1], "--json") == 0;
	if (argc > 1 && !bench_json) {
		fprintf(stderr, "usage: start [--json]\n");
		return 2;
	}
	if (!bench_cpus(cpus)) {
		fprintf(stderr, "start: needs two processors\n");
		return 77;
	}
	bench_note("\nstart: getting going\n");
	bench_heading();
	bench_realtime(0);
	measure_disk();
	measure_daemon();
	return 0;
}
