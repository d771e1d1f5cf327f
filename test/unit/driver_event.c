/* SPDX-License-Identifier: BSD-3-Clause */
/* Driver role: what the device says unasked, and devices that come and go (wire.md 3.2). */
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

static void event_used(void *arg)
{
	static const uint32_t odd[] = { 1, 3, 4, 0x10000, UINT32_MAX };

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake_user_start(&user, 0);
		user.used = 0;
		fake_used(&fake, 0);
		CHECK_EQ(user.used, 1);
		CHECK_EQ(user.last_used, 0);
		for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
			fake_used(&fake, odd[i]);
		CHECK_EQ(user.used, 1);
		CHECK_EQ(user.driver.counters.bad_events, 5);
		/* Without events, by looking (DRV-40). */
		vmsg_driver_poll(&user.driver);
		CHECK_EQ(user.used, 2);
	}
}

/* A buffer comes back by the event, or by polling without one. */
static void buffers_come_back(void *arg)
{
	struct vmsg_buf buf = { .addr = FAKE_SHARED + 0x8000, .len = 64 };
	struct vmsg_mem mem;
	struct vmsg_region region = { .addr = FAKE_SHARED,
				      .len_bytes = sizeof(fake_shared),
				      .ptr = fake_shared,
				      .fd = -1,
				      .access = VMSG_MEM_READ | VMSG_MEM_WRITE };
	struct vmsg_vq_device queue = { .max_size = 8, .size = 8 };
	struct vmsg_iov iov[4];
	struct vmsg_chain chain = { .iov = iov, .iov_max = 4 };
	void *cookie;
	uint32_t written;

	(void)arg;
	open_fake(VMSG_V2);
	fake_user_start(&user, 0);
	CHECK_EQ(vmsg_mem_init(&mem, &region, 1), 0);
	queue.desc_addr = fake.vqs[0].desc_addr;
	queue.driver_addr = fake.vqs[0].driver_addr;
	queue.device_addr = fake.vqs[0].device_addr;
	CHECK_EQ(vmsg_vq_device_enable(&queue, &vmsg_vq_split_device, &mem, 0), 0);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(vmsg_vq_add(&user.vqs[0], &buf, 0, 1, &buf), 0);
		vmsg_driver_kick(&user.driver, 0);
		CHECK_EQ(vmsg_vq_pop(&queue, &chain), 1);
		CHECK_EQ(vmsg_chain_write(&chain, 0, "abcd", 4), 4);
		vmsg_vq_push(&queue, &chain, 4);
		user.used = 0;
		if (i == 0)
			fake_used(&fake, 0);
		else
			vmsg_driver_poll(&user.driver);
		CHECK_EQ(user.used, 1);
		CHECK_EQ(vmsg_vq_get(&user.vqs[0], &cookie, &written), 1);
		CHECK(cookie == &buf);
		CHECK_EQ(written, 4);
		CHECK_MEM(fake_shared + 0x8000, "abcd", 4);
	}
}

static bool is_meant_for_drivers(uint8_t type, uint8_t msg_id)
{
	if (type == VMSG_TYPE_BUS)
		return msg_id == VMSG_PING || msg_id == VMSG_EVENT_DEVICE;
	return type == 0 && (msg_id == VMSG_EVENT_USED || msg_id == VMSG_EVENT_CONFIG);
}

static void unknown_from_the_device(void *arg)
{
	uint8_t wire[64] = { 0 };

	(void)arg;
	EACH_DIALECT(d)
	{
		struct vmsg_bus_counters *counters = &fake.bus.counters;
		uint32_t at = vmsg_msg_header_bytes(d) - 2;

		open_fake(d);
		fake_user_start(&user, 0);
		fake_forget(&fake);
		user.used = 0;
		for (uint32_t i = 0; i < 4 * 256; i++) {
			uint32_t before = counters->unknown + counters->malformed + counters->stray;

			wire[0] = (uint8_t)(i >> 8);
			wire[1] = (uint8_t)i;
			vmsg_put16(wire + 2, wire[0] & VMSG_TYPE_BUS ? 0 : FAKE_DEV);
			vmsg_put16(wire + at, 64);
			if (is_meant_for_drivers(wire[0], wire[1]))
				continue;
			test_context("%s type %u id 0x%02x", vmsg_dialect_name(d), wire[0],
				     wire[1]);
			fake_say_raw(&fake, wire, 64);
			fake_deliver(&fake);
			CHECK_EQ(counters->unknown + counters->malformed + counters->stray,
				 before + 1);
		}
		CHECK_EQ(fake.log_count, 0);
		CHECK_EQ(user.used + user.config_changed + user.gone, 0);
		/* And traffic goes on. */
		CHECK_EQ(vmsg_driver_read_status(&user.driver), 0x0f);
	}
}

/* Every answer and event, cut at every byte. */
static void truncated_from_the_device(void *arg)
{
	struct vmsg_msg event = { .dev_num = FAKE_DEV };
	uint8_t wire[64];

	(void)arg;
	EACH_DIALECT(d)
	{
		open_fake(d);
		fake_user_start(&user, 0);
		user.used = user.config_changed = 0;
		for (uint32_t i = 0; i < 2; i++) {
			int len;

			event.msg_id = i ? VMSG_EVENT_USED : VMSG_EVENT_CONFIG;
			len = vmsg_msg_encode(d, &event, wire, sizeof(wire));
			CHECK(len > 0);
			for (uint32_t cut = 0; cut < (uint32_t)len; cut++) {
				fake_say_raw(&fake, wire, cut);
				fake_deliver(&fake);
			}
		}
		CHECK_EQ(user.used + user.config_changed, 0);
	}
	/* Longer than the bus carries. */
	open_fake(VMSG_V2);
	memset(wire, 0, sizeof(wire));
	fake.bus.max_msg_size = 52;
	wire[1] = VMSG_EVENT_USED;
	wire[2] = FAKE_DEV;
	vmsg_put16(wire + 6, 53);
	fake_say_raw(&fake, wire, 64);
	fake_deliver(&fake);
	CHECK_EQ(fake.bus.counters.malformed, 1);
}

/* ---- Devices that come and go ---- */

static uint32_t device_events;
static uint32_t last_device_event;

static void device_event(struct vmsg_bus *bus, uint16_t dev_num, uint32_t state)
{
	CHECK(bus == &fake.bus);
	device_events++;
	last_device_event = (uint32_t)dev_num << 16 | state;
}

static void say_device(uint32_t dev_num, uint32_t state)
{
	struct vmsg_msg event = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_EVENT_DEVICE };

	event.event_device.device_number = dev_num;
	event.event_device.device_bus_state = state;
	fake_say(&fake, &event);
	fake_deliver(&fake);
}

static void devices_come_and_go(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		open_fake(d);
		fake.bus.device_event = device_event;
		device_events = 0;
		fake_user_start(&user, 0);
		say_device(7, VMSG_DEVICE_ADDED);
		CHECK_EQ(device_events, 1);
		CHECK_EQ(last_device_event, 7u << 16 | VMSG_DEVICE_ADDED);
		/* Twice, and for what is there already. */
		say_device(7, VMSG_DEVICE_ADDED);
		say_device(FAKE_DEV, VMSG_DEVICE_ADDED);
		CHECK_EQ(user.gone, 0);
		/* Of another device, and of one never heard of. */
		say_device(9, VMSG_DEVICE_REMOVED);
		CHECK_EQ(user.gone, 0);
		say_device(FAKE_DEV, VMSG_DEVICE_REMOVED);
		CHECK_EQ(user.gone, 1);
		CHECK_EQ(last_device_event, FAKE_DEV << 16 | VMSG_DEVICE_REMOVED);
		say_device(FAKE_DEV, VMSG_DEVICE_REMOVED);
		CHECK_EQ(user.gone, 1);
		/* Nothing is asked of what is gone, and nothing taken from it. */
		fake_forget(&fake);
		user.used = 0;
		CHECK_EQ(vmsg_driver_read_status(&user.driver), VMSG_ERR_SHUTDOWN);
		vmsg_driver_kick_again(&user.driver, 0);
		vmsg_driver_poll(&user.driver);
		fake_used(&fake, 0);
		CHECK_EQ(fake.log_count, 0);
		CHECK_EQ(user.used, 0);
		/* Untied and tied anew, it is used again. */
		vmsg_driver_exit(&user.driver);
		fake_user_init(&user, &fake);
		fake_user_start(&user, 0);
	}
}

static void drivers_are_told_apart(void *arg)
{
	static struct fake_user other;

	(void)arg;
	open_fake(VMSG_V2);
	fake_user_start(&user, 0);
	fake_user_init(&other, &fake);
	other.driver.dev_num = 77;
	user.used = 0;
	fake_used(&fake, 0);
	CHECK_EQ(user.used, 1);
	CHECK_EQ(other.used, 0);
	say_device(77, VMSG_DEVICE_REMOVED);
	CHECK_EQ(user.gone, 0);
	CHECK_EQ(other.gone, 1);
	vmsg_driver_exit(&other.driver);
	vmsg_driver_exit(&other.driver); /* once more does no harm */
	fake_used(&fake, 0);
	CHECK_EQ(user.used, 2);
	vmsg_driver_exit(&user.driver);
	fake_used(&fake, 0);
	CHECK_EQ(user.used, 2);
	CHECK_EQ(fake.bus.counters.no_device, 1);
}

static const struct test tests[] = {
	{ "DRV-39 DRV-40 EVENT_USED", event_used, NULL },
	{ "DRV-39 DRV-40 buffers come back", buffers_come_back, NULL },
	{ "DRV-02 DRV-04 DRV-13 unknown from the device", unknown_from_the_device, NULL },
	{ "DRV-13 truncated from the device", truncated_from_the_device, NULL },
	{ "BUS-43 V1-BUS-08 V1-DRV-04 V1-DRV-05 devices come and go", devices_come_and_go, NULL },
	{ "DRV-19 drivers are told apart", drivers_are_told_apart, NULL },
};

int main(int argc, char **argv)
{
	return test_main("driver_event", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
