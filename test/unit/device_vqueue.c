/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: GET_VQUEUE, SET_VQUEUE, RESET_VQUEUE (wire.md 2.3 and 3.3). */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)
#define ENABLE		VMSG_VQUEUE_OP_ENABLE
#define KEEP_ALL	VMSG_VQUEUE_KEEP_ALL

static struct rig rig;
static struct vmsg_vq_driver vq;
static struct vmsg_vq_state state[16];

/* GET_VQUEUE shows exactly this. */
static void expect(uint32_t index, uint32_t enabled, uint32_t size, uint64_t desc, uint64_t driver,
		   uint64_t device)
{
	struct vmsg_msg msg = rig_get_vqueue(&rig, index);

	CHECK_EQ(msg.vqueue.size, size);
	CHECK_EQ(msg.vqueue.flags, enabled);
	CHECK_EQ(msg.vqueue.desc_addr, desc);
	CHECK_EQ(msg.vqueue.driver_addr, driver);
	CHECK_EQ(msg.vqueue.device_addr, device);
}

/* The same for the addresses that rig_set_vqueue() gives, or none. */
static void expect_usual(uint32_t index, uint32_t enabled, uint32_t size)
{
	struct vmsg_msg usual = rig_vqueue(index, 0, size);

	if (size)
		expect(index, enabled, size, usual.vqueue.desc_addr, usual.vqueue.driver_addr,
		       usual.vqueue.device_addr);
	else
		expect(index, 0, 0, 0, 0, 0);
}

static void nothing_configured(void)
{
	for (uint32_t i = 0; i < RIG_QUEUES; i++)
		expect_usual(i, 0, 0);
}

static void sizes_before_and_after(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_negotiate(&rig, 0);
		nothing_configured();
		CHECK_EQ(rig_get_vqueue(&rig, 0).vqueue.max_size, 8);
		CHECK_EQ(rig_get_vqueue(&rig, 1).vqueue.max_size, 16);
		CHECK_EQ(rig_get_vqueue(&rig, 3).vqueue.max_size, 8);
		rig_set_vqueue(&rig, 1, ENABLE, 4);
		/* Before v2 the flags word is a reserved 0. */
		expect_usual(1, d == VMSG_V2, 4);
		msg = rig_get_vqueue(&rig, 1);
		CHECK_EQ(msg.vqueue.max_size, 16);
		if (d == VMSG_V1)
			CHECK_EQ(vmsg_get32(rig.sent[0].bytes + 20), 0);
		expect_usual(0, 0, 0);
	}
}

static void absent_queues(void *arg)
{
	static const uint32_t absent[] = { 2, RIG_QUEUES, 0xffff, 0x10000, 0x10001, UINT32_MAX };
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		rig_negotiate(&rig, VMSG_BIT(VMSG_F_RING_RESET));
		for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
			test_context("%s queue %u", vmsg_dialect_name(d), absent[i]);
			msg = rig_get_vqueue(&rig, absent[i]);
			CHECK_EQ(msg.vqueue.max_size, 0);
			expect(absent[i], 0, 0, 0, 0, 0);
			rig_set_vqueue(&rig, absent[i], ENABLE, 4);
			expect(absent[i], 0, 0, 0, 0, 0);
			rig_call(&rig, (struct vmsg_msg){ .msg_id = VMSG_RESET_VQUEUE,
							  .vqueue = { .index = absent[i] } });
			nothing_configured();
		}
	}
}

static void reserved_fields(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, 0);
	msg = rig_vqueue(0, ENABLE, 8);
	msg.vqueue.reserved = 1;
	rig_call(&rig, msg);
	nothing_configured();
	msg.vqueue.reserved = 0x80000000;
	rig_call(&rig, msg);
	nothing_configured();
	for (uint32_t bit = 6; bit < 32; bit++) {
		rig_set_vqueue(&rig, 0, ENABLE | 1u << bit, 8);
		nothing_configured();
	}
	rig_set_vqueue(&rig, 0, 3, 8);
	nothing_configured();
	rig_set_vqueue(&rig, 0, 3 | KEEP_ALL, 8);
	nothing_configured();
	CHECK_EQ(rig.model.device.counters.refused, 30);
	/* On an enabled queue as well. */
	rig_set_vqueue(&rig, 0, ENABLE, 8);
	rig_set_vqueue(&rig, 0, 3 | KEEP_ALL, 4);
	expect_usual(0, 1, 8);
}

/* v1 has no such words: what they hold is not looked at. */
static void reserved_words_before_v2(void *arg)
{
	struct vmsg_msg msg = rig_vqueue(0, 0, 8);
	uint8_t wire[64];
	int len;

	(void)arg;
	rig_init(&rig, VMSG_V1, 0, 0);
	rig_negotiate(&rig, 0);
	msg.dev_num = RIG_DEV;
	len = vmsg_msg_encode(VMSG_V1, &msg, wire, sizeof(wire));
	CHECK_EQ(len, 48);
	memset(wire + 12, 0xff, 4);
	memset(wire + 20, 0xff, 4);
	CHECK_EQ(rig_raw(&rig, wire, 48), 0);
	CHECK_EQ(rig.sent_count, 1);
	expect_usual(0, 0, 8);
	CHECK(rig.model.vqs[0].enabled);
}

/* Each field bad in turn beside good ones: nothing changes, an empty answer. */
static void atomic(void *arg)
{
	static const uint32_t sizes[] = { 0, 9, 16, 0x10008, UINT32_MAX, 3 };
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		rig_negotiate(&rig, 0);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			test_context("%s size %u", vmsg_dialect_name(d), sizes[i]);
			rig_set_vqueue(&rig, 0, ENABLE, sizes[i]);
			nothing_configured();
			if (d == VMSG_V2)
				rig_set_vqueue(&rig, 0, VMSG_VQUEUE_OP_KEEP, sizes[i]);
			nothing_configured();
		}
		for (uint32_t i = 0; i < 6; i++) {
			uint64_t bad = i < 3 ? RIG_RAM + 1 : RIG_RAM - 64;

			test_context("%s address %u", vmsg_dialect_name(d), i);
			msg = rig_vqueue(0, ENABLE, 8);
			if (i % 3 == 0)
				msg.vqueue.desc_addr = bad;
			else if (i % 3 == 1)
				msg.vqueue.driver_addr = bad;
			else
				msg.vqueue.device_addr = bad;
			rig_call(&rig, msg);
			nothing_configured();
		}
		rig_set_vqueue(&rig, 0, ENABLE, 8);
		expect_usual(0, d == VMSG_V2, 8);
	}
}

/* Addresses that only just fit, and only just do not. */
static void atomic_at_the_edge(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, 0);
	msg = rig_vqueue(0, ENABLE, 8);
	msg.vqueue.desc_addr = RIG_RAM + RIG_RAM_SIZE - 8 * 16 + 16;
	rig_call(&rig, msg);
	nothing_configured();
	msg.vqueue.desc_addr -= 16;
	rig_call(&rig, msg);
	CHECK_EQ(rig_get_vqueue(&rig, 0).vqueue.flags, 1);
}

/* All sixteen combinations of what to keep, on a disabled queue. */
static void keep_bits(void *arg)
{
	(void)arg;
	for (uint32_t keep = 0; keep < 16; keep++) {
		for (uint32_t op = 0; op <= 2; op++) {
			struct vmsg_msg old = rig_vqueue(0, VMSG_VQUEUE_OP_KEEP, 4);
			struct vmsg_msg now = rig_vqueue(1, op | keep << 2, 8);

			test_context("keep %u op %u", keep, op);
			rig_init(&rig, VMSG_V2, 0, 0);
			rig_negotiate(&rig, 0);
			rig_call(&rig, old);
			expect_usual(0, 0, 4);
			now.vqueue.index = 0;
			rig_call(&rig, now);
			expect(0, op == ENABLE, keep & 1 ? 4 : 8,
			       keep & 2 ? old.vqueue.desc_addr : now.vqueue.desc_addr,
			       keep & 4 ? old.vqueue.driver_addr : now.vqueue.driver_addr,
			       keep & 8 ? old.vqueue.device_addr : now.vqueue.device_addr);
		}
	}
}

/* Operations 0, 1 and 2 from both states. */
static void operations(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, 0);
	rig_set_vqueue(&rig, 0, 0, 8);
	expect_usual(0, 0, 8);
	rig_set_vqueue(&rig, 0, 2, 4);
	expect_usual(0, 0, 4);
	rig_set_vqueue(&rig, 0, ENABLE | KEEP_ALL, 0);
	expect_usual(0, 1, 4);
	/* Enabled: nothing changes any more, least of all to disabled. */
	for (uint32_t flags = 0; flags < 64; flags++) {
		test_context("flags 0x%x on an enabled queue", flags);
		rig_set_vqueue(&rig, 0, flags, 8);
		expect_usual(0, 1, 4);
	}
	/* There is nothing to enable in a queue that was never told its size. */
	rig_set_vqueue(&rig, 1, ENABLE | KEEP_ALL, 0);
	expect_usual(1, 0, 0);
}

/* No queue is enabled before FEATURES_OK, since its format is not known; fields are kept. */
static void before_features_ok(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_set_status(&rig, 3);
		rig_set_vqueue(&rig, 0, ENABLE, 8);
		nothing_configured();
	}
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_set_status(&rig, 3);
	rig_set_vqueue(&rig, 0, VMSG_VQUEUE_OP_KEEP, 8);
	expect_usual(0, 0, 8);
}

static void packed_sizes(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, VMSG_BIT(VMSG_F_RING_PACKED));
	rig_set_vqueue(&rig, 0, ENABLE, 3);
	expect_usual(0, 1, 3);
}

/* ---- Queues in use ---- */

static uint32_t reset_vq(uint32_t index)
{
	struct vmsg_msg msg = { .msg_id = VMSG_RESET_VQUEUE, .vqueue = { .index = index } };

	CHECK_EQ(rig_send(&rig, &msg), 0);
	return rig_count(&rig, 1, VMSG_RESET_VQUEUE, NULL);
}

static void reset_needs_the_feature(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, 0);
	CHECK_EQ(reset_vq(0), 1);
	expect_usual(0, 1, 8);
	CHECK_EQ(rig.model.resets_vq, 0);
}

/* peers.md 5.10: the driver resets queues after it has reset the device. */
static void reset_of_what_was_reset(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, VMSG_BIT(VMSG_F_RING_RESET));
		rig_set_status(&rig, 0);
		CHECK_EQ(reset_vq(0), 1);
		CHECK_EQ(reset_vq(1), 1);
		CHECK_EQ(rig_set_status(&rig, 1), 1);
	}
}

static void one_round_trip(void)
{
	uint32_t served = rig.model.served;

	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	CHECK_EQ(rig.model.served, served + 1);
	CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_USED, NULL), 1);
}

static void reset_and_set_up_again(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		for (uint32_t i = 0; i < 2; i++) {
			uint64_t features = VMSG_BIT(VMSG_F_RING_RESET) |
					    (i ? VMSG_BIT(VMSG_F_RING_PACKED) : 0);

			test_context("%s packed %u", vmsg_dialect_name(d), i);
			rig_init(&rig, d, 0, 0);
			rig.model.serves = true;
			rig_start(&rig, features);
			rig_vq_open(&vq, state, 0, 8, features);
			one_round_trip();
			CHECK_EQ(reset_vq(0), 1);
			CHECK_EQ(rig.model.resets_vq, 1);
			expect_usual(0, 0, 0);
			/* Not looked at any more. */
			rig_vq_add(&vq);
			rig_avail(&rig, 0);
			CHECK_EQ(rig.model.served, 1);
			/* Another size this time. */
			rig_vq_open(&vq, state, 0, 4, features);
			rig_set_vqueue(&rig, 0, ENABLE, 4);
			expect_usual(0, d == VMSG_V2, 4);
			one_round_trip();
		}
	}
}

/* A queue that is set up while it already holds something, after DRIVER_OK. */
static void late_queue(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 1, 16, 0);
		rig_vq_add(&vq);
		rig_set_vqueue(&rig, 1, ENABLE, 16);
		CHECK_EQ(rig.model.served, 1);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_USED, NULL), 1);
	}
}

/* v1 may program a live queue anew; v2 may not. A queue with work in flight stays as it is. */
static void set_on_a_live_queue(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		one_round_trip();
		rig_vq_open(&vq, state, 0, 4, 0);
		rig_set_vqueue(&rig, 0, ENABLE, 4);
		expect_usual(0, d == VMSG_V2, d == VMSG_V2 ? 8 : 4);
		if (d == VMSG_V2)
			continue;
		one_round_trip();
		rig.model.serves = false;
		rig.model.keeps = true;
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.kept_count, 1);
		rig_set_vqueue(&rig, 0, ENABLE, 8);
		expect_usual(0, 0, 4);
	}
}

/* The answer comes when the queue is quiet, and the queue is disabled then. */
static void reset_takes_its_time(void *arg)
{
	const uint64_t features = VMSG_BIT(VMSG_F_RING_RESET);
	struct vmsg_device *device = &rig.model.device;
	struct vmsg_msg msg;
	uint16_t token;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.keeps = true;
		rig_start(&rig, features);
		rig_vq_open(&vq, state, 0, 8, features);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		rig.model.reset_vq_result = VMSG_ERR_AGAIN;
		CHECK_EQ(reset_vq(0), 0);
		/* Meanwhile: no new chain is taken, other requests are answered, and who asks
		 * again is not told that all is quiet. */
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.kept_count, 1);
		CHECK_EQ(rig_status(&rig), 0x0f);
		expect_usual(0, d == VMSG_V2, 8);
		CHECK_EQ(reset_vq(0), 0);
		token = d == VMSG_RFC2 ? 0 : rig.token;
		CHECK_EQ(rig.model.resets_vq, 1);
		rig_forget(&rig);
		vmsg_device_push(device, 0, &rig.model.kept[0], 0);
		vmsg_device_vq_reset_done(device, 0);
		CHECK_EQ(rig_count(&rig, 1, VMSG_RESET_VQUEUE, &msg), 1);
		CHECK_EQ(msg.token, token);
		CHECK_EQ(msg.dev_num, RIG_DEV);
		expect_usual(0, 0, 0);
		/* Said twice, it is no second answer. */
		rig_forget(&rig);
		vmsg_device_vq_reset_done(device, 0);
		CHECK_EQ(rig.sent_count, 0);
		rig_set_vqueue(&rig, 0, ENABLE, 8);
		expect_usual(0, d == VMSG_V2, 8);
	}
}

/* A reset of the device in the midst of it: the answer is owed still, after the reset. */
static void reset_of_the_device_meanwhile(void *arg)
{
	const uint64_t features = VMSG_BIT(VMSG_F_RING_RESET);
	struct vmsg_device *device = &rig.model.device;
	struct vmsg_msg msg;
	uint16_t token;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.keeps = true;
	rig_start(&rig, features);
	rig_vq_open(&vq, state, 0, 8, features);
	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	rig.model.reset_vq_result = rig.model.reset_result = VMSG_ERR_AGAIN;
	CHECK_EQ(reset_vq(0), 0);
	CHECK_EQ(rig_set_status(&rig, 0), 0x0f);
	/* Asked in the midst of that: it is not quiet either. */
	CHECK_EQ(reset_vq(1), 0);
	token = rig.token;
	rig_forget(&rig);
	vmsg_device_vq_reset_done(device, 0);
	CHECK_EQ(rig_count(&rig, 1, VMSG_RESET_VQUEUE, NULL), 1);
	vmsg_device_reset_done(device);
	CHECK_EQ(rig_count(&rig, 1, VMSG_RESET_VQUEUE, &msg), 2);
	CHECK_EQ(msg.token, token);
	CHECK_EQ(rig_status(&rig), 0);
	CHECK(vmsg_bus_flush(&rig.bus));
	rig.model.reset_vq_result = rig.model.reset_result = 0;
	rig_start(&rig, features);
	/* The peer is gone: nobody is owed anything. */
	rig.model.reset_vq_result = VMSG_ERR_AGAIN;
	CHECK_EQ(reset_vq(0), 0);
	vmsg_bus_peer_reset(&rig.bus);
	vmsg_device_vq_reset_done(device, 0);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.sent_count, 0);
}

/* The answer finds no room when it is due. */
static void late_answer_is_held(void *arg)
{
	const uint64_t features = VMSG_BIT(VMSG_F_RING_RESET);

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_start(&rig, features);
	rig.model.reset_vq_result = VMSG_ERR_AGAIN;
	CHECK_EQ(reset_vq(0), 0);
	rig.room = 0;
	vmsg_device_vq_reset_done(&rig.model.device, 0);
	CHECK(vmsg_bus_holds(&rig.bus));
	rig.room = 1;
	rig_forget(&rig);
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig_count(&rig, 1, VMSG_RESET_VQUEUE, NULL), 1);
	rig.room = UINT32_MAX;
	rig_status(&rig);
}

static const struct test tests[] = {
	{ "DEV-60 DEV-62 V1-DEV-05 sizes before and after", sizes_before_and_after, NULL },
	{ "DEV-61 DEV-63 DEV-70 absent queues", absent_queues, NULL },
	{ "DEV-64 reserved fields", reserved_fields, NULL },
	{ "V1-DEV-05 reserved words before v2", reserved_words_before_v2, NULL },
	{ "DEV-66 atomic", atomic, NULL },
	{ "DEV-66 atomic at the edge", atomic_at_the_edge, NULL },
	{ "DEV-67 keep bits", keep_bits, NULL },
	{ "DEV-65 DEV-68 DEV-69 operations", operations, NULL },
	{ "DEV-66 before FEATURES_OK", before_features_ok, NULL },
	{ "DEV-60 packed sizes", packed_sizes, NULL },
	{ "DEV-71 reset needs the feature", reset_needs_the_feature, NULL },
	{ "DEV-72 reset of what was reset", reset_of_what_was_reset, NULL },
	{ "DEV-72 reset and set up again", reset_and_set_up_again, NULL },
	{ "V1-DEV-06 late queue", late_queue, NULL },
	{ "DEV-68 V1-DEV-06 SET_VQUEUE on a live queue", set_on_a_live_queue, NULL },
	{ "DEV-72 queue reset takes its time", reset_takes_its_time, NULL },
	{ "DEV-72 reset of the device meanwhile", reset_of_the_device_meanwhile, NULL },
	{ "DEV-72 late answer is held", late_answer_is_held, NULL },
};

int main(int argc, char **argv)
{
	return test_main("device_vqueue", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
