/* SPDX-License-Identifier: BSD-3-Clause */
/* What both roles with both virtqueue formats weigh together. */
#include "device_role.h"
#include "driver_role.h"

int main(void)
{
	int error = run_driver(&vmsg_vq_split_driver, &vmsg_vq_packed_driver);

	if (error)
		return error;
	return run_device(&vmsg_vq_split_device, &vmsg_vq_packed_device);
}
