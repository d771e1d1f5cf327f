/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The AMP bus between two processes: a child serves an echo device, the test uses it. What the
 * child sees it writes to a page that both share.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmsg/device.h>
#include <vmsg/driver.h>
#include <vmsg/linux.h>
#include <vmsg/port.h>

#define DEV_NUM    3
#define QUEUE_SIZE 64
#define DATA_BYTES 200
#define MAX_PEERS  2

static char folder[64];
static char path[VMSG_PATH_BYTES];

struct report {
	uint32_t connected, disconnected, resets, kicks, used;
	uint64_t wakes;
	uint32_t rings;
};

static volatile struct report *report;

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

/* ---- The device side: gives back what it is given ---- */

struct options {
	const char *address; /* what follows "amp:PATH" */
	uint32_t spin_us;
	uint32_t reset_ms; /* a reset takes this long */
};

struct echo {
	struct vmsg_device device; /* first */
	struct vmsg_vq_device vqs[1];
	struct vmsg_iov iov[QUEUE_SIZE];
	struct vmsg_timer timer;
};

static struct vmsg_events events;
static struct vmsg_amp_server server;
static struct echo echoes[MAX_PEERS];
static struct options options;
static pid_t serving; /* in the parent: a child that has not ended */

static void echo_kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct echo *echo = (struct echo *)device;
	struct vmsg_chain chain = { .iov = echo->iov, .iov_max = QUEUE_SIZE };
	uint8_t data[DATA_BYTES];
	bool any = false;

	while (vmsg_device_pop(device, vq_index, &chain) == 1) {
		size_t len = vmsg_chain_read(&chain, 0, data, sizeof(data));

		len = vmsg_chain_write(&chain, 0, data, len);
		vmsg_device_push(device, vq_index, &chain, (uint32_t)len);
		any = true;
	}
	if (any)
		vmsg_device_used(device, vq_index);
}

static void reset_ends(struct vmsg_timer *timer)
{
	vmsg_device_reset_done(timer->user);
}

static int echo_reset(struct vmsg_device *device)
{
	struct echo *echo = (struct echo *)device;

	report->resets++;
	if (!options.reset_ms)
		return 0;
	vmsg_events_start_timer(&events, &echo->timer, options.reset_ms, 0);
	return VMSG_ERR_AGAIN;
}

static const struct vmsg_device_ops echo_ops = {
	.name = "echo",
	.device_id = 42,
	.reset = echo_reset,
	.kick = echo_kick,
};

static void add_echo(struct echo *echo, struct vmsg_amp_slot *slot)
{
	echo->device.ops = &echo_ops;
	echo->device.vqs = echo->vqs;
	echo->device.vq_count = 1;
	echo->vqs[0].max_size = QUEUE_SIZE;
	echo->device.mem = &slot->mem;
	echo->device.split = &vmsg_vq_split_device;
	echo->device.packed = &vmsg_vq_packed_device;
	echo->timer = (struct vmsg_timer){ .fire = reset_ends, .user = &echo->device };
	vmsg_device_init(&echo->device);
	vmsg_bus_add(&slot->amp.bus, &echo->device, DEV_NUM);
}

static void on_connected(struct vmsg_amp_slot *slot)
{
	(void)slot;
	report->connected++;
}

static void on_disconnected(struct vmsg_amp_slot *slot)
{
	(void)slot;
	report->disconnected++;
}

static void on_signal(struct vmsg_events *loop, int number)
{
	if (number == SIGTERM) {
		vmsg_events_stop(loop);
		return;
	}
	report->wakes = loop->wakes;
	report->rings = server.slots[0].amp.counters.doorbells;
	report->kicks = echoes[0].device.counters.kicks;
	report->used = echoes[0].device.counters.used_notifications;
	kill(getppid(), SIGUSR1);
}

/* A child does not outlive the test, however that ends. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(9);
}

/* The child. Its exit status says how it ended. */
static int serve(void)
{
	static const int signals[] = { SIGTERM, SIGUSR2, 0 };
	struct vmsg_amp_address address;
	char text[300], err[VMSG_ERR_TEXT];
	uint32_t fds = count_fds();

	snprintf(text, sizeof(text), "amp:%s%s", path, options.address);
	if (vmsg_amp_parse(text, &address, err, sizeof(err)) < 0 ||
	    vmsg_events_open(&events, options.spin_us) < 0 ||
	    vmsg_events_signals(&events, signals, on_signal) < 0)
		return 2;
	server.connected = on_connected;
	server.disconnected = on_disconnected;
	if (vmsg_amp_server_open(&server, &events, &address, err, sizeof(err)) < 0) {
		fprintf(stderr, "server: %s\n", err);
		return 3;
	}
	for (uint32_t i = 0; i < server.slot_count; i++)
		add_echo(&echoes[i], &server.slots[i]);
	if (vmsg_events_run(&events) < 0)
		return 4;
	vmsg_amp_server_close(&server);
	vmsg_events_close(&events);
	return count_fds() == fds ? 0 : 5;
}

static pid_t start_server(const struct options *wanted)
{
	pid_t pid, parent = getpid();

	/* Of a test that failed. */
	if (serving > 0) {
		kill(serving, SIGKILL);
		waitpid(serving, NULL, 0);
	}
	memset((void *)(uintptr_t)report, 0, sizeof(*report));
	options = *wanted;
	pid = fork();
	if (pid == 0) {
		die_with(parent);
		_exit(serve());
	}
	serving = pid;
	CHECK(pid > 0);
	return pid;
}

static void end_server(pid_t pid)
{
	struct stat st;
	int status;

	CHECK_EQ(kill(pid, SIGTERM), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	serving = 0;
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	CHECK(lstat(path, &st) < 0);
}

static void kill_child(pid_t pid)
{
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

/* Asks the server to bring the report up to date. */
static void refresh(pid_t pid)
{
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	kill(pid, SIGUSR2);
	sigwait(&set, &number);
}

/* ---- The driver side ---- */

struct user {
	struct vmsg_amp_client client;
	struct vmsg_driver driver;
	struct vmsg_vq_driver vqs[1];
	struct vmsg_vq_state state[QUEUE_SIZE];
	struct buffer {
		uint8_t *out, *in;
		uint64_t out_addr, in_addr;
		bool busy;
	} buffers[QUEUE_SIZE];
	uint32_t sent, done, wrong;
};

static void fill(uint8_t *data, uint32_t number)
{
	for (uint32_t i = 0; i < DATA_BYTES; i++)
		data[i] = (uint8_t)(number * 31 + i * 7 + (number >> 8));
}

static void on_used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct user *user = driver->user;
	uint32_t written;
	void *cookie;

	while (vmsg_vq_get(&driver->vqs[vq_index], &cookie, &written) == 1) {
		struct buffer *buffer = cookie;

		if (written != DATA_BYTES || memcmp(buffer->in, buffer->out, DATA_BYTES) != 0)
			user->wrong++;
		buffer->busy = false;
		user->done++;
	}
}

static const struct vmsg_driver_ops user_ops = { .used = on_used };

static int open_client(struct user *user, const char *more, enum vmsg_dialect dialect)
{
	struct vmsg_amp_address address;
	char text[300], err[VMSG_ERR_TEXT] = "";
	int rc = VMSG_ERR_NODEV;

	snprintf(text, sizeof(text), "amp:%s%s", path, more);
	memset(user, 0, sizeof(*user));
	if (vmsg_amp_parse(text, &address, err, sizeof(err)) < 0)
		return VMSG_ERR_INVAL;
	/* The child may be just starting. */
	for (uint32_t i = 0; i < 500 && rc == VMSG_ERR_NODEV; i++) {
		rc = vmsg_amp_client_open(&user->client, &address, dialect, 5000, err, sizeof(err));
		if (rc == VMSG_ERR_NODEV)
			usleep(10000);
	}
	if (rc < 0)
		fprintf(stderr, "client: %s\n", err);
	return rc;
}

static int start_driver(struct user *user, bool packed)
{
	struct vmsg_driver *driver = &user->driver;
	uint64_t wanted = VMSG_BIT(VMSG_F_EVENT_IDX);
	int rc;

	vmsg_driver_init(driver, &user->client.amp.bus, DEV_NUM, &user_ops);
	driver->user = user;
	driver->split = &vmsg_vq_split_driver;
	driver->packed = &vmsg_vq_packed_driver;
	driver->vqs = user->vqs;
	driver->vq_count = 1;
	if (packed)
		wanted |= VMSG_BIT(VMSG_F_RING_PACKED);
	rc = vmsg_driver_identify(driver);
	if (rc == 0)
		rc = vmsg_driver_negotiate(driver, wanted);
	if (rc == 0)
		rc = vmsg_driver_setup_vq(driver, 0, QUEUE_SIZE, 0, &user->client.arena,
					  user->state);
	for (uint32_t i = 0; rc == 0 && i < QUEUE_SIZE; i++) {
		struct buffer *buffer = &user->buffers[i];

		buffer->out = vmsg_arena_take(&user->client.arena, DATA_BYTES, 64,
					      &buffer->out_addr);
		buffer->in = vmsg_arena_take(&user->client.arena, DATA_BYTES, 64,
					     &buffer->in_addr);
		if (!buffer->in)
			rc = VMSG_ERR_NOMEM;
	}
	return rc ? rc : vmsg_driver_ready(driver);
}

static bool submit(struct user *user)
{
	struct vmsg_buf bufs[2];

	for (uint32_t i = 0; i < QUEUE_SIZE; i++) {
		struct buffer *buffer = &user->buffers[i];

		if (buffer->busy)
			continue;
		fill(buffer->out, user->sent);
		bufs[0] = (struct vmsg_buf){ buffer->out_addr, DATA_BYTES };
		bufs[1] = (struct vmsg_buf){ buffer->in_addr, DATA_BYTES };
		if (vmsg_vq_add(&user->vqs[0], bufs, 1, 1, buffer) < 0)
			return false;
		buffer->busy = true;
		user->sent++;
		return true;
	}
	return false;
}

/* Moves `count` buffers with up to `depth` in flight. 0, or why it ended. */
static int transfer(struct user *user, uint32_t count, uint32_t depth)
{
	uint32_t end = user->done + count, idle = 0;

	while (user->done < end) {
		uint32_t done = user->done;
		int rc;

		while (user->sent < end && user->sent - user->done < depth && submit(user))
			;
		vmsg_driver_kick(&user->driver, 0);
		rc = vmsg_amp_client_wait(&user->client, 1000);
		if (rc < 0)
			return rc;
		if (user->wrong)
			return VMSG_ERR_IO;
		idle = user->done == done ? idle + 1 : 0;
		if (idle > 1000)
			return VMSG_ERR_TIMEDOUT;
	}
	return 0;
}

static int use(struct user *user, const char *more, uint32_t count)
{
	int rc = open_client(user, more, VMSG_AUTO);

	if (rc == 0)
		rc = start_driver(user, true);
	return rc ? rc : transfer(user, count, 4);
}

/* ---- Tests ---- */

static void echo_all_ways(void *arg)
{
	static const uint32_t spins[] = { VMSG_SPIN_NEVER, 50, VMSG_SPIN_ALWAYS };
	static const char *const client_spins[] = { ",spin=never", ",spin=50", ",spin=always" };
	static struct user user;
	uint32_t fds = count_fds();

	(void)arg;
	for (uint32_t i = 0; i < 24; i++) {
		struct options wanted = { i & 1 ? ",layout=spsc" : "", spins[i / 8], 0 };
		uint8_t devices[8];
		pid_t pid;

		if (i & 2)
			wanted.address = i & 1 ? ",layout=spsc,dialect=v1" : ",dialect=v1";
		test_context("%s spin %s %s", wanted.address, client_spins[i / 8],
			     i & 4 ? "packed" : "split");
		pid = start_server(&wanted);
		CHECK_EQ(open_client(&user, client_spins[i / 8], VMSG_AUTO), 0);
		CHECK(user.client.amp.format ==
		      (i & 1 ? &vmsg_amp_spsc : &vmsg_amp_layout));
		CHECK_EQ(user.client.arena.addr & 4095, 0);
		CHECK(user.client.arena.len_bytes > (63u << 20));
		CHECK_EQ(vmsg_bus_get_devices(&user.client.amp.bus, devices, 64, 1000), 1);
		CHECK_EQ(devices[0], 1 << DEV_NUM);
		CHECK_EQ(vmsg_bus_ping(&user.client.amp.bus, 0x12345678, 1000), 0);
		CHECK_EQ(start_driver(&user, i & 4), 0);
		CHECK_EQ(user.client.amp.bus.dialect, i & 2 ? VMSG_V1 : VMSG_V2);
		CHECK_EQ(transfer(&user, 500, 1), 0);
		CHECK_EQ(transfer(&user, 2000, 16), 0);
		/* Where there is io_uring, the same with a ring and a sleep in one call. */
		if (vmsg_ivshmem_ring_lazily(&user.client.link) == 0) {
			CHECK_EQ(transfer(&user, 500, 1), 0);
			CHECK_EQ(transfer(&user, 1000, 16), 0);
			CHECK_EQ(vmsg_bus_ping(&user.client.amp.bus, 7, 1000), 0);
		}
		CHECK_EQ(user.wrong, 0);
		vmsg_driver_exit(&user.driver);
		vmsg_amp_client_close(&user.client);
		vmsg_amp_client_close(&user.client);
		end_server(pid);
		CHECK_EQ(report->connected, 1);
		CHECK_EQ(report->disconnected, 1);
		CHECK_EQ(report->resets, 1);
	}
	CHECK_EQ(count_fds(), fds);
}

/* Goal P7: what a request costs in system calls, blocking and polled. */
static void costs(void *arg)
{
	struct options wanted = { "", VMSG_SPIN_NEVER, 0 };
	static struct user user;
	uint32_t sleeps, rings, kicks;
	struct report before;
	bool good = false;
	pid_t pid;

	/* On a machine that is busy elsewhere, ticks add to the counts: try again. */
	(void)arg;
	pid = start_server(&wanted);
	CHECK_EQ(open_client(&user, ",spin=never", VMSG_AUTO), 0);
	CHECK_EQ(start_driver(&user, true), 0);
	CHECK_EQ(transfer(&user, 100, 1), 0);
	for (uint32_t i = 0; i < 20 && !good; i++) {
		refresh(pid);
		before = *(const struct report *)(uintptr_t)report;
		sleeps = user.client.link.sleeps;
		rings = user.client.link.rings;
		CHECK_EQ(transfer(&user, 1000, 1), 0);
		refresh(pid);
		/* One sleep and one ring on each side, and next to nothing else. */
		good = user.client.link.sleeps - sleeps <= 1050 &&
		       user.client.link.rings - rings <= 1050 &&
		       report->wakes - before.wakes <= 1200 &&
		       report->rings - before.rings <= 1050;
	}
	CHECK(good);
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
	end_server(pid);

	wanted.spin_us = VMSG_SPIN_ALWAYS;
	pid = start_server(&wanted);
	CHECK_EQ(open_client(&user, ",spin=always", VMSG_AUTO), 0);
	CHECK_EQ(start_driver(&user, true), 0);
	CHECK_EQ(transfer(&user, 1000, 1), 0);
	good = false;
	for (uint32_t i = 0; i < 20 && !good; i++) {
		refresh(pid);
		before = *(const struct report *)(uintptr_t)report;
		rings = user.client.link.rings;
		kicks = user.driver.counters.kicks;
		CHECK_EQ(transfer(&user, 5000, 1), 0);
		refresh(pid);
		good = user.client.link.rings - rings <= 50 &&
		       user.driver.counters.kicks - kicks <= 100 &&
		       report->rings - before.rings <= 50 &&
		       report->kicks - before.kicks <= 100 && report->used - before.used <= 100;
	}
	CHECK(good);
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
	end_server(pid);
}

static void killed_server(void *arg)
{
	static const char *const ways[] = { ",spin=never", ",spin=50", ",spin=always" };
	struct options wanted = { ",size=1M", 50, 0 };
	static struct user user;
	uint32_t fds = count_fds();

	(void)arg;
	for (uint32_t i = 0; i < 6; i++) {
		pid_t pid = start_server(&wanted);
		uint64_t start_us;

		test_context("%s, round %u", ways[i % 3], i);
		CHECK_EQ(use(&user, ways[i % 3], 100 + i), 0);
		if (i & 1)
			submit(&user); /* in flight when it happens */
		if (i & 2)
			vmsg_ivshmem_ring_lazily(&user.client.link);
		CHECK_EQ(kill(pid, SIGKILL), 0);
		start_us = vmsg_clock_us();
		CHECK_EQ(transfer(&user, 1000000, 4), VMSG_ERR_SHUTDOWN);
		CHECK(vmsg_clock_us() - start_us < 2000000);
		CHECK(user.driver.gone);
		CHECK_EQ(vmsg_bus_ping(&user.client.amp.bus, 1, 1000), VMSG_ERR_SHUTDOWN);
		CHECK_EQ(vmsg_amp_client_wait(&user.client, 1000), VMSG_ERR_SHUTDOWN);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		serving = 0;
		vmsg_driver_exit(&user.driver);
		vmsg_amp_client_close(&user.client);
	}
	/* A good-bye is noticed as well. */
	for (uint32_t i = 0; i < 2; i++) {
		pid_t pid = start_server(&wanted);

		wanted.address = ",size=1M,layout=spsc";
		CHECK_EQ(use(&user, "", 100), 0);
		end_server(pid);
		CHECK_EQ(transfer(&user, 1000, 4), VMSG_ERR_SHUTDOWN);
		CHECK(user.driver.gone);
		vmsg_driver_exit(&user.driver);
		vmsg_amp_client_close(&user.client);
	}
	CHECK_EQ(count_fds(), fds);
}

/* A child that uses the device until it is killed, and says when it has begun. */
static pid_t child_user(volatile uint32_t *begun)
{
	static struct user user;
	pid_t pid, parent = getpid();

	*begun = 0;
	pid = fork();
	if (pid)
		return pid;
	die_with(parent);
	if (use(&user, ",spin=never", 50) < 0)
		_exit(1);
	*begun = 1;
	transfer(&user, UINT32_MAX / 2, 8);
	_exit(2);
}

static void killed_client(void *arg)
{
	volatile uint32_t *begun = &report->rings + 1; /* behind the report, in the same page */
	static struct user user;

	(void)arg;
	for (uint32_t i = 0; i < 4; i++) {
		struct options wanted = { i & 1 ? ",layout=spsc" : "", i & 2 ? 50 : 0, 0 };
		pid_t pid = start_server(&wanted);

		test_context("%s, spin %u", wanted.address, wanted.spin_us);
		for (uint32_t k = 1; k <= 4; k++) {
			pid_t child = child_user(begun);

			CHECK(child > 0);
			for (uint32_t t = 0; t < 5000 && !*begun; t++)
				usleep(1000);
			CHECK_EQ(*begun, 1);
			usleep(k * 700);
			kill_child(child);
			/* The next one starts clean, at once. */
			CHECK_EQ(open_client(&user, "", VMSG_AUTO), 0);
			for (uint32_t byte = 0; byte < 65536; byte++)
				CHECK_EQ(user.client.arena.ptr[byte], 0);
			CHECK_EQ(start_driver(&user, k & 1), 0);
			CHECK_EQ(transfer(&user, 500, 8), 0);
			vmsg_driver_exit(&user.driver);
			vmsg_amp_client_close(&user.client);
		}
		end_server(pid);
		CHECK_EQ(report->connected, 8);
		CHECK_EQ(report->disconnected, 8);
		CHECK_EQ(report->resets, 8);
	}
}

/* While a device still works on the memory, nobody else gets it. */
static void slow_reset(void *arg)
{
	struct options wanted = { "", 0, 150 };
	static struct user user;
	uint64_t start_us;
	pid_t pid;

	(void)arg;
	pid = start_server(&wanted);
	CHECK_EQ(use(&user, "", 100), 0);
	start_us = vmsg_clock_us();
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
	/* Already the memory is withheld, not just an answer of the device. */
	CHECK_EQ(open_client(&user, "", VMSG_AUTO), 0);
	CHECK(vmsg_clock_us() - start_us >= 140000);
	CHECK(vmsg_clock_us() - start_us < 5000000);
	CHECK_EQ(start_driver(&user, true), 0);
	CHECK_EQ(transfer(&user, 100, 4), 0);
	/* The server's end waits for the device as well. */
	start_us = vmsg_clock_us();
	end_server(pid);
	CHECK(vmsg_clock_us() - start_us >= 140000);
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
}

static void two_peers(void *arg)
{
	struct options wanted = { ",peers=2,size=256K", 50, 0 };
	static struct user users[2], third;
	struct vmsg_amp_address address;
	char text[300], err[VMSG_ERR_TEXT];
	pid_t pid;

	(void)arg;
	pid = start_server(&wanted);
	CHECK_EQ(use(&users[0], "", 100), 0);
	CHECK_EQ(use(&users[1], "", 100), 0);
	CHECK_EQ(users[0].client.link.id, 1);
	CHECK_EQ(users[1].client.link.id, 2);
	snprintf(text, sizeof(text), "amp:%s", path);
	CHECK_EQ(vmsg_amp_parse(text, &address, err, sizeof(err)), 0);
	CHECK_EQ(vmsg_amp_client_open(&third.client, &address, VMSG_AUTO, 1000, err, sizeof(err)),
		 VMSG_ERR_BUSY);
	CHECK(strstr(err, "free slot"));
	for (uint32_t i = 0; i < 200; i++)
		CHECK_EQ(transfer(&users[i & 1], 5, 1 + i % 5), 0);
	vmsg_driver_exit(&users[0].driver);
	vmsg_amp_client_close(&users[0].client);
	CHECK_EQ(transfer(&users[1], 500, 8), 0);
	CHECK_EQ(use(&third, "", 100), 0);
	CHECK_EQ(third.client.link.id, 1);
	vmsg_driver_exit(&users[1].driver);
	vmsg_amp_client_close(&users[1].client);
	vmsg_driver_exit(&third.driver);
	vmsg_amp_client_close(&third.client);
	end_server(pid);
	CHECK_EQ(report->connected, 3);
}

static void no_doorbell(void *arg)
{
	struct options wanted = { "", 0, 0 };
	static struct user user;
	uint64_t start_us;
	pid_t pid;

	(void)arg;
	pid = start_server(&wanted);
	CHECK_EQ(use(&user, ",spin=never", 10), 0);
	/* A kick that is lost. */
	CHECK(submit(&user));
	vmsg_vq_publish(&user.vqs[0]);
	start_us = vmsg_clock_us();
	for (uint32_t i = 0; i < 100 && user.done < 11; i++)
		CHECK_EQ(vmsg_amp_client_wait(&user.client, 50), 0);
	CHECK_EQ(user.done, 11);
	CHECK(vmsg_clock_us() - start_us < 500000);
	/* The driver's head leaves, and nobody rings. */
	CHECK_EQ(report->resets, 0);
	vmsg_store16(user.client.link.memory.ptr + 72 + 2, VMSG_AMP_SHUTDOWN);
	for (uint32_t i = 0; i < 100 && !report->resets; i++)
		usleep(10000);
	CHECK_EQ(report->resets, 1);
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
	end_server(pid);
}

static void memory_in_a_file(void *arg)
{
	char more[200], file[100];
	struct options wanted = { more, 0, 0 };
	static struct user user;
	struct stat st;
	uint8_t *last;
	pid_t pid;

	(void)arg;
	snprintf(file, sizeof(file), "%s/ram", folder);
	snprintf(more, sizeof(more), ",size=128K,file=%s", file);
	pid = start_server(&wanted);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(use(&user, "", 100), 0);
		CHECK(!user.client.link.memory.sealed);
		/* What is not the queue's survives: it may be a machine's memory. */
		last = user.client.link.memory.ptr + 131071;
		CHECK_EQ(*last, i ? 'm' : 0);
		*last = 'm';
		vmsg_driver_exit(&user.driver);
		vmsg_amp_client_close(&user.client);
	}
	end_server(pid);
	CHECK_EQ(stat(file, &st), 0);
	CHECK_EQ(st.st_size, 131072);
	unlink(file);
}

static void addresses(void *arg)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{ "", "amp:PATH" },
		{ "tcp:x", "tcp:x" },
		{ "amp:", "path is missing" },
		{ "amp:,size=1M", "path is missing" },
		{ "amp:x,colour=red", "unknown key \"colour\" (known: layout, size" },
		{ "amp:x,size", "size=: should be a power of two" },
		{ "amp:x,size=3M", "power of two" },
		{ "amp:x,size=-1", "power of two" },
		{ "amp:x,size=32K", "power of two" },
		{ "amp:x,size=99999999999999999999", "power of two" },
		{ "amp:x,size=64MM", "power of two" },
		{ "amp:x,size=17179869184G", "power of two" },
		{ "amp:x,layout=ring", "layout or spsc" },
		{ "amp:x,peers=0", "1 to 64" },
		{ "amp:x,peers=65", "1 to 64" },
		{ "amp:x,dialect=v3", "v2, v1, rfc2 or auto" },
		{ "amp:x,msgsize=63", "64 to 1024" },
		{ "amp:x,msgsize=100", "multiple of 8" },
		{ "amp:x,msgsize=128,layout=spsc", "use layout=layout" },
		{ "amp:x,elements=1", "2 to 4096" },
		{ "amp:x,words=65", "0 to 64" },
		{ "amp:x,bits=3", "1, 2, 4, 8 or 16" },
		{ "amp:x,masks=yes", "on or off" },
		{ "amp:x,strict=", "on or off" },
		{ "amp:x,spin=fast", "never or always" },
		{ "amp:x,mode=888", "octal" },
		{ "amp:x,file=", "a path" },
		{ "amp:x,,", "unknown key \"\"" },
		{ "amp:x,size=64K,elements=4096", "no room" },
	};
	struct vmsg_amp_address address;
	char err[VMSG_ERR_TEXT], longer[2000] = "amp:";

	(void)arg;
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		test_context("%s", bad[i].text);
		err[0] = 0;
		CHECK_EQ(vmsg_amp_parse(bad[i].text, &address, err, sizeof(err)), VMSG_ERR_INVAL);
		CHECK(strstr(err, bad[i].says));
		CHECK_EQ(vmsg_amp_parse(bad[i].text, &address, NULL, 0), VMSG_ERR_INVAL);
	}
	memset(longer + 4, 'x', 200);
	CHECK_EQ(vmsg_amp_parse(longer, &address, err, sizeof(err)), VMSG_ERR_INVAL);
	longer[5] = ',';
	memset(longer + 6, 'k', sizeof(longer) - 7);
	CHECK_EQ(vmsg_amp_parse(longer, &address, err, sizeof(err)), VMSG_ERR_INVAL);

	test_context("good ones");
	CHECK_EQ(vmsg_amp_parse("amp:/run/x.sock", &address, err, sizeof(err)), 0);
	CHECK_STR(address.path, "/run/x.sock");
	CHECK(!address.format && !address.file[0] && address.masks && !address.strict);
	CHECK_EQ(address.size_bytes, 64u << 20);
	CHECK_EQ(address.peers, 1);
	CHECK_EQ(address.mode, 0600);
	CHECK_EQ(address.dialect, VMSG_AUTO);
	CHECK_EQ(vmsg_amp_parse("amp:x,layout=spsc,size=1g,peers=4,dialect=rfc2,strict=on,"
				"spin=always,mode=660,file=/dev/shm/ram",
				&address, err, sizeof(err)),
		 0);
	CHECK(address.format == &vmsg_amp_spsc && address.strict);
	CHECK_EQ(address.size_bytes, 1u << 30);
	CHECK_EQ(address.mode, 0660);
	CHECK_EQ(address.spin_us, VMSG_SPIN_ALWAYS);
	CHECK_EQ(address.dialect, VMSG_RFC2);
	CHECK_STR(address.file, "/dev/shm/ram");
	CHECK_EQ(vmsg_amp_parse("amp:x,msgsize=264,elements=31,words=0,bits=16", &address, err,
				sizeof(err)),
		 0);
	CHECK_EQ(address.element_bytes, 264);
	CHECK(!address.masks);
}

/* A server that cannot start leaves nothing behind. */
static void cannot_serve(void *arg)
{
	static struct vmsg_amp_server second;
	struct options wanted = { "", 0, 0 };
	struct vmsg_amp_address address;
	char text[300], err[VMSG_ERR_TEXT];
	static struct user user;
	uint32_t fds = count_fds();
	struct vmsg_events loop;
	pid_t pid;

	(void)arg;
	pid = start_server(&wanted);
	CHECK_EQ(use(&user, "", 10), 0);
	CHECK_EQ(vmsg_events_open(&loop, 0), 0);
	snprintf(text, sizeof(text), "amp:%s", path);
	CHECK_EQ(vmsg_amp_parse(text, &address, err, sizeof(err)), 0);
	CHECK_EQ(vmsg_amp_server_open(&second, &loop, &address, err, sizeof(err)), VMSG_ERR_BUSY);
	CHECK(strstr(err, "served by another process"));
	vmsg_amp_server_close(&second);
	snprintf(address.file, sizeof(address.file), "%s", folder);
	CHECK(vmsg_amp_server_open(&second, &loop, &address, err, sizeof(err)) < 0);
	CHECK(strstr(err, folder));
	vmsg_events_close(&loop);
	/* The one that lives did not feel it. */
	CHECK_EQ(transfer(&user, 100, 4), 0);
	vmsg_driver_exit(&user.driver);
	vmsg_amp_client_close(&user.client);
	end_server(pid);
	CHECK_EQ(count_fds(), fds);
}

static const struct test tests[] = {
	{ "echo_all_ways", echo_all_ways, NULL },
	{ "costs", costs, NULL },
	{ "killed_server", killed_server, NULL },
	{ "killed_client", killed_client, NULL },
	{ "slow_reset", slow_reset, NULL },
	{ "two_peers", two_peers, NULL },
	{ "no_doorbell", no_doorbell, NULL },
	{ "memory_in_a_file", memory_in_a_file, NULL },
	{ "addresses", addresses, NULL },
	{ "cannot_serve", cannot_serve, NULL },
};

int main(int argc, char **argv)
{
	sigset_t set;
	int rc;

	/* The server's answer to refresh(). */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	report = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(folder, "/tmp/vmsg-test-XXXXXX");
	if (report == MAP_FAILED || !mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%.60s/sock", folder);
	rc = test_main("linux_amp", tests, sizeof(tests) / sizeof(*tests), argc, argv);
	unlink(path);
	rmdir(folder);
	return rc;
}
