/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A real vmsgd and a driver side, of which one is killed at a random instant, again and again. What
 * was written is compared with a model after each: a block holds what its last completed write put
 * there, or a later one that was on its way, whole. KILLS in the environment kills more often.
 */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmsg/blk.h>
#include <vmsg/linux.h>

#define BLOCKS	      128u
#define BLOCK_BYTES   4096u
#define DEPTH	      16u
#define QUEUE_SIZE    64u
#define PATIENCE_MS   20000
#define DEFAULT_KILLS 40u

static char folder[64];

/* Shared with the child that writes. */
struct model {
	volatile uint32_t issued[BLOCKS], completed[BLOCKS];
	volatile uint32_t writes; /* completed, of all */
	volatile bool running;
};

static struct model *model;

/* ---- The daemon: the program that was built beside this one ---- */

static pid_t start_daemon(const char *engine)
{
	char program[512], bus[96], control[96], device[128], *slash;
	ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 16);
	pid_t pid;

	CHECK(len > 0);
	program[len] = 0;
	slash = strrchr(program, '/');
	strcpy(slash + 1, "vmsgd");
	CHECK_EQ(access(program, X_OK), 0);
	snprintf(bus, sizeof(bus), "amp:%s/bus,size=4M", folder);
	snprintf(control, sizeof(control), "%s/control", folder);
	snprintf(device, sizeof(device), "blk,path=%s/disk.img%s", folder, engine);
	unlink(control);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, "vmsgd", "-q", "--bus", bus, "--control", control, "--device",
		      device, NULL);
		_exit(127);
	}
	/* The control socket is the last to be made. */
	for (int ms = 0; access(control, F_OK) < 0 && ms < PATIENCE_MS; ms++)
		usleep(1000);
	CHECK_EQ(access(control, F_OK), 0);
	return pid;
}

static int reap(pid_t pid, int number)
{
	int status = -1;

	kill(pid, number);
	waitpid(pid, &status, 0);
	return status;
}

/* ---- The driver side ---- */

struct side {
	struct vmsg_amp_client client;
	struct vmsg_blk_driver blk;
	struct vmsg_vq_driver vqs[1];
	struct vmsg_vq_state states[QUEUE_SIZE];
	struct vmsg_arena queues;
	struct slot {
		struct vmsg_blk_io io; /* first */
		struct vmsg_buf buf;
		uint8_t *ptr;
		uint32_t block, number;
	} slots[DEPTH];
};

static int open_side(struct side *side, bool packed)
{
	struct vmsg_amp_address address;
	char err[VMSG_ERR_TEXT], text[128];
	struct vmsg_arena *arena = &side->client.arena;
	int rc;

	memset(side, 0, sizeof(*side));
	snprintf(text, sizeof(text), "amp:%s/bus", folder);
	rc = vmsg_amp_parse(text, &address, err, sizeof(err));
	if (rc == 0)
		rc = vmsg_amp_client_open(&side->client, &address, VMSG_AUTO, PATIENCE_MS, err,
					  sizeof(err));
	if (rc < 0)
		return rc;
	side->queues.ptr = vmsg_arena_take(arena, 256u << 10, 4096, &side->queues.addr);
	side->queues.len_bytes = 256u << 10;
	vmsg_blk_driver_init(&side->blk, &side->client.amp.bus, 0);
	side->blk.driver.split = packed ? NULL : &vmsg_vq_split_driver;
	side->blk.driver.packed = packed ? &vmsg_vq_packed_driver : NULL;
	side->blk.driver.vqs = side->vqs;
	side->blk.driver.vq_count = 1;
	side->blk.driver.timeout_ms = PATIENCE_MS;
	side->blk.arena = &side->queues;
	side->blk.states = side->states;
	side->blk.queue_size = QUEUE_SIZE;
	side->blk.indirect_max = 4;
	for (uint32_t i = 0; rc == 0 && i < DEPTH; i++) {
		struct slot *slot = &side->slots[i];

		slot->ptr = vmsg_arena_take(arena, BLOCK_BYTES, BLOCK_BYTES, &slot->buf.addr);
		rc = vmsg_blk_io_init(&slot->io, arena);
		slot->buf.len = BLOCK_BYTES;
		slot->io.bufs = &slot->buf;
		slot->io.buf_count = 1;
	}
	return rc ? rc : vmsg_blk_driver_start(&side->blk);
}

/* Every block is whole, and of an age that can be; then that is its age. */
static void verify(struct side *side)
{
	struct slot *slot = &side->slots[0];

	for (uint32_t block = 0; block < BLOCKS; block++) {
		uint32_t age;

		slot->io.type = VMSG_BLK_T_IN;
		slot->io.sector = block * (BLOCK_BYTES / 512);
		slot->io.done = NULL;
		CHECK_EQ(vmsg_blk_driver_call(&side->blk, &slot->io, PATIENCE_MS), 0);
		memcpy(&age, slot->ptr, 4);
		CHECK(age >= model->completed[block] && age <= model->issued[block]);
		for (uint32_t at = 4; at < BLOCK_BYTES; at += 4)
			CHECK_MEM(slot->ptr + at, &age, 4);
		model->issued[block] = model->completed[block] = age;
	}
}

static void written(struct vmsg_blk_io *io)
{
	const struct slot *slot = (const struct slot *)io;

	if (io->result)
		return;
	model->completed[slot->block] = slot->number;
	model->writes++;
}

static bool in_use(const struct side *side, uint32_t block)
{
	for (uint32_t i = 0; i < DEPTH; i++) {
		if (side->slots[i].io.busy && side->slots[i].block == block)
			return true;
	}
	return false;
}

static int start_write(struct side *side, struct slot *slot)
{
	do {
		slot->block = (uint32_t)rand() % BLOCKS;
	} while (in_use(side, slot->block));
	slot->number = model->issued[slot->block] + 1;
	for (uint32_t at = 0; at < BLOCK_BYTES; at += 4)
		memcpy(slot->ptr + at, &slot->number, 4);
	model->issued[slot->block] = slot->number;
	slot->io.type = VMSG_BLK_T_OUT;
	slot->io.sector = slot->block * (BLOCK_BYTES / 512);
	slot->io.done = written;
	return vmsg_blk_driver_submit(&side->blk, 0, &slot->io);
}

/* Writes until something happens: the result, when it is not this process that ends. */
static int write_on(struct side *side, uint32_t limit_ms)
{
	struct vmsg_bus *bus = &side->client.amp.bus;
	uint32_t start_ms = vmsg_clock_ms();
	int rc = 0;

	model->running = true;
	while (rc == 0 && vmsg_clock_ms() - start_ms < limit_ms) {
		for (uint32_t i = 0; rc == 0 && i < DEPTH; i++) {
			if (!side->slots[i].io.busy)
				rc = start_write(side, &side->slots[i]);
		}
		vmsg_blk_driver_kick(&side->blk, 0);
		if (rc == 0)
			rc = bus->ops->wait(bus, 10);
		if (rc == 0)
			rc = vmsg_blk_driver_poll(&side->blk);
	}
	return rc;
}

/* Also in the middle of the start. */
static void wait_a_while(uint32_t turn)
{
	for (int ms = 0; turn % 2 && !model->running && ms < PATIENCE_MS; ms++)
		usleep(1000);
	usleep((unsigned int)rand() % 12000);
}

static uint32_t kills(void)
{
	const char *text = getenv("KILLS");

	return text ? (uint32_t)atoi(text) : DEFAULT_KILLS;
}

static void forget(void)
{
	char path[96];
	int fd;

	memset(model, 0, sizeof(*model));
	snprintf(path, sizeof(path), "%s/disk.img", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, BLOCKS * BLOCK_BYTES), 0);
	close(fd);
}

static void killed_driver(void *arg)
{
	static struct side side;
	pid_t daemon;

	forget();
	daemon = start_daemon(arg);
	for (uint32_t turn = 0; turn < kills(); turn++) {
		pid_t child;

		test_context("kill %u", turn);
		model->running = false;
		child = fork();
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			srand(turn);
			if (open_side(&side, turn % 3 == 0) == 0)
				write_on(&side, PATIENCE_MS);
			_exit(1);
		}
		wait_a_while(turn);
		CHECK_EQ(reap(child, SIGKILL), SIGKILL);
		CHECK_EQ(open_side(&side, turn % 3 == 1), 0);
		verify(&side);
		vmsg_amp_client_close(&side.client);
	}
	CHECK(model->writes > kills());
	CHECK_EQ(reap(daemon, SIGTERM), 0);
}

static void killed_daemon(void *arg)
{
	static struct side side;
	pid_t daemon;

	forget();
	daemon = start_daemon(arg);
	for (uint32_t turn = 0; turn < kills(); turn++) {
		pid_t killer;
		int rc;

		test_context("kill %u", turn);
		rc = open_side(&side, turn % 3 == 0);
		CHECK_EQ(rc, 0);
		verify(&side);
		killer = fork();
		if (killer == 0) {
			srand(turn);
			usleep((unsigned int)rand() % 12000);
			kill(daemon, SIGKILL);
			_exit(0);
		}
		rc = write_on(&side, PATIENCE_MS);
		waitpid(killer, NULL, 0);
		CHECK_EQ(reap(daemon, SIGKILL), SIGKILL);
		CHECK_EQ(rc, VMSG_ERR_SHUTDOWN);
		CHECK_EQ(side.blk.in_flight, 0);
		vmsg_amp_client_close(&side.client);
		daemon = start_daemon(arg);
	}
	CHECK(model->writes > kills());
	CHECK_EQ(open_side(&side, false), 0);
	verify(&side);
	vmsg_amp_client_close(&side.client);
	CHECK_EQ(reap(daemon, SIGTERM), 0);
}

static void remove_all(void)
{
	static const char *const names[] = { "disk.img", "bus", "control" };
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	rmdir(folder);
}

int main(int argc, char **argv)
{
	static char auto_engine[] = "", threads[] = ",engine=threads";
	static const struct test tests[] = {
		{ "driver", killed_driver, auto_engine },
		{ "driver_threads", killed_driver, threads },
		{ "daemon", killed_daemon, auto_engine },
		{ "daemon_threads", killed_daemon, threads },
	};
	int code;

	strcpy(folder, "/tmp/vmsg-killed-XXXXXX");
	if (!mkdtemp(folder))
		abort();
	model = mmap(NULL, sizeof(*model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (model == MAP_FAILED)
		abort();
	code = test_main("linux_killed", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
	remove_all();
	return code;
}
