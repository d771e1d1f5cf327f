/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a file or block device, and finding out what it can do. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

#define DEPTH_DEFAULT	256u
#define THREADS_DEFAULT 4u
#define MAX_SECTORS	(1u << 20) /* of one DISCARD or WRITE_ZEROES: 512 MiB */
#define PAGE_BYTES	4096u
#define LOCK_STEP_MS	10

__attribute__((format(printf, 4, 5))) static int fail(int rc, char *error, size_t error_size,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error_size)
		vsnprintf(error, error_size, format, args);
	va_end(args);
	return rc;
}

/* ---- Open and lock ---- */

static int open_error(const struct vmsg_file_options *options, int number, char *error, size_t size)
{
	const char *path = options->path;

	switch (number) {
	case ENOENT:
		return fail(-number, error, size,
			    "%s: no such file; to make one: truncate -s 1G %s", path, path);
	case EACCES:
	case EPERM:
	case EROFS:
		return fail(-number, error, size, "%s: %s%s", path,
			    number == EROFS ? "read-only file system" : "permission denied",
			    options->read_only ? "" : "; with 'ro' it need not be writable");
	case EISDIR:
		return fail(-number, error, size, "%s: a directory, not a disk image", path);
	case EINVAL:
		if (options->direct)
			return fail(-number, error, size,
				    "%s: no direct I/O on this file system; leave out 'direct'",
				    path);
		/* fall through */
	default:
		return fail(-number, error, size, "%s: cannot open it: %s", path, strerror(number));
	}
}

static int open_fd(const struct vmsg_file_options *options, bool direct)
{
	int flags = (options->read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
	/* A FIFO must not make us wait. Later the flag would make io_uring give up early. */
	int fd = open(options->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static bool is_locked(int number)
{
	return number == EAGAIN || number == EACCES;
}

/*
 * Two writers, or a writer beside readers, would ruin the image. The lock goes with the open file,
 * which the kernel keeps for I/O in flight: of a program that was killed a moment ago, too.
 */
static int lock(struct vmsg_file *file, uint32_t wait_ms, char *error, size_t size)
{
	static const struct timespec pause = { .tv_nsec = LOCK_STEP_MS * 1000000 };
	struct flock lock = {
		.l_type = file->info.read_only ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	int rc = fcntl(file->fd, F_OFD_SETLK, &lock);

	for (uint32_t ms = 0; rc < 0 && is_locked(errno) && ms < wait_ms; ms += LOCK_STEP_MS) {
		nanosleep(&pause, NULL);
		rc = fcntl(file->fd, F_OFD_SETLK, &lock);
	}
	if (rc == 0)
		return 0;
	if (is_locked(errno))
		return fail(-EBUSY, error, size,
			    "%s: in use by another program; 'share' opens it all the same",
			    file->path);
	return 0; /* a file system without locks */
}

/* ---- Geometry ---- */

static uint8_t log2_of(uint32_t value)
{
	return (uint8_t)(31 - __builtin_clz(value));
}

static bool is_power_of_two(uint32_t value)
{
	return value && (value & (value - 1)) == 0;
}

/* The smallest unit that direct reads of a regular file take. */
static uint32_t probe_direct(const struct vmsg_file *file)
{
	uint32_t unit = PAGE_BYTES;
	uint8_t *buf;

	if (posix_memalign((void **)&buf, PAGE_BYTES, 2 * PAGE_BYTES))
		return unit;
	if (pread(file->fd, buf + VMSG_BLK_SECTOR_BYTES, VMSG_BLK_SECTOR_BYTES,
		  VMSG_BLK_SECTOR_BYTES) == (ssize_t)VMSG_BLK_SECTOR_BYTES)
		unit = VMSG_BLK_SECTOR_BYTES;
	free(buf);
	return unit;
}

static void describe_file(struct vmsg_file *file, const struct stat *st)
{
	struct vmsg_blk_info *info = &file->info;
	uint32_t cluster = (uint32_t)st->st_blksize;
	struct statfs fs;

	if (file->direct)
		info->block_bytes = probe_direct(file);
	if (is_power_of_two(cluster) && cluster >= info->block_bytes && cluster <= 65536)
		info->physical_exp = (uint8_t)(log2_of(cluster) - log2_of(info->block_bytes));
	info->discard_align_sectors =
		(info->block_bytes << info->physical_exp) / VMSG_BLK_SECTOR_BYTES;
	if (fstatfs(file->fd, &fs) == 0)
		file->in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

static void describe_disk(struct vmsg_file *file)
{
	struct vmsg_blk_info *info = &file->info;
	unsigned int physical = 0, min_io = 0, opt_io = 0;
	int logical = 0;

	if (ioctl(file->fd, BLKSSZGET, &logical) == 0 && logical >= 512 &&
	    is_power_of_two((uint32_t)logical))
		info->block_bytes = (uint32_t)logical;
	if (ioctl(file->fd, BLKPBSZGET, &physical) == 0 && is_power_of_two(physical) &&
	    physical > info->block_bytes)
		info->physical_exp = (uint8_t)(log2_of(physical) - log2_of(info->block_bytes));
	if (ioctl(file->fd, BLKIOMIN, &min_io) == 0)
		info->min_io_blocks = (uint16_t)(min_io / info->block_bytes);
	if (ioctl(file->fd, BLKIOOPT, &opt_io) == 0)
		info->opt_io_blocks = opt_io / info->block_bytes;
	info->discard_align_sectors =
		(info->block_bytes << info->physical_exp) / VMSG_BLK_SECTOR_BYTES;
}

static void describe_operations(struct vmsg_file *file)
{
	struct vmsg_blk_info *info = &file->info;

	info->max_discard_sectors = MAX_SECTORS;
	info->max_zeroes_sectors = MAX_SECTORS;
	info->zeroes_may_unmap = true;
	file->try_reads = true;
	file->try_writes = true;
	file->memory_align = info->block_bytes;
}

int vmsg_file_measure(struct vmsg_file *file, uint64_t *capacity_sectors, char *error,
		      size_t error_size)
{
	uint32_t unit = file->info.block_bytes;
	struct stat st;
	uint64_t bytes;

	if (fstat(file->fd, &st) != 0)
		return fail(-errno, error, error_size, "%s: %s", file->path, strerror(errno));
	bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(file->fd, BLKGETSIZE64, &bytes) != 0)
		return fail(-errno, error, error_size, "%s: cannot tell its size: %s", file->path,
			    strerror(errno));
	if (bytes == 0)
		return fail(-EINVAL, error, error_size,
			    "%s: empty; to give it a size: truncate -s 1G %s", file->path,
			    file->path);
	if (bytes % unit)
		return fail(-EINVAL, error, error_size,
			    "%s: %llu bytes are not whole blocks of %u; to fill up the last one: "
			    "truncate -s %%%u %s",
			    file->path, (unsigned long long)bytes, unit, unit, file->path);
	*capacity_sectors = bytes / VMSG_BLK_SECTOR_BYTES;
	return 0;
}

/* ---- Engine ---- */

static int open_engine(struct vmsg_file *file, const struct vmsg_file_options *options, char *error,
		       size_t error_size)
{
	static const struct file_engine *const all[] = { &file_uring, &file_threads, &file_sync };
	const char *name = options->engine ? options->engine : "auto";
	uint32_t depth = options->depth ? options->depth : DEPTH_DEFAULT;
	uint32_t threads = options->threads ? options->threads : THREADS_DEFAULT;
	bool any = strcmp(name, "auto") == 0;
	int rc = -EINVAL;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (!any && strcmp(name, all[i]->name) != 0)
			continue;
		rc = all[i]->open(file, depth, threads);
		if (rc == 0) {
			file->engine = all[i];
			return 0;
		}
		if (!any)
			return fail(rc, error, error_size, "%s: engine '%s' is refused here: %s",
				    file->path, name, strerror(-rc));
	}
	return fail(rc, error, error_size,
		    "%s: no engine '%s'; there are auto, uring, threads and sync", file->path,
		    name);
}

/* ---- All of it ---- */

static int open_all(struct vmsg_file *file, const struct vmsg_file_options *options, char *error,
		    size_t error_size)
{
	struct stat st;
	int rc;

	file->path = strdup(options->path);
	if (!file->path)
		return fail(-ENOMEM, error, error_size, "%s: out of memory", options->path);
	file->fd = open_fd(options, options->direct);
	if (file->fd < 0)
		return open_error(options, errno, error, error_size);
	if (fstat(file->fd, &st) != 0)
		return open_error(options, errno, error, error_size);
	if (S_ISDIR(st.st_mode))
		return open_error(options, EISDIR, error, error_size);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fail(-ENOTBLK, error, error_size, "%s: neither a file nor a block device",
			    file->path);
	rc = options->share ? 0 : lock(file, options->lock_ms, error, error_size);
	if (rc)
		return rc;
	if (file->direct) {
		file->cached_fd = open_fd(options, false);
		if (file->cached_fd < 0)
			return open_error(options, errno, error, error_size);
	}
	if (S_ISBLK(st.st_mode))
		describe_disk(file);
	else
		describe_file(file, &st);
	describe_operations(file);
	rc = vmsg_file_measure(file, &file->info.capacity_sectors, error, error_size);
	return rc ? rc : open_engine(file, options, error, error_size);
}

int vmsg_file_open(struct vmsg_file **out, const struct vmsg_file_options *options, char *error,
		   size_t error_size)
{
	struct vmsg_file *file = calloc(1, sizeof(*file));
	int rc;

	*out = NULL;
	if (!file)
		return fail(-ENOMEM, error, error_size, "%s: out of memory", options->path);
	file->fd = file->cached_fd = file->watch_fd = -1;
	file->direct = options->direct;
	file->info.read_only = options->read_only;
	file->info.block_bytes = VMSG_BLK_SECTOR_BYTES;
	rc = open_all(file, options, error, error_size);
	if (rc) {
		vmsg_file_close(file);
		return rc;
	}
	*out = file;
	return 0;
}

void vmsg_file_close(struct vmsg_file *file)
{
	if (!file)
		return;
	if (file->engine)
		file->engine->close(file);
	if (file->cached_fd >= 0)
		close(file->cached_fd);
	if (file->fd >= 0)
		close(file->fd);
	free(file->path);
	free(file);
}

const struct vmsg_blk_info *vmsg_file_info(const struct vmsg_file *file)
{
	return &file->info;
}

int vmsg_file_fd(const struct vmsg_file *file)
{
	return file->watch_fd;
}

const char *vmsg_file_engine(const struct vmsg_file *file)
{
	return file->engine->name;
}

const struct vmsg_file_counters *vmsg_file_counters(const struct vmsg_file *file)
{
	return &file->counters;
}
