# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Test results in KTAP (Documentation/dev-tools/ktap.rst of the kernel). Exit status of a test: 0, 1
# when something failed, 4 when all of it was skipped.

KSFT_SKIP=4
ktap_n=0 ktap_failed=0 ktap_skipped=0

ktap_begin() { echo "KTAP version 1"; }

# Lines about a result, for people.
ktap_note() { printf '# %s\n' "$@"; }

ktap_ok() {
	ktap_n=$((ktap_n + 1))
	echo "ok $ktap_n $1"
}

# ktap_not_ok NAME [REASON]
ktap_not_ok() {
	ktap_n=$((ktap_n + 1))
	ktap_failed=$((ktap_failed + 1))
	[ $# -lt 2 ] || ktap_note "$2"
	echo "not ok $ktap_n $1"
}

# ktap_skip NAME REASON
ktap_skip() {
	ktap_n=$((ktap_n + 1))
	ktap_skipped=$((ktap_skipped + 1))
	echo "ok $ktap_n $1 # SKIP $2"
}

# ktap_run NAME COMMAND...: one result from COMMAND (usually a function), which runs in a subshell under
# "set -e": its first failing command makes the result "not ok". With "skip REASON" it is skipped.
ktap_run() {
	local name=$1 rc line log=${TMPDIR:-/tmp}/ktap-$$-$ktap_n
	shift
	set +e
	(
		set -eE
		trap 'echo "failed: line $LINENO: ${BASH_COMMAND%%$'"'\\n'"'*}"' ERR
		"$@"
	) >"$log" 2>&1
	rc=$?
	while IFS= read -r line || [ -n "$line" ]; do printf '# %s\n' "$line"; done <"$log"
	case $rc in
	0) ktap_ok "$name" ;;
	"$KSFT_SKIP") ktap_skip "$name" "$(sed -n 's/^skip: //p' "$log" | tail -n 1)" ;;
	*) ktap_not_ok "$name" "exit status $rc" ;;
	esac
}

# skip REASON: end a function under ktap_run, or a whole test before its first result.
skip() {
	echo "skip: $1"
	exit "$KSFT_SKIP"
}

# fail REASON: the same for a failure.
fail() {
	echo "FAIL: $1"
	exit 1
}

# ktap_end: the plan, and the exit status of the whole test.
ktap_end() {
	rm -f "${TMPDIR:-/tmp}/ktap-$$"-*
	echo "1..$ktap_n"
	((ktap_failed == 0)) || exit 1
	((ktap_n == 0 || ktap_skipped < ktap_n)) || exit "$KSFT_SKIP"
	((ktap_n > 0)) || fail "the test has no results"
	exit 0
}
