/* SPDX-License-Identifier: BSD-3-Clause */
/* backend/tty.c on real pseudo terminals and pipes, and backend/random.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <vmsg/backend.h>

#include "test.h"

static struct vmsg_tty *open_pty(void)
{
	struct vmsg_tty *tty;
	char error[256] = "";
	int rc = vmsg_tty_open_pty(&tty, error, sizeof(error));

	if (rc == -ENOENT || rc == -EACCES)
		TEST_SKIP(error);
	CHECK_STR(error, "");
	CHECK_EQ(rc, 0);
	return tty;
}

static int attach(const struct vmsg_tty *tty)
{
	int fd = open(vmsg_tty_path(tty), O_RDWR | O_NOCTTY | O_NONBLOCK);

	CHECK(fd >= 0);
	return fd;
}

/* Waits for what the backend asks to be watched, as a loop would. False: nothing came. */
static bool watch(struct vmsg_tty *tty, bool in, bool out, int ms)
{
	struct vmsg_tty_watch watches[VMSG_TTY_WATCHES];
	struct pollfd pfds[VMSG_TTY_WATCHES];
	uint32_t count = vmsg_tty_watches(tty, in, out, watches);

	for (uint32_t i = 0; i < count; i++)
		pfds[i] = (struct pollfd){
			watches[i].fd,
			(short)((watches[i].in ? POLLIN : 0) | (watches[i].out ? POLLOUT : 0)), 0
		};
	if (poll(pfds, count, ms) <= 0)
		return false;
	vmsg_tty_poll(tty);
	return true;
}

static int put(struct vmsg_tty *tty, const char *text)
{
	return vmsg_tty_backend.write(tty, (const uint8_t *)text, (uint32_t)strlen(text));
}

static int get(struct vmsg_tty *tty, char *text, uint32_t size)
{
	return vmsg_tty_backend.read(tty, (uint8_t *)text, size);
}

static void test_come_and_go(void *arg)
{
	struct vmsg_tty *tty = open_pty();
	char text[64];

	(void)arg;
	CHECK(strncmp(vmsg_tty_path(tty), "/dev/pts/", 9) == 0);
	for (uint32_t round = 0; round < 3; round++) {
		int fd;

		test_context("round %u", round);
		/* Nobody is there: no waking, and output is dropped. */
		CHECK(!vmsg_tty_connected(tty));
		CHECK(!watch(tty, true, true, 20));
		CHECK_EQ(put(tty, "lost"), VMSG_ERR_IO);
		CHECK_EQ(get(tty, text, sizeof(text)), VMSG_ERR_AGAIN);
		fd = attach(tty);
		CHECK(watch(tty, true, false, 1000));
		CHECK(vmsg_tty_connected(tty));
		CHECK_EQ(put(tty, "hello\n"), 6);
		CHECK_EQ(read(fd, text, sizeof(text)), 6); /* as it was: no CR, nothing of before */
		CHECK_MEM(text, "hello\n", 6);
		CHECK(!watch(tty, true, false, 20));
		CHECK_EQ(write(fd, "typed\r", 6), 6);
		CHECK(watch(tty, true, false, 1000));
		CHECK_EQ(get(tty, text, sizeof(text)), 6);
		CHECK_MEM(text, "typed\r", 6);
		CHECK_EQ(get(tty, text, sizeof(text)), VMSG_ERR_AGAIN);
		close(fd);
		CHECK(watch(tty, false, false, 1000)); /* even when nothing is wanted */
	}
	vmsg_tty_close(tty);
}

/* Written and closed at once: the bytes are there all the same. */
static void test_short_visit(void *arg)
{
	struct vmsg_tty *tty = open_pty();
	char text[64];
	int fd = attach(tty);

	(void)arg;
	CHECK_EQ(write(fd, "echo", 4), 4);
	close(fd);
	CHECK(watch(tty, true, false, 1000));
	CHECK_EQ(get(tty, text, sizeof(text)), 4);
	CHECK_EQ(get(tty, text, sizeof(text)), VMSG_ERR_AGAIN);
	CHECK(!vmsg_tty_connected(tty));
	vmsg_tty_close(tty);
}

static void test_full(void *arg)
{
	struct vmsg_tty *tty = open_pty();
	static char block[4096], seen[4096];
	size_t written = 0, read_back = 0;
	int fd = attach(tty), rc;

	(void)arg;
	vmsg_tty_poll(tty);
	memset(block, 'x', sizeof(block) - 1);
	/* The kernel moves what it was given on from one buffer to the next, and has room again. */
	do {
		while ((rc = put(tty, block)) > 0) {
			written += (size_t)rc;
			CHECK(written < 1u << 20);
		}
		CHECK_EQ(rc, VMSG_ERR_AGAIN);
	} while (watch(tty, false, true, 50));
	while (read_back < written) {
		ssize_t got = read(fd, seen, sizeof(seen));

		if (got > 0)
			read_back += (size_t)got;
		else
			usleep(1000);
	}
	CHECK(watch(tty, false, true, 1000));
	CHECK(put(tty, "y") == 1);
	close(fd);
	vmsg_tty_close(tty);
}

static void test_size(void *arg)
{
	struct vmsg_tty *tty = open_pty();
	const struct winsize size = { .ws_col = 132, .ws_row = 43 };
	uint16_t cols = 0, rows = 0;
	int fd = attach(tty);

	(void)arg;
	CHECK_EQ(ioctl(fd, TIOCSWINSZ, &size), 0);
	CHECK_EQ(vmsg_tty_size(tty, &cols, &rows), 0);
	CHECK_EQ(cols, 132);
	CHECK_EQ(rows, 43);
	close(fd);
	vmsg_tty_close(tty);
}

/* ---- Standard input and output, in a child; its exit code is the step that failed ---- */

static int stdio_child(void)
{
	struct vmsg_tty *tty;
	char error[256], text[64];
	int flags = fcntl(STDOUT_FILENO, F_GETFL), rc;

	if (vmsg_tty_open_stdio(&tty, true, error, sizeof(error)) != 0)
		return 1;
	if (fcntl(STDOUT_FILENO, F_GETFL) != flags)
		return 2; /* others share it */
	if (get(tty, text, sizeof(text)) != VMSG_ERR_AGAIN || put(tty, "ready") != 5)
		return 3;
	if (!watch(tty, true, false, 2000) || get(tty, text, sizeof(text)) != 3 ||
	    memcmp(text, "abc", 3) != 0)
		return 4;
	/* The end of input: it is not watched any more. */
	if (!watch(tty, true, false, 2000) || get(tty, text, sizeof(text)) > 0)
		return 5;
	if (watch(tty, true, false, 20) || get(tty, text, sizeof(text)) != VMSG_ERR_AGAIN)
		return 6;
	/* Nobody reads: it says so, and does not wait. */
	while ((rc = put(tty, "0123456789012345678901234567890123456789")) > 0)
		;
	if (rc != VMSG_ERR_AGAIN)
		return 7;
	vmsg_tty_close(tty);
	return 0;
}

static void test_stdio(void *arg)
{
	int in[2], out[2], status = 0;
	char text[8] = "";
	pid_t pid;

	(void)arg;
	CHECK_EQ(pipe(in), 0);
	CHECK_EQ(pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		close(in[1]);
		close(out[0]);
		_exit(stdio_child());
	}
	CHECK(pid > 0);
	close(in[0]);
	close(out[1]);
	CHECK_EQ(read(out[0], text, 5), 5);
	CHECK_STR(text, "ready");
	CHECK_EQ(write(in[1], "abc", 3), 3);
	usleep(20000);
	close(in[1]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	close(out[0]);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

/* A terminal as standard input is raw while we have it, and as before afterwards. */
static int raw_child(const char *path)
{
	struct vmsg_tty *tty;
	struct termios before, during, after;
	char error[256];
	int fd = open(path, O_RDWR | O_NOCTTY);

	if (fd < 0)
		return 1;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	tcgetattr(fd, &before);
	before.c_lflag |= ICANON | ECHO | ISIG;
	tcsetattr(fd, TCSANOW, &before);
	if (vmsg_tty_open_stdio(&tty, true, error, sizeof(error)) != 0)
		return 2;
	tcgetattr(fd, &during);
	vmsg_tty_close(tty);
	tcgetattr(fd, &after);
	if (during.c_lflag & (ICANON | ECHO | ISIG))
		return 3;
	return (after.c_lflag & (ICANON | ECHO | ISIG)) == (ICANON | ECHO | ISIG) ? 0 : 4;
}

static void test_raw(void *arg)
{
	struct vmsg_tty *pty = open_pty();
	int status = 0;
	pid_t pid = fork();

	(void)arg;
	if (pid == 0)
		_exit(raw_child(vmsg_tty_path(pty)));
	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	vmsg_tty_close(pty);
}

static void test_random(void *arg)
{
	uint8_t a[300], b[300];
	uint32_t same = 0;

	(void)arg;
	CHECK_EQ(vmsg_random_fill(NULL, a, sizeof(a)), sizeof(a));
	CHECK_EQ(vmsg_random_fill(NULL, b, sizeof(b)), sizeof(b));
	for (size_t i = 0; i < sizeof(a); i++)
		same += a[i] == b[i];
	CHECK(same < 30); /* about one is expected */
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{ "come and go", test_come_and_go, NULL },
		{ "short visit", test_short_visit, NULL },
		{ "full", test_full, NULL },
		{ "size", test_size, NULL },
		{ "stdio", test_stdio, NULL },
		{ "raw", test_raw, NULL },
		{ "random", test_random, NULL },
	};

	return test_main("backend_tty", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
