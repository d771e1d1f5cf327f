/* SPDX-License-Identifier: BSD-3-Clause */
/* vmsg console: this terminal, or pipe, at the other end of a console device. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <vmsg/console.h>

#include "vmsg.h"

#define ESCAPE 0x1d /* Ctrl-] */

enum {
	OPTION_LINGER = 256
};

static const struct option own[] = {
	{ "linger", required_argument, NULL, OPTION_LINGER },
	{ 0 },
};

struct talk {
	struct session session;
	struct vmsg_console_driver console;
	struct pollfd also[2]; /* standard input; signals */
	uint64_t linger_ms;
	uint8_t input[512];
	uint32_t input_len, input_at;
	bool ended; /* no more input will come */
	bool left;  /* the user has typed the escape character, or a signal came */
	bool out_failed;
	uint32_t heard_ms;
};

static bool take(int value, const char *text, void *user)
{
	(void)value;
	if (parse_number(text, 600000, &((struct talk *)user)->linger_ms))
		return true;
	common_error("--linger %s: must be milliseconds, up to 600000", text);
	return false;
}

/* Whoever reads our output may be slow, or never: then a signal must still end us. */
static bool wait_for_room(struct talk *talk)
{
	struct pollfd ready[2] = { { .fd = STDOUT_FILENO, .events = POLLOUT }, talk->also[1] };

	while (!talk->left && poll(ready, 2, -1) < 0 && errno == EINTR)
		;
	if (ready[1].revents)
		talk->left = true;
	return !talk->left;
}

static void received(struct vmsg_console_driver *console, const uint8_t *data, uint32_t len)
{
	struct talk *talk = console->user;

	talk->heard_ms = vmsg_clock_ms();
	/* So few bytes at a time that there is always room for them when there is some. */
	while (len && wait_for_room(talk)) {
		ssize_t got = write(STDOUT_FILENO, data, len);

		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0) {
			talk->out_failed = true;
			return;
		}
		data += got;
		len -= (uint32_t)got;
	}
}

static void read_input(struct talk *talk)
{
	ssize_t got;

	if (talk->input_at < talk->input_len || talk->ended)
		return;
	got = read(STDIN_FILENO, talk->input, sizeof(talk->input));
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		talk->ended = true;
		talk->also[0].fd = -1;
		talk->heard_ms = vmsg_clock_ms();
		return;
	}
	talk->input_at = 0;
	talk->input_len = (uint32_t)got;
	if (isatty(STDIN_FILENO)) {
		uint8_t *escape = memchr(talk->input, ESCAPE, (size_t)got);

		if (escape) {
			talk->input_len = (uint32_t)(escape - talk->input);
			talk->left = true;
		}
	}
}

static int send_input(struct talk *talk)
{
	int rc;

	if (talk->input_at == talk->input_len)
		return 0;
	rc = vmsg_console_driver_send(&talk->console, talk->input + talk->input_at,
				      talk->input_len - talk->input_at);
	if (rc > 0)
		talk->input_at += (uint32_t)rc;
	/* Look at standard input again only when this is gone. */
	talk->also[0].events = talk->input_at < talk->input_len ? 0 : POLLIN;
	return rc < 0 ? rc : 0;
}

static bool finished(const struct talk *talk)
{
	if (talk->left || talk->out_failed)
		return true;
	return talk->ended && talk->input_at == talk->input_len &&
	       vmsg_console_driver_sent(&talk->console) &&
	       vmsg_clock_ms() - talk->heard_ms >= talk->linger_ms;
}

static int loop(struct talk *talk)
{
	struct vmsg_bus *bus = talk->session.bus;
	int rc = 0;

	while (rc == 0 && !finished(talk)) {
		talk->also[0].revents = talk->also[1].revents = 0;
		rc = bus->ops->wait(bus, talk->ended ? 10 : 100);
		if (rc == 0)
			rc = vmsg_console_driver_poll(&talk->console);
		if (talk->also[1].revents)
			talk->left = true;
		if (talk->also[0].revents)
			read_input(talk);
		if (rc == 0)
			rc = send_input(talk);
	}
	return rc;
}

/* Every key goes to the device but the escape character. False when this is no terminal. */
static bool make_raw(struct termios *before)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, before) < 0)
		return false;
	raw = *before;
	cfmakeraw(&raw);
	return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static int watch_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int talk_to(struct talk *talk, const struct options *options, uint16_t dev_num)
{
	struct termios before;
	bool raw;
	int rc;

	vmsg_console_driver_init(&talk->console, talk->session.bus, dev_num);
	talk->console.driver.timeout_ms = options->timeout_ms;
	talk->console.driver.split = &vmsg_vq_split_driver;
	talk->console.driver.packed = &vmsg_vq_packed_driver;
	talk->console.arena = talk->session.arena;
	talk->console.received = received;
	talk->console.user = talk;
	talk->also[1].fd = -1;
	rc = vmsg_console_driver_start(&talk->console);
	if (rc < 0)
		return device_failed(&talk->session, &talk->console.driver, "console", rc);

	talk->also[0] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	talk->also[1] = (struct pollfd){ .fd = watch_signals(), .events = POLLIN };
	talk->session.client.also = talk->also;
	talk->session.client.also_count = 2;
	raw = make_raw(&before);
	if (raw)
		fprintf(stderr, "console of device %u at %s; Ctrl-] ends it\r\n", dev_num,
			talk->session.address);
	rc = loop(talk);
	if (raw) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
		fputc('\n', stderr);
	}
	if (rc != VMSG_ERR_SHUTDOWN)
		vmsg_driver_reset(&talk->console.driver);
	if (rc < 0)
		return failed(rc, "console of device %u at %s", dev_num, talk->session.address);
	if (talk->out_failed) {
		common_error("console: standard output cannot be written");
		return EXIT_FAULT;
	}
	return 0;
}

static int run(int argc, char **argv)
{
	static struct talk talk = { .linger_ms = 200 };
	struct options options;
	uint16_t dev_num;
	int code = options_parse(&options, &command_console, argc, argv, own, take, &talk, 2, 2);

	if (code)
		return code;
	if (!parse_device(options.argv[1], &dev_num))
		return EXIT_USAGE;
	code = session_open(&talk.session, &options, options.argv[0]);
	if (!code)
		code = talk_to(&talk, &options, dev_num);
	session_close(&talk.session);
	return code;
}

const struct command command_console = {
	.name = "console",
	.arguments = "ADDR DEV [--linger MS]",
	.summary = "Connect this terminal to a console device; Ctrl-] ends it.",
	.help = "Also with pipes: what standard input holds is sent, answers go to standard "
		"output.\n\n"
		"options:\n"
		"  --linger MS     after the end of input, stay until nothing came for MS "
		"(200)\n\n",
	.run = run,
};
