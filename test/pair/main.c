/* SPDX-License-Identifier: BSD-3-Clause */
/* The pair suite: what all its cases share, and the collection of its tests. */
#include "pair.h"

#include <stdio.h>
#include <string.h>

#define MAX_TESTS 16384

uint8_t pair_ram[PAIR_RAM_BYTES] __attribute__((aligned(4096)));

static const char *const fault_names[] = {
	"no fault", "drop", "delay", "duplicate", "reorder", "truncate", "flip", "full",
};

void pair_text(const struct pair_case *c, char *text, size_t size)
{
	const struct vmsg_loop_plan *plan = &c->plan;
	int len;

	len = snprintf(text, size, "%s%s/%u %s%s%s%s%s%s%s%s", vmsg_dialect_name(c->dialect),
		       c->learns ? " learned" : "", c->max_msg_size, c->packed ? "packed" : "split",
		       c->event_idx ? " event_idx" : "", c->indirect ? " indirect" : "",
		       c->in_order ? " in_order" : "", c->data ? " data" : "",
		       c->doorbells ? " doorbells" : " in_band", c->strict ? " strict" : "",
		       c->async ? " async" : "");
	if (len < 0 || (size_t)len >= size)
		return;
	if (plan->fault == VMSG_LOOP_NONE)
		snprintf(text + len, size - (size_t)len, ", no fault");
	else
		snprintf(text + len, size - (size_t)len, ", %s %s %s/%u", fault_names[plan->fault],
			 !plan->to_driver   ? "to_device"
			 : !plan->to_device ? "to_driver"
					    : "both_ways",
			 plan->requests_too ? "everything" : "events", plan->period);
}

void pair_open(struct pair *pair, const struct pair_case *c)
{
	struct vmsg_loop_options options = {
		.device_dialect = (enum vmsg_dialect)c->dialect,
		.driver_dialect = c->learns ? VMSG_AUTO : (enum vmsg_dialect)c->dialect,
		.features = c->strict ? VMSG_BIT(VMSG_F_STRICT_CONFIG_GENERATION) : 0,
		.max_msg_size = c->max_msg_size,
		.capacity = c->capacity,
		.doorbells = c->doorbells,
	};

	memset(pair, 0, sizeof(*pair));
	memset(pair_ram, 0, sizeof(pair_ram));
	pair->c = c;
	pair->region.addr = pair->arena.addr = PAIR_ADDR;
	pair->region.ptr = pair->arena.ptr = pair_ram;
	pair->region.len_bytes = pair->arena.len_bytes = PAIR_RAM_BYTES;
	pair->region.access = VMSG_MEM_READ | VMSG_MEM_WRITE;
	pair->region.fd = -1;
	CHECK_EQ(vmsg_mem_init(&pair->mem, &pair->region, 1), 0);
	vmsg_loop_init(&pair->loop, &options);
}

void pair_faults(struct pair *pair, bool on)
{
	static const struct vmsg_loop_plan none;

	vmsg_loop_set_plan(&pair->loop, on ? &pair->c->plan : &none);
}

uint64_t pair_features(const struct pair_case *c)
{
	return (c->packed ? VMSG_BIT(VMSG_F_RING_PACKED) : 0) |
	       (c->event_idx ? VMSG_BIT(VMSG_F_EVENT_IDX) : 0) |
	       (c->indirect ? VMSG_BIT(VMSG_F_INDIRECT_DESC) : 0) |
	       (c->in_order ? VMSG_BIT(VMSG_F_IN_ORDER) : 0) |
	       (c->data ? VMSG_BIT(VMSG_F_NOTIFICATION_DATA) : 0) | VMSG_BIT(VMSG_F_VERSION_1);
}

void pair_step(struct pair *pair)
{
	struct vmsg_bus *bus = &pair->loop.driver.bus;

	CHECK_EQ(bus->ops->wait(bus, 1), 0);
}

void pair_check_quiet(struct pair *pair)
{
	struct vmsg_loop *loop = &pair->loop;

	for (uint32_t i = 0; i < 100; i++)
		pair_step(pair);
	CHECK(loop->driver.bus.requests == NULL);
	CHECK_EQ(loop->to_device.frame_count + loop->to_driver.frame_count, 0);
	CHECK_EQ(loop->to_device.bell_count + loop->to_driver.bell_count, 0);
	CHECK(vmsg_bus_flush(&loop->device.bus));
	CHECK(vmsg_bus_flush(&loop->driver.bus));
	CHECK(!vmsg_bus_holds(&loop->device.bus));
	CHECK(!vmsg_bus_holds(&loop->driver.bus));
}

/* ---- The tests of all files ---- */

static struct pair_suite *suites;
static struct test all[MAX_TESTS];

void pair_register(struct pair_suite *suite)
{
	suite->next = suites;
	suites = suite;
}

int main(int argc, char **argv)
{
	size_t count = 0;

	for (struct pair_suite *suite = suites; suite; suite = suite->next) {
		const struct test *tests = suite->tests;
		size_t more = suite->count;

		if (suite->make)
			tests = suite->make(&more);
		if (more > MAX_TESTS - count) {
			printf("more than %u tests\n", MAX_TESTS);
			return 1;
		}
		memcpy(&all[count], tests, more * sizeof(tests[0]));
		count += more;
	}
	return test_main("pair", all, count, argc, argv);
}
