/* SPDX-License-Identifier: BSD-3-Clause */
/* What the programs share: error lines and lists. */
#include "common.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 1024

static const char *program = "vmsg";

void common_set_program(const char *path)
{
	const char *slash = strrchr(path, '/');

	program = slash ? slash + 1 : path;
}

const char *common_program(void)
{
	return program;
}

void common_fill_descriptors(void)
{
	int fd;

	do {
		/* The lowest free number is what open() takes. */
		bool is_input = fcntl(STDIN_FILENO, F_GETFD) < 0;

		fd = open("/dev/null", is_input ? O_WRONLY : O_RDONLY);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

void common_make_printable(char *text)
{
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

/* A file name may hold anything; a line for people holds no control characters. */
static void make_one_line(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
	}
}

void common_verror(const char *format, va_list args)
{
	char line[LINE_BYTES];
	int start = snprintf(line, sizeof(line) / 2, "%s: ", program);
	size_t len;

	if (start < 0 || (size_t)start >= sizeof(line) / 2)
		start = 0;
	vsnprintf(line + start, sizeof(line) - 1 - (size_t)start, format, args);
	make_one_line(line);
	len = strlen(line);
	line[len] = '\n';
	/* Nothing can be done about a standard error that is closed or full. */
	if (write(STDERR_FILENO, line, len + 1) < 0)
		return;
}

void common_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	common_verror(format, args);
	va_end(args);
}

int common_fail(char *err, size_t err_size, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (err_size)
		vsnprintf(err, err_size, format, args);
	va_end(args);
	return code;
}

bool common_list_next(char **rest, struct common_item *item)
{
	char *from = *rest, *to = *rest;

	if (!from || !*from)
		return false;
	item->key = from;
	item->value = NULL;
	for (; *from; from++) {
		if (*from == ',' && *++from != ',')
			break;
		if (*from == '=' && !item->value) {
			*to++ = 0;
			item->value = to;
			continue;
		}
		*to++ = *from;
	}
	*rest = from;
	/* At or before the comma that ended the item, so the rest is not touched. */
	*to = 0;
	return true;
}

int common_find(const char *word, const char *const *words)
{
	for (int i = 0; words[i]; i++) {
		if (!strcmp(word, words[i]))
			return i;
	}
	return -1;
}

char *common_join(const char *const *words, char *text, size_t size)
{
	size_t len = 0;

	text[0] = 0;
	for (int i = 0; words[i]; i++) {
		int added = snprintf(text + len, size - len, "%s%s", i ? ", " : "", words[i]);

		if (added < 0 || (size_t)added >= size - len) {
			text[len] = 0;
			break;
		}
		len += (size_t)added;
	}
	return text;
}
