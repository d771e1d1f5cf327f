/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recorded peers (test/data/transcripts): every message decodes and encodes to the same bytes; the
 * driver's half plays against our device role, whose answers must be ones that driver accepts
 * (peers.md 5); the device's half plays against our driver role.
 */
#include "common_rig.h"

#include "test.h"

#include <vmsg/driver.h>
#include <vmsg/port.h>

#include <stdio.h>
#include <string.h>

#define LINES 512
#define SLOT  64

struct line {
	bool to_device;
	uint32_t len, size; /* of the slot, of the message */
	uint8_t bytes[SLOT];
};

struct session {
	const char *name;
	const char *const *files;
	uint32_t device_id, config_size, max_size;
	uint64_t offered, chosen; /* by QEMU, by Linux */
};

static const char *const rng_files[] = {
	"rng-00-insmod-probe.txt",
	"rng-01-read-64-bytes-of-dev-hwrng.txt",
	"rng-03-unbind-virtio-rng-driver.txt",
	"rng-04-bind-virtio-rng-driver-again.txt",
	NULL,
};
static const char *const blk_files[] = {
	"blk-00-insmod-probe.txt",
	"blk-01-read-4-kib-at-0-o-direct.txt",
	"blk-02-write-4-kib-at-1-mib-o-direct.txt",
	"blk-03-fsync-flush.txt",
	"blk-06-write-cache-toggle-via-sysfs-set-config-wce.txt",
	NULL,
};

static const struct session sessions[] = {
	{ "rng", rng_files, 4, 0, 8, UINT64_C(0x10130000000), UINT64_C(0x130000000) },
	{ "blk", blk_files, 2, 57, 256, UINT64_C(0x10130006e54), UINT64_C(0x130006e54) },
};

static struct line lines[LINES];
static uint32_t line_count;

static uint8_t nibble(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void parse_line(const char *text)
{
	struct line *line = &lines[line_count];

	if (strncmp(text, "D>V ", 4) != 0 && strncmp(text, "V>D ", 4) != 0)
		return;
	CHECK(line_count < LINES);
	line_count++;
	line->to_device = text[0] == 'D';
	line->len = 0;
	for (text += 4; text[0] != ' ' && text[0] != '#' && text[0] != '\n'; text += 3) {
		CHECK(line->len < SLOT);
		line->bytes[line->len++] = (uint8_t)(nibble(text[0]) << 4 | nibble(text[1]));
	}
	CHECK_EQ(line->len, line->to_device ? 64 : 48);
	line->size = vmsg_msg_size(VMSG_V1, line->bytes, line->len);
}

static void load(const struct session *session)
{
	char text[1024];

	line_count = 0;
	for (const char *const *name = session->files; *name; name++) {
		FILE *file;

		snprintf(text, sizeof(text), "%s/transcripts/%s", TEST_DATA, *name);
		test_context("%s", text);
		file = fopen(text, "r");
		CHECK(file != NULL);
		while (fgets(text, sizeof(text), file))
			parse_line(text);
		fclose(file);
	}
	CHECK(line_count >= 70);
}

/* ---- Every message ---- */

static void every_message_is_known(void *arg)
{
	const struct session *session = arg;
	uint8_t again[SLOT];
	char text[512];
	struct vmsg_msg msg;

	load(session);
	for (uint32_t i = 0; i < line_count; i++) {
		test_context("%s message %u", session->name, i);
		CHECK_EQ(vmsg_msg_decode(VMSG_V1, lines[i].bytes, lines[i].len, &msg), 0);
		CHECK_EQ(vmsg_msg_encode(VMSG_V1, &msg, again, sizeof(again)), lines[i].size);
		CHECK_MEM(again, lines[i].bytes, lines[i].size);
		vmsg_msg_text(VMSG_V1, lines[i].bytes, lines[i].len, text, sizeof(text));
		CHECK(strstr(text, "unknown") == NULL && strstr(text, "malformed") == NULL);
	}
}

/* ---- The driver's half ---- */

static struct rig rig;
static uint8_t config[64];
static struct vmsg_vq_device device_vq;
static struct vmsg_vq_driver vq;
static struct vmsg_vq_state state[256];

static void serve(struct vmsg_device *device, uint32_t vq_index)
{
	struct vmsg_iov iov[16];
	struct vmsg_chain chain = { .iov = iov, .iov_max = 16 };

	while (vmsg_device_pop(device, vq_index, &chain) > 0)
		vmsg_device_push(device, vq_index, &chain, 0);
	vmsg_device_used(device, vq_index);
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	memcpy(device->config + offset, data, len);
	return 0;
}

static struct vmsg_device_ops device_ops = { .name = "replayed",
					     .configure = configure,
					     .kick = serve };

/* The config is what the recorded device had: what the first read of each byte gave. */
static void collect_config(void)
{
	bool known[sizeof(config)] = { false };
	struct vmsg_msg msg;

	memset(config, 0, sizeof(config));
	for (uint32_t i = 0; i < line_count; i++) {
		const uint8_t *data;

		if (lines[i].to_device || lines[i].bytes[1] != VMSG_GET_CONFIG)
			continue;
		CHECK_EQ(vmsg_msg_decode(VMSG_V1, lines[i].bytes, lines[i].len, &msg), 0);
		data = msg.tail;
		for (uint32_t j = 0; j < msg.config.length; j++) {
			if (!known[msg.config.offset + j])
				config[msg.config.offset + j] = data[j];
			known[msg.config.offset + j] = true;
		}
	}
}

static void open_device(const struct session *session)
{
	struct vmsg_device *device = &rig.model.device;

	rig_init(&rig, VMSG_V1, 0, SLOT);
	vmsg_bus_remove(&rig.bus, device);
	memset(device, 0, sizeof(*device));
	memset(&device_vq, 0, sizeof(device_vq));
	device_ops.device_id = session->device_id;
	device_vq.max_size = (uint16_t)session->max_size;
	device->ops = &device_ops;
	device->offered = session->offered;
	device->config = config;
	device->config_size = session->config_size;
	device->vqs = &device_vq;
	device->vq_count = 1;
	device->mem = &rig_mem;
	device->split = &vmsg_vq_split_device;
	device->vendor_id = 0x554d4551;
	vmsg_device_init(device);
	CHECK_EQ(vmsg_bus_add(&rig.bus, device, 0), 0);
}

/* The queue where SET_VQUEUE puts it here, and where the recorded driver had it. */
static void place_queue(uint8_t *bytes, const struct session *session)
{
	uint32_t desc_bytes = vmsg_vq_area_bytes(&vmsg_vq_split_driver.areas[0],
						 vmsg_get32(bytes + 16));
	struct vmsg_vq_memory memory = { 0 };

	memory.desc_addr = RIG_RAM;
	memory.driver_addr = RIG_RAM + desc_bytes;
	memory.device_addr = RIG_RAM + 0x2000;
	memory.desc = rig_ram;
	memory.driver = rig_ram + desc_bytes;
	memory.device = rig_ram + 0x2000;
	vmsg_put64(bytes + 24, memory.desc_addr);
	vmsg_put64(bytes + 32, memory.driver_addr);
	vmsg_put64(bytes + 40, memory.device_addr);
	CHECK_EQ(vmsg_vq_driver_init(&vq, &vmsg_vq_split_driver, session->chosen,
				     (uint16_t)vmsg_get32(bytes + 16), &memory, state),
		 0);
}

/* What this driver looks at in an answer (peers.md 5), against the answer it once got. */
static void accepts(const struct line *asked, const struct line *got_then)
{
	const struct rig_frame *now = &rig.sent[0];
	uint32_t skip_from = now->len, skip_to = now->len;

	CHECK_EQ(rig.sent_count, 1);
	CHECK_EQ(now->len, got_then->size);
	CHECK_MEM(now->bytes, got_then->bytes, 4);	/* type, id, device */
	CHECK_MEM(now->bytes + 4, asked->bytes + 4, 2); /* token, where QEMU gives 0 */
	switch (now->bytes[1]) {
	case VMSG_GET_DEVICES: /* type 3; in type 1 the same id is INFO, checked whole */
		if (now->bytes[0] & VMSG_TYPE_BUS) {
			/* offset 0, count 32, device 0; nothing comes after it. */
			CHECK_EQ(vmsg_get16(now->bytes + 8), 0);
			CHECK_EQ(vmsg_get16(now->bytes + 10), 32);
			CHECK_EQ(vmsg_get16(now->bytes + 12), 0);
			skip_from = 8, skip_to = 14;
		} else {
			CHECK_EQ(vmsg_get32(now->bytes + 16), 64); /* num_feature_bits */
		}
		break;
	case VMSG_GET_DEVICE_FEATURES: /* ours are more */
		CHECK_EQ(vmsg_get64(got_then->bytes + 16) & ~vmsg_get64(now->bytes + 16), 0);
		skip_from = 16, skip_to = 24;
		break;
	case VMSG_GET_VQUEUE: /* QEMU shows its maximum as the current size */
		skip_from = 16, skip_to = 20;
		break;
	case VMSG_GET_CONFIG:
	case VMSG_SET_CONFIG: /* our generation moves */
		skip_from = 8, skip_to = 12;
		break;
	default:
		break;
	}
	CHECK_MEM(now->bytes + 6, got_then->bytes + 6, skip_from - 6);
	CHECK_MEM(now->bytes + skip_to, got_then->bytes + skip_to, now->len - skip_to);
}

/* The answer that was recorded to line i. */
static const struct line *answer_to(uint32_t i)
{
	for (uint32_t j = i + 1; j < line_count; j++) {
		if (!lines[j].to_device && (lines[j].bytes[0] & VMSG_TYPE_RESPONSE) &&
		    lines[j].bytes[1] == lines[i].bytes[1])
			return &lines[j];
	}
	return NULL;
}

/* A kick of the recorded driver: there is a buffer behind it, and one USED for it. */
static void replay_kick(const struct line *line)
{
	struct vmsg_buf buf = { .addr = RIG_RAM + 0x8000, .len = 64 };
	uint32_t written;
	void *cookie;

	CHECK_EQ(vmsg_vq_add(&vq, &buf, 0, 1, &vq), 0);
	vmsg_vq_publish(&vq);
	CHECK_EQ(rig_raw(&rig, line->bytes, line->len), 0);
	CHECK_EQ(rig.sent_count, 1);
	CHECK_MEM(rig.sent[0].bytes, "\x00\x42\x00\x00\x00\x00\x0c\x00\x00\x00\x00\x00", 12);
	CHECK_EQ(vmsg_vq_get(&vq, &cookie, &written), 1);
	CHECK_EQ(vmsg_vq_get(&vq, &cookie, &written), 0);
}

static void drivers_half(void *arg)
{
	const struct session *session = arg;
	uint32_t requests = 0, kicks = 0;

	load(session);
	collect_config();
	open_device(session);
	for (uint32_t i = 0; i < line_count; i++) {
		struct line line = lines[i];
		const struct line *then;

		if (!line.to_device)
			continue;
		test_context("%s message %u", session->name, i);
		if (line.bytes[1] == VMSG_EVENT_AVAIL) {
			replay_kick(&line);
			kicks++;
			continue;
		}
		if (line.bytes[1] == VMSG_SET_VQUEUE)
			place_queue(line.bytes, session);
		/* It sends what it was last told. */
		if (line.bytes[1] == VMSG_SET_CONFIG)
			vmsg_put32(line.bytes + 8, rig.model.device.generation);
		then = answer_to(i);
		CHECK(then != NULL);
		CHECK_EQ(rig_raw(&rig, line.bytes, line.len), 0);
		accepts(&line, then);
		requests++;
	}
	CHECK(requests >= 30 && kicks >= 4);
	CHECK_EQ(rig.bus.counters.malformed + rig.bus.counters.unknown, 0);
	CHECK_EQ(rig.model.device.status, 0x0f);
	CHECK_EQ(rig.model.device.features, session->chosen);
}

/* ---- The device's half ---- */

/* A device that answers as the recorded one did to the same question. */
struct recorded {
	struct vmsg_bus bus; /* first */
	uint8_t frame[SLOT];
	uint8_t answer[SLOT];
	uint32_t answer_len;
};

static struct recorded recorded;

/* The same question: the same kind, and the same payload where that chooses the answer. */
static bool same_question(const struct line *line, const uint8_t *bytes, uint32_t len)
{
	if (!line->to_device || line->bytes[0] != bytes[0] || line->bytes[1] != bytes[1])
		return false;
	if (bytes[1] == VMSG_SET_VQUEUE || bytes[1] == VMSG_SET_DRIVER_FEATURES)
		return true;
	return line->size == len && memcmp(line->bytes + 8, bytes + 8, len - 8) == 0;
}

static int recorded_send(struct vmsg_bus *bus, const void *buf, uint32_t len)
{
	const uint8_t *bytes = buf;

	(void)bus;
	if (bytes[1] & VMSG_ID_EVENT)
		return 0;
	CHECK_EQ(recorded.answer_len, 0);
	for (uint32_t i = 0; i < line_count; i++) {
		const struct line *answer = answer_to(i);

		if (!same_question(&lines[i], bytes, len))
			continue;
		CHECK(answer != NULL);
		memcpy(recorded.answer, answer->bytes, answer->len);
		recorded.answer_len = answer->len;
		/* The token is an echo; bus messages got 0, whatever was asked. */
		if (!(bytes[0] & VMSG_TYPE_BUS))
			memcpy(recorded.answer + 4, bytes + 4, 2);
		return 0;
	}
	return 0; /* nobody ever asked that: silence */
}

static int recorded_wait(struct vmsg_bus *bus, uint32_t ms)
{
	uint32_t len = recorded.answer_len;

	recorded.answer_len = 0;
	if (len)
		CHECK_EQ(vmsg_bus_receive(bus, recorded.answer, len), 0);
	else
		bus->now_ms += ms;
	return 0;
}

static const struct vmsg_bus_ops recorded_ops = {
	.name = "recorded",
	.send = recorded_send,
	.wait = recorded_wait,
};

static uint32_t used_events;

static void count_used(struct vmsg_driver *driver, uint32_t vq_index)
{
	(void)driver;
	CHECK_EQ(vq_index, 0);
	used_events++;
}

static const struct vmsg_driver_ops driver_ops = { .used = count_used };

static void open_recorded(enum vmsg_dialect dialect)
{
	memset(&recorded, 0, sizeof(recorded));
	recorded.bus.ops = &recorded_ops;
	recorded.bus.frame = recorded.frame;
	recorded.bus.max_msg_size = SLOT;
	recorded.bus.learn = vmsg_msg_learn;
	vmsg_bus_init_driver(&recorded.bus, dialect, 0);
}

/* Reads what the recorded driver read, in its pieces, and the same bytes come. */
static void read_config_pieces(struct vmsg_driver *driver)
{
	struct vmsg_msg msg;
	uint8_t data[SLOT];

	for (uint32_t i = 0; i < line_count; i++) {
		if (!lines[i].to_device || lines[i].bytes[1] != VMSG_GET_CONFIG)
			continue;
		CHECK_EQ(vmsg_msg_decode(VMSG_V1, lines[i].bytes, lines[i].len, &msg), 0);
		CHECK_EQ(
			vmsg_driver_read_config(driver, msg.config.offset, data, msg.config.length),
			0);
		CHECK_MEM(data, config + msg.config.offset, msg.config.length);
	}
}

static void devices_half(void *arg)
{
	const struct session *session = arg;
	struct vmsg_driver driver;
	struct vmsg_vq_driver vqs[1];
	struct vmsg_arena arena = { .addr = RIG_RAM, .ptr = rig_ram, .len_bytes = RIG_RAM_SIZE };
	uint8_t bitmap[4];

	load(session);
	collect_config();
	for (uint32_t learns = 0; learns < 2; learns++) {
		test_context("%s learned %u", session->name, learns);
		open_recorded(learns ? VMSG_AUTO : VMSG_V1);
		/* The window of this driver is wider; ask for the one that was recorded. */
		CHECK_EQ(vmsg_bus_get_devices(&recorded.bus, bitmap, 32, 100), 1);
		CHECK_EQ(bitmap[0], 1);
		vmsg_driver_init(&driver, &recorded.bus, 0, &driver_ops);
		driver.split = &vmsg_vq_split_driver;
		driver.packed = &vmsg_vq_packed_driver;
		driver.vqs = vqs;
		driver.vq_count = 1;
		CHECK_EQ(vmsg_driver_identify(&driver), 0);
		CHECK_EQ(recorded.bus.dialect, VMSG_V1);
		CHECK_EQ(driver.device_id, session->device_id);
		CHECK_EQ(driver.config_size, session->config_size);
		CHECK_EQ(driver.max_virtqueues, 1);
		CHECK_EQ(driver.num_feature_blocks, 2);
		CHECK_EQ(vmsg_driver_negotiate(&driver, UINT64_MAX & ~VMSG_BIT(40)), 0);
		CHECK_EQ(driver.offered, session->offered);
		CHECK_EQ(driver.features, session->chosen);
		read_config_pieces(&driver);
		arena.used_bytes = 0;
		CHECK_EQ(vmsg_driver_setup_vq(&driver, 0, (uint16_t)session->max_size, 0, &arena,
					      state),
			 0);
		CHECK_EQ(vmsg_driver_ready(&driver), 0);
		used_events = 0;
		for (uint32_t i = 0; i < line_count; i++) {
			if (!lines[i].to_device && lines[i].bytes[1] == VMSG_EVENT_USED)
				CHECK_EQ(vmsg_bus_receive(&recorded.bus, lines[i].bytes,
							  lines[i].len),
					 0);
		}
		CHECK(used_events >= 4);
		CHECK_EQ(recorded.bus.counters.malformed + recorded.bus.counters.unknown, 0);
		CHECK_EQ(recorded.bus.counters.stray + recorded.bus.counters.timeouts, 0);
	}
}

#define EACH(text, function)                                            \
	{ "rng: " text, function, (void *)(uintptr_t)&sessions[0] },    \
	{                                                               \
		"blk: " text, function, (void *)(uintptr_t)&sessions[1] \
	}

static const struct test tests[] = {
	EACH("every message is known", every_message_is_known),
	EACH("the driver's half against our device", drivers_half),
	EACH("the device's half against our driver", devices_half),
};

int main(int argc, char **argv)
{
	return test_main("core_transcripts", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
