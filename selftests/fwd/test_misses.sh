#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# What the forwarder tells and asks of connections: packets without a route, why a route has ended, and limits.

. "$(dirname "$0")/lib.sh"
misses=$(cd "$(dirname "$0")" && pwd)/misses.py
echo=$(cd "$(dirname "$0")/../migrator" && pwd)/tcp.py

scenario() { python3 "$misses" "$@"; }
both_families() { scenario "$@" && NLB_TEST_IPV6=1 scenario "$@"; }

refused() {
	not ns lbu nlb service add $VIP:99/udp miss-timeout 5 2>"$tmp/err"
	grep -q "only TCP has this timeout" "$tmp/err"
	not ns lbu nlb service set $VIP:80 miss-timeout 5001 2>"$tmp/err"
	grep -q "miss-timeout" "$tmp/err"
	not ns lbu nlb miss set $VIP:80 client $CLIENT:1 state drop 2>"$tmp/err"
	grep -q "is not asked about" "$tmp/err"
}

# Why routes have ended, as listeners hear it.
ended() { jq -rR 'fromjson? | select(.event == "route-del") | .route.end' "$tmp/routes" | xargs; }
ended_are() { [ "$(ended)" = "$1" ] || ! ended; }
ends() {
	background lbu "$tmp/routes" nlb -j monitor routes
	local monitor=$!
	wait_for 20 grep -qs Watching "$tmp/routes"
	service 9300/udp wrr 1 1
	send 9300 20000 1
	wait_for 20 all_are_there 9300 1
	ns lbu nlb route flush "$VIP:9300/udp"
	wait_for 20 ended_are deleted
	ns lbu nlb service set "$VIP:9300/udp" idle-timeout 1
	send 9300 20000 1
	wait_for 20 ended_are "deleted expired"
	ns lbu nlb service set "$VIP:9300/udp" idle-timeout 60
	send 9300 20000 2
	wait_for 20 all_are_there 9300 2
	set_endpoint 9300/udp 0 state inactive
	wait_for 20 ended_are "deleted expired inactive"
	ns lbu nlb service del "$VIP:9300/udp"
	wait_for 20 ended_are "deleted expired inactive service"
	kill $monitor
}

limits() {
	background lbu "$tmp/limits" nlb -j monitor services
	local monitor=$!
	wait_for 20 grep -qs Watching "$tmp/limits"
	service 9301/udp wrr 1
	set_endpoint 9301/udp 0 max-routes 3
	local before
	before=$(counter lbu fwd drop-overflow)
	send 9301 20000 5
	wait_for 20 grep -q '"event":"limit"' "$tmp/limits"
	jq -eR --argjson all $((before + 2)) -n '[inputs | fromjson? | select(.event == "limit") | .limit.counters] | last
		== {"drop-overflow": $all}' "$tmp/limits"
	ns lbu nlb service del "$VIP:9301/udp"
	kill $monitor
}

ktap_begin
load_modules nlb_fwd nlb_tunnel
five_endpoints
topology_ipv6
vip_add_ipv6 lbu host1
ns host1 nlb forwarder add $LBU_TO_HOST1_6
for vip in $VIP:80 "[$VIP6]:80"; do
	ns lbu nlb service add "$vip"
	ns lbu nlb endpoint add "$vip" host "$([ "$vip" = $VIP:80 ] && echo $HOST1 || echo $HOST1_6)"
done
background host1 "$tmp/echo" "$echo" server :: 80
wait_listen host1 80
ktap_run "a route is an answer" both_families route
ktap_run "the answer is to drop" scenario drop
ktap_run "the answer is to pass" scenario passes
ktap_run "no answer in time" scenario no_answer
ktap_run "nobody listens, or the service does not ask" scenario nobody
ktap_run "so many packets wait, and no more" scenario bounds
ktap_run "rules, before and behind the wait" scenario rules
ktap_run "what a classifier has is not asked about" scenario classifier
ktap_run "a new connection with the same ports" scenario syn
netns_add spare
ktap_run "the device of what waits leaves" scenario gone device
ktap_run "what makes no sense is refused" refused
ktap_run "why routes have ended" ends
ktap_run "limits are told" limits
ktap_run "modules go while packets wait" scenario gone modules
ktap_run "and leave nothing" unload_modules
ktap_end
