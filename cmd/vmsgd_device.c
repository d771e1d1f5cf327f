/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices from adding to removal. A removal takes several turns of the loop: the model's I/O ends
 * (STOPPING), the device leaves the bus and its backend is closed, and the struct lives on until
 * every driver side was told (LEAVING).
 */
#include "vmsgd.h"
#include <stdlib.h>
#include <string.h>

#define NUMBERS 256u /* those handed out; more can be asked for by num= */

#define VENDOR_ID 0x67736d76u /* "vmsg" */

struct device *device_new(struct daemon *daemon, const struct device_type *type, const char *origin)
{
	struct device **link = &daemon->devices;
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->origin = strdup(origin);
	if (!device->origin) {
		free(device);
		return NULL;
	}
	device->daemon = daemon;
	device->type = type;
	device->options.num = -1;
	device->options.queues = 1;
	device->options.queue_size = 128;
	while (*link)
		link = &(*link)->next;
	*link = device;
	return device;
}

/* On no bus any more. */
void device_free(struct device *device)
{
	struct device **link = &device->daemon->devices;

	while (*link != device)
		link = &(*link)->next;
	*link = device->next;
	device_close(device);
	for (uint32_t i = 0; i < device->instance_count; i++)
		device->type->free(device->instances[i]);
	free(device->instances);
	device_options_free(&device->options);
	free(device->origin);
	free(device->name);
	free(device);
}

/* ---- Its place: bus and number ---- */

bool device_serves_peer(const struct device *device, uint32_t peer)
{
	return !device->options.peer || device->options.peer == peer;
}

static int find_bus(struct device *device, char *err, size_t err_size)
{
	struct daemon *daemon = device->daemon;

	if (device->options.bus) {
		device->bus = bus_find(daemon, device->options.bus);
		if (!device->bus)
			return common_fail(err, err_size, VMSG_ERR_INVAL,
					   "there is no bus '%.100s'; the first one is %.100s",
					   device->options.bus,
					   daemon->buses ? daemon->buses->name : "missing, too");
		return 0;
	}
	device->bus = device->bus_before ? device->bus_before : daemon->buses;
	if (!device->bus)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "there is no bus; add one, as in --bus amp:/tmp/vmsg.sock");
	if (!device->bus_before && daemon->buses->next)
		return common_fail(
			err, err_size, VMSG_ERR_INVAL,
			"on which bus? Put it behind its --bus or add bus=, as in bus=%.100s",
			daemon->buses->name);
	return 0;
}

static bool number_taken(const struct device *device, uint32_t num)
{
	const struct device *other = device->daemon->devices;

	for (; other; other = other->next) {
		if (other == device || other->bus != device->bus || !other->placed ||
		    other->num != num)
			continue;
		if (!other->options.peer || !device->options.peer ||
		    other->options.peer == device->options.peer)
			return true;
	}
	return false;
}

/* The next free number after the last one handed out: one that was given back rests. */
static int next_number(struct device *device, char *err, size_t err_size)
{
	struct bus *bus = device->bus;

	for (uint32_t i = 0; i < NUMBERS; i++) {
		uint32_t num = (bus->next_num + i) % NUMBERS;

		if (number_taken(device, num))
			continue;
		device->num = (uint16_t)num;
		bus->next_num = (num + 1) % NUMBERS;
		return 0;
	}
	return common_fail(err, err_size, VMSG_ERR_BUSY,
			   "%s: the numbers 0 to %u are taken; num= takes a higher one", bus->name,
			   NUMBERS - 1);
}

static int find_number(struct device *device, char *err, size_t err_size)
{
	if (device->options.num < 0)
		return next_number(device, err, err_size);
	device->num = (uint16_t)device->options.num;
	if (number_taken(device, device->num))
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "num=%u is taken by another device on %s", device->num,
				   device->bus->name);
	return 0;
}

int device_place(struct device *device, char *err, size_t err_size)
{
	uint32_t peers;
	int rc = device->type->check(device, err, err_size);

	if (rc == 0)
		rc = find_bus(device, err, err_size);
	if (rc < 0)
		return rc;
	peers = device->bus->address.peers;
	if (device->options.peer > peers)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "peer=%u is not on %s, which has peers=%u", device->options.peer,
				   device->bus->name, peers);
	if (peers > 1 && !device->options.peer && device->type->check_bus)
		rc = device->type->check_bus(device, err, err_size);
	if (rc == 0)
		rc = find_number(device, err, err_size);
	device->placed = rc == 0;
	return rc;
}

/* ---- Opening and serving ---- */

int device_open(struct device *device, char *err, size_t err_size)
{
	uint32_t only = device->options.peer, peers = only ? 1 : device->bus->address.peers;

	device->instances = calloc(peers, sizeof(struct instance *));
	if (!device->instances)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	device->state = DEVICE_OPEN;
	for (uint32_t i = 0; i < peers; i++) {
		struct instance *instance = NULL;
		uint32_t peer = only ? only : i + 1;
		int rc = device->type->open(device, peer, &instance, err, err_size);

		if (rc < 0)
			return rc;
		instance->owner = device;
		instance->peer = peer;
		device->instances[device->instance_count++] = instance;
	}
	return 0;
}

void device_serve(struct device *device)
{
	struct bus *bus = device->bus;

	for (uint32_t i = 0; i < device->instance_count; i++) {
		struct instance *instance = device->instances[i];
		int rc;

		instance->device->mem = &bus->server.slots[instance->peer - 1].mem;
		instance->device->vendor_id = VENDOR_ID;
		instance->device->split = &vmsg_vq_split_device;
		instance->device->packed = &vmsg_vq_packed_device;
		device->type->init(instance);
		rc = vmsg_bus_add(bus_of_peer(bus, instance->peer), instance->device, device->num);
		/* The number is free: a former owner is off the bus before it is off our list. */
		VMSG_ASSERT(rc == 0);
	}
	device->state = DEVICE_SERVING;
}

void device_close(struct device *device)
{
	if (device->state == DEVICE_WANTED || device->state == DEVICE_LEAVING)
		return;
	for (uint32_t i = 0; i < device->instance_count; i++)
		device->type->close(device->instances[i]);
	device->state = DEVICE_LEAVING;
}

/* ---- Removal ---- */

void device_stop(struct device *device)
{
	if (device->state != DEVICE_SERVING)
		return;
	device->state = DEVICE_STOPPING;
	daemon_tick(device->daemon);
}

static bool all_stopped(const struct device *device)
{
	bool all = true;

	for (uint32_t i = 0; i < device->instance_count; i++) {
		struct instance *instance = device->instances[i];

		if (!instance->stopped)
			instance->stopped = !device->type->stop || device->type->stop(instance);
		all = all && instance->stopped;
	}
	return all;
}

bool device_stopped(const struct device *device)
{
	return device->state != DEVICE_STOPPING || all_stopped(device);
}

static bool all_told(const struct device *device)
{
	for (uint32_t i = 0; i < device->instance_count; i++) {
		struct vmsg_bus *bus = device->instances[i]->device->bus;

		if (bus)
			vmsg_bus_flush(bus);
		if (device->instances[i]->device->bus)
			return false;
	}
	return true;
}

bool device_step(struct device *device)
{
	if (device->state == DEVICE_STOPPING) {
		if (!all_stopped(device))
			return false;
		for (uint32_t i = 0; i < device->instance_count; i++)
			vmsg_bus_remove(device->instances[i]->device->bus,
					device->instances[i]->device);
		device_close(device);
		daemon_log(device->daemon, LOG_VERBOSE, "%s: device %u removed", device->bus->name,
			   device->num);
		if (device->remover)
			control_removed(device->remover);
		device->remover = NULL;
		return true;
	}
	if (device->state != DEVICE_LEAVING || !all_told(device))
		return false;
	device_free(device);
	return true;
}

/* ---- The work of every turn ---- */

bool device_poll(struct device *device)
{
	bool worked = false;

	if (!device->type->poll || device->state < DEVICE_SERVING ||
	    device->state == DEVICE_LEAVING)
		return false;
	for (uint32_t i = 0; i < device->instance_count; i++)
		worked |= device->type->poll(device->instances[i]);
	return worked;
}
