#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Two processors at the same tables: both make and remove routes of the same flows, while somebody else dumps and
# flushes them, and endpoints come and go. However that turns out, nothing is counted or kept twice, and nothing stays.

. "$(dirname "$0")/lib.sh"
race=$(cd "$(dirname "$0")" && pwd)/race.py
flows=100

# What services and endpoints count has to be what there is.
consistent() {
	ns lbu nlb -j route show "$VIP:$1/udp" >"$tmp/shown"
	ns lbu nlb -j endpoint show "$VIP:$1/udp" | jq -e --slurpfile shown "$tmp/shown" '
		(map({key: .host_addr, value: .routes}) | from_entries) as $counted
		| ($shown[0] | group_by(.host_addr) | map({key: .[0].host_addr, value: length}) | from_entries) as $there
		| all(.[]; .routes == ($there[.host_addr] // 0) and .active_routes == .routes)
			or ({$counted, $there} | tojson | halt_error)'
	jq -e 'map([.client_addr, .client_port]) | length == (unique | length)' "$tmp/shown"
}
sum_of() { ns lbu nlb -j stats show fwd | jq --arg names "$1" '.[0].counters as $c | $names | split(" ") | map($c[.]) | add'; }

# together PORT WAY...: with endpoints of these ways.
together() {
	local port=$1 way n=0 added
	shift
	ns lbu nlb service add "$VIP:$port/udp"
	for way in "$@"; do
		# shellcheck disable=SC2086 # several words
		ns lbu nlb endpoint add "$VIP:$port/udp" host "${endpoints[n++]}" via $way
	done
	added=$(sum_of route-new)
	ns client python3 "$race" "$port" $flows 1
	wait_for 20 all_are_there "$port" $flows
	consistent "$port"
	# Each was made once, whoever made it.
	[ $(($(sum_of route-new) - added)) = $flows ]
	background lbu "$tmp/flush" bash -c "while :; do nlb route flush '$VIP:$port/udp'; nlb route show >/dev/null; done"
	local flusher=$!
	ns client python3 "$race" "$port" $flows 30
	kill $flusher
	wait $flusher 2>/dev/null || :
	wait_for 20 consistent "$port"
	ns lbu nlb route flush "$VIP:$port/udp"
	consistent "$port"
	ns lbu nlb -j route show "$VIP:$port/udp" | jq -e 'length == 0'
}
tunnels() { together 9400 tunnel tunnel tunnel; }
others() { together 9401 direct ipip "half-nat" "nat source $LBU_TO_HOST2"; }

endpoints_change() {
	local n
	ns lbu nlb service add "$VIP:9402/udp" scheduler mh
	for n in 0 1 3; do ns lbu nlb endpoint add "$VIP:9402/udp" host "${endpoints[n]}"; done
	background client "$tmp/race" python3 "$race" 9402 $flows 60
	local racer=$!
	while kill -0 $racer 2>/dev/null; do
		set_endpoint 9402/udp 0 state inactive
		set_endpoint 9402/udp 0 state active
		ns lbu nlb endpoint del "$VIP:9402/udp" host "${endpoints[1]}"
		ns lbu nlb route flush host "${endpoints[1]}"
		ns lbu nlb endpoint add "$VIP:9402/udp" host "${endpoints[1]}"
	done
	wait $racer
	ns lbu nlb route flush host "${endpoints[1]}"
	wait_for 20 consistent 9402
	ns lbu nlb service del "$VIP:9402/udp"
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
ktap_run "routes in the tunnel" tunnels
ktap_run "routes by the other ways" others
ktap_run "endpoints come and go" endpoints_change
ktap_run "nothing stays" nothing_stays
ktap_end
