/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vmsg: virtio devices whose control operations are messages over a bus.
 *
 * What holds for every function of these headers, said once:
 *
 * - Results. 0 or a count is success; below zero is one of VMSG_ERR_*, which are -errno of Linux on
 *   every platform. A function that returns void cannot fail.
 * - Storage. The caller owns it all. An init function keeps the pointers it is given until the
 *   object is no longer used; nothing is allocated. Received data is a view, valid until the
 *   function that delivered it returns.
 * - Context. One bus, and everything that hangs on it, belongs to one thread. No function sleeps
 *   unless its comment says "blocks"; those call the bus's wait operation and end within a time
 *   given by the caller.
 * - Errors of the program assert (VMSG_ASSERT, always compiled in). Errors of a peer never do: they
 *   are counted, and dropped or turned into NEEDS_RESET. Errors of the environment are results.
 * - Directions are the driver's view, as in the specification: the driver writes what is readable,
 *   the device writes what is writable.
 * - Feature constants are bit numbers, to be used with vmsg_has() and VMSG_BIT().
 */
#ifndef VMSG_VMSG_H
#define VMSG_VMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMSG_ERR_NOENT    (-2)   /* no such message, queue, region */
#define VMSG_ERR_IO       (-5)   /* the backend failed, or the peer refused */
#define VMSG_ERR_AGAIN    (-11)  /* no room now; try again after progress */
#define VMSG_ERR_NOMEM    (-12)  /* the storage given is too small */
#define VMSG_ERR_BUSY     (-16)  /* the object is in use, or not in the state for this */
#define VMSG_ERR_NODEV    (-19)  /* no such device */
#define VMSG_ERR_INVAL    (-22)  /* an argument makes no sense */
#define VMSG_ERR_PROTO    (-71)  /* the peer broke the protocol */
#define VMSG_ERR_BADMSG   (-74)  /* malformed message */
#define VMSG_ERR_MSGSIZE  (-90)  /* the message does not fit the bus or the buffer */
#define VMSG_ERR_NOTSUP   (-95)  /* not offered by this peer or this bus */
#define VMSG_ERR_SHUTDOWN (-108) /* the peer is gone or not there yet */
#define VMSG_ERR_TIMEDOUT (-110) /* no answer in the time given */

/* A word for people, e.g. "no answer in time". Never NULL. Source: core/msg_text.c. */
const char *vmsg_error_text(int error);

#define VMSG_BIT(bit) ((uint64_t)1 << (bit))

static inline bool vmsg_has(uint64_t features, unsigned int bit)
{
	return (features >> bit) & 1;
}

/* Device status bits (virtio 1.4, 2.1). */
#define VMSG_STATUS_ACKNOWLEDGE 0x01u
#define VMSG_STATUS_DRIVER      0x02u
#define VMSG_STATUS_DRIVER_OK   0x04u
#define VMSG_STATUS_FEATURES_OK 0x08u
#define VMSG_STATUS_NEEDS_RESET 0x40u
#define VMSG_STATUS_FAILED      0x80u

/* Reserved feature bits (virtio 1.4, 6), bit numbers. */
#define VMSG_F_INDIRECT_DESC     28
#define VMSG_F_EVENT_IDX         29
#define VMSG_F_VERSION_1         32
#define VMSG_F_ACCESS_PLATFORM   33
#define VMSG_F_RING_PACKED       34
#define VMSG_F_IN_ORDER          35
#define VMSG_F_ORDER_PLATFORM    36
#define VMSG_F_NOTIFICATION_DATA 38
#define VMSG_F_NOTIF_CONFIG_DATA 39
#define VMSG_F_RING_RESET        40

/* Transport feature bits of a bus (wire.md 2.9), bit numbers in struct vmsg_bus.features. */
#define VMSG_F_STRICT_CONFIG_GENERATION 0

#endif
