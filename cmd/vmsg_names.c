/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of device types and feature bits (virtio 1.4, sections 5 and 6). */
#include <stdio.h>
#include <string.h>

#include <vmsg/blk.h>
#include <vmsg/console.h>
#include <vmsg/rng.h>

#include "vmsg.h"

const char *device_type_name(uint32_t device_id)
{
	static const char *const names[] = {
		[1] = "net",	 [2] = "blk",	 [3] = "console", [4] = "rng",	  [5] = "balloon",
		[8] = "scsi",	 [9] = "9p",	 [16] = "gpu",	  [18] = "input", [19] = "vsock",
		[20] = "crypto", [23] = "iommu", [24] = "mem",	  [25] = "sound", [26] = "fs",
		[27] = "pmem",	 [28] = "rpmb",	 [32] = "scmi",	  [34] = "i2c",	  [36] = "can",
		[41] = "gpio",	 [42] = "rdma",	 [43] = "camera", [45] = "spi",
	};

	return device_id < sizeof(names) / sizeof(names[0]) ? names[device_id] : NULL;
}

struct name {
	uint32_t device_id; /* 0: any */
	uint32_t bit;
	const char *text;
};

static const struct name feature_names[] = {
	{ 0, VMSG_F_INDIRECT_DESC, "INDIRECT_DESC" },
	{ 0, VMSG_F_EVENT_IDX, "EVENT_IDX" },
	{ 0, VMSG_F_VERSION_1, "VERSION_1" },
	{ 0, VMSG_F_ACCESS_PLATFORM, "ACCESS_PLATFORM" },
	{ 0, VMSG_F_RING_PACKED, "RING_PACKED" },
	{ 0, VMSG_F_IN_ORDER, "IN_ORDER" },
	{ 0, VMSG_F_ORDER_PLATFORM, "ORDER_PLATFORM" },
	{ 0, 37, "SR_IOV" },
	{ 0, VMSG_F_NOTIFICATION_DATA, "NOTIFICATION_DATA" },
	{ 0, VMSG_F_NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA" },
	{ 0, VMSG_F_RING_RESET, "RING_RESET" },
	{ 0, 41, "ADMIN_VQ" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_SIZE_MAX, "SIZE_MAX" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_SEG_MAX, "SEG_MAX" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_GEOMETRY, "GEOMETRY" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_RO, "RO" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_BLK_SIZE, "BLK_SIZE" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_FLUSH, "FLUSH" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_TOPOLOGY, "TOPOLOGY" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_CONFIG_WCE, "CONFIG_WCE" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_MQ, "MQ" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_DISCARD, "DISCARD" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_WRITE_ZEROES, "WRITE_ZEROES" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_LIFETIME, "LIFETIME" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_SECURE_ERASE, "SECURE_ERASE" },
	{ VMSG_BLK_DEVICE_ID, VMSG_BLK_F_ZONED, "ZONED" },
	{ VMSG_CONSOLE_DEVICE_ID, VMSG_CONSOLE_F_SIZE, "SIZE" },
	{ VMSG_CONSOLE_DEVICE_ID, VMSG_CONSOLE_F_MULTIPORT, "MULTIPORT" },
	{ VMSG_CONSOLE_DEVICE_ID, VMSG_CONSOLE_F_EMERG_WRITE, "EMERG_WRITE" },
	{ 1, 0, "CSUM" },
	{ 1, 1, "GUEST_CSUM" },
	{ 1, 3, "MTU" },
	{ 1, 5, "MAC" },
	{ 1, 15, "MRG_RXBUF" },
	{ 1, 16, "STATUS" },
	{ 1, 17, "CTRL_VQ" },
	{ 1, 22, "MQ" },
};

const char *feature_name(uint32_t device_id, uint32_t bit)
{
	for (size_t i = 0; i < sizeof(feature_names) / sizeof(feature_names[0]); i++) {
		const struct name *name = &feature_names[i];

		if (name->bit == bit && (!name->device_id || name->device_id == device_id))
			return name->text;
	}
	return NULL;
}

void vendor_text(uint32_t vendor_id, char text[32])
{
	char letters[5] = { 0 };
	bool readable = true;

	for (int i = 0; i < 4; i++) {
		letters[i] = (char)(vendor_id >> 8 * i);
		readable = readable && letters[i] >= ' ' && letters[i] <= '~';
	}
	if (readable)
		snprintf(text, 32, "0x%08x \"%s\"", vendor_id, letters);
	else
		snprintf(text, 32, "0x%08x", vendor_id);
}

void uuid_text(const uint8_t uuid[16], char text[40])
{
	char *at = text;

	for (int i = 0; i < 16; i++)
		at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
			      uuid[i]);
}

bool uuid_is_nil(const uint8_t uuid[16])
{
	static const uint8_t nil[16];

	return memcmp(uuid, nil, sizeof(nil)) == 0;
}
