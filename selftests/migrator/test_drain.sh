#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 600
#
# One command moves all connections of a service, under load, while new ones
# arrive. No client notices, and the report accounts for every connection.

. "$(dirname "$0")/lib.sh"

drain() { ns lbu nlb -j migration drain from $VIP:80 timeout 20000 "$@" >"$tmp/report" 2>"$tmp/report.err"; }
report() {
	cat "$tmp/report" "$tmp/report.err"
	# Each connection has one outcome, and each reason its number.
	jq -e '.connections == .moved + .refused + .rolled_back + .reset + .ended + .not_tried' "$tmp/report"
	jq -e '.moved == ([.hosts[]] | add // 0)' "$tmp/report"
	jq -e '.refused + .rolled_back + .reset == ([.reasons[].connections] | add // 0)' "$tmp/report"
	jq -e "$1" "$tmp/report"
}
established() { ns lbu ss -Htn state established "sport = :80" | wc -l; }
at_least() { [ "$(established)" -ge "$1" ]; }
all_good() {
	cat "$tmp/$1.log"
	jq -e --argjson n "$2" '.good == $n and .connections == $n' "$tmp/$1.log"
}

# Nobody reads at the LBU: what the clients send piles up there, and goes along.
under_load() {
	start_load keeper lbu keeper $VIP 80
	wait_listen lbu 80
	background client "$tmp/first.log" "$load" client $VIP 80 --count 500 --bytes 20000
	local first=$!
	wait_for 60 at_least 500
	# 100 more come while the others leave.
	background client "$tmp/second.log" "$load" client $VIP 80 --count 100 --every 0.02 --bytes 5000
	local second=$!
	wait_for 60 at_least 501
	drain to $HOST1 to $HOST2 jobs 64
	report '.reset == 0 and .refused == 0 and .rolled_back == 0 and .moved >= 501 and (.hosts | length) == 2'
	jq -r '"# \(.moved) connections moved, \(.moved_per_second | floor) a second, \(.passes) passes"' "$tmp/report"
	# Those that came after the last pass.
	while kill -0 $second 2>/dev/null; do drain to $HOST1; done
	wait $first
	wait $second
	all_good first 500
	all_good second 100
	end_load keeper
	jq -e '.accepted == 600 and .ECONNABORTED == 600' "$tmp/keeper.log"
	wait_for 30 no_routes
}

# Kept-alive connections that have been served here before, and are idle: only those of the filter.
idle_ones() {
	start_load server lbu server $VIP 80
	wait_listen lbu 80
	rm -f "$tmp/ready" "$tmp/gate"
	background client "$tmp/first.log" "$load" client $VIP 80 --count 50 --chunk 500 --bytes 5000 --ready "$tmp/ready" --gate "$tmp/gate"
	local first=$!
	wait_for 60 [ -e "$tmp/ready" ]
	drain to $HOST2 filter client=10.0.2.0/24,192.0.2.1
	report '.connections == 0 and .passes == 0'
	[ "$(established)" = 50 ]
	# Three by their ports, and those with a prefix that nobody has.
	mapfile -t ports < <(ns lbu ss -Htn state established "( sport = :80 )" | awk '{ sub(/.*:/, "", $4); print $4 }' | head -n 3)
	drain to $HOST2 filter client=10.0.2.0/24 filter "client-port=${ports[0]},1-65535"
	report '.connections == 0'
	drain to $HOST2 filter client=10.0.1.0/24 filter "client-port=${ports[0]},${ports[1]},${ports[2]}"
	report '.connections == 3 and .moved == 3'
	[ "$(established)" = 47 ]
	on_terminal "filter client=192.0.2.1,10.0.1.0/24"
	touch "$tmp/gate"
	wait $first
	all_good first 50
	end_load server
	# The first 500 bytes of each were echoed here, the others at the host.
	jq -e '.bytes == 25000 and .ECONNABORTED == 50' "$tmp/server.log"
}

# People at a terminal are told how far it has come, by a line that is gone when the report comes.
on_terminal() {
	script -qec "ip netns exec lbu nlb migration drain from $VIP:80 to $HOST2 $1" /dev/null >"$tmp/terminal" </dev/null
	cat -v "$tmp/terminal"
	grep -qE $'\r\x1b\\[Kpass 1: 47 moved, 0 to go, 0 reset, [0-9]+ moved a second' "$tmp/terminal"
	grep -qE $'\r\x1b\\[K47 connections in 1 passes' "$tmp/terminal"
	grep -qE "^ +47    to $HOST2" "$tmp/terminal"
}

# Every one is refused, by its reason, and stays whole.
refused_ones() {
	start_load server lbu server $VIP 80
	wait_listen lbu 80
	rm -f "$tmp/ready" "$tmp/gate"
	background client "$tmp/first.log" "$load" client $VIP 80 --count 20 --chunk 500 --bytes 5000 --ready "$tmp/ready" --gate "$tmp/gate"
	local first=$!
	wait_for 60 [ -e "$tmp/ready" ]
	not drain to 10.0.9.8 to 10.0.9.9 retry 0
	report '.moved == 0 and .refused == 20 and (.reasons | length) == 1 and .reasons[0].reason == "no such peer"'
	jq -e '.error == "20 connections stayed"' "$tmp/report.err"
	touch "$tmp/gate"
	wait $first
	all_good first 20
	end_load server
}

# Ctrl-C ends it after what is under way; what was not begun works on here, and can be moved later.
interrupted() {
	start_load server lbu server $VIP 80
	wait_listen lbu 80
	rm -f "$tmp/ready" "$tmp/gate"
	background client "$tmp/first.log" "$load" client $VIP 80 --count 40 --chunk 500 --bytes 5000 --ready "$tmp/ready" --gate "$tmp/gate"
	local first=$! drain
	wait_for 60 [ -e "$tmp/ready" ]
	slow_answers 200ms
	ip netns exec lbu nlb -j migration drain from $VIP:80 to $HOST1 jobs 2 timeout 20000 >"$tmp/report" 2>"$tmp/report.err" &
	drain=$!
	wait_for 30 moved_some
	kill -INT $drain
	not wait $drain
	prompt_answers
	report '.interrupted and .moved >= 1 and .not_tried >= 1 and .connections == 40 and .reset == 0'
	drain to $HOST1
	report '(.interrupted | not) and .refused == 0 and .rolled_back == 0'
	touch "$tmp/gate"
	wait $first
	all_good first 40
	end_load server
}
moved_some() { [ "$(established)" -lt 40 ]; }

ktap_begin
cluster
for machine in host1 host2; do
	start_load server-$machine $machine server 0.0.0.0 80
	wait_listen $machine 80
done
ktap_run "600 connections under load" under_load
ktap_run "idle connections, by client" idle_ones
ktap_run "connections that cannot be moved" refused_ones
ktap_run "interrupted" interrupted
ktap_run "no packet was lost with a socket" no_backlog
ktap_end
