/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device side of an AMP bus on Linux: an ivshmem server whose slots each have memory, a bus and
 * their devices.
 *
 * A slot's life: laid out and free; a client connects, and the two queue heads start up
 * (bus/amp*.c); the client goes, its devices are reset, and when the last of them has stopped using
 * the memory, the memory is cleared and laid out anew. Until then the slot is on hold: who connects
 * waits.
 *
 * Work is done in the loop's turns, not in the callbacks of descriptors: a doorbell only says that
 * a look is due. So one peer's flood cannot keep the others from their turn.
 */
#include "private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <vmsg/device.h>
#include <vmsg/port.h>

#define TICK_MS    50   /* states come without a doorbell, and doorbells may be lost */
#define COLD_LOOKS 4096 /* looks without progress until a device is left to its kicks */
#define CLOSE_MS   5000 /* I/O in flight has this long to end */

/* A number that moves when a queue of the device does. */
static uint32_t progress_of(const struct vmsg_device *device)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < device->vq_count; i++)
		sum += device->vqs[i].avail_idx;
	return sum;
}

static void want_kicks(struct vmsg_device *device, bool on)
{
	for (uint32_t i = 0; i < device->vq_count; i++) {
		if (device->vqs[i].kicks_wanted != on)
			vmsg_vq_want_kicks(&device->vqs[i], on);
	}
}

/* ---- Hot devices, while the loop spins ---- */

/* Looks at a hot device. True when it did something. */
static bool poll_hot(struct vmsg_amp_hot *hot)
{
	uint32_t progress;

	/* Queues that came up since, or were reset, ask for kicks by default. */
	want_kicks(hot->device, false);
	vmsg_device_poll(hot->device);
	progress = progress_of(hot->device);
	if (progress != hot->progress) {
		hot->progress = progress;
		hot->idle = 0;
		return true;
	}
	if (++hot->idle >= COLD_LOOKS) {
		hot->hot = false;
		want_kicks(hot->device, true);
		/* What came before kicks were wanted again. */
		vmsg_device_poll(hot->device);
	}
	return false;
}

static struct vmsg_amp_hot *hot_entry(struct vmsg_amp_slot *slot, uint32_t index,
				      struct vmsg_device *device)
{
	struct vmsg_amp_hot *hot;

	if (index >= VMSG_AMP_HOT)
		return NULL;
	hot = &slot->hot[index];
	/* The place in the list was another's; that one, if it still exists, is found cold. */
	if (hot->device != device) {
		*hot = (struct vmsg_amp_hot){ .device = device };
		hot->progress = progress_of(device);
		if (vmsg_device_live(device))
			want_kicks(device, true);
	}
	return hot;
}

/* After every look at the queue and its events: whose queues moved is hot from now on. */
static bool poll_devices(struct vmsg_amp_slot *slot, bool all)
{
	struct vmsg_device *device = slot->amp.bus.devices, *next;
	bool spinning = slot->server->spinning, worked = false;

	for (uint32_t i = 0; device; i++, device = next) {
		struct vmsg_amp_hot *hot = hot_entry(slot, i, device);
		uint32_t before = progress_of(device);

		next = device->next;
		if (device->more || all) {
			worked = worked || device->more;
			device->more = false;
			vmsg_device_poll(device);
		} else if (hot && hot->hot) {
			worked |= poll_hot(hot);
		}
		worked = worked || progress_of(device) != before;
		if (!hot || hot->hot || progress_of(device) == hot->progress)
			continue;
		hot->progress = progress_of(device);
		hot->idle = 0;
		hot->hot = spinning && vmsg_device_live(device);
	}
	return worked;
}

static void cool(struct vmsg_amp_slot *slot)
{
	struct vmsg_device *device = slot->amp.bus.devices;

	for (uint32_t i = 0; device && i < VMSG_AMP_HOT; i++, device = device->next) {
		struct vmsg_amp_hot *hot = hot_entry(slot, i, device);

		if (hot->hot)
			want_kicks(device, true);
		hot->hot = false;
	}
}

/* ---- A slot in the loop ---- */

static bool poll_slot(struct vmsg_amp_slot *slot)
{
	struct vmsg_amp *amp = &slot->amp;
	bool all = slot->look_all;
	uint32_t done = 0;

	amp->bus.now_ms = slot->server->events->now_ms;
	/* While it starts up or waits for devices, everything that wakes the loop may matter. */
	if (slot->server->spinning || slot->look || !amp->up || amp->bus.pending)
		done = vmsg_amp_poll(amp);
	slot->look = done > 0;
	slot->look_all = false;
	return poll_devices(slot, all) || done;
}

static bool still_busy(const struct vmsg_amp_slot *slot)
{
	const struct vmsg_device *device;

	for (device = slot->amp.bus.devices; device; device = device->next) {
		if (device->resetting)
			return true;
	}
	return false;
}

static uint32_t area_bytes(const struct vmsg_amp_address *address)
{
	if (address->format == &vmsg_amp_spsc)
		return VMSG_AMP_SPSC_BYTES;
	return vmsg_amp_layout_bytes(address->element_bytes, address->element_count, address->words,
				     address->masks);
}

/* Writes the queue area for whoever comes next. What is set in amp stays. */
static int lay_out(struct vmsg_amp_slot *slot)
{
	const struct vmsg_amp_address *address = &slot->server->address;
	struct vmsg_amp_counters counters = slot->amp.counters;
	bool file = slot->index == 0 && address->file[0];
	int rc;

	/* A file may be the memory of a machine: then only the queue area is ours to clear. */
	vmsg_shared_clear(&slot->memory, file ? area_bytes(address) : slot->memory.len_bytes);
	slot->amp.element_bytes = address->element_bytes;
	slot->amp.element_count = address->element_count;
	slot->amp.words = address->words;
	slot->amp.bits_per_device = address->bits_per_device;
	slot->amp.masks = address->masks;
	slot->amp.bus.now_ms = slot->server->events->now_ms;
	rc = vmsg_amp_open_device(&slot->amp, address->dialect,
				  address->strict ? 1u << VMSG_F_STRICT_CONFIG_GENERATION : 0);
	slot->amp.counters = counters;
	return rc;
}

/* Ends a client's stay once no device touches the memory any more. */
static bool clean(struct vmsg_amp_slot *slot)
{
	int rc;

	if (still_busy(slot) || vmsg_shared_restore(&slot->memory) < 0)
		return false;
	rc = lay_out(slot);
	VMSG_ASSERT(rc == 0); /* the same numbers were good at the start */
	slot->cleaning = false;
	vmsg_ivshmem_hold(&slot->server->places[slot->index], false);
	return true;
}

/* The memory was truncated: what this client sees is not what we see. */
static void give_up(struct vmsg_amp_slot *slot)
{
	if (slot->connected) {
		vmsg_ivshmem_drop(&slot->server->places[slot->index]);
		return;
	}
	slot->cleaning = true;
	vmsg_ivshmem_hold(&slot->server->places[slot->index], true);
}

static bool poll_server(struct vmsg_poller *poller)
{
	struct vmsg_amp_server *server = poller->user;
	bool worked = false;

	for (uint32_t i = 0; i < server->slot_count; i++) {
		struct vmsg_amp_slot *slot = &server->slots[i];

		if (slot->memory.lost && !slot->cleaning)
			give_up(slot);
		if (slot->cleaning)
			worked |= clean(slot);
		else if (slot->connected)
			worked |= poll_slot(slot);
	}
	return worked;
}

static bool doze_slot(struct vmsg_amp_slot *slot, bool on)
{
	vmsg_amp_want_doorbells(&slot->amp, on);
	if (!on)
		return false;
	cool(slot);
	/* From here on everything rings; this finds what came before. */
	slot->look = slot->look_all = true;
	return poll_slot(slot);
}

static bool doze_server(struct vmsg_poller *poller, bool on)
{
	struct vmsg_amp_server *server = poller->user;
	bool work = false;

	server->spinning = !on;
	for (uint32_t i = 0; i < server->slot_count; i++) {
		if (server->slots[i].connected)
			work |= doze_slot(&server->slots[i], on);
	}
	return work;
}

static void on_tick(struct vmsg_timer *timer)
{
	struct vmsg_amp_server *server = timer->user;

	for (uint32_t i = 0; i < server->slot_count; i++)
		server->slots[i].look = server->slots[i].look_all = true;
}

/* ---- Clients ---- */

static void ring(struct vmsg_amp *amp)
{
	struct vmsg_amp_slot *slot = (struct vmsg_amp_slot *)amp;

	vmsg_ivshmem_ring_slot(&slot->server->places[slot->index]);
}

static void on_connected(struct vmsg_ivshmem_slot *place)
{
	struct vmsg_amp_server *server = place->server->user;
	struct vmsg_amp_slot *slot = &server->slots[place->index];

	slot->connected = slot->look = true;
	if (server->spinning)
		vmsg_amp_want_doorbells(&slot->amp, false);
	if (!server->tick.armed)
		vmsg_events_start_timer(server->events, &server->tick, TICK_MS, TICK_MS);
	if (server->connected)
		server->connected(slot);
}

static void on_doorbell(struct vmsg_ivshmem_slot *place)
{
	struct vmsg_amp_server *server = place->server->user;

	server->slots[place->index].look = true;
}

static void on_disconnected(struct vmsg_ivshmem_slot *place)
{
	struct vmsg_amp_server *server = place->server->user;
	struct vmsg_amp_slot *slot = &server->slots[place->index];
	bool any = false;

	slot->connected = false;
	slot->amp.bus.now_ms = server->events->now_ms;
	vmsg_amp_peer_lost(&slot->amp);
	slot->cleaning = true;
	vmsg_ivshmem_hold(place, true);
	for (uint32_t i = 0; i < server->slot_count; i++)
		any |= server->slots[i].connected;
	if (!any)
		vmsg_events_stop_timer(server->events, &server->tick);
	if (server->disconnected)
		server->disconnected(slot);
}

/* ---- Start and end ---- */

static int make_memory(struct vmsg_amp_slot *slot, char *err, size_t err_size)
{
	const struct vmsg_amp_address *address = &slot->server->address;
	int rc;

	if (slot->index == 0 && address->file[0])
		rc = vmsg_shared_open(&slot->memory, address->file, address->size_bytes,
				      address->mode, err, err_size);
	else
		rc = vmsg_shared_create(&slot->memory, "vmsg-amp", address->size_bytes, err,
					err_size);
	if (rc < 0)
		return rc;
	slot->region = (struct vmsg_region){
		.addr = (uint64_t)VMSG_AREA_SHARED << VMSG_AREA_SHIFT,
		.len_bytes = slot->memory.len_bytes,
		.ptr = slot->memory.ptr,
		.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = slot->memory.fd,
	};
	return vmsg_mem_init(&slot->mem, &slot->region, 1);
}

static int open_slot(struct vmsg_amp_slot *slot, char *err, size_t err_size)
{
	int rc = make_memory(slot, err, err_size);

	if (rc < 0)
		return rc;
	slot->amp.base = slot->memory.ptr;
	slot->amp.len_bytes = slot->memory.len_bytes;
	slot->amp.format = slot->server->address.format;
	slot->amp.frame = slot->frame;
	slot->amp.element = slot->element;
	slot->amp.buffer_bytes = VMSG_AMP_MAX_ELEMENT;
	slot->amp.ring = ring;
	rc = lay_out(slot);
	if (rc < 0)
		vmsg_fail(err, err_size, rc, "the queues cannot have this size and these words");
	return rc;
}

static void free_slots(struct vmsg_amp_server *server)
{
	for (uint32_t i = 0; server->slots && i < server->slot_count; i++)
		vmsg_shared_close(&server->slots[i].memory);
	free(server->slots);
	free(server->places);
	server->slots = NULL;
	server->places = NULL;
	server->slot_count = 0;
}

static int open_slots(struct vmsg_amp_server *server, char *err, size_t err_size)
{
	uint32_t count = server->address.peers;
	int rc = 0;

	server->slots = calloc(count, sizeof(*server->slots));
	server->places = calloc(count, sizeof(*server->places));
	if (!server->slots || !server->places)
		return vmsg_fail(err, err_size, VMSG_ERR_NOMEM, "no memory for %u peers", count);
	server->slot_count = count;
	for (uint32_t i = 0; i < count; i++) {
		server->slots[i].server = server;
		server->slots[i].index = i;
		server->slots[i].memory.fd = -1;
		server->places[i].memory = &server->slots[i].memory;
	}
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		rc = open_slot(&server->slots[i], err, err_size);
	return rc;
}

int vmsg_amp_server_open(struct vmsg_amp_server *server, struct vmsg_events *events,
			 const struct vmsg_amp_address *address, char *err, size_t err_size)
{
	int rc;

	server->events = events;
	server->address = *address;
	server->slots = NULL;
	server->places = NULL;
	server->slot_count = 0;
	server->spinning = false;
	if (!server->address.format)
		server->address.format = &vmsg_amp_layout;
	if (server->address.dialect == VMSG_AUTO)
		server->address.dialect = VMSG_V2;
	rc = open_slots(server, err, err_size);
	if (rc < 0) {
		free_slots(server);
		return rc;
	}
	server->poller = (struct vmsg_poller){ .poll = poll_server, .doze = doze_server };
	server->poller.user = server;
	server->tick = (struct vmsg_timer){ .fire = on_tick, .user = server };
	server->ivshmem = (struct vmsg_ivshmem_server){
		.events = events,
		.slots = server->places,
		.slot_count = server->slot_count,
		.connected = on_connected,
		.doorbell = on_doorbell,
		.disconnected = on_disconnected,
		.user = server,
	};
	rc = vmsg_ivshmem_open(&server->ivshmem, address->path, address->mode, err, err_size);
	if (rc < 0) {
		free_slots(server);
		return rc;
	}
	vmsg_events_add_poller(events, &server->poller);
	return 0;
}

/* True when every slot has ended. */
static bool close_slots(struct vmsg_amp_server *server)
{
	bool done = true;

	for (uint32_t i = 0; i < server->slot_count; i++) {
		if (vmsg_amp_close(&server->slots[i].amp) < 0 || still_busy(&server->slots[i]))
			done = false;
	}
	return done;
}

void vmsg_amp_server_close(struct vmsg_amp_server *server)
{
	uint32_t start_ms = vmsg_clock_ms();

	if (!server->slots)
		return;
	vmsg_events_remove_poller(server->events, &server->poller);
	/* First the queue heads, so that peers can tell an end from an accident. */
	close_slots(server);
	vmsg_ivshmem_close(&server->ivshmem);
	vmsg_events_stop_timer(server->events, &server->tick);
	while (!close_slots(server) && vmsg_clock_ms() - start_ms < CLOSE_MS)
		vmsg_events_turn(server->events, 10);
	free_slots(server);
}
