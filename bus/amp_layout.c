/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AMP queue format "layout": a head per side in a self-describing block (buses.md 3.3, 3.6).
 *
 * The state machine is the one of doc/amp.md, which test/model/amp_start.pml proves. Barriers pair
 * with the same lines in the peer's copy of this file:
 *   status stored, full fence, peer's status loaded  <->  the same   (set_status)
 *   element written, release, producer stored  <->  producer loaded, acquire, element copied
 *   element copied, release, consumer stored   <->  consumer loaded, acquire, element written
 */
#include "amp_private.h"

#define MOVES_MAX 8u /* more than the states one poll can pass */

static uint8_t *own_head(const struct vmsg_amp *amp)
{
	return amp->base + amp->own.head;
}

static uint8_t *peer_head(const struct vmsg_amp *amp)
{
	return amp->base + amp->peer.head;
}

/* What we take the peer's state for. Without a magic, or with nonsense, it has not started yet. */
static uint16_t peer_status(const struct vmsg_amp *amp)
{
	uint16_t magic = vmsg_load16(peer_head(amp) + HEAD_MAGIC);
	uint16_t status = vmsg_load16(peer_head(amp) + HEAD_STATUS) & 0x1f;

	return magic == VMSG_AMP_HEAD_MAGIC && status <= VMSG_AMP_PEER_DEAD ? status
									      : VMSG_AMP_INIT;
}

static void set_status(struct vmsg_amp *amp, enum vmsg_amp_state state)
{
	amp->state = state;
	vmsg_wmb();
	vmsg_store16(own_head(amp) + HEAD_STATUS, (uint16_t)state);
	vmsg_mb();
	/* Nobody needs to ring for a state, but the peer then sees it at once. */
	vmsg_amp_ring(amp);
}

/* Both indices in one store where the head's place allows it: one visit to the cache line. */
static void store_indices(struct vmsg_amp *amp)
{
	uint8_t *head = own_head(amp);

	amp->told_consumer = amp->consumer;
	vmsg_wmb();
	if ((amp->own.head & 3) == 0) {
		vmsg_store32(head + HEAD_PRODUCER, amp->producer | amp->consumer << 16);
		return;
	}
	vmsg_store16(head + HEAD_PRODUCER, (uint16_t)amp->producer);
	vmsg_store16(head + HEAD_CONSUMER, (uint16_t)amp->consumer);
}

/* Enters INIT. False while there is no block to work with. */
static bool start_over(struct vmsg_amp *amp)
{
	/* From here to a good block it is not known what is ours. */
	if (!amp->role->prepare(amp)) {
		amp->laid_out = false;
		amp->state = VMSG_AMP_INIT;
		return false;
	}
	/* The old indices stay until the peer has left RUN: see zero(). */
	amp->producer = vmsg_load16(own_head(amp) + HEAD_PRODUCER);
	amp->consumer = vmsg_load16(own_head(amp) + HEAD_CONSUMER);
	amp->told_consumer = amp->consumer;
	amp->laid_out = true;
	amp->bus.max_msg_size = amp->element_bytes;
	/* A platform may have put its own in the place of ours. */
	if (amp->bus.ops == &vmsg_amp_ops || amp->bus.ops == &vmsg_amp_words_ops)
		amp->bus.ops = amp->words ? &vmsg_amp_words_ops : &vmsg_amp_ops;
	set_status(amp, VMSG_AMP_INIT);
	vmsg_store16(own_head(amp) + HEAD_MAGIC, VMSG_AMP_HEAD_MAGIC);
	vmsg_mb();
	return true;
}

static void zero(struct vmsg_amp *amp)
{
	amp->producer = amp->consumer = 0;
	amp->peer_producer = amp->peer_consumer = 0;
	store_indices(amp);
	memset(amp->base + amp->own.elements, 0,
	       (size_t)amp->element_count * amp->element_bytes);
	if (amp->words)
		vmsg_amp_words_clear(amp);
}

static bool from_init(struct vmsg_amp *amp)
{
	/* Also where the block has changed: the head may be elsewhere, and nobody sees ours. */
	if (!amp->laid_out || !amp->role->confirm(amp))
		return start_over(amp);
	/* The peer still talks to who we were; it must see our INIT first. */
	if (peer_status(amp) == VMSG_AMP_RUN)
		return false;
	zero(amp);
	set_status(amp, VMSG_AMP_READY);
	return true;
}

static bool from_ready(struct vmsg_amp *amp)
{
	uint16_t peer = peer_status(amp);

	if (!amp->role->confirm(amp))
		return start_over(amp);
	if (peer != VMSG_AMP_READY && peer != VMSG_AMP_RUN)
		return false;
	amp->seen = false;
	set_status(amp, VMSG_AMP_RUN);
	return true;
}

/*
 * In RUN nothing passes until the peer was seen in RUN after our own RUN was stored: a RUN read
 * earlier may be one of its former life.
 */
static bool from_run(struct vmsg_amp *amp)
{
	uint16_t peer = peer_status(amp);
	bool leave = amp->leaving || amp->lost;

	vmsg_rmb();
	if (!amp->seen && !amp->role->confirm(amp))
		leave = true;
	if (!leave && peer == VMSG_AMP_RUN) {
		if (amp->seen)
			return false;
		vmsg_rmb();
		if (peer_status(amp) != VMSG_AMP_RUN)
			return false;
		amp->seen = true;
		vmsg_amp_came_up(amp);
		return true;
	}
	if (!leave && peer == VMSG_AMP_READY && !amp->seen)
		return false;
	if (!vmsg_amp_leave(amp))
		return false;
	set_status(amp, VMSG_AMP_SHUTDOWN);
	return true;
}

static bool move(struct vmsg_amp *amp)
{
	switch (amp->state) {
	case VMSG_AMP_INIT:
		return from_init(amp);
	case VMSG_AMP_READY:
		return from_ready(amp);
	case VMSG_AMP_RUN:
		return from_run(amp);
	default:
		return start_over(amp);
	}
}

static uint32_t step(struct vmsg_amp *amp)
{
	uint32_t moves = 0;

	if (amp->up && !amp->lost && peer_status(amp) == VMSG_AMP_RUN)
		return 0;
	while (moves < MOVES_MAX && move(amp))
		moves++;
	return moves;
}

static int bad_index(struct vmsg_amp *amp)
{
	amp->counters.bad_index++;
	amp->lost = true;
	return VMSG_ERR_PROTO;
}

static int put(struct vmsg_amp *amp, const void *buf, uint32_t len)
{
	uint32_t index = vmsg_load16(peer_head(amp) + HEAD_CONSUMER);
	uint32_t next = amp_next(amp, amp->producer);

	/* A peer that starts anew between two of our polls shows in its status or its indices. */
	if (peer_status(amp) != VMSG_AMP_RUN)
		return VMSG_ERR_SHUTDOWN;
	if (index >= amp->element_count ||
	    amp_distance(amp, amp->peer_consumer, index) >
		    amp_distance(amp, amp->peer_consumer, amp->producer)) {
		bad_index(amp);
		return VMSG_ERR_SHUTDOWN;
	}
	amp->peer_consumer = index;
	if (next == index) {
		amp->counters.full++;
		return VMSG_ERR_AGAIN;
	}
	vmsg_rmb();
	amp_write_element(amp, amp->producer, buf, len);
	amp->producer = next;
	store_indices(amp);
	return amp->words && !vmsg_amp_words_message(amp);
}

static int get(struct vmsg_amp *amp)
{
	uint32_t index = vmsg_load16(peer_head(amp) + HEAD_PRODUCER);

	if (index == amp->consumer && amp->peer_producer == index)
		return 0;
	if (index >= amp->element_count || amp_distance(amp, amp->consumer, index) <
						   amp_distance(amp, amp->consumer,
								amp->peer_producer))
		return bad_index(amp);
	amp->peer_producer = index;
	vmsg_rmb();
	amp_read_element(amp, amp->consumer);
	vmsg_rmb();
	/* Only while the peer still is who sent it; the next step looks closer. */
	if (peer_status(amp) != VMSG_AMP_RUN)
		return 0;
	amp->consumer = amp_next(amp, amp->consumer);
	return 1;
}

/*
 * A peer that found the queue full waits for room and nobody tells it, so it is rung once the queue
 * was a quarter full: by then it cannot have filled it unseen.
 */
static void publish(struct vmsg_amp *amp)
{
	uint32_t used = amp_distance(amp, amp->told_consumer, amp->peer_producer);

	store_indices(amp);
	if (used >= amp->element_count / 4u)
		vmsg_amp_ring(amp);
}

static void restore16(struct vmsg_amp *amp, uint32_t offset, uint32_t value)
{
	uint8_t *word = own_head(amp) + offset;

	if (vmsg_load16(word) == value)
		return;
	vmsg_store16(word, (uint16_t)value);
	amp->counters.repaired++;
}

static void repair(struct vmsg_amp *amp)
{
	if (amp->role->repair)
		amp->role->repair(amp);
	/* Found to be gone: what we would mend may be another's by now. */
	if (amp->lost)
		return;
	restore16(amp, HEAD_STATUS, amp->state);
	restore16(amp, HEAD_PRODUCER, amp->producer);
	restore16(amp, HEAD_CONSUMER, amp->told_consumer);
	restore16(amp, HEAD_MAGIC, VMSG_AMP_HEAD_MAGIC);
	if (amp->up && amp->words)
		vmsg_amp_words_repair(amp);
}

static int open(struct vmsg_amp *amp)
{
	int rc = amp->role->lay_out(amp);

	if (rc == 0 && amp->role->show) {
		start_over(amp);
		amp->role->show(amp);
	}
	return rc;
}

static void end(struct vmsg_amp *amp)
{
	if (amp->laid_out)
		set_status(amp, VMSG_AMP_SHUTDOWN);
}

const struct vmsg_amp_format vmsg_amp_layout = {
	.name = "layout",
	.open = open,
	.step = step,
	.put = put,
	.get = get,
	.publish = publish,
	.events_take = vmsg_amp_words_take,
	.events_act = vmsg_amp_words_act,
	.repair = repair,
	.end = end,
};
