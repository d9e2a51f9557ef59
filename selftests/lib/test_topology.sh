#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The machines of lib.sh, without our modules: every link works, and what a host sends to the client
# does not pass the LBU. Other tests stand on this.

. "$(dirname "$0")/../lib.sh"

reaches() { ns "$1" ping -q -c 2 -i 0.2 -W 5 "$2"; }

# TTL 64 arrives undiminished over a direct link; a hop takes one away.
replies_go_straight() {
	capture_start client "$1" "$tmp/$1.pcap" icmp
	ns client ping -q -c 2 -i 0.2 -W 5 -I 10.0.1.2 "$2"
	capture_stop
	tcpdump -n -v -r "$tmp/$1.pcap" 'icmp[icmptype] == icmp-echoreply' 2>/dev/null >"$tmp/$1.txt"
	cat "$tmp/$1.txt"
	[ "$(grep -c 'ttl 64' "$tmp/$1.txt")" = 2 ]
}

vip_is_routed_to_lbu() {
	ns client ip route get "$VIP" | tee "$tmp/route"
	grep -q 'via 10.0.1.1 dev lbu' "$tmp/route"
}

nobody_answers_for_the_vip() {
	not ns client ping -q -c 1 -W 1 "$VIP"
}

ktap_begin
topology
ktap_run "client reaches the LBU" reaches client "$LBU"
ktap_run "LBU reaches host1" reaches lbu "$HOST1"
ktap_run "LBU reaches host2" reaches lbu "$HOST2"
ktap_run "host1 answers the client by the direct link" replies_go_straight host1 "$HOST1"
ktap_run "host2 answers the client by the direct link" replies_go_straight host2 "$HOST2"
ktap_run "the VIP is routed to the LBU" vip_is_routed_to_lbu
ktap_run "nobody answers for the VIP" nobody_answers_for_the_vip
ktap_end
