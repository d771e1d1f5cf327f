/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the programs share: error lines, exit codes, key=value lists, numbers and sizes, traces.
 * Functions with `err` write one line for people there when they fail, as in vmsg/linux.h.
 */
#ifndef CMD_COMMON_H
#define CMD_COMMON_H

#include <stdarg.h>
#include <vmsg/linux.h>

/* Exit codes beside 0. */
#define COMMON_EXIT_FAILED 1 /* it was asked for the right thing, and could not do it */
#define COMMON_EXIT_USAGE  2 /* what was asked for makes no sense */

/* ---- Messages on standard error ---- */

/* The name lines begin with: that of the file in a path such as argv[0]. Kept, not copied. */
void common_set_program(const char *path);
const char *common_program(void);

/*
 * A program started without one of the three standard descriptors would take a socket or a disk for
 * it: gives it one that cannot be used that way, so that using it is an error. To be called first.
 */
void common_fill_descriptors(void);

/* Replaces what is not a printable ASCII character: a peer's text may hold anything. */
void common_make_printable(char *text);

/* "program: message", always one line whatever the arguments hold, in one write. */
void common_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void common_verror(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* Writes an error line to err and returns code. */
int common_fail(char *err, size_t err_size, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- Lists: "word,key=value,key" ---- */

struct common_item {
	char *key;
	char *value; /* NULL: no "=" */
};

/*
 * Takes the next item off a list, writing zeros into it; false at the end. Two commas in a row
 * stand for one that belongs to the value. Begin with *rest at the list.
 */
bool common_list_next(char **rest, struct common_item *item);

/* The index of word in words (a list that ends with NULL), or -1. */
int common_find(const char *word, const char *const *words);

/* "a, b, c" of a list that ends with NULL; what does not fit is left out. Returns text. */
char *common_join(const char *const *words, char *text, size_t size);

/* ---- Values; the whole text has to be one, and `what` names it in an error ---- */

/* A number from min to max, decimal or 0x... */
int common_parse_number(const char *text, uint64_t min, uint64_t max, const char *what,
			uint64_t *number, char *err, size_t err_size);

/* Bytes: a number with or without one of K, M, G, T (powers of 1024). */
int common_parse_size(const char *text, const char *what, uint64_t *bytes, char *err,
		      size_t err_size);

/* on, yes, true, 1 (also NULL: the key alone) and off, no, false, 0. */
int common_parse_bool(const char *text, const char *what, bool *value, char *err, size_t err_size);

/* How long to poll: microseconds, "always" or "never". */
int common_parse_spin(const char *text, const char *what, uint32_t *spin_us, char *err,
		      size_t err_size);

/* "1.5 GiB", "512 B": for people. Returns text; 16 bytes are enough. */
char *common_size_text(uint64_t bytes, char *text, size_t size);

/* Can a file be made at path? Says what is wrong with the folder. */
int common_check_folder(const char *path, char *err, size_t err_size);

/* ---- Traces ---- */

/*
 * One line on standard error about a message: the time of day, the direction ("->" sent, "<-"
 * received), the name of the bus unless it is NULL, and vmsg_msg_text().
 */
void common_trace(const char *bus_name, enum vmsg_dialect dialect, bool sent, const void *buf,
		  uint32_t len);

#endif
