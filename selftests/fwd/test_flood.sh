#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# A flood of SYNs, and a full table: connections that are known go on, and new ones do without a route.

. "$(dirname "$0")/lib.sh"
programs=$(cd "$(dirname "$0")" && pwd)/flood.py

half_open() { lbu -j route show | jq '[.[] | select(.state == "syn-recv")] | length'; }
no_half_open() { [ "$(half_open)" = 0 ]; }
# Each CPU may make one more.
is_bounded() { (($(half_open) <= 8 + $(nproc))); }
grows() { (($(counter lbu fwd "$1") > $2)); }
flood_syns() {
	background client "$tmp/syns" "$programs" syns "$@"
	flooding=$!
	# Also if what comes next fails.
	# shellcheck disable=SC2064 # as it is now
	trap "kill $flooding" EXIT
}
flood_ends() {
	trap - EXIT
	kill $flooding
}
# clients VIP PORT COUNT NAME: open so many connections, and have bytes come back.
clients() {
	background client "$tmp/$4" "$programs" clients "$1" "$2" "$3" "$tmp/$4-go"
	wait_for 120 grep -qsx open "$tmp/$4"
}
# go_on NAME: once more, and that is the end of them.
go_on() {
	touch "$tmp/$1-go"
	wait_for 60 grep -qsx over "$tmp/$1"
}
# What would happen to a packet from $client to $to; the first two words of it.
traced() { lbu -j trace "$client" "$to" | jq -r '"\(.outcome) \(.choice) \(.host_addr)"'; }
is_traced() { [ "$(traced | cut -d' ' -f1-2)" = "$1" ]; }
# routed_to: where the route of the client's connection from a port leads.
routed_to() { lbu -j route show "$to" | jq -r --argjson port "$1" '.[] | select(.client_port == $port).host_addr'; }

# heard MACHINE: how many ICMP errors have found a connection there, and were about no packet of it.
heard() { ns "$1" nstat -asz TcpExtOutOfWindowIcmps | awk '/OutOfWindow/ { print $2 }'; }
has_heard() { [ "$(heard "$1")" = "$2" ]; }

# flooded VIP CLIENT HOST1 HOST2 LBU NAME: the service at port 9500.
flooded() {
	local vip=$1 from=$2 to=$1:9500/tcp client adopted refused packets syns ipip name port before told
	local -A at=([host1]=$3 [host2]=$4)
	if [[ $vip = *:* ]]; then to="[$vip]:9500/tcp" from="[$from]"; fi
	client=$from:20000
	clients "$vip" 9500 3 "kept$6"
	is_traced "new-route scheduler"
	adopted=$(counter lbu fwd route-adopted) refused=$(counter lbu fwd drop-table-full)
	packets=$(counter lbu fwd stateless-packets) syns=$(counter lbu fwd stateless-syn)
	ipip=$(counter host1 tunnel decap-ipip)
	lbu service set "$to" syn-timeout 3600
	flood_syns "$vip" 9500
	# The first ones without room are refused, until there is a table.
	wait_for 60 grows drop-table-full "$refused"
	wait_for 60 is_traced "stateless hash"
	is_bounded
	clients "$vip" 9500 20 "new$6"
	is_bounded
	grows stateless-packets $((packets + 60))
	grows stateless-syn $((syns + 20))
	(($(counter host1 tunnel decap-ipip) > ipip))
	for name in host1 host2; do grep -q $name "$tmp/new$6"; done
	# It is as was said.
	head -n 5 "$tmp/new$6" >"$tmp/some"
	while read -r name port; do
		client=$from:$port
		is "$(traced)" "stateless hash ${at[$name]}"
	done <"$tmp/some"
	# So are errors about what their hosts have sent, and about what was sent to hosts in other packets.
	while read -r name port; do
		before=$(heard "$name")
		ns client "$programs" reply_lost "$vip" 9500 "$2" "$port"
		wait_for 20 has_heard "$name" $((before + 1))
	done <"$tmp/some"
	port=$(awk '/host1/ { print $2; exit }' "$tmp/new$6")
	before=$(heard client) told=$(counter lbu fwd icmp-told)
	ns host1 "$programs" inside_lost "$5" "$3" "$2" "$port" "$vip" 9500
	wait_for 20 has_heard client $((before + 1))
	is "$(counter lbu fwd icmp-told)" $((told + 1))
	go_on "kept$6"
	# Who has no endpoint is served by the LBU itself, as ever.
	not ns client timeout 20 bash -c "</dev/tcp/$vip/9503" 2>"$tmp/refused"
	grep refused "$tmp/refused"
	# When the flood is over, those that have begun without a route get one.
	flood_ends
	lbu service set "$to" syn-timeout 1
	wait_for 60 no_half_open
	go_on "new$6"
	grows route-adopted $((adopted + 10))
	while read -r name port; do is "$(routed_to "$port")" "${at[$name]}"; done <"$tmp/some"
	is "$(<"$tmp/syns")" ""
}
ipv4() { flooded $VIP $CLIENT $HOST1 $HOST2 $LBU_TO_HOST1 4; }
ipv6() { flooded $VIP6 $CLIENT6 $HOST1_6 $HOST2_6 $LBU_TO_HOST1_6 6; }

# When no connection without a route can be there any more.
calm() {
	local client=$CLIENT:20000 to=$VIP:9500/tcp before
	is_traced "new-route hash"
	# What gets a route is no reason to go on.
	ns client "$programs" stray $VIP 9500 $CLIENT
	lbu service set $to idle-timeout 1
	wait_for 60 is_traced "new-route scheduler"
	lbu service set $to idle-timeout 0
	# From then on, what is in the middle of a connection is the local stack's.
	before=$(counter lbu fwd pass-mid-stream)
	ns client "$programs" stray $VIP 9500 10.0.1.99
	wait_for 20 grows pass-mid-stream "$before"
}

# Ways that need a route: no new connection, and those that are known go on.
needs_routes() {
	lbu service add $VIP:9501/tcp
	lbu endpoint add $VIP:9501/tcp host $HOST1 via half-nat
	local before refused
	lbu service set $VIP:9501/tcp syn-timeout 3600
	clients $VIP 9501 2 translated
	before=$(counter lbu fwd stateless-packets) refused=$(counter lbu fwd drop-table-full)
	flood_syns $VIP 9501
	wait_for 60 grows drop-table-full "$refused"
	not ns client timeout 3 bash -c "</dev/tcp/$VIP/9501"
	is "$(counter lbu fwd stateless-packets)" "$before"
	go_on translated
	flood_ends
	lbu service del $VIP:9501/tcp
}

# The host takes packets in IP packets from its forwarders only, and those for the VIP.
forged() {
	local before
	# Hosts still answer its flood, and hear from the client's machine that nobody is there.
	lbu service del "[$VIP6]:9500/tcp"
	ip -n lbu addr add 10.0.2.9/24 dev host1
	background host1 "$tmp/heard" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 9502))
while True:
    print(s.recvfrom(100)[1][0], flush=True)"
	wait_for 20 ns host1 sh -c "ss -Huln | grep -q :9502"
	before=$(counter host1 tunnel decap-ipip)
	ns lbu "$programs" ipip 10.0.2.9 $HOST1 $VIP 9502 $CLIENT
	ns lbu "$programs" ipip $LBU_TO_HOST1 $HOST1 $HOST1 9502 $CLIENT
	ns lbu "$programs" ipip $LBU_TO_HOST1 $HOST1 $VIP 9502 10.0.1.7
	wait_for 20 grep -q . "$tmp/heard"
	is "$(<"$tmp/heard")" 10.0.1.7
	is "$(counter host1 tunnel decap-ipip)" $((before + 1))
}

# While there is a flood: endpoints, services, the module.
goes() {
	local client=$CLIENT:20000 to=$VIP:9500/tcp
	lbu service set $to syn-timeout 3600
	flood_syns $VIP 9500
	wait_for 60 is_traced "stateless hash"
	lbu endpoint set $to host $HOST1 weight 0
	is "$(traced)" "stateless hash $HOST2"
	lbu service set $to scheduler mh
	lbu service del $to
	is "$(half_open)" 0
	lbu service add $to
	lbu endpoint add $to host $HOST1
	wait_for 60 is_traced "stateless hash"
	rmmod nlb_fwd
	flood_ends
}

ktap_begin
modprobe nlb_fwd max_routes=200 max_half_open=8
topology
topology_ipv6
vip_add lbu host1 host2
vip_add_ipv6 lbu host1 host2
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host1 nlb forwarder add $LBU_TO_HOST1_6
ns host2 nlb forwarder add $LBU_TO_HOST2_6
# Translated replies go back through the LBU.
ip -n host1 rule add from $HOST1 lookup 77
ip -n host1 route add default via $LBU_TO_HOST1 table 77
while read -r vip host1 host2 way; do
	to=$vip:9500/tcp
	[[ $vip != *:* ]] || to="[$vip]:9500/tcp"
	lbu service add "$to" scheduler rr
	lbu endpoint add "$to" host "$host1"
	lbu endpoint add "$to" host "$host2" via "$way"
	for host in host1 host2; do background $host "$tmp/served-$host-$way" "$programs" serve "$vip" 9500 $host; done
done <<EOF
$VIP $HOST1 $HOST2 direct
$VIP6 $HOST1_6 $HOST2_6 ipip
EOF
background host1 "$tmp/served-9501" "$programs" serve $HOST1 9501 host1
# For both families.
served() { [ "$(ns "$1" ss -Htln | grep -c ":9500 ")" = 2 ]; }
for host in host1 host2; do wait_for 30 served $host; done
wait_listen host1 9501
lbu service add $VIP:9503/tcp
lbu service add "[$VIP6]:9503/tcp"
ktap_run "IPv4: new connections do without routes" ipv4
ktap_run "IPv6: new connections do without routes" ipv6
ktap_run "afterwards, the scheduler has them again" calm
ktap_run "ways that need routes" needs_routes
ktap_run "what the host takes by IPIP" forged
ktap_run "all goes under a flood" goes
ktap_end
