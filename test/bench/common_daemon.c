/* SPDX-License-Identifier: BSD-3-Clause */
/* A real vmsgd as a second process. */
#include "common_daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 5000
#define ARGS_MAX 64u

/* ---- Leaving nothing behind ---- */

static struct bench_daemon current;
static char extra_file[128];
static pid_t owner;

/* Both do only what a signal handler may do. */
static void clean_daemon(void)
{
	if (current.pid > 0) {
		kill(current.pid, SIGKILL);
		waitpid(current.pid, NULL, 0);
		current.pid = 0;
	}
	if (current.dir[0]) {
		unlink(current.socket);
		unlink(current.control);
		unlink(current.others[0]);
		unlink(current.others[1]);
		rmdir(current.dir);
		current.dir[0] = '\0';
	}
}

static void clean_up(void)
{
	if (getpid() != owner)
		return;
	clean_daemon();
	if (extra_file[0])
		unlink(extra_file);
	extra_file[0] = '\0';
}

static void on_signal(int number)
{
	clean_up();
	_exit(128 + number);
}

static void promise_to_clean_up(void)
{
	if (owner)
		return;
	owner = getpid();
	atexit(clean_up);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
}

/* ---- Start and end ---- */

const char *bench_program(void)
{
	static char path[512];
	const char *build = getenv("VMSG_BUILD");

	snprintf(path, sizeof(path), "%s/vmsgd", build ? build : "build/bench");
	if (access(path, X_OK) != 0)
		bench_fail("%s is not there: run tool/build bench, or set VMSG_BUILD", path);
	return path;
}

static void run_daemon(const struct bench_daemon *daemon, const char *poll,
		       const char *const *devices, const char *program, int log)
{
	char bus[80];
	const char *args[ARGS_MAX];
	uint32_t count = 0;

	snprintf(bus, sizeof(bus), "amp:%s", daemon->socket);
	args[count++] = program;
	args[count++] = "--control";
	args[count++] = daemon->control;
	if (poll) {
		args[count++] = "--poll";
		args[count++] = poll;
	}
	args[count++] = "--bus";
	args[count++] = bus;
	for (; *devices && count < ARGS_MAX - 2; devices++) {
		args[count++] = "--device";
		args[count++] = *devices;
	}
	args[count] = NULL;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(log, STDERR_FILENO);
	execv(program, (char *const *)(uintptr_t)args);
	_exit(127);
}

/* Until the line that says so. */
static void wait_until_ready(const struct bench_daemon *daemon)
{
	char text[8192];
	size_t len = 0;

	for (;;) {
		struct pollfd log = { .fd = daemon->log, .events = POLLIN };
		ssize_t got = -1;

		if (poll(&log, 1, READY_MS) > 0)
			got = read(daemon->log, text + len, sizeof(text) - 1 - len);
		len += got > 0 ? (size_t)got : 0;
		text[len] = '\0';
		if (got <= 0)
			bench_fail("vmsgd does not start: %s", text);
		if (strstr(text, "ready"))
			return;
	}
}

void bench_daemon_start(struct bench_daemon *daemon, const char *poll, const char *const *devices)
{
	const char *program = bench_program();
	uint64_t start;
	int pipe_fds[2];

	promise_to_clean_up();
	memset(daemon, 0, sizeof(*daemon));
	snprintf(daemon->dir, sizeof(daemon->dir), "/tmp/vmsg-bench-XXXXXX");
	if (!mkdtemp(daemon->dir) || pipe2(pipe_fds, O_CLOEXEC) != 0)
		bench_die("mkdtemp");
	snprintf(daemon->socket, sizeof(daemon->socket), "%s/bus", daemon->dir);
	snprintf(daemon->control, sizeof(daemon->control), "%s/control", daemon->dir);
	snprintf(daemon->others[0], sizeof(daemon->others[0]), "%s/0", daemon->dir);
	snprintf(daemon->others[1], sizeof(daemon->others[1]), "%s/1", daemon->dir);
	current = *daemon;
	start = bench_ns();
	daemon->pid = fork();
	if (daemon->pid < 0)
		bench_die("fork");
	if (daemon->pid == 0)
		run_daemon(daemon, poll, devices, program, pipe_fds[1]);
	close(pipe_fds[1]);
	daemon->log = pipe_fds[0];
	current = *daemon;
	wait_until_ready(daemon);
	daemon->start_ns = bench_ns() - start;
}

void bench_daemon_stop(struct bench_daemon *daemon)
{
	char text[1024];
	ssize_t got;
	int status = 0;

	/* Its threads may need the processor that it spins on. */
	bench_unpin(daemon->pid);
	bench_ordinary(daemon->pid);
	kill(daemon->pid, SIGCONT);
	kill(daemon->pid, SIGTERM);
	waitpid(daemon->pid, &status, 0);
	current.pid = 0;
	clean_daemon();
	got = read(daemon->log, text, sizeof(text) - 1);
	text[got > 0 ? got : 0] = '\0';
	close(daemon->log);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_fail("vmsgd ended with status 0x%x: %s", (unsigned int)status, text);
}

void bench_daemon_freeze(const struct bench_daemon *daemon)
{
	int status;

	kill(daemon->pid, SIGSTOP);
	if (waitpid(daemon->pid, &status, WUNTRACED) != daemon->pid || !WIFSTOPPED(status))
		bench_fail("vmsgd is gone");
}

void bench_daemon_thaw(const struct bench_daemon *daemon)
{
	kill(daemon->pid, SIGCONT);
}

/* ---- What it knows about itself ---- */

static json_t *ask_stat(const struct bench_daemon *daemon)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	static const char command[] = "{\"cmd\":\"stat\"}\n";
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	json_error_t error;
	json_t *answer;

	snprintf(name.sun_path, sizeof(name.sun_path), "%s", daemon->control);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&name, sizeof(name)) != 0 ||
	    write(fd, command, sizeof(command) - 1) != (ssize_t)sizeof(command) - 1)
		bench_die("control socket");
	shutdown(fd, SHUT_WR);
	answer = json_loadfd(fd, 0, &error);
	close(fd);
	if (!answer)
		bench_fail("stat: %s", error.text);
	return answer;
}

uint64_t bench_daemon_stat(const struct bench_daemon *daemon, const char *path)
{
	json_t *answer = ask_stat(daemon);
	json_t *at = answer;
	char copy[128];
	uint64_t value;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *rest = copy, *part; (part = strsep(&rest, ".")) != NULL;) {
		if (json_is_array(at))
			at = json_array_get(at, strtoul(part, NULL, 10));
		else
			at = json_object_get(at, part);
	}
	if (!json_is_integer(at))
		bench_fail("stat has no %s", path);
	value = (uint64_t)json_integer_value(at);
	json_decref(answer);
	return value;
}

static FILE *open_proc(const struct bench_daemon *daemon, const char *name)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)daemon->pid, name);
	file = fopen(path, "re");
	if (!file)
		bench_die(path);
	return file;
}

uint64_t bench_daemon_kib(const struct bench_daemon *daemon, const char *name)
{
	FILE *file = open_proc(daemon, "status");
	unsigned long long kib = 0;
	char line[256];

	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			kib = strtoull(line + strlen(name) + 1, NULL, 10);
	}
	fclose(file);
	return kib;
}

uint32_t bench_daemon_libraries(const struct bench_daemon *daemon)
{
	FILE *file = open_proc(daemon, "maps");
	char line[512], last[512] = "";
	uint32_t count = 0;

	/* The pieces of a library follow each other. */
	while (fgets(line, sizeof(line), file)) {
		const char *path = strchr(line, '/');

		if (!path || !strstr(path, ".so") || strstr(path, "/ld-") ||
		    strcmp(path, last) == 0)
			continue;
		snprintf(last, sizeof(last), "%s", path);
		count++;
	}
	fclose(file);
	return count;
}

int bench_file_make(const char *path, uint64_t bytes)
{
	static uint64_t block[4096 / 8];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	promise_to_clean_up();
	if (fd < 0)
		bench_die(path);
	snprintf(extra_file, sizeof(extra_file), "%s", path);
	for (uint64_t at = 0; at < bytes; at += sizeof(block)) {
		for (uint32_t i = 0; i < sizeof(block) / 8; i += 64)
			block[i] = at + 8 * i;
		if (pwrite(fd, block, sizeof(block), (off_t)at) != (ssize_t)sizeof(block))
			bench_die(path);
	}
	return fd;
}
