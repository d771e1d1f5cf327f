/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Driver role: a use of a virtio device over there (wire.md 3.2).
 *
 * From nothing to I/O:
 *
 *	vmsg_driver_init(&driver, bus, dev_num, &ops);
 *	vmsg_driver_identify(&driver);                     GET_DEVICE_INFO
 *	vmsg_driver_negotiate(&driver, wanted);            reset .. FEATURES_OK
 *	vmsg_driver_read_config(&driver, 0, &config, sizeof(config));
 *	vmsg_driver_setup_vq(&driver, 0, ...);             per queue
 *	vmsg_driver_ready(&driver);                        DRIVER_OK
 *
 * All of these block in the bus's wait operation, each request for at most timeout_ms. They must
 * not be called from inside a callback.
 */
#ifndef VMSG_DRIVER_H
#define VMSG_DRIVER_H

#include <vmsg/bus.h>
#include <vmsg/vq.h>

struct vmsg_driver_ops {
	/* Used buffers may wait in this queue: take them with vmsg_vq_get. May be spurious. */
	void (*used)(struct vmsg_driver *driver, uint32_t vq_index);
	/*
	 * EVENT_CONFIG: config bytes may have changed. Read them again, later, outside the
	 * callback. device_status is as in the event. May be NULL.
	 */
	void (*config_changed)(struct vmsg_driver *driver, uint32_t device_status);
	/* The device is gone: nothing will complete any more. May be NULL. */
	void (*gone)(struct vmsg_driver *driver);
};

struct vmsg_driver_counters {
	uint32_t kicks;              /* notifications sent */
	uint32_t used_events;        /* received */
	uint32_t config_events;      /* received */
	uint32_t bad_events;         /* for queues that do not exist */
	uint32_t config_retries;     /* reads started over because the generation moved */
};

/* Small fields come first: some processors reach those with shorter instructions. */
struct vmsg_driver {
	struct vmsg_bus *bus;
	const struct vmsg_driver_ops *ops;
	uint16_t dev_num;

	/* To be read. */
	uint8_t status;   /* last seen */
	bool gone;        /* removed, or its bus is */
	bool needs_reset; /* EVENT_CONFIG said so */
	bool started;     /* DRIVER_OK confirmed */

	/* Private to the core. */
	bool owes_kick;
	struct vmsg_driver *next;

	/* Set by init to the defaults; may be changed. */
	const struct vmsg_vq_driver_format *split, *packed; /* NULL; set what you link */
	uint32_t timeout_ms;        /* one request: 1000 */
	uint32_t retries;           /* of a request without an answer: 1 */
	uint32_t reset_timeout_ms;  /* until status reads 0: 5000 */
	struct vmsg_vq_driver *vqs; /* the owner's array */
	uint32_t vq_count;          /* its length */

	/* Known after negotiate. */
	uint64_t offered, features;
	uint32_t generation;

	/* Known after identify. */
	uint32_t device_id, vendor_id;
	uint8_t uuid[16];
	uint32_t num_feature_blocks, config_size, max_virtqueues;
	uint32_t admin_vq_start, admin_vq_count;

	struct vmsg_driver_counters counters;
	void *user;
};

/* Ties the driver to a device number of a bus. split or packed may be set afterwards. */
void vmsg_driver_init(struct vmsg_driver *driver, struct vmsg_bus *bus, uint16_t dev_num,
		      const struct vmsg_driver_ops *ops);

/* Unties it: no callback follows. Does not reset the device. */
void vmsg_driver_exit(struct vmsg_driver *driver);

/*
 * GET_DEVICE_INFO; with dialect AUTO this also settles the dialect of the bus. VMSG_ERR_NODEV when
 * nothing is there (device_id 0, or no answer from a peer that answered before);
 * VMSG_ERR_TIMEDOUT; VMSG_ERR_PROTO when the numbers contradict each other.
 */
int vmsg_driver_identify(struct vmsg_driver *driver);

/*
 * Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK (DRV-22). features becomes what both sides
 * want: `wanted` may name transport features (INDIRECT_DESC, EVENT_IDX, RING_PACKED, ...); those
 * that need a format that is not linked, or that the bus cannot carry, are dropped, VERSION_1 is
 * always wanted, bits 39 and what was not offered never (DRV-28, DRV-29).
 * VMSG_ERR_NOTSUP: no VERSION_1, no common queue format, or FEATURES_OK refused (FAILED is set).
 */
int vmsg_driver_negotiate(struct vmsg_driver *driver, uint64_t wanted);

/*
 * Configures and enables one queue and reads it back (DRV-25, DRV-58..68). `size` is an upper
 * limit: the queue gets the largest legal size of at most that. memory comes from `arena`; state
 * has `size` entries; indirect_max as in struct vmsg_vq_memory, used with INDIRECT_DESC only.
 * VMSG_ERR_NOENT: the device has no such queue. VMSG_ERR_NOMEM. VMSG_ERR_IO: the device did not
 * take the values.
 */
int vmsg_driver_setup_vq(struct vmsg_driver *driver, uint32_t index, uint16_t size,
			 uint16_t indirect_max, struct vmsg_arena *arena,
			 struct vmsg_vq_state *state);

/* DRIVER_OK. VMSG_ERR_IO when the device does not confirm it. */
int vmsg_driver_ready(struct vmsg_driver *driver);

/*
 * Writes status 0 and polls until it reads 0 (DRV-55). Afterwards no buffer is the device's;
 * collect them with vmsg_vq_drain. VMSG_ERR_TIMEDOUT: the device may still touch them.
 */
int vmsg_driver_reset(struct vmsg_driver *driver);

/* Says FAILED to the device: the driver has given up. */
int vmsg_driver_fail(struct vmsg_driver *driver);

/*
 * Sends a transport request of the caller's and waits, again `retries` times if no answer comes,
 * and then looks at the device's status (DRV-14, DRV-15). The result of the last try.
 */
int vmsg_driver_request(struct vmsg_driver *driver, struct vmsg_request *request,
			struct vmsg_msg *msg);

/* GET_DEVICE_STATUS, in the low 8 bits; or an error. */
int vmsg_driver_read_status(struct vmsg_driver *driver);

/*
 * Config bytes, in pieces that fit the bus, read again from the start while the generation moves
 * (DRV-07), at most 8 times: then VMSG_ERR_BUSY. VMSG_ERR_INVAL when outside config_size.
 */
int vmsg_driver_read_config(struct vmsg_driver *driver, uint32_t offset, void *data,
			    uint32_t len);

/*
 * Writes config bytes, in pieces that fit. Baseline sends generation 0, strict (and v1, rfc2) the
 * last one seen and reads it anew once if refused (DRV-08, 10, 11). VMSG_ERR_IO when refused.
 */
int vmsg_driver_write_config(struct vmsg_driver *driver, uint32_t offset, const void *data,
			     uint32_t len);

/* GET_SHM. VMSG_ERR_NOENT when there is no such region. */
int vmsg_driver_get_shm(struct vmsg_driver *driver, uint32_t shmid, uint64_t *addr,
			uint64_t *len_bytes);

/*
 * RESET_VQUEUE, when RING_RESET was negotiated (else VMSG_ERR_NOTSUP); then the queue's cookies can
 * be drained and the queue set up again with vmsg_driver_setup_vq.
 */
int vmsg_driver_reset_vq(struct vmsg_driver *driver, uint32_t index);

/* Publishes what was added to a queue and notifies the device if it wants that. Does not block. */
void vmsg_driver_kick(struct vmsg_driver *driver, uint32_t index);

/* Notifies the device whether or not it seems to want that: for a doorbell that may be lost. */
void vmsg_driver_kick_again(struct vmsg_driver *driver, uint32_t index);

/* A used doorbell arrived, or may have: same as EVENT_USED. Index may be anything. For buses. */
void vmsg_driver_notified(struct vmsg_driver *driver, uint32_t vq_index);

/* Calls used() for every queue that is set up. For lost doorbells and for polling. */
void vmsg_driver_poll(struct vmsg_driver *driver);

/* Handles an event from the device. Called by the bus. */
void vmsg_driver_handle(struct vmsg_driver *driver, const struct vmsg_msg *msg);

/* The device is no longer there. Called by the bus; `gone` is called once. */
void vmsg_driver_lost(struct vmsg_driver *driver);

/* Sends what the driver owes. False when room ran out. For the bus. */
bool vmsg_driver_flush(struct vmsg_driver *driver);

#endif
