#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 900
#
# Whatever a connection is in the middle of goes along: data in flight and to be
# sent, windows that are closed, data out of order, a half-closed connection,
# numbers that are about to wrap.

. "$(dirname "$0")/lib.sh"

state=$(dirname "$tcp")/state.py
invariants=$(dirname "$pcap")/invariants.py

# scenario NAME ARGUMENT...: and every packet as its sender sent it.
scenario() {
	local rc=0
	mend
	capture_start client lbu "$tmp/client.pcap" -s 0 -Q out tcp port 80
	capture_start lbu client "$tmp/lbu.pcap" -s 0 -Q out tcp port 80
	capture_start host1 client "$tmp/host1.pcap" -s 0 -Q out tcp port 80
	timeout -k 5 100 python3 "$state" "$@" || rc=$?
	capture_stop
	((rc == 0))
	# A connection that was made by hand has no handshake to begin with.
	if [ "$1" = wrap ]; then
		"$pcap" no-rst "$tmp/client.pcap" "$tmp/host1.pcap"
	else
		"$invariants" "$tmp/client.pcap" "$tmp/lbu.pcap" "$tmp/host1.pcap"
	fi
}
# What a scenario that failed may have left.
mend() {
	local machine
	for machine in client lbu; do ns $machine nft flush ruleset; done
}

ktap_begin
cluster
# A retransmission timeout would be seen, and does not come by itself when the machine is slow.
for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=3000000; done
ns lbu sysctl -qw net.ipv4.tcp_early_retrans=0
ns client sysctl -qw net.ipv4.tcp_slow_start_after_idle=0
ktap_run "300 KB in flight and lost, 2 MB not sent" scenario in_flight
ktap_run "some segments in flight are lost" scenario in_flight_holes
ktap_run "all in flight has arrived, no acknowledgement has" scenario in_flight_received
ktap_run "in CLOSE_WAIT, the reply in flight" scenario half_closed_with_reply
ktap_run "an attempt fails, all queues stay" scenario rolled_back
for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=200000; done
ktap_run "in flight and lost, without SACK" scenario in_flight 0
ktap_run "not sent, nothing in flight" scenario unsent
ktap_run "client's window closed" scenario client_window_closed opens
ktap_run "client's window closed, the update is lost" scenario client_window_closed lost
ktap_run "our window closed" scenario our_window_closed
ktap_run "megabytes partly read" scenario partly_read
ktap_run "one hole" scenario holes 1
ktap_run "5 holes" scenario holes 5
ktap_run "32 holes" scenario holes 32
ktap_run "33 holes are refused" scenario holes 33
ktap_run "holes and a FIN behind them" scenario holes 3 fin
ktap_run "holes without SACK" scenario holes 2 '' 0
for count in 0 1 5 1000000; do
	ktap_run "CLOSE_WAIT, $count bytes unread" scenario half_closed $count
done
ktap_run "CLOSE_WAIT, the program has seen the end" scenario half_closed 0 seen
ktap_run "closed by us: refused" scenario shut_down
# tcp_rmem's maximum for window scales of 0, 3, 7 and 14.
for pair in "65535 65535" "65535 1073741824" "1073741824 65535" "6291456 400000"; do
	# shellcheck disable=SC2086
	ktap_run "window scales for buffers of $pair" scenario window_scales $pair
done
ktap_run "small segments" scenario window_scales 6291456 6291456 600
ktap_run "large segments" scenario window_scales 6291456 6291456 9000
ktap_run "sequence numbers and timestamps wrap" scenario wrap
ktap_run "options of the socket" scenario options
ktap_run "nothing is left at the host" wait_for 30 no_mappings host1
ktap_end
