/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The AMP bus: messages in shared memory, with a doorbell each way (buses.md 0.4, 3.3 to 3.6;
 * design.md 9). Memory and doorbell come from the platform: a carve-out and a mailbox, a PCI BAR, or
 * on Linux the ivshmem server protocol.
 *
 * Two queue formats:
 *   layout  a self-describing block with a queue head per side, a start-up state machine that
 *           notices a peer's restart, and optional notification words
 *   spsc    two 4 KiB single-producer rings, at 0 (driver to device) and 4096 (device to driver)
 *
 * Call vmsg_amp_poll() when the doorbell rings, and at least every 100 ms without one: states of the
 * peer come without a doorbell, and doorbells may be lost.
 */
#ifndef VMSG_AMP_H
#define VMSG_AMP_H

#include <vmsg/bus.h>
#include <vmsg/mem.h>

#define VMSG_AMP_ELEMENT_BYTES 64u
#define VMSG_AMP_MAX_WORDS     64u
#define VMSG_AMP_SPSC_BYTES    8192u /* both rings */

/* Layout block (buses.md 3.6), offsets in bytes. */
#define VMSG_AMP_LAYOUT_MAGIC 0x4c4fu
#define VMSG_AMP_HEAD_MAGIC   0x514fu
#define VMSG_AMP_LAYOUT_BYTES 64u
#define VMSG_AMP_F_MASK       0 /* layout feature: mask words are present; bit number */

/* States of a side (buses.md 3.3). */
enum vmsg_amp_state {
	VMSG_AMP_INIT,
	VMSG_AMP_READY,
	VMSG_AMP_RUN,
	VMSG_AMP_SHUTDOWN,
	VMSG_AMP_PEER_DEAD,
};

struct vmsg_amp;

/* A queue format; constant tables in bus/amp_layout.c and bus/amp_spsc.c. */
struct vmsg_amp_format {
	const char *name;
	/* Moves the state machine one step. */
	void (*step)(struct vmsg_amp *amp);
	/* As vmsg_bus_ops.send, without the doorbell. */
	int (*put)(struct vmsg_amp *amp, const void *buf, uint32_t len);
	/*
	 * The oldest received element, copied to amp->element: 1, or 0. It stays in the queue until
	 * taken. VMSG_ERR_PROTO: the peer's index makes no sense (counted; acts as a restart).
	 */
	int (*peek)(struct vmsg_amp *amp);
	void (*take)(struct vmsg_amp *amp);
	/* Announces the end to the peer. */
	void (*close)(struct vmsg_amp *amp);
};

extern const struct vmsg_amp_format vmsg_amp_layout;
extern const struct vmsg_amp_format vmsg_amp_spsc;

struct vmsg_amp_counters {
	uint32_t restarts;     /* the peer went away or started anew */
	uint32_t bad_index;    /* indices of the peer outside the queue */
	uint32_t bad_layout;   /* layout blocks that were refused */
	uint32_t repaired;     /* own words found scribbled on, and restored */
	uint32_t doorbells;    /* rung */
	uint32_t doorbells_masked;
	uint32_t full;         /* sends that found no room */
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
	/* Rings the peer's doorbell. Must not sleep. */
	void (*ring)(struct vmsg_amp *amp);
	/* Driver side: waits up to ms for the own doorbell, updates bus.now_ms; see vmsg_bus_ops. */
	int (*sleep)(struct vmsg_amp *amp, uint32_t ms);
	/* The peer is up, or gone (its devices are already reset). May be NULL. */
	void (*peer_state)(struct vmsg_amp *amp, bool up);
	/* layout, device side: what to lay out. 0: defaults (64-byte elements, 63 of them, 0 words) */
	uint16_t element_bytes, element_count;
	uint8_t words;           /* notification words per side, 0 to 64 */
	uint8_t bits_per_device; /* 1, 2, 4, 8 or 16 */
	bool masks;              /* lay out mask words */
	void *user;

	/* To be read. */
	enum vmsg_amp_state state;
	bool up; /* messages can pass */
	struct vmsg_amp_counters counters;

	/* Private to bus/amp*.c. */
	bool is_device; /* which half of the block is ours: geometry, not a role of the protocol */
	bool laid_out, head_valid, peer_seen_run;
	bool peer_uses_words;
	bool dozing; /* told the peer to ring */
	uint8_t peer_state_seen;
	struct vmsg_amp_part own, peer;
	uint32_t producer, consumer;         /* own private indices */
	uint32_t peer_producer;              /* cached */
	uint32_t tx[2 * VMSG_AMP_MAX_WORDS]; /* private copy of our words, low half first */
	uint32_t rx[2 * VMSG_AMP_MAX_WORDS];
	uint32_t wait_since_ms;
};

/* Bytes of a queue area with this geometry: block, heads, words, elements of both sides. */
uint32_t vmsg_amp_layout_bytes(uint16_t element_bytes, uint16_t element_count, uint8_t words,
			       bool masks);

/*
 * Opens one side: sets up bus (ops, frame, limits) and calls vmsg_bus_init_device() or
 * vmsg_bus_init_driver(). The device side writes the layout block; the driver side waits for it in
 * vmsg_amp_poll(). VMSG_ERR_INVAL: the area is too small or misaligned, or the numbers are out of
 * range. bus.max_msg_size becomes the element size (driver side: once the block was read).
 */
int vmsg_amp_open_device(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features);
int vmsg_amp_open_driver(struct vmsg_amp *amp, enum vmsg_dialect dialect, uint32_t features);

/*
 * Steps the state machine, takes in messages and notification words, sends what waits. Returns the
 * number of things done; 0: nothing was there. Bounded by the number of elements and words.
 */
uint32_t vmsg_amp_poll(struct vmsg_amp *amp);

/* Blocks until messages can pass: 0, VMSG_ERR_TIMEDOUT, or what sleep() said. Driver side. */
int vmsg_amp_connect(struct vmsg_amp *amp, uint32_t timeout_ms);

/*
 * Says whether the peer should ring when it sends (mask words; without them nothing changes).
 * With on, poll once more before sleeping.
 */
void vmsg_amp_want_doorbells(struct vmsg_amp *amp, bool on);

/* Tells the peer that this side ends, and stops using the memory. */
void vmsg_amp_close(struct vmsg_amp *amp);

/*
 * The notification word and bit of a virtqueue (buses.md 3.5, doc/amp.md), as a bit number counted
 * over all words; VMSG_ERR_NOTSUP when it has none. exact: the bit stands for this queue alone.
 */
int vmsg_amp_event_bit(uint8_t words, uint8_t bits_per_device, uint16_t dev_num,
		       uint32_t vq_index, bool *exact);

#endif
