/* SPDX-License-Identifier: BSD-3-Clause */
/* backend/file*.c behind a whole block device and its driver, on real files, with every engine. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmsg/backend.h>

#include "blk_fixture.h"

#define IMAGE_BYTES   (1u << 20)
#define IMAGE_SECTORS (IMAGE_BYTES / VMSG_BLK_SECTOR_BYTES)
#define DEPTH         8u
#define SLOT_BYTES    65536u

/* One case of the matrix. */
struct setting {
	const char *engine;
	const char *dir;
	bool direct, packed;
};

struct rig {
	struct blk_pair pair;
	struct vmsg_file *file;
	char path[128];
	struct vmsg_blk_io io[DEPTH];
	uint8_t *slot[DEPTH]; /* SLOT_BYTES of shared memory each */
	uint64_t slot_addr[DEPTH];
};

static uint32_t random_state;

static uint32_t dice(uint32_t sides)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)(random_state ^ random_state >> 15) * sides) >> 32);
}

static void make_image(char *path, size_t path_size, const char *dir, off_t bytes)
{
	int fd;

	snprintf(path, path_size, "%s/vmsg-test-XXXXXX", dir);
	fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	close(fd);
}

/* The time of the loop is not that of the disk: let a real moment pass when there is nothing. */
static void work(struct blk_pair *pair)
{
	struct rig *rig = pair->user;
	struct pollfd pfd = { .fd = vmsg_file_fd(rig->file), .events = POLLIN };

	if (vmsg_file_poll(rig->file) == 0 && pair->blk.in_flight && poll(&pfd, 1, 5) > 0)
		vmsg_file_poll(rig->file);
}

static void rig_attach(struct rig *rig, bool packed)
{
	struct blk_pair *pair = &rig->pair;

	blk_pair_open(pair, packed, 1);
	pair->blk.backend = &vmsg_file_backend;
	pair->blk.backend_data = rig->file;
	pair->blk.info = *vmsg_file_info(rig->file);
	pair->work = work;
	pair->user = rig;
	blk_pair_add(pair);
	CHECK_EQ(vmsg_blk_driver_start(&pair->driver), 0);
	for (uint32_t i = 0; i < DEPTH; i++) {
		CHECK_EQ(vmsg_blk_io_init(&rig->io[i], &pair->data), 0);
		rig->slot[i] = vmsg_arena_take(&pair->data, SLOT_BYTES, 4096, &rig->slot_addr[i]);
		CHECK(rig->slot[i] != NULL);
	}
}

static struct rig *rig_open(const struct setting *setting, off_t bytes)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct vmsg_file_options options = { .engine = setting->engine,
					     .direct = setting->direct,
					     .depth = BLK_QUEUE_SIZE };
	char error[256] = "";
	int rc;

	make_image(rig->path, sizeof(rig->path), setting->dir, bytes);
	options.path = rig->path;
	rc = vmsg_file_open(&rig->file, &options, error, sizeof(error));
	if (rc && (setting->direct || strcmp(setting->engine, "uring") == 0)) {
		unlink(rig->path);
		free(rig);
		TEST_SKIP(error);
	}
	CHECK_STR(error, "");
	CHECK_EQ(rc, 0);
	CHECK_STR(vmsg_file_engine(rig->file), setting->engine);
	rig_attach(rig, setting->packed);
	return rig;
}

static void rig_close(struct rig *rig)
{
	CHECK(vmsg_blk_stop(&rig->pair.blk));
	vmsg_file_close(rig->file);
	unlink(rig->path);
	blk_pair_close(&rig->pair);
	free(rig);
}

static void read_image(const char *path, uint8_t *to, size_t bytes)
{
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, to, bytes, 0), bytes);
	close(fd);
}

/* ---- Random requests, several at a time, compared with an image in memory ---- */

struct slot_plan {
	uint32_t type, sector, sectors;
	struct vmsg_buf bufs[4];
};

static bool overlaps(const struct slot_plan *plans, uint32_t count, const struct slot_plan *plan)
{
	for (uint32_t i = 0; i < count; i++) {
		if (plan->sector < plans[i].sector + plans[i].sectors &&
		    plans[i].sector < plan->sector + plan->sectors)
			return true;
	}
	return false;
}

/* Cuts the slot's memory into up to four buffers at odd places. */
static uint16_t cut(struct rig *rig, uint32_t slot, struct slot_plan *plan, bool odd)
{
	uint32_t left = plan->sectors * VMSG_BLK_SECTOR_BYTES, at = 0;
	uint16_t count = 0;

	while (left) {
		uint32_t len = count == 3 ? left : 1 + dice(left);

		if (!odd)
			len = left;
		plan->bufs[count++] = (struct vmsg_buf){ rig->slot_addr[slot] + at, len };
		at += len;
		left -= len;
	}
	return count;
}

static void make_plan(struct slot_plan *plans, uint32_t count, uint32_t unit)
{
	static const uint32_t types[] = { VMSG_BLK_T_IN,      VMSG_BLK_T_IN,
					  VMSG_BLK_T_OUT,     VMSG_BLK_T_OUT,
					  VMSG_BLK_T_OUT,     VMSG_BLK_T_WRITE_ZEROES,
					  VMSG_BLK_T_DISCARD, VMSG_BLK_T_FLUSH };
	struct slot_plan *plan = &plans[count];

	do {
		plan->type = types[dice(8)];
		plan->sectors = unit * (1 + dice(SLOT_BYTES / VMSG_BLK_SECTOR_BYTES / unit));
		plan->sector = unit * dice((IMAGE_SECTORS - plan->sectors) / unit + 1);
	} while (overlaps(plans, count, plan));
}

static void submit_plan(struct rig *rig, uint32_t slot, struct slot_plan *plan, bool odd)
{
	struct vmsg_blk_io *io = &rig->io[slot];

	io->type = plan->type;
	io->sector = plan->sector;
	io->sector_count = plan->sectors;
	io->may_unmap = dice(2);
	io->bufs = plan->bufs;
	io->buf_count = cut(rig, slot, plan, odd);
	for (uint32_t i = 0; i < plan->sectors * VMSG_BLK_SECTOR_BYTES; i++)
		rig->slot[slot][i] = (uint8_t)dice(256);
	CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, io), 0);
}

static void check_plan(struct rig *rig, uint32_t slot, const struct slot_plan *plan, uint8_t *image)
{
	uint8_t *at = image + (size_t)plan->sector * VMSG_BLK_SECTOR_BYTES;
	size_t len = (size_t)plan->sectors * VMSG_BLK_SECTOR_BYTES;

	CHECK_EQ(rig->io[slot].result, 0);
	if (plan->type == VMSG_BLK_T_IN)
		CHECK_MEM(rig->slot[slot], at, len);
	else if (plan->type == VMSG_BLK_T_OUT)
		memcpy(at, rig->slot[slot], len);
	else if (plan->type != VMSG_BLK_T_FLUSH)
		memset(at, 0, len); /* these file systems read zeros after a discard */
}

static void test_random(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(setting, IMAGE_BYTES);
	uint8_t *image = calloc(1, IMAGE_BYTES), *seen = malloc(IMAGE_BYTES);
	uint32_t unit = rig->pair.blk.info.block_bytes / VMSG_BLK_SECTOR_BYTES;

	random_state = 1;
	for (uint32_t round = 0; round < 100; round++) {
		struct slot_plan plans[DEPTH];
		uint32_t count = 1 + dice(DEPTH);
		bool odd = dice(2);

		test_context("round %u", round);
		for (uint32_t i = 0; i < count; i++) {
			make_plan(plans, i, unit);
			submit_plan(rig, i, &plans[i], odd);
		}
		vmsg_blk_driver_kick(&rig->pair.driver, 0);
		while (rig->pair.driver.in_flight) {
			CHECK_EQ(rig->pair.ops.wait(&rig->pair.loop.driver.bus, 1), 0);
			CHECK_EQ(vmsg_blk_driver_poll(&rig->pair.driver), 0);
		}
		for (uint32_t i = 0; i < count; i++)
			check_plan(rig, i, &plans[i], image);
	}
	test_context(" ");
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_FLUSH, 0,
			       (struct vmsg_buf){ 0, 0 }),
		 0);
	read_image(rig->path, seen, IMAGE_BYTES);
	CHECK_MEM(seen, image, IMAGE_BYTES);
	CHECK_EQ(vmsg_file_counters(rig->file)->failed, 0);
	free(seen);
	free(image);
	rig_close(rig);
}

static struct vmsg_buf slot_buf(const struct rig *rig, uint32_t slot, uint32_t len)
{
	return (struct vmsg_buf){ rig->slot_addr[slot], len };
}

/* What the page cache has is read before submit returns; what bypasses it is not. */
static void test_in_place(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(setting, IMAGE_BYTES);
	const struct vmsg_file_counters *counters = vmsg_file_counters(rig->file);
	uint64_t before;

	for (uint64_t i = 0; i < 2; i++) {
		memset(rig->slot[0], 0x5a, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 8,
				       slot_buf(rig, 0, 4096)),
			 0);
	}
	before = counters->in_place;
	for (uint32_t i = 0; i < 10; i++) {
		memset(rig->slot[0], 0, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, 8,
				       slot_buf(rig, 0, 4096)),
			 0);
		CHECK_EQ(rig->slot[0][4095], 0x5a);
	}
	CHECK_EQ(counters->in_place - before, setting->direct ? 0 : 10);
	rig_close(rig);
}

/* Writes are on the disk one by one when the cache is off, and on FLUSH when it is on. */
static void test_durable(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	uint8_t seen[4096];

	for (uint8_t writeback = 0; writeback < 2; writeback++) {
		CHECK_EQ(vmsg_blk_driver_set_writeback(&rig->pair.driver, writeback), 0);
		CHECK_EQ(vmsg_blk_writeback(&rig->pair.blk), writeback);
		CHECK_EQ(vmsg_blk_driver_refresh(&rig->pair.driver), 0);
		CHECK_EQ(rig->pair.driver.config.writeback, writeback);
		memset(rig->slot[0], 0x70 + writeback, SLOT_BYTES);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 0,
				       slot_buf(rig, 0, 4096)),
			 0);
		rig->io[0].sector_count = 8;
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_DISCARD, 16,
				       slot_buf(rig, 0, 0)),
			 0);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_WRITE_ZEROES, 24,
				       slot_buf(rig, 0, 0)),
			 0);
		CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_FLUSH, 0,
				       slot_buf(rig, 0, 0)),
			 0);
		read_image(rig->path, seen, sizeof(seen));
		CHECK_MEM(seen, rig->slot[0], sizeof(seen));
	}
	rig_close(rig);
}

/* The file gets shorter behind our back: an error for the request, and life goes on. */
static void test_shrunk(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	const uint64_t last = IMAGE_SECTORS - 8;

	CHECK_EQ(truncate(rig->path, IMAGE_BYTES / 2), 0);
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, last,
			       slot_buf(rig, 0, 4096)),
		 VMSG_ERR_IO);
	/* Half of it is there. */
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, IMAGE_SECTORS / 2 - 8,
			       slot_buf(rig, 0, 8192)),
		 VMSG_ERR_IO);
	CHECK_EQ(vmsg_file_counters(rig->file)->failed, 2);
	CHECK_EQ(vmsg_file_counters(rig->file)->last_error, EIO);
	CHECK_EQ(blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_IN, 0,
			       slot_buf(rig, 0, 4096)),
		 0);
	rig_close(rig);
}

/* The disk refuses: beyond the limit for files there is no room. */
static void test_no_room(void *arg)
{
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	struct rlimit before, limit;
	int refused, accepted;

	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	limit = before;
	limit.rlim_cur = IMAGE_BYTES / 2;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	memset(rig->slot[0], 0x33, SLOT_BYTES);
	refused = blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, IMAGE_SECTORS - 8,
				slot_buf(rig, 0, 4096));
	accepted = blk_pair_call(&rig->pair, &rig->io[0], VMSG_BLK_T_OUT, 0,
				 slot_buf(rig, 0, 4096));
	setrlimit(RLIMIT_FSIZE, &before);
	CHECK_EQ(refused, VMSG_ERR_IO);
	CHECK_EQ(vmsg_file_counters(rig->file)->last_error, EFBIG);
	CHECK_EQ(accepted, 0);
	CHECK_EQ(rig->pair.blk.device.status & VMSG_STATUS_NEEDS_RESET, 0);
	rig_close(rig);
}

/* A reset with requests in flight: after status 0 not a byte of the driver's memory changes. */
static void test_reset_in_flight(void *arg)
{
	const struct setting *setting = arg;
	struct rig *rig = rig_open(arg, IMAGE_BYTES);
	uint8_t *copy = malloc(BLK_MEMORY_BYTES);
	uint32_t pending = 0;

	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < DEPTH; i++) {
			struct vmsg_buf buf = slot_buf(rig, i, SLOT_BYTES);

			rig->io[i].type = i % 2 ? VMSG_BLK_T_IN : VMSG_BLK_T_OUT;
			rig->io[i].sector = i * SLOT_BYTES / VMSG_BLK_SECTOR_BYTES;
			rig->io[i].bufs = &buf;
			rig->io[i].buf_count = 1;
			CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[i]), 0);
		}
		vmsg_blk_driver_kick(&rig->pair.driver, 0);
		vmsg_loop_run(&rig->pair.loop);
		pending += rig->pair.blk.in_flight;
		CHECK_EQ(vmsg_blk_driver_reset(&rig->pair.driver), 0);
		CHECK_EQ(rig->pair.blk.in_flight, 0);
		for (uint32_t i = 0; i < DEPTH; i++)
			CHECK(!rig->io[i].busy);
		memcpy(copy, rig->pair.memory, BLK_MEMORY_BYTES);
		usleep(1000);
		work(&rig->pair);
		CHECK_MEM(copy, rig->pair.memory, BLK_MEMORY_BYTES);
		CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), 0);
	}
	/* Direct I/O is never done in place, so something was under way. */
	CHECK(pending > 0 || !setting->direct);
	free(copy);
	rig_close(rig);
}

/* ---- Opening ---- */

static void expect_error(const char *path, const struct vmsg_file_options *base, int rc,
			 const char *text)
{
	struct vmsg_file_options options = *base;
	struct vmsg_file *file = (void *)1;
	char error[256] = "";

	options.path = path;
	CHECK_EQ(vmsg_file_open(&file, &options, error, sizeof(error)), rc);
	CHECK(file == NULL);
	test_context("%s", error);
	CHECK(strstr(error, text) != NULL);
	CHECK(strstr(error, path) != NULL);
	CHECK(strchr(error, '\n') == NULL);
	test_context(" ");
}

static void test_refused(void *arg)
{
	const struct vmsg_file_options plain = { .depth = 4 };
	const struct vmsg_file_options odd = { .engine = "steam" };
	char path[128], fifo[160];

	(void)arg;
	expect_error("/nowhere/disk.img", &plain, -ENOENT, "no such file");
	expect_error("/tmp", &plain, -EISDIR, "directory");
	expect_error("/dev/null", &plain, -ENOTBLK, "neither");
	make_image(path, sizeof(path), "/tmp", 0);
	expect_error(path, &plain, -EINVAL, "empty");
	CHECK_EQ(truncate(path, 1000), 0);
	expect_error(path, &plain, -EINVAL, "truncate -s %512");
	CHECK_EQ(truncate(path, 1024), 0);
	expect_error(path, &odd, -EINVAL, "no engine 'steam'");
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	CHECK_EQ(mkfifo(fifo, 0600), 0);
	expect_error(fifo, &plain, -ENOTBLK, "neither");
	unlink(fifo);
	unlink(path);
}

static void test_unreadable(void *arg)
{
	struct vmsg_file_options options = { .read_only = true };
	struct vmsg_file *file;
	char path[128], error[256] = "";
	int rc;

	(void)arg;
	make_image(path, sizeof(path), "/tmp", 4096);
	chmod(path, 0);
	options.path = path;
	if (geteuid() == 0) {
		CHECK_EQ(seteuid(65534), 0);
		rc = vmsg_file_open(&file, &options, error, sizeof(error));
		CHECK_EQ(seteuid(0), 0);
	} else {
		rc = vmsg_file_open(&file, &options, error, sizeof(error));
	}
	unlink(path);
	CHECK_EQ(rc, -EACCES);
	CHECK(strstr(error, "permission denied") != NULL);
}

static void test_lock(void *arg)
{
	const struct vmsg_file_options write = { 0 }, read = { .read_only = true };
	struct vmsg_file_options options = { .share = true };
	struct vmsg_file *a, *b;
	char path[128], error[256] = "";

	(void)arg;
	make_image(path, sizeof(path), "/tmp", 4096);
	options.path = path;
	options.share = false;
	CHECK_EQ(vmsg_file_open(&a, &options, error, sizeof(error)), 0);
	expect_error(path, &write, -EBUSY, "in use");
	expect_error(path, &read, -EBUSY, "in use");
	options.share = true;
	CHECK_EQ(vmsg_file_open(&b, &options, error, sizeof(error)), 0);
	vmsg_file_close(b);
	vmsg_file_close(a);
	/* Readers get along. */
	options.share = false;
	options.read_only = true;
	CHECK_EQ(vmsg_file_open(&a, &options, error, sizeof(error)), 0);
	CHECK_EQ(vmsg_file_open(&b, &options, error, sizeof(error)), 0);
	expect_error(path, &write, -EBUSY, "in use");
	vmsg_file_close(b);
	vmsg_file_close(a);
	unlink(path);
}

static void test_measure(void *arg)
{
	struct vmsg_file_options options = { .engine = "sync" };
	struct vmsg_file *file;
	uint64_t sectors = 0;
	char path[128], error[256] = "";

	(void)arg;
	make_image(path, sizeof(path), "/tmp", 4096);
	options.path = path;
	CHECK_EQ(vmsg_file_open(&file, &options, error, sizeof(error)), 0);
	CHECK_EQ(vmsg_file_info(file)->capacity_sectors, 8);
	CHECK_EQ(truncate(path, 1u << 20), 0);
	CHECK_EQ(vmsg_file_measure(file, &sectors, error, sizeof(error)), 0);
	CHECK_EQ(sectors, 2048);
	CHECK_EQ(truncate(path, 1000), 0);
	CHECK_EQ(vmsg_file_measure(file, &sectors, error, sizeof(error)), -EINVAL);
	CHECK_EQ(sectors, 2048);
	vmsg_file_close(file);
	unlink(path);
}

/* ---- In a child process, whose exit code is the verdict: 0, 77 for a skip, else a step ---- */

static void in_child(int (*run)(void), const char *skip)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run());
	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		TEST_SKIP(skip);
	CHECK_EQ(WEXITSTATUS(status), 0);
}

static int without_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	struct vmsg_file_options options = { 0 };
	struct vmsg_file *file;
	char path[] = "/tmp/vmsg-test-XXXXXX", error[256] = "";
	int fd = mkstemp(path), step = 0;

	if (fd < 0 || ftruncate(fd, 4096) != 0)
		return 1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program)) {
		unlink(path);
		return 77;
	}
	options.path = path;
	if (vmsg_file_open(&file, &options, error, sizeof(error)) != 0)
		step = 2;
	else if (strcmp(vmsg_file_engine(file), "threads") != 0)
		step = 3;
	else
		vmsg_file_close(file);
	options.engine = "uring";
	if (!step && vmsg_file_open(&file, &options, error, sizeof(error)) != -EPERM)
		step = 4;
	if (!step && !strstr(error, "refused here"))
		step = 5;
	unlink(path);
	return step;
}

static void test_without_uring(void *arg)
{
	(void)arg;
	in_child(without_uring, "no seccomp here");
}

/* A file system of 1 MiB with an image of 4 MiB in it: writing ends in ENOSPC. */
static int disk_full(void)
{
	static struct rig rig;
	struct vmsg_file_options options = { .path = "/mnt/disk.img" };
	uint32_t good = 0, bad = 0;
	char error[256] = "";
	int fd;

	if (unshare(CLONE_NEWNS) || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("vmsg", "/mnt", "tmpfs", 0, "size=1m"))
		return 77;
	fd = open("/mnt/disk.img", O_CREAT | O_RDWR, 0600);
	if (fd < 0 || ftruncate(fd, 4 << 20) != 0)
		return 1;
	if (vmsg_file_open(&rig.file, &options, error, sizeof(error)) != 0)
		return 2;
	rig_attach(&rig, true);
	for (uint64_t i = 0; i < (4u << 20) / SLOT_BYTES; i++) {
		int rc = blk_pair_call(&rig.pair, &rig.io[0], VMSG_BLK_T_OUT, i * 128,
				       slot_buf(&rig, 0, SLOT_BYTES));

		good += rc == 0;
		bad += rc == VMSG_ERR_IO;
	}
	if (!good || !bad || good + bad != (4u << 20) / SLOT_BYTES)
		return 3;
	if (vmsg_file_counters(rig.file)->last_error != ENOSPC)
		return 4;
	/* Room is made, and writing works again. */
	rig.io[0].sector_count = 1024;
	if (blk_pair_call(&rig.pair, &rig.io[0], VMSG_BLK_T_DISCARD, 0, slot_buf(&rig, 0, 0)))
		return 5;
	if (blk_pair_call(&rig.pair, &rig.io[0], VMSG_BLK_T_OUT, 7000, slot_buf(&rig, 0, 4096)))
		return 6;
	vmsg_file_close(rig.file);
	return 0;
}

static void test_disk_full(void *arg)
{
	(void)arg;
	in_child(disk_full, "not allowed to mount");
}

/* ---- The matrix ---- */

static const struct setting settings[] = {
	{ "uring", "/tmp", false, true },    { "uring", "/tmp", true, false },
	{ "uring", "/dev/shm", false, true }, { "threads", "/tmp", false, false },
	{ "threads", "/tmp", true, true },   { "sync", "/tmp", false, true },
	{ "sync", "/dev/shm", false, false },
};

static const struct {
	const char *name;
	void (*run)(void *arg);
} matrix[] = {
	{ "random", test_random },         { "in place", test_in_place },
	{ "durable", test_durable },       { "shrunk", test_shrunk },
	{ "no room", test_no_room },       { "reset in flight", test_reset_in_flight },
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))
#define MATRIX   (sizeof(matrix) / sizeof(matrix[0]))

int main(int argc, char **argv)
{
	static char names[SETTINGS * MATRIX][64];
	static struct test tests[SETTINGS * MATRIX + 8];
	static const struct test others[] = {
		{ "refused", test_refused, NULL },
		{ "unreadable", test_unreadable, NULL },
		{ "lock", test_lock, NULL },
		{ "measure", test_measure, NULL },
		{ "without io_uring", test_without_uring, NULL },
		{ "disk full", test_disk_full, NULL },
	};
	size_t count = 0;

	for (size_t m = 0; m < MATRIX; m++) {
		for (size_t s = 0; s < SETTINGS; s++, count++) {
			snprintf(names[count], sizeof(names[count]), "%s: %s %s%s", matrix[m].name,
				 settings[s].engine, settings[s].dir,
				 settings[s].direct ? " direct" : "");
			tests[count].name = names[count];
			tests[count].run = matrix[m].run;
			tests[count].arg = (void *)&settings[s];
		}
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		tests[count++] = others[i];
	return test_main("backend_file", tests, count, argc, argv);
}
