/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Start-up, restart and shutdown of the AMP "layout" queue: two sides, each owning one queue head.
 *
 * Source: buses specification 3.3 (head and states), 3.5 (errors 3 to 7, 20, 21), 3.6 (what the
 * 2026 peers do), peer notes 30 to 34. bus/amp_layout.c follows the table below.
 *
 * THE READING WE IMPLEMENT
 * ------------------------
 * "peer" is the state in the peer's status word, loaded with acquire. It counts as INIT while the
 * peer's head magic is missing. Every store of the own status is followed by a full fence before
 * the peer's status is loaded again. Memory is only polled, no doorbell is needed.
 *
 * self \ peer | INIT         | READY        | RUN                 | SHUTDOWN     | PEER_DEAD
 * ------------+--------------+--------------+---------------------+--------------+-------------
 * INIT        | zero, READY  | zero, READY  | wait                | zero, READY  | zero, READY
 * READY       | wait         | RUN (unseen) | RUN (unseen)        | wait         | wait
 * RUN unseen  | settle, then | wait         | seen (driver: first | leave        | leave
 *             | leave        |              | compare, rule 8)    |              |
 * RUN seen    | leave        | leave        | exchange messages   | leave        | leave
 * SHUTDOWN    | INIT         | INIT         | INIT                | INIT         | INIT
 * PEER_DEAD   | stay         | INIT         | stay                | stay         | INIT
 *
 * zero, READY: own producer and consumer index to 0, private and shared, own notification words to
 *              0, own elements cleared if they are cleared at all; then status READY.
 * leave:       stop sending and receiving, stop all access to the peer's memory, reset what the
 *              peer had set up, and only then SHUTDOWN; so SHUTDOWN tells the peer that our
 *              clean-up is finished. Then INIT without waiting for anything.
 * settle:      do nothing until SETTLE_MS (100) after our RUN was stored, then look again.
 * by choice:   a side in RUN may leave (link lost, error); may stop for good (clean up, SHUTDOWN,
 *              end; its next start is a new life); may declare the peer dead (clean up, PEER_DEAD).
 *
 * Rules that the prose does not have, or has otherwise, and that the properties need:
 * 1. READY goes to RUN on peer READY or RUN. The text has READY only: deadlock, control READY_ONLY.
 * 2. INIT waits for "peer is not RUN". One place of the text says "is not READY": deadlock, control
 *    INIT_NOT_READY. Not waiting: old messages are accepted, control NO_WAIT.
 * 3. RUN has a private bit "seen": the peer was loaded as RUN after our own RUN was stored. Nothing
 *    is sent or received before. A RUN loaded earlier, in READY, does not count. Unseen RUN waits
 *    on peer READY (else the two chase each other for ever, control NO_UNSEEN). Seen RUN takes
 *    READY for a restart; two sides that follow this table never get there (the assert "restart is
 *    seen as INIT"), a foreign peer that does not wait in INIT can.
 * 4. Unseen RUN settles before it leaves a peer in INIT. A side in INIT loads "not RUN", and before
 *    it stores READY the other stores RUN, on a READY of the life before. That one must not leave,
 *    the READY is about to come; if it does leave, the same can happen with the roles exchanged,
 *    and so for ever without any fault (control NO_SETTLE, a fair cycle). After the settling time a
 *    peer still in INIT is waiting for us or gone. One of two sides that settles is enough
 *    (variants ONE_SETTLES), so ours converge with any peer of this table. Time only serves to come
 *    to an end: safety holds without it (variant NO_SETTLE + CAP).
 * 5. The indices are zeroed late, after the wait of INIT. A receiver loads the peer's status once
 *    more after it has copied an element (acquire fence between the copy and this load) and drops
 *    the copy unless it is RUN. This second load alone gives all properties, also against a peer
 *    that zeroes early as the 2026 code does (variant ZERO_EARLY). Late zeroing alone only accepts
 *    messages of the life the session was made with (variant NO_RECHECK + WEAK_B), among them those
 *    of a sender that stands in its next life's INIT already (control NO_RECHECK). With neither,
 *    stale elements are accepted (control ZERO_EARLY + NO_RECHECK + WEAK_B).
 * 6. The full fence stands between INIT stored and peer loaded on one side, RUN stored and peer
 *    loaded on the other. Each needs its own (controls NO_FENCE_INIT, NO_FENCE_RUN).
 * 7. PEER_DEAD against PEER_DEAD: both go to INIT ("stay until restarted by hand" is a deadlock,
 *    control BOTH_DEAD_STAY). The 2026 Linux driver gives up when it starts and finds SHUTDOWN or
 *    PEER_DEAD, so a side passes SHUTDOWN without resting there, and one that misses its peer
 *    should leave rather than use PEER_DEAD.
 * 8. Layout block, device: clear the layout magic, status INIT, write the fields, magic last; at
 *    the start of a life, not on leave. Both heads keep their places (64 and 72) whatever the rest
 *    of the geometry is, so that status words do not move between lives. The driver's head is the
 *    driver's: the device never clears it.
 *    Driver, before each INIT: load the magic, copy the fields, load the magic, compare all fields
 *    with the copy (acquire fences in between); begin anew unless all is well. The magic alone is
 *    not enough, a restart fits between its two loads (control SINGLE_READ).
 *    Driver, when "seen" is due: compare the block and its magic with the private copy, load the
 *    device's status once more; equal and still RUN is "seen", different is "leave". This makes an
 *    outdated copy harmless: a device may restart with another geometry while the driver is READY
 *    (control NO_COMPARE). After "seen" the private copy is used and the block not read again.
 *    What the first reading cannot exclude is a device that restarts twice within it and returns to
 *    an earlier geometry; the copy may then be mixed, validation keeps it inside the area, and the
 *    comparison finds it before any message (variant RECUR).
 *
 * About (d), "no step from INIT to READY while the peer is in RUN": the step is a load and then a
 * store, and the peer may store its RUN in between (rule 4). No rule without atomic
 * read-modify-write forbids this; control STRICT_D shows it. What holds, and suffices: a peer that
 * stands in RUN at that moment is unseen, has exchanged nothing and has all indices 0; and a side
 * that has seen its peer in RUN never sees it go from INIT to READY.
 *
 * A foreign peer that does not wait in INIT (2026 Linux and QEMU) can restart between two looks at
 * its status; this is control NO_WAIT, and polling the status cannot find it. An implementation
 * should load the status before every message, and take an index of the peer that cannot follow
 * from the last one (consumer outside own consumed .. produced) for a restart.
 *
 * PROPERTIES (over up to FAULTS faults, free in kind, time and side: crash before any store and in
 * any wait, stop, leave, give up; memory at power-up holds any status with and without magic)
 * (a) no deadlock: the only end states have both sides in RUN. LTL live: in the end, and for ever,
 *     both are in RUN and have all messages of each other. It needs no fairness, since a wait is
 *     modelled as blocked and nothing else repeats.
 * (b) assert: a message accepted was sent by the sender's present life to the receiver's present
 * one (c) assert: it is the next in order; with live: none is missing
 * (d) as said above
 * (e) assert: no side passes INIT more than MAX_LIFE times (FAULTS + 2, a few more with variants)
 * (f) variant BLOCK: a driver never goes on with a half-written block, and never exchanges a
 *     message on another geometry than that of the device's present life
 *
 * SIZES: QUEUE elements (QUEUE - 1 usable), MESSAGES each way a session, FAULTS in all. A "life" in
 * the code is a pass through INIT, also one without a crash. Memory is sequentially consistent but
 * for the NO_FENCE controls, which delay one status store as a store buffer does. The settling time
 * is the assumption that the ghost "going" of a peer seen in INIT is over when it ends.
 */

#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef QUEUE
#define QUEUE 2
#endif
#ifndef MAX_LIFE
#define MAX_LIFE (FAULTS + 2)
#endif

#define INIT 0
#define READY 1
#define RUN 2
#define SHUTDOWN 3
#define PEER_DEAD 4

#define DEVICE 0
#define DRIVER 1

typedef element {
	byte from;	/* ghost: the sender's life */
	byte to;	/* ghost: the receiver's life as the sender knows it */
	byte seq
};
typedef queue {
	element slot[QUEUE]
};

/* Shared memory. Index 0 is the device, 1 the driver; each line has one writer. */
bool magic[2];
byte status[2];
byte producer[2];
byte consumer[2];
queue elements[2];
bool layout_magic;
byte field[2];

/* Ghosts and the budget of faults. */
byte faults;
byte life[2];
byte sent[2];
byte got[2];
bool seen[2];
bool up[2];	/* alive; cleared by every fault */
bool going[2];	/* has left the wait of INIT, READY not yet stored */
byte geometry;

#define NEXT(x) ((x + 1) % QUEUE)
#define PEER (magic[1 - i] -> status[1 - i] : INIT)

#define FAULT atomic { faults > 0 -> faults--; going[i] = false; up[i] = false }
#define FAIL FAULT; goto down
#define STEP(x)				\
	if				\
	:: atomic { x }			\
	:: FAIL				\
	fi

#ifdef NO_FENCE_INIT
#define DELAY_INIT
#define BUFFER
#endif
#ifdef NO_FENCE_RUN
#define DELAY_RUN
#define BUFFER
#endif

#ifdef BUFFER
bool late[2];
byte late_status[2];
#define FLUSHED !late[i];
/* The buffer keeps its order: it empties before the next store of the same side. */
active proctype drain()
{
end_drain:
	do
	:: atomic { late[0] -> late[0] = false; status[0] = late_status[0] }
	:: atomic { late[1] -> late[1] = false; status[1] = late_status[1] }
	od
}
#else
#define FLUSHED
#endif

#ifdef DELAY_INIT
#define STORE_INIT late[i] = true; late_status[i] = INIT
#else
#define STORE_INIT status[i] = INIT
#endif
#ifdef DELAY_RUN
#define STORE_RUN late[i] = true; late_status[i] = RUN
#else
#define STORE_RUN status[i] = RUN
#endif

#if defined(NO_WAIT)
#define INIT_MAY_GO true
#elif defined(INIT_NOT_READY)
#define INIT_MAY_GO (PEER != READY)
#else
#define INIT_MAY_GO (PEER != RUN)
#endif

#ifdef READY_ONLY
#define READY_MAY_GO (PEER == READY)
#else
#define READY_MAY_GO (PEER == READY || PEER == RUN)
#endif

#ifdef NO_UNSEEN
#define PEER_WAITS false
#else
#define PEER_WAITS (PEER == READY && !seen[i])
#endif

#if defined(NO_SETTLE)
#define SETTLES false
#elif defined(ONE_SETTLES)
#define SETTLES (i == ONE_SETTLES)
#else
#define SETTLES true
#endif
#define UNSETTLED (SETTLES && !seen[i] && going[1 - i])

#ifdef BOTH_DEAD_STAY
#define REVIVED (PEER == READY)
#else
#define REVIVED (PEER == READY || PEER == PEER_DEAD)
#endif

#if defined(CYCLE)
#define NEW_LIFE					/* not counted: cycles stay finite */
#elif defined(CAP)
#define NEW_LIFE life[i] < MAX_LIFE; life[i]++;
#else
#define NEW_LIFE life[i]++; assert(life[i] <= MAX_LIFE);	/* (e) */
#endif

#if defined(STRICT_D)
#define CHECK_READY assert(PEER != RUN)
#elif defined(NO_WAIT)
#define CHECK_READY assert(true)
#else
#define CHECK_READY							\
	assert(PEER != RUN || (!seen[1 - i] && !sent[1 - i] && !got[1 - i] &&	\
	       !producer[1 - i] && !consumer[1 - i]))
#endif

#ifdef WEAK_B
#define SENDER_LIFE peer_life
#else
#define SENDER_LIFE life[1 - i]
#endif

#ifdef NO_RECHECK
#define STILL_RUN true
#else
#define STILL_RUN (PEER == RUN)
#endif

#ifdef BLOCK
#define HAS_BLOCK true
#else
#define HAS_BLOCK false
#endif

#ifdef NO_CLEAR
#define CLEAR_LAYOUT skip
#else
#define CLEAR_LAYOUT STEP(layout_magic = false)
#endif
#ifdef MAGIC_FIRST
#define MAGIC_TOO_EARLY STEP(layout_magic = true);
#else
#define MAGIC_TOO_EARLY
#endif
#ifdef RECUR
#define NEW_GEOMETRY			\
	if				\
	:: geometry = 0			\
	:: geometry = 1			\
	fi;
#define CHECK_WHOLE skip
#else
#define NEW_GEOMETRY geometry = geometry + 1;
#define CHECK_WHOLE assert(block[0] == block[1])
#endif
#ifdef SINGLE_READ
#define SECOND_READ
#else
#define SECOND_READ				\
	if					\
	:: block[0] != field[0] -> goto reread	\
	:: block[0] == field[0]			\
	fi;					\
	if					\
	:: block[1] != field[1] -> goto reread	\
	:: block[1] == field[1]			\
	fi;
#endif
#if defined(BLOCK) && !defined(NO_COMPARE)
#define COMPARE true
#else
#define COMPARE false
#endif
#ifdef BLOCK
#define CHECK_GEOMETRY (i == DEVICE || (block[0] == geometry && block[1] == geometry))
#else
#define CHECK_GEOMETRY true
#endif

#define ZERO STEP(FLUSHED producer[i] = 0); STEP(FLUSHED consumer[i] = 0);
#ifdef ZERO_EARLY
#define ZERO_AT_INIT ZERO
#define ZERO_LATE
#elif defined(NO_ZERO)
#define ZERO_AT_INIT
#define ZERO_LATE
#else
#define ZERO_AT_INIT
#define ZERO_LATE ZERO
#endif

/*
 * The status read before a message and the index read after it are two loads. The guards below look
 * at the index together with the status only to spare rounds that certainly change nothing: without
 * faults to come and with a peer alive in the exchange.
 */
#ifdef LIVE
#define UNQUIET false	/* a round that changes nothing must not be repeated for ever */
#else
#define UNQUIET (faults > 0 || !up[1 - i] || !seen[1 - i])
#endif

proctype side(bit i)
{
	byte own_producer, own_consumer;	/* private indices: the peer cannot reach them */
	byte index;
	byte peer_life;
	element copy;
	bool fresh;
	byte block[2];				/* the driver's private copy of the layout block */

boot:	/* A new life: nothing private is left. */
	fresh = true;
	if
	:: HAS_BLOCK && i == DEVICE -> CLEAR_LAYOUT
	:: else
	fi;

again:
	if
	:: HAS_BLOCK && i == DRIVER ->
reread:
		if
		:: layout_magic
		:: FAIL
		fi;
		block[0] = field[0];
		block[1] = field[1];
		if
		:: !layout_magic -> goto reread
		:: layout_magic
		fi;
		SECOND_READ
		CHECK_WHOLE
	:: else
	fi;

	STEP(FLUSHED NEW_LIFE STORE_INIT;
	     up[i] = true; seen[i] = false; sent[i] = 0; got[i] = 0; peer_life = 0;
	     own_producer = 0; own_consumer = 0; index = 0);
	STEP(FLUSHED magic[i] = true);
	ZERO_AT_INIT

	if
	:: HAS_BLOCK && i == DEVICE && fresh ->
		NEW_GEOMETRY
		MAGIC_TOO_EARLY
		STEP(field[0] = geometry);
		STEP(field[1] = geometry);
		STEP(layout_magic = true)
	:: else
	fi;
	fresh = false;

	if
	:: atomic { INIT_MAY_GO -> going[i] = true }
	:: FAIL
	fi;
	ZERO_LATE
	STEP(FLUSHED CHECK_READY; status[i] = READY; going[i] = false);

	if
	:: atomic { READY_MAY_GO }
	:: FAIL
	fi;
	STEP(FLUSHED STORE_RUN);

end_run:
	if
	:: atomic { PEER == RUN && !seen[i] ->
			peer_life = life[1 - i];
			if
			:: COMPARE && i == DRIVER -> goto compare
			:: else -> seen[i] = true; assert(CHECK_GEOMETRY)
			fi
		}
	:: atomic { PEER != RUN && !PEER_WAITS && !UNSETTLED ->
			assert(!(seen[i] && PEER == READY))	/* restart is seen as INIT */
		}
		goto leave
	:: PEER == RUN && seen[i] && sent[i] < MESSAGES &&
	   (consumer[1 - i] != NEXT(own_producer) || UNQUIET) -> goto send
	:: PEER == RUN && seen[i] && (producer[1 - i] != own_consumer || UNQUIET) -> goto receive
	:: FAULT; goto down		/* crash */
	:: FAULT; goto stop
	:: FAULT; goto leave		/* by choice: link lost, error */
	:: FAULT; goto give_up
	fi;
	goto end_run;

compare:
	if
	:: block[0] != field[0] -> goto leave
	:: block[0] == field[0]
	fi;
	if
	:: block[1] != field[1] -> goto leave
	:: block[1] == field[1]
	fi;
	if
	:: !layout_magic -> goto leave
	:: layout_magic
	fi;
	atomic {
		if
		:: PEER == RUN ->
			seen[i] = true;
			peer_life = life[1 - i];
			assert(CHECK_GEOMETRY)				/* (f) */
		:: else
		fi
	};
	goto end_run;

send:
	index = consumer[1 - i];
	if
	:: index == NEXT(own_producer) -> goto end_run
	:: else
	fi;
	STEP(FLUSHED
	     elements[i].slot[own_producer].from = life[i];
	     elements[i].slot[own_producer].to = peer_life;
	     elements[i].slot[own_producer].seq = sent[i]);
	STEP(FLUSHED own_producer = NEXT(own_producer); producer[i] = own_producer; sent[i]++);
	goto end_run;

receive:
	index = producer[1 - i];
	if
	:: index == own_consumer -> goto end_run
	:: else
	fi;
	atomic {
		copy.from = elements[1 - i].slot[own_consumer].from;
		copy.to = elements[1 - i].slot[own_consumer].to;
		copy.seq = elements[1 - i].slot[own_consumer].seq
	};
	atomic {
		if
		:: STILL_RUN ->
			assert(copy.from == SENDER_LIFE);		/* (b) */
			assert(copy.to == life[i]);			/* (b) */
			assert(copy.seq == got[i]);			/* (c) */
			assert(CHECK_GEOMETRY);				/* (f) */
			got[i]++;
			copy.from = 0; copy.to = 0; copy.seq = 0
		:: else -> copy.from = 0; copy.to = 0; copy.seq = 0; goto end_run
		fi
	};
	STEP(FLUSHED own_consumer = NEXT(own_consumer); consumer[i] = own_consumer);
	goto end_run;

leave:
	STEP(FLUSHED status[i] = SHUTDOWN; seen[i] = false);
	goto again;

give_up:
	STEP(FLUSHED status[i] = PEER_DEAD; seen[i] = false);
	if
	:: REVIVED -> goto again
	:: FAIL
	fi;

stop:
	STEP(FLUSHED status[i] = SHUTDOWN);
down:	/* Nothing happens here, for any time. The ghosts keep what the dead life did. */
	goto boot
}

#define ANY_STATUS(s)		\
	if			\
	:: s = INIT		\
	:: s = READY		\
	:: s = RUN		\
	:: s = SHUTDOWN		\
	:: s = PEER_DEAD	\
	fi

init {
	atomic {
		/* Memory at power-up: anything, also what earlier lives left. */
		select (faults : 0 .. FAULTS);
		if
		:: magic[0] = false
		:: magic[0] = true;
			ANY_STATUS(status[0]);
			producer[0] = 1
		fi;
		if
		:: magic[1] = false
		:: magic[1] = true;
			ANY_STATUS(status[1]);
			producer[1] = 1
		fi;
		field[0] = 8; field[1] = 9;
		run side(0);
		run side(1)
	}
}

#define BOTH_RUN (status[0] == RUN && status[1] == RUN && seen[0] && seen[1])

ltl live { <>[] (BOTH_RUN && got[0] == MESSAGES && got[1] == MESSAGES) }
