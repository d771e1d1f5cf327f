/* SPDX-License-Identifier: BSD-3-Clause */
/* The AMP bus, side that uses devices: reads the block, once and with care (buses.md 3.6). */
#include <vmsg/driver.h>

#include "amp_private.h"

#define CONNECT_SLICE_MS 10u /* while waiting for a peer that may not ring for its states */
#define REGIONS_MAX      7u  /* block, and words, head and elements of both sides */

static int check_area(struct vmsg_amp *amp)
{
	amp->words = 0;
	amp->masks = false;
	return amp->len_bytes < VMSG_AMP_LAYOUT_BYTES ? VMSG_ERR_INVAL : 0;
}

/*
 * A private copy of a block that did not change while it was read. One look at the magic is not
 * enough: a whole restart of the device fits between two loads.
 */
static bool read_block(const struct vmsg_amp *amp, uint8_t *copy)
{
	uint32_t at;

	if (vmsg_load16(amp->base) != VMSG_AMP_LAYOUT_MAGIC)
		return false;
	vmsg_rmb();
	for (at = 0; at < VMSG_AMP_LAYOUT_BYTES; at += 4)
		vmsg_put32(copy + at, vmsg_load32(amp->base + at));
	vmsg_rmb();
	for (at = 4; at < VMSG_AMP_LAYOUT_BYTES; at += 4) {
		if (vmsg_load32(amp->base + at) != vmsg_get32(copy + at))
			return false;
	}
	vmsg_rmb();
	return vmsg_get16(copy) == VMSG_AMP_LAYOUT_MAGIC &&
	       vmsg_load32(amp->base) == vmsg_get32(copy);
}

struct region {
	uint64_t start, bytes;
	uint32_t align;
	uint8_t field; /* where in the block it is named */
};

/* The whole area of one offset field. True when it may be used. */
static bool add_region(const struct vmsg_amp *amp, const uint8_t *block, struct region *regions,
		       uint32_t *count, struct region region)
{
	uint64_t ref = vmsg_get64(block + region.field);
	uint64_t limit = amp->len_bytes < UINT32_MAX ? amp->len_bytes : UINT32_MAX;

	/* Offsets of 2026 peers have no area id; the shared area's is as good (buses.md 3.2). */
	if (ref >> VMSG_AREA_SHIFT > VMSG_AREA_SHARED)
		return false;
	region.start = ref & (((uint64_t)1 << VMSG_AREA_SHIFT) - 1);
	if (!region.start || region.start % region.align || region.start > limit ||
	    region.bytes > limit - region.start)
		return false;
	for (uint32_t i = 0; i < *count; i++) {
		if (region.start < regions[i].start + regions[i].bytes &&
		    regions[i].start < region.start + region.bytes)
			return false;
	}
	regions[(*count)++] = region;
	return true;
}

/* The scalar fields. VMSG_AMP_LAYOUT_BYTES when all are good, else where the first bad one is. */
static uint8_t check_fields(const struct vmsg_amp *amp, const uint8_t *block)
{
	uint32_t bits = block[9], bytes = vmsg_get16(block + 12);

	if (vmsg_get16(block + 2) != VMSG_AMP_LAYOUT_BYTES)
		return 2;
	if (vmsg_get16(block + 4) != 1)
		return 4;
	if (vmsg_get16(block + 6) >> (VMSG_AMP_F_MASK + 1))
		return 6;
	if (block[8] > VMSG_AMP_MAX_WORDS)
		return 8;
	if (block[8] && (!bits || bits > 16 || (bits & (bits - 1))))
		return 9;
	if (vmsg_get16(block + 10) < 2)
		return 10;
	if (bytes < vmsg_amp_min_element((enum vmsg_dialect)amp->bus.dialect) ||
	    bytes > amp->buffer_bytes)
		return 12;
	return VMSG_AMP_LAYOUT_BYTES;
}

static uint8_t check_block(struct vmsg_amp *amp, const uint8_t *block)
{
	struct region regions[REGIONS_MAX] = { { .bytes = VMSG_AMP_LAYOUT_BYTES } };
	uint32_t kinds = vmsg_has(vmsg_get16(block + 6), VMSG_AMP_F_MASK) ? 3 : 2, count = 1;
	uint64_t elements = (uint64_t)vmsg_get16(block + 10) * vmsg_get16(block + 12);
	uint8_t field = check_fields(amp, block);

	if (field != VMSG_AMP_LAYOUT_BYTES)
		return field;
	for (field = 16; field < VMSG_AMP_LAYOUT_BYTES; field = (uint8_t)(field + 24)) {
		struct region words = { 0, 8u * kinds * block[8], 8, field };
		struct region head = { 0, HEAD_BYTES, 2, (uint8_t)(field + 8) };
		struct region data = { 0, elements, 1, (uint8_t)(field + 16) };

		if (words.bytes && !add_region(amp, block, regions, &count, words))
			return words.field;
		if (!add_region(amp, block, regions, &count, head))
			return head.field;
		if (!add_region(amp, block, regions, &count, data))
			return data.field;
	}
	return VMSG_AMP_LAYOUT_BYTES;
}

/* From here on the geometry is ours, and the block is not read for it again (F3). */
static void take_geometry(struct vmsg_amp *amp)
{
	const uint8_t *block = amp->block;
	struct vmsg_amp_part *parts[2] = { &amp->peer, &amp->own };

	amp->words = block[8];
	amp->bits_per_device = block[9];
	amp->masks = amp->words && vmsg_has(vmsg_get16(block + 6), VMSG_AMP_F_MASK);
	amp->element_count = vmsg_get16(block + 10);
	amp->element_bytes = vmsg_get16(block + 12);
	for (uint32_t i = 0; i < 2; i++) {
		parts[i]->words = vmsg_get32(block + 16 + 24 * i);
		parts[i]->head = vmsg_get32(block + 24 + 24 * i);
		parts[i]->elements = vmsg_get32(block + 32 + 24 * i);
	}
}

static bool take_block(struct vmsg_amp *amp)
{
	uint8_t copy[VMSG_AMP_LAYOUT_BYTES];
	uint8_t field;

	if (!read_block(amp, copy)) {
		amp->refused = false;
		return false;
	}
	field = check_block(amp, copy);
	if (field != VMSG_AMP_LAYOUT_BYTES) {
		/* Polls come often: each block is counted once. */
		if (!amp->refused || memcmp(copy, amp->block, sizeof(copy)) != 0)
			amp->counters.bad_layout++;
		memcpy(amp->block, copy, sizeof(copy));
		amp->refused = true;
		amp->bad_offset = field;
		return false;
	}
	memcpy(amp->block, copy, sizeof(copy));
	amp->refused = false;
	take_geometry(amp);
	return true;
}

/* The device may have restarted with another geometry between take_block() and its RUN. */
static bool same_block(struct vmsg_amp *amp)
{
	for (uint32_t at = 0; at < VMSG_AMP_LAYOUT_BYTES; at += 4) {
		if (vmsg_load32(amp->base + at) != vmsg_get32(amp->block + at))
			return false;
	}
	return true;
}

/*
 * A device that restarts with another geometry is not seen where its head was: what stands there is
 * of its former life. Its new block shows it; one that makes no sense is a scribble, for its owner
 * to mend.
 */
static void look_for_new_block(struct vmsg_amp *amp)
{
	uint8_t copy[VMSG_AMP_LAYOUT_BYTES];

	if (amp->up && !same_block(amp) && read_block(amp, copy) &&
	    check_block(amp, copy) == VMSG_AMP_LAYOUT_BYTES &&
	    memcmp(copy, amp->block, sizeof(copy)) != 0)
		amp->lost = true;
}

static void end_all(struct vmsg_amp *amp)
{
	vmsg_bus_peer_gone(&amp->bus);
}

static bool always_quiet(const struct vmsg_amp *amp)
{
	(void)amp;
	return true;
}

static void wake_drivers(struct vmsg_amp *amp, uint32_t first, uint32_t last, uint32_t vq_index)
{
	struct vmsg_driver *driver = amp->bus.drivers;

	while (driver) {
		struct vmsg_driver *next = driver->next;

		if (driver->dev_num >= first && driver->dev_num <= last) {
			if (vq_index == ALL_QUEUES)
				vmsg_driver_poll(driver);
			else
				vmsg_driver_notified(driver, vq_index);
		}
		driver = next;
	}
}

static const struct vmsg_amp_role driver_role = {
	.trusts_words = true,
	.lay_out = check_area,
	.prepare = take_block,
	.confirm = same_block,
	.repair = look_for_new_block,
	.drop = end_all,
	.quiet = always_quiet,
	.event = wake_drivers,
};

int vmsg_amp_open_driver(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features)
{
	int rc;

	VMSG_ASSERT(amp->sleep);
	amp->is_device = false;
	amp->bus.dialect = (uint8_t)dialect;
	rc = vmsg_amp_open_common(amp, &driver_role);
	if (rc == 0)
		vmsg_bus_init_driver(&amp->bus, dialect, features);
	return rc;
}

int vmsg_amp_connect(struct vmsg_amp *amp, uint32_t timeout_ms)
{
	uint32_t start = amp->bus.now_ms;

	for (;;) {
		uint32_t slice_ms = CONNECT_SLICE_MS, waited;
		int rc;

		if (vmsg_amp_poll(amp))
			slice_ms = 0;
		if (amp->up)
			return 0;
		if (amp->closed)
			return VMSG_ERR_SHUTDOWN;
		waited = amp->bus.now_ms - start;
		if (waited >= timeout_ms)
			return amp->refused ? VMSG_ERR_PROTO : VMSG_ERR_TIMEDOUT;
		if (slice_ms > timeout_ms - waited)
			slice_ms = timeout_ms - waited;
		rc = amp->sleep(amp, slice_ms);
		if (rc < 0)
			return rc;
	}
}
