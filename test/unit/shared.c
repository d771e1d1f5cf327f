/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared memory of the Linux port: made, opened, received. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmsg/linux.h>

static char folder[64];

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

static void shared_memory(void *arg)
{
	static const uint64_t bad[] = { 0, 1, 2048, 4095, 4097, 12288, UINT64_MAX, 1ull << 60 };
	uint32_t fds = count_fds();
	struct vmsg_shared shared;
	char err[VMSG_ERR_TEXT], file[VMSG_PATH_BYTES];
	struct stat st;

	(void)arg;
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		test_context("%llu bytes", (unsigned long long)bad[i]);
		err[0] = 0;
		CHECK_EQ(vmsg_shared_create(&shared, "test", bad[i], err, sizeof(err)),
			 VMSG_ERR_INVAL);
		CHECK(strstr(err, "power of two"));
		vmsg_shared_close(&shared);
	}
	test_context("good sizes");
	CHECK_EQ(vmsg_shared_create(&shared, "test", 8192, err, sizeof(err)), 0);
	CHECK(shared.sealed);
	CHECK(ftruncate(shared.fd, 4096) < 0 && ftruncate(shared.fd, 16384) < 0);
	CHECK(fcntl(shared.fd, F_GETFD) & FD_CLOEXEC);
	memset(shared.ptr, 0xff, 8192);
	vmsg_shared_clear(&shared, 4096);
	CHECK_EQ(shared.ptr[0] | shared.ptr[4095], 0);
	CHECK_EQ(shared.ptr[4096], 0xff);
	vmsg_shared_close(&shared);
	vmsg_shared_close(&shared);

	/* A file: made, made longer, used in part; anything else is refused. */
	snprintf(file, sizeof(file), "%.60s/mem", folder);
	CHECK_EQ(vmsg_shared_open(&shared, file, 8192, 0600, err, sizeof(err)), 0);
	CHECK(!shared.sealed);
	shared.ptr[8191] = 'e';
	vmsg_shared_close(&shared);
	CHECK_EQ(vmsg_shared_open(&shared, file, 65536, 0600, err, sizeof(err)), 0);
	CHECK_EQ(shared.ptr[8191], 'e');
	vmsg_shared_close(&shared);
	CHECK_EQ(vmsg_shared_open(&shared, file, 4096, 0600, err, sizeof(err)), 0);
	CHECK_EQ(stat(file, &st), 0);
	CHECK_EQ(st.st_size, 65536);
	CHECK_EQ(st.st_mode & 0777, 0600);
	vmsg_shared_close(&shared);
	unlink(file);
	CHECK_EQ(vmsg_shared_open(&shared, folder, 4096, 0600, err, sizeof(err)), -EISDIR);
	CHECK(strstr(err, folder));
	CHECK_EQ(mkfifo(file, 0600), 0);
	CHECK(vmsg_shared_open(&shared, file, 4096, 0600, err, sizeof(err)) < 0);
	unlink(file);
	CHECK_EQ(count_fds(), fds);
}

/* What a peer hands out as memory; it is closed whatever it was. */
static void adopted_memory(void *arg)
{
	uint32_t fds = count_fds();
	struct vmsg_shared shared;
	char err[VMSG_ERR_TEXT];
	int fd;

	(void)arg;
	for (uint32_t size = 0; size < 8192; size += 1000) {
		fd = memfd_create("given", MFD_CLOEXEC);
		CHECK_EQ(ftruncate(fd, size), 0);
		CHECK_EQ(vmsg_shared_adopt(&shared, fd, err, sizeof(err)), VMSG_ERR_PROTO);
	}
	fd = memfd_create("given", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(fd, 12288), 0);
	CHECK_EQ(vmsg_shared_adopt(&shared, fd, err, sizeof(err)), 0);
	CHECK_EQ(shared.len_bytes, 12288);
	CHECK(!shared.sealed);
	vmsg_shared_close(&shared);
	/* Sparse beyond all reason, read-only, sealed against writing, not a file, not open. */
	fd = memfd_create("given", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(fd, (off_t)1 << 60), 0);
	CHECK(vmsg_shared_adopt(&shared, fd, err, sizeof(err)) < 0);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK(vmsg_shared_adopt(&shared, fd, err, sizeof(err)) < 0);
	fd = memfd_create("given", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK_EQ(ftruncate(fd, 8192), 0);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	CHECK_EQ(vmsg_shared_adopt(&shared, fd, err, sizeof(err)), -EPERM);
	CHECK_EQ(vmsg_shared_adopt(&shared, eventfd(0, EFD_CLOEXEC), err, sizeof(err)),
		 VMSG_ERR_PROTO);
	CHECK_EQ(vmsg_shared_adopt(&shared, 9999, err, sizeof(err)), -EBADF);
	CHECK_EQ(count_fds(), fds);
}

static const struct test tests[] = {
	{ "shared_memory", shared_memory, NULL },
	{ "adopted_memory", adopted_memory, NULL },
};

int main(int argc, char **argv)
{
	int rc;

	strcpy(folder, "/tmp/vmsg-test-XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	rc = test_main("shared", tests, sizeof(tests) / sizeof(*tests), argc, argv);
	rmdir(folder);
	return rc;
}
