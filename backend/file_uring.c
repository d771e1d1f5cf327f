/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Engine "uring": operations go to the kernel through io_uring, one system call for a batch; their
 * results are found in memory. The ring's own descriptor is readable when there are some.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "file.h"

#define ENTRIES_MAX 4096u

/* The kernel may copy in our thread; above this a thread of its own does it. */
#define INLINE_MAX_BYTES (256u << 10)

struct uring {
	struct io_uring ring;
	struct file_list waiting; /* for a place in the submission queue */
};

/* What request->scratch says. */
#define WAITING	  0u
#define IN_KERNEL 1u

static bool can_do_all(struct io_uring *ring)
{
	static const int wanted[] = {
		IORING_OP_READV, IORING_OP_WRITEV,    IORING_OP_WRITE,
		IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_ASYNC_CANCEL
	};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool all = probe != NULL;

	for (size_t i = 0; all && i < sizeof(wanted) / sizeof(wanted[0]); i++)
		all = io_uring_opcode_supported(probe, wanted[i]);
	io_uring_free_probe(probe);
	return all;
}

static int uring_open(struct vmsg_file *file, uint32_t depth, uint32_t threads)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = 2 * depth, /* the cancelling of each has a result, too */
	};
	struct uring *uring = calloc(1, sizeof(*uring));
	int rc;

	(void)threads;
	if (!uring)
		return -ENOMEM;
	rc = io_uring_queue_init_params(depth < ENTRIES_MAX ? depth : ENTRIES_MAX, &uring->ring,
					&params);
	if (rc) {
		free(uring);
		return rc;
	}
	if (!can_do_all(&uring->ring)) {
		io_uring_queue_exit(&uring->ring);
		free(uring);
		return -ENOSYS;
	}
	file->engine_data = uring;
	file->watch_fd = uring->ring.ring_fd;
	return 0;
}

static void uring_close(struct vmsg_file *file)
{
	struct uring *uring = file->engine_data;

	io_uring_queue_exit(&uring->ring);
	free(uring);
}

static void prepare(struct io_uring_sqe *sqe, const struct file_op *op)
{
	switch (op->kind) {
	case FILE_READ:
		io_uring_prep_readv2(sqe, op->fd, op->iov, (unsigned int)op->iov_count, op->offset,
				     op->flags);
		break;
	case FILE_WRITE:
		io_uring_prep_writev2(sqe, op->fd, op->iov, (unsigned int)op->iov_count, op->offset,
				      op->flags);
		break;
	case FILE_ZEROES:
		io_uring_prep_write(sqe, op->fd, file_zeroes, (unsigned int)op->len, op->offset);
		sqe->rw_flags = op->flags;
		break;
	case FILE_SYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case FILE_ALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->flags, (off_t)op->offset, (off_t)op->len);
		break;
	}
}

/* All that is to be done before the others get their turn must be short. */
static unsigned int flags_of(const struct file_op *op)
{
	bool transfer = op->kind == FILE_READ || op->kind == FILE_WRITE;

	return transfer && op->len > INLINE_MAX_BYTES ? IOSQE_ASYNC : 0;
}

static void uring_queue(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct uring *uring = file->engine_data;

	request->scratch = WAITING;
	file_list_add(&uring->waiting, request);
}

/* As many as there is room for; the others follow when some of these have ended. */
static void uring_start(struct vmsg_file *file)
{
	struct uring *uring = file->engine_data;
	struct vmsg_blk_request *request;
	struct io_uring_sqe *sqe;
	struct file_op op;

	while (uring->waiting.first && (sqe = io_uring_get_sqe(&uring->ring)) != NULL) {
		request = file_list_take(&uring->waiting);
		file_next_op(file, request, &op);
		prepare(sqe, &op);
		io_uring_sqe_set_flags(sqe, flags_of(&op));
		io_uring_sqe_set_data(sqe, request);
		request->scratch = IN_KERNEL;
	}
	/* What the kernel does not take now stays in the queue, for the next call. */
	if (io_uring_sq_ready(&uring->ring))
		io_uring_submit(&uring->ring);
}

static void uring_cancel(struct vmsg_file *file, struct vmsg_blk_request *request)
{
	struct uring *uring = file->engine_data;
	struct io_uring_sqe *sqe;

	if (request->scratch == WAITING) {
		if (file_list_remove(&uring->waiting, request))
			file_cancelled(request);
		return;
	}
	sqe = io_uring_get_sqe(&uring->ring);
	if (!sqe)
		return; /* it will end all the same, only later */
	io_uring_prep_cancel(sqe, request, 0);
	io_uring_sqe_set_data(sqe, NULL);
	io_uring_submit(&uring->ring);
}

static uint32_t uring_poll(struct vmsg_file *file)
{
	struct uring *uring = file->engine_data;
	struct io_uring_cqe *cqe;
	uint32_t count = 0;

	while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
		struct vmsg_blk_request *request = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&uring->ring, cqe);
		if (!request)
			continue; /* of a cancel */
		count++;
		if (result == -ECANCELED)
			file_cancelled(request);
		else if (file_step(file, request, result))
			uring_queue(file, request);
	}
	if (uring->waiting.first || io_uring_sq_ready(&uring->ring))
		uring_start(file);
	return count;
}

const struct file_engine file_uring = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	.queue = uring_queue,
	.start = uring_start,
	.cancel = uring_cancel,
	.poll = uring_poll,
};
