/* SPDX-License-Identifier: BSD-3-Clause */
/* A device as text: "type,key=value,key", or the section of a file. One table holds all keys. */
#include "vmsgd.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

const struct device_type *const device_types[] = { &disk_type, &entropy_type, &console_type, NULL };

static const char *const engines[] = { "auto", "uring", "threads", "sync", NULL };

/* What keys set: offsets into struct device_options, by kind of value. */
enum key_kind {
	KEY_TEXT,
	KEY_BOOL,
	KEY_NUMBER, /* uint32_t */
	KEY_NUM,    /* int32_t, as -1 says "not given" */
	KEY_ENGINE,
};

struct key {
	const char *name;
	const struct device_type *type; /* NULL: all of them */
	enum key_kind kind;
	size_t offset;
	uint32_t min, max; /* of a number; of a text: longest */
};

#define AT(member) offsetof(struct device_options, member)

static const struct key keys[] = {
	{ "path", &disk_type, KEY_TEXT, AT(path), 0, PATH_MAX - 1 },
	{ "ro", &disk_type, KEY_BOOL, AT(read_only), 0, 0 },
	{ "queues", &disk_type, KEY_NUMBER, AT(queues), 1, MAX_QUEUES },
	{ "queue_size", &disk_type, KEY_NUMBER, AT(queue_size), 4, MAX_QUEUE_SIZE },
	{ "serial", &disk_type, KEY_TEXT, AT(serial), 0, VMSG_BLK_ID_BYTES },
	{ "engine", &disk_type, KEY_ENGINE, AT(engine), 0, 0 },
	{ "direct", &disk_type, KEY_BOOL, AT(direct), 0, 0 },
	{ "share", &disk_type, KEY_BOOL, AT(share), 0, 0 },
	{ "pty", &console_type, KEY_BOOL, AT(pty), 0, 0 },
	{ "stdio", &console_type, KEY_BOOL, AT(stdio), 0, 0 },
	{ "raw", &console_type, KEY_BOOL, AT(raw), 0, 0 },
	{ "link", &console_type, KEY_TEXT, AT(link), 0, PATH_MAX - 1 },
	{ "num", NULL, KEY_NUM, AT(num), 0, UINT16_MAX },
	{ "peer", NULL, KEY_NUMBER, AT(peer), 1, VMSG_IVSHMEM_MAX_PEERS },
	{ "bus", NULL, KEY_TEXT, AT(bus), 0, PATH_MAX - 1 },
};

#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

static bool key_fits(const struct key *key, const struct device_type *type)
{
	return !key->type || key->type == type;
}

const char *device_key(const struct device_type *type, unsigned int n)
{
	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (key_fits(&keys[i], type) && n-- == 0)
			return keys[i].name;
	}
	return NULL;
}

static const struct key *key_find(const struct device_type *type, const char *name, char *err,
				  size_t err_size)
{
	const char *names[KEY_COUNT + 1];
	char list[VMSG_ERR_TEXT];
	unsigned int n = 0;

	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (key_fits(&keys[i], type) && !strcmp(keys[i].name, name))
			return &keys[i];
	}
	while ((names[n] = device_key(type, n)) != NULL)
		n++;
	common_fail(err, err_size, 0, "%s has no key '%.64s'; it has %s", type->name, name,
		    common_join(names, list, sizeof(list)));
	return NULL;
}

static int set_text(char **text, const struct key *key, const char *value, char *err,
		    size_t err_size)
{
	if (!value || !value[0])
		return common_fail(err, err_size, VMSG_ERR_INVAL, "%s= needs a value", key->name);
	if (strlen(value) > key->max)
		return common_fail(err, err_size, VMSG_ERR_INVAL,
				   "%s= may have %u bytes, this has %zu", key->name, key->max,
				   strlen(value));
	free(*text);
	*text = strdup(value);
	return *text ? 0 : common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
}

static int set_engine(const char **engine, const char *value, char *err, size_t err_size)
{
	char list[VMSG_ERR_TEXT];
	int index = value ? common_find(value, engines) : -1;

	if (index < 0)
		return common_fail(err, err_size, VMSG_ERR_INVAL, "engine= is one of %s, not '%s'",
				   common_join(engines, list, sizeof(list)), value ? value : "");
	*engine = engines[index];
	return 0;
}

static int set_number(const struct key *key, void *at, const char *value, char *err,
		      size_t err_size)
{
	uint64_t number;
	int rc = common_parse_number(value, key->min, key->max, key->name, &number, err, err_size);

	if (rc < 0)
		return rc;
	if (key->kind == KEY_NUM)
		*(int32_t *)at = (int32_t)number;
	else
		*(uint32_t *)at = (uint32_t)number;
	return 0;
}

int device_set(struct device *device, const char *name, const char *value, char *err,
	       size_t err_size)
{
	const struct key *key = key_find(device->type, name, err, err_size);
	void *at;

	if (!key)
		return VMSG_ERR_INVAL;
	if (device->keys_given & 1u << (key - keys))
		return common_fail(err, err_size, VMSG_ERR_INVAL, "%s is given twice", name);
	device->keys_given |= 1u << (key - keys);
	at = (char *)&device->options + key->offset;
	switch (key->kind) {
	case KEY_TEXT:
		return set_text(at, key, value, err, err_size);
	case KEY_BOOL:
		return common_parse_bool(value, name, at, err, err_size);
	case KEY_ENGINE:
		return set_engine(at, value, err, err_size);
	default:
		return set_number(key, at, value, err, err_size);
	}
}

const struct device_type *device_type_find(const char *name, char *err, size_t err_size)
{
	const char *names[sizeof(device_types) / sizeof(device_types[0])];
	char list[VMSG_ERR_TEXT];
	int i;

	for (i = 0; device_types[i]; i++) {
		if (!strcmp(device_types[i]->name, name))
			return device_types[i];
		names[i] = device_types[i]->name;
	}
	names[i] = NULL;
	common_fail(err, err_size, 0, "there is no device type '%.64s'; there are %s", name,
		    common_join(names, list, sizeof(list)));
	return NULL;
}

/* The list in text is taken apart in place. */
static struct device *parse(struct daemon *daemon, const char *origin, char *text, char *err,
			    size_t err_size)
{
	const struct device_type *type;
	struct common_item item;
	struct device *device;

	if (!common_list_next(&text, &item) || item.value) {
		common_fail(err, err_size, 0,
			    "a device begins with its type, as in blk,path=disk.img");
		return NULL;
	}
	type = device_type_find(item.key, err, err_size);
	if (!type)
		return NULL;
	device = device_new(daemon, type, origin);
	if (!device) {
		common_fail(err, err_size, 0, "out of memory");
		return NULL;
	}
	while (common_list_next(&text, &item)) {
		if (device_set(device, item.key, item.value, err, err_size) < 0) {
			device_free(device);
			return NULL;
		}
	}
	return device;
}

struct device *device_parse(struct daemon *daemon, const char *origin, const char *text, char *err,
			    size_t err_size)
{
	char *copy = strdup(text);
	struct device *device;

	if (!copy) {
		common_fail(err, err_size, 0, "out of memory");
		return NULL;
	}
	device = parse(daemon, origin, copy, err, err_size);
	free(copy);
	return device;
}

void device_options_free(struct device_options *options)
{
	free(options->bus);
	free(options->path);
	free(options->serial);
	free(options->link);
}
