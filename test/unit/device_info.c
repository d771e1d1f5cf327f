/* SPDX-License-Identifier: BSD-3-Clause */
/* Device role: who it is, its features, its shared memory. Names carry the rules of wire.md 3.3. */
#include "common_rig.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)

static struct rig rig;

static struct vmsg_msg ask_info(void)
{
	return rig_call(&rig, (struct vmsg_msg){ .msg_id = VMSG_GET_DEVICE_INFO });
}

static void check_info(const struct vmsg_msg *msg)
{
	CHECK_EQ(msg->info.device_id, 1);
	CHECK_EQ(msg->info.vendor_id, 0x554d4551);
	CHECK_EQ(msg->info.num_feature_blocks, 2);
	CHECK_EQ(msg->info.config_size, RIG_CONFIG);
	CHECK_EQ(msg->info.max_virtqueues, RIG_QUEUES);
	CHECK_EQ(msg->info.admin_vq_start, 3);
	CHECK_EQ(msg->info.admin_vq_count, 1);
}

/* Before anything, in mid-life, after a reset: always the same. */
static void info_while_inactive(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		msg = ask_info();
		check_info(&msg);
		rig_start(&rig, 0);
		msg = ask_info();
		check_info(&msg);
		rig_set_status(&rig, 0);
		msg = ask_info();
		check_info(&msg);
	}
}

static void info_numbers(void *arg)
{
	static const uint8_t uuid[16] = { 0x6f, 0x1c, 0x2d, 0x3e, 0x4a, 0x5b, 0x4c, 0x6d,
					  0x8e, 0x7f, 0x00, 0x11, 0x22, 0x33, 0x44, 0xff };
	static const uint8_t nil[16];
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	msg = ask_info();
	CHECK_MEM(msg.info.device_uuid, nil, 16);
	CHECK(msg.info.max_virtqueues <= 65536);
	CHECK(msg.info.admin_vq_start + msg.info.admin_vq_count <= msg.info.max_virtqueues);
	/* Every offered bit lies in the blocks that are counted. */
	CHECK(rig_features(&rig) >> 32 != 0);
	CHECK_EQ(msg.info.num_feature_blocks, 2);
	memcpy(rig.model.device.uuid, uuid, 16);
	msg = ask_info();
	CHECK_MEM(msg.info.device_uuid, uuid, 16);
	rig.model.device.admin_vq_start = rig.model.device.admin_vq_count = 0;
	vmsg_device_init(&rig.model.device);
	msg = ask_info();
	CHECK_EQ(msg.info.admin_vq_start, 0);
	CHECK_EQ(msg.info.admin_vq_count, 0);
}

/* 65536 queues do not fit 16 bits. */
static void info_most_queues(void *arg)
{
	static struct vmsg_vq_device vqs[65536];
	struct vmsg_msg msg;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	vqs[65535].max_size = 4;
	rig.model.device.vqs = vqs;
	rig.model.device.vq_count = 65536;
	vmsg_device_init(&rig.model.device);
	CHECK_EQ(ask_info().info.max_virtqueues, 65536);
	msg = rig_get_vqueue(&rig, 65535);
	CHECK_EQ(msg.vqueue.max_size, 4);
	msg = rig_get_vqueue(&rig, 65536);
	CHECK_EQ(msg.vqueue.max_size, 0);
}

static void info_bits_of_v1(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V1, 0, 0);
	ask_info();
	CHECK_EQ(vmsg_get32(rig.sent[0].bytes + 16), 64);
}

/* All eleven requests get one answer each; the lengths are those of the dialect. */
static void every_request_is_answered(void *arg)
{
	static const uint8_t sizes[11][3] = {
		{ 52, 32, 30 }, { 24, 24, 22 }, { 8, 8, 6 },	{ 24, 24, 22 },
		{ 20, 20, 18 }, { 12, 12, 10 }, { 12, 12, 10 }, { 48, 48, 42 },
		{ 8, 8, 6 },	{ 8, 8, 6 },	{ 32, 20, 18 },
	};

	(void)arg;
	EACH_DIALECT(d)
	{
		rig_init(&rig, d, 0, 0);
		for (uint8_t id = VMSG_GET_DEVICE_INFO; id <= VMSG_GET_SHM; id++) {
			struct vmsg_msg msg = { .msg_id = id };

			test_context("id %u in %s", id, vmsg_dialect_name(d));
			if (id == VMSG_GET_DEVICE_FEATURES)
				msg.features.num_blocks = 2;
			if (id == VMSG_GET_CONFIG)
				msg.config.length = 4;
			rig_call(&rig, msg);
			CHECK_EQ(rig.sent[0].len, sizes[id - VMSG_GET_DEVICE_INFO][d]);
		}
	}
}

/* ---- Features ---- */

static uint32_t ask_blocks(uint32_t index, uint32_t count, uint32_t *blocks)
{
	struct vmsg_msg msg = { .msg_id = VMSG_GET_DEVICE_FEATURES, .features = { index, count } };

	msg = rig_call(&rig, msg);
	CHECK_EQ(msg.features.block_index, index);
	CHECK_EQ(msg.features.num_blocks, count);
	CHECK_EQ(msg.tail_bytes, 4 * count);
	for (uint32_t i = 0; i < count; i++)
		blocks[i] = vmsg_get32((const uint8_t *)msg.tail + 4 * i);
	return count;
}

static void blocks_beyond_read_zero(void *arg)
{
	static const uint32_t starts[] = { 2, 5, 31, 0x7fffffff, 0xfffffffe };
	uint32_t blocks[8];

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
			ask_blocks(starts[i], 4, blocks);
			for (uint32_t j = 0; j < 4; j++)
				CHECK_EQ(blocks[j], 0);
		}
		/* A window over the end, and one of nothing (wire.md 4.5). */
		ask_blocks(1, 3, blocks);
		CHECK(vmsg_has((uint64_t)blocks[0] << 32, VMSG_F_VERSION_1));
		CHECK_EQ(blocks[1], 0);
		CHECK_EQ(blocks[2], 0);
		ask_blocks(0, 0, blocks);
	}
}

static void blocks_that_do_not_fit(void *arg)
{
	uint8_t wire[16] = { 0, VMSG_GET_DEVICE_FEATURES, RIG_DEV, 0, 1, 0, 16 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 52);
	wire[12] = 9;
	CHECK_EQ(rig_raw(&rig, wire, 16), 0);
	CHECK_EQ(rig.sent[0].len, 52);
	wire[12] = 10;
	rig_quiet(&rig, wire, 16);
	memset(wire + 12, 0xff, 4);
	rig_quiet(&rig, wire, 16);
}

static void set_block(uint32_t index, uint32_t bits)
{
	struct vmsg_msg msg = { .msg_id = VMSG_SET_DRIVER_FEATURES, .features = { index, 1 } };
	uint8_t block[4];

	vmsg_put32(block, bits);
	msg.tail = block;
	rig_call(&rig, msg);
}

static void set_changes_only_what_is_addressed(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig_set_status(&rig, 1);
		rig_set_status(&rig, 3);
		set_block(1, 1);
		set_block(0, 1u << 5);
		CHECK_EQ(rig_set_status(&rig, 0x0b), 0x0b);
		CHECK_EQ(rig.model.device.features, VMSG_BIT(5) | VMSG_BIT(VMSG_F_VERSION_1));
		/* Written again, the second value counts. */
		rig_set_status(&rig, 0);
		rig_set_status(&rig, 3);
		set_block(0, 1u << 5);
		set_block(1, 1);
		set_block(0, 0);
		CHECK_EQ(rig_set_status(&rig, 0x0b), 0x0b);
		CHECK_EQ(rig.model.device.features, VMSG_BIT(VMSG_F_VERSION_1));
	}
}

/* v1 has it that the selected ones are shown; nobody does that, neither do we. */
static void get_shows_what_is_offered(void *arg)
{
	uint64_t offered;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		offered = rig_features(&rig);
		CHECK(vmsg_has(offered, 5) && vmsg_has(offered, 41));
		CHECK(vmsg_has(offered, VMSG_F_VERSION_1) && vmsg_has(offered, VMSG_F_RING_PACKED));
		rig_start(&rig, VMSG_BIT(5));
		CHECK_EQ(rig_features(&rig), offered);
		rig_set_status(&rig, 0);
		CHECK_EQ(rig_features(&rig), offered);
	}
}

static void features_never_offered(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		rig.model.device.offered |= VMSG_BIT(VMSG_F_NOTIF_CONFIG_DATA);
		CHECK(!vmsg_has(rig_features(&rig), VMSG_F_NOTIF_CONFIG_DATA));
		/* The rfc2 driver of the field combines the fields wrongly (wire.md 4.8). */
		CHECK_EQ(vmsg_has(rig_features(&rig), VMSG_F_NOTIFICATION_DATA), d != VMSG_RFC2);
		rig_set_status(&rig, 3);
		rig_set_features(&rig,
				 VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(VMSG_F_NOTIF_CONFIG_DATA));
		CHECK_EQ(rig_set_status(&rig, 0x0b), 3);
		rig_init_bells(&rig, d);
		CHECK(!vmsg_has(rig_features(&rig), VMSG_F_NOTIFICATION_DATA));
		rig_set_status(&rig, 3);
		rig_set_features(&rig,
				 VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(VMSG_F_NOTIFICATION_DATA));
		CHECK_EQ(rig_set_status(&rig, 0x0b), 3);
	}
}

static void strict_is_no_device_feature(void *arg)
{
	uint64_t baseline;

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	baseline = rig_features(&rig);
	rig_init(&rig, VMSG_V2, VMSG_BIT(VMSG_F_STRICT_CONFIG_GENERATION), 0);
	CHECK_EQ(rig_features(&rig), baseline);
}

/* The answer to FEATURES_OK shows that the set is not taken. */
static void refuse(uint64_t features, bool third_block)
{
	CHECK_EQ(rig_set_status(&rig, 0), 0);
	rig_set_status(&rig, 1);
	rig_set_status(&rig, 3);
	rig_set_features(&rig, features);
	if (third_block)
		set_block(2, 1);
	CHECK_EQ(rig_set_status(&rig, 0x0b), 3);
	CHECK_EQ(rig_status(&rig), 3);
	CHECK_EQ(rig.model.device.features, 0);
	/* Nor is DRIVER_OK taken without it. */
	CHECK_EQ(rig_set_status(&rig, 0x0f), 3);
	CHECK_EQ(rig.model.starts, 0);
}

static void unacceptable_features(void *arg)
{
	const uint64_t good = VMSG_BIT(VMSG_F_VERSION_1);

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		refuse(0, false);
		refuse(VMSG_BIT(5), false);
		refuse(good | VMSG_BIT(6), false);
		refuse(good | VMSG_BIT(63), false);
		refuse(good, true);
		/* No queue format that both know. */
		rig.model.device.split = NULL;
		refuse(good, false);
		rig.model.device.split = &vmsg_vq_split_device;
		/* And each refusal is forgotten with the next reset. */
		rig_negotiate(&rig, 0);
	}
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.device.packed = NULL;
	rig.model.device.offered &= ~VMSG_BIT(VMSG_F_RING_PACKED);
	refuse(good | VMSG_BIT(VMSG_F_RING_PACKED), false);
}

static void features_ok_needs_driver(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_set_features(&rig, VMSG_BIT(VMSG_F_VERSION_1));
	CHECK_EQ(rig_set_status(&rig, 0x09), 0x01);
	CHECK_EQ(rig_set_status(&rig, 0x0b), 0x0b);
}

/* What was agreed on is closed. */
static void features_after_features_ok(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	rig_negotiate(&rig, VMSG_BIT(5));
	rig_set_features(&rig, VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(41));
	CHECK_EQ(rig_set_status(&rig, 0x0f), 0x0f);
	CHECK_EQ(rig.model.device.features, VMSG_BIT(VMSG_F_VERSION_1) | VMSG_BIT(5));
	CHECK_EQ(rig.model.device.counters.refused, 1);
}

/* ---- Shared memory ---- */

static void shared_memory(void *arg)
{
	static const uint32_t unknown[] = { 0, RIG_SHM_ID + 1, UINT32_MAX };
	struct vmsg_msg ask = { .msg_id = VMSG_GET_SHM }, msg;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		rig_init(&rig, d, 0, 0);
		ask.shm.shmid = RIG_SHM_ID;
		msg = rig_call(&rig, ask);
		CHECK_EQ(msg.shm.shmid, RIG_SHM_ID);
		CHECK_EQ(msg.shm.length, 0x2000);
		CHECK_EQ(msg.shm.address, 0x80000000);
		for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
			ask.shm.shmid = unknown[i];
			msg = rig_call(&rig, ask);
			CHECK_EQ(msg.shm.shmid, unknown[i]);
			CHECK_EQ(msg.shm.length, 0);
			CHECK_EQ(msg.shm.address, 0);
		}
	}
	rig_init(&rig, VMSG_V2, 0, 0);
	rig.model.shm.addr = UINT64_C(0x123456789a);
	rig.model.shm.len_bytes = UINT64_C(0x200000000);
	ask.shm.shmid = RIG_SHM_ID;
	msg = rig_call(&rig, ask);
	CHECK_EQ(msg.shm.address, UINT64_C(0x123456789a));
	CHECK_EQ(msg.shm.length, UINT64_C(0x200000000));
	CHECK_EQ(vmsg_get32(rig.sent[0].bytes + 12), 0);
	rig.model.device.shm_count = 0;
	CHECK_EQ(rig_call(&rig, ask).shm.length, 0);
}

static const struct test tests[] = {
	{ "DEV-40 INFO while inactive", info_while_inactive, NULL },
	{ "DEV-41 DEV-43 DEV-44 DEV-45 DEV-46 DEV-48 numbers of INFO", info_numbers, NULL },
	{ "DEV-42 DEV-61 65536 queues", info_most_queues, NULL },
	{ "V1-DEV-09 num_feature_bits is a multiple of 32", info_bits_of_v1, NULL },
	{ "DEV-31 DEV-39 every request is answered", every_request_is_answered, NULL },
	{ "DEV-18 feature blocks beyond read zero", blocks_beyond_read_zero, NULL },
	{ "DEV-01 feature blocks that do not fit", blocks_that_do_not_fit, NULL },
	{ "DEV-19 SET_DRIVER_FEATURES changes only the addressed blocks",
	  set_changes_only_what_is_addressed, NULL },
	{ "DEV-20 V1-DEV-04 GET_DEVICE_FEATURES shows what is offered", get_shows_what_is_offered,
	  NULL },
	{ "DEV-33 BUS-51 features never offered", features_never_offered, NULL },
	{ "BUS-09 strict is no device feature", strict_is_no_device_feature, NULL },
	{ "DEV-34 DEV-56 unacceptable features", unacceptable_features, NULL },
	{ "DEV-34 FEATURES_OK needs DRIVER", features_ok_needs_driver, NULL },
	{ "features after FEATURES_OK", features_after_features_ok, NULL },
	{ "DEV-73 DEV-74 shared memory", shared_memory, NULL },
};

int main(int argc, char **argv)
{
	return test_main("device_info", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
