/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's parts. A device is what one --device asks for; an instance is that device for one
 * peer of its bus, a virtio device of its own. Without peers= there is one instance.
 *
 * vmsgd.c          the life of the daemon
 * vmsgd_options.c  command line            vmsgd_help.c     --help, --print-capabilities
 * vmsgd_config.c   configuration file      vmsgd_text.c     a device as text: its keys
 * vmsgd_bus.c      buses                   vmsgd_device.c   devices, from adding to removal
 * vmsgd_disk.c     blk                     vmsgd_entropy.c  rng
 * vmsgd_console.c  console                 vmsgd_control.c  control socket
 * vmsgd_command.c  its commands            vmsgd_stat.c     list and stat as JSON
 *
 * Functions with `err` (VMSG_ERR_TEXT bytes) write one line for people when they fail.
 */
#ifndef CMD_VMSGD_H
#define CMD_VMSGD_H

#include "common.h"
#include <jansson.h>
#include <vmsg/backend.h>
#include <vmsg/port.h>

struct daemon;
struct bus;
struct device;
struct instance;
struct client;
struct control;

/* ---- What to serve, as it was asked for ---- */

#define MAX_QUEUES     64u
#define MAX_QUEUE_SIZE 1024u

enum log_level {
	LOG_QUIET,   /* errors only */
	LOG_NORMAL,  /* what scripts wait for, and what people should know */
	LOG_VERBOSE, /* who comes and goes */
};

struct settings {
	char *control, *pidfile, *config;
	uint32_t spin_us;
	bool spin_given;
	enum log_level level;
	bool trace, check;
};

/* The keys of a device; each type uses some of them. */
struct device_options {
	char *bus;     /* its name; NULL: not given */
	int32_t num;   /* -1: the next one */
	uint32_t peer; /* 0: all of the bus */
	/* blk */
	char *path, *serial;
	const char *engine;
	bool read_only, direct, share;
	uint32_t queues, queue_size;
	/* console */
	bool pty, stdio, raw;
	char *link;
};

/* ---- Device types ---- */

struct device_type {
	const char *name;
	/* What does not depend on the bus, after all keys; then what does. */
	int (*check)(const struct device *device, char *err, size_t err_size);
	int (*check_bus)(const struct device *device, char *err, size_t err_size);
	/* A new instance with its backend open; it is not on a bus yet. */
	int (*open)(struct device *device, uint32_t peer, struct instance **instance, char *err,
		    size_t err_size);
	/* Fills in and initialises instance->device, whose mem and formats are set. */
	void (*init)(struct instance *instance);
	/*
	 * Looks after the backend, in every turn of the loop from init to close; true when it did
	 * something. May be NULL.
	 */
	bool (*poll)(struct instance *instance);
	/* Ends the model's I/O; true when none is left. Called until then. May be NULL. */
	bool (*stop)(struct instance *instance);
	/* Closes the backend; the device may still be on the bus, where nothing calls it. */
	void (*close)(struct instance *instance);
	/* After that, off the bus. */
	void (*free)(struct instance *instance);
	/* Takes the new size of the backend, growing it to *size first unless NULL. May be NULL. */
	int (*resize)(struct instance *instance, const uint64_t *size, char *err, size_t err_size);
	/* "disk.img, 64 MiB, read-only", for people. */
	void (*describe)(const struct instance *instance, char *text, size_t size);
	/* Adds what is special about it to an object. The first for list, all for stat. */
	void (*facts)(const struct instance *instance, json_t *object);
	void (*stat)(const struct instance *instance, json_t *object);
};

extern const struct device_type disk_type, entropy_type, console_type;

/* The types, a list that ends with NULL. */
extern const struct device_type *const device_types[];

/* ---- Buses (vmsgd_bus.c) ---- */

struct bus {
	struct bus *next;
	struct daemon *daemon;
	char *name;   /* its address's text up to the first comma, or that of its section */
	char *origin; /* where it was asked for, for error lines */
	struct vmsg_amp_address address;
	struct vmsg_amp_server server;
	bool open;
	uint32_t next_num; /* where to look for a free number */
	uint32_t connects;
};

/* Adds a bus. name NULL: called by its address. VMSG_ERR_INVAL. */
struct bus *bus_new(struct daemon *daemon, const char *origin, const char *name,
		    const char *address, char *err, size_t err_size);
/* By name, by address or by path; NULL. */
struct bus *bus_find(struct daemon *daemon, const char *name);
int bus_open(struct bus *bus, char *err, size_t err_size);
void bus_close(struct bus *bus);
void bus_free(struct bus *bus);
struct vmsg_bus *bus_of_peer(struct bus *bus, uint32_t peer);

/* ---- Devices (vmsgd_device.c) ---- */

enum device_state {
	DEVICE_WANTED,	 /* not open yet */
	DEVICE_OPEN,	 /* its backends are */
	DEVICE_SERVING,	 /* on its bus */
	DEVICE_STOPPING, /* waits for I/O in flight */
	DEVICE_LEAVING,	 /* closed; the drivers have still to be told */
};

/* First member of what a device type keeps per instance. */
struct instance {
	struct daemon *daemon; /* set by open, as the next one */
	struct vmsg_device *device;
	struct device *owner;
	uint32_t peer;
	bool stopped;
};

struct device {
	struct device *next;
	struct daemon *daemon;
	const struct device_type *type;
	struct device_options options;
	char *origin;		      /* where it was asked for, for error lines */
	char *name;		      /* of its section in a file; else NULL */
	uint32_t keys_given;	      /* bits, by place in the table of vmsgd_text.c */
	struct bus *bus, *bus_before; /* where it is; the bus that stood before it */
	uint16_t num;
	bool placed; /* bus and num are settled */
	enum device_state state;
	struct instance **instances;
	uint32_t instance_count;
	struct client *remover; /* waits for the removal */
};

/* A device of this type with default options, at the end of the list; and gone again. */
struct device *device_new(struct daemon *daemon, const struct device_type *type,
			  const char *origin);
void device_free(struct device *device);
/* Finds the bus, checks the options and gives it a number. Those with num= first. */
int device_place(struct device *device, char *err, size_t err_size);
/* From WANTED to OPEN, from OPEN to SERVING, and to STOPPING. */
int device_open(struct device *device, char *err, size_t err_size);
void device_serve(struct device *device);
void device_stop(struct device *device);
/* Moves a removal on; may free the device. True when something happened. */
bool device_step(struct device *device);
/* True when there is no I/O to wait for. */
bool device_stopped(const struct device *device);
/* Closes what is open, on the way out; it is on no bus any more. */
void device_close(struct device *device);
/* Does the device belong to this peer of its bus? */
bool device_serves_peer(const struct device *device, uint32_t peer);
/* The work of one turn. True when there was some. */
bool device_poll(struct device *device);

/* ---- Devices as text (vmsgd_text.c) ---- */

/* "blk,path=disk.img,ro": a new device in the daemon's list; NULL. */
struct device *device_parse(struct daemon *daemon, const char *origin, const char *text, char *err,
			    size_t err_size);
/* Sets one key. value NULL: the key alone. */
int device_set(struct device *device, const char *key, const char *value, char *err,
	       size_t err_size);
const struct device_type *device_type_find(const char *name, char *err, size_t err_size);
/* The n-th key of a type, or NULL: for --help and --print-capabilities. */
const char *device_key(const struct device_type *type, unsigned int n);
void device_options_free(struct device_options *options);

/* ---- Control socket (vmsgd_control.c, vmsgd_command.c, vmsgd_stat.c) ---- */

int control_open(struct daemon *daemon, const char *path, char *err, size_t err_size);
void control_close(struct daemon *daemon);
/* The device that a client waits for is gone. */
void control_removed(struct client *client);

/* Carries out a command; the answer, or NULL when it comes later. */
json_t *command_run(struct daemon *daemon, struct client *client, const char *line, size_t len);

json_t *stat_device(const struct device *device);
/* Of one bus, or of all: NULL. */
json_t *stat_devices(const struct daemon *daemon, const struct bus *bus);
json_t *stat_all(const struct daemon *daemon, const struct bus *bus);
json_t *stat_number(uint64_t number);
/* A string, whatever bytes are in it. */
json_t *stat_text(const char *text);

struct stat_entry {
	const char *name;
	uint64_t number;
};

void stat_add(json_t *object, const struct stat_entry *entries, size_t count);

/* ---- The daemon (vmsgd.c) ---- */

struct daemon {
	struct settings settings;
	struct vmsg_events events;
	struct bus *buses;
	struct device *devices;
	struct control *control;
	struct vmsg_poller poller;
	struct vmsg_timer tick, deadline;
	uint32_t window_changes; /* SIGWINCHs */
	bool stopping, pidfile_written;
	uint64_t started_us;
	int exit_code;
};

void daemon_stop(struct daemon *daemon);
/* Keeps the loop turning while devices are stopping. */
void daemon_tick(struct daemon *daemon);
void daemon_log(const struct daemon *daemon, enum log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* 0: go on. Otherwise the exit code plus one. */
int options_parse(struct daemon *daemon, int argc, char **argv);
int config_load(struct daemon *daemon, const char *path, char *err, size_t err_size);

void help_print(void);
void help_capabilities(void);

#endif
