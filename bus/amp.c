/* SPDX-License-Identifier: BSD-3-Clause */
/* The AMP bus: what both queue formats and both sides share (design.md 9, doc/amp.md). */
#include "amp_private.h"

#define REPAIR_EVERY  16u  /* idle polls between two looks at what we wrote */
#define SWEEP_MS      100u /* with words: how long an event may be lost */
#define BUSY_WAITS    64u  /* waits that found something between two looks at the clock */
#define WAIT_SLICE_MS 100u /* states of the peer come without a doorbell */

const struct vmsg_bus_ops vmsg_amp_ops = {
	.name = "amp",
	.send = vmsg_amp_send,
	.wait = vmsg_amp_wait,
};

uint32_t vmsg_amp_min_element(enum vmsg_dialect dialect)
{
	if (dialect == VMSG_V2)
		return VMSG_MSG_MIN_V2;
	return dialect == VMSG_RFC2 ? VMSG_MSG_MIN_RFC2 : VMSG_MSG_MIN_V1;
}

static void forget(struct vmsg_amp *amp)
{
	memset(&amp->counters, 0, sizeof(amp->counters));
	memset(amp->tx, 0, sizeof(amp->tx));
	memset(amp->rx, 0, sizeof(amp->rx));
	memset(amp->block, 0, sizeof(amp->block));
	memset(&amp->own, 0, sizeof(amp->own));
	memset(&amp->peer, 0, sizeof(amp->peer));
	amp->state = VMSG_AMP_INIT;
	amp->up = amp->refused = amp->laid_out = amp->seen = false;
	amp->lost = amp->leaving = amp->closed = amp->holding = false;
	amp->peer_uses_words = amp->wants_none = false;
	amp->peer_dead = amp->wiped = false;
	amp->bad_offset = amp->idle = amp->busy = 0;
	amp->producer = amp->consumer = amp->told_consumer = 0;
	amp->peer_producer = amp->peer_consumer = 0;
	amp->wait_since_ms = amp->swept_ms = amp->bus.now_ms;
	amp->wait_polls = 0;
}

int vmsg_amp_open_common(struct vmsg_amp *amp, const struct vmsg_amp_role *role)
{
	VMSG_ASSERT(amp->base && amp->format && amp->frame && amp->element);
	VMSG_ASSERT(amp->frame != amp->element);
	if (((uintptr_t)amp->base & 7) || amp->buffer_bytes < VMSG_AMP_ELEMENT_BYTES)
		return VMSG_ERR_INVAL;
	forget(amp);
	amp->role = role;
	amp->bus.ops = &vmsg_amp_ops;
	amp->bus.frame = amp->frame;
	amp->bus.max_msg_size = VMSG_AMP_ELEMENT_BYTES;
	return amp->format->open(amp);
}

void vmsg_amp_ring(struct vmsg_amp *amp)
{
	if (!amp->ring)
		return;
	amp->counters.doorbells++;
	amp->ring(amp);
}

int vmsg_amp_send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	struct vmsg_amp *amp = (struct vmsg_amp *)bus;
	int rc;

	if (!amp->up || amp->lost)
		return VMSG_ERR_SHUTDOWN;
	if (len > amp->element_bytes)
		return VMSG_ERR_MSGSIZE;
	rc = amp->format->put(amp, buf, len);
	if (rc < 0)
		return rc;
	/* One doorbell per message: peers exist that take in only one for each. */
	if (rc == 0)
		vmsg_amp_ring(amp);
	else
		amp->counters.doorbells_masked++;
	return 0;
}

void vmsg_amp_came_up(struct vmsg_amp *amp)
{
	amp->lost = false;
	amp->peer_dead = false;
	amp->holding = false;
	amp->peer_uses_words = amp->role->trusts_words;
	amp->swept_ms = amp->bus.now_ms;
	amp->up = true;
	if (amp->peer_state)
		amp->peer_state(amp, true);
}

/*
 * Stops talking to this peer and forgets what it had set up. True once nothing touches its memory
 * any more; until then it is called again.
 */
bool vmsg_amp_leave(struct vmsg_amp *amp)
{
	if (!amp->leaving) {
		bool was_up = amp->up;

		amp->leaving = true;
		amp->up = false;
		amp->lost = false;
		amp->seen = false;
		amp->holding = false;
		if (was_up) {
			if (!amp->closed)
				amp->counters.restarts++;
			amp->role->drop(amp);
			if (amp->peer_state)
				amp->peer_state(amp, false);
		}
	}
	if (!amp->role->quiet(amp))
		return false;
	amp->leaving = false;
	return true;
}

/* Bounded by the elements of the queue: a peer that keeps sending gets its turn, no more. */
static uint32_t receive(struct vmsg_amp *amp)
{
	uint32_t count = 0;

	while (count < amp->element_count && amp->up) {
		if (!amp->holding && amp->format->get(amp) <= 0)
			break;
		amp->holding = vmsg_bus_receive(&amp->bus, amp->element, amp->element_bytes) ==
			       VMSG_ERR_AGAIN;
		if (amp->holding)
			break;
		count++;
		/*
		 * The consumer index travels with our next element, for one transfer of the cache
		 * line instead of two. A peer never finds the queue full because of that.
		 */
		if (amp_distance(amp, amp->told_consumer, amp->consumer) * 2 >= amp->element_count)
			amp->format->publish(amp);
	}
	return count;
}

static void idle(struct vmsg_amp *amp)
{
	if (amp->told_consumer != amp->consumer)
		amp->format->publish(amp);
	if (++amp->idle % REPAIR_EVERY == 0)
		amp->format->repair(amp);
	/* A peer that toggles a bit twice before we look has signalled nothing. */
	if (amp->words && amp->bus.now_ms - amp->swept_ms >= SWEEP_MS) {
		amp->swept_ms = amp->bus.now_ms;
		amp->role->event(amp, 0, UINT16_MAX, ALL_QUEUES);
	}
}

uint32_t vmsg_amp_poll(struct vmsg_amp *amp)
{
	uint32_t pending[2] = { 0, 0 };
	uint32_t done;

	if (amp->closed)
		return 0;
	done = amp->format->step(amp);
	if (!amp->up) {
		if (amp->laid_out && !amp->leaving)
			amp->format->repair(amp);
		return done;
	}
	if (amp->words)
		amp->format->events_take(amp, pending);
	if ((amp->bus.pending || vmsg_bus_holds(&amp->bus)) && vmsg_bus_flush(&amp->bus))
		done++;
	done += receive(amp);
	/* After the messages: a kick must not overtake the message that set its queue up. */
	if (pending[0] | pending[1])
		done += amp->format->events_act(amp, pending);
	if (amp->up && amp->bus.pending)
		vmsg_bus_flush(&amp->bus);
	if (amp->lost)
		done += amp->format->step(amp);
	if (!done)
		idle(amp);
	return done;
}

int vmsg_amp_wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct vmsg_amp *amp = (struct vmsg_amp *)bus;
	int rc;

	if (amp->closed)
		return VMSG_ERR_SHUTDOWN;
	if (vmsg_amp_poll(amp)) {
		/* Time must pass even for a caller whose peer never stops sending. */
		if (++amp->busy < BUSY_WAITS)
			return 0;
		ms = 0;
	}
	amp->busy = 0;
	rc = amp->sleep(amp, ms < WAIT_SLICE_MS ? ms : WAIT_SLICE_MS);
	if (rc == 0)
		vmsg_amp_poll(amp);
	return rc < 0 ? rc : 0;
}

void vmsg_amp_peer_lost(struct vmsg_amp *amp)
{
	if (amp->closed || amp->state != VMSG_AMP_RUN)
		return;
	amp->lost = true;
	amp->peer_dead = true;
	amp->format->step(amp);
}

int vmsg_amp_close(struct vmsg_amp *amp)
{
	if (amp->closed && !amp->leaving)
		return 0;
	amp->closed = true;
	if (!vmsg_amp_leave(amp))
		return VMSG_ERR_AGAIN;
	amp->format->end(amp);
	amp->state = VMSG_AMP_SHUTDOWN;
	return 0;
}
