# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Sourced by the checks: go to the top of the tree, count results, print the closing line.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export LC_ALL=C
# A test that crashes has said enough.
ulimit -c 0

passed=0
failed=0
skipped=0

pass() {
	passed=$((passed + 1))
}

# fail WHAT...: one line saying what is wrong
fail() {
	echo "FAIL $*"
	failed=$((failed + 1))
}

# skip WHY...
skip() {
	echo "SKIP $*"
	skipped=$((skipped + 1))
}

# A count line of a program that ran, "N passed, N failed, N skipped", added to ours.
add_counts() {
	local p f s

	read -r p _ f _ s _ <<<"${1//,/}"
	passed=$((passed + p))
	failed=$((failed + f))
	skipped=$((skipped + s))
}

# The last line of a file if it is a count line, else nothing.
count_line() {
	tail -n 1 "$1" | grep -Ex '[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped' || true
}

# Print the counts as the last line and exit: 1 when something failed.
finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}
