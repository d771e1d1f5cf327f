/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg list: which devices are there. */
#include <stdio.h>
#include <stdlib.h>

#include "vmsg.h"

#define SILENT_MAX 3u /* devices in a row without an answer, then the others are not asked */

static void used(struct vmsg_driver *driver, uint32_t vq_index)
{
	(void)driver;
	(void)vq_index;
}

static const struct vmsg_driver_ops no_io = { .used = used };

static json_t *describe(const struct vmsg_driver *driver)
{
	char vendor[32], uuid[40];
	const char *type = device_type_name(driver->device_id);
	json_t *json = json_object();

	vendor_text(driver->vendor_id, vendor);
	json_object_set_new(json, "num", json_integer(driver->dev_num));
	json_object_set_new(json, "device_id", json_integer(driver->device_id));
	json_object_set_new(json, "type", type ? json_string(type) : json_null());
	json_object_set_new(json, "vendor", json_string(vendor));
	if (!uuid_is_nil(driver->uuid)) {
		uuid_text(driver->uuid, uuid);
		json_object_set_new(json, "uuid", json_string(uuid));
	}
	json_object_set_new(json, "config_size", json_integer(driver->config_size));
	json_object_set_new(json, "max_virtqueues", json_integer(driver->max_virtqueues));
	return json;
}

static int list_one(struct session *session, const struct options *options, uint16_t dev_num,
		    json_t *all)
{
	struct vmsg_driver driver;
	const char *type;
	int rc;

	vmsg_driver_init(&driver, session->bus, dev_num, &no_io);
	driver.timeout_ms = options->timeout_ms;
	rc = vmsg_driver_identify(&driver);
	vmsg_driver_exit(&driver);
	if (rc < 0)
		return failed(rc, "device %u of %s does not say what it is", dev_num,
			      session->address);
	if (all) {
		json_array_append_new(all, describe(&driver));
		return 0;
	}
	type = device_type_name(driver.device_id);
	printf("%5u  %-8s  id %-3u  %u queue%s, %u bytes of config\n", dev_num,
	       type ? type : "unknown", driver.device_id, driver.max_virtqueues,
	       driver.max_virtqueues == 1 ? "" : "s", driver.config_size);
	return 0;
}

static int list(struct session *session, const struct options *options)
{
	static uint8_t bitmap[8192];
	json_t *all = options->json ? json_array() : NULL;
	uint32_t silent = 0;
	int code = 0, count;

	count = vmsg_bus_get_devices(session->bus, bitmap, 65536, options->timeout_ms);
	if (count < 0) {
		json_decref(all);
		return failed(count, "%s does not list its devices", session->address);
	}
	for (uint32_t i = 0; i < 65536 && silent < SILENT_MAX && code != EXIT_LOST; i++) {
		if (bitmap[i / 8] & 1u << i % 8) {
			int one = list_one(session, options, (uint16_t)i, all);

			silent = one == EXIT_TIMEOUT || one == EXIT_NODEV ? silent + 1 : 0;
			code = code && one != EXIT_LOST ? code : one;
		}
	}
	if (silent == SILENT_MAX)
		common_error("%u devices of %s in a row do not answer: the others were not asked",
			     silent, session->address);
	if (all) {
		json_t *top = json_object();

		json_object_set_new(top, "address", json_string(session->address));
		json_object_set_new(
			top, "dialect",
			json_string(vmsg_dialect_name((enum vmsg_dialect)session->bus->dialect)));
		json_object_set_new(top, "devices", all);
		print_json(top);
	} else if (!count) {
		printf("no devices at %s (dialect %s)\n", session->address,
		       vmsg_dialect_name((enum vmsg_dialect)session->bus->dialect));
	}
	return code;
}

static int run(int argc, char **argv)
{
	struct options options;
	struct session session;
	int code = options_parse(&options, &command_list, argc, argv, NULL, NULL, NULL, 1, 1);

	if (code)
		return code;
	code = session_open(&session, &options, options.argv[0]);
	if (!code)
		code = list(&session, &options);
	session_close(&session);
	return code;
}

const struct command command_list = {
	.name = "list",
	.arguments = "ADDR",
	.summary = "List the devices: number, type, queues.",
	.help = "",
	.run = run,
};
