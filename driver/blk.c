/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block driver (virtio 1.4, 5.2). Each request owns 64 bytes of shared memory for its header,
 * the segment or id it may have, and the status byte; data goes straight from and to the caller's
 * buffers. Nothing the device says is taken on trust: config is checked when read, and a request
 * counts as done only with a status byte that makes sense and, for reads, a length that covers it.
 */
#include <vmsg/blk.h>
#include <vmsg/port.h>

/* In the shared memory of a request. */
#define AT_SEGMENT VMSG_BLK_HEADER_BYTES
#define AT_ID	   (AT_SEGMENT + VMSG_BLK_SEGMENT_BYTES)
#define AT_STATUS  (AT_ID + VMSG_BLK_ID_BYTES)

#define STATUS_NONE 0xffu /* what is there until the device writes */

#define WAIT_SLICE_MS 10u

/* Every feature this driver has a use for. */
#define WANTED                                                                                    \
	(VMSG_BIT(VMSG_BLK_F_SIZE_MAX) | VMSG_BIT(VMSG_BLK_F_SEG_MAX) | VMSG_BIT(VMSG_BLK_F_RO) | \
	 VMSG_BIT(VMSG_BLK_F_BLK_SIZE) | VMSG_BIT(VMSG_BLK_F_FLUSH) |                             \
	 VMSG_BIT(VMSG_BLK_F_TOPOLOGY) | VMSG_BIT(VMSG_BLK_F_CONFIG_WCE) |                        \
	 VMSG_BIT(VMSG_BLK_F_MQ) | VMSG_BIT(VMSG_BLK_F_DISCARD) |                                 \
	 VMSG_BIT(VMSG_BLK_F_WRITE_ZEROES) | VMSG_BIT(VMSG_F_INDIRECT_DESC) |                     \
	 VMSG_BIT(VMSG_F_EVENT_IDX) | VMSG_BIT(VMSG_F_RING_PACKED) |                              \
	 VMSG_BIT(VMSG_F_ACCESS_PLATFORM))

static struct vmsg_blk_driver *to_blk(struct vmsg_driver *driver)
{
	return (struct vmsg_blk_driver *)driver;
}

static uint32_t now_ms(const struct vmsg_blk_driver *blk)
{
	return blk->driver.bus->now_ms;
}

/* ---- Config ---- */

int vmsg_blk_driver_refresh(struct vmsg_blk_driver *blk)
{
	uint8_t bytes[VMSG_BLK_CONFIG_BYTES];
	uint32_t len = blk->driver.config_size;
	struct vmsg_blk_config config;
	int rc;

	if (len > sizeof(bytes))
		len = sizeof(bytes);
	if (len < VMSG_BLK_CONFIG_CAPACITY + 8)
		return VMSG_ERR_PROTO;
	rc = vmsg_driver_read_config(&blk->driver, 0, bytes, len);
	if (rc == 0)
		rc = vmsg_blk_config_decode(&config, bytes, len, blk->driver.features);
	if (rc == 0)
		blk->config = config;
	return rc;
}

int vmsg_blk_driver_set_writeback(struct vmsg_blk_driver *blk, bool writeback)
{
	uint8_t value = writeback;
	int rc;

	if (!vmsg_has(blk->driver.features, VMSG_BLK_F_CONFIG_WCE))
		return VMSG_ERR_NOTSUP;
	rc = vmsg_driver_write_config(&blk->driver, VMSG_BLK_CONFIG_WRITEBACK, &value, 1);
	if (rc == 0)
		blk->config.writeback = writeback;
	return rc;
}

/* ---- The requests in flight, oldest first ---- */

static void list_add(struct vmsg_blk_driver *blk, struct vmsg_blk_io *io)
{
	io->older = blk->newest;
	io->newer = NULL;
	if (blk->newest)
		blk->newest->newer = io;
	else
		blk->oldest = io;
	blk->newest = io;
	blk->in_flight++;
}

static void list_remove(struct vmsg_blk_driver *blk, struct vmsg_blk_io *io)
{
	if (io->older)
		io->older->newer = io->newer;
	else
		blk->oldest = io->newer;
	if (io->newer)
		io->newer->older = io->older;
	else
		blk->newest = io->older;
	blk->in_flight--;
}

static void io_end(struct vmsg_blk_io *io, int result)
{
	list_remove(io->driver, io);
	io->result = result;
	io->busy = false;
	if (io->done)
		io->done(io);
}

static bool io_late(const struct vmsg_blk_driver *blk, const struct vmsg_blk_io *io)
{
	return blk->io_timeout_ms && now_ms(blk) - io->since_ms >= blk->io_timeout_ms;
}

/* Nothing in flight will complete any more. culprit, if any, is the request that took too long. */
static void end_all(struct vmsg_blk_driver *blk, const struct vmsg_blk_io *culprit)
{
	while (blk->oldest) {
		struct vmsg_blk_io *io = blk->oldest;
		bool late = !blk->driver.gone && (io == culprit || io_late(blk, io));

		if (late)
			blk->counters.timeouts++;
		io_end(io, late ? VMSG_ERR_TIMEDOUT : VMSG_ERR_SHUTDOWN);
	}
}

/* ---- Completion ---- */

static void copy_id(struct vmsg_blk_io *io)
{
	memcpy(io->id, io->shared + AT_ID, VMSG_BLK_ID_BYTES);
	io->id[VMSG_BLK_ID_BYTES] = '\0';
}

static int io_result(struct vmsg_blk_io *io, uint32_t written)
{
	uint8_t status;

	VMSG_CACHE_INVALIDATE(io->shared, VMSG_BLK_IO_BYTES);
	status = *(const volatile uint8_t *)(io->shared + AT_STATUS);
	switch (status) {
	case VMSG_BLK_S_OK:
		break;
	case VMSG_BLK_S_IOERR:
		return VMSG_ERR_IO;
	case VMSG_BLK_S_UNSUPP:
		return VMSG_ERR_NOTSUP;
	default:
		return VMSG_ERR_PROTO;
	}
	if (io->type == VMSG_BLK_T_IN && written < io->data_bytes)
		return VMSG_ERR_PROTO; /* says it is fine, and has not filled the buffer */
	if (io->type == VMSG_BLK_T_GET_ID)
		copy_id(io);
	return 0;
}

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct vmsg_blk_driver *blk = to_blk(driver);
	struct vmsg_vq_driver *vq = &driver->vqs[vq_index];
	uint32_t written;
	void *cookie;
	int rc;

	if (!blk->num_queues)
		return;
	/* The number in flight is bounded; done() may add to it, by its choice. */
	while ((rc = vmsg_vq_get(vq, &cookie, &written)) == 1) {
		struct vmsg_blk_io *io = cookie;
		int result;

		if (!io->busy)
			continue; /* ended already */
		result = io_result(io, written);
		if (result == VMSG_ERR_PROTO)
			blk->counters.nonsense++;
		blk->counters.completed++;
		blk->progress_ms = now_ms(blk);
		io_end(io, result);
	}
	if (rc < 0)
		blk->failed = true;
}

static void config_changed(struct vmsg_driver *driver, uint32_t device_status)
{
	struct vmsg_blk_driver *blk = to_blk(driver);

	(void)device_status;
	if (blk->changed)
		blk->changed(blk);
}

static void gone(struct vmsg_driver *driver)
{
	struct vmsg_blk_driver *blk = to_blk(driver);

	blk->num_queues = 0;
	end_all(blk, NULL);
	if (blk->lost)
		blk->lost(blk);
}

/* ---- Start and reset ---- */

static const struct vmsg_driver_ops ops = {
	.used = used,
	.config_changed = config_changed,
	.gone = gone,
};

void vmsg_blk_driver_init(struct vmsg_blk_driver *blk, struct vmsg_bus *bus, uint16_t dev_num)
{
	memset(blk, 0, sizeof(*blk));
	vmsg_driver_init(&blk->driver, bus, dev_num, &ops);
	blk->queue_size = 128;
	blk->wanted = WANTED;
	blk->rekick_ms = 100;
	blk->io_timeout_ms = 30000;
}

static int setup_queues(struct vmsg_blk_driver *blk)
{
	struct vmsg_driver *driver = &blk->driver;
	uint32_t count = blk->config.num_queues, done = 0;
	int rc = 0;

	if (count > driver->max_virtqueues)
		count = driver->max_virtqueues;
	if (count > driver->vq_count)
		count = driver->vq_count;
	for (; done < count; done++) {
		rc = vmsg_driver_setup_vq(driver, done, blk->queue_size, blk->indirect_max,
					  blk->arena, blk->states + (size_t)done * blk->queue_size);
		if (rc)
			break;
	}
	/* More queues than exist may be promised; one will do. */
	if (done == 0)
		return rc ? rc : VMSG_ERR_NOENT;
	if (rc && rc != VMSG_ERR_NOENT)
		return rc;
	blk->num_queues = done;
	return 0;
}

static int start_device(struct vmsg_blk_driver *blk)
{
	struct vmsg_driver *driver = &blk->driver;
	int rc = vmsg_driver_negotiate(driver, blk->wanted);

	if (rc == 0)
		rc = vmsg_blk_driver_refresh(blk);
	if (rc == 0)
		rc = setup_queues(blk);
	if (rc == 0)
		rc = vmsg_driver_ready(driver);
	if (rc) {
		blk->num_queues = 0;
		if (!driver->gone)
			vmsg_driver_fail(driver);
	}
	return rc;
}

int vmsg_blk_driver_start(struct vmsg_blk_driver *blk)
{
	struct vmsg_driver *driver = &blk->driver;
	int rc;

	VMSG_ASSERT(blk->arena && blk->states && driver->vqs && driver->vq_count);
	if (blk->in_flight)
		return VMSG_ERR_BUSY;
	blk->num_queues = 0;
	blk->failed = false;
	blk->arena->used_bytes = 0;
	rc = vmsg_driver_identify(driver);
	if (rc)
		return rc;
	if (driver->device_id != VMSG_BLK_DEVICE_ID)
		return VMSG_ERR_NODEV;
	return start_device(blk);
}

static int reset_for(struct vmsg_blk_driver *blk, const struct vmsg_blk_io *culprit)
{
	int rc = VMSG_ERR_SHUTDOWN;

	if (!blk->driver.gone)
		rc = vmsg_driver_reset(&blk->driver);
	if (rc && !blk->driver.gone)
		return rc;
	blk->num_queues = 0;
	end_all(blk, culprit);
	return rc;
}

int vmsg_blk_driver_reset(struct vmsg_blk_driver *blk)
{
	return reset_for(blk, NULL);
}

/* ---- Requests ---- */

int vmsg_blk_io_init(struct vmsg_blk_io *io, struct vmsg_arena *arena)
{
	memset(io, 0, sizeof(*io));
	io->shared = vmsg_arena_take(arena, VMSG_BLK_IO_BYTES, VMSG_BLK_IO_BYTES, &io->shared_addr);
	return io->shared ? 0 : VMSG_ERR_NOMEM;
}

static int check_range(const struct vmsg_blk_driver *blk, uint64_t sector, uint64_t count)
{
	const struct vmsg_blk_config *config = &blk->config;
	uint32_t mask = config->block_bytes / VMSG_BLK_SECTOR_BYTES - 1;

	if (count == 0 || ((sector | count) & mask))
		return VMSG_ERR_INVAL;
	if (sector > config->capacity_sectors || count > config->capacity_sectors - sector)
		return VMSG_ERR_INVAL;
	return 0;
}

static int check_transfer(const struct vmsg_blk_driver *blk, struct vmsg_blk_io *io)
{
	uint64_t bytes = 0;

	if (io->type == VMSG_BLK_T_OUT && blk->config.read_only)
		return VMSG_ERR_NOTSUP;
	if (io->buf_count > VMSG_BLK_IO_BUFS || io->buf_count > blk->config.seg_max)
		return VMSG_ERR_INVAL;
	for (uint16_t i = 0; i < io->buf_count; i++) {
		if (io->bufs[i].len == 0 || io->bufs[i].len > blk->config.size_max)
			return VMSG_ERR_INVAL;
		bytes += io->bufs[i].len;
	}
	/* Header and status count, too, and a chain is shorter than 2^32. */
	if (bytes > UINT32_MAX - VMSG_BLK_IO_BYTES || bytes % VMSG_BLK_SECTOR_BYTES)
		return VMSG_ERR_INVAL;
	io->data_bytes = (uint32_t)bytes;
	return check_range(blk, io->sector, bytes / VMSG_BLK_SECTOR_BYTES);
}

static int check_segment(const struct vmsg_blk_driver *blk, const struct vmsg_blk_io *io)
{
	bool discard = io->type == VMSG_BLK_T_DISCARD;
	uint32_t max = discard ? blk->config.max_discard_sectors : blk->config.max_zeroes_sectors;

	if (max == 0 || blk->config.read_only)
		return VMSG_ERR_NOTSUP;
	if (io->sector_count > max)
		return VMSG_ERR_INVAL;
	return check_range(blk, io->sector, io->sector_count);
}

static int check_io(struct vmsg_blk_driver *blk, struct vmsg_blk_io *io)
{
	io->data_bytes = 0;
	switch (io->type) {
	case VMSG_BLK_T_IN:
	case VMSG_BLK_T_OUT:
		return check_transfer(blk, io);
	case VMSG_BLK_T_FLUSH:
		return blk->config.flush ? 0 : VMSG_ERR_NOTSUP;
	case VMSG_BLK_T_GET_ID:
		return 0;
	case VMSG_BLK_T_DISCARD:
	case VMSG_BLK_T_WRITE_ZEROES:
		return check_segment(blk, io);
	default:
		return VMSG_ERR_INVAL;
	}
}

static void write_header(struct vmsg_blk_io *io)
{
	bool transfer = io->type == VMSG_BLK_T_IN || io->type == VMSG_BLK_T_OUT;
	uint8_t *shared = io->shared;

	vmsg_put32(shared, io->type);
	vmsg_put32(shared + 4, 0);
	vmsg_put64(shared + 8, transfer ? io->sector : 0);
	if (io->type == VMSG_BLK_T_DISCARD || io->type == VMSG_BLK_T_WRITE_ZEROES) {
		bool unmap = io->may_unmap && io->type == VMSG_BLK_T_WRITE_ZEROES;

		vmsg_put64(shared + AT_SEGMENT, io->sector);
		vmsg_put32(shared + AT_SEGMENT + 8, io->sector_count);
		vmsg_put32(shared + AT_SEGMENT + 12, unmap ? VMSG_BLK_SEGMENT_UNMAP : 0);
	}
	if (io->type == VMSG_BLK_T_GET_ID)
		memset(shared + AT_ID, 0, VMSG_BLK_ID_BYTES);
	shared[AT_STATUS] = STATUS_NONE;
	VMSG_CACHE_CLEAN(shared, VMSG_BLK_IO_BYTES);
}

/* Lays out the chain; the header and a segment after it are one buffer. */
static int add_chain(struct vmsg_vq_driver *vq, struct vmsg_blk_io *io)
{
	struct vmsg_buf bufs[VMSG_BLK_IO_BUFS + 2];
	uint16_t count = 0, readable;
	uint32_t head = VMSG_BLK_HEADER_BYTES, tail = 1;

	if (io->type == VMSG_BLK_T_DISCARD || io->type == VMSG_BLK_T_WRITE_ZEROES)
		head += VMSG_BLK_SEGMENT_BYTES;
	if (io->type == VMSG_BLK_T_GET_ID)
		tail += VMSG_BLK_ID_BYTES; /* the id lies in front of the status */
	bufs[count++] = (struct vmsg_buf){ io->shared_addr, head };
	readable = 1;
	if (io->data_bytes) {
		memcpy(&bufs[1], io->bufs, io->buf_count * sizeof(bufs[0]));
		count = (uint16_t)(count + io->buf_count);
		if (io->type == VMSG_BLK_T_OUT)
			readable = count;
	}
	bufs[count++] = (struct vmsg_buf){ io->shared_addr + AT_STATUS + 1 - tail, tail };
	return vmsg_vq_add(vq, bufs, readable, (uint16_t)(count - readable), io);
}

int vmsg_blk_driver_submit(struct vmsg_blk_driver *blk, uint32_t vq_index, struct vmsg_blk_io *io)
{
	int rc;

	VMSG_ASSERT(!io->busy && io->shared);
	if (!blk->num_queues || blk->driver.gone || blk->failed || blk->driver.needs_reset)
		return VMSG_ERR_SHUTDOWN;
	if (vq_index >= blk->num_queues)
		return VMSG_ERR_INVAL;
	rc = check_io(blk, io);
	if (rc)
		return rc;
	write_header(io);
	rc = add_chain(&blk->driver.vqs[vq_index], io);
	if (rc) {
		if (rc == VMSG_ERR_PROTO)
			blk->failed = true;
		return rc;
	}
	if (blk->in_flight == 0)
		blk->progress_ms = now_ms(blk);
	io->driver = blk;
	io->busy = true;
	io->vq_index = (uint16_t)vq_index;
	io->since_ms = now_ms(blk);
	list_add(blk, io);
	blk->counters.submitted++;
	return 0;
}

/* A doorbell of ours, or one of the device's, may have been lost. */
static void rekick(struct vmsg_blk_driver *blk)
{
	if (!blk->in_flight || !blk->rekick_ms || now_ms(blk) - blk->progress_ms < blk->rekick_ms)
		return;
	blk->progress_ms = now_ms(blk);
	blk->counters.rekicks++;
	for (uint32_t i = 0; i < blk->num_queues; i++)
		vmsg_driver_kick_again(&blk->driver, i);
}

int vmsg_blk_driver_poll(struct vmsg_blk_driver *blk)
{
	if (blk->driver.gone)
		return VMSG_ERR_SHUTDOWN;
	if (blk->num_queues)
		vmsg_driver_poll(&blk->driver);
	if (blk->failed || blk->driver.needs_reset)
		return VMSG_ERR_PROTO;
	rekick(blk);
	if (blk->oldest && io_late(blk, blk->oldest))
		return VMSG_ERR_TIMEDOUT;
	return 0;
}

/* The bus is gone for good, or the device broke the rules, or time is up. */
static int give_up(struct vmsg_blk_driver *blk, struct vmsg_blk_io *io, int rc)
{
	if (rc == VMSG_ERR_SHUTDOWN) {
		blk->num_queues = 0;
		end_all(blk, NULL);
	} else {
		reset_for(blk, rc == VMSG_ERR_TIMEDOUT ? io : NULL);
	}
	return rc;
}

int vmsg_blk_driver_call(struct vmsg_blk_driver *blk, struct vmsg_blk_io *io, uint32_t timeout_ms)
{
	struct vmsg_bus *bus = blk->driver.bus;
	/* Brings the clock up to date. */
	int rc = bus->ops->wait(bus, 0);

	if (rc == 0)
		rc = vmsg_blk_driver_submit(blk, 0, io);
	if (rc)
		return rc;
	vmsg_blk_driver_kick(blk, 0);
	while (io->busy) {
		uint32_t waited = now_ms(blk) - io->since_ms;

		rc = waited >= timeout_ms ? VMSG_ERR_TIMEDOUT : 0;
		if (rc == 0)
			rc = bus->ops->wait(bus, timeout_ms - waited < WAIT_SLICE_MS
							 ? timeout_ms - waited
							 : WAIT_SLICE_MS);
		if (rc == 0)
			rc = vmsg_blk_driver_poll(blk);
		if (rc && io->busy)
			return give_up(blk, io, rc);
	}
	return io->result;
}
