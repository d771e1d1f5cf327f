/* SPDX-License-Identifier: BSD-3-Clause */
/* --help for people, --print-capabilities for programs. */
#include "vmsgd.h"
#include <stdio.h>

static const char help[] =
"usage: vmsgd --bus ADDRESS --device TYPE[,KEY=VALUE]... [OPTION]...\n"
"\n"
"Serves virtio devices - disks, an entropy source, consoles - to another process\n"
"or machine over virtio-msg in shared memory. It stays in the foreground; Ctrl-C\n"
"ends it cleanly. The other side is the program vmsg, or any virtio-msg driver.\n"
"\n"
"  A disk to play with, in one terminal:\n"
"      truncate -s 64M disk.img\n"
"      vmsgd --bus amp:/tmp/vmsg.sock --device blk,path=disk.img --device rng\n"
"  and its use, in another:\n"
"      vmsg list amp:/tmp/vmsg.sock\n"
"      vmsg disk amp:/tmp/vmsg.sock 0 read copy.img\n"
"\n"
"What to serve, and where:\n"
"  -b, --bus amp:PATH[,KEY=VALUE]...   a bus: a Unix socket at PATH hands out the\n"
"                          shared memory and doorbells (QEMU's ivshmem protocol)\n"
"        layout=layout|spsc   format of the message queues (layout)\n"
"        size=64M             shared memory of each peer, a power of two\n"
"        peers=N              how many may be connected at a time (1)\n"
"        dialect=v2|v1|rfc2   revision of the messages (v2)\n"
"        mode=600             rights of the socket, octal\n"
"                             more keys: see the manual page\n"
"  -d, --device TYPE[,KEY[=VALUE]]...  a device on the bus before it; they are\n"
"                          numbered from 0 in their order\n"
"      blk               a disk\n"
"        path=FILE            image or block device; also ram:64M, null:1G\n"
"        ro                   read-only\n"
"        serial=TEXT          its serial number (the file's name)\n"
"        queues=N             queues (1); queue_size=N entries of each (128)\n"
"        engine=auto|uring|threads|sync   how the file is read and written\n"
"        direct               bypass the page cache\n"
"        share                open it although another program has it open\n"
"      rng               an entropy source: the kernel's random numbers\n"
"      console           a console\n"
"        pty                  on a new pseudo terminal: the default\n"
"        link=PATH            a lasting name for that terminal\n"
"        stdio                on standard input and output instead\n"
"        raw                  stdio: pass every key on, also Ctrl-C\n"
"      all of them\n"
"        num=N                its number\n"
"        peer=K               only for peer K; otherwise every peer has its own\n"
"        bus=NAME             on that bus\n"
"  -c, --config FILE       buses and devices from a file, see vmsgd.conf(5)\n"
"\n"
"How to run:\n"
"      --control PATH      a socket that takes commands: see vmsg ctl --help\n"
"      --poll US|always|never   how long to look for more work before sleeping,\n"
"                          in microseconds (50); always costs a whole CPU\n"
"      --check             open everything, say what would be served, and exit\n"
"      --pidfile PATH      write the process id there once it is ready\n"
"      --trace             every message on one line, on standard error\n"
"  -q, --quiet             only errors\n"
"  -v, --verbose           also who comes and goes\n"
"      --print-capabilities   what this version can do, as JSON\n"
"  -h, --help              this text\n"
"  -V, --version           the version\n"
"\n"
"When it is ready it says so on standard error, one line for each bus:\n"
"      vmsgd: ready: amp:/tmp/vmsg.sock (2 devices)\n"
"Exit status: 0 ended as asked, 1 it failed, 2 wrong options or configuration.\n";

void help_print(void)
{
	fputs(help, stdout);
}

static json_t *type_capabilities(const struct device_type *type)
{
	json_t *keys = json_array();
	const char *key;

	for (unsigned int i = 0; (key = device_key(type, i)) != NULL; i++)
		json_array_append_new(keys, json_string(key));
	return json_pack("{s:o}", "keys", keys);
}

void help_capabilities(void)
{
	json_t *devices = json_object(), *all;

	for (int i = 0; device_types[i]; i++)
		json_object_set_new(devices, device_types[i]->name,
				    type_capabilities(device_types[i]));
	all = json_pack("{s:s, s:s, s:s, s:{s:{s:[ss], s:[sss]}}, s:o, s:[ssssss], s:[sss]}",
			"type", "virtio-msg", "program", "vmsgd", "version", VMSG_PROGRAM_VERSION,
			"buses", "amp", "layouts", "layout", "spsc", "dialects", "v2", "v1", "rfc2",
			"devices", devices, "commands", "list", "add", "remove", "resize", "stat",
			"quit", "features", "config", "control", "sd-notify");
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}
