/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration file. libinih takes lines apart into key and value; the sections are noticed
 * here, line by line, because it would pass over empty ones and cut long names. The keys of a
 * section are collected until its end: only then the type of a device is sure to be known.
 */
#include "vmsgd.h"
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX 32u

enum section_kind {
	SECTION_NONE,
	SECTION_DAEMON,
	SECTION_BUS,
	SECTION_DEVICE,
};

struct entry {
	char *key, *value;
	int line;
};

struct file {
	struct daemon *daemon;
	FILE *stream;
	const char *path;
	int line;
	/* The section being read. */
	enum section_kind kind;
	char name[64];
	int section_line;
	struct entry entries[KEYS_MAX];
	uint32_t count;
	bool daemon_seen;
	/* The first error. */
	int error_line;
	char error[VMSG_ERR_TEXT];
};

static bool fail(struct file *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool fail(struct file *file, int line, const char *format, ...)
{
	va_list args;

	if (file->error_line)
		return false;
	file->error_line = line;
	va_start(args, format);
	vsnprintf(file->error, sizeof(file->error), format, args);
	va_end(args);
	return false;
}

/* ---- The end of a section ---- */

static struct entry *find_entry(struct file *file, const char *key)
{
	for (uint32_t i = 0; i < file->count; i++) {
		if (!strcmp(file->entries[i].key, key))
			return &file->entries[i];
	}
	return NULL;
}

static void clear_entries(struct file *file)
{
	for (uint32_t i = 0; i < file->count; i++) {
		free(file->entries[i].key);
		free(file->entries[i].value);
	}
	file->count = 0;
}

/* What the command line says outranks the file. */
static bool set_text(char **text, const char *value)
{
	if (!*text)
		*text = strdup(value);
	return *text != NULL;
}

static bool finish_daemon(struct file *file)
{
	struct settings *settings = &file->daemon->settings;
	char err[VMSG_ERR_TEXT];

	for (uint32_t i = 0; i < file->count; i++) {
		const struct entry *entry = &file->entries[i];
		bool good = true;
		uint32_t spin_us;

		if (!strcmp(entry->key, "control")) {
			good = set_text(&settings->control, entry->value);
		} else if (!strcmp(entry->key, "pidfile")) {
			good = set_text(&settings->pidfile, entry->value);
		} else if (!strcmp(entry->key, "poll") || !strcmp(entry->key, "spin")) {
			if (common_parse_spin(entry->value, entry->key, &spin_us, err,
					      sizeof(err)) < 0)
				return fail(file, entry->line, "%s", err);
			if (!settings->spin_given)
				settings->spin_us = spin_us;
		} else {
			return fail(file, entry->line,
				    "[daemon] has no key '%.50s'; it has control, pidfile, poll",
				    entry->key);
		}
		if (!good)
			return fail(file, entry->line, "out of memory");
	}
	return true;
}

static bool finish_bus(struct file *file)
{
	const struct entry *address = find_entry(file, "address");
	char err[VMSG_ERR_TEXT], origin[VMSG_ERR_TEXT];

	for (uint32_t i = 0; i < file->count; i++) {
		if (&file->entries[i] != address)
			return fail(file, file->entries[i].line,
				    "[bus] has no key '%.50s'; it has address, whose value may go "
				    "on with ,key=value",
				    file->entries[i].key);
	}
	if (!address)
		return fail(file, file->section_line,
			    "[bus %s] needs an address, as in address = amp:/run/vmsg.sock",
			    file->name);
	snprintf(origin, sizeof(origin), "%s:%d", file->path, file->section_line);
	if (!bus_new(file->daemon, origin, file->name, address->value, err, sizeof(err)))
		return fail(file, address->line, "%s", err);
	return true;
}

static bool finish_device(struct file *file)
{
	const struct entry *type_entry = find_entry(file, "type");
	char err[VMSG_ERR_TEXT], origin[VMSG_ERR_TEXT];
	const struct device_type *type;
	struct device *device;

	if (!type_entry)
		return fail(file, file->section_line, "[device %s] needs a type, as in type = blk",
			    file->name);
	type = device_type_find(type_entry->value, err, sizeof(err));
	if (!type)
		return fail(file, type_entry->line, "%s", err);
	snprintf(origin, sizeof(origin), "%s:%d", file->path, file->section_line);
	device = device_new(file->daemon, type, origin);
	if (device)
		device->name = strdup(file->name);
	if (!device || !device->name)
		return fail(file, file->section_line, "out of memory");
	for (uint32_t i = 0; i < file->count; i++) {
		const struct entry *entry = &file->entries[i];

		if (entry != type_entry &&
		    device_set(device, entry->key, entry->value, err, sizeof(err)) < 0)
			return fail(file, entry->line, "%s", err);
	}
	return true;
}

static void finish_section(struct file *file)
{
	if (file->error_line) {
		clear_entries(file);
		return;
	}
	if (file->kind == SECTION_DAEMON)
		finish_daemon(file);
	else if (file->kind == SECTION_BUS)
		finish_bus(file);
	else if (file->kind == SECTION_DEVICE)
		finish_device(file);
	clear_entries(file);
	file->kind = SECTION_NONE;
}

/* ---- Lines ---- */

static bool name_taken(const struct file *file)
{
	const struct device *device = file->daemon->devices;

	for (; device; device = device->next) {
		if (device->name && !strcmp(device->name, file->name))
			return true;
	}
	return false;
}

/* "[device NAME]": text is what stands between the brackets, and may be changed. */
static bool start_section(struct file *file, char *text)
{
	char *word = strtok(text, " \t"), *name = strtok(NULL, " \t"), *more = strtok(NULL, " \t");

	file->section_line = file->line;
	if (word && !strcmp(word, "daemon") && !name) {
		if (file->daemon_seen)
			return fail(file, file->line, "[daemon] is there twice");
		file->daemon_seen = true;
		file->kind = SECTION_DAEMON;
		return true;
	}
	if (!word || (strcmp(word, "bus") && strcmp(word, "device")))
		return fail(file, file->line,
			    "there is no section [%.50s]; there are [daemon], [bus NAME] and "
			    "[device NAME]",
			    word ? word : "");
	if (!name || more || strlen(name) >= sizeof(file->name))
		return fail(file, file->line,
			    "a %s section has one name of up to %zu bytes, as in "
			    "[%s one]",
			    word, sizeof(file->name) - 1, word);
	strcpy(file->name, name);
	file->kind = word[0] == 'b' ? SECTION_BUS : SECTION_DEVICE;
	if (file->kind == SECTION_DEVICE && name_taken(file))
		return fail(file, file->line, "[device %s] is there twice", name);
	return true;
}

/* Looks for a section in a line without leading blanks; comments may follow it. */
static void look_for_section(struct file *file, const char *line)
{
	char text[512];
	const char *end, *rest;

	if (line[0] != '[')
		return;
	finish_section(file);
	end = strchr(line, ']');
	if (!end) {
		fail(file, file->line, "no ']' at the end of the section's name");
		return;
	}
	for (rest = end + 1; isspace((unsigned char)*rest); rest++)
		;
	if (*rest && *rest != ';' && *rest != '#') {
		fail(file, file->line, "there is something behind the ']'");
		return;
	}
	snprintf(text, sizeof(text), "%.*s", (int)(end - line - 1), line + 1);
	start_section(file, text);
}

/* Gives libinih a line, without the blanks it would take for a continuation. */
static char *read_line(char *buf, int size, void *user)
{
	struct file *file = user;
	char line[4096];
	const char *text = line;

	if (!fgets(line, sizeof(line), file->stream))
		return NULL;
	file->line++;
	while (isspace((unsigned char)*text))
		text++;
	if (strlen(text) >= (size_t)size - 1) {
		fail(file, file->line, "a line has at most %d bytes", size - 2);
		return NULL;
	}
	look_for_section(file, text);
	strcpy(buf, text);
	return buf;
}

static int on_entry(void *user, const char *section, const char *key, const char *value)
{
	struct file *file = user;
	struct entry *entry = &file->entries[file->count];

	(void)section;
	if (file->error_line)
		return 0;
	if (file->kind == SECTION_NONE)
		return fail(file, file->line, "'%.50s' stands before the first section", key);
	if (find_entry(file, key))
		return fail(file, file->line, "%.50s is there twice in this section", key);
	if (file->count == KEYS_MAX)
		return fail(file, file->line, "too many keys in one section");
	entry->key = strdup(key);
	entry->value = strdup(value);
	entry->line = file->line;
	file->count++;
	return entry->key && entry->value ? 1 : fail(file, file->line, "out of memory");
}

int config_load(struct daemon *daemon, const char *path, char *err, size_t err_size)
{
	struct file file = { .daemon = daemon, .path = path };
	int bad_line;

	file.stream = fopen(path, "re");
	if (!file.stream)
		return common_fail(err, err_size, -errno, "%s: %s", path, strerror(errno));
	bad_line = ini_parse_stream(read_line, &file, on_entry, &file);
	if (ferror(file.stream))
		fail(&file, file.line + 1, "cannot read it: %s", strerror(errno));
	/* Every error of ours is one for libinih, too; it knows some more. */
	if (bad_line > 0 && (!file.error_line || bad_line < file.error_line)) {
		file.error_line = 0;
		fail(&file, bad_line, "this is neither [section] nor key = value");
	}
	finish_section(&file);
	fclose(file.stream);
	if (!file.error_line)
		return 0;
	return common_fail(err, err_size, VMSG_ERR_INVAL, "%s:%d: %s", path, file.error_line,
			   file.error);
}
