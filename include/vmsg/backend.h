/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What device models stand on, on Linux. Everything is allocated when a backend is opened. Nothing
 * here knows an event loop: a backend says which descriptors to watch, and has a function to call
 * when one is ready (or at any other time).
 *
 * Open functions that fail return -errno and put one line for people into error: what was wrong
 * with what, and what to do.
 */
#ifndef VMSG_BACKEND_H
#define VMSG_BACKEND_H

#include <vmsg/blk.h>
#include <vmsg/console.h>
#include <vmsg/rng.h>

/* ---- A file or block device behind a vmsg_blk; the format is raw, never guessed ---- */

struct vmsg_file;

struct vmsg_file_options {
	const char *path;
	const char *engine; /* NULL or "auto", "uring", "threads", "sync" */
	bool read_only;
	bool direct;     /* bypass the page cache */
	bool share;      /* take no lock: somebody else may write to it, too */
	uint32_t depth;  /* requests at a time, all queues together; 0: 256 */
	uint32_t threads; /* of the engine "threads"; 0: 4 */
	uint32_t lock_ms; /* wait this long for the lock: a killed program's I/O still holds it */
};

/*
 * Opens the file, locks it against other writers, and starts the engine: io_uring, or threads where
 * the kernel refuses that. Blocks while it waits for the lock. -EINVAL: engine unknown, or the size
 * is not in whole blocks.
 */
int vmsg_file_open(struct vmsg_file **file, const struct vmsg_file_options *options, char *error,
		   size_t error_size);

/* Ends it; nothing is in flight any more (vmsg_blk_stop()). NULL is fine. */
void vmsg_file_close(struct vmsg_file *file);

/* For vmsg_blk: backend = &vmsg_file_backend, backend_data = file, info = *vmsg_file_info(file). */
extern const struct vmsg_blk_backend vmsg_file_backend;
const struct vmsg_blk_info *vmsg_file_info(const struct vmsg_file *file);

/* Readable when completions wait; -1 with the engine "sync", where nothing ever does. */
int vmsg_file_fd(const struct vmsg_file *file);

/* Takes in completions, ending requests. The number of them; never sleeps. */
uint32_t vmsg_file_poll(struct vmsg_file *file);

/* Looks how large the file is now, for vmsg_blk_set_capacity(). 0 or -errno with an error line. */
int vmsg_file_measure(struct vmsg_file *file, uint64_t *capacity_sectors, char *error,
		      size_t error_size);

/* The engine in use: "uring", "threads" or "sync". */
const char *vmsg_file_engine(const struct vmsg_file *file);

struct vmsg_file_counters {
	uint64_t in_place;   /* reads and writes done at once */
	uint64_t queued;     /* operations given to the engine */
	uint64_t continued;  /* operations that did only a part */
	uint64_t failed;
	int last_error;      /* errno of the last failure */
};

const struct vmsg_file_counters *vmsg_file_counters(const struct vmsg_file *file);

/* ---- Memory, or nothing at all, behind a vmsg_blk ---- */

struct vmsg_ram {
	struct vmsg_blk_info info;
	uint8_t *ptr; /* NULL: the null backend: reads leave memory as it is, writes go nowhere */
	/* Private: requests too large to be done in one go. */
	struct vmsg_blk_request *first, *last;
};

extern const struct vmsg_blk_backend vmsg_ram_backend;

/* len_bytes of zeroed memory, a multiple of 512; null: none. 0 or -errno with an error line. */
int vmsg_ram_open(struct vmsg_ram *ram, uint64_t len_bytes, bool null, char *error,
		  size_t error_size);
void vmsg_ram_close(struct vmsg_ram *ram);

/* Goes on with large requests: to be called in every turn. False: there is nothing to do. */
bool vmsg_ram_poll(struct vmsg_ram *ram);

/* ---- The kernel's random numbers behind a vmsg_rng: fill = vmsg_random_fill, source NULL ---- */

int vmsg_random_fill(void *source, uint8_t *ptr, uint32_t len);

/* ---- A terminal behind a vmsg_console ---- */

#define VMSG_TTY_WATCHES 3u

struct vmsg_tty_watch {
	int fd;
	bool in, out;
};

struct vmsg_tty;

/* A new pseudo terminal; people open vmsg_tty_path(). While nobody has, output is dropped. */
int vmsg_tty_open_pty(struct vmsg_tty **tty, char *error, size_t error_size);

/*
 * Standard input and output. raw: a terminal there passes every key on, until vmsg_tty_close(),
 * which must therefore be called on every way out.
 */
int vmsg_tty_open_stdio(struct vmsg_tty **tty, bool raw, char *error, size_t error_size);

/* NULL is fine. */
void vmsg_tty_close(struct vmsg_tty *tty);

/* For vmsg_console: backend = &vmsg_tty_backend, backend_data = tty. */
extern const struct vmsg_console_backend vmsg_tty_backend;

/* The path of the pseudo terminal, or "stdio". */
const char *vmsg_tty_path(const struct vmsg_tty *tty);

/* Somebody has the pseudo terminal open; always true for stdio. */
bool vmsg_tty_connected(const struct vmsg_tty *tty);

/*
 * What to watch now, given the wishes of the console; ask anew after every turn. When one is ready:
 * vmsg_tty_poll(), then vmsg_console_ready(). The number of entries written. A descriptor may be
 * listed with neither in nor out: for its hanging up.
 */
uint32_t vmsg_tty_watches(const struct vmsg_tty *tty, bool wants_input, bool wants_output,
			  struct vmsg_tty_watch watches[VMSG_TTY_WATCHES]);

/* Notices that the terminal was opened or closed. */
void vmsg_tty_poll(struct vmsg_tty *tty);

/* The window size. 0, or -errno when it has none; at open, after SIGWINCH, and now and then. */
int vmsg_tty_size(const struct vmsg_tty *tty, uint16_t *cols, uint16_t *rows);

#endif
