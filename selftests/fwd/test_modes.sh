#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The ways of forwarding other than the tunnel: TCP and UDP, IPv4 and IPv6, each byte compared; who
# the application sees; where replies go; ICMP errors to the client; nothing is left.

. "$(dirname "$0")/../lib.sh"
modes=$(cd "$(dirname "$0")" && pwd)/modes.py
lbu() { nlb -n lbu "$@"; }
pcap=$(cd "$(dirname "$0")/.." && pwd)/pcap.py

# service PORT HOST HOST6 WORD...: on both VIPs, TCP and UDP, with this endpoint.
service() {
	local port=$1 host=$2 host6=$3 proto
	shift 3
	for proto in tcp udp; do
		lbu service add "$VIP:$port/$proto"
		lbu endpoint add "$VIP:$port/$proto" host "$host" "$@"
		lbu service add "[$VIP6]:$port/$proto"
		lbu endpoint add "[$VIP6]:$port/$proto" host "$host6" "$@"
	done
}

# Host1 takes what is for the VIP and comes as it is, and what comes in IPIP from the LBU. Host2 does not know the
# VIP, and reaches clients through the LBU.
configure() {
	service 7001 $HOST1 $HOST1_6 via direct
	service 7002 $HOST1 $HOST1_6 via ipip
	service 7003 $HOST2 $HOST2_6 via half-nat port 8003
	service 7004 $HOST2 $HOST2_6 via nat port 8004
	ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
	ip -n host2 route replace $CLIENT6 via $LBU_TO_HOST2_6
	ip -n host1 link add tun4 type ipip local $HOST1 remote $LBU_TO_HOST1
	ip -n host1 link set tun4 up
	ip -n host1 link add tun6 type ip6tnl mode ip6ip6 local $HOST1_6 remote $LBU_TO_HOST1_6
	ip -n host1 link set tun6 up
	background host1 "$tmp/host1.log" "$modes" serve 7001 7002
	background host2 "$tmp/host2.log" "$modes" serve 8003 8004
	wait_for 20 grep -q ready "$tmp/host1.log"
	wait_for 20 grep -q ready "$tmp/host2.log"
	lbu -j endpoint show "$VIP:7001/tcp" | jq -e '.[0] | .forward == "direct" and (has("source_addr") | not)'
	lbu -j endpoint show "[$VIP6]:7002/udp" | jq -e '.[0] | .forward == "ipip" and .source_addr == "2001:db8:2::1"'
	lbu endpoint show "$VIP:7002/tcp" | grep -E " $HOST1 +ipip +$LBU_TO_HOST1 "
	lbu endpoint show "$VIP:7003/tcp" | grep -E " $HOST2:8003 +half-nat +- "
	lbu -j endpoint show "$VIP:7004/tcp" |
		jq -e '.[0] | .forward == "nat" and .host_port == 8004 and .source_addr == "10.0.3.1"'
}

# ask BYTES: so many there and back in the longest connection, every way.
ask() {
	ns client "$modes" ask "$1" "$CLIENT=$VIP:7001" "$CLIENT6=[$VIP6]:7001" "$CLIENT=$VIP:7002" "$CLIENT6=[$VIP6]:7002" \
		"$CLIENT=$VIP:7003" "$CLIENT6=[$VIP6]:7003" "$LBU_TO_HOST2=$VIP:7004" "$LBU_TO_HOST2_6=[$VIP6]:7004"
}

everything() {
	capture client lbu "$tmp/straight.pcap" --immediate-mode -s 256 -- 'tcp port 7001 or tcp port 7002'
	capture client lbu "$tmp/back.pcap" --immediate-mode -s 256 -- 'tcp and not port 7001 and not port 7002'
	capture_ready
	ask 1000000
	# While those of UDP are there.
	lbu route show | grep -E " $VIP:7001/udp +$HOST1 +- +direct +udp "
	lbu -j route show >"$tmp/routes"
	jq -e 'any(.forward == "ipip" and .forwarder_addr == "10.0.2.1")' "$tmp/routes"
	jq -e 'all(has("flow_id") | not)' "$tmp/routes"
	jq -e '[.[] | select(.forward == "nat") | .forwarder_port] | length >= 6 and min >= 1024 and max < 32768' "$tmp/routes"
	[ "$(counter lbu fwd reply-packets)" -gt 0 ]
	capture_stop
	"$pcap" no-rst "$tmp/straight.pcap"
	"$pcap" no-rst "$tmp/back.pcap"
	# Replies go straight to the client, or come from the VIP and from nowhere else.
	"$pcap" no-data-from $VIP "$tmp/straight.pcap"
	"$pcap" no-data-from $VIP6 "$tmp/straight.pcap"
	"$pcap" data-from $VIP "$tmp/back.pcap"
	"$pcap" data-from $VIP6 "$tmp/back.pcap"
	"$pcap" no-data-from $HOST2 "$tmp/back.pcap"
	"$pcap" no-data-from $HOST2_6 "$tmp/back.pcap"
	[ "$(lbu -j mapping show | jq length)" = 0 ]
}

# Batches of segments go as one: the average packet is longer than the link can carry.
batches_stay_whole() {
	lbu -j endpoint show | tee "$tmp/endpoints"
	jq -e '[.[] | select(.proto == "tcp")] | length == 8 and all(.bytes / .packets > 1500)' "$tmp/endpoints"
}

# narrow add|del ADDRESS DEVICE...: the ways from the LBU to these addresses carry 1400 bytes, or all again.
narrow() {
	local command=$1
	shift
	while (($#)); do
		ip -n lbu route "$command" "$1" dev "$2" mtu 1400
		shift 2
	done
}

# Narrower ways behind the LBU, and then one before it, of which the host is told.
too_big() {
	local before
	before=$(counter lbu fwd drop-too-big)
	narrow add $HOST1 host1 $HOST1_6 host1 $HOST2 host2 $HOST2_6 host2
	ns client "$modes" big "1400=$VIP:7001" "1400=[$VIP6]:7001" "1380=$VIP:7002" "1360=[$VIP6]:7002" \
		"1400=$VIP:7003" "1400=[$VIP6]:7003" "1400=$VIP:7004" "1400=[$VIP6]:7004"
	[ "$(counter lbu fwd drop-too-big)" = $((before + 8)) ]
	# And TCP finds out.
	ask 100000
	narrow del $HOST1 host1 $HOST1_6 host1 $HOST2 host2 $HOST2_6 host2
	before=$(counter lbu fwd drop-too-big)
	narrow add $CLIENT client $CLIENT6 client
	ns client "$modes" ask 100000 "$CLIENT=$VIP:7003" "$CLIENT6=[$VIP6]:7003"
	ns host2 ip route get $CLIENT | grep 'mtu 1400'
	ns host2 ip route get $CLIENT6 | grep 'mtu 1400'
	[ "$(counter lbu fwd drop-too-big)" -gt "$before" ]
	narrow del $CLIENT client $CLIENT6 client
}

# Datagrams in fragments there and back. Three each: those of clients all ways, and those of host2, which come this way.
in_pieces() {
	local before fragments
	before=$(counter lbu fwd defragmented)
	ns client "$modes" pieces "$VIP:7001" "[$VIP6]:7001" "$VIP:7002" "[$VIP6]:7002" "$VIP:7003" "[$VIP6]:7003" \
		"$VIP:7004" "[$VIP6]:7004"
	[ "$(counter lbu fwd defragmented)" = $((before + 36)) ]
	# Those of other machines are none of our business.
	ip -n client addr add 10.0.1.77/32 dev lbu
	ip -n host2 route add 10.0.1.77 via $LBU_TO_HOST2
	ip -n host1 route add 10.0.1.77 via $LBU_TO_HOST1
	fragments=$(counter lbu fwd fragments)
	ns host1 ping -q -c 1 -s 4000 -W 10 10.0.1.77
	[ "$(counter lbu fwd fragments)" = "$fragments" ]
	# The kernel forwards what only might have been one of ours, too.
	ns host2 ping -q -c 1 -s 4000 -W 10 10.0.1.77
	[ "$(counter lbu fwd fragments)" -gt "$fragments" ]
	[ "$(counter lbu fwd pass-protocol)" = 0 ]
}

# The LBU is a router on the way.
time_is_up() {
	ns client "$modes" late 1 "$VIP:7001" "[$VIP6]:7001" "$VIP:7002" "[$VIP6]:7002" "$VIP:7003" "[$VIP6]:7003" \
		"$VIP:7004" "[$VIP6]:7004"
	[ "$(counter lbu fwd drop-ttl-expired)" = 8 ]
}

# What would loop or go astray is refused, and so is what makes no sense.
refused() {
	local text before after
	before=$(lbu -j endpoint show | jq -c 'map([.vip_addr, .vip_port, .proto, .host_addr]) | sort')
	while IFS='|' read -r text words; do
		# shellcheck disable=SC2086
		not lbu endpoint add $words 2>"$tmp/err"
		cat "$tmp/err"
		grep -qF "$text" "$tmp/err"
	done <<-EOF
	not the address of another machine|$VIP:7001/tcp host $LBU via direct
	not the address of another machine|$VIP:7001/tcp host $LBU via ipip
	not the address of another machine|$VIP:7001/tcp host 10.0.2.255 via ipip
	not the address of another machine|[$VIP6]:7001/tcp host $LBU6 via ipip
	not the address of another machine|$VIP:7001/tcp host $VIP via direct
	not the address of another machine|$VIP:7001/tcp host $LBU via half-nat
	not the address of another machine|[$VIP6]:7001/tcp host $LBU6 via nat
	only half-nat and nat change the port|$VIP:7001/tcp host $HOST2 via direct port 80
	only half-nat and nat change the port|$VIP:7001/tcp host $HOST2 port 80
	the client's address stays the source|$VIP:7001/tcp host $HOST2 via half-nat source $LBU
	source is not an address of this machine|$VIP:7001/tcp host $HOST2 via nat source 10.0.9.9
	on no link of this machine|$VIP:7001/tcp host 10.0.9.9 via direct
	on no link of this machine|[$VIP6]:7001/tcp host 2001:db8:9::9 via direct
	EOF
	lbu service add "$VIP:7009/tcp" mode peek
	not lbu endpoint add "$VIP:7009/tcp" host $HOST1 via ipip
	lbu service del "$VIP:7009/tcp"
	after=$(lbu -j endpoint show | jq -c 'map([.vip_addr, .vip_port, .proto, .host_addr]) | sort')
	[ "$before" = "$after" ]
}

# A route by hand takes the way of its endpoint.
by_hand() {
	lbu route add "$VIP:7002/tcp" client 198.51.100.7:40000 host $HOST1
	lbu -j route show client 198.51.100.7:40000 | jq -e '.[0] | .forward == "ipip" and .origin == "manual"'
	lbu route add "$VIP:7002/tcp" client 198.51.100.7:40001 host $HOST2
	lbu -j route show client 198.51.100.7:40001 | jq -e '.[0] | .forward == "tunnel" and has("flow_id")'
	lbu route del "$VIP:7002/tcp" client 198.51.100.7:40000
	lbu route del "$VIP:7002/tcp" client 198.51.100.7:40001
}

# Two connections from one port of a client, to two services with one host and port of it: replies would be the same.
one_port_twice() {
	local replaced
	service 7005 $HOST2 $HOST2_6 via half-nat port 8003
	replaced=$(counter lbu fwd route-replaced)
	ns client python3 - <<-EOF
	import socket
	first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	first.bind(("$CLIENT", 5555))
	first.settimeout(20)
	for port in (7003, 7005, 7003):
	    first.sendto(b"%d" % port, ("$VIP", port))
	    if port == 7003:
	        assert first.recvfrom(10) == (b"7003", ("$VIP", 7003))
	# A connection that is over does not stand in the way.
	for port in (7003, 7005, 7003):
	    s = socket.socket()
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	    s.bind(("$CLIENT", 5555))
	    s.settimeout(20)
	    s.connect(("$VIP", port))
	    s.sendall(b"y")
	    assert s.recv(10) == b"y"
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
	    s.close()
	EOF
	[ "$(counter lbu fwd drop-no-port)" = 1 ]
	[ "$(counter lbu fwd route-replaced)" = $((replaced + 2)) ]
}

# answers FILE COUNT: so many in all.
answers() { [ "$(grep -cx ok "$1")" -ge "$2" ]; }

# Connections of an endpoint that was removed go on; those of a service that was removed do not, nor
# does anything after the module has gone.
under_traffic() {
	local at name count
	for at in "$VIP:7001" "[$VIP6]:7002" "$VIP:7003" "[$VIP6]:7004"; do
		name=$tmp/keep-${at##*:}
		background client "$name" "$modes" keep "$at"
		wait_for 20 answers "$name" 2
	done
	lbu endpoint del "$VIP:7001/tcp" host $HOST1
	lbu endpoint del "[$VIP6]:7002/tcp" host $HOST1_6
	lbu endpoint del "$VIP:7003/tcp" host $HOST2
	lbu endpoint del "[$VIP6]:7004/tcp" host $HOST2_6
	for name in "$tmp"/keep-*; do
		count=$(grep -cx ok "$name")
		wait_for 20 answers "$name" $((count + 5))
	done
	lbu service del "$VIP:7003/tcp"
	[ "$(lbu -j route show | jq '[.[] | select(.proto == "tcp" and .vip_addr == "192.0.2.10" and .vip_port == 7003)] | length')" = 0 ]
	# It has no replies any more.
	count=$(grep -cx ok "$tmp/keep-7003")
	nap 1
	[ "$(grep -cx ok "$tmp/keep-7003")" -le $((count + 1)) ]
	rmmod nlb_fwd
	rmmod nlb_tunnel
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1
vip_add_ipv6 lbu host1
ktap_run "services with endpoints of each way" configure
ktap_run "TCP and UDP, byte by byte" everything
ktap_run "batches of segments stay whole" batches_stay_whole
ktap_run "the client is told what is too big" too_big
ktap_run "fragments" in_pieces
ktap_run "the client is told that time is up" time_is_up
ktap_run "routes by hand" by_hand
ktap_run "what would go astray is refused" refused
ktap_run "one port of a client twice" one_port_twice
ktap_run "endpoints, services and the module go under traffic" under_traffic
ktap_end
