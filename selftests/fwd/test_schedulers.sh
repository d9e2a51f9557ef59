#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Who gets new connections, by scheduler and by state of the endpoints: counts against what is to be expected. Where no
# tolerance is said, it is none.

. "$(dirname "$0")/lib.sh"

round_robin() {
	service 9001/udp rr 1 100 0 7 3
	flows 9001 400 >/dev/null
	shares_are 9001/udp connections '[100,100,0,100,100]'
}

weighted_round_robin() {
	service 9002/udp wrr 1 2 0 5
	flows 9002 400 >/dev/null
	shares_are 9002/udp connections '[50,100,0,250]'
	# As large as those of IPVS: a third and two thirds.
	service 9003/udp wrr 32767 65534
	flows 9003 300 >/dev/null
	shares_are 9003/udp connections '[100,200]'
}

# Whoever has fewer catches up, though it is not its turn.
least_connections() {
	local second
	service 9000/tcp lc 1 100 7
	hold 9000 30
	shares_are 9000/tcp active_routes '[10,10,10]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" weight 0
	hold 9000 20
	second=$holder
	shares_are 9000/tcp active_routes '[10,20,20]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" weight 1
	hold 9000 10
	shares_are 9000/tcp active_routes '[20,20,20]'
	# Closed connections are no load, though their routes stay for a while.
	kill $second
	wait_for 20 shares_are 9000/tcp active_routes '[20,10,10]'
	shares_are 9000/tcp routes '[20,20,20]'
	hold 9000 20
	shares_are 9000/tcp active_routes '[20,20,20]'
}

weighted_least_connections() {
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp wlc 1 3 0 4
	hold 9000 80
	shares_are 9000/tcp active_routes '[10,30,0,40]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[2]}" weight 2
	hold 9000 20
	shares_are 9000/tcp active_routes '[10,30,20,40]'
}

# Who would have the fewest for its weight with the new one, though another has none.
shortest_delay() {
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp sed 1 3
	hold 9000 2
	shares_are 9000/tcp active_routes '[0,2]'
	# Both would have 6 for each of their weight.
	hold 9000 20
	shares_are 9000/tcp active_routes '[5,17]'
}
never_queue() {
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp nq 1 3
	hold 9000 2
	shares_are 9000/tcp active_routes '[1,1]'
	hold 9000 20
	shares_are 9000/tcp active_routes '[5,17]'
}

# near PORT/PROTO TOLERANCE WANT: the active routes, each give or take so many, none where none is wanted.
near() {
	shares "$1" active_routes | tee "$tmp/shares"
	jq -e --argjson want "$3" '[., $want] | transpose | all(((.[0] - .[1]) | fabs) <= (if .[1] == 0 then 0 else '"$2"' end))' \
		"$tmp/shares" >/dev/null
}

# By weight in the long run; and who has far more gets one now and then, which the fewest connections would not do. A
# trace says who is drawn.
two_choices() {
	local n said
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp twos 1 3 0 4
	hold 9000 80
	near 9000/tcp 6 '[10,30,0,40]'
	service 9002/tcp lc 1 1
	set_endpoint 9002/tcp 1 weight 0
	hold 9002 60
	set_endpoint 9002/tcp 1 weight 1
	ns lbu nlb service set $VIP:9002/tcp scheduler twos
	hold 9002 40
	# Both times the first one: a quarter, within four standard deviations.
	near 9002/tcp 11 '[70,30]'
	service 9009/udp twos 1 1 1 1 1
	for n in 30000 30001 30002 30003 30004; do
		said=$(lbu -j trace $CLIENT:$n $VIP:9009/udp | jq -r .host_addr)
		send 9009 $n 1
		wait_for 20 went $n "$said"
	done
}
went() { [ "$(lbu -j route show $VIP:9009/udp client "$CLIENT:$1" | jq -r '.[0].host_addr')" = "$2" ]; }

# The heaviest, as long as it has room.
failover() {
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp fo 1 5 0 3
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[1]}" max-routes 4
	hold 9000 6
	shares_are 9000/tcp active_routes '[0,4,0,2]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[3]}" state draining
	hold 9000 3
	shares_are 9000/tcp active_routes '[3,4,0,2]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[1]}" max-routes 0
	hold 9000 2
	shares_are 9000/tcp active_routes '[3,6,0,2]'
}

# All of a client to one, and of 20 clients not all to the same.
source_hashing() {
	local n
	service 9008/udp sh 1 1 1 1 1
	flows 9008 100 | cut -d' ' -f2 | sort -u >"$tmp/one"
	is "$(wc -l <"$tmp/one")" 1
	for ((n = 20; n < 40; n++)); do
		ip -n client addr add 10.0.1.$n/32 dev lo
		flows 9008 5 10.0.1.$n | cut -d' ' -f2 | sort -u >"$tmp/this"
		is "$(wc -l <"$tmp/this")" 1
		cat "$tmp/this" >>"$tmp/many"
	done
	(($(sort -u "$tmp/many" | wc -l) >= 3))
	flows 9008 100 | cut -d' ' -f2 | sort -u | diff - "$tmp/one"
}

# Each of five a fifth, within 20 % (of 600 flows: 2.4 standard deviations, of a hash that is always the same).
consistent_hashing() {
	service 9005/udp mh 1 1 1 1 1
	flows 9005 600 >"$tmp/five"
	shares 9005/udp connections
	shares 9005/udp connections | jq -e 'all(. >= 96 and . <= 144)'
	flows 9005 600 | diff - "$tmp/five" >"$tmp/diff"
}

# Who goes gives its flows away. Of the others at most 1 % of the slots move, so of 480 flows 5, and as many for the
# chance with which flows fall on slots.
endpoint_goes() {
	local moved
	ns lbu nlb endpoint del $VIP:9005/udp host "${endpoints[1]}"
	flows 9005 600 >"$tmp/four"
	not grep -q " ${endpoints[1]}\$" "$tmp/four"
	grep -v " ${endpoints[1]}\$" "$tmp/five" >"$tmp/others"
	moved=$(join "$tmp/others" "$tmp/four" | awk '$2 != $3' | wc -l)
	echo "$moved of $(wc -l <"$tmp/others") moved without need"
	((moved <= 10))
	# Weight 0 is the same as gone.
	ns lbu nlb endpoint add $VIP:9005/udp host "${endpoints[1]}" weight 0
	flows 9005 600 | diff - "$tmp/four" >"$tmp/diff"
	# And back, though it is the last one added now.
	ns lbu nlb endpoint set $VIP:9005/udp host "${endpoints[1]}" weight 1
	flows 9005 600 | diff - "$tmp/five" >"$tmp/diff"
}

# One of weight 4 among four of weight 1 gets half, within 15 %.
hashing_by_weight() {
	local count
	ns lbu nlb endpoint set $VIP:9005/udp host "${endpoints[0]}" weight 4
	flows 9005 600 | cut -d' ' -f2 | sort | uniq -c | tee "$tmp/weighted"
	count=$(awk -v host="${endpoints[0]}" '$2 == host { print $1 }' "$tmp/weighted")
	((count >= 255 && count <= 345))
}

# The scheduler of a service that has endpoints and routes.
scheduler_changes() {
	ns lbu nlb service set $VIP:9001/udp scheduler mh
	ns lbu nlb -j service show $VIP:9001/udp | jq -e '.[0].scheduler == "mh"'
	flows 9001 200 >"$tmp/mh"
	flows 9001 200 | diff - "$tmp/mh" >"$tmp/diff"
	ns lbu nlb service set $VIP:9001/udp scheduler wrr
	flows 9001 111 | cut -d' ' -f2 | sort | uniq -c | sort -n | tee "$tmp/wrr"
	# Weights 1, 100, 0, 7, 3, in a round of 8192 slots.
	head -n 1 "$tmp/wrr" | grep -E "^ *[12] ${endpoints[0]//./\\.}\$"
	tail -n 1 "$tmp/wrr" | grep -E "^ *(99|100|101) ${endpoints[1]//./\\.}\$"
}

# Whatever the scheduler, a draining endpoint gets none.
nobody_schedules_it() {
	local scheduler
	service 9006/udp wrr 1 2 3
	ns lbu nlb endpoint set $VIP:9006/udp host "${endpoints[1]}" state draining
	for scheduler in wrr rr lc wlc mh sed nq twos; do
		ns lbu nlb service set $VIP:9006/udp scheduler $scheduler
		flows 9006 60 >/dev/null
	done
	shares 9006/udp connections
	shares 9006/udp connections | jq -e '.[1] == 0 and .[0] > 100 and .[2] > 100 and .[0] + .[2] == 480'
}

# A connection speaks, and again when $tmp/again comes; what became of it is in the file said.
speak() {
	rm -f "$tmp/again" "$tmp/said"
	background client "$tmp/said" python3 -c "
import os, socket, time
s = socket.create_connection(('$VIP', 9000), timeout=20)
said = s.recv(100)
print('open', flush=True)
while not os.path.exists('$tmp/again'):
    time.sleep(0.05)
try:
    s.sendall(b'again')
    while not said.endswith(b'again') and (part := s.recv(100)):
        said += part
    print(said.decode(), flush=True)
except ConnectionResetError:
    print('reset', flush=True)"
	wait_for 20 grep -qsx open "$tmp/said"
}
again() {
	touch "$tmp/again"
	wait_for 20 grep -qx "$1" "$tmp/said" || { cat "$tmp/said" && return 1; }
}

draining() {
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp wrr 3 1
	speak
	shares_are 9000/tcp active_routes '[1,0]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" state draining
	hold 9000 5
	shares_are 9000/tcp active_routes '[1,5]'
	again "host1 again"
	# Undone: the weight is what it was.
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" state active
	hold 9000 8
	shares_are 9000/tcp connections '[7,7]'
}

inactive() {
	local before
	before=$(counter lbu fwd route-inactive)
	ns lbu nlb service del $VIP:9000/tcp
	service 9000/tcp wrr 3 1
	speak
	hold 9000 4
	shares_are 9000/tcp active_routes '[4,1]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" state inactive
	shares_are 9000/tcp routes '[0,1]'
	[ "$(counter lbu fwd route-inactive)" = $((before + 4)) ]
	again reset
	hold 9000 5
	shares_are 9000/tcp active_routes '[0,6]'
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" state active
	hold 9000 4
	shares_are 9000/tcp active_routes '[3,7]'
}

ask() {
	ns client python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('$CLIENT', 20000))
s.settimeout(20)
s.sendto(b'who', ('$VIP', 9007))
print(s.recv(100).decode())"
}

# A flow that has no connection goes to another host.
inactive_udp() {
	service 9007/udp wrr 1 0 0 1
	[ "$(ask)" = host1 ]
	[ "$(ask)" = host1 ]
	ns lbu nlb endpoint set $VIP:9007/udp host "${endpoints[0]}" state draining
	[ "$(ask)" = host1 ]
	ns lbu nlb endpoint set $VIP:9007/udp host "${endpoints[0]}" state inactive
	[ "$(ask)" = host2 ]
	# It has a route now.
	ns lbu nlb endpoint set $VIP:9007/udp host "${endpoints[0]}" state active
	[ "$(ask)" = host2 ]
}

# Nobody is left: refused at once.
nobody_is_active() {
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[0]}" state draining
	ns lbu nlb endpoint set $VIP:9000/tcp host "${endpoints[1]}" state inactive
	ns client python3 -c "
import socket
try:
    socket.create_connection(('$VIP', 9000), timeout=10)
    raise SystemExit('connected')
except ConnectionRefusedError:
    pass"
}

ktap_begin
load_modules nlb_fwd
five_endpoints
for port in 9000 9001 9002 9003 9005 9006 9007 9008 9009; do listen $port; done
ktap_run "rr: in turn" round_robin
ktap_run "wrr: in turn, by weight" weighted_round_robin
ktap_run "lc: the fewest connections" least_connections
ktap_run "wlc: the fewest connections, by weight" weighted_least_connections
ktap_run "sed: the shortest delay" shortest_delay
ktap_run "nq: who has nothing to do, then the shortest delay" never_queue
ktap_run "twos: of two that are drawn, who has fewer" two_choices
ktap_run "fo: the heaviest that has room" failover
ktap_run "sh: all of a client to one" source_hashing
ktap_run "mh: each its share, always the same" consistent_hashing
ktap_run "mh: an endpoint goes and comes back" endpoint_goes
ktap_run "mh: shares by weight" hashing_by_weight
ktap_run "another scheduler" scheduler_changes
ktap_run "draining: of no scheduler" nobody_schedules_it
ktap_run "draining: connections stay, no new ones, undone" draining
ktap_run "inactive: connections end, no new ones, undone" inactive
ktap_run "inactive: UDP goes elsewhere" inactive_udp
ktap_run "nobody is active: refused" nobody_is_active
ktap_end
