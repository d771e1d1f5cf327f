/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one wire table: every message of every dialect (wire.md 2.3, 2.4, 2.6). The codec, the names,
 * the decoder of the tools and the tests are expansions of these lists; there is no second place.
 *
 * A layout lists the payload's fields in order:  F(width, member of struct vmsg_msg)
 *   U16 U32 U64  little-endian, kept in a member of 32, 32 and 64 bits
 *   L32          little-endian 32 bits, kept in a member of 64
 *   UUID         16 bytes
 *   BITS         little-endian 32 bits counting feature bits, kept as a number of 32-bit blocks
 *   ZERO         32 bits that are sent 0 and kept nowhere
 * and ends with what follows them, the tail:
 *   END     nothing            BLOCKS  32-bit words, as many as features.num_blocks
 *   BYTES   `length` bytes     MAYBE   `length` bytes, or none
 *   BITMAP  one bit for each of devices.count, in whole bytes
 */
#ifndef VMSG_WIRE_H
#define VMSG_WIRE_H

#define VMSG_LAYOUT_EMPTY(F)
#define VMSG_LAYOUT_INFO_V2(F)                                                                     \
	F(U32, info.device_id)                                                                     \
	F(U32, info.vendor_id)                                                                     \
	F(UUID, info.device_uuid)                                                                  \
	F(U32, info.num_feature_blocks)                                                            \
	F(U32, info.config_size)                                                                   \
	F(U32, info.max_virtqueues)                                                                \
	F(U32, info.admin_vq_start)                                                                \
	F(U32, info.admin_vq_count)
#define VMSG_LAYOUT_INFO_V1(F)                                                                     \
	F(U32, info.device_id)                                                                     \
	F(U32, info.vendor_id)                                                                     \
	F(BITS, info.num_feature_blocks)                                                           \
	F(U32, info.config_size)                                                                   \
	F(U32, info.max_virtqueues)                                                                \
	F(U16, info.admin_vq_start)                                                                \
	F(U16, info.admin_vq_count)
#define VMSG_LAYOUT_FEATURES_ASK(F)                                                                \
	F(U32, features.block_index)                                                               \
	F(U32, features.num_blocks)
#define VMSG_LAYOUT_FEATURES(F) VMSG_LAYOUT_FEATURES_ASK(F)
#define VMSG_LAYOUT_CONFIG_ASK(F)                                                                  \
	F(U32, config.offset)                                                                      \
	F(U32, config.length)
#define VMSG_LAYOUT_CONFIG(F)                                                                      \
	F(U32, config.generation)                                                                  \
	F(U32, config.offset)                                                                      \
	F(U32, config.length)
#define VMSG_LAYOUT_CONFIG_LOOSE(F) VMSG_LAYOUT_CONFIG(F)
#define VMSG_LAYOUT_STATUS(F) F(U32, status.status)
#define VMSG_LAYOUT_INDEX(F)  F(U32, vqueue.index)
#define VMSG_LAYOUT_VQUEUE_V2(F)                                                                   \
	F(U32, vqueue.index)                                                                       \
	F(U32, vqueue.max_size)                                                                    \
	F(U32, vqueue.size)                                                                        \
	F(U32, vqueue.flags)                                                                       \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_VQUEUE_V1(F)                                                                   \
	F(U32, vqueue.index)                                                                       \
	F(U32, vqueue.max_size)                                                                    \
	F(U32, vqueue.size)                                                                        \
	F(ZERO, vqueue.reserved)                                                                   \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_VQUEUE_RFC2(F)                                                                 \
	F(U32, vqueue.index)                                                                       \
	F(U32, vqueue.max_size)                                                                    \
	F(U32, vqueue.size)                                                                        \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_VQUEUE_SET(F)                                                                  \
	F(U32, vqueue.index)                                                                       \
	F(U32, vqueue.flags)                                                                       \
	F(U32, vqueue.size)                                                                        \
	F(U32, vqueue.reserved)                                                                    \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_VQUEUE_SET_V1(F)                                                               \
	F(U32, vqueue.index)                                                                       \
	F(ZERO, vqueue.flags)                                                                      \
	F(U32, vqueue.size)                                                                        \
	F(ZERO, vqueue.reserved)                                                                   \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_VQUEUE_SET_RFC2(F)                                                             \
	F(U32, vqueue.index)                                                                       \
	F(ZERO, vqueue.flags)                                                                      \
	F(U32, vqueue.size)                                                                        \
	F(U64, vqueue.desc_addr)                                                                   \
	F(U64, vqueue.driver_addr)                                                                 \
	F(U64, vqueue.device_addr)
#define VMSG_LAYOUT_SHM_ASK(F) F(U32, shm.shmid)
#define VMSG_LAYOUT_SHM_V2(F)                                                                      \
	F(U32, shm.shmid)                                                                          \
	F(ZERO, shm.reserved)                                                                      \
	F(U64, shm.length)                                                                         \
	F(U64, shm.address)
#define VMSG_LAYOUT_SHM_V1(F)                                                                      \
	F(U32, shm.shmid)                                                                          \
	F(L32, shm.length)                                                                         \
	F(L32, shm.address)
#define VMSG_LAYOUT_EVENT_CONFIG(F)                                                                \
	F(U32, config.device_status)                                                               \
	F(U32, config.generation)                                                                  \
	F(U32, config.offset)                                                                      \
	F(U32, config.length)
#define VMSG_LAYOUT_EVENT_AVAIL(F)                                                                 \
	F(U32, event.vq_index)                                                                     \
	F(U32, event.next_offset)
#define VMSG_LAYOUT_EVENT_USED(F) F(U32, event.vq_index)
#define VMSG_LAYOUT_DEVICES_ASK(F)                                                                 \
	F(U16, devices.offset)                                                                     \
	F(U16, devices.count)
#define VMSG_LAYOUT_DEVICES_V2(F)                                                                  \
	F(U16, devices.offset)                                                                     \
	F(U16, devices.next_offset)                                                                \
	F(U16, devices.count)
#define VMSG_LAYOUT_DEVICES_V1(F)                                                                  \
	F(U16, devices.offset)                                                                     \
	F(U16, devices.count)                                                                      \
	F(U16, devices.next_offset)
#define VMSG_LAYOUT_PING(F) F(U32, ping.data)
#define VMSG_LAYOUT_EVENT_DEVICE(F)                                                                \
	F(U16, event_device.device_number)                                                         \
	F(U16, event_device.device_bus_state)

/* L(name, tail) */
#define VMSG_WIRE_LAYOUTS(L)                                                                       \
	L(EMPTY, END)                                                                              \
	L(INFO_V2, END)                                                                            \
	L(INFO_V1, END)                                                                            \
	L(FEATURES_ASK, END)                                                                       \
	L(FEATURES, BLOCKS)                                                                        \
	L(CONFIG_ASK, END)                                                                         \
	L(CONFIG, BYTES)                                                                           \
	L(CONFIG_LOOSE, MAYBE)                                                                     \
	L(STATUS, END)                                                                             \
	L(INDEX, END)                                                                              \
	L(VQUEUE_V2, END)                                                                          \
	L(VQUEUE_V1, END)                                                                          \
	L(VQUEUE_RFC2, END)                                                                        \
	L(VQUEUE_SET, END)                                                                         \
	L(VQUEUE_SET_V1, END)                                                                      \
	L(VQUEUE_SET_RFC2, END)                                                                    \
	L(SHM_ASK, END)                                                                            \
	L(SHM_V2, END)                                                                             \
	L(SHM_V1, END)                                                                             \
	L(EVENT_CONFIG, MAYBE)                                                                     \
	L(EVENT_AVAIL, END)                                                                        \
	L(EVENT_USED, END)                                                                         \
	L(DEVICES_ASK, END)                                                                        \
	L(DEVICES_V2, BITMAP)                                                                      \
	L(DEVICES_V1, BITMAP)                                                                      \
	L(PING, END)                                                                               \
	L(EVENT_DEVICE, END)                                                                       \
	L(NEVER, END)
#define VMSG_LAYOUT_NEVER(F)

/*
 * R(name, bus, id, request in v2, v1, rfc2, response in v2, v1, rfc2)
 * bus is 0 for transport messages, 2 for bus messages: bit 1 of the type byte.
 * An event is a request that is never answered.
 */
#define VMSG_WIRE_ROWS(R)                                                                          \
	R(GET_DEVICE_INFO, 0, 0x02, EMPTY, EMPTY, EMPTY, INFO_V2, INFO_V1, INFO_V1)                \
	R(GET_DEVICE_FEATURES, 0, 0x03, FEATURES_ASK, FEATURES_ASK, FEATURES_ASK, FEATURES,        \
	  FEATURES, FEATURES)                                                                      \
	R(SET_DRIVER_FEATURES, 0, 0x04, FEATURES, FEATURES, FEATURES, EMPTY, EMPTY, EMPTY)         \
	R(GET_CONFIG, 0, 0x05, CONFIG_ASK, CONFIG_ASK, CONFIG_ASK, CONFIG, CONFIG, CONFIG)         \
	R(SET_CONFIG, 0, 0x06, CONFIG, CONFIG, CONFIG, CONFIG, CONFIG_LOOSE, CONFIG_LOOSE)         \
	R(GET_DEVICE_STATUS, 0, 0x07, EMPTY, EMPTY, EMPTY, STATUS, STATUS, STATUS)                 \
	R(SET_DEVICE_STATUS, 0, 0x08, STATUS, STATUS, STATUS, STATUS, STATUS, STATUS)              \
	R(GET_VQUEUE, 0, 0x09, INDEX, INDEX, INDEX, VQUEUE_V2, VQUEUE_V1, VQUEUE_RFC2)             \
	R(SET_VQUEUE, 0, 0x0a, VQUEUE_SET, VQUEUE_SET_V1, VQUEUE_SET_RFC2, EMPTY, EMPTY, EMPTY)    \
	R(RESET_VQUEUE, 0, 0x0b, INDEX, INDEX, INDEX, EMPTY, EMPTY, EMPTY)                         \
	R(GET_SHM, 0, 0x0c, SHM_ASK, SHM_ASK, SHM_ASK, SHM_V2, SHM_V1, SHM_V1)                     \
	R(EVENT_CONFIG, 0, 0x40, EVENT_CONFIG, EVENT_CONFIG, EVENT_CONFIG, NEVER, NEVER, NEVER)    \
	R(EVENT_AVAIL, 0, 0x41, EVENT_AVAIL, EVENT_AVAIL, EVENT_AVAIL, NEVER, NEVER, NEVER)        \
	R(EVENT_USED, 0, 0x42, EVENT_USED, EVENT_USED, EVENT_USED, NEVER, NEVER, NEVER)            \
	R(GET_DEVICES, 2, 0x02, DEVICES_ASK, DEVICES_ASK, DEVICES_ASK, DEVICES_V2, DEVICES_V1,     \
	  DEVICES_V1)                                                                              \
	R(PING, 2, 0x03, PING, PING, PING, PING, PING, PING)                                       \
	R(EVENT_DEVICE, 2, 0x40, EVENT_DEVICE, EVENT_DEVICE, EVENT_DEVICE, NEVER, NEVER, NEVER)

#endif
