/* SPDX-License-Identifier: BSD-3-Clause */
/* What a block device says of itself, checked (virtio 1.4, 5.2.4). */
#include <vmsg/blk.h>
#include <vmsg/port.h>

#define MAX_BLOCK_BYTES (1u << 20)

/* Fields of which the device has not all bytes, or whose feature is missing, stay as they are. */
struct config_view {
	const uint8_t *bytes;
	uint32_t len;
	uint64_t features;
};

static bool present(const struct config_view *view, unsigned int feature, uint32_t offset,
		    uint32_t bytes)
{
	return vmsg_has(view->features, feature) && offset <= view->len &&
	       bytes <= view->len - offset;
}

static void decode32(const struct config_view *view, unsigned int feature, uint32_t offset,
		     uint32_t *value)
{
	if (present(view, feature, offset, 4))
		*value = vmsg_get32(view->bytes + offset);
}

static void decode_ranges(const struct config_view *view, struct vmsg_blk_config *config)
{
	const unsigned int discard = VMSG_BLK_F_DISCARD, zeroes = VMSG_BLK_F_WRITE_ZEROES;

	decode32(view, discard, VMSG_BLK_CONFIG_DISCARD_SECTORS, &config->max_discard_sectors);
	decode32(view, discard, VMSG_BLK_CONFIG_DISCARD_SEG, &config->max_discard_seg);
	decode32(view, discard, VMSG_BLK_CONFIG_DISCARD_ALIGN, &config->discard_align_sectors);
	decode32(view, zeroes, VMSG_BLK_CONFIG_ZEROES_SECTORS, &config->max_zeroes_sectors);
	decode32(view, zeroes, VMSG_BLK_CONFIG_ZEROES_SEG, &config->max_zeroes_seg);
	if (present(view, zeroes, VMSG_BLK_CONFIG_ZEROES_MAY_UNMAP, 1))
		config->zeroes_may_unmap = view->bytes[VMSG_BLK_CONFIG_ZEROES_MAY_UNMAP] != 0;
}

static void decode_topology(const struct config_view *view, struct vmsg_blk_config *config)
{
	const unsigned int topology = VMSG_BLK_F_TOPOLOGY;

	if (present(view, topology, VMSG_BLK_CONFIG_PHYSICAL_EXP, 8)) {
		config->physical_exp = view->bytes[VMSG_BLK_CONFIG_PHYSICAL_EXP];
		config->alignment_blocks = view->bytes[VMSG_BLK_CONFIG_ALIGNMENT];
		config->min_io_blocks = vmsg_get16(view->bytes + VMSG_BLK_CONFIG_MIN_IO);
		config->opt_io_blocks = vmsg_get32(view->bytes + VMSG_BLK_CONFIG_OPT_IO);
	}
}

static bool config_makes_sense(const struct vmsg_blk_config *config)
{
	uint32_t block = config->block_bytes;

	return config->capacity_sectors <= UINT64_MAX / VMSG_BLK_SECTOR_BYTES &&
	       block >= VMSG_BLK_SECTOR_BYTES && block <= MAX_BLOCK_BYTES &&
	       (block & (block - 1)) == 0 && config->size_max >= block && config->num_queues > 0 &&
	       config->physical_exp < 32;
}

int vmsg_blk_config_decode(struct vmsg_blk_config *config, const void *bytes, uint32_t len,
			   uint64_t features)
{
	struct config_view view = { bytes, len, features };

	memset(config, 0, sizeof(*config));
	config->size_max = UINT32_MAX;
	config->seg_max = UINT32_MAX;
	config->block_bytes = VMSG_BLK_SECTOR_BYTES;
	config->num_queues = 1;
	config->read_only = vmsg_has(features, VMSG_BLK_F_RO);
	config->flush = vmsg_has(features, VMSG_BLK_F_FLUSH);
	config->writeback = config->flush;
	if (len < VMSG_BLK_CONFIG_CAPACITY + 8)
		return VMSG_ERR_PROTO;
	config->capacity_sectors = vmsg_get64(view.bytes + VMSG_BLK_CONFIG_CAPACITY);
	decode32(&view, VMSG_BLK_F_SIZE_MAX, VMSG_BLK_CONFIG_SIZE_MAX, &config->size_max);
	decode32(&view, VMSG_BLK_F_SEG_MAX, VMSG_BLK_CONFIG_SEG_MAX, &config->seg_max);
	if (config->seg_max == 0)
		config->seg_max = 1; /* seen in the field; it cannot mean none */
	decode32(&view, VMSG_BLK_F_BLK_SIZE, VMSG_BLK_CONFIG_BLK_SIZE, &config->block_bytes);
	decode_topology(&view, config);
	if (present(&view, VMSG_BLK_F_CONFIG_WCE, VMSG_BLK_CONFIG_WRITEBACK, 1))
		config->writeback = view.bytes[VMSG_BLK_CONFIG_WRITEBACK] != 0;
	if (present(&view, VMSG_BLK_F_MQ, VMSG_BLK_CONFIG_NUM_QUEUES, 2))
		config->num_queues = vmsg_get16(view.bytes + VMSG_BLK_CONFIG_NUM_QUEUES);
	decode_ranges(&view, config);
	return config_makes_sense(config) ? 0 : VMSG_ERR_PROTO;
}
