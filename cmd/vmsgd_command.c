/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of the control socket, {"cmd":"...", ...}. */
#include "vmsgd.h"
#include <stdio.h>
#include <string.h>

struct command {
	const char *name;
	const char *keys[5]; /* beside "cmd"; ends with NULL */
	/* The answer; NULL: it comes later. */
	json_t *(*run)(struct daemon *daemon, struct client *client, json_t *arguments);
};

static json_t *error_reply(const char *text)
{
	return json_pack("{s:b, s:o}", "ok", 0, "error", stat_text(text));
}

static json_t *error_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

static json_t *error_format(const char *format, ...)
{
	char text[VMSG_ERR_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return error_reply(text);
}

/* ---- Arguments ---- */

/* A whole number; *found tells whether it was there. */
static bool get_number(json_t *arguments, const char *key, uint64_t max, uint64_t *number,
		       bool *found, json_t **error)
{
	json_t *value = json_object_get(arguments, key);

	*found = value != NULL;
	if (!value)
		return true;
	if (json_is_integer(value) && json_integer_value(value) >= 0 &&
	    (uint64_t)json_integer_value(value) <= max) {
		*number = (uint64_t)json_integer_value(value);
		return true;
	}
	*error = error_format("%s is a number from 0 to %llu", key, (unsigned long long)max);
	return false;
}

static bool get_text(json_t *arguments, const char *key, const char **text, json_t **error)
{
	json_t *value = json_object_get(arguments, key);

	*text = value ? json_string_value(value) : NULL;
	if (!value || *text)
		return true;
	*error = error_format("%s is a string", key);
	return false;
}

/* Bytes, or a string such as "64M". */
static bool get_size(json_t *arguments, uint64_t *size, bool *found, json_t **error)
{
	json_t *value = json_object_get(arguments, "size");
	char err[VMSG_ERR_TEXT];

	if (!json_is_string(value))
		return get_number(arguments, "size", INT64_MAX, size, found, error);
	*found = true;
	if (common_parse_size(json_string_value(value), "size", size, err, sizeof(err)) == 0)
		return true;
	*error = error_reply(err);
	return false;
}

static struct bus *get_bus(struct daemon *daemon, json_t *arguments, json_t **error)
{
	struct bus *bus = daemon->buses;
	const char *name;

	if (!get_text(arguments, "bus", &name, error))
		return NULL;
	if (name) {
		bus = bus_find(daemon, name);
		if (!bus)
			*error = error_format("there is no bus '%.100s'; the first one is %.100s",
					      name, daemon->buses->name);
		return bus;
	}
	if (!bus->next)
		return bus;
	*error = error_format("on which bus? Add \"bus\", as in \"bus\":\"%.100s\"", bus->name);
	return NULL;
}

/* The one device that "num", "bus" and "peer" name. */
static struct device *get_device(struct daemon *daemon, json_t *arguments, json_t **error)
{
	struct bus *bus = get_bus(daemon, arguments, error);
	struct device *device = NULL;
	uint64_t num = 0, peer = 0;
	bool found;

	if (!bus || !get_number(arguments, "peer", VMSG_IVSHMEM_MAX_PEERS, &peer, &found, error) ||
	    !get_number(arguments, "num", UINT16_MAX, &num, &found, error))
		return NULL;
	if (!found) {
		*error = error_reply("which device? Add \"num\", as in \"num\":0");
		return NULL;
	}
	for (struct device *other = daemon->devices; other; other = other->next) {
		if (other->state != DEVICE_SERVING || other->bus != bus || other->num != num ||
		    (peer && !device_serves_peer(other, (uint32_t)peer)))
			continue;
		if (device) {
			*error = error_format("number %llu is a different device for each peer: "
					      "add \"peer\"",
					      (unsigned long long)num);
			return NULL;
		}
		device = other;
	}
	if (!device)
		*error = error_format("there is no device %llu on %.150s", (unsigned long long)num,
				      bus->name);
	return device;
}

/* ---- Commands ---- */

/* For commands that are about all buses unless one is named. False after an error. */
static bool get_any_bus(struct daemon *daemon, json_t *arguments, struct bus **bus, json_t **error)
{
	*bus = NULL;
	if (!json_object_get(arguments, "bus"))
		return true;
	*bus = get_bus(daemon, arguments, error);
	return *bus != NULL;
}

static json_t *run_list(struct daemon *daemon, struct client *client, json_t *arguments)
{
	json_t *error;
	struct bus *bus;

	(void)client;
	if (!get_any_bus(daemon, arguments, &bus, &error))
		return error;
	return json_pack("{s:b, s:o}", "ok", 1, "devices", stat_devices(daemon, bus));
}

static json_t *run_stat(struct daemon *daemon, struct client *client, json_t *arguments)
{
	json_t *error;
	struct bus *bus;

	(void)client;
	return get_any_bus(daemon, arguments, &bus, &error) ? stat_all(daemon, bus) : error;
}

static int add(struct device *device, const char *bus, char *err, size_t err_size)
{
	int rc = 0;

	if (bus)
		rc = device_set(device, "bus", bus, err, err_size);
	if (rc == 0)
		rc = device_place(device, err, err_size);
	if (rc == 0)
		rc = device_open(device, err, err_size);
	if (rc == 0)
		device_serve(device);
	return rc;
}

static json_t *run_add(struct daemon *daemon, struct client *client, json_t *arguments)
{
	const char *text, *bus;
	char err[VMSG_ERR_TEXT];
	struct device *device;
	json_t *error;

	(void)client;
	if (!get_text(arguments, "device", &text, &error) ||
	    !get_text(arguments, "bus", &bus, &error))
		return error;
	if (!text)
		return error_reply("which device? Add \"device\", as in \"device\":\"rng\"");
	device = device_parse(daemon, "control", text, err, sizeof(err));
	if (!device)
		return error_reply(err);
	if (add(device, bus, err, sizeof(err)) < 0) {
		device_free(device);
		return error_reply(err);
	}
	daemon_log(daemon, LOG_VERBOSE, "%s: device %u added: %s", device->bus->name, device->num,
		   text);
	return json_pack("{s:b, s:i, s:o}", "ok", 1, "num", (int)device->num, "device",
			 stat_device(device));
}

static json_t *run_remove(struct daemon *daemon, struct client *client, json_t *arguments)
{
	json_t *error = NULL;
	struct device *device = get_device(daemon, arguments, &error);

	if (!device)
		return error;
	device->remover = client;
	device_stop(device);
	return NULL;
}

static json_t *run_resize(struct daemon *daemon, struct client *client, json_t *arguments)
{
	json_t *error = NULL;
	struct device *device = get_device(daemon, arguments, &error);
	char err[VMSG_ERR_TEXT];
	uint64_t size = 0;
	bool given;

	(void)client;
	if (!device || !get_size(arguments, &size, &given, &error))
		return error;
	if (!device->type->resize)
		return error_format("device %u is a %s, which has no size", device->num,
				    device->type->name);
	for (uint32_t i = 0; i < device->instance_count; i++) {
		if (device->type->resize(device->instances[i], given ? &size : NULL, err,
					 sizeof(err)) < 0)
			return error_reply(err);
	}
	return json_pack("{s:b, s:o}", "ok", 1, "device", stat_device(device));
}

static json_t *run_quit(struct daemon *daemon, struct client *client, json_t *arguments)
{
	(void)client;
	(void)arguments;
	daemon_stop(daemon);
	return json_pack("{s:b}", "ok", 1);
}

static const struct command commands[] = {
	{ "list", { "bus", NULL }, run_list },
	{ "add", { "device", "bus", NULL }, run_add },
	{ "remove", { "num", "bus", "peer", NULL }, run_remove },
	{ "resize", { "num", "size", "bus", "peer", NULL }, run_resize },
	{ "stat", { "bus", NULL }, run_stat },
	{ "quit", { NULL }, run_quit },
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

/* The first key that the command does not have, or NULL. */
static const char *odd_key(const struct command *command, json_t *arguments)
{
	const char *key;
	json_t *value;

	json_object_foreach(arguments, key, value)
	{
		if (strcmp(key, "cmd") && common_find(key, command->keys) < 0)
			return key;
	}
	return NULL;
}

static json_t *run(struct daemon *daemon, struct client *client, json_t *arguments)
{
	const char *name = json_string_value(json_object_get(arguments, "cmd"));
	const struct command *command = name ? find(name) : NULL;
	char list[VMSG_ERR_TEXT];
	const char *key;

	if (!name)
		return error_reply("a command is an object with \"cmd\", as in {\"cmd\":\"list\"}");
	if (!command)
		return error_format("there is no command '%.64s'; there are list, add, remove, "
				    "resize, stat and quit",
				    name);
	key = odd_key(command, arguments);
	if (key)
		return error_format(
			"%s has no key '%.64s'; it has %s", command->name, key,
			command->keys[0] ? common_join(command->keys, list, sizeof(list)) : "none");
	if (daemon->stopping && command->run != run_list && command->run != run_stat)
		return error_reply("the daemon is stopping");
	return command->run(daemon, client, arguments);
}

json_t *command_run(struct daemon *daemon, struct client *client, const char *line, size_t len)
{
	json_error_t where;
	json_t *arguments = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where), *reply;

	if (!arguments)
		return error_format("not JSON: %s (column %d)", where.text, where.column);
	reply = run(daemon, client, arguments);
	json_decref(arguments);
	return reply;
}
