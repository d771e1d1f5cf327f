/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: status, reset, DRIVER_OK, notifications (wire.md 3.3). */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)

static struct rig rig;
static struct vmsg_vq_driver vq;
static struct vmsg_vq_state state[16];

static uint32_t count_used(void)
{
	return rig_count(&rig, 0, VMSG_EVENT_USED, NULL);
}

static void status_is_accurate(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		CHECK_EQ(rig_status(&rig), 0);
		rig_start(&rig, 0);
		CHECK_EQ(rig_status(&rig), 0x0f);
		/* A driver clears no bit but by reset, and bits nobody knows stay 0. */
		CHECK_EQ(rig_set_status(&rig, 1), 0x0f);
		CHECK_EQ(rig_set_status(&rig, 0xffffff7f), 0x0f);
		CHECK_EQ(rig_set_status(&rig, 0x100), 0x0f);
		CHECK_EQ(rig_set_status(&rig, 0x80), 0x8f);
		CHECK_EQ(rig_status(&rig), 0x8f);
		CHECK_EQ(rig_set_status(&rig, 0), 0);
		CHECK_EQ(rig_status(&rig), 0);
	}
}

/* What the driver writes is no news to it. v1 asks for events here; no device of the field sends
 * them, and its drivers would read config anew at every step. */
static void no_event_for_what_the_driver_wrote(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		rig_set_status(&rig, 0x8f);
		rig_set_status(&rig, 0);
		CHECK_EQ(rig.model.device.counters.config_events, 0);
	}
}

static void needs_reset_is_an_event(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		rig_forget(&rig);
		vmsg_device_needs_reset(&rig.model.device);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.config.device_status, 0x4f);
		CHECK_EQ(event.config.offset, 0);
		CHECK_EQ(event.config.length, 0);
		CHECK_EQ(event.tail_bytes, 0);
		CHECK_EQ(event.config.generation, rig.model.device.generation);
		/* Said once. */
		rig_forget(&rig);
		vmsg_device_needs_reset(&rig.model.device);
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig_status(&rig), 0x4f);
		/* Before DRIVER_OK it is seen in the status alone (virtio 1.4, 2.1.2). */
		rig_negotiate(&rig, 0);
		vmsg_device_needs_reset(&rig.model.device);
		CHECK_EQ(rig_status(&rig), 0x4b);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, NULL), 0);
	}
}

/* A ring that breaks the rules: NEEDS_RESET, and nothing is touched until a reset. */
static void corrupt_ring(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		/* More chains than the queue has entries. */
		vmsg_store16(rig_ram + 0x400 + 2, 9);
		rig_avail(&rig, 0);
		CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, &event), 1);
		CHECK_EQ(event.config.device_status, 0x4f);
		CHECK_EQ(rig.model.served, 0);
		CHECK_EQ(rig.model.device.counters.needs_reset, 1);
		rig.model.kicks = 0;
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.kicks, 0);
		CHECK_EQ(rig.sent_count, 0);
		/* DEV-22: a reset restores service. */
		memset(rig_ram, 0, sizeof(rig_ram));
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.served, 1);
		CHECK_EQ(count_used(), 1);
	}
}

static void start_that_fails(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.start_result = VMSG_ERR_IO;
	rig_negotiate(&rig, 0);
	CHECK_EQ(rig_set_status(&rig, 0x0f), 0x4f);
	CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_CONFIG, NULL), 1);
	CHECK_EQ(rig.model.starts, 1);
	rig.model.start_result = 0;
	rig_negotiate(&rig, 0);
	CHECK_EQ(rig_set_status(&rig, 0x0f), 0x0f);
	/* Once: writing it again starts nothing anew. */
	CHECK_EQ(rig_set_status(&rig, 0x0f), 0x0f);
	CHECK_EQ(rig.model.starts, 2);
}

/* ---- I/O and DRIVER_OK ---- */

static void no_io_before_driver_ok(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_negotiate(&rig, 0);
		rig_set_vqueue(&rig, 0, VMSG_VQUEUE_OP_ENABLE, 8);
		rig_vq_open(&vq, state, 0, 8, 0);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig.model.kicks, 0);
		CHECK_EQ(vmsg_load16(rig_ram + 0x800 + 2), 0);
		CHECK_EQ(rig.model.device.counters.early_kicks, 1);
		vmsg_device_poll(&rig.model.device);
		CHECK_EQ(rig.model.kicks, 0);
		/* With DRIVER_OK it is taken without another kick (DEV-36). */
		CHECK_EQ(rig_set_status(&rig, 0x0f), 0x0f);
		CHECK_EQ(rig.model.served, 1);
		CHECK_EQ(count_used(), 1);
		CHECK_EQ(vmsg_load16(rig_ram + 0x800 + 2), 1);
	}
}

static void one_buffer_one_used(void *arg)
{
	struct vmsg_msg event;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		for (uint32_t i = 0; i < 20; i++) {
			void *cookie;
			uint32_t written;

			rig_vq_add(&vq);
			rig_avail(&rig, 0);
			CHECK_EQ(rig.sent_count, 1);
			CHECK_EQ(rig_count(&rig, 0, VMSG_EVENT_USED, &event), 1);
			CHECK_EQ(event.dev_num, RIG_DEV);
			CHECK_EQ(event.event.vq_index, 0);
			CHECK_EQ(vmsg_vq_get(&vq, &cookie, &written), 1);
		}
		/* A kick for nothing brings nothing. */
		rig_avail(&rig, 0);
		CHECK_EQ(rig.sent_count, 0);
	}
}

/* Kicks for queues that are not there, not set up, or in a device that cannot go on. */
static void odd_kicks(void *arg)
{
	static const uint32_t odd[] = { 1, 2, 3, 4, 0x10000, UINT32_MAX };

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
			test_context("%s queue %u", vmsg_dialect_name(d), odd[i]);
			rig.model.kicks = 0;
			rig_avail(&rig, odd[i]);
			CHECK_EQ(rig.sent_count, 0);
			/* Before v2 any kick looks at all queues (peers.md 5.1). */
			CHECK_EQ(rig.model.kicks, d == VMSG_V2 ? 0 : 1);
		}
	}
}

static void kick_reaches_its_queue(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, 0);
	rig_set_vqueue(&rig, 0, VMSG_VQUEUE_OP_ENABLE, 8);
	rig_set_vqueue(&rig, 1, VMSG_VQUEUE_OP_ENABLE, 16);
	rig_set_status(&rig, 0x0f);
	CHECK_EQ(rig.model.kicks, 2);
	rig_avail(&rig, 1);
	CHECK_EQ(rig.model.kicks, 3);
	CHECK_EQ(rig.model.last_kick, 1);
	vmsg_device_kicked(&rig.model.device, 0);
	CHECK_EQ(rig.model.kicks, 4);
	CHECK_EQ(rig.model.last_kick, 0);
	vmsg_device_poll(&rig.model.device);
	CHECK_EQ(rig.model.kicks, 6);
	CHECK_EQ(rig.model.device.counters.kicks, 2);
}

/* A bus without room costs one bit for each queue, whatever happens meanwhile. */
static void used_waits_for_room(void *arg)
{
	struct vmsg_device *device = &rig.model.device;
	void *cookie;
	uint32_t written;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		rig.room = 0;
		for (uint32_t i = 0; i < 20; i++) {
			rig_vq_add(&vq);
			rig_avail(&rig, 0);
			CHECK_EQ(vmsg_vq_get(&vq, &cookie, &written), 1);
		}
		CHECK_EQ(device->counters.used_notifications, 20);
		CHECK(!vmsg_bus_flush(&rig.bus));
		rig.room = UINT32_MAX;
		rig_forget(&rig);
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 1);
		CHECK_EQ(count_used(), 1);
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 1);
	}
}

static void used_by_doorbell(void *arg)
{
	(void)arg;
	rig_init_bells(&rig, VMSG_V2);
	rig.model.serves = true;
	rig_start(&rig, 0);
	rig_vq_open(&vq, state, 0, 8, 0);
	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	CHECK_EQ(rig.bells, 1);
	CHECK_EQ(rig.bell_vq, 0);
	CHECK_EQ(rig.sent_count, 0);
	/* No room: later, and once. */
	rig.bell_result = VMSG_ERR_AGAIN;
	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	CHECK(!vmsg_bus_flush(&rig.bus));
	rig.bell_result = 0;
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK(vmsg_bus_flush(&rig.bus));
	CHECK_EQ(rig.bells, 2);
	/* A queue that has no doorbell: as a message, and never both (BUS-46). */
	rig.bell_result = VMSG_ERR_NOTSUP;
	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	CHECK_EQ(rig.bells, 2);
	CHECK_EQ(count_used(), 1);
}

/* ---- Reset ---- */

static void reset_at_once(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.serves = true;
		rig_start(&rig, VMSG_BIT(5));
		CHECK_EQ(rig_set_status(&rig, 0), 0);
		CHECK_EQ(rig.model.resets, 1);
		msg = rig_get_vqueue(&rig, 0);
		CHECK_EQ(msg.vqueue.max_size, 8);
		CHECK_EQ(msg.vqueue.size, 0);
		CHECK_EQ(msg.vqueue.flags, 0);
		CHECK_EQ(msg.vqueue.desc_addr | msg.vqueue.driver_addr | msg.vqueue.device_addr, 0);
		CHECK_EQ(rig.model.device.features, 0);
		/* Nothing is taken from the ring that was. */
		rig_vq_open(&vq, state, 0, 8, 0);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		vmsg_device_poll(&rig.model.device);
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig.model.served, 0);
		CHECK_EQ(vmsg_load16(rig_ram + 0x800 + 2), 0);
		/* A reset of what is reset. */
		CHECK_EQ(rig_set_status(&rig, 0), 0);
		CHECK_EQ(rig.model.resets, 1);
	}
}

/* Work in flight: the status is not 0 before it is done, and then it is. */
static void reset_takes_its_time(void *arg)
{
	struct vmsg_device *device = &rig.model.device;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.keeps = true;
		rig_start(&rig, 0);
		rig_vq_open(&vq, state, 0, 8, 0);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.kept_count, 1);
		rig.model.reset_result = VMSG_ERR_AGAIN;
		CHECK_EQ(rig_set_status(&rig, 0), 0x0f);
		CHECK_EQ(rig_status(&rig), 0x0f);
		/* Asked again, the model is not. Nothing else is begun either. */
		CHECK_EQ(rig_set_status(&rig, 0), 0x0f);
		CHECK_EQ(rig_set_status(&rig, 0x8f), 0x0f);
		CHECK_EQ(rig.model.resets, 1);
		rig_vq_add(&vq);
		rig_avail(&rig, 0);
		CHECK_EQ(rig.model.kept_count, 1);
		rig_set_vqueue(&rig, 1, VMSG_VQUEUE_OP_ENABLE, 16);
		CHECK_EQ(rig_get_vqueue(&rig, 1).vqueue.size, 0);
		/* The last piece of work still has its queue. */
		vmsg_device_push(device, 0, &rig.model.kept[0], 0);
		vmsg_device_used(device, 0);
		vmsg_device_reset_done(device);
		CHECK_EQ(rig_status(&rig), 0);
		CHECK_EQ(rig_get_vqueue(&rig, 0).vqueue.size, 0);
		/* Said twice, it does nothing. */
		vmsg_device_reset_done(device);
		rig.model.reset_result = 0;
		rig.model.kept_count = 0;
		rig_start(&rig, 0);
	}
}

/* Completions of what was reset away find nothing to complete. */
static void late_completion(void *arg)
{
	struct vmsg_device *device = &rig.model.device;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.keeps = true;
	rig_start(&rig, 0);
	rig_vq_open(&vq, state, 0, 8, 0);
	rig_vq_add(&vq);
	rig_avail(&rig, 0);
	CHECK_EQ(rig.model.kept_count, 1);
	rig_set_status(&rig, 0);
	memset(rig_ram, 0xa5, sizeof(rig_ram));
	rig_forget(&rig);
	vmsg_device_push(device, 0, &rig.model.kept[0], 0);
	vmsg_device_used(device, 0);
	CHECK_EQ(rig.sent_count, 0);
	for (uint32_t i = 0; i < sizeof(rig_ram); i++)
		CHECK_EQ(rig_ram[i], 0xa5);
}

/* The bus knows that the peer is gone or new. */
static void peer_reset(void *arg)
{
	struct vmsg_device *device = &rig.model.device;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_start(&rig, 0);
		rig.room = 0;
		vmsg_device_config_changed(device, 0, 1);
		rig_forget(&rig);
		vmsg_bus_peer_reset(&rig.bus);
		CHECK_EQ(device->status, 0);
		CHECK_EQ(rig.model.resets, 1);
		rig.room = UINT32_MAX;
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 0);
		rig_start(&rig, 0);
		/* With work in flight: nothing is owed to the new peer, and it has to wait. */
		rig.model.reset_result = VMSG_ERR_AGAIN;
		rig.room = 0;
		vmsg_device_config_changed(device, 0, 1);
		vmsg_bus_peer_reset(&rig.bus);
		rig.room = UINT32_MAX;
		rig_forget(&rig);
		CHECK(vmsg_bus_flush(&rig.bus));
		CHECK_EQ(rig.sent_count, 0);
		CHECK_EQ(rig_set_status(&rig, 0), 0x0f);
		vmsg_device_reset_done(device);
		CHECK_EQ(rig_status(&rig), 0);
		rig.model.reset_result = 0;
		rig_start(&rig, 0);
	}
}

static const struct test tests[] = {
	{ "DEV-54 status is accurate", status_is_accurate, NULL },
	{ "DEV-13 no event for what the driver wrote", no_event_for_what_the_driver_wrote, NULL },
	{ "DEV-12 DEV-14 V1-DEV-08 NEEDS_RESET is an event", needs_reset_is_an_event, NULL },
	{ "DEV-22 DEV-55 corrupt ring", corrupt_ring, NULL },
	{ "DEV-55 start that fails", start_that_fails, NULL },
	{ "DEV-35 DEV-36 no I/O before DRIVER_OK", no_io_before_driver_ok, NULL },
	{ "DEV-37 one buffer, one USED", one_buffer_one_used, NULL },
	{ "BUS-26 odd kicks", odd_kicks, NULL },
	{ "DEV-36 kick reaches its queue", kick_reaches_its_queue, NULL },
	{ "DEV-37 BUS-50 USED waits for room", used_waits_for_room, NULL },
	{ "BUS-46 BUS-47 USED by doorbell", used_by_doorbell, NULL },
	{ "DEV-57 DEV-58 DEV-59 V1-DEV-07 reset at once", reset_at_once, NULL },
	{ "DEV-57 DEV-58 DEV-59 reset takes its time", reset_takes_its_time, NULL },
	{ "DEV-59 late completion", late_completion, NULL },
	{ "DEV-22 peer reset", peer_reset, NULL },
};

int main(int argc, char **argv)
{
	return test_main("device_status", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
