/* SPDX-License-Identifier: BSD-3-Clause */
/* What a driver with split virtqueues weighs, from the codec up. */
#include "driver_role.h"

int main(void)
{
	return run_driver(&vmsg_vq_split_driver, NULL);
}
