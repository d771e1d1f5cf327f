/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The AMP bus: messages in shared memory, with a doorbell each way (buses.md 0.4, 3.3 to 3.6;
 * design.md 9; doc/amp.md says all of it for someone who writes a peer). Memory and doorbell come
 * from the platform: a carve-out and a mailbox, a PCI BAR, or on Linux the ivshmem server protocol.
 *
 * Two queue formats:
 *   layout  a self-describing block with a queue head per side, a start-up state machine that
 *           notices a peer's restart, and optional notification words
 *   spsc    two 4 KiB single-producer rings, at 0 (driver to device) and 4096 (device to driver)
 *
 * Call vmsg_amp_poll() when the doorbell rings, and at least every 100 ms without one: states of
 * the peer come without a doorbell, and doorbells may be lost. Call it again while it returns
 * nonzero.
 * The queue area is coherent memory or mapped uncached: the heads of both sides share a cache line.
 */
#ifndef VMSG_AMP_H
#define VMSG_AMP_H

#include <vmsg/bus.h>
#include <vmsg/mem.h>

#define VMSG_AMP_ELEMENT_BYTES 64u
#define VMSG_AMP_ELEMENT_COUNT 63u
#define VMSG_AMP_MAX_WORDS     64u
#define VMSG_AMP_SPSC_BYTES    8192u /* both rings */

/* Layout block (buses.md 3.6), offsets in bytes. */
#define VMSG_AMP_LAYOUT_MAGIC 0x4c4fu
#define VMSG_AMP_HEAD_MAGIC   0x514fu
#define VMSG_AMP_LAYOUT_BYTES 64u
#define VMSG_AMP_F_MASK       0 /* layout feature: mask words are present; bit number */

/* States of a side (buses.md 3.3). We are never in PEER_DEAD: who misses its peer leaves. */
enum vmsg_amp_state {
	VMSG_AMP_INIT,
	VMSG_AMP_READY,
	VMSG_AMP_RUN,
	VMSG_AMP_SHUTDOWN,
	VMSG_AMP_PEER_DEAD,
};

struct vmsg_amp;
struct vmsg_amp_role;

/* A queue format; constant tables in bus/amp_layout.c and bus/amp_spsc.c. */
struct vmsg_amp_format {
	const char *name;
	/* Checks the geometry and prepares our half. 0 or VMSG_ERR_INVAL. */
	int (*open)(struct vmsg_amp *amp);
	/* Moves the state machine as far as it goes now; the number of moves. */
	uint32_t (*step)(struct vmsg_amp *amp);
	/* As vmsg_bus_ops.send, without the doorbell; 1 instead of 0: the peer wants none. */
	int (*put)(struct vmsg_amp *amp, const void *buf, uint32_t len);
	/*
	 * Takes the oldest received element into amp->element: 1, or 0. The peer learns of the room
	 * with our next element, or by publish(). VMSG_ERR_PROTO: the peer's index makes no sense
	 * (counted; the next step() treats it as a restart).
	 */
	int (*get)(struct vmsg_amp *amp);
	void (*publish)(struct vmsg_amp *amp);
	/* Acknowledges notification words; pending[] is what word 0 had. NULL: has no words. */
	void (*events_take)(struct vmsg_amp *amp, uint32_t pending[2]);
	/* Acts on what was taken. The number of events. */
	uint32_t (*events_act)(struct vmsg_amp *amp, const uint32_t pending[2]);
	/* Restores what we wrote, where somebody else wrote over it (counted). */
	void (*repair)(struct vmsg_amp *amp);
	/* Tells the peer that this side has ended. */
	void (*end)(struct vmsg_amp *amp);
};

extern const struct vmsg_amp_format vmsg_amp_layout;
extern const struct vmsg_amp_format vmsg_amp_spsc;

struct vmsg_amp_counters {
	uint32_t restarts;         /* the peer went away or started anew, after it had been up */
	uint32_t bad_index;        /* indices of the peer that cannot be */
	uint32_t bad_layout;       /* layout blocks that were refused */
	uint32_t repaired;         /* own words found scribbled on, and restored */
	uint32_t doorbells;        /* rung */
	uint32_t doorbells_masked; /* not rung, because the peer does not want them */
	uint32_t coalesced;        /* events that were still pending at the peer */
	uint32_t full;             /* sends that found no room */
};

/* Where one side's things are, as byte offsets from the start of the queue area. */
struct vmsg_amp_part {
	uint32_t words, head, elements;
};

struct vmsg_amp {
	struct vmsg_bus bus; /* first */

	/* Set before vmsg_amp_open_*(). */
	uint8_t *base;      /* start of the queue area, 8-byte aligned */
	uint64_t len_bytes; /* what may be touched from there */
	const struct vmsg_amp_format *format;
	uint8_t *frame;     /* two buffers for one element each, of buffer_bytes: */
	uint8_t *element;   /* larger elements of a peer are refused (bad_layout) */
	uint16_t buffer_bytes; /* at least VMSG_AMP_ELEMENT_BYTES */
	/* Rings the peer's doorbell. Must not sleep. NULL: the peer polls. */
	void (*ring)(struct vmsg_amp *amp);
	/*
	 * Driver side: waits up to ms for the own doorbell, updates bus.now_ms; see vmsg_bus_ops.
	 * If doorbells are off (vmsg_amp_want_doorbells) it turns them on and polls before it
	 * blocks. 0; 1: it has polled itself, and found something; or VMSG_ERR_SHUTDOWN.
	 */
	int (*sleep)(struct vmsg_amp *amp, uint32_t ms);
	/* The peer is up, or gone (its devices are already reset). May be NULL. */
	void (*peer_state)(struct vmsg_amp *amp, bool up);
	/* layout, device side: what to lay out. 0: 64-byte elements, 63 of them, no words */
	uint16_t element_bytes, element_count;
	uint8_t words;           /* notification words per side, 0 to 64 */
	uint8_t bits_per_device; /* 1, 2, 4, 8 or 16 */
	bool masks;              /* lay out mask words */
	void *user;

	/* To be read. Driver side: the five above also, once the block was read. */
	enum vmsg_amp_state state;
	bool up;             /* messages can pass */
	bool refused;        /* the peer's layout block cannot be used; */
	uint8_t bad_offset;  /* the first field at fault, as byte offset in the block */
	struct vmsg_amp_counters counters;

	/* Private to bus/amp*.c. */
	const struct vmsg_amp_role *role;
	bool is_device; /* which half of the area is ours: geometry, not a role of the protocol */
	bool laid_out, seen, lost, leaving, closed;
	bool holding;         /* element[] waits because a reply is held */
	bool peer_uses_words; /* for queues */
	bool wants_none;      /* told the peer not to ring */
	bool peer_dead;       /* the platform said so */
	bool wiped;           /* spsc: the peer has zeroed the rings while we wrote to them */
	uint8_t idle;         /* polls that found nothing, modulo 256 */
	uint8_t busy;         /* waits since the clock was read */
	struct vmsg_amp_part own, peer;
	uint32_t producer, consumer;           /* own private indices */
	uint32_t told_consumer;                /* what the peer can see of consumer */
	uint32_t peer_producer, peer_consumer; /* last good ones */
	uint32_t tx[2 * VMSG_AMP_MAX_WORDS];   /* private copy of our words, low half first */
	uint32_t rx[2 * VMSG_AMP_MAX_WORDS];
	uint8_t block[VMSG_AMP_LAYOUT_BYTES]; /* as written, or as read */
	uint32_t wait_since_ms, wait_polls, swept_ms;
};

/*
 * Bytes of a queue area with this geometry (0: the default): block, heads, words, elements of both
 * sides. 0 when a number is out of range or the area would be 4 GiB or more.
 */
uint32_t vmsg_amp_layout_bytes(uint16_t element_bytes, uint16_t element_count, uint8_t words,
			       bool masks);

/*
 * Opens one side: sets up bus (ops, frame, limits) and calls vmsg_bus_init_device() or
 * vmsg_bus_init_driver(). The device side writes the layout block; the driver side waits for it in
 * vmsg_amp_poll(). VMSG_ERR_INVAL: the area is too small or misaligned, or the numbers are out of
 * range. bus.max_msg_size becomes the element size (driver side: once the block was read, with
 * bus.ops; the bus is not up before). Counters start at 0. May be called again after
 * vmsg_amp_close(), or when the memory was replaced.
 */
int vmsg_amp_open_device(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features);
int vmsg_amp_open_driver(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features);

/*
 * Steps the state machine, takes in messages and notification words, sends what waits. Returns the
 * number of things done; 0: nothing was there. Bounded by the number of elements and words. Not to
 * be called from inside a callback.
 */
uint32_t vmsg_amp_poll(struct vmsg_amp *amp);

/*
 * Blocks until messages can pass: 0, VMSG_ERR_TIMEDOUT, VMSG_ERR_PROTO when all the time there was
 * a layout block that cannot be used (bad_offset), or what sleep() said. Driver side.
 */
int vmsg_amp_connect(struct vmsg_amp *amp, uint32_t timeout_ms);

/*
 * Says whether the peer should ring (mask words; without them nothing changes). On at the start.
 * After turning them on, poll once more before sleeping.
 */
void vmsg_amp_want_doorbells(struct vmsg_amp *amp, bool on);

/*
 * The platform knows that the peer has died (its socket closed, its core was stopped): the same as
 * noticing a restart. Devices are reset, requests end; the bus comes up again with the next peer.
 */
void vmsg_amp_peer_lost(struct vmsg_amp *amp);

/*
 * Resets devices or ends requests, tells the peer that this side ends, and stops using the memory.
 * 0, or VMSG_ERR_AGAIN: a device still has I/O in flight to the peer's memory; complete it and call
 * again.
 */
int vmsg_amp_close(struct vmsg_amp *amp);

/*
 * The notification word and bit of a virtqueue (buses.md 3.5, doc/amp.md), as a bit number counted
 * over all words; VMSG_ERR_NOTSUP when it has none. exact: the bit stands for this queue alone.
 */
int vmsg_amp_event_bit(uint8_t words, uint8_t bits_per_device, uint16_t dev_num,
		       uint32_t vq_index, bool *exact);

#endif
