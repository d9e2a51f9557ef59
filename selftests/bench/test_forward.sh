#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# The benchmark of forwarding runs and says what it should. What the numbers are is nothing to be tested here.
# timeout: 300

. "$(dirname "$0")/../ktap.sh"

bench() { PACKETS=80 FLOWS=80 REPEATS=1 "$(dirname "$0")/forward.sh" "$@"; }

# This clock does not count instructions, which has to be noticed.
needs_the_right_clock() {
	local out
	! out=$(bench packets) || return 1
	echo "$out" | tail -n 3
	grep -q 'the clock does not count instructions' <<<"$out"
}

# All packets have come as far as they should, or it would have failed.
every_mode() {
	local out
	out=$(bench nanoseconds)
	echo "$out"
	[ "$(grep -cE '^(plain|nlb-[a-z-]+) +-?[0-9]+ +-?[0-9]+$' <<<"$out")" = 6 ]
	grep -qE '^forward_ns=-?[0-9]+$' <<<"$out"
	grep -qE '^forward_vs_plain_ns=-?[0-9.]+$' <<<"$out"
	# Only this way makes packets longer.
	grep '"mode":"nlb-ipip"' <<<"$out" | jq -se 'length == 2 and all(.added == 20)'
	grep '"mode":"nlb-[dhnt]' <<<"$out" | jq -se 'length == 8 and all(.added == 0)'
}

ktap_begin
command -v nlb-bench >/dev/null || skip "nlb-bench was not built (scripts/build-selftests)"
ktap_run "a clock that counts time is noticed" needs_the_right_clock
ktap_run "every way to a host" every_mode
ktap_end
