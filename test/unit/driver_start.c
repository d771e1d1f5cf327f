/* SPDX-License-Identifier: BSD-3-Clause */
/* Driver role: who is there, features, the start sequence, reset, time (wire.md 3.2). */
#include "common_fake.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)

static struct fake fake;
static struct fake_user user;

static void open_fake(enum vmsg_dialect dialect)
{
	fake_init(&fake, dialect, dialect, 0, 0);
	fake_user_init(&user, &fake);
}

/* ---- Identity ---- */

static void info_is_authoritative(void *arg)
{
	static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 0x47, 8, 0x89 }, nil[16];
	struct vmsg_driver *driver = &user.driver;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.num_blocks = 3;
		fake.config_size = 5;
		fake.max_virtqueues = 65536;
		memcpy(fake.uuid, uuid, 16);
		CHECK_EQ(vmsg_driver_identify(driver), 0);
		CHECK_EQ(driver->device_id, 1);
		CHECK_EQ(driver->vendor_id, 0x554d4551);
		CHECK_EQ(driver->num_feature_blocks, 3);
		CHECK_EQ(driver->config_size, 5);
		CHECK_EQ(driver->max_virtqueues, 65536);
		CHECK_EQ(driver->admin_vq_count, 0);
		CHECK_MEM(driver->uuid, d == VMSG_V2 ? uuid : nil, 16);
		/* The driver adapts: no request beyond. */
		CHECK_EQ(vmsg_driver_negotiate(driver, UINT64_MAX), 0);
		CHECK_EQ(vmsg_driver_read_config(driver, 0, fake.frame, 5), 0);
		CHECK_EQ(vmsg_driver_read_config(driver, 0, fake.frame, 6), VMSG_ERR_INVAL);
	}
}

static void administration_queues(void *arg)
{
	static const struct {
		uint32_t start, count, max;
		int result;
	} cases[] = {
		{ 3, 2, 5, 0 },
		{ 0, 5, 5, 0 },
		{ 5, 0, 5, 0 },
		{ 99, 0, 5, 0 },
		{ 3, 3, 5, VMSG_ERR_PROTO },
		{ 6, 1, 5, VMSG_ERR_PROTO },
		{ 5, 1, 5, VMSG_ERR_PROTO },
		{ UINT32_MAX, 2, 5, VMSG_ERR_PROTO },
		{ 1, UINT32_MAX, 5, VMSG_ERR_PROTO },
		{ 0, 0, 65537, VMSG_ERR_PROTO },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_context("start %u count %u max %u", cases[i].start, cases[i].count,
			     cases[i].max);
		open_fake(VMSG_V2);
		fake.admin_vq_start = cases[i].start;
		fake.admin_vq_count = cases[i].count;
		fake.max_virtqueues = cases[i].max;
		CHECK_EQ(vmsg_driver_identify(&user.driver), cases[i].result);
		if (cases[i].result)
			continue;
		CHECK_EQ(user.driver.admin_vq_count, cases[i].count);
		CHECK_EQ(user.driver.admin_vq_start, cases[i].count ? cases[i].start : 0);
	}
}

static void nobody_there(void *arg)
{
	uint32_t start;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.device_id = 0;
		CHECK_EQ(vmsg_driver_identify(&user.driver), VMSG_ERR_NODEV);
		/* A peer that spoke before is silent about a number without a device. */
		fake.swallow = 9;
		CHECK_EQ(vmsg_driver_identify(&user.driver), VMSG_ERR_NODEV);
		/* One that never spoke may be dead. */
		open_fake(d);
		fake.swallow = 9;
		start = fake.bus.now_ms;
		CHECK_EQ(vmsg_driver_identify(&user.driver), VMSG_ERR_TIMEDOUT);
		CHECK_EQ(fake.bus.now_ms - start, 2 * user.driver.timeout_ms);
		CHECK_EQ(fake.log_count, 2);
	}
}

/* ---- The sequence ---- */

static void order_of_steps(void *arg)
{
	static const uint8_t ids[] = { 0x02, 0x08, 0x08, 0x08, 0x03, 0x04,
				       0x08, 0x09, 0x0a, 0x09, 0x08 };
	static const uint32_t states[] = { 0, 1, 3, 0x0b, 0x0f };

	(void)arg;
	EACH_DIALECT(d)
	{
		uint32_t state = 0;

		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake_user_start(&user, VMSG_BIT(5));
		CHECK_EQ(fake.log_count, sizeof(ids));
		for (uint32_t i = 0; i < sizeof(ids); i++) {
			CHECK_EQ(fake.log[i].msg.msg_id, ids[i]);
			CHECK_EQ(fake.log[i].msg.type, 0);
			if (ids[i] == VMSG_SET_DEVICE_STATUS)
				CHECK_EQ(fake.log[i].msg.status.status, states[state++]);
		}
		CHECK_EQ(state, 5);
		CHECK(user.driver.started);
		CHECK_EQ(user.driver.status, 0x0f);
	}
}

/* The device loses a status bit: the start ends there. */
static void status_bits_that_do_not_stick(void *arg)
{
	static const struct {
		uint32_t bit;
		int negotiate;
	} bits[] = {
		{ VMSG_STATUS_ACKNOWLEDGE, VMSG_ERR_IO },
		{ VMSG_STATUS_DRIVER, VMSG_ERR_IO },
		{ VMSG_STATUS_FEATURES_OK, VMSG_ERR_NOTSUP },
		{ VMSG_STATUS_DRIVER_OK, 0 },
	};

	(void)arg;
	EACH_DIALECT(d)
	{
		for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
			test_context("%s bit 0x%x", vmsg_dialect_name(d), bits[i].bit);
			open_fake(d);
			fake.status_mask &= ~bits[i].bit;
			CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
			CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), bits[i].negotiate);
			CHECK_EQ(fake_count(&fake, 0, VMSG_SET_VQUEUE, NULL), 0);
			CHECK_EQ((fake.status & VMSG_STATUS_FAILED) != 0,
				 bits[i].negotiate == VMSG_ERR_NOTSUP);
			if (bits[i].negotiate)
				continue;
			CHECK_EQ(fake_user_setup(&user, 0, 8), 0);
			CHECK_EQ(vmsg_driver_ready(&user.driver), VMSG_ERR_IO);
			/* No I/O: not a single notification leaves. */
			CHECK(!user.driver.started);
			vmsg_driver_kick_again(&user.driver, 0);
			CHECK_EQ(fake_count(&fake, 0, VMSG_EVENT_AVAIL, NULL), 0);
		}
	}
}

static void features_wanted_and_offered(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.offered = UINT64_MAX;
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, VMSG_BIT(5)), 0);
		CHECK_EQ(fake.selected, VMSG_BIT(5) | VMSG_BIT(VMSG_F_VERSION_1));
		CHECK_EQ(user.driver.features, fake.selected);
		CHECK_EQ(user.driver.offered, UINT64_MAX);
		CHECK_EQ(fake_count(&fake, 0, VMSG_SET_DRIVER_FEATURES, &msg), 1);
		CHECK_EQ(msg.features.block_index, 0);
		CHECK_EQ(msg.features.num_blocks, 2);
		/* Not offered, not written. */
		open_fake(d);
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, VMSG_BIT(5) | VMSG_BIT(6)), 0);
		CHECK_EQ(fake.selected, VMSG_BIT(5) | VMSG_BIT(VMSG_F_VERSION_1));
	}
}

static void features_never_negotiated(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.offered = UINT64_MAX;
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, UINT64_MAX), 0);
		CHECK(!vmsg_has(fake.selected, VMSG_F_NOTIF_CONFIG_DATA));
		/* The rfc2 device of the field gets the two fields of a kick mixed up. */
		CHECK_EQ(vmsg_has(fake.selected, VMSG_F_NOTIFICATION_DATA), d != VMSG_RFC2);
		fake_use_bells(&fake);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, UINT64_MAX), 0);
		CHECK(!vmsg_has(fake.selected, VMSG_F_NOTIFICATION_DATA));
		/* Formats that are not linked. */
		user.driver.packed = NULL;
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, UINT64_MAX), 0);
		CHECK(!vmsg_has(fake.selected, VMSG_F_RING_PACKED));
		user.driver.packed = &vmsg_vq_packed_driver;
		user.driver.split = NULL;
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), 0);
		CHECK(vmsg_has(fake.selected, VMSG_F_RING_PACKED));
	}
}

static void no_common_ground(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.offered = VMSG_BIT(5);
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), VMSG_ERR_NOTSUP);
		CHECK(fake.status & VMSG_STATUS_FAILED);
		open_fake(d);
		user.driver.split = NULL;
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), VMSG_ERR_NOTSUP);
		CHECK(fake.status & VMSG_STATUS_FAILED);
		/* No blocks at all: nothing to ask for. */
		open_fake(d);
		fake.num_blocks = 0;
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), VMSG_ERR_NOTSUP);
	}
}

static bool short_features(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	static const uint8_t blocks[16] = { 0x20, 0, 0, 0, 1, 0, 0, 0, 0xff };

	(void)f;
	if (msg->msg_id == VMSG_GET_DEVICE_FEATURES) {
		reply->features.block_index = f->count >> 8;
		reply->features.num_blocks = f->count & 0xff;
		reply->tail = blocks;
	}
	return true;
}

/* Fewer blocks than asked: the rest reads 0. More, or others: nonsense. */
static void blocks_as_asked(void *arg)
{
	static const struct {
		uint32_t index_and_count;
		int result;
	} cases[] = {
		{ 2, 0 },
		{ 1, VMSG_ERR_NOTSUP },
		{ 0, VMSG_ERR_NOTSUP },
		{ 3, VMSG_ERR_PROTO },
		{ 0x102, VMSG_ERR_PROTO },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_context("0x%x", cases[i].index_and_count);
		open_fake(VMSG_V2);
		fake.hook = short_features;
		fake.count = cases[i].index_and_count;
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user.driver, VMSG_BIT(5)), cases[i].result);
	}
}

/* ---- Reset ---- */

static void reset_is_polled(void *arg)
{
	uint32_t start;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake_user_start(&user, 0);
		fake_forget(&fake);
		fake.reset_polls = 3;
		start = fake.bus.now_ms;
		CHECK_EQ(vmsg_driver_reset(&user.driver), 0);
		CHECK_EQ(fake_count(&fake, 0, VMSG_SET_DEVICE_STATUS, NULL), 1);
		CHECK_EQ(fake_count(&fake, 0, VMSG_GET_DEVICE_STATUS, NULL), 3);
		CHECK_EQ(fake.bus.now_ms - start, 30);
		CHECK_EQ(user.driver.status, 0);
		/* Done at once: nothing is polled. */
		fake_user_start(&user, 0);
		fake_forget(&fake);
		CHECK_EQ(vmsg_driver_reset(&user.driver), 0);
		CHECK_EQ(fake.log_count, 1);
	}
}

static void reset_is_bounded(void *arg)
{
	uint32_t start;

	(void)arg;
	open_fake(VMSG_V2);
	fake_user_start(&user, 0);
	fake.reset_polls = UINT32_MAX;
	start = fake.bus.now_ms;
	CHECK_EQ(vmsg_driver_reset(&user.driver), VMSG_ERR_TIMEDOUT);
	CHECK(fake.bus.now_ms - start <= user.driver.reset_timeout_ms + 20);
	/* Nor does a new start go on over it. */
	fake_forget(&fake);
	CHECK_EQ(vmsg_driver_negotiate(&user.driver, 0), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake_count(&fake, 0, VMSG_SET_DEVICE_STATUS, NULL), 1);
	CHECK_EQ(fake_count(&fake, 0, VMSG_GET_DEVICE_FEATURES, NULL), 0);
	/* A device that says nothing at all. */
	fake.swallow = UINT32_MAX;
	start = fake.bus.now_ms;
	CHECK_EQ(vmsg_driver_reset(&user.driver), VMSG_ERR_TIMEDOUT);
	CHECK(fake.bus.now_ms - start <= 2 * user.driver.timeout_ms);
}

static bool complain(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_CONFIG, .dev_num = FAKE_DEV };

	(void)reply;
	if (msg->msg_id == VMSG_GET_DEVICE_STATUS && f->status) {
		event.config.device_status = f->status | VMSG_STATUS_NEEDS_RESET;
		fake_say(f, &event);
		event.msg_id = VMSG_EVENT_USED;
		event.event.vq_index = 0;
		fake_say(f, &event);
	}
	return true;
}

/* What the device says of itself while it is being reset belongs to the past. */
static void events_during_reset(void *arg)
{
	(void)arg;
	open_fake(VMSG_V2);
	fake_user_start(&user, 0);
	fake.reset_polls = 3;
	fake.hook = complain;
	user.used = 0;
	CHECK_EQ(vmsg_driver_reset(&user.driver), 0);
	CHECK(!user.driver.needs_reset);
	CHECK_EQ(user.used, 0);
	/* And what comes when it has status 0. */
	user.config_changed = 0;
	fake_config_event(&fake, 0, 0, NULL);
	fake_used(&fake, 0);
	CHECK_EQ(user.used + user.config_changed, 0);
}

static void needs_reset_and_start_again(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake_user_start(&user, 0);
		fake.status |= VMSG_STATUS_NEEDS_RESET;
		fake_config_event(&fake, 0, 0, NULL);
		CHECK(user.driver.needs_reset);
		CHECK_EQ(user.config_changed, 1);
		CHECK_EQ(user.last_status, 0x4f);
		fake_forget(&fake);
		fake_user_start(&user, 0);
		CHECK_EQ(fake.log[1].msg.msg_id, VMSG_SET_DEVICE_STATUS);
		CHECK_EQ(fake.log[1].msg.status.status, 0);
		CHECK(!user.driver.needs_reset);
		CHECK_EQ(fake.status, 0x0f);
	}
}

/* ---- Time ---- */

/* Any one request without an answer, once: asked again, and the start succeeds. */
static void lost_answers(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_SET_VQUEUE; id++) {
			if (id == VMSG_SET_CONFIG || id == VMSG_GET_CONFIG ||
			    id == VMSG_GET_DEVICE_STATUS)
				continue;
			test_context("%s id %u", vmsg_dialect_name(d), id);
			open_fake(d);
			fake.swallow = 1;
			fake.swallow_id = id;
			fake_user_start(&user, 0);
			CHECK_EQ(fake.bus.counters.timeouts, 1);
		}
	}
}

/* No answer at all, at any step: an error, after a time that is known before. */
static void silence_at_any_step(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		for (uint32_t step = 0; step < 11; step++) {
			uint32_t start;
			int rc;

			test_context("%s silent from request %u on", vmsg_dialect_name(d), step);
			open_fake(d);
			/* Let `step` answers pass. */
			fake.swallow = 0;
			fake.count = step;
			fake.hook = NULL;
			start = fake.bus.now_ms;
			rc = 0;
			for (uint32_t i = 0; rc == 0 && i < 5; i++) {
				if (fake.log_count >= step)
					fake.swallow = UINT32_MAX;
				if (i == 0)
					rc = vmsg_driver_identify(&user.driver);
				else if (i == 1)
					rc = vmsg_driver_reset(&user.driver);
				else if (i == 2)
					rc = vmsg_driver_negotiate(&user.driver, 0);
				else if (i == 3)
					rc = fake_user_setup(&user, 0, 8);
				else
					rc = vmsg_driver_ready(&user.driver);
			}
			if (fake.swallow)
				CHECK(rc == VMSG_ERR_TIMEDOUT || rc == VMSG_ERR_NODEV);
			else
				CHECK_EQ(rc, 0);
			/* Two tries, and a look at the status. */
			CHECK(fake.bus.now_ms - start <= 3 * user.driver.timeout_ms + 20);
		}
	}
}

/* When the tries are used up, the driver looks how the device is (DRV-15). */
static void looks_after_a_timeout(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_SHM };
	struct vmsg_request request = { 0 };

	(void)arg;
	open_fake(VMSG_V2);
	fake_user_start(&user, 0);
	fake_forget(&fake);
	fake.swallow = UINT32_MAX;
	fake.swallow_id = VMSG_GET_SHM;
	fake.status |= VMSG_STATUS_NEEDS_RESET;
	CHECK_EQ(vmsg_driver_request(&user.driver, &request, &msg), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake_count(&fake, 0, VMSG_GET_SHM, NULL), 2);
	CHECK_EQ(fake_count(&fake, 0, VMSG_GET_DEVICE_STATUS, NULL), 1);
	CHECK_EQ(user.driver.status, 0x4f);
}

static void status_read_and_failed(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake_user_start(&user, 0);
		CHECK_EQ(vmsg_driver_read_status(&user.driver), 0x0f);
		fake.status = 0x4f;
		CHECK_EQ(vmsg_driver_read_status(&user.driver), 0x4f);
		CHECK_EQ(vmsg_driver_fail(&user.driver), 0);
		CHECK_EQ(fake.status, 0xcf);
		CHECK(!user.driver.started);
	}
}

static bool set_type_bits(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	(void)msg;
	reply->type |= (uint8_t)(4u << (f->count++ % 6));
	return true;
}

/* Reserved bits in what the device sends: not by the codec, which knows no row for them. */
static bool raw_answer(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	uint8_t buf[FAKE_BYTES];
	int len = vmsg_msg_encode(f->dialect, reply, buf, sizeof(buf));
	struct vmsg_msg bits = *reply;

	CHECK(len > 0);
	set_type_bits(f, msg, &bits);
	buf[0] = bits.type;
	fake_say_raw(f, buf, (uint32_t)len);
	return false;
}

static void reserved_bits_in_answers(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.hook = raw_answer;
		fake_user_start(&user, 0);
		CHECK_EQ(fake.bus.counters.malformed, 0);
	}
}

/* ---- Dialects ---- */

static void learns_the_dialect(void *arg)
{
	uint8_t answer[32];

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		fake_init(&fake, d, VMSG_AUTO, 0, 0);
		fake_user_init(&user, &fake);
		fake_user_start(&user, VMSG_BIT(5));
		CHECK_EQ(fake.bus.dialect, d);
		CHECK_EQ(user.driver.features, VMSG_BIT(5) | VMSG_BIT(VMSG_F_VERSION_1));
		CHECK_MEM(fake.log[0].bytes, "\x00\x02\x05\x00\x06\x00\x08\x00", 8);
		/* Latched: what comes later does not change it. */
		memset(answer, 0, sizeof(answer));
		memcpy(answer, "\x01\x02\x05\x00\x1e\x00\x20\x00", 8);
		fake_say_raw(&fake, answer, sizeof(answer));
		fake_deliver(&fake);
		CHECK_EQ(fake.bus.dialect, d);
	}
}

/* A silent number says nothing about the dialect. */
static void learns_later(void *arg)
{
	(void)arg;
	fake_init(&fake, VMSG_V1, VMSG_AUTO, 0, 0);
	fake_user_init(&user, &fake);
	fake.swallow = 2;
	CHECK_EQ(vmsg_driver_identify(&user.driver), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake.bus.dialect, VMSG_AUTO);
	fake_user_start(&user, 0);
	CHECK_EQ(fake.bus.dialect, VMSG_V1);
}

static const struct test tests[] = {
	{ "DRV-42 DRV-43 DRV-45 INFO is authoritative", info_is_authoritative, NULL },
	{ "DRV-43 DRV-44 administration queues", administration_queues, NULL },
	{ "DRV-14 nobody there", nobody_there, NULL },
	{ "DRV-22 DRV-23 DRV-31 DRV-33 DRV-41 DRV-56 order of steps", order_of_steps, NULL },
	{ "DRV-24 DRV-26 DRV-30 DRV-32 status bits that do not stick",
	  status_bits_that_do_not_stick, NULL },
	{ "DRV-28 DRV-46 DRV-47 features wanted and offered", features_wanted_and_offered, NULL },
	{ "DRV-29 BUS-51 features never negotiated", features_never_negotiated, NULL },
	{ "DRV-28 no common ground", no_common_ground, NULL },
	{ "DRV-46 blocks as asked", blocks_as_asked, NULL },
	{ "DRV-55 DRV-56 DRV-57 V1-DRV-06 reset is polled", reset_is_polled, NULL },
	{ "DRV-14 DRV-55 reset is bounded", reset_is_bounded, NULL },
	{ "DRV-57 events during reset", events_during_reset, NULL },
	{ "DRV-54 NEEDS_RESET and start again", needs_reset_and_start_again, NULL },
	{ "DRV-14 lost answers", lost_answers, NULL },
	{ "DRV-14 BUS-21 BUS-23 silence at any step", silence_at_any_step, NULL },
	{ "DRV-15 looks after a timeout", looks_after_a_timeout, NULL },
	{ "DRV-53 status read, and failed", status_read_and_failed, NULL },
	{ "GEN-01 DRV-17 reserved bits in answers", reserved_bits_in_answers, NULL },
	{ "5.3 learns the dialect", learns_the_dialect, NULL },
	{ "5.3 learns later", learns_later, NULL },
};

int main(int argc, char **argv)
{
	return test_main("driver_start", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
