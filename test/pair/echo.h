/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that turns what it reads into what it writes, and a driver that knows what that must
 * give. Two queues. The config: a word that the driver may write, the number of the version, and
 * bytes that all follow from that number, so that a torn read is seen.
 */
#ifndef TEST_PAIR_ECHO_H
#define TEST_PAIR_ECHO_H

#include "pair.h"

#define ECHO_DEV       1
#define ECHO_DEVICE_ID 0x7fu
#define ECHO_QUEUES    2u
#define ECHO_SIZE      8u /* of a queue */
#define ECHO_CONFIG    100u
#define ECHO_WRITABLE  4u  /* its first bytes */
#define ECHO_PARTS     8u  /* buffers of a request, at most: a chain is no longer than a queue */
#define ECHO_PART      96u /* bytes of one, at most */

struct echo_work {
	uint32_t vq_index;
	struct vmsg_chain chain;
	struct vmsg_iov iov[ECHO_PARTS];
};

struct echo_device {
	struct vmsg_device device; /* first */
	uint8_t config[ECHO_CONFIG];
	struct vmsg_vq_device vqs[ECHO_QUEUES];
	bool async;    /* completes in echo_tick() */
	bool in_order; /* in the order taken */
	bool waits;    /* a reset waits for what was taken; else that is dropped */
	bool fails;    /* gives up on the driver at the next kick */
	bool stopped;  /* taking, for want of room */
	bool resetting, resetting_vq[ECHO_QUEUES];
	struct echo_work work[ECHO_QUEUES * ECHO_SIZE];
	uint32_t work_count;
	uint32_t version;
	uint32_t served;
	uint32_t dice;
};

struct echo_request {
	bool busy;
	uint32_t vq_index, id;
	uint16_t readable_count, writable_count;
	uint32_t readable_bytes, writable_bytes;
	struct vmsg_buf bufs[ECHO_PARTS];
	uint8_t *ptr; /* ECHO_PARTS * ECHO_PART bytes */
	uint64_t addr;
};

struct echo_driver {
	struct vmsg_driver driver; /* first */
	struct pair *pair;
	struct vmsg_vq_driver vqs[ECHO_QUEUES];
	struct vmsg_vq_state state[ECHO_QUEUES][ECHO_SIZE];
	struct echo_request requests[ECHO_QUEUES][ECHO_SIZE];
	uint32_t next_id, submitted, completed;
	uint32_t config_events, gone;
	uint32_t dice;
	bool stale_config; /* EVENT_CONFIG came */
	bool broken;
};

/* ---- The device ---- */

void echo_device_init(struct echo_device *echo, struct pair *pair);

/* Does one thing that was put off, if there is one. */
void echo_tick(struct echo_device *echo);

/* A new version of the config. */
void echo_change(struct echo_device *echo);

/* ---- The driver ---- */

void echo_driver_init(struct echo_driver *echo, struct pair *pair);

/* From enumeration to DRIVER_OK. 0 or what failed; what came back was CHECKed. */
int echo_start(struct echo_driver *echo);

/* Its parts, for those who do something in between. */
int echo_begin(struct echo_driver *echo, uint64_t more_features); /* to FEATURES_OK */
int echo_setup(struct echo_driver *echo);			  /* queues, DRIVER_OK */

/* Reads the config whole and CHECKs that it is of one piece; its version, or an error. */
int echo_read_config(struct echo_driver *echo);

/* Adds one request to a queue and publishes it. False when there is no room. */
bool echo_submit(struct echo_driver *echo, uint32_t vq_index);

/* Takes back, without checking, what a reset left in the driver's hands. */
void echo_drain(struct echo_driver *echo, uint32_t vq_index);

/* `count` requests through both queues, several in flight, every byte compared. */
void echo_transfer(struct echo_driver *echo, struct echo_device *device, uint32_t count);

/* How often echo_transfer() had to look by itself since something was lost. */
extern uint32_t echo_rescues;

uint32_t echo_dice(uint32_t *dice);

#endif
