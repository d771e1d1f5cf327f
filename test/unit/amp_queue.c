/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages through both queue formats: whole, in order, with wrap; full queues; wrong indices. */
#include "amp.h"

#define MESSAGES 100000u

/* What one side has sent, for the other's trace to compare. */
struct ledger {
	uint8_t bytes[256][BUFFER_BYTES];
	uint32_t lens[256];
	uint32_t sent, received, element_bytes;
	bool bad;
};

static void compare(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	struct ledger *ledger = bus->user;
	uint32_t at = ledger->received % 256;
	const uint8_t *bytes = buf;

	if (sent)
		return;
	if (ledger->received == ledger->sent || len != ledger->element_bytes ||
	    memcmp(bytes, ledger->bytes[at], ledger->lens[at]) != 0)
		ledger->bad = true;
	for (uint32_t i = ledger->lens[at]; i < len; i++)
		ledger->bad |= bytes[i] != 0;
	ledger->received++;
}

/* Random bytes are as good as messages: the bus carries what it is given. */
static bool send_random(struct amp_side *side, struct ledger *ledger, uint32_t *seed)
{
	uint32_t at = ledger->sent % 256, len = 1 + amp_random(seed) % ledger->element_bytes;
	int rc;

	for (uint32_t i = 0; i < len; i++)
		ledger->bytes[at][i] = (uint8_t)amp_random(seed);
	/* Responses to nothing: no side answers them. */
	ledger->bytes[at][0] |= VMSG_TYPE_RESPONSE;
	ledger->lens[at] = len;
	ledger->sent++; /* before: the other side may look at once */
	rc = side->amp.bus.ops->send(&side->amp.bus, ledger->bytes[at], len);
	if (rc == VMSG_ERR_AGAIN) {
		ledger->sent--;
		return false;
	}
	CHECK_EQ(rc, 0);
	return true;
}

struct shape {
	const char *name;
	const struct vmsg_amp_format *format;
	uint16_t element_bytes, element_count;
	uint8_t words;
};

static const struct shape shapes[] = {
	{ "layout", &vmsg_amp_layout, 0, 0, 0 },
	{ "layout_words", &vmsg_amp_layout, 0, 0, 2 },
	{ "layout_two", &vmsg_amp_layout, 64, 2, 1 },
	{ "layout_three", &vmsg_amp_layout, 64, 3, 0 },
	{ "layout_large", &vmsg_amp_layout, 264, 9, 0 },
	{ "layout_odd", &vmsg_amp_layout, 77, 200, 3 },
	{ "spsc", &vmsg_amp_spsc, 64, 62, 0 },
};

static struct amp_pair *open_shape(const struct shape *shape)
{
	struct amp_pair *pair = pair_new(shape->format);

	pair->device.amp.element_bytes = shape->element_bytes;
	pair->device.amp.element_count = shape->element_count;
	pair->device.amp.words = shape->words;
	pair->device.amp.bits_per_device = 8;
	pair_start(pair);
	return pair;
}

static void integrity(void *arg)
{
	struct amp_pair *pair = open_shape(arg);
	struct ledger *to_device = calloc(1, sizeof(*to_device));
	struct ledger *to_driver = calloc(1, sizeof(*to_driver));
	uint32_t seed = 1, fulls = 0;

	CHECK(to_device && to_driver);
	to_device->element_bytes = to_driver->element_bytes = pair->device.amp.element_bytes;
	CHECK_EQ(pair->driver.amp.bus.max_msg_size, pair->device.amp.element_bytes);
	CHECK_EQ(pair->device.amp.bus.max_msg_size, pair->device.amp.element_bytes);
	pair->device.amp.bus.user = to_device;
	pair->device.amp.bus.trace = compare;
	pair->driver.amp.bus.user = to_driver;
	pair->driver.amp.bus.trace = compare;
	while (to_device->received < MESSAGES || to_driver->received < MESSAGES) {
		uint32_t what = amp_random(&seed) % 64;

		if (what < 31)
			fulls += !send_random(&pair->driver, to_device, &seed);
		else if (what < 62)
			fulls += !send_random(&pair->device, to_driver, &seed);
		else if (what == 62)
			vmsg_amp_poll(&pair->device.amp);
		else
			vmsg_amp_poll(&pair->driver.amp);
		CHECK(!to_device->bad && !to_driver->bad);
		CHECK(pair_is_up(pair));
	}
	pair_settle(pair);
	CHECK_EQ(to_device->received, to_device->sent);
	CHECK_EQ(to_driver->received, to_driver->sent);
	CHECK_EQ(pair->device.amp.counters.bad_index + pair->driver.amp.counters.bad_index, 0);
	CHECK_EQ(pair->device.amp.counters.repaired + pair->driver.amp.counters.repaired, 0);
	CHECK_EQ(pair->device.amp.counters.full + pair->driver.amp.counters.full, fulls);
	CHECK(fulls > 0 || pair->device.amp.element_count > 100);
	free(to_device);
	free(to_driver);
	pair_free(pair);
}

/* A peer whose queue was full is rung when there is room again, however it came to be full. */
static void room_rings(void *arg)
{
	struct amp_pair *pair = open_shape(arg);
	uint32_t count = pair->device.amp.element_count;
	uint8_t frame[16] = { VMSG_TYPE_RESPONSE, 0x7f, 0, 0, 0, 0, 16, 0 };
	struct vmsg_bus *bus = &pair->device.amp.bus;

	for (uint32_t round = 0; round < 200; round++) {
		uint32_t sent = 0;

		test_context("round %u", round);
		pair_settle(pair);
		/* Read some of it at any time. */
		for (uint32_t i = 0; i < round % count; i++)
			CHECK_EQ(bus->ops->send(bus, frame, sizeof(frame)), 0);
		vmsg_amp_poll(&pair->driver.amp);
		while (bus->ops->send(bus, frame, sizeof(frame)) == 0)
			sent++;
		CHECK(sent <= count - 1);
		CHECK(sent * 2 >= count - 1);
		pair->device.rings = 0;
		/* Once the peer has nothing left to read, it must have rung. */
		while (vmsg_amp_poll(&pair->driver.amp))
			;
		CHECK(pair->device.rings > 0);
		CHECK_EQ(bus->ops->send(bus, frame, sizeof(frame)), 0);
	}
	pair_free(pair);
}

/* A driver that floods and does not read: the device keeps one reply and stops reading (M10). */
static void flow_control(void *arg)
{
	struct amp_pair *pair = open_shape(arg);
	struct vmsg_amp *amp = &pair->device.amp;
	struct vmsg_bus *bus = &pair->driver.amp.bus;
	struct vmsg_msg ping = { .type = VMSG_TYPE_BUS, .msg_id = VMSG_PING };
	uint32_t accepted, received;
	uint8_t buf[16];

	for (uint32_t i = 0; i < 1000; i++) {
		ping.ping.data = i;
		vmsg_bus_send(bus, &ping, buf, sizeof(buf));
		vmsg_amp_poll(amp);
	}
	accepted = bus->counters.sent;
	/* Full both ways, plus the reply held and the element in hand. */
	CHECK(accepted >= 2u * (amp->element_count - 1u));
	CHECK(accepted <= 2u * (amp->element_count - 1u) + 4);
	CHECK(vmsg_bus_holds(&amp->bus));
	received = amp->bus.counters.received;
	for (uint32_t i = 0; i < 100; i++)
		CHECK_EQ(vmsg_amp_poll(amp), 0);
	CHECK_EQ(amp->bus.counters.received, received);
	/* Now it reads: every PING is answered once, nothing else comes. */
	pair_settle(pair);
	CHECK_EQ(bus->counters.stray + 1, accepted); /* one was pair_start's own */
	CHECK(!vmsg_bus_holds(&amp->bus));
	pair_check(pair);
	pair_free(pair);
}

/* One poll does a bounded amount of work, however fast the peer is. */
static uint32_t refill;

static void refill_trace(struct vmsg_bus *bus, bool sent, const void *buf, uint32_t len)
{
	struct amp_pair *pair = pair_of((struct vmsg_amp *)bus);
	uint8_t frame[16] = { VMSG_TYPE_RESPONSE, 0x7f, 0, 0, 0, 0, 16, 0 };

	(void)buf;
	(void)len;
	if (sent || refill == 0)
		return;
	refill--;
	pair->driver.amp.bus.ops->send(&pair->driver.amp.bus, frame, sizeof(frame));
}

static void bounded(void *arg)
{
	struct amp_pair *pair = open_shape(arg);
	uint8_t frame[16] = { VMSG_TYPE_RESPONSE, 0x7f, 0, 0, 0, 0, 16, 0 };

	refill = 100000;
	pair->device.amp.bus.trace = refill_trace;
	pair->driver.amp.bus.ops->send(&pair->driver.amp.bus, frame, sizeof(frame));
	CHECK(vmsg_amp_poll(&pair->device.amp) <= pair->device.amp.element_count + 4u);
	CHECK(refill > 90000);
	pair_free(pair);
}

/* F1, F2: every value of both indices of the peer, in states near empty, full and between. */
static void bad_indices(void *arg)
{
	const struct shape *shape = arg;
	bool spsc = shape->format == &vmsg_amp_spsc;
	uint32_t count = spsc ? 62 : shape->element_count ? shape->element_count : 63;
	uint32_t values = count + 3;

	for (uint32_t value = 0; value < values; value++) {
		for (uint32_t which = 0; which < 2; which++) {
			struct amp_pair *pair = open_shape(shape);
			struct vmsg_amp *amp = &pair->device.amp;
			struct vmsg_bus *bus = &amp->bus;
			uint8_t frame[16] = { 0, 0x7f, 0, 0, 0, 0, 16, 0 };
			uint8_t *word = pair->area + amp->peer.head + (which ? 6 : 4);
			uint32_t index = value < count ? value : value == count ? count : 0xffff;
			uint32_t restarts = 0;

			if (spsc)
				word = which ? pair->area + 4096 + 64 : pair->area;
			test_context("index %u is %u", which, index);
			/*
			 * Some traffic, so that nothing stands at 0; two are unread by the driver.
			 */
			for (uint32_t i = 0; i < 7 % count; i++)
				vmsg_bus_ping(&pair->driver.amp.bus, i, 10);
			CHECK_EQ(bus->ops->send(bus, frame, sizeof(frame)), 0);
			if (spsc)
				vmsg_store32(word, index);
			else
				vmsg_store16(word, (uint16_t)index);
			/* At most what fits the queue is received, then send fails or works. */
			for (uint32_t i = 0; i < 3; i++) {
				uint32_t received = bus->counters.received;

				vmsg_amp_poll(amp);
				CHECK(bus->counters.received - received < count);
				bus->ops->send(bus, frame, sizeof(frame));
			}
			for (uint32_t i = 0; i < count; i++)
				bus->ops->send(bus, frame, sizeof(frame));
			vmsg_amp_poll(amp);
			restarts = amp->counters.restarts;
			if (index >= count) {
				CHECK(amp->counters.bad_index > 0);
				CHECK(restarts > 0);
			}
			/* Old rings may also count as zeroed by the peer. */
			CHECK(spsc || amp->counters.bad_index >= restarts);
			pair_free(pair);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void *arg);
	} cases[] = {
		{ "integrity", integrity },       { "room_rings", room_rings },
		{ "flow_control", flow_control }, { "bounded", bounded },
		{ "bad_indices", bad_indices },
	};
	static struct test tests[64];
	static char names[64][40];
	size_t count = 0;

	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++, count++) {
			snprintf(names[count], sizeof(names[count]), "%s_%s", cases[c].name,
				 shapes[s].name);
			tests[count].name = names[count];
			tests[count].run = cases[c].run;
			tests[count].arg = (void *)(uintptr_t)&shapes[s];
		}
	}
	return test_main("amp_queue", tests, count, argc, argv);
}
