/* SPDX-License-Identifier: BSD-3-Clause */
/* console: one port on a pseudo terminal, with a lasting name if wanted, or on stdin and stdout. */
#include "vmsgd.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_CHECK_MS 1000u /* nobody tells when a pseudo terminal's window changes */

struct console {
	struct instance instance; /* first */
	struct vmsg_console console;
	struct vmsg_tty *tty;
	struct vmsg_watch watches[VMSG_TTY_WATCHES];
	uint32_t watch_count;
	bool always_ready; /* one of the descriptors cannot be watched: a regular file */
	uint32_t size_checked_ms, window_changes;
	char *link;
};

static struct console *to_console(struct instance *instance)
{
	return (struct console *)instance;
}

/* ---- What was asked for ---- */

static int check(const struct device *device, char *err, size_t err_size)
{
	const struct device_options *options = &device->options;

	if (options->pty && options->stdio)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "a console is on pty or on stdio, not on both");
	if (options->stdio && options->link)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "link= names a pseudo terminal; stdio has none");
	if (options->raw && !options->stdio)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "raw is for stdio; a pseudo terminal always is");
	for (const struct device *other = device->daemon->devices; other; other = other->next) {
		if (other != device && options->stdio && other->options.stdio)
			return common_fail(err, err_size, VMSG_ERR_INVAL,
					   "only one console can be on stdio");
	}
	return 0;
}

static int check_bus(const struct device *device, char *err, size_t err_size)
{
	const struct device_options *options = &device->options;

	if (!options->stdio && !options->link)
		return 0;
	return common_fail(
		err, err_size, VMSG_ERR_INVAL, "%s serves one peer, and %s has %u: add peer=K",
		options->stdio ? "stdio" : "link=", device->bus->name, device->bus->address.peers);
}

/* ---- The lasting name of a pseudo terminal ---- */

/* Replaces a symbolic link that an earlier daemon left, nothing else. */
static int make_link(struct console *console, const char *path, char *err, size_t err_size)
{
	const char *target = vmsg_tty_path(console->tty);
	struct stat st;
	bool there = lstat(path, &st) == 0;

	if (there && !S_ISLNK(st.st_mode))
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "link=%s: exists and is no symbolic link", path);
	console->link = strdup(path);
	if (!console->link)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	if ((there && unlink(path) < 0) || symlink(target, path) < 0) {
		int number = errno;

		free(console->link);
		console->link = NULL;
		return common_fail(err, err_size, -number, "link=%s: %s", path, strerror(number));
	}
	return 0;
}

static void remove_link(struct console *console)
{
	char target[VMSG_PATH_BYTES];
	ssize_t len;

	if (!console->link)
		return;
	len = readlink(console->link, target, sizeof(target) - 1);
	if (len > 0) {
		target[len] = 0;
		if (!strcmp(target, vmsg_tty_path(console->tty)))
			unlink(console->link);
	}
	free(console->link);
	console->link = NULL;
}

/* ---- Opening ---- */

static void unwatch(struct console *console)
{
	for (uint32_t i = 0; i < console->watch_count; i++)
		vmsg_events_remove(&console->instance.daemon->events, &console->watches[i]);
	console->watch_count = 0;
	console->always_ready = false;
}

static void console_close(struct instance *instance)
{
	struct console *console = to_console(instance);

	unwatch(console);
	if (console->tty)
		remove_link(console);
	vmsg_tty_close(console->tty);
	console->tty = NULL;
}

static void console_free(struct instance *instance)
{
	free(instance);
}

/* --check must not touch a terminal, nor a name that a running daemon uses. */
static int check_only(const struct device_options *options, char *err, size_t err_size)
{
	struct stat st;

	if (options->link && lstat(options->link, &st) == 0 && !S_ISLNK(st.st_mode))
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "link=%s: exists and is no symbolic link", options->link);
	return 0;
}

static int open_tty(struct console *console, const struct device *device, char *err,
		    size_t err_size)
{
	const struct device_options *options = &device->options;
	int rc;

	if (device->daemon->settings.check)
		return check_only(options, err, err_size);
	if (options->stdio)
		rc = vmsg_tty_open_stdio(&console->tty, options->raw, err, err_size);
	else
		rc = vmsg_tty_open_pty(&console->tty, err, err_size);
	if (rc == 0 && options->link)
		rc = make_link(console, options->link, err, err_size);
	return rc;
}

static int console_open(struct device *device, uint32_t peer, struct instance **instance, char *err,
			size_t err_size)
{
	struct console *console = calloc(1, sizeof(*console));
	int rc;

	(void)peer;
	if (!console)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	console->instance.device = &console->console.device;
	console->instance.daemon = device->daemon;
	rc = open_tty(console, device, err, err_size);
	if (rc < 0) {
		console_close(&console->instance);
		free(console);
		return rc;
	}
	*instance = &console->instance;
	return 0;
}

static void console_init(struct instance *instance)
{
	struct console *console = to_console(instance);

	console->console.backend = &vmsg_tty_backend;
	console->console.backend_data = console->tty;
	if (vmsg_tty_size(console->tty, &console->console.cols, &console->console.rows) < 0)
		console->console.cols = console->console.rows = 0;
	vmsg_console_init(&console->console);
}

/* ---- Running ---- */

static void on_ready(struct vmsg_watch *watch, uint32_t events)
{
	struct console *console = watch->user;

	(void)events;
	vmsg_tty_poll(console->tty);
	vmsg_console_ready(&console->console);
}

static bool same_watches(const struct console *console, const struct vmsg_tty_watch *wanted,
			 uint32_t count)
{
	if (count != console->watch_count)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t events = (wanted[i].in ? (uint32_t)EPOLLIN : 0) |
				  (wanted[i].out ? (uint32_t)EPOLLOUT : 0);

		if (console->watches[i].fd != wanted[i].fd || console->watches[i].events != events)
			return false;
	}
	return true;
}

/* Watches what the terminal wants to have watched now. */
static void update_watches(struct console *console)
{
	struct vmsg_tty_watch wanted[VMSG_TTY_WATCHES];
	uint32_t count = vmsg_tty_watches(console->tty, console->console.wants_input,
					  console->console.wants_output, wanted);

	if (!console->always_ready && same_watches(console, wanted, count))
		return;
	unwatch(console);
	for (uint32_t i = 0; i < count; i++) {
		struct vmsg_watch *watch = &console->watches[console->watch_count];
		int rc;

		*watch = (struct vmsg_watch){
			.fd = wanted[i].fd,
			.events = (wanted[i].in ? (uint32_t)EPOLLIN : 0) |
				  (wanted[i].out ? (uint32_t)EPOLLOUT : 0),
			.ready = on_ready,
			.user = console,
		};
		rc = vmsg_events_add(&console->instance.daemon->events, watch);
		if (rc == 0)
			console->watch_count++;
		else if (rc == -EPERM)
			console->always_ready = true;
		/* Else there is no room for it now: the next turn tries again. */
	}
}

static void update_size(struct console *console)
{
	const struct daemon *daemon = console->instance.daemon;
	uint16_t cols, rows;

	if (console->window_changes == daemon->window_changes &&
	    daemon->events.now_ms - console->size_checked_ms < SIZE_CHECK_MS)
		return;
	console->window_changes = daemon->window_changes;
	console->size_checked_ms = daemon->events.now_ms;
	if (vmsg_tty_connected(console->tty) && vmsg_tty_size(console->tty, &cols, &rows) == 0)
		vmsg_console_set_size(&console->console, cols, rows);
}

static bool console_poll(struct instance *instance)
{
	struct console *console = to_console(instance);
	bool ready = console->always_ready;

	if (ready)
		vmsg_console_ready(&console->console);
	update_size(console);
	update_watches(console);
	return ready && console->always_ready;
}

/* ---- For people ---- */

static void console_describe(const struct instance *instance, char *text, size_t size)
{
	const struct console *console = (const struct console *)instance;
	const char *path = console->tty			    ? vmsg_tty_path(console->tty)
			   : instance->owner->options.stdio ? "stdio"
							    : "a pseudo terminal";

	if (console->link)
		snprintf(text, size, "%s, %s", path, console->link);
	else
		snprintf(text, size, "%s", path);
}

static void console_facts(const struct instance *instance, json_t *object)
{
	const struct console *console = (const struct console *)instance;

	if (console->tty)
		json_object_set_new(object, "path", stat_text(vmsg_tty_path(console->tty)));
	if (console->link)
		json_object_set_new(object, "link", stat_text(console->link));
	json_object_set_new(object, "cols", stat_number(console->console.cols));
	json_object_set_new(object, "rows", stat_number(console->console.rows));
}

static void console_stat(const struct instance *instance, json_t *object)
{
	const struct console *console = (const struct console *)instance;
	const struct stat_entry entries[] = {
		{ "received_bytes", console->console.received_bytes },
		{ "transmitted_bytes", console->console.transmitted_bytes },
		{ "dropped_bytes", console->console.dropped_bytes },
	};

	stat_add(object, entries, sizeof(entries) / sizeof(entries[0]));
	if (console->tty)
		json_object_set_new(object, "terminal_open",
				    json_boolean(vmsg_tty_connected(console->tty)));
}

const struct device_type console_type = {
	.name = "console",
	.check = check,
	.check_bus = check_bus,
	.open = console_open,
	.init = console_init,
	.poll = console_poll,
	.close = console_close,
	.free = console_free,
	.describe = console_describe,
	.facts = console_facts,
	.stat = console_stat,
};
