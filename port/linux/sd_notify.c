/* SPDX-License-Identifier: BSD-3-Clause */
/* systemd's notification protocol: one datagram to the socket that $NOTIFY_SOCKET names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vmsg/linux.h>

int vmsg_sd_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t len;
	ssize_t sent;
	int fd, rc;

	if (!path || !path[0])
		return 0;
	len = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || len >= sizeof(name.sun_path))
		return VMSG_ERR_INVAL;
	memcpy(name.sun_path, path, len);
	if (path[0] == '@') /* an abstract name, whose length counts */
		name.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
		      (const struct sockaddr *)&name,
		      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	rc = sent < 0 ? -errno : 1;
	close(fd);
	return rc;
}
