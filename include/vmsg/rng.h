/* SPDX-License-Identifier: BSD-3-Clause */
/* Entropy devices, device type 4 (virtio 1.4, 5.4): the device model and the driver. */
#ifndef VMSG_RNG_H
#define VMSG_RNG_H

#include <vmsg/device.h>
#include <vmsg/driver.h>

#define VMSG_RNG_DEVICE_ID  4u
#define VMSG_RNG_QUEUE_SIZE 16u
#define VMSG_RNG_TURN_BYTES 65536u /* one kick works for this much, then lets others run */

/* ---- The device ---- */

struct vmsg_rng {
	struct vmsg_device device; /* first; mem, split, packed set before init */

	/*
	 * Set before vmsg_rng_init(). fill writes up to len random bytes to ptr and returns how
	 * many; VMSG_ERR_AGAIN when there are none now, another error when there will be none. It
	 * never sleeps. len is at most VMSG_RNG_TURN_BYTES.
	 */
	int (*fill)(void *source, uint8_t *ptr, uint32_t len);
	void *source;

	/* To be read. */
	uint64_t filled_bytes;
	uint32_t empty_chains; /* that had no room for a byte */

	/* Private to device/rng.c. */
	struct vmsg_vq_device vq;
	struct vmsg_iov iov[VMSG_RNG_QUEUE_SIZE];
	struct vmsg_chain chain;
	bool holding; /* a chain that waits for the source */
};

/*
 * Fills in the device and calls vmsg_device_init(). When the source has nothing, buffers wait until
 * the next vmsg_device_poll().
 */
void vmsg_rng_init(struct vmsg_rng *rng);

/* ---- The driver ---- */

#define VMSG_RNG_DRIVER_QUEUE_SIZE 4u

struct vmsg_rng_driver {
	struct vmsg_driver driver; /* first; split, packed set before start */

	/* Set before vmsg_rng_driver_start(); init gives the defaults. */
	struct vmsg_arena *arena; /* for the queue and the buffer: start takes from its beginning */
	uint32_t buffer_bytes;    /* 4096: what is asked for at a time */
	void *user;

	/* To be read. */
	bool failed;        /* the device broke the rules: start again */
	uint32_t nonsense;  /* empty answers */

	/* Private to driver/rng.c. */
	struct vmsg_vq_driver vq;
	struct vmsg_vq_state state[VMSG_RNG_DRIVER_QUEUE_SIZE];
	uint8_t *buffer;
	uint64_t buffer_addr;
	uint32_t ready_bytes, taken_bytes;
	uint32_t asked_ms;
	bool asked;
};

void vmsg_rng_driver_init(struct vmsg_rng_driver *rng, struct vmsg_bus *bus, uint16_t dev_num);

/* From reset to DRIVER_OK. Blocks. VMSG_ERR_NODEV: nothing there, or no entropy device. */
int vmsg_rng_driver_start(struct vmsg_rng_driver *rng);

/*
 * Takes up to len random bytes that have arrived, and asks the device for more when they are used
 * up. The number taken; VMSG_ERR_AGAIN: none yet; VMSG_ERR_PROTO, VMSG_ERR_SHUTDOWN. Never blocks.
 */
int vmsg_rng_driver_take(struct vmsg_rng_driver *rng, void *buf, uint32_t len);

/*
 * len random bytes, or an error, or VMSG_ERR_TIMEDOUT when timeout_ms passed without a new byte.
 * Blocks. On an error buf holds nothing of use.
 */
int vmsg_rng_driver_read(struct vmsg_rng_driver *rng, void *buf, uint32_t len,
			 uint32_t timeout_ms);

#endif
