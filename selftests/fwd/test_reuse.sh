#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# A client closes a connection and opens the next one at once, with the same addresses and ports, by every way to a host,
# over IPv4 and IPv6: it is a new connection, for which the scheduler picks another host, and no SYN is lost on its way.

. "$(dirname "$0")/../lib.sh"
reuse=$(cd "$(dirname "$0")" && pwd)/reuse.py
lbu() { nlb -n lbu "$@"; }

ways=(tunnel direct ipip half-nat nat)
times=40
# To this address of the client hosts have no way but through the LBU.
behind=10.0.1.3 behind6=2001:db8:1::3

configure() {
	local host n=0 way port
	topology_ipv6
	vip_add lbu host1 host2
	vip_add_ipv6 lbu host1 host2
	ip -n client addr add $behind/24 dev lbu
	ip -n client addr add $behind6/64 dev lbu nodad
	ns client sysctl -qw net.ipv4.tcp_tw_reuse=1 net.ipv4.tcp_tw_reuse_delay=1
	while read -r host here here6 there there6; do
		ns "$host" nlb forwarder add "$there"
		ns "$host" nlb forwarder add "$there6"
		ip -n "$host" link add tun4 type ipip local "$here" remote "$there"
		ip -n "$host" link set tun4 up
		ip -n "$host" link add tun6 type ip6tnl mode ip6ip6 local "$here6" remote "$there6"
		ip -n "$host" link set tun6 up
		background "$host" "$tmp/$host.log" "$reuse" serve 7001 7002 7003 8004 8005
		wait_for 20 grep -q ready "$tmp/$host.log"
	done <<-END
		host1 $HOST1 $HOST1_6 $LBU_TO_HOST1 $LBU_TO_HOST1_6
		host2 $HOST2 $HOST2_6 $LBU_TO_HOST2 $LBU_TO_HOST2_6
	END
	for way in "${ways[@]}"; do
		port=''
		case $way in *nat) port="port $((8001 + n))" ;; esac
		n=$((n + 1))
		lbu service add "$VIP:$((7000 + n))/tcp" scheduler rr
		lbu service add "[$VIP6]:$((7000 + n))/tcp" scheduler rr
		# shellcheck disable=SC2086 # two words or none
		for host in $HOST1 $HOST2; do lbu endpoint add "$VIP:$((7000 + n))/tcp" host "$host" via "$way" $port; done
		# shellcheck disable=SC2086
		for host in $HOST1_6 $HOST2_6; do lbu endpoint add "[$VIP6]:$((7000 + n))/tcp" host "$host" via "$way" $port; done
	done
}

at_once() {
	ns client "$reuse" again $times "$CLIENT=$VIP:7001" "$CLIENT6=[$VIP6]:7001" "$CLIENT=$VIP:7002" "$CLIENT6=[$VIP6]:7002" \
		"$CLIENT=$VIP:7003" "$CLIENT6=[$VIP6]:7003" "$behind=$VIP:7004" "$behind6=[$VIP6]:7004" \
		"$behind=$VIP:7005" "$behind6=[$VIP6]:7005"
}

# Each connection of a way is one, and goes to the other host than the last one.
each_is_new() {
	local n=0 way vip
	for way in "${ways[@]}"; do
		n=$((n + 1))
		for vip in $VIP "[$VIP6]"; do
			lbu -j endpoint show "$vip:$((7000 + n))/tcp" | jq -ce "map(.connections) | . == [$((times / 2)), $((times / 2))] or halt_error"
		done
	done
}

ktap_begin
load_modules nlb_fwd
topology
ktap_run "two hosts, and services of each way" configure
ktap_run "no SYN is lost" at_once
ktap_run "each is a new connection" each_is_new
ktap_end
