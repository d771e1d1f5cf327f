/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The entropy driver (virtio 1.4, 5.4). One buffer goes to and fro. The virtqueue has checked that
 * the device claims no more than the buffer holds; less than one byte is nonsense, too.
 */
#include <vmsg/port.h>
#include <vmsg/rng.h>

#define NONSENSE_MAX  16u /* empty answers in a row until the device has failed */
#define WAIT_SLICE_MS 10u
#define REKICK_MS     100u

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct vmsg_rng_driver *rng = (struct vmsg_rng_driver *)driver;
	uint32_t written;
	void *cookie;
	int rc = vmsg_vq_get(&rng->vq, &cookie, &written);

	(void)vq_index;
	if (rc < 0)
		rng->failed = true;
	if (rc != 1)
		return;
	rng->asked = false;
	rng->ready_bytes = written;
	rng->taken_bytes = 0;
	rng->nonsense = written ? 0 : rng->nonsense + 1;
	if (rng->nonsense == NONSENSE_MAX)
		rng->failed = true;
	VMSG_CACHE_INVALIDATE(rng->buffer, written);
}

static const struct vmsg_driver_ops ops = {
	.used = used,
};

void vmsg_rng_driver_init(struct vmsg_rng_driver *rng, struct vmsg_bus *bus, uint16_t dev_num)
{
	memset(rng, 0, sizeof(*rng));
	vmsg_driver_init(&rng->driver, bus, dev_num, &ops);
	rng->driver.vqs = &rng->vq;
	rng->driver.vq_count = 1;
	rng->buffer_bytes = 4096;
}

static int start_device(struct vmsg_rng_driver *rng)
{
	const uint64_t wanted = VMSG_BIT(VMSG_F_EVENT_IDX) | VMSG_BIT(VMSG_F_RING_PACKED) |
				VMSG_BIT(VMSG_F_ACCESS_PLATFORM);
	int rc = vmsg_driver_negotiate(&rng->driver, wanted);

	if (rc == 0)
		rc = vmsg_driver_setup_vq(&rng->driver, 0, VMSG_RNG_DRIVER_QUEUE_SIZE, 0,
					  rng->arena, rng->state);
	if (rc == 0) {
		rng->buffer = vmsg_arena_take(rng->arena, rng->buffer_bytes, 64, &rng->buffer_addr);
		rc = rng->buffer ? 0 : VMSG_ERR_NOMEM;
	}
	if (rc == 0)
		rc = vmsg_driver_ready(&rng->driver);
	return rc;
}

int vmsg_rng_driver_start(struct vmsg_rng_driver *rng)
{
	int rc;

	VMSG_ASSERT(rng->arena && rng->buffer_bytes);
	rc = vmsg_driver_identify(&rng->driver);
	if (rc)
		return rc;
	if (rng->driver.device_id != VMSG_RNG_DEVICE_ID)
		return VMSG_ERR_NODEV;
	/* The buffer may still be the device's, until the reset in here. */
	rng->arena->used_bytes = 0;
	rng->failed = rng->asked = false;
	rng->nonsense = rng->ready_bytes = rng->taken_bytes = 0;
	rc = start_device(rng);
	if (rc && !rng->driver.gone)
		vmsg_driver_fail(&rng->driver);
	return rc;
}

/* Hands the buffer to the device, or reminds it of that. */
static int ask(struct vmsg_rng_driver *rng)
{
	struct vmsg_buf buf = { rng->buffer_addr, rng->buffer_bytes };
	uint32_t now_ms = rng->driver.bus->now_ms;
	int rc;

	if (rng->asked) {
		if (now_ms - rng->asked_ms >= REKICK_MS) {
			rng->asked_ms = now_ms;
			vmsg_driver_kick_again(&rng->driver, 0);
		}
		return 0;
	}
	rc = vmsg_vq_add(&rng->vq, &buf, 0, 1, rng);
	if (rc)
		return rc;
	rng->asked = true;
	rng->asked_ms = now_ms;
	vmsg_driver_kick(&rng->driver, 0);
	return 0;
}

int vmsg_rng_driver_take(struct vmsg_rng_driver *rng, void *buf, uint32_t len)
{
	uint32_t left;
	int rc;

	if (!rng->driver.started || rng->driver.gone)
		return VMSG_ERR_SHUTDOWN;
	vmsg_driver_poll(&rng->driver);
	if (rng->failed || rng->driver.needs_reset)
		return VMSG_ERR_PROTO;
	left = rng->ready_bytes - rng->taken_bytes;
	if (left == 0) {
		rc = ask(rng);
		return rc ? rc : VMSG_ERR_AGAIN;
	}
	if (len > left)
		len = left;
	if (len > INT32_MAX)
		len = INT32_MAX;
	memcpy(buf, rng->buffer + rng->taken_bytes, len);
	rng->taken_bytes += len;
	return (int)len;
}

int vmsg_rng_driver_read(struct vmsg_rng_driver *rng, void *buf, uint32_t len, uint32_t timeout_ms)
{
	struct vmsg_bus *bus = rng->driver.bus;
	uint8_t *to = buf;
	int rc = bus->ops->wait(bus, 0); /* brings the clock up to date */
	uint32_t since_ms = bus->now_ms;

	while (rc >= 0 && len) {
		rc = vmsg_rng_driver_take(rng, to, len);
		if (rc > 0) {
			to += rc;
			len -= (uint32_t)rc;
			since_ms = bus->now_ms;
		} else if (rc == VMSG_ERR_AGAIN) {
			rc = bus->now_ms - since_ms >= timeout_ms
				     ? VMSG_ERR_TIMEDOUT
				     : bus->ops->wait(bus, WAIT_SLICE_MS);
		}
	}
	return rc < 0 ? rc : 0;
}
