/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A real vmsgd as a second process, and the disks it serves as this process sees them. Each daemon
 * has a folder of its own for its sockets; process and folder go away however the benchmark ends.
 */
#ifndef BENCH_COMMON_DAEMON_H
#define BENCH_COMMON_DAEMON_H

#include <vmsg/blk.h>
#include <vmsg/linux.h>

#include "common_bench.h"

/* ---- The daemon ---- */

struct bench_daemon {
	pid_t pid;
	int log; /* its standard error */
	char dir[32];
	char socket[64], control[64];
	char others[2][64]; /* places for sockets of others */
	uint64_t start_ns; /* from before fork() to "ready" */
};

/* The program is vmsgd in the folder VMSG_BUILD, build/bench if not set. */
const char *bench_program(void);

/* poll: as for --poll, or NULL: its default. devices: a list that ends with NULL. */
void bench_daemon_start(struct bench_daemon *daemon, const char *poll, const char *const *devices);
void bench_daemon_stop(struct bench_daemon *daemon);

/* Takes the processor from it for a while; returns when it stands still. */
void bench_daemon_freeze(const struct bench_daemon *daemon);
void bench_daemon_thaw(const struct bench_daemon *daemon);

/* A number of the answer to "stat", found by its path: "buses.0.peers.0.doorbells". */
uint64_t bench_daemon_stat(const struct bench_daemon *daemon, const char *path);

/* A line of /proc/PID/status, in KiB: "VmRSS". */
uint64_t bench_daemon_kib(const struct bench_daemon *daemon, const char *name);
/* Shared libraries it has mapped, without the loader. */
uint32_t bench_daemon_libraries(const struct bench_daemon *daemon);

/* ---- Its disks ---- */

#define BENCH_DISKS	   3u
#define BENCH_DEPTH	   32u
#define BENCH_MAX_BYTES	   (128u << 10) /* of one request */
#define BENCH_BUFFER_BYTES (1u << 20)	/* for all requests in flight */

struct bench_io {
	struct vmsg_blk_io io; /* first */
	struct bench_link *link;
	struct vmsg_buf buf;
	uint8_t *ptr;
};

struct bench_disk {
	struct vmsg_blk_driver driver;
	struct vmsg_vq_driver vqs[1];
	struct vmsg_vq_state states[128];
	struct vmsg_arena arena;
};

/* A connection, and the requests of one workload at a time. */
struct bench_link {
	struct vmsg_amp_client client;
	struct bench_disk disks[BENCH_DISKS];
	struct bench_io ios[BENCH_DEPTH];
	struct vmsg_arena buffers;
	uint8_t *buffer_ptr; /* BENCH_BUFFER_BYTES of them */
	uint64_t buffer_addr;
	/* The workload. */
	struct vmsg_blk_driver *driver;
	uint32_t bytes;
	uint64_t left, done;
	uint64_t seed;
};

/* spin: VMSG_SPIN_*, for this side. lazy: it rings when it goes to sleep, in one system call. */
void bench_link_open(struct bench_link *link, const struct bench_daemon *daemon, uint32_t spin_us,
		     bool lazy);
void bench_link_close(struct bench_link *link);

/* Starts a disk, anew if it was started before, with the one or the other kind of ring. */
void bench_disk_start(struct bench_link *link, uint32_t disk, bool packed);

/* Reads at random places, aligned to the size: count requests with depth of them in flight. */
void bench_disk_read(struct bench_link *link, uint32_t disk, uint32_t bytes, uint32_t depth,
		     uint64_t count);

/*
 * Writes to every block of the disk where it is, and checks what the last reads have left in their
 * buffers: a fast disk that returns wrong bytes is no disk.
 */
void bench_disk_fill(struct bench_link *link, uint32_t disk);
void bench_disk_check(const struct bench_link *link, uint32_t depth);

/* A file with the same in it, which goes away at the end; its descriptor. */
int bench_file_make(const char *path, uint64_t bytes);

static inline uint64_t bench_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

#endif
