/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver side of the echo; see echo.h. */
#include "echo.h"

#include <vmsg/port.h>

#include <string.h>

#define POISON	     0x5a
#define RESCUE_MS    8
#define STALLED_MS   3000
#define EVERY_CONFIG 37 /* a change of config after so many requests */

uint32_t echo_rescues;

static struct echo_driver *echo_of(struct vmsg_driver *driver)
{
	return (struct echo_driver *)driver;
}

/* ---- Requests ---- */

/* What the device must have made of it, and that it wrote no byte more. */
static void compare(const struct echo_request *request, uint32_t written)
{
	uint32_t less = request->readable_bytes % 3;
	uint32_t expected = request->writable_bytes > less ? request->writable_bytes - less : 0;
	uint8_t in[ECHO_PARTS * ECHO_PART];
	uint32_t n = 0, at = 0;

	CHECK_EQ(written, expected);
	for (uint32_t i = 0; i < request->readable_count; i++) {
		memcpy(in + n, request->ptr + (request->bufs[i].addr - request->addr),
		       request->bufs[i].len);
		n += request->bufs[i].len;
	}
	for (uint32_t i = request->readable_count;
	     i < (uint32_t)request->readable_count + request->writable_count; i++) {
		const uint8_t *out = request->ptr + (request->bufs[i].addr - request->addr);

		for (uint32_t j = 0; j < request->bufs[i].len; j++, at++) {
			uint8_t byte = (uint8_t)((n ? in[at % n] : 0xa5) + at);

			/* Checked one by one: most of the time goes here. */
			if (out[j] != (at < written ? byte : POISON))
				CHECK_EQ(out[j], at < written ? byte : POISON);
		}
	}
}

static bool is_ours(const struct echo_driver *echo, const struct echo_request *request,
		    uint32_t vq_index)
{
	for (uint32_t i = 0; i < ECHO_SIZE; i++) {
		if (request == &echo->requests[vq_index][i])
			return true;
	}
	return false;
}

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	struct echo_driver *echo = echo_of(driver);
	uint32_t written;
	void *cookie;
	int rc;

	while ((rc = vmsg_vq_get(&echo->vqs[vq_index], &cookie, &written)) > 0) {
		struct echo_request *request = cookie;

		CHECK(is_ours(echo, request, vq_index));
		CHECK(request->busy);
		compare(request, written);
		request->busy = false;
		echo->completed++;
	}
	echo->broken |= rc < 0;
}

/* A shape: how many buffers of each kind, and how long. */
static void shape(struct echo_driver *echo, struct echo_request *request)
{
	uint32_t most = echo->pair->c->indirect ? ECHO_PARTS : 1 + echo_dice(&echo->dice) % 5;
	uint32_t count = 1 + echo_dice(&echo->dice) % most;
	uint64_t at = request->addr;

	request->readable_count = (uint16_t)(echo_dice(&echo->dice) % (count + 1));
	request->writable_count = (uint16_t)(count - request->readable_count);
	request->readable_bytes = request->writable_bytes = 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t len = 1 + echo_dice(&echo->dice) % (ECHO_PART - 8);
		uint8_t *ptr = request->ptr + (at - request->addr);
		bool readable = i < request->readable_count;

		request->bufs[i].addr = at;
		request->bufs[i].len = len;
		for (uint32_t j = 0; j < len; j++)
			ptr[j] = readable ? (uint8_t)(request->id * 13 + i + j) : POISON;
		*(readable ? &request->readable_bytes : &request->writable_bytes) += len;
		/* Gaps, and every alignment. */
		at += len + echo_dice(&echo->dice) % 8;
	}
}

bool echo_submit(struct echo_driver *echo, uint32_t vq_index)
{
	struct echo_request *request = echo->requests[vq_index];
	uint32_t i = 0;

	while (i < ECHO_SIZE && request[i].busy)
		i++;
	if (i == ECHO_SIZE)
		return false;
	request += i;
	request->id = echo->next_id;
	shape(echo, request);
	if (vmsg_vq_add(&echo->vqs[vq_index], request->bufs, request->readable_count,
			request->writable_count, request) != 0)
		return false;
	request->busy = true;
	echo->next_id++;
	echo->submitted++;
	return true;
}

void echo_drain(struct echo_driver *echo, uint32_t vq_index)
{
	struct echo_request *request;

	while ((request = vmsg_vq_drain(&echo->vqs[vq_index])) != NULL) {
		CHECK(is_ours(echo, request, vq_index));
		CHECK(request->busy);
		request->busy = false;
		echo->submitted--;
	}
	for (uint32_t i = 0; i < ECHO_SIZE; i++)
		CHECK(!echo->requests[vq_index][i].busy);
}

/* ---- Starting ---- */

static void config_changed(struct vmsg_driver *driver, uint32_t device_status)
{
	(void)device_status;
	echo_of(driver)->config_events++;
	echo_of(driver)->stale_config = true;
}

static void gone(struct vmsg_driver *driver)
{
	echo_of(driver)->gone++;
}

static const struct vmsg_driver_ops echo_ops = {
	.used = used,
	.config_changed = config_changed,
	.gone = gone,
};

void echo_driver_init(struct echo_driver *echo, struct pair *pair)
{
	uint32_t dice = echo->dice, next_id = echo->next_id;

	memset(echo, 0, sizeof(*echo));
	echo->pair = pair;
	echo->dice = dice + 1;
	echo->next_id = next_id;
	vmsg_driver_init(&echo->driver, &pair->loop.driver.bus, ECHO_DEV, &echo_ops);
	echo->driver.split = &vmsg_vq_split_driver;
	echo->driver.packed = &vmsg_vq_packed_driver;
	echo->driver.vqs = echo->vqs;
	echo->driver.vq_count = ECHO_QUEUES;
	echo->driver.timeout_ms = 50;
	echo->driver.reset_timeout_ms = 500;
	pair->arena.used_bytes = 0;
	for (uint32_t i = 0; i < ECHO_QUEUES; i++) {
		for (uint32_t j = 0; j < ECHO_SIZE; j++) {
			struct echo_request *request = &echo->requests[i][j];

			request->ptr = vmsg_arena_take(&pair->arena, ECHO_PARTS * ECHO_PART, 1,
						       &request->addr);
			CHECK(request->ptr != NULL);
		}
	}
}

/* Without tokens, an answer that comes twice or late is taken for one that it is not. */
static bool may_mistake(const struct pair_case *c)
{
	return c->dialect == VMSG_RFC2 && c->plan.requests_too &&
	       (c->plan.fault == VMSG_LOOP_DUPLICATE || c->plan.fault == VMSG_LOOP_DELAY);
}

int echo_read_config(struct echo_driver *echo)
{
	uint8_t config[ECHO_CONFIG];
	uint32_t version;
	int rc;

	echo->stale_config = false;
	rc = vmsg_driver_read_config(&echo->driver, 0, config, sizeof(config));
	if (rc < 0)
		return rc;
	version = vmsg_get32(config + ECHO_WRITABLE);
	for (uint32_t i = ECHO_WRITABLE + 4; i < ECHO_CONFIG; i++) {
		if (config[i] != (uint8_t)(version * 7 + i) && may_mistake(echo->pair->c))
			return VMSG_ERR_PROTO;
		CHECK_EQ(config[i], (uint8_t)(version * 7 + i));
	}
	return (int)version;
}

/* Writes the writable word and reads it back. */
static int check_writable(struct echo_driver *echo)
{
	uint8_t word[ECHO_WRITABLE], back[ECHO_WRITABLE];
	int rc;

	vmsg_put32(word, echo_dice(&echo->dice));
	rc = vmsg_driver_write_config(&echo->driver, 0, word, sizeof(word));
	if (rc == 0)
		rc = vmsg_driver_read_config(&echo->driver, 0, back, sizeof(back));
	if (rc < 0)
		return rc;
	if (memcmp(word, back, sizeof(word)) != 0 && may_mistake(echo->pair->c))
		return VMSG_ERR_PROTO;
	CHECK_MEM(word, back, sizeof(word));
	/* What is not writable is refused. */
	rc = vmsg_driver_write_config(&echo->driver, 2, word, sizeof(word));
	if (rc == VMSG_ERR_IO)
		return 0;
	CHECK(rc < 0 || may_mistake(echo->pair->c));
	return rc < 0 ? rc : VMSG_ERR_PROTO;
}

static int find(struct echo_driver *echo)
{
	uint32_t dev_num = echo->driver.dev_num;
	uint8_t bitmap[32];
	int rc = vmsg_bus_get_devices(echo->driver.bus, bitmap, 256, 50);

	if (rc < 0)
		return rc;
	CHECK(rc >= 1);
	CHECK(bitmap[dev_num / 8] & 1u << dev_num % 8);
	return 0;
}

int echo_begin(struct echo_driver *echo, uint64_t more_features)
{
	uint64_t wanted = pair_features(echo->pair->c) | more_features;
	int rc = find(echo);

	if (rc == 0)
		rc = vmsg_driver_identify(&echo->driver);
	if (rc < 0)
		return rc;
	CHECK_EQ(echo->driver.device_id, ECHO_DEVICE_ID);
	CHECK_EQ(echo->driver.config_size, ECHO_CONFIG);
	CHECK_EQ(echo->driver.max_virtqueues, ECHO_QUEUES);
	CHECK_EQ(echo->driver.bus->dialect, echo->pair->c->dialect);
	rc = vmsg_driver_negotiate(&echo->driver, wanted);
	if (rc < 0)
		return rc;
	CHECK_EQ(echo->driver.features, wanted);
	return 0;
}

int echo_setup(struct echo_driver *echo)
{
	int rc = 0;

	for (uint32_t i = 0; i < ECHO_QUEUES && rc == 0; i++)
		rc = vmsg_driver_setup_vq(&echo->driver, i, ECHO_SIZE, ECHO_PARTS,
					  &echo->pair->arena, echo->state[i]);
	if (rc == 0)
		rc = vmsg_driver_ready(&echo->driver);
	return rc;
}

int echo_start(struct echo_driver *echo)
{
	int rc = echo_begin(echo, 0);

	if (rc == 0)
		rc = echo_read_config(echo);
	if (rc >= 0)
		rc = check_writable(echo);
	if (rc == 0)
		rc = echo_setup(echo);
	return rc;
}

/* ---- Moving data ---- */

static void fill(struct echo_driver *echo, uint32_t target)
{
	for (uint32_t i = 0; i < ECHO_QUEUES; i++) {
		uint32_t batch = 1 + echo_dice(&echo->dice) % 4;
		bool any = false;

		while (batch-- && echo->submitted < target && echo_submit(echo, i))
			any = true;
		if (any)
			vmsg_driver_kick(&echo->driver, i);
	}
}

/* Something was lost: look by oneself, and say again what may not have been heard. */
static void rescue(struct echo_driver *echo, struct echo_device *device)
{
	echo_rescues++;
	for (uint32_t i = 0; i < ECHO_QUEUES; i++)
		vmsg_driver_kick_again(&echo->driver, i);
	vmsg_device_poll(&device->device);
	vmsg_driver_poll(&echo->driver);
}

void echo_transfer(struct echo_driver *echo, struct echo_device *device, uint32_t count)
{
	struct vmsg_loop *loop = &echo->pair->loop;
	uint32_t target, last = echo->completed, last_ms = loop->now_ms, tried_ms = last_ms;

	target = echo->submitted + count;
	while (echo->completed < target) {
		CHECK(!echo->broken && !echo->gone);
		fill(echo, target);
		pair_step(echo->pair);
		echo_tick(device);
		if (echo->stale_config)
			echo_read_config(echo);
		if (echo->completed / EVERY_CONFIG != last / EVERY_CONFIG)
			echo_change(device);
		if (echo->completed != last) {
			last = echo->completed;
			last_ms = tried_ms = loop->now_ms;
		} else if (loop->now_ms - tried_ms > RESCUE_MS) {
			tried_ms = loop->now_ms;
			rescue(echo, device);
		}
		CHECK(loop->now_ms - last_ms < STALLED_MS);
	}
	CHECK_EQ(echo->completed, echo->submitted);
}
