/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk in memory, and one that is nowhere: for measuring, and for trying things out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <vmsg/backend.h>

static void copy(struct vmsg_ram *ram, struct vmsg_blk_request *request)
{
	uint8_t *at = ram->ptr + request->offset_bytes;

	for (uint16_t i = 0; i < request->iov_count; i++) {
		const struct vmsg_iov *iov = &request->iov[i];

		if (request->op == VMSG_BLK_READ)
			memcpy(iov->ptr, at, iov->len);
		else
			memcpy(at, iov->ptr, iov->len);
		at += iov->len;
	}
}

static void submit(void *backend, struct vmsg_blk_request *request)
{
	struct vmsg_ram *ram = backend;

	if (ram->ptr) {
		if (request->op == VMSG_BLK_READ || request->op == VMSG_BLK_WRITE)
			copy(ram, request);
		else if (request->op != VMSG_BLK_FLUSH)
			memset(ram->ptr + request->offset_bytes, 0, request->len_bytes);
	}
	vmsg_blk_done(request, 0);
}

const struct vmsg_blk_backend vmsg_ram_backend = {
	.name = "ram",
	.submit = submit,
};

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
