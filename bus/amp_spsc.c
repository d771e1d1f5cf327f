/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AMP queue format "spsc": two rings with one producer each (buses.md 0.4), as QEMU and Linux had
 * them before 2026. There is no state and no epoch: both sides go on from what memory holds, and a
 * driver of that time zeroes both rings, our indices too, when it starts (peers.md 5, 7 and 20). So
 * our own two words are the sign of life to look at: found zero, the peer has started anew; found
 * to be something else, somebody scribbled, and they are restored.
 *
 * Barriers pair with the peer's: slot written, release, head stored <-> head loaded, acquire, slot
 * copied; slot copied, release, tail stored <-> tail loaded, acquire, slot written.
 */
#include "amp_private.h"

#define RING_BYTES 4096u
#define RING_HEAD  0u  /* next slot to write; the producer stores it */
#define RING_TAIL  64u /* next slot to read; the consumer stores it */
#define RING_SLOTS 128u
#define SLOT_COUNT 62u

#define SETTLE_MS    10u    /* how long zeroing both rings may take */
#define SETTLE_POLLS 10000u /* the same where no clock runs */
#define WRAP_RELAX   8u     /* longer than it takes to zero the words of one ring */

static uint8_t *send_ring(const struct vmsg_amp *amp)
{
	return amp->base + amp->own.head;
}

static uint8_t *receive_ring(const struct vmsg_amp *amp)
{
	return amp->base + amp->peer.head;
}

static int open(struct vmsg_amp *amp)
{
	if (amp->len_bytes < VMSG_AMP_SPSC_BYTES)
		return VMSG_ERR_INVAL;
	amp->own.head = amp->is_device ? RING_BYTES : 0;
	amp->peer.head = amp->is_device ? 0 : RING_BYTES;
	amp->own.elements = amp->own.head + RING_SLOTS;
	amp->peer.elements = amp->peer.head + RING_SLOTS;
	amp->element_bytes = VMSG_AMP_ELEMENT_BYTES;
	amp->element_count = SLOT_COUNT;
	amp->words = 0;
	amp->masks = false;
	return 0;
}

static bool zeroed(uint32_t found, uint32_t ours)
{
	return found == 0 && ours != 0;
}

/* Our two words are as we left them, or are again. False: the peer has zeroed them. */
static bool own_words_good(struct vmsg_amp *amp)
{
	uint32_t head = vmsg_load32(send_ring(amp) + RING_HEAD);
	uint32_t tail = vmsg_load32(receive_ring(amp) + RING_TAIL);

	if (head == amp->producer && tail == amp->told_consumer)
		return true;
	if (zeroed(head, amp->producer) || zeroed(tail, amp->told_consumer)) {
		amp->lost = true;
		return false;
	}
	amp->counters.repaired++;
	vmsg_store32(send_ring(amp) + RING_HEAD, amp->producer);
	vmsg_store32(receive_ring(amp) + RING_TAIL, amp->told_consumer);
	return true;
}

/*
 * The peer has zeroed everything there is, up to the last slot we wrote, and its own index as well:
 * that has moved, or nobody can tell yet.
 */
static bool all_zero(const struct vmsg_amp *amp)
{
	const uint8_t *slots = amp->base + amp->own.elements;
	uint32_t peer_head = vmsg_load32(receive_ring(amp) + RING_HEAD);

	if (peer_head && peer_head == amp->peer_producer)
		return false;
	if (vmsg_load32(send_ring(amp) + RING_HEAD) || vmsg_load32(send_ring(amp) + RING_TAIL) ||
	    vmsg_load32(receive_ring(amp) + RING_TAIL))
		return false;
	for (uint32_t at = 0; at < SLOT_COUNT * VMSG_AMP_ELEMENT_BYTES; at += 4) {
		if (vmsg_load32(slots + at))
			return false;
	}
	return true;
}

/* The peer is zeroing the rings, or may be. While it does, an index says nothing. */
static bool settled(struct vmsg_amp *amp)
{
	return !amp->laid_out || amp->peer_dead || all_zero(amp) ||
	       amp->bus.now_ms - amp->wait_since_ms >= SETTLE_MS ||
	       ++amp->wait_polls >= SETTLE_POLLS;
}

/* Goes on from what memory holds. False while the peer's indices make no sense. */
static bool adopt(struct vmsg_amp *amp)
{
	uint32_t head = vmsg_load32(send_ring(amp) + RING_HEAD);
	uint32_t tail = vmsg_load32(receive_ring(amp) + RING_TAIL);
	uint32_t peer_head = vmsg_load32(receive_ring(amp) + RING_HEAD);
	uint32_t peer_tail = vmsg_load32(send_ring(amp) + RING_TAIL);
	bool unread_is_ours;

	if (peer_head >= SLOT_COUNT || peer_tail >= SLOT_COUNT) {
		if (!amp->refused)
			amp->counters.bad_index++;
		amp->refused = true;
		return false;
	}
	amp->refused = false;
	if (!amp->laid_out) {
		amp->producer = head < SLOT_COUNT ? head : 0;
		unread_is_ours = amp->role->keeps_unread && tail < SLOT_COUNT;
	} else {
		/* After zeroing all that lies there is new; after nonsense nothing is trusted. */
		bool wiped = amp->wiped && peer_head != amp->peer_producer;

		if (wiped)
			tail = 0;
		unread_is_ours = wiped || zeroed(tail, amp->told_consumer) ||
				 (tail == 0 && zeroed(head, amp->producer));
		if (head == 0)
			amp->producer = 0;
	}
	if (unread_is_ours)
		amp->consumer = tail;
	else
		amp->consumer = amp->peer_dead ? amp->peer_producer : peer_head;
	amp->told_consumer = amp->peer_producer = amp->consumer;
	amp->peer_consumer = peer_tail;
	vmsg_store32(send_ring(amp) + RING_HEAD, amp->producer);
	vmsg_store32(receive_ring(amp) + RING_TAIL, amp->consumer);
	amp->laid_out = true;
	amp->wiped = false;
	return true;
}

/* What the dead peer had sent ends here; what comes later is the next one's. */
static void forget_unread(struct vmsg_amp *amp)
{
	uint32_t head = vmsg_load32(receive_ring(amp) + RING_HEAD);

	if (head < SLOT_COUNT)
		amp->peer_producer = head;
}

static uint32_t step(struct vmsg_amp *amp)
{
	uint32_t moves = 0;

	if (amp->state == VMSG_AMP_RUN) {
		if (!amp->leaving && !amp->lost && own_words_good(amp))
			return 0;
		if (amp->peer_dead && !amp->leaving)
			forget_unread(amp);
		if (!vmsg_amp_leave(amp))
			return 0;
		amp->state = VMSG_AMP_INIT;
		amp->wait_since_ms = amp->bus.now_ms;
		amp->wait_polls = 0;
		moves++;
	}
	if (!settled(amp) || !adopt(amp))
		return moves;
	amp->state = VMSG_AMP_RUN;
	vmsg_amp_came_up(amp);
	return moves + 1;
}

static int bad_index(struct vmsg_amp *amp, uint32_t index)
{
	amp->counters.bad_index++;
	amp->lost = true;
	amp->wiped = index == 0;
	return VMSG_ERR_PROTO;
}

static int put(struct vmsg_amp *amp, const void *buf, uint32_t len)
{
	uint32_t next = amp_next(amp, amp->producer), index;

	if (!own_words_good(amp))
		return VMSG_ERR_SHUTDOWN;
	if (next == amp->peer_consumer) {
		index = vmsg_load32(send_ring(amp) + RING_TAIL);
		if (index >= SLOT_COUNT || amp_distance(amp, amp->peer_consumer, index) >
						   amp_distance(amp, amp->peer_consumer,
								amp->producer)) {
			bad_index(amp, index);
			return VMSG_ERR_SHUTDOWN;
		}
		if (next == index) {
			amp->counters.full++;
			return VMSG_ERR_AGAIN;
		}
		amp->peer_consumer = index;
		vmsg_rmb();
	}
	amp_write_element(amp, amp->producer, buf, len);
	amp->producer = next;
	vmsg_wmb();
	vmsg_store32(send_ring(amp) + RING_HEAD, next);
	return 0;
}

/*
 * At once, and before the message is acted on: who starts anew goes on from here. Rings a peer that
 * may have found the ring full, as in amp_layout.c.
 */
static void publish(struct vmsg_amp *amp)
{
	uint32_t used = amp_distance(amp, amp->told_consumer, amp->peer_producer);

	amp->told_consumer = amp->consumer;
	vmsg_wmb();
	vmsg_store32(receive_ring(amp) + RING_TAIL, amp->consumer);
	if (used >= SLOT_COUNT * 3 / 4)
		vmsg_amp_ring(amp);
}

static int get(struct vmsg_amp *amp)
{
	uint32_t index = vmsg_load32(receive_ring(amp) + RING_HEAD);

	if (index == amp->consumer && index == amp->peer_producer)
		return 0;
	if (index >= SLOT_COUNT || amp_distance(amp, amp->consumer, index) <
					   amp_distance(amp, amp->consumer, amp->peer_producer))
		return bad_index(amp, index);
	/* Wrapped, or being zeroed: then our own word in this ring is next. */
	for (uint32_t i = 0; index < amp->peer_producer && i < WRAP_RELAX; i++)
		vmsg_relax();
	amp->peer_producer = index;
	vmsg_rmb();
	amp_read_element(amp, amp->consumer);
	vmsg_rmb();
	if (!own_words_good(amp))
		return 0;
	/* No message begins like this: our word was zeroed just before we stored it. */
	if (!vmsg_get32(amp->element) && !vmsg_get32(amp->element + 4)) {
		amp->lost = amp->wiped = true;
		return 0;
	}
	amp->consumer = amp_next(amp, amp->consumer);
	publish(amp);
	return 1;
}

static void repair(struct vmsg_amp *amp)
{
	/* step() and every message look at the words. */
	(void)amp;
}

static void end(struct vmsg_amp *amp)
{
	/* The format has no way to say it. */
	(void)amp;
}

const struct vmsg_amp_format vmsg_amp_spsc = {
	.name = "spsc",
	.open = open,
	.step = step,
	.put = put,
	.get = get,
	.publish = publish,
	.repair = repair,
	.end = end,
};
