#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Two processors at the same tables: both make and remove routes of the same flows, while somebody else dumps and
# flushes them, and endpoints come and go: UDP and TCP, over IPv4 and IPv6. However that turns out, nothing is counted or
# kept twice, and nothing stays.

. "$(dirname "$0")/lib.sh"
race=$(cd "$(dirname "$0")" && pwd)/race.py
flows=100
endpoints6=(2001:db8:2::2 2001:db8:2::3 2001:db8:2::4 2001:db8:3::2)

# services PORT: TCP and UDP, over IPv4 and IPv6; the race is for all of them.
services() { printf "%s\n" "$VIP:$1/udp" "[$VIP6]:$1/udp" "$VIP:$1/tcp" "[$VIP6]:$1/tcp"; }
# host SERVICE NUMBER
host() { if [[ $1 = "["* ]]; then echo "${endpoints6[$2]}"; else echo "${endpoints[$2]}"; fi; }

# What services and endpoints count has to be what there is.
consistent() {
	local service
	for service in $(services "$1"); do
		ns lbu nlb -j route show "$service" >"$tmp/shown"
		ns lbu nlb -j endpoint show "$service" | jq -e --slurpfile shown "$tmp/shown" '
			def count: group_by(.host_addr) | map({key: .[0].host_addr, value: length}) | from_entries;
			(map({key: .host_addr, value: [.routes, .active_routes]}) | from_entries) as $counted
			| ($shown[0] | count) as $there
			| ($shown[0] | map(select(.state != "fin-wait" and .state != "closed")) | count) as $active
			| all(.[]; .routes == ($there[.host_addr] // 0) and .active_routes == ($active[.host_addr] // 0))
				or ({$counted, $there, $active} | tojson | halt_error)'
		jq -e 'map([.client_addr, .client_port]) | length == (unique | length)' "$tmp/shown"
	done
}
sum_of() { ns lbu nlb -j stats show fwd | jq --arg names "$1" '.[0].counters as $c | $names | split(" ") | map($c[.]) | add'; }
# Each of them, and each once.
are_there() { [ "$(ns lbu nlb -j route show | jq -c 'map([.vip_addr, .proto]) | group_by(.) | map(length)')" = "[$flows,$flows,$flows,$flows]" ]; }

# together PORT WAY...: with endpoints of these ways.
together() {
	local port=$1 service way n added
	shift
	for service in $(services "$port"); do
		ns lbu nlb service add "$service"
		n=0
		for way in "$@"; do
			ns lbu nlb endpoint add "$service" host "$(host "$service" $n)" via "$way"
			n=$((n + 1))
		done
	done
	added=$(sum_of route-new)
	ns client python3 "$race" "$port" $flows 1
	wait_for 20 are_there
	consistent "$port"
	# Each was made once, whoever made it.
	[ $(($(sum_of route-new) - added)) = $((4 * flows)) ]
	background lbu "$tmp/flush" bash -c "while :; do nlb route flush; nlb route show >/dev/null; done"
	local flusher=$!
	ns client python3 "$race" "$port" $flows 12
	kill $flusher
	wait $flusher 2>/dev/null || :
	wait_for 20 consistent "$port"
	ns lbu nlb route flush
	consistent "$port"
	ns lbu nlb -j route show | jq -e 'length == 0'
}
tunnels() { together 9400 tunnel tunnel tunnel; }
others() { together 9401 direct ipip half-nat nat; }

endpoints_change() {
	local n service
	for service in $(services 9402); do
		ns lbu nlb service add "$service" scheduler mh
		for n in 0 1 3; do ns lbu nlb endpoint add "$service" host "$(host "$service" $n)"; done
	done
	background client "$tmp/race" python3 "$race" 9402 $flows 24
	local racer=$!
	while kill -0 $racer 2>/dev/null; do
		for service in $(services 9402); do
			ns lbu nlb endpoint set "$service" host "$(host "$service" 0)" state inactive
			ns lbu nlb endpoint set "$service" host "$(host "$service" 0)" state active
			ns lbu nlb endpoint del "$service" host "$(host "$service" 1)"
			ns lbu nlb route flush host "$(host "$service" 1)"
			ns lbu nlb endpoint add "$service" host "$(host "$service" 1)"
		done
	done
	wait $racer
	for n in "${endpoints[1]}" "${endpoints6[1]}"; do ns lbu nlb route flush host "$n"; done
	wait_for 20 consistent 9402
	for service in $(services 9402); do ns lbu nlb service del "$service"; done
	ns lbu nlb -j route show | jq -e 'length == 0'
}

no_mappings() { ns "$1" nlb -j mapping show | jq -e 'map(select(.static | not)) | length == 0' >/dev/null; }
nothing_stays() {
	wait_for 30 no_mappings lbu
	unload_modules
}

ktap_begin
# One after the other, on one processor, is no race.
[ "$(nproc)" -ge 2 ] || skip "this machine has one CPU, and two have to be at the same tables at the same time"
load_modules nlb_fwd nlb_tunnel
five_endpoints
topology_ipv6
vip_add_ipv6 lbu host1 host2
for n in 3 4; do ip -n host1 addr add 2001:db8:2::$n/64 dev lbu nodad; done
ns host1 nlb forwarder add $LBU_TO_HOST1_6
ns host2 nlb forwarder add $LBU_TO_HOST2_6
# A connection that is refused is over.
for n in host1 host2; do
	ns $n nft 'add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }
		add rule inet deaf in tcp dport 9400-9402 drop'
done
ktap_run "routes in the tunnel" tunnels
ktap_run "routes by the other ways" others
ktap_run "endpoints come and go" endpoints_change
ktap_run "nothing stays" nothing_stays
ktap_end
