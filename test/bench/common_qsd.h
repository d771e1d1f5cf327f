/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QEMU's storage daemon, to be compared with: it serves disks over vhost-user, which is virtio with
 * a Unix socket for set-up and eventfds for notifications (QEMU's "vhost-user" specification).
 */
#ifndef BENCH_COMMON_QSD_H
#define BENCH_COMMON_QSD_H

#include <vmsg/blk.h>

#include "common_bench.h"

#define QSD_DISKS 2u
#define QSD_DEPTH 32u
#define QSD_QUEUE 128u

struct qsd_io {
	uint8_t *header, *status, *data;
	struct vmsg_buf bufs[3];
	uint64_t sector;
};

/* One disk: a connection with a split queue. */
struct qsd_disk {
	int socket, kick, call;
	uint8_t *ptr; /* memory that both share */
	struct vmsg_vq_driver vq;
	struct vmsg_vq_state states[QSD_QUEUE];
	struct qsd_io ios[QSD_DEPTH];
	uint64_t capacity_bytes;
	bool blocking;
	/* The workload. */
	uint32_t bytes;
	uint64_t left, done, seed;
};

struct qsd {
	pid_t pid;
	const char *sockets[QSD_DISKS];
	struct qsd_disk disks[QSD_DISKS];
};

/* False when the program is not installed. */
bool qsd_is_there(void);

/*
 * sockets are set before. Disk 0 is the file, disk 1 a null disk of 1 GiB; the daemon runs on this
 * processor alone.
 */
void qsd_start(struct qsd *qsd, const char *path, uint64_t bytes, uint32_t cpu);
void qsd_stop(struct qsd *qsd);
void qsd_freeze(const struct qsd *qsd);
void qsd_thaw(const struct qsd *qsd);

/* As bench_disk_read(). */
void qsd_read(struct qsd *qsd, uint32_t disk, uint32_t bytes, uint32_t depth, uint64_t count);
void qsd_check(const struct qsd *qsd, uint32_t disk, uint32_t depth);

#endif
