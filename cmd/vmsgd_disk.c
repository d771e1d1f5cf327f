/* SPDX-License-Identifier: BSD-3-Clause */
/* blk: a disk in a file or block device, in memory ("ram:64M"), or nowhere ("null:1G"). */
#include "vmsgd.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_MS		    1000u /* for the image, when the daemon starts */
#define IOV_MAX_PER_REQUEST 128u /* so seg_max is 126 */

enum flush_state {
	FLUSH_NOT_YET,
	FLUSH_RUNNING,
	FLUSH_DONE,
};

struct disk {
	struct instance instance; /* first */
	struct vmsg_blk blk;
	struct vmsg_vq_device *vqs;
	struct vmsg_file *file; /* NULL: ram or nothing */
	struct vmsg_ram ram;
	struct vmsg_watch watch;
	bool watching;
	int fd; /* writable file: to grow it, and to flush it at the end */
	pthread_t flusher;
	enum flush_state flush;
	atomic_bool flushed;
	int flush_error;
};

static struct disk *to_disk(struct instance *instance)
{
	return (struct disk *)instance;
}

static const struct disk *to_const_disk(const struct instance *instance)
{
	return (const struct disk *)instance;
}

/* ---- What was asked for ---- */

/* "ram:64M" and "null:1G". False: a file. */
static bool in_memory(const char *path, bool *null, const char **size)
{
	*null = !strncmp(path, "null:", 5);
	if (!*null && strncmp(path, "ram:", 4))
		return false;
	*size = strchr(path, ':') + 1;
	return true;
}

static int check(const struct device *device, char *err, size_t err_size)
{
	const struct device_options *options = &device->options;
	const char *size;
	uint64_t bytes;
	bool null;

	if (!options->path)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "blk needs an image: add path=FILE");
	if (options->queue_size & (options->queue_size - 1))
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "queue_size=%u is not a power of two", options->queue_size);
	if (!in_memory(options->path, &null, &size))
		return 0;
	if (options->engine || options->direct || options->share)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "engine, direct and share are for files, not for %s",
				   options->path);
	if (common_parse_size(size, options->path, &bytes, err, err_size) < 0)
		return VMSG_ERR_INVAL;
	if (!bytes || bytes % VMSG_BLK_SECTOR_BYTES)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s: the size is not a multiple of 512", options->path);
	return 0;
}

/* Two systems that each believe the disk to be theirs alone would ruin it. */
static int check_bus(const struct device *device, char *err, size_t err_size)
{
	const struct device_options *options = &device->options;

	if (options->read_only || !strncmp(options->path, "null:", 5))
		return 0;
	return common_fail(err, err_size, VMSG_ERR_INVAL,
			   "%s would be written by %u peers at once: add ro or peer=K",
			   options->path, device->bus->address.peers);
}

/* ---- Opening ---- */

static int make_queues(struct disk *disk, const struct device_options *options)
{
	uint32_t size = options->queue_size;
	uint32_t iov_max = size < IOV_MAX_PER_REQUEST ? size : IOV_MAX_PER_REQUEST;

	disk->vqs = calloc(options->queues, sizeof(*disk->vqs));
	disk->blk.queues = calloc(options->queues, sizeof(*disk->blk.queues));
	if (!disk->vqs || !disk->blk.queues)
		return VMSG_ERR_NOMEM;
	disk->blk.device.vqs = disk->vqs;
	disk->blk.device.vq_count = options->queues;
	for (uint32_t i = 0; i < options->queues; i++) {
		struct vmsg_blk_queue *queue = &disk->blk.queues[i];

		/* Pages of these are touched as requests come, not here. */
		queue->requests = calloc(size, sizeof(*queue->requests));
		queue->iovs = calloc((size_t)size * iov_max, sizeof(*queue->iovs));
		queue->iov_max = (uint16_t)iov_max;
		disk->vqs[i].max_size = (uint16_t)size;
		if (!queue->requests || !queue->iovs)
			return VMSG_ERR_NOMEM;
	}
	return 0;
}

static void set_serial(struct disk *disk, const struct device_options *options)
{
	const char *slash = strrchr(options->path, '/');
	const char *text = options->serial ? options->serial : slash ? slash + 1 : options->path;
	size_t len = strlen(text);

	memcpy(disk->blk.id, text, len < VMSG_BLK_ID_BYTES ? len : VMSG_BLK_ID_BYTES);
}

static int open_memory(struct disk *disk, const struct device_options *options, bool null,
		       const char *size, char *err, size_t err_size)
{
	uint64_t bytes;
	int rc = common_parse_size(size, options->path, &bytes, err, err_size);

	if (rc == 0)
		rc = vmsg_ram_open(&disk->ram, bytes, null, err, err_size);
	disk->blk.backend = &vmsg_ram_backend;
	disk->blk.backend_data = &disk->ram;
	disk->blk.info = disk->ram.info;
	disk->blk.info.read_only = options->read_only;
	return rc;
}

static int open_file(struct disk *disk, const struct device *device, char *err, size_t err_size)
{
	const struct device_options *options = &device->options;
	struct vmsg_file_options wanted = {
		.path = options->path,
		.engine = options->engine,
		.read_only = options->read_only,
		.direct = options->direct,
		.share = options->share,
		.depth = options->queues * options->queue_size,
		/* Later, the loop must not wait. */
		.lock_ms = device->bus->open ? 0 : LOCK_MS,
	};
	int rc = vmsg_file_open(&disk->file, &wanted, err, err_size);

	if (rc < 0)
		return rc;
	disk->blk.backend = &vmsg_file_backend;
	disk->blk.backend_data = disk->file;
	disk->blk.info = *vmsg_file_info(disk->file);
	if (options->read_only)
		return 0;
	disk->fd = open(options->path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return disk->fd >= 0 ? 0
			     : common_fail(err, err_size, -errno, "%s: %s", options->path,
					   strerror(errno));
}

/* Completions wait. */
static void on_ready(struct vmsg_watch *watch, uint32_t events)
{
	struct disk *disk = watch->user;

	(void)events;
	vmsg_file_poll(disk->file);
}

static int watch_file(struct disk *disk, struct vmsg_events *events, char *err, size_t err_size)
{
	int rc;

	disk->watch = (struct vmsg_watch){
		.fd = vmsg_file_fd(disk->file),
		.events = EPOLLIN,
		.ready = on_ready,
		.user = disk,
	};
	if (disk->watch.fd < 0)
		return 0;
	rc = vmsg_events_add(events, &disk->watch);
	if (rc < 0)
		return common_fail(err, err_size, rc, "cannot watch the file: %s", strerror(-rc));
	disk->watching = true;
	return 0;
}

static void disk_close(struct instance *instance)
{
	struct disk *disk = to_disk(instance);

	if (disk->watching)
		vmsg_events_remove(&instance->daemon->events, &disk->watch);
	disk->watching = false;
	vmsg_file_close(disk->file);
	disk->file = NULL;
	vmsg_ram_close(&disk->ram);
	if (disk->fd >= 0)
		close(disk->fd);
	disk->fd = -1;
	/* What the device itself has stays until it is off the bus: see disk_free. */
}

static void disk_free(struct instance *instance)
{
	struct disk *disk = to_disk(instance);

	for (uint32_t i = 0; disk->blk.queues && i < disk->blk.device.vq_count; i++) {
		free(disk->blk.queues[i].requests);
		free(disk->blk.queues[i].iovs);
	}
	free(disk->blk.queues);
	free(disk->vqs);
	free(disk);
}

static int disk_open(struct device *device, uint32_t peer, struct instance **instance, char *err,
		     size_t err_size)
{
	const struct device_options *options = &device->options;
	struct disk *disk = calloc(1, sizeof(*disk));
	const char *size;
	bool null;
	int rc;

	(void)peer;
	if (!disk)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	disk->fd = -1;
	disk->instance.device = &disk->blk.device;
	disk->instance.daemon = device->daemon;
	if (make_queues(disk, options) < 0)
		rc = common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	else if (in_memory(options->path, &null, &size))
		rc = open_memory(disk, options, null, size, err, err_size);
	else
		rc = open_file(disk, device, err, err_size);
	if (rc == 0 && disk->file)
		rc = watch_file(disk, &device->daemon->events, err, err_size);
	if (rc < 0) {
		disk_close(&disk->instance);
		disk_free(&disk->instance);
		return rc;
	}
	set_serial(disk, options);
	*instance = &disk->instance;
	return 0;
}

static void disk_init(struct instance *instance)
{
	vmsg_blk_init(&to_disk(instance)->blk);
}

/* ---- Running ---- */

static bool disk_poll(struct instance *instance)
{
	struct disk *disk = to_disk(instance);

	if (!disk->file)
		return vmsg_ram_poll(&disk->ram);
	/* The rest of the time the descriptor tells. */
	return disk->blk.in_flight && vmsg_file_poll(disk->file) > 0;
}

static void *flush(void *arg)
{
	struct disk *disk = arg;

	disk->flush_error = fdatasync(disk->fd) < 0 ? errno : 0;
	atomic_store(&disk->flushed, true);
	return NULL;
}

/* In a thread: a slow disk must not hold up the others. */
static bool flush_step(struct disk *disk)
{
	bool alone = false;

	if (disk->flush == FLUSH_NOT_YET) {
		alone = pthread_create(&disk->flusher, NULL, flush, disk) != 0;
		if (alone)
			flush(disk);
		disk->flush = FLUSH_RUNNING;
	}
	if (disk->flush == FLUSH_DONE)
		return true;
	if (!atomic_load(&disk->flushed))
		return false;
	if (!alone)
		pthread_join(disk->flusher, NULL);
	disk->flush = FLUSH_DONE;
	/* EINVAL, EROFS: nothing there that could be flushed. */
	if (disk->flush_error && disk->flush_error != EINVAL && disk->flush_error != EROFS) {
		common_error("%s: writing back at the end: %s", disk->instance.owner->options.path,
			     strerror(disk->flush_error));
		disk->instance.daemon->exit_code = COMMON_EXIT_FAILED;
	}
	return true;
}

static bool disk_stop(struct instance *instance)
{
	struct disk *disk = to_disk(instance);

	if (!vmsg_blk_stop(&disk->blk))
		return false;
	return disk->fd < 0 || flush_step(disk);
}

/* ---- Resizing ---- */

static int grow(struct disk *disk, uint64_t bytes, char *err, size_t err_size)
{
	const char *path = disk->instance.owner->options.path;
	uint32_t block = disk->blk.info.block_bytes;
	struct stat st;

	if (disk->fd < 0)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s is read-only here; grow the file, then resize without size",
				   path);
	if (fstat(disk->fd, &st) < 0)
		return common_fail(err, err_size, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s is a block device; resize it there, then without size here",
				   path);
	if (!bytes || bytes % block || bytes > INT64_MAX)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "the size is not a multiple of the block size, %u bytes", block);
	if (bytes < (uint64_t)st.st_size)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s has %" PRId64 " bytes; disks can only grow", path,
				   (int64_t)st.st_size);
	if (ftruncate(disk->fd, (off_t)bytes) < 0)
		return common_fail(err, err_size, -errno, "%s: cannot grow it: %s", path,
				   strerror(errno));
	return 0;
}

static int disk_resize(struct instance *instance, const uint64_t *size, char *err, size_t err_size)
{
	struct disk *disk = to_disk(instance);
	uint64_t sectors;
	int rc;

	if (!disk->file)
		return common_fail(err, err_size, VMSG_ERR_NOTSUP,
				   "%s has a fixed size; only files can be resized",
				   instance->owner->options.path);
	rc = size ? grow(disk, *size, err, err_size) : 0;
	if (rc == 0)
		rc = vmsg_file_measure(disk->file, &sectors, err, err_size);
	if (rc == 0)
		vmsg_blk_set_capacity(&disk->blk, sectors);
	return rc;
}

/* ---- For people ---- */

static void disk_describe(const struct instance *instance, char *text, size_t size)
{
	const struct disk *disk = to_const_disk(instance);
	char bytes[16];

	snprintf(text, size, "%s, %s%s%s%s", instance->owner->options.path,
		 common_size_text(disk->blk.info.capacity_sectors * VMSG_BLK_SECTOR_BYTES, bytes,
				  sizeof(bytes)),
		 disk->blk.info.read_only ? ", read-only" : "", disk->file ? ", " : "",
		 disk->file ? vmsg_file_engine(disk->file) : "");
}

static void disk_facts(const struct instance *instance, json_t *object)
{
	const struct disk *disk = to_const_disk(instance);

	json_object_set_new(object, "path", stat_text(instance->owner->options.path));
	json_object_set_new(object, "size",
			    stat_number(disk->blk.info.capacity_sectors * VMSG_BLK_SECTOR_BYTES));
	json_object_set_new(object, "read_only", json_boolean(disk->blk.info.read_only));
	json_object_set_new(object, "block_size", stat_number(disk->blk.info.block_bytes));
	json_object_set_new(object, "queues", stat_number(disk->blk.device.vq_count));
	if (disk->file)
		json_object_set_new(object, "engine", json_string(vmsg_file_engine(disk->file)));
}

static void backend_stat(const struct disk *disk, json_t *object)
{
	const struct vmsg_file_counters *counters = vmsg_file_counters(disk->file);
	json_t *backend = json_object();

	json_object_set_new(backend, "in_place", stat_number(counters->in_place));
	json_object_set_new(backend, "queued", stat_number(counters->queued));
	json_object_set_new(backend, "continued", stat_number(counters->continued));
	json_object_set_new(backend, "failed", stat_number(counters->failed));
	if (counters->last_error)
		json_object_set_new(backend, "last_error",
				    json_string(strerror(counters->last_error)));
	json_object_set_new(object, "backend", backend);
}

static void disk_stat(const struct instance *instance, json_t *object)
{
	const struct disk *disk = to_const_disk(instance);
	const struct vmsg_blk_counters *counters = &disk->blk.counters;
	const struct stat_entry entries[] = {
		{ "reads", counters->reads },
		{ "writes", counters->writes },
		{ "flushes", counters->flushes },
		{ "discards", counters->discards },
		{ "write_zeroes", counters->write_zeroes },
		{ "ids", counters->ids },
		{ "read_bytes", counters->read_bytes },
		{ "written_bytes", counters->written_bytes },
		{ "malformed", counters->malformed },
		{ "out_of_range", counters->out_of_range },
		{ "unsupported", counters->unsupported },
		{ "refused", counters->refused },
		{ "failed", counters->failed },
		{ "in_place", counters->in_place },
		{ "in_flight", disk->blk.in_flight },
	};

	stat_add(object, entries, sizeof(entries) / sizeof(entries[0]));
	if (disk->file)
		backend_stat(disk, object);
}

const struct device_type disk_type = {
	.name = "blk",
	.check = check,
	.check_bus = check_bus,
	.open = disk_open,
	.init = disk_init,
	.poll = disk_poll,
	.stop = disk_stop,
	.close = disk_close,
	.free = disk_free,
	.resize = disk_resize,
	.describe = disk_describe,
	.facts = disk_facts,
	.stat = disk_stat,
};
