/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking turns: a device that had its share of work is left alone until its owner comes back to it,
 * whatever its driver sends, and then every queue gets its turn.
 */
#include "common_rig.h"
#include "test.h"

/* A kick that leaves something undone: more of these change nothing before the owner's poll. */
static void test_kicks_while_more(void *arg)
{
	static struct rig rig;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, 0);
	rig.model.kicks = 0;
	rig_avail(&rig, 0);
	CHECK_EQ(rig.model.kicks, 1);
	rig.model.device.more = true;
	for (int i = 0; i < 10; i++)
		rig_avail(&rig, 0);
	CHECK_EQ(rig.model.kicks, 1);
	CHECK(rig.model.device.more);
	rig.model.device.more = false;
	vmsg_device_poll(&rig.model.device);
	CHECK_EQ(rig.model.kicks, 2);
	rig_avail(&rig, 0);
	CHECK_EQ(rig.model.kicks, 3);
}

/* v1 drivers mean all queues with every kick: the same holds. */
static void test_kicks_while_more_v1(void *arg)
{
	static struct rig rig;

	(void)arg;
	rig_init(&rig, VMSG_V1, 0, 0);
	rig_start(&rig, 0);
	rig.model.kicks = 0;
	rig.model.device.more = true;
	for (int i = 0; i < 10; i++)
		rig_avail(&rig, 0);
	CHECK_EQ(rig.model.kicks, 0);
}

/* A model all of whose kicks do a share and leave the rest. */
static uint32_t kicked[RIG_QUEUES];

static void busy_kick(struct vmsg_device *device, uint32_t vq_index)
{
	kicked[vq_index]++;
	device->more = true;
}

/* One share a poll, and no queue is left out. */
static void test_queues_take_turns(void *arg)
{
	static struct rig rig;
	struct vmsg_device_ops ops;
	struct vmsg_device *device = &rig.model.device;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, 0);
	rig_set_vqueue(&rig, 0, 1, 8);
	rig_set_vqueue(&rig, 1, 1, 16);
	rig_set_vqueue(&rig, 3, 1, 8);
	rig_set_status(&rig, 0xf);
	ops = *device->ops;
	ops.kick = busy_kick;
	device->ops = &ops;
	for (uint32_t i = 0; i < 12; i++) {
		device->more = false;
		vmsg_device_poll(device);
		CHECK_EQ(kicked[0] + kicked[1] + kicked[3], i + 1);
	}
	CHECK_EQ(kicked[0], 4);
	CHECK_EQ(kicked[1], 4);
	CHECK_EQ(kicked[3], 4);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "kicks_while_more", test_kicks_while_more, NULL },
		{ "kicks_while_more_v1", test_kicks_while_more_v1, NULL },
		{ "queues_take_turns", test_queues_take_turns, NULL },
	};

	return test_main("device_break", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
