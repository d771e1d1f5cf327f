/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A test bench for the driver role: a bus with a scripted device behind it. The device answers as a
 * good one of its dialect would; a hook changes or swallows single answers. It shares no code with
 * the device role but the codec. Everything the driver sends is written down, and checked on the
 * spot for what holds of any message.
 */
#ifndef TEST_COMMON_FAKE_H
#define TEST_COMMON_FAKE_H

#include <vmsg/driver.h>

#define FAKE_DEV    5
#define FAKE_LOG    512
#define FAKE_BYTES  1024
#define FAKE_QUEUES 8

struct fake_frame {
	uint32_t len;
	uint8_t bytes[FAKE_BYTES];
	struct vmsg_msg msg; /* as the device reads it */
};

struct fake_vq {
	uint32_t max_size, size, flags;
	uint64_t desc_addr, driver_addr, device_addr;
};

struct fake {
	struct vmsg_bus bus; /* first: the driver's end */
	uint8_t frame[FAKE_BYTES];
	struct fake_frame log[FAKE_LOG];
	uint32_t log_count;
	struct fake_frame out[64]; /* what waits to be received by the driver */
	uint32_t out_count;
	uint32_t room; /* sends that still find room */
	bool down;     /* there is no peer */
	bool hold;     /* answers wait until released */
	uint32_t waits;
	uint32_t bells;
	int bell_result;

	/* The device. */
	enum vmsg_dialect dialect;
	uint32_t device_id, vendor_id, num_blocks, config_size, max_virtqueues;
	uint32_t admin_vq_start, admin_vq_count;
	uint8_t uuid[16];
	uint64_t offered, selected;
	uint32_t status, generation;
	uint32_t status_mask; /* bits that it is able to set */
	uint32_t reset_polls; /* so often it is still busy with a reset */
	uint8_t config[300];
	struct fake_vq vqs[FAKE_QUEUES];
	/* Changes *reply, or returns false: there is none. NULL: nothing to change. */
	bool (*hook)(struct fake *fake, const struct vmsg_msg *msg, struct vmsg_msg *reply);
	uint32_t swallow;   /* requests of the id below that get no answer */
	uint8_t swallow_id; /* 0: any */
	uint32_t count;	    /* for hooks */
};

/* driver_dialect may be AUTO; max_msg_size 0: 264. */
void fake_init(struct fake *fake, enum vmsg_dialect device_dialect,
	       enum vmsg_dialect driver_dialect, uint32_t features, uint16_t max_msg_size);
void fake_use_bells(struct fake *fake);

/* Hands what waits to the driver. */
void fake_deliver(struct fake *fake);

/* Queues any message for the driver; msg->dev_num and token as given. */
void fake_say(struct fake *fake, const struct vmsg_msg *msg);
void fake_say_raw(struct fake *fake, const void *buf, uint32_t len);

/* The device says it and the driver receives it at once. */
void fake_used(struct fake *fake, uint32_t vq_index);
void fake_config_event(struct fake *fake, uint32_t offset, uint32_t length, const void *data);

/* How many messages of this type and id the driver sent; the last one to *msg. */
uint32_t fake_count(const struct fake *fake, uint8_t type, uint8_t msg_id, struct vmsg_msg *msg);
void fake_forget(struct fake *fake);

/* ---- A driver with what it needs, for tests that start from a running one ---- */

#define FAKE_SHARED UINT64_C(0x1000)

struct fake_user {
	struct vmsg_driver driver; /* first */
	struct vmsg_vq_driver vqs[4];
	struct vmsg_vq_state state[4][64];
	struct vmsg_arena arena;
	uint32_t used, config_changed, gone;
	uint32_t last_used, last_status;
};

extern uint8_t fake_shared[0x20000];

/* Split and packed linked, four queues. */
void fake_user_init(struct fake_user *user, struct fake *fake);

/* From identify to DRIVER_OK with queue 0 of size 8; CHECKs that all of it works. */
void fake_user_start(struct fake_user *user, uint64_t wanted);
int fake_user_setup(struct fake_user *user, uint32_t index, uint16_t size);

#endif
