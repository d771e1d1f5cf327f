/* SPDX-License-Identifier: BSD-3-Clause */
/* The spsc format against peers that restart, zero everything, or write nonsense (peers.md 5). */
#include "amp.h"

static void (*at_fence)(void);

/* The code under test, with fences at which a peer may do something. */
#undef vmsg_rmb
#undef vmsg_wmb
#define vmsg_rmb() (at_fence ? at_fence() : (void)0)
#define vmsg_wmb() (at_fence ? at_fence() : (void)0)
#define vmsg_relax() (at_fence ? at_fence() : (void)0)
#include "bus/amp_spsc.c"

static struct amp_pair *pair;

/* The bus of a driver of the field: it zeroes both rings, then sends from slot 0. */
static uint32_t linux_head, linux_tail;

static void linux_bind(void)
{
	memset(pair->area, 0, VMSG_AMP_SPSC_BYTES);
	linux_head = linux_tail = 0;
}

static void linux_send(const uint8_t *frame, uint32_t len)
{
	memcpy(pair->area + 128 + 64 * linux_head, frame, len);
	linux_head = (linux_head + 1) % 62;
	vmsg_put32(pair->area, linux_head);
}

static void linux_ping(uint32_t data)
{
	uint8_t ping[12] = { 2, 3, 0, 0, 1, 0, 12, 0 };

	vmsg_put32(ping + 8, data);
	linux_send(ping, sizeof(ping));
}

/* The data of the next PING answer; 0: there is none. */
static uint32_t linux_receive(void)
{
	uint32_t data;

	if (vmsg_get32(pair->area + 4096) == linux_tail)
		return 0;
	data = vmsg_get32(pair->area + 4096 + 128 + 64 * linux_tail + 8);
	linux_tail = (linux_tail + 1) % 62;
	vmsg_put32(pair->area + 4096 + 64, linux_tail);
	return data;
}

static struct vmsg_amp *open_device(void)
{
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V1, 0), 0);
	return &pair->device.amp;
}

static void run(void)
{
	while (vmsg_amp_poll(&pair->device.amp))
		;
}

/* Both sides ours, opened in any order and any number of times: nothing old is executed. */
static void reopen(void *arg)
{
	uint32_t seed = 3, received;

	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	pair_start(pair);
	for (uint32_t round = 0; round < 300; round++) {
		test_context("round %u", round);
		for (uint32_t i = amp_random(&seed) % 7; i; i--)
			CHECK_EQ(vmsg_bus_ping(&pair->driver.amp.bus, i, 10), 0);
		received = pair->device.amp.bus.counters.received;
		if (amp_random(&seed) % 2)
			CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
		if (amp_random(&seed) % 2)
			CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
		pair_settle(pair);
		CHECK_EQ(pair->device.amp.bus.counters.received, received);
		pair_check(pair);
	}
	CHECK_EQ(pair->device.amp.counters.restarts, 0);
	pair_free(pair);
}

/* What a driver sent before the daemon came is not lost. */
static void early_driver(void *arg)
{
	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	linux_bind();
	linux_ping(77);
	open_device();
	run();
	CHECK_EQ(linux_receive(), 77);
	CHECK_EQ(linux_receive(), 0);
	pair_free(pair);
}

/* A driver binds again and again, after any number of messages, with no word before. */
static void rebind(void *arg)
{
	(void)arg;
	for (uint32_t before = 0; before < 130; before++) {
		struct vmsg_amp *amp;
		uint32_t received;

		test_context("after %u messages", before);
		pair = pair_new(&vmsg_amp_spsc);
		amp = open_device();
		run();
		linux_bind();
		for (uint32_t i = 1; i <= before; i++) {
			linux_ping(i);
			run();
			CHECK_EQ(linux_receive(), i);
		}
		received = amp->bus.counters.received;
		for (uint32_t polls = 0; polls < 3; polls++) {
			linux_bind();
			/* The device looks before, or only when the first message is there. */
			for (uint32_t i = 0; i < polls; i++)
				vmsg_amp_poll(amp);
			linux_ping(1000);
			run();
			amp->bus.now_ms += 10;
			run();
			CHECK_EQ(linux_receive(), 1000);
			linux_ping(1001);
			run();
			CHECK_EQ(linux_receive(), 1001);
			CHECK_EQ(linux_receive(), 0);
			received += 2;
			CHECK_EQ(amp->bus.counters.received, received);
		}
		CHECK_EQ(amp->counters.bad_index + amp->counters.repaired, 0);
		CHECK(amp->up);
		pair_free(pair);
	}
}

/* The same while the device side is at work: the driver zeroes at any fence of any poll. */
static uint32_t fences, zero_at, zero_bytes;
static bool downwards;

static void zero_part(void)
{
	uint32_t from = zero_bytes;

	/* In steps, as a copy loop on a slow link would do it. */
	if (fences++ < zero_at || from == VMSG_AMP_SPSC_BYTES)
		return;
	zero_bytes = fences % 3 ? from : from + 4096 > 8192 ? 8192 : from + (from ? 4096 : 64);
	if (downwards)
		memset(pair->area + 8192 - zero_bytes, 0, zero_bytes - from);
	else
		memset(pair->area + from, 0, zero_bytes - from);
}

static void rebind_at_work(void *arg)
{
	downwards = arg != NULL;
	for (zero_at = 0; zero_at < 250; zero_at++) {
		uint32_t received, answer = 0;
		struct vmsg_amp *amp;

		test_context("at fence %u", zero_at);
		pair = pair_new(&vmsg_amp_spsc);
		linux_bind();
		amp = open_device();
		run();
		for (uint32_t i = 0; i < zero_at % 40; i++) {
			linux_ping(i + 1);
			run();
			CHECK_EQ(linux_receive(), i + 1);
		}
		fences = zero_bytes = 0;
		at_fence = zero_part;
		for (uint32_t i = 0; i < 30; i++)
			linux_ping(500 + i);
		for (uint32_t i = 0; i < 400; i++) {
			vmsg_amp_poll(amp);
			zero_part();
		}
		at_fence = NULL;
		CHECK_EQ(zero_bytes, VMSG_AMP_SPSC_BYTES);
		linux_head = linux_tail = 0;
		received = amp->bus.counters.received;
		linux_ping(2000);
		run();
		amp->bus.now_ms += 20;
		run();
		CHECK_EQ(amp->bus.counters.received - received, 1);
		/* An answer that was written while its ring was zeroed has left its traces. */
		for (uint32_t i = 0; i < 62 && answer != 2000; i++)
			answer = linux_receive();
		CHECK_EQ(answer, 2000);
		CHECK_EQ(linux_receive(), 0);
		/* Nothing of what was there before is executed again. */
		CHECK(amp->bus.counters.received <= zero_at % 40 + 30 + 1);
		CHECK_EQ(amp->bus.counters.malformed, 0);
		CHECK(amp->counters.restarts <= 1);
		pair_free(pair);
	}
}

/* Devices are reset when the driver starts anew, and everybody is told. */
static void devices_reset(void *arg)
{
	struct amp_model *model;
	struct amp_user *user;

	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	pair_start(pair);
	model = pair_add(pair, 3);
	pair_use(pair, 3);
	CHECK_EQ(model->device.status, 0x0f);
	model->busy = true;
	linux_bind();
	linux_ping(5);
	for (uint32_t i = 0; i < 50; i++)
		vmsg_amp_poll(&pair->device.amp);
	/* I/O in flight: nothing is read before it has ended. */
	CHECK_EQ(model->resets, 1);
	CHECK_EQ(linux_receive(), 0);
	CHECK_EQ(pair->device.downs, 1);
	CHECK_EQ(vmsg_amp_close(&pair->device.amp), VMSG_ERR_AGAIN);
	pair->device.amp.closed = false;
	model->busy = false;
	vmsg_device_reset_done(&model->device);
	run();
	CHECK_EQ(linux_receive(), 5);
	CHECK_EQ(model->device.status, 0);
	CHECK_EQ(pair->device.ups, 2);
	pair_free(pair);

	/* Seen from the driver side it is the device that has wiped the rings. */
	pair = pair_new(&vmsg_amp_spsc);
	pair_start(pair);
	pair_add(pair, 3);
	user = pair_use(pair, 3);
	linux_bind();
	vmsg_amp_poll(&pair->driver.amp);
	CHECK_EQ(user->gone, 1);
	pair_settle(pair);
	pair_check(pair);
	pair_free(pair);
}

/* Our words are scribbled on: restored, and nothing is lost or done twice. */
static void scribble(void *arg)
{
	static const uint32_t values[] = { 1, 61, 62, 0xffffffff, 0x00010000 };

	(void)arg;
	for (uint32_t which = 0; which < 2; which++) {
		for (uint32_t v = 0; v < 5; v++) {
			struct vmsg_amp *amp;
			uint8_t *word;

			test_context("word %u, value %u", which, v);
			pair = pair_new(&vmsg_amp_spsc);
			pair_start(pair);
			amp = &pair->device.amp;
			for (uint32_t i = 0; i < 9; i++)
				vmsg_bus_ping(&pair->driver.amp.bus, i, 10);
			pair_settle(pair);
			word = pair->area + (which ? 64 : 4096);
			vmsg_put32(word, values[v]);
			vmsg_amp_poll(amp);
			CHECK_EQ(vmsg_get32(word), 10);
			CHECK_EQ(amp->counters.repaired, 1);
			CHECK_EQ(amp->counters.restarts, 0);
			pair_check(pair);
			pair_free(pair);
		}
	}
}

/* Random nonsense in the whole area between polls: bounded, and usable when it ends. */
static void garbage(void *arg)
{
	uint32_t seed = 11;

	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	open_device();
	for (uint32_t round = 0; round < 3000; round++) {
		uint32_t words = amp_random(&seed) % 20;

		for (uint32_t i = 0; i < words; i++) {
			uint32_t at = amp_random(&seed) % 2048 * 4;
			uint32_t what = amp_random(&seed);

			if (what % 4 == 0)
				at = at % 4 * 2048 / 2048 * 4096 % 8192;
			if (what % 4 == 1)
				at = (what >> 8) % 2 * 4096 + (what >> 9) % 2 * 64;
			vmsg_put32(pair->area + at, what % 3 ? what >> 10 : (what >> 10) % 64);
		}
		CHECK(vmsg_amp_poll(&pair->device.amp) < 100);
		pair->device.amp.bus.now_ms++;
	}
	CHECK(pair->device.amp.counters.bad_index > 0);
	CHECK(pair->device.amp.counters.restarts > 0);
	linux_bind();
	pair->device.amp.bus.now_ms += 20;
	run();
	linux_ping(9);
	run();
	CHECK_EQ(linux_receive(), 9);
	pair_free(pair);
}

/* Memory full of nonsense at the start: the device waits for a driver that makes sense. */
static void born_in_litter(void *arg)
{
	struct vmsg_amp *amp;

	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	memset(pair->area, 0xa5, VMSG_AMP_SPSC_BYTES);
	amp = open_device();
	for (uint32_t i = 0; i < 10; i++)
		vmsg_amp_poll(amp);
	CHECK(!amp->up);
	CHECK_EQ(amp->counters.bad_index, 1);
	linux_bind();
	linux_ping(3);
	run();
	CHECK(amp->up);
	CHECK_EQ(linux_receive(), 3);
	CHECK_EQ(amp->counters.restarts, 0);
	pair_free(pair);
}

/* The platform says that the driver has died: what it left unread is not executed for the next. */
static void peer_lost(void *arg)
{
	struct vmsg_amp *amp;
	struct amp_model *model;

	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	pair_start(pair);
	amp = &pair->device.amp;
	model = pair_add(pair, 0);
	pair_use(pair, 0);
	for (uint32_t busy = 0; busy < 2; busy++) {
		uint32_t received = amp->bus.counters.received;
		uint8_t frame[12] = { 2, 3, 0, 0, 1, 0, 12, 0 };

		model->busy = busy;
		for (uint32_t i = 0; i < 5; i++)
			pair->driver.amp.bus.ops->send(&pair->driver.amp.bus, frame, 12);
		vmsg_amp_peer_lost(amp);
		CHECK_EQ(amp->up, !busy);
		/* The next one may speak before all is cleaned up. */
		CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
		vmsg_amp_poll(&pair->driver.amp);
		CHECK_EQ(pair->driver.amp.bus.ops->send(&pair->driver.amp.bus, frame, 12), 0);
		for (uint32_t i = 0; i < 5; i++)
			vmsg_amp_poll(amp);
		CHECK_EQ(amp->bus.counters.received - received, busy ? 0 : 1);
		model->busy = false;
		vmsg_device_reset_done(&model->device);
		pair_settle(pair);
		CHECK_EQ(amp->bus.counters.received - received, 1);
		pair_check(pair);
		pair_use(pair, 0);
	}
	pair_free(pair);
}

static void refused_settings(void *arg)
{
	(void)arg;
	pair = pair_new(&vmsg_amp_spsc);
	pair->device.amp.len_bytes = 8191;
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	pair->device.amp.len_bytes = 8192;
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
	CHECK_EQ(pair->device.amp.bus.max_msg_size, 64);
	CHECK(pair->device.amp.bus.ops->notify == NULL);
	pair_free(pair);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "reopen", reopen, NULL },
		{ "early_driver", early_driver, NULL },
		{ "rebind", rebind, NULL },
		{ "rebind_at_work", rebind_at_work, NULL },
		{ "rebind_downwards", rebind_at_work, &downwards },
		{ "devices_reset", devices_reset, NULL },
		{ "scribble", scribble, NULL },
		{ "garbage", garbage, NULL },
		{ "born_in_litter", born_in_litter, NULL },
		{ "peer_lost", peer_lost, NULL },
		{ "refused_settings", refused_settings, NULL },
	};

	return test_main("amp_spsc", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
