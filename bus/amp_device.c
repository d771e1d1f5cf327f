/* SPDX-License-Identifier: BSD-3-Clause */
/* The AMP bus, side that offers devices: lays the block out and routes kicks (buses.md 3.6). */
#include <vmsg/device.h>

#include "amp_private.h"

#define DEVICE_HEAD  64u /* the heads keep these places whatever the rest is like */
#define DRIVER_HEAD  72u
#define WORDS_START  80u
#define ELEMENT_STEP 64u /* elements start at a cache line */

static uint64_t elements_start(uint32_t words, bool masks)
{
	uint64_t end = WORDS_START + 2ull * 8 * words * (masks ? 3 : 2);

	return (end + ELEMENT_STEP - 1) & ~(uint64_t)(ELEMENT_STEP - 1);
}

uint32_t vmsg_amp_layout_bytes(uint16_t element_bytes, uint16_t element_count, uint8_t words,
			       bool masks)
{
	uint64_t bytes = element_bytes ? element_bytes : VMSG_AMP_ELEMENT_BYTES;
	uint64_t count = element_count ? element_count : VMSG_AMP_ELEMENT_COUNT;
	uint64_t total = elements_start(words, masks) + 2 * bytes * count;

	if (count < 2 || words > VMSG_AMP_MAX_WORDS || (masks && !words) || total > UINT32_MAX)
		return 0;
	return (uint32_t)total;
}

static bool good_bits(uint32_t bits)
{
	return bits && bits <= 16 && !(bits & (bits - 1));
}

/* The block as it is to stand in memory. */
static void describe(struct vmsg_amp *amp)
{
	uint8_t *block = amp->block;
	const struct vmsg_amp_part *parts[2] = { &amp->own, &amp->peer };

	vmsg_put16(block, VMSG_AMP_LAYOUT_MAGIC);
	vmsg_put16(block + 2, VMSG_AMP_LAYOUT_BYTES);
	vmsg_put16(block + 4, 1);
	vmsg_put16(block + 6, amp->masks ? 1u << VMSG_AMP_F_MASK : 0);
	block[8] = amp->words;
	block[9] = amp->words ? amp->bits_per_device : 0;
	vmsg_put16(block + 10, amp->element_count);
	vmsg_put16(block + 12, amp->element_bytes);
	for (uint32_t i = 0; i < 2; i++) {
		vmsg_put64(block + 16 + 24 * i, amp->words ? parts[i]->words : 0);
		vmsg_put64(block + 24 + 24 * i, parts[i]->head);
		vmsg_put64(block + 32 + 24 * i, parts[i]->elements);
	}
}

static int plan(struct vmsg_amp *amp)
{
	uint32_t total = vmsg_amp_layout_bytes(amp->element_bytes, amp->element_count, amp->words,
					       amp->masks);
	uint32_t minimum = vmsg_amp_min_element((enum vmsg_dialect)amp->bus.dialect);

	if (!total || total > amp->len_bytes || (amp->words && !good_bits(amp->bits_per_device)))
		return VMSG_ERR_INVAL;
	if (!amp->element_bytes)
		amp->element_bytes = VMSG_AMP_ELEMENT_BYTES;
	if (!amp->element_count)
		amp->element_count = VMSG_AMP_ELEMENT_COUNT;
	if (amp->element_bytes < minimum || amp->element_bytes > amp->buffer_bytes)
		return VMSG_ERR_INVAL;
	amp->own.head = DEVICE_HEAD;
	amp->peer.head = DRIVER_HEAD;
	amp->own.words = WORDS_START;
	amp->peer.words = WORDS_START + amp_words_bytes(amp);
	amp->own.elements = (uint32_t)elements_start(amp->words, amp->masks);
	amp->peer.elements =
		amp->own.elements + (uint32_t)amp->element_count * amp->element_bytes;
	describe(amp);
	vmsg_store16(amp->base, 0);
	vmsg_wmb();
	return 0;
}

/* Writes what differs, the word with the magic last. The number of words written. */
static uint32_t write_block(struct vmsg_amp *amp)
{
	uint32_t count = 0;

	for (uint32_t at = VMSG_AMP_LAYOUT_BYTES; at; at -= 4) {
		uint32_t value = vmsg_get32(amp->block + at - 4);

		if (vmsg_load32(amp->base + at - 4) == value)
			continue;
		if (at == 4)
			vmsg_wmb();
		vmsg_store32(amp->base + at - 4, value);
		count++;
	}
	return count;
}

static void show_block(struct vmsg_amp *amp)
{
	write_block(amp);
	vmsg_mb();
}

static void restore_block(struct vmsg_amp *amp)
{
	amp->counters.repaired += write_block(amp);
}

/* A new driver may be reading the block by now. */
static bool keep_block(struct vmsg_amp *amp)
{
	if (amp->laid_out)
		restore_block(amp);
	return true;
}

static bool always(struct vmsg_amp *amp)
{
	(void)amp;
	return true;
}

static void reset_devices(struct vmsg_amp *amp)
{
	vmsg_bus_peer_reset(&amp->bus);
}

static bool devices_quiet(const struct vmsg_amp *amp)
{
	const struct vmsg_device *device;

	for (device = amp->bus.devices; device; device = device->next) {
		if (device->resetting)
			return false;
	}
	return true;
}

static void kick_devices(struct vmsg_amp *amp, uint32_t first, uint32_t last, uint32_t vq_index)
{
	struct vmsg_device *device = amp->bus.devices;

	while (device) {
		struct vmsg_device *next = device->next;

		if (device->dev_num >= first && device->dev_num <= last && !device->removed) {
			if (vq_index == ALL_QUEUES)
				vmsg_device_poll(device);
			else
				vmsg_device_kicked(device, vq_index);
		}
		device = next;
	}
}

static const struct vmsg_amp_role device_role = {
	.keeps_unread = true,
	.lay_out = plan,
	.show = show_block,
	.prepare = keep_block,
	.confirm = always,
	.repair = restore_block,
	.drop = reset_devices,
	.quiet = devices_quiet,
	.event = kick_devices,
};

int vmsg_amp_open_device(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features)
{
	int rc;

	amp->is_device = true;
	amp->bus.dialect = (uint8_t)dialect;
	rc = vmsg_amp_open_common(amp, &device_role);
	if (rc == 0)
		vmsg_bus_init_device(&amp->bus, dialect, features);
	return rc;
}
