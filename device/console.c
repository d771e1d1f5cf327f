/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The console device (virtio 1.4, 5.3), one port. Nothing is buffered here: output leaves the
 * transmit queue as fast as the backend takes it, and input is read from the backend only when the
 * driver has given a buffer for it. So a popped chain may have to wait, one per direction.
 */
#include <vmsg/console.h>
#include <vmsg/port.h>

/* The piece of the chain's part [iov, iov + count) that starts `offset` bytes in. Empty: none. */
static struct vmsg_iov piece_at(const struct vmsg_iov *iov, uint16_t count, size_t offset)
{
	struct vmsg_iov piece = { NULL, 0 };

	for (uint16_t i = 0; i < count; i++) {
		if (offset < iov[i].len) {
			piece.ptr = iov[i].ptr + offset;
			piece.len = iov[i].len - offset;
			break;
		}
		offset -= iov[i].len;
	}
	return piece;
}

static uint32_t piece_bytes(const struct vmsg_iov *piece, uint32_t budget)
{
	return piece->len < budget ? (uint32_t)piece->len : budget;
}

/* The chain in hand, or the next one. False when there is none. */
static bool take(struct vmsg_console *console, uint32_t vq_index, struct vmsg_console_way *way)
{
	if (way->holding)
		return true;
	way->chain.iov = way->iov;
	way->chain.iov_max = VMSG_CONSOLE_QUEUE_SIZE;
	if (vmsg_device_pop(&console->device, vq_index, &way->chain) != 1)
		return false;
	way->offset = 0;
	way->holding = true;
	return true;
}

static void give(struct vmsg_console *console, uint32_t vq_index, struct vmsg_console_way *way)
{
	way->holding = false;
	vmsg_device_push(&console->device, vq_index, &way->chain,
			 vq_index == VMSG_CONSOLE_RX ? (uint32_t)way->offset : 0);
}

/* Hands on what is left of a transmitted chain. False when the backend or the budget ends first. */
static bool transmit_chain(struct vmsg_console *console, uint32_t *budget)
{
	struct vmsg_console_way *tx = &console->tx;

	for (;;) {
		struct vmsg_iov piece = piece_at(tx->iov, tx->chain.readable_count, tx->offset);
		uint32_t len = piece_bytes(&piece, *budget);
		int done;

		if (piece.len == 0)
			return true;
		if (len == 0)
			return false;
		VMSG_CACHE_INVALIDATE(piece.ptr, len);
		done = console->backend->write(console->backend_data, piece.ptr, len);
		if (done == VMSG_ERR_AGAIN || done == 0) {
			console->wants_output = true;
			return false;
		}
		VMSG_ASSERT(done < 0 || (uint32_t)done <= len);
		if (done < 0) {
			console->dropped_bytes += len;
			done = (int)len;
		} else {
			console->transmitted_bytes += (uint32_t)done;
		}
		tx->offset += (uint32_t)done;
		*budget -= (uint32_t)done;
	}
}

static void transmit(struct vmsg_console *console)
{
	uint32_t budget = VMSG_CONSOLE_TURN_BYTES;
	/* One more than can be there at once, as empty chains cost no budget. */
	uint32_t chains = VMSG_CONSOLE_QUEUE_SIZE + 1;
	bool any = false;

	console->wants_output = false;
	while (chains && take(console, VMSG_CONSOLE_TX, &console->tx)) {
		if (!transmit_chain(console, &budget))
			break;
		give(console, VMSG_CONSOLE_TX, &console->tx);
		chains--;
		any = true;
	}
	console->tx.cut_off = budget == 0 || chains == 0;
	if (console->tx.cut_off)
		console->device.more = true;
	if (any)
		vmsg_device_used(&console->device, VMSG_CONSOLE_TX);
}

/* Reads into the chain until it is full (true) or the backend has no more. */
static bool receive_chain(struct vmsg_console *console, uint32_t *budget)
{
	struct vmsg_console_way *rx = &console->rx;

	for (;;) {
		struct vmsg_iov piece = piece_at(rx->iov + rx->chain.readable_count,
						 rx->chain.writable_count, rx->offset);
		uint32_t len = piece_bytes(&piece, *budget);
		int got;

		if (piece.len == 0)
			return true;
		if (len == 0)
			return false;
		got = console->backend->read(console->backend_data, piece.ptr, len);
		if (got <= 0)
			return false;
		VMSG_ASSERT((uint32_t)got <= len);
		VMSG_CACHE_CLEAN(piece.ptr, (uint32_t)got);
		rx->offset += (uint32_t)got;
		console->received_bytes += (uint32_t)got;
		*budget -= (uint32_t)got;
	}
}

static void receive(struct vmsg_console *console)
{
	uint32_t budget = VMSG_CONSOLE_TURN_BYTES;
	uint32_t chains = VMSG_CONSOLE_QUEUE_SIZE + 1;
	bool any = false, full = true;

	while (chains && full && take(console, VMSG_CONSOLE_RX, &console->rx)) {
		full = receive_chain(console, &budget);
		/* A buffer with nothing in it waits for input; one without room goes back. */
		if (!full && console->rx.offset == 0)
			break;
		give(console, VMSG_CONSOLE_RX, &console->rx);
		chains--;
		any = true;
	}
	/* Having given back a part-filled one, hold the next: it shows that input is wanted. */
	console->wants_input = take(console, VMSG_CONSOLE_RX, &console->rx);
	console->rx.cut_off = budget == 0 || chains == 0;
	if (console->rx.cut_off)
		console->device.more = true;
	if (any)
		vmsg_device_used(&console->device, VMSG_CONSOLE_RX);
}

/* A chain in hand waits for the backend, about which a kick says nothing: no need to ask it. */
static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_console *console = (struct vmsg_console *)device;

	if (vq_index == VMSG_CONSOLE_RX) {
		if (!console->rx.holding || console->rx.cut_off)
			receive(console);
	} else if (!console->tx.holding || console->tx.cut_off) {
		transmit(console);
	}
}

void vmsg_console_ready(struct vmsg_console *console)
{
	if (!vmsg_device_live(&console->device))
		return;
	receive(console);
	transmit(console);
}

void vmsg_console_set_size(struct vmsg_console *console, uint16_t cols, uint16_t rows)
{
	if (console->cols == cols && console->rows == rows)
		return;
	console->cols = cols;
	console->rows = rows;
	vmsg_put16(console->config + VMSG_CONSOLE_CONFIG_COLS, cols);
	vmsg_put16(console->config + VMSG_CONSOLE_CONFIG_ROWS, rows);
	vmsg_device_config_changed(&console->device, VMSG_CONSOLE_CONFIG_COLS, 4);
}

/* Only the emergency write, one character at a time; it works before anything is negotiated. */
static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	struct vmsg_console *console = (struct vmsg_console *)device;
	const uint8_t *c = data;

	if (offset != VMSG_CONSOLE_CONFIG_EMERG || len > 4)
		return VMSG_ERR_INVAL;
	if (console->backend->write(console->backend_data, c, 1) == 1)
		console->transmitted_bytes++;
	else
		console->dropped_bytes++;
	return 0;
}

static int reset_vq(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_console *console = (struct vmsg_console *)device;

	if (vq_index == VMSG_CONSOLE_RX) {
		console->rx.holding = console->rx.cut_off = false;
		console->wants_input = false;
	} else {
		console->tx.holding = console->tx.cut_off = false;
		console->wants_output = false;
	}
	return 0;
}

static int reset(struct vmsg_device *device)
{
	reset_vq(device, VMSG_CONSOLE_RX);
	reset_vq(device, VMSG_CONSOLE_TX);
	return 0;
}

static const struct vmsg_device_ops ops = {
	.name = "console",
	.device_id = VMSG_CONSOLE_DEVICE_ID,
	.reset = reset,
	.configure = configure,
	.kick = kick,
	.reset_vq = reset_vq,
};

void vmsg_console_init(struct vmsg_console *console)
{
	struct vmsg_device *device = &console->device;

	VMSG_ASSERT(console->backend && console->backend->read && console->backend->write);
	memset(console->config, 0, sizeof(console->config));
	vmsg_put16(console->config + VMSG_CONSOLE_CONFIG_COLS, console->cols);
	vmsg_put16(console->config + VMSG_CONSOLE_CONFIG_ROWS, console->rows);
	vmsg_put32(console->config + VMSG_CONSOLE_CONFIG_PORTS, 1);
	console->vqs[VMSG_CONSOLE_RX].max_size = VMSG_CONSOLE_QUEUE_SIZE;
	console->vqs[VMSG_CONSOLE_TX].max_size = VMSG_CONSOLE_QUEUE_SIZE;
	device->ops = &ops;
	device->offered |= VMSG_BIT(VMSG_CONSOLE_F_SIZE) | VMSG_BIT(VMSG_CONSOLE_F_EMERG_WRITE);
	device->config = console->config;
	device->config_size = sizeof(console->config);
	device->vqs = console->vqs;
	device->vq_count = 2;
	reset(device);
	vmsg_device_init(device);
}
