/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver side of a bus: requests and answers, enumeration, PING, events (wire.md 3.1, 3.2). */
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

static uint32_t strays(void)
{
	return fake.bus.counters.stray;
}

/* ---- Requests ---- */

#define FLIGHT 8

static struct vmsg_request requests[FLIGHT];
static uint32_t done_count;
static struct vmsg_request *done_order[FLIGHT];

static void count_done(struct vmsg_request *request)
{
	CHECK(!request->waiting);
	CHECK(done_count < FLIGHT);
	done_order[done_count++] = request;
}

/* Eight at once, for eight queues of one device. */
static void start_eight(void)
{
	memset(requests, 0, sizeof(requests));
	done_count = 0;
	fake.out_count = 0;
	fake.hold = true;
	for (uint32_t i = 0; i < FLIGHT; i++) {
		struct vmsg_msg msg = { .msg_id = VMSG_GET_VQUEUE, .dev_num = FAKE_DEV };

		msg.vqueue.index = i;
		requests[i].done = count_done;
		CHECK_EQ(vmsg_request_start(&fake.bus, &requests[i], &msg, 1000), 0);
		CHECK(requests[i].waiting);
	}
	CHECK_EQ(fake.out_count, FLIGHT);
}

static void tokens_differ(void)
{
	for (uint32_t i = 0; i < FLIGHT; i++) {
		CHECK(requests[i].token != 0);
		for (uint32_t j = 0; j < i; j++)
			CHECK(requests[i].token != requests[j].token);
	}
}

/* Answers in any order find their requests. The numbers on the wire are the bus's own affair. */
static void answers_in_any_order(void *arg)
{
	static const uint8_t order[FLIGHT] = { 5, 0, 7, 2, 1, 6, 4, 3 };
	struct fake_frame mixed[FLIGHT];

	(void)arg;
	for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_V1; d++) {
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		start_eight();
		tokens_differ();
		/* BUS-36: sent in the order they were started. */
		for (uint32_t i = 0; i < FLIGHT; i++)
			CHECK_EQ(fake.log[i].msg.vqueue.index, i);
		for (uint32_t i = 0; i < FLIGHT; i++)
			mixed[i] = fake.out[order[i]];
		memcpy(fake.out, mixed, sizeof(mixed));
		fake_deliver(&fake);
		CHECK_EQ(done_count, FLIGHT);
		for (uint32_t i = 0; i < FLIGHT; i++) {
			CHECK(done_order[i] == &requests[order[i]]);
			CHECK_EQ(requests[i].result, 0);
			CHECK_EQ(requests[i].reply.vqueue.index, i);
		}
		CHECK_EQ(strays(), 0);
	}
}

/* One outcome: what comes twice, or when nobody waits any more, is not seen. */
static void one_outcome(void *arg)
{
	(void)arg;
	open_fake(VMSG_V2);
	start_eight();
	memcpy(&fake.out[FLIGHT], &fake.out[0], sizeof(fake.out[0]));
	fake.out_count++;
	fake_deliver(&fake);
	CHECK_EQ(done_count, FLIGHT);
	CHECK_EQ(strays(), 1);
	/* Late: after the time was up. */
	start_eight();
	fake.bus.now_ms += 999;
	vmsg_request_expire(&fake.bus);
	CHECK_EQ(done_count, 0);
	fake.bus.now_ms += 1;
	vmsg_request_expire(&fake.bus);
	CHECK_EQ(done_count, FLIGHT);
	for (uint32_t i = 0; i < FLIGHT; i++)
		CHECK_EQ(requests[i].result, VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake.bus.counters.timeouts, FLIGHT);
	fake_deliver(&fake);
	CHECK_EQ(done_count, FLIGHT);
	CHECK_EQ(strays(), 1 + FLIGHT);
	/* Cancelled. */
	start_eight();
	vmsg_request_cancel(&fake.bus, &requests[3]);
	CHECK(!requests[3].waiting);
	fake_deliver(&fake);
	CHECK_EQ(done_count, FLIGHT - 1);
	CHECK_EQ(strays(), 2 + FLIGHT);
	CHECK(fake.bus.requests == NULL);
}

static void answers_that_do_not_fit(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG, .dev_num = FAKE_DEV };
	struct vmsg_request request = { 0 };
	struct vmsg_msg wrong;
	uint8_t tail[4];

	(void)arg;
	open_fake(VMSG_V2);
	msg.config.length = 4;
	request.tail = tail;
	request.tail_size = sizeof(tail);
	fake.swallow = 1;
	CHECK_EQ(vmsg_request_start(&fake.bus, &request, &msg, 1000), 0);
	/* Another kind, another device, another token, the bus's: none of them is it. */
	wrong = (struct vmsg_msg){ .type = 1,
				   .msg_id = VMSG_GET_DEVICE_STATUS,
				   .dev_num = FAKE_DEV,
				   .token = request.token };
	fake_say(&fake, &wrong);
	wrong.msg_id = VMSG_GET_CONFIG;
	wrong.dev_num++;
	fake_say(&fake, &wrong);
	wrong.dev_num--;
	wrong.token++;
	fake_say(&fake, &wrong);
	wrong = (struct vmsg_msg){ .type = 3, .msg_id = VMSG_PING, .token = request.token };
	fake_say(&fake, &wrong);
	fake_deliver(&fake);
	CHECK(request.waiting);
	CHECK_EQ(strays(), 4);
	/* More than there is room for. */
	wrong = (struct vmsg_msg){ .type = 1,
				   .msg_id = VMSG_GET_CONFIG,
				   .dev_num = FAKE_DEV,
				   .token = request.token,
				   .config = { .length = 5 },
				   .tail = "12345" };
	fake_say(&fake, &wrong);
	fake_deliver(&fake);
	CHECK(!request.waiting);
	CHECK_EQ(request.result, VMSG_ERR_MSGSIZE);
}

static void tail_is_kept(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_CONFIG, .dev_num = FAKE_DEV };
	uint8_t tail[8] = { 0, 0, 0, 0, 0, 0, 0xaa, 0xaa };
	struct vmsg_request request = { .tail = tail, .tail_size = 6 };

	(void)arg;
	EACH_DIALECT(d)
	{
		open_fake(d);
		msg.config.length = 6;
		CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), 0);
		CHECK(request.reply.tail == tail);
		CHECK_EQ(request.reply.tail_bytes, 6);
		CHECK_MEM(tail, fake.config, 6);
		CHECK_EQ(tail[6], 0xaa);
	}
}

/* A peer that answers bus messages with token 0, one that echoes no token, one that has none. */
static bool zero_token(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	(void)msg;
	reply->token = 0;
	return true;
}

static void tokens_of_the_field(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };
	struct vmsg_request first = { 0 }, second = { 0 };

	(void)arg;
	open_fake(VMSG_V1);
	fake.hook = zero_token;
	CHECK_EQ(vmsg_bus_ping(&fake.bus, 1, 1000), 0);
	CHECK_EQ(vmsg_request_call(&fake.bus, &first, &msg, 1000), VMSG_ERR_TIMEDOUT);
	fake.bus.quirks = VMSG_QUIRK_NO_ECHO;
	CHECK_EQ(vmsg_request_call(&fake.bus, &first, &msg, 1000), 0);
	open_fake(VMSG_V2);
	fake.hook = zero_token;
	CHECK_EQ(vmsg_bus_ping(&fake.bus, 1, 1000), VMSG_ERR_TIMEDOUT);
	/* Where no token tells them apart, one of a kind at a time. */
	open_fake(VMSG_RFC2);
	fake.hold = true;
	CHECK_EQ(vmsg_request_start(&fake.bus, &first, &msg, 1000), 0);
	CHECK_EQ(vmsg_request_start(&fake.bus, &second, &msg, 1000), VMSG_ERR_AGAIN);
	CHECK(!second.waiting);
	msg.dev_num++;
	fake.swallow = 1;
	fake_deliver(&fake);
	CHECK(!first.waiting);
	CHECK_EQ(first.result, 0);
}

static void wraps_its_tokens(void *arg)
{
	(void)arg;
	open_fake(VMSG_V2);
	for (uint32_t i = 0; i < 3; i++) {
		struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };
		static struct vmsg_request kept, request;

		/* One stays in flight while the numbers go round twice. */
		memset(&kept, 0, sizeof(kept));
		fake.swallow = 1;
		CHECK_EQ(vmsg_request_start(&fake.bus, &kept, &msg, 1000), 0);
		for (uint32_t j = 0; j < 0x20010; j++) {
			memset(&request, 0, sizeof(request));
			CHECK_EQ(vmsg_request_start(&fake.bus, &request, &msg, 1000), 0);
			CHECK(request.token != 0 && request.token != kept.token);
			fake_forget(&fake);
			fake_deliver(&fake);
			CHECK(!request.waiting && kept.waiting);
		}
		vmsg_request_cancel(&fake.bus, &kept);
	}
}

static void no_room_no_peer(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };
	struct vmsg_request request = { 0 };
	uint32_t start;

	(void)arg;
	open_fake(VMSG_V2);
	fake.room = 0;
	CHECK_EQ(vmsg_request_start(&fake.bus, &request, &msg, 1000), VMSG_ERR_AGAIN);
	CHECK(!request.waiting);
	CHECK(fake.bus.requests == NULL);
	start = fake.bus.now_ms;
	CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake.bus.now_ms - start, 1000);
	CHECK(fake.bus.requests == NULL);
	fake.down = true;
	CHECK_EQ(vmsg_request_start(&fake.bus, &request, &msg, 1000), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(fake.bus.counters.send_failed, 2);
	/* Larger than the bus carries. */
	fake.down = false;
	fake.room = UINT32_MAX;
	msg.msg_id = VMSG_SET_CONFIG;
	msg.config.length = VMSG_MSG_DEFAULT - 19;
	msg.tail = fake_shared;
	CHECK_EQ(vmsg_request_start(&fake.bus, &request, &msg, 1000), VMSG_ERR_MSGSIZE);
	CHECK_EQ(fake.log_count, 0);
	CHECK(fake.bus.requests == NULL);
}

static int cut_wait(struct vmsg_bus *bus, uint32_t ms)
{
	(void)bus;
	(void)ms;
	return VMSG_ERR_SHUTDOWN;
}

static void peer_vanishes(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };
	struct vmsg_request request = { 0 };
	struct vmsg_bus_ops ops;

	(void)arg;
	open_fake(VMSG_V2);
	ops = *fake.bus.ops;
	ops.wait = cut_wait;
	fake.bus.ops = &ops;
	fake.hold = true;
	CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), VMSG_ERR_SHUTDOWN);
	CHECK(!request.waiting);
	CHECK(fake.bus.requests == NULL);
	/* The bus says it: all requests end, all drivers hear of it, once. */
	start_eight();
	vmsg_bus_peer_gone(&fake.bus);
	CHECK_EQ(done_count, FLIGHT);
	for (uint32_t i = 0; i < FLIGHT; i++)
		CHECK_EQ(requests[i].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(user.gone, 1);
	CHECK(user.driver.gone);
	vmsg_bus_peer_gone(&fake.bus);
	CHECK_EQ(user.gone, 1);
	CHECK_EQ(vmsg_driver_read_status(&user.driver), VMSG_ERR_SHUTDOWN);
}

static struct vmsg_request follow_up;

static void start_another(struct vmsg_request *request)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };

	(void)request;
	memset(&follow_up, 0, sizeof(follow_up));
	CHECK_EQ(vmsg_request_start(&fake.bus, &follow_up, &msg, 1000), 0);
}

static void done_starts_another(void *arg)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_STATUS, .dev_num = FAKE_DEV };
	struct vmsg_request request = { .done = start_another };

	(void)arg;
	open_fake(VMSG_V2);
	CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), 0);
	CHECK_EQ(follow_up.result, 0);
	CHECK(!follow_up.waiting);
	/* Also when it ends by time. */
	fake.swallow = 1;
	CHECK_EQ(vmsg_request_call(&fake.bus, &request, &msg, 1000), VMSG_ERR_TIMEDOUT);
	CHECK(follow_up.waiting);
	fake_deliver(&fake);
	CHECK(!follow_up.waiting);
}

/* ---- Enumeration and PING ---- */

static uint8_t bitmap[65536 / 8];

static void finds_devices(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		fake_init(&fake, d, d, 0, 52);
		CHECK_EQ(vmsg_bus_get_devices(&fake.bus, bitmap, 65536, 1000), 1);
		CHECK_EQ(bitmap[0], 1u << FAKE_DEV);
		for (uint32_t i = 1; i < sizeof(bitmap); i++)
			CHECK_EQ(bitmap[i], 0);
		/* Fewer are wanted than it has. */
		CHECK_EQ(vmsg_bus_get_devices(&fake.bus, bitmap, 8, 1000), 1);
		/* BUS-40: what was found is asked who it is. */
		fake_user_init(&user, &fake);
		CHECK_EQ(vmsg_driver_identify(&user.driver), 0);
	}
}

/* Learned from enumeration where that tells; an rfc2 peer is asked again in its own form. */
static void finds_devices_and_the_dialect(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		fake_init(&fake, d, VMSG_AUTO, 0, 0);
		CHECK_EQ(vmsg_bus_get_devices(&fake.bus, bitmap, 256, 1000), 1);
		CHECK_EQ(fake.bus.dialect, d);
	}
	fake_init(&fake, VMSG_V2, VMSG_AUTO, 0, 0);
	fake.swallow = UINT32_MAX;
	CHECK_EQ(vmsg_bus_get_devices(&fake.bus, bitmap, 256, 1000), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(fake.bus.dialect, VMSG_AUTO);
}

static struct {
	uint32_t count, step;
	int rule;
} windows;

static bool odd_windows(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	static const uint8_t all[64] = { 0xff };

	windows.count++;
	reply->tail = all;
	switch (windows.rule) {
	case 0: /* smaller windows that overlap */
		reply->devices.count = 8;
		reply->devices.next_offset = msg->devices.offset + windows.step;
		break;
	case 1: /* the end is the end of the window (QEMU of the v1 days) */
		reply->devices.count = 32;
		reply->devices.next_offset = 32;
		break;
	case 2: /* back to where it was */
		reply->devices.count = 8;
		reply->devices.next_offset = msg->devices.offset;
		break;
	case 3: /* another window than asked */
		reply->devices.offset++;
		break;
	case 4: /* more than asked */
		reply->devices.count = 512;
		break;
	default:
		break;
	}
	fake_forget(f);
	return true;
}

static void odd_walks(void *arg)
{
	static const struct {
		int rule;
		uint32_t step, slots;
		int result;
		uint32_t requests;
	} cases[] = {
		{ 0, 4, 64, 64, 16 },
		{ 0, 8, 64, 64, 8 },
		{ 1, 0, 256, 16, 2 },
		{ 2, 0, 256, 8, 1 },
		{ 3, 0, 256, VMSG_ERR_PROTO, 1 },
		{ 4, 0, 256, VMSG_ERR_MSGSIZE, 1 },
		{ 0, 1, 65536, VMSG_ERR_PROTO, 4096 },
	};

	(void)arg;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_context("rule %d step %u", cases[i].rule, cases[i].step);
		open_fake(VMSG_V2);
		fake.hook = odd_windows;
		windows.count = 0;
		windows.rule = cases[i].rule;
		windows.step = cases[i].step;
		CHECK_EQ(vmsg_bus_get_devices(&fake.bus, bitmap, cases[i].slots, 1000),
			 cases[i].result);
		CHECK_EQ(windows.count, cases[i].requests);
	}
}

static void pings(void *arg)
{
	static const uint32_t data[] = { 0, UINT32_MAX, 0xdeadbeef };

	(void)arg;
	EACH_DIALECT(d)
	{
		open_fake(d);
		for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++)
			CHECK_EQ(vmsg_bus_ping(&fake.bus, data[i], 1000), 0);
		fake.swallow = 1;
		CHECK_EQ(vmsg_bus_ping(&fake.bus, 1, 1000), VMSG_ERR_TIMEDOUT);
	}
}

static bool other_data(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	(void)msg;
	reply->ping.data++;
	return true;
}

static void ping_with_other_data(void *arg)
{
	(void)arg;
	open_fake(VMSG_V2);
	fake.hook = other_data;
	CHECK_EQ(vmsg_bus_ping(&fake.bus, 1, 1000), VMSG_ERR_PROTO);
}

/* ---- What the device side says unasked ---- */

static void answers_a_ping(void *arg)
{
	struct vmsg_msg ping = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING, .token = 0x1234 };
	struct vmsg_msg answer;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		ping.ping.data = 0xdeadbeef;
		fake_say(&fake, &ping);
		fake_deliver(&fake);
		CHECK_EQ(fake_count(&fake, 3, VMSG_PING, &answer), 1);
		CHECK_EQ(answer.ping.data, 0xdeadbeef);
		CHECK_EQ(answer.token, d == VMSG_RFC2 ? 0 : 0x1234);
		/* No room: one answer waits, more are dropped and counted. Reading goes on. */
		fake.room = 0;
		for (uint32_t i = 1; i <= 5; i++) {
			ping.ping.data = i;
			fake_say(&fake, &ping);
		}
		fake_deliver(&fake);
		CHECK_EQ(fake.bus.counters.held, 1);
		CHECK_EQ(fake.bus.counters.pings_dropped, 4);
		fake.room = UINT32_MAX;
		CHECK(vmsg_bus_flush(&fake.bus));
		CHECK_EQ(fake_count(&fake, 3, VMSG_PING, &answer), 2);
		CHECK_EQ(answer.ping.data, 1);
		/* An answer is never answered. */
		ping.type |= VMSG_TYPE_RESPONSE;
		fake_say(&fake, &ping);
		fake_deliver(&fake);
		CHECK_EQ(fake.log_count, 2);
		ping.type = VMSG_TYPE_BUS;
	}
}

static const struct test tests[] = {
	{ "BUS-22 BUS-31 BUS-33 BUS-34 BUS-35 BUS-36 BUS-37 DRV-21 answers in any order",
	  answers_in_any_order, NULL },
	{ "BUS-22 one outcome", one_outcome, NULL },
	{ "BUS-22 DRV-13 answers that do not fit", answers_that_do_not_fit, NULL },
	{ "tail is kept", tail_is_kept, NULL },
	{ "BUS-31 DRV-21 tokens of the field", tokens_of_the_field, NULL },
	{ "BUS-34 wraps its tokens", wraps_its_tokens, NULL },
	{ "BUS-11 BUS-21 BUS-23 DRV-01 no room, no peer", no_room_no_peer, NULL },
	{ "BUS-21 BUS-22 peer vanishes", peer_vanishes, NULL },
	{ "done starts another", done_starts_another, NULL },
	{ "BUS-20 BUS-40 finds devices", finds_devices, NULL },
	{ "5.5 finds devices and the dialect", finds_devices_and_the_dialect, NULL },
	{ "BUS-57 odd walks", odd_walks, NULL },
	{ "BUS-60 V1-BUS-07 pings", pings, NULL },
	{ "BUS-60 PING with other data", ping_with_other_data, NULL },
	{ "BUS-02 BUS-60 answers a PING", answers_a_ping, NULL },
};

int main(int argc, char **argv)
{
	return test_main("bus_driver_side", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
