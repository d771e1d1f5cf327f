/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk in a file or block device: the sequence of operations behind each request. Data goes
 * between the file and the driver's memory without a copy of ours. What the page cache can give at
 * once is taken at once; the rest goes to the engine.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

#define IN_PLACE_MAX_BYTES (1u << 20) /* copying more in one go would hold up the others */
#define RETRIES_MAX	   64	      /* of an operation that says "again" */

/* Phases of a request. */
#define PHASE_FIRST  0
#define PHASE_ZEROES 1 /* ZERO, by writing zeros */
#define PHASE_SYNC   2 /* the last step of DISCARD and ZERO when they are to be durable */

_Static_assert(sizeof(struct vmsg_iov) == sizeof(struct iovec) &&
		       offsetof(struct vmsg_iov, ptr) == offsetof(struct iovec, iov_base) &&
		       offsetof(struct vmsg_iov, len) == offsetof(struct iovec, iov_len),
	       "struct vmsg_iov is handed to the kernel");

/* Never written: all of it is the kernel's one page of zeros. */
uint8_t file_zeroes[FILE_ZEROES_BYTES] __attribute__((aligned(4096)));

/* ---- Lists ---- */

void file_list_add(struct file_list *list, struct vmsg_blk_request *request)
{
	request->next = NULL;
	if (list->first)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

struct vmsg_blk_request *file_list_take(struct file_list *list)
{
	struct vmsg_blk_request *request = list->first;

	if (request)
		list->first = request->next;
	return request;
}

bool file_list_remove(struct file_list *list, struct vmsg_blk_request *request)
{
	struct vmsg_blk_request *before = NULL;

	for (struct vmsg_blk_request *r = list->first; r; before = r, r = r->next) {
		if (r != request)
			continue;
		if (before)
			before->next = r->next;
		else
			list->first = r->next;
		if (list->last == r)
			list->last = before;
		return true;
	}
	return false;
}

/* ---- Operations ---- */

/* Direct I/O wants aligned buffers; a driver need not have them. */
static int fd_for(const struct vmsg_file *file, const struct vmsg_blk_request *request)
{
	if (!file->direct)
		return file->fd;
	for (uint16_t i = 0; i < request->iov_count; i++) {
		if (((uintptr_t)request->iov[i].ptr | request->iov[i].len) &
		    (file->memory_align - 1))
			return file->cached_fd;
	}
	return file->fd;
}

static void transfer_op(const struct vmsg_file *file, const struct vmsg_blk_request *request,
			struct file_op *op)
{
	op->kind = request->op == VMSG_BLK_READ ? FILE_READ : FILE_WRITE;
	op->fd = fd_for(file, request);
	op->flags = op->kind == FILE_WRITE && request->durable ? RWF_DSYNC : 0;
	op->iov = (const struct iovec *)request->iov;
	op->iov_count = request->iov_count < IOV_MAX ? request->iov_count : IOV_MAX;
}

static void zero_op(const struct vmsg_file *file, const struct vmsg_blk_request *request,
		    struct file_op *op)
{
	op->fd = file->fd;
	if (request->phase == PHASE_ZEROES) {
		op->kind = FILE_ZEROES;
		op->flags = request->durable ? RWF_DSYNC : 0;
		if (op->len > FILE_ZEROES_BYTES)
			op->len = FILE_ZEROES_BYTES;
		return;
	}
	op->kind = FILE_ALLOCATE;
	op->flags = FALLOC_FL_KEEP_SIZE;
	if (request->op == VMSG_BLK_DISCARD || request->may_unmap)
		op->flags |= FALLOC_FL_PUNCH_HOLE;
	else
		op->flags |= FALLOC_FL_ZERO_RANGE;
}

void file_next_op(const struct vmsg_file *file, const struct vmsg_blk_request *request,
		  struct file_op *op)
{
	memset(op, 0, sizeof(*op));
	op->offset = request->offset_bytes;
	op->len = request->len_bytes;
	if (request->op == VMSG_BLK_FLUSH || request->phase == PHASE_SYNC) {
		op->kind = FILE_SYNC;
		op->fd = file->fd;
	} else if (request->op == VMSG_BLK_READ || request->op == VMSG_BLK_WRITE) {
		transfer_op(file, request, op);
	} else {
		zero_op(file, request, op);
	}
}

ssize_t file_perform(const struct file_op *op)
{
	off_t offset = (off_t)op->offset;
	ssize_t result = -1;

	switch (op->kind) {
	case FILE_READ:
		/* One buffer is the usual case, and pread the cheaper call. */
		if (op->iov_count == 1 && !op->flags)
			result = pread(op->fd, op->iov->iov_base, op->iov->iov_len, offset);
		else
			result = preadv2(op->fd, op->iov, op->iov_count, offset, op->flags);
		break;
	case FILE_WRITE:
		result = pwritev2(op->fd, op->iov, op->iov_count, offset, op->flags);
		break;
	case FILE_ZEROES: {
		struct iovec iov = { file_zeroes, op->len };

		result = pwritev2(op->fd, &iov, 1, offset, op->flags);
		break;
	}
	case FILE_SYNC:
		result = fdatasync(op->fd);
		break;
	case FILE_ALLOCATE:
		result = fallocate(op->fd, op->flags, offset, (off_t)op->len);
		break;
	}
	return result < 0 ? -errno : result;
}

/* ---- Results ---- */

static void advance(struct vmsg_blk_request *request, size_t bytes)
{
	request->offset_bytes += bytes;
	request->len_bytes -= bytes;
	while (request->iov_count && bytes >= request->iov->len) {
		bytes -= request->iov->len;
		request->iov++;
		request->iov_count--;
	}
	if (bytes) {
		request->iov->ptr += bytes;
		request->iov->len -= bytes;
	}
}

static bool end(struct vmsg_file *file, struct vmsg_blk_request *request, ssize_t result)
{
	if (result < 0) {
		file->counters.failed++;
		file->counters.last_error = (int)-result;
	}
	vmsg_blk_done(request, result < 0 ? VMSG_ERR_IO : 0);
	return false;
}

static bool step_transfer(struct vmsg_file *file, struct vmsg_blk_request *request, ssize_t result)
{
	/* Nothing where there should be something: the file has become shorter. */
	if (result == 0)
		result = -EIO;
	if (result < 0 || (uint64_t)result >= request->len_bytes)
		return end(file, request, result);
	file->counters.continued++;
	if (request->op == VMSG_BLK_ZERO) {
		request->offset_bytes += (uint64_t)result;
		request->len_bytes -= (uint64_t)result;
	} else {
		advance(request, (size_t)result);
	}
	request->progress = 0;
	return true;
}

/* fallocate has answered. */
static bool step_allocate(struct vmsg_file *file, struct vmsg_blk_request *request, ssize_t result)
{
	bool discard = request->op == VMSG_BLK_DISCARD;

	if (result == 0) {
		if (!request->durable)
			return end(file, request, 0);
		request->phase = PHASE_SYNC;
		return true;
	}
	if (result != -EOPNOTSUPP && result != -ENOSYS)
		return end(file, request, result);
	if (discard) {
		file->no_discard = true;
		vmsg_blk_done(request, VMSG_ERR_NOTSUP);
		return false;
	}
	if (request->may_unmap)
		file->no_unmap = true;
	else
		file->no_zero_range = true;
	request->phase = PHASE_ZEROES;
	return true;
}

bool file_step(struct vmsg_file *file, struct vmsg_blk_request *request, ssize_t result)
{
	if (result == -EINTR || result == -EAGAIN) {
		if (request->progress++ < RETRIES_MAX)
			return true;
		result = -EIO;
	}
	if (request->op == VMSG_BLK_FLUSH || request->phase == PHASE_SYNC)
		return end(file, request, result);
	if (request->op == VMSG_BLK_READ || request->op == VMSG_BLK_WRITE ||
	    request->phase == PHASE_ZEROES)
		return step_transfer(file, request, result);
	return step_allocate(file, request, result);
}

void file_cancelled(struct vmsg_blk_request *request)
{
	vmsg_blk_done(request, VMSG_ERR_IO);
}

/* ---- In place ---- */

/* Whether an attempt that does not wait has a chance. */
static bool worth_trying(const struct vmsg_file *file, const struct vmsg_blk_request *request)
{
	if (request->len_bytes > IN_PLACE_MAX_BYTES || file->direct)
		return false;
	if (file->in_memory)
		return true;
	if (request->op == VMSG_BLK_READ)
		return file->try_reads;
	/* A durable write waits for the disk by its nature. */
	return file->try_writes && !request->durable;
}

/* True: the request has ended. */
static bool transfer_in_place(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct file_op op;
	ssize_t result;

	if (!worth_trying(file, request))
		return false;
	transfer_op(file, request, &op);
	op.offset = request->offset_bytes;
	op.flags = file->in_memory ? 0 : RWF_NOWAIT;
	result = file_perform(&op);
	if (result == (ssize_t)request->len_bytes) {
		file->counters.in_place++;
		vmsg_blk_done(request, 0);
		return true;
	}
	if (result > 0) {
		advance(request, (size_t)result);
	} else if (result == -EOPNOTSUPP || result == -EINVAL) {
		/* This file system cannot promise not to wait. */
		if (request->op == VMSG_BLK_READ)
			file->try_reads = false;
		else
			file->try_writes = false;
	}
	return false; /* whatever it was, the engine will meet it, too */
}

/* ---- The backend's table ---- */

static void submit(void *backend, struct vmsg_blk_request *request)
{
	struct vmsg_file *file = backend;

	file->blk = request->blk;
	request->next = NULL;
	request->scratch = 0;
	request->progress = 0;
	request->phase = PHASE_FIRST;
	switch (request->op) {
	case VMSG_BLK_READ:
	case VMSG_BLK_WRITE:
		if (transfer_in_place(file, request))
			return;
		break;
	case VMSG_BLK_FLUSH:
		if (file->in_memory || file->info.read_only) {
			vmsg_blk_done(request, 0);
			return;
		}
		break;
	case VMSG_BLK_DISCARD:
		if (file->no_discard) {
			vmsg_blk_done(request, VMSG_ERR_NOTSUP);
			return;
		}
		break;
	default:
		if (request->may_unmap ? file->no_unmap : file->no_zero_range)
			request->phase = PHASE_ZEROES;
		break;
	}
	file->counters.queued++;
	file->engine->queue(file, request);
}

static void start(void *backend)
{
	struct vmsg_file *file = backend;

	file->engine->start(file);
}

static void cancel(void *backend, struct vmsg_blk_request *request)
{
	struct vmsg_file *file = backend;

	file->engine->cancel(file, request);
}

const struct vmsg_blk_backend vmsg_file_backend = {
	.name = "file",
	.submit = submit,
	.start = start,
	.cancel = cancel,
};

uint32_t vmsg_file_poll(struct vmsg_file *file)
{
	uint32_t count = file->engine->poll(file);

	if (count && file->blk)
		vmsg_blk_batch_done(file->blk);
	return count;
}

/* ---- The engine that is none: every operation at once, waiting ---- */

static int sync_open(struct vmsg_file *file, uint32_t depth, uint32_t threads)
{
	(void)depth;
	(void)threads;
	file->watch_fd = -1;
	return 0;
}

static void sync_close(struct vmsg_file *file)
{
	(void)file;
}

static void sync_queue(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct file_op op;

	do {
		file_next_op(file, request, &op);
	} while (file_step(file, request, file_perform(&op)));
}

static void sync_start(struct vmsg_file *file)
{
	(void)file;
}

static void sync_cancel(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	(void)file;
	(void)request;
}

static uint32_t sync_poll(struct vmsg_file *file)
{
	(void)file;
	return 0;
}

const struct file_engine file_sync = {
	.name = "sync",
	.open = sync_open,
	.close = sync_close,
	.queue = sync_queue,
	.start = sync_start,
	.cancel = sync_cancel,
	.poll = sync_poll,
};
