#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 6000
#
# What a connection may be in the middle of (migrator/test_state.sh), each of it TIMES times (100, or 1,000 with
# LONG=1) over IPv4 and as often over IPv6, 20 connections of each at once: on a kernel that runs at full speed and looks
# at its own locks.
# Nothing of all these connections is left.

TIMES=${TIMES:-${LONG:+1000}}
TIMES=${TIMES:-100}
. "$(dirname "$0")/../migrator/state.sh"
# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"

# What takes long is waiting.
beside=20

# Sockets on each machine. TIME_WAIT passes by itself; of the memory, each processor keeps some pages in reserve.
sockets() {
	local machine
	for machine in client lbu host1; do
		ns $machine sed -n "s/ tw [0-9]*//; s/ mem .*//; s/^TCP/$machine/p" /proc/net/sockstat /proc/net/sockstat6
	done
}
sockets_as_before() {
	wait_for 60 sockets_are "$1" || {
		printf '%s\n' "$1" "are now" "$(sockets)"
		return 1
	}
}
sockets_are() { [ "$(sockets)" = "$1" ]; }

ktap_begin
cluster
# The connections between the migrators come with the first migrations, and stay.
printf 'a first one: unsent\n' | python3 "$state" >/dev/null
forget_leaks
small_segments
both_families
both=1
printf 'a first one: unsent\n' | python3 "$state" --both >/dev/null
before=$(sockets)
all_scenarios
all_window_scales
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_run "as many sockets as before" sockets_as_before "$before"
ktap_run "nothing leaked" nothing_leaked
ktap_end
