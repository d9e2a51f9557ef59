#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 3000
#
# What migrator/test_commit.sh and test_early.sh do once, TIMES times (100, or 1,000 with LONG=1), 25 or 50
# connections at once: each message between the migrators is lost, late or doubled, and packets of the client are early
# (lost.py). Nothing of all these connections is left.

# shellcheck disable=SC2154 # lib.sh sets tmp, pcap and what else is not set here

TIMES=${TIMES:-${LONG:+1000}}
TIMES=${TIMES:-100}
. "$(dirname "$0")/../migrator/state.sh"
# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"

state=$(dirname "$0")/lost.py
# As many as there are peers.
beside=50

# Those of the LBU are 10.1.N.1, of the host 10.1.N.2.
peers() {
	local n
	for ((n = 0; n < beside; n++)); do
		printf 'addr add 10.1.%d.1/32 dev host1\nroute add 10.1.%d.2 dev host1 src 10.1.%d.1\n' $n $n $n
	done | ip -n lbu -batch - || fail "no addresses at the LBU"
	for ((n = 0; n < beside; n++)); do
		printf 'addr add 10.1.%d.2/32 dev lbu\nroute add 10.1.%d.1 dev lbu src 10.1.%d.2\n' $n $n $n
	done | ip -n host1 -batch - || fail "no addresses at the host"
	for ((n = 0; n < beside; n++)); do
		ns host1 nlb forwarder add 10.1.$n.1
		peer_add host1 10.1.$n.1
		peer_add lbu 10.1.$n.2
	done
	# What was lost comes again within a second.
	for n in lbu host1; do ns $n sysctl -qw net.ipv4.tcp_rto_max_ms=1000; done
}
# Each client is told by one RST. A port may have been used again for another connection.
one_reset_each() {
	capture_stop
	[ -z "$capture_missed" ] || fail "not everything was captured:$capture_missed"
	tcpdump -nr "$tmp/sent-lbu.pcap" "src host $VIP and tcp[tcpflags] & (tcp-syn|tcp-rst) != 0" 2>/dev/null |
		awk -v n="$times" '
			/Flags \[S/ && !seen[$5, $9]++ { opened[$5]++; all++ }
			/Flags \[R/ { resets[$5]++ }
			END {
				for (client in opened)
					if (resets[client] != opened[client]) {
						print client, opened[client], "connections,", resets[client] + 0, "resets"
						wrong++
					}
				print all, "connections"
				exit all != n || wrong
			}'
	"$pcap" no-rst "$tmp/sent-host1.pcap"
}
nothing_is_held() { [ "$(counter host1 migrator held-now)" = 0 ]; }
nothing_lives() { [ -z "$(ns host1 ss -Htn state established sport = :80)" ]; }

ktap_begin
cluster
peers
forget_leaks
scenarios packets_are_right <<-EOF
	COMMIT is lost with the connection it went by: commit_lost
	PREPARE never comes: rolled_back PREPARE
	READY never comes: rolled_back READY
	STATE never comes: rolled_back STATE
	STAGED never comes: rolled_back STAGED
EOF
# Twenty-five times is enough for what takes so long.
times=25 scenarios packets_are_right <<-EOF
	COMMIT is lost, and nobody reaches the host for 7 s: commit_lost 7
EOF
beside=25
scenarios packets_are_right <<-EOF
	1 to 5 packets are early: early 1 1 2 3 5
	COMMIT comes late: late COMMIT
	COMMIT comes twice: commit_doubled
	INJECTED comes late: late INJECTED
	INJECTED comes late, and the connection has ended: injected_last
	INJECTED is lost, and COMMIT comes twice: injected_lost
	CLOSED comes late: closed_late
EOF
scenarios one_reset_each <<-EOF
	no answer to COMMIT ever comes: never
EOF
ktap_run "nothing is held" nothing_is_held
ktap_run "nothing lives at the host" wait_for 30 nothing_lives
ktap_run "no mapping is left at the host" wait_for 100 no_mappings host1
ktap_run "no route is left at the LBU" no_routes
ktap_run "nothing leaked" nothing_leaked
ktap_end
