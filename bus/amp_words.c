/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notification words of the AMP bus: events as bits in shared memory (buses.md 3.4, 3.5;
 * doc/amp.md).
 *
 * A bit is pending while the sender's tx and the receiver's rx differ in it. A sender toggles only
 * bits that are not pending: twice toggled would be nothing. Full fences make that safe:
 *   sender    work published, fence, peer's rx loaded: pending, so the event is on its way
 *   receiver  rx stored, fence, work looked at
 * One of the two always sees what the other did. The same holds between tx and the mask.
 *
 * A word is 64 bits, read and written as two halves of 32 bits, low half first; each half has one
 * writer, and every bit in it is a signal of its own, so torn words do no harm.
 */
#include "amp_private.h"

#define BIT_MESSAGE 0u /* something in the message queue */
#define BIT_OTHERS  1u /* devices above those that have bits */

/* Which bits stand for what. */
struct map {
	uint32_t full;       /* devices with all their bits: 0 to full - 1 */
	uint32_t full_start; /* first bit of device 0 */
	uint32_t single_end; /* bits 2 to single_end - 1: the next devices, one bit each */
	uint32_t direct;     /* bits of word 0 that say "look at word n" start here */
};

static struct map map_of(uint32_t words, uint32_t bits)
{
	struct map map = { 0, 0, 0, 65 - words };

	if (words == 1) {
		map.full = bits == 1 ? 0 : 64 / bits - 1;
		map.full_start = bits;
		map.single_end = bits == 1 ? 64 : bits;
	} else {
		map.full = (words - 1) * (64 / bits);
		map.full_start = 64;
		map.single_end = bits < map.direct ? bits : map.direct;
	}
	if (map.single_end < 2)
		map.single_end = 2;
	return map;
}

int vmsg_amp_event_bit(uint8_t words, uint8_t bits_per_device, uint16_t dev_num, uint32_t vq_index,
		       bool *exact)
{
	struct map map;
	uint32_t last = bits_per_device - 1u;

	*exact = false;
	if (!words)
		return VMSG_ERR_NOTSUP;
	map = map_of(words, bits_per_device);
	if (dev_num < map.full) {
		*exact = vq_index < last;
		return (int)(map.full_start + dev_num * bits_per_device +
			     (*exact ? vq_index : last));
	}
	if (dev_num - map.full < map.single_end - 2)
		return (int)(2 + dev_num - map.full);
	return map.direct > BIT_OTHERS ? (int)BIT_OTHERS : VMSG_ERR_NOTSUP;
}

static uint8_t *own_word(const struct vmsg_amp *amp, uint32_t kind, uint32_t half)
{
	return amp->base + amp->own.words + kind * 8u * amp->words + 4 * half;
}

static const uint8_t *peer_word(const struct vmsg_amp *amp, uint32_t kind, uint32_t half)
{
	return amp->base + amp->peer.words + kind * 8u * amp->words + 4 * half;
}

enum { TX, RX, MASK };

/* False: the bit is still pending at the peer. */
static bool toggle(struct vmsg_amp *amp, uint32_t bit)
{
	uint32_t half = bit / 32, flag = 1u << bit % 32;

	if ((amp->tx[half] ^ vmsg_load32(peer_word(amp, RX, half))) & flag)
		return false;
	amp->tx[half] ^= flag;
	vmsg_store32(own_word(amp, TX, half), amp->tx[half]);
	return true;
}

/* Whether the peer wants to be rung for a bit that was toggled. */
static bool wanted(const struct vmsg_amp *amp, uint32_t bit)
{
	if (!amp->masks)
		return true;
	vmsg_mb();
	return !(vmsg_load32(peer_word(amp, MASK, bit / 32)) >> bit % 32 & 1);
}

static uint32_t cascade_bit(const struct vmsg_amp *amp, uint32_t bit)
{
	return bit / 64 + 64 - amp->words;
}

static void signal_event(struct vmsg_amp *amp, uint32_t bit)
{
	bool ring;

	vmsg_mb();
	if (!toggle(amp, bit)) {
		/* Whoever toggled it rang, or found the peer awake. */
		amp->counters.coalesced++;
		return;
	}
	ring = wanted(amp, bit);
	if (bit >= 64) {
		vmsg_mb();
		toggle(amp, cascade_bit(amp, bit));
		ring = ring && wanted(amp, cascade_bit(amp, bit));
	}
	if (ring)
		vmsg_amp_ring(amp);
	else
		amp->counters.doorbells_masked++;
}

static int notify(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index)
{
	struct vmsg_amp *amp = (struct vmsg_amp *)bus;
	bool exact;
	int bit;

	if (!amp->up || amp->lost)
		return VMSG_ERR_SHUTDOWN;
	if (!amp->peer_uses_words)
		return VMSG_ERR_NOTSUP;
	bit = vmsg_amp_event_bit(amp->words, amp->bits_per_device, dev_num, vq_index, &exact);
	if (bit < 0 || !exact)
		return VMSG_ERR_NOTSUP;
	signal_event(amp, (uint32_t)bit);
	return 0;
}

const struct vmsg_bus_ops vmsg_amp_words_ops = {
	.name = "amp",
	.send = vmsg_amp_send,
	.notify = notify,
	.wait = vmsg_amp_wait,
};

/* After an element was put. Whether the peer wants to be rung for it. */
bool vmsg_amp_words_message(struct vmsg_amp *amp)
{
	vmsg_mb();
	toggle(amp, BIT_MESSAGE);
	return wanted(amp, BIT_MESSAGE);
}

static void store_mask(struct vmsg_amp *amp)
{
	uint32_t mask = amp->wants_none ? UINT32_MAX : 0;

	/* Every doorbell is for a bit of word 0. */
	vmsg_store32(own_word(amp, MASK, 0), mask);
	vmsg_store32(own_word(amp, MASK, 1), mask);
}

void vmsg_amp_want_doorbells(struct vmsg_amp *amp, bool on)
{
	if (amp->wants_none == !on)
		return;
	amp->wants_none = !on;
	if (!amp->masks || !amp->up)
		return;
	store_mask(amp);
	vmsg_mb();
}

void vmsg_amp_words_clear(struct vmsg_amp *amp)
{
	uint32_t halves = amp_words_bytes(amp) / 4;

	memset(amp->tx, 0, sizeof(amp->tx));
	memset(amp->rx, 0, sizeof(amp->rx));
	for (uint32_t half = 0; half < halves; half++)
		vmsg_store32(own_word(amp, TX, half), 0);
	if (amp->masks)
		store_mask(amp);
}

/* Acknowledges one word. Act on it only after a full fence. */
static void take(struct vmsg_amp *amp, uint32_t word, uint32_t pending[2])
{
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t half = 2 * word + i;

		pending[i] = amp->rx[half] ^ vmsg_load32(peer_word(amp, TX, half));
		if (!pending[i])
			continue;
		amp->rx[half] ^= pending[i];
		vmsg_store32(own_word(amp, RX, half), amp->rx[half]);
	}
}

void vmsg_amp_words_take(struct vmsg_amp *amp, uint32_t pending[2])
{
	take(amp, 0, pending);
	if (pending[0] | pending[1])
		vmsg_mb();
}

/* A bit of word 1 or up, or one of word 0 that stands for devices. */
static void act(struct vmsg_amp *amp, const struct map *map, uint32_t bit)
{
	uint32_t bits = amp->bits_per_device, first = map->full + map->single_end - 2, last, queue;

	amp->peer_uses_words = true;
	if (bit == BIT_OTHERS) {
		amp->role->event(amp, first, UINT16_MAX, ALL_QUEUES);
		return;
	}
	if (bit < map->single_end) {
		first = last = map->full + bit - 2;
		amp->role->event(amp, first, last, ALL_QUEUES);
		return;
	}
	if (bit < map->full_start || (bit - map->full_start) / bits >= map->full)
		return; /* stands for nothing */
	first = last = (bit - map->full_start) / bits;
	queue = (bit - map->full_start) % bits;
	amp->role->event(amp, first, last, queue == bits - 1 ? ALL_QUEUES : queue);
}

static uint32_t act_word(struct vmsg_amp *amp, const struct map *map, uint32_t word,
			 const uint32_t pending[2])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < 2; i++) {
		for (uint32_t left = pending[i]; left && amp->up; left &= left - 1) {
			act(amp, map, word * 64 + i * 32 + (uint32_t)__builtin_ctz(left));
			count++;
		}
	}
	return count;
}

uint32_t vmsg_amp_words_act(struct vmsg_amp *amp, const uint32_t pending[2])
{
	struct map map = map_of(amp->words, amp->bits_per_device);
	uint32_t direct[2] = { pending[0] & ~(1u << BIT_MESSAGE), pending[1] };
	uint32_t deep[2], count = 0;

	for (uint32_t bit = map.direct; bit < 64; bit++) {
		uint32_t flag = 1u << bit % 32;

		if (!(direct[bit / 32] & flag))
			continue;
		direct[bit / 32] &= ~flag;
		take(amp, bit - map.direct + 1, deep);
		vmsg_mb();
		count += act_word(amp, &map, bit - map.direct + 1, deep);
	}
	return count + act_word(amp, &map, 0, direct);
}

static void restore32(struct vmsg_amp *amp, uint8_t *word, uint32_t value)
{
	if (vmsg_load32(word) == value)
		return;
	vmsg_store32(word, value);
	amp->counters.repaired++;
}

void vmsg_amp_words_repair(struct vmsg_amp *amp)
{
	uint32_t mask = amp->wants_none ? UINT32_MAX : 0;

	for (uint32_t half = 0; half < 2u * amp->words; half++) {
		restore32(amp, own_word(amp, TX, half), amp->tx[half]);
		restore32(amp, own_word(amp, RX, half), amp->rx[half]);
		if (amp->masks)
			restore32(amp, own_word(amp, MASK, half), half < 2 ? mask : 0);
	}
}
