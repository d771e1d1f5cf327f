/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Virtqueues, split and packed, seen from either side (virtio 1.4, 2.7 and 2.8).
 *
 * The two sides have different structs and different files. What format a queue has is a pointer
 * to one of four constant tables, so a program links only what it names.
 *
 * The device side trusts nothing: a descriptor is copied once, checked, then used; every loop is
 * bounded by the queue size. A violation makes the queue broken, once and for all until its next
 * reset: pop returns VMSG_ERR_PROTO and the device is to set NEEDS_RESET. The driver side distrusts
 * the device in the same way.
 *
 * On memory that is not coherent (vmsg/port.h) the rings, indirect tables and what vmsg_chain_read
 * and vmsg_chain_write copy are taken care of here; data touched otherwise is its user's. Packed
 * rings are written by both sides, several descriptors a cache line: there they must be uncached.
 */
#ifndef VMSG_VQ_H
#define VMSG_VQ_H

#include <vmsg/mem.h>

#define VMSG_VQ_MAX_SIZE 32768u /* largest queue size, both formats */

/*
 * A queue has three areas: the descriptors (packed: the ring), what the driver writes, and what the
 * device writes. They have names, and numbers in this order for what is done to all of them.
 */
#define VMSG_VQ_AREAS 3u

/* Geometry of an area in bytes (virtio 1.4, 2.7.2 and 2.8.10.1). */
struct vmsg_vq_area {
	uint8_t entry_bytes, fixed_bytes; /* a queue of n entries has n of the former */
	uint8_t align;
	uint8_t access; /* the device's, VMSG_MEM_* */
};

static inline uint32_t vmsg_vq_area_bytes(const struct vmsg_vq_area *area, uint32_t size)
{
	return area->entry_bytes * size + area->fixed_bytes;
}

/* Whether the format allows the size: any, or a power of two. */
bool vmsg_vq_size_is_legal(bool packed, uint32_t size);

/* ---- Device side ---- */

struct vmsg_iov {
	uint8_t *ptr;
	size_t len;
};

/*
 * A chain taken from a queue. The caller sets iov and iov_max; pop fills in the rest. The first
 * readable_count entries of iov are what the driver wrote, the next writable_count ones are for the
 * device to write. All are inside the regions, with the right permission, and not empty.
 */
struct vmsg_chain {
	struct vmsg_iov *iov;
	uint16_t iov_max;
	uint16_t readable_count, writable_count;
	uint16_t id;    /* names the chain to the driver: < size, but nothing else is sure of it */
	uint16_t slots; /* ring entries it occupies (packed); 1 (split) */
	uint32_t readable_bytes, writable_bytes;
};

struct vmsg_vq_device;

/* The part that differs; core/vq.c does the rest and calls these. */
struct vmsg_vq_device_format {
	bool packed;
	const struct vmsg_vq_area *areas;
	/* Takes a chain from the ring into an empty `chain`: 1, 0, or VMSG_ERR_PROTO. */
	int (*pop)(struct vmsg_vq_device *vq, struct vmsg_chain *chain);
	/* Writes a used entry and moves used_idx on. */
	void (*push)(struct vmsg_vq_device *vq, const struct vmsg_chain *chain, uint32_t written);
	/* What the driver asked for, seen after the last push. */
	bool (*used_event)(const struct vmsg_vq_device *vq);
	/* Writes down kicks_wanted for the driver; then, whether something is available. */
	bool (*want_kicks)(const struct vmsg_vq_device *vq);
};

extern const struct vmsg_vq_device_format vmsg_vq_split_device;
extern const struct vmsg_vq_device_format vmsg_vq_packed_device;

/* What a queue of the device side owes the driver. */
#define VMSG_VQ_OWES_USED       0x1u /* EVENT_USED, or the doorbell */
#define VMSG_VQ_OWES_RESETTING  0x2u /* RESET_VQUEUE is being carried out */
#define VMSG_VQ_OWES_RESET_DONE 0x4u /* its answer */

struct vmsg_vq_device {
	uint16_t max_size; /* set by the device; 0: this queue does not exist */

	/* As SET_VQUEUE stored it, with the addresses below; kept by core/device.c. */
	uint16_t size;
	bool enabled;
	bool broken;

	/* Private to core/device*.c. */
	uint8_t owes;         /* VMSG_VQ_OWES_* */
	uint16_t reset_token; /* of the RESET_VQUEUE that is being carried out */

	/*
	 * Private to core/vq*.c. A position in the ring is a free-running index (split), or a slot
	 * with the wrap counter in bit 15 (packed).
	 */
	bool kicks_wanted;
	uint16_t avail_idx;   /* position of the next chain to take */
	uint16_t avail_seen;  /* split: the driver's index when last read and checked */
	uint16_t used_idx;    /* position of the next chain to give back */
	uint16_t in_flight;   /* popped and not pushed: chains (split) or slots (packed) */
	uint16_t unsignalled; /* pushed since the last used_event, likewise; stops at 65535 */
	uint16_t armed;       /* avail_idx when kicks were last asked for */
	uint16_t last_head;   /* split: of the chain last taken */

	/* Set by vmsg_vq_device_enable(). */
	const struct vmsg_vq_device_format *format;
	const struct vmsg_mem *mem;
	union {
		struct {
			uint8_t *desc, *driver, *device;
		};
		uint8_t *areas[VMSG_VQ_AREAS];
	};
	uint64_t features; /* negotiated */

	union {
		struct {
			uint64_t desc_addr, driver_addr, device_addr;
		};
		uint64_t addrs[VMSG_VQ_AREAS];
	};
};

/*
 * Finds the three areas in `mem` and starts the queue from empty, kicks wanted. size and addresses
 * are set. VMSG_ERR_INVAL when the size, an alignment or a range is not acceptable; nothing changed
 * then.
 */
int vmsg_vq_device_enable(struct vmsg_vq_device *vq, const struct vmsg_vq_device_format *format,
			  const struct vmsg_mem *mem, uint64_t features);

/* Forgets everything but max_size. */
void vmsg_vq_device_reset(struct vmsg_vq_device *vq);

/*
 * Takes the next chain. 1; 0 when there is none; VMSG_ERR_PROTO when the queue is broken (in the
 * first such call, and in all that follow). A chain of more than iov_max buffers breaks the queue:
 * give room for `size` of them, or for what the device's configuration allows. Cost: O(chain).
 * A 0 while kicks are wanted means that the next chain will bring one.
 */
int vmsg_vq_pop(struct vmsg_vq_device *vq, struct vmsg_chain *chain);

/*
 * Gives a chain back, `written` bytes of its writable part filled from the start (at most
 * writable_bytes: asserted), once. With IN_ORDER chains are pushed in the order popped: that is the
 * caller's duty. iov is not looked at.
 * The driver can see it at once; whether to notify is used_event's matter.
 */
void vmsg_vq_push(struct vmsg_vq_device *vq, const struct vmsg_chain *chain, uint32_t written);

/* True when the driver wants a notification for what was pushed since the last call. */
bool vmsg_vq_used_event(struct vmsg_vq_device *vq);

/*
 * Says whether kicks are wanted (a device that polls wants none). Returns true when, after saying
 * so, something is available: with on, look again before sleeping, or a kick may have been missed.
 */
bool vmsg_vq_want_kicks(struct vmsg_vq_device *vq, bool on);

/* ---- Driver side ---- */

/* A buffer by address, as the device will see it. */
struct vmsg_buf {
	uint64_t addr;
	uint32_t len; /* bytes, > 0 */
};

/* Private memory of a queue: one per entry. */
struct vmsg_vq_state {
	void *cookie;
	uint32_t writable_bytes; /* what the device may at most have written */
	uint16_t next;           /* free list, or the next descriptor of the chain */
	uint16_t slots;          /* ring entries in use by the chain that starts here; 0: none */
};

/* Shared memory of a queue. */
struct vmsg_vq_memory {
	union {
		struct {
			uint8_t *desc, *driver, *device;
		};
		uint8_t *areas[VMSG_VQ_AREAS];
	};
	union {
		struct {
			uint64_t desc_addr, driver_addr, device_addr;
		};
		uint64_t addrs[VMSG_VQ_AREAS];
	};
	/* Indirect tables: `size` of them, indirect_max descriptors each; NULL and 0: none. */
	uint8_t *indirect;
	uint64_t indirect_addr;
	uint16_t indirect_max;
};

struct vmsg_vq_driver;

/* The part that differs; core/vq.c does the rest and calls these. */
struct vmsg_vq_driver_format {
	bool packed;
	const struct vmsg_vq_area *areas;
	/*
	 * Writes the chain free_head into the ring: count buffers, the first readable_count of them
	 * readable, each with these flags as well.
	 */
	void (*put)(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs, uint32_t readable_count,
		    uint32_t count, uint32_t flags);
	/* Shows the device the chains up to avail_idx; then, whether it asked for a kick. */
	bool (*publish)(struct vmsg_vq_driver *vq);
	/* Reads the next used entry into used_id and used_bytes: 1, 0, or VMSG_ERR_PROTO. */
	int (*look)(struct vmsg_vq_driver *vq);
	/* Writes down used_wanted for the device; then, whether something is used. */
	bool (*want_used)(const struct vmsg_vq_driver *vq);
};

extern const struct vmsg_vq_driver_format vmsg_vq_split_driver;
extern const struct vmsg_vq_driver_format vmsg_vq_packed_driver;

struct vmsg_vq_driver {
	const struct vmsg_vq_driver_format *format;
	struct vmsg_vq_state *state;
	uint16_t size; /* 0: not set up */
	bool broken;

	/* Private to core/driver.c. */
	bool owes_kick;

	/* Private to core/vq*.c. Positions are as in struct vmsg_vq_device. */
	bool used_wanted;
	bool in_batch;       /* used_id completed several chains; some are still to be handed out */
	uint16_t free_head, free_count;
	uint16_t avail_idx;  /* position of the next chain to fill */
	uint16_t published;  /* avail_idx when the device was last told */
	uint16_t added;      /* since then: chains (split) or slots (packed) */
	uint16_t used_idx;   /* position of the next chain to take back */
	uint16_t used_seen;  /* split: the device's index when last read and checked */
	uint16_t armed;      /* used_idx when used notifications were last asked for */
	uint16_t oldest;     /* IN_ORDER: the chain that comes back next */
	uint16_t drain_next;
	uint32_t used_id;    /* the used entry being worked on; IN_ORDER: it completes */
	uint32_t used_bytes; /* all chains up to this one */
	uint8_t *held;       /* packed: last word of the first descriptor added, */
	uint32_t held_word;  /* and what to store there to make all of them available */

	uint64_t features;
	struct vmsg_vq_memory memory;
};

/*
 * Takes shared memory for a queue of `size` from an arena, in whole cache lines. VMSG_ERR_NOMEM
 * (and nothing was taken), VMSG_ERR_INVAL.
 */
int vmsg_vq_memory_take(struct vmsg_vq_memory *memory, const struct vmsg_vq_driver_format *format,
			uint16_t size, uint16_t indirect_max, struct vmsg_arena *arena);

/*
 * An empty queue, used notifications wanted; also after a reset. The rings in memory are zeroed,
 * so call it before the device learns of them. state has `size` entries. features are the
 * negotiated ones. VMSG_ERR_INVAL when the format does not allow the size.
 */
int vmsg_vq_driver_init(struct vmsg_vq_driver *vq, const struct vmsg_vq_driver_format *format,
			uint64_t features, uint16_t size, const struct vmsg_vq_memory *memory,
			struct vmsg_vq_state *state);

/*
 * Adds a chain: first readable_count, then writable_count buffers; at least one. cookie is not NULL
 * and comes back with the chain. VMSG_ERR_AGAIN when the queue has no room for it now;
 * VMSG_ERR_INVAL when it never has (no buffer, more than `size` of them, an empty one, 2^32 bytes
 * or more); VMSG_ERR_PROTO when broken. The device learns of it with publish.
 */
int vmsg_vq_add(struct vmsg_vq_driver *vq, const struct vmsg_buf *bufs, uint16_t readable_count,
		uint16_t writable_count, void *cookie);

/* Shows the device what was added since the last publish. True when it wants a kick for it. */
bool vmsg_vq_publish(struct vmsg_vq_driver *vq);

/*
 * Takes back a used chain: its cookie, and how many bytes of its writable part the device wrote.
 * 1; 0 when there is none; VMSG_ERR_PROTO when the device broke the queue (an id that is not
 * outstanding, more bytes than were offered). A 0 while used notifications are wanted means that
 * the next used chain will bring one.
 */
int vmsg_vq_get(struct vmsg_vq_driver *vq, void **cookie, uint32_t *written);

/* As vmsg_vq_want_kicks, for used notifications. */
bool vmsg_vq_want_used(struct vmsg_vq_driver *vq, bool on);

/*
 * What EVENT_AVAIL carries with NOTIFICATION_DATA (DRV-73): the position after what was last
 * published. Split: the available index. Packed: the slot in bits 30:0, the wrap counter in bit 31.
 */
static inline uint32_t vmsg_vq_next_offset(const struct vmsg_vq_driver *vq)
{
	if (!vq->format->packed)
		return vq->published;
	return (vq->published & 0x7fffu) | (uint32_t)(vq->published & 0x8000u) << 16;
}

/*
 * After the device or the queue was reset: the cookies of the chains that never came back, one per
 * call, NULL at the end. Then init again.
 */
void *vmsg_vq_drain(struct vmsg_vq_driver *vq);

/* ---- Descriptors ---- */

#define VMSG_DESC_BYTES     16u
#define VMSG_DESC_NEXT      1u /* flags of a descriptor, masks */
#define VMSG_DESC_WRITE     2u
#define VMSG_DESC_INDIRECT  4u
#define VMSG_DESC_AVAIL     0x80u   /* packed */
#define VMSG_DESC_USED      0x8000u /* packed */
#define VMSG_EVENT_ENABLE   0u      /* packed event suppression */
#define VMSG_EVENT_DISABLE  1u
#define VMSG_EVENT_DESC     2u
#define VMSG_SPLIT_NO_EVENT 1u /* split: avail.flags NO_INTERRUPT, used.flags NO_NOTIFY */

/* A private copy of one descriptor. */
struct vmsg_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next; /* split and split indirect: next; packed: id */
};

/* Copies the descriptor at ptr (4-byte aligned, shared) once. packed chooses the field order. */
void vmsg_desc_read(const uint8_t *ptr, bool packed, struct vmsg_desc *desc);

/*
 * Checks one buffer descriptor (not an indirect one) and appends it to the chain. 0 or
 * VMSG_ERR_PROTO: empty, outside the regions, readable after writable, too many, 2^32 bytes.
 */
int vmsg_chain_append(struct vmsg_chain *chain, const struct vmsg_mem *mem,
		      const struct vmsg_desc *desc);

/*
 * Walks an indirect table that `desc` names and appends its buffers; the chain has at most `limit`
 * of them then. Split tables follow `next`; packed ones are taken in order.
 */
int vmsg_chain_append_table(struct vmsg_chain *chain, const struct vmsg_mem *mem,
			    const struct vmsg_desc *desc, bool packed, uint16_t limit);

/* True when event lies in (old, now], all modulo 2^16 (virtio 1.4, 2.7.10). */
static inline bool vmsg_need_event(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* Copies between a chain's parts and a flat buffer; returns how much, less than len at the end. */
size_t vmsg_chain_read(const struct vmsg_chain *chain, size_t offset, void *buf, size_t len);
size_t vmsg_chain_write(const struct vmsg_chain *chain, size_t offset, const void *buf, size_t len);

#endif
