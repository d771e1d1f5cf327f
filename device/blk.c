/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block device (virtio 1.4, 5.2). A request is a chain: a 16-byte header and, for OUT, data to
 * read; data, for IN, and one status byte to write. How the parts are spread over descriptors is
 * the driver's choice, so nothing here counts descriptors.
 */
#include "blk_private.h"

#include <vmsg/port.h>

/* A failed read leaves zeros, unless the driver asks for more than is decent to clear in one go. */
#define CLEAR_MAX_BYTES (1u << 20)

/* One kick begins no more than this, and the request that passes it: copying takes time. */
#define TURN_BYTES (512u << 10)

static struct vmsg_blk *to_blk(struct vmsg_device *device)
{
	return (struct vmsg_blk *)device;
}

static struct vmsg_blk_queue *queue_of(const struct vmsg_blk_request *request)
{
	return &request->blk->queues[request->vq_index];
}

/* ---- The requests of a queue ---- */

/* Those used before come first, so that a queue which is never deep stays in few pages. */
static struct vmsg_blk_request *request_take(struct vmsg_blk *blk, uint16_t vq_index)
{
	struct vmsg_blk_queue *queue = &blk->queues[vq_index];
	struct vmsg_blk_request *request = queue->free;
	size_t index;

	if (request) {
		queue->free = request->link;
	} else {
		if (queue->used_requests == blk->device.vqs[vq_index].max_size)
			return NULL;
		request = &queue->requests[queue->used_requests++];
	}
	index = (size_t)(request - queue->requests);
	request->blk = blk;
	request->vq_index = vq_index;
	request->chain.iov = &queue->iovs[index * queue->iov_max];
	request->chain.iov_max = queue->iov_max;
	request->busy = false;
	request->finished = false;
	request->cancelled = false;
	request->link = NULL;
	return request;
}

static void request_give(struct vmsg_blk_request *request)
{
	struct vmsg_blk_queue *queue = queue_of(request);

	request->busy = false;
	request->link = queue->free;
	queue->free = request;
}

/* ---- The end of a request ---- */

static uint32_t iov_bytes(const struct vmsg_iov *iov, uint16_t count)
{
	size_t bytes = 0;

	for (uint16_t i = 0; i < count; i++)
		bytes += iov[i].len;
	return (uint32_t)bytes; /* a chain has fewer than 2^32 */
}

/* Clears the buffers; false when they are too large for that. */
static bool iov_clear(const struct vmsg_iov *iov, uint16_t count)
{
	if (iov_bytes(iov, count) > CLEAR_MAX_BYTES)
		return false;
	for (uint16_t i = 0; i < count; i++) {
		memset(iov[i].ptr, 0, iov[i].len);
		VMSG_CACHE_CLEAN(iov[i].ptr, iov[i].len);
	}
	return true;
}

/*
 * The status byte comes last, after all other writable bytes: so the length in the used ring counts
 * all of them, and all of them must have been written. When a huge failed read was not cleared the
 * length is 0, which promises nothing.
 */
static void request_answer(struct vmsg_blk_request *request)
{
	struct vmsg_blk *blk = request->blk;
	uint32_t written = request->chain.writable_bytes;

	if (written) {
		if (request->op == VMSG_BLK_READ && request->status != VMSG_BLK_S_OK &&
		    !iov_clear(request->iov, request->iov_count))
			written = 0;
		*request->status_ptr = request->status;
		VMSG_CACHE_CLEAN(request->status_ptr, 1);
	}
	vmsg_device_push(&blk->device, request->vq_index, &request->chain, written);
	queue_of(request)->owes_used = true;
}

static void request_end(struct vmsg_blk_request *request)
{
	struct vmsg_blk *blk = request->blk;
	struct vmsg_blk_queue *queue = queue_of(request);

	if (!queue->dropping)
		request_answer(request);
	request_give(request);
	queue->in_flight--;
	blk->in_flight--;
	if (queue->owes_reset && queue->in_flight == 0) {
		queue->owes_reset = false;
		queue->dropping = false;
		vmsg_device_vq_reset_done(&blk->device, request->vq_index);
	}
	if (blk->owes_reset && blk->in_flight == 0) {
		blk->owes_reset = false;
		for (uint32_t i = 0; i < blk->device.vq_count; i++)
			blk->queues[i].dropping = false;
		vmsg_device_reset_done(&blk->device);
	}
}

/* With IN_ORDER an answer waits for those of all requests before it. */
static void request_finish(struct vmsg_blk_request *request)
{
	struct vmsg_blk_queue *queue = queue_of(request);

	if (!request->blk->in_order || queue->dropping) {
		request_end(request);
		return;
	}
	request->finished = true;
	while (queue->oldest && queue->oldest->finished) {
		request = queue->oldest;
		queue->oldest = request->link;
		request_end(request);
	}
}

void vmsg_blk_done(struct vmsg_blk_request *request, int result)
{
	struct vmsg_blk_counters *counters = &request->blk->counters;

	VMSG_ASSERT(request->busy && !request->finished);
	request->status = VMSG_BLK_S_OK;
	if (result) {
		request->status = result == VMSG_ERR_NOTSUP ? VMSG_BLK_S_UNSUPP : VMSG_BLK_S_IOERR;
		if (!queue_of(request)->dropping)
			counters->failed++;
	}
	if (request->blk->submitting)
		counters->in_place++;
	request_finish(request);
}

/* An answer without the backend. */
static void request_refuse(struct vmsg_blk_request *request, uint8_t status, uint32_t *counter)
{
	(*counter)++;
	request->status = status;
	request_finish(request);
}

/* ---- The start of a request ---- */

/* Splits the status byte off the writable part. False when there is no room for it. */
static bool request_take_status(struct vmsg_blk_request *request)
{
	struct vmsg_chain *chain = &request->chain;
	struct vmsg_iov *last;

	request->iov = chain->iov + chain->readable_count;
	request->iov_count = chain->writable_count;
	if (chain->writable_bytes == 0)
		return false;
	last = &request->iov[request->iov_count - 1];
	last->len--;
	request->status_ptr = last->ptr + last->len;
	if (last->len == 0)
		request->iov_count--;
	return true;
}

/* Leaves what is behind the header of the readable part in iov. */
static void request_use_readable(struct vmsg_blk_request *request)
{
	size_t skip = VMSG_BLK_HEADER_BYTES;

	request->iov = request->chain.iov;
	request->iov_count = request->chain.readable_count;
	while (request->iov_count && request->iov->len <= skip) {
		skip -= request->iov->len;
		request->iov++;
		request->iov_count--;
	}
	if (request->iov_count) {
		request->iov->ptr += skip;
		request->iov->len -= skip;
	}
}

static bool in_range(const struct vmsg_blk *blk, uint64_t sector, uint64_t count)
{
	uint64_t capacity = blk->info.capacity_sectors;

	return sector <= capacity && count <= capacity - sector;
}

/* Both are counted in sectors here; I/O is done in blocks. */
static bool in_blocks(const struct vmsg_blk *blk, uint64_t sector, uint64_t count)
{
	uint32_t mask = blk->info.block_bytes / VMSG_BLK_SECTOR_BYTES - 1;

	return ((sector | count) & mask) == 0;
}

static void request_submit(struct vmsg_blk_request *request)
{
	struct vmsg_blk *blk = request->blk;

	blk->backend->submit(blk->backend_data, request);
}

/* IN and OUT: iov is the data. */
static void request_transfer(struct vmsg_blk_request *request, uint64_t sector)
{
	struct vmsg_blk *blk = request->blk;
	struct vmsg_blk_counters *counters = &blk->counters;
	uint32_t bytes = iov_bytes(request->iov, request->iov_count);
	uint32_t count = bytes / VMSG_BLK_SECTOR_BYTES;

	if (bytes % VMSG_BLK_SECTOR_BYTES || !in_blocks(blk, sector, count)) {
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->malformed);
		return;
	}
	if (!in_range(blk, sector, count)) {
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->out_of_range);
		return;
	}
	request->offset_bytes = sector * VMSG_BLK_SECTOR_BYTES;
	request->len_bytes = bytes;
	if (request->op == VMSG_BLK_READ) {
		counters->reads++;
		counters->read_bytes += bytes;
	} else {
		counters->writes++;
		counters->written_bytes += bytes;
	}
	if (bytes == 0)
		vmsg_blk_done(request, 0);
	else
		request_submit(request);
}

static void request_write(struct vmsg_blk_request *request, uint64_t sector)
{
	if (request->blk->info.read_only) {
		request_refuse(request, VMSG_BLK_S_IOERR, &request->blk->counters.refused);
		return;
	}
	request->op = VMSG_BLK_WRITE;
	request_use_readable(request);
	request_transfer(request, sector);
}

static void request_flush(struct vmsg_blk_request *request)
{
	request->op = VMSG_BLK_FLUSH;
	request->iov_count = 0;
	request->offset_bytes = 0;
	request->len_bytes = 0;
	request->blk->counters.flushes++;
	request_submit(request);
}

/* DISCARD and WRITE_ZEROES: one segment, which is what max_discard_seg and its twin say. */
static void request_segment(struct vmsg_blk_request *request, uint32_t max_sectors)
{
	struct vmsg_blk *blk = request->blk;
	struct vmsg_blk_counters *counters = &blk->counters;
	bool discard = request->op == VMSG_BLK_DISCARD;
	uint8_t segment[VMSG_BLK_SEGMENT_BYTES];
	uint64_t sector;
	uint32_t count, flags;

	if (request->chain.readable_bytes != VMSG_BLK_HEADER_BYTES + VMSG_BLK_SEGMENT_BYTES) {
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->malformed);
		return;
	}
	vmsg_chain_read(&request->chain, VMSG_BLK_HEADER_BYTES, segment, sizeof(segment));
	sector = vmsg_get64(segment);
	count = vmsg_get32(segment + 8);
	flags = vmsg_get32(segment + 12);
	if (flags & ~VMSG_BLK_SEGMENT_UNMAP || (discard && flags)) {
		request_refuse(request, VMSG_BLK_S_UNSUPP, &counters->unsupported);
		return;
	}
	if (!in_range(blk, sector, count) || count > max_sectors) {
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->out_of_range);
		return;
	}
	if (!in_blocks(blk, sector, count)) {
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->malformed);
		return;
	}
	if (discard)
		counters->discards++;
	else
		counters->write_zeroes++;
	request->iov_count = 0;
	request->offset_bytes = sector * VMSG_BLK_SECTOR_BYTES;
	request->len_bytes = (uint64_t)count * VMSG_BLK_SECTOR_BYTES;
	request->may_unmap = flags & VMSG_BLK_SEGMENT_UNMAP && blk->info.zeroes_may_unmap;
	if (count == 0)
		vmsg_blk_done(request, 0);
	else
		request_submit(request);
}

static void request_clear_range(struct vmsg_blk_request *request, uint32_t type)
{
	struct vmsg_blk *blk = request->blk;
	bool discard = type == VMSG_BLK_T_DISCARD;

	request->op = discard ? VMSG_BLK_DISCARD : VMSG_BLK_ZERO;
	if (blk->info.read_only)
		request_refuse(request, VMSG_BLK_S_IOERR, &blk->counters.refused);
	else if (!vmsg_has(blk->device.features,
			   discard ? VMSG_BLK_F_DISCARD : VMSG_BLK_F_WRITE_ZEROES))
		request_refuse(request, VMSG_BLK_S_UNSUPP, &blk->counters.unsupported);
	else
		request_segment(request, discard ? blk->info.max_discard_sectors
						 : blk->info.max_zeroes_sectors);
}

static void request_get_id(struct vmsg_blk_request *request)
{
	struct vmsg_blk *blk = request->blk;
	struct vmsg_iov *iov = request->iov;
	size_t done = 0;

	/* The rest was cleared already. */
	for (uint16_t i = 0; i < request->iov_count && done < VMSG_BLK_ID_BYTES; i++) {
		size_t len = iov[i].len;

		if (len > VMSG_BLK_ID_BYTES - done)
			len = VMSG_BLK_ID_BYTES - done;
		memcpy(iov[i].ptr, blk->id + done, len);
		VMSG_CACHE_CLEAN(iov[i].ptr, len);
		done += len;
	}
	blk->counters.ids++;
	request->status = VMSG_BLK_S_OK;
	request_finish(request);
}

/* Everything but a read writes nothing ahead of the status byte: zeros, should there be room. */
static void request_no_read(struct vmsg_blk_request *request, uint32_t type, uint64_t sector)
{
	struct vmsg_blk_counters *counters = &request->blk->counters;

	request->op = VMSG_BLK_FLUSH;
	if (!iov_clear(request->iov, request->iov_count)) {
		request->op = VMSG_BLK_READ; /* has the answer promise nothing */
		request_refuse(request, VMSG_BLK_S_IOERR, &counters->malformed);
		return;
	}
	switch (type) {
	case VMSG_BLK_T_OUT:
		request_write(request, sector);
		break;
	case VMSG_BLK_T_FLUSH:
		request_flush(request);
		break;
	case VMSG_BLK_T_GET_ID:
		request_get_id(request);
		break;
	case VMSG_BLK_T_DISCARD:
	case VMSG_BLK_T_WRITE_ZEROES:
		request_clear_range(request, type);
		break;
	default:
		request_refuse(request, VMSG_BLK_S_UNSUPP, &counters->unsupported);
		break;
	}
}

/* A chain was popped into the request. */
static void request_start(struct vmsg_blk_request *request)
{
	struct vmsg_blk *blk = request->blk;
	struct vmsg_blk_queue *queue = queue_of(request);
	uint8_t header[VMSG_BLK_HEADER_BYTES];
	uint64_t sector;
	uint32_t type;

	request->busy = true;
	request->op = VMSG_BLK_READ;
	request->durable = !vmsg_blk_writeback(blk);
	request->may_unmap = false;
	queue->in_flight++;
	blk->in_flight++;
	if (blk->in_order) {
		if (queue->oldest)
			queue->newest->link = request;
		else
			queue->oldest = request;
		queue->newest = request;
	}
	if (!request_take_status(request) ||
	    vmsg_chain_read(&request->chain, 0, header, sizeof(header)) < sizeof(header)) {
		request_refuse(request, VMSG_BLK_S_IOERR, &blk->counters.malformed);
		return;
	}
	type = vmsg_get32(header);
	sector = vmsg_get64(header + 8);
	if (type == VMSG_BLK_T_IN)
		request_transfer(request, sector);
	else
		request_no_read(request, type, sector);
}

static void notify(struct vmsg_blk *blk, uint32_t vq_index)
{
	if (!blk->queues[vq_index].owes_used)
		return;
	blk->queues[vq_index].owes_used = false;
	vmsg_device_used(&blk->device, vq_index);
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_blk *blk = to_blk(device);
	struct vmsg_blk_queue *queue = &blk->queues[vq_index];
	/* One more than can be there at once: the last pop usually finds the queue empty. */
	uint32_t budget = device->vqs[vq_index].size + 1u;
	uint64_t bytes = 0;
	bool submitted = false;

	if (blk->stopping || queue->dropping)
		return;
	queue->stalled = false;
	blk->submitting = true;
	for (; budget && bytes < TURN_BYTES; budget--) {
		struct vmsg_blk_request *request = request_take(blk, (uint16_t)vq_index);

		if (!request) {
			queue->stalled = true;
			break;
		}
		if (vmsg_device_pop(device, vq_index, &request->chain) != 1) {
			request_give(request);
			break;
		}
		bytes += request->chain.readable_bytes + (uint64_t)request->chain.writable_bytes;
		request_start(request);
		submitted = true;
	}
	blk->submitting = false;
	if (!budget || bytes >= TURN_BYTES)
		device->more = true;
	if (submitted && blk->backend->start)
		blk->backend->start(blk->backend_data);
	notify(blk, vq_index);
}

void vmsg_blk_batch_done(struct vmsg_blk *blk)
{
	for (uint32_t i = 0; i < blk->device.vq_count; i++) {
		notify(blk, i);
		if (blk->queues[i].stalled && !blk->device.more)
			kick(&blk->device, i);
	}
}

/* ---- Reset ---- */

/* From here on nothing of this queue is answered. True when nothing is in flight. */
static bool queue_drop(struct vmsg_blk *blk, uint32_t vq_index)
{
	struct vmsg_blk_queue *queue = &blk->queues[vq_index];

	queue->dropping = true;
	queue->stalled = false;
	queue->owes_used = false;
	queue->oldest = queue->newest = NULL;
	for (uint16_t i = 0; i < queue->used_requests; i++) {
		struct vmsg_blk_request *request = &queue->requests[i];

		if (!request->busy || request->cancelled)
			continue;
		if (request->finished) {
			request_end(request);
		} else if (blk->backend->cancel) {
			request->cancelled = true;
			blk->backend->cancel(blk->backend_data, request);
		}
	}
	return queue->in_flight == 0;
}

static int reset(struct vmsg_device *device)
{
	struct vmsg_blk *blk = to_blk(device);

	blk->owes_reset = false;
	for (uint32_t i = 0; i < device->vq_count; i++) {
		blk->queues[i].owes_reset = false;
		queue_drop(blk, i);
	}
	device->more = false;
	blk->config[VMSG_BLK_CONFIG_WRITEBACK] = 1;
	if (blk->in_flight) {
		blk->owes_reset = true;
		return VMSG_ERR_AGAIN;
	}
	for (uint32_t i = 0; i < device->vq_count; i++)
		blk->queues[i].dropping = false;
	return 0;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_blk *blk = to_blk(device);

	if (queue_drop(blk, vq_index)) {
		blk->queues[vq_index].dropping = false;
		return 0;
	}
	blk->queues[vq_index].owes_reset = true;
	return VMSG_ERR_AGAIN;
}

bool vmsg_blk_stop(struct vmsg_blk *blk)
{
	blk->stopping = true;
	for (uint32_t i = 0; i < blk->device.vq_count; i++)
		queue_drop(blk, i);
	return blk->in_flight == 0;
}

/* ---- Init ---- */

static const struct vmsg_device_ops ops = {
	.name = "blk",
	.device_id = VMSG_BLK_DEVICE_ID,
	.reset = reset,
	.start = vmsg_blk_start,
	.configure = vmsg_blk_configure,
	.kick = kick,
	.reset_vq = reset_vq,
};

void vmsg_blk_init(struct vmsg_blk *blk)
{
	struct vmsg_device *device = &blk->device;
	uint32_t block = blk->info.block_bytes;
	uint16_t iov_max = UINT16_MAX;

	VMSG_ASSERT(blk->backend && blk->backend->submit);
	VMSG_ASSERT(block >= VMSG_BLK_SECTOR_BYTES && (block & (block - 1)) == 0);
	VMSG_ASSERT(device->vq_count > 0 && device->vq_count <= UINT16_MAX);
	VMSG_ASSERT(blk->info.capacity_sectors <= UINT64_MAX / VMSG_BLK_SECTOR_BYTES);
	for (uint32_t i = 0; i < device->vq_count; i++) {
		struct vmsg_blk_queue *queue = &blk->queues[i];

		VMSG_ASSERT(device->vqs[i].max_size && queue->requests && queue->iovs);
		VMSG_ASSERT(queue->iov_max >= 3);
		if (queue->iov_max < iov_max)
			iov_max = queue->iov_max;
		queue->used_requests = queue->in_flight = 0;
		queue->dropping = queue->owes_reset = queue->owes_used = queue->stalled = false;
		queue->free = queue->oldest = queue->newest = NULL;
	}
	blk->in_flight = 0;
	blk->submitting = blk->stopping = blk->owes_reset = blk->in_order = false;
	device->ops = &ops;
	device->offered |= vmsg_blk_features(blk);
	device->config = blk->config;
	device->config_size = sizeof(blk->config);
	vmsg_blk_fill_config(blk, iov_max - 2u);
	vmsg_device_init(device);
}
