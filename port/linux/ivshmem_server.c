/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server end of the ivshmem protocol (QEMU's "ivshmem-spec"). We are peer 0 ourselves, and
 * each client sees peer 0 and itself only: slots do not share memory, so they need not know of each
 * other.
 *
 * A client is told all it needs in one go, 40 bytes that an empty socket always takes. After that
 * nothing passes over the socket: whatever a client sends is garbage, and its end is the client's.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/sockios.h>
#include <vmsg/port.h>

#define PROTOCOL_VERSION 0
#define MEMORY_FOLLOWS   (-1)
#define OWN_PEER         0
#define CHECK_MS         100  /* between looks at what waits for something */
#define GREETING_MS      2000 /* a client has this long to read it */

static int send_number(int fd, int64_t number, int passed)
{
	union {
		struct cmsghdr header;
		uint8_t room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	uint8_t bytes[8];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	vmsg_put64(bytes, (uint64_t)number);
	if (passed >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &passed, sizeof(int));
	}
	sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	return sent == (ssize_t)sizeof(bytes) ? 0 : VMSG_ERR_AGAIN;
}

static int send_greeting(const struct vmsg_ivshmem_slot *slot)
{
	const struct {
		int64_t number;
		int passed;
	} greeting[] = {
		{ PROTOCOL_VERSION, -1 },
		{ slot->index + 1, -1 },
		{ MEMORY_FOLLOWS, slot->memory->fd },
		{ OWN_PEER, slot->bell.fd },
		{ slot->index + 1, slot->bell_out },
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof(greeting) / sizeof(*greeting); i++)
		rc = send_number(slot->socket.fd, greeting[i].number, greeting[i].passed);
	return rc;
}

static void close_watch(struct vmsg_events *events, struct vmsg_watch *watch)
{
	if (watch->fd < 0)
		return;
	vmsg_events_remove(events, watch);
	vmsg_close_fd(&watch->fd);
}

void vmsg_ivshmem_drop(struct vmsg_ivshmem_slot *slot)
{
	struct vmsg_ivshmem_server *server = slot->server;
	bool was_connected = slot->state == VMSG_IVSHMEM_CONNECTED;

	close_watch(server->events, &slot->socket);
	close_watch(server->events, &slot->bell);
	vmsg_guard_set(server->guard, slot->index, -1);
	vmsg_close_fd(&slot->bell_out);
	slot->state = VMSG_IVSHMEM_FREE;
	slot->pid = 0;
	if (was_connected)
		server->disconnected(slot);
}

static void check_later(struct vmsg_ivshmem_server *server)
{
	if (!server->timer.armed)
		vmsg_events_start_timer(server->events, &server->timer, CHECK_MS, CHECK_MS);
}

static void on_bell(struct vmsg_watch *watch, uint32_t ready)
{
	struct vmsg_ivshmem_slot *slot = watch->user;

	(void)ready;
	slot->server->doorbell(slot);
}

/* Gives a waiting client its memory and doorbells. */
static void greet(struct vmsg_ivshmem_slot *slot)
{
	struct vmsg_ivshmem_server *server = slot->server;

	/* New ones each time: who was here before keeps the old ones. */
	slot->bell_out = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	slot->bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	slot->bell.events = EPOLLIN | EPOLLET;
	if (slot->bell_out < 0 || slot->bell.fd < 0 ||
	    vmsg_events_add(server->events, &slot->bell) < 0) {
		vmsg_close_fd(&slot->bell.fd);
		server->counters.no_resources++;
		vmsg_ivshmem_drop(slot);
		return;
	}
	if (send_greeting(slot) < 0) {
		server->counters.silent++;
		vmsg_ivshmem_drop(slot);
		return;
	}
	vmsg_guard_set(server->guard, slot->index, slot->bell_out);
	slot->state = VMSG_IVSHMEM_CONNECTED;
	slot->checked = slot->hostile = false;
	slot->since_ms = vmsg_clock_ms();
	check_later(server);
	server->connected(slot);
}

void vmsg_ivshmem_hold(struct vmsg_ivshmem_slot *slot, bool hold)
{
	slot->hold = hold;
	if (!hold && slot->state == VMSG_IVSHMEM_WAITING)
		greet(slot);
}

void vmsg_ivshmem_ring_slot(struct vmsg_ivshmem_slot *slot)
{
	if (slot->state != VMSG_IVSHMEM_CONNECTED || slot->hostile ||
	    vmsg_guard_ring(slot->server->guard, slot->index, slot->bell_out))
		return;
	/* Whoever rings is in the middle of something: the end comes with the next timer. */
	slot->hostile = true;
	slot->server->counters.hostile++;
	check_later(slot->server);
}

static void on_socket(struct vmsg_watch *watch, uint32_t ready)
{
	struct vmsg_ivshmem_slot *slot = watch->user;
	uint8_t byte;
	ssize_t got;

	(void)ready;
	got = recv(watch->fd, &byte, 1, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0)
		slot->server->counters.garbage++;
	vmsg_ivshmem_drop(slot);
}

/* True when the slot's client has gone, or sent something, and we have not come to see it yet. */
static bool is_over(const struct vmsg_ivshmem_slot *slot)
{
	uint8_t byte;

	return recv(slot->socket.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno == ECONNRESET;
}

static struct vmsg_ivshmem_slot *find_free(struct vmsg_ivshmem_server *server)
{
	for (uint32_t i = 0; i < server->slot_count; i++) {
		if (server->slots[i].state == VMSG_IVSHMEM_FREE)
			return &server->slots[i];
	}
	/* A peer that was killed and is back at once: its old end may not have come up yet. */
	for (uint32_t i = 0; i < server->slot_count; i++) {
		if (is_over(&server->slots[i])) {
			vmsg_ivshmem_drop(&server->slots[i]);
			return &server->slots[i];
		}
	}
	return NULL;
}

static void take_client(struct vmsg_ivshmem_server *server, int fd)
{
	struct vmsg_ivshmem_slot *slot = find_free(server);
	struct ucred who = { 0 };
	socklen_t size = sizeof(who);

	if (!slot) {
		server->counters.refused++;
		close(fd);
		return;
	}
	slot->socket.fd = fd;
	slot->socket.events = EPOLLIN | EPOLLRDHUP;
	if (vmsg_events_add(server->events, &slot->socket) < 0) {
		server->counters.no_resources++;
		vmsg_close_fd(&slot->socket.fd);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0)
		slot->pid = who.pid;
	server->counters.accepted++;
	slot->state = VMSG_IVSHMEM_WAITING;
	if (!slot->hold)
		greet(slot);
}

static int accept_client(const struct vmsg_ivshmem_server *server)
{
	return accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

/*
 * No descriptor is left for a client, and the listener stays ready: turn the client away with a
 * descriptor kept for that, or leave it alone for a while.
 */
static void turn_away(struct vmsg_ivshmem_server *server)
{
	int fd;

	server->counters.no_resources++;
	vmsg_close_fd(&server->spare_fd);
	fd = accept_client(server);
	vmsg_close_fd(&fd);
	server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (server->spare_fd < 0) {
		server->paused = true;
		vmsg_events_modify(server->events, &server->watch, 0);
		check_later(server);
	}
}

static void on_listener(struct vmsg_watch *watch, uint32_t ready)
{
	struct vmsg_ivshmem_server *server = watch->user;
	int fd = accept_client(server);

	(void)ready;
	if (fd >= 0)
		take_client(server, fd);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		turn_away(server);
}

/* A client that does not read its greeting holds a slot for nothing. */
static bool check_slot(struct vmsg_ivshmem_slot *slot)
{
	int unread = 0;

	if (slot->state == VMSG_IVSHMEM_CONNECTED && slot->hostile)
		vmsg_ivshmem_drop(slot);
	if (slot->state != VMSG_IVSHMEM_CONNECTED || slot->checked)
		return true;
	if (ioctl(slot->socket.fd, SIOCOUTQ, &unread) < 0 || unread == 0) {
		slot->checked = true;
		return true;
	}
	if (vmsg_clock_ms() - slot->since_ms < GREETING_MS)
		return false;
	slot->server->counters.silent++;
	vmsg_ivshmem_drop(slot);
	return true;
}

static void on_timer(struct vmsg_timer *timer)
{
	struct vmsg_ivshmem_server *server = timer->user;
	bool done = true;

	if (server->paused) {
		server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		server->paused = server->spare_fd < 0;
		if (!server->paused)
			vmsg_events_modify(server->events, &server->watch, EPOLLIN);
		done = !server->paused;
	}
	for (uint32_t i = 0; i < server->slot_count; i++) {
		if (!check_slot(&server->slots[i]))
			done = false;
	}
	if (done)
		vmsg_events_stop_timer(server->events, timer);
}

int vmsg_ivshmem_open(struct vmsg_ivshmem_server *server, const char *path, uint32_t mode,
		      char *err, size_t err_size)
{
	int rc;

	VMSG_ASSERT(server->slot_count && server->slot_count <= VMSG_IVSHMEM_MAX_PEERS);
	for (uint32_t i = 0; i < server->slot_count; i++) {
		struct vmsg_ivshmem_slot *slot = &server->slots[i];

		slot->server = server;
		slot->index = i;
		slot->state = VMSG_IVSHMEM_FREE;
		slot->bell_out = -1;
		slot->socket = (struct vmsg_watch){ .fd = -1, .ready = on_socket, .user = slot };
		slot->bell = (struct vmsg_watch){ .fd = -1, .ready = on_bell, .user = slot };
	}
	server->counters = (struct vmsg_ivshmem_counters){ 0 };
	server->timer = (struct vmsg_timer){ .fire = on_timer, .user = server };
	server->paused = false;
	server->spare_fd = -1;
	rc = vmsg_listen(&server->listener, path, mode, err, err_size);
	if (rc < 0)
		return rc;
	server->watch = (struct vmsg_watch){
		.fd = server->listener.fd,
		.events = EPOLLIN,
		.ready = on_listener,
		.user = server,
	};
	server->guard = vmsg_guard_new();
	server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	rc = server->spare_fd < 0 ? -errno : server->guard ? 0 : -EAGAIN;
	if (rc == 0)
		rc = vmsg_events_add(server->events, &server->watch);
	if (rc < 0) {
		vmsg_guard_free(server->guard);
		vmsg_close_fd(&server->spare_fd);
		vmsg_unlisten(&server->listener);
		return vmsg_fail(err, err_size, rc, "cannot serve %s: %s", path, strerror(-rc));
	}
	return 0;
}

void vmsg_ivshmem_close(struct vmsg_ivshmem_server *server)
{
	if (server->listener.fd < 0)
		return;
	vmsg_events_remove(server->events, &server->watch);
	vmsg_events_stop_timer(server->events, &server->timer);
	for (uint32_t i = 0; i < server->slot_count; i++) {
		struct vmsg_ivshmem_slot *slot = &server->slots[i];

		/* A peer without a doorbell has left: the protocol's good-bye. */
		if (slot->state == VMSG_IVSHMEM_CONNECTED)
			send_number(slot->socket.fd, OWN_PEER, -1);
		vmsg_ivshmem_drop(slot);
	}
	vmsg_events_stop_timer(server->events, &server->timer);
	vmsg_guard_free(server->guard);
	server->guard = NULL;
	vmsg_close_fd(&server->spare_fd);
	vmsg_unlisten(&server->listener);
}
