/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the AMP bus share. */
#ifndef BUS_AMP_PRIVATE_H
#define BUS_AMP_PRIVATE_H

#include <vmsg/amp.h>
#include <vmsg/port.h>

/* Fields of a queue head, as byte offsets. */
#define HEAD_MAGIC    0u
#define HEAD_STATUS   2u
#define HEAD_PRODUCER 4u
#define HEAD_CONSUMER 6u
#define HEAD_BYTES    8u

#define ALL_QUEUES UINT32_MAX

/*
 * What differs between the side that offers devices and the one that uses them: a table per side,
 * set by vmsg_amp_open_*(), so that a program links only the side it opens.
 */
struct vmsg_amp_role {
	bool keeps_unread; /* spsc: what lies in the ring at the start is for us */
	bool trusts_words; /* the peer laid out the words, so it looks at them */
	/* layout: checks the wanted geometry; whoever writes the block takes its magic away. */
	int (*lay_out)(struct vmsg_amp *amp);
	/* layout: writes the block, its magic last. NULL: the peer does. */
	void (*show)(struct vmsg_amp *amp);
	/* layout, before INIT: sets own and peer from a good block. False: there is none yet. */
	bool (*prepare)(struct vmsg_amp *amp);
	/* layout: the block is still what it was at prepare(). */
	bool (*confirm)(struct vmsg_amp *amp);
	/* layout: looks at the block; its owner mends it, the other may find a new one. */
	void (*repair)(struct vmsg_amp *amp);
	/* The peer is gone: forgets what it had set up, or what it owed. */
	void (*drop)(struct vmsg_amp *amp);
	/* Nothing touches the peer's memory any more. */
	bool (*quiet)(const struct vmsg_amp *amp);
	/* A queue, or ALL_QUEUES, of the devices first to last may have something. */
	void (*event)(struct vmsg_amp *amp, uint32_t first, uint32_t last, uint32_t vq_index);
};

/* bus/amp.c */
extern const struct vmsg_bus_ops vmsg_amp_ops;
int vmsg_amp_open_common(struct vmsg_amp *amp, const struct vmsg_amp_role *role);
uint32_t vmsg_amp_min_element(enum vmsg_dialect dialect);
int vmsg_amp_send(struct vmsg_bus *bus, const void *buf, uint32_t len);
int vmsg_amp_wait(struct vmsg_bus *bus, uint32_t ms);
void vmsg_amp_ring(struct vmsg_amp *amp);
void vmsg_amp_came_up(struct vmsg_amp *amp);
bool vmsg_amp_leave(struct vmsg_amp *amp);

/* bus/amp_words.c: notification words, for formats that have them */
extern const struct vmsg_bus_ops vmsg_amp_words_ops;
void vmsg_amp_words_clear(struct vmsg_amp *amp);
bool vmsg_amp_words_message(struct vmsg_amp *amp);
void vmsg_amp_words_take(struct vmsg_amp *amp, uint32_t pending[2]);
uint32_t vmsg_amp_words_act(struct vmsg_amp *amp, const uint32_t pending[2]);
void vmsg_amp_words_repair(struct vmsg_amp *amp);

static inline uint32_t amp_next(const struct vmsg_amp *amp, uint32_t index)
{
	return index + 1 == amp->element_count ? 0 : index + 1;
}

/* How many steps forward it is from one index to another. */
static inline uint32_t amp_distance(const struct vmsg_amp *amp, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : to + amp->element_count - from;
}

/* Kinds of words per side: tx, rx and, if present, mask. */
static inline uint32_t amp_words_bytes(const struct vmsg_amp *amp)
{
	return amp->words * 8u * (amp->masks ? 3u : 2u);
}

/* The one place that writes elements: the whole one, zeros after the message (BUS-30). */
static inline void amp_write_element(const struct vmsg_amp *amp, uint32_t index, const void *buf,
				     uint32_t len)
{
	uint8_t *slot = amp->base + amp->own.elements + (size_t)index * amp->element_bytes;

	memcpy(slot, buf, len);
	memset(slot + len, 0, amp->element_bytes - len);
}

/* The one place that reads them: a private copy, because the peer may write at any time (F6). */
static inline void amp_read_element(const struct vmsg_amp *amp, uint32_t index)
{
	memcpy(amp->element, amp->base + amp->peer.elements + (size_t)index * amp->element_bytes,
	       amp->element_bytes);
}

#endif
