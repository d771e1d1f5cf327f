/* SPDX-License-Identifier: BSD-3-Clause */
/* --trace: every message on one line. */
#include "common.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

void common_trace(const char *bus_name, enum vmsg_dialect dialect, bool sent, const void *buf,
		  uint32_t len)
{
	char line[LINE_BYTES];
	struct timespec now;
	struct tm tm;
	size_t used;
	int start;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	start = snprintf(line, sizeof(line) / 2, "%02d:%02d:%02d.%06ld %s %s%s", tm.tm_hour,
			 tm.tm_min, tm.tm_sec, now.tv_nsec / 1000, sent ? "->" : "<-",
			 bus_name ? bus_name : "", bus_name ? " " : "");
	used = start < 0 ? 0 : (size_t)start;
	if (used >= sizeof(line) / 2)
		used = sizeof(line) / 2 - 1;
	used += vmsg_msg_text(dialect, buf, len, line + used, (uint32_t)(sizeof(line) - 1 - used));
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}
