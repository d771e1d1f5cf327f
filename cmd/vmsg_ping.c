/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg ping: is somebody there, and how far away. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vmsg.h"

enum {
	OPTION_COUNT = 256,
	OPTION_INTERVAL
};

struct pings {
	uint64_t count, interval_ms;
};

static const struct option own[] = {
	{ "count", required_argument, NULL, OPTION_COUNT },
	{ "interval", required_argument, NULL, OPTION_INTERVAL },
	{ 0 },
};

static bool take(int value, const char *text, void *user)
{
	struct pings *pings = user;

	if (value == OPTION_COUNT && parse_number(text, 1000000, &pings->count) && pings->count)
		return true;
	if (value == OPTION_INTERVAL && parse_number(text, 60000, &pings->interval_ms))
		return true;
	common_error(value == OPTION_COUNT ? "--count %s: must be a number, 1 to 1000000"
					   : "--interval %s: must be milliseconds, up to 60000",
		     text);
	return false;
}

static int ping(struct session *session, const struct options *options, const struct pings *pings)
{
	uint64_t least = UINT64_MAX, most = 0, sum = 0, answered = 0;
	int error = 0;

	setvbuf(stdout, NULL, _IOLBF, 0); /* also in a pipe somebody watches */
	for (uint64_t i = 0; i < pings->count; i++) {
		struct timespec pause = { (time_t)(pings->interval_ms / 1000),
					  (long)(pings->interval_ms % 1000) * 1000000 };
		uint64_t start = vmsg_clock_us(), passed;
		int rc;

		if (i)
			nanosleep(&pause, NULL);
		start = vmsg_clock_us();
		rc = vmsg_bus_ping(session->bus, (uint32_t)i + 1, options->timeout_ms);
		passed = vmsg_clock_us() - start;
		if (rc < 0) {
			error = rc;
			if (rc == VMSG_ERR_SHUTDOWN)
				break;
			continue;
		}
		answered++;
		sum += passed;
		least = passed < least ? passed : least;
		most = passed > most ? passed : most;
		if (!options->json)
			printf("answer %u from %s: %u us\n", (unsigned int)i + 1, session->address,
			       (unsigned int)passed);
	}
	if (options->json) {
		json_t *json = json_object();

		json_object_set_new(json, "sent", json_integer((json_int_t)pings->count));
		json_object_set_new(json, "answered", json_integer((json_int_t)answered));
		if (answered) {
			json_object_set_new(json, "min_us", json_integer((json_int_t)least));
			json_object_set_new(json, "mean_us",
					    json_real((double)sum / (double)answered));
			json_object_set_new(json, "max_us", json_integer((json_int_t)most));
		}
		print_json(json);
	}
	return error ? failed(error, "a ping to %s", session->address) : 0;
}

static int run(int argc, char **argv)
{
	struct pings pings = { 3, 100 };
	struct options options;
	struct session session;
	int code = options_parse(&options, &command_ping, argc, argv, own, take, &pings, 1, 1);

	if (code)
		return code;
	code = session_open(&session, &options, options.argv[0]);
	if (!code)
		code = ping(&session, &options, &pings);
	session_close(&session);
	return code;
}

const struct command command_ping = {
	.name = "ping",
	.arguments = "ADDR [--count N] [--interval MS]",
	.summary = "Send PING messages and time their echo.",
	.help = "options:\n"
		"  --count N       how many (3)\n"
		"  --interval MS   pause between two (100)\n\n",
	.run = run,
};
