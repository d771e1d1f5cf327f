/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Consoles, device type 3 (virtio 1.4, 5.3), one port: queue 0 receives (towards the driver),
 * queue 1 transmits. The device model and the driver.
 */
#ifndef VMSG_CONSOLE_H
#define VMSG_CONSOLE_H

#include <vmsg/device.h>
#include <vmsg/driver.h>

#define VMSG_CONSOLE_DEVICE_ID 3u

/* Feature bit numbers. */
#define VMSG_CONSOLE_F_SIZE        0
#define VMSG_CONSOLE_F_MULTIPORT   1
#define VMSG_CONSOLE_F_EMERG_WRITE 2

#define VMSG_CONSOLE_RX 0u
#define VMSG_CONSOLE_TX 1u

/* Config space, byte offsets. */
#define VMSG_CONSOLE_CONFIG_COLS  0u
#define VMSG_CONSOLE_CONFIG_ROWS  2u
#define VMSG_CONSOLE_CONFIG_PORTS 4u
#define VMSG_CONSOLE_CONFIG_EMERG 8u
#define VMSG_CONSOLE_CONFIG_BYTES 12u

#define VMSG_CONSOLE_QUEUE_SIZE 64u
#define VMSG_CONSOLE_TURN_BYTES 65536u /* one turn moves this much, then lets others run */

/* ---- What a console stands on ---- */

/* A constant table. Neither function sleeps. */
struct vmsg_console_backend {
	const char *name;
	/*
	 * Takes up to len bytes and returns how many; VMSG_ERR_AGAIN: none now. Errors drop them.
	 */
	int (*write)(void *backend, const uint8_t *ptr, uint32_t len);
	/* Gives up to len bytes; VMSG_ERR_AGAIN, or 0: none now. */
	int (*read)(void *backend, uint8_t *ptr, uint32_t len);
};

/* ---- The device ---- */

/* One direction. */
struct vmsg_console_way {
	struct vmsg_chain chain;
	struct vmsg_iov iov[VMSG_CONSOLE_QUEUE_SIZE];
	size_t offset; /* bytes of the chain that are through */
	bool holding;  /* a chain was popped and waits for the backend */
	bool cut_off;  /* the last turn ended by its budget, not by the backend */
};

struct vmsg_console {
	struct vmsg_device device; /* first; mem, split, packed set before init */

	/* Set before vmsg_console_init(). */
	const struct vmsg_console_backend *backend;
	void *backend_data;
	uint16_t cols, rows; /* 0: size unknown, the feature is still offered */
	void *user;

	/* To be read. */
	uint64_t received_bytes, transmitted_bytes; /* as the driver sees it */
	uint64_t dropped_bytes; /* transmitted, but the backend failed */
	/* What the backend should be watched for now; then call vmsg_console_ready(). */
	bool wants_input;  /* the driver has given buffers */
	bool wants_output; /* the backend said AGAIN to output */

	/* Private to device/console.c. */
	struct vmsg_vq_device vqs[2];
	struct vmsg_console_way rx, tx;
	uint8_t config[VMSG_CONSOLE_CONFIG_BYTES];
};

/* Fills in the device and calls vmsg_device_init(). */
void vmsg_console_init(struct vmsg_console *console);

/* The backend has input, or room for output, or may have. */
void vmsg_console_ready(struct vmsg_console *console);

/* The window has a new size: the driver is told, if it knows about sizes. */
void vmsg_console_set_size(struct vmsg_console *console, uint16_t cols, uint16_t rows);

/* ---- The driver ---- */

#define VMSG_CONSOLE_DRIVER_BUFFERS 8u /* per direction */

struct vmsg_console_buffer {
	uint8_t *ptr;
	uint64_t addr;
	bool busy; /* the device has it */
};

struct vmsg_console_driver {
	struct vmsg_driver driver; /* first; split, packed set before start */

	/* Set before vmsg_console_driver_start(); init gives the defaults. */
	struct vmsg_arena *arena; /* for queues and buffers: start takes from its beginning */
	uint32_t buffer_bytes;    /* 512 */
	/* Bytes came; data is a private copy, valid until this returns. */
	void (*received)(struct vmsg_console_driver *console, const uint8_t *data, uint32_t len);
	/* There is room again after a send that did not take all. May be NULL. */
	void (*writable)(struct vmsg_console_driver *console);
	/* The size may have changed: read it soon, not in here. May be NULL. */
	void (*resized)(struct vmsg_console_driver *console);
	/* The device is gone. May be NULL. */
	void (*lost)(struct vmsg_console_driver *console);
	void *user;

	/* To be read. */
	bool failed; /* the device broke the rules: start again */

	/* Private to driver/console.c. */
	struct vmsg_vq_driver vqs[2];
	struct vmsg_vq_state states[2][VMSG_CONSOLE_DRIVER_BUFFERS];
	struct vmsg_console_buffer rx[VMSG_CONSOLE_DRIVER_BUFFERS];
	struct vmsg_console_buffer tx[VMSG_CONSOLE_DRIVER_BUFFERS];
	bool paused, wants_room;
	uint32_t kicked_ms;         /* transmit: when the device last showed life */
	uint32_t rx_ms, rx_wait_ms; /* receive: last kick, and how long until the next */
};

void vmsg_console_driver_init(struct vmsg_console_driver *console, struct vmsg_bus *bus,
			      uint16_t dev_num);

/* From reset to DRIVER_OK, with all receive buffers posted. Blocks. VMSG_ERR_NODEV: no console. */
int vmsg_console_driver_start(struct vmsg_console_driver *console);

/* Copies up to len bytes out and returns how many, 0 when there is no room now; or an error. */
int vmsg_console_driver_send(struct vmsg_console_driver *console, const void *data, uint32_t len);

/* True when everything sent was taken by the device. */
bool vmsg_console_driver_sent(const struct vmsg_console_driver *console);

/* While paused nothing is received: the device keeps its input. */
void vmsg_console_driver_pause(struct vmsg_console_driver *console, bool paused);

/*
 * Takes in what has come, and rings again now and then. Call in turn with the bus. 0 or an error.
 */
int vmsg_console_driver_poll(struct vmsg_console_driver *console);

/* The window size; VMSG_ERR_NOTSUP when the device does not tell. Blocks. */
int vmsg_console_driver_size(struct vmsg_console_driver *console, uint16_t *cols, uint16_t *rows);

/* Writes one character by way of the config space; works from identify on. Blocks. */
int vmsg_console_driver_emergency(struct vmsg_console_driver *console, char c);

#endif
