/* SPDX-License-Identifier: BSD-3-Clause */
/* Between device/blk.c and device/blk_config.c. */
#ifndef DEVICE_BLK_PRIVATE_H
#define DEVICE_BLK_PRIVATE_H

#include <vmsg/blk.h>

/* What follows from blk->info and the number of queues. */
uint64_t vmsg_blk_features(const struct vmsg_blk *blk);

/* All of config space; device.offered is final. */
void vmsg_blk_fill_config(struct vmsg_blk *blk, uint32_t seg_max);

/* Members of struct vmsg_device_ops. */
int vmsg_blk_start(struct vmsg_device *device);
int vmsg_blk_configure(struct vmsg_device *device, uint32_t offset, const void *data,
		       uint32_t len);

#endif
