/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notification words and doorbell of the AMP "layout" queue: one sender, one receiver, two events.
 *
 * Source: buses specification 3.4 (tx, rx, mask, cascade), design section 9 (notification words,
 * lost doorbells) and section 10 (no atomic read-modify-write in shared memory).
 *
 * THE PROTOCOL WE IMPLEMENT
 * -------------------------
 * send    1. publish the work (element and producer index, or available ring)
 *         2. full fence A
 *         3. load the receiver's rx; if the event's bit is already pending (tx XOR rx): done, the
 *            receiver will acknowledge it later and act after that
 *         4. else toggle the bit in tx
 *         5. full fence B
 *         6. load the receiver's mask; ring unless the event's bit is set in it
 * receive 1. asleep until the doorbell (or the tick); consume the doorbell
 *         2. by choice set the mask while polling (no fence needed)
 *         3. pending = tx XOR own rx; none: go to 7
 *         4. acknowledge: own rx becomes rx XOR pending
 *         5. full fence C
 *         6. act on every acknowledged event: take all work published. Go to 3
 *         7. if the mask is set: clear it, full fence D, and go to 3 if anything is pending
 *         8. sleep
 * Step 3 of send is not in the text, which says "toggle": toggling twice before the receiver has
 * looked makes the event vanish (control TOGGLE_ALWAYS).
 * Fences A and C belong together (published work against acknowledgement), and B and D (toggled bit
 * against mask). Each of the four is needed (controls NO_FENCE_A to NO_FENCE_D).
 * Acknowledge before acting, or work published in between is lost (control ACT_FIRST). Look again
 * after unmasking (control NO_LAST_LOOK). With mask words absent, steps 5 and 6 of send become
 * "ring", and 2 and 7 of receive go: a subset of the runs below.
 * Start: each side sets its own tx, rx and mask to 0 before READY, with its indices. A peer may
 * leave in tx and rx what earlier lives left there (variant ANY_START); a bit that looks pending is
 * then acted on for nothing. A receiver therefore begins at step 3, unrung, when it enters RUN, and
 * looks at every word then (control ANY_START + NO_FIRST_LOOK).
 * Cascade (variant CASCADE): the event lives in word 1. The sender does steps 2 to 4 for word 1,
 * then from step 2 on for the bit of word 0 that stands for word 1. The receiver treats that bit as
 * an event whose action is: load word 1, acknowledge, full fence, act. Pending in word 1 means done
 * there as well, because the receiver still has to acknowledge word 1 and acts after that.
 *
 * PROPERTIES
 * wake       with reliable doorbells, which may be repeated and may come for nothing: whenever the
 *            receiver sleeps, the sender is not in the middle of steps 1 to 6, nothing is in a
 *            store buffer and work is left, a doorbell is on its way (LTL invariant)
 * deadlock   no end state but: sender finished, receiver asleep
 * acts       assert: never more acts on an event than toggles; with done: in the end as many (no
 *            event acted on zero times; coalescing means fewer toggles than work)
 * done       in the end, and for ever, all work is taken (LTL; needs no fairness)
 * LOSSY      any doorbell may be lost. A tick wakes the sleeping receiver now and then, and it
 *            looks at the words as if rung: done, deadlock, and assert: all work announced before a
 *            tick is taken when the receiver sleeps again, so one tick suffices. Without the tick
 *            work is lost (control LOSSY + NO_TICK)
 * NO_WORDS   a queue without notification words (also "spsc"): publish, ring always; on every
 *            doorbell or tick look at everything. Same properties, with and without LOSSY
 *
 * SIZES: WORK items in all, over two events; event 0 is a queue with ROOM free places (the sender
 * waits for room), event 1 is unbounded; up to SPURIOUS extra doorbells, TICKS early ticks. Stores
 * go through a FIFO store buffer of two entries a side (total store order); a doorbell passes
 * through it too, since it must not overtake the stores before it. Weaker reordering (loads against
 * loads, stores against stores) is not modelled: loads acquire and stores release for that.
 */

#ifndef WORK
#define WORK 3
#endif
#ifndef ROOM
#define ROOM 1
#endif
#ifndef TICKS
#define TICKS 1
#endif
#ifndef SPURIOUS
#define SPURIOUS 1
#endif

/* Shared words. POSTED and TX are the sender's, TAKEN, RX and MASK the receiver's. */
#define POSTED 0	/* and 1: work published per event */
#define TX 2		/* and 3: word 0 and word 1 */
#define TAKEN 4		/* and 5 */
#define RX 6		/* and 7 */
#define MASK 8
#define DOORBELL 9
byte memory[10];

chan sender_buffer = [2] of { byte, byte };
chan receiver_buffer = [2] of { byte, byte };

/* Ghosts, and the private copies the owners keep of what they wrote. */
bool tick, asleep, idle = true, finished;
byte posted[2], taken[2], toggles[2], acts[2];

#define WORK_LEFT (posted[0] != taken[0] || posted[1] != taken[1])
#define QUIET (asleep && idle && (len(sender_buffer) == 0) && (len(receiver_buffer) == 0))
#ifdef ANY_START
#define EVENT_LEFT WORK_LEFT	/* the words of an earlier life may stand for an event */
#else
#define EVENT_LEFT (WORK_LEFT || toggles[0] != acts[0] || toggles[1] != acts[1])
#endif
#define ALL_TAKEN (finished && !EVENT_LEFT)
#define FENCE_SENDER (len(sender_buffer) == 0)
#define FENCE_RECEIVER (len(receiver_buffer) == 0)

#ifdef NO_FENCE_A
#define FENCE_A skip
#else
#define FENCE_A FENCE_SENDER
#endif
#ifdef NO_FENCE_B
#define FENCE_B skip
#else
#define FENCE_B FENCE_SENDER
#endif
#ifdef NO_FENCE_C
#define FENCE_C skip
#else
#define FENCE_C FENCE_RECEIVER
#endif
#ifdef NO_FENCE_D
#define FENCE_D skip
#else
#define FENCE_D FENCE_RECEIVER
#endif

#ifdef CASCADE
#define COUNT_TOGGLE			\
	if				\
	:: e == 0 -> toggles[0]++	\
	:: else				\
	fi
#else
#define COUNT_TOGGLE toggles[e]++
#endif

/* Bit of event e, or of the cascade to it, in word 0. */
#define BIT(e) (e + 1)

#ifdef TOGGLE_ALWAYS
#define IS_PENDING(x) false
#else
#define IS_PENDING(x) (x)
#endif

#ifdef LOSSY
#define RING				\
	if				\
	:: sender_buffer!DOORBELL, 1	\
	:: skip				\
	fi
#else
#define RING sender_buffer!DOORBELL, 1
#endif

#if defined(ANY_START) && !defined(NO_FIRST_LOOK)
#define FIRST_LOOK true
#else
#define FIRST_LOOK false
#endif

#ifdef ANY_START
#define START (started);
bool started;
init {
	atomic {
		if
		:: memory[TX] = 0
		:: memory[TX] = BIT(0)
		:: memory[TX] = BIT(0) | BIT(1)
		fi;
		if
		:: memory[RX] = 0
		:: memory[RX] = BIT(0)
		:: memory[RX] = BIT(1)
		fi;
#ifdef CASCADE
		if
		:: memory[TX + 1] = 1
		:: memory[RX + 1] = 1
		:: skip
		fi;
#endif
		started = true
	}
}
#else
#define START
#endif

active proctype sender_memory()
{
	byte word, value;
end:
	do
	:: atomic { sender_buffer?word, value -> memory[word] = value; word = 0; value = 0 }
	od
}

active proctype receiver_memory()
{
	byte word, value;
end:
	do
	:: atomic { receiver_buffer?word, value -> memory[word] = value; word = 0; value = 0 }
	od
}

active proctype noise()
{
	byte left;

	select (left : 0 .. SPURIOUS);
end:
	do
	:: atomic { left > 0 && !memory[DOORBELL] -> memory[DOORBELL] = 1; left-- }
	od
}

#if defined(LOSSY) && !defined(NO_TICK)
/* TICKS come at any time; when nothing else is going to happen one more always comes. */
active proctype clock()
{
	byte left = TICKS;
end:
	do
	:: atomic { asleep && !tick && left > 0 -> tick = true; left-- }
	:: atomic { QUIET && EVENT_LEFT && !tick && !memory[DOORBELL] && left == 0 -> tick = true }
	od
}
#endif

#define HAS_ROOM(e) (e == 1 || posted[0] - memory[TAKEN] < ROOM)

active proctype sender()
{
	byte e, seen, tx0, tx1;

	START
	atomic { tx0 = memory[TX]; tx1 = memory[TX + 1] };
	do
	:: posted[0] + posted[1] < WORK ->
		if
		:: e = 0
		:: e = 1
		fi;
		atomic { HAS_ROOM(e) -> idle = false };
more:
		atomic { sender_buffer!POSTED + e, posted[e] + 1 -> posted[e]++ };
		if
		:: posted[0] + posted[1] < WORK && HAS_ROOM(e) -> goto more	/* one signal */
		:: skip
		fi;
#ifdef NO_WORDS
		RING;
#else
#ifdef CASCADE
		if
		:: e == 1 ->
			FENCE_A;
			seen = memory[RX + 1];
			if
			:: IS_PENDING(seen != tx1) -> goto signalled
			:: else
			fi;
			atomic { sender_buffer!TX + 1, 1 - tx1 -> tx1 = 1 - tx1; toggles[1]++ }
		:: else
		fi;
#endif
		FENCE_A;
		seen = memory[RX];
		if
		:: IS_PENDING((seen ^ tx0) & BIT(e)) -> goto signalled
		:: else
		fi;
		atomic { sender_buffer!TX, tx0 ^ BIT(e) -> tx0 = tx0 ^ BIT(e); COUNT_TOGGLE };
		FENCE_B;
		seen = memory[MASK];
		if
		:: seen -> skip
		:: else -> RING
		fi;
#endif
signalled:
		atomic { seen = 0; e = 0; idle = true }
	:: posted[0] + posted[1] == WORK -> break
	od;
	finished = true
}

/* Take what is published now; later work brings its own toggle. */
inline act(n)
{
	load = memory[POSTED + n];
	do
	:: taken[n] != load -> atomic { receiver_buffer!TAKEN + n, taken[n] + 1 -> taken[n]++ }
	:: else -> break
	od;
	load = 0
}

inline acknowledge(word, bits)
{
	atomic { receiver_buffer!RX + word, rx[word] ^ bits -> rx[word] = rx[word] ^ bits };
}

active proctype receiver()
{
	byte rx[2];
	byte load, pending, second, announced = 255;
	bool masked, first;

	START
	atomic { rx[0] = memory[RX]; rx[1] = memory[RX + 1]; first = FIRST_LOOK };
	if
	:: FIRST_LOOK -> skip
	:: else -> goto sleep
	fi;
wake:
#ifdef NO_WORDS
	act(0);
	act(1);
#else
	if
	:: atomic { receiver_buffer!MASK, 1 -> masked = true }
	:: skip
	fi;
poll:
	atomic { pending = memory[TX] ^ rx[0] };
	if
	:: pending == 0 && !first -> goto done
	:: else
	fi;
#ifndef ACT_FIRST
	acknowledge(0, pending);
	FENCE_C;
#endif
	if
	:: pending & BIT(0) ->
		act(0);
		acts[0]++
	:: else
	fi;
	if
	:: (pending & BIT(1)) || first ->
		first = false;
#ifdef CASCADE
		atomic { second = memory[TX + 1] ^ rx[1] };
		if
		:: second ->
			acknowledge(1, second);
			second = 0;
			FENCE_C;
			act(1);
			acts[1]++
		:: else
		fi
#else
		act(1);
		acts[1]++
#endif
	:: else
	fi;
#ifndef ANY_START
	assert(acts[0] <= toggles[0] && acts[1] <= toggles[1]);
#endif
#ifdef ACT_FIRST
	acknowledge(0, pending);
	FENCE_C;
#endif
	goto poll;
done:
	if
	:: masked ->
		atomic { receiver_buffer!MASK, 0 -> masked = false };
#ifndef NO_LAST_LOOK
		FENCE_D;
		if
		:: memory[TX] != rx[0] -> goto poll
		:: memory[TX] == rx[0]
		fi
#endif
	:: else
	fi;
#endif

sleep:
	atomic {
		assert(announced == 255 || taken[0] + taken[1] >= announced);
		announced = 255;
		asleep = true
	};
end_sleep:
	atomic {
		if
		:: memory[DOORBELL] -> memory[DOORBELL] = 0
		:: tick ->
			tick = false;
			if
			:: idle && (len(sender_buffer) == 0) -> announced = posted[0] + posted[1]
			:: else
			fi
		fi;
		asleep = false
	};
	goto wake
}


ltl wake { [] (QUIET && WORK_LEFT -> memory[DOORBELL]) }
ltl done { <>[] ALL_TAKEN }
