/* SPDX-License-Identifier: BSD-3-Clause */
/* What the subcommands share: options, messages, the connection, the progress bar. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmsg.h"

/* ---- Messages ---- */

int failed(int error, const char *format, ...)
{
	char what[512];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	common_error("%s: %s", what, vmsg_error_text(error));
	switch (error) {
	case VMSG_ERR_SHUTDOWN:
		return EXIT_LOST;
	case VMSG_ERR_TIMEDOUT:
		return EXIT_TIMEOUT;
	case VMSG_ERR_NODEV:
		return EXIT_NODEV;
	default:
		return EXIT_FAULT;
	}
}

int device_failed(struct session *session, const struct vmsg_driver *driver, const char *wanted,
		  int error)
{
	static uint8_t bitmap[8192];
	uint16_t num = driver->dev_num;
	const char *type;

	if (error == VMSG_ERR_NODEV && driver->device_id && wanted) {
		type = device_type_name(driver->device_id);
		common_error("device %u of %s is a %s (virtio id %u), not a %s", num,
			     session->address, type ? type : "device of another type",
			     driver->device_id, wanted);
		return EXIT_NODEV;
	}
	/* Nobody answers for a device that is not there. */
	if ((error == VMSG_ERR_NODEV || error == VMSG_ERR_TIMEDOUT) && !driver->device_id &&
	    vmsg_bus_get_devices(session->bus, bitmap, 65536, driver->timeout_ms) >= 0 &&
	    !(bitmap[num / 8] & 1u << num % 8)) {
		common_error("there is no device %u at %s; `vmsg list ADDR` shows those there are",
			     num, session->address);
		return EXIT_NODEV;
	}
	return failed(error, "device %u of %s", num, session->address);
}

/* ---- Signals ---- */

static volatile sig_atomic_t signal_number;

static void note_signal(int number)
{
	signal_number = number;
}

void interrupts_catch(void)
{
	/* No SA_RESTART: a read that waits for a pipe has to end. */
	struct sigaction action = { .sa_handler = note_signal, .sa_flags = (int)SA_RESETHAND };
	static const int numbers[] = { SIGINT, SIGTERM };
	struct sigaction before;

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		/* What a shell has told us to ignore stays ignored. */
		if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
	}
}

bool interrupted(void)
{
	return signal_number != 0;
}

void interrupts_end(void)
{
	if (!signal_number)
		return;
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

/* ---- Options ---- */

enum {
	OPTION_DIALECT = 1,
	OPTION_TIMEOUT,
	OPTION_JSON,
	OPTION_TRACE,
	OPTION_HELP
};

#define COMMON_OPTIONS 5
#define MOST_OPTIONS   24

static const struct option common[COMMON_OPTIONS] = {
	{ "dialect", required_argument, NULL, OPTION_DIALECT },
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "trace", no_argument, NULL, OPTION_TRACE },
	{ "help", no_argument, NULL, OPTION_HELP },
};

static void command_help(const struct command *command)
{
	printf("usage: vmsg %s %s\n\n%s\n\n%s"
	       "common options:\n"
	       "  --dialect D     v2, v1, rfc2, or auto: find out (default)\n"
	       "  --timeout MS    give up on an answer after this long (1000)\n"
	       "  --json          facts as JSON\n"
	       "  --trace         every message on standard error: time, direction, fields\n"
	       "  --help          this text\n",
	       command->name, command->arguments, command->summary, command->help);
}

static bool take_common(struct options *options, int value, const char *text)
{
	uint64_t number;

	switch (value) {
	case OPTION_DIALECT:
		if (vmsg_dialect_parse(text, &options->dialect))
			return true;
		common_error("--dialect %s: must be v2, v1, rfc2 or auto", text);
		return false;
	case OPTION_TIMEOUT:
		if (parse_number(text, 3600000, &number) && number) {
			options->timeout_ms = (uint32_t)number;
			return true;
		}
		common_error("--timeout %s: must be milliseconds, 1 to 3600000", text);
		return false;
	case OPTION_JSON:
		options->json = true;
		return true;
	default:
		options->trace = true;
		return true;
	}
}

int options_parse(struct options *options, const struct command *command, int argc, char **argv,
		  const struct option *own, bool (*take)(int value, const char *text, void *user),
		  void *user, int min, int max)
{
	struct option all[MOST_OPTIONS];
	size_t count = 0;
	int value;

	memset(options, 0, sizeof(*options));
	options->dialect = VMSG_AUTO;
	options->timeout_ms = 1000;
	memcpy(all, common, sizeof(common));
	while (own && own[count].name && count < MOST_OPTIONS - COMMON_OPTIONS - 1)
		count++;
	if (count)
		memcpy(all + COMMON_OPTIONS, own, count * sizeof(own[0]));
	memset(&all[COMMON_OPTIONS + count], 0, sizeof(all[0]));

	opterr = 0;
	while ((value = getopt_long(argc, argv, ":h", all, NULL)) != -1) {
		if (value == OPTION_HELP || value == 'h') {
			command_help(command);
			exit(EXIT_GOOD);
		}
		if (value == '?' || value == ':') {
			common_error("%s: option %s %s; `vmsg %s --help` lists them", command->name,
				     argv[optind - 1],
				     value == ':' ? "needs a value" : "is not known",
				     command->name);
			return EXIT_USAGE;
		}
		if (value >= 256 ? !take(value, optarg, user)
				 : !take_common(options, value, optarg))
			return EXIT_USAGE;
	}
	options->argc = argc - optind;
	options->argv = argv + optind;
	if (options->argc < min || options->argc > max) {
		common_error("%s: %s; usage: vmsg %s %s", command->name,
			     options->argc < min ? "an argument is missing" : "too many arguments",
			     command->name, command->arguments);
		return EXIT_USAGE;
	}
	return 0;
}

bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
	char err[VMSG_ERR_TEXT];

	return common_parse_number(text, 0, max, "", number, err, sizeof(err)) == 0;
}

bool parse_size(const char *text, uint64_t *bytes)
{
	char err[VMSG_ERR_TEXT];

	return common_parse_size(text, "", bytes, err, sizeof(err)) == 0;
}

bool parse_device(const char *text, uint16_t *dev_num)
{
	uint64_t number;

	if (!parse_number(text, UINT16_MAX, &number)) {
		common_error("'%s' is no device number (0 to 65535); `vmsg list ADDR` shows them",
			     text);
		return false;
	}
	*dev_num = (uint16_t)number;
	return true;
}

/* ---- The connection ---- */

static void trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	common_trace(NULL, (enum vmsg_dialect)bus->dialect, sent, buf, len);
}

/* What a bus address starts with says which bus; more will come. */
int session_open(struct session *session, const struct options *options, const char *address)
{
	struct vmsg_amp_address amp;
	char err[VMSG_ERR_TEXT];
	int rc;

	memset(session, 0, sizeof(*session));
	session->address = address;
	if (strncmp(address, "amp:", 4) != 0) {
		common_error("'%s' is no address: buses known here: amp:PATH", address);
		return EXIT_USAGE;
	}
	if (vmsg_amp_parse(address, &amp, err, sizeof(err)) < 0) {
		common_error("%s", err);
		return EXIT_USAGE;
	}
	/* So that the end is the usual one, with a line about it and a terminal put right. */
	vmsg_shared_survive();
	rc = vmsg_amp_client_open(&session->client, &amp, options->dialect, options->timeout_ms,
				  err, sizeof(err));
	if (rc < 0) {
		common_error("%s", err);
		return rc == VMSG_ERR_TIMEDOUT ? EXIT_TIMEOUT
		       : rc == VMSG_ERR_PROTO  ? EXIT_FAULT
					       : EXIT_CONNECT;
	}
	session->bus = &session->client.amp.bus;
	session->arena = &session->client.arena;
	if (options->trace)
		session->bus->trace = trace;
	return 0;
}

void session_close(struct session *session)
{
	vmsg_amp_client_close(&session->client);
}

/* ---- Output ---- */

json_t *json_number(uint64_t number)
{
	return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
}

void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(json);
}

void progress_start(struct progress *progress, const char *verb, uint64_t total_bytes, bool wanted)
{
	progress->on = wanted && isatty(STDERR_FILENO);
	progress->verb = verb;
	progress->total = total_bytes ? total_bytes : 1;
	progress->started_us = vmsg_clock_us();
	progress->shown_us = 0;
}

#define BAR_MOST  30
#define BAR_LEAST 5
#define LINE_SIZE 160

/* The columns of the terminal, of which the last stays free lest it begin a new line. */
static size_t line_columns(void)
{
	struct winsize window;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col < 2)
		return 79;
	return window.ws_col < LINE_SIZE ? window.ws_col - 1u : LINE_SIZE - 1u;
}

static void draw(struct progress *progress, uint64_t bytes)
{
	double seconds = (double)(vmsg_clock_us() - progress->started_us) / 1e6;
	/* What the first moments show is no rate yet. */
	double rate = seconds > 0.05 || bytes >= progress->total ? (double)bytes / seconds : 0;
	unsigned int percent = (unsigned int)((double)bytes * 100 / (double)progress->total);
	char amount[32], speed[32], left[32] = "", bar[BAR_MOST + 4] = "", line[LINE_SIZE];
	size_t columns = line_columns(), used, width = 0;

	common_size_text(bytes, amount, sizeof(amount));
	common_size_text((uint64_t)rate, speed, sizeof(speed));
	if (rate > 0 && bytes < progress->total)
		snprintf(left, sizeof(left), "  %.0f s left",
			 (double)(progress->total - bytes) / rate);
	used = (size_t)snprintf(line, sizeof(line), "%s %3u%%  %s  %s/s%s", progress->verb, percent,
				amount, speed, left);
	if (used > columns)
		left[0] = 0;
	/* The bar gets what is left of the line; on a narrow terminal there is none. */
	if (used + BAR_LEAST + 3 <= columns)
		width = columns - used - 3 < BAR_MOST ? columns - used - 3 : BAR_MOST;
	if (width) {
		bar[0] = ' ';
		bar[1] = '[';
		for (size_t i = 0; i < width; i++)
			bar[i + 2] = i * 100 < percent * width ? '#' : '-';
		bar[width + 2] = ']';
	}
	snprintf(line, sizeof(line), "%s%s %3u%%  %s  %s/s%s", progress->verb, bar, percent, amount,
		 speed, left);
	fprintf(stderr, "\r%.*s\033[K", (int)columns, line);
}

void progress_show(struct progress *progress, uint64_t bytes)
{
	uint64_t now;

	if (!progress->on)
		return;
	now = vmsg_clock_us();
	if (now - progress->shown_us < 100000)
		return;
	progress->shown_us = now;
	draw(progress, bytes);
}

void progress_end(struct progress *progress, uint64_t bytes)
{
	if (!progress->on)
		return;
	draw(progress, bytes);
	fputc('\n', stderr);
}
