#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 900
#
# Whatever a connection is in the middle of goes along: data in flight and to be
# sent, windows that are closed, data out of order, a half-closed connection,
# numbers that are about to wrap. (Each of it many times: debug/test_repeat.sh.)

. "$(dirname "$0")/state.sh"

# The client has a way to each, and LBU and host are each other's.
both_ways() {
	ns host1 nlb service add $VIP:80/tcp mode peek
	ns host1 nlb endpoint add $VIP:80/tcp host $LBU_TO_HOST1
	ns lbu nlb forwarder add $HOST1
	ip -n client rule add fwmark 1 table 101
	ip -n client route add $VIP via 10.0.4.1 table 101
	watch
	capture_sent client host1 "$tmp/sent-client-directly.pcap" tcp port 80 and host $VIP
	capture_ready
	{
		echo "tracked from the SYN on, another connection: tracked_before" | python3 "$state"
		echo "10 connections to and fro, 50 times each: to_and_fro 50" | python3 "$state" --times 10
	} | tee "$tmp/both-ways"
	holds --connections 12 --moves 501
	[ "$(grep -c ^ok "$tmp/both-ways")" = 2 ]
}

ktap_begin
cluster
all_scenarios
small_segments
ktap_run "the client's path changes: conntrack at the host, and ten go 50 times to and fro" both_ways
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_end
