#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# nlb trace: what would happen to a packet is what happens then, with the reason; and who asks changes nothing.

. "$(dirname "$0")/lib.sh"

# says FILTER PORT/PROTO [CLIENT_PORT]: of a packet of the client.
says() {
	lbu -j trace "$CLIENT:${3:-20000}" "$VIP:$2" >"$tmp/trace"
	jq -ce "$1" "$tmp/trace" >/dev/null || ! cat "$tmp/trace"
}
# The service's state, what its endpoints, allotment and rules have, and all counters.
everything() {
	# Those with times first: after the least time.
	lbu -j allotment show
	lbu -j route show
	lbu -j service show
	lbu -j endpoint show
	lbu -j rule show
	lbu -j stats show fwd
}
# remember: all that; unchanged: it is the same now, and no time that is left has become longer. FIRST is what one of
# these had been at first: it has to be less by more than what comes next takes, or nobody could see that it began anew.
remember() {
	shorter() {
		everything >"$tmp/before"
		jq -en --argjson most "$1" '[inputs | .. | .expires? // empty] | any(. <= $most)' "$tmp/before"
	}
	wait_for 60 shorter $(($1 - 8000))
}
unchanged() {
	everything >"$tmp/after"
	local at
	for at in before after; do
		jq 'walk(if type == "object" then del(.expires) else . end)' "$tmp/$at" >"$tmp/$at.timeless"
	done
	diff "$tmp/before.timeless" "$tmp/after.timeless"
	jq -en --slurpfile before "$tmp/before" --slurpfile after "$tmp/after" '
		[$before, $after] | map([.. | .expires? // empty]) | transpose | length > 0 and (map(select(.[1] > .[0])) | . == []
			or (tojson | halt_error))'
}
standings() { jq -c '[.endpoints[].standing]' "$tmp/trace"; }

nothing_changes() {
	service 9400/udp rr 1 1 1
	lbu service set $VIP:9400/udp affinity 600
	lbu allotment set $VIP:9400/udp scheme tokens age 3600000 share "${endpoints[1]}=2"
	lbu rule add accept from 10.0.0.0/8
	remember 3600000
	for _ in 1 2 3; do
		says '.outcome == "new-route" and .choice == "allotment" and .host_addr == "10.0.2.3" and .rule == 10' 9400/udp
		is "$(standings)" '["no-share","picked","no-share"]'
	done
	unchanged
	# A token each, then by affinity, which comes first.
	send 9400 20000 1
	wait_for 20 routes_are 1
	says '.outcome == "new-route" and .choice == "affinity" and .affinity_host == "10.0.2.3" and .affinity_expires > 500000' \
		9400/udp 20001
	set_endpoint 9400/udp 1 state draining
	says '.choice == "scheduler" and .affinity_host == "10.0.2.3" and .host_addr != "10.0.2.3"' 9400/udp 20001
	is "$(jq -r '.endpoints[1].standing' "$tmp/trace")" draining
	lbu rule flush
	lbu service del $VIP:9400/udp
}

# Six connections, each of which goes where it was said.
comes_true() {
	local scheduler port said
	service 9401/udp wrr 1 3 1
	for scheduler in wrr lc mh; do
		lbu service set $VIP:9401/udp scheduler $scheduler
		for port in 20000 20001 20002 20003; do
			says '.outcome == "new-route" and .choice == "scheduler"' 9401/udp $port
			said=$(jq -r .host_addr "$tmp/trace")
			send 9401 $port 1
			wait_for 20 goes_to "$said" $port
		done
		lbu route flush
	done
}
goes_to() { [ "$(lbu -j route show $VIP:9401/udp client "$CLIENT:$2" | jq -r '.[0].host_addr')" = "$1" ]; }

reasons() {
	lbu route flush
	service 9402/udp wrr 1 0 1 1
	set_endpoint 9402/udp 0 max-routes 1
	set_endpoint 9402/udp 2 backup yes
	set_endpoint 9402/udp 3 state inactive
	says '.host_addr == "10.0.2.2"' 9402/udp
	is "$(standings)" '["picked","no-weight","backup","inactive"]'
	send 9402 20000 1
	wait_for 20 routes_are 1
	says '.outcome == "new-route" and .choice == "backup" and .host_addr == "10.0.2.4"' 9402/udp 20001
	is "$(standings)" '["full","no-weight","picked","inactive"]'
	lbu trace $CLIENT:20001 $VIP:9402/udp | tee "$tmp/text"
	grep -qx "endpoint   10.0.2.2 weight 1 active 1: full: 1 active routes of 1" "$tmp/text"
	grep -qx "endpoint   10.0.2.4 weight 1 active 0: picked by backup" "$tmp/text"
	grep -qx "way        tunnel to 10.0.2.4 from 10.0.2.1 dev host1 mtu 1500" "$tmp/text"
	set_endpoint 9402/udp 2 state draining
	says '.outcome == "overflow"' 9402/udp 20001
	set_endpoint 9402/udp 0 weight 0
	says '.outcome == "no-endpoint" and (has("host_addr") | not)' 9402/udp 20001
	says '.outcome == "no-service" and .endpoints == []' 9402/tcp
	lbu rule add reject to $VIP:9402/udp
	lbu rule add drop from any to $VIP priority 5
	says '.outcome == "drop-rule" and .rule == 5 and .by.action == "drop"' 9402/udp 20001
	lbu rule del priority 5
	says '.outcome == "reject-rule"' 9402/udp 20001
	# A connection that has a route is not the rule's.
	says '.outcome == "route" and (has("rule") | not)' 9402/udp
	lbu rule flush
	lbu service add "$VIP:*/tcp" mode peek classifier 8080
	says '.outcome == "classifier" and .service_port == 1 and .service_port_last == 65535 and .of.classifier_port == 8080' 7/tcp
	lbu service del "$VIP:*/tcp"
	lbu service del $VIP:9402/udp
}

# An established connection, one that was closed, and what keeps packets from the fast path.
ways() {
	service 9403/tcp wrr 1
	listen 9403
	says '.outcome == "new-route" and .forward == "tunnel" and .slow != "ipip"' 9403/tcp
	hold 9403 1
	local port
	port=$(lbu -j route show | jq '.[0].client_port')
	says '.outcome == "route" and .fast_path and .route_state == "established" and .forward == "tunnel" and .mtu == 1500' \
		9403/tcp "$port"
	ns lbu nft 'add table inet slow; add chain inet slow out { type filter hook postrouting priority 0; }'
	says '.fast_path == false and .slow == "post-routing"' 9403/tcp "$port"
	ns lbu nft delete table inet slow
	ip -n lbu neigh replace $HOST1 dev host1 nud failed
	says '.slow == "neighbour"' 9403/tcp "$port"
	ip -n lbu neigh del $HOST1 dev host1
	kill $holder
	closed() { says '.route_state == "fin-wait" and .outcome == "new-route" and .choice == "scheduler"' 9403/tcp "$port"; }
	wait_for 20 closed
	lbu service del $VIP:9403/tcp
	service 9404/udp wrr 0 0 0
	lbu endpoint add $VIP:9404/udp host 10.0.3.2 via ipip
	says '.slow == "ipip" and .mtu == 1480 and .forward == "ipip"' 9404/udp
	ip -n lbu link set host2 down
	says '.outcome == "no-way" and .choice == "scheduler" and (has("mtu") | not)' 9404/udp
	ip -n lbu link set host2 up
	not lbu trace $CLIENT:1 "[$VIP6]:53/udp" 2>"$tmp/err"
	grep -q "not of the VIP's address family" "$tmp/err"
	lbu service add "[$VIP6]:*/udp"
	lbu -j trace "[2001:db8:1::2]:7" "[$VIP6]:53/udp" | jq -e '.outcome == "no-endpoint" and .service_port_last == 65535'
}

# over FAMILY COMMAND...: with the addresses as they are written before a port.
over() {
	[ "$1" = 4 ] || local VIP="[$VIP6]" CLIENT="[$CLIENT6]" HOST1="[$HOST1_6]" HOST2="[$HOST2_6]" LBU_TO_HOST1="[$LBU_TO_HOST1_6]"
	"${@:2}"
}
plain() { tr -d '[]' <<<"$1"; }
# every COMMAND PROTO FIRST: over both families UDP, and TCP; FIRST is a port of the client, which is another one for each
# protocol.
every() {
	local family
	for family in 4 6; do
		over $family "$1" udp 20000
		over $family "$1" tcp 20002
	done
}

# reply FILTER FROM TO/PROTO: of a packet with these addresses and ports.
reply() {
	lbu -j trace "$2" "$3" >"$tmp/trace"
	jq -ce "$1" "$tmp/trace" >/dev/null || ! cat "$tmp/trace"
}
# What a host answers: by nat it comes back, by half-nat it might.
reply_services() {
	lbu service add "$VIP:9405-9406/$1"
	lbu endpoint add "$VIP:9405-9406/$1" host "$(plain "$HOST1")" via nat port 8005
	lbu service add "$VIP:9407/$1"
	lbu endpoint add "$VIP:9407/$1" host "$(plain "$HOST1")" via half-nat port 8007
	local vip client kind=DGRAM talk
	vip=$(plain "$VIP") client=$(plain "$CLIENT") talk=$tmp/talk-$1-$VIP
	[ "$1" = udp ] || kind=STREAM
	mkfifo "$talk"
	# For each line it asks once, by the same connection. The other one is only begun.
	background client "$talk.log" python3 -c "
import os, socket
family = socket.AF_INET6 if ':' in '$vip' else socket.AF_INET
with socket.socket(family, socket.SOCK_$kind) as s:
    s.bind(('$client', $2 + 1))
    s.setblocking(False)
    if not s.connect_ex(('$vip', 9407)):
        s.send(b'?')
s = socket.socket(family, socket.SOCK_$kind)
s.settimeout(20)
s.bind(('$client', $2))
s.connect(('$vip', 9405))
# For writing, too, or it would end behind the first one.
with open('$talk', opener=lambda name, _: os.open(name, os.O_RDWR)) as lines:
    for line in lines:
        s.send(b'ask')
        assert s.recv(10) == b'ask'
        print('answered', flush=True)"
	asks "$1"
}
asks() {
	local talk=$tmp/talk-$1-$VIP before
	before=$(grep -c answered "$talk.log" || true)
	echo >"$talk"
	wait_for 20 is_answered
}
is_answered() { (($(grep -c answered "$talk.log") > before)); }
nat_port() { lbu -j route show "$VIP:9405-9406/$1" | jq '.[0].forwarder_port'; }

replies_are_known() {
	local nat state=established
	nat=$(nat_port "$1")
	[ "$1" = tcp ] || state=udp
	says '.outcome == "route" and .route_state == "'$state'"' "9405/$1" "$2"
	reply '.outcome == "reply" and .forward == "nat" and .host_addr == "'"$(plain "$HOST1")"'" and .service_port == 9405
		and .service_port_last == 9406 and .of.vip_addr == "'"$(plain "$VIP")"'" and .answered_client_addr == "'"$(plain "$CLIENT")"'"
		and .answered_client_port == '"$2"' and .answered_vip_addr == "'"$(plain "$VIP")"'" and .answered_vip_port == 9405
		and .route_state == "'$state'" and .device == "client" and .mtu == 1500 and .slow == "reply" and .fast_path == false
		and .endpoints == []' "$HOST1:8005" "$LBU_TO_HOST1:$nat/$1"
	lbu trace "$HOST1:8005" "$LBU_TO_HOST1:$nat/$1" | tee "$tmp/text"
	grep -qxF "answers    $CLIENT:$2 > $VIP:9405/$1" "$tmp/text"
	grep -qxF "way        nat from $HOST1:8005 back to $(plain "$CLIENT") dev client mtu 1500" "$tmp/text"
	grep -qxF "outcome    translated back, goes on as $VIP:9405 > $CLIENT:$2 (reply-packets)" "$tmp/text"
	reply '.outcome == "reply" and .forward == "half-nat" and .answered_vip_port == 9407' "$HOST1:8007" "$CLIENT:$(($2 + 1))/$1"
	# Of another port, another host, and the other protocol, it is none.
	reply '.outcome == "no-service" and (has("answered_vip_addr") | not)' "$HOST1:8007" "$CLIENT:$(($2 + 7))/$1"
	reply '.outcome == "no-service"' "$HOST2:8007" "$CLIENT:$(($2 + 1))/$1"
	reply '.outcome == "no-service" and (has("route_state") | not)' "$HOST1:8007" "$CLIENT:$(($2 + 1))/$(other "$1")"
}
other() { if [ "$1" = tcp ]; then echo udp; else echo tcp; fi; }
# A reply is one: of UDP each counts once.
replies_come_true() {
	local before after
	before=$(counter lbu fwd reply-packets)
	asks "$1"
	after=$(counter lbu fwd reply-packets)
	if [ "$1" = udp ]; then is "$after" $((before + 1)); else ((after > before)); fi
}
no_way_for_replies() {
	nats+=("$(nat_port "$1")")
	reply '.outcome == "no-way" and .answered_client_port == '"$2"' and (has("mtu") | not)' "$HOST1:8005" "$LBU_TO_HOST1:${nats[-1]}/$1"
}
no_replies() {
	reply '.outcome == "no-service"' "$HOST1:8005" "$LBU_TO_HOST1:${nats[0]}/$1"
	nats=("${nats[@]:1}")
	lbu service del "$VIP:9405-9406/$1"
	lbu service del "$VIP:9407/$1"
}
replies() {
	local nats=()
	lbu route flush
	topology_ipv6
	vip_add_ipv6 lbu
	background host1 "$tmp/serve" "$(dirname "$0")/modes.py" serve 8005
	wait_for 20 grep -q ready "$tmp/serve"
	every reply_services
	# Those that have only begun, a minute at first, are not the last ones that were made.
	remember 60000
	every replies_are_known
	unchanged
	every replies_come_true
	ip -n lbu link set client down
	every no_way_for_replies
	ip -n lbu link set client up
	lbu route flush
	every no_replies
}

ktap_begin
load_modules nlb_fwd
five_endpoints
ktap_run "who asks changes nothing" nothing_changes
ktap_run "what is said comes true" comes_true
ktap_run "why an endpoint is picked or not, rules, and nobody" reasons
ktap_run "routes, ways and the fast path" ways
ktap_run "replies of hosts" replies
ktap_end
