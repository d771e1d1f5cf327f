/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg info: everything one device says about itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmsg/blk.h>
#include <vmsg/console.h>
#include <vmsg/port.h>

#include "vmsg.h"

#define CONFIG_SHOWN 1024u
#define QUEUES_SHOWN 1024u

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	(void)driver;
	(void)vq_index;
}

static const struct vmsg_driver_ops no_io = { .used = used };

static json_t *identity(const struct vmsg_driver *driver)
{
	const char *type = device_type_name(driver->device_id);
	json_t *json = json_object();
	char vendor[32], uuid[40];

	vendor_text(driver->vendor_id, vendor);
	json_object_set_new(json, "num", json_integer(driver->dev_num));
	json_object_set_new(json, "device_id", json_integer(driver->device_id));
	json_object_set_new(json, "type", type ? json_string(type) : json_null());
	json_object_set_new(json, "vendor", json_string(vendor));
	uuid_text(driver->uuid, uuid);
	json_object_set_new(json, "uuid",
			    uuid_is_nil(driver->uuid) ? json_null() : json_string(uuid));
	json_object_set_new(json, "max_virtqueues", json_integer(driver->max_virtqueues));
	if (driver->admin_vq_count) {
		json_object_set_new(json, "admin_vq_start", json_integer(driver->admin_vq_start));
		json_object_set_new(json, "admin_vq_count", json_integer(driver->admin_vq_count));
	}
	json_object_set_new(json, "config_size", json_integer(driver->config_size));
	return json;
}

static json_t *features(const struct vmsg_driver *driver)
{
	json_t *names = json_array();

	for (uint32_t bit = 0; bit < 64; bit++) {
		const char *name = feature_name(driver->device_id, bit);
		char number[16];

		if (!vmsg_has(driver->offered, bit))
			continue;
		snprintf(number, sizeof(number), "bit %u", bit);
		json_array_append_new(names, json_string(name ? name : number));
	}
	return names;
}

static json_t *blk_config(const struct vmsg_driver *driver, const uint8_t *bytes, uint32_t len)
{
	struct vmsg_blk_config config;
	json_t *json = json_object();
	int rc = vmsg_blk_config_decode(&config, bytes, len, driver->features);

	json_object_set_new(json, "capacity_sectors", json_number(config.capacity_sectors));
	json_object_set_new(json, "capacity_bytes",
			    json_number(config.capacity_sectors > UINT64_MAX / 512
						? UINT64_MAX
						: config.capacity_sectors * 512));
	json_object_set_new(json, "block_bytes", json_integer(config.block_bytes));
	if (config.physical_exp < 32) /* or it makes no sense */
		json_object_set_new(json, "physical_block_bytes",
				    json_number((uint64_t)config.block_bytes
						<< config.physical_exp));
	json_object_set_new(json, "seg_max", json_integer(config.seg_max));
	json_object_set_new(json, "num_queues", json_integer(config.num_queues));
	json_object_set_new(json, "read_only", json_boolean(config.read_only));
	json_object_set_new(json, "flush", json_boolean(config.flush));
	json_object_set_new(json, "writeback", json_boolean(config.writeback));
	json_object_set_new(json, "max_discard_sectors", json_integer(config.max_discard_sectors));
	json_object_set_new(json, "max_write_zeroes_sectors",
			    json_integer(config.max_zeroes_sectors));
	if (rc < 0)
		json_object_set_new(json, "fault", json_string("some numbers make no sense"));
	return json;
}

static json_t *console_config(const struct vmsg_driver *driver, const uint8_t *bytes, uint32_t len)
{
	json_t *json = json_object();

	if (vmsg_has(driver->features, VMSG_CONSOLE_F_SIZE) && len >= 4) {
		json_object_set_new(json, "cols",
				    json_integer(vmsg_get16(bytes + VMSG_CONSOLE_CONFIG_COLS)));
		json_object_set_new(json, "rows",
				    json_integer(vmsg_get16(bytes + VMSG_CONSOLE_CONFIG_ROWS)));
	}
	return json;
}

static json_t *raw_config(const uint8_t *bytes, uint32_t len)
{
	char *text = malloc(2 * (size_t)len + 1);
	json_t *json;

	if (!text)
		return json_null();
	for (uint32_t i = 0; i < len; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	text[2 * (size_t)len] = 0;
	json = json_string(text);
	free(text);
	return json;
}

static int add_config(struct vmsg_driver *driver, json_t *json)
{
	uint8_t bytes[CONFIG_SHOWN];
	uint32_t len = driver->config_size < CONFIG_SHOWN ? driver->config_size : CONFIG_SHOWN;
	int rc = vmsg_driver_read_config(driver, 0, bytes, len);

	if (rc < 0)
		return rc;
	if (driver->device_id == VMSG_BLK_DEVICE_ID)
		json_object_set_new(json, "config", blk_config(driver, bytes, len));
	else if (driver->device_id == VMSG_CONSOLE_DEVICE_ID)
		json_object_set_new(json, "config", console_config(driver, bytes, len));
	json_object_set_new(json, "config_bytes", raw_config(bytes, len));
	json_object_set_new(json, "config_generation", json_integer(driver->generation));
	return 0;
}

static int add_queues(struct vmsg_driver *driver, json_t *json)
{
	json_t *queues = json_array();

	for (uint32_t i = 0; i < driver->max_virtqueues && i < QUEUES_SHOWN; i++) {
		struct vmsg_msg msg = { .msg_id = VMSG_GET_VQUEUE };
		struct vmsg_request request = { 0 };
		json_t *queue;
		int rc;

		msg.vqueue.index = i;
		rc = vmsg_driver_request(driver, &request, &msg);
		if (rc < 0) {
			json_decref(queues);
			return rc;
		}
		if (!request.reply.vqueue.max_size)
			continue;
		queue = json_object();
		json_object_set_new(queue, "index", json_integer(i));
		json_object_set_new(queue, "max_size", json_integer(request.reply.vqueue.max_size));
		json_array_append_new(queues, queue);
	}
	json_object_set_new(json, "queues", queues);
	return 0;
}

static int collect(struct vmsg_driver *driver, json_t **result)
{
	json_t *json;
	int rc = vmsg_driver_identify(driver);

	if (rc < 0)
		return rc;
	json = identity(driver);
	/* Which config fields hold depends on the features accepted: take all we are offered. */
	rc = vmsg_driver_negotiate(driver, UINT64_MAX);
	if (rc == 0) {
		json_object_set_new(json, "features", features(driver));
		rc = add_config(driver, json);
	}
	if (rc == 0)
		rc = add_queues(driver, json);
	if (rc != VMSG_ERR_SHUTDOWN)
		vmsg_driver_reset(driver);
	if (rc < 0)
		json_decref(json);
	else
		*result = json;
	return rc;
}

static void print_list(const char *title, json_t *array)
{
	size_t column = 0;

	printf("%-12s", title);
	for (size_t i = 0; i < json_array_size(array); i++) {
		const char *text = json_string_value(json_array_get(array, i));

		if (column + strlen(text) > 60) {
			printf("\n%-12s", "");
			column = 0;
		}
		column += (size_t)printf(" %s", text);
	}
	putchar('\n');
}

static void print_value(const char *name, json_t *value)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY);

	printf("  %-24s %s\n", name, text ? text : "?");
	free(text);
}

static void print_people(json_t *json)
{
	const char *type = json_string_value(json_object_get(json, "type"));
	const char *uuid = json_string_value(json_object_get(json, "uuid"));
	json_t *config = json_object_get(json, "config"), *queue, *value;
	const char *name;
	size_t i;

	printf("%-12s %" JSON_INTEGER_FORMAT "\n", "device",
	       json_integer_value(json_object_get(json, "num")));
	printf("%-12s %s (virtio id %" JSON_INTEGER_FORMAT ")\n", "type", type ? type : "unknown",
	       json_integer_value(json_object_get(json, "device_id")));
	printf("%-12s %s\n", "vendor", json_string_value(json_object_get(json, "vendor")));
	printf("%-12s %s\n", "uuid", uuid ? uuid : "none");
	print_list("features", json_object_get(json, "features"));
	printf("%-12s %" JSON_INTEGER_FORMAT " bytes, generation %" JSON_INTEGER_FORMAT "\n",
	       "config", json_integer_value(json_object_get(json, "config_size")),
	       json_integer_value(json_object_get(json, "config_generation")));
	json_object_foreach(config, name, value) print_value(name, value);
	if (!config && json_integer_value(json_object_get(json, "config_size")))
		print_value("bytes", json_object_get(json, "config_bytes"));
	printf("%-12s %zu\n", "queues", json_array_size(json_object_get(json, "queues")));
	json_array_foreach(json_object_get(json, "queues"), i, queue)
		printf("  %-3" JSON_INTEGER_FORMAT " up to %" JSON_INTEGER_FORMAT " entries\n",
		       json_integer_value(json_object_get(queue, "index")),
		       json_integer_value(json_object_get(queue, "max_size")));
}

static int info(struct session *session, const struct options *options, uint16_t dev_num)
{
	struct vmsg_driver driver;
	json_t *json = NULL;
	int rc;

	vmsg_driver_init(&driver, session->bus, dev_num, &no_io);
	driver.timeout_ms = options->timeout_ms;
	driver.split = &vmsg_vq_split_driver;
	driver.packed = &vmsg_vq_packed_driver;
	rc = collect(&driver, &json);
	vmsg_driver_exit(&driver);
	if (rc < 0)
		return device_failed(session, &driver, NULL, rc);
	if (options->json) {
		print_json(json);
	} else {
		print_people(json);
		json_decref(json);
	}
	return 0;
}

static int run(int argc, char **argv)
{
	struct options options;
	struct session session;
	uint16_t dev_num;
	int code = options_parse(&options, &command_info, argc, argv, NULL, NULL, NULL, 2, 2);

	if (code)
		return code;
	if (!parse_device(options.argv[1], &dev_num))
		return EXIT_USAGE;
	code = session_open(&session, &options, options.argv[0]);
	if (!code)
		code = info(&session, &options, dev_num);
	session_close(&session);
	return code;
}

const struct command command_info = {
	.name = "info",
	.arguments = "ADDR DEV",
	.summary = "Show identity, features, config and queues of a device.",
	.help = "Resets the device, before and after: it must not be in use.\n\n",
	.run = run,
};
