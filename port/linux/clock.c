/* SPDX-License-Identifier: BSD-3-Clause */
/* The monotonic clock. */
#include <time.h>
#include <vmsg/linux.h>

uint64_t vmsg_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint32_t vmsg_clock_ms(void)
{
	return (uint32_t)(vmsg_clock_us() / 1000u);
}
