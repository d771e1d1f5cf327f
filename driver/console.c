/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The console driver (virtio 1.4, 5.3), one port. A fixed set of buffers per direction: those for
 * receiving are with the device whenever we are not paused, those for sending when full.
 */
#include <vmsg/console.h>
#include <vmsg/port.h>

#define COPY_BYTES    256u /* handed to received() at a time */
#define REKICK_MS     100u
#define REKICK_MAX_MS (60u * 1000)

static struct vmsg_console_driver *to_console(struct vmsg_driver *driver)
{
	return (struct vmsg_console_driver *)driver;
}

static bool usable(const struct vmsg_console_driver *console)
{
	return console->driver.started && !console->driver.gone && !console->failed &&
	       !console->driver.needs_reset;
}

/* Gives one buffer, len bytes of it, to the device. */
static void add(struct vmsg_console_driver *console, uint32_t vq_index,
		struct vmsg_console_buffer *buffer, uint32_t len)
{
	struct vmsg_buf buf = { buffer->addr, len };
	bool rx = vq_index == VMSG_CONSOLE_RX;

	/* There are as many buffers as the queue has places, so only a broken queue says no. */
	if (vmsg_vq_add(&console->vqs[vq_index], &buf, !rx, rx, buffer) == 0)
		buffer->busy = true;
	else
		console->failed = true;
}

static void kick_rx(struct vmsg_console_driver *console)
{
	console->rx_ms = console->driver.bus->now_ms;
	console->rx_wait_ms = REKICK_MS;
	vmsg_driver_kick(&console->driver, VMSG_CONSOLE_RX);
}

/* A copy, as the device could still write to its buffer. */
static void deliver(struct vmsg_console_driver *console, const uint8_t *data, uint32_t len)
{
	uint8_t copy[COPY_BYTES];

	VMSG_CACHE_INVALIDATE(data, len);
	for (uint32_t at = 0; at < len; at += COPY_BYTES) {
		uint32_t piece = len - at < COPY_BYTES ? len - at : COPY_BYTES;

		memcpy(copy, data + at, piece);
		if (console->received)
			console->received(console, copy, piece);
	}
}

static void receive(struct vmsg_console_driver *console)
{
	struct vmsg_vq_driver *vq = &console->vqs[VMSG_CONSOLE_RX];
	bool any = false;
	uint32_t written;
	void *cookie;
	int rc = 0;

	/* At most one round of the buffers, so that a device cannot keep us here. */
	for (uint32_t i = 0; i < VMSG_CONSOLE_DRIVER_BUFFERS && !console->paused; i++) {
		struct vmsg_console_buffer *buffer;

		rc = vmsg_vq_get(vq, &cookie, &written);
		if (rc != 1)
			break;
		buffer = cookie;
		buffer->busy = false;
		deliver(console, buffer->ptr, written);
		add(console, VMSG_CONSOLE_RX, buffer, console->buffer_bytes);
		any = true;
	}
	if (rc < 0)
		console->failed = true;
	if (any && usable(console))
		kick_rx(console);
}

static void reclaim(struct vmsg_console_driver *console)
{
	struct vmsg_vq_driver *vq = &console->vqs[VMSG_CONSOLE_TX];
	bool any = false;
	uint32_t written;
	void *cookie;
	int rc;

	while ((rc = vmsg_vq_get(vq, &cookie, &written)) == 1) {
		((struct vmsg_console_buffer *)cookie)->busy = false;
		any = true;
	}
	if (rc < 0)
		console->failed = true;
	if (any && console->wants_room) {
		console->wants_room = false;
		if (console->writable)
			console->writable(console);
	}
}

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct vmsg_console_driver *console = to_console(driver);

	if (console->failed)
		return;
	if (vq_index == VMSG_CONSOLE_RX)
		receive(console);
	else
		reclaim(console);
}

static void config_changed(struct vmsg_driver *driver, uint32_t device_status)
{
	struct vmsg_console_driver *console = to_console(driver);

	(void)device_status;
	if (console->resized)
		console->resized(console);
}

static void gone(struct vmsg_driver *driver)
{
	struct vmsg_console_driver *console = to_console(driver);

	if (console->lost)
		console->lost(console);
}

static const struct vmsg_driver_ops ops = {
	.used = used,
	.config_changed = config_changed,
	.gone = gone,
};

void vmsg_console_driver_init(struct vmsg_console_driver *console, struct vmsg_bus *bus,
			      uint16_t dev_num)
{
	memset(console, 0, sizeof(*console));
	vmsg_driver_init(&console->driver, bus, dev_num, &ops);
	console->driver.vqs = console->vqs;
	console->driver.vq_count = 2;
	console->buffer_bytes = 512;
}

/* ---- Start ---- */

static int take_buffers(struct vmsg_console_driver *console, struct vmsg_console_buffer *buffers)
{
	for (uint32_t i = 0; i < VMSG_CONSOLE_DRIVER_BUFFERS; i++) {
		buffers[i].ptr = vmsg_arena_take(console->arena, console->buffer_bytes, 64,
						 &buffers[i].addr);
		buffers[i].busy = false;
		if (!buffers[i].ptr)
			return VMSG_ERR_NOMEM;
	}
	return 0;
}

static int setup_queue(struct vmsg_console_driver *console, uint32_t vq_index)
{
	return vmsg_driver_setup_vq(&console->driver, vq_index, VMSG_CONSOLE_DRIVER_BUFFERS, 0,
				    console->arena, console->states[vq_index]);
}

static int start_device(struct vmsg_console_driver *console)
{
	const uint64_t wanted = VMSG_BIT(VMSG_CONSOLE_F_SIZE) |
				VMSG_BIT(VMSG_CONSOLE_F_EMERG_WRITE) | VMSG_BIT(VMSG_F_EVENT_IDX) |
				VMSG_BIT(VMSG_F_RING_PACKED) | VMSG_BIT(VMSG_F_ACCESS_PLATFORM);
	int rc = vmsg_driver_negotiate(&console->driver, wanted);

	if (rc == 0)
		rc = setup_queue(console, VMSG_CONSOLE_RX);
	if (rc == 0)
		rc = setup_queue(console, VMSG_CONSOLE_TX);
	if (rc == 0)
		rc = take_buffers(console, console->rx);
	if (rc == 0)
		rc = take_buffers(console, console->tx);
	if (rc == 0)
		rc = vmsg_driver_ready(&console->driver);
	return rc;
}

int vmsg_console_driver_start(struct vmsg_console_driver *console)
{
	int rc;

	VMSG_ASSERT(console->arena && console->buffer_bytes);
	rc = vmsg_driver_identify(&console->driver);
	if (rc)
		return rc;
	if (console->driver.device_id != VMSG_CONSOLE_DEVICE_ID)
		return VMSG_ERR_NODEV;
	console->arena->used_bytes = 0;
	console->failed = console->wants_room = false;
	rc = start_device(console);
	if (rc) {
		if (!console->driver.gone)
			vmsg_driver_fail(&console->driver);
		return rc;
	}
	/* A device may have smaller queues than we have buffers. */
	for (uint32_t i = 0; i < console->vqs[VMSG_CONSOLE_RX].size; i++)
		add(console, VMSG_CONSOLE_RX, &console->rx[i], console->buffer_bytes);
	console->kicked_ms = console->driver.bus->now_ms;
	kick_rx(console);
	return 0;
}

/* ---- Use ---- */

int vmsg_console_driver_send(struct vmsg_console_driver *console, const void *data, uint32_t len)
{
	const uint8_t *from = data;
	uint32_t done = 0;

	if (!usable(console))
		return console->failed || console->driver.needs_reset ? VMSG_ERR_PROTO
								      : VMSG_ERR_SHUTDOWN;
	if (len > INT32_MAX)
		len = INT32_MAX;
	reclaim(console);
	for (uint32_t i = 0; i < console->vqs[VMSG_CONSOLE_TX].size && done < len; i++) {
		struct vmsg_console_buffer *buffer = &console->tx[i];
		uint32_t piece = len - done;

		if (buffer->busy)
			continue;
		if (piece > console->buffer_bytes)
			piece = console->buffer_bytes;
		memcpy(buffer->ptr, from + done, piece);
		VMSG_CACHE_CLEAN(buffer->ptr, piece);
		add(console, VMSG_CONSOLE_TX, buffer, piece);
		if (console->failed)
			return VMSG_ERR_PROTO;
		done += piece;
	}
	console->wants_room = done < len;
	if (done)
		vmsg_driver_kick(&console->driver, VMSG_CONSOLE_TX);
	return (int)done;
}

bool vmsg_console_driver_sent(const struct vmsg_console_driver *console)
{
	for (uint32_t i = 0; i < VMSG_CONSOLE_DRIVER_BUFFERS; i++) {
		if (console->tx[i].busy)
			return false;
	}
	return true;
}

void vmsg_console_driver_pause(struct vmsg_console_driver *console, bool paused)
{
	console->paused = paused;
	if (!paused && usable(console))
		receive(console);
}

/* A doorbell may have been lost. For input one may wait for ever, so ever more rarely. */
static void rekick(struct vmsg_console_driver *console, uint32_t now_ms)
{
	if (vmsg_console_driver_sent(console)) {
		console->kicked_ms = now_ms;
	} else if (now_ms - console->kicked_ms >= REKICK_MS) {
		console->kicked_ms = now_ms;
		vmsg_driver_kick_again(&console->driver, VMSG_CONSOLE_TX);
	}
	if (now_ms - console->rx_ms >= console->rx_wait_ms) {
		console->rx_ms = now_ms;
		if (console->rx_wait_ms < REKICK_MAX_MS)
			console->rx_wait_ms *= 2;
		vmsg_driver_kick_again(&console->driver, VMSG_CONSOLE_RX);
	}
}

int vmsg_console_driver_poll(struct vmsg_console_driver *console)
{
	struct vmsg_driver *driver = &console->driver;

	if (!driver->started || driver->gone)
		return VMSG_ERR_SHUTDOWN;
	vmsg_driver_poll(driver);
	if (!usable(console))
		return VMSG_ERR_PROTO;
	rekick(console, driver->bus->now_ms);
	return 0;
}

int vmsg_console_driver_size(struct vmsg_console_driver *console, uint16_t *cols, uint16_t *rows)
{
	uint8_t bytes[4];
	int rc;

	if (!vmsg_has(console->driver.features, VMSG_CONSOLE_F_SIZE))
		return VMSG_ERR_NOTSUP;
	rc = vmsg_driver_read_config(&console->driver, VMSG_CONSOLE_CONFIG_COLS, bytes,
				     sizeof(bytes));
	if (rc)
		return rc;
	*cols = vmsg_get16(bytes);
	*rows = vmsg_get16(bytes + 2);
	return 0;
}

int vmsg_console_driver_emergency(struct vmsg_console_driver *console, char c)
{
	uint8_t word[4] = { (uint8_t)c, 0, 0, 0 };

	return vmsg_driver_write_config(&console->driver, VMSG_CONSOLE_CONFIG_EMERG, word,
					sizeof(word));
}
