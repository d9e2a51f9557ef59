#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the benchmarks make of their goals.

. "$(dirname "$0")/../ktap.sh"

goals=$(dirname "$0")/goals.sh
list='ratio most 0.33
per_s
faster least 1.5
timeouts most 0'

# expect STATUS STDOUT STDERR RESULT...: of these results, each a file.
expect() {
	local status=$1 out=$2 err=$3 files=() rc=0 n
	shift 3
	rm -f "$tmp"/result*
	for ((n = 1; n <= $#; n++)); do
		printf '%s\n' 'what="no result" {' '  a table of ratio = 9' "${!n}" '{"ratio":7}' >"$tmp/result$n"
		files+=("$tmp/result$n")
	done
	# shellcheck disable=SC2086 # maybe none
	"$goals" $option "${files[@]}" <<<"$list" >"$tmp/out" 2>"$tmp/err" || rc=$?
	diff - "$tmp/out" <<<"$out"
	diff <(printf "%s" "${err:+$err$'\n'}") "$tmp/err"
	[ $rc = "$status" ] || fail "status $rc"
}

reached() {
	# To the last digit, in the order of the list.
	expect 0 $'ratio=0.33\nper_s=2063\nfaster=1.5\ntimeouts=0' '' $'timeouts=0\nfaster=1.5' $'ratio=0.33\nper_s=2063'
	expect 0 $'ratio=-1\nper_s=1\nfaster=10\ntimeouts=0' '' $'timeouts=0\nfaster=10\nratio=-1\nper_s=1'
}
missed() {
	expect 1 $'ratio=0.331\nper_s=0\nfaster=1.437\ntimeouts=2' 'goal missed: ratio=0.331, and the goal is at most 0.33
goal missed: timeouts=2, and the goal is at most 0
goal missed: faster=1.437, and the goal is at least 1.5' $'per_s=0\nratio=0.331\ntimeouts=2' faster=1.437
	expect 1 $'ratio=0.1\nratio=0.4\nfaster=2' 'goal missed: ratio=0.4, and the goal is at most 0.33' \
		ratio=0.1 $'faster=2\nratio=0.4'
	expect 1 $'ratio=null\nper_s=' 'goal missed: ratio=null is no number
goal missed: per_s= is no number' $'ratio=null\nper_s='
}
not_measured() {
	expect 0 per_s=1 '' per_s=1
	option=--all
	expect 1 $'per_s=1\nfaster=1.6' 'goal missed: ratio was not measured
goal missed: timeouts was not measured' $'per_s=1\nfaster=1.6'
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
option=''
ktap_begin
ktap_run "reached" reached
ktap_run "missed" missed
ktap_run "not measured" not_measured
ktap_end
