/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The name of a listening Unix socket: taken when it is free or its last owner is dead, never from
 * one that lives, and given back only while it is ours.
 *
 * Between finding a dead socket and replacing it, another process may do the same. A lock on the
 * directory orders them; it leaves no file behind.
 */
#include "private.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LOCK_TRIES 200 /* of 5 ms */

int vmsg_socket_name(struct sockaddr_un *name, const char *path, char *err, size_t err_size)
{
	size_t len = strlen(path);

	*name = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!len || len >= sizeof(name->sun_path))
		return vmsg_fail(err, err_size, VMSG_ERR_INVAL,
				 "the path of a socket has 1 to %zu bytes, this one has %zu",
				 sizeof(name->sun_path) - 1, len);
	memcpy(name->sun_path, path, len);
	return 0;
}

/* Opens and locks the directory of path. Without a lock (a file system has none) it goes on. */
static int lock_directory(const char *path, char *err, size_t err_size)
{
	char folder[VMSG_PATH_BYTES] = ".";
	const char *slash = strrchr(path, '/');
	int fd, rc;

	if (slash) {
		size_t len = slash == path ? 1 : (size_t)(slash - path);

		memcpy(folder, path, len);
		folder[len] = 0;
	}
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "the directory %s of the socket: %s", folder,
				 strerror(rc));
	}
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK; i++) {
		static const struct timespec pause = { .tv_nsec = 5000000 };

		if (i == LOCK_TRIES)
			break;
		nanosleep(&pause, NULL);
	}
	return fd;
}

/* What stands at the place: 0 when it was removed. */
static int remove_stale(const struct sockaddr_un *name, char *err, size_t err_size)
{
	const char *path = name->sun_path;
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return vmsg_fail(err, err_size, -EEXIST, "%s exists and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		rc = errno;
		return vmsg_fail(err, err_size, -rc, "cannot make a socket: %s", strerror(rc));
	}
	rc = connect(fd, (const struct sockaddr *)name, sizeof(*name)) < 0 ? errno : 0;
	close(fd);
	if (rc == ECONNREFUSED && unlink(path) == 0)
		return 0;
	if (rc == 0 || rc == EAGAIN)
		return vmsg_fail(err, err_size, VMSG_ERR_BUSY, "%s is served by another process",
				 path);
	return vmsg_fail(err, err_size, -rc, "%s is in the way and cannot be replaced: %s", path,
			 strerror(rc == ECONNREFUSED ? errno : rc));
}

static int bind_name(int fd, const struct sockaddr_un *name, char *err, size_t err_size)
{
	const struct sockaddr *address = (const struct sockaddr *)name;
	int rc;

	if (bind(fd, address, sizeof(*name)) == 0)
		return 0;
	if (errno == EADDRINUSE) {
		rc = remove_stale(name, err, err_size);
		if (rc < 0)
			return rc;
		if (bind(fd, address, sizeof(*name)) == 0)
			return 0;
	}
	rc = errno;
	return vmsg_fail(err, err_size, -rc, "cannot make the socket %s: %s", name->sun_path,
			 strerror(rc));
}

int vmsg_listen(struct vmsg_listener *listener, const char *path, uint32_t mode, char *err,
		size_t err_size)
{
	struct sockaddr_un name;
	struct stat st;
	int folder, rc;

	listener->fd = -1;
	rc = vmsg_socket_name(&name, path, err, err_size);
	if (rc < 0)
		return rc;
	folder = lock_directory(path, err, err_size);
	if (folder < 0)
		return folder;
	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0) {
		rc = errno;
		close(folder);
		return vmsg_fail(err, err_size, -rc, "cannot make a socket: %s", strerror(rc));
	}
	/* The file never has more rights than this; chmod then gives what the umask took. */
	fchmod(listener->fd, (mode_t)mode);
	rc = bind_name(listener->fd, &name, err, err_size);
	if (rc == 0 && (chmod(path, (mode_t)mode) < 0 || lstat(path, &st) < 0 ||
			listen(listener->fd, 64) < 0)) {
		rc = vmsg_fail(err, err_size, -errno, "cannot listen on %s: %s", path,
			       strerror(errno));
		unlink(path);
	}
	close(folder);
	if (rc < 0) {
		vmsg_close_fd(&listener->fd);
		return rc;
	}
	strcpy(listener->path, path);
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
	return 0;
}

void vmsg_unlisten(struct vmsg_listener *listener)
{
	int folder;
	struct stat st;

	if (listener->fd < 0)
		return;
	folder = lock_directory(listener->path, NULL, 0);
	if (lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
	    st.st_ino == listener->inode)
		unlink(listener->path);
	vmsg_close_fd(&listener->fd);
	vmsg_close_fd(&folder);
}
