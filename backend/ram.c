/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk in memory, and one that is nowhere: for measuring, and for trying things out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <vmsg/backend.h>

#define PIECE_BYTES (1u << 20) /* at a time: more would hold up the others */

/* Does what is left of a request, up to `limit` bytes of it. */
static void advance(struct vmsg_ram *ram, struct vmsg_blk_request *request, uint64_t limit)
{
	bool transfer = request->op == VMSG_BLK_READ || request->op == VMSG_BLK_WRITE;

	while (limit && request->len_bytes) {
		uint8_t *at = ram->ptr + request->offset_bytes;
		struct vmsg_iov *iov = request->iov;
		uint64_t len = transfer ? iov->len : request->len_bytes;

		if (len > limit)
			len = limit;
		if (request->op == VMSG_BLK_READ)
			memcpy(iov->ptr, at, (size_t)len);
		else if (request->op == VMSG_BLK_WRITE)
			memcpy(at, iov->ptr, (size_t)len);
		else
			memset(at, 0, (size_t)len);
		if (transfer && len < iov->len) {
			iov->ptr += len;
			iov->len -= (size_t)len;
		} else if (transfer) {
			request->iov++;
			request->iov_count--;
		}
		request->offset_bytes += len;
		request->len_bytes -= len;
		limit -= len;
	}
}

static void submit(void *backend, struct vmsg_blk_request *request)
{
	struct vmsg_ram *ram = backend;

	if (!ram->ptr || request->len_bytes <= PIECE_BYTES) {
		if (ram->ptr)
			advance(ram, request, PIECE_BYTES);
		vmsg_blk_done(request, 0);
		return;
	}
	request->next = NULL;
	if (ram->first)
		ram->last->next = request;
	else
		ram->first = request;
	ram->last = request;
}

static void cancel(void *backend, struct vmsg_blk_request *request)
{
	struct vmsg_ram *ram = backend;
	struct vmsg_blk_request **link = &ram->first, *before = NULL;

	while (*link && *link != request) {
		before = *link;
		link = &before->next;
	}
	if (!*link)
		return;
	*link = request->next;
	if (ram->last == request)
		ram->last = before;
	vmsg_blk_done(request, VMSG_ERR_IO);
}

const struct vmsg_blk_backend vmsg_ram_backend = {
	.name = "ram",
	.submit = submit,
	.cancel = cancel,
};

bool vmsg_ram_poll(struct vmsg_ram *ram)
{
	struct vmsg_blk_request *request = ram->first;
	struct vmsg_blk *blk;

	if (!request)
		return false;
	advance(ram, request, PIECE_BYTES);
	if (request->len_bytes)
		return true;
	ram->first = request->next;
	blk = request->blk;
	vmsg_blk_done(request, 0);
	vmsg_blk_batch_done(blk);
	return true;
}

int vmsg_ram_open(struct vmsg_ram *ram, uint64_t len_bytes, bool null, char *error,
		  size_t error_size)
{
	void *ptr = NULL;

	memset(ram, 0, sizeof(*ram));
	if (len_bytes == 0 || len_bytes % VMSG_BLK_SECTOR_BYTES) {
		snprintf(error, error_size, "%s disk: %llu bytes are not whole sectors of %u",
			 null ? "null" : "ram", (unsigned long long)len_bytes,
			 VMSG_BLK_SECTOR_BYTES);
		return -EINVAL;
	}
	if (!null && len_bytes > SIZE_MAX)
		ptr = MAP_FAILED;
	else if (!null)
		ptr = mmap(NULL, (size_t)len_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ptr == MAP_FAILED) {
		snprintf(error, error_size, "ram disk: no memory for %llu bytes",
			 (unsigned long long)len_bytes);
		return -ENOMEM;
	}
	ram->ptr = ptr;
	ram->info.capacity_sectors = len_bytes / VMSG_BLK_SECTOR_BYTES;
	ram->info.block_bytes = VMSG_BLK_SECTOR_BYTES;
	ram->info.max_discard_sectors = 1u << 15;
	ram->info.max_zeroes_sectors = 1u << 15;
	ram->info.discard_align_sectors = 1;
	ram->info.zeroes_may_unmap = true;
	return 0;
}

void vmsg_ram_close(struct vmsg_ram *ram)
{
	if (ram->ptr)
		munmap(ram->ptr, (size_t)ram->info.capacity_sectors * VMSG_BLK_SECTOR_BYTES);
	ram->ptr = NULL;
}
