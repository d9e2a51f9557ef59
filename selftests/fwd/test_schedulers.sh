#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Who gets new connections, by scheduler: counts against what is to be expected. Where no tolerance is said, it is
# none.

. "$(dirname "$0")/../lib.sh"

# Addresses of host1 and host2 that serve as five endpoints.
endpoints=(10.0.2.2 10.0.2.3 10.0.2.4 10.0.3.2 10.0.3.3)

# service PORT/PROTO SCHEDULER WEIGHT...: with one endpoint for each weight.
service() {
	local n
	ns lbu nlb service add "$VIP:$1" scheduler "$2"
	for ((n = 3; n <= $#; n++)); do
		ns lbu nlb endpoint add "$VIP:$1" host "${endpoints[n - 3]}" weight "${!n}"
	done
}

# shares PORT/PROTO FIELD...: of the endpoints, in the order they were added.
shares() { ns lbu nlb -j endpoint show "$VIP:$1" | jq -c "map(.$2)"; }
shares_are() { [ "$(shares "$1" "$2" | tee "$tmp/shares")" = "$3" ] || ! cat "$tmp/shares"; }

# flows PORT COUNT: a datagram from each of so many ports, from 20000 on, and where it went: "PORT HOST".
flows() {
	ns lbu nlb route flush "$VIP:$1/udp"
	ns client python3 -c "
import socket
for port in range(20000, 20000 + $2):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('$CLIENT', port))
        s.sendto(b'?', ('$VIP', $1))"
	wait_for 20 all_are_there "$1" "$2"
	ns lbu nlb -j route show "$VIP:$1/udp" | jq -r '.[] | "\(.client_port) \(.host_addr)"' | sort
}
all_are_there() { [ "$(ns lbu nlb -j route show "$VIP:$1/udp" | jq length)" = "$2" ]; }

# hold PORT COUNT: open so many connections, and keep them; who has them is in $holder.
holds=0
hold() {
	local log=$tmp/hold-$1-$((++holds))
	background client "$log" python3 -c "
import socket, time
all = [socket.create_connection(('$VIP', $1), timeout=20) for _ in range($2)]
print('open', flush=True)
time.sleep(600)"
	holder=$!
	wait_for 60 grep -qsx open "$log"
}

# Only to accept, and to say nothing.
listen() {
	local host
	for host in host1 host2; do
		background $host "$tmp/$host-$1.log" python3 -c "
import socket, time
t = socket.create_server(('0.0.0.0', $1), backlog=1000)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(('0.0.0.0', $1))
time.sleep(600)"
		wait_listen $host "$1"
	done
}

round_robin() {
	service 9001/udp rr 1 100 0 7 3
	flows 9001 400 >/dev/null
	shares_are 9001/udp connections '[100,100,0,100,100]'
}

weighted_round_robin() {
	service 9002/udp wrr 1 2 0 5
	flows 9002 400 >/dev/null
	shares_are 9002/udp connections '[50,100,0,250]'
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

ktap_begin
load_modules nlb_fwd
topology
vip_add lbu host1 host2
for n in 2 3; do ns host1 ip addr add 10.0.2.$((n + 1))/24 dev lbu; done
ns host2 ip addr add 10.0.3.3/24 dev lbu
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host2 nlb forwarder add $LBU_TO_HOST2
for port in 9000 9001 9002 9005; do listen $port; done
ktap_run "rr: in turn" round_robin
ktap_run "wrr: in turn, by weight" weighted_round_robin
ktap_run "lc: the fewest connections" least_connections
ktap_run "wlc: the fewest connections, by weight" weighted_least_connections
ktap_run "mh: each its share, always the same" consistent_hashing
ktap_run "mh: an endpoint goes and comes back" endpoint_goes
ktap_run "mh: shares by weight" hashing_by_weight
ktap_run "another scheduler" scheduler_changes
ktap_end
