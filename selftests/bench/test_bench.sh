#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# The benchmark runs and says what it should. What the numbers are is nothing to be tested here.
# timeout: 300

. "$(dirname "$0")/../ktap.sh"

bench() { COUNT=3 CROWD=20 "$(dirname "$0")/bench.sh" "$@"; }

# Every NAME of the last lines has a number.
has() {
	local name
	for name in "${@:2}"; do grep -qE "^$name=-?[0-9]+(\.[0-9]+)?$" <<<"$1" || { echo "no number for $name" && return 1; }; done
}

# This clock does not count instructions, which has to be noticed.
needs_the_right_clock() {
	local out
	! out=$(bench instructions) || return 1
	echo "$out" | tail -n 3
	grep -q 'the clock does not count instructions' <<<"$out"
}

costs() {
	local out
	out=$(bench nanoseconds)
	echo "$out"
	has "$out" export_ns inject_ns frozen_ns migration_vs_tcp_repair_ns
}

under_load() {
	local out
	out=$(bench load)
	echo "$out"
	has "$out" rto_caused latency_added_p50_us latency_added_p99_us
}

ktap_begin
command -v nlb-bench >/dev/null || skip "nlb-bench was not built (scripts/build-selftests)"
ktap_run "a clock that counts time is noticed" needs_the_right_clock
ktap_run "costs, beside TCP_REPAIR" costs
ktap_run "latency and timeouts under load" under_load
ktap_end
