#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Allotments: tokens and percentages decide who gets new connections, and who has allotted is told when that is over.
# Where no tolerance is said, counts are exact.

. "$(dirname "$0")/lib.sh"

# got PORT COUNT: how many of so many flows each of the first three endpoints gets.
got() {
	flows "$1" "$2" >"$tmp/flows"
	jq -rR --arg hosts "${endpoints[*]:0:3}" -n '
		[inputs | split(" ")[1]] as $went
		| [$hosts | split(" ")[] as $host | [$went[] | select(. == $host)] | length | tostring] | join(" ")' "$tmp/flows"
}
allot() { ns lbu nlb allotment set "$VIP:$1/udp" scheme "$2" age "$3" "${@:4}"; }
shown() { ns lbu nlb -j allotment show "$VIP:$1/udp" | jq -c ".[0] | $2"; }
# The states that listeners were told of.
told() { jq -rR 'fromjson? | select(.event == "allotment") | .allotment.state' "$tmp/events" | xargs; }
told_are() { is "$(told)" "$1"; }

tokens() {
	service 9200/udp wrr 1 1 1
	background lbu "$tmp/events" nlb -j monitor services
	local monitor=$!
	wait_for 20 grep -qs Watching "$tmp/events"
	allot 9200 tokens 3600000 share "${endpoints[0]}=8" share "${endpoints[1]}=4"
	is "$(shown 9200 '[.scheme, .state, .left, .age]')" '["tokens","valid",12,3600000]'
	# In turns, not one after the other.
	is "$(got 9200 6)" "4 2 0"
	is "$(shown 9200 '[.left, .shares[].amount]')" '[6,4,2]'
	wait_for 20 told_are valid
	is "$(got 9200 3)" "2 1 0"
	wait_for 20 told_are "valid low"
	is "$(got 9200 3)" "2 1 0"
	wait_for 20 told_are "valid low over"
	is "$(shown 9200 '[.state, .left]')" '["over",0]'
	# The scheduler has all three again.
	is "$(got 9200 9)" "3 3 3"
	told_are "valid low over"
	allot 9200 tokens 3600000 share "${endpoints[2]}=100"
	is "$(got 9200 10)" "0 0 10"
	# Another one takes the place of the tokens that are left.
	allot 9200 tokens 3600000 share "${endpoints[1]}=5"
	is "$(got 9200 4)" "0 4 0"
	wait_for 20 told_are "valid low over valid valid low"
	is "$(got 9200 1)" "0 1 0"
	wait_for 20 told_are "valid low over valid valid low over"
	ns lbu nlb allotment del "$VIP:9200/udp"
	wait_for 20 grep -q '"event":"allotment-del"' "$tmp/events"
	not ns lbu nlb allotment show "$VIP:9200/udp" 2>"$tmp/err"
	grep -q "the service has no allotment" "$tmp/err"
	is "$(ns lbu nlb -j allotment show)" '[]'
	kill $monitor
}

percentages() {
	service 9201/udp wrr 1 1 1
	allot 9201 percentages 3600000 share "${endpoints[0]}=60" share "${endpoints[1]}=30" share "${endpoints[2]}=10"
	is "$(got 9201 100)" "60 30 10"
	is "$(shown 9201 '[.scheme, .state, .left]')" '["percentages","valid",null]'
	# What has not got a share, or takes no connections, gets none.
	allot 9201 percentages 3600000 share "${endpoints[1]}=50" share "${endpoints[2]}=50"
	set_endpoint 9201/udp 2 state draining
	is "$(got 9201 10)" "0 10 0"
	set_endpoint 9201/udp 2 state active
	ns lbu nlb endpoint del "$VIP:9201/udp" host "${endpoints[1]}"
	is "$(got 9201 10)" "0 0 10"
	# Nobody of those that are named.
	ns lbu nlb endpoint del "$VIP:9201/udp" host "${endpoints[2]}"
	is "$(got 9201 10)" "10 0 0"
	ns lbu nlb service del "$VIP:9201/udp"
}

too_old() {
	service 9202/udp wrr 1 1 1
	allot 9202 tokens 1 share "${endpoints[0]}=1000"
	over() { is "$(shown 9202 '[.state, .left]')" '["over",1000]'; }
	wait_for 20 over
	is "$(got 9202 9)" "3 3 3"
}

# A service goes away with its allotment while connections come.
goes() {
	local n
	service 9203/udp wrr 1 1 1
	flood 9203
	local flood=$!
	for ((n = 0; n < 10; n++)); do
		allot 9203 tokens 3600000 share "${endpoints[n % 3]}=7"
		allot 9203 percentages 3600000 share "${endpoints[n % 3]}=50" share "${endpoints[(n + 1) % 3]}=50"
		ns lbu nlb service del "$VIP:9203/udp"
		service 9203/udp wrr 1 1 1
	done
	kill $flood
}

ktap_begin
load_modules nlb_fwd
five_endpoints
for port in 9200 9201 9202 9203; do listen $port; done
ktap_run "tokens are used up, and asked for" tokens
ktap_run "percentages, and endpoints that take none" percentages
ktap_run "an allotment that is too old does not count" too_old
ktap_run "allotments and services change under load" goes
ktap_end
