/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg disk: reads, writes and looks at block devices. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmsg/blk.h>

#include "vmsg.h"

#define QUEUE_SIZE 128u
#define MOST_DEPTH 64u
#define SECTOR	   ((uint64_t)VMSG_BLK_SECTOR_BYTES)

enum {
	OPTION_OFFSET = 256,
	OPTION_LENGTH,
	OPTION_DEPTH,
	OPTION_CHUNK,
	OPTION_QUIET,
	OPTION_UNMAP
};

static const struct option own[] = {
	{ "offset", required_argument, NULL, OPTION_OFFSET },
	{ "length", required_argument, NULL, OPTION_LENGTH },
	{ "depth", required_argument, NULL, OPTION_DEPTH },
	{ "chunk", required_argument, NULL, OPTION_CHUNK },
	{ "quiet", no_argument, NULL, OPTION_QUIET },
	{ "unmap", no_argument, NULL, OPTION_UNMAP },
	{ 0 },
};

struct disk;

/* One request of a copy, with its piece of shared memory. */
struct slot {
	struct vmsg_blk_io io; /* first */
	struct disk *disk;
	struct vmsg_buf buf;
	uint8_t *ptr;
	uint64_t offset;
};

struct disk {
	struct session session;
	struct options options;
	struct vmsg_blk_driver driver;
	struct vmsg_vq_driver vqs[1];
	struct vmsg_vq_state states[QUEUE_SIZE];
	struct slot slots[MOST_DEPTH];
	struct vmsg_arena queues, buffers;
	uint16_t dev_num;
	/* What is asked for. */
	uint64_t offset, length, depth, chunk;
	bool has_length, quiet, unmap;
	/* A copy under way. */
	bool writing, is_stream;
	int fd;
	const char *file;
	uint64_t next, end;
	uint64_t missing; /* bytes that the file, which has ended, did not have for a piece */
	int error;	/* VMSG_ERR_* of the first request that failed */
	int file_errno; /* of the first file operation that failed */
	uint64_t failed_at;
};

static bool take(int value, const char *text, void *user)
{
	struct disk *disk = user;
	bool good = true;

	switch (value) {
	case OPTION_OFFSET:
		good = parse_size(text, &disk->offset) && disk->offset % SECTOR == 0;
		break;
	case OPTION_LENGTH:
		good = parse_size(text, &disk->length) && disk->length % SECTOR == 0;
		disk->has_length = true;
		break;
	case OPTION_DEPTH:
		good = parse_number(text, MOST_DEPTH, &disk->depth) && disk->depth;
		break;
	case OPTION_CHUNK:
		good = parse_size(text, &disk->chunk) && disk->chunk && disk->chunk % SECTOR == 0 &&
		       disk->chunk <= 1u << 20;
		break;
	case OPTION_UNMAP:
		disk->unmap = true;
		break;
	default:
		disk->quiet = true;
		break;
	}
	if (!good)
		common_error("disk: '%s' is not right here: offsets, lengths and chunks are "
			     "multiples of "
			     "512 (chunks up to 1M), depth is 1 to %u",
			     text, MOST_DEPTH);
	return good;
}

/* ---- Copies ---- */

static uint64_t oldest_offset(const struct disk *disk)
{
	uint64_t oldest = disk->next;

	for (uint64_t i = 0; i < disk->depth; i++) {
		if (disk->slots[i].io.busy && disk->slots[i].offset < oldest)
			oldest = disk->slots[i].offset;
	}
	if ((disk->error || disk->file_errno) && disk->failed_at < oldest)
		oldest = disk->failed_at;
	return oldest;
}

static void note_failure(struct disk *disk, const struct slot *slot, int error, int file_errno)
{
	if ((disk->error || disk->file_errno) && disk->failed_at <= slot->offset)
		return;
	disk->error = error;
	disk->file_errno = file_errno;
	disk->failed_at = slot->offset;
}

/* All of len at offset of the file; a pipe has no offset and is used in order. 0 or errno. */
static int file_io(struct disk *disk, uint8_t *ptr, uint64_t len, uint64_t offset)
{
	while (len) {
		ssize_t got;

		if (disk->writing)
			got = disk->is_stream ? read(disk->fd, ptr, len)
					      : pread(disk->fd, ptr, len, (off_t)offset);
		else
			got = disk->is_stream ? write(disk->fd, ptr, len)
					      : pwrite(disk->fd, ptr, len, (off_t)offset);
		if (got < 0 && errno == EINTR && !interrupted())
			continue;
		if (got < 0)
			return errno;
		disk->missing = len;
		if (got == 0)
			return disk->writing ? ENODATA : ENOSPC;
		ptr += got;
		len -= (uint64_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}

static void done(struct vmsg_blk_io *io)
{
	struct slot *slot = (struct slot *)io;
	struct disk *disk = slot->disk;
	int error;

	if (io->result < 0) {
		note_failure(disk, slot, io->result, 0);
		return;
	}
	if (disk->writing)
		return;
	error = file_io(disk, slot->ptr, slot->buf.len, slot->offset);
	if (error)
		note_failure(disk, slot, 0, error);
}

/*
 * Reads what a piece is to write. A pipe of unknown length may end: that shortens *len. 0 or errno.
 */
static int fill_piece(struct disk *disk, struct slot *slot, uint64_t *len)
{
	int error = file_io(disk, slot->ptr, *len, disk->next);

	if (error != ENODATA || !disk->is_stream || disk->has_length || disk->missing % SECTOR)
		return error;
	*len -= disk->missing;
	disk->end = disk->next + *len;
	return 0;
}

/* Starts the next piece in a free slot. 0; VMSG_ERR_AGAIN: later; or an error. */
static int start_piece(struct disk *disk, struct slot *slot)
{
	uint64_t len = disk->end - disk->next < disk->chunk ? disk->end - disk->next : disk->chunk;
	int rc;

	slot->offset = disk->next;
	if (disk->writing) {
		int error = fill_piece(disk, slot, &len);

		if (error)
			note_failure(disk, slot, 0, error);
		if (error || !len)
			return 0;
	}
	slot->buf.len = (uint32_t)len;
	slot->io.type = disk->writing ? VMSG_BLK_T_OUT : VMSG_BLK_T_IN;
	slot->io.sector = disk->next / SECTOR;
	slot->io.bufs = &slot->buf;
	slot->io.buf_count = 1;
	slot->io.done = done;
	rc = vmsg_blk_driver_submit(&disk->driver, 0, &slot->io);
	if (rc == 0)
		disk->next += len;
	else if (rc != VMSG_ERR_AGAIN)
		note_failure(disk, slot, rc, 0);
	return rc;
}

static bool start_pieces(struct disk *disk)
{
	bool busy = false;

	for (uint64_t i = 0; i < disk->depth; i++) {
		struct slot *slot = &disk->slots[i];

		/* A pipe takes data in order: one at a time. */
		if (!slot->io.busy && disk->next < disk->end && !disk->error && !disk->file_errno &&
		    !interrupted() && !(disk->is_stream && busy))
			start_piece(disk, slot);
		busy = busy || slot->io.busy;
	}
	return busy;
}

static int wait_for_some(struct disk *disk)
{
	struct vmsg_bus *bus = disk->session.bus;
	int rc = bus->ops->wait(bus, 10);
	int polled = vmsg_blk_driver_poll(&disk->driver);

	if (rc == 0)
		rc = polled;
	if (rc == VMSG_ERR_TIMEDOUT || rc == VMSG_ERR_PROTO)
		vmsg_blk_driver_reset(&disk->driver);
	return rc;
}

static int run_copy(struct disk *disk)
{
	struct progress progress;
	uint64_t start = disk->next;
	int rc = 0;

	progress_start(&progress, disk->writing ? "writing" : "reading", disk->end - start,
		       !disk->quiet && !disk->options.json);
	while (rc == 0 && start_pieces(disk)) {
		vmsg_blk_driver_kick(&disk->driver, 0);
		rc = wait_for_some(disk);
		progress_show(&progress, oldest_offset(disk) - start);
	}
	progress_end(&progress, oldest_offset(disk) - start);
	if (rc == 0)
		rc = disk->error;
	return rc;
}

static int call(struct disk *disk, struct vmsg_blk_io *io)
{
	return vmsg_blk_driver_call(&disk->driver, io, disk->driver.io_timeout_ms);
}

static int flush(struct disk *disk)
{
	struct vmsg_blk_io *io = &disk->slots[0].io;

	if (!disk->driver.config.flush)
		return 0;
	io->type = VMSG_BLK_T_FLUSH;
	io->done = NULL;
	return call(disk, io);
}

static const char *file_fault(const struct disk *disk)
{
	switch (disk->file_errno) {
	case ENODATA:
		return "ended early, or within a sector of 512 bytes";
	case EFBIG:
		return disk->writing ? "holds more than the disk takes" : strerror(EFBIG);
	default:
		return strerror(disk->file_errno);
	}
}

/* Says why a copy ended early, if it did, and where to go on. 0 or an exit code. */
static int report_failure(struct disk *disk, int rc, uint64_t start)
{
	uint64_t reached = oldest_offset(disk);
	int code = EXIT_FAULT;

	if (rc < 0)
		code = failed(rc, "device %u of %s, at byte %" PRIu64, disk->dev_num,
			      disk->session.address, reached);
	else if (interrupted() && reached < disk->end)
		common_error("interrupted");
	else if (disk->file_errno)
		common_error("%s: %s", disk->file, file_fault(disk));
	else
		return 0;
	if (reached > start && disk->file_errno != EFBIG)
		common_error("%" PRIu64 " bytes are done; go on with --offset %" PRIu64,
			     reached - start, reached);
	return code;
}

static void report_copy(struct disk *disk, uint64_t start, uint64_t passed_us)
{
	uint64_t reached = oldest_offset(disk);
	double seconds = (double)passed_us / 1e6;
	char amount[32], rate[32];

	if (disk->options.json) {
		json_t *json = json_object();

		json_object_set_new(json, "bytes", json_number(reached - start));
		json_object_set_new(json, "offset", json_number(start));
		json_object_set_new(json, "seconds", json_real(seconds));
		if (disk->is_stream && !disk->writing)
			json_dumpf(json, stderr, JSON_COMPACT);
		else
			json_dumpf(json, stdout, JSON_COMPACT);
		fputc('\n', disk->is_stream && !disk->writing ? stderr : stdout);
		json_decref(json);
	} else if (!disk->quiet) {
		common_size_text(reached - start, amount, sizeof(amount));
		common_size_text((uint64_t)(seconds > 0 ? (double)(reached - start) / seconds : 0),
				 rate, sizeof(rate));
		fprintf(stderr, "%s %s at offset %" PRIu64 " in %.2f s (%s/s)\n",
			disk->writing ? "wrote" : "read", amount, start, seconds, rate);
	}
}

/* Opens the file and settles how much is to be copied. 0 or an exit code. */
static int open_file(struct disk *disk)
{
	uint64_t capacity = disk->driver.config.capacity_sectors * SECTOR;
	struct stat st;

	if (disk->offset > capacity) {
		common_error("--offset %" PRIu64 " is past the end of the disk (%" PRIu64 " bytes)",
			     disk->offset, capacity);
		return EXIT_USAGE;
	}
	disk->is_stream = !strcmp(disk->file, "-");
	if (disk->is_stream) {
		disk->fd = disk->writing ? STDIN_FILENO : STDOUT_FILENO;
		disk->file = disk->writing ? "standard input" : "standard output";
	} else {
		disk->fd = disk->writing ? open(disk->file, O_RDONLY | O_CLOEXEC)
					 : open(disk->file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	}
	if (disk->fd < 0 || fstat(disk->fd, &st) < 0) {
		common_error("%s: %s", disk->file, strerror(errno));
		return EXIT_FAULT;
	}
	if (!disk->has_length && disk->writing && !disk->is_stream && S_ISREG(st.st_mode)) {
		if ((uint64_t)st.st_size % SECTOR) {
			common_error("%s has %" PRIu64
				     " bytes, which is no multiple of 512: pad it, or "
				     "say --length",
				     disk->file, (uint64_t)st.st_size);
			return EXIT_FAULT;
		}
		disk->length = (uint64_t)st.st_size > disk->offset
				       ? (uint64_t)st.st_size - disk->offset
				       : 0;
	} else if (!disk->has_length) {
		disk->length = capacity - disk->offset;
	}
	if (disk->length > capacity - disk->offset) {
		common_error("%" PRIu64 " bytes from offset %" PRIu64
			     " do not fit on the disk (%" PRIu64 " bytes)",
			     disk->length, disk->offset, capacity);
		return EXIT_USAGE;
	}
	return 0;
}

/* A pipe of unknown length that goes on where the disk ends does not fit. */
static void check_end_of_pipe(struct disk *disk)
{
	char more;

	if (!disk->writing || !disk->is_stream || disk->has_length || disk->file_errno ||
	    disk->next != disk->driver.config.capacity_sectors * SECTOR)
		return;
	if (read(disk->fd, &more, 1) > 0) {
		disk->file_errno = EFBIG;
		disk->failed_at = disk->next;
	}
}

static int copy(struct disk *disk)
{
	uint64_t start_us;
	int code = open_file(disk), rc, flushed;

	if (code)
		return code;
	if (disk->writing && disk->driver.config.read_only) {
		common_error("device %u of %s is read-only", disk->dev_num, disk->session.address);
		return EXIT_FAULT;
	}
	disk->next = disk->offset;
	disk->end = disk->offset + disk->length;
	start_us = vmsg_clock_us();
	interrupts_catch();
	rc = run_copy(disk);
	if (rc == 0)
		check_end_of_pipe(disk);
	/* Also after a failure: what is said to be done has to be durable. */
	if (disk->writing && rc != VMSG_ERR_SHUTDOWN && rc != VMSG_ERR_TIMEDOUT) {
		flushed = flush(disk);
		if (flushed < 0)
			disk->next = disk->offset;
		if (rc == 0)
			rc = flushed;
	}
	code = report_failure(disk, rc, disk->offset);
	if (!code)
		report_copy(disk, disk->offset, vmsg_clock_us() - start_us);
	if (!disk->is_stream && close(disk->fd) < 0 && !code) {
		common_error("%s: %s", disk->file, strerror(errno));
		code = EXIT_FAULT;
	}
	return code;
}

/* ---- The small ones ---- */

static int show_info(struct disk *disk)
{
	const struct vmsg_blk_config *config = &disk->driver.config;
	struct vmsg_blk_io *io = &disk->slots[0].io;
	char size[32];

	io->type = VMSG_BLK_T_GET_ID;
	io->done = NULL;
	if (call(disk, io) < 0)
		io->id[0] = 0;
	common_make_printable(io->id);
	if (disk->options.json) {
		json_t *json = json_object();

		json_object_set_new(json, "capacity_bytes",
				    json_number(config->capacity_sectors * SECTOR));
		json_object_set_new(json, "block_bytes", json_integer(config->block_bytes));
		json_object_set_new(json, "read_only", json_boolean(config->read_only));
		json_object_set_new(json, "num_queues", json_integer(config->num_queues));
		json_object_set_new(json, "flush", json_boolean(config->flush));
		json_object_set_new(json, "writeback", json_boolean(config->writeback));
		json_object_set_new(json, "discard", json_boolean(config->max_discard_sectors));
		json_object_set_new(json, "write_zeroes", json_boolean(config->max_zeroes_sectors));
		json_object_set_new(
			json, "packed",
			json_boolean(vmsg_has(disk->driver.driver.features, VMSG_F_RING_PACKED)));
		json_object_set_new(json, "id", json_stringn_nocheck(io->id, strlen(io->id)));
		print_json(json);
		return 0;
	}
	common_size_text(config->capacity_sectors * SECTOR, size, sizeof(size));
	printf("capacity     %" PRIu64 " bytes (%s)\n", config->capacity_sectors * SECTOR, size);
	printf("block        %u bytes, physical %" PRIu64 "\n", config->block_bytes,
	       (uint64_t)config->block_bytes << config->physical_exp);
	printf("access       %s\n", config->read_only ? "read-only" : "read and write");
	printf("cache        %s\n", !config->flush	? "no flush"
				    : config->writeback ? "write-back"
							: "write-through");
	printf("queues       %u, rings %s\n", config->num_queues,
	       vmsg_has(disk->driver.driver.features, VMSG_F_RING_PACKED) ? "packed" : "split");
	printf("discard      %s\n", config->max_discard_sectors ? "yes" : "no");
	printf("write zeroes %s\n", config->max_zeroes_sectors ? "yes" : "no");
	printf("id           %s\n", io->id[0] ? io->id : "none");
	return 0;
}

static int do_flush(struct disk *disk)
{
	int rc = flush(disk);

	return rc < 0 ? failed(rc, "flush of device %u", disk->dev_num) : 0;
}

/* DISCARD or WRITE_ZEROES over a range, in pieces the device takes. */
static int clear_range(struct disk *disk, uint32_t type, uint32_t most_sectors, const char *what)
{
	struct vmsg_blk_io *io = &disk->slots[0].io;
	uint64_t at = disk->offset / SECTOR, left = disk->length / SECTOR;
	int rc;

	if (!disk->has_length) {
		common_error("%s needs --length (and --offset, if not 0)", what);
		return EXIT_USAGE;
	}
	if (!most_sectors) {
		common_error("device %u of %s offers no %s", disk->dev_num, disk->session.address,
			     what);
		return EXIT_FAULT;
	}
	while (left) {
		io->type = type;
		io->done = NULL;
		io->sector = at;
		io->sector_count = left < most_sectors ? (uint32_t)left : most_sectors;
		io->may_unmap = disk->unmap;
		rc = call(disk, io);
		if (rc < 0)
			return failed(rc, "%s of device %u at byte %" PRIu64, what, disk->dev_num,
				      at * SECTOR);
		at += io->sector_count;
		left -= io->sector_count;
	}
	return do_flush(disk);
}

static int discard(struct disk *disk)
{
	return clear_range(disk, VMSG_BLK_T_DISCARD, disk->driver.config.max_discard_sectors,
			   "discard");
}

static int zero(struct disk *disk)
{
	return clear_range(disk, VMSG_BLK_T_WRITE_ZEROES, disk->driver.config.max_zeroes_sectors,
			   "zero");
}

/* ---- Set-up ---- */

static int set_up(struct disk *disk)
{
	struct vmsg_arena *arena = disk->session.arena;
	uint64_t queue_bytes = 1u << 20, addr;
	uint8_t *ptr = vmsg_arena_take(arena, queue_bytes, 4096, &addr);
	int rc;

	if (!ptr)
		return VMSG_ERR_NOMEM;
	disk->queues = (struct vmsg_arena){ .addr = addr, .ptr = ptr, .len_bytes = queue_bytes };
	vmsg_blk_driver_init(&disk->driver, disk->session.bus, disk->dev_num);
	disk->driver.driver.timeout_ms = disk->options.timeout_ms;
	disk->driver.driver.split = &vmsg_vq_split_driver;
	disk->driver.driver.packed = &vmsg_vq_packed_driver;
	disk->driver.driver.vqs = disk->vqs;
	disk->driver.driver.vq_count = 1;
	disk->driver.arena = &disk->queues;
	disk->driver.states = disk->states;
	disk->driver.queue_size = QUEUE_SIZE;
	disk->driver.indirect_max = 8;
	rc = vmsg_blk_driver_start(&disk->driver);
	if (rc < 0)
		return rc;
	for (uint64_t i = 0; i < disk->depth; i++) {
		struct slot *slot = &disk->slots[i];

		slot->disk = disk;
		slot->ptr = vmsg_arena_take(arena, disk->chunk, 4096, &slot->buf.addr);
		if (!slot->ptr || vmsg_blk_io_init(&slot->io, arena) < 0)
			disk->depth = i; /* as many as the shared memory holds */
	}
	return disk->depth ? 0 : VMSG_ERR_NOMEM;
}

static int use(struct disk *disk, const char *verb)
{
	int rc = set_up(disk), code;

	if (rc < 0)
		return device_failed(&disk->session, &disk->driver.driver, "blk", rc);
	if (!strcmp(verb, "info"))
		code = show_info(disk);
	else if (!strcmp(verb, "flush"))
		code = do_flush(disk);
	else if (!strcmp(verb, "discard"))
		code = discard(disk);
	else if (!strcmp(verb, "zero"))
		code = zero(disk);
	else
		code = copy(disk);
	if (code != EXIT_LOST)
		vmsg_blk_driver_reset(&disk->driver);
	return code;
}

static int check_verb(struct disk *disk)
{
	static const char *const verbs[] = { "info", "flush", "discard", "zero", "read", "write" };
	const char *verb = disk->options.argv[2];
	bool copies;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verb, verbs[i]) != 0)
			continue;
		copies = i >= 4;
		if (copies != (disk->options.argc == 4)) {
			common_error("disk %s: %s", verb,
				     copies ? "name a file, or - for a pipe"
					    : "too many arguments");
			return EXIT_USAGE;
		}
		disk->writing = i == 5;
		disk->file = copies ? disk->options.argv[3] : NULL;
		return 0;
	}
	common_error("disk: '%s' is no operation: info, read, write, flush, discard or zero", verb);
	return EXIT_USAGE;
}

static int run(int argc, char **argv)
{
	static struct disk disk = { .depth = 32, .chunk = 128u << 10 };
	int code = options_parse(&disk.options, &command_disk, argc, argv, own, take, &disk, 3, 4);

	if (code)
		return code;
	if (!parse_device(disk.options.argv[1], &disk.dev_num))
		return EXIT_USAGE;
	code = check_verb(&disk);
	if (code)
		return code;
	code = session_open(&disk.session, &disk.options, disk.options.argv[0]);
	if (!code)
		code = use(&disk, disk.options.argv[2]);
	session_close(&disk.session);
	interrupts_end();
	return code;
}

const struct command command_disk = {
	.name = "disk",
	.arguments = "ADDR DEV info|read FILE|write FILE|flush|discard|zero [options]",
	.summary = "Copy a block device to or from a file, or change it.",
	.help = "  info          size, block size, queues, id\n"
		"  read FILE     the disk, or a part, into FILE at the same offset (- for a pipe)\n"
		"  write FILE    FILE from the same offset onto the disk, then flush\n"
		"  flush         make earlier writes durable\n"
		"  discard       give up a range (--length)\n"
		"  zero          write zeroes over a range (--length)\n\n"
		"A copy that stops says how far it came; go on from there with --offset.\n\n"
		"options:\n"
		"  --offset BYTES  where to start, on disk and in the file (0)\n"
		"  --length BYTES  how much (to the end)\n"
		"  --depth N       requests in flight (32)\n"
		"  --chunk BYTES   of one request (128K)\n"
		"  --unmap         zero: the device may free the space\n"
		"  --quiet         no progress, no summary\n"
		"BYTES may end in K, M, G, T.\n\n",
	.run = run,
};
