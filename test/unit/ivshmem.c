/* SPDX-License-Identifier: BSD-3-Clause */
/* The ivshmem server protocol: our server against raw sockets. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmsg/linux.h>

#define BYTES     65536u
#define MAX_SLOTS 3u

static char folder[64];
static char path[VMSG_PATH_BYTES];

static uint32_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

/* ---- Our server, and what it said ---- */

struct fixture {
	struct vmsg_events events;
	struct vmsg_ivshmem_server server;
	struct vmsg_ivshmem_slot slots[MAX_SLOTS];
	struct vmsg_shared memory[MAX_SLOTS];
	uint32_t connected, doorbells, disconnected, last;
	bool hold_after;
	uint32_t fds_before;
};

static void on_connected(struct vmsg_ivshmem_slot *slot)
{
	struct fixture *fixture = slot->server->user;

	fixture->connected++;
	fixture->last = slot->index;
}

static void on_doorbell(struct vmsg_ivshmem_slot *slot)
{
	struct fixture *fixture = slot->server->user;

	fixture->doorbells++;
	fixture->last = slot->index;
}

static void on_disconnected(struct vmsg_ivshmem_slot *slot)
{
	struct fixture *fixture = slot->server->user;

	fixture->disconnected++;
	fixture->last = slot->index;
	if (fixture->hold_after)
		vmsg_ivshmem_hold(slot, true);
}

/* No checks in here: child processes use it too. */
static int start_server(struct fixture *fixture, uint32_t slots, char *err)
{
	int rc;

	memset(fixture, 0, sizeof(*fixture));
	fixture->fds_before = count_fds();
	rc = vmsg_events_open(&fixture->events, 0);
	for (uint32_t i = 0; rc == 0 && i < slots; i++) {
		rc = vmsg_shared_create(&fixture->memory[i], "test", BYTES, err, VMSG_ERR_TEXT);
		fixture->slots[i].memory = &fixture->memory[i];
		if (rc == 0)
			fixture->memory[i].ptr[100] = (uint8_t)('A' + i);
	}
	fixture->server = (struct vmsg_ivshmem_server){
		.events = &fixture->events,
		.slots = fixture->slots,
		.slot_count = slots,
		.connected = on_connected,
		.doorbell = on_doorbell,
		.disconnected = on_disconnected,
		.user = fixture,
	};
	return rc ? rc : vmsg_ivshmem_open(&fixture->server, path, 0600, err, VMSG_ERR_TEXT);
}

static void open_server(struct fixture *fixture, uint32_t slots)
{
	char err[VMSG_ERR_TEXT] = "";
	int rc = start_server(fixture, slots, err);

	CHECK_STR(err, "");
	CHECK_EQ(rc, 0);
}

static void close_server(struct fixture *fixture)
{
	struct stat st;

	vmsg_ivshmem_close(&fixture->server);
	vmsg_events_close(&fixture->events);
	for (uint32_t i = 0; i < fixture->server.slot_count; i++)
		vmsg_shared_close(&fixture->memory[i]);
	CHECK_EQ(count_fds(), fixture->fds_before);
	CHECK(lstat(path, &st) < 0 && errno == ENOENT);
}

static void turn(struct fixture *fixture)
{
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQ(vmsg_events_turn(&fixture->events, 1), 0);
}

/* ---- A client by hand ---- */

static int dial(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(name.sun_path, path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One message of the server: its 8 bytes, and *fd or -1. The number of bytes. */
static ssize_t hear(int socket_fd, uint8_t bytes[8], int *fd)
{
	union {
		struct cmsghdr header;
		uint8_t room[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec iov = { bytes, 8 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(socket_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	*fd = -1;
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return got;
}

struct raw {
	int socket, memory, out, in;
};

static void expect(int socket_fd, int64_t number, int *fd, bool with_fd)
{
	uint8_t want[8], got[8];

	for (uint32_t i = 0; i < 8; i++)
		want[i] = (uint8_t)((uint64_t)number >> 8 * i);
	CHECK_EQ(hear(socket_fd, got, fd), 8);
	CHECK_MEM(got, want, 8);
	CHECK_EQ(*fd >= 0, with_fd);
}

static void greet(struct fixture *fixture, struct raw *raw, int64_t id)
{
	uint8_t bytes[8];
	int fd;

	raw->socket = dial();
	CHECK(raw->socket >= 0);
	turn(fixture);
	expect(raw->socket, 0, &fd, false);
	expect(raw->socket, id, &fd, false);
	expect(raw->socket, -1, &raw->memory, true);
	expect(raw->socket, 0, &raw->out, true);
	expect(raw->socket, id, &raw->in, true);
	CHECK(hear(raw->socket, bytes, &fd) < 0 && errno == EAGAIN);
}

static void hang_up(struct raw *raw)
{
	close(raw->socket);
	close(raw->memory);
	close(raw->out);
	close(raw->in);
}

static bool is_closed(int fd)
{
	uint8_t byte;
	ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);

	return got == 0 || (got < 0 && errno == ECONNRESET);
}

static void handshake(void *arg)
{
	static const uint64_t one = 1;
	struct fixture fixture;
	struct raw raw;
	struct stat st;
	uint64_t value;
	uint8_t *seen;

	(void)arg;
	open_server(&fixture, 2);
	greet(&fixture, &raw, 1);
	CHECK_EQ(fixture.connected, 1);
	CHECK_EQ(fixture.slots[0].pid, getpid());
	CHECK_EQ(fstat(raw.memory, &st), 0);
	CHECK_EQ(st.st_size, BYTES);
	/* Neither side can take the pages away, and nobody can change that. */
	CHECK_EQ(fcntl(raw.memory, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	CHECK(ftruncate(raw.memory, 0) < 0 && errno == EPERM);
	seen = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, raw.memory, 0);
	CHECK(seen != MAP_FAILED);
	CHECK_EQ(seen[100], 'A');
	seen[101] = 'z';
	CHECK_EQ(fixture.memory[0].ptr[101], 'z');
	munmap(seen, BYTES);

	for (uint32_t i = 1; i <= 3; i++) {
		CHECK_EQ(write(raw.out, &one, 8), 8);
		turn(&fixture);
		CHECK_EQ(fixture.doorbells, i);
	}
	CHECK(read(raw.in, &value, 8) < 0 && errno == EAGAIN);
	vmsg_ivshmem_ring_slot(&fixture.slots[0]);
	CHECK_EQ(read(raw.in, &value, 8), 8);
	CHECK_EQ(value, 1);
	/* A counter that is full is no obstacle. */
	value = UINT64_MAX - 1;
	CHECK_EQ(write(raw.in, &value, 8), 8);
	vmsg_ivshmem_ring_slot(&fixture.slots[0]);

	hang_up(&raw);
	turn(&fixture);
	CHECK_EQ(fixture.disconnected, 1);
	CHECK_EQ(fixture.slots[0].state, VMSG_IVSHMEM_FREE);
	close_server(&fixture);
}

static void several_peers(void *arg)
{
	static const uint64_t one = 1;
	struct fixture fixture;
	struct raw first, second, third;
	uint8_t byte;
	int fourth;

	(void)arg;
	open_server(&fixture, 3);
	greet(&fixture, &first, 1);
	greet(&fixture, &second, 2);
	greet(&fixture, &third, 3);
	/* Each has memory of its own, and doorbells of its own. */
	CHECK_EQ(pread(first.memory, &byte, 1, 100), 1);
	CHECK_EQ(byte, 'A');
	CHECK_EQ(pread(second.memory, &byte, 1, 100), 1);
	CHECK_EQ(byte, 'B');
	CHECK_EQ(pread(third.memory, &byte, 1, 100), 1);
	CHECK_EQ(byte, 'C');
	CHECK_EQ(write(second.out, &one, 8), 8);
	turn(&fixture);
	CHECK_EQ(fixture.doorbells, 1);
	CHECK_EQ(fixture.last, 1);

	fourth = dial();
	turn(&fixture);
	CHECK(is_closed(fourth));
	close(fourth);
	CHECK_EQ(fixture.server.counters.refused, 1);
	CHECK_EQ(fixture.connected, 3);

	/* The smallest free number is given again. */
	hang_up(&second);
	turn(&fixture);
	CHECK_EQ(fixture.disconnected, 1);
	greet(&fixture, &second, 2);
	hang_up(&third);
	hang_up(&first);
	turn(&fixture);
	greet(&fixture, &first, 1);
	hang_up(&first);
	hang_up(&second);
	turn(&fixture);
	CHECK_EQ(fixture.disconnected, 5);
	close_server(&fixture);
}

/* Who comes back before the loop has seen the end of the old connection is not refused. */
static void back_at_once(void *arg)
{
	struct fixture fixture;
	struct raw raw;
	int next;

	(void)arg;
	open_server(&fixture, 1);
	greet(&fixture, &raw, 1);
	for (uint32_t i = 0; i < 50; i++) {
		hang_up(&raw);
		greet(&fixture, &raw, 1);
	}
	CHECK_EQ(fixture.server.counters.refused, 0);
	CHECK_EQ(fixture.connected, 51);
	CHECK_EQ(fixture.disconnected, 50);
	/* Even when the new connection comes up first. */
	next = dial();
	hang_up(&raw);
	turn(&fixture);
	CHECK_EQ(fixture.server.counters.refused, 0);
	CHECK_EQ(fixture.connected, 52);
	CHECK(!is_closed(next));
	close(next);
	close_server(&fixture);
}

static void hold(void *arg)
{
	struct fixture fixture;
	struct raw raw, next;
	uint8_t bytes[8];
	int fd, early;

	(void)arg;
	open_server(&fixture, 1);
	fixture.hold_after = true;
	greet(&fixture, &raw, 1);
	hang_up(&raw);
	turn(&fixture);
	CHECK(fixture.slots[0].hold);
	/* The next one waits, and one that gives up waiting leaves nothing behind. */
	early = dial();
	turn(&fixture);
	CHECK_EQ(fixture.slots[0].state, VMSG_IVSHMEM_WAITING);
	CHECK(hear(early, bytes, &fd) < 0 && errno == EAGAIN);
	close(early);
	turn(&fixture);
	CHECK_EQ(fixture.slots[0].state, VMSG_IVSHMEM_FREE);
	CHECK_EQ(fixture.disconnected, 1);
	next.socket = dial();
	turn(&fixture);
	CHECK(hear(next.socket, bytes, &fd) < 0 && errno == EAGAIN);
	vmsg_ivshmem_hold(&fixture.slots[0], false);
	CHECK_EQ(fixture.connected, 2);
	CHECK_EQ(hear(next.socket, bytes, &fd), 8);
	close(next.socket);
	turn(&fixture);
	CHECK_EQ(fixture.disconnected, 2);
	close_server(&fixture);
}

static void garbage(void *arg)
{
	struct fixture fixture;
	struct raw raw;
	int fd;

	(void)arg;
	open_server(&fixture, 1);
	greet(&fixture, &raw, 1);
	CHECK_EQ(write(raw.socket, "GET / HTTP/1.1\r\n\r\n", 18), 18);
	turn(&fixture);
	CHECK(is_closed(raw.socket));
	hang_up(&raw);
	CHECK_EQ(fixture.server.counters.garbage, 1);
	CHECK_EQ(fixture.disconnected, 1);

	/* Before it has read anything. */
	fd = dial();
	CHECK_EQ(write(fd, "x", 1), 1);
	turn(&fixture);
	CHECK_EQ(fixture.server.counters.garbage, 2);
	close(fd);

	/* Half a close is a close. */
	greet(&fixture, &raw, 1);
	CHECK_EQ(shutdown(raw.socket, SHUT_WR), 0);
	turn(&fixture);
	CHECK(is_closed(raw.socket));
	hang_up(&raw);
	CHECK_EQ(fixture.disconnected, fixture.connected);
	close_server(&fixture);
}

/*
 * A client takes O_NONBLOCK off its doorbell, which it shares with us, and fills the counter: the
 * next ring would block for good.
 */
static void hostile_doorbell(void *arg)
{
	struct fixture fixture;
	struct raw hostile, honest;
	uint64_t value = UINT64_MAX - 1;
	uint32_t start_ms, took_ms;

	(void)arg;
	open_server(&fixture, 2);
	greet(&fixture, &hostile, 1);
	greet(&fixture, &honest, 2);
	CHECK_EQ(write(hostile.in, &value, 8), 8);
	CHECK_EQ(fcntl(hostile.in, F_SETFL, 0), 0);
	start_ms = vmsg_clock_ms();
	alarm(20); /* kills the test, should it be right */
	vmsg_ivshmem_ring_slot(&fixture.slots[0]);
	took_ms = vmsg_clock_ms() - start_ms;
	alarm(0);
	CHECK(took_ms < 2000);
	CHECK_EQ(fixture.server.counters.hostile, 1);
	/* Filled again, it is not rung again, and dropped soon. */
	fcntl(hostile.in, F_SETFL, O_NONBLOCK);
	(void)!read(hostile.in, &value, 8);
	value = UINT64_MAX - 1;
	CHECK_EQ(write(hostile.in, &value, 8), 8);
	fcntl(hostile.in, F_SETFL, 0);
	vmsg_ivshmem_ring_slot(&fixture.slots[0]);
	for (uint32_t i = 0; i < 40 && !fixture.disconnected; i++)
		vmsg_events_turn(&fixture.events, 50);
	CHECK_EQ(fixture.disconnected, 1);
	CHECK(is_closed(hostile.socket));
	/* The other one is served on, and a slow system is not mistaken for an attack. */
	for (uint32_t i = 0; i < 20; i++) {
		vmsg_ivshmem_ring_slot(&fixture.slots[1]);
		usleep(10000);
	}
	CHECK_EQ(read(honest.in, &value, 8), 8);
	CHECK_EQ(value, 20);
	CHECK_EQ(fixture.server.counters.hostile, 1);
	hang_up(&hostile);
	hang_up(&honest);
	close_server(&fixture);
}

static void silent(void *arg)
{
	struct fixture fixture;
	struct raw raw;
	uint32_t start_ms;
	int fd;

	(void)arg;
	open_server(&fixture, 2);
	greet(&fixture, &raw, 1);
	fd = dial();
	start_ms = vmsg_clock_ms();
	while (!fixture.server.counters.silent && vmsg_clock_ms() - start_ms < 10000)
		vmsg_events_turn(&fixture.events, 100);
	CHECK(vmsg_clock_ms() - start_ms >= 1900);
	CHECK_EQ(fixture.server.counters.silent, 1);
	CHECK_EQ(fixture.slots[1].state, VMSG_IVSHMEM_FREE);
	/* The one who read it stays, and nothing is left to be watched. */
	CHECK_EQ(fixture.slots[0].state, VMSG_IVSHMEM_CONNECTED);
	CHECK(!fixture.server.timer.armed);
	close(fd);
	hang_up(&raw);
	close_server(&fixture);
}

/* ---- Clients that are killed ---- */

/* A child does not outlive the test, however that ends. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(9);
}

/* A child that goes `steps` messages far, says so, and waits for its end. */
static pid_t child_client(uint32_t steps, int *ready)
{
	int pipes[2];
	pid_t pid, parent = getpid();

	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		int fd = dial(), passed;
		uint8_t bytes[8];

		die_with(parent);
		for (uint32_t i = 0; fd >= 0 && i < steps;) {
			struct pollfd wait = { .fd = fd, .events = POLLIN };

			poll(&wait, 1, 5000);
			if (hear(fd, bytes, &passed) == 8)
				i++;
		}
		if (fd < 0 || write(pipes[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(pipes[1]);
	*ready = pipes[0];
	return pid;
}

static void killed_clients(void *arg)
{
	struct fixture fixture;
	struct raw raw;

	(void)arg;
	open_server(&fixture, 1);
	for (uint32_t steps = 0; steps <= 5; steps++) {
		uint32_t start_ms = vmsg_clock_ms();
		struct pollfd told = { .events = POLLIN };
		pid_t pid = child_client(steps, &told.fd);

		test_context("killed after %u messages", steps);
		CHECK(pid > 0);
		while (poll(&told, 1, 0) == 0 && vmsg_clock_ms() - start_ms < 5000)
			vmsg_events_turn(&fixture.events, 1);
		CHECK(told.revents & POLLIN);
		if (steps % 2)
			turn(&fixture);
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		close(told.fd);
		turn(&fixture);
		turn(&fixture);
		CHECK_EQ(fixture.slots[0].state, VMSG_IVSHMEM_FREE);
		CHECK_EQ(fixture.connected, fixture.disconnected);
		greet(&fixture, &raw, 1);
		hang_up(&raw);
		turn(&fixture);
	}
	close_server(&fixture);
}

/* ---- The name ---- */

static void leave_stale(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(name.sun_path, path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	CHECK_EQ(listen(fd, 1), 0);
	close(fd);
}

static void names(void *arg)
{
	char err[VMSG_ERR_TEXT] = "", saved[VMSG_PATH_BYTES], longer[200] = "";
	struct fixture fixture, other;
	struct vmsg_listener listener;
	struct raw raw;
	struct stat st;
	mode_t mask;
	FILE *file;

	(void)arg;
	strcpy(saved, path);
	/* A stale one is replaced, whatever the umask says about the rights. */
	leave_stale();
	mask = umask(0777);
	open_server(&fixture, 1);
	umask(mask);
	CHECK_EQ(lstat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	/* A living one is not touched, and does not mind being asked. */
	CHECK_EQ(start_server(&other, 1, err), VMSG_ERR_BUSY);
	CHECK(strstr(err, path) && strstr(err, "served by another process"));
	vmsg_shared_close(&other.memory[0]);
	vmsg_events_close(&other.events);
	turn(&fixture);
	greet(&fixture, &raw, 1);
	hang_up(&raw);
	/* The name belongs to another by the time we leave: it stays. */
	CHECK_EQ(unlink(path), 0);
	leave_stale();
	vmsg_ivshmem_close(&fixture.server);
	CHECK_EQ(lstat(path, &st), 0);
	CHECK(S_ISSOCK(st.st_mode));
	unlink(path);
	close_server(&fixture);

	/* Something else is in the way. */
	file = fopen(path, "w");
	CHECK(file);
	fputs("precious", file);
	fclose(file);
	CHECK(start_server(&fixture, 1, err) == -EEXIST);
	CHECK(strstr(err, "is not a socket"));
	vmsg_shared_close(&fixture.memory[0]);
	vmsg_events_close(&fixture.events);
	CHECK_EQ(lstat(path, &st), 0);
	CHECK_EQ(st.st_size, 8);
	unlink(path);

	snprintf(path, sizeof(path), "%.60s/none/sock", folder);
	CHECK_EQ(start_server(&fixture, 1, err), -ENOENT);
	CHECK(strstr(err, "/none"));
	vmsg_shared_close(&fixture.memory[0]);
	vmsg_events_close(&fixture.events);
	memset(longer, 'y', sizeof(longer) - 1);
	CHECK_EQ(vmsg_listen(&listener, longer, 0600, err, sizeof(err)), VMSG_ERR_INVAL);
	CHECK(strstr(err, "107"));
	CHECK_EQ(vmsg_listen(&listener, "", 0600, err, sizeof(err)), VMSG_ERR_INVAL);
	strcpy(path, saved);
	CHECK_EQ(count_fds(), fixture.fds_before);
}

/* ---- No descriptors left ---- */

/*
 * In a child, whose limit it may lower: `spare` descriptors are left when clients come. Says what
 * went wrong by its exit status.
 */
static int starved(uint32_t spare)
{
	char err[VMSG_ERR_TEXT];
	static struct fixture fixture;
	struct rlimit limit;
	int fds[8], sockets[20];
	uint32_t highest = 0;
	uint64_t wakes;

	if (start_server(&fixture, 2, err) < 0)
		return 2;
	for (uint32_t i = 0; i < 20; i++) {
		sockets[i] = dial();
		if (sockets[i] < 0)
			return 3;
	}
	/* All numbers below the limit are taken, but for `spare` of them. */
	getrlimit(RLIMIT_NOFILE, &limit);
	for (uint32_t i = 0; i < spare; i++)
		fds[i] = eventfd(0, 0);
	highest = (uint32_t)eventfd(0, 0);
	for (uint32_t i = 0; i < spare; i++)
		close(fds[i]);
	limit.rlim_cur = highest + 1;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 4;
	wakes = fixture.events.wakes;
	for (uint32_t i = 0; i < 100; i++)
		vmsg_events_turn(&fixture.events, 5);
	/* Each client was told at once, and the loop did not run hot over it. */
	for (uint32_t i = 0; i < 20; i++) {
		if (spare < 3 && !is_closed(sockets[i]))
			return 5;
		close(sockets[i]);
	}
	if (!fixture.server.counters.no_resources || fixture.events.wakes - wakes > 100)
		return 6;
	if (spare < 3 && fixture.connected)
		return 7;
	/* With room again it serves again. */
	limit.rlim_cur = limit.rlim_max < 1024 ? limit.rlim_max : 1024;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (uint32_t i = 0; i < 50; i++)
		vmsg_events_turn(&fixture.events, 5);
	sockets[0] = dial();
	for (uint32_t i = 0; i < 4; i++)
		vmsg_events_turn(&fixture.events, 5);
	return fixture.slots[0].state == VMSG_IVSHMEM_CONNECTED ? 0 : 8;
}

static void no_descriptors(void *arg)
{
	(void)arg;
	for (uint32_t spare = 0; spare < 4; spare++) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(starved(spare));
		test_context("%u descriptors left", spare);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 0);
	}
	unlink(path);
}

static const struct test tests[] = {
	{ "handshake", handshake, NULL },
	{ "several_peers", several_peers, NULL },
	{ "back_at_once", back_at_once, NULL },
	{ "hold", hold, NULL },
	{ "garbage", garbage, NULL },
	{ "hostile_doorbell", hostile_doorbell, NULL },
	{ "silent", silent, NULL },
	{ "killed_clients", killed_clients, NULL },
	{ "names", names, NULL },
	{ "no_descriptors", no_descriptors, NULL },
};

int main(int argc, char **argv)
{
	int rc;

	strcpy(folder, "/tmp/vmsg-test-XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%.60s/sock", folder);
	rc = test_main("ivshmem", tests, sizeof(tests) / sizeof(*tests), argc, argv);
	unlink(path);
	rmdir(folder);
	return rc;
}
