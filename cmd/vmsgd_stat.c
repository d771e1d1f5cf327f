/* SPDX-License-Identifier: BSD-3-Clause */
/* What the daemon knows about itself, as JSON. */
#include "vmsgd.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

json_t *stat_number(uint64_t number)
{
	/* Nothing we count gets near the end of what JSON libraries hold. */
	return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
}

json_t *stat_text(const char *text)
{
	json_t *string = json_string(text);
	char safe[1024];
	size_t i;

	if (string)
		return string;
	/* Not UTF-8: a file name may hold anything, JSON may not. */
	for (i = 0; text[i] && i < sizeof(safe) - 1; i++)
		safe[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	safe[i] = 0;
	return json_string(safe);
}

void stat_add(json_t *object, const struct stat_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		json_object_set_new(object, entries[i].name, stat_number(entries[i].number));
}

#define ADD(object, entries) stat_add(object, entries, sizeof(entries) / sizeof(entries[0]))

/* ---- Devices ---- */

json_t *stat_device(const struct device *device)
{
	static const char *const states[] = {
		[DEVICE_WANTED] = "wanted",    [DEVICE_OPEN] = "open",
		[DEVICE_SERVING] = "serving",  [DEVICE_STOPPING] = "removing",
		[DEVICE_LEAVING] = "removing",
	};
	json_t *object = json_object(), *peers = json_array();

	json_object_set_new(object, "bus", stat_text(device->bus->name));
	json_object_set_new(object, "num", stat_number(device->num));
	if (device->name)
		json_object_set_new(object, "name", stat_text(device->name));
	json_object_set_new(object, "type", json_string(device->type->name));
	json_object_set_new(object, "state", json_string(states[device->state]));
	for (uint32_t i = 0; i < device->instance_count; i++)
		json_array_append_new(peers, stat_number(device->instances[i]->peer));
	json_object_set_new(object, "peers", peers);
	if (device->instance_count && device->state != DEVICE_LEAVING)
		device->type->facts(device->instances[0], object);
	return object;
}

/* A device that has left the bus is no news, though drivers may still have to hear of it. */
static bool is_listed(const struct device *device, const struct bus *bus)
{
	return (device->state == DEVICE_SERVING || device->state == DEVICE_STOPPING) &&
	       (!bus || device->bus == bus);
}

json_t *stat_devices(const struct daemon *daemon, const struct bus *bus)
{
	json_t *devices = json_array();

	for (const struct device *device = daemon->devices; device; device = device->next) {
		if (is_listed(device, bus))
			json_array_append_new(devices, stat_device(device));
	}
	return devices;
}

static json_t *status_names(uint8_t status)
{
	static const struct {
		uint8_t bit;
		const char *name;
	} names[] = {
		{ VMSG_STATUS_ACKNOWLEDGE, "ACKNOWLEDGE" }, { VMSG_STATUS_DRIVER, "DRIVER" },
		{ VMSG_STATUS_FEATURES_OK, "FEATURES_OK" }, { VMSG_STATUS_DRIVER_OK, "DRIVER_OK" },
		{ VMSG_STATUS_NEEDS_RESET, "NEEDS_RESET" }, { VMSG_STATUS_FAILED, "FAILED" },
	};
	json_t *array = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (status & names[i].bit)
			json_array_append_new(array, json_string(names[i].name));
	}
	return array;
}

static json_t *stat_queue(const struct vmsg_vq_device *vq)
{
	json_t *object = json_object();

	json_object_set_new(object, "max_size", stat_number(vq->max_size));
	json_object_set_new(object, "size", stat_number(vq->size));
	json_object_set_new(object, "enabled", json_boolean(vq->enabled));
	json_object_set_new(object, "broken", json_boolean(vq->broken));
	json_object_set_new(object, "in_flight", stat_number(vq->in_flight));
	return object;
}

static json_t *stat_instance(const struct instance *instance)
{
	const struct vmsg_device *device = instance->device;
	const struct vmsg_device_counters *counters = &device->counters;
	const struct stat_entry entries[] = {
		{ "peer", instance->peer },
		{ "generation", device->generation },
		{ "kicks", counters->kicks },
		{ "used_notifications", counters->used_notifications },
		{ "config_events", counters->config_events },
		{ "resets", counters->resets },
		{ "refused_requests", counters->refused },
		{ "needs_reset", counters->needs_reset },
		{ "early_kicks", counters->early_kicks },
	};
	json_t *object = json_object(), *queues = json_array();
	char features[24];

	ADD(object, entries);
	snprintf(features, sizeof(features), "0x%" PRIx64, device->features);
	json_object_set_new(object, "features", json_string(features));
	json_object_set_new(object, "status", status_names(device->status));
	for (uint32_t i = 0; i < device->vq_count; i++)
		json_array_append_new(queues, stat_queue(&device->vqs[i]));
	json_object_set_new(object, "queues", queues);
	instance->owner->type->stat(instance, object);
	return object;
}

static json_t *stat_served(const struct device *device)
{
	json_t *object = stat_device(device), *instances = json_array();

	for (uint32_t i = 0; i < device->instance_count; i++)
		json_array_append_new(instances, stat_instance(device->instances[i]));
	json_object_set_new(object, "instances", instances);
	return object;
}

/* ---- Buses ---- */

static void stat_bus_counters(const struct vmsg_bus_counters *counters, json_t *object)
{
	const struct stat_entry entries[] = {
		{ "received", counters->received },
		{ "sent", counters->sent },
		{ "malformed", counters->malformed },
		{ "unknown", counters->unknown },
		{ "no_device", counters->no_device },
		{ "stray", counters->stray },
		{ "held", counters->held },
		{ "pings_dropped", counters->pings_dropped },
		{ "events_delayed", counters->events_delayed },
		{ "send_failed", counters->send_failed },
	};

	ADD(object, entries);
}

static void stat_amp_counters(const struct vmsg_amp_counters *counters, json_t *object)
{
	const struct stat_entry entries[] = {
		{ "restarts", counters->restarts },
		{ "bad_index", counters->bad_index },
		{ "bad_layout", counters->bad_layout },
		{ "repaired", counters->repaired },
		{ "doorbells", counters->doorbells },
		{ "doorbells_masked", counters->doorbells_masked },
		{ "coalesced", counters->coalesced },
		{ "full", counters->full },
	};

	ADD(object, entries);
}

static json_t *stat_peer(const struct bus *bus, uint32_t index)
{
	static const char *const states[] = { "INIT", "READY", "RUN", "SHUTDOWN", "PEER_DEAD" };
	const struct vmsg_amp_slot *slot = &bus->server.slots[index];
	json_t *object = json_object();
	int pid = bus->server.ivshmem.slots[index].pid;

	json_object_set_new(object, "peer", stat_number(index + 1));
	json_object_set_new(object, "connected", json_boolean(slot->connected));
	if (slot->connected && pid > 0)
		json_object_set_new(object, "pid", stat_number((uint64_t)pid));
	json_object_set_new(object, "up", json_boolean(slot->amp.up));
	json_object_set_new(object, "state", json_string(states[slot->amp.state]));
	stat_bus_counters(&slot->amp.bus.counters, object);
	stat_amp_counters(&slot->amp.counters, object);
	return object;
}

static json_t *stat_bus(const struct bus *bus)
{
	const struct vmsg_ivshmem_counters *counters = &bus->server.ivshmem.counters;
	const struct stat_entry entries[] = {
		{ "size", bus->server.address.size_bytes }, { "connects", bus->connects },
		{ "accepted", counters->accepted },	    { "refused", counters->refused },
		{ "garbage", counters->garbage },	    { "silent", counters->silent },
		{ "no_resources", counters->no_resources }, { "hostile", counters->hostile },
	};
	json_t *object = json_object(), *peers = json_array();

	json_object_set_new(object, "name", stat_text(bus->name));
	json_object_set_new(object, "path", stat_text(bus->address.path));
	json_object_set_new(object, "layout", json_string(bus->server.address.format->name));
	json_object_set_new(object, "dialect",
			    json_string(vmsg_dialect_name(bus->server.address.dialect)));
	ADD(object, entries);
	for (uint32_t i = 0; i < bus->server.slot_count; i++)
		json_array_append_new(peers, stat_peer(bus, i));
	json_object_set_new(object, "peers", peers);
	return object;
}

/* ---- All ---- */

static json_t *stat_daemon(const struct daemon *daemon)
{
	const struct stat_entry entries[] = {
		{ "pid", (uint64_t)getpid() },
		{ "uptime_ms", (vmsg_clock_us() - daemon->started_us) / 1000u },
		{ "wakes", daemon->events.wakes },
	};
	json_t *object = json_object();

	json_object_set_new(object, "version", json_string(VMSG_PROGRAM_VERSION));
	ADD(object, entries);
	if (daemon->settings.spin_us == VMSG_SPIN_ALWAYS)
		json_object_set_new(object, "poll", json_string("always"));
	else if (daemon->settings.spin_us == VMSG_SPIN_NEVER)
		json_object_set_new(object, "poll", json_string("never"));
	else
		json_object_set_new(object, "poll", stat_number(daemon->settings.spin_us));
	return object;
}

json_t *stat_all(const struct daemon *daemon, const struct bus *only)
{
	json_t *buses = json_array(), *devices = json_array();

	for (const struct bus *bus = daemon->buses; bus; bus = bus->next) {
		if (!only || bus == only)
			json_array_append_new(buses, stat_bus(bus));
	}
	for (const struct device *device = daemon->devices; device; device = device->next) {
		if (is_listed(device, only))
			json_array_append_new(devices, stat_served(device));
	}
	return json_pack("{s:b, s:o, s:o, s:o}", "ok", 1, "daemon", stat_daemon(daemon), "buses",
			 buses, "devices", devices);
}
