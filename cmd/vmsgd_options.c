/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line. */
#include "vmsgd.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPTION_CONTROL = 256,
	OPTION_POLL,
	OPTION_CHECK,
	OPTION_PIDFILE,
	OPTION_TRACE,
	OPTION_CAPABILITIES,
};

static const struct option known[] = {
	{ "bus", required_argument, NULL, 'b' },
	{ "device", required_argument, NULL, 'd' },
	{ "config", required_argument, NULL, 'c' },
	{ "control", required_argument, NULL, OPTION_CONTROL },
	{ "poll", required_argument, NULL, OPTION_POLL },
	{ "check", no_argument, NULL, OPTION_CHECK },
	{ "pidfile", required_argument, NULL, OPTION_PIDFILE },
	{ "trace", no_argument, NULL, OPTION_TRACE },
	{ "quiet", no_argument, NULL, 'q' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "print-capabilities", no_argument, NULL, OPTION_CAPABILITIES },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

#define GO_ON	   0
#define EXIT(code) ((code) + 1)

static int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	common_verror(format, args);
	va_end(args);
	return EXIT(COMMON_EXIT_USAGE);
}

static int set_text(char **text, const char *option, const char *value)
{
	if (*text)
		return usage_error("--%s is given twice", option);
	if (!value[0])
		return usage_error("--%s needs a path", option);
	*text = strdup(value);
	return *text ? GO_ON : usage_error("out of memory");
}

/* ---- Buses and devices, in their order ---- */

static int add_bus(struct daemon *daemon, const char *text, struct bus **last)
{
	char err[VMSG_ERR_TEXT], origin[VMSG_ERR_TEXT];

	snprintf(origin, sizeof(origin), "--bus %s", text);
	*last = bus_new(daemon, origin, NULL, text, err, sizeof(err));
	return *last ? GO_ON : usage_error("--bus %s: %s", text, err);
}

static int add_device(struct daemon *daemon, const char *text, struct bus *last)
{
	char err[VMSG_ERR_TEXT], origin[VMSG_ERR_TEXT];
	struct device *device;

	snprintf(origin, sizeof(origin), "--device %s", text);
	device = device_parse(daemon, origin, text, err, sizeof(err));
	if (!device)
		return usage_error("--device %s: %s", text, err);
	device->bus_before = last;
	return GO_ON;
}

static int set_poll(struct settings *settings, const char *text)
{
	char err[VMSG_ERR_TEXT];

	if (common_parse_spin(text, "--poll", &settings->spin_us, err, sizeof(err)) < 0)
		return usage_error("%s", err);
	settings->spin_given = true;
	return GO_ON;
}

/* ---- The walk over the options ---- */

static int print_and_exit(int option)
{
	if (option == 'h')
		help_print();
	else if (option == 'V')
		printf("vmsgd %s\n", VMSG_PROGRAM_VERSION);
	else
		help_capabilities();
	if (fflush(stdout) || ferror(stdout)) {
		common_error("cannot write to standard output: %s", strerror(errno));
		return EXIT(COMMON_EXIT_FAILED);
	}
	return EXIT(0);
}

static int set_switch(struct settings *settings, int option)
{
	switch (option) {
	case 'q':
		settings->level = LOG_QUIET;
		break;
	case 'v':
		settings->level = LOG_VERBOSE;
		break;
	case OPTION_CHECK:
		settings->check = true;
		break;
	default:
		settings->trace = true;
		break;
	}
	return GO_ON;
}

static int take(struct daemon *daemon, int option, const char *word, struct bus **last)
{
	struct settings *settings = &daemon->settings;

	switch (option) {
	case 'b':
		return add_bus(daemon, optarg, last);
	case 'd':
		return add_device(daemon, optarg, *last);
	case 'c':
		return set_text(&settings->config, "config", optarg);
	case OPTION_CONTROL:
		return set_text(&settings->control, "control", optarg);
	case OPTION_PIDFILE:
		return set_text(&settings->pidfile, "pidfile", optarg);
	case OPTION_POLL:
		return set_poll(settings, optarg);
	case 'h':
	case 'V':
	case OPTION_CAPABILITIES:
		return print_and_exit(option);
	case ':':
		return usage_error("%s needs a value; see --help", word);
	case '?':
		return usage_error("unknown option '%s'; see --help", word);
	default:
		return set_switch(settings, option);
	}
}

static int finish(struct daemon *daemon, int argc, char **argv)
{
	char err[VMSG_ERR_TEXT];
	int rc;

	if (optind < argc)
		return usage_error("'%s' is not an option; see --help", argv[optind]);
	if (daemon->settings.config) {
		rc = config_load(daemon, daemon->settings.config, err, sizeof(err));
		if (rc < 0)
			return usage_error("%s", err);
	}
	if (!daemon->buses && !daemon->devices)
		return usage_error("nothing to serve: give --bus and --device, or --config; "
				   "see --help");
	return GO_ON;
}

int options_parse(struct daemon *daemon, int argc, char **argv)
{
	struct bus *last = NULL;
	int option, rc;

	daemon->settings.level = LOG_NORMAL;
	daemon->settings.spin_us = VMSG_SPIN_DEFAULT;
	opterr = 0;
	for (;;) {
		/* The word to name if getopt refuses it. */
		const char *word = optind < argc ? argv[optind] : "";

		option = getopt_long(argc, argv, ":b:d:c:qvhV", known, NULL);
		if (option < 0)
			return finish(daemon, argc, argv);
		rc = take(daemon, option, word, &last);
		if (rc != GO_ON)
			return rc;
	}
}
