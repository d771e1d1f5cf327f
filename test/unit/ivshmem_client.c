/* SPDX-License-Identifier: BSD-3-Clause */
/* The client end of the ivshmem server protocol, against servers of every kind. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmsg/linux.h>

#define BYTES 65536u

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

/* A server of any behaviour: a thread that accepts one client and says `script`. */
struct script {
	int64_t number;
	enum { NOTHING, MEMORY, SMALL, UNSEALED, BELL, PIPE, TWO, MANY, SLEEP, END, CLOSE } passes;
};

struct liar {
	const struct script *lines;
	pthread_t thread;
	int listener;
	bool dribble; /* a byte at a time */
	bool joined;
	int bells[8]; /* what was given away, in order */
	uint32_t bell_count;
	int client;
};

static int make_passed(struct liar *liar, const struct script *line, int fds[40], uint32_t *count)
{
	int pipes[2], fd = -1;

	*count = 1;
	switch (line->passes) {
	case MEMORY:
	case SMALL:
	case UNSEALED:
		fd = memfd_create("liar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (ftruncate(fd, line->passes == SMALL ? 100 : BYTES) < 0)
			return -1;
		if (line->passes == MEMORY)
			fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
		break;
	case BELL:
	case TWO:
	case MANY:
		fd = eventfd(0, EFD_CLOEXEC);
		liar->bells[liar->bell_count++ % 8] = dup(fd);
		*count = line->passes == BELL ? 1 : line->passes == TWO ? 2 : 40;
		break;
	case PIPE:
		if (pipe2(pipes, O_CLOEXEC) < 0)
			return -1;
		close(pipes[0]);
		fd = pipes[1];
		break;
	default:
		*count = 0;
	}
	for (uint32_t i = 0; i < *count; i++)
		fds[i] = fd;
	return fd;
}

static void say(struct liar *liar, const struct script *line)
{
	union {
		struct cmsghdr header;
		uint8_t room[CMSG_SPACE(40 * sizeof(int))];
	} control = { 0 };
	int fds[40], fd;
	uint32_t count;
	uint8_t bytes[8];

	fd = make_passed(liar, line, fds, &count);
	for (uint32_t i = 0; i < 8; i++)
		bytes[i] = (uint8_t)((uint64_t)line->number >> 8 * i);
	for (uint32_t at = 0; at < 8;) {
		struct iovec iov = { bytes + at, liar->dribble ? 1 : 8 };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

		if (at == 0 && count) {
			msg.msg_control = &control;
			msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
			control.header.cmsg_level = SOL_SOCKET;
			control.header.cmsg_type = SCM_RIGHTS;
			control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
			memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
		}
		if (sendmsg(liar->client, &msg, MSG_NOSIGNAL) <= 0)
			break;
		at += (uint32_t)iov.iov_len;
		if (liar->dribble)
			usleep(200);
	}
	if (fd >= 0)
		close(fd);
}

static void *tell_lies(void *arg)
{
	struct liar *liar = arg;

	liar->client = accept4(liar->listener, NULL, NULL, SOCK_CLOEXEC);
	for (const struct script *line = liar->lines; line->passes != END; line++) {
		if (line->passes == CLOSE) {
			close(liar->client);
			liar->client = -1;
			break;
		}
		if (line->passes == SLEEP)
			usleep((useconds_t)line->number * 1000);
		else
			say(liar, line);
	}
	return NULL;
}

static void start_liar(struct liar *liar, const struct script *lines)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	*liar = (struct liar){ .lines = lines, .dribble = liar->dribble };
	strcpy(name.sun_path, path);
	liar->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(liar->listener, (struct sockaddr *)&name, sizeof(name)), 0);
	CHECK_EQ(listen(liar->listener, 1), 0);
	CHECK_EQ(pthread_create(&liar->thread, NULL, tell_lies, liar), 0);
}

static void join(struct liar *liar)
{
	if (!liar->joined)
		pthread_join(liar->thread, NULL);
	liar->joined = true;
}

static void end_liar(struct liar *liar)
{
	join(liar);
	for (uint32_t i = 0; i < liar->bell_count && i < 8; i++)
		close(liar->bells[i]);
	if (liar->client >= 0)
		close(liar->client);
	close(liar->listener);
	unlink(path);
}

/* What QEMU's own server says to its third client, with two vectors, and in its order. */
static const struct script qemu[] = {
	{ 0, NOTHING }, { 2, NOTHING }, { -1, UNSEALED }, { 0, BELL }, { 0, BELL }, { 1, BELL },
	{ 1, BELL },    { 2, BELL },    { 2, BELL },      { 0, END },
};

/* The same in an order that is only just allowed, and peers that come and go. */
static const struct script odd[] = {
	{ 0, NOTHING }, { 7, NOTHING }, { 7, BELL }, { 9, BELL },   { 9, NOTHING },
	{ -1, MEMORY }, { 9, BELL },    { 0, BELL }, { 9, NOTHING }, { 0, END },
};

static void foreign_servers(void *arg)
{
	static const uint64_t one = 1;
	uint32_t fds = count_fds();

	(void)arg;
	for (uint32_t i = 0; i < 4; i++) {
		struct liar liar = { .dribble = i & 1 };
		struct vmsg_ivshmem_client client;
		char err[VMSG_ERR_TEXT] = "";
		bool is_qemu = i < 2;
		int in, out;
		uint64_t value;

		test_context("server %u", i);
		start_liar(&liar, is_qemu ? qemu : odd);
		CHECK_EQ(vmsg_ivshmem_connect(&client, path, 5000, err, sizeof(err)), 0);
		CHECK_EQ(client.id, is_qemu ? 2 : 7);
		CHECK_EQ(client.memory.len_bytes, BYTES);
		CHECK_EQ(client.memory.sealed, !is_qemu);
		join(&liar);
		in = liar.bells[is_qemu ? 4 : 0];
		out = liar.bells[is_qemu ? 0 : 3];

		CHECK_EQ(vmsg_ivshmem_wait(&client, 0, NULL, 0), 0);
		CHECK_EQ(write(in, &one, 8), 8);
		CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), 1);
		CHECK_EQ(vmsg_ivshmem_wait(&client, 0, NULL, 0), 0);
		vmsg_ivshmem_ring(&client);
		CHECK_EQ(read(out, &value, 8), 8);
		CHECK_EQ(value, 1);
		/* Others leave, and that is all right; peer 0 leaves, and it is over. */
		say(&liar, &(struct script){ 1, NOTHING });
		CHECK_EQ(vmsg_ivshmem_wait(&client, 100, NULL, 0), 0);
		say(&liar, &(struct script){ 0, NOTHING });
		CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), VMSG_ERR_SHUTDOWN);
		CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), VMSG_ERR_SHUTDOWN);
		vmsg_ivshmem_ring(&client);
		vmsg_ivshmem_disconnect(&client);
		vmsg_ivshmem_disconnect(&client);
		end_liar(&liar);
	}
	CHECK_EQ(count_fds(), fds);
}

#define START { 0, NOTHING }, { 1, NOTHING }
#define ALIEN "does not speak"
#define HALF  "in the middle"

static void bad_servers(void *arg)
{
	static const struct bad {
		int result;
		const char *says;
		struct script lines[8];
	} cases[] = {
		{ VMSG_ERR_NOTSUP, "version 0", { { 1, NOTHING }, { 0, CLOSE } } },
		{ VMSG_ERR_BUSY, "no free slot", { { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { { 0, NOTHING }, { -1, NOTHING }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { { 0, NOTHING }, { 65536, NOTHING }, { 0, CLOSE } } },
		{ VMSG_ERR_SHUTDOWN, HALF, { START, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, NOTHING }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, "not memory", { START, { -1, PIPE }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, "100 bytes", { START, { -1, SMALL }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, MEMORY }, { -1, MEMORY }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, MEMORY }, { 0, PIPE }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, MEMORY }, { 0, TWO }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, MEMORY }, { 0, MANY }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO, ALIEN, { START, { -1, MEMORY }, { -2, BELL }, { 0, CLOSE } } },
		{ VMSG_ERR_PROTO,
		  ALIEN,
		  { START, { -1, MEMORY }, { INT64_MIN, BELL }, { 0, CLOSE } } },
		{ VMSG_ERR_SHUTDOWN, HALF, { START, { -1, MEMORY }, { 0, BELL }, { 0, CLOSE } } },
		{ VMSG_ERR_SHUTDOWN,
		  HALF,
		  { START, { -1, MEMORY }, { 0, NOTHING }, { 0, CLOSE } } },
		{ VMSG_ERR_TIMEDOUT, "did not answer", { { 300, SLEEP }, { 0, CLOSE } } },
		{ VMSG_ERR_TIMEDOUT, "half-way", { START, { 300, SLEEP }, { 0, CLOSE } } },
		{ VMSG_ERR_TIMEDOUT,
		  "no peer 0",
		  { START, { -1, MEMORY }, { 1, BELL }, { 300, SLEEP }, { 0, CLOSE } } },
		{ VMSG_ERR_TIMEDOUT,
		  "device side has to",
		  { { 0, NOTHING },
		    { 0, NOTHING },
		    { -1, MEMORY },
		    { 0, BELL },
		    { 300, SLEEP },
		    { 0, CLOSE } } },
		/* Descriptors where none belong are closed, not kept. */
		{ VMSG_ERR_SHUTDOWN, HALF, { { 0, BELL }, { 1, BELL }, { 0, CLOSE } } },
	};
	uint32_t fds = count_fds();

	(void)arg;
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct vmsg_ivshmem_client client;
		char err[VMSG_ERR_TEXT] = "";
		struct liar liar = { 0 };
		int rc;

		test_context("case %u: %s", i, cases[i].says);
		start_liar(&liar, cases[i].lines);
		rc = vmsg_ivshmem_connect(&client, path, 200, err, sizeof(err));
		CHECK_EQ(rc, cases[i].result);
		CHECK(strstr(err, cases[i].says));
		end_liar(&liar);
		CHECK_EQ(count_fds(), fds);
	}
}

/* ---- Nobody there, and daemons that die ---- */

static void nobody(void *arg)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct vmsg_ivshmem_client client;
	char err[VMSG_ERR_TEXT], longer[200] = "";
	uint32_t fds = count_fds();
	FILE *file;
	int fd;

	(void)arg;
	CHECK_EQ(vmsg_ivshmem_connect(&client, path, 1000, err, sizeof(err)), VMSG_ERR_NODEV);
	CHECK(strstr(err, path) && strstr(err, "vmsgd --bus amp:"));
	vmsg_ivshmem_disconnect(&client);
	/* A socket of a dead daemon. */
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	CHECK_EQ(listen(fd, 1), 0);
	close(fd);
	CHECK_EQ(vmsg_ivshmem_connect(&client, path, 1000, err, sizeof(err)), VMSG_ERR_NODEV);
	unlink(path);
	file = fopen(path, "w");
	CHECK(file);
	fclose(file);
	CHECK_EQ(vmsg_ivshmem_connect(&client, path, 1000, err, sizeof(err)), VMSG_ERR_INVAL);
	CHECK(strstr(err, "not a socket"));
	unlink(path);
	memset(longer, 'y', sizeof(longer) - 1);
	CHECK_EQ(vmsg_ivshmem_connect(&client, longer, 1000, err, sizeof(err)), VMSG_ERR_INVAL);
	CHECK_EQ(vmsg_ivshmem_connect(&client, path, 1000, NULL, 0), VMSG_ERR_NODEV);
	CHECK_EQ(count_fds(), fds);
}

static void on_client(struct vmsg_ivshmem_slot *slot)
{
	(void)slot;
}

/* A child does not outlive the test, however that ends. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(9);
}

/* A child that serves until it is killed. */
static pid_t child_server(void)
{
	static struct vmsg_ivshmem_slot slots[1];
	static struct vmsg_ivshmem_server server;
	static struct vmsg_shared memory;
	static struct vmsg_events events;
	char err[VMSG_ERR_TEXT];
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	die_with(parent);
	slots[0].memory = &memory;
	server = (struct vmsg_ivshmem_server){ .events = &events,
					       .slots = slots,
					       .slot_count = 1,
					       .connected = on_client,
					       .doorbell = vmsg_ivshmem_ring_slot,
					       .disconnected = on_client };
	if (vmsg_events_open(&events, 0) < 0 ||
	    vmsg_shared_create(&memory, "test", BYTES, err, sizeof(err)) < 0 ||
	    vmsg_ivshmem_open(&server, path, 0600, err, sizeof(err)) < 0)
		_exit(1);
	vmsg_events_run(&events);
	_exit(2);
}

static int connect_soon(struct vmsg_ivshmem_client *client)
{
	char err[VMSG_ERR_TEXT];
	int rc = VMSG_ERR_NODEV;

	for (uint32_t i = 0; i < 500 && rc == VMSG_ERR_NODEV; i++) {
		rc = vmsg_ivshmem_connect(client, path, 2000, err, sizeof(err));
		if (rc < 0)
			usleep(10000);
	}
	return rc;
}

static void killed_servers(void *arg)
{
	struct vmsg_ivshmem_client client;
	uint32_t fds = count_fds();

	(void)arg;
	/* The second finds the socket that the first left. */
	for (uint32_t i = 0; i < 4; i++) {
		pid_t pid = child_server();
		uint64_t start_us;

		CHECK(pid > 0);
		CHECK_EQ(connect_soon(&client), 0);
		CHECK(client.memory.sealed);
		if (i & 1)
			vmsg_ivshmem_ring_lazily(&client);
		/* It rings back whenever it is rung: each ring is one wake-up. */
		for (uint32_t k = 0; k < 200; k++) {
			vmsg_ivshmem_ring(&client);
			CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), 1);
		}
		CHECK_EQ(client.sleeps, 200);
		/* One that is not followed by a sleep goes out when told, or with a look. */
		vmsg_ivshmem_ring(&client);
		vmsg_ivshmem_flush(&client);
		CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), 1);
		vmsg_ivshmem_ring(&client);
		vmsg_ivshmem_wait(&client, 0, NULL, 0);
		usleep(1000);
		vmsg_ivshmem_wait(&client, 1000, NULL, 0);
		CHECK_EQ(vmsg_ivshmem_wait(&client, 0, NULL, 0), 0);
		CHECK_EQ(kill(pid, SIGKILL), 0);
		start_us = vmsg_clock_us();
		CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, NULL, 0), VMSG_ERR_SHUTDOWN);
		CHECK(vmsg_clock_us() - start_us < 2000000);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		vmsg_ivshmem_disconnect(&client);
	}
	unlink(path);
	CHECK_EQ(count_fds(), fds);
}

static void wait_for_others(bool lazily)
{
	static const uint64_t one = 1;
	struct liar liar = { 0 };
	struct vmsg_ivshmem_client client;
	struct pollfd also[2] = { { .events = POLLIN }, { .events = POLLIN } };
	char err[VMSG_ERR_TEXT];
	int pipes[2];

	start_liar(&liar, qemu);
	CHECK_EQ(vmsg_ivshmem_connect(&client, path, 5000, err, sizeof(err)), 0);
	if (lazily && vmsg_ivshmem_ring_lazily(&client) < 0)
		TEST_SKIP("no io_uring here");
	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	also[0].fd = -1;
	also[1].fd = pipes[0];
	CHECK_EQ(vmsg_ivshmem_wait(&client, 1, also, 2), 0);
	CHECK_EQ(write(pipes[1], "x", 1), 1);
	CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, also, 2), 1);
	CHECK_EQ(also[0].revents, 0);
	CHECK_EQ(also[1].revents, POLLIN);
	join(&liar);
	CHECK_EQ(write(liar.bells[4], &one, 8), 8);
	also[1].fd = -1;
	CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, also, 2), 1);
	CHECK_EQ(also[1].revents, 0);
	CHECK_EQ(vmsg_ivshmem_wait(&client, 1, also, 2), 0);
	close(liar.client);
	liar.client = -1;
	CHECK_EQ(vmsg_ivshmem_wait(&client, 5000, also, 2), VMSG_ERR_SHUTDOWN);
	vmsg_ivshmem_disconnect(&client);
	close(pipes[0]);
	close(pipes[1]);
	end_liar(&liar);
}

static void others(void *arg)
{
	(void)arg;
	wait_for_others(false);
}

static void others_lazily(void *arg)
{
	(void)arg;
	wait_for_others(true);
}

static const struct test tests[] = {
	{ "foreign_servers", foreign_servers, NULL },
	{ "bad_servers", bad_servers, NULL },
	{ "nobody", nobody, NULL },
	{ "killed_servers", killed_servers, NULL },
	{ "others", others, NULL },
	{ "others_lazily", others_lazily, NULL },
};

int main(int argc, char **argv)
{
	int rc;

	strcpy(folder, "/tmp/vmsg-test-XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%.60s/sock", folder);
	rc = test_main("ivshmem_client", tests, sizeof(tests) / sizeof(*tests), argc, argv);
	unlink(path);
	rmdir(folder);
	return rc;
}
