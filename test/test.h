/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thin layer every test is written against. On the host cmocka runs the tests; where cmocka
 * does not exist (cross builds, Cortex-M) setjmp does, with the same output.
 *
 * A check that does not hold prints one line and ends the test it stands in, and only that test.
 * Checks belong to the thread and the process that runs the test: in a child process or another
 * thread, hand the result back and check it here.
 */
#ifndef TEST_TEST_H
#define TEST_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test {
	const char *name;
	void (*run)(void *arg);
	void *arg;
};

enum test_result {
	TEST_PASSED,
	TEST_FAILED,
	TEST_SKIPPED,
};

/*
 * Run the tests, all or those whose name contains one of the arguments. -l lists the names, -v
 * prints every name with its result. The last line is always "N passed, N failed, N skipped".
 * Returns what main() returns: 0, 1 when a test failed, 2 when the arguments select nothing.
 */
int test_main(const char *suite, const struct test *tests, size_t count, int argc, char **argv);

/*
 * A text printed with each failure from here to the end of the test: what one needs to run
 * exactly this case again. An empty format takes it back.
 */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void test_context(const char *fmt, ...);

/*
 * Run a function as a test inside a test and say how it ended, without counting it. The line it
 * would have printed is copied to text. For testing checkers: a checker that cannot fail is worth
 * nothing.
 */
enum test_result test_try(void (*run)(void *arg), void *arg, char *text, size_t size);

#define CHECK(expr) test_check((expr) ? true : false, __FILE__, __LINE__, #expr)

/* Integers of any type, each evaluated once; equal means the same number, whatever the types. */
#define CHECK_EQ(a, b)                                                                          \
	test_check_eq(TEST_INT(a), TEST_INT(b), __FILE__, __LINE__, #a, #b)

/* The failure names the first byte that differs. */
#define CHECK_MEM(a, b, len) test_check_mem((a), (b), (len), __FILE__, __LINE__, #a, #b)

#define CHECK_STR(a, b) test_check_str((a), (b), __FILE__, __LINE__, #a, #b)

#define TEST_SKIP(why) test_skip(__FILE__, __LINE__, (why))

/* What stands behind the macros. */

struct test_int {
	unsigned long long bits;
	bool is_signed;
};

#define TEST_IS_SIGNED(x)                                                                       \
	_Generic((x) + 0, int : true, long : true, long long : true, default : false)
#define TEST_INT(x)                                                                             \
	((struct test_int){ .bits = (unsigned long long)(x), .is_signed = TEST_IS_SIGNED(x) })

void test_check(bool holds, const char *file, int line, const char *expr);
void test_check_eq(struct test_int a, struct test_int b, const char *file, int line,
		   const char *a_text, const char *b_text);
void test_check_mem(const void *a, const void *b, size_t len, const char *file, int line,
		    const char *a_text, const char *b_text);
void test_check_str(const char *a, const char *b, const char *file, int line, const char *a_text,
		    const char *b_text);
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void test_skip(const char *file, int line, const char *why);

#endif
