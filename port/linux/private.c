/* SPDX-License-Identifier: BSD-3-Clause */
/* Error lines, and what is asked of the system in more than one place. */
#include "private.h"
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define SPIN_FAILS 8 /* after these in a row, one try in 2^8 */

int vmsg_fail(char *err, size_t err_size, int rc, const char *format, ...)
{
	va_list args;

	if (err && err_size) {
		va_start(args, format);
		vsnprintf(err, err_size, format, args);
		va_end(args);
	}
	return rc;
}

bool vmsg_one_cpu(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1;
}

void vmsg_spin_paid(struct vmsg_spin *spin, bool paid)
{
	spin->fails = paid ? 0 : spin->fails + (spin->fails < SPIN_FAILS);
	spin->skip = paid ? 0 : 1u << spin->fails;
}

bool vmsg_spin_try(struct vmsg_spin *spin)
{
	if (!spin->skip)
		return true;
	spin->skip--;
	return false;
}

void vmsg_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vmsg_ring_eventfd(int fd)
{
	static const uint64_t one = 1;

	/* Refused when the counter is at its limit: then it is set anyway. */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}
