#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# ICMP errors about the packets of connections, in both directions and all ways but the tunnel (tunnel/test_icmp.sh),
# with routers on the way and a narrower link at each: host2 between the LBU and host1 and between host1 and the client,
# and "router" between the LBU and the client's other address.

. "$(dirname "$0")/../lib.sh"
modes=$(cd "$(dirname "$0")" && pwd)/modes.py
forge=$(cd "$(dirname "$0")" && pwd)/forge.py
lbu() { nlb -n lbu "$@"; }

# The client as the router knows it.
BEHIND=10.0.8.2 BEHIND6=2001:db8:8::2

# Replies from the VIP go to the client through host2; those to the other address come back to the LBU.
routers() {
	behind_a_router
	netns_add router
	ip -batch - <<-EOF
		link add router netns lbu type veth peer name lbu netns router
		link add client netns router type veth peer name router netns client
	EOF
	ip -n host1 -batch - <<-EOF
		route add $BEHIND via 10.0.6.1
		route add $BEHIND6 via 2001:db8:6::1
		link add tun4 type ipip local $FAR remote $LBU_TO_HOST2
		link set tun4 up
		link add tun6 type ip6tnl mode ip6ip6 local $FAR6 remote $LBU_TO_HOST2_6
		link set tun6 up
	EOF
	ip -n lbu -batch - <<-EOF
		link set router up
		addr add 10.0.7.1/24 dev router
		addr add 2001:db8:7::1/64 dev router nodad
		route add $BEHIND via 10.0.7.2
		route add $BEHIND6 via 2001:db8:7::2
	EOF
	ip -n router -batch - <<-EOF
		link set lbu up
		link set client up
		addr add 10.0.7.2/24 dev lbu
		addr add 2001:db8:7::2/64 dev lbu nodad
		addr add 10.0.8.1/24 dev client
		addr add 2001:db8:8::1/64 dev client nodad
		route add $BEHIND dev client mtu 1300
		route add $BEHIND6 dev client mtu 1300
		route add default via 10.0.7.1
		route add default via 2001:db8:7::1
	EOF
	ip -n client -batch - <<-EOF
		link set router up
		addr add $BEHIND/24 dev router
		addr add $BEHIND6/64 dev router nodad
	EOF
	ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# forgotten GATEWAY GATEWAY6: what all have learnt of paths; the client reaches the VIP by these. Routes with one next hop
# share what is known of it, unless they differ in something.
forgotten() {
	local proto=$((RANDOM % 50 + 200))
	ip -n client -batch - <<-EOF
		route replace $VIP via $1 proto $proto
		route replace $VIP6 via $2 proto $proto
	EOF
	ip -n lbu -batch - <<-EOF
		route replace $FAR via $HOST2 proto $proto
		route replace $FAR6 via $HOST2_6 proto $proto
	EOF
	ip -n host1 -batch - <<-EOF
		route replace $CLIENT via 10.0.6.1 proto $proto
		route replace $CLIENT6 via 2001:db8:6::1 proto $proto
		route replace $BEHIND via 10.0.6.1 proto $((proto - 50))
		route replace $BEHIND6 via 2001:db8:6::1 proto $proto
		route replace $LBU_TO_HOST2 via 10.0.6.1 proto $((proto - 100))
		route replace $LBU_TO_HOST2_6 via 2001:db8:6::1 proto $proto
	EOF
}

# knows MACHINE DESTINATION MTU: whether the MTU of a path is known there.
knows() { ip -n "$1" route get "$2" | tee "$tmp/route" | grep "mtu $3" || ! cat "$tmp/route"; }

# strays: ICMP errors that host1 could not make anything of, because what they quote was not a packet of its own.
strays() { ns host1 awk '/^Icmp: [0-9]/ { n += $3 } /^Icmp6InErrors/ { n += $2 } END { print n }' /proc/net/snmp /proc/net/snmp6; }
# unreachables: errors that host1 got because somebody was not there.
unreachables() {
	ns host1 awk '/^Icmp: [0-9]/ { n += $5 } /^Icmp6InDestUnreachs/ { n += $2 } END { print n }' /proc/net/snmp /proc/net/snmp6
}

# way GATEWAY GATEWAY6 PORT MTU MTU6 SEEN SEEN6: bytes there and back through narrower links both ways. The MTUs are what the
# client learns (1500: nothing); the host learns 1300 of the way to whom it has SEEN.
way() {
	local errors told told_now errors_now
	forgotten "$1" "$2"
	both_counters >"$tmp/before"
	ns client "$modes" ask 300000 "$6=$VIP:$3" "$7=[$VIP6]:$3"
	both_counters >"$tmp/after"
	read -r errors told <"$tmp/before"
	read -r errors_now told_now <"$tmp/after"
	((errors_now >= errors + 2))
	if (($4 < 1500)); then
		((told_now >= told + 2))
		knows client $VIP "$4"
		knows client $VIP6 "$5"
	else
		((told_now == told))
	fi
	knows host1 "$6" 1300
	knows host1 "$7" 1300
	[ "$(strays)" = 0 ]
}
both_counters() { lbu -j stats show fwd | jq -r '.[0].counters | "\(."icmp-errors") \(."icmp-told")"'; }

datagrams() {
	local before
	forgotten 10.0.8.1 2001:db8:8::1
	before=$(counter lbu fwd icmp-told)
	ns client "$modes" big "1400=$VIP:7003" "1400=[$VIP6]:7003" "1400=$VIP:7004" "1400=[$VIP6]:7004"
	[ "$(counter lbu fwd icmp-told)" = $((before + 4)) ]
	# In fragments through both narrower links.
	ns client "$modes" pieces "$VIP:7003" "[$VIP6]:7003" "$VIP:7004" "[$VIP6]:7004"
	# The third router is host2; it is the VIP's for the client.
	ns client "$modes" late 3 "$VIP:7003" "[$VIP6]:7003" "$VIP:7004" "[$VIP6]:7004" | tee "$tmp/late"
	[ "$(grep -cE "told by ($VIP|$VIP6)\$" "$tmp/late")" = 4 ]
	ns client "$modes" refused "$VIP:7005" "[$VIP6]:7005" "$VIP:7006" "[$VIP6]:7006"
	[ "$(counter lbu fwd icmp-told)" = $((before + 12)) ]
	forgotten 10.0.1.1 2001:db8:1::1
	before=$(counter lbu fwd icmp-told)
	ns client "$modes" big "1380=$VIP:7002" "1360=[$VIP6]:7002"
	[ "$(counter lbu fwd icmp-told)" = $((before + 2)) ]
	knows lbu $FAR 1400
	knows lbu $FAR6 1400
}

# gone GATEWAY GATEWAY6 PORT...: the host hears that nobody is there any more.
gone() {
	local port at
	forgotten "$1" "$2"
	for port in "${@:3}"; do
		for at in "$VIP:$port" "[$VIP6]:$port"; do
			unreachables >"$tmp/before"
			wait_for 20 one_more "$at"
		done
	done
	[ "$(strays)" = 0 ]
}
one_more() {
	ns client "$modes" gone "$1"
	[ "$(unreachables)" -gt "$(<"$tmp/before")" ]
}
somebody_gone() {
	gone 10.0.1.1 2001:db8:1::1 7001 7002
	gone 10.0.8.1 2001:db8:8::1 7003 7004
}

# Errors that nobody has reason to send.
forged() {
	forgotten 10.0.8.1 2001:db8:8::1
	ns client "$forge" $VIP $BEHIND 600
	ns client "$forge" $VIP6 $BEHIND6 1290
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
routers || fail "cannot set up the routers"
vip_add lbu host1
vip_add_ipv6 lbu host1
while read -r port host host6 words; do
	for proto in tcp udp; do
		lbu service add "$VIP:$port/$proto"
		lbu service add "[$VIP6]:$port/$proto"
		# shellcheck disable=SC2086
		lbu endpoint add "$VIP:$port/$proto" host "$host" $words
		# shellcheck disable=SC2086
		lbu endpoint add "[$VIP6]:$port/$proto" host "$host6" $words
	done
done <<EOF
7001 $HOST1 $HOST1_6 via direct
7002 $FAR $FAR6 via ipip
7003 $FAR $FAR6 via half-nat port 8003
7004 $FAR $FAR6 via nat port 8004
7005 $FAR $FAR6 via half-nat port 8009
7006 $FAR $FAR6 via nat port 8009
EOF
background host1 "$tmp/host1.log" "$modes" serve 7001 7002 8003 8004
wait_for 20 grep -q ready "$tmp/host1.log"
ktap_run "direct: through narrower links" way 10.0.1.1 2001:db8:1::1 7001 1500 1500 $CLIENT $CLIENT6
ktap_run "ipip: through narrower links" way 10.0.1.1 2001:db8:1::1 7002 1380 1360 $CLIENT $CLIENT6
ktap_run "half-nat: through narrower links" way 10.0.8.1 2001:db8:8::1 7003 1400 1400 $BEHIND $BEHIND6
ktap_run "nat: through narrower links" way 10.0.8.1 2001:db8:8::1 7004 1400 1400 $LBU_TO_HOST2 $LBU_TO_HOST2_6
ktap_run "datagrams too long, too late, or to nobody" datagrams
ktap_run "a client that is gone" somebody_gone
ktap_run "forged errors" forged
ktap_end
