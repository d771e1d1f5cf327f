/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket: JSON, one line a command, one line an answer. A client is read only while
 * nothing is owed to it, so that one who never reads costs no more than its last answer.
 */
#include "vmsgd.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536u /* without the newline */
#define CLIENTS_MAX    32u
#define PAUSE_MS       200u /* no more descriptors: try again after this */

struct client {
	struct client *next;
	struct daemon *daemon;
	struct vmsg_watch watch;
	bool waits;    /* the answer to its last command comes later */
	bool too_long; /* inside a line that is skipped */
	bool ended;    /* it will send no more */
	bool busy;     /* its commands are being carried out */
	char *answer;
	size_t answer_len, answer_sent, in_len;
	char in[LINE_MAX_BYTES + 1];
};

struct control {
	struct vmsg_listener listener;
	struct vmsg_watch watch;
	struct vmsg_timer pause;
	struct client *clients;
	uint32_t client_count;
};

/* ---- One client ---- */

static void client_close(struct client *client)
{
	struct daemon *daemon = client->daemon;
	struct client **link = &daemon->control->clients;

	for (struct device *device = daemon->devices; device; device = device->next) {
		if (device->remover == client)
			device->remover = NULL;
	}
	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	daemon->control->client_count--;
	vmsg_events_remove(&daemon->events, &client->watch);
	close(client->watch.fd);
	free(client->answer);
	free(client);
}

/* Sends what is owed. False: the client is lost. */
static bool client_send(struct client *client)
{
	while (client->answer_sent < client->answer_len) {
		ssize_t sent =
			send(client->watch.fd, client->answer + client->answer_sent,
			     client->answer_len - client->answer_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN;
		client->answer_sent += (size_t)sent;
	}
	free(client->answer);
	client->answer = NULL;
	client->answer_len = client->answer_sent = 0;
	return true;
}

/* One answer at a time is owed, so there is nothing to append to. */
static void client_answer(struct client *client, json_t *reply)
{
	size_t len;

	client->waits = false;
	client->answer = json_dumps(reply, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(reply);
	if (!client->answer) {
		client->ended = true; /* out of memory: better no answer than half of one */
		return;
	}
	len = strlen(client->answer);
	client->answer[len] = '\n'; /* in place of the 0; the length counts */
	client->answer_len = len + 1;
}

static json_t *too_long(void)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", "a line may have 65536 bytes");
}

static bool is_blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!strchr(" \t\r", line[i]) || !line[i])
			return false;
	}
	return true;
}

/* Carries out the first `len` bytes, and forgets `used`. */
static void client_run(struct client *client, size_t len, size_t used)
{
	json_t *reply = NULL;

	if (client->too_long) {
		reply = too_long();
	} else if (!is_blank(client->in, len)) {
		client->waits = true;
		reply = command_run(client->daemon, client, client->in, len);
	}
	client->too_long = false;
	client->in_len -= used;
	memmove(client->in, client->in + used, client->in_len);
	if (reply)
		client_answer(client, reply);
}

/* Runs the next line in the buffer. False: there is no whole one. */
static bool client_step(struct client *client)
{
	char *end = memchr(client->in, '\n', client->in_len);

	if (end) {
		size_t len = (size_t)(end - client->in);

		client_run(client, len, len + 1);
		return true;
	}
	if (client->in_len > LINE_MAX_BYTES) {
		client->too_long = true;
		client->in_len = 0;
	}
	if (client->ended && (client->in_len || client->too_long)) {
		client_run(client, client->in_len, client->in_len);
		return true;
	}
	return false;
}

/* Goes on as far as possible; may close the client. */
static void client_advance(struct client *client)
{
	uint32_t wanted = 0;

	if (client->busy)
		return;
	client->busy = true;
	for (;;) {
		if (client->answer && !client_send(client)) {
			client_close(client);
			return;
		}
		if (client->waits || client->answer || !client_step(client))
			break;
	}
	client->busy = false;
	if (client->ended && !client->waits && !client->answer) {
		client_close(client);
		return;
	}
	if (client->answer)
		wanted = EPOLLOUT;
	else if (!client->ended && !client->waits)
		wanted = EPOLLIN;
	if (client->watch.events != wanted)
		vmsg_events_modify(&client->daemon->events, &client->watch, wanted);
}

static void on_client(struct vmsg_watch *watch, uint32_t events)
{
	struct client *client = watch->user;

	if ((events & EPOLLIN) && !client->answer && !client->waits) {
		ssize_t got = recv(watch->fd, client->in + client->in_len,
				   sizeof(client->in) - client->in_len, MSG_DONTWAIT);

		if (got > 0)
			client->in_len += (size_t)got;
		else if (got == 0)
			client->ended = true;
		else if (errno != EAGAIN && errno != EINTR)
			events |= EPOLLERR;
	} else if (events & EPOLLHUP) {
		events |= EPOLLERR; /* nobody reads the answer */
	}
	if (events & EPOLLERR)
		client_close(client);
	else
		client_advance(client);
}

void control_removed(struct client *client)
{
	client_answer(client, json_pack("{s:b}", "ok", 1));
	client_advance(client);
}

/* ---- The socket ---- */

static void client_new(struct daemon *daemon, int fd)
{
	struct control *control = daemon->control;
	struct client *client = NULL;

	if (control->client_count < CLIENTS_MAX)
		client = malloc(sizeof(*client));
	if (!client) {
		static const char refusal[] = "{\"ok\":false,\"error\":\"too many clients\"}\n";

		if (send(fd, refusal, sizeof(refusal) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			daemon_log(daemon, LOG_VERBOSE, "control: a client left early");
		close(fd);
		return;
	}
	memset(client, 0,
	       offsetof(struct client, in)); /* the buffer costs nothing before its use */
	client->daemon = daemon;
	client->watch = (struct vmsg_watch){ .fd = fd, .events = EPOLLIN, .ready = on_client };
	client->watch.user = client;
	if (vmsg_events_add(&daemon->events, &client->watch) < 0) {
		close(fd);
		free(client);
		return;
	}
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
}

static void on_connect(struct vmsg_watch *watch, uint32_t events)
{
	struct daemon *daemon = watch->user;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0) {
		client_new(daemon, fd);
	} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* No descriptors: who connects waits. */
		vmsg_events_remove(&daemon->events, watch);
		vmsg_events_start_timer(&daemon->events, &daemon->control->pause, PAUSE_MS, 0);
	}
}

static void on_pause_over(struct vmsg_timer *timer)
{
	struct daemon *daemon = timer->user;

	if (vmsg_events_add(&daemon->events, &daemon->control->watch) < 0)
		vmsg_events_start_timer(&daemon->events, timer, PAUSE_MS, 0);
}

int control_open(struct daemon *daemon, const char *path, char *err, size_t err_size)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	if (!control)
		return common_fail(err, err_size, VMSG_ERR_NOMEM, "out of memory");
	rc = vmsg_listen(&control->listener, path, 0600, err, err_size);
	if (rc < 0) {
		free(control);
		return rc;
	}
	daemon->control = control;
	control->pause = (struct vmsg_timer){ .fire = on_pause_over, .user = daemon };
	control->watch = (struct vmsg_watch){
		.fd = control->listener.fd,
		.events = EPOLLIN,
		.ready = on_connect,
		.user = daemon,
	};
	rc = vmsg_events_add(&daemon->events, &control->watch);
	if (rc < 0)
		return common_fail(err, err_size, rc, "control socket: %s", strerror(-rc));
	return 0;
}

void control_close(struct daemon *daemon)
{
	struct control *control = daemon->control;

	if (!control)
		return;
	while (control->clients)
		client_close(control->clients);
	vmsg_events_stop_timer(&daemon->events, &control->pause);
	vmsg_events_remove(&daemon->events, &control->watch);
	vmsg_unlisten(&control->listener);
	free(control);
	daemon->control = NULL;
}
