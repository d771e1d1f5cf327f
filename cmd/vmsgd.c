/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of the daemon: open everything, serve, and end in good order. */
#include "vmsgd.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define TICK_MS	    5	  /* looks at what is stopping; only while something is */
#define DEADLINE_MS 10000 /* I/O in flight has this long to end when the daemon stops */

static struct daemon the_daemon;

void daemon_log(const struct daemon *daemon, enum log_level level, const char *format, ...)
{
	va_list args;

	if (level > daemon->settings.level)
		return;
	va_start(args, format);
	common_verror(format, args);
	va_end(args);
}

/* ---- Every turn of the loop ---- */

static bool any_stopping(const struct daemon *daemon)
{
	bool any = false;

	/* All of them are asked: this is what moves them on. */
	for (const struct device *device = daemon->devices; device; device = device->next)
		any |= !device_stopped(device);
	return any;
}

static bool on_turn(struct vmsg_poller *poller)
{
	struct daemon *daemon = poller->user;
	struct device *device = daemon->devices, *next;
	bool worked = false;

	for (; device; device = next) {
		next = device->next;
		worked |= device_poll(device);
		if (!daemon->stopping)
			worked |= device_step(device);
	}
	if (daemon->tick.armed && !any_stopping(daemon)) {
		vmsg_events_stop_timer(&daemon->events, &daemon->tick);
		if (daemon->stopping)
			vmsg_events_stop(&daemon->events);
	}
	return worked;
}

/* The turn is what matters. */
static void on_tick(struct vmsg_timer *timer)
{
	(void)timer;
}

void daemon_tick(struct daemon *daemon)
{
	if (!daemon->tick.armed)
		vmsg_events_start_timer(&daemon->events, &daemon->tick, TICK_MS, TICK_MS);
}

/* ---- Stopping ---- */

static void remove_names(struct daemon *daemon)
{
	for (struct bus *bus = daemon->buses; bus; bus = bus->next) {
		if (bus->open)
			vmsg_ivshmem_close(&bus->server.ivshmem);
	}
	control_close(daemon);
	if (daemon->pidfile_written)
		unlink(daemon->settings.pidfile);
}

/* Without waiting for anything: what must not stay behind goes, the rest is the system's. */
static void exit_at_once(struct daemon *daemon)
{
	for (struct device *device = daemon->devices; device; device = device->next) {
		if (device->type == &console_type)
			device_close(device);
	}
	remove_names(daemon);
	_exit(COMMON_EXIT_FAILED);
}

static void on_deadline(struct vmsg_timer *timer)
{
	common_error("I/O in flight does not end; leaving it to the system");
	exit_at_once(timer->user);
}

void daemon_stop(struct daemon *daemon)
{
	if (daemon->stopping)
		return;
	daemon->stopping = true;
	vmsg_sd_notify("STOPPING=1");
	daemon_log(daemon, LOG_VERBOSE, "stopping");
	for (struct device *device = daemon->devices; device; device = device->next)
		device_stop(device);
	daemon_tick(daemon);
	vmsg_events_start_timer(&daemon->events, &daemon->deadline, DEADLINE_MS, 0);
}

static void on_signal(struct vmsg_events *events, int number)
{
	struct daemon *daemon = events->user;

	if (number == SIGWINCH) {
		daemon->window_changes++;
	} else if (daemon->stopping) {
		common_error("second signal: leaving at once");
		exit_at_once(daemon);
	} else {
		daemon_stop(daemon);
	}
}

/* ---- Starting ---- */

static int prepare_loop(struct daemon *daemon, char *err, size_t err_size)
{
	static const int with_hup[] = { SIGINT, SIGTERM, SIGWINCH, SIGHUP, 0 };
	static const int without_hup[] = { SIGINT, SIGTERM, SIGWINCH, 0 };
	struct sigaction hup;
	int rc = vmsg_events_open(&daemon->events, daemon->settings.spin_us);

	daemon->events.user = daemon;
	/* nohup means it. */
	sigaction(SIGHUP, NULL, &hup);
	if (rc == 0)
		rc = vmsg_events_signals(&daemon->events,
					 hup.sa_handler == SIG_IGN ? without_hup : with_hup,
					 on_signal);
	if (rc < 0)
		return common_fail(err, err_size, rc, "cannot set up the event loop: %s",
				   strerror(-rc));
	/* Peers that are gone, and files that may not grow, are errors of calls, not our end. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	vmsg_shared_survive();
	daemon->tick = (struct vmsg_timer){ .fire = on_tick, .user = daemon };
	daemon->deadline = (struct vmsg_timer){ .fire = on_deadline, .user = daemon };
	daemon->poller = (struct vmsg_poller){ .poll = on_turn, .user = daemon };
	/* The first to be added is the last in a turn: it sees what the buses have done. */
	vmsg_events_add_poller(&daemon->events, &daemon->poller);
	return 0;
}

/* Those that ask for a number get it, whatever comes before them. */
static int place_devices(struct daemon *daemon)
{
	char err[VMSG_ERR_TEXT];

	for (int fixed = 1; fixed >= 0; fixed--) {
		for (struct device *device = daemon->devices; device; device = device->next) {
			if ((device->options.num >= 0) != fixed)
				continue;
			if (device_place(device, err, sizeof(err)) < 0) {
				common_error("%s: %s", device->origin, err);
				return COMMON_EXIT_USAGE;
			}
		}
	}
	return 0;
}

static int open_devices(struct daemon *daemon)
{
	char err[VMSG_ERR_TEXT];

	for (struct device *device = daemon->devices; device; device = device->next) {
		if (device_open(device, err, sizeof(err)) < 0) {
			common_error("%s: %s", device->origin, err);
			return COMMON_EXIT_FAILED;
		}
	}
	return 0;
}

static int open_buses(struct daemon *daemon)
{
	char err[VMSG_ERR_TEXT];

	for (struct bus *bus = daemon->buses; bus; bus = bus->next) {
		if (bus_open(bus, err, sizeof(err)) < 0) {
			common_error("%s: %s", bus->origin, err);
			return COMMON_EXIT_FAILED;
		}
	}
	for (struct device *device = daemon->devices; device; device = device->next)
		device_serve(device);
	if (daemon->settings.control &&
	    control_open(daemon, daemon->settings.control, err, sizeof(err)) < 0) {
		common_error("control socket: %s", err);
		return COMMON_EXIT_FAILED;
	}
	return 0;
}

static int write_pidfile(struct daemon *daemon)
{
	const char *path = daemon->settings.pidfile;
	char text[16];
	int fd, len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	bool good;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	good = fd >= 0 && write(fd, text, (size_t)len) == len;
	if (!good)
		common_error("pidfile %s: %s", path, strerror(errno));
	else
		daemon->pidfile_written = true;
	if (fd >= 0)
		close(fd);
	return good ? 0 : COMMON_EXIT_FAILED;
}

/* ---- Saying what there is ---- */

static uint32_t count_devices(const struct daemon *daemon, const struct bus *bus)
{
	uint32_t count = 0;

	for (const struct device *device = daemon->devices; device; device = device->next)
		count += device->bus == bus;
	return count;
}

/* "amp:/tmp/vmsg.sock: device 0: blk disk.img, 64 MiB" */
static void instance_line(const struct instance *instance, char *line, size_t size)
{
	const struct device *device = instance->owner;
	char text[VMSG_ERR_TEXT], peer[16] = "";

	if (device->instance_count > 1 || device->options.peer)
		snprintf(peer, sizeof(peer), " peer %u", instance->peer);
	device->type->describe(instance, text, sizeof(text));
	snprintf(line, size, "%s: device %u%s: %s %s", device->bus->name, device->num, peer,
		 device->type->name, text);
}

static void say_ready(const struct daemon *daemon)
{
	char line[2 * VMSG_ERR_TEXT];

	for (const struct device *device = daemon->devices; device; device = device->next) {
		for (uint32_t i = 0; i < device->instance_count; i++) {
			instance_line(device->instances[i], line, sizeof(line));
			daemon_log(daemon, LOG_NORMAL, "%s", line);
		}
	}
	for (const struct bus *bus = daemon->buses; bus; bus = bus->next) {
		uint32_t count = count_devices(daemon, bus);

		daemon_log(daemon, LOG_NORMAL, "ready: amp:%s (%u device%s)", bus->address.path,
			   count, count == 1 ? "" : "s");
	}
	vmsg_sd_notify("READY=1");
}

/* --check: everything was opened that can be without being noticed. */
static void say_what_would_be(const struct daemon *daemon)
{
	char line[2 * VMSG_ERR_TEXT];

	for (const struct device *device = daemon->devices; device; device = device->next) {
		for (uint32_t i = 0; i < device->instance_count; i++) {
			instance_line(device->instances[i], line, sizeof(line));
			printf("%s\n", line);
		}
	}
	for (const struct bus *bus = daemon->buses; bus; bus = bus->next) {
		uint32_t count = count_devices(daemon, bus);

		printf("ok: amp:%s would serve %u device%s\n", bus->address.path, count,
		       count == 1 ? "" : "s");
	}
}

/* The folders that sockets are to be made in. */
static int check_folders(const struct daemon *daemon)
{
	char err[VMSG_ERR_TEXT];

	for (const struct bus *bus = daemon->buses; bus; bus = bus->next) {
		if (common_check_folder(bus->address.path, err, sizeof(err)) < 0) {
			common_error("%s: %s", bus->origin, err);
			return COMMON_EXIT_FAILED;
		}
	}
	if (daemon->settings.control &&
	    common_check_folder(daemon->settings.control, err, sizeof(err)) < 0) {
		common_error("control socket: %s", err);
		return COMMON_EXIT_FAILED;
	}
	return 0;
}

/* ---- All of it ---- */

static int run(struct daemon *daemon)
{
	char err[VMSG_ERR_TEXT];
	int rc;

	if (prepare_loop(daemon, err, sizeof(err)) < 0) {
		common_error("%s", err);
		return COMMON_EXIT_FAILED;
	}
	rc = open_devices(daemon);
	if (rc == 0 && daemon->settings.check) {
		rc = check_folders(daemon);
		if (rc == 0)
			say_what_would_be(daemon);
		return rc;
	}
	if (rc == 0)
		rc = open_buses(daemon);
	if (rc == 0)
		rc = write_pidfile(daemon);
	if (rc)
		return rc;
	say_ready(daemon);
	rc = vmsg_events_run(&daemon->events);
	if (rc < 0) {
		common_error("event loop: %s", strerror(-rc));
		return COMMON_EXIT_FAILED;
	}
	return daemon->exit_code;
}

/* In an order in which nothing is used after it is gone. */
static void close_all(struct daemon *daemon)
{
	vmsg_events_stop_timer(&daemon->events, &daemon->deadline);
	control_close(daemon);
	for (struct bus *bus = daemon->buses; bus; bus = bus->next)
		bus_close(bus);
	while (daemon->devices)
		device_free(daemon->devices);
	while (daemon->buses) {
		struct bus *bus = daemon->buses;

		daemon->buses = bus->next;
		bus_free(bus);
	}
	if (daemon->pidfile_written)
		unlink(daemon->settings.pidfile);
	vmsg_events_remove_poller(&daemon->events, &daemon->poller);
	if (daemon->events.batch)
		vmsg_events_close(&daemon->events);
	free(daemon->settings.control);
	free(daemon->settings.pidfile);
	free(daemon->settings.config);
}

/* Every peer costs a few descriptors; epoll does not mind large numbers. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct daemon *daemon = &the_daemon;
	int rc;

	daemon->started_us = vmsg_clock_us();
	common_set_program("vmsgd");
	common_fill_descriptors();
	rc = options_parse(daemon, argc, argv);
	if (rc) {
		rc--;
	} else {
		rc = place_devices(daemon);
		if (rc == 0) {
			raise_limits();
			rc = run(daemon);
		}
	}
	close_all(daemon);
	return rc;
}
