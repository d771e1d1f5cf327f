/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of an AMP bus on Linux: an ivshmem client, the bus over its memory, and an arena
 * in what the queues leave of it.
 *
 * A wait first looks, then spins for a while, with notifications turned off, and only then asks for
 * them, looks once more and sleeps. The look after asking is what makes that safe.
 */
#include "private.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vmsg/driver.h>
#include <vmsg/port.h>

#define CLOCK_SPINS 16  /* looks per look at the clock */
#define LINK_MS     10  /* the socket is looked at this often while waits find something */
#define DETECT_MS   200 /* for a layout block to appear in empty memory */
#define DETECT_STEP 5
#define PAGE        4096u

/* ---- Looking, without notifications ---- */

static uint32_t used_of(const struct vmsg_driver *driver)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < driver->vq_count; i++)
		sum += driver->vqs[i].used_idx;
	return sum;
}

/* Looks at the used rings of every driver. True when something came back. */
static bool poll_drivers(struct vmsg_amp_client *client)
{
	struct vmsg_driver *driver = client->amp.bus.drivers, *next;
	bool worked = false;

	for (; driver; driver = next) {
		uint32_t before = used_of(driver);

		next = driver->next;
		if (!driver->started || driver->gone)
			continue;
		vmsg_driver_poll(driver);
		worked |= used_of(driver) != before;
	}
	return worked;
}

static bool look(struct vmsg_amp_client *client)
{
	bool worked = vmsg_amp_poll(&client->amp) > 0;

	return poll_drivers(client) || worked;
}

static void want_used(struct vmsg_amp_client *client, bool on)
{
	struct vmsg_driver *driver = client->amp.bus.drivers;

	for (; driver; driver = driver->next) {
		for (uint32_t i = 0; driver->started && i < driver->vq_count; i++) {
			if (driver->vqs[i].size && driver->vqs[i].used_wanted != on)
				vmsg_vq_want_used(&driver->vqs[i], on);
		}
	}
}

/* Turns notifications off or on again. True when there is something to do after turning them on. */
static bool set_quiet(struct vmsg_amp_client *client, bool quiet)
{
	want_used(client, !quiet);
	if (client->quiet == quiet)
		return false;
	client->quiet = quiet;
	vmsg_amp_want_doorbells(&client->amp, !quiet);
	return !quiet && look(client);
}

/* A number that moves when anything was sent or received. */
static uint32_t progress_of(const struct vmsg_amp_client *client)
{
	const struct vmsg_driver *driver = client->amp.bus.drivers;
	uint32_t sum = client->amp.bus.counters.received + client->amp.bus.counters.sent;

	for (; driver; driver = driver->next) {
		for (uint32_t i = 0; i < driver->vq_count; i++)
			sum += driver->vqs[i].used_idx + driver->vqs[i].published;
	}
	return sum;
}

/* How long to spin now, in microseconds. A bus where nothing moved since the last sleep sleeps. */
static uint64_t spin_budget(struct vmsg_amp_client *client, uint32_t ms)
{
	uint64_t limit_us = (uint64_t)ms * 1000u;

	if (client->spin_us == VMSG_SPIN_ALWAYS)
		return limit_us;
	if (client->one_cpu || !client->spin_us || progress_of(client) == client->mark ||
	    !vmsg_spin_try(&client->spin))
		return 0;
	return client->spin_us < limit_us ? client->spin_us : limit_us;
}

static bool spin(struct vmsg_amp_client *client, uint64_t budget_us)
{
	uint64_t start_us = vmsg_clock_us(), now_us = start_us;

	set_quiet(client, true);
	for (uint32_t i = 1;; i++) {
		/* Before the look: what is found is not to wait for the clock. */
		client->amp.bus.now_ms = (uint32_t)(now_us / 1000u);
		if (look(client))
			return true;
		if (i % CLOCK_SPINS == 0) {
			now_us = vmsg_clock_us();
			if (now_us - start_us >= budget_us)
				return false;
		}
		vmsg_relax();
	}
}

/* ---- Sleeping ---- */

/* Sleeps for a doorbell. What was missed, because a doorbell was lost, is found after a while. */
static int sleep_link(struct vmsg_amp_client *client, uint32_t ms)
{
	int rc = vmsg_ivshmem_wait(&client->link, (int)ms, client->also, client->also_count);

	client->looked_ms = vmsg_clock_ms();
	client->amp.bus.now_ms = client->looked_ms;
	if (rc == 0 && ms)
		poll_drivers(client);
	if (rc == VMSG_ERR_SHUTDOWN)
		vmsg_amp_close(&client->amp);
	return rc < 0 ? rc : 0;
}

/* See struct vmsg_amp. The queue was just looked at, and was empty. */
static int wait_for_bell(struct vmsg_amp *amp, uint32_t ms)
{
	struct vmsg_amp_client *client = (struct vmsg_amp_client *)amp;
	bool found = client->quiet && poll_drivers(client);
	uint64_t budget_us = found ? 0 : spin_budget(client, ms);

	/* Whoever spins for the answer does not hold the question back. */
	if (found || budget_us)
		vmsg_ivshmem_flush(&client->link);
	if (budget_us) {
		found = spin(client, budget_us);
		vmsg_spin_paid(&client->spin, found);
	}
	if (found) {
		if (!budget_us)
			amp->bus.now_ms = vmsg_clock_ms();
		if (amp->bus.now_ms - client->looked_ms < LINK_MS)
			return 1;
		ms = 0;
	}
	if (!ms || client->spin_us == VMSG_SPIN_ALWAYS)
		return sleep_link(client, 0);
	if (set_quiet(client, false)) {
		vmsg_ivshmem_flush(&client->link);
		amp->bus.now_ms = vmsg_clock_ms();
		return 0;
	}
	client->mark = progress_of(client);
	return sleep_link(client, ms);
}

static void ring(struct vmsg_amp *amp)
{
	vmsg_ivshmem_ring(&((struct vmsg_amp_client *)amp)->link);
}

int vmsg_amp_client_wait(struct vmsg_amp_client *client, uint32_t ms)
{
	return client->amp.bus.ops->wait(&client->amp.bus, ms);
}

/* ---- Start and end ---- */

/* A device side writes its block before we can connect, unless it is just starting. */
static const struct vmsg_amp_format *detect(const struct vmsg_amp_client *client)
{
	static const struct timespec pause = { .tv_nsec = DETECT_STEP * 1000000 };

	for (uint32_t ms = 0; ms < DETECT_MS; ms += DETECT_STEP) {
		uint32_t word = vmsg_load32(client->link.memory.ptr);

		if ((uint16_t)word == VMSG_AMP_LAYOUT_MAGIC)
			return &vmsg_amp_layout;
		if (word) /* an index of a ring in use */
			break;
		nanosleep(&pause, NULL);
	}
	return &vmsg_amp_spsc;
}

/* Where the queue area ends: private copies of the geometry, checked when it was read. */
static uint64_t queue_end(const struct vmsg_amp *amp)
{
	const struct vmsg_amp_part *parts[2] = { &amp->own, &amp->peer };
	uint64_t end = VMSG_AMP_LAYOUT_BYTES;

	if (amp->format == &vmsg_amp_spsc)
		return VMSG_AMP_SPSC_BYTES;
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t ends[3] = {
			amp->words ? parts[i]->words + 8ull * amp->words * (amp->masks ? 3 : 2) : 0,
			parts[i]->head + 8ull,
			parts[i]->elements + (uint64_t)amp->element_count * amp->element_bytes,
		};

		for (uint32_t k = 0; k < 3; k++)
			end = ends[k] > end ? ends[k] : end;
	}
	return end;
}

static void make_arena(struct vmsg_amp_client *client)
{
	uint64_t start = (queue_end(&client->amp) + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	const struct vmsg_shared *memory = &client->link.memory;

	if (start > memory->len_bytes)
		start = memory->len_bytes;
	client->arena = (struct vmsg_arena){
		.addr = client->region.addr + start,
		.ptr = memory->ptr + start,
		.len_bytes = memory->len_bytes - start,
	};
}

static int open_bus(struct vmsg_amp_client *client, const struct vmsg_amp_address *address,
		    enum vmsg_dialect dialect, char *err, size_t err_size)
{
	struct vmsg_shared *memory = &client->link.memory;
	int rc;

	client->region = (struct vmsg_region){
		.addr = (uint64_t)VMSG_AREA_SHARED << VMSG_AREA_SHIFT,
		.len_bytes = memory->len_bytes,
		.ptr = memory->ptr,
		.access = VMSG_MEM_READ | VMSG_MEM_WRITE,
		.fd = memory->fd,
	};
	rc = vmsg_mem_init(&client->mem, &client->region, 1);
	client->amp.base = memory->ptr;
	client->amp.len_bytes = memory->len_bytes;
	client->amp.format = address->format ? address->format : detect(client);
	client->amp.frame = client->frame;
	client->amp.element = client->element;
	client->amp.buffer_bytes = VMSG_AMP_MAX_ELEMENT;
	client->amp.ring = ring;
	client->amp.sleep = wait_for_bell;
	client->amp.bus.learn = vmsg_msg_learn;
	client->amp.bus.now_ms = vmsg_clock_ms();
	if (rc == 0)
		rc = vmsg_amp_open_driver(&client->amp,
					  dialect == VMSG_AUTO ? address->dialect : dialect,
					  address->strict ? 1u << VMSG_F_STRICT_CONFIG_GENERATION
							  : 0);
	if (rc < 0)
		vmsg_fail(err, err_size, rc, "the memory of %llu bytes is too small for a queue",
			  (unsigned long long)memory->len_bytes);
	return rc;
}

static int start_bus(struct vmsg_amp_client *client, const char *path, uint32_t timeout_ms,
		     char *err, size_t err_size)
{
	int rc = vmsg_amp_connect(&client->amp, timeout_ms);

	if (rc == VMSG_ERR_TIMEDOUT)
		return vmsg_fail(err, err_size, rc,
				 "the device side on %s does not start its queue (%s)", path,
				 client->amp.format->name);
	if (rc == VMSG_ERR_PROTO)
		return vmsg_fail(err, err_size, rc,
				 "the layout block on %s cannot be used: bad value at byte %u",
				 path, client->amp.bad_offset);
	if (rc < 0)
		return vmsg_fail(err, err_size, rc, "the daemon on %s left in the middle", path);
	make_arena(client);
	return 0;
}

int vmsg_amp_client_open(struct vmsg_amp_client *client, const struct vmsg_amp_address *address,
			 enum vmsg_dialect dialect, uint32_t timeout_ms, char *err, size_t err_size)
{
	uint32_t start_ms = vmsg_clock_ms(), passed_ms;
	int rc;

	memset(client, 0, sizeof(*client));
	client->spin_us = address->spin_us;
	client->one_cpu = vmsg_one_cpu();
	rc = vmsg_ivshmem_connect(&client->link, address->path, timeout_ms, err, err_size);
	if (rc < 0)
		return rc;
	client->opened = true;
	rc = open_bus(client, address, dialect, err, err_size);
	passed_ms = vmsg_clock_ms() - start_ms;
	if (rc == 0)
		rc = start_bus(client, address->path,
			       passed_ms < timeout_ms ? timeout_ms - passed_ms : 0, err, err_size);
	if (rc < 0)
		vmsg_amp_client_close(client);
	return rc;
}

void vmsg_amp_client_close(struct vmsg_amp_client *client)
{
	if (!client->opened)
		return;
	client->opened = false;
	vmsg_amp_close(&client->amp);
	vmsg_ivshmem_disconnect(&client->link);
	client->arena = (struct vmsg_arena){ 0 };
}
