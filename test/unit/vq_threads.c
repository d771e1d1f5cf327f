/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two sides of a virtqueue in two threads that sleep whenever they may: no notification is
 * lost, whatever the moment, and no byte. A lost one shows as a sleep that does not end. Sleeping
 * is waiting for a counter here, which is over soon: so the two meet in the critical moment often.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "vq_fixture.h"

#define CHAINS     100000u
#define SLOT_BYTES 16u
#define PATIENCE_S 20

struct stage {
	struct pair pair;
	atomic_uint kick, call; /* doorbells */
	uint32_t kicks, calls;
	bool own_switch; /* each side turns notifications off while it works */
	const char *device_error;
};

static void ring(atomic_uint *doorbell)
{
	atomic_fetch_add(doorbell, 1);
}

/* Until the doorbell was rung since *seen. False when nobody did in all that time. */
static bool sleep_on(atomic_uint *doorbell, unsigned int *seen)
{
	time_t end = time(NULL) + PATIENCE_S;
	unsigned int now, spins = 0;

	while ((now = atomic_load(doorbell)) == *seen) {
		vmsg_relax();
		if (++spins % 256)
			continue;
		sched_yield();
		if (time(NULL) > end)
			return false;
	}
	*seen = now;
	return true;
}

static const char *serve(struct stage *stage, struct vmsg_chain *chain)
{
	uint32_t value;

	if (chain->readable_bytes != 4 || chain->writable_bytes != 4 ||
	    vmsg_chain_read(chain, 0, &value, 4) != 4)
		return "a chain of another shape";
	value = ~value;
	vmsg_chain_write(chain, 0, &value, 4);
	vmsg_vq_push(&stage->pair.device, chain, 4);
	if (vmsg_vq_used_event(&stage->pair.device)) {
		stage->calls++;
		ring(&stage->call);
	}
	return NULL;
}

static const char *run_device(struct stage *stage)
{
	struct vmsg_vq_device *vq = &stage->pair.device;
	struct vmsg_iov iov[2];
	struct vmsg_chain chain = { .iov = iov, .iov_max = 2 };
	unsigned int seen = 0;
	uint32_t done = 0;

	while (done < CHAINS) {
		int rc;

		if (stage->own_switch)
			vmsg_vq_want_kicks(vq, false);
		while ((rc = vmsg_vq_pop(vq, &chain)) == 1) {
			const char *error = serve(stage, &chain);

			if (error)
				return error;
			done++;
		}
		if (rc < 0)
			return "the queue is broken";
		if (done == CHAINS || (stage->own_switch && vmsg_vq_want_kicks(vq, true)))
			continue;
		if (!sleep_on(&stage->kick, &seen))
			return "no kick came";
	}
	return NULL;
}

static void *device_thread(void *arg)
{
	struct stage *stage = arg;

	stage->device_error = run_device(stage);
	ring(&stage->call);
	return NULL;
}

/* Adds the chain of a slot; the slot's number + 1 is its cookie. */
static bool send(struct stage *stage, uint32_t slot, uint32_t value)
{
	struct pair *pair = &stage->pair;
	uint64_t offset = slot * SLOT_BYTES;
	struct vmsg_buf bufs[2] = {
		{ pair->data_addr + offset, 4 },
		{ pair->data_addr + offset + 8, 4 },
	};

	memcpy(pair->data + offset, &value, 4);
	return vmsg_vq_add(&pair->driver, bufs, 1, 1, (void *)(uintptr_t)(slot + 1)) == 0;
}

static bool receive(struct stage *stage, uint32_t *slot, bool *bad)
{
	uint32_t written = 0, value, answer;
	void *cookie = NULL;
	int rc = vmsg_vq_get(&stage->pair.driver, &cookie, &written);

	*bad = rc < 0;
	if (rc <= 0)
		return false;
	*slot = (uint32_t)(uintptr_t)cookie - 1;
	memcpy(&value, stage->pair.data + *slot * SLOT_BYTES, 4);
	memcpy(&answer, stage->pair.data + *slot * SLOT_BYTES + 8, 4);
	*bad = written != 4 || answer != ~value;
	return true;
}

static const char *run_driver(struct stage *stage)
{
	struct vmsg_vq_driver *vq = &stage->pair.driver;
	uint32_t sent = 0, done = 0, seed = 5, slots = stage->pair.size / 2u;
	uint32_t free_slots[64], free_count = 0, slot;
	unsigned int seen = 0;
	bool bad = false;

	for (slot = 0; slot < slots; slot++)
		free_slots[free_count++] = slot;
	while (done < CHAINS) {
		uint32_t burst = 1 + test_random(&seed) % slots;

		if (stage->own_switch)
			vmsg_vq_want_used(vq, false);
		while (burst-- > 0 && free_count > 0 && sent < CHAINS) {
			if (!send(stage, free_slots[--free_count], sent++))
				return "a chain did not fit";
		}
		if (vmsg_vq_publish(vq)) {
			stage->kicks++;
			ring(&stage->kick);
		}
		while (receive(stage, &slot, &bad) && !bad) {
			free_slots[free_count++] = slot;
			done++;
		}
		if (bad)
			return "a wrong answer, or a broken queue";
		if (done == CHAINS || (free_count > 0 && sent < CHAINS) ||
		    (stage->own_switch && vmsg_vq_want_used(vq, true)))
			continue;
		if (!sleep_on(&stage->call, &seen))
			return "no call came";
		if (stage->device_error)
			return "the device gave up";
	}
	return NULL;
}

static void run_stage(bool packed, uint64_t features, bool own_switch)
{
	static struct stage stage;
	const char *error;
	pthread_t thread;

	test_context("packed %d features %#llx own switch %d", packed,
		     (unsigned long long)features, own_switch);
	memset(&stage, 0, sizeof(stage));
	stage.own_switch = own_switch;
	pair_open(&stage.pair, packed, features, 16, 2, 64 * SLOT_BYTES);
	CHECK_EQ(pthread_create(&thread, NULL, device_thread, &stage), 0);
	error = run_driver(&stage);
	pthread_join(thread, NULL);
	if (stage.device_error)
		CHECK_STR(stage.device_error, "");
	if (error)
		CHECK_STR(error, "");
	CHECK(stage.kicks > 0 && stage.kicks <= CHAINS);
	CHECK(stage.calls > 0 && stage.calls <= CHAINS);
	pair_close(&stage.pair);
}

static void test_sleepers(void *arg)
{
	bool packed = arg != NULL;

	for (int i = 0; i < 4; i++) {
		uint64_t features = (i & 1 ? VMSG_BIT(VMSG_F_EVENT_IDX) : 0) |
				    (i & 2 ? VMSG_BIT(VMSG_F_INDIRECT_DESC) : 0);

		run_stage(packed, features, false);
		run_stage(packed, features, true);
	}
}

static const struct test tests[] = {
	{ "split", test_sleepers, NULL },
	{ "packed", test_sleepers, (void *)(uintptr_t)&tests },
};

int main(int argc, char **argv)
{
	return test_main("vq_threads", tests, COUNT_OF(tests), argc, argv);
}
