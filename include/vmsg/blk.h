/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Block devices, device type 2 (virtio 1.4, 5.2): the device model, what a backend has to offer,
 * and the driver. Sectors are 512 bytes whatever the block size is.
 */
#ifndef VMSG_BLK_H
#define VMSG_BLK_H

#include <vmsg/device.h>
#include <vmsg/driver.h>

#define VMSG_BLK_DEVICE_ID    2u
#define VMSG_BLK_SECTOR_BYTES 512u
#define VMSG_BLK_ID_BYTES     20u

/* Feature bit numbers. */
#define VMSG_BLK_F_SIZE_MAX     1
#define VMSG_BLK_F_SEG_MAX      2
#define VMSG_BLK_F_GEOMETRY     4
#define VMSG_BLK_F_RO           5
#define VMSG_BLK_F_BLK_SIZE     6
#define VMSG_BLK_F_FLUSH        9
#define VMSG_BLK_F_TOPOLOGY     10
#define VMSG_BLK_F_CONFIG_WCE   11
#define VMSG_BLK_F_MQ           12
#define VMSG_BLK_F_DISCARD      13
#define VMSG_BLK_F_WRITE_ZEROES 14
#define VMSG_BLK_F_LIFETIME     15
#define VMSG_BLK_F_SECURE_ERASE 16
#define VMSG_BLK_F_ZONED        17

/* Request types and status bytes. */
#define VMSG_BLK_T_IN           0u
#define VMSG_BLK_T_OUT          1u
#define VMSG_BLK_T_FLUSH        4u
#define VMSG_BLK_T_GET_ID       8u
#define VMSG_BLK_T_DISCARD      11u
#define VMSG_BLK_T_WRITE_ZEROES 13u
#define VMSG_BLK_S_OK           0u
#define VMSG_BLK_S_IOERR        1u
#define VMSG_BLK_S_UNSUPP       2u

/* Before the data of every request: type 32 bits, reserved 32 bits, sector 64 bits. */
#define VMSG_BLK_HEADER_BYTES 16u
/* The data of DISCARD and WRITE_ZEROES: sector 64 bits, count 32 bits, flags 32 bits. */
#define VMSG_BLK_SEGMENT_BYTES 16u
#define VMSG_BLK_SEGMENT_UNMAP 1u /* flag: may deallocate; mask */

/* Config space, byte offsets. */
#define VMSG_BLK_CONFIG_CAPACITY         0u
#define VMSG_BLK_CONFIG_SIZE_MAX         8u
#define VMSG_BLK_CONFIG_SEG_MAX          12u
#define VMSG_BLK_CONFIG_GEOMETRY         16u
#define VMSG_BLK_CONFIG_BLK_SIZE         20u
#define VMSG_BLK_CONFIG_PHYSICAL_EXP     24u
#define VMSG_BLK_CONFIG_ALIGNMENT        25u
#define VMSG_BLK_CONFIG_MIN_IO           26u
#define VMSG_BLK_CONFIG_OPT_IO           28u
#define VMSG_BLK_CONFIG_WRITEBACK        32u
#define VMSG_BLK_CONFIG_NUM_QUEUES       34u
#define VMSG_BLK_CONFIG_DISCARD_SECTORS  36u
#define VMSG_BLK_CONFIG_DISCARD_SEG      40u
#define VMSG_BLK_CONFIG_DISCARD_ALIGN    44u
#define VMSG_BLK_CONFIG_ZEROES_SECTORS   48u
#define VMSG_BLK_CONFIG_ZEROES_SEG       52u
#define VMSG_BLK_CONFIG_ZEROES_MAY_UNMAP 56u
#define VMSG_BLK_CONFIG_BYTES            60u

/* ---- What a block device stands on ---- */

/* What a backend can do; features and config of the device follow from it. */
struct vmsg_blk_info {
	uint64_t capacity_sectors;
	uint32_t block_bytes; /* unit of I/O: a power of two, at least 512 */
	uint8_t physical_exp; /* a physical block has block_bytes << physical_exp bytes */
	uint8_t alignment_blocks; /* first block that is aligned to a physical one */
	uint16_t min_io_blocks;   /* best smallest I/O; 0: unknown */
	uint32_t opt_io_blocks;   /* best I/O; 0: unknown */
	bool read_only;
	uint32_t max_discard_sectors; /* one DISCARD at most; 0: not supported */
	uint32_t discard_align_sectors;
	uint32_t max_zeroes_sectors; /* one WRITE_ZEROES at most; 0: not supported */
	bool zeroes_may_unmap;
};

enum vmsg_blk_op {
	VMSG_BLK_READ,
	VMSG_BLK_WRITE,
	VMSG_BLK_FLUSH,
	VMSG_BLK_DISCARD,
	VMSG_BLK_ZERO,
};

struct vmsg_blk;

/* One I/O. From submit to vmsg_blk_done() it is the backend's. */
struct vmsg_blk_request {
	/* What is to be done: inside the capacity, in whole blocks, not empty (but for FLUSH). */
	struct vmsg_blk *blk;
	uint8_t op;       /* enum vmsg_blk_op */
	bool durable;     /* WRITE, DISCARD, ZERO: on stable storage before it is done */
	bool may_unmap;   /* ZERO: the space may be given up */
	uint16_t vq_index;
	uint64_t offset_bytes, len_bytes;
	/*
	 * READ and WRITE: memory of the driver. The backend may advance iov, iov_count,
	 * offset_bytes and len_bytes as it makes progress; what a READ leaves in iov when it fails
	 * is zeroed.
	 */
	struct vmsg_iov *iov;
	uint16_t iov_count;

	/* The backend's own. */
	struct vmsg_blk_request *next;
	uint64_t scratch;
	int32_t progress;
	uint8_t phase;

	/* Private to device/blk.c. */
	bool busy, finished, cancelled;
	uint8_t status;
	uint8_t *status_ptr;
	struct vmsg_blk_request *link;
	struct vmsg_chain chain;
};

/* A constant table. All but submit may be NULL. */
struct vmsg_blk_backend {
	const char *name;
	/* Starts one I/O, or does it. vmsg_blk_done() is called for it once, in here or later. */
	void (*submit)(void *backend, struct vmsg_blk_request *request);
	/* No more submits for now: get going with what was submitted. */
	void (*start)(void *backend);
	/*
	 * The result is no longer wanted: end soon, by vmsg_blk_done() as ever (in here or later).
	 * Only then may the memory be taken for other things.
	 */
	void (*cancel)(void *backend, struct vmsg_blk_request *request);
};

/*
 * Backend: the request has ended. 0; VMSG_ERR_NOTSUP: this kind is not supported (the driver sees
 * UNSUPP); any other error: the driver sees IOERR for this request, and the device goes on.
 */
void vmsg_blk_done(struct vmsg_blk_request *request, int result);

/*
 * Backend: a batch of vmsg_blk_done() calls outside of submit and cancel is over; the driver is
 * notified as far as it wants to be.
 */
void vmsg_blk_batch_done(struct vmsg_blk *blk);

/* ---- The device ---- */

/* Room for the requests of one queue: max_size of them, each with iov_max entries of iovs. */
struct vmsg_blk_queue {
	/* Set before vmsg_blk_init(). */
	struct vmsg_blk_request *requests;
	struct vmsg_iov *iovs;
	uint16_t iov_max; /* at least 3: header, data, status; queues of a device alike */

	/* Private to device/blk.c. */
	uint16_t used_requests, in_flight;
	bool dropping, owes_reset, owes_used, stalled;
	struct vmsg_blk_request *free, *oldest, *newest;
};

struct vmsg_blk_counters {
	uint32_t reads, writes, flushes, discards, write_zeroes, ids;
	uint64_t read_bytes, written_bytes;
	uint32_t malformed;   /* requests without header or status, or with odd lengths */
	uint32_t out_of_range;
	uint32_t unsupported; /* request types we do not know, or that were not negotiated */
	uint32_t refused;     /* writes to a read-only device */
	uint32_t failed;      /* by the backend */
	uint32_t in_place;    /* done by the backend before submit returned */
};

struct vmsg_blk {
	struct vmsg_device device; /* first; mem, vqs, vq_count, split, packed set before init */

	/* Set before vmsg_blk_init(). */
	const struct vmsg_blk_backend *backend;
	void *backend_data;
	struct vmsg_blk_info info;
	struct vmsg_blk_queue *queues; /* device.vq_count of them */
	uint8_t id[VMSG_BLK_ID_BYTES]; /* answer to GET_ID: a serial number, filled with zeros */
	void *user;

	/* To be read. */
	struct vmsg_blk_counters counters;
	uint32_t in_flight; /* requests the backend has */

	/* Private to device/blk.c. */
	uint8_t config[VMSG_BLK_CONFIG_BYTES];
	bool submitting, stopping, owes_reset, in_order;
};

/*
 * Fills in the device's id, features, config and operations and calls vmsg_device_init(). Every
 * queue's max_size, requests and iovs are set. Then vmsg_bus_add(bus, &blk->device, n).
 */
void vmsg_blk_init(struct vmsg_blk *blk);

/* The medium has a new size: the driver is told. Requests in flight are left alone. */
void vmsg_blk_set_capacity(struct vmsg_blk *blk, uint64_t capacity_sectors);

/* True when writes wait in a volatile cache until FLUSH, as negotiated. */
bool vmsg_blk_writeback(const struct vmsg_blk *blk);

/*
 * Before vmsg_bus_remove(), and before the backend or the driver's memory goes away: takes no more
 * requests and cancels those in flight. True once none is: until then let the backend work and
 * call again. There is no way back but vmsg_blk_init().
 */
bool vmsg_blk_stop(struct vmsg_blk *blk);

/* ---- The driver ---- */

/* Config space as the driver may rely on it: checked, absent fields at their defaults. */
struct vmsg_blk_config {
	uint64_t capacity_sectors; /* at most 2^55 - 1 */
	uint32_t size_max;         /* bytes of one data buffer; UINT32_MAX: any */
	uint32_t seg_max;          /* data buffers in a request; UINT32_MAX: any */
	uint32_t block_bytes;      /* a power of two from 512 to 1 MiB */
	uint8_t physical_exp, alignment_blocks;
	uint16_t min_io_blocks;
	uint32_t opt_io_blocks;
	bool read_only;
	bool flush;                /* FLUSH is there */
	bool writeback;            /* writes are safe only after a FLUSH */
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_align_sectors; /* 0: no DISCARD */
	uint32_t max_zeroes_sectors, max_zeroes_seg;                          /* 0: none */
	bool zeroes_may_unmap;
};

/*
 * Reads the first len config bytes in the light of the features. VMSG_ERR_PROTO when a number makes
 * no sense; *config is then what could be made of it, for people to look at.
 */
int vmsg_blk_config_decode(struct vmsg_blk_config *config, const void *bytes, uint32_t len,
			   uint64_t features);

#define VMSG_BLK_IO_BYTES 64u /* of shared memory per vmsg_blk_io */
#define VMSG_BLK_IO_BUFS  64u /* data buffers in one request, at most */

struct vmsg_blk_driver;

/* One request of the driver. The caller's; vmsg_blk_io_init() once, then used again and again. */
struct vmsg_blk_io {
	/* Set before each submit; bufs is looked at only during submit, its memory until done. */
	uint32_t type;         /* VMSG_BLK_T_* */
	uint64_t sector;       /* IN, OUT, DISCARD, WRITE_ZEROES */
	uint32_t sector_count; /* DISCARD, WRITE_ZEROES */
	bool may_unmap;        /* WRITE_ZEROES */
	const struct vmsg_buf *bufs; /* IN, OUT: whole blocks in total */
	uint16_t buf_count;
	/* Called when it has ended, when not NULL; may submit this and other requests. */
	void (*done)(struct vmsg_blk_io *io);
	void *user;

	/*
	 * The outcome, once busy is false. 0; VMSG_ERR_IO, VMSG_ERR_NOTSUP: the device said IOERR,
	 * UNSUPP; VMSG_ERR_PROTO: it answered nonsense; VMSG_ERR_SHUTDOWN: it went away, or was
	 * reset; VMSG_ERR_TIMEDOUT: it was reset because of this request.
	 */
	int result;
	bool busy;
	char id[VMSG_BLK_ID_BYTES + 1]; /* GET_ID: terminated */

	/* Private to driver/blk.c. */
	struct vmsg_blk_driver *driver;
	struct vmsg_blk_io *older, *newer;
	uint8_t *shared;
	uint64_t shared_addr;
	uint32_t data_bytes, since_ms;
	uint16_t vq_index;
};

/* Takes VMSG_BLK_IO_BYTES for the header and the status. VMSG_ERR_NOMEM. */
int vmsg_blk_io_init(struct vmsg_blk_io *io, struct vmsg_arena *arena);

struct vmsg_blk_driver_counters {
	uint32_t submitted, completed;
	uint32_t rekicks;    /* doorbells sent again because nothing came */
	uint32_t nonsense;   /* answers that break the rules: short reads, no status */
	uint32_t timeouts;
};

struct vmsg_blk_driver {
	struct vmsg_driver driver; /* first; split, packed, vqs, vq_count set before start */

	/* Set before vmsg_blk_driver_start(); init gives the defaults. */
	struct vmsg_arena *arena;     /* for the queues alone: start takes from its beginning */
	struct vmsg_vq_state *states; /* driver.vq_count times queue_size */
	uint16_t queue_size;          /* 128; at most that */
	uint16_t indirect_max;        /* 0: no indirect tables */
	uint64_t wanted;              /* all we can do */
	uint32_t rekick_ms;           /* without completions, ring again: 100; 0: never */
	uint32_t io_timeout_ms;       /* one request: 30000; 0: for ever */
	/* The config may have changed: call vmsg_blk_driver_refresh() soon, not in here. */
	void (*changed)(struct vmsg_blk_driver *driver);
	/* The device is gone; all requests have ended with VMSG_ERR_SHUTDOWN. */
	void (*lost)(struct vmsg_blk_driver *driver);
	void *user;

	/* To be read. */
	struct vmsg_blk_config config; /* as of start or the last refresh */
	uint32_t num_queues;           /* set up */
	uint32_t in_flight;
	bool failed; /* the device broke the rules: reset it */
	struct vmsg_blk_driver_counters counters;

	/* Private to driver/blk.c. */
	struct vmsg_blk_io *oldest, *newest;
	uint32_t progress_ms;
};

/* Ties it to a device number and sets the defaults. vmsg_driver_exit(&driver.driver) unties. */
void vmsg_blk_driver_init(struct vmsg_blk_driver *driver, struct vmsg_bus *bus, uint16_t dev_num);

/*
 * From reset to DRIVER_OK, with as many queues as both sides have; may be called again after
 * vmsg_blk_driver_reset(). Blocks. VMSG_ERR_NODEV: nothing there, or no block device;
 * VMSG_ERR_PROTO: its config makes no sense; VMSG_ERR_BUSY: requests are in flight; else as the
 * functions of vmsg/driver.h.
 */
int vmsg_blk_driver_start(struct vmsg_blk_driver *driver);

/*
 * Resets the device and ends every request in flight with VMSG_ERR_SHUTDOWN: from then on their
 * memory is the caller's. When that fails (and the device is not gone) they stay busy. Blocks.
 */
int vmsg_blk_driver_reset(struct vmsg_blk_driver *driver);

/*
 * Adds a request to a queue; the device sees it with the next vmsg_driver_kick(). VMSG_ERR_AGAIN:
 * the queue is full; VMSG_ERR_INVAL: outside the disk, not whole blocks, too many or too large
 * buffers; VMSG_ERR_NOTSUP: not negotiated; VMSG_ERR_SHUTDOWN: not started, gone or failed.
 */
int vmsg_blk_driver_submit(struct vmsg_blk_driver *driver, uint32_t vq_index,
			   struct vmsg_blk_io *io);

/* Shows the device what was submitted to the queue. */
static inline void vmsg_blk_driver_kick(struct vmsg_blk_driver *driver, uint32_t vq_index)
{
	vmsg_driver_kick(&driver->driver, vq_index);
}

/*
 * Takes in what has completed (calling done) and rings again for doorbells that may be lost. Call
 * it in turn with the bus, at least every rekick_ms. 0; VMSG_ERR_TIMEDOUT: the oldest request has
 * taken longer than io_timeout_ms; VMSG_ERR_PROTO: failed; VMSG_ERR_SHUTDOWN: gone.
 * After the first two the remedy is vmsg_blk_driver_reset().
 */
int vmsg_blk_driver_poll(struct vmsg_blk_driver *driver);

/*
 * Submits to queue 0 and waits for the end. Blocks for at most timeout_ms; then resets the device,
 * so that no request is left in flight, and says VMSG_ERR_TIMEDOUT. The result of the request.
 */
int vmsg_blk_driver_call(struct vmsg_blk_driver *driver, struct vmsg_blk_io *io,
			 uint32_t timeout_ms);

/* Reads the config again. Blocks. */
int vmsg_blk_driver_refresh(struct vmsg_blk_driver *driver);

/* Chooses the cache mode, when CONFIG_WCE was negotiated, else VMSG_ERR_NOTSUP. Blocks. */
int vmsg_blk_driver_set_writeback(struct vmsg_blk_driver *driver, bool writeback);

#endif
