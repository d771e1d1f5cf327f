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

/* What came of spinning. */
void vmsg_spin_paid(struct vmsg_spin *spin, bool paid);

/* Whether to try it now. */
bool vmsg_spin_try(struct vmsg_spin *spin);

/* Closes a descriptor, if it is one, and makes it -1. */
void vmsg_close_fd(int *fd);

/* Adds one to a non-blocking eventfd. */
void vmsg_ring_eventfd(int fd);

struct vmsg_guard;

/* Starts a guard over the doorbells of up to VMSG_IVSHMEM_MAX_PEERS clients. NULL: no resources. */
struct vmsg_guard *vmsg_guard_new(void);
void vmsg_guard_free(struct vmsg_guard *guard);

/* The doorbell of a client, or -1 before it is closed. */
void vmsg_guard_set(struct vmsg_guard *guard, uint32_t index, int fd);

/* Rings it. False when the client made the write block: it is hostile. */
bool vmsg_guard_ring(struct vmsg_guard *guard, uint32_t index, int fd);

/* ---- lazy_bell.c ---- */

struct vmsg_lazy_bell;

#define VMSG_READY_BELL   0x1u
#define VMSG_READY_SOCKET 0x2u

/* NULL: this system has no io_uring, or one that is too old. */
struct vmsg_lazy_bell *vmsg_lazy_bell_new(int bell_in, int bell_out, int socket);
void vmsg_lazy_bell_free(struct vmsg_lazy_bell *lazy);

/* Rings with the next wait; or now, if that is still to come. */
void vmsg_lazy_bell_ring(struct vmsg_lazy_bell *lazy);
void vmsg_lazy_bell_flush(struct vmsg_lazy_bell *lazy);

/* Rings, and sleeps up to ms (-1: no limit) for a doorbell or the socket: VMSG_READY_*. */
uint32_t vmsg_lazy_bell_wait(struct vmsg_lazy_bell *lazy, int ms);

/* Ready for reading when a wait would not sleep. */
int vmsg_lazy_bell_fd(const struct vmsg_lazy_bell *lazy);

#endif
