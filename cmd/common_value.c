/* SPDX-License-Identifier: BSD-3-Clause */
/* Values in options: numbers, sizes, switches, polling times. */
#include "common.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number text begins with, or false. strtoull alone takes signs and blanks. */
static bool take_number(const char *text, uint64_t *number, char **end)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*number = strtoull(text, end, hex ? 16 : 10);
	/* In a bare "0x" the number ends before the x. */
	return errno == 0;
}

int common_parse_number(const char *text, uint64_t min, uint64_t max, const char *what,
			uint64_t *number, char *err, size_t err_size)
{
	char *end;

	if (!text || !text[0])
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s needs a number from %" PRIu64 " to %" PRIu64, what, min,
				   max);
	if (!take_number(text, number, &end) || *end || *number < min || *number > max)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s is a number from %" PRIu64 " to %" PRIu64 ", not '%s'", what,
				   min, max, text);
	return 0;
}

int common_parse_size(const char *text, const char *what, uint64_t *bytes, char *err,
		      size_t err_size)
{
	static const char units[] = "KMGT";
	char *end;

	if (!text || !text[0])
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s needs a size such as 512K, 64M or 10G", what);
	if (take_number(text, bytes, &end)) {
		const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
		int shift = unit ? 10 * (int)(unit - units + 1) : 0;

		if (!end[unit != NULL] && *bytes <= UINT64_MAX >> shift) {
			*bytes <<= shift;
			return 0;
		}
	}
	return common_fail(err, err_size, VMSG_ERR_INVAL,
			   "%s is a size in bytes or with K, M, G or T behind it, not '%s'", what,
			   text);
}

int common_parse_bool(const char *text, const char *what, bool *value, char *err, size_t err_size)
{
	static const char *const words[] = { "on", "yes",   "true", "1", "off",
					     "no", "false", "0",    NULL };
	int index = text ? common_find(text, words) : 0;

	if (index < 0)
		return common_fail(err, err_size, VMSG_ERR_INVAL, "%s is on or off, not '%s'", what,
				   text);
	*value = index < 4;
	return 0;
}

int common_parse_spin(const char *text, const char *what, uint32_t *spin_us, char *err,
		      size_t err_size)
{
	uint64_t number;

	if (text && !strcmp(text, "always")) {
		*spin_us = VMSG_SPIN_ALWAYS;
		return 0;
	}
	if (text && !strcmp(text, "never")) {
		*spin_us = VMSG_SPIN_NEVER;
		return 0;
	}
	if (common_parse_number(text, 0, 1000000, what, &number, NULL, 0) < 0)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s is always, never, or microseconds up to 1000000%s%s%s", what,
				   text ? ", not '" : "", text ? text : "", text ? "'" : "");
	*spin_us = (uint32_t)number;
	return 0;
}

char *common_size_text(uint64_t bytes, char *text, size_t size)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t whole = bytes, tenth = 0;
	unsigned int unit = 0;

	while (whole >= 1024) {
		tenth = (whole & 1023) * 10 / 1024;
		whole >>= 10;
		unit++;
	}
	if (tenth)
		snprintf(text, size, "%" PRIu64 ".%" PRIu64 " %s", whole, tenth, units[unit]);
	else
		snprintf(text, size, "%" PRIu64 " %s", whole, units[unit]);
	return text;
}

int common_check_folder(const char *path, char *err, size_t err_size)
{
	const char *slash = strrchr(path, '/');
	char folder[VMSG_PATH_BYTES] = ".";
	int len = slash ? (int)(slash - path) : 0;

	if (slash)
		snprintf(folder, sizeof(folder), "%.*s", len ? len : 1, path);
	if (access(folder, W_OK | X_OK) == 0)
		return 0;
	return common_fail(err, err_size, -errno, "the folder %s: %s", folder, strerror(errno));
}
