/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rings eventfds that a hostile client also holds. Such a client can take O_NONBLOCK away, which is
 * shared, and fill the counter: then our write blocks. No flag of a write can prevent that, so a
 * thread watches over it. It sleeps while nobody is connected, takes no part in ringing, and frees
 * a write that has not come back for a while by emptying the counter.
 */
#include "private.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOOK_MS  50 /* a write that is found going on twice is stuck */
#define ALERT_MS 4  /* the same, once there was a hostile client: it will be back */

struct vmsg_guard {
	pthread_t thread;
	pthread_mutex_t lock; /* of fds and end: a descriptor is closed only when it is not here */
	int fds[VMSG_IVSHMEM_MAX_PEERS];
	bool end;
	int wake_fd;
	/* Written by the loop's thread: odd while it rings, and for whom. */
	uint32_t serial, index;
	uint32_t freed; /* written by the guard: the serial that it had to free */
};

static bool anyone(const struct vmsg_guard *guard)
{
	for (uint32_t i = 0; i < VMSG_IVSHMEM_MAX_PEERS; i++) {
		if (guard->fds[i] >= 0)
			return true;
	}
	return false;
}

/* A full counter takes no more. A thread that only waits for its processor is not stuck. */
static bool is_full(int fd)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };

	return fd >= 0 && poll(&room, 1, 0) == 0;
}

static void empty(int fd)
{
	uint64_t value;
	struct iovec iov = { &value, sizeof(value) };

	/* Not read(): the client could drain the counter first, and it would be us who block. */
	(void)!preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
}

static void *watch(void *arg)
{
	struct vmsg_guard *guard = arg;
	bool end = false, busy = false;
	uint32_t last = 0;
	int look_ms = LOOK_MS;

	while (!end) {
		struct pollfd wake = { .fd = guard->wake_fd, .events = POLLIN };
		uint32_t serial;
		uint64_t value;
		int fd;

		if (poll(&wake, 1, busy ? look_ms : -1) > 0)
			(void)!read(guard->wake_fd, &value, sizeof(value));
		pthread_mutex_lock(&guard->lock);
		serial = __atomic_load_n(&guard->serial, __ATOMIC_ACQUIRE);
		fd = guard->fds[__atomic_load_n(&guard->index, __ATOMIC_RELAXED)];
		if (serial % 2 && serial == last && is_full(fd)) {
			__atomic_store_n(&guard->freed, serial, __ATOMIC_RELEASE);
			empty(fd);
			look_ms = ALERT_MS;
		}
		last = serial;
		busy = anyone(guard);
		end = guard->end;
		pthread_mutex_unlock(&guard->lock);
	}
	return NULL;
}

static void wake(struct vmsg_guard *guard)
{
	vmsg_ring_eventfd(guard->wake_fd);
}

/* Signals are for the loop. */
static int start_thread(struct vmsg_guard *guard)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&guard->thread, NULL, watch, guard);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

struct vmsg_guard *vmsg_guard_new(void)
{
	struct vmsg_guard *guard = calloc(1, sizeof(*guard));

	if (!guard)
		return NULL;
	for (uint32_t i = 0; i < VMSG_IVSHMEM_MAX_PEERS; i++)
		guard->fds[i] = -1;
	pthread_mutex_init(&guard->lock, NULL);
	guard->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (guard->wake_fd >= 0 && start_thread(guard) == 0)
		return guard;
	vmsg_close_fd(&guard->wake_fd);
	pthread_mutex_destroy(&guard->lock);
	free(guard);
	return NULL;
}

void vmsg_guard_free(struct vmsg_guard *guard)
{
	if (!guard)
		return;
	pthread_mutex_lock(&guard->lock);
	guard->end = true;
	pthread_mutex_unlock(&guard->lock);
	wake(guard);
	pthread_join(guard->thread, NULL);
	vmsg_close_fd(&guard->wake_fd);
	pthread_mutex_destroy(&guard->lock);
	free(guard);
}

void vmsg_guard_set(struct vmsg_guard *guard, uint32_t index, int fd)
{
	pthread_mutex_lock(&guard->lock);
	guard->fds[index] = fd;
	pthread_mutex_unlock(&guard->lock);
	wake(guard);
}

bool vmsg_guard_ring(struct vmsg_guard *guard, uint32_t index, int fd)
{
	uint32_t serial = guard->serial + 1;

	__atomic_store_n(&guard->index, index, __ATOMIC_RELAXED);
	__atomic_store_n(&guard->serial, serial, __ATOMIC_RELEASE);
	vmsg_ring_eventfd(fd);
	__atomic_store_n(&guard->serial, serial + 1, __ATOMIC_RELEASE);
	return __atomic_load_n(&guard->freed, __ATOMIC_ACQUIRE) != serial;
}
