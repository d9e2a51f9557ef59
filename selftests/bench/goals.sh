#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# goals.sh [--all] RESULTS...: reads lines "NAME", "NAME most LIMIT" and "NAME least LIMIT", and prints what the results
# say of each, NAME=VALUE. At the end, a line on stderr for each that misses its goal, and then the status is 1. What was
# not measured has missed nothing; with --all, it has.

set -euo pipefail

all=0
if [ "${1:-}" = --all ]; then
	all=1
	shift
fi
awk -v all=$all '
	FNR == NR { order[++n] = $1; kind[$1] = $2; limit[$1] = $3; next }
	{
		at = index($0, "=")
		name = substr($0, 1, at - 1)
		value = substr($0, at + 1)
		if (!at || !(name in kind)) next
		measured[name] = 1
		lines[name] = lines[name] $0 "\n"
		number = value ~ /^-?[0-9]+(\.[0-9]+)?$/
		over = kind[name] == "most" && value + 0 > limit[name] + 0
		under = kind[name] == "least" && value + 0 < limit[name] + 0
		if (!number || over || under)
			missed[++m] = $0 (number ? ", and the goal is at " kind[name] " " limit[name] : " is no number")
	}
	END {
		for (i = 1; i <= n; i++) {
			printf "%s", lines[order[i]]
			if (all && !(order[i] in measured)) missed[++m] = order[i] " was not measured"
		}
		fflush()
		for (i = 1; i <= m; i++) print "goal missed: " missed[i] >"/dev/stderr"
		exit m > 0
	}' - "$@"
