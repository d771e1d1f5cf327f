/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * backend/file_open.c: what is refused and how, locks, sizes, and where io_uring or room is
 * missing.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "file_fixture.h"

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

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "refused", test_refused, NULL },
		{ "unreadable", test_unreadable, NULL },
		{ "lock", test_lock, NULL },
		{ "measure", test_measure, NULL },
		{ "without io_uring", test_without_uring, NULL },
		{ "disk full", test_disk_full, NULL },
	};

	return test_main("backend_open", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
