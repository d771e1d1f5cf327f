/* SPDX-License-Identifier: BSD-3-Clause */
/* The layout block: what is written, what is refused, and scribbling over it (buses.md 3.6). */
#include "amp.h"

static struct amp_pair *new_pair(uint8_t words, bool masks)
{
	struct amp_pair *pair = pair_new(&vmsg_amp_layout);

	pair->device.amp.words = words;
	pair->device.amp.bits_per_device = 8;
	pair->device.amp.masks = masks;
	return pair;
}

/* The bytes a foreign driver relies on, with the defaults. */
static void written(void *arg)
{
	static const uint8_t block[64] = {
		0x4f, 0x4c, 64, 0, 1,  0, 0, 0,
		0,    0,    63, 0, 64, 0, 0, 0, /* */
		0,    0,    0,	0, 0,  0, 0, 0,
		64,   0,    0,	0, 0,  0, 0, 0, /* device: words, head */
		128,  0,    0,	0, 0,  0, 0, 0,
		0,    0,    0,	0, 0,  0, 0, 0, /* elements; driver: words */
		72,   0,    0,	0, 0,  0, 0, 0,
		0x40, 0x10, 0,	0, 0,  0, 0, 0, /* head, elements */
	};
	static const uint8_t head[8] = { 0x4f, 0x51, 1, 0, 0, 0, 0, 0 };
	struct amp_pair *pair = pair_new(&vmsg_amp_layout);

	(void)arg;
	memset(pair->area, 0xaa, AREA_BYTES);
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
	CHECK_MEM(pair->area, block, sizeof(block));
	vmsg_amp_poll(&pair->device.amp);
	CHECK_MEM(pair->area + 64, head, sizeof(head));
	for (uint32_t i = 0; i < 63 * 64; i++)
		CHECK_EQ(pair->area[128 + i], 0);
	/* Nothing of the driver's is touched, and nothing after the area. */
	CHECK_EQ(pair->area[72], 0xaa);
	CHECK_EQ(pair->area[128 + 63 * 64], 0xaa);
	CHECK_EQ(vmsg_amp_layout_bytes(0, 0, 0, false), 8192);
	pair_free(pair);
}

static void written_with_words(void *arg)
{
	struct amp_pair *pair = new_pair(3, true);
	uint32_t bytes = vmsg_amp_layout_bytes(264, 10, 3, true);

	(void)arg;
	pair->device.amp.element_bytes = 264;
	pair->device.amp.element_count = 10;
	CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
	CHECK_EQ(vmsg_get16(pair->area + 6), 1);
	CHECK_EQ(pair->area[8], 3);
	CHECK_EQ(pair->area[9], 8);
	CHECK_EQ(vmsg_get64(pair->area + 16), 80);
	CHECK_EQ(vmsg_get64(pair->area + 40), 80 + 72);
	CHECK_EQ(vmsg_get64(pair->area + 32), 256);
	CHECK_EQ(vmsg_get64(pair->area + 56), 256 + 2640);
	CHECK_EQ(bytes, 256 + 2 * 2640);
	pair_free(pair);
}

/* What the device side is asked to lay out and cannot. */
static void refused_settings(void *arg)
{
	struct amp_pair *pair = new_pair(0, false);
	struct vmsg_amp *amp = &pair->device.amp;

	(void)arg;
	CHECK_EQ(vmsg_amp_layout_bytes(64, 1, 0, false), 0);
	CHECK_EQ(vmsg_amp_layout_bytes(64, 63, 65, false), 0);
	CHECK_EQ(vmsg_amp_layout_bytes(64, 63, 0, true), 0);
	CHECK_EQ(vmsg_amp_layout_bytes(65535, 65535, 0, false), 0);
	amp->element_bytes = 51;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V1, 0), 0);
	amp->element_bytes = 47;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V1, 0), VMSG_ERR_INVAL);
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_RFC2, 0), 0);
	amp->element_bytes = BUFFER_BYTES + 1;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->element_bytes = 0;
	amp->element_count = 1;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->element_count = 0;
	amp->words = 65;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->words = 1;
	for (uint32_t bits = 0; bits < 256; bits++) {
		bool good = bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16;

		amp->bits_per_device = (uint8_t)bits;
		CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), good ? 0 : VMSG_ERR_INVAL);
	}
	amp->words = 0;
	amp->masks = true;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->masks = false;
	amp->len_bytes = 8191;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->len_bytes = 8192;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), 0);
	amp->base += 4;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	amp->base -= 4;
	amp->buffer_bytes = 63;
	CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	pair->driver.amp.len_bytes = 63;
	CHECK_EQ(vmsg_amp_open_driver(&pair->driver.amp, VMSG_V2, 0), VMSG_ERR_INVAL);
	pair_free(pair);
}

struct corrupt {
	uint8_t offset, bytes;
	uint64_t value;
	bool good;
	uint8_t words;
	uint8_t found; /* the field that is blamed; 0: offset */
};

#define AREA_1 ((uint64_t)1 << 52)

static const struct corrupt corrupts[] = {
	{ 2, 2, 63, false, 0, 0 },      { 2, 2, 128, false, 0, 0 },
	{ 2, 2, 0, false, 0, 0 },       { 4, 2, 0, false, 0, 0 },
	{ 4, 2, 2, false, 0, 0 },       { 4, 2, 0x100, false, 0, 0 },
	{ 6, 2, 2, false, 0, 0 },       { 6, 2, 0x8000, false, 0, 0 },
	{ 6, 2, 1, true, 0, 0 }, /* masks of no words */
	{ 8, 1, 65, false, 0, 0 },      { 8, 1, 255, false, 0, 0 },
	{ 8, 1, 1, false, 0, 9 },       { 9, 1, 3, true, 0, 0 }, /* not looked at */
	{ 9, 1, 0, false, 2, 0 },       { 9, 1, 3, false, 2, 0 },
	{ 9, 1, 32, false, 2, 0 },      { 9, 1, 16, true, 2, 0 },
	{ 10, 2, 0, false, 0, 0 },      { 10, 2, 1, false, 0, 0 },
	{ 10, 2, 2, true, 0, 0 },       { 10, 2, 64, false, 0, 56 }, /* elements overlap */
	{ 10, 2, 65535, false, 0, 32 }, /* outside */
	{ 12, 2, 0, false, 0, 0 },      { 12, 2, 51, false, 0, 0 },
	{ 12, 2, 52, true, 0, 0 },      { 12, 2, 65, false, 0, 56 },
	{ 12, 2, 1025, false, 0, 0 },   { 12, 2, 65535, false, 0, 0 },
	{ 14, 2, 0xffff, true, 0, 0 }, /* reserved */
	/* words of the device */
	{ 16, 8, 0, false, 2, 0 },      { 16, 8, 84, false, 2, 0 },
	{ 16, 8, 64, false, 2, 24 },    { 16, 8, 56, false, 2, 0 },
	{ 16, 8, AREA_1 | 80, true, 2, 0 },
	{ 16, 8, AREA_1 * 2 | 80, false, 2, 0 },
	{ 16, 8, 0xffffffffffffffff, false, 2, 0 },
	{ 16, 8, 0, true, 0, 0 },       { 16, 8, 3, true, 0, 0 }, /* there are none */
	/* head of the device */
	{ 24, 8, 0, false, 0, 0 },      { 24, 8, 65, false, 0, 0 },
	{ 24, 8, 62, false, 0, 0 },     { 24, 8, 72, false, 0, 48 },
	{ 24, 8, 66, false, 0, 48 },    { 24, 8, 128, false, 0, 32 },
	{ 24, 8, AREA_BYTES - 6, false, 0, 0 },
	{ 24, 8, AREA_BYTES, false, 0, 0 },
	{ 24, 8, AREA_BYTES + 2, false, 0, 0 },
	{ 24, 8, 0x100000040, false, 0, 0 },
	{ 24, 8, AREA_1 | 64, true, 0, 0 },
	{ 24, 8, AREA_1 * 4095 | 64, false, 0, 0 },
	/* elements of the device */
	{ 32, 8, 0, false, 0, 0 },      { 32, 8, 32, false, 0, 0 },
	{ 32, 8, 72, false, 0, 48 },    { 32, 8, 129, false, 0, 56 },
	{ 32, 8, AREA_BYTES - 63 * 64, true, 0, 0 },
	{ 32, 8, AREA_BYTES - 63 * 64 + 1, false, 0, 0 },
	{ 32, 8, 0xfffffffffffff, false, 0, 0 },
	/* the driver's */
	{ 40, 8, 0, false, 2, 0 },      { 40, 8, 88, false, 2, 0 },
	{ 40, 8, 113, false, 2, 0 },    { 40, 8, AREA_BYTES - 24, false, 2, 0 },
	{ 48, 8, 0, false, 0, 0 },      { 48, 8, 73, false, 0, 0 },
	{ 48, 8, 70, false, 0, 0 },     { 48, 8, 64, false, 0, 0 },
	{ 48, 8, 74, true, 0, 0 }, /* aligned to 2 is enough */
	{ 56, 8, 0, false, 0, 0 },      { 56, 8, 128, false, 0, 0 },
	{ 56, 8, 128 + 63 * 64 - 1, false, 0, 0 },
	{ 56, 8, AREA_BYTES - 63 * 64 + 64, false, 0, 0 },
	{ 56, 8, AREA_1 | 8192, true, 0, 0 },
};

static void put_field(uint8_t *area, const struct corrupt *c)
{
	for (uint32_t i = 0; i < c->bytes; i++)
		area[c->offset + i] = (uint8_t)(c->value >> 8 * i);
}

/* F5: each wrong field is refused, counted once, and named; a right block afterwards is used. */
static void corrupt_blocks(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(corrupts) / sizeof(corrupts[0]); i++) {
		const struct corrupt *c = &corrupts[i];
		struct amp_pair *pair = new_pair(c->words, false);
		struct vmsg_amp *amp = &pair->driver.amp;

		test_context("case %u: field at %u is %llx", (uint32_t)i, c->offset,
			     (unsigned long long)c->value);
		CHECK_EQ(vmsg_amp_open_device(&pair->device.amp, VMSG_V2, 0), 0);
		put_field(pair->area, c);
		CHECK_EQ(vmsg_amp_open_driver(amp, VMSG_V2, 0), 0);
		for (uint32_t n = 0; n < 50; n++)
			vmsg_amp_poll(amp);
		CHECK_EQ(amp->counters.bad_layout, c->good ? 0 : 1);
		CHECK_EQ(amp->refused, !c->good);
		CHECK(!amp->up);
		if (!c->good) {
			CHECK_EQ(amp->bad_offset, c->found ? c->found : c->offset);
			pair->deaf = true;
			CHECK_EQ(vmsg_amp_connect(amp, 20), VMSG_ERR_PROTO);
			CHECK_EQ(vmsg_get16(pair->area + 72), 0); /* and it wrote nothing */
			/* The device restores what it wrote. */
			pair->deaf = false;
			CHECK_EQ(vmsg_amp_connect(amp, 20), 0);
			CHECK(pair->device.amp.counters.repaired > 0);
			CHECK(!amp->refused);
			pair_check(pair);
		}
		pair_free(pair);
	}
}

/* A block as the QEMU of 2026 writes it, with elements at 80, and areas as small as they get. */
static void foreign_block(void *arg)
{
	struct amp_pair *pair = pair_new(&vmsg_amp_layout);
	struct vmsg_amp *amp = &pair->driver.amp;
	uint8_t *area = pair->area;

	(void)arg;
	vmsg_put16(area + 2, 64);
	vmsg_put16(area + 4, 1);
	vmsg_put16(area + 10, 63);
	vmsg_put16(area + 12, 64);
	vmsg_put64(area + 24, 64);
	vmsg_put64(area + 32, 80);
	vmsg_put64(area + 48, 72);
	vmsg_put64(area + 56, 80 + 63 * 64);
	amp->len_bytes = 8144;
	CHECK_EQ(vmsg_amp_open_driver(amp, VMSG_V1, 0), 0);
	CHECK_EQ(vmsg_amp_poll(amp), 0);
	CHECK_EQ(vmsg_get16(area + 72), 0);
	vmsg_put16(area, VMSG_AMP_LAYOUT_MAGIC);
	vmsg_amp_poll(amp);
	CHECK_EQ(vmsg_get16(area + 72), VMSG_AMP_HEAD_MAGIC);
	/* Without the head's magic the peer has not started, whatever its status says. */
	vmsg_put16(area + 66, VMSG_AMP_RUN);
	vmsg_amp_poll(amp);
	CHECK_EQ(vmsg_get16(area + 74), VMSG_AMP_READY);
	vmsg_put16(area + 66, VMSG_AMP_READY);
	vmsg_put16(area + 64, VMSG_AMP_HEAD_MAGIC);
	vmsg_amp_poll(amp);
	CHECK_EQ(vmsg_get16(area + 74), VMSG_AMP_RUN);
	CHECK(!amp->up);
	vmsg_put16(area + 66, VMSG_AMP_RUN | 0x8000); /* a flag: may stop in a debugger */
	vmsg_amp_poll(amp);
	CHECK(amp->up);
	pair_free(pair);
}

/* F8, F9: every byte of block, heads and words is scribbled on, in every state it heals. */
static void scribble(void *arg)
{
	bool up = arg != NULL;

	for (uint32_t at = 0; at < 128; at++) {
		for (uint32_t how = 0; how < 3; how++) {
			struct amp_pair *pair = new_pair(1, true);
			struct amp_model *model;
			struct amp_user *user;

			test_context("byte %u, kind %u", at, how);
			pair_open(pair);
			model = pair_add(pair, 0);
			if (up) {
				pair_settle(pair);
				pair_use(pair, 0);
			}
			pair->area[at] ^= how == 0 ? 0xff : how == 1 ? 0x01 : 0x80;
			for (uint32_t i = 0; i < 40; i++) {
				vmsg_amp_poll(&pair->device.amp);
				vmsg_amp_poll(&pair->driver.amp);
			}
			pair->driver.amp.bus.now_ms += 200;
			pair->device.amp.bus.now_ms += 200;
			pair_settle(pair);
			pair_check(pair);
			/* The block, at 14 too, is as it was. */
			CHECK_EQ(vmsg_get16(pair->area), VMSG_AMP_LAYOUT_MAGIC);
			CHECK_EQ(vmsg_get16(pair->area + 14), 0);
			user = &pair->users[0];
			if (user->driver.gone || !up)
				user = pair_use(pair, 0);
			memset(model->kicks, 0, sizeof(model->kicks));
			vmsg_driver_kick_again(&user->driver, 1);
			pair->device.amp.bus.now_ms += 101;
			pair_settle(pair);
			CHECK(model->kicks[1] > 0);
			pair_free(pair);
		}
	}
}

/* F3: the geometry changes after it was read; nobody looks at it any more. */
static void double_fetch(void *arg)
{
	struct amp_pair *pair = new_pair(0, false);
	uint8_t fields[62];

	(void)arg;
	pair_start(pair);
	memset(fields, 0xff, sizeof(fields));
	for (uint32_t i = 0; i < 1000; i++) {
		memcpy(pair->area + 2, fields, sizeof(fields));
		CHECK_EQ(vmsg_bus_ping(&pair->driver.amp.bus, i, 10), 0);
	}
	CHECK_EQ(pair->driver.amp.counters.restarts + pair->device.amp.counters.restarts, 0);
	pair_free(pair);
}

/* A device side that comes back with another geometry. */
static void new_geometry(void *arg)
{
	static const struct { uint16_t bytes, count; uint8_t words; } shapes[] = {
		{ 0, 0, 0 }, { 264, 20, 2 }, { 64, 2, 0 }, { 1024, 50, 64 }, { 52, 100, 1 },
	};
	struct amp_pair *pair = new_pair(0, false);

	(void)arg;
	pair_start(pair);
	for (uint32_t i = 0; i < 25; i++) {
		struct vmsg_amp *amp = &pair->device.amp;

		amp->element_bytes = shapes[i * 3 % 5].bytes;
		amp->element_count = shapes[i * 3 % 5].count;
		amp->words = shapes[i * 3 % 5].words;
		CHECK_EQ(vmsg_amp_open_device(amp, VMSG_V2, 0), 0);
		pair_settle(pair);
		pair_check(pair);
		CHECK_EQ(pair->driver.amp.bus.max_msg_size, amp->element_bytes);
		CHECK_EQ(pair->driver.amp.bus.ops->notify != NULL, amp->words != 0);
		CHECK_EQ(pair->driver.amp.counters.restarts, i + 1);
	}
	pair_free(pair);
}

static bool running;

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "written", written, NULL },
		{ "written_with_words", written_with_words, NULL },
		{ "refused_settings", refused_settings, NULL },
		{ "corrupt_blocks", corrupt_blocks, NULL },
		{ "foreign_block", foreign_block, NULL },
		{ "scribble_starting", scribble, NULL },
		{ "scribble_running", scribble, &running },
		{ "double_fetch", double_fetch, NULL },
		{ "new_geometry", new_geometry, NULL },
	};

	return test_main("amp_block", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
