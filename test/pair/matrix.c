/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The matrix: every ring format, event index, indirect tables, doorbells, dialect and message size
 * with one another, and with every fault, way and scope; the rest of the tuple is mixed in. Each
 * case starts, moves a few hundred requests with several in flight, compares every byte, and ends
 * with nothing left behind.
 */
#include "echo.h"

#include <stdio.h>
#include <string.h>

#ifndef PAIR_STRIDE
#define PAIR_STRIDE 1 /* one of so many cases is run: slow machines run fewer */
#endif

#define REQUESTS  240u /* moved by each case */
#define MAX_CASES 8192

static const struct {
	uint8_t dialect;
	uint16_t max_msg_size;
} carriers[] = {
	{ VMSG_V2, 52 },  { VMSG_V2, 64 },   { VMSG_V2, 264 },	{ VMSG_V1, 48 },    { VMSG_V1, 64 },
	{ VMSG_V1, 264 }, { VMSG_RFC2, 44 }, { VMSG_RFC2, 64 }, { VMSG_RFC2, 264 },
};

#define CARRIERS (sizeof(carriers) / sizeof(carriers[0]))
#define BASES	 (CARRIERS * 16)
#define FAULTS	 (7u * 3 * 2) /* kinds, ways, scopes */

static struct pair_case cases[MAX_CASES];
static char names[MAX_CASES][128];
static struct test tests[MAX_CASES];

/* ---- One case ---- */

static struct pair pair;
static struct echo_device device;
static struct echo_driver driver;

/* A start under faults may fail, with an error and in time; without them it may not. */
static void start(const struct pair_case *c)
{
	uint32_t began = pair.loop.now_ms;
	int rc = echo_start(&driver);

	CHECK(pair.loop.now_ms - began < 20000);
	if (rc == 0)
		return;
	CHECK(c->plan.fault != VMSG_LOOP_NONE && c->plan.requests_too);
	/* The faults end; a fresh start finds nothing of the first one in its way. */
	pair_faults(&pair, false);
	pair_check_quiet(&pair);
	vmsg_driver_exit(&driver.driver);
	echo_driver_init(&driver, &pair);
	CHECK_EQ(echo_start(&driver), 0);
}

/* A request in the midst of the data; what it says must be true. */
static void look(const struct pair_case *c)
{
	int rc = vmsg_driver_read_status(&driver.driver);

	if (rc >= 0)
		CHECK_EQ(rc, 0x0f);
	else
		CHECK(c->plan.requests_too);
	rc = echo_read_config(&driver);
	CHECK(rc >= 0 || c->plan.requests_too);
	if (rc >= 0 && !c->plan.requests_too)
		CHECK_EQ(rc, device.version);
}

static void check_counters(void)
{
	const struct vmsg_bus_counters *a = &pair.loop.device.bus.counters;
	const struct vmsg_bus_counters *b = &pair.loop.driver.bus.counters;

	/* In rfc2 alone, what was said before the dialect was known could not be read. */
	CHECK_EQ(a->malformed, pair.c->learns && pair.c->dialect == VMSG_RFC2);
	CHECK_EQ(b->malformed, pair.c->learns && pair.c->dialect == VMSG_RFC2);
	CHECK_EQ(a->unknown + b->unknown + a->no_device + b->no_device, 0);
	CHECK_EQ(a->stray + b->stray, 0);
	CHECK_EQ(b->timeouts, pair.c->learns && pair.c->dialect == VMSG_RFC2);
	CHECK_EQ(driver.driver.counters.bad_events, 0);
	CHECK_EQ(device.device.counters.needs_reset, 0);
}

static void finish(void)
{
	uint32_t rescues;

	/* Once the faults are over, nothing needs help any more. */
	pair_faults(&pair, false);
	pair_check_quiet(&pair);
	rescues = echo_rescues;
	echo_transfer(&driver, &device, 40);
	CHECK_EQ(echo_rescues, rescues);
	if (pair.c->plan.fault == VMSG_LOOP_NONE)
		check_counters();
	CHECK_EQ(vmsg_driver_reset(&driver.driver), 0);
	CHECK_EQ(device.device.status, 0);
	CHECK_EQ(device.work_count, 0);
	for (uint32_t i = 0; i < ECHO_QUEUES; i++) {
		CHECK(!device.vqs[i].enabled);
		echo_drain(&driver, i);
	}
	vmsg_driver_exit(&driver.driver);
	CHECK(pair.loop.driver.bus.drivers == NULL);
	vmsg_bus_remove(&pair.loop.device.bus, &device.device);
	pair_check_quiet(&pair);
	CHECK(pair.loop.device.bus.devices == NULL);
}

/* Of the other faults, nobody has to notice anything: nothing is lost. */
static bool loses(const struct pair_case *c)
{
	return c->plan.fault == VMSG_LOOP_DROP || c->plan.fault == VMSG_LOOP_TRUNCATE ||
	       c->plan.fault == VMSG_LOOP_FLIP;
}

static void run_case(void *arg)
{
	const struct pair_case *c = arg;
	uint32_t rescues = echo_rescues;

	test_context("%s", names[c - cases]);
	memset(&driver, 0, sizeof(driver));
	pair_open(&pair, c);
	echo_device_init(&device, &pair);
	CHECK_EQ(vmsg_bus_add(&pair.loop.device.bus, &device.device, ECHO_DEV), 0);
	vmsg_loop_run(&pair.loop);
	pair_faults(&pair, true);
	echo_driver_init(&driver, &pair);
	start(c);
	echo_transfer(&driver, &device, REQUESTS / 2);
	look(c);
	echo_transfer(&driver, &device, REQUESTS / 2);
	if (!loses(c))
		CHECK_EQ(echo_rescues, rescues);
	finish();
}

/* ---- All cases ---- */

static size_t case_count;
static uint32_t made;

static void add_case(const struct pair_case *c)
{
	if (made++ % PAIR_STRIDE)
		return;
	cases[case_count] = *c;
	pair_text(c, names[case_count], sizeof(names[0]));
	tests[case_count].name = names[case_count];
	tests[case_count].run = run_case;
	tests[case_count].arg = &cases[case_count];
	case_count++;
}

static struct pair_case base_case(uint32_t base)
{
	struct pair_case c = { 0 };

	c.dialect = carriers[base / 16].dialect;
	c.max_msg_size = carriers[base / 16].max_msg_size;
	c.packed = base & 1;
	c.event_idx = base & 2;
	c.indirect = base & 4;
	c.doorbells = base & 8;
	return c;
}

/* The rest of the tuple, one bit of dice each. */
static void mix(struct pair_case *c, uint32_t dice)
{
	c->in_order = dice & 1;
	c->async = dice & 2;
	c->data = (dice & 4) && !c->doorbells && c->dialect != VMSG_RFC2;
	c->strict = (dice & 8) && c->dialect == VMSG_V2;
	/* One flipped bit of a size can make a v1 answer of a v2 one; v2 needs its 52 bytes. */
	c->learns = (dice & 16) && c->plan.fault != VMSG_LOOP_FLIP && c->max_msg_size >= 52;
}

static void add_faults(uint32_t base)
{
	for (uint32_t i = 0; i < FAULTS; i++) {
		struct pair_case c = base_case(base);
		uint32_t dice = base * FAULTS + i, way = i / 7 % 3;

		c.plan.fault = (enum vmsg_loop_fault)(VMSG_LOOP_DROP + i % 7);
		c.plan.to_device = way != 1;
		c.plan.to_driver = way != 0;
		c.plan.requests_too = i / 21;
		c.plan.period = 3 + echo_dice(&dice) % 5;
		c.plan.count = UINT32_MAX;
		c.plan.delay_ms = 3;
		c.plan.seed = base * FAULTS + i;
		mix(&c, echo_dice(&dice));
		add_case(&c);
	}
}

static const struct test *make(size_t *count)
{
	for (uint32_t base = 0; base < BASES; base++) {
		for (uint32_t dice = 0; dice < 4; dice++) {
			struct pair_case c = base_case(base);

			mix(&c, dice | (base + dice) % 8 << 2);
			add_case(&c);
		}
		add_faults(base);
	}
	*count = case_count;
	return tests;
}

PAIR_MAKES(make);
