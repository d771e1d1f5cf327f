/* SPDX-License-Identifier: BSD-3-Clause */
/* driver/blk.c against a device that answers whatever a test likes. */
#include <vmsg/port.h>

#include "blk_fixture.h"

#define COUNT_OF(a)  (sizeof(a) / sizeof((a)[0]))
#define CAPACITY     100u
#define IOS	     12u
#define DATA_BYTES   4096u
#define SILENT	     0x100 /* a status that is not written */
#define SECTOR_BYTES VMSG_BLK_SECTOR_BYTES

struct rig {
	struct blk_pair pair; /* its driver; its device is not used */
	struct vmsg_device device;
	uint8_t config[VMSG_BLK_CONFIG_BYTES];

	/* How the device answers. */
	int status;
	uint32_t missing; /* bytes fewer than there are, in the length */
	bool deaf, hoard; /* takes nothing; gives nothing back */
	bool lie;	  /* writes a length that is longer than the buffer */
	uint32_t popped;

	struct vmsg_blk_io io[IOS];
	uint8_t *data[IOS];
	struct vmsg_buf buf[IOS];
	uint32_t done, lost, changed, left;
};

/* ---- The device ---- */

static void answer(struct rig *rig, uint32_t vq_index, struct vmsg_chain *chain)
{
	uint32_t written = chain->writable_bytes;
	uint8_t header[VMSG_BLK_HEADER_BYTES], status = (uint8_t)rig->status;

	CHECK_EQ(vmsg_chain_read(chain, 0, header, sizeof(header)), sizeof(header));
	for (uint32_t i = 0; i + 1 < written; i++) {
		uint8_t byte = vmsg_get32(header) == VMSG_BLK_T_GET_ID ? (uint8_t)('a' + i)
								       : (uint8_t)(i * 3);

		vmsg_chain_write(chain, i, &byte, 1);
	}
	if (rig->status != SILENT)
		vmsg_chain_write(chain, written - 1, &status, 1);
	vmsg_device_push(&rig->device, vq_index, chain, written - rig->missing);
	if (rig->lie) {
		struct vmsg_vq_device *vq = &rig->device.vqs[vq_index];

		/* The length in the used element just written (virtio 1.4, 2.7.8). */
		vmsg_put32(vq->device + 4 + 8 * ((vq->used_idx - 1u) % vq->size) + 4, written + 1);
	}
}

static void kick(struct vmsg_device *device, uint32_t vq_index)
{
	struct rig *rig = device->bus->user;
	struct vmsg_iov iov[BLK_IOVS];
	struct vmsg_chain chain = { .iov = iov, .iov_max = BLK_IOVS };

	while (!rig->deaf && vmsg_device_pop(device, vq_index, &chain) == 1) {
		rig->popped++;
		if (!rig->hoard)
			answer(rig, vq_index, &chain);
	}
	vmsg_device_used(device, vq_index);
}

static int configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	memcpy(device->config + offset, data, len);
	return 0;
}

static const struct vmsg_device_ops device_ops = {
	.name = "test",
	.device_id = VMSG_BLK_DEVICE_ID,
	.kick = kick,
	.configure = configure,
};

/* ---- The driver's side ---- */

static void io_done(struct vmsg_blk_io *io)
{
	struct rig *rig = io->user;

	CHECK(!io->busy);
	rig->done++;
	if (rig->left) {
		rig->left--;
		CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, io), 0);
		vmsg_blk_driver_kick(&rig->pair.driver, 0);
	}
}

static void lost(struct vmsg_blk_driver *driver)
{
	((struct rig *)driver->user)->lost++;
}

static void changed(struct vmsg_blk_driver *driver)
{
	((struct rig *)driver->user)->changed++;
}

static void fill_config(struct rig *rig)
{
	uint8_t *config = rig->config;

	vmsg_put64(config + VMSG_BLK_CONFIG_CAPACITY, CAPACITY);
	vmsg_put32(config + VMSG_BLK_CONFIG_SIZE_MAX, 8192);
	vmsg_put32(config + VMSG_BLK_CONFIG_SEG_MAX, 4);
	vmsg_put32(config + VMSG_BLK_CONFIG_BLK_SIZE, 512);
	config[VMSG_BLK_CONFIG_PHYSICAL_EXP] = 3;
	vmsg_put16(config + VMSG_BLK_CONFIG_MIN_IO, 8);
	config[VMSG_BLK_CONFIG_WRITEBACK] = 1;
	vmsg_put16(config + VMSG_BLK_CONFIG_NUM_QUEUES, 2);
	vmsg_put32(config + VMSG_BLK_CONFIG_DISCARD_SECTORS, 16);
	vmsg_put32(config + VMSG_BLK_CONFIG_DISCARD_SEG, 1);
	vmsg_put32(config + VMSG_BLK_CONFIG_ZEROES_SECTORS, 8);
	vmsg_put32(config + VMSG_BLK_CONFIG_ZEROES_SEG, 1);
}

static void add_device(struct rig *rig)
{
	struct vmsg_device *device = &rig->device;

	device->ops = &device_ops;
	device->offered = VMSG_BIT(VMSG_BLK_F_SIZE_MAX) | VMSG_BIT(VMSG_BLK_F_SEG_MAX) |
			  VMSG_BIT(VMSG_BLK_F_BLK_SIZE) | VMSG_BIT(VMSG_BLK_F_FLUSH) |
			  VMSG_BIT(VMSG_BLK_F_TOPOLOGY) | VMSG_BIT(VMSG_BLK_F_CONFIG_WCE) |
			  VMSG_BIT(VMSG_BLK_F_MQ) | VMSG_BIT(VMSG_BLK_F_DISCARD) |
			  VMSG_BIT(VMSG_BLK_F_WRITE_ZEROES);
	device->config = rig->config;
	device->config_size = sizeof(rig->config);
	device->vqs = rig->pair.device_vqs;
	device->vq_count = 2;
	device->mem = &rig->pair.mem;
	device->split = &vmsg_vq_split_device;
	vmsg_device_init(device);
	CHECK_EQ(vmsg_bus_add(&rig->pair.loop.device.bus, device, 3), 0);
}

static struct rig *rig_open(bool start)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct blk_pair *pair = &rig->pair;
	struct vmsg_blk_driver *driver = &pair->driver;

	blk_pair_open(pair, false, 2);
	pair->loop.device.bus.user = rig;
	fill_config(rig);
	add_device(rig);
	vmsg_blk_driver_init(driver, &pair->loop.driver.bus, 3);
	driver->driver.split = &vmsg_vq_split_driver;
	driver->driver.vqs = pair->driver_vqs;
	driver->driver.vq_count = BLK_QUEUES;
	driver->states = pair->states;
	driver->queue_size = BLK_QUEUE_SIZE;
	driver->arena = &pair->queues;
	driver->user = rig;
	driver->lost = lost;
	driver->changed = changed;
	for (uint32_t i = 0; i < IOS; i++) {
		CHECK_EQ(vmsg_blk_io_init(&rig->io[i], &pair->data), 0);
		rig->data[i] = vmsg_arena_take(&pair->data, DATA_BYTES, 64, &rig->buf[i].addr);
		rig->buf[i].len = SECTOR_BYTES;
		rig->io[i].user = rig;
		rig->io[i].done = io_done;
		rig->io[i].type = VMSG_BLK_T_IN;
		rig->io[i].bufs = &rig->buf[i];
		rig->io[i].buf_count = 1;
	}
	if (start)
		CHECK_EQ(vmsg_blk_driver_start(driver), 0);
	return rig;
}

static void rig_close(struct rig *rig)
{
	blk_pair_close(&rig->pair);
	free(rig);
}

static int call(struct rig *rig, uint32_t timeout_ms)
{
	return vmsg_blk_driver_call(&rig->pair.driver, &rig->io[0], timeout_ms);
}

/* ---- Start ---- */

static void test_start(void *arg)
{
	struct rig *rig = rig_open(true);
	const struct vmsg_blk_config *config = &rig->pair.driver.config;

	(void)arg;
	CHECK_EQ(rig->pair.driver.num_queues, 2);
	CHECK_EQ(config->capacity_sectors, CAPACITY);
	CHECK_EQ(config->size_max, 8192);
	CHECK_EQ(config->seg_max, 4);
	CHECK_EQ(config->physical_exp, 3);
	CHECK_EQ(config->min_io_blocks, 8);
	CHECK(config->flush && config->writeback && !config->read_only);
	CHECK_EQ(config->max_discard_sectors, 16);
	CHECK_EQ(config->max_zeroes_sectors, 8);
	CHECK_EQ(call(rig, 1000), 0);
	CHECK_EQ(rig->data[0][1], 3);
	CHECK_EQ(rig->done, 1);
	/* From the beginning, in the same memory. */
	CHECK_EQ(vmsg_blk_driver_reset(&rig->pair.driver), 0);
	CHECK_EQ(call(rig, 1000), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), 0);
	CHECK_EQ(call(rig, 1000), 0);
	rig_close(rig);
}

struct odd_config {
	const char *name;
	uint32_t offset, bytes;
	uint64_t value;
	int result;
};

static const struct odd_config odd_configs[] = {
	{ "capacity over 2^64 bytes", VMSG_BLK_CONFIG_CAPACITY, 8, (uint64_t)1 << 55,
	  VMSG_ERR_PROTO },
	{ "capacity all ones", VMSG_BLK_CONFIG_CAPACITY, 8, UINT64_MAX, VMSG_ERR_PROTO },
	{ "no capacity", VMSG_BLK_CONFIG_CAPACITY, 8, 0, 0 },
	{ "block size 0", VMSG_BLK_CONFIG_BLK_SIZE, 4, 0, VMSG_ERR_PROTO },
	{ "block size 1", VMSG_BLK_CONFIG_BLK_SIZE, 4, 1, VMSG_ERR_PROTO },
	{ "block size 513", VMSG_BLK_CONFIG_BLK_SIZE, 4, 513, VMSG_ERR_PROTO },
	{ "block size 768", VMSG_BLK_CONFIG_BLK_SIZE, 4, 768, VMSG_ERR_PROTO },
	{ "block size 4096", VMSG_BLK_CONFIG_BLK_SIZE, 4, 4096, 0 },
	{ "block size 2^31", VMSG_BLK_CONFIG_BLK_SIZE, 4, 0x80000000u, VMSG_ERR_PROTO },
	{ "size_max 0", VMSG_BLK_CONFIG_SIZE_MAX, 4, 0, VMSG_ERR_PROTO },
	{ "size_max 511", VMSG_BLK_CONFIG_SIZE_MAX, 4, 511, VMSG_ERR_PROTO },
	{ "seg_max 0", VMSG_BLK_CONFIG_SEG_MAX, 4, 0, 0 },
	{ "no queues", VMSG_BLK_CONFIG_NUM_QUEUES, 2, 0, VMSG_ERR_PROTO },
	{ "65535 queues", VMSG_BLK_CONFIG_NUM_QUEUES, 2, 65535, 0 },
	{ "physical block of 2^264", VMSG_BLK_CONFIG_PHYSICAL_EXP, 1, 255, VMSG_ERR_PROTO },
};

static void test_odd_configs(void *arg)
{
	struct rig *rig = rig_open(false);

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(odd_configs); i++) {
		const struct odd_config *odd = &odd_configs[i];

		test_context("%s", odd->name);
		memset(rig->config, 0, sizeof(rig->config));
		fill_config(rig);
		for (uint32_t b = 0; b < odd->bytes; b++)
			rig->config[odd->offset + b] = (uint8_t)(odd->value >> 8 * b);
		CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), odd->result);
		CHECK_EQ(rig->pair.driver.num_queues, odd->result ? 0 : 2);
		if (odd->result) {
			CHECK(rig->device.status & VMSG_STATUS_FAILED);
			CHECK_EQ(call(rig, 100), VMSG_ERR_SHUTDOWN);
		}
	}
	rig_close(rig);
}

/* Fewer bytes than the driver would like: what is not there counts as absent. */
static void test_short_config(void *arg)
{
	struct rig *rig = rig_open(false);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	rig->device.config_size = 7;
	CHECK_EQ(vmsg_blk_driver_start(driver), VMSG_ERR_PROTO);
	for (uint32_t size = 8; size <= VMSG_BLK_CONFIG_BYTES; size++) {
		uint8_t *exact = malloc(size);

		test_context("config of %u bytes", size);
		memcpy(exact, rig->config, size);
		rig->device.config = exact;
		rig->device.config_size = size;
		CHECK_EQ(vmsg_blk_driver_start(driver), 0);
		CHECK_EQ(driver->config.capacity_sectors, CAPACITY);
		CHECK_EQ(driver->config.seg_max, size < 16 ? UINT32_MAX : 4);
		CHECK_EQ(driver->num_queues, size < 36 ? 1 : 2);
		CHECK_EQ(driver->config.max_zeroes_sectors, size < 52 ? 0 : 8);
		CHECK_EQ(vmsg_blk_driver_reset(driver), 0);
		free(exact);
	}
	rig_close(rig);
}

static void test_no_disk(void *arg)
{
	struct rig *rig = rig_open(false);
	struct vmsg_device_ops rng = device_ops;

	(void)arg;
	rng.device_id = 4;
	rig->device.ops = &rng;
	CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), VMSG_ERR_NODEV);
	rig->pair.driver.driver.dev_num = 5;
	CHECK_EQ(vmsg_blk_driver_start(&rig->pair.driver), VMSG_ERR_NODEV);
	rig_close(rig);
}

/* ---- What is submitted ---- */

static void test_submit(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;
	struct vmsg_blk_io *io = &rig->io[0];
	struct vmsg_buf bufs[VMSG_BLK_IO_BUFS + 1];

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(bufs); i++)
		bufs[i] = (struct vmsg_buf){ rig->buf[0].addr, 512 };
	io->bufs = bufs;
	io->sector = CAPACITY;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->sector = UINT64_MAX;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->sector = CAPACITY - 1;
	io->buf_count = 2;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->sector = 0;
	io->buf_count = 0;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->buf_count = 5; /* seg_max is 4 */
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	driver->config.seg_max = UINT32_MAX;
	io->buf_count = VMSG_BLK_IO_BUFS + 1;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->buf_count = 1;
	bufs[0].len = 8193; /* size_max is 8192 */
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	bufs[0].len = 0;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	bufs[0].len = 100;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	bufs[0].len = 512;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 2, io), VMSG_ERR_INVAL);
	io->type = 77;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	io->type = VMSG_BLK_T_DISCARD;
	io->sector_count = 17;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_INVAL);
	driver->config.max_discard_sectors = 0;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_NOTSUP);
	driver->config.read_only = true;
	io->type = VMSG_BLK_T_OUT;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_NOTSUP);
	driver->config.flush = false;
	io->type = VMSG_BLK_T_FLUSH;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, io), VMSG_ERR_NOTSUP);
	CHECK_EQ(driver->in_flight, 0);
	CHECK_EQ(rig->popped, 0);
	rig_close(rig);
}

/* The queue has 16 places, and each of these takes 3. */
static void test_full(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	for (uint32_t i = 0; i < 5; i++)
		CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[i]), 0);
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[5]), VMSG_ERR_AGAIN);
	CHECK(!rig->io[5].busy);
	CHECK_EQ(vmsg_blk_driver_submit(driver, 1, &rig->io[5]), 0);
	CHECK_EQ(driver->in_flight, 6);
	vmsg_blk_driver_kick(driver, 0);
	vmsg_blk_driver_kick(driver, 1);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(driver->in_flight, 0);
	CHECK_EQ(rig->done, 6);
	rig_close(rig);
}

static void test_done_submits(void *arg)
{
	struct rig *rig = rig_open(true);

	(void)arg;
	rig->left = 500;
	CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[0]), 0);
	vmsg_blk_driver_kick(&rig->pair.driver, 0);
	for (uint32_t i = 0; i < 2000 && rig->pair.driver.in_flight; i++)
		rig->pair.ops.wait(&rig->pair.loop.driver.bus, 1);
	CHECK_EQ(rig->done, 501);
	CHECK_EQ(rig->pair.driver.counters.completed, 501);
	rig_close(rig);
}

static void test_get_id(void *arg)
{
	struct rig *rig = rig_open(true);

	(void)arg;
	rig->io[0].type = VMSG_BLK_T_GET_ID;
	CHECK_EQ(call(rig, 1000), 0);
	CHECK_STR(rig->io[0].id, "abcdefghijklmnopqrst");
	rig_close(rig);
}

/* ---- Answers ---- */

static void test_answers(void *arg)
{
	static const struct {
		uint32_t type, missing;
		int status, result;
	} answers[] = {
		{ VMSG_BLK_T_IN, 0, VMSG_BLK_S_OK, 0 },
		{ VMSG_BLK_T_IN, 1, VMSG_BLK_S_OK, 0 }, /* does not count the status: seen */
		{ VMSG_BLK_T_IN, 2, VMSG_BLK_S_OK, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_IN, 513, VMSG_BLK_S_OK, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_IN, 0, VMSG_BLK_S_IOERR, VMSG_ERR_IO },
		{ VMSG_BLK_T_IN, 512, VMSG_BLK_S_IOERR, VMSG_ERR_IO },
		{ VMSG_BLK_T_IN, 0, VMSG_BLK_S_UNSUPP, VMSG_ERR_NOTSUP },
		{ VMSG_BLK_T_IN, 0, 3, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_IN, 0, 255, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_IN, 0, SILENT, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_OUT, 0, VMSG_BLK_S_OK, 0 },
		{ VMSG_BLK_T_OUT, 1, VMSG_BLK_S_OK, 0 }, /* likewise */
		{ VMSG_BLK_T_OUT, 0, SILENT, VMSG_ERR_PROTO },
		{ VMSG_BLK_T_FLUSH, 0, VMSG_BLK_S_IOERR, VMSG_ERR_IO },
	};
	struct rig *rig = rig_open(true);
	uint32_t nonsense = 0;

	(void)arg;
	for (size_t i = 0; i < COUNT_OF(answers); i++) {
		test_context("answer %zu", i);
		rig->status = answers[i].status;
		rig->missing = answers[i].missing;
		rig->io[0].type = answers[i].type;
		CHECK_EQ(call(rig, 1000), answers[i].result);
		nonsense += answers[i].result == VMSG_ERR_PROTO;
		CHECK_EQ(rig->pair.driver.counters.nonsense, nonsense);
	}
	CHECK(!rig->pair.driver.failed);
	rig_close(rig);
}

/* More bytes than the buffer has: the queue is broken, and only a reset helps. */
static void test_lie(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	rig->lie = true;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[1]), 0);
	CHECK_EQ(call(rig, 1000), VMSG_ERR_PROTO);
	CHECK(!rig->io[0].busy && !rig->io[1].busy);
	CHECK_EQ(rig->io[1].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[1]), VMSG_ERR_SHUTDOWN);
	rig->lie = false;
	CHECK_EQ(vmsg_blk_driver_start(driver), 0);
	CHECK_EQ(call(rig, 1000), 0);
	rig_close(rig);
}

/* ---- Time ---- */

static void test_timeout(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	rig->hoard = true;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[1]), 0);
	CHECK_EQ(call(rig, 700), VMSG_ERR_TIMEDOUT);
	CHECK_EQ(rig->io[0].result, VMSG_ERR_TIMEDOUT);
	CHECK_EQ(rig->io[1].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(rig->popped, 2);
	CHECK(driver->counters.rekicks >= 5);
	CHECK_EQ(driver->counters.timeouts, 1);
	CHECK_EQ(rig->device.status, 0);
	rig->hoard = false;
	CHECK_EQ(vmsg_blk_driver_start(driver), 0);
	CHECK_EQ(call(rig, 700), 0);
	/* The same without blocking: poll says when it is too late. */
	rig->hoard = true;
	driver->io_timeout_ms = 50;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 1, &rig->io[2]), 0);
	vmsg_blk_driver_kick(driver, 1);
	for (uint32_t i = 0; i < 40; i++) {
		rig->pair.ops.wait(&rig->pair.loop.driver.bus, 1);
		CHECK_EQ(vmsg_blk_driver_poll(driver), 0);
	}
	for (uint32_t i = 0; i < 20; i++)
		rig->pair.ops.wait(&rig->pair.loop.driver.bus, 1);
	CHECK_EQ(vmsg_blk_driver_poll(driver), VMSG_ERR_TIMEDOUT);
	CHECK(rig->io[2].busy);
	CHECK_EQ(vmsg_blk_driver_reset(driver), 0);
	CHECK_EQ(rig->io[2].result, VMSG_ERR_TIMEDOUT);
	rig_close(rig);
}

/* Every notification is lost, whichever way it goes. */
static void test_lost_notifications(void *arg)
{
	const struct vmsg_loop_plan plan = {
		.fault = VMSG_LOOP_DROP, .to_device = true, .period = 1, .count = 2
	};
	const struct vmsg_loop_plan back = {
		.fault = VMSG_LOOP_DROP, .to_driver = true, .period = 1, .count = 1000
	};
	struct rig *rig = rig_open(true);

	(void)arg;
	vmsg_loop_set_plan(&rig->pair.loop, &plan);
	CHECK_EQ(call(rig, 5000), 0);
	CHECK_EQ(rig->pair.driver.counters.rekicks, 2);
	vmsg_loop_set_plan(&rig->pair.loop, &back);
	for (uint32_t i = 0; i < 50; i++)
		CHECK_EQ(call(rig, 5000), 0);
	CHECK_EQ(rig->done, 51);
	rig_close(rig);
}

/* ---- The device goes ---- */

static void test_gone(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	rig->hoard = true;
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[0]), 0);
	CHECK_EQ(vmsg_blk_driver_submit(driver, 1, &rig->io[1]), 0);
	vmsg_blk_driver_kick(driver, 0);
	vmsg_bus_remove(&rig->pair.loop.device.bus, &rig->device);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->lost, 1);
	CHECK_EQ(rig->done, 2);
	CHECK_EQ(rig->io[0].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(rig->io[1].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(vmsg_blk_driver_poll(driver), VMSG_ERR_SHUTDOWN);
	CHECK_EQ(call(rig, 100), VMSG_ERR_SHUTDOWN);
	CHECK(vmsg_blk_driver_reset(driver) != 0);
	rig_close(rig);
}

static void test_cut(void *arg)
{
	struct rig *rig = rig_open(true);

	(void)arg;
	rig->hoard = true;
	CHECK_EQ(vmsg_blk_driver_submit(&rig->pair.driver, 0, &rig->io[1]), 0);
	vmsg_loop_run(&rig->pair.loop);
	rig->pair.loop.cut = true;
	CHECK_EQ(call(rig, 1000), VMSG_ERR_SHUTDOWN);
	vmsg_bus_peer_gone(&rig->pair.loop.driver.bus);
	CHECK_EQ(rig->io[1].result, VMSG_ERR_SHUTDOWN);
	CHECK_EQ(rig->lost, 1);
	rig_close(rig);
}

static void test_needs_reset(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	vmsg_device_needs_reset(&rig->device);
	CHECK_EQ(vmsg_blk_driver_submit(driver, 0, &rig->io[1]), 0);
	vmsg_blk_driver_kick(driver, 0);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->changed, 1);
	CHECK_EQ(vmsg_blk_driver_poll(driver), VMSG_ERR_PROTO);
	CHECK(rig->io[1].busy);
	CHECK_EQ(vmsg_blk_driver_reset(driver), 0);
	CHECK(!rig->io[1].busy);
	CHECK_EQ(vmsg_blk_driver_start(driver), 0);
	CHECK_EQ(call(rig, 1000), 0);
	rig_close(rig);
}

static void test_refresh(void *arg)
{
	struct rig *rig = rig_open(true);
	struct vmsg_blk_driver *driver = &rig->pair.driver;

	(void)arg;
	vmsg_put64(rig->config, 2 * CAPACITY);
	vmsg_device_config_changed(&rig->device, 0, 8);
	vmsg_loop_run(&rig->pair.loop);
	CHECK_EQ(rig->changed, 1);
	rig->io[0].sector = CAPACITY;
	CHECK_EQ(call(rig, 1000), VMSG_ERR_INVAL);
	CHECK_EQ(vmsg_blk_driver_refresh(driver), 0);
	CHECK_EQ(call(rig, 1000), 0);
	/* Nonsense is not taken over. */
	vmsg_put64(rig->config, UINT64_MAX);
	CHECK_EQ(vmsg_blk_driver_refresh(driver), VMSG_ERR_PROTO);
	CHECK_EQ(driver->config.capacity_sectors, 2 * CAPACITY);
	vmsg_put64(rig->config, CAPACITY);
	CHECK_EQ(vmsg_blk_driver_set_writeback(driver, false), 0);
	CHECK(!driver->config.writeback);
	CHECK_EQ(rig->config[VMSG_BLK_CONFIG_WRITEBACK], 0);
	rig_close(rig);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "start", test_start, NULL },
		{ "odd configs", test_odd_configs, NULL },
		{ "short config", test_short_config, NULL },
		{ "no disk", test_no_disk, NULL },
		{ "submit", test_submit, NULL },
		{ "full", test_full, NULL },
		{ "done submits", test_done_submits, NULL },
		{ "get id", test_get_id, NULL },
		{ "answers", test_answers, NULL },
		{ "lie", test_lie, NULL },
		{ "timeout", test_timeout, NULL },
		{ "lost notifications", test_lost_notifications, NULL },
		{ "gone", test_gone, NULL },
		{ "cut", test_cut, NULL },
		{ "needs reset", test_needs_reset, NULL },
		{ "refresh", test_refresh, NULL },
	};

	return test_main("driver_blk", tests, COUNT_OF(tests), argc, argv);
}
