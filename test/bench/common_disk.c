/* SPDX-License-Identifier: BSD-3-Clause */
/* The disks of a daemon, as a driver in this process sees them. */
#include "common_daemon.h"

#include <stdio.h>
#include <string.h>

#define QUEUE_SIZE  128u
#define QUEUE_BYTES (8u << 10) /* of memory for the queue of a disk */
#define WAIT_MS	    100u

static void need(int rc, const char *what)
{
	if (rc < 0)
		bench_fail("%s: error %d", what, rc);
}

/* A piece of an arena as an arena of its own. */
static struct vmsg_arena piece(struct vmsg_arena *from, uint64_t bytes)
{
	struct vmsg_arena arena = { .len_bytes = bytes };

	arena.ptr = vmsg_arena_take(from, bytes, 4096, &arena.addr);
	if (!arena.ptr)
		bench_fail("the shared memory is too small");
	return arena;
}

void bench_link_open(struct bench_link *link, const struct bench_daemon *daemon, uint32_t spin_us,
		     bool lazy)
{
	struct vmsg_amp_address address;
	char text[80], err[VMSG_ERR_TEXT];
	struct vmsg_arena *arena = &link->client.arena;

	memset(link, 0, sizeof(*link));
	snprintf(text, sizeof(text), "amp:%s", daemon->socket);
	if (vmsg_amp_parse(text, &address, err, sizeof(err)) < 0)
		bench_fail("%s", err);
	address.spin_us = spin_us;
	if (vmsg_amp_client_open(&link->client, &address, VMSG_AUTO, 1000, err, sizeof(err)) < 0)
		bench_fail("%s", err);
	if (lazy && vmsg_ivshmem_ring_lazily(&link->client.link) < 0)
		bench_fail("this system has no io_uring");
	for (uint32_t i = 0; i < BENCH_DISKS; i++)
		link->disks[i].arena = piece(&link->client.arena, QUEUE_BYTES);
	link->buffers = piece(&link->client.arena, BENCH_DEPTH * VMSG_BLK_IO_BYTES);
	/* Not taken as the others are: those are zeroed, and a page costs when it is first used. */
	link->buffer_ptr = arena->ptr + arena->used_bytes;
	link->buffer_addr = arena->addr + arena->used_bytes;
	if (BENCH_BUFFER_BYTES > arena->len_bytes - arena->used_bytes)
		bench_fail("the shared memory is too small");
	for (uint32_t i = 0; i < BENCH_DEPTH; i++) {
		struct bench_io *io = &link->ios[i];

		need(vmsg_blk_io_init(&io->io, &link->buffers), "request memory");
		io->link = link;
	}
	link->seed = 88172645463325252u;
}

void bench_link_close(struct bench_link *link)
{
	vmsg_amp_client_close(&link->client);
}

void bench_disk_start(struct bench_link *link, uint32_t disk, bool packed)
{
	struct bench_disk *at = &link->disks[disk];
	struct vmsg_blk_driver *driver = &at->driver;

	if (driver->driver.bus) {
		need(vmsg_blk_driver_reset(driver), "reset");
		vmsg_driver_exit(&driver->driver);
	}
	vmsg_blk_driver_init(driver, &link->client.amp.bus, (uint16_t)disk);
	driver->driver.split = packed ? NULL : &vmsg_vq_split_driver;
	driver->driver.packed = packed ? &vmsg_vq_packed_driver : NULL;
	driver->driver.vqs = at->vqs;
	driver->driver.vq_count = 1;
	driver->arena = &at->arena;
	driver->states = at->states;
	driver->queue_size = QUEUE_SIZE;
	need(vmsg_blk_driver_start(driver), "start of a disk");
}

/* ---- A workload ---- */

static void submit(struct bench_io *io)
{
	struct bench_link *link = io->link;
	uint64_t blocks =
		link->driver->config.capacity_sectors * VMSG_BLK_SECTOR_BYTES / link->bytes;

	io->io.sector = bench_random(&link->seed) % blocks * (link->bytes / VMSG_BLK_SECTOR_BYTES);
	link->left--;
	need(vmsg_blk_driver_submit(link->driver, 0, &io->io), "submit");
}

static void done(struct vmsg_blk_io *blk_io)
{
	struct bench_io *io = (struct bench_io *)blk_io;

	need(io->io.result, "read");
	io->link->done++;
	if (io->link->left)
		submit(io);
}

static void prepare(struct bench_link *link, uint32_t disk, uint32_t bytes, uint64_t count)
{
	link->driver = &link->disks[disk].driver;
	link->bytes = bytes;
	link->left = count;
	link->done = 0;
	for (uint32_t i = 0; i < BENCH_DEPTH; i++) {
		struct bench_io *io = &link->ios[i];
		uint64_t offset = (uint64_t)i * bytes % BENCH_BUFFER_BYTES;

		io->ptr = link->buffer_ptr + offset;
		io->buf.addr = link->buffer_addr + offset;
		io->buf.len = bytes;
		io->io.bufs = &io->buf;
		io->io.buf_count = 1;
	}
}

static void run(struct bench_link *link, uint32_t depth, uint64_t count)
{
	struct vmsg_bus *bus = &link->client.amp.bus;

	for (uint32_t i = 0; i < depth && link->left; i++)
		submit(&link->ios[i]);
	while (link->done < count) {
		vmsg_blk_driver_kick(link->driver, 0);
		need(bus->ops->wait(bus, WAIT_MS), "wait");
		need(vmsg_blk_driver_poll(link->driver), "poll");
	}
}

void bench_disk_read(struct bench_link *link, uint32_t disk, uint32_t bytes, uint32_t depth,
		     uint64_t count)
{
	prepare(link, disk, bytes, count);
	for (uint32_t i = 0; i < depth; i++) {
		link->ios[i].io.type = VMSG_BLK_T_IN;
		link->ios[i].io.done = done;
	}
	run(link, depth, count);
}

/* ---- Right bytes ---- */

static void written(struct vmsg_blk_io *blk_io)
{
	need(blk_io->result, "write");
	((struct bench_io *)blk_io)->link->done++;
}

void bench_disk_fill(struct bench_link *link, uint32_t disk)
{
	struct bench_io *io = &link->ios[0];
	uint64_t bytes = link->disks[disk].driver.config.capacity_sectors * VMSG_BLK_SECTOR_BYTES;

	prepare(link, disk, BENCH_MAX_BYTES, 0);
	io->io.type = VMSG_BLK_T_OUT;
	io->io.done = written;
	for (uint64_t at = 0; at < bytes; at += BENCH_MAX_BYTES) {
		for (uint32_t i = 0; i < BENCH_MAX_BYTES; i += VMSG_BLK_SECTOR_BYTES)
			vmsg_put64(io->ptr + i, at + i);
		io->io.sector = at / VMSG_BLK_SECTOR_BYTES;
		need(vmsg_blk_driver_submit(link->driver, 0, &io->io), "submit");
		run(link, 0, at / BENCH_MAX_BYTES + 1);
	}
}

void bench_disk_check(const struct bench_link *link, uint32_t depth)
{
	for (uint32_t i = 0; i < depth; i++) {
		const struct bench_io *io = &link->ios[i];

		for (uint32_t at = 0; at < link->bytes; at += VMSG_BLK_SECTOR_BYTES) {
			if (vmsg_get64(io->ptr + at) != io->io.sector * VMSG_BLK_SECTOR_BYTES + at)
				bench_fail("wrong bytes were read");
		}
	}
}
