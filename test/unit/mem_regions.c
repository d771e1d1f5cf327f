/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions and arenas: every edge of the one translation of a peer's address (design.md 7). */
#include "test.h"

#include <vmsg/mem.h>

#include <string.h>

#define TOP UINT64_MAX

static uint8_t bytes[256] __attribute__((aligned(64)));

static struct vmsg_region region(uint64_t addr, uint64_t len_bytes, uint32_t access)
{
	struct vmsg_region made = {
		.addr = addr, .len_bytes = len_bytes, .ptr = bytes, .access = access, .fd = -1
	};

	return made;
}

static void init_refuses(void *arg)
{
	static const struct {
		uint64_t a, a_len, b, b_len;
		int result;
	} cases[] = {
		{ 0, 16, 16, 16, 0 },
		{ 16, 16, 0, 16, 0 },
		{ 0, 17, 16, 16, VMSG_ERR_INVAL },
		{ 16, 16, 0, 17, VMSG_ERR_INVAL },
		{ 0, 64, 8, 8, VMSG_ERR_INVAL },
		{ 8, 8, 0, 64, VMSG_ERR_INVAL },
		{ 8, 8, 8, 8, VMSG_ERR_INVAL },
		{ 0, 0, 16, 16, VMSG_ERR_INVAL },
		{ TOP, 1, 0, 16, 0 },
		{ TOP, 2, 0, 16, VMSG_ERR_INVAL },
		{ TOP - 15, 16, 0, 16, 0 },
		{ TOP - 15, 17, 32, 16, VMSG_ERR_INVAL },
		{ 1, TOP, 0, 1, 0 },
		{ 1, TOP, TOP, 1, VMSG_ERR_INVAL },
	};
	struct vmsg_region regions[2];
	struct vmsg_mem mem;

	(void)arg;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		test_context("case %u", (unsigned int)i);
		regions[0] = region(cases[i].a, cases[i].a_len, VMSG_MEM_READ);
		regions[1] = region(cases[i].b, cases[i].b_len, VMSG_MEM_READ);
		CHECK_EQ(vmsg_mem_init(&mem, regions, 2), cases[i].result);
	}
	regions[0] = region(0, 16, 0);
	regions[0].ptr = NULL;
	CHECK_EQ(vmsg_mem_init(&mem, regions, 1), VMSG_ERR_INVAL);
	CHECK_EQ(vmsg_mem_init(&mem, regions, 0), 0);
	CHECK(vmsg_mem_at(&mem, 0, 1, 0) == NULL);
}

static void at_gives_the_whole_range_or_nothing(void *arg)
{
	struct vmsg_region regions[3] = {
		region(0x1000, 64, VMSG_MEM_READ | VMSG_MEM_WRITE),
		region(0x1040, 64, VMSG_MEM_READ),
		region(TOP - 31, 32, VMSG_MEM_WRITE),
	};
	struct vmsg_mem mem;

	(void)arg;
	CHECK_EQ(vmsg_mem_init(&mem, regions, 3), 0);
	CHECK(vmsg_mem_at(&mem, 0x1000, 64, VMSG_MEM_READ | VMSG_MEM_WRITE) == bytes);
	CHECK(vmsg_mem_at(&mem, 0x1000, 1, 0) == bytes);
	CHECK(vmsg_mem_at(&mem, 0x103f, 1, VMSG_MEM_WRITE) == bytes + 63);
	/* Nothing, too much, before, between, behind. */
	CHECK(vmsg_mem_at(&mem, 0x1000, 0, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0x1000, 65, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0x103f, 2, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0xfff, 1, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0xfff, 2, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0x1080, 1, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0, 1, VMSG_MEM_READ) == NULL);
	/* Lengths that wrap. */
	CHECK(vmsg_mem_at(&mem, 0x1000, SIZE_MAX, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, 0x1020, SIZE_MAX - 0x1f, VMSG_MEM_READ) == NULL);
	CHECK(vmsg_mem_at(&mem, TOP, 2, VMSG_MEM_WRITE) == NULL);
	CHECK(vmsg_mem_at(&mem, TOP, SIZE_MAX, VMSG_MEM_WRITE) == NULL);
	CHECK(vmsg_mem_at(&mem, TOP, 1, VMSG_MEM_WRITE) == bytes + 31);
	CHECK(vmsg_mem_at(&mem, TOP - 31, 32, VMSG_MEM_WRITE) == bytes);
	/* What is not allowed. */
	CHECK(vmsg_mem_at(&mem, 0x1040, 1, VMSG_MEM_WRITE) == NULL);
	CHECK(vmsg_mem_at(&mem, 0x1040, 1, VMSG_MEM_READ | VMSG_MEM_WRITE) == NULL);
	CHECK(vmsg_mem_at(&mem, TOP, 1, VMSG_MEM_READ) == NULL);
}

static void arena_hands_out(void *arg)
{
	struct vmsg_arena arena = { .addr = 0x2008, .ptr = bytes + 8, .len_bytes = 200 };
	uint64_t addr = 1;

	(void)arg;
	memset(bytes, 0xff, sizeof(bytes));
	CHECK(vmsg_arena_take(&arena, 10, 1, &addr) == bytes + 8);
	CHECK_EQ(addr, 0x2008);
	CHECK_EQ(bytes[7], 0xff);
	CHECK_EQ(bytes[8], 0);
	CHECK_EQ(bytes[17], 0);
	CHECK_EQ(bytes[18], 0xff);
	/* Aligned as an address. */
	CHECK(vmsg_arena_take(&arena, 16, 64, &addr) == bytes + 0x40);
	CHECK_EQ(addr, 0x2040);
	CHECK_EQ(arena.used_bytes, 0x40 + 16 - 8);
	/* What does not fit takes nothing. */
	CHECK(vmsg_arena_take(&arena, 201, 1, &addr) == NULL);
	CHECK(vmsg_arena_take(&arena, 200 - 0x48 + 1, 1, &addr) == NULL);
	CHECK(vmsg_arena_take(&arena, 1, 4096, &addr) == NULL);
	CHECK(vmsg_arena_take(&arena, SIZE_MAX, 64, &addr) == NULL);
	CHECK_EQ(arena.used_bytes, 0x40 + 16 - 8);
	CHECK(vmsg_arena_take(&arena, 200 - 0x48, 1, &addr) == bytes + 0x50);
	CHECK_EQ(arena.used_bytes, 200);
	CHECK(vmsg_arena_take(&arena, 1, 1, &addr) == NULL);
	CHECK_EQ(bytes[208], 0xff);
	/* From the start again. */
	arena.used_bytes = 0;
	CHECK(vmsg_arena_take(&arena, 1, 1, &addr) == bytes + 8);
}

static void arena_at_the_end_of_addresses(void *arg)
{
	struct vmsg_arena arena = { .addr = TOP - 15, .ptr = bytes, .len_bytes = 16 };
	uint64_t addr;

	(void)arg;
	CHECK(vmsg_arena_take(&arena, 8, 16, &addr) == bytes);
	CHECK_EQ(addr, TOP - 15);
	CHECK(vmsg_arena_take(&arena, 1, 16, &addr) == NULL);
	CHECK(vmsg_arena_take(&arena, 9, 1, &addr) == NULL);
	CHECK(vmsg_arena_take(&arena, 8, 8, &addr) == bytes + 8);
	CHECK(vmsg_arena_take(&arena, 1, 1, &addr) == NULL);
}

static const struct test tests[] = {
	{ "init refuses what is empty, wraps or overlaps", init_refuses, NULL },
	{ "at gives the whole range or nothing", at_gives_the_whole_range_or_nothing, NULL },
	{ "arena hands out", arena_hands_out, NULL },
	{ "arena at the end of addresses", arena_at_the_end_of_addresses, NULL },
};

int main(int argc, char **argv)
{
	return test_main("mem_regions", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
