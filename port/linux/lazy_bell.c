/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ringing and sleeping in one system call, by io_uring, for a client that always sleeps soon after
 * it rang. The own doorbell and the socket are watched by multishot polls, which report each edge.
 */
#include "private.h"
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <vmsg/port.h>

#define ENTRIES 8

enum { RANG = 1, BELL, SOCKET };

struct vmsg_lazy_bell {
	struct io_uring ring;
	int bell_in, bell_out, socket;
	bool pending; /* to be rung with the next sleep */
	bool bell_armed, socket_armed;
};

struct vmsg_lazy_bell *vmsg_lazy_bell_new(int bell_in, int bell_out, int socket)
{
	struct vmsg_lazy_bell *lazy = calloc(1, sizeof(*lazy));

	if (!lazy)
		return NULL;
	lazy->bell_in = bell_in;
	lazy->bell_out = bell_out;
	lazy->socket = socket;
	/* Older kernels would report every ring as something that happened. */
	if (io_uring_queue_init(ENTRIES, &lazy->ring, 0) < 0) {
		free(lazy);
		return NULL;
	}
	if (!(lazy->ring.features & IORING_FEAT_CQE_SKIP) ||
	    !(lazy->ring.features & IORING_FEAT_EXT_ARG)) {
		vmsg_lazy_bell_free(lazy);
		return NULL;
	}
	return lazy;
}

void vmsg_lazy_bell_free(struct vmsg_lazy_bell *lazy)
{
	if (!lazy)
		return;
	io_uring_queue_exit(&lazy->ring);
	free(lazy);
}

void vmsg_lazy_bell_ring(struct vmsg_lazy_bell *lazy)
{
	lazy->pending = true;
}

void vmsg_lazy_bell_flush(struct vmsg_lazy_bell *lazy)
{
	if (lazy->pending)
		vmsg_ring_eventfd(lazy->bell_out);
	lazy->pending = false;
}

static struct io_uring_sqe *entry(struct vmsg_lazy_bell *lazy)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&lazy->ring);

	VMSG_ASSERT(sqe); /* at most three wait to be submitted */
	return sqe;
}

static void arm(struct vmsg_lazy_bell *lazy)
{
	if (!lazy->bell_armed) {
		struct io_uring_sqe *sqe = entry(lazy);

		io_uring_prep_poll_multishot(sqe, lazy->bell_in, POLLIN);
		io_uring_sqe_set_data64(sqe, BELL);
		lazy->bell_armed = true;
	}
	if (!lazy->socket_armed) {
		struct io_uring_sqe *sqe = entry(lazy);

		io_uring_prep_poll_multishot(sqe, lazy->socket, POLLIN | POLLRDHUP);
		io_uring_sqe_set_data64(sqe, SOCKET);
		lazy->socket_armed = true;
	}
}

static void queue_ring(struct vmsg_lazy_bell *lazy)
{
	static const uint64_t one = 1;
	struct io_uring_sqe *sqe;

	if (!lazy->pending)
		return;
	sqe = entry(lazy);
	io_uring_prep_write(sqe, lazy->bell_out, &one, sizeof(one), (uint64_t)-1);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_sqe_set_data64(sqe, RANG);
	lazy->pending = false;
}

/* What has happened, as VMSG_READY_*. */
static uint32_t reap(struct vmsg_lazy_bell *lazy)
{
	struct io_uring_cqe *cqe;
	uint32_t seen = 0;

	while (io_uring_peek_cqe(&lazy->ring, &cqe) == 0) {
		uint64_t what = io_uring_cqe_get_data64(cqe);
		bool over = !(cqe->flags & IORING_CQE_F_MORE);

		if (what == BELL) {
			seen |= VMSG_READY_BELL;
			lazy->bell_armed = !over;
		} else if (what == SOCKET) {
			seen |= VMSG_READY_SOCKET;
			lazy->socket_armed = !over;
		}
		io_uring_cqe_seen(&lazy->ring, cqe);
	}
	return seen;
}

uint32_t vmsg_lazy_bell_wait(struct vmsg_lazy_bell *lazy, int ms)
{
	struct __kernel_timespec limit = { ms / 1000, (long long)(ms % 1000) * 1000000 };
	struct io_uring_cqe *cqe;
	uint32_t seen = reap(lazy);

	arm(lazy);
	queue_ring(lazy);
	if (seen || ms == 0) {
		io_uring_submit(&lazy->ring);
		return seen | reap(lazy);
	}
	io_uring_submit_and_wait_timeout(&lazy->ring, &cqe, 1, ms < 0 ? NULL : &limit, NULL);
	return reap(lazy);
}

int vmsg_lazy_bell_fd(const struct vmsg_lazy_bell *lazy)
{
	return lazy->ring.ring_fd;
}
