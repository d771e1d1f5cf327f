/* SPDX-License-Identifier: BSD-3-Clause */
/* Buses: an address, a name to call it by, and the server of vmsg/linux.h behind it. */
#include "vmsgd.h"
#include <stdlib.h>
#include <string.h>

static char *copy_until(const char *text, char end)
{
	const char *stop = strchr(text, end);

	return stop ? strndup(text, (size_t)(stop - text)) : strdup(text);
}

struct bus *bus_new(struct daemon *daemon, const char *origin, const char *name,
		    const char *address, char *err, size_t err_size)
{
	struct bus **link = &daemon->buses;
	struct bus *bus = calloc(1, sizeof(*bus));

	if (!bus) {
		common_fail(err, err_size, 0, "out of memory");
		return NULL;
	}
	bus->daemon = daemon;
	bus->origin = strdup(origin);
	bus->name = name ? strdup(name) : copy_until(address, ',');
	if (!bus->name || !bus->origin) {
		common_fail(err, err_size, 0, "out of memory");
		bus_free(bus);
		return NULL;
	}
	if (vmsg_amp_parse(address, &bus->address, err, err_size) < 0) {
		bus_free(bus);
		return NULL;
	}
	for (; *link; link = &(*link)->next) {
		if (strcmp((*link)->name, bus->name) &&
		    strcmp((*link)->address.path, bus->address.path))
			continue;
		common_fail(err, err_size, 0, "there is already a bus %s at %s", (*link)->name,
			    (*link)->address.path);
		bus_free(bus);
		return NULL;
	}
	*link = bus;
	return bus;
}

struct bus *bus_find(struct daemon *daemon, const char *name)
{
	for (struct bus *bus = daemon->buses; bus; bus = bus->next) {
		if (!strcmp(bus->name, name) || !strcmp(bus->address.path, name))
			return bus;
		if (!strncmp(name, "amp:", 4) && !strcmp(bus->address.path, name + 4))
			return bus;
	}
	return NULL;
}

static void trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	const struct vmsg_amp_slot *slot = (const struct vmsg_amp_slot *)bus;
	const struct bus *owner = slot->server->user;
	char name[VMSG_PATH_BYTES + 16];

	if (owner->address.peers == 1)
		common_fail(name, sizeof(name), 0, "%s", owner->name);
	else
		common_fail(name, sizeof(name), 0, "%s#%u", owner->name, slot->index + 1);
	common_trace(name, (enum vmsg_dialect)bus->dialect, sent, buf, len);
}

static void connected(struct vmsg_amp_slot *slot)
{
	struct bus *bus = slot->server->user;

	bus->connects++;
	daemon_log(bus->daemon, LOG_VERBOSE, "%s: peer %u connected", bus->name, slot->index + 1);
}

static void disconnected(struct vmsg_amp_slot *slot)
{
	const struct bus *bus = slot->server->user;

	if (slot->memory.lost)
		daemon_log(bus->daemon, LOG_NORMAL,
			   "%s: the shared memory of peer %u was truncated; dropping the peer",
			   bus->name, slot->index + 1);
	daemon_log(bus->daemon, LOG_VERBOSE, "%s: peer %u left", bus->name, slot->index + 1);
}

int bus_open(struct bus *bus, char *err, size_t err_size)
{
	int rc;

	bus->server.connected = connected;
	bus->server.disconnected = disconnected;
	bus->server.user = bus;
	rc = vmsg_amp_server_open(&bus->server, &bus->daemon->events, &bus->address, err, err_size);
	if (rc < 0)
		return rc;
	bus->open = true;
	if (bus->daemon->settings.trace) {
		for (uint32_t i = 0; i < bus->server.slot_count; i++)
			bus->server.slots[i].amp.bus.trace = trace;
	}
	return 0;
}

void bus_close(struct bus *bus)
{
	if (bus->open)
		vmsg_amp_server_close(&bus->server);
	bus->open = false;
}

void bus_free(struct bus *bus)
{
	bus_close(bus);
	free(bus->name);
	free(bus->origin);
	free(bus);
}

struct vmsg_bus *bus_of_peer(struct bus *bus, uint32_t peer)
{
	return &bus->server.slots[peer - 1].amp.bus;
}
