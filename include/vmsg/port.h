/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the freestanding code asks of a platform: fences, single accesses to shared memory, and
 * cache maintenance where memory is not coherent.
 *
 * Shared words are 8, 16 or 32 bits, aligned, and each is written by one side only. There is no
 * read-modify-write and no 64-bit access: heterogeneous masters lose the first, small cores lack
 * the second. Fences order those accesses; every use names its partner.
 *
 * A platform whose shared memory is not coherent defines VMSG_CACHE_CLEAN (write back, before the
 * peer reads) and VMSG_CACHE_INVALIDATE (discard, before we read) on the command line or in a
 * header named by VMSG_PORT_HEADER. The defaults do nothing.
 */
#ifndef VMSG_PORT_H
#define VMSG_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef VMSG_PORT_HEADER
#include VMSG_PORT_HEADER
#endif

#ifndef VMSG_CACHE_CLEAN
#define VMSG_CACHE_CLEAN(ptr, len) ((void)(ptr), (void)(len))
#endif
#ifndef VMSG_CACHE_INVALIDATE
#define VMSG_CACHE_INVALIDATE(ptr, len) ((void)(ptr), (void)(len))
#endif

/* The four functions that freestanding code may call; a compiler needs them anyway. */
#ifdef __cplusplus
#include <string.h>
#else
void *memcpy(void *to, const void *from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
#endif

/* A programmer's error: stops the program at the spot, in every build. Never used on peer data. */
#ifndef VMSG_ASSERT
#define VMSG_ASSERT(truth)                                                                         \
	do {                                                                                       \
		if (!(truth))                                                                      \
			__builtin_trap();                                                          \
	} while (0)
#endif

#if defined(__GNUC__)
#define vmsg_mb()  __atomic_thread_fence(__ATOMIC_SEQ_CST) /* all before, then all after */
#define vmsg_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE) /* loads before, then all after */
#define vmsg_wmb() __atomic_thread_fence(__ATOMIC_RELEASE) /* all before, then stores after */
#else
#error "unknown compiler: define vmsg_mb, vmsg_rmb and vmsg_wmb in VMSG_PORT_HEADER"
#endif

/* Tells the processor that this is a spin loop. */
static inline void vmsg_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define VMSG_BIG_ENDIAN 1
static inline uint16_t vmsg_le16(uint16_t value)
{
	return __builtin_bswap16(value);
}
static inline uint32_t vmsg_le32(uint32_t value)
{
	return __builtin_bswap32(value);
}
static inline uint64_t vmsg_le64(uint64_t value)
{
	return __builtin_bswap64(value);
}
#else
#define VMSG_BIG_ENDIAN 0
static inline uint16_t vmsg_le16(uint16_t value)
{
	return value;
}
static inline uint32_t vmsg_le32(uint32_t value)
{
	return value;
}
static inline uint64_t vmsg_le64(uint64_t value)
{
	return value;
}
#endif

/* One aligned little-endian access to memory that a peer also touches. */
static inline uint16_t vmsg_load16(const void *ptr)
{
	return vmsg_le16(*(const volatile uint16_t *)ptr);
}

static inline void vmsg_store16(void *ptr, uint16_t value)
{
	*(volatile uint16_t *)ptr = vmsg_le16(value);
}

static inline uint32_t vmsg_load32(const void *ptr)
{
	return vmsg_le32(*(const volatile uint32_t *)ptr);
}

static inline void vmsg_store32(void *ptr, uint32_t value)
{
	*(volatile uint32_t *)ptr = vmsg_le32(value);
}

/* Little-endian fields at any alignment in memory that only we touch. */
static inline uint16_t vmsg_get16(const void *ptr)
{
	uint16_t value;

	__builtin_memcpy(&value, ptr, sizeof(value));
	return vmsg_le16(value);
}

static inline uint32_t vmsg_get32(const void *ptr)
{
	uint32_t value;

	__builtin_memcpy(&value, ptr, sizeof(value));
	return vmsg_le32(value);
}

static inline uint64_t vmsg_get64(const void *ptr)
{
	uint64_t value;

	__builtin_memcpy(&value, ptr, sizeof(value));
	return vmsg_le64(value);
}

static inline void vmsg_put16(void *ptr, uint16_t value)
{
	value = vmsg_le16(value);
	__builtin_memcpy(ptr, &value, sizeof(value));
}

static inline void vmsg_put32(void *ptr, uint32_t value)
{
	value = vmsg_le32(value);
	__builtin_memcpy(ptr, &value, sizeof(value));
}

static inline void vmsg_put64(void *ptr, uint64_t value)
{
	value = vmsg_le64(value);
	__builtin_memcpy(ptr, &value, sizeof(value));
}

/* The lower bytes of a 32-bit number, or all of a longer one, where it has as many. */
static inline uint8_t *vmsg_low_end(uint32_t *number, size_t bytes)
{
	return (uint8_t *)number + (VMSG_BIG_ENDIAN && bytes < 4 ? 4 - bytes : 0);
}

/* Copies a number of up to 8 bytes from or to the wire; of more bytes, the string that they are. */
static inline void vmsg_copy_le(uint8_t *to, const uint8_t *from, size_t bytes)
{
	if (!VMSG_BIG_ENDIAN && bytes == 4) { /* nearly always */
		__builtin_memcpy(to, from, 4);
		return;
	}
	if (!VMSG_BIG_ENDIAN || bytes > 8) {
		memcpy(to, from, bytes);
		return;
	}
	for (size_t i = 0; i < bytes; i++)
		to[i] = from[bytes - 1 - i];
}

#endif
