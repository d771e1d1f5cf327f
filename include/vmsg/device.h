/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Device role: a virtio device offered to a peer (wire.md 3.3).
 *
 * A device model is one constant struct vmsg_device_ops and a struct whose first member is
 * struct vmsg_device. Features, config bytes and queues are fields. The core answers all messages;
 * the model is called when there is something to do.
 */
#ifndef VMSG_DEVICE_H
#define VMSG_DEVICE_H

#include <vmsg/bus.h>
#include <vmsg/vq.h>

struct vmsg_device_ops {
	const char *name;
	uint32_t device_id; /* virtio device type */
	/*
	 * The driver wrote status 0, or the peer is gone. The model stops: after the reset it
	 * touches no virtqueue and no memory of the driver. 0: stopped. VMSG_ERR_AGAIN: work is
	 * still in flight; the model calls vmsg_device_reset_done() when it no longer is, and until
	 * then the device reports a nonzero status. May be NULL.
	 */
	int (*reset)(struct vmsg_device *device);
	/* DRIVER_OK was set; features are final. 0, or an error: NEEDS_RESET. May be NULL. */
	int (*start)(struct vmsg_device *device);
	/*
	 * The driver writes len > 0 config bytes at offset, inside config_size. The model stores
	 * what it accepts into config[] and returns 0 (all of it), or refuses with an error
	 * (nothing). NULL: nothing in config is writable.
	 */
	int (*configure)(struct vmsg_device *device, uint32_t offset, const void *data,
			 uint32_t len);
	/*
	 * There may be something in this queue. Spurious calls are normal. Never before DRIVER_OK.
	 */
	void (*kick)(struct vmsg_device *device, uint32_t vq_index);
	/*
	 * RESET_VQUEUE. As reset, for one queue; VMSG_ERR_AGAIN is followed by
	 * vmsg_device_vq_reset_done(). NULL: never anything in flight.
	 */
	int (*reset_vq)(struct vmsg_device *device, uint32_t vq_index);
};

struct vmsg_shm {
	uint32_t shmid;
	uint64_t len_bytes, addr; /* addr as the bus defines addresses */
};

struct vmsg_device_counters {
	uint32_t kicks, used_notifications, config_events, resets;
	uint32_t refused;       /* requests answered with "no", or that changed nothing */
	uint32_t needs_reset;   /* times the device gave up on the driver */
	uint32_t early_kicks;   /* kicks before DRIVER_OK, remembered until then */
};

/* Small fields come first: some processors reach those with shorter instructions. */
struct vmsg_device {
	/* Set before vmsg_device_init(), and more below. */
	const struct vmsg_device_ops *ops;

	/* To be read. */
	struct vmsg_bus *bus;
	uint16_t dev_num;
	uint8_t status; /* VMSG_STATUS_* */
	/*
	 * Set by the model: a kick did its share of work and left the rest, so that others get
	 * their turn. The owner clears it and calls vmsg_device_poll() in its next turn, before it
	 * sleeps; until then kicks are not passed on.
	 */
	bool more;
	uint64_t features;   /* negotiated; 0 before FEATURES_OK */
	uint32_t generation; /* of config */

	/* Private to the core. */
	uint8_t announce;  /* VMSG_DEVICE_* that the driver side has not heard of yet */
	bool config_event; /* EVENT_CONFIG waits for room */
	bool selected_bad; /* a bit was set that no block of ours holds */
	bool resetting;
	bool removed;
	bool started;
	struct vmsg_device *next;
	uint32_t selected[2]; /* what SET_DRIVER_FEATURES has written so far, by block */
	uint32_t changed_offset, changed_bytes;
	uint32_t poll_from; /* the queue to look at first */

	/* Set before vmsg_device_init(). */
	struct vmsg_vq_device *vqs; /* vq_count, each with max_size set and the rest zero */
	uint32_t vq_count;          /* at most 65536, admin queues included */
	uint32_t admin_vq_start, admin_vq_count;
	const struct vmsg_mem *mem; /* what addresses mean; may be replaced while status is 0 */
	const struct vmsg_vq_device_format *split, *packed; /* NULL: not supported; one must be */
	uint64_t offered;    /* device features; the core adds and removes transport ones */
	uint8_t *config;     /* config_size bytes, little-endian as on the wire */
	uint32_t config_size;
	const struct vmsg_shm *shms;
	uint32_t shm_count;
	uint32_t vendor_id;
	uint8_t uuid[16]; /* all zero: none */

	/* To be read. */
	struct vmsg_device_counters counters;
};

/* Checks the fields (asserts) and completes `offered`. Not yet on a bus. */
void vmsg_device_init(struct vmsg_device *device);

/* Handles one transport message for this device; msg becomes its own reply. Called by the bus. */
void vmsg_device_handle(struct vmsg_device *device, struct vmsg_msg *msg);

/* A doorbell arrived for the queue, or may have: same as EVENT_AVAIL. Index may be anything. */
void vmsg_device_kicked(struct vmsg_device *device, uint32_t vq_index);

/*
 * Looks at every enabled queue, but no further than to one with `more` than its share; the next
 * call goes on behind that. For lost doorbells and for polling.
 */
void vmsg_device_poll(struct vmsg_device *device);

/*
 * Takes the next chain of a queue; as vmsg_vq_pop, but a broken queue sets NEEDS_RESET and tells
 * the driver (DEV-55), and before DRIVER_OK there is never anything (DEV-35). 1 or 0.
 */
int vmsg_device_pop(struct vmsg_device *device, uint32_t vq_index, struct vmsg_chain *chain);

/* Gives a chain back; see vmsg_vq_push. Nothing happens if the queue was reset meanwhile. */
void vmsg_device_push(struct vmsg_device *device, uint32_t vq_index,
		      const struct vmsg_chain *chain, uint32_t written);

/* Notifies the driver of what was pushed, if it wants that. Once per batch. */
void vmsg_device_used(struct vmsg_device *device, uint32_t vq_index);

/*
 * The model changed config[offset, offset + len): a new generation, and EVENT_CONFIG. len 0:
 * somewhere. Change the bytes and call this without receiving messages in between.
 */
void vmsg_device_config_changed(struct vmsg_device *device, uint32_t offset, uint32_t len);

/* The device cannot go on without a reset: NEEDS_RESET and EVENT_CONFIG. */
void vmsg_device_needs_reset(struct vmsg_device *device);

/* See struct vmsg_device_ops. */
void vmsg_device_reset_done(struct vmsg_device *device);
void vmsg_device_vq_reset_done(struct vmsg_device *device, uint32_t vq_index);

static inline bool vmsg_device_live(const struct vmsg_device *device)
{
	return device->started && !device->resetting &&
	       !(device->status & VMSG_STATUS_NEEDS_RESET);
}

/* ---- For the core ---- */

/* The virtqueue with this index, or NULL when the device has none. */
static inline struct vmsg_vq_device *vmsg_device_vq(struct vmsg_device *device, uint32_t index)
{
	return index < device->vq_count && device->vqs[index].max_size ? &device->vqs[index] : NULL;
}

/* Whether SET_CONFIG must name the current generation (wire.md 2.9). */
bool vmsg_device_is_strict(const struct vmsg_device *device);

/* The driver wrote status 0. */
void vmsg_device_start_reset(struct vmsg_device *device);

/* Resets to status 0 without a message; the model's reset is called. For the bus. */
void vmsg_device_reset(struct vmsg_device *device);

/* Sends what the device owes its driver. False when room ran out. For the bus. */
bool vmsg_device_flush(struct vmsg_device *device);

#endif
