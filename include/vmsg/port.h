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
#error "this compiler's fences are not known: define vmsg_mb, vmsg_rmb and vmsg_wmb in VMSG_PORT_HEADER"
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
	const uint8_t *p = (const uint8_t *)ptr;

	return (uint16_t)(p[0] | (uint16_t)(p[1] << 8));
}

static inline uint32_t vmsg_get32(const void *ptr)
{
	const uint8_t *p = (const uint8_t *)ptr;

	return vmsg_get16(p) | (uint32_t)vmsg_get16(p + 2) << 16;
}

static inline uint64_t vmsg_get64(const void *ptr)
{
	const uint8_t *p = (const uint8_t *)ptr;

	return vmsg_get32(p) | (uint64_t)vmsg_get32(p + 4) << 32;
}

static inline void vmsg_put16(void *ptr, uint16_t value)
{
	uint8_t *p = (uint8_t *)ptr;

	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static inline void vmsg_put32(void *ptr, uint32_t value)
{
	uint8_t *p = (uint8_t *)ptr;

	vmsg_put16(p, (uint16_t)value);
	vmsg_put16(p + 2, (uint16_t)(value >> 16));
}

static inline void vmsg_put64(void *ptr, uint64_t value)
{
	uint8_t *p = (uint8_t *)ptr;

	vmsg_put32(p, (uint32_t)value);
	vmsg_put32(p + 4, (uint32_t)(value >> 32));
}

#endif
