/* SPDX-License-Identifier: BSD-3-Clause */
/* Driver role: configuration space, its generation, shared memory (wire.md 3.2). */
#include "common_fake.h"

#include "test.h"

#include <vmsg/port.h>

#include <string.h>

#define EACH_DIALECT(d) for (enum vmsg_dialect d = VMSG_V2; d <= VMSG_RFC2; d++)
#define STRICT		VMSG_BIT(VMSG_F_STRICT_CONFIG_GENERATION)

static struct fake fake;
static struct fake_user user;
static uint8_t data[300];

static void started(enum vmsg_dialect dialect, uint32_t features, uint16_t max_msg_size,
		    uint32_t config_size)
{
	fake_init(&fake, dialect, dialect, features, max_msg_size);
	fake_user_init(&user, &fake);
	fake.config_size = config_size;
	fake_user_start(&user, 0);
	fake_forget(&fake);
	memset(data, 0, sizeof(data));
}

static uint32_t count_sets(struct vmsg_msg *msg)
{
	return fake_count(&fake, 0, VMSG_SET_CONFIG, msg);
}

static uint32_t count_gets(void)
{
	return fake_count(&fake, 0, VMSG_GET_CONFIG, NULL);
}

/* ---- Bounds ---- */

/* The bench checks that no message is larger than 52 and none reaches beyond config_size. */
static void in_pieces(void *arg)
{
	uint8_t other[300];

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, 0, 52, 300);
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 300), 0);
		CHECK_MEM(data, fake.config, 300);
		CHECK_EQ(count_gets(), d == VMSG_RFC2 ? 9 : 10);
		for (uint32_t i = 0; i < 300; i++)
			other[i] = (uint8_t)(i * 7);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, other, 300), 0);
		CHECK_MEM(fake.config, other, 300);
		CHECK_EQ(count_sets(NULL), d == VMSG_RFC2 ? 9 : 10);
	}
	/* A bus that carries more than the buffer for echoes holds. */
	started(VMSG_V2, 0, 1000, 300);
	CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, other, 300), 0);
	CHECK_MEM(fake.config, other, 300);
}

static void outside(void *arg)
{
	static const struct {
		uint32_t offset, len;
	} bad[] = { { 0, 6 }, { 5, 1 }, { 6, 0 }, { UINT32_MAX, 1 }, { UINT32_MAX, 2 }, { 3, 3 } };

	(void)arg;
	EACH_DIALECT(d)
	{
		started(d, 0, 0, 5);
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			test_context("%s %u bytes at %u", vmsg_dialect_name(d), bad[i].len,
				     bad[i].offset);
			CHECK_EQ(vmsg_driver_read_config(&user.driver, bad[i].offset, data,
							 bad[i].len),
				 VMSG_ERR_INVAL);
			CHECK_EQ(vmsg_driver_write_config(&user.driver, bad[i].offset, data,
							  bad[i].len),
				 VMSG_ERR_INVAL);
		}
		CHECK_EQ(fake.log_count, 0);
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 4, data, 1), 0);
		CHECK_EQ(data[0], fake.config[4]);
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 5, data, 0), 0);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 5, data, 0), 0);
	}
}

/* ---- Reading ---- */

static bool move_once(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	if (msg->msg_id == VMSG_GET_CONFIG && f->count++ == 2) {
		for (uint32_t i = 0; i < 300; i++)
			f->config[i] = (uint8_t)(0x80 + i);
		f->generation = reply->config.generation = 2; /* from 9: it need not grow */
	}
	return true;
}

static void read_again_when_it_moved(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, 0, 52, 300);
		fake.generation = 9;
		fake.hook = move_once;
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 300), 0);
		CHECK_MEM(data, fake.config, 300);
		CHECK_EQ(data[0], 0x80);
		CHECK_EQ(user.driver.counters.config_retries, 1);
		CHECK_EQ(user.driver.generation, 2);
	}
}

static bool never_stable(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	if (msg->msg_id == VMSG_GET_CONFIG)
		reply->config.generation = f->generation++;
	return true;
}

static void never_stable_is_bounded(void *arg)
{
	(void)arg;
	started(VMSG_V2, 0, 52, 300);
	fake.hook = never_stable;
	CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 300), VMSG_ERR_BUSY);
	CHECK_EQ(count_gets(), 16);
	/* What one message holds is whole in itself. */
	CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 32), 0);
}

static uint32_t length_given;

static bool give_length(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	static const uint8_t bytes[64];

	(void)f;
	if (msg->msg_id == VMSG_GET_CONFIG || msg->msg_id == VMSG_SET_CONFIG) {
		reply->config.length = length_given;
		reply->tail = bytes;
	}
	return true;
}

static void answers_of_another_length(void *arg)
{
	static const struct {
		uint32_t length;
		int result;
	} cases[] = { { 0, VMSG_ERR_IO },
		      { 7, VMSG_ERR_IO },
		      { 8, 0 },
		      { 9, VMSG_ERR_PROTO },
		      { 40, VMSG_ERR_PROTO } };

	(void)arg;
	EACH_DIALECT(d)
	{
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			test_context("%s %u of 8", vmsg_dialect_name(d), cases[i].length);
			started(d, 0, 0, 24);
			fake.hook = give_length;
			length_given = cases[i].length;
			CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 8),
				 cases[i].result);
		}
	}
}

static bool move_offset(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	if (msg->msg_id == VMSG_GET_CONFIG || msg->msg_id == VMSG_SET_CONFIG)
		reply->config.offset++;
	return true;
}

static void answers_of_another_place(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		started(d, 0, 0, 24);
		fake.hook = move_offset;
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 8), VMSG_ERR_PROTO);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 8), VMSG_ERR_PROTO);
	}
}

/* QEMU of the v1 days drops what does not fit 48 bytes (wire.md 4.4). */
static bool drop_long(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	(void)reply;
	return msg->msg_id != VMSG_GET_CONFIG || msg->config.length <= 28;
}

static void smaller_pieces_for_old_devices(void *arg)
{
	(void)arg;
	started(VMSG_V1, 0, 64, 57);
	fake.hook = drop_long;
	CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 57), 0);
	CHECK_MEM(data, fake.config, 57);
}

/* ---- Writing ---- */

static void generation_in_a_write(void *arg)
{
	struct vmsg_msg msg;

	(void)arg;
	/* Baseline: 0, whatever was seen. */
	started(VMSG_V2, 0, 0, 24);
	fake.generation = 7;
	CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 4), 0);
	CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4), 0);
	CHECK_EQ(count_sets(&msg), 1);
	CHECK_EQ(msg.config.generation, 0);
	/* Strict, which all dialects before v2 are: what was seen last, wherever it was seen. */
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, d == VMSG_V2 ? STRICT : 0, 0, 24);
		fake.generation = 7;
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 4), 0);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4), 0);
		CHECK_EQ(count_sets(&msg), 1);
		CHECK_EQ(msg.config.generation, 7);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4), 0);
		CHECK_EQ(count_sets(&msg), 2);
		CHECK_EQ(msg.config.generation, 8);
		fake.generation = 3;
		fake_config_event(&fake, 0, 0, NULL);
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4), 0);
		CHECK_EQ(count_sets(&msg), 3);
		CHECK_EQ(msg.config.generation, 3);
	}
}

static bool check_generation(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	if (msg->msg_id == VMSG_SET_CONFIG && msg->config.generation != f->generation - 1) {
		f->generation--;
		reply->config.generation = f->generation;
		reply->config.length = 0;
		reply->tail = NULL;
	}
	return true;
}

static void looks_before_it_tries_again(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, d == VMSG_V2 ? STRICT : 0, 0, 24);
		fake.generation = 70;
		fake.hook = check_generation;
		data[0] = 0x55;
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 4, data, 1), 0);
		CHECK_EQ(fake.log_count, 3);
		CHECK_EQ(fake.log[0].msg.msg_id, VMSG_SET_CONFIG);
		CHECK_EQ(fake.log[1].msg.msg_id, VMSG_GET_CONFIG);
		CHECK_EQ(fake.log[2].msg.msg_id, VMSG_SET_CONFIG);
		CHECK_EQ(fake.log[2].msg.config.generation, 70);
		CHECK_EQ(fake.config[4], 0x55);
	}
}

/* A length of n was applied, of 0 was not, anything else is no success either. */
static void what_counts_as_written(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		for (length_given = 0; length_given <= 5; length_given++) {
			test_context("%s %u of 4", vmsg_dialect_name(d), length_given);
			started(d, 0, 0, 24);
			fake.hook = give_length;
			/* Strict ones look before they try again, and find the same. */
			CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4),
				 length_given == 4		    ? 0
				 : length_given > 1 && d != VMSG_V2 ? VMSG_ERR_PROTO
								    : VMSG_ERR_IO);
			CHECK_EQ(count_sets(NULL), d != VMSG_V2 && length_given == 1 ? 2 : 1);
		}
	}
}

static bool no_echo(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	if (msg->msg_id == VMSG_SET_CONFIG)
		reply->tail = NULL;
	return true;
}

/* Before v2 the data need not come back. */
static void written_without_an_echo(void *arg)
{
	(void)arg;
	for (enum vmsg_dialect d = VMSG_V1; d <= VMSG_RFC2; d++) {
		started(d, 0, 0, 24);
		fake.hook = no_echo;
		CHECK_EQ(vmsg_driver_write_config(&user.driver, 0, data, 4), 0);
	}
}

/* ---- EVENT_CONFIG ---- */

static void events_and_what_follows(void *arg)
{
	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, 0, 0, 24);
		/* With data, with a range alone, with nothing: each says "read again". */
		fake_config_event(&fake, 4, 2, fake.config + 4);
		fake_config_event(&fake, 4, 2, NULL);
		fake_config_event(&fake, 0, 0, NULL);
		CHECK_EQ(user.config_changed, 3);
		CHECK_EQ(user.last_status, 0x0f);
		CHECK_EQ(user.driver.counters.config_events, 3);
		CHECK(!user.driver.needs_reset);
		/* Nothing is read inside the callback; the owner reads when it is out of it. */
		CHECK_EQ(fake.log_count, 0);
		CHECK_EQ(vmsg_driver_read_config(&user.driver, 0, data, 24), 0);
		CHECK_MEM(data, fake.config, 24);
		/* Absurd ranges are no more than that. */
		fake_config_event(&fake, UINT32_MAX, UINT32_MAX, NULL);
		CHECK_EQ(user.config_changed, 4);
	}
}

/* ---- Shared memory ---- */

static void shared_memory(void *arg)
{
	uint64_t addr, len;

	(void)arg;
	EACH_DIALECT(d)
	{
		test_context("%s", vmsg_dialect_name(d));
		started(d, 0, 0, 24);
		CHECK_EQ(vmsg_driver_get_shm(&user.driver, 1, &addr, &len), 0);
		CHECK_EQ(addr, 0x80000000);
		CHECK_EQ(len, 0x2000);
		CHECK_EQ(vmsg_driver_get_shm(&user.driver, 2, &addr, &len), VMSG_ERR_NOENT);
	}
}

static bool another_region(struct fake *f, const struct vmsg_msg *msg, struct vmsg_msg *reply)
{
	(void)f;
	if (msg->msg_id == VMSG_GET_SHM)
		reply->shm.shmid++;
	return true;
}

static void another_shared_memory(void *arg)
{
	uint64_t addr, len;

	(void)arg;
	started(VMSG_V2, 0, 0, 24);
	fake.hook = another_region;
	CHECK_EQ(vmsg_driver_get_shm(&user.driver, 1, &addr, &len), VMSG_ERR_PROTO);
}

static const struct test tests[] = {
	{ "DRV-01 DRV-18 DRV-27 DRV-49 DRV-50 in pieces", in_pieces, NULL },
	{ "DRV-27 DRV-49 DRV-50 DRV-51 outside", outside, NULL },
	{ "DRV-07 DRV-12 read again when it moved", read_again_when_it_moved, NULL },
	{ "DRV-07 DRV-14 never stable is bounded", never_stable_is_bounded, NULL },
	{ "DRV-13 answers of another length", answers_of_another_length, NULL },
	{ "DRV-13 answers of another place", answers_of_another_place, NULL },
	{ "smaller pieces for old devices", smaller_pieces_for_old_devices, NULL },
	{ "DRV-05 DRV-06 DRV-08 DRV-10 V1-DRV-01 generation in a write", generation_in_a_write,
	  NULL },
	{ "DRV-11 looks before it tries again", looks_before_it_tries_again, NULL },
	{ "DRV-52 what counts as written", what_counts_as_written, NULL },
	{ "DRV-52 written without an echo", written_without_an_echo, NULL },
	{ "DRV-09 DRV-37 DRV-38 V1-DRV-07 events and what follows", events_and_what_follows, NULL },
	{ "shared memory", shared_memory, NULL },
	{ "another shared memory", another_shared_memory, NULL },
};

int main(int argc, char **argv)
{
	return test_main("driver_config", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
