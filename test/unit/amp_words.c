/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notification words: which bit stands for what, and what becomes of a signal (buses.md 3.4, 3.5).
 */
#include "amp.h"

struct place {
	uint8_t words, bits;
	uint16_t dev_num;
	uint32_t vq_index;
	int bit; /* over all words; VMSG_ERR_NOTSUP: none */
	bool exact;
};

static const struct place places[] = {
	/* nothing */
	{ 0, 8, 0, 0, VMSG_ERR_NOTSUP, false },
	/* "minimal": one word, 8 bits: devices 0-6 from bit 8, 7-12 in bits 2-7, the rest bit 1 */
	{ 1, 8, 0, 0, 8, true },
	{ 1, 8, 0, 6, 14, true },
	{ 1, 8, 0, 7, 15, false },
	{ 1, 8, 0, 1000, 15, false },
	{ 1, 8, 4, 0, 40, true },
	{ 1, 8, 5, 0, 48, true },
	{ 1, 8, 6, 0, 56, true },
	{ 1, 8, 6, 7, 63, false },
	{ 1, 8, 7, 0, 2, false },
	{ 1, 8, 12, 3, 7, false },
	{ 1, 8, 13, 0, 1, false },
	{ 1, 8, 65535, 0, 1, false },
	/* one word, other widths */
	{ 1, 1, 0, 0, 2, false },
	{ 1, 1, 61, 0, 63, false },
	{ 1, 1, 62, 0, 1, false },
	{ 1, 2, 0, 0, 2, true },
	{ 1, 2, 0, 1, 3, false },
	{ 1, 2, 30, 0, 62, true },
	{ 1, 2, 31, 0, 1, false },
	{ 1, 4, 0, 2, 6, true },
	{ 1, 4, 14, 3, 63, false },
	{ 1, 4, 15, 0, 2, false },
	{ 1, 4, 16, 0, 3, false },
	{ 1, 4, 17, 0, 1, false },
	{ 1, 16, 0, 0, 16, true },
	{ 1, 16, 2, 15, 63, false },
	{ 1, 16, 3, 0, 2, false },
	{ 1, 16, 16, 0, 15, false },
	{ 1, 16, 17, 0, 1, false },
	/* "medium": 48 words, 16 bits: devices 0-187 in words 1-47, 188-201 in bits 2-15 */
	{ 48, 16, 0, 0, 64, true },
	{ 48, 16, 0, 14, 78, true },
	{ 48, 16, 0, 15, 79, false },
	{ 48, 16, 3, 0, 64 + 48, true },
	{ 48, 16, 4, 0, 2 * 64, true },
	{ 48, 16, 187, 14, 47 * 64 + 62, true },
	{ 48, 16, 188, 0, 2, false },
	{ 48, 16, 201, 0, 15, false },
	{ 48, 16, 202, 0, 1, false },
	/* two words */
	{ 2, 8, 0, 0, 64, true },
	{ 2, 8, 7, 6, 126, true },
	{ 2, 8, 8, 0, 2, false },
	{ 2, 8, 13, 0, 7, false },
	{ 2, 8, 14, 0, 1, false },
	{ 2, 1, 63, 0, 127, false },
	{ 2, 1, 64, 0, 1, false },
	/* few direct bits left: 60 words leave 5, of which 3 for devices; 63 leave 2; 64 leave 1 */
	{ 60, 16, 236, 0, 2, false },
	{ 60, 16, 238, 0, 4, false },
	{ 60, 16, 239, 0, 1, false },
	{ 63, 8, 495, 0, 62 * 64 + 56, true },
	{ 63, 8, 496, 0, 1, false },
	{ 64, 8, 503, 6, 63 * 64 + 62, true },
	{ 64, 8, 504, 0, VMSG_ERR_NOTSUP, false },
};

static void check_places(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const struct place *p = &places[i];
		bool exact = !p->exact;
		int bit = vmsg_amp_event_bit(p->words, p->bits, p->dev_num, p->vq_index, &exact);

		test_context("words %u bits %u device %u queue %u", p->words, p->bits, p->dev_num,
			     p->vq_index);
		CHECK_EQ(bit, p->bit);
		CHECK_EQ(exact, p->exact);
	}
}

/* No bit stands for two things, none is the message bit, none says "look at word n". */
static void check_unique(void *arg)
{
	static uint32_t owner[64 * 64];
	uint32_t found = 0;

	(void)arg;
	for (uint32_t words = 1; words <= 64; words++) {
		for (uint32_t bits = 1; bits <= 16; bits *= 2) {
			memset(owner, 0, sizeof(owner));
			for (uint32_t dev = 0; dev < 5000; dev++) {
				for (uint32_t vq = 0; vq + 1 < bits; vq++) {
					bool exact;
					int bit = vmsg_amp_event_bit((uint8_t)words, (uint8_t)bits,
								     (uint16_t)dev, vq, &exact);

					if (bit < 0 || !exact)
						continue;
					test_context("words %u bits %u device %u", words, bits,
						     dev);
					CHECK((uint32_t)bit < 64 * words);
					CHECK(bit >= 2 && (bit > 63 || (uint32_t)bit < 65 - words));
					CHECK_EQ(owner[bit], 0);
					owner[bit] = 1;
					found++;
				}
			}
		}
	}
	CHECK(found > 100000);
}

static struct amp_pair *open_words(uint8_t words, uint8_t bits, bool masks)
{
	struct amp_pair *pair = pair_new(&vmsg_amp_layout);

	pair->device.amp.words = words;
	pair->device.amp.bits_per_device = bits;
	pair->device.amp.masks = masks;
	pair_start(pair);
	return pair;
}

static uint32_t all_kicks(const struct amp_model *model)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < QUEUES; i++)
		sum += model->kicks[i];
	return sum;
}

struct traffic {
	uint8_t words, bits;
	bool masks;
	uint16_t dev_num;
	uint32_t exact_queues; /* the first ones have bits of their own */
};

static const struct traffic traffics[] = {
	{ 1, 8, false, 0, 7 },   { 1, 8, false, 6, 7 },      { 1, 8, false, 7, 0 },
	{ 1, 8, false, 300, 0 }, { 1, 16, true, 2, 10 },     { 1, 1, true, 3, 0 },
	{ 2, 8, false, 7, 7 },   { 2, 8, true, 8, 0 },       { 48, 16, true, 0, 10 },
	{ 48, 16, true, 187, 10 }, { 48, 16, false, 190, 0 }, { 64, 8, true, 503, 7 },
	{ 64, 8, true, 504, 0 }, { 63, 2, false, 1000, 1 },
};

/* Kicks and used notifications reach exactly their queue, by word where one is its own. */
static void run_traffic(void *arg)
{
	const struct traffic *t = arg;
	struct amp_pair *pair = open_words(t->words, t->bits, t->masks);
	struct amp_model *model = pair_add(pair, t->dev_num);
	struct amp_user *user = pair_use(pair, t->dev_num);
	struct vmsg_bus *bus = &pair->driver.amp.bus, *device_bus = &pair->device.amp.bus;

	for (uint32_t q = 0; q < QUEUES; q++) {
		uint32_t sent = bus->counters.sent, received = bus->counters.received;

		test_context("words %u bits %u device %u queue %u", t->words, t->bits, t->dev_num,
			     q);
		pair_settle(pair);
		memset(model->kicks, 0, sizeof(model->kicks));
		memset(user->used, 0, sizeof(user->used));
		pair->device.rings = 0;
		vmsg_driver_kick_again(&user->driver, q);
		CHECK_EQ(bus->counters.sent - sent, q < t->exact_queues ? 0 : 1);
		CHECK_EQ(pair->device.rings, 1);
		CHECK(vmsg_amp_poll(&pair->device.amp) > 0);
		CHECK_EQ(model->kicks[q], 1);
		CHECK_EQ(all_kicks(model), 1);
		CHECK_EQ(vmsg_amp_poll(&pair->device.amp), 0);

		/* Before a kick came through words, used notifications travel as messages. */
		pair->driver.rings = 0;
		if (device_bus->ops->notify(device_bus, t->dev_num, q) == VMSG_ERR_NOTSUP) {
			CHECK(q >= t->exact_queues);
			continue;
		}
		CHECK(q < t->exact_queues);
		CHECK_EQ(pair->driver.rings, 1);
		CHECK(vmsg_amp_poll(&pair->driver.amp) > 0);
		CHECK_EQ(user->used[q], 1);
		CHECK_EQ(bus->counters.received, received);
	}
	pair_free(pair);
}

/* A peer that rings bits which stand for more than one queue. */
static void shared_bits(void *arg)
{
	struct amp_pair *pair = open_words(1, 4, false);
	static const uint16_t numbers[] = { 0, 15, 16, 17, 40 };
	struct { uint32_t bit; uint16_t first, last; uint32_t kicks; } cases[] = {
		{ 7, 0, 0, QUEUES },    /* device 0, all its other queues */
		{ 5, 0, 0, 1 },         /* device 0, queue 1 */
		{ 2, 15, 15, QUEUES },  /* one bit for device 15 */
		{ 3, 16, 16, QUEUES },  /* and for 16 */
		{ 1, 17, 40, QUEUES },  /* the devices above those */
		{ 8, 1, 1, 0 },         /* nobody */
	};
	struct amp_model *models[5];

	(void)arg;
	for (uint32_t i = 0; i < 5; i++) {
		models[i] = pair_add(pair, numbers[i]);
		pair_use(pair, numbers[i]);
	}
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		uint8_t *tx = pair->area + pair->driver.amp.own.words;

		pair_settle(pair);
		for (uint32_t i = 0; i < 5; i++)
			memset(models[i]->kicks, 0, sizeof(models[i]->kicks));
		vmsg_store32(tx, vmsg_load32(tx) ^ 1u << cases[c].bit);
		pair->driver.amp.tx[0] ^= 1u << cases[c].bit; /* as if it had done it */
		CHECK_EQ(vmsg_amp_poll(&pair->device.amp), 1);
		for (uint32_t i = 0; i < 5; i++) {
			bool hit = numbers[i] >= cases[c].first && numbers[i] <= cases[c].last;

			test_context("bit %u device %u", cases[c].bit, numbers[i]);
			CHECK_EQ(all_kicks(models[i]), hit ? cases[c].kicks : 0);
		}
	}
	pair_free(pair);
}

/* Kicks that the other side has not looked at yet are one; none is lost after it did. */
static void coalescing(void *arg)
{
	struct amp_pair *pair = open_words(2, 8, false);
	struct amp_model *model = pair_add(pair, 3);
	struct amp_user *user = pair_use(pair, 3);

	(void)arg;
	pair_settle(pair);
	model->kicks[2] = 0;
	pair->device.rings = 0;
	for (uint32_t i = 0; i < 6; i++)
		vmsg_driver_kick_again(&user->driver, 2);
	CHECK_EQ(pair->device.rings, 1);
	CHECK_EQ(pair->driver.amp.counters.coalesced, 5);
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(model->kicks[2], 1);
	for (uint32_t i = 0; i < 100; i++) {
		vmsg_driver_kick_again(&user->driver, 2);
		vmsg_amp_poll(&pair->device.amp);
		CHECK_EQ(model->kicks[2], 2 + i);
	}
	pair_free(pair);
}

static void masks(void *arg)
{
	struct amp_pair *pair = open_words(2, 8, true);
	struct amp_model *model = pair_add(pair, 3);
	struct amp_user *user = pair_use(pair, 3);
	uint32_t doorbells;

	(void)arg;
	pair_settle(pair);
	model->kicks[0] = 0;
	vmsg_amp_want_doorbells(&pair->device.amp, false);
	pair->device.rings = 0;
	vmsg_driver_kick_again(&user->driver, 0);
	CHECK_EQ(pair->device.rings, 0);
	CHECK_EQ(pair->driver.amp.counters.doorbells_masked, 1);
	/* Masked is not lost. */
	vmsg_amp_want_doorbells(&pair->device.amp, true);
	CHECK(vmsg_amp_poll(&pair->device.amp) > 0);
	CHECK_EQ(model->kicks[0], 1);
	vmsg_driver_kick_again(&user->driver, 0);
	CHECK_EQ(pair->device.rings, 1);
	/* Messages are doorbells of word 0 as well. */
	doorbells = pair->driver.rings;
	vmsg_amp_want_doorbells(&pair->driver.amp, false);
	vmsg_device_config_changed(&model->device, 0, 0);
	CHECK_EQ(pair->driver.rings, doorbells);
	CHECK(vmsg_amp_poll(&pair->driver.amp) > 0);
	CHECK_EQ(user->driver.counters.config_events, 1);
	vmsg_amp_want_doorbells(&pair->driver.amp, true);
	vmsg_device_config_changed(&model->device, 0, 0);
	CHECK_EQ(pair->driver.rings, doorbells + 1);

	/* A wish said before the peer is there holds when it comes. */
	vmsg_amp_want_doorbells(&pair->device.amp, false);
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
	pair_settle(pair);
	pair->device.rings = 0;
	CHECK_EQ(vmsg_bus_ping(&pair->driver.amp.bus, 1, 50), 0);
	CHECK_EQ(pair->device.rings, 0);
	pair_free(pair);
}

/* Doorbells that come too often, for nothing, or not at all (N1 to N3). */
static void doorbells(void *arg)
{
	struct amp_pair *pair = open_words(1, 8, false);
	struct amp_model *model = pair_add(pair, 0);
	struct amp_user *user = pair_use(pair, 0);

	(void)arg;
	pair_settle(pair);
	memset(model->kicks, 0, sizeof(model->kicks));
	for (uint32_t i = 0; i < 1000; i++)
		CHECK_EQ(vmsg_amp_poll(&pair->device.amp), 0);
	CHECK_EQ(all_kicks(model), 0);
	/* Lost: the word still says so at the next look. */
	vmsg_driver_kick_again(&user->driver, 1);
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(model->kicks[1], 1);
	for (uint32_t i = 0; i < 100; i++)
		vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(all_kicks(model), 1);
	/* A peer that toggles blindly, twice before we look: found within 100 ms. */
	pair->device.amp.bus.now_ms += 200;
	vmsg_amp_poll(&pair->device.amp);
	memset(model->kicks, 0, sizeof(model->kicks));
	pair->device.amp.bus.now_ms += 99;
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(all_kicks(model), 0);
	pair->device.amp.bus.now_ms += 2;
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(all_kicks(model), QUEUES);
	pair_free(pair);
}

/* F10: the peer sets all bits, and none of its doings is anything but a spurious kick. */
static void all_bits(void *arg)
{
	static const uint8_t counts[] = { 1, 2, 48, 64 };
	uint32_t seed = 7;

	(void)arg;
	for (uint32_t c = 0; c < 4; c++) {
		struct amp_pair *pair = open_words(counts[c], 8, true);
		struct amp_model *model = pair_add(pair, 0);
		struct amp_user *user = pair_use(pair, 0);
		uint8_t *words = pair->area + pair->driver.amp.own.words;

		for (uint32_t round = 0; round < 200; round++) {
			for (uint32_t i = 0; i < 24u * counts[c]; i++)
				words[i] = round == 0 ? 0xff : (uint8_t)amp_random(&seed);
			vmsg_amp_poll(&pair->device.amp);
			CHECK(vmsg_amp_poll(&pair->driver.amp) < 100);
		}
		CHECK(all_kicks(model) > 0);
		CHECK(pair->device.amp.up);
		/* The scribbled side finds its words, restores them and works on. */
		for (uint32_t i = 0; i < 64; i++)
			pair_settle(pair);
		CHECK(pair->driver.amp.counters.repaired > 0);
		memset(model->kicks, 0, sizeof(model->kicks));
		vmsg_driver_kick_again(&user->driver, 0);
		vmsg_amp_poll(&pair->device.amp);
		CHECK(model->kicks[0] >= 1);
		pair_check(pair);
		pair_free(pair);
	}
}

/* A driver that sends EVENT_AVAIL gets EVENT_USED, although there are words. */
static void in_band_driver(void *arg)
{
	struct amp_pair *pair = open_words(2, 8, false);
	struct amp_model *model = pair_add(pair, 1);
	struct amp_user *user = pair_use(pair, 1);
	struct vmsg_msg event = { .msg_id = VMSG_EVENT_AVAIL, .dev_num = 1 };
	struct vmsg_bus *bus = &pair->device.amp.bus;
	uint8_t buf[16];

	(void)arg;
	pair_settle(pair);
	model->kicks[0] = 0;
	event.event.vq_index = 0;
	CHECK(vmsg_bus_send(&pair->driver.amp.bus, &event, buf, sizeof(buf)) == 0);
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(model->kicks[0], 1);
	CHECK_EQ(bus->ops->notify(bus, 1, 0), VMSG_ERR_NOTSUP);
	vmsg_driver_kick_again(&user->driver, 0);
	vmsg_amp_poll(&pair->device.amp);
	CHECK_EQ(bus->ops->notify(bus, 1, 0), 0);
	/* It starts over with the next driver. */
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), 0);
	CHECK_EQ(bus->ops->notify(bus, 1, 0), 0); /* not noticed yet */
	pair_settle(pair);
	CHECK_EQ(bus->ops->notify(bus, 1, 0), VMSG_ERR_NOTSUP);
	pair_free(pair);
}

/* NOTIFICATION_DATA travels where there are no words, and only there (BUS-51). */
static void notification_data(void *arg)
{
	uint64_t wanted = VMSG_BIT(VMSG_F_NOTIFICATION_DATA);

	(void)arg;
	for (uint8_t words = 0; words < 2; words++) {
		struct amp_pair *pair = open_words(words, 8, false);
		struct amp_user *user = &pair->users[0];

		pair_add(pair, 0);
		vmsg_driver_init(&user->driver, &pair->driver.amp.bus, 0, &user_ops);
		user->driver.split = &vmsg_vq_split_driver;
		CHECK_EQ(vmsg_driver_identify(&user->driver), 0);
		CHECK_EQ(vmsg_driver_negotiate(&user->driver, wanted), 0);
		CHECK_EQ(vmsg_has(user->driver.features, VMSG_F_NOTIFICATION_DATA), words == 0);
		pair_free(pair);
	}
}

int main(int argc, char **argv)
{
	static struct test tests[64];
	static char names[64][48];
	size_t count = 0;

	tests[count++] = (struct test){ "places", check_places, NULL };
	tests[count++] = (struct test){ "unique", check_unique, NULL };
	for (size_t i = 0; i < sizeof(traffics) / sizeof(traffics[0]); i++) {
		const struct traffic *t = &traffics[i];

		snprintf(names[i], sizeof(names[i]), "traffic_%ux%u_device_%u", t->words, t->bits,
			 t->dev_num);
		tests[count++] = (struct test){ names[i], run_traffic, (void *)(uintptr_t)t };
	}
	tests[count++] = (struct test){ "shared_bits", shared_bits, NULL };
	tests[count++] = (struct test){ "coalescing", coalescing, NULL };
	tests[count++] = (struct test){ "masks", masks, NULL };
	tests[count++] = (struct test){ "doorbells", doorbells, NULL };
	tests[count++] = (struct test){ "all_bits", all_bits, NULL };
	tests[count++] = (struct test){ "in_band_driver", in_band_driver, NULL };
	tests[count++] = (struct test){ "notification_data", notification_data, NULL };
	return test_main("amp_words", tests, count, argc, argv);
}
