/* SPDX-License-Identifier: BSD-3-Clause */
/* Random numbers from the kernel. */
#include <errno.h>
#include <sys/random.h>

#include <vmsg/backend.h>

int vmsg_random_fill(void *source, uint8_t *ptr, uint32_t len)
{
	ssize_t got;

	(void)source;
	do {
		/* Early after boot the kernel has none, and must not make the loop wait for it. */
		got = getrandom(ptr, len, GRND_NONBLOCK);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN ? VMSG_ERR_AGAIN : VMSG_ERR_IO;
	return (int)got;
}
