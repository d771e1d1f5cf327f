/* SPDX-License-Identifier: BSD-3-Clause */
/* "amp:PATH[,key=value...]": where an AMP bus is, and what it is like. */
#include "private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUS        "amp:"
#define VALUE_ROOM 256

static bool parse_number(const char *text, int base, uint64_t min, uint64_t max, uint64_t *number)
{
	char *end;
	unsigned long long value;

	if (text[0] < '0' || text[0] > '9') /* no sign, no blank */
		return false;
	errno = 0;
	value = strtoull(text, &end, base);
	if (errno || *end || value < min || value > max)
		return false;
	*number = value;
	return true;
}

static bool parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	char digits[24];
	size_t len = strlen(text);
	const char *unit;
	uint64_t number;
	uint32_t shift = 0;

	if (!len || len >= sizeof(digits))
		return false;
	memcpy(digits, text, len + 1);
	unit = strchr(units, digits[len - 1] & ~0x20);
	if (unit && *unit) {
		shift = 10 * (uint32_t)(unit - units + 1);
		digits[len - 1] = 0;
	}
	if (!parse_number(digits, 10, 1, UINT64_MAX >> shift, &number))
		return false;
	*bytes = number << shift;
	return true;
}

static bool parse_switch(const char *text, bool *on)
{
	*on = strcmp(text, "on") == 0;
	return *on || strcmp(text, "off") == 0;
}

static bool set_layout(struct vmsg_amp_address *address, const char *value)
{
	address->format = strcmp(value, "layout") == 0 ? &vmsg_amp_layout
			  : strcmp(value, "spsc") == 0 ? &vmsg_amp_spsc
						       : NULL;
	return address->format;
}

static bool set_size(struct vmsg_amp_address *address, const char *value)
{
	return parse_size(value, &address->size_bytes) &&
	       address->size_bytes >= VMSG_AMP_MIN_BYTES &&
	       address->size_bytes <= (uint64_t)1 << 40 &&
	       !(address->size_bytes & (address->size_bytes - 1));
}

static bool set_peers(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 10, 1, VMSG_IVSHMEM_MAX_PEERS, &number);

	if (good)
		address->peers = (uint32_t)number;
	return good;
}

static bool set_dialect(struct vmsg_amp_address *address, const char *value)
{
	return vmsg_dialect_parse(value, &address->dialect);
}

static bool set_msgsize(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 10, VMSG_AMP_ELEMENT_BYTES, VMSG_AMP_MAX_ELEMENT, &number);

	if (good)
		address->element_bytes = (uint16_t)number;
	return good && number % 8 == 0;
}

static bool set_elements(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 10, 2, 4096, &number);

	if (good)
		address->element_count = (uint16_t)number;
	return good;
}

static bool set_words(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 10, 0, VMSG_AMP_MAX_WORDS, &number);

	if (good)
		address->words = (uint8_t)number;
	return good;
}

static bool set_bits(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 10, 1, 16, &number) && !(number & (number - 1));

	if (good)
		address->bits_per_device = (uint8_t)number;
	return good;
}

static bool set_masks(struct vmsg_amp_address *address, const char *value)
{
	return parse_switch(value, &address->masks);
}

static bool set_strict(struct vmsg_amp_address *address, const char *value)
{
	return parse_switch(value, &address->strict);
}

static bool set_mode(struct vmsg_amp_address *address, const char *value)
{
	uint64_t number;
	bool good = parse_number(value, 8, 0, 0777, &number);

	if (good)
		address->mode = (uint32_t)number;
	return good;
}

static bool set_file(struct vmsg_amp_address *address, const char *value)
{
	size_t len = strlen(value);

	if (!len || len >= sizeof(address->file))
		return false;
	memcpy(address->file, value, len + 1);
	return true;
}

bool vmsg_spin_parse(const char *text, uint32_t *spin_us)
{
	uint64_t number;

	if (strcmp(text, "always") == 0)
		*spin_us = VMSG_SPIN_ALWAYS;
	else if (strcmp(text, "never") == 0)
		*spin_us = VMSG_SPIN_NEVER;
	else if (parse_number(text, 10, 0, 1000000, &number))
		*spin_us = (uint32_t)number;
	else
		return false;
	return true;
}

static bool set_spin(struct vmsg_amp_address *address, const char *value)
{
	return vmsg_spin_parse(value, &address->spin_us);
}

static const struct key {
	const char *name, *right;
	bool (*set)(struct vmsg_amp_address *address, const char *value);
} keys[] = {
	{ "layout", "layout or spsc", set_layout },
	{ "size", "a power of two from 64K, such as 64M", set_size },
	{ "peers", "1 to 64", set_peers },
	{ "dialect", "v2, v1, rfc2 or auto", set_dialect },
	{ "msgsize", "64 to 1024 bytes, a multiple of 8", set_msgsize },
	{ "elements", "2 to 4096", set_elements },
	{ "words", "0 to 64", set_words },
	{ "bits", "1, 2, 4, 8 or 16", set_bits },
	{ "masks", "on or off", set_masks },
	{ "strict", "on or off", set_strict },
	{ "spin", "microseconds (up to 1000000), never or always", set_spin },
	{ "mode", "octal, such as 660", set_mode },
	{ "file", "a path of up to 255 bytes", set_file },
};

#define KEYS (sizeof(keys) / sizeof(*keys))

static int unknown_key(const char *item, char *err, size_t err_size)
{
	char known[VMSG_ERR_TEXT] = "";

	for (size_t i = 0; i < KEYS; i++) {
		strcat(known, i ? ", " : "");
		strcat(known, keys[i].name);
	}
	return vmsg_fail(err, err_size, VMSG_ERR_INVAL, "unknown key \"%.*s\" (known: %s)", 40,
			 item, known);
}

/* One key=value, of which the = may be missing. */
static int parse_item(char *item, struct vmsg_amp_address *address, char *err, size_t err_size)
{
	char *value = strchr(item, '=');

	if (value)
		*value++ = 0;
	for (size_t i = 0; i < KEYS; i++) {
		if (strcmp(item, keys[i].name) != 0)
			continue;
		if (value && keys[i].set(address, value))
			return 0;
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL, "%s=%.*s: should be %s", item, 60,
				 value ? value : "", keys[i].right);
	}
	return unknown_key(item, err, err_size);
}

/* What each key cannot see alone. */
static int check(struct vmsg_amp_address *address, char *err, size_t err_size)
{
	uint32_t area = VMSG_AMP_SPSC_BYTES;

	if (address->format == &vmsg_amp_spsc && address->element_bytes != VMSG_AMP_ELEMENT_BYTES)
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "msgsize=%u: spsc queues carry 64 bytes (use layout=layout)",
				 address->element_bytes);
	if (!address->words)
		address->masks = false;
	if (address->format != &vmsg_amp_spsc)
		area = vmsg_amp_layout_bytes(address->element_bytes, address->element_count,
					     address->words, address->masks);
	if (!area || area > address->size_bytes / 2)
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "the queues of %u bytes leave no room in size=%llu", area,
				 (unsigned long long)address->size_bytes);
	return 0;
}

static int parse_path(const char *text, size_t len, struct vmsg_amp_address *address, char *err,
		      size_t err_size)
{
	if (!len)
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "the path is missing in \"%.*s\" (amp:PATH[,key=value...])", 60,
				 text);
	if (len >= sizeof(address->path))
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "the path of a socket has at most %zu bytes, this one has %zu",
				 sizeof(address->path) - 1, len);
	memcpy(address->path, text + strlen(BUS), len);
	address->path[len] = 0;
	return 0;
}

int vmsg_amp_parse(const char *text, struct vmsg_amp_address *address, char *err, size_t err_size)
{
	const char *at = text + strlen(BUS);
	int rc;

	*address = (struct vmsg_amp_address){
		.size_bytes = (uint64_t)64 << 20,
		.peers = 1,
		.dialect = VMSG_AUTO,
		.element_bytes = VMSG_AMP_ELEMENT_BYTES,
		.element_count = VMSG_AMP_ELEMENT_COUNT,
		.words = 2,
		.bits_per_device = 8,
		.masks = true,
		.spin_us = VMSG_SPIN_DEFAULT,
		.mode = 0600,
	};
	if (strncmp(text, BUS, strlen(BUS)) != 0)
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "\"%.*s\" is not an address of this bus (amp:PATH[,key=value...])",
				 60, text);
	rc = parse_path(text, strcspn(at, ","), address, err, err_size);
	at += strcspn(at, ",");
	while (rc == 0 && *at == ',') {
		char item[VALUE_ROOM + 32];
		size_t len = strcspn(++at, ",");

		if (len >= sizeof(item))
			return vmsg_fail(err, err_size, VMSG_ERR_INVAL, "\"%.*s...\" is too long",
					 40, at);
		memcpy(item, at, len);
		item[len] = 0;
		at += len;
		rc = parse_item(item, address, err, err_size);
	}
	return rc < 0 ? rc : check(address, err, err_size);
}
