# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154 # what lib.sh sets
#
# What the benchmarks share, behind lib.sh.

results=$tmp/results
: >"$results"
kernel=$(uname -r)

# measure [ns MACHINE] COMMAND...: what nlb-bench says is shown and kept.
measure() {
	local run=()
	[ "$1" != ns ] || { run=(ns "$2") && shift 2; }
	"${run[@]}" timeout 700 nlb-bench "$@" | tee -a "$results"
	[ "${PIPESTATUS[0]}" = 0 ] || fail "nlb-bench $1 failed"
}

# show PROGRAM: the results through jq, where of(WHAT) are those of one kind.
show() {
	jq -n -r --slurpfile results "$results" --arg kernel "$kernel" "
		def of(what): [\$results[] | select(.what == what)];
		def three: . * 1000 | round / 1000;
		$1"
}

# It says the same each time; the median of a clock that counts time comes to that by chance, now and then.
clock_counts_instructions() {
	measure clock
	# shellcheck disable=SC2016
	[ "$(show 'of("clock")[0] | .ns.p10 == .ns.p50 and .ns.p50 / .instructions > 0.99 and .ns.p50 / .instructions < 1.01')" = true ] ||
		fail "the clock does not count instructions; boot with scripts/vm --icount"
}
