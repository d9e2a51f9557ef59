#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# What comes before and after the scheduler: clients that stay with their endpoint, endpoints that have enough, and
# those that help out or begin slowly. Where no tolerance is said, counts are exact.

. "$(dirname "$0")/lib.sh"

# Connections of one client, and those of a service without affinity. Whose turn it is when they begin is not said.
affinity() {
	service 9100/tcp rr 1 1 1
	hold 9100 6
	active_are 9100 '[2,2,2]'
	ns lbu nlb service set $VIP:9100/tcp affinity 600
	hold 9100 6
	active_are 9100 '[2,2,8]'
	[ "$(counter lbu fwd affinity-hit)" = 5 ]
	ns lbu nlb service set $VIP:9100/tcp affinity 0
	hold 9100 3
	active_are 9100 '[3,3,9]'
}
active_are() { [ "$(shares "$1/tcp" active_routes | jq -c sort | tee "$tmp/shares")" = "$2" ] || ! cat "$tmp/shares"; }

# Clients of one network are one client, and each has an endpoint of its own.
affinity_by_prefix() {
	service 9101/udp rr 1 1
	ns lbu nlb service set $VIP:9101/udp affinity 600 prefix 25
	flows 9101 20 >/dev/null
	flows 9101 20 10.0.1.3 >/dev/null
	shares_are 9101/udp connections '[40,0]'
	flows 9101 20 10.0.1.130 >/dev/null
	shares_are 9101/udp connections '[40,20]'
	# Now the two are not the same any more.
	ns lbu nlb service set $VIP:9101/udp prefix 32
	flows 9101 20 >/dev/null
	flows 9101 20 10.0.1.3 >/dev/null
	shares_are 9101/udp connections '[60,40]'
}

# goes_to PORT N: the client's next flow, to that endpoint.
goes_to() {
	flows "$1" 1 >"$tmp/one"
	grep -qx "20000 ${endpoints[$2]}" "$tmp/one" || ! cat "$tmp/one"
}

affinity_expires() {
	service 9102/udp rr 1 1
	ns lbu nlb service set $VIP:9102/udp affinity 1
	goes_to 9102 0
	nap 2.1
	goes_to 9102 1
	nap 2.1
	ns lbu nlb service set $VIP:9102/udp affinity 600
	goes_to 9102 0
	goes_to 9102 0
}

# Of weight 0 it keeps its clients, draining it does not, and of inactive and deleted ones nothing may be left.
affinity_and_states() {
	goes_to 9102 0
	set_endpoint 9102/udp 0 weight 0
	goes_to 9102 0
	goes_to 9102 0
	set_endpoint 9102/udp 0 state draining
	goes_to 9102 1
	set_endpoint 9102/udp 0 state active weight 1
	goes_to 9102 1
	set_endpoint 9102/udp 1 state inactive
	goes_to 9102 0
	set_endpoint 9102/udp 1 state active
	ns lbu nlb endpoint del $VIP:9102/udp host "${endpoints[0]}"
	goes_to 9102 1
	ns lbu nlb endpoint add $VIP:9102/udp host "${endpoints[0]}"
	goes_to 9102 1
	# A service of the same name knows none of the clients.
	ns lbu nlb service del $VIP:9102/udp
	service 9102/udp rr 1 1
	ns lbu nlb service set $VIP:9102/udp affinity 600
	goes_to 9102 0
}

# Whatever the scheduler (rr is like wrr, wlc like lc), an endpoint gets no more than its limit, and others the rest.
limits() {
	local scheduler before
	service 9103/udp wrr 1 5 1
	set_endpoint 9103/udp 0 max-routes 10
	set_endpoint 9103/udp 1 max-routes 20
	for scheduler in wrr lc mh; do
		ns lbu nlb service set $VIP:9103/udp scheduler $scheduler
		flows 9103 90 >/dev/null
		shares_are 9103/udp active_routes '[10,20,60]'
	done
	# All are full: refused and counted, until there is room.
	before=$(counter lbu fwd drop-overflow)
	set_endpoint 9103/udp 2 max-routes 1
	ns lbu nlb route flush $VIP:9103/udp
	send 9103 20000 40
	wait_for 20 shares_are 9103/udp active_routes '[10,20,1]'
	wait_for 20 counter_is drop-overflow $((before + 9))
	set_endpoint 9103/udp 2 max-routes 0
	send 9103 30000 9
	wait_for 20 shares_are 9103/udp active_routes '[10,20,10]'
	[ "$(counter lbu fwd drop-overflow)" = $((before + 9)) ]
}
counter_is() { [ "$(counter lbu fwd "$1")" = "$2" ]; }

# Connections that are closed, or of a client that has affinity.
limits_and_connections() {
	local first
	service 9104/tcp rr 1 1
	set_endpoint 9104/tcp 0 max-routes 2
	hold 9104 3
	first=$holder
	hold 9104 4
	shares_are 9104/tcp active_routes '[2,5]'
	kill $first
	wait_for 20 shares_are 9104/tcp active_routes '[0,4]'
	ns lbu nlb service set $VIP:9104/tcp affinity 600
	hold 9104 3
	# Where the third went, whoever comes next goes.
	shares_are 9104/tcp active_routes '[2,5]'
	hold 9104 1
	shares_are 9104/tcp active_routes '[2,6]'
}

# Who was full gets some again when it has fewer than the lower limit, also if it has had that many before it was set.
lower_limit() {
	local first second
	service 9107/tcp rr 1 1
	set_endpoint 9107/tcp 0 max-routes 3 resume-routes 2
	hold 9107 2
	first=$holder
	hold 9107 2
	second=$holder
	shares_are 9107/tcp active_routes '[2,2]'
	# It was never full.
	kill $second
	wait_for 20 shares_are 9107/tcp active_routes '[1,1]'
	hold 9107 4
	shares_are 9107/tcp active_routes '[3,3]'
	shares_are 9107/tcp full '[true,false]'
	hold 9107 2
	shares_are 9107/tcp active_routes '[3,5]'
	kill $first
	wait_for 20 shares_are 9107/tcp active_routes '[2,4]'
	ns lbu nlb trace $CLIENT:1 $VIP:9107 | grep -F "full: 2 active routes of 3, until fewer than 2"
	hold 9107 2
	shares_are 9107/tcp active_routes '[2,6]'
	set_endpoint 9107/tcp 0 max-routes 4 resume-routes 3
	shares_are 9107/tcp full '[false,false]'
	hold 9107 2
	shares_are 9107/tcp active_routes '[3,7]'
}

backup() {
	service 9105/tcp wrr 1 1 1
	set_endpoint 9105/tcp 2 backup yes
	hold 9105 6
	shares_are 9105/tcp active_routes '[3,3,0]'
	set_endpoint 9105/tcp 0 max-routes 4
	set_endpoint 9105/tcp 1 state draining
	hold 9105 3
	shares_are 9105/tcp active_routes '[4,3,2]'
	# It has no clients of its own: they are back at once.
	ns lbu nlb service set $VIP:9105/tcp affinity 600
	hold 9105 1
	shares_are 9105/tcp active_routes '[4,3,3]'
	set_endpoint 9105/tcp 1 state active
	hold 9105 2
	shares_are 9105/tcp active_routes '[4,5,3]'
	# Full as well: no answer.
	set_endpoint 9105/tcp 1 weight 0 state draining
	set_endpoint 9105/tcp 2 max-routes 3
	ns client python3 -c "
import socket
try:
    socket.create_connection(('$VIP', 9105), timeout=2.5)
    raise SystemExit('connected')
except TimeoutError:
    pass"
	# One among others when it is none any more.
	set_endpoint 9105/tcp 2 max-routes 0 backup no
	hold 9105 1
	shares_are 9105/tcp active_routes '[4,5,4]'
}

# On its first step of 16 the second endpoint gets a 17th of 170 flows, or one more or less as turns begin.
slowly() {
	flows 9106 170 | grep -c " ${endpoints[1]}\$" >"$tmp/slow"
	cat "$tmp/slow"
	(($(<"$tmp/slow") >= 9 && $(<"$tmp/slow") <= 11))
}
evenly() { [ "$(flows 9106 20 | cut -d' ' -f2 | sort | uniq -c | awk '{ print $1 }' | xargs)" = "10 10" ]; }

slow_start() {
	service 9106/udp wrr 1
	ns lbu nlb service set $VIP:9106/udp slow-start 3600
	ns lbu nlb endpoint add $VIP:9106/udp host "${endpoints[1]}"
	slowly
	ns lbu nlb service set $VIP:9106/udp slow-start 0
	wait_for 20 evenly
	# An endpoint that is there already begins nothing; one that comes back does.
	ns lbu nlb service set $VIP:9106/udp slow-start 3600
	set_endpoint 9106/udp 1 max-routes 1000
	evenly
	set_endpoint 9106/udp 1 state draining
	set_endpoint 9106/udp 1 state active
	slowly
	# All steps are taken.
	ns lbu nlb service set $VIP:9106/udp slow-start 2
	wait_for 20 evenly
}

ktap_begin
load_modules nlb_fwd
five_endpoints
for address in 10.0.1.3 10.0.1.130; do ns client ip addr add $address/24 dev lbu; done
for port in 9100 9101 9102 9103 9104 9105 9106 9107; do listen $port; done
ktap_run "affinity: a client's connections go to one endpoint" affinity
ktap_run "affinity: by prefix" affinity_by_prefix
ktap_run "affinity: expires" affinity_expires
ktap_run "affinity: weight 0, draining, inactive and deleted endpoints" affinity_and_states
ktap_run "limits: of each scheduler, refused when all are full" limits
ktap_run "limits: connections that end, and clients with affinity" limits_and_connections
ktap_run "limits: a lower one, once it was full" lower_limit
ktap_run "backup: only what no other can take" backup
ktap_run "slow start: of endpoints that come, and come back" slow_start
ktap_end
