/* SPDX-License-Identifier: BSD-3-Clause */
/* What a device with split virtqueues weighs, from the codec up. */
#include "device_role.h"

int main(void)
{
	return run_device(&vmsg_vq_split_device, NULL);
}
