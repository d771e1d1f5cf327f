/* SPDX-License-Identifier: BSD-3-Clause */
/* A block device on a real file, for the tests of backend/file*.c. */
#ifndef TEST_UNIT_FILE_FIXTURE_H
#define TEST_UNIT_FILE_FIXTURE_H

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <vmsg/backend.h>

#include "blk_fixture.h"

#define IMAGE_BYTES   (1u << 20)
#define IMAGE_SECTORS (IMAGE_BYTES / VMSG_BLK_SECTOR_BYTES)
#define DEPTH	      8u
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

static inline void make_image(char *path, size_t path_size, const char *dir, off_t bytes)
{
	int fd;

	snprintf(path, path_size, "%s/vmsg-test-XXXXXX", dir);
	fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	close(fd);
}

/* The time of the loop is not that of the disk: let a real moment pass when there is nothing. */
static inline void work(struct blk_pair *pair)
{
	struct rig *rig = pair->user;
	struct pollfd pfd = { .fd = vmsg_file_fd(rig->file), .events = POLLIN };

	if (vmsg_file_poll(rig->file) || !pair->blk.in_flight)
		return;
	if (poll(&pfd, 1, 5) > 0 && vmsg_file_poll(rig->file) == 0)
		usleep(1000);
}

static inline void rig_attach(struct rig *rig, bool packed)
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

static inline struct rig *rig_open(const struct setting *setting, off_t bytes)
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

static inline void rig_close(struct rig *rig)
{
	CHECK(vmsg_blk_stop(&rig->pair.blk));
	vmsg_file_close(rig->file);
	unlink(rig->path);
	blk_pair_close(&rig->pair);
	free(rig);
}

static inline void read_image(const char *path, uint8_t *to, size_t bytes)
{
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, to, bytes, 0), bytes);
	close(fd);
}

static inline struct vmsg_buf slot_buf(const struct rig *rig, uint32_t slot, uint32_t len)
{
	return (struct vmsg_buf){ rig->slot_addr[slot], len };
}

#endif
