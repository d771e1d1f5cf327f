/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg entropy: random bytes from an entropy device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmsg/rng.h>

#include "vmsg.h"

#define PIECE_BYTES 16384u

enum {
	OPTION_HEX = 256
};

static const struct option own[] = {
	{ "hex", no_argument, NULL, OPTION_HEX },
	{ 0 },
};

static bool take(int value, const char *text, void *user)
{
	(void)value;
	(void)text;
	*(bool *)user = true;
	return true;
}

static bool put(const uint8_t *bytes, size_t len, bool hex)
{
	if (!hex)
		return fwrite(bytes, 1, len, stdout) == len;
	for (size_t i = 0; i < len; i++) {
		if (printf("%02x%s", bytes[i], i % 32 == 31 || i + 1 == len ? "\n" : "") < 0)
			return false;
	}
	return true;
}

static int entropy(struct session *session, const struct options *options, uint16_t dev_num,
		   uint64_t bytes, bool hex)
{
	static uint8_t piece[PIECE_BYTES];
	static struct vmsg_rng_driver rng;
	int rc, code = 0;

	vmsg_rng_driver_init(&rng, session->bus, dev_num);
	rng.driver.timeout_ms = options->timeout_ms;
	rng.driver.split = &vmsg_vq_split_driver;
	rng.driver.packed = &vmsg_vq_packed_driver;
	rng.arena = session->arena;
	rng.buffer_bytes = PIECE_BYTES;
	rc = vmsg_rng_driver_start(&rng);
	if (rc < 0)
		return device_failed(session, &rng.driver, "rng", rc);
	while (bytes && !code) {
		uint32_t len = bytes < PIECE_BYTES ? (uint32_t)bytes : PIECE_BYTES;

		rc = vmsg_rng_driver_read(&rng, piece, len, options->timeout_ms);
		if (rc < 0) {
			code = failed(rc, "reading entropy from device %u of %s", dev_num,
				      session->address);
		} else if (!put(piece, len, hex)) {
			common_error("entropy: standard output cannot be written");
			code = EXIT_FAULT;
		}
		bytes -= len;
	}
	if (fflush(stdout) && !code) {
		common_error("entropy: standard output cannot be written");
		code = EXIT_FAULT;
	}
	if (code != EXIT_LOST)
		vmsg_driver_reset(&rng.driver);
	return code;
}

static int run(int argc, char **argv)
{
	bool hex = isatty(STDOUT_FILENO);
	struct options options;
	struct session session;
	uint64_t bytes;
	uint16_t dev_num;
	int code = options_parse(&options, &command_entropy, argc, argv, own, take, &hex, 3, 3);

	if (code)
		return code;
	if (!parse_device(options.argv[1], &dev_num))
		return EXIT_USAGE;
	if (!parse_size(options.argv[2], &bytes)) {
		common_error("entropy: '%s' is no number of bytes", options.argv[2]);
		return EXIT_USAGE;
	}
	code = session_open(&session, &options, options.argv[0]);
	if (!code)
		code = entropy(&session, &options, dev_num, bytes, hex);
	session_close(&session);
	return code;
}

const struct command command_entropy = {
	.name = "entropy",
	.arguments = "ADDR DEV BYTES [--hex]",
	.summary = "Read random bytes from an entropy device to standard output.",
	.help = "BYTES may end in K, M, G.\n\n"
		"options:\n"
		"  --hex           hexadecimal text (default on a terminal)\n\n",
	.run = run,
};
