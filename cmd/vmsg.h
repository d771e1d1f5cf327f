/* SPDX-License-Identifier: BSD-3-Clause */
/* What the subcommands of `vmsg` share: options, the connection, names, output. */
#ifndef CMD_VMSG_H
#define CMD_VMSG_H

#include <getopt.h>
#include <jansson.h>
#include <vmsg/driver.h>
#include <vmsg/linux.h>

#include "common.h"

/* Exit codes, for scripts. */
enum {
	EXIT_GOOD = 0,
	EXIT_FAULT = 1,	  /* the operation failed */
	EXIT_USAGE = 2,	  /* the command line */
	EXIT_CONNECT = 3, /* nobody serves the address, or no free place */
	EXIT_LOST = 4,	  /* the peer went away while it was used */
	EXIT_TIMEOUT = 5, /* it did not answer in time */
	EXIT_NODEV = 6,	  /* no such device, or not of this type */
};

struct command {
	const char *name;
	const char *arguments; /* after the name */
	const char *summary;   /* one line */
	const char *help;      /* the rest; options of its own */
	int (*run)(int argc, char **argv);
};

extern const struct command *const commands[];
extern const struct command command_list, command_info, command_ping, command_disk, command_entropy,
	command_console, command_ctl;

/* Options that every subcommand with an address takes. */
struct options {
	enum vmsg_dialect dialect;
	uint32_t timeout_ms;
	bool json, trace;
	/* Filled by options_parse(): what is left of the command line. */
	int argc;
	char **argv;
};

/*
 * Reads the common options and those of `own` (getopt_long; values of at least 256 are passed to
 * take(value, argument, user), which returns false when the argument is bad). --help ends the
 * program. 0, or EXIT_USAGE after a message; fewer than min or more than max arguments are refused.
 */
int options_parse(struct options *options, const struct command *command, int argc, char **argv,
		  const struct option *own, bool (*take)(int value, const char *text, void *user),
		  void *user, int min, int max);

/* Says what failed, and why, and returns the exit code for it. */
__attribute__((format(printf, 2, 3))) int failed(int error, const char *format, ...);

/*
 * The same for a device that was to be used as a `wanted` (NULL: as any): says when it is of
 * another type, or when there is none of that number.
 */
struct session;
int device_failed(struct session *session, const struct vmsg_driver *driver, const char *wanted,
		  int error);

/*
 * From the first on, SIGINT and SIGTERM only make interrupted() true, and system calls return
 * early; a second one ends the program. The last ends it as the signal would have, if there was
 * one.
 */
void interrupts_catch(void);
bool interrupted(void);
void interrupts_end(void);

/* A number as JSON, which here ends at 2^63. */
json_t *json_number(uint64_t number);

/* Numbers: decimal or 0x; sizes with K, M, G, T. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);
bool parse_size(const char *text, uint64_t *bytes);
/* A device number, or says why not. */
bool parse_device(const char *text, uint16_t *dev_num);

/* A connection to an address; `bus` and `arena` are what the rest works with, whatever the bus. */
struct session {
	struct vmsg_amp_client client;
	struct vmsg_bus *bus;
	struct vmsg_arena *arena;
	const char *address;
};

/* 0 or an exit code, after a message. Close it in both cases. */
int session_open(struct session *session, const struct options *options, const char *address);
void session_close(struct session *session);

/* Names, NULL when not known. */
const char *device_type_name(uint32_t device_id);
const char *feature_name(uint32_t device_id, uint32_t bit);
/* "0x554d4551" and the letters, if they are any. */
void vendor_text(uint32_t vendor_id, char text[32]);
void uuid_text(const uint8_t uuid[16], char text[40]);
bool uuid_is_nil(const uint8_t uuid[16]);

/* Prints JSON with a final newline and drops it. */
void print_json(json_t *json);

/* Progress on a terminal: a bar on standard error, at most ten times a second. */
struct progress {
	bool on;
	uint64_t total, started_us, shown_us;
	const char *verb;
};
void progress_start(struct progress *progress, const char *verb, uint64_t total_bytes, bool wanted);
void progress_show(struct progress *progress, uint64_t bytes);
void progress_end(struct progress *progress, uint64_t bytes);

#endif
