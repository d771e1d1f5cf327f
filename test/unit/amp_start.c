/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Start-up, restart and shutdown of the AMP layout format, in many interleavings: each side runs as
 * a coroutine, and at every fence and doorbell the other side may go on, or a side may die and lose
 * all but the shared memory. What test/model/amp_start.pml proves of the protocol is tried here on
 * the code. The names of properties are the model's.
 */
#include <ucontext.h>

#include "amp.h"

static void maybe_switch(void);
static void watch_store16(void *ptr, uint16_t value);

/* The code under test, with fences that switch; the linker then takes it from here. */
#undef vmsg_mb
#undef vmsg_rmb
#undef vmsg_wmb
#define vmsg_mb()  maybe_switch()
#define vmsg_rmb() maybe_switch()
#define vmsg_wmb() maybe_switch()
#define vmsg_store16 watch_store16
#include "bus/amp.c"
#include "bus/amp_device.c"
#include "bus/amp_driver.c"
#include "bus/amp_layout.c"
#include "bus/amp_words.c"
#undef vmsg_store16

#define DEVICE      0u
#define DRIVER      1u
#define STACK_BYTES (128u * 1024)
#define ENOUGH      4u    /* messages each way that show a working pair */
#define SWITCH_MAX  40000u

static struct {
	struct amp_pair *pair;
	ucontext_t scheduler, context[2];
	uint8_t *stack[2];
	uint32_t running;  /* which side */
	uint32_t script, script_bits; /* where to switch, first; then: */
	uint32_t seed;     /* at random; 0: only between polls */
	uint32_t switches, faults;
	bool fair;         /* faults are over */
	/* Ghosts: what only the test knows. */
	uint32_t life[2], peer_life[2], sent[2], got[2], total[2];
	const char *wrong;
} world;

static struct amp_side *side_of(uint32_t i)
{
	return i == DEVICE ? &world.pair->device : &world.pair->driver;
}

/* A life begins when INIT is stored: before that the memory still speaks for the former one. */
static void watch_store16(void *ptr, uint16_t value)
{
	uint32_t i = world.running;

	vmsg_store16(ptr, value);
	if (ptr == world.pair->area + (i == DEVICE ? 66 : 74) && value == VMSG_AMP_INIT) {
		world.life[i]++;
		world.sent[i] = world.got[i] = 0;
	}
}

static void yield(void)
{
	world.switches++;
	swapcontext(&world.context[world.running], &world.scheduler);
}

static void maybe_switch(void)
{
	if (world.script_bits) {
		uint32_t bit = world.script & 1;

		world.script >>= 1;
		world.script_bits--;
		if (bit)
			yield();
	} else if (world.seed && amp_random(&world.seed) % 2) {
		yield();
	}
}

static void start_ring(struct vmsg_amp *amp)
{
	(void)amp;
	maybe_switch();
}

static void start_state(struct vmsg_amp *amp, bool up)
{
	uint32_t i = amp == &world.pair->device.amp ? DEVICE : DRIVER;

	if (up)
		world.peer_life[i] = world.life[1 - i];
}

static void accept(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	uint32_t i = (struct vmsg_amp *)bus == &world.pair->device.amp ? DEVICE : DRIVER;
	const uint8_t *bytes = buf;

	(void)len;
	if (sent)
		return;
	if (vmsg_get32(bytes + 8) != world.life[1 - i])
		world.wrong = "(b) a message of a former life of the sender was accepted";
	else if (vmsg_get32(bytes + 12) != world.life[i])
		world.wrong = "(b) a message to a former life was accepted";
	else if (vmsg_get32(bytes + 16) != world.got[i])
		world.wrong = "(c) a message is missing or out of order";
	world.got[i]++;
	world.total[i]++;
}

static void say_something(struct vmsg_amp *amp, uint32_t i)
{
	uint8_t frame[20] = { VMSG_TYPE_RESPONSE, 0x7f, 0, 0, 0, 0, 20, 0 };

	if (!amp->up)
		return;
	vmsg_put32(frame + 8, world.life[i]);
	vmsg_put32(frame + 12, world.peer_life[i]);
	vmsg_put32(frame + 16, world.sent[i]);
	/* Counted first: the peer may have it before send returns. */
	world.sent[i]++;
	if (amp->bus.ops->send(&amp->bus, frame, sizeof(frame)) < 0)
		world.sent[i]--;
}

static void open_side(uint32_t i)
{
	struct amp_side *side = side_of(i);
	struct vmsg_amp *amp = &side->amp;
	uint32_t seed = world.seed;

	memset(side, 0, sizeof(*side));
	side_prepare(world.pair, side, &vmsg_amp_layout);
	amp->ring = start_ring;
	amp->peer_state = start_state;
	if (i == DEVICE && seed) {
		amp->element_count = (uint16_t)(3 + seed % 5);
		amp->words = (uint8_t)(seed / 8 % 3);
		amp->bits_per_device = 8;
		amp->element_bytes = seed / 64 % 2 ? 64 : 96;
	}
	if (i == DEVICE)
		vmsg_amp_open_device(amp, VMSG_V2, 0);
	else
		vmsg_amp_open_driver(amp, VMSG_V2, 0);
	amp->bus.trace = accept;
}

static void live(void)
{
	uint32_t i = world.running;

	open_side(i);
	for (;;) {
		vmsg_amp_poll(&side_of(i)->amp);
		say_something(&side_of(i)->amp, i);
		yield();
	}
}

static void be_born(uint32_t i)
{
	getcontext(&world.context[i]);
	world.context[i].uc_stack.ss_sp = world.stack[i];
	world.context[i].uc_stack.ss_size = STACK_BYTES;
	world.context[i].uc_link = NULL;
	makecontext(&world.context[i], live, 0);
}

/* A side that ends in good order, and is started again; or one that was told of the other's end. */
static void leave_well(uint32_t i)
{
	uint32_t script_bits = world.script_bits, seed = world.seed;

	/* It runs on the scheduler's stack, in one go. */
	world.script_bits = 0;
	world.seed = 0;
	world.running = i;
	if (seed / 4 % 2 && side_of(i)->amp.base)
		vmsg_amp_peer_lost(&side_of(i)->amp);
	world.script_bits = script_bits;
	world.seed = seed;
}

static void strike(void)
{
	uint32_t i = amp_random(&world.seed) % 2;

	world.faults--;
	/* Only a side that stands between two polls can do something; any can die. */
	if (amp_random(&world.seed) % 4 == 0 && world.fair)
		leave_well(i);
	else
		be_born(i);
}

static void turn(uint32_t i)
{
	world.running = i;
	swapcontext(&world.scheduler, &world.context[i]);
}

static bool works(void)
{
	return world.pair->device.amp.up && world.pair->driver.amp.up &&
	       world.got[DEVICE] >= ENOUGH && world.got[DRIVER] >= ENOUGH;
}

/* Runs until both sides exchange messages for good. NULL, or what is wrong. */
static const char *run_world(void)
{
	uint32_t next = world.script & 1;

	world.switches = world.total[0] = world.total[1] = 0;
	world.wrong = NULL;
	be_born(DEVICE);
	be_born(DRIVER);
	while (!world.wrong) {
		turn(next);
		if (world.faults && world.seed && amp_random(&world.seed) % 24 == 0)
			strike();
		if (!world.faults && works())
			return NULL;
		if (world.switches > SWITCH_MAX)
			return "(a) the sides do not come together";
		/* With a seed, one side may be the faster one for a while. */
		next = world.seed ? amp_random(&world.seed) % 8 < (world.seed >> 16) % 8 : !next;
		if (!world.faults && world.switches > SWITCH_MAX / 2) {
			world.seed = 0;
			next = world.switches & 1;
		}
	}
	return world.wrong;
}

/* What lies in memory when the power comes: anything, also what earlier lives left. */
static void litter(uint32_t seed)
{
	uint8_t *area = world.pair->area;

	memset(area, 0, 16384);
	if (!seed)
		return;
	for (uint32_t i = 0; i < 8192; i++)
		area[i] = (uint8_t)amp_random(&seed);
	for (uint32_t i = 0; i < 2; i++) {
		uint8_t *head = area + 64 + 8 * i;

		if (amp_random(&seed) % 4)
			vmsg_put16(head, VMSG_AMP_HEAD_MAGIC);
		vmsg_put16(head + 2, (uint16_t)(amp_random(&seed) % 6));
		vmsg_put16(head + 4, (uint16_t)(amp_random(&seed) % 8));
		vmsg_put16(head + 6, (uint16_t)(amp_random(&seed) % 8));
	}
}

static void make_world(void)
{
	memset(&world, 0, sizeof(world));
	world.pair = pair_new(&vmsg_amp_layout);
	world.stack[0] = malloc(STACK_BYTES);
	world.stack[1] = malloc(STACK_BYTES);
	CHECK(world.stack[0] && world.stack[1]);
}

static void end_world(void)
{
	free(world.stack[0]);
	free(world.stack[1]);
	pair_free(world.pair);
}

/* Every choice of places to switch at, among the first 13 fences. */
static void all_prefixes(void *arg)
{
	(void)arg;
	make_world();
	for (uint32_t script = 0; script < 1u << 14; script++) {
		const char *wrong;

		test_context("script %#x", script);
		litter(0);
		world.script = script;
		world.script_bits = 14;
		wrong = run_world();
		CHECK_STR(wrong ? wrong : "", "");
		CHECK_EQ(side_of(DEVICE)->amp.counters.restarts, 0);
		CHECK_EQ(side_of(DRIVER)->amp.counters.restarts, 0);
	}
	end_world();
}

/* Random interleavings with sides that die, up to four times. */
static void deaths(void *arg)
{
	uint32_t runs = arg ? 20000 : 4000, restarts = 0;

	make_world();
	for (uint32_t run = 1; run <= runs; run++) {
		const char *wrong;

		test_context("run %u", run);
		litter(arg ? run * 2654435761u : 0);
		world.seed = run * 40503u + 1;
		world.faults = run % 5;
		wrong = run_world();
		CHECK_STR(wrong ? wrong : "", "");
		restarts += side_of(DEVICE)->amp.counters.restarts;
		restarts += side_of(DRIVER)->amp.counters.restarts;
	}
	CHECK(restarts > runs / 4);
	end_world();
}

/* ---- Without interleavings: what the other side sees ---- */

static struct amp_pair *quiet_pair(void)
{
	world.script_bits = 0;
	world.seed = 0;
	world.pair = pair_new(&vmsg_amp_layout);
	return world.pair;
}

static uint16_t state_in_memory(const struct amp_pair *pair, uint32_t at)
{
	return vmsg_get16(pair->area + at + 2);
}

static void shutdown_driver(void *arg)
{
	struct amp_pair *pair = quiet_pair();
	struct amp_model *model;
	struct amp_user *user;

	(void)arg;
	pair_start(pair);
	model = pair_add(pair, 5);
	user = pair_use(pair, 5);
	CHECK_EQ(model->device.status, 0x0f);
	CHECK_EQ(vmsg_amp_close(&pair->driver.amp), 0);
	CHECK_EQ(vmsg_amp_close(&pair->driver.amp), 0);
	CHECK_EQ(user->gone, 1);
	CHECK_EQ(state_in_memory(pair, 72), VMSG_AMP_SHUTDOWN);
	CHECK_EQ(vmsg_bus_ping(&pair->driver.amp.bus, 1, 10), VMSG_ERR_SHUTDOWN);
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(model->device.status, 0);
	CHECK_EQ(model->resets, 1);
	CHECK_EQ(pair->device.downs, 1);
	CHECK_EQ(pair->device.amp.counters.restarts, 1);
	/* The device side stands ready for the next one. */
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(state_in_memory(pair, 64), VMSG_AMP_READY);
	CHECK_EQ(vmsg_amp_poll(&pair->driver.amp), 0);
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
	pair_settle(pair);
	pair_check(pair);
	pair_use(pair, 5);
	CHECK_EQ(model->device.status, 0x0f);
	pair_free(pair);
}

static void shutdown_device(void *arg)
{
	struct amp_pair *pair = quiet_pair();
	struct amp_model *model;
	struct amp_user *user;

	(void)arg;
	pair_start(pair);
	model = pair_add(pair, 5);
	user = pair_use(pair, 5);
	model->busy = true;
	CHECK_EQ(vmsg_amp_close(&pair->device.amp), VMSG_ERR_AGAIN);
	/* I/O is in flight: the memory still says RUN. */
	CHECK_EQ(state_in_memory(pair, 64), VMSG_AMP_RUN);
	CHECK_EQ(vmsg_amp_close(&pair->device.amp), VMSG_ERR_AGAIN);
	model->busy = false;
	vmsg_device_reset_done(&model->device);
	CHECK_EQ(vmsg_amp_close(&pair->device.amp), 0);
	CHECK_EQ(state_in_memory(pair, 64), VMSG_AMP_SHUTDOWN);
	CHECK_EQ(model->device.status, 0);
	vmsg_amp_poll(&pair->driver.amp);
	CHECK_EQ(user->gone, 1);
	CHECK_EQ(pair->driver.downs, 1);
	pair->deaf = true;
	CHECK_EQ(vmsg_amp_connect(&pair->driver.amp, 30), VMSG_ERR_TIMEDOUT);
	pair->deaf = false;
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
	CHECK_EQ(vmsg_amp_connect(&pair->driver.amp, 30), 0);
	pair_settle(pair);
	pair_check(pair);
	pair_use(pair, 5);
	pair_free(pair);
}

/* SHUTDOWN says that nothing touches the peer's memory any more: with I/O in flight it waits. */
static void busy_device(void *arg)
{
	struct amp_pair *pair = quiet_pair();
	struct amp_model *model;

	(void)arg;
	pair_start(pair);
	model = pair_add(pair, 5);
	pair_use(pair, 5);
	model->busy = true;
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
	for (uint32_t i = 0; i < 20; i++) {
		vmsg_amp_poll(&pair->driver.amp);
		vmsg_amp_poll(&pair->device.amp);
		CHECK_EQ(state_in_memory(pair, 64), VMSG_AMP_RUN);
		CHECK_EQ(state_in_memory(pair, 72), VMSG_AMP_INIT);
	}
	CHECK_EQ(model->resets, 1);
	CHECK(model->device.resetting);
	model->busy = false;
	vmsg_device_reset_done(&model->device);
	pair_settle(pair);
	pair_check(pair);
	CHECK_EQ(pair->device.downs, 1);
	CHECK_EQ(pair->device.ups, 2);
	pair_free(pair);
}

/* A request that waits when the device dies ends; the platform may know of it earlier. */
static void requests_end(void *arg)
{
	struct amp_pair *pair = quiet_pair();
	struct vmsg_msg ping = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING };
	struct vmsg_request request = { 0 };

	(void)arg;
	pair_start(pair);
	CHECK_EQ(vmsg_request_start(&pair->driver.amp.bus, &request, &ping, 1000), 0);
	vmsg_amp_peer_lost(&pair->driver.amp);
	CHECK(!request.waiting);
	CHECK_EQ(request.result, VMSG_ERR_SHUTDOWN);
	CHECK(!pair->driver.amp.up);
	/* It was a mistake: both come together again. */
	pair_settle(pair);
	pair_check(pair);
	CHECK_EQ(pair->device.amp.counters.restarts, 1);
	/* Told while nobody is there, it changes nothing. */
	vmsg_amp_close(&pair->driver.amp);
	pair_settle(pair);
	vmsg_amp_peer_lost(&pair->device.amp);
	CHECK_EQ(pair->device.amp.counters.restarts, 2);
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
	pair_settle(pair);
	pair_check(pair);
	pair_free(pair);
}

/* The table of states, row by row, against a peer that writes what it likes. */
static void table(void *arg)
{
	enum { I, Y, R, S, D, GARBAGE, PEERS };
	/*
	 * Our state in memory after one look at the peer, from INIT, READY, RUN unseen, RUN seen.
	 */
	static const uint8_t after[4][PEERS] = {
		{ Y, R, I, Y, Y, Y },
		{ Y, R, R, Y, Y, Y },
		{ Y, R, R, Y, Y, Y },
		{ Y, R, R, Y, Y, Y },
	};

	(void)arg;
	for (uint32_t from = 0; from < 4; from++) {
		for (uint32_t peer = 0; peer < PEERS; peer++) {
			struct amp_pair *pair = quiet_pair();
			struct vmsg_amp *amp = &pair->device.amp;
			uint8_t *head = pair->area + 72;

			test_context("from %u, peer %u", from, peer);
			vmsg_put16(head, VMSG_AMP_HEAD_MAGIC);
			vmsg_put16(head + 2, VMSG_AMP_RUN);
			CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), 0);
			vmsg_amp_poll(amp);
			CHECK_EQ(amp->state, VMSG_AMP_INIT);
			if (from >= 1) {
				vmsg_put16(head + 2, VMSG_AMP_INIT);
				vmsg_amp_poll(amp);
				CHECK_EQ(amp->state, VMSG_AMP_READY);
			}
			if (from >= 2) {
				vmsg_put16(head + 2, VMSG_AMP_READY);
				vmsg_amp_poll(amp);
				CHECK_EQ(amp->state, VMSG_AMP_RUN);
				CHECK(!amp->up);
			}
			if (from == 3) {
				vmsg_put16(head + 2, VMSG_AMP_RUN);
				vmsg_amp_poll(amp);
				CHECK(amp->up);
			}
			vmsg_put16(head + 2, peer == GARBAGE ? 9 : (uint16_t)peer);
			vmsg_amp_poll(amp);
			CHECK_EQ(vmsg_get16(pair->area + 66), after[from][peer]);
			CHECK_EQ(amp->up, peer == R && from != I);
			/* From seen RUN, all but RUN is the end of that peer. */
			CHECK_EQ(amp->counters.restarts, from == 3 && peer != R);
			pair_free(pair);
		}
	}
}

/* A foreign driver that restarts and does not wait in INIT shows only in its indices. */
static void quick_restart(void *arg)
{
	uint32_t found = 0;

	(void)arg;
	for (uint32_t sent = 1; sent < 63; sent++) {
		struct amp_pair *pair = quiet_pair();
		struct vmsg_amp *amp = &pair->device.amp;

		test_context("after %u messages", sent);
		pair_start(pair);
		for (uint32_t i = 1; i < sent; i++)
			vmsg_bus_ping(&pair->driver.amp.bus, i, 10);
		/* One PING is on its way when it happens. */
		memset(pair->area + 128 + 63 * 64, 0, 63 * 64);
		vmsg_put16(pair->area + 76, 0);
		vmsg_put16(pair->area + 78, 0);
		for (uint32_t i = 0; i < 70 && amp->counters.bad_index == 0; i++) {
			uint8_t frame[16] = { 1, 0x7f, 0, 0, 0, 0, 16, 0 };

			amp->bus.ops->send(&amp->bus, frame, sizeof(frame));
		}
		vmsg_amp_poll(amp);
		found += amp->counters.bad_index;
		CHECK_EQ(amp->counters.restarts, amp->counters.bad_index);
		pair_free(pair);
	}
	/* Where the indices had just come round to 0 nothing shows, and nothing is wrong. */
	CHECK(found >= 60);
}

static bool some_litter;

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "all_prefixes", all_prefixes, NULL },
		{ "deaths", deaths, NULL },
		{ "deaths_in_litter", deaths, &some_litter },
		{ "shutdown_driver", shutdown_driver, NULL },
		{ "shutdown_device", shutdown_device, NULL },
		{ "busy_device", busy_device, NULL },
		{ "requests_end", requests_end, NULL },
		{ "table", table, NULL },
		{ "quick_restart", quick_restart, NULL },
	};

	return test_main("amp_start", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
