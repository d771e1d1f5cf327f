/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU's storage daemon, as a vhost-user front end sees it. */
#include "common_qsd.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common_daemon.h"

#define MEMORY_BYTES (8u << 20)
#define MEMORY_ADDR  0x100000000u /* as the queue names it */
#define DATA_OFFSET  (1u << 20)
#define READY_MS     5000u

/* Requests of the protocol. */
enum {
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
};

#define VERSION 1u

/* ---- The protocol ---- */

static void put(const struct qsd_disk *disk, uint32_t request, const void *payload, uint32_t size,
		int fd)
{
	uint32_t header[3] = { request, VERSION, size };
	struct iovec iov[2] = { { header, sizeof(header) }, { (void *)(uintptr_t)payload, size } };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	if (sendmsg(disk->socket, &msg, 0) != (ssize_t)(sizeof(header) + size))
		bench_die("vhost-user");
}

static void put64(const struct qsd_disk *disk, uint32_t request, uint64_t value, int fd)
{
	put(disk, request, &value, sizeof(value), fd);
}

static void put_ring(const struct qsd_disk *disk, uint32_t request, uint32_t value)
{
	uint32_t payload[2] = { 0, value };

	put(disk, request, payload, sizeof(payload), -1);
}

static void share_memory(struct qsd_disk *disk)
{
	int fd = memfd_create("qsd", MFD_CLOEXEC);
	uint64_t table[5] = { 1, MEMORY_ADDR, MEMORY_BYTES, 0, 0 };

	if (fd < 0 || ftruncate(fd, MEMORY_BYTES) != 0)
		bench_die("memfd_create");
	disk->ptr = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (disk->ptr == MAP_FAILED)
		bench_die("mmap");
	table[3] = (uintptr_t)disk->ptr;
	put(disk, SET_MEM_TABLE, table, sizeof(table), fd);
	close(fd);
}

static void connect_disk(struct qsd_disk *disk, const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	const struct timespec pause = { .tv_nsec = 10000000 };

	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	disk->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	for (uint32_t ms = 0; connect(disk->socket, (struct sockaddr *)&name, sizeof(name)) != 0;) {
		if (ms >= READY_MS)
			bench_die("qemu-storage-daemon");
		nanosleep(&pause, NULL);
		ms += 10;
	}
}

static void start_queue(struct qsd_disk *disk, uint64_t features)
{
	struct vmsg_arena arena = { MEMORY_ADDR, disk->ptr, DATA_OFFSET, 0 };
	struct vmsg_vq_memory memory;
	uint64_t base = (uintptr_t)disk->ptr - MEMORY_ADDR, addr;
	uint64_t ring[5] = { 0 };

	if (vmsg_vq_memory_take(&memory, &vmsg_vq_split_driver, QSD_QUEUE, 0, &arena) != 0 ||
	    vmsg_vq_driver_init(&disk->vq, &vmsg_vq_split_driver, features, QSD_QUEUE, &memory,
				disk->states) != 0)
		bench_fail("no queue for qemu-storage-daemon");
	for (uint32_t i = 0; i < QSD_DEPTH; i++) {
		struct qsd_io *io = &disk->ios[i];

		io->header = vmsg_arena_take(&arena, 64, 64, &addr);
		io->status = io->header + VMSG_BLK_HEADER_BYTES;
		io->bufs[0] = (struct vmsg_buf){ addr, VMSG_BLK_HEADER_BYTES };
		io->bufs[2] = (struct vmsg_buf){ addr + VMSG_BLK_HEADER_BYTES, 1 };
	}
	put_ring(disk, SET_VRING_NUM, QSD_QUEUE);
	put_ring(disk, SET_VRING_BASE, 0);
	ring[1] = base + memory.desc_addr;
	ring[2] = base + memory.device_addr;
	ring[3] = base + memory.driver_addr;
	put(disk, SET_VRING_ADDR, ring, sizeof(ring), -1);
	put64(disk, SET_VRING_CALL, 0, disk->call);
	put64(disk, SET_VRING_KICK, 0, disk->kick);
}

static void open_disk(struct qsd_disk *disk, const char *path, uint64_t bytes)
{
	uint64_t features = VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(VMSG_F_EVENT_IDX);

	memset(disk, 0, sizeof(*disk));
	disk->capacity_bytes = bytes;
	disk->seed = 88172645463325252u;
	disk->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	disk->call = eventfd(0, EFD_CLOEXEC);
	if (disk->kick < 0 || disk->call < 0)
		bench_die("eventfd");
	connect_disk(disk, path);
	put(disk, SET_OWNER, NULL, 0, -1);
	put64(disk, SET_FEATURES, features, -1);
	share_memory(disk);
	start_queue(disk, features);
}

static void close_disk(struct qsd_disk *disk)
{
	close(disk->socket);
	close(disk->kick);
	close(disk->call);
	munmap(disk->ptr, MEMORY_BYTES);
}

/* ---- The daemon ---- */

bool qsd_is_there(void)
{
	return system("qemu-storage-daemon --version >/dev/null 2>&1") == 0;
}

static void run(const struct qsd *qsd, const char *path)
{
	char file[160], exports[QSD_DISKS][200];
	static const char *const names[QSD_DISKS] = { "file", "null" };

	snprintf(file, sizeof(file),
		 "driver=file,node-name=file,filename=%s,aio=io_uring,locking=off", path);
	for (uint32_t i = 0; i < QSD_DISKS; i++)
		snprintf(exports[i], sizeof(exports[i]),
			 "type=vhost-user-blk,id=%s,node-name=%s,addr.type=unix,addr.path=%s,"
			 "iothread=loop",
			 names[i], names[i], qsd->sockets[i]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execlp("qemu-storage-daemon", "qemu-storage-daemon", "--object",
	       "iothread,id=loop,poll-max-ns=32768", "--blockdev", file, "--blockdev",
	       "driver=null-co,node-name=null,size=1073741824,read-zeroes=off", "--export",
	       exports[0], "--export", exports[1], (char *)NULL);
	_exit(127);
}

void qsd_start(struct qsd *qsd, const char *path, uint64_t bytes, uint32_t cpu)
{
	fflush(NULL);
	qsd->pid = fork();
	if (qsd->pid < 0)
		bench_die("fork");
	if (qsd->pid == 0) {
		/* All its threads. */
		bench_pin(0, cpu);
		bench_realtime(0);
		run(qsd, path);
	}
	open_disk(&qsd->disks[0], qsd->sockets[0], bytes);
	open_disk(&qsd->disks[1], qsd->sockets[1], 1u << 30);
}

void qsd_stop(struct qsd *qsd)
{
	for (uint32_t i = 0; i < QSD_DISKS; i++)
		close_disk(&qsd->disks[i]);
	kill(qsd->pid, SIGKILL);
	waitpid(qsd->pid, NULL, 0);
}

void qsd_freeze(const struct qsd *qsd)
{
	int status;

	kill(qsd->pid, SIGSTOP);
	if (waitpid(qsd->pid, &status, WUNTRACED) != qsd->pid || !WIFSTOPPED(status))
		bench_fail("qemu-storage-daemon is gone");
}

void qsd_thaw(const struct qsd *qsd)
{
	kill(qsd->pid, SIGCONT);
}

/* ---- Reads ---- */

static void submit(struct qsd_disk *disk, struct qsd_io *io)
{
	uint64_t blocks = disk->capacity_bytes / disk->bytes;
	uint64_t offset = (uint64_t)(io - disk->ios) * disk->bytes;

	io->sector = bench_random(&disk->seed) % blocks * (disk->bytes / VMSG_BLK_SECTOR_BYTES);
	io->data = disk->ptr + DATA_OFFSET + offset;
	vmsg_put32(io->header, VMSG_BLK_T_IN);
	vmsg_put32(io->header + 4, 0);
	vmsg_put64(io->header + 8, io->sector);
	*io->status = 0xff;
	io->bufs[1] = (struct vmsg_buf){ MEMORY_ADDR + DATA_OFFSET + offset, disk->bytes };
	disk->left--;
	if (vmsg_vq_add(&disk->vq, io->bufs, 1, 2, io) != 0)
		bench_fail("qemu-storage-daemon: the queue is full");
}

static void ring(const struct qsd_disk *disk)
{
	static const uint64_t one = 1;

	if (write(disk->kick, &one, sizeof(one)) != (ssize_t)sizeof(one))
		bench_die("kick");
}

/* The daemon has made the eventfd non-blocking. */
static void wait_for_call(const struct qsd_disk *disk)
{
	struct pollfd call = { .fd = disk->call, .events = POLLIN };
	uint64_t value;

	poll(&call, 1, -1);
	(void)!read(disk->call, &value, sizeof(value));
}

/* True when something came back. */
static bool take(struct qsd_disk *disk)
{
	bool any = false;
	uint32_t written;
	void *cookie;
	int rc;

	while ((rc = vmsg_vq_get(&disk->vq, &cookie, &written)) > 0) {
		struct qsd_io *io = cookie;

		if (*(const volatile uint8_t *)io->status != VMSG_BLK_S_OK)
			bench_fail("qemu-storage-daemon: a read failed");
		disk->done++;
		any = true;
		if (disk->left)
			submit(disk, io);
	}
	if (rc < 0)
		bench_fail("qemu-storage-daemon: the queue is broken");
	return any;
}

void qsd_read(struct qsd *qsd, uint32_t disk_index, uint32_t bytes, uint32_t depth, uint64_t count)
{
	struct qsd_disk *disk = &qsd->disks[disk_index];

	disk->bytes = bytes;
	disk->left = count;
	disk->done = 0;
	vmsg_vq_want_used(&disk->vq, disk->blocking);
	for (uint32_t i = 0; i < depth && disk->left; i++)
		submit(disk, &disk->ios[i]);
	while (disk->done < count) {
		if (vmsg_vq_publish(&disk->vq))
			ring(disk);
		while (!take(disk)) {
			if (disk->blocking)
				wait_for_call(disk);
		}
	}
}

void qsd_check(const struct qsd *qsd, uint32_t disk_index, uint32_t depth)
{
	const struct qsd_disk *disk = &qsd->disks[disk_index];

	for (uint32_t i = 0; i < depth; i++) {
		const struct qsd_io *io = &disk->ios[i];

		for (uint32_t at = 0; at < disk->bytes; at += VMSG_BLK_SECTOR_BYTES) {
			if (vmsg_get64(io->data + at) != io->sector * VMSG_BLK_SECTOR_BYTES + at)
				bench_fail("qemu-storage-daemon: wrong bytes were read");
		}
	}
}
