#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 600
#
# ICMP errors about both directions of connections that go through the tunnel, and fragments, with
# routers on the way: host2 is one, between LBU and host1 and between host1 and the client, with a narrower link to each.

. "$(dirname "$0")/../lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
tcp=$(cd "$here/../migrator" && pwd)/tcp.py
icmp=$here/icmp.py

# l4 PORT PROTO: in both families.
l4() {
	ns lbu nlb service add "$VIP:$1/$2" mode l4
	ns lbu nlb endpoint add "$VIP:$1/$2" host $FAR
	ns lbu nlb service add "[$VIP6]:$1/$2" mode l4
	ns lbu nlb endpoint add "[$VIP6]:$1/$2" host $FAR6
}

# knows MACHINE DESTINATION MTU: whether the MTU of a path is known there.
knows() { ip -n "$1" route get "$2" | tee "$tmp/route" | grep "mtu $3" || ! cat "$tmp/route"; }

all_carried() { [ "$(counter host1 tunnel carry-received)" = "$(counter lbu tunnel carry-sent)" ]; }

# A megabyte both ways: the router before the host has to say something about the client's packets, the one before
# the client about the host's.
megabyte() {
	local vip=$1 far=$2 client=$3 received carried
	received=$(counter lbu tunnel icmp-received) carried=$(counter lbu tunnel carry-sent)
	ns client "$tcp" client "$vip" 9100 --bytes 1000000
	[ "$(counter lbu tunnel icmp-received)" -gt "$received" ]
	[ "$(counter lbu tunnel carry-sent)" -gt "$carried" ]
	wait_for 10 all_carried
	[ "$(counter lbu fwd icmp-errors)" = "$(counter lbu tunnel carry-sent)" ]
	knows lbu "$far" 1400
	knows client "$vip" 1400
	knows host1 "$client" 1300
}

# large VIP: datagrams in fragments arrive and are answered, in the learning and in the compact form.
large() {
	local lbu host1
	lbu=$(counter lbu tunnel encap-fragmented) host1=$(counter host1 tunnel defragmented)
	ns client "$icmp" large "$1" 9000
	[ "$(counter lbu tunnel encap-fragmented)" -ge $((lbu + 4)) ]
	[ "$(counter host1 tunnel defragmented)" -ge $((host1 + 4)) ]
	[ "$(counter lbu fwd fragments)" -gt "$(counter lbu fwd defragmented)" ]
	[ "$(counter lbu fwd pass-fragment)" = 0 ]
}

options() { ns client "$icmp" options "$1" 9000; }

hops() { ns client "$icmp" hops "$1" 9000; }

ping_vip() {
	local carried
	carried=$(counter lbu tunnel carry-sent)
	ns client ping -q -c 2 -i 0.2 -W 5 "$1"
	[ "$(counter lbu tunnel carry-sent)" = "$carried" ]
}

# counts MACHINE NAME NUMBER
counts() { [ "$(counter "$1" tunnel "$2")" = "$3" ]; }

# flow VIP: flow id and client's port of a connection to it that stays.
flow() {
	background client "$tmp/flow.log" "$tcp" client "$1" 9100 --bytes 1000 --keep-open 60
	wait_for 20 established "$1"
	cat "$tmp/flow"
}
established() {
	ns lbu nlb -j route show | jq -er --arg vip "$1" '.[] | select(.vip_addr == $vip and .vip_port == 9100
		and .state == "established") | "\(.flow_id) \(.client_port)"' >"$tmp/flow"
}

# forged VIP CLIENT LBU_TO_HOST2 FAR STRANGER STRANGER_TO: nothing changes, all is counted.
forged() {
	local vip=$1 client=$2 lbu=$3 far=$4 id port strange known forwarder control bad received
	read -r id port < <(flow "$vip")
	strange=$(counter lbu tunnel icmp-strange) received=$(counter lbu tunnel icmp-received)
	ns client "$icmp" forge errors "$lbu" "$far" "$id" "$client" "$vip" "$port" 9100
	wait_for 10 counts lbu icmp-strange $((strange + 5))
	[ "$(counter lbu tunnel icmp-received)" = "$received" ]
	knows lbu "$far" 1400
	known=$(counter host1 tunnel drop-unknown-flow-id) forwarder=$(counter host1 tunnel drop-forwarder)
	control=$(counter host1 tunnel drop-strange-control) bad=$(counter host1 tunnel drop-bad-control)
	received=$(counter host1 tunnel carry-received)
	ns client "$icmp" forge stranger "$5" "$6" "$id" "$client" "$vip" "$port" 9100
	ns lbu "$icmp" forge forwarder "$lbu" "$far" "$id" "$client" "$vip" "$port" 9100
	wait_for 10 counts host1 drop-bad-control $((bad + 2))
	[ "$(counter host1 tunnel drop-unknown-flow-id)" = $((known + 1)) ]
	[ "$(counter host1 tunnel drop-forwarder)" = $((forwarder + 1)) ]
	[ "$(counter host1 tunnel drop-strange-control)" = $((control + 1)) ]
	[ "$(counter host1 tunnel carry-received)" = "$received" ]
	knows host1 "$client" 1300
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
behind_a_router
vip_add lbu host1
vip_add_ipv6 lbu host1
ns host1 nlb forwarder add $LBU_TO_HOST2
ns host1 nlb forwarder add $LBU_TO_HOST2_6
l4 9100 tcp
l4 9000 udp
# As a flow id has it, in the place of which this port stands in what routers quote of answers.
l4 61053 udp
background host1 "$tmp/server.log" "$tcp" server :: 9100
background host1 "$tmp/echo.log" "$icmp" echo $VIP 9000
background host1 "$tmp/echo6.log" "$icmp" echo $VIP6 9000
background host1 "$tmp/high.log" "$icmp" echo $VIP 61053
background host1 "$tmp/high6.log" "$icmp" echo $VIP6 61053
wait_listen host1 9100
wait_for 20 ns host1 sh -c '[ "$(ss -Huln | grep -c -e :9000 -e :61053)" = 4 ]'
ktap_run "IPv4: a megabyte both ways through narrower links" megabyte $VIP $FAR $CLIENT
ktap_run "IPv6: a megabyte both ways through narrower links" megabyte $VIP6 $FAR6 $CLIENT6
ktap_run "IPv4: every hop answers" hops $VIP
ktap_run "IPv6: every hop answers" hops $VIP6
ktap_run "IPv4: large datagrams" large $VIP
ktap_run "IPv6: large datagrams" large $VIP6
ktap_run "IPv4: packets with options" options $VIP
ktap_run "IPv6: packets with options" options $VIP6
ktap_run "IPv4: a client that is gone" ns client "$icmp" closed $VIP 61053
ktap_run "IPv6: a client that is gone" ns client "$icmp" closed $VIP6 61053
ktap_run "IPv4: ping is answered here" ping_vip $VIP
ktap_run "IPv6: ping is answered here" ping_vip $VIP6
ktap_run "IPv4: a host that cannot be reached for a while" ns client "$icmp" lives $VIP 9100 $FAR "$FAR dev host1 mtu 1400"
ktap_run "IPv6: a host that cannot be reached for a while" ns client "$icmp" lives $VIP6 9100 $FAR6 "$FAR6 dev host1 mtu 1400"
ktap_run "IPv4: forged errors change nothing" forged $VIP $CLIENT $LBU_TO_HOST2 $FAR 10.0.4.2 10.0.4.1
ktap_run "IPv6: forged errors change nothing" forged $VIP6 $CLIENT6 $LBU_TO_HOST2_6 $FAR6 2001:db8:4::2 2001:db8:4::1
ktap_end
