/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg: uses virtio-msg devices from the driver side. One file per subcommand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmsg.h"

#ifndef VMSG_PROGRAM_VERSION
#define VMSG_PROGRAM_VERSION "unknown"
#endif

const struct command *const commands[] = {
	&command_list,	  &command_info,    &command_ping, &command_disk,
	&command_entropy, &command_console, &command_ctl,  NULL,
};

static void help(FILE *out)
{
	fputs("usage: vmsg COMMAND ...\n\n"
	      "Uses virtio devices whose control messages travel over a bus (virtio-msg), from "
	      "the\n"
	      "driver's side. Start a device side first, for example:\n\n"
	      "  vmsgd --bus amp:/tmp/vmsg.sock --device blk,path=disk.img --device rng\n\n"
	      "and look at it:\n\n"
	      "  vmsg list amp:/tmp/vmsg.sock\n\n"
	      "commands:\n",
	      out);
	for (size_t i = 0; commands[i]; i++)
		fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\nADDR is where the devices are: "
	      "amp:PATH[,layout=layout|spsc][,dialect=v2|v1|rfc2]\n"
	      "[,strict=on]. DEV is a device number as `vmsg list` shows it.\n"
	      "`vmsg COMMAND --help` says more, `vmsg --version` which version this is.\n\n"
	      "exit codes: 0 done, 1 failed, 2 wrong command line, 3 nobody there, 4 the peer "
	      "went\n"
	      "away, 5 no answer in time, 6 no such device\n",
	      out);
}

/* What a script reads has to have arrived: a full disk is an error, too. */
static int finish(int code)
{
	bool bad = ferror(stdout) != 0;

	if (fflush(stdout) || bad) {
		common_error("standard output cannot be written");
		return code ? code : EXIT_FAULT;
	}
	return code;
}

int main(int argc, char **argv)
{
	common_set_program("vmsg");
	common_fill_descriptors();
	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help(stdout);
		return finish(EXIT_GOOD);
	}
	if (!strcmp(argv[1], "--version")) {
		puts("vmsg " VMSG_PROGRAM_VERSION);
		return finish(EXIT_GOOD);
	}
	for (size_t i = 0; commands[i]; i++) {
		if (!strcmp(argv[1], commands[i]->name))
			return finish(commands[i]->run(argc - 1, argv + 1));
	}
	common_error("there is no command '%s'; `vmsg --help` lists them", argv[1]);
	return EXIT_USAGE;
}
