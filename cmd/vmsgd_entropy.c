/* SPDX-License-Identifier: BSD-3-Clause */
/* rng: the kernel's random numbers. */
#include "vmsgd.h"
#include <stdlib.h>

struct entropy {
	struct instance instance; /* first */
	struct vmsg_rng rng;
};

static int check(const struct device *device, char *err, size_t err_size)
{
	(void)device;
	(void)err;
	(void)err_size;
	return 0;
}

static int entropy_open(struct device *device, uint32_t peer, struct instance **instance, char *err,
			size_t err_size)
{
	struct entropy *entropy = calloc(1, sizeof(*entropy));

	(void)peer;
	if (!entropy)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	entropy->instance.device = &entropy->rng.device;
	entropy->instance.daemon = device->daemon;
	entropy->rng.fill = vmsg_random_fill;
	*instance = &entropy->instance;
	return 0;
}

static void entropy_init(struct instance *instance)
{
	vmsg_rng_init(&((struct entropy *)instance)->rng);
}

static void entropy_close(struct instance *instance)
{
	(void)instance;
}

static void entropy_free(struct instance *instance)
{
	free(instance);
}

static void entropy_describe(const struct instance *instance, char *text, size_t size)
{
	(void)instance;
	common_fail(text, size, 0, "the kernel's random numbers");
}

static void entropy_facts(const struct instance *instance, json_t *object)
{
	(void)instance;
	(void)object;
}

static void entropy_stat(const struct instance *instance, json_t *object)
{
	const struct vmsg_rng *rng = &((const struct entropy *)instance)->rng;
	const struct stat_entry entries[] = {
		{ "filled_bytes", rng->filled_bytes },
		{ "empty_chains", rng->empty_chains },
	};

	stat_add(object, entries, sizeof(entries) / sizeof(entries[0]));
}

const struct device_type entropy_type = {
	.name = "rng",
	.check = check,
	.open = entropy_open,
	.init = entropy_init,
	.close = entropy_close,
	.free = entropy_free,
	.describe = entropy_describe,
	.facts = entropy_facts,
	.stat = entropy_stat,
};
