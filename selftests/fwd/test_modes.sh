#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The ways of forwarding other than the tunnel: TCP and UDP, IPv4 and IPv6, each byte compared; who
# the application sees; where replies go; ICMP errors to the client; nothing is left.

. "$(dirname "$0")/../lib.sh"
modes=$(cd "$(dirname "$0")" && pwd)/modes.py
pcap=$(cd "$(dirname "$0")/.." && pwd)/pcap.py

# service PORT HOST HOST6 WORD...: on both VIPs, TCP and UDP, with this endpoint.
service() {
	local port=$1 host=$2 host6=$3 proto
	shift 3
	for proto in tcp udp; do
		ns lbu nlb service add "$VIP:$port/$proto"
		ns lbu nlb endpoint add "$VIP:$port/$proto" host "$host" "$@"
		ns lbu nlb service add "[$VIP6]:$port/$proto"
		ns lbu nlb endpoint add "[$VIP6]:$port/$proto" host "$host6" "$@"
	done
}

# Host1 takes what is for the VIP and comes as it is, and what comes in IPIP from the LBU.
configure() {
	service 7001 $HOST1 $HOST1_6 via direct
	service 7002 $HOST1 $HOST1_6 via ipip
	ip -n host1 link add tun4 type ipip local $HOST1 remote $LBU_TO_HOST1
	ip -n host1 link set tun4 up
	ip -n host1 link add tun6 type ip6tnl mode ip6ip6 local $HOST1_6 remote $LBU_TO_HOST1_6
	ip -n host1 link set tun6 up
	background host1 "$tmp/host1.log" "$modes" serve 7001 7002
	wait_for 20 grep -q ready "$tmp/host1.log"
	ns lbu nlb -j endpoint show "$VIP:7001/tcp" | jq -e '.[0] | .forward == "direct" and (has("source_addr") | not)'
	ns lbu nlb -j endpoint show "[$VIP6]:7002/udp" | jq -e '.[0] | .forward == "ipip" and .source_addr == "2001:db8:2::1"'
	ns lbu nlb endpoint show "$VIP:7002/tcp" | grep -E " $HOST1 +ipip +$LBU_TO_HOST1 "
}

everything() {
	capture_start client lbu "$tmp/client.pcap" 'tcp or ip6'
	ns client "$modes" ask "$CLIENT=$VIP:7001" "$CLIENT6=[$VIP6]:7001" "$CLIENT=$VIP:7002" "$CLIENT6=[$VIP6]:7002"
	capture_stop
	"$pcap" no-rst "$tmp/client.pcap"
	# Replies go straight to the client.
	"$pcap" no-data-from $VIP "$tmp/client.pcap"
	"$pcap" no-data-from $VIP6 "$tmp/client.pcap"
	ns lbu nlb route show | grep -E " $VIP:7001/tcp +$HOST1 +- +direct +fin-wait "
	ns lbu nlb -j route show | jq -e '[.[] | select(.forward == "ipip" and .forwarder_addr == "10.0.2.1")] | length == 6'
	ns lbu nlb -j route show | jq -e 'all(has("flow_id") | not)'
	[ "$(ns lbu nlb -j mapping show | jq length)" = 0 ]
}

# Batches of segments go as one: the average packet is longer than the link can carry.
batches_stay_whole() {
	ns lbu nlb -j endpoint show | tee "$tmp/endpoints"
	jq -e '[.[] | select(.proto == "tcp")] | length == 4 and all(.bytes / .packets > 1500)' "$tmp/endpoints"
}

# A narrower link behind the LBU.
too_big() {
	local before
	before=$(counter lbu fwd drop-too-big)
	ip -n lbu link set host1 mtu 1400
	ip -n host1 link set lbu mtu 1400
	ns client "$modes" big "1400=$VIP:7001" "1400=[$VIP6]:7001" "1380=$VIP:7002" "1360=[$VIP6]:7002"
	[ "$(counter lbu fwd drop-too-big)" = $((before + 4)) ]
	# And TCP finds out.
	ns client "$modes" ask "$CLIENT=$VIP:7001" "$CLIENT6=[$VIP6]:7001" "$CLIENT=$VIP:7002" "$CLIENT6=[$VIP6]:7002"
	ip -n lbu link set host1 mtu 1500
	ip -n host1 link set lbu mtu 1500
}

# The LBU is a router on the way.
time_is_up() {
	ns client "$modes" late "$VIP:7001" "[$VIP6]:7001" "$VIP:7002" "[$VIP6]:7002"
	[ "$(counter lbu fwd drop-ttl-expired)" = 4 ]
}

# What would loop or go astray is refused, and so is what makes no sense.
refused() {
	local text before after
	before=$(ns lbu nlb -j endpoint show | jq -c 'map([.vip_addr, .vip_port, .proto, .host_addr]) | sort')
	while IFS='|' read -r text words; do
		# shellcheck disable=SC2086
		not ns lbu nlb endpoint add $words 2>"$tmp/err"
		cat "$tmp/err"
		grep -qF "$text" "$tmp/err"
	done <<-EOF
	not the address of another machine|$VIP:7001/tcp host $LBU via direct
	not the address of another machine|$VIP:7001/tcp host $LBU via ipip
	not the address of another machine|$VIP:7001/tcp host 10.0.2.255 via ipip
	not the address of another machine|[$VIP6]:7001/tcp host $LBU6 via ipip
	not the address of another machine|$VIP:7001/tcp host $VIP via direct
	on no link of this machine|$VIP:7001/tcp host 10.0.9.9 via direct
	on no link of this machine|[$VIP6]:7001/tcp host 2001:db8:9::9 via direct
	EOF
	ns lbu nlb service add "$VIP:7009/tcp" mode peek
	not ns lbu nlb endpoint add "$VIP:7009/tcp" host $HOST1 via ipip
	ns lbu nlb service del "$VIP:7009/tcp"
	after=$(ns lbu nlb -j endpoint show | jq -c 'map([.vip_addr, .vip_port, .proto, .host_addr]) | sort')
	[ "$before" = "$after" ]
}

# A route by hand takes the way of its endpoint.
by_hand() {
	ns lbu nlb route add "$VIP:7002/tcp" client 198.51.100.7:40000 host $HOST1
	ns lbu nlb -j route show client 198.51.100.7:40000 | jq -e '.[0] | .forward == "ipip" and .origin == "manual"'
	ns lbu nlb route add "$VIP:7002/tcp" client 198.51.100.7:40001 host $HOST2
	ns lbu nlb -j route show client 198.51.100.7:40001 | jq -e '.[0] | .forward == "tunnel" and has("flow_id")'
	ns lbu nlb route del "$VIP:7002/tcp" client 198.51.100.7:40000
	ns lbu nlb route del "$VIP:7002/tcp" client 198.51.100.7:40001
}

# answers FILE COUNT: so many in all.
answers() { [ "$(grep -c ok "$1")" -ge "$2" ]; }

# Connections of an endpoint that was removed go on; those of a service that was removed do not, nor
# does anything after the module has gone.
under_traffic() {
	local at name count
	for at in "$VIP:7001" "[$VIP6]:7002"; do
		name=$tmp/keep-${at##*:}
		background client "$name" "$modes" keep "$at"
		wait_for 20 answers "$name" 2
	done
	ns lbu nlb endpoint del "$VIP:7001/tcp" host $HOST1
	ns lbu nlb endpoint del "[$VIP6]:7002/tcp" host $HOST1_6
	for name in "$tmp/keep-7001" "$tmp/keep-7002"; do
		count=$(grep -c ok "$name")
		wait_for 20 answers "$name" $((count + 5))
	done
	ns lbu nlb service del "$VIP:7001/tcp"
	[ "$(ns lbu nlb -j route show | jq '[.[] | select(.proto == "tcp" and .vip_addr == "192.0.2.10" and .vip_port == 7001)] | length')" = 0 ]
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
ktap_run "the client is told that time is up" time_is_up
ktap_run "routes by hand" by_hand
ktap_run "what would go astray is refused" refused
ktap_run "endpoints, services and the module go under traffic" under_traffic
ktap_end
