/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flow control between a driver side and a device side over two bounded message queues.
 *
 * Source: design section 6, rules 1, 2, 4 and 5 (rule 3, one role per bus, is the shape of the
 * model); wire specification on PING and events.
 *
 * THE RULES
 * ---------
 * device  reads only while it holds no reply. A reply that finds the bus full is held and sent
 *         first chance; until then nothing more is read (rule 1).
 * driver  reads whenever something is there, whatever it wants to send (rule 2). It owes an answer
 *         only to PING: one is held while the bus is full, more are dropped and counted.
 * events  are one bit for each virtqueue and direction and one for config, set by the cause and
 *         cleared when the message went into the queue; a full bus costs nothing but time (rule 4).
 *         The bits do not touch each other, so one each way is modelled.
 * PING    with the response bit is never answered (rule 5).
 *
 * PROPERTIES
 * deadlock   no end state but the one where everything is done
 * done       LTL: in the end, and for ever: every request has its one reply, every event cause has
 *            been seen by the other side after it happened, every PING of the driver is answered,
 *            those of the device are answered or counted as dropped, both queues are empty
 * replies    assert: at most one reply a request
 *
 * CONTROLS, each must be found wrong
 * NAIVE           driver stops reading while it waits for room to send: deadlock
 * DRIVER_HOLDS    driver follows the device's rule (stops reading while it holds a PING answer):
 *                 deadlock
 * DEVICE_READS_ON device reads on while it holds a reply: a reply is lost
 * EVENTS_DROPPED  an event that finds the bus full is dropped instead of kept: never seen
 * NEVER_DROPPED   claims that no PING answer is ever dropped
 * ANSWER_ALL      both sides answer a PING answer too: it goes round for ever
 *
 * SIZES: DEPTH messages each way, REQUESTS requests (all may be in flight), DRIVER_PINGS and
 * DEVICE_PINGS, CAUSES causes for each event bit.
 */

#ifndef DEPTH
#define DEPTH 1
#endif
#ifndef REQUESTS
#define REQUESTS 3
#endif
#ifndef DRIVER_PINGS
#define DRIVER_PINGS 1
#endif
#ifndef DEVICE_PINGS
#define DEVICE_PINGS 2
#endif
#ifndef CAUSES
#define CAUSES 2
#endif

mtype = { NONE, REQUEST, REPLY, PING, PONG, EVENT };

chan to_device = [DEPTH] of { mtype, byte };
chan to_driver = [DEPTH] of { mtype, byte };

/* The event bits: set, not yet sent. */
bool avail, used;

/* What has happened (ghosts). */
byte requests, replies, replied;		/* replied: one bit a request */
byte driver_pings, driver_pongs;		/* sent by the driver, answered by the device */
byte device_pings, device_pongs, dropped;
byte avail_cause, avail_seen;
byte used_cause, used_seen;

#define EVENTS_SEEN						\
	(!avail && avail_cause == CAUSES && avail_seen == CAUSES &&	\
	 !used && used_cause == CAUSES && used_seen == CAUSES)
#define PINGS_DONE						\
	(driver_pings == DRIVER_PINGS && driver_pongs == DRIVER_PINGS &&	\
	 device_pings == DEVICE_PINGS && device_pongs + dropped == DEVICE_PINGS)
#define DONE							\
	(requests == REQUESTS && replies == REQUESTS && EVENTS_SEEN && PINGS_DONE &&	\
	 (len(to_device) == 0) && (len(to_driver) == 0))

#if defined(NAIVE)
/* Commits to sending: nothing is read until there is room. */
#define DRIVER_CAN_SEND true
#else
#define DRIVER_CAN_SEND (len(to_device) < DEPTH)
#endif

#ifdef DRIVER_HOLDS
#define DRIVER_MAY_READ !held
#else
#define DRIVER_MAY_READ true
#endif

#ifdef DEVICE_READS_ON
#define DEVICE_MAY_READ true
#else
#define DEVICE_MAY_READ (held == NONE)
#endif

/* An event bit and the chance to send it. */
#ifdef EVENTS_DROPPED
#define SEND_EVENT(pending, queue)					\
	atomic {							\
		pending -> pending = false;				\
		if							\
		:: len(queue) < DEPTH -> queue!EVENT, 0			\
		:: len(queue) == DEPTH					\
		fi							\
	}
#else
#define SEND_EVENT(pending, queue)					\
	atomic { pending && len(queue) < DEPTH -> queue!EVENT, 0; pending = false }
#endif

active proctype driver()
{
	mtype type;
	byte value;
	bool held;		/* an answer to PING waits for room */

	do
	:: requests < REQUESTS && DRIVER_CAN_SEND ->
		atomic { to_device!REQUEST, requests -> requests++ }
	:: driver_pings < DRIVER_PINGS && DRIVER_CAN_SEND ->
		atomic { to_device!PING, 0 -> driver_pings++ }
	:: held && DRIVER_CAN_SEND ->
		atomic { to_device!PONG, 0 -> held = false }

	:: atomic { avail_cause < CAUSES -> avail_cause++; avail = true }
	:: SEND_EVENT(avail, to_device)

	:: atomic {
		DRIVER_MAY_READ && len(to_driver) > 0 -> to_driver?type, value;
		if
		:: type == REPLY ->
			assert(!(replied & (1 << value)));
			replied = replied | (1 << value);
			replies++
		:: type == EVENT -> used_seen = used_cause
		:: type == PING && !held -> held = true
		:: type == PING && held ->
			dropped++;
#ifdef NEVER_DROPPED
			assert(dropped == 0)
#endif
		:: type == PONG ->
			driver_pongs++;
#ifdef ANSWER_ALL
			driver_pongs--;
			held = true
#endif
		fi;
		type = NONE;
		value = 0
	   }
	:: DONE -> break
	od
}

active proctype device()
{
	mtype type;
	byte value;
	mtype held = NONE;	/* a reply waits for room */
	byte held_value;

	do
	:: atomic { held != NONE && len(to_driver) < DEPTH ->
			to_driver!held, held_value; held = NONE; held_value = 0 }

	:: atomic { device_pings < DEVICE_PINGS && len(to_driver) < DEPTH ->
			to_driver!PING, 0; device_pings++ }

	:: atomic { used_cause < CAUSES -> used_cause++; used = true }
	:: SEND_EVENT(used, to_driver)

	:: atomic {
		DEVICE_MAY_READ && len(to_device) > 0 -> to_device?type, value;
		if
		:: type == REQUEST -> held = REPLY; held_value = value
		:: type == PING -> held = PONG; held_value = 0
		:: type == PONG ->
			device_pongs++;
#ifdef ANSWER_ALL
			device_pongs--;
			held = PONG
#endif
		:: type == EVENT -> avail_seen = avail_cause
		fi;
		type = NONE;
		value = 0
	   }
	:: DONE -> break
	od
}

ltl done { <>[] DONE }
