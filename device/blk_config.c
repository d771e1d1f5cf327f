/* SPDX-License-Identifier: BSD-3-Clause */
/* The block device's features and config space (virtio 1.4, 5.2.3 to 5.2.5). */
#include "blk_private.h"

#include <vmsg/port.h>

void vmsg_blk_fill_config(struct vmsg_blk *blk, uint32_t seg_max)
{
	const struct vmsg_blk_info *info = &blk->info;
	uint8_t *config = blk->config;

	memset(config, 0, sizeof(blk->config));
	vmsg_put64(config + VMSG_BLK_CONFIG_CAPACITY, info->capacity_sectors);
	vmsg_put32(config + VMSG_BLK_CONFIG_SEG_MAX, seg_max);
	vmsg_put32(config + VMSG_BLK_CONFIG_BLK_SIZE, info->block_bytes);
	config[VMSG_BLK_CONFIG_PHYSICAL_EXP] = info->physical_exp;
	config[VMSG_BLK_CONFIG_ALIGNMENT] = info->alignment_blocks;
	vmsg_put16(config + VMSG_BLK_CONFIG_MIN_IO, info->min_io_blocks);
	vmsg_put32(config + VMSG_BLK_CONFIG_OPT_IO, info->opt_io_blocks);
	config[VMSG_BLK_CONFIG_WRITEBACK] = 1;
	vmsg_put16(config + VMSG_BLK_CONFIG_NUM_QUEUES, (uint16_t)blk->device.vq_count);
	if (vmsg_has(blk->device.offered, VMSG_BLK_F_DISCARD)) {
		vmsg_put32(config + VMSG_BLK_CONFIG_DISCARD_SECTORS, info->max_discard_sectors);
		vmsg_put32(config + VMSG_BLK_CONFIG_DISCARD_SEG, 1);
		vmsg_put32(config + VMSG_BLK_CONFIG_DISCARD_ALIGN, info->discard_align_sectors);
	}
	if (vmsg_has(blk->device.offered, VMSG_BLK_F_WRITE_ZEROES)) {
		vmsg_put32(config + VMSG_BLK_CONFIG_ZEROES_SECTORS, info->max_zeroes_sectors);
		vmsg_put32(config + VMSG_BLK_CONFIG_ZEROES_SEG, 1);
		config[VMSG_BLK_CONFIG_ZEROES_MAY_UNMAP] = info->zeroes_may_unmap;
	}
}

uint64_t vmsg_blk_features(const struct vmsg_blk *blk)
{
	const struct vmsg_blk_info *info = &blk->info;
	uint64_t features = VMSG_BIT(VMSG_BLK_F_SEG_MAX) | VMSG_BIT(VMSG_BLK_F_BLK_SIZE) |
			    VMSG_BIT(VMSG_BLK_F_FLUSH) | VMSG_BIT(VMSG_BLK_F_TOPOLOGY) |
			    VMSG_BIT(VMSG_BLK_F_CONFIG_WCE);

	if (blk->device.vq_count > 1)
		features |= VMSG_BIT(VMSG_BLK_F_MQ);
	if (info->read_only)
		return features | VMSG_BIT(VMSG_BLK_F_RO);
	if (info->max_discard_sectors)
		features |= VMSG_BIT(VMSG_BLK_F_DISCARD);
	if (info->max_zeroes_sectors)
		features |= VMSG_BIT(VMSG_BLK_F_WRITE_ZEROES);
	return features;
}

bool vmsg_blk_writeback(const struct vmsg_blk *blk)
{
	uint64_t features = blk->device.features;

	if (!vmsg_has(features, VMSG_BLK_F_FLUSH))
		return false;
	return !vmsg_has(features, VMSG_BLK_F_CONFIG_WCE) ||
	       blk->config[VMSG_BLK_CONFIG_WRITEBACK] == 1;
}

int vmsg_blk_start(struct vmsg_device *device)
{
	struct vmsg_blk *blk = (struct vmsg_blk *)device;

	blk->in_order = vmsg_has(device->features, VMSG_F_IN_ORDER);
	/* A driver that cannot flush has no use for a cache. */
	if (!vmsg_has(device->features, VMSG_BLK_F_FLUSH))
		blk->config[VMSG_BLK_CONFIG_WRITEBACK] = 0;
	return 0;
}

int vmsg_blk_configure(struct vmsg_device *device, uint32_t offset, const void *data, uint32_t len)
{
	uint8_t value = *(const uint8_t *)data;

	if (offset != VMSG_BLK_CONFIG_WRITEBACK || len != 1 || value > 1 ||
	    !vmsg_has(device->features, VMSG_BLK_F_CONFIG_WCE))
		return VMSG_ERR_INVAL;
	if (value && !vmsg_has(device->features, VMSG_BLK_F_FLUSH))
		return VMSG_ERR_INVAL;
	device->config[offset] = value;
	return 0;
}

void vmsg_blk_set_capacity(struct vmsg_blk *blk, uint64_t capacity_sectors)
{
	if (blk->info.capacity_sectors == capacity_sectors)
		return;
	blk->info.capacity_sectors = capacity_sectors;
	vmsg_put64(blk->config + VMSG_BLK_CONFIG_CAPACITY, capacity_sectors);
	vmsg_device_config_changed(&blk->device, VMSG_BLK_CONFIG_CAPACITY, 8);
}
