/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A console on a pseudo terminal, or on standard input and output.
 *
 * People come and go at a pseudo terminal. While nobody has it open the master's descriptor reports
 * a hang-up without end, so it must not be watched then; inotify tells of the next open. Output is
 * dropped meanwhile: a driver that waits for its console would otherwise hang.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <vmsg/backend.h>

struct vmsg_tty {
	int in, out;	      /* the same for a pseudo terminal; in is -1 after end of file */
	bool own_in, own_out; /* opened by us */
	bool waits;	      /* not every write to out returns at once: ask poll first */
	bool is_pty;
	bool connected;
	int opens; /* pty: inotify, -1 otherwise */
	bool raw;  /* saved is to be put back */
	struct termios saved;
	char path[PATH_MAX];
};

static struct vmsg_tty *tty_new(void)
{
	struct vmsg_tty *tty = calloc(1, sizeof(*tty));

	if (tty)
		tty->in = tty->out = tty->opens = -1;
	return tty;
}

void vmsg_tty_close(struct vmsg_tty *tty)
{
	if (!tty)
		return;
	if (tty->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &tty->saved);
	if (tty->opens >= 0)
		close(tty->opens);
	if (tty->own_in && tty->in >= 0)
		close(tty->in);
	if (tty->own_out && tty->out >= 0 && tty->out != tty->in)
		close(tty->out);
	free(tty);
}

/* ---- Pseudo terminal ---- */

static short ask_poll(int fd, short events)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	return poll(&pfd, 1, 0) > 0 ? pfd.revents : 0;
}

static int open_pty(struct vmsg_tty *tty)
{
	struct termios termios;
	int slave;

	tty->in = tty->out = posix_openpt(O_RDWR | O_NOCTTY);
	tty->own_in = tty->own_out = tty->is_pty = true;
	if (tty->in < 0 || fcntl(tty->in, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(tty->in, F_SETFL, O_RDWR | O_NONBLOCK) < 0 || grantpt(tty->in) < 0 ||
	    unlockpt(tty->in) < 0 || ptsname_r(tty->in, tty->path, sizeof(tty->path)) != 0)
		return -errno;
	/* Bytes, not lines; whoever attaches may change that again. */
	if (tcgetattr(tty->in, &termios) == 0) {
		cfmakeraw(&termios);
		tcsetattr(tty->in, TCSANOW, &termios);
	}
	tty->opens = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (tty->opens < 0 || inotify_add_watch(tty->opens, tty->path, IN_OPEN) < 0)
		return -errno;
	/* Only after it was open once does the master tell that nobody is there. */
	slave = open(tty->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	close(slave);
	vmsg_tty_poll(tty);
	return 0;
}

int vmsg_tty_open_pty(struct vmsg_tty **out, char *error, size_t error_size)
{
	struct vmsg_tty *tty = tty_new();
	int rc = tty ? open_pty(tty) : -ENOMEM;

	*out = NULL;
	if (rc) {
		snprintf(error, error_size, "cannot make a pseudo terminal: %s", strerror(-rc));
		vmsg_tty_close(tty);
		return rc;
	}
	*out = tty;
	return 0;
}

void vmsg_tty_poll(struct vmsg_tty *tty)
{
	char events[sizeof(struct inotify_event) + NAME_MAX + 1];

	if (!tty->is_pty)
		return;
	while (read(tty->opens, events, sizeof(events)) > 0)
		;
	tty->connected = !(ask_poll(tty->in, 0) & POLLHUP);
}

/* ---- Standard input and output ---- */

/*
 * Our own open file for what descriptor fd refers to: the flag O_NONBLOCK on the one we were given
 * would be seen by the shell and others who share it. Not possible for sockets.
 */
static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int open_stdio(struct vmsg_tty *tty, bool raw)
{
	struct termios termios;
	int flags = fcntl(STDOUT_FILENO, F_GETFL);

	if (fcntl(STDIN_FILENO, F_GETFL) < 0 || flags < 0)
		return -errno;
	tty->in = STDIN_FILENO;
	tty->out = STDOUT_FILENO;
	/* A file is written where the others write, and never waits for a reader. */
	if (isatty(STDOUT_FILENO) || lseek(STDOUT_FILENO, 0, SEEK_CUR) < 0) {
		int own = reopen(STDOUT_FILENO, O_WRONLY);

		tty->own_out = own >= 0;
		tty->waits = own < 0;
		if (own >= 0)
			tty->out = own;
	}
	tty->connected = true;
	snprintf(tty->path, sizeof(tty->path), "stdio");
	if (raw && isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &tty->saved) == 0) {
		termios = tty->saved;
		cfmakeraw(&termios);
		tty->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &termios) == 0;
	}
	return 0;
}

int vmsg_tty_open_stdio(struct vmsg_tty **out, bool raw, char *error, size_t error_size)
{
	struct vmsg_tty *tty = tty_new();
	int rc = tty ? open_stdio(tty, raw) : -ENOMEM;

	*out = NULL;
	if (rc) {
		snprintf(error, error_size, "cannot use standard input and output: %s",
			 strerror(-rc));
		vmsg_tty_close(tty);
		return rc;
	}
	*out = tty;
	return 0;
}

/* ---- Bytes ---- */

static int result_of(ssize_t done)
{
	if (done >= 0)
		return (int)done;
	return errno == EAGAIN || errno == EINTR ? VMSG_ERR_AGAIN : VMSG_ERR_IO;
}

static int write_tty(void *backend, const uint8_t *ptr, uint32_t len)
{
	struct vmsg_tty *tty = backend;

	if (tty->is_pty) {
		vmsg_tty_poll(tty);
		if (!tty->connected)
			return VMSG_ERR_IO;
	}
	if (tty->waits) {
		if (!(ask_poll(tty->out, POLLOUT) & POLLOUT))
			return VMSG_ERR_AGAIN;
		/* That much is certain not to wait. */
		if (len > PIPE_BUF)
			len = PIPE_BUF;
	}
	return result_of(write(tty->out, ptr, len));
}

static int read_tty(void *backend, uint8_t *ptr, uint32_t len)
{
	struct vmsg_tty *tty = backend;
	ssize_t got;

	if (tty->in < 0)
		return VMSG_ERR_AGAIN;
	/* Standard input may be one that waits. */
	if (!tty->is_pty && !(ask_poll(tty->in, POLLIN) & (POLLIN | POLLHUP | POLLERR)))
		return VMSG_ERR_AGAIN;
	got = read(tty->in, ptr, len);
	/* What was written before the other end was closed comes first, then this. */
	if (tty->is_pty && got < 0 && errno == EIO) {
		tty->connected = false;
		return VMSG_ERR_AGAIN;
	}
	if (!tty->is_pty && (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)))
		tty->in = -1; /* no more input, ever */
	return result_of(got);
}

const struct vmsg_console_backend vmsg_tty_backend = {
	.name = "tty",
	.write = write_tty,
	.read = read_tty,
};

/* ---- For the event loop ---- */

const char *vmsg_tty_path(const struct vmsg_tty *tty)
{
	return tty->path;
}

bool vmsg_tty_connected(const struct vmsg_tty *tty)
{
	return tty->connected;
}

uint32_t vmsg_tty_watches(const struct vmsg_tty *tty, bool wants_input, bool wants_output,
			  struct vmsg_tty_watch watches[VMSG_TTY_WATCHES])
{
	uint32_t count = 0;

	if (tty->is_pty) {
		if (tty->connected)
			watches[count++] =
				(struct vmsg_tty_watch){ tty->in, wants_input, wants_output };
		else
			watches[count++] = (struct vmsg_tty_watch){ tty->opens, true, false };
		return count;
	}
	if (wants_input && tty->in >= 0)
		watches[count++] = (struct vmsg_tty_watch){ tty->in, true, false };
	if (wants_output)
		watches[count++] = (struct vmsg_tty_watch){ tty->out, false, true };
	return count;
}

int vmsg_tty_size(const struct vmsg_tty *tty, uint16_t *cols, uint16_t *rows)
{
	struct winsize size;

	if (ioctl(tty->out, TIOCGWINSZ, &size) != 0)
		return -errno;
	*cols = size.ws_col;
	*rows = size.ws_row;
	return 0;
}
