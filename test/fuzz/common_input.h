/* SPDX-License-Identifier: BSD-3-Clause */
/* The input of a fuzz target, taken piece by piece; past its end everything is 0. */
#ifndef TEST_FUZZ_COMMON_INPUT_H
#define TEST_FUZZ_COMMON_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_FRAME 512 /* the longest message that is handed over */

struct input {
	const uint8_t *bytes;
	size_t left;
};

static inline uint8_t take8(struct input *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return *input->bytes++;
}

static inline uint16_t take16(struct input *input)
{
	uint16_t low = take8(input);

	return (uint16_t)(low | take8(input) << 8);
}

static inline uint32_t take32(struct input *input)
{
	uint32_t low = take16(input);

	return low | (uint32_t)take16(input) << 16;
}

/* Up to len bytes into buf; how many there were. */
static inline uint32_t take_bytes(struct input *input, uint8_t *buf, uint32_t len)
{
	if (len > input->left)
		len = (uint32_t)input->left;
	if (len)
		memcpy(buf, input->bytes, len);
	input->bytes += len;
	input->left -= len;
	return len;
}

/*
 * A copy that ends where its array does, so that a sanitizer sees every byte read beyond; cheaper
 * than the heap.
 */
static inline const uint8_t *end_of_memory(const uint8_t *bytes, uint32_t len)
{
	static uint8_t memory[INPUT_FRAME];

	memcpy(memory + sizeof(memory) - len, bytes, len);
	return memory + sizeof(memory) - len;
}

/* What must hold. abort() is what the fuzzer calls a finding. */
static inline void require(bool truth)
{
	if (!truth)
		abort();
}

#endif
