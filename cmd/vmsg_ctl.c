/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg ctl: talks to the control socket of a running vmsgd, one JSON line each way. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmsg.h"

enum {
	OPTION_BUS = 256,
	OPTION_PEER
};

/* Which of several buses or peers is meant; NULL: there is but one. */
struct where {
	const char *bus, *peer;
};

static const struct option own[] = {
	{ "bus", required_argument, NULL, OPTION_BUS },
	{ "peer", required_argument, NULL, OPTION_PEER },
	{ 0 },
};

static bool take(int value, const char *text, void *user)
{
	struct where *where = user;

	if (value == OPTION_BUS)
		where->bus = text;
	else
		where->peer = text;
	return true;
}

static int connect_to(const char *path, uint32_t timeout_ms)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct timeval limit = { timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000 };
	int fd;

	if (strlen(path) >= sizeof(name.sun_path)) {
		common_error("%s: the path of a socket has at most %zu characters", path,
			     sizeof(name.sun_path) - 1);
		return -1;
	}
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		common_error("%s: %s; is there a vmsgd with --control %s?", path, strerror(errno),
			     path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

/* Adds a number argument to the command. */
static bool add_number(json_t *command, const char *key, const char *text)
{
	uint64_t number;

	if (!parse_size(text, &number) || number > INT64_MAX) {
		common_error("ctl: '%s' is no number", text);
		return false;
	}
	json_object_set_new(command, key, json_integer((json_int_t)number));
	return true;
}

/* The command as JSON, or NULL after a message. */
static json_t *make_command(int argc, char **argv, const struct where *where)
{
	json_t *command = json_object();
	const char *verb = argv[0];
	bool good = true;

	json_object_set_new(command, "cmd", json_string(verb));
	if (where->bus)
		json_object_set_new(command, "bus", json_string(where->bus));
	if (where->peer)
		good = add_number(command, "peer", where->peer);
	if (good && (!strcmp(verb, "list") || !strcmp(verb, "stat") || !strcmp(verb, "quit")) &&
	    argc == 1)
		return command;
	if (!good) {
		json_decref(command);
		return NULL;
	}
	if (!strcmp(verb, "add") && argc == 2) {
		json_object_set_new(command, "device", json_string(argv[1]));
	} else if (!strcmp(verb, "remove") && argc == 2) {
		good = add_number(command, "num", argv[1]);
	} else if (!strcmp(verb, "resize") && (argc == 2 || argc == 3)) {
		good = add_number(command, "num", argv[1]) &&
		       (argc == 2 || add_number(command, "size", argv[2]));
	} else {
		common_error(
			"ctl: say list, stat, add DEVICE, remove NUM, resize NUM [SIZE] or quit");
		good = false;
	}
	if (!good) {
		json_decref(command);
		command = NULL;
	}
	return command;
}

static bool send_line(int fd, json_t *command)
{
	char *text = json_dumps(command, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0, at = 0;
	bool good = text;

	if (good)
		text[len++] = '\n'; /* in place of the final 0 */
	while (good && at < len) {
		ssize_t sent = send(fd, text + at, len - at, MSG_NOSIGNAL);

		good = sent > 0 || (sent < 0 && errno == EINTR);
		at += sent > 0 ? (size_t)sent : 0;
	}
	free(text);
	return good;
}

static void print_devices(json_t *devices)
{
	json_t *device, *value;
	const char *key;
	size_t i;

	if (!json_array_size(devices))
		puts("no devices");
	json_array_foreach(devices, i, device)
	{
		printf("%s %" JSON_INTEGER_FORMAT "  %-8s",
		       json_string_value(json_object_get(device, "bus"))
			       ? json_string_value(json_object_get(device, "bus"))
			       : "",
		       json_integer_value(json_object_get(device, "num")),
		       json_string_value(json_object_get(device, "type"))
			       ? json_string_value(json_object_get(device, "type"))
			       : "?");
		json_object_foreach(device, key, value)
		{
			char *text;

			if (!strcmp(key, "bus") || !strcmp(key, "num") || !strcmp(key, "type") ||
			    json_is_null(value))
				continue;
			text = json_is_string(value)
				       ? strdup(json_string_value(value))
				       : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
			printf("  %s=%s", key, text ? text : "?");
			free(text);
		}
		putchar('\n');
	}
}

static int print_answer(json_t *answer, const char *verb, bool as_json)
{
	bool good = json_is_true(json_object_get(answer, "ok"));
	const char *error = json_string_value(json_object_get(answer, "error"));

	if (!good && !as_json)
		common_error("ctl %s: %s", verb, error ? error : "refused without a reason");
	else if (as_json || !strcmp(verb, "stat"))
		print_json(json_incref(answer));
	else if (!strcmp(verb, "list"))
		print_devices(json_object_get(answer, "devices"));
	else if (json_object_get(answer, "device")) {
		json_t *one = json_array();

		json_array_append(one, json_object_get(answer, "device"));
		print_devices(one);
		json_decref(one);
	}
	return good ? 0 : EXIT_FAULT;
}

static int converse(int fd, const char *path, json_t *command, const char *verb, bool as_json)
{
	json_error_t fault;
	json_t *answer;
	FILE *in;
	int code;

	if (!send_line(fd, command)) {
		common_error("%s: %s", path, strerror(errno));
		return EXIT_FAULT;
	}
	in = fdopen(dup(fd), "r");
	answer = in ? json_loadf(in, JSON_DISABLE_EOF_CHECK, &fault) : NULL;
	if (in)
		fclose(in);
	if (!answer) {
		common_error("%s: no answer, or none that is JSON", path);
		return EXIT_TIMEOUT;
	}
	code = print_answer(answer, verb, as_json);
	json_decref(answer);
	return code;
}

static int run(int argc, char **argv)
{
	struct options options;
	struct where where = { 0 };
	json_t *command;
	int code = options_parse(&options, &command_ctl, argc, argv, own, take, &where, 2, 4);
	int fd;

	if (code)
		return code;
	command = make_command(options.argc - 1, options.argv + 1, &where);
	if (!command)
		return EXIT_USAGE;
	fd = connect_to(options.argv[0], options.timeout_ms);
	if (fd < 0) {
		code = EXIT_CONNECT;
	} else {
		code = converse(fd, options.argv[0], command, options.argv[1], options.json);
		close(fd);
	}
	json_decref(command);
	return code;
}

const struct command command_ctl = {
	.name = "ctl",
	.arguments = "SOCKET list|stat|add DEVICE|remove NUM|resize NUM [SIZE]|quit",
	.summary = "Control a running vmsgd through its control socket.",
	.help = "  list                devices and where they are\n"
		"  stat                counters of buses, devices, queues and peers\n"
		"  add DEVICE          as vmsgd --device, e.g. blk,path=more.img\n"
		"  remove NUM          take device NUM away\n"
		"  resize NUM [SIZE]   tell the driver the file's new size, or grow it to SIZE\n"
		"  quit                stop the daemon\n\n"
		"options:\n"
		"  --bus NAME          which bus, where the daemon has several\n"
		"  --peer N            which peer's device, where each has its own\n\n",
	.run = run,
};
