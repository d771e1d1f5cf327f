/* SPDX-License-Identifier: BSD-3-Clause */
/* Driver role: virtqueues set up, reset, kicked (wire.md 3.2). */
#include "common_fake.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)
#define PACKED		VMSG_BIT(VMSG_F_RING_PACKED)
#define RING_RESET	VMSG_BIT(VMSG_F_RING_RESET)
#define DATA		VMSG_BIT(VMSG_F_NOTIFICATION_DATA)

static struct fake fake;
static struct fake_user user;

static void negotiated(enum vmsg_dialect dialect, uint64_t features)
{
	fake_init(&fake, dialect, dialect, 0, 0);
	fake_user_init(&user, &fake);
	fake.offered |= features;
	CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
	CHECK_EQ(vmsg_driver_negotiate(&user.driver, features), 0);
	CHECK_EQ(user.driver.features & features, features);
	fake_forget(&fake);
}

static void started(enum vmsg_dialect dialect, uint64_t features)
{
	negotiated(dialect, features);
	CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
	CHECK_EQ(vmsg_driver_ready(&user.driver), 0);
	fake_forget(&fake);
	user.used = 0;
}

static void asked_set_and_read_back(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		for (uint32_t packed = 0; packed < 2; packed++) {
			test_context("%s packed %u", vmsg_dialect_name(d), packed);
			negotiated(d, packed ? PACKED : 0);
			CHECK_EQ(fake_user_setup(&user, 1, 16), 0);
			CHECK_EQ(fake.log_count, 3);
			CHECK_EQ(fake.log[0].msg.msg_id, VMSG_GET_VQUEUE);
			CHECK_EQ(fake.log[1].msg.msg_id, VMSG_SET_VQUEUE);
			CHECK_EQ(fake.log[2].msg.msg_id, VMSG_GET_VQUEUE);
			msg = fake.log[1].msg;
			CHECK_EQ(msg.vqueue.index, 1);
			CHECK_EQ(msg.vqueue.size, 16);
			CHECK_EQ(msg.vqueue.reserved, 0);
			CHECK_EQ(msg.vqueue.flags, d == VMSG_V2 ? VMSG_VQUEUE_OP_ENABLE : 0);
			/* DRV-65 */
			CHECK_EQ(msg.vqueue.desc_addr % 16, 0);
			CHECK_EQ(msg.vqueue.driver_addr % 4, 0);
			CHECK_EQ(msg.vqueue.device_addr % 4, 0);
			CHECK(msg.vqueue.desc_addr >= FAKE_SHARED);
			/* Before v2 the words are 0 on the wire, too. */
			if (d == VMSG_V1) {
				CHECK_EQ(vmsg_get32(fake.log[1].bytes + 12), 0);
				CHECK_EQ(vmsg_get32(fake.log[1].bytes + 20), 0);
			}
		}
	}
}

static void sizes(void *arg)
{
	static const struct {
		uint32_t max;
		uint16_t wanted, split, packed;
	} cases[] = {
		{ 8, 16, 8, 8 },
		{ 8, 4, 4, 4 },
		{ 8, 7, 4, 7 },
		{ 5, 64, 4, 5 },
		{ 1, 64, 1, 1 },
		{ 0x10008, 16, 16, 16 },
		{ UINT32_MAX, 64, 64, 64 },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (uint32_t packed = 0; packed < 2; packed++) {
			test_context("max %u wanted %u packed %u", cases[i].max, cases[i].wanted,
				     packed);
			negotiated(VMSG_V2, packed ? PACKED : 0);
			fake.vqs[0].max_size = cases[i].max;
			CHECK_EQ(fake_user_setup(&user, 0, cases[i].wanted), 0);
			CHECK_EQ(fake.vqs[0].size, packed ? cases[i].packed : cases[i].split);
			CHECK_EQ(user.vqs[0].size, fake.vqs[0].size);
		}
	}
	CHECK_EQ(fake_user_setup(&user, 1, 0), VMSG_ERR_INVAL);
}

static void absent_queue(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		negotiated(d, 0);
		CHECK_EQ(fake_user_setup(&user, 2, 8), VMSG_ERR_NOENT);
		CHECK_EQ(fake_count(&fake, 0, VMSG_SET_VQUEUE, NULL), 0);
		CHECK_EQ(user.vqs[2].size, 0);
	}
}

/* Somebody else's queue is left alone: it is never switched off by SET_VQUEUE. */
static void active_queue(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		negotiated(d, 0);
		fake.vqs[0].size = 8;
		fake.vqs[0].desc_addr = 0x4000;
		fake.vqs[0].flags = d == VMSG_V2;
		CHECK_EQ(fake_user_setup(&user, 0, 8), VMSG_ERR_BUSY);
		CHECK_EQ(fake_count(&fake, 0, VMSG_SET_VQUEUE, NULL), 0);
	}
	/* The device of the field shows its maximum before it is told a size (peers.md 24). */
	negotiated(VMSG_V1, 0);
	fake.vqs[0].size = 8;
	CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
}

static uint32_t what_differs;

static bool differ(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	if (msg->msg_id != VMSG_GET_VQUEUE || !f->vqs[msg->vqueue.index].size)
		return true;
	if (what_differs == 0)
		reply->vqueue.flags = 0;
	else if (what_differs == 1)
		reply->vqueue.size /= 2;
	else if (what_differs == 2)
		reply->vqueue.desc_addr += 16;
	else if (what_differs == 3)
		reply->vqueue.driver_addr += 16;
	else if (what_differs == 4)
		reply->vqueue.device_addr += 16;
	else if (what_differs == 5)
		reply->vqueue.index++;
	return true;
}

static void not_taken(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		for (what_differs = 0; what_differs <= 5; what_differs++) {
			int result = what_differs == 5 ? VMSG_ERR_PROTO : VMSG_ERR_IO;

			/* Before v2 there is no such flag. */
			if (d != VMSG_V2 && what_differs == 0)
				result = 0;
			test_context("%s case %u", vmsg_dialect_name(d), what_differs);
			negotiated(d, 0);
			fake.hook = differ;
			CHECK_EQ(fake_user_setup(&user, 0, 8), result);
		}
	}
}

/* v1 devices of the field do not all show what they were given (wire.md 4.11). */
static bool show_nothing(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	if (msg->msg_id == VMSG_GET_VQUEUE)
		reply->vqueue.size = 0,
		reply->vqueue.desc_addr = reply->vqueue.driver_addr = reply->vqueue.device_addr = 0;
	return true;
}

static void nothing_shown(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		negotiated(d, 0);
		fake.hook = show_nothing;
		CHECK_EQ(fake_user_setup(&user, 0, 8), d == VMSG_V2 ? VMSG_ERR_IO : 0);
	}
}

static void memory_runs_out(void *arg)
{
	(void)arg;
	negotiated(VMSG_V2, 0);
	user.arena.len_bytes = 256;
	CHECK_EQ(fake_user_setup(&user, 3, 64), VMSG_ERR_NOMEM);
	CHECK_EQ(fake_count(&fake, 0, VMSG_SET_VQUEUE, NULL), 0);
	CHECK_EQ(user.arena.used_bytes, 0);
}

/* ---- RESET_VQUEUE ---- */

static void reset_needs_the_feature(void *arg)
{
	(void)arg;
	started(VMSG_V2, 0);
	CHECK_EQ(vmsg_driver_reset_vq(&user.driver, 0), VMSG_ERR_NOTSUP);
	CHECK_EQ(fake.log_count, 0);
}

static void reset_and_set_up_again(void *arg)
{
	uint64_t used_bytes;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, RING_RESET);
		used_bytes = user.arena.used_bytes;
		CHECK_EQ(vmsg_driver_reset_vq(&user.driver, 0), 0);
		CHECK_EQ(fake.log_count, 2);
		CHECK_EQ(fake.log[0].msg.msg_id, VMSG_RESET_VQUEUE);
		CHECK_EQ(fake.log[1].msg.msg_id, VMSG_GET_VQUEUE);
		CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
		/* The same memory serves again. */
		CHECK_EQ(user.arena.used_bytes, used_bytes);
		CHECK_EQ(fake.vqs[0].size, 8);
	}
}

static bool delay_reset(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)reply;
	if (msg->msg_id == VMSG_RESET_VQUEUE)
		f->hold = true;
	return true;
}

static uint32_t waits_left;

static int slow_wait(struct vmsg_bus *bus, uint32_t ms)
{
	struct fake *f = (struct fake *)bus;

	(void)ms;
	if (f->hold && waits_left-- == 0)
		f->hold = false;
	bus->now_ms++;
	if (!f->hold)
		fake_deliver(f);
	return 0;
}

/* Nothing follows the request before its answer is there. */
static void reset_is_waited_for(void *arg)
{
	struct vmsg_bus_ops ops;

	(void)arg;
	started(VMSG_V2, RING_RESET);
	ops = *fake.bus.ops;
	ops.wait = slow_wait;
	fake.bus.ops = &ops;
	fake.hook = delay_reset;
	waits_left = 500;
	CHECK_EQ(vmsg_driver_reset_vq(&user.driver, 0), 0);
	CHECK(fake.bus.now_ms >= 500);
	CHECK_EQ(fake.log_count, 2);
	CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
}

static bool still_enabled(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	if (msg->msg_id == VMSG_GET_VQUEUE)
		reply->vqueue.flags = VMSG_VQUEUE_ENABLED;
	return true;
}

static void reset_that_did_nothing(void *arg)
{
	(void)arg;
	started(VMSG_V2, RING_RESET);
	fake.hook = still_enabled;
	CHECK_EQ(vmsg_driver_reset_vq(&user.driver, 0), VMSG_ERR_IO);
}

/* ---- EVENT_AVAIL ---- */

static void add_one(void)
{
	struct vmsg_buf buf = { .addr = FAKE_SHARED, .len = 16 };

	CHECK_EQ(vmsg_vq_add(&user.vqs[0], &buf, 0, 1, &user), 0);
}

static void one_kick_for_a_batch(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, 0);
		add_one();
		add_one();
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(fake.log_count, 1);
		CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, &msg), 1);
		CHECK_EQ(msg.event.vq_index, 0);
		CHECK_EQ(msg.event.next_offset, 0);
		CHECK_EQ(msg.token, 0);
		/* Nothing new, nothing said. */
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(fake.log_count, 1);
		add_one();
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(fake.log_count, 2);
		CHECK_EQ(user.driver.counters.kicks, 2);
		/* The device does not want to hear of it (core suppression). */
		vmsg_store16(user.vqs[0].memory.device, VMSG_SPLIT_NO_EVENT);
		add_one();
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(fake.log_count, 2);
		vmsg_driver_kick_again(&user.driver, 0);
		CHECK_EQ(fake.log_count, 3);
	}
}

static void index_in_the_kick(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	negotiated(VMSG_V2, 0);
	CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
	CHECK_EQ(fake_user_setup(&user, 3, 8), 0);
	CHECK_EQ(vmsg_driver_ready(&user.driver), 0);
	vmsg_driver_kick_again(&user.driver, 3);
	CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, &msg), 1);
	CHECK_EQ(msg.event.vq_index, 3);
	vmsg_driver_kick_again(&user.driver, 0);
	CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, &msg), 2);
	CHECK_EQ(msg.event.vq_index, 0);
}

/* next_offset: the available index, or slot and wrap counter. */
static void notification_data(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	for (uint32_t packed = 0; packed < 2; packed++) {
		started(VMSG_V2, DATA | (packed ? PACKED : 0));
		for (uint32_t i = 1; i <= 8; i++) {
			test_context("packed %u buffer %u", packed, i);
			add_one();
			vmsg_driver_kick(&user.driver, 0);
			CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, &msg), i);
			if (!packed)
				CHECK_EQ(msg.event.next_offset, i);
			else
				CHECK_EQ(msg.event.next_offset, i < 8 ? i | 0x80000000 : 0);
		}
	}
	/* Without the feature it is 0, whatever the format. */
	started(VMSG_V2, PACKED);
	add_one();
	vmsg_driver_kick(&user.driver, 0);
	CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, &msg), 1);
	CHECK_EQ(msg.event.next_offset, 0);
}

/* Before DRIVER_OK nothing is said; DRIVER_OK itself says it. */
static void no_kick_before_driver_ok(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		negotiated(d, 0);
		CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
		add_one();
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, NULL), 0);
		CHECK_EQ(vmsg_driver_ready(&user.driver), 0);
		/* What was used before the answer came is looked for now. */
		CHECK_EQ(user.used, 1);
	}
}

static void kick_waits_for_room(void *arg)
{
	(void)arg;
	started(VMSG_V2, 0);
	fake.room = 0;
	for (uint32_t i = 0; i < 5; i++) {
		add_one();
		vmsg_driver_kick(&user.driver, 0);
	}
	CHECK(!vmsg_bus_flush(&fake.bus));
	CHECK_EQ(fake.log_count, 0);
	fake.room = UINT32_MAX;
	CHECK(vmsg_bus_flush(&fake.bus));
	CHECK_EQ(fake.log_count, 1);
	CHECK(vmsg_bus_flush(&fake.bus));
	CHECK_EQ(fake.log_count, 1);
	/* A reset owes nothing. */
	fake.room = 0;
	add_one();
	vmsg_driver_kick(&user.driver, 0);
	fake.room = UINT32_MAX;
	fake_forget(&fake);
	CHECK_EQ(vmsg_driver_reset(&user.driver), 0);
	CHECK(vmsg_bus_flush(&fake.bus));
	CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, NULL), 0);
}

static void kick_by_doorbell(void *arg)
{
	(void)arg;
	started(VMSG_V2, 0);
	fake_use_bells(&fake);
	add_one();
	vmsg_driver_kick(&user.driver, 0);
	CHECK_EQ(fake.bells, 1);
	CHECK_EQ(fake.log_count, 0);
	fake.bell_result = VMSG_ERR_NOTSUP;
	add_one();
	vmsg_driver_kick(&user.driver, 0);
	CHECK_EQ(fake.bells, 1);
	CHECK_EQ(fake.log_count, 1);
	fake.bell_result = VMSG_ERR_AGAIN;
	add_one();
	vmsg_driver_kick(&user.driver, 0);
	CHECK(!vmsg_bus_flush(&fake.bus));
	fake.bell_result = 0;
	CHECK(vmsg_bus_flush(&fake.bus));
	CHECK_EQ(fake.bells, 2);
}

static const struct test tests[] = {
	{ "DRV-20 DRV-25 DRV-58 DRV-60 DRV-61 DRV-62 DRV-65 DRV-68 DRV-70 asked, set and read back",
	  asked_set_and_read_back, NULL },
	{ "DRV-59 DRV-64 sizes", sizes, NULL },
	{ "DRV-58 absent queue", absent_queue, NULL },
	{ "DRV-63 DRV-66 V1-DRV-02 active queue", active_queue, NULL },
	{ "DRV-25 DRV-68 not taken", not_taken, NULL },
	{ "DRV-25 nothing shown", nothing_shown, NULL },
	{ "memory runs out", memory_runs_out, NULL },
	{ "DRV-69 reset needs the feature", reset_needs_the_feature, NULL },
	{ "DRV-63 DRV-67 DRV-70 reset and set up again", reset_and_set_up_again, NULL },
	{ "DRV-71 reset is waited for", reset_is_waited_for, NULL },
	{ "DRV-70 reset that did nothing", reset_that_did_nothing, NULL },
	{ "DRV-36 V1-DRV-03 one kick for a batch", one_kick_for_a_batch, NULL },
	{ "DRV-72 index in the kick", index_in_the_kick, NULL },
	{ "DRV-73 notification data", notification_data, NULL },
	{ "DRV-26 DRV-32 no kick before DRIVER_OK", no_kick_before_driver_ok, NULL },
	{ "DRV-36 kick waits for room", kick_waits_for_room, NULL },
	{ "DRV-36 kick by doorbell", kick_by_doorbell, NULL },
};

int main(int argc, char **argv)
{
	return test_main("driver_queue", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
