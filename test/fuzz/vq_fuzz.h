/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtqueue under fire from the other side. The input chooses the size, the features, the layout
 * of the regions and what is in them, and then a row of operations: those of the side under test,
 * well-formed and malformed work of the peer, and plain scribbling. Every region is a block of
 * exactly its size, so that a byte too far is seen, and all that pop hands out is touched.
 *
 * The format under test is FUZZ_PACKED, defined by the file that includes this one.
 */
#ifndef TEST_FUZZ_VQ_FUZZ_H
#define TEST_FUZZ_VQ_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include <vmsg/port.h>
#include <vmsg/vq.h>

#define MAX_SIZE    16u
#define MAX_REGIONS 4u
#define MAX_OPS     200u

#define MUST(truth)                                                                                \
	do {                                                                                       \
		if (!(truth))                                                                      \
			abort();                                                                   \
	} while (0)

struct held {
	struct vmsg_chain chain;
	struct vmsg_iov iov[MAX_SIZE + 4];
};

struct fuzz {
	const uint8_t *data;
	size_t left;

	uint32_t size;
	uint64_t features;
	struct vmsg_region regions[MAX_REGIONS];
	struct vmsg_mem mem;
	struct vmsg_vq_memory memory; /* rings in region 0 */
	uint64_t ring_bytes;

	struct vmsg_vq_device device;
	struct held held[MAX_SIZE];
	uint32_t held_count;

	struct vmsg_vq_driver driver;
	struct vmsg_vq_state state[MAX_SIZE];
	uint32_t room[MAX_SIZE]; /* writable bytes + 1 of a cookie that is out */

	uint16_t peer_idx; /* what the peer counts, in good faith */
};

static uint32_t take8(struct fuzz *fuzz)
{
	if (fuzz->left == 0)
		return 0;
	fuzz->left--;
	return *fuzz->data++;
}

static uint32_t take16(struct fuzz *fuzz)
{
	uint32_t low = take8(fuzz);

	return low | take8(fuzz) << 8;
}

/* Lays out the areas in region 0, each aligned and no more. */
static void place_rings(struct fuzz *fuzz)
{
	const struct vmsg_vq_device_format *format =
		FUZZ_PACKED ? &vmsg_vq_packed_device : &vmsg_vq_split_device;
	uint64_t driver = vmsg_vq_area_bytes(&format->areas[0], fuzz->size);
	uint64_t device = driver + vmsg_vq_area_bytes(&format->areas[1], fuzz->size);

	device = (device + 3) & ~(uint64_t)3;
	fuzz->ring_bytes = device + vmsg_vq_area_bytes(&format->areas[2], fuzz->size);
	fuzz->memory.desc_addr = fuzz->regions[0].addr;
	fuzz->memory.driver_addr = fuzz->regions[0].addr + driver;
	fuzz->memory.device_addr = fuzz->regions[0].addr + device;
	fuzz->memory.desc = fuzz->regions[0].ptr;
	fuzz->memory.driver = fuzz->regions[0].ptr + driver;
	fuzz->memory.device = fuzz->regions[0].ptr + device;
}

static uint32_t choose_size(struct fuzz *fuzz)
{
	uint32_t choice = take8(fuzz);

	return FUZZ_PACKED ? 1 + choice % MAX_SIZE : 1u << choice % 5;
}

static void make_regions(struct fuzz *fuzz)
{
	uint64_t addr = (uint64_t)take8(fuzz) << 56 | 0x1000;
	uint32_t count = 1 + take8(fuzz) % MAX_REGIONS;

	/* Room for the rings of the largest size. */
	for (uint32_t i = 0; i < count; i++) {
		struct vmsg_region *region = &fuzz->regions[i];
		uint32_t shape = take8(fuzz);
		uint32_t len = i ? 1 + take8(fuzz) : 32 * MAX_SIZE + take8(fuzz);

		region->addr = addr;
		region->len_bytes = len;
		region->ptr = malloc(len);
		region->access = i && shape % 4 ? shape % 4 : VMSG_MEM_READ | VMSG_MEM_WRITE;
		region->fd = -1;
		MUST(region->ptr);
		memset(region->ptr, shape & 0x80 ? 0xff : 0, len);
		/* The next one follows at once, or after a hole. */
		addr += (len + 15) & ~15u;
		if (shape & 4)
			addr += (uint64_t)0x100 << (shape >> 3 & 15);
	}
	MUST(vmsg_mem_init(&fuzz->mem, fuzz->regions, count) == 0);
}

/* An address, mostly one that means something, mostly not near an end. */
static uint64_t choose_addr(struct fuzz *fuzz)
{
	uint32_t choice = take8(fuzz);
	const struct vmsg_region *region = &fuzz->regions[choice % fuzz->mem.count];
	uint32_t offset = take8(fuzz);

	switch (choice >> 4) {
	case 0:
		return region->addr + region->len_bytes - offset;
	case 1:
		return region->addr - offset;
	case 2:
		return (uint64_t)offset << 56 | take16(fuzz);
	case 3:
		return UINT64_MAX - offset;
	default:
		return region->addr + (offset & ~15u);
	}
}

static uint32_t choose_len(struct fuzz *fuzz)
{
	uint32_t choice = take8(fuzz);

	if (choice < 0xf0)
		return 1 + choice % 64;
	return choice < 0xf8 ? 0xffffffffu >> (choice & 7) * 4 : take16(fuzz);
}

/* Scribbles: anywhere in a region. */
static void scribble(struct fuzz *fuzz)
{
	struct vmsg_region *region = &fuzz->regions[take8(fuzz) % fuzz->mem.count];
	uint32_t offset = take16(fuzz) % (uint32_t)region->len_bytes;
	uint32_t count = 1 + take8(fuzz) % 8;

	while (count-- > 0 && offset < region->len_bytes)
		region->ptr[offset++] = (uint8_t)take8(fuzz);
}

/* ---- The device side under test ---- */

static void start_device(struct fuzz *fuzz)
{
	place_rings(fuzz);
	vmsg_vq_device_reset(&fuzz->device);
	fuzz->device.max_size = MAX_SIZE;
	fuzz->device.size = (uint16_t)fuzz->size;
	fuzz->device.desc_addr = fuzz->memory.desc_addr;
	fuzz->device.driver_addr = fuzz->memory.driver_addr;
	fuzz->device.device_addr = fuzz->memory.device_addr;
	MUST(vmsg_vq_device_enable(&fuzz->device,
				   FUZZ_PACKED ? &vmsg_vq_packed_device : &vmsg_vq_split_device,
				   &fuzz->mem, fuzz->features) == 0);
	fuzz->held_count = 0;
	fuzz->peer_idx = FUZZ_PACKED ? 0x8000 : 0;
}

static void touch(const struct fuzz *fuzz, const struct vmsg_iov *iov, bool writable)
{
	bool found = false;

	MUST(iov->len > 0);
	for (uint32_t i = 0; i < fuzz->mem.count; i++) {
		const struct vmsg_region *region = &fuzz->regions[i];
		uintptr_t offset = (uintptr_t)iov->ptr - (uintptr_t)region->ptr;

		if (offset >= region->len_bytes)
			continue;
		found = iov->len <= region->len_bytes - offset &&
			(region->access & (writable ? VMSG_MEM_WRITE : VMSG_MEM_READ));
	}
	MUST(found);
	if (writable) {
		iov->ptr[0] ^= 0x55;
		iov->ptr[iov->len - 1] ^= 0x55;
	} else {
		volatile const uint8_t *ptr = iov->ptr;

		MUST(ptr[0] + ptr[iov->len - 1] <= 510); /* always so: it is about the reading */
	}
}

static void check_chain(const struct fuzz *fuzz, const struct vmsg_chain *chain)
{
	uint32_t count = (uint32_t)chain->readable_count + chain->writable_count;
	uint64_t bytes = 0;

	MUST(count > 0 && count <= fuzz->size && count <= chain->iov_max);
	MUST(chain->slots > 0 && chain->slots <= fuzz->size && chain->id < fuzz->size);
	for (uint32_t i = 0; i < count; i++) {
		touch(fuzz, &chain->iov[i], i >= chain->readable_count);
		bytes += chain->iov[i].len;
		if (i + 1 == chain->readable_count)
			MUST(bytes == chain->readable_bytes);
	}
	MUST(bytes == (uint64_t)chain->readable_bytes + chain->writable_bytes);
}

/* Copies out and in, from an offset that may lie behind the end. */
static void copy_chain(struct fuzz *fuzz, const struct vmsg_chain *chain)
{
	uint8_t buf[64] = { 0 };
	uint32_t offset = take8(fuzz);
	size_t done;

	done = vmsg_chain_read(chain, offset, buf, sizeof(buf));
	MUST(done == sizeof(buf) || done == 0 || offset + done == chain->readable_bytes);
	done = vmsg_chain_write(chain, offset, buf, sizeof(buf));
	MUST(done == sizeof(buf) || done == 0 || offset + done == chain->writable_bytes);
}

static void pop(struct fuzz *fuzz)
{
	bool was_broken = fuzz->device.broken;
	struct held *held;
	int result;

	if (fuzz->held_count == MAX_SIZE) {
		struct held spare = { .chain.iov_max = 0 };

		spare.chain.iov = spare.iov;
		MUST(vmsg_vq_pop(&fuzz->device, &spare.chain) <= 0);
		return;
	}
	held = &fuzz->held[fuzz->held_count];
	held->chain.iov = held->iov;
	/* Now and then less than the queue allows. */
	held->chain.iov_max = (uint16_t)(take8(fuzz) % 8 ? MAX_SIZE + 4 : 2);
	result = vmsg_vq_pop(&fuzz->device, &held->chain);
	MUST(result == 1 || result == 0 || result == VMSG_ERR_PROTO);
	MUST(fuzz->device.broken == (result < 0));
	MUST(!was_broken || result < 0);
	MUST(fuzz->device.in_flight <= fuzz->size);
	if (result > 0) {
		check_chain(fuzz, &held->chain);
		copy_chain(fuzz, &held->chain);
		fuzz->held_count++;
		MUST(fuzz->held_count <= fuzz->size);
	}
}

static void push(struct fuzz *fuzz)
{
	uint32_t choice = take8(fuzz);
	struct held *held;
	uint32_t i;

	if (fuzz->held_count == 0)
		return;
	i = choice % fuzz->held_count;
	held = &fuzz->held[i];
	vmsg_vq_push(&fuzz->device, &held->chain,
		     choice & 0x80 ? held->chain.writable_bytes : held->chain.writable_bytes / 2);
	fuzz->held[i] = fuzz->held[--fuzz->held_count];
	fuzz->held[i].chain.iov = fuzz->held[i].iov;
	MUST(fuzz->held_count > 0 || fuzz->device.in_flight == 0);
}

/* Writes a descriptor into the ring or, for a table, anywhere that is aligned. */
static void write_desc(struct fuzz *fuzz, uint8_t *ptr, uint32_t flags, uint32_t next)
{
	vmsg_put64(ptr, choose_addr(fuzz));
	vmsg_put32(ptr + 8, flags & VMSG_DESC_INDIRECT && next % 8 ? 16 * (next % 8)
								   : choose_len(fuzz));
	vmsg_put16(ptr + 12, (uint16_t)(FUZZ_PACKED ? next : flags));
	vmsg_put16(ptr + 14, (uint16_t)(FUZZ_PACKED ? flags : next));
}

/* A driver in good faith but for what the input says: a chain of up to 4 descriptors. */
static void offer_chain(struct fuzz *fuzz)
{
	uint32_t shape = take8(fuzz);
	uint32_t count = 1 + (shape & 3);
	uint32_t head = take8(fuzz) % fuzz->size;
	uint16_t idx = fuzz->peer_idx;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t flags = take8(fuzz);
		uint32_t slot = FUZZ_PACKED ? idx & 0x7fffu : (head + i) % fuzz->size;
		uint32_t next = FUZZ_PACKED ? head : (slot + 1) % fuzz->size;

		/* Mostly sensible: NEXT on all but the last, WRITE as it comes. */
		if (flags < 0xe0)
			flags = (flags & (VMSG_DESC_WRITE | (flags & 8 ? VMSG_DESC_INDIRECT : 0))) |
				(i + 1 < count ? VMSG_DESC_NEXT : 0);
		if (FUZZ_PACKED)
			flags |= idx & 0x8000 ? VMSG_DESC_AVAIL : VMSG_DESC_USED;
		write_desc(fuzz, fuzz->memory.desc + 16 * slot, flags, next);
		if (FUZZ_PACKED && (uint32_t)(idx & 0x7fff) + 1 == fuzz->size)
			idx = (idx & 0x8000) ^ 0x8000;
		else if (FUZZ_PACKED)
			idx++;
	}
	if (!FUZZ_PACKED) {
		vmsg_put16(fuzz->memory.driver + 4 + 2 * (idx % fuzz->size), (uint16_t)head);
		idx++;
		vmsg_put16(fuzz->memory.driver + 2, idx);
	}
	fuzz->peer_idx = idx;
}

static void write_table(struct fuzz *fuzz)
{
	struct vmsg_region *region = &fuzz->regions[take8(fuzz) % fuzz->mem.count];
	uint32_t offset = 16 * take8(fuzz);
	uint32_t count = 1 + take8(fuzz) % 8;

	for (uint32_t i = 0; i < count; i++, offset += 16) {
		uint32_t flags = take8(fuzz);

		if (offset + 16 > region->len_bytes)
			return;
		if (flags < 0xf0)
			flags = (flags & VMSG_DESC_WRITE) | (i + 1 < count ? VMSG_DESC_NEXT : 0);
		write_desc(fuzz, region->ptr + offset, flags, flags < 0xf0 ? i + 1 : flags & 7);
	}
}

static void device_op(struct fuzz *fuzz)
{
	switch (take8(fuzz) % 12) {
	case 0:
	case 1:
	case 2:
		pop(fuzz);
		break;
	case 3:
	case 4:
		push(fuzz);
		break;
	case 5:
		MUST(!vmsg_vq_used_event(&fuzz->device) || fuzz->device.unsignalled == 0);
		break;
	case 6:
		vmsg_vq_want_kicks(&fuzz->device, take8(fuzz) & 1);
		break;
	case 7:
	case 8:
		offer_chain(fuzz);
		break;
	case 9:
		write_table(fuzz);
		break;
	case 10:
		scribble(fuzz);
		break;
	default:
		/* A reset, often with another size. */
		if (take8(fuzz) % 4 == 0) {
			fuzz->size = choose_size(fuzz);
			memset(fuzz->regions[0].ptr, 0, 32 * MAX_SIZE);
		}
		start_device(fuzz);
		break;
	}
}

/* ---- The driver side under test ---- */

static void start_driver(struct fuzz *fuzz)
{
	place_rings(fuzz);
	/* Tables take what the rings leave, if there is enough. */
	fuzz->memory.indirect_max = 0;
	if (fuzz->mem.count > 1 && fuzz->regions[1].len_bytes >= 16 * fuzz->size) {
		fuzz->memory.indirect = fuzz->regions[1].ptr;
		fuzz->memory.indirect_addr = fuzz->regions[1].addr;
		fuzz->memory.indirect_max =
			(uint16_t)(fuzz->regions[1].len_bytes / (16 * fuzz->size));
	}
	MUST(vmsg_vq_driver_init(&fuzz->driver,
				 FUZZ_PACKED ? &vmsg_vq_packed_driver : &vmsg_vq_split_driver,
				 fuzz->features, (uint16_t)fuzz->size, &fuzz->memory,
				 fuzz->state) == 0);
	memset(fuzz->room, 0, sizeof(fuzz->room));
	fuzz->peer_idx = FUZZ_PACKED ? 0x8000 : 0;
}

static void add(struct fuzz *fuzz)
{
	struct vmsg_buf bufs[8];
	uint32_t shape = take8(fuzz), count, cookie, room = 0;
	uint16_t readable = shape & 3, writable = shape >> 2 & 3;
	int result;

	count = (uint32_t)readable + writable;
	for (cookie = 0; cookie < MAX_SIZE && fuzz->room[cookie]; cookie++)
		;
	for (uint32_t i = 0; i < count; i++) {
		bufs[i] = (struct vmsg_buf){ choose_addr(fuzz), choose_len(fuzz) };
		if (i >= readable)
			room += bufs[i].len;
	}
	/* All cookies out: the queue is full, too. */
	if (cookie == MAX_SIZE) {
		MUST(vmsg_vq_add(&fuzz->driver, bufs, readable, writable, fuzz) < 0);
		return;
	}
	result = vmsg_vq_add(&fuzz->driver, bufs, readable, writable, &fuzz->room[cookie]);
	MUST(result == 0 || result == VMSG_ERR_AGAIN || result == VMSG_ERR_INVAL ||
	     result == VMSG_ERR_PROTO);
	MUST(!fuzz->driver.broken || result == VMSG_ERR_PROTO);
	if (result == 0)
		fuzz->room[cookie] = room == UINT32_MAX ? room : room + 1;
}

static void get(struct fuzz *fuzz)
{
	bool was_broken = fuzz->driver.broken;
	uint32_t written = 0, *room;
	void *cookie = NULL;
	int result = vmsg_vq_get(&fuzz->driver, &cookie, &written);

	MUST(result == 1 || result == 0 || result == VMSG_ERR_PROTO);
	MUST(fuzz->driver.broken == (result < 0));
	MUST(!was_broken || result < 0);
	MUST(fuzz->driver.free_count <= fuzz->size);
	if (result <= 0)
		return;
	room = cookie;
	MUST(room >= fuzz->room && room < fuzz->room + MAX_SIZE && *room > 0);
	MUST(written < *room || *room == UINT32_MAX);
	*room = 0;
}

static void drain(struct fuzz *fuzz)
{
	void *cookie;

	while ((cookie = vmsg_vq_drain(&fuzz->driver)) != NULL) {
		uint32_t *room = cookie;

		MUST(room >= fuzz->room && room < fuzz->room + MAX_SIZE && *room > 0);
		*room = 0;
	}
	for (uint32_t i = 0; i < MAX_SIZE; i++)
		MUST(fuzz->room[i] == 0);
}

/* A device in good faith but for what the input says. */
static void report_used(struct fuzz *fuzz)
{
	uint32_t id = take8(fuzz), len = take8(fuzz), step = take8(fuzz);
	uint16_t idx = fuzz->peer_idx;

	if (id < 0xf0)
		id %= fuzz->size;
	if (len >= 0xf0)
		len <<= 24;
	step = step < 0xe0 ? 1 : step & 7;
	if (FUZZ_PACKED) {
		uint8_t *ptr = fuzz->memory.desc + 16 * (idx & 0x7fffu);
		uint32_t slot = (idx & 0x7fffu) + step % (fuzz->size + 1);

		vmsg_put32(ptr + 8, len);
		vmsg_put16(ptr + 12, (uint16_t)id);
		vmsg_put16(ptr + 14, (uint16_t)((idx & 0x8000 ? 0x8080 : 0) | (len ? 2 : 0)));
		idx = (uint16_t)(slot < fuzz->size ? (idx & 0x8000u) | slot
						   : (~idx & 0x8000u) | (slot - fuzz->size));
	} else {
		uint8_t *ptr = fuzz->memory.device + 4 + 8 * (idx % fuzz->size);

		vmsg_put32(ptr, id < 0xf0 ? id : id << 24);
		vmsg_put32(ptr + 4, len);
		idx = (uint16_t)(idx + step);
		vmsg_put16(fuzz->memory.device + 2, idx);
	}
	fuzz->peer_idx = idx;
}

static void driver_op(struct fuzz *fuzz)
{
	switch (take8(fuzz) % 12) {
	case 0:
	case 1:
	case 2:
		add(fuzz);
		break;
	case 3:
	case 4:
		vmsg_vq_publish(&fuzz->driver);
		vmsg_vq_next_offset(&fuzz->driver);
		break;
	case 5:
	case 6:
		get(fuzz);
		break;
	case 7:
		vmsg_vq_want_used(&fuzz->driver, take8(fuzz) & 1);
		break;
	case 8:
	case 9:
		report_used(fuzz);
		break;
	case 10:
		scribble(fuzz);
		break;
	default:
		drain(fuzz);
		if (take8(fuzz) % 4 == 0)
			fuzz->size = choose_size(fuzz);
		start_driver(fuzz);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz fuzz;
	uint32_t flags;

	memset(&fuzz, 0, sizeof(fuzz));
	fuzz.data = data;
	fuzz.left = size;
	flags = take8(&fuzz);
	fuzz.size = choose_size(&fuzz);
	fuzz.features = (flags & 1 ? VMSG_BIT(VMSG_F_EVENT_IDX) : 0) |
			(flags & 2 ? VMSG_BIT(VMSG_F_INDIRECT_DESC) : 0) |
			(flags & 4 ? VMSG_BIT(VMSG_F_IN_ORDER) : 0);
	make_regions(&fuzz);
	if (flags & 8) {
		start_driver(&fuzz);
		for (uint32_t i = 0; i < MAX_OPS && fuzz.left > 0; i++)
			driver_op(&fuzz);
		drain(&fuzz);
	} else {
		start_device(&fuzz);
		for (uint32_t i = 0; i < MAX_OPS && fuzz.left > 0; i++)
			device_op(&fuzz);
		/* What is still held can be given back, whatever happened. */
		while (fuzz.held_count > 0)
			push(&fuzz);
	}
	for (uint32_t i = 0; i < fuzz.mem.count; i++)
		free(fuzz.regions[i].ptr);
	return 0;
}

#endif
