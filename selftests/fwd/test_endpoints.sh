#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# Several endpoints of a service at one host, told apart by their ports: each gets its part of the connections, and is
# named, changed, allotted, remembered, traced, saved and removed alone. Counts are exact where no tolerance is said.

. "$(dirname "$0")/lib.sh"

# speaks NAME ADDRESS PORT...: an application for each port there, which says the port; TCP.
speaks() {
	background host2 "$tmp/host2-$1.log" python3 -c "
import socket, sys, threading
def serve(s):
    while True:
        c, _ = s.accept()
        c.sendall(b'%d' % s.getsockname()[1])
        threading.Thread(target=lambda: (c.recv(1), c.close()), daemon=True).start()
family = socket.AF_INET6 if ':' in '$2' else socket.AF_INET
all = [socket.create_server(('$2', int(port)), family=family, backlog=100) for port in sys.argv[1:]]
print('ready', flush=True)
threads = [threading.Thread(target=serve, args=(s,)) for s in all]
for thread in threads: thread.start()
for thread in threads: thread.join()" "${@:3}"
	wait_for 20 grep -qx ready "$tmp/host2-$1.log"
}

# answers VIP PORT COUNT: so many connections, one after the other; which ports have answered how often, as JSON.
answers() {
	ns client python3 -c "
import collections, json, socket
found = collections.Counter()
for _ in range($3):
    with socket.create_connection(('$1', $2), timeout=20) as c:
        found[c.recv(10).decode()] += 1
print(json.dumps(found, sort_keys=True, separators=(',', ':')))" | tee "$tmp/answers"
}
answer() { is "$(answers "$VIP" "$1" "$2")" "$3"; }
endpoint() { lbu endpoint "$1" "$VIP:9200" host $HOST2 "${@:2}"; }
# field FILTER: of the endpoints, in the order in which they were added.
field() { lbu -j endpoint show $VIP:9200 | jq -c "map(.$1)"; }

each_its_part() {
	lbu service add $VIP:9200 scheduler rr
	endpoint add via half-nat port 8001
	endpoint add via nat port 8002
	endpoint add via half-nat
	refuses "endpoint exists" endpoint add via nat port 8001
	# The service's own port is the same one, whether it is said or not.
	refuses "endpoint exists" endpoint add via nat port 9200
	refuses "endpoint exists" endpoint add
	is "$(field host_port)" "[8001,8002,9200]"
	lbu endpoint show | grep -E " $HOST2:8001 +half-nat "
	answer 9200 30 '{"8001":10,"8002":10,"9200":10}'
	is "$(field connections)" "[10,10,10]"
	lbu route show | grep -E " $HOST2:8002 +$LBU_TO_HOST2:[0-9]+ +nat "
	lbu -j route show $VIP:9200 host $HOST2 port 8002 | jq -e 'length == 10 and all(.host_port == 8002)'
	lbu route flush $VIP:9200 host $HOST2 port 8002
	is "$(field routes)" "[10,0,10]"
	lbu route flush
}

ipv6() {
	lbu service add "[$VIP6]:9200" scheduler rr
	lbu endpoint add "[$VIP6]:9200" host $HOST2_6 via nat port 8001
	lbu endpoint add "[$VIP6]:9200" host $HOST2_6 via half-nat port 8002
	refuses "name the port" lbu endpoint del "[$VIP6]:9200" host $HOST2_6
	is "$(answers $VIP6 9200 10)" '{"8001":5,"8002":5}'
	lbu endpoint show | grep -F "[$HOST2_6]:8001 "
	lbu service del "[$VIP6]:9200"
}

# The address is enough where there is one.
named() {
	local several="the host has several endpoints: name the port (attribute host-addr)"
	refuses "$several" endpoint set weight 0
	refuses "$several" endpoint show
	refuses "$several" endpoint del
	refuses "no such endpoint" endpoint set port 8009 weight 0
	endpoint set port 8001 state draining
	endpoint set port 0 weight 3
	is "$(field state)" '["draining","active","active"]'
	is "$(field weight)" '[1,1,3]'
	is "$(endpoint show port 9200 | wc -l)" 2
	answer 9200 20 '{"8002":10,"9200":10}'
	lbu service add $VIP:9201
	lbu endpoint add $VIP:9201 host $HOST2 via nat port 8001
	lbu endpoint set $VIP:9201 host $HOST2 weight 7
	lbu endpoint show $VIP:9201 host $HOST2 | grep " $HOST2:8001 "
	lbu endpoint del $VIP:9201 host $HOST2
	lbu service del $VIP:9201
}

# Connections of one port are cut off, those of the others go on.
inactive() {
	endpoint set port 8001 state active
	endpoint set port 0 weight 1
	hold 9200 9
	is "$(field routes | jq -c 'map(. >= 3)')" "[true,true,true]"
	endpoint set port 8002 state inactive
	is "$(field routes | jq -c 'map(. > 0)')" "[true,false,true]"
	endpoint set port 8002 state active
	lbu route flush
}

by_hand() {
	refuses "name the port (attribute host-addr)" lbu route add $VIP:9200 client 198.51.100.7:40000 host $HOST2
	refuses "no such endpoint" lbu route add $VIP:9200 client 198.51.100.7:40000 host $HOST2 port 8009
	lbu route add $VIP:9200 client 198.51.100.7:40000 host $HOST2 port 8002
	lbu -j route show $VIP:9200 client 198.51.100.7:40000 | jq -e '.[0] | .host_port == 8002 and .forward == "nat"'
	lbu route del $VIP:9200 client 198.51.100.7:40000
}

allotted() {
	local of=(lbu allotment set "$VIP:9200" scheme tokens age 60000)
	refuses "name the port (attribute share)" "${of[@]}" share $HOST2=4
	refuses "an endpoint has two shares" "${of[@]}" share $HOST2:8001=4 share $HOST2:8001=5
	"${of[@]}" share $HOST2:8001=4 share $HOST2:0=8
	lbu allotment show | grep -F " $HOST2:8001=4 $HOST2:9200=8"
	answer 9200 12 '{"8001":4,"9200":8}'
	lbu allotment del $VIP:9200
}

# A client stays where it was; what would be done is what is done.
remembered_and_traced() {
	local port
	lbu service set $VIP:9200 affinity 600
	port=$(answers $VIP 9200 1 | jq -r 'keys[0]')
	answer 9200 8 "{\"$port\":8}"
	lbu trace $CLIENT:1234 $VIP:9200 | tee "$tmp/trace"
	grep -E "^affinity   $HOST2:$port, for " "$tmp/trace"
	is "$(grep -c "^endpoint .*: picked by affinity" "$tmp/trace")" 1
	grep -E "^endpoint   $HOST2:$port weight 1 active [0-9]+: picked by affinity" "$tmp/trace"
	lbu service set $VIP:9200 affinity 0
	port=$(lbu -j trace $CLIENT:1234 $VIP:9200 | jq '.host_port')
	answer 9200 1 "{\"$port\":1}"
}

# Each a third of 300, within a quarter (three standard deviations).
hashed() {
	lbu service set $VIP:9200 scheduler mh
	answers $VIP 9200 300
	jq -e 'length == 3 and all(. >= 75 and . <= 125)' "$tmp/answers"
	lbu service set $VIP:9200 scheduler rr
}

# What was counted is as if it had never been, of one service or of all; what has a route counts on.
zeroed() {
	local before
	lbu service add $VIP:9201
	lbu endpoint add $VIP:9201 host $HOST2 via nat port 8001
	answers $VIP 9201 3
	lbu -j service show $VIP:9200 | jq -e '.[0] | .connections > 300 and .packets > 600 and .bytes > 20000'
	before=$(counter lbu fwd packets)
	lbu service zero $VIP:9200
	lbu -j endpoint show $VIP:9200 | jq -e 'all(.connections == 0 and .packets == 0 and .bytes == 0)'
	lbu -j service show $VIP:9200 | jq -e '.[0] | .connections == 0 and .packets == 0 and .bytes == 0'
	lbu -j service show $VIP:9201 | jq -e '.[0] | .connections == 3 and .packets > 6'
	[ "$(counter lbu fwd packets)" -ge "$before" ]
	answer 9200 6 '{"8001":2,"8002":2,"9200":2}'
	is "$(field connections)" "[2,2,2]"
	lbu -j service show $VIP:9200 | jq -e '.[0] | .connections == 6 and .packets >= 24 and .packets < 100'
	lbu service zero
	lbu -j service show | jq -e 'length == 2 and all(.connections == 0 and .bytes == 0)'
	lbu -j endpoint show | jq -e 'length == 4 and all(.connections == 0 and .bytes == 0)'
	# Nothing is negative for those who make differences.
	coproc lbu -j top once interval 2
	nap 0.5
	answers $VIP 9200 6
	lbu service zero
	answers $VIP 9200 3
	cat <&"${COPROC[0]}" >"$tmp/top"
	jq -e '.rows | length > 0 and all(.connections >= 0 and .connections < 100)' "$tmp/top"
	lbu service del $VIP:9201
}

saved() {
	lbu save >"$tmp/saved.toml"
	is "$(grep -c '^port = ' "$tmp/saved.toml")" 3
	[ -z "$(lbu apply "$tmp/saved.toml" dry-run)" ]
	sed -e 's/^port = 8001/port = 8003/' -e '/^port = 9200/d' "$tmp/saved.toml" >"$tmp/other.toml"
	lbu apply "$tmp/other.toml" dry-run | tee "$tmp/plan"
	is "$(wc -l <"$tmp/plan")" 2
	lbu apply "$tmp/other.toml"
	is "$(field host_port | jq -c sort)" "[8002,8003,9200]"
	lbu apply "$tmp/saved.toml"
	lbu save | cmp - "$tmp/saved.toml"
}

removed() {
	endpoint del port 8002
	endpoint del port 9200
	# The last one needs no port.
	endpoint set weight 5
	is "$(field host_port)" "[8001]"
	answer 9200 4 '{"8001":4}'
	endpoint del
	refuses "no such endpoint" endpoint del
}

# Of several ports, those that packets have are one endpoint, and one that is said another.
several_ports() {
	lbu service add $VIP:9200-9202 scheduler rr
	lbu service del $VIP:9200
	lbu endpoint add $VIP:9200-9202 host $HOST2 via half-nat
	lbu endpoint add $VIP:9200-9202 host $HOST2 via half-nat port 9200
	refuses "endpoint exists" lbu endpoint add $VIP:9200-9202 host $HOST2 via nat
	answer 9201 6 '{"9200":3,"9201":3}'
	lbu endpoint set $VIP:9200-9202 host $HOST2 port 0 state draining
	answer 9201 4 '{"9200":4}'
	lbu endpoint del $VIP:9200-9202 host $HOST2 port 9200
	lbu endpoint set $VIP:9200-9202 host $HOST2 state active
	answer 9202 2 '{"9202":2}'
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu
vip_add_ipv6 lbu
# All goes back by the LBU.
ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
ip -n host2 route replace $CLIENT6 via $LBU_TO_HOST2_6
speaks v4 $HOST2 8001 8002 8003 9200 9201 9202
speaks v6 $HOST2_6 8001 8002
ktap_run "each port gets its part" each_its_part
ktap_run "IPv6" ipv6
ktap_run "named by host, and where that has several by port" named
ktap_run "inactive: connections of one port end" inactive
ktap_run "routes by hand" by_hand
ktap_run "allotments" allotted
ktap_run "affinity, and what a trace says" remembered_and_traced
ktap_run "mh: each its share" hashed
ktap_run "counters begin at zero again" zeroed
ktap_run "saved and applied" saved
ktap_run "removed one by one" removed
ktap_run "services with several ports" several_ports
ktap_end
