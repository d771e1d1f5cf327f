/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors of the program stop it at the spot, in every build (vmsg.h): each in a child process. */
#include "common_fake.h"
#include "common_rig.h"

#include "test.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct rig rig;
static struct fake fake;

/* Whether it was stopped. What a sanitizer has to say of it is of no interest. */
static bool stops(void (*run)(uint32_t how), uint32_t how)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		run(how);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void init_bus(uint32_t how)
{
	rig.bus.max_msg_size = (uint16_t)(how >> 4);
	vmsg_bus_init_device(&rig.bus, (enum vmsg_dialect)(how & 15), 0);
}

static void smallest_maximum(void *arg)
{
	static const uint32_t smallest[] = { 52, 48, 44 };

	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	for (uint32_t d = VMSG_V2; d <= VMSG_RFC2; d++) {
		test_context("%s", vmsg_dialect_name((enum vmsg_dialect)d));
		CHECK(!stops(init_bus, smallest[d] << 4 | d));
		CHECK(stops(init_bus, (smallest[d] - 1) << 4 | d));
	}
	/* A device has to know what it speaks. */
	CHECK(stops(init_bus, 264 << 4 | VMSG_AUTO));
}

static void init_device(uint32_t how)
{
	struct vmsg_device *device = &rig.model.device;

	switch (how) {
	case 0:
		break;
	case 1:
		device->split = device->packed = NULL;
		break;
	case 2:
		device->mem = NULL;
		break;
	case 3:
		device->vq_count = 65537;
		break;
	case 4:
		device->config = NULL;
		break;
	case 5:
		device->admin_vq_start = 4;
		break;
	case 6:
		device->admin_vq_count = 2;
		break;
	case 7:
		device->admin_vq_count = 0; /* its start is not */
		break;
	case 8:
		rig.model.vqs[0].max_size = 32769;
		break;
	default:
		device->ops = NULL;
		break;
	}
	vmsg_device_init(device);
}

static void device_fields(void *arg)
{
	(void)arg;
	for (uint32_t how = 0; how <= 9; how++) {
		test_context("case %u", how);
		rig_init(&rig, VMSG_V2, 0, 0);
		CHECK_EQ(stops(init_device, how), how != 0);
	}
}

static void misuse(uint32_t how)
{
	struct vmsg_msg msg = { .msg_id = 0x3f };
	uint8_t buf[64];

	switch (how) {
	case 0:
		vmsg_device_config_changed(&rig.model.device, RIG_CONFIG, 0);
		break;
	case 1:
		vmsg_device_config_changed(&rig.model.device, RIG_CONFIG, 1);
		break;
	case 2:
		vmsg_bus_add(&rig.bus, &rig.model.device, RIG_DEV + 1);
		break;
	case 3:
		vmsg_msg_encode(VMSG_V2, &msg, buf, sizeof(buf));
		break;
	default:
		vmsg_bus_get_devices(&fake.bus, buf, 12, 1);
		break;
	}
}

static void misused_calls(void *arg)
{
	(void)arg;
	rig_init(&rig, VMSG_V2, 0, 0);
	fake_init(&fake, VMSG_V2, VMSG_V2, 0, 0);
	for (uint32_t how = 0; how <= 4; how++) {
		test_context("case %u", how);
		CHECK_EQ(stops(misuse, how), how != 0);
	}
}

static const struct test tests[] = {
	{ "BUS-14 smallest maximum", smallest_maximum, NULL },
	{ "DEV-42 DEV-44 DEV-45 device fields", device_fields, NULL },
	{ "misused calls", misused_calls, NULL },
};

int main(int argc, char **argv)
{
	return test_main("core_asserts", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
