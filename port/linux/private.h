/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of this folder share. */
#ifndef VMSG_LINUX_PRIVATE_H
#define VMSG_LINUX_PRIVATE_H

#include <vmsg/linux.h>

/* Writes one line for people and returns rc. */
#if defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
int vmsg_fail(char *err, size_t err_size, int rc, const char *format, ...);

struct sockaddr_un;

/* The address of a Unix socket. VMSG_ERR_INVAL when the path is too long. */
int vmsg_socket_name(struct sockaddr_un *name, const char *path, char *err, size_t err_size);

/* True when this process may run on one processor only, so that spinning never helps. */
bool vmsg_one_cpu(void);

/* Closes a descriptor, if it is one, and makes it -1. */
void vmsg_close_fd(int *fd);

/* Adds one to a non-blocking eventfd. */
void vmsg_ring_eventfd(int fd);

#endif
