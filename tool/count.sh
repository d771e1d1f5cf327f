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

# in_order RUN REPORT NAME...: RUN each name in the background, JOBS at a time, and REPORT those
# that have ended, in the order of the names.
in_order() {
	local run=$1 report=$2 next=0 shown=0 pid
	local -A busy=() ended=()
	shift 2

	while [ $shown -lt $# ]; do
		while [ $next -lt $# ] && [ ${#busy[@]} -lt "${JOBS:-$(nproc)}" ]; do
			next=$((next + 1))
			"$run" "${!next}" &
			busy[$!]=$next
		done
		wait -n -p pid "${!busy[@]}" || true
		ended[${busy[$pid]}]=yes
		unset "busy[$pid]"
		while [ -n "${ended[$((shown + 1))]-}" ]; do
			shown=$((shown + 1))
			"$report" "${!shown}"
		done
	done
}

# Print the counts as the last line and exit: 1 when something failed.
finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}
