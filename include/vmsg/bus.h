/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bus carries messages to and from one peer and knows who is dev_num N (wire.md 3.1).
 *
 * A struct vmsg_bus is one side of it: it offers devices, or it uses them. A peer that does both
 * opens two. An implementation (bus/loop.c, bus/amp.c, ...) embeds the struct as its first member,
 * fills in the operations and limits, and calls vmsg_bus_receive() for each frame that arrives and
 * vmsg_bus_flush() whenever there is room again.
 *
 * Flow control (design.md 6). Device side: while a reply is held because the bus was full,
 * vmsg_bus_receive() returns VMSG_ERR_AGAIN and the bus stops reading. Driver side: never stops
 * reading. Events that find no room cost one bit each and are sent by a later flush.
 */
#ifndef VMSG_BUS_H
#define VMSG_BUS_H

#include <vmsg/msg.h>

struct vmsg_bus;
struct vmsg_device;
struct vmsg_driver;
struct vmsg_request;

struct vmsg_bus_ops {
	const char *name;
	/*
	 * Takes the whole frame now, or VMSG_ERR_AGAIN when there is no room, or VMSG_ERR_SHUTDOWN
	 * when there is no peer. Never sleeps, never calls back into the core.
	 */
	int (*send)(struct vmsg_bus *bus, const void *buf, uint32_t len);
	/*
	 * The out-of-band doorbell for one virtqueue: "available" from the driver side, "used" from
	 * the device side. 0; VMSG_ERR_NOTSUP when this one must travel as a message;
	 * VMSG_ERR_SHUTDOWN. NULL when all events travel as messages. A bus that has it carries no
	 * NOTIFICATION_DATA, so the feature is then neither offered nor accepted (BUS-51).
	 */
	int (*notify)(struct vmsg_bus *bus, uint16_t dev_num, uint32_t vq_index);
	/*
	 * Driver side. Receives what has arrived, feeding it to vmsg_bus_receive(); if nothing had,
	 * sleeps up to ms milliseconds for more. Brings bus->now_ms up to date. 0, or
	 * VMSG_ERR_SHUTDOWN when the peer is gone for good. Every call that received nothing must
	 * advance now_ms sooner or later: timeouts count on it.
	 */
	int (*wait)(struct vmsg_bus *bus, uint32_t ms);
};

/* What went wrong or was dropped, since init. Never reset by the library. */
struct vmsg_bus_counters {
	uint32_t received;       /* frames taken */
	uint32_t sent;           /* frames handed to the carrier */
	uint32_t malformed;      /* bad header, size, count or direction: dropped */
	uint32_t unknown;        /* message kinds we do not know: dropped */
	uint32_t no_device;      /* for a device number that is not here */
	uint32_t stray;          /* responses nobody waits for */
	uint32_t held;           /* replies that had to wait for room */
	uint32_t pings_dropped;  /* PINGs that came while an answer to one was held */
	uint32_t events_delayed; /* events that had to wait for room */
	uint32_t send_failed;    /* frames lost because the peer was not there */
	uint32_t timeouts;       /* requests without an answer */
};

/* Tolerances for peers in the field (peers.md 5); bits of vmsg_bus.quirks. */
#define VMSG_QUIRK_NO_ECHO        0x1u /* driver side: the device does not echo tokens */
#define VMSG_QUIRK_ANY_GENERATION 0x2u /* device side: v1 SET_CONFIG is never refused */

/* How the two sides differ; one constant table each, in core/bus_device.c and bus_driver.c. */
struct vmsg_bus_side {
	bool stops_reading; /* while a reply is held */
	/* Anything but a PING. msg may be turned into its own reply. */
	void (*handle)(struct vmsg_bus *bus, struct vmsg_msg *msg);
	bool (*flush)(struct vmsg_bus *bus); /* sends pending events; false when room ran out */
};

struct vmsg_bus {
	/* Set by the bus implementation. */
	const struct vmsg_bus_ops *ops;
	uint8_t *frame;        /* room for one message, max_msg_size bytes */
	uint16_t max_msg_size; /* bytes, both directions; at least VMSG_MSG_MIN_* of the dialect */
	uint32_t now_ms;       /* a clock that may wrap; written before receive and by wait */

	/* Set by vmsg_bus_init_*(). */
	const struct vmsg_bus_side *side;
	uint8_t dialect;  /* enum vmsg_dialect */
	uint8_t revision; /* 1 */
	uint8_t quirks;   /* VMSG_QUIRK_*; may be changed before the first message */
	bool pending; /* private to the core: some event waits for room */
	bool busy;    /* private: inside vmsg_bus_receive, flush waits for its end */
	uint32_t features; /* transport features that both sides have */
	struct vmsg_bus_counters counters;

	/* Called with every frame taken or sent, when not NULL. */
	void (*trace)(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len);
	/* Driver side: EVENT_DEVICE arrived (state VMSG_DEVICE_*), when not NULL. */
	void (*device_event)(struct vmsg_bus *bus, uint16_t dev_num, uint32_t state);
	/* Driver side, dialect AUTO: set this to vmsg_msg_learn before init, to have it linked. */
	enum vmsg_dialect (*learn)(const void *buf, uint32_t len);
	void *user; /* the owner's, untouched */

	/* Private to the core. */
	struct vmsg_device *devices;
	struct vmsg_driver *drivers;
	struct vmsg_request *requests;
	uint8_t *reply;      /* where replies are made: frame (device side) or ping (driver side) */
	uint32_t held_bytes; /* a reply waits there for room */
	uint16_t next_token;
	uint8_t ping[12]; /* the only message that the driver side replies to */
};

/*
 * Device side. ops, frame and max_msg_size are set before; dialect is not AUTO; features are the
 * transport features in force. Asserts that max_msg_size is legal for the dialect.
 */
void vmsg_bus_init_device(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features);

/* Driver side. dialect may be AUTO: it is then learned from the first answers (wire.md 5). */
void vmsg_bus_init_driver(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features);

/*
 * One frame from the peer; len is what the carrier knows to be there (a slot, or the frame).
 * 0: taken (which says nothing about its contents: faults are counted). VMSG_ERR_AGAIN: not taken,
 * because a reply is held; flush first, then offer the same frame again.
 */
int vmsg_bus_receive(struct vmsg_bus *bus, const void *buf, uint32_t len);

/* Sends what waits for room. True when nothing waits any more. */
bool vmsg_bus_flush(struct vmsg_bus *bus);

/* True while the device side must not be given frames. */
static inline bool vmsg_bus_holds(const struct vmsg_bus *bus)
{
	return bus->held_bytes != 0;
}

/* ---- Device side ---- */

/*
 * Offers `device` under `dev_num` (unique on this bus; BUS-18) and owes the driver side an ADDED
 * event. Initialise the device first. VMSG_ERR_BUSY when the number is taken.
 */
int vmsg_bus_add(struct vmsg_bus *bus, struct vmsg_device *device, uint16_t dev_num);

/*
 * Takes the device back: no request reaches it any more, its virtqueues are forgotten, and the
 * driver side is owed one REMOVED event. The struct must live until vmsg_bus_flush() has returned
 * true. Stop the device model's own I/O first. Do not hand out the number again soon (BUS-19).
 */
void vmsg_bus_remove(struct vmsg_bus *bus, struct vmsg_device *device);

/* The peer is gone or has started anew: every device is reset to status 0, nothing is owed. */
void vmsg_bus_peer_reset(struct vmsg_bus *bus);

/* ---- Driver side: requests ---- */

/*
 * One request in flight. Owned by the caller from start to done; zero it before the first use.
 * Several may be in flight, also for one device; each is matched by its token (by device and id
 * where the dialect has none, then one of a kind at a time).
 */
struct vmsg_request {
	struct vmsg_request *next;
	uint16_t dev_num, token;
	uint8_t type, msg_id;
	bool waiting;
	uint32_t since_ms, timeout_ms;
	/* Room for the answer's tail, set before start; may be NULL. */
	void *tail;
	uint32_t tail_size;
	/* Called once when done, when not NULL. It may start other requests. */
	void (*done)(struct vmsg_request *request);
	/*
	 * The outcome, once waiting is false: 0; VMSG_ERR_TIMEDOUT; VMSG_ERR_SHUTDOWN;
	 * VMSG_ERR_MSGSIZE when the tail had no room. reply.tail then points to `tail`.
	 */
	int result;
	struct vmsg_msg reply;
	void *user;
};

/*
 * Sends msg (a request; token is filled in) and returns at once. 0: in flight, or already done.
 * VMSG_ERR_AGAIN: no room, or the dialect allows no second one of this kind: nothing was started.
 * VMSG_ERR_MSGSIZE: larger than the bus carries. VMSG_ERR_SHUTDOWN: no peer.
 */
int vmsg_request_start(struct vmsg_bus *bus, struct vmsg_request *request,
		       const struct vmsg_msg *msg, uint32_t timeout_ms);

/* Forgets a request; its answer, should it come, is a stray. */
void vmsg_request_cancel(struct vmsg_bus *bus, struct vmsg_request *request);

/* Ends what has waited longer than its time by bus->now_ms. Call now and then. */
void vmsg_request_expire(struct vmsg_bus *bus);

/* Starts and waits for the end; blocks for at most timeout_ms. The result of the request. */
int vmsg_request_call(struct vmsg_bus *bus, struct vmsg_request *request,
		      const struct vmsg_msg *msg, uint32_t timeout_ms);

/*
 * Asks for the device numbers, window by window. bitmap has room for `slots` bits (a multiple of 8,
 * at most 65536), bit n%8 of byte n/8 is device n. Blocks. The number of devices found, or an
 * error; VMSG_ERR_TIMEDOUT is what a bus without GET_DEVICES gives.
 */
int vmsg_bus_get_devices(struct vmsg_bus *bus, uint8_t *bitmap, uint32_t slots,
			 uint32_t timeout_ms);

/* Sends PING and waits for its echo. Blocks. */
int vmsg_bus_ping(struct vmsg_bus *bus, uint32_t data, uint32_t timeout_ms);

/* Ends every request with VMSG_ERR_SHUTDOWN and tells every driver that its device is gone. */
void vmsg_bus_peer_gone(struct vmsg_bus *bus);

/* ---- For the core and for tests ---- */

/* Encodes and sends one message that is not a reply. Results as of send. */
int vmsg_bus_send(struct vmsg_bus *bus, const struct vmsg_msg *msg, void *buf, uint32_t size);

/* How many bytes of a tail fit into a message, behind the header and fixed_bytes of fields. */
uint32_t vmsg_bus_room(const struct vmsg_bus *bus, uint32_t fixed_bytes);

/* Sends bytes, counting and tracing them. */
int vmsg_bus_send_frame(struct vmsg_bus *bus, const void *buf, uint32_t len);

/*
 * Makes msg, a request or what it has become, into the reply and sends it, or holds it until there
 * is room. Only while none is held.
 */
void vmsg_bus_reply(struct vmsg_bus *bus, struct vmsg_msg *msg);

/* The part of init that both sides share. */
void vmsg_bus_init_common(struct vmsg_bus *bus, enum vmsg_dialect dialect, uint32_t features,
			  const struct vmsg_bus_side *side);

#endif
