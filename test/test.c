/* SPDX-License-Identifier: BSD-3-Clause */
/* The test runner: see test.h. TEST_CMOCKA chooses cmocka, otherwise setjmp does the work. */
#include "test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef TEST_CMOCKA
#include <unistd.h>

#include <cmocka.h>
#endif

/* Where the running test is and how it ended; one test runs at a time. */
static struct {
	const char *suite;
	const struct test *test;
	bool verbose;
	bool finished;
	enum test_result result;
	char context[256];
	size_t count[3];
	/* Set inside test_try: where a failing check goes instead of ending the test. */
	jmp_buf *try_return;
	char *try_text;
	size_t try_size;
} now;

#ifndef TEST_CMOCKA
static jmp_buf plain_return;
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TEST_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN
#endif
#endif

#ifdef TEST_ASAN
/* The sanitizer's report of a wild pointer is worth more than a test marked as failed by cmocka. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_segv=2:handle_sigbus=2:handle_sigfpe=2:handle_sigill=2";
}
#endif

/* Print "FAIL suite/name: where: what [context]", or hand it to test_try. */
static void report(const char *label, const char *file, int line, const char *what)
{
	const char *open = now.context[0] ? " [" : "";
	const char *close = now.context[0] ? "]" : "";

	if (now.try_return) {
		if (now.try_size > 0)
			snprintf(now.try_text, now.try_size, "%s:%d: %s%s%s%s", file, line, what,
				 open, now.context, close);
		return;
	}
	printf("%s %s/%s: %s:%d: %s%s%s%s\n", label, now.suite, now.test ? now.test->name : "?",
	       file, line, what, open, now.context, close);
	fflush(stdout);
}

/* Leave the running test. A check outside any test cannot be counted: stop everything. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void leave(enum test_result result, const char *file, int line)
{
	if (now.try_return) {
		now.result = result;
		longjmp(*now.try_return, 1);
	}
	if (!now.test) {
		fprintf(stderr, "%s:%d: a check outside a test\n", file, line);
		exit(1);
	}
	now.result = result;
	now.finished = true;
#ifdef TEST_CMOCKA
	if (result == TEST_SKIPPED)
		_skip(file, line);
	_fail(file, line);
	abort();
#else
	longjmp(plain_return, 1);
#endif
}

static void fail_check(const char *file, int line, const char *what)
{
	report("FAIL", file, line, what);
	leave(TEST_FAILED, file, line);
}

void test_context(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(now.context, sizeof(now.context), fmt, args);
	va_end(args);
}

void test_check(bool holds, const char *file, int line, const char *expr)
{
	char what[512];

	if (holds)
		return;
	snprintf(what, sizeof(what), "CHECK(%s)", expr);
	fail_check(file, line, what);
}

static bool is_negative(struct test_int x)
{
	return x.is_signed && (long long)x.bits < 0;
}

static void print_int(char *text, size_t size, struct test_int x)
{
	if (is_negative(x))
		snprintf(text, size, "%lld (0x%llx)", (long long)x.bits, x.bits);
	else
		snprintf(text, size, "%llu (0x%llx)", x.bits, x.bits);
}

void test_check_eq(struct test_int a, struct test_int b, const char *file, int line,
		   const char *a_text, const char *b_text)
{
	char what[768];
	char a_value[64];
	char b_value[64];

	if (a.bits == b.bits && is_negative(a) == is_negative(b))
		return;
	print_int(a_value, sizeof(a_value), a);
	print_int(b_value, sizeof(b_value), b);
	snprintf(what, sizeof(what), "CHECK_EQ(%s, %s): %s != %s", a_text, b_text, a_value,
		 b_value);
	fail_check(file, line, what);
}

void test_check_mem(const void *a, const void *b, size_t len, const char *file, int line,
		    const char *a_text, const char *b_text)
{
	const unsigned char *x = a;
	const unsigned char *y = b;
	char what[768];
	size_t i;

	if (len > 0 && (!a || !b)) {
		snprintf(what, sizeof(what), "CHECK_MEM(%s, %s): %s is NULL", a_text, b_text,
			 a ? b_text : a_text);
		fail_check(file, line, what);
	}
	for (i = 0; i < len; i++) {
		if (x[i] == y[i])
			continue;
		snprintf(what, sizeof(what),
			 "CHECK_MEM(%s, %s): offset %lu of %lu: 0x%02x != 0x%02x", a_text, b_text,
			 (unsigned long)i, (unsigned long)len, x[i], y[i]);
		fail_check(file, line, what);
	}
}

/* Quote a string so that it stays on the failure's one line. */
static void print_str(char *text, size_t size, const char *str)
{
	size_t used = 0;

	if (!str) {
		snprintf(text, size, "NULL");
		return;
	}
	text[used++] = '"';
	/* Room for the longest escape, the closing quote and the end. */
	for (; *str && used < size - 6; str++) {
		unsigned char byte = (unsigned char)*str;

		if (byte == '\n')
			used += (size_t)snprintf(text + used, size - used, "\\n");
		else if (byte < ' ' || byte >= 0x7f)
			used += (size_t)snprintf(text + used, size - used, "\\x%02x", byte);
		else
			text[used++] = (char)byte;
	}
	text[used++] = '"';
	text[used] = '\0';
}

void test_check_str(const char *a, const char *b, const char *file, int line, const char *a_text,
		    const char *b_text)
{
	char what[1280];
	char a_value[400];
	char b_value[400];

	if (a && b && strcmp(a, b) == 0)
		return;
	print_str(a_value, sizeof(a_value), a);
	print_str(b_value, sizeof(b_value), b);
	snprintf(what, sizeof(what), "CHECK_STR(%s, %s): %s != %s", a_text, b_text, a_value,
		 b_value);
	fail_check(file, line, what);
}

void test_skip(const char *file, int line, const char *why)
{
	report("SKIP", file, line, why);
	leave(TEST_SKIPPED, file, line);
}

enum test_result test_try(void (*run)(void *arg), void *arg, char *text, size_t size)
{
	char context[sizeof(now.context)];
	jmp_buf back;

	memcpy(context, now.context, sizeof(context));
	now.context[0] = '\0';
	now.try_return = &back;
	now.try_text = text;
	now.try_size = size;
	if (size > 0)
		text[0] = '\0';
	if (setjmp(back) == 0) {
		run(arg);
		now.result = TEST_PASSED;
	}
	now.try_return = NULL;
	memcpy(now.context, context, sizeof(now.context));
	return now.result;
}

static void begin_test(const struct test *test)
{
	now.test = test;
	now.finished = false;
	now.try_return = NULL;
	now.context[0] = '\0';
}

/* Count the test that ran last. One that neither returned nor left was cut short by a signal. */
static void end_test(void)
{
	static const char *const label[] = { "ok", "not ok", "skipped" };

	if (!now.test)
		return;
	if (!now.finished) {
		printf("FAIL %s/%s: ended by a signal%s%s%s\n", now.suite, now.test->name,
		       now.context[0] ? " [" : "", now.context, now.context[0] ? "]" : "");
		now.result = TEST_FAILED;
	}
	if (now.verbose)
		printf("%s %s/%s\n", label[now.result], now.suite, now.test->name);
	fflush(stdout);
	now.count[now.result]++;
	now.test = NULL;
}

static void run_body(const struct test *test)
{
	test->run(test->arg);
	now.result = TEST_PASSED;
	now.finished = true;
}

#ifdef TEST_CMOCKA
static void run_in_cmocka(void **state)
{
	/* cmocka reports a test that a signal ended only after the next one has begun. */
	end_test();
	begin_test(*state);
	run_body(now.test);
}

/*
 * cmocka's own report goes to the file CMOCKA_XML_FILE names (JUnit's format, for CI servers) or
 * nowhere; the lines on stdout are ours.
 */
static void run_selected(const struct test **selected, size_t count)
{
	struct CMUnitTest *cases = calloc(count, sizeof(*cases));
	char path[64];
	bool keep = getenv("CMOCKA_XML_FILE") != NULL;
	size_t i;

	if (!cases) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	for (i = 0; i < count; i++) {
		cases[i].name = selected[i]->name;
		cases[i].test_func = run_in_cmocka;
		/* The state is handed through, not written. */
		cases[i].initial_state = (void *)(uintptr_t)selected[i];
	}
	snprintf(path, sizeof(path), "/tmp/vmsg-test-%ld.xml", (long)getpid());
	if (!keep) {
		unlink(path);
		setenv("CMOCKA_XML_FILE", path, 1);
	}
	cmocka_set_message_output(CM_OUTPUT_XML);
	_cmocka_run_group_tests(now.suite, cases, count, NULL, NULL);
	end_test();
	if (!keep) {
		unsetenv("CMOCKA_XML_FILE");
		unlink(path);
	}
	free(cases);
}
#else
static void run_selected(const struct test **selected, size_t count)
{
	/* Not in a register: longjmp comes back into the loop. */
	volatile size_t i;

	for (i = 0; i < count; i++) {
		begin_test(selected[i]);
		if (setjmp(plain_return) == 0)
			run_body(selected[i]);
		end_test();
	}
}
#endif

/* No pattern selects everything. */
static bool is_selected(const char *name, int argc, char **argv)
{
	bool any_pattern = false;
	int i;

	for (i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			continue;
		any_pattern = true;
		if (strstr(name, argv[i]))
			return true;
	}
	return !any_pattern;
}

static bool parse_options(const char *suite, int argc, char **argv, bool *list)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (argv[i][0] != '-')
			continue;
		if (strcmp(argv[i], "-l") == 0) {
			*list = true;
		} else if (strcmp(argv[i], "-v") == 0) {
			now.verbose = true;
		} else {
			fprintf(stderr, "%s: unknown option %s\n"
				"usage: %s [-l] [-v] [part of a test's name]...\n",
				suite, argv[i], suite);
			return false;
		}
	}
	return true;
}

int test_main(const char *suite, const struct test *tests, size_t count, int argc, char **argv)
{
	const struct test **selected;
	size_t selected_count = 0;
	bool list = false;
	size_t i;

	memset(&now, 0, sizeof(now));
	now.suite = suite;
	if (!parse_options(suite, argc, argv, &list))
		return 2;
	selected = calloc(count + 1, sizeof(*selected));
	if (!selected) {
		fprintf(stderr, "out of memory\n");
		return 2;
	}
	for (i = 0; i < count; i++) {
		if (!is_selected(tests[i].name, argc, argv))
			continue;
		selected[selected_count++] = &tests[i];
		if (list)
			printf("%s\n", tests[i].name);
	}
	if (!list) {
		run_selected(selected, selected_count);
		if (selected_count == 0)
			fprintf(stderr, "%s: no test has such a name\n", suite);
		printf("%lu passed, %lu failed, %lu skipped\n",
		       (unsigned long)now.count[TEST_PASSED],
		       (unsigned long)now.count[TEST_FAILED],
		       (unsigned long)now.count[TEST_SKIPPED]);
	}
	fflush(stdout);
	free(selected);
	if (selected_count == 0)
		return 2;
	return now.count[TEST_FAILED] > 0 ? 1 : 0;
}
