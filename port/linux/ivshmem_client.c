/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client end of the ivshmem protocol (QEMU's "ivshmem-spec"): our own server, or any other that
 * speaks it, QEMU's with several peers and vectors included. Only vector 0 of peer 0 and of our own
 * is of use here; every other descriptor is closed as it arrives.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <vmsg/port.h>

#define PROTOCOL_VERSION 0
#define MEMORY_FOLLOWS   (-1)
#define DEVICE_PEER      0
#define MAX_PEER         65535
#define MAX_FDS          16 /* taken with one message; the kernel closes what is beyond */
#define RETRY_MS         10
#define NEWS_MAX         64

static uint32_t left_ms(uint64_t deadline_us)
{
	uint64_t now_us = vmsg_clock_us();

	return now_us >= deadline_us ? 0 : (uint32_t)((deadline_us - now_us + 999u) / 1000u);
}

static int explain_connect(int rc, const char *path, char *err, size_t err_size)
{
	struct stat st;

	if (rc == ENOENT || (rc == ECONNREFUSED && stat(path, &st) == 0 && S_ISSOCK(st.st_mode)))
		return vmsg_fail(err, err_size, VMSG_ERR_NODEV,
				 "no daemon listens on %s (start one: vmsgd --bus amp:%s ...)",
				 path, path);
	if (rc == ECONNREFUSED)
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL, "%s is not a socket", path);
	return vmsg_fail(err, err_size, -rc, "cannot connect to %s: %s", path, strerror(rc));
}

static int connect_socket(struct vmsg_ivshmem_client *client, const char *path,
			  uint64_t deadline_us, char *err, size_t err_size)
{
	static const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000 };
	struct sockaddr_un name;
	int rc = vmsg_socket_name(&name, path, err, err_size);

	if (rc < 0)
		return rc;
	client->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client->socket < 0)
		return explain_connect(errno, path, err, err_size);
	while (connect(client->socket, (const struct sockaddr *)&name, sizeof(name)) < 0) {
		/* EAGAIN: too many others wait to be accepted. */
		if (errno == EAGAIN && left_ms(deadline_us)) {
			nanosleep(&pause, NULL);
			continue;
		}
		if (errno != EINTR)
			return explain_connect(errno, path, err, err_size);
	}
	return 0;
}

/* Puts a received descriptor where it belongs, or closes it. */
static int take_fds(struct vmsg_ivshmem_client *client, struct msghdr *msg)
{
	int rc = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (client->partial_fd < 0) {
				client->partial_fd = fd;
				continue;
			}
			close(fd);
			rc = VMSG_ERR_PROTO;
		}
	}
	return msg->msg_flags & MSG_CTRUNC ? VMSG_ERR_PROTO : rc;
}

/*
 * Reads towards one number and its descriptor. 1: complete. 0: nothing more is there now.
 * VMSG_ERR_SHUTDOWN: the server closed. VMSG_ERR_PROTO: more than one descriptor.
 */
static int read_number(struct vmsg_ivshmem_client *client)
{
	while (client->partial_bytes < sizeof(client->partial)) {
		union {
			struct cmsghdr header;
			uint8_t room[CMSG_SPACE(MAX_FDS * sizeof(int))];
		} control;
		/* Never more than this number, or a descriptor of the next would come along. */
		struct iovec iov = { client->partial + client->partial_bytes,
				     sizeof(client->partial) - client->partial_bytes };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = &control,
				      .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(client->socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? 0 : VMSG_ERR_SHUTDOWN;
		if (take_fds(client, &msg) < 0)
			return VMSG_ERR_PROTO;
		if (got == 0)
			return VMSG_ERR_SHUTDOWN;
		client->partial_bytes += (uint32_t)got;
	}
	return 1;
}

/* An eventfd has no file type; a pipe, socket or file in its place could make us block. */
static bool is_doorbell(int fd)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	return fstat(fd, &st) == 0 && !(st.st_mode & S_IFMT) && flags >= 0 &&
	       fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static int take_doorbell(struct vmsg_ivshmem_client *client, int64_t peer, int fd)
{
	int *place = peer == client->id    ? &client->bell_in
		     : peer == DEVICE_PEER ? &client->bell_out
					   : NULL;

	/* Further vectors, other peers: not ours to use. */
	if (!place || *place >= 0) {
		close(fd);
		return 0;
	}
	if (!is_doorbell(fd)) {
		close(fd);
		return VMSG_ERR_PROTO;
	}
	*place = fd;
	return 0;
}

/* A complete message. 0 or an error, with err when it is the memory's. */
static int take_number(struct vmsg_ivshmem_client *client, char *err, size_t err_size)
{
	int64_t number = (int64_t)vmsg_get64(client->partial);
	int fd = client->partial_fd;

	client->partial_bytes = 0;
	client->partial_fd = -1;
	if (!client->greeted) {
		vmsg_close_fd(&fd);
		client->greeted = true;
		return number == PROTOCOL_VERSION ? 0 : VMSG_ERR_NOTSUP;
	}
	if (client->id < 0) {
		vmsg_close_fd(&fd);
		client->id = number;
		return number >= 0 && number <= MAX_PEER ? 0 : VMSG_ERR_PROTO;
	}
	if (number == MEMORY_FOLLOWS) {
		if (fd >= 0 && !client->memory.ptr)
			return vmsg_shared_adopt(&client->memory, fd, err, err_size);
		vmsg_close_fd(&fd);
		return VMSG_ERR_PROTO;
	}
	if (number < 0 || number > MAX_PEER) {
		vmsg_close_fd(&fd);
		return VMSG_ERR_PROTO;
	}
	if (fd >= 0)
		return take_doorbell(client, number, fd);
	return number == DEVICE_PEER ? VMSG_ERR_SHUTDOWN : 0; /* who left */
}

static bool is_complete(const struct vmsg_ivshmem_client *client)
{
	return client->memory.ptr && client->bell_in >= 0 && client->bell_out >= 0;
}

static int explain_greeting(const struct vmsg_ivshmem_client *client, int rc, const char *path,
			    char *err, size_t err_size)
{
	if (rc == VMSG_ERR_SHUTDOWN && !client->greeted)
		return vmsg_fail(err, err_size, VMSG_ERR_BUSY,
				 "the daemon on %s has no free slot (it takes peers=N at a time)",
				 path);
	if (rc == VMSG_ERR_SHUTDOWN)
		return vmsg_fail(err, err_size, rc, "the daemon on %s left in the middle", path);
	if (rc == VMSG_ERR_NOTSUP)
		return vmsg_fail(err, err_size, rc,
				 "%s does not speak version %d of the ivshmem server protocol",
				 path, PROTOCOL_VERSION);
	if (rc == VMSG_ERR_TIMEDOUT && !client->greeted)
		return vmsg_fail(err, err_size, rc,
				 "the daemon on %s did not answer (is its device still busy?)",
				 path);
	if (rc == VMSG_ERR_TIMEDOUT && client->memory.ptr && client->id == DEVICE_PEER)
		return vmsg_fail(err, err_size, rc,
				 "%s made us peer 0: the device side has to connect first", path);
	if (rc == VMSG_ERR_TIMEDOUT && client->memory.ptr)
		return vmsg_fail(err, err_size, rc, "on %s there is no peer 0, the device side",
				 path);
	if (rc == VMSG_ERR_TIMEDOUT)
		return vmsg_fail(err, err_size, rc, "the daemon on %s stopped half-way", path);
	return vmsg_fail(err, err_size, rc, "%s does not speak the ivshmem server protocol", path);
}

static int greet(struct vmsg_ivshmem_client *client, const char *path, uint64_t deadline_us,
		 char *err, size_t err_size)
{
	int rc = 0;

	while (rc == 0 && !is_complete(client)) {
		struct pollfd ready = { .fd = client->socket, .events = POLLIN };
		uint32_t ms = left_ms(deadline_us);

		rc = read_number(client);
		if (rc == 1) {
			bool had_memory = client->memory.ptr;

			err[0] = 0;
			rc = take_number(client, err, err_size);
			if (rc < 0 && !had_memory && err[0])
				return rc;
		} else if (rc == 0 && !ms) {
			rc = VMSG_ERR_TIMEDOUT;
		} else if (rc == 0) {
			poll(&ready, 1, (int)(ms > INT32_MAX ? INT32_MAX : ms));
		}
	}
	return rc < 0 ? explain_greeting(client, rc, path, err, err_size) : 0;
}

/*
 * The doorbell is watched for edges: each write wakes, and it is never read. The socket is watched
 * for levels: what it says stays true.
 */
static int watch(struct vmsg_ivshmem_client *client)
{
	struct epoll_event bell = { .events = EPOLLIN | EPOLLET, .data.u32 = VMSG_READY_BELL };
	struct epoll_event end = { .events = EPOLLIN | EPOLLRDHUP, .data.u32 = VMSG_READY_SOCKET };

	client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (client->epoll_fd < 0 ||
	    epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->bell_in, &bell) < 0 ||
	    epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->socket, &end) < 0)
		return -errno;
	return 0;
}

int vmsg_ivshmem_connect(struct vmsg_ivshmem_client *client, const char *path, uint32_t timeout_ms,
			 char *err, size_t err_size)
{
	uint64_t deadline_us = vmsg_clock_us() + (uint64_t)timeout_ms * 1000u;
	char ignored[VMSG_ERR_TEXT];
	int rc;

	if (!err || !err_size) {
		err = ignored;
		err_size = sizeof(ignored);
	}
	*client = (struct vmsg_ivshmem_client){
		.memory.fd = -1,
		.id = -1,
		.socket = -1,
		.epoll_fd = -1,
		.bell_in = -1,
		.bell_out = -1,
		.partial_fd = -1,
	};
	rc = connect_socket(client, path, deadline_us, err, err_size);
	if (rc == 0)
		rc = greet(client, path, deadline_us, err, err_size);
	if (rc == 0) {
		rc = watch(client);
		if (rc < 0)
			vmsg_fail(err, err_size, rc, "cannot wait for a doorbell: %s",
				  strerror(-rc));
	}
	if (rc < 0)
		vmsg_ivshmem_disconnect(client);
	return rc;
}

void vmsg_ivshmem_disconnect(struct vmsg_ivshmem_client *client)
{
	vmsg_ivshmem_flush(client);
	client->gone = true;
	vmsg_lazy_bell_free(client->lazy);
	client->lazy = NULL;
	vmsg_close_fd(&client->epoll_fd);
	vmsg_close_fd(&client->socket);
	vmsg_close_fd(&client->bell_in);
	vmsg_close_fd(&client->bell_out);
	vmsg_close_fd(&client->partial_fd);
	vmsg_shared_close(&client->memory);
}

void vmsg_ivshmem_ring(struct vmsg_ivshmem_client *client)
{
	if (client->gone)
		return;
	client->rings++;
	if (client->lazy)
		vmsg_lazy_bell_ring(client->lazy);
	else
		vmsg_ring_eventfd(client->bell_out);
}

int vmsg_ivshmem_ring_lazily(struct vmsg_ivshmem_client *client)
{
	if (!client->lazy && !client->gone)
		client->lazy = vmsg_lazy_bell_new(client->bell_in, client->bell_out,
						  client->socket);
	return client->lazy ? 0 : VMSG_ERR_NOTSUP;
}

void vmsg_ivshmem_flush(struct vmsg_ivshmem_client *client)
{
	if (client->lazy && !client->gone)
		vmsg_lazy_bell_flush(client->lazy);
}

/* Peers come and go on the socket. VMSG_ERR_SHUTDOWN when the one that counts went. */
static int read_news(struct vmsg_ivshmem_client *client)
{
	int rc = 1;

	/* A few at a time: a server that never stops must not keep us here. */
	for (uint32_t i = 0; i < NEWS_MAX && rc > 0; i++) {
		rc = read_number(client);
		if (rc > 0 && take_number(client, NULL, 0) < 0)
			rc = VMSG_ERR_SHUTDOWN;
	}
	if (rc < 0) {
		client->gone = true;
		return VMSG_ERR_SHUTDOWN;
	}
	return 0;
}

/* Sleeps in poll() when there are others to wait for. 1: one of them is ready. */
static int wait_also(struct vmsg_ivshmem_client *client, int *ms, struct pollfd *also,
		     uint32_t count)
{
	struct pollfd all[1 + VMSG_IVSHMEM_MAX_ALSO];
	int ready, rc = 0;

	VMSG_ASSERT(count <= VMSG_IVSHMEM_MAX_ALSO);
	vmsg_ivshmem_flush(client);
	all[0].fd = client->lazy ? vmsg_lazy_bell_fd(client->lazy) : client->epoll_fd;
	all[0].events = POLLIN;
	memcpy(all + 1, also, count * sizeof(*also));
	ready = poll(all, 1 + count, *ms);
	for (uint32_t i = 0; i < count; i++) {
		also[i].revents = ready > 0 ? all[1 + i].revents : 0;
		if (also[i].revents)
			rc = 1;
	}
	*ms = 0;
	return rc;
}

/* What woke us: VMSG_READY_*. */
static uint32_t sleep_until(struct vmsg_ivshmem_client *client, int ms)
{
	struct epoll_event events[2];
	uint32_t seen = 0;
	int ready;

	if (client->lazy)
		return vmsg_lazy_bell_wait(client->lazy, ms);
	ready = epoll_wait(client->epoll_fd, events, 2, ms);
	for (int i = 0; i < ready; i++)
		seen |= events[i].data.u32;
	return seen;
}

int vmsg_ivshmem_wait(struct vmsg_ivshmem_client *client, int ms, struct pollfd *also,
		      uint32_t count)
{
	uint32_t seen;
	int rc = 0;

	if (client->memory.lost)
		client->gone = true;
	if (client->gone)
		return VMSG_ERR_SHUTDOWN;
	client->sleeps++;
	if (count)
		rc = wait_also(client, &ms, also, count);
	seen = sleep_until(client, ms);
	if ((seen & VMSG_READY_SOCKET) && read_news(client) < 0)
		return VMSG_ERR_SHUTDOWN;
	return seen & VMSG_READY_BELL ? 1 : rc;
}
