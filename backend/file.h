/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the file backend: a request is a sequence of operations (read on after a short read, sync
 * after a discard, ...). file.c knows the sequence, an engine carries out one operation at a time.
 */
#ifndef BACKEND_FILE_H
#define BACKEND_FILE_H

#include <sys/uio.h>

#include <vmsg/backend.h>

struct file_engine {
	const char *name;
	/* 0 or -errno. Sets file->engine_data and file->watch_fd. */
	int (*open)(struct vmsg_file *file, uint32_t depth, uint32_t threads);
	void (*close)(struct vmsg_file *file);
	/* Takes a request whose next operation is to be done. */
	void (*queue)(struct vmsg_file *file, struct vmsg_blk_request *request);
	/* Gets going with what was queued. */
	void (*start)(struct vmsg_file *file);
	void (*cancel)(struct vmsg_file *file, struct vmsg_blk_request *request);
	/* Hands results to file_step(). How many there were. */
	uint32_t (*poll)(struct vmsg_file *file);
};

extern const struct file_engine file_uring, file_threads, file_sync;

struct vmsg_file {
	struct vmsg_blk_info info;
	char *path;
	int fd;
	int cached_fd;  /* direct: the same file through the page cache, for odd buffers; else -1 */
	bool direct;
	bool in_memory; /* its reads and writes never wait for a disk */
	bool try_reads, try_writes; /* a first attempt that does not wait is worth it */
	bool no_discard, no_unmap, no_zero_range; /* found out */
	uint32_t memory_align; /* of buffers, for direct I/O */
	const struct file_engine *engine;
	void *engine_data;
	int watch_fd;
	struct vmsg_blk *blk;
	struct vmsg_file_counters counters;
};

enum file_op_kind {
	FILE_READ,
	FILE_WRITE,
	FILE_ZEROES, /* write len bytes of zeros */
	FILE_SYNC,
	FILE_ALLOCATE,
};

struct file_op {
	enum file_op_kind kind;
	int fd, flags; /* RWF_* or FALLOC_FL_* */
	const struct iovec *iov;
	int iov_count;
	uint64_t offset, len;
};

/* What FILE_ZEROES writes. */
#define FILE_ZEROES_BYTES (256u << 10)
extern uint8_t file_zeroes[FILE_ZEROES_BYTES];

/* The next operation of a request. May be called in any thread. */
void file_next_op(const struct vmsg_file *file, const struct vmsg_blk_request *request,
		  struct file_op *op);

/* Does it, waiting for the disk. The system call's result, or -errno. */
ssize_t file_perform(const struct file_op *op);

/*
 * The operation ended with this result. True: the request goes on with another one, queue it again;
 * false: it has ended.
 */
bool file_step(struct vmsg_file *file, struct vmsg_blk_request *request, ssize_t result);

/* The same for one that was cancelled before it started. */
void file_cancelled(struct vmsg_blk_request *request);

/* A list of requests, first in, first out. */
struct file_list {
	struct vmsg_blk_request *first, *last;
};

void file_list_add(struct file_list *list, struct vmsg_blk_request *request);
struct vmsg_blk_request *file_list_take(struct file_list *list);
bool file_list_remove(struct file_list *list, struct vmsg_blk_request *request);

#endif
