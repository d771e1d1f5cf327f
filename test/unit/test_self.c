/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The test layer tested: every check must fail when it should, and a failure must reach the count
 * and the exit status. The suites that fail run in child processes before the tests begin, since
 * the runner cannot run inside itself.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct outcome {
	int status;
	char output[2048];
};

static struct outcome all_outcome;
static struct outcome filtered_outcome;
static struct outcome nothing_outcome;
static struct outcome list_outcome;

static int evaluated;

static int evaluate(void)
{
	return ++evaluated;
}

/* The inner suite: what it does is known, and so must be what is counted. */

static void inner_pass(void *arg)
{
	CHECK(arg == NULL);
}

static void inner_fail(void *arg)
{
	(void)arg;
	test_context("ring=%s seed=%d", "packed", 7);
	CHECK_EQ(2 + 2, 5);
	printf("a failed check went on\n");
}

static void inner_context_is_gone(void *arg)
{
	(void)arg;
	CHECK(1 > 2);
}

static void inner_skip(void *arg)
{
	(void)arg;
	TEST_SKIP("no such thing here");
	printf("a skipped test went on\n");
}

static const struct test inner_tests[] = {
	{ "pass", inner_pass, NULL },
	{ "fail", inner_fail, NULL },
	{ "fail_2", inner_context_is_gone, NULL },
	{ "skip", inner_skip, NULL },
	{ "pass_after", inner_pass, NULL },
};

/* Run the inner suite in a child and keep what it printed and how it ended. */
static void run_inner(struct outcome *outcome, const char *argument)
{
	char name[] = "inner";
	char text[32];
	char *argv[] = { name, text, NULL };
	int fds[2];
	size_t used = 0;
	ssize_t got;
	pid_t pid;

	snprintf(text, sizeof(text), "%s", argument ? argument : "");
	if (pipe(fds) != 0 || (pid = fork()) < 0) {
		perror("unit_test_self");
		exit(1);
	}
	if (pid == 0) {
		if (dup2(fds[1], STDOUT_FILENO) < 0 || !freopen("/dev/null", "w", stderr))
			_exit(99);
		_exit(test_main("inner", inner_tests, sizeof(inner_tests) / sizeof(*inner_tests),
				argument ? 2 : 1, argv));
	}
	close(fds[1]);
	while ((got = read(fds[0], outcome->output + used, sizeof(outcome->output) - 1 - used)) > 0)
		used += (size_t)got;
	outcome->output[used] = '\0';
	close(fds[0]);
	if (waitpid(pid, &outcome->status, 0) != pid) {
		perror("unit_test_self");
		exit(1);
	}
}

static bool exited_with(const struct outcome *outcome, int status)
{
	return WIFEXITED(outcome->status) && WEXITSTATUS(outcome->status) == status;
}

static bool ends_with(const char *text, const char *end)
{
	size_t text_len = strlen(text);
	size_t end_len = strlen(end);

	return text_len >= end_len && strcmp(text + text_len - end_len, end) == 0;
}

static void counts_and_status(void *arg)
{
	const char *text = all_outcome.output;

	(void)arg;
	CHECK(exited_with(&all_outcome, 1));
	CHECK(ends_with(text, "\n2 passed, 2 failed, 1 skipped\n"));
	CHECK(strstr(text, "FAIL inner/fail: ") != NULL);
	CHECK(strstr(text, "CHECK_EQ(2 + 2, 5): 4 (0x4) != 5 (0x5) [ring=packed seed=7]\n"));
	CHECK(strstr(text, "CHECK(1 > 2)\n") != NULL);
	CHECK(strstr(text, "SKIP inner/skip: ") != NULL);
	CHECK(strstr(text, "no such thing here\n") != NULL);
	CHECK(strstr(text, "went on") == NULL);
}

static void selects_by_name(void *arg)
{
	(void)arg;
	CHECK(exited_with(&filtered_outcome, 0));
	CHECK_STR(filtered_outcome.output, "2 passed, 0 failed, 0 skipped\n");
	CHECK(exited_with(&nothing_outcome, 2));
	CHECK_STR(nothing_outcome.output, "0 passed, 0 failed, 0 skipped\n");
	CHECK(exited_with(&list_outcome, 0));
	CHECK_STR(list_outcome.output, "pass\nfail\nfail_2\nskip\npass_after\n");
}

/* Each check once with what it must refuse. */

static void refuse_check(void *arg)
{
	(void)arg;
	CHECK(evaluate() == -1);
}

static void refuse_eq(void *arg)
{
	(void)arg;
	CHECK_EQ(evaluate(), -1);
}

static void refuse_eq_sign(void *arg)
{
	(void)arg;
	CHECK_EQ(-1, UINT64_MAX);
}

static void refuse_eq_width(void *arg)
{
	(void)arg;
	CHECK_EQ(UINT64_C(0x100000001), (uint32_t)1);
}

static void refuse_mem(void *arg)
{
	(void)arg;
	CHECK_MEM("abcd", "abxd", 4);
}

static void refuse_mem_null(void *arg)
{
	CHECK_MEM("abcd", arg, 4);
}

static void refuse_str(void *arg)
{
	(void)arg;
	CHECK_STR("abc", "abcd");
}

static void refuse_str_null(void *arg)
{
	CHECK_STR("abc", arg);
}

static void refuse_str_escaped(void *arg)
{
	(void)arg;
	CHECK_STR("a\nb", "a\033");
}

static void checks_refuse(void *arg)
{
	static const struct {
		void (*run)(void *arg);
		const char *text;
	} cases[] = {
		{ refuse_check, "CHECK(evaluate() == -1)" },
		{ refuse_eq, "CHECK_EQ(evaluate(), -1): 1 (0x1) != -1 (0xffffffffffffffff)" },
		{ refuse_eq_sign, "-1 (0xffffffffffffffff) != 18446744073709551615" },
		{ refuse_eq_width, "4294967297 (0x100000001) != 1 (0x1)" },
		{ refuse_mem, "offset 2 of 4: 0x63 != 0x78" },
		{ refuse_mem_null, "arg is NULL" },
		{ refuse_str, "\"abc\" != \"abcd\"" },
		{ refuse_str_null, "\"abc\" != NULL" },
		{ refuse_str_escaped, "\"a\\nb\" != \"a\\x1b\"" },
	};
	char text[512];
	size_t i;

	(void)arg;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		test_context("case %lu", (unsigned long)i);
		evaluated = 0;
		CHECK_EQ(test_try(cases[i].run, NULL, text, sizeof(text)), TEST_FAILED);
		CHECK(evaluated <= 1);
		test_context("case %lu printed: %s", (unsigned long)i, text);
		CHECK(strstr(text, "test_self.c:") != NULL);
		CHECK(strstr(text, cases[i].text) != NULL);
	}
}

static void checks_accept(void *arg)
{
	const char bytes[4] = { 1, 2, 3, 4 };
	uint8_t small = 200;
	struct {
		unsigned int bits : 3;
	} field = { .bits = 5 };

	CHECK(true);
	CHECK(arg == NULL);
	CHECK_EQ(small, 200);
	CHECK_EQ(small, UINT64_C(200));
	CHECK_EQ(field.bits, 5);
	CHECK_EQ(INT64_MIN, INT64_MIN);
	CHECK_EQ((int8_t)-3, (int64_t)-3);
	CHECK_EQ(true, 1);
	CHECK_MEM(bytes, "\1\2\3\4", 4);
	CHECK_MEM(NULL, NULL, 0);
	CHECK_STR("same", "same");
}

static void skips(void *arg)
{
	(void)arg;
	TEST_SKIP("because");
}

static void try_says_how_it_ended(void *arg)
{
	char text[128];
	char tiny[8];

	(void)arg;
	CHECK_EQ(test_try(inner_pass, NULL, text, sizeof(text)), TEST_PASSED);
	CHECK_STR(text, "");
	CHECK_EQ(test_try(skips, NULL, text, sizeof(text)), TEST_SKIPPED);
	CHECK(ends_with(text, ": because"));
	CHECK_EQ(test_try(refuse_mem, NULL, tiny, sizeof(tiny)), TEST_FAILED);
	CHECK_EQ(strlen(tiny), sizeof(tiny) - 1);
	CHECK_EQ(test_try(refuse_mem, NULL, NULL, 0), TEST_FAILED);
}

static const struct test tests[] = {
	{ "counts_and_status", counts_and_status, NULL },
	{ "selects_by_name", selects_by_name, NULL },
	{ "checks_refuse", checks_refuse, NULL },
	{ "checks_accept", checks_accept, NULL },
	{ "try_says_how_it_ended", try_says_how_it_ended, NULL },
};

int main(int argc, char **argv)
{
	fflush(stdout);
	run_inner(&all_outcome, NULL);
	run_inner(&filtered_outcome, "pass");
	run_inner(&nothing_outcome, "unheard of");
	run_inner(&list_outcome, "-l");
	return test_main("test_self", tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
