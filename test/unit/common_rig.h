/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A test bench for the device role: a bus that writes down what is sent, a device model whose
 * behaviour is set by fields, and a scripted driver in raw messages. Everything the device sends is
 * checked on the spot for what holds of any message: its length, its reserved bits, its limits.
 */
#ifndef TEST_COMMON_RIG_H
#define TEST_COMMON_RIG_H

#include <vmsg/device.h>

#define RIG_DEV	     5 /* the device number used where one is enough */
#define RIG_FRAMES   64
#define RIG_BYTES    1024 /* of a frame */
#define RIG_QUEUES   4	  /* 0: size 8, 1: size 16, 2: absent, 3: size 8 (administration) */
#define RIG_CONFIG   24
#define RIG_RAM	     UINT64_C(0x40000000) /* the driver's memory, as an address */
#define RIG_RAM_SIZE 0x10000u
#define RIG_SHM_ID   3

struct rig_frame {
	uint32_t len;
	uint8_t bytes[RIG_BYTES];
};

struct rig_device {
	struct vmsg_device device; /* first */
	uint8_t config[RIG_CONFIG];
	struct vmsg_vq_device vqs[RIG_QUEUES];
	struct vmsg_shm shm;

	/* How it behaves. */
	int reset_result, start_result, configure_result, reset_vq_result;
	bool serves; /* gives back on a kick what it finds, else leaves it */
	bool keeps;  /* takes chains on a kick, and keeps them */
	uint32_t resets, starts, kicks, resets_vq, served;
	uint32_t last_kick;
	struct vmsg_iov iov[16];
	struct vmsg_chain kept[8];
	uint32_t kept_count;
};

struct rig {
	struct vmsg_bus bus; /* first */
	uint8_t frame[RIG_BYTES];
	struct rig_frame sent[RIG_FRAMES];
	uint32_t sent_count;
	uint32_t room; /* sends that still find room */
	bool down;     /* there is no peer */
	uint32_t bells;
	uint32_t bell_vq; /* the last one */
	int bell_result;
	uint16_t token;
	uint16_t dev_num; /* whom rig_call() addresses */
	struct rig_device model;
};

extern uint8_t rig_ram[RIG_RAM_SIZE];
extern const struct vmsg_mem rig_mem;

/* A bus without doorbells; max_msg_size 0: 264. One device, number RIG_DEV, its ADDED forgotten. */
void rig_init(struct rig *rig, enum vmsg_dialect dialect, uint32_t features, uint16_t max_msg_size);

/* The same with doorbells. */
void rig_init_bells(struct rig *rig, enum vmsg_dialect dialect);

/* A fresh model: split and packed, features 5 and 40 and what the core adds. Not yet added. */
void rig_device_init(struct rig_device *model);

/* Gives bytes to the device side as they are; what was sent before is forgotten. */
int rig_raw(struct rig *rig, const void *buf, uint32_t len);

/* The same for bytes in hexadecimal, then CHECKs that nothing came and the device still answers. */
void rig_quiet(struct rig *rig, const void *buf, uint32_t len);

/* Encodes and gives a message with a new token, to rig->dev_num. */
int rig_send(struct rig *rig, struct vmsg_msg *msg);

/* The same for a request; CHECKs that one answer came and that its header fits. Its tail is in
 * rig->sent, valid until the next call. */
struct vmsg_msg rig_call(struct rig *rig, struct vmsg_msg msg);

/* How many messages of this type and id were sent since the last call; the last one to *msg. */
uint32_t rig_count(const struct rig *rig, uint8_t type, uint8_t msg_id, struct vmsg_msg *msg);
void rig_forget(struct rig *rig);

/* ---- The scripted driver ---- */

uint32_t rig_status(struct rig *rig);
uint32_t rig_set_status(struct rig *rig, uint32_t status);
uint64_t rig_features(struct rig *rig);
void rig_set_features(struct rig *rig, uint64_t features);
struct vmsg_msg rig_get_vqueue(struct rig *rig, uint32_t index);

/* SET_VQUEUE: `size`, and three good addresses that belong to this index. */
void rig_set_vqueue(struct rig *rig, uint32_t index, uint32_t flags, uint32_t size);
struct vmsg_msg rig_vqueue(uint32_t index, uint32_t flags, uint32_t size);
void rig_avail(struct rig *rig, uint32_t index);

/* Reset to FEATURES_OK with VERSION_1 and these. */
void rig_negotiate(struct rig *rig, uint64_t features);

/* The same, queue 0 of size 8 set up, DRIVER_OK. */
void rig_start(struct rig *rig, uint64_t features);

/* The driver's end of queue `index` as rig_set_vqueue() placed it, and one buffer into it. */
void rig_vq_open(struct vmsg_vq_driver *vq, struct vmsg_vq_state *state, uint32_t index,
		 uint16_t size, uint64_t features);
void rig_vq_add(struct vmsg_vq_driver *vq);

#endif
