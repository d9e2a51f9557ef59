#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The fast path, at the ingress of devices: which packets it takes, which it leaves to the ordinary path, and what it
# does when devices, neighbours and modules come and go.

. "$(dirname "$0")/../lib.sh"

# l4 PORT/PROTO HOST WORD...: a service with this endpoint.
l4() {
	ns lbu nlb service add "$VIP:$1" mode l4
	ns lbu nlb endpoint add "$VIP:$1" host "${@:2}"
}
fast() { counter lbu fwd fast-packets; }

# ask PORT COUNT [SIZE [OPTION]...]: from one socket, with these options at the level of IP ("NAME=BYTES"), so many
# datagrams that have to come back. Prints how many packets took the fast path: none of the first one, which opens the
# connection, nor of the second, if the host had not learnt of it by then.
ask() {
	ns client python3 - "$@" <<-EOF
	import json, socket, subprocess, sys
	port, count, size = *map(int, sys.argv[1:3]), int((sys.argv[3:] + ["100"])[0])
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(5)
	s.connect(("$VIP", port))
	def ask(size):
	    for attempt in range(5):
	        s.send(bytes(size))
	        try:
	            # An answer that comes late may be one to what was sent before.
	            while len(s.recv(65536)) != size:
	                pass
	            return attempt
	        except TimeoutError:
	            print("again", file=sys.stderr)
	    raise SystemExit("no answer")
	def fast():
	    stats = ["ip", "netns", "exec", "lbu", "nlb", "-j", "stats", "show", "fwd"]
	    shown = subprocess.run(stats, check=True, capture_output=True).stdout
	    return json.loads(shown)[0]["counters"]["fast-packets"]
	for _ in range(3):
	    ask(100)
	for option in sys.argv[4:]:
	    name, value = option.split("=")
	    s.setsockopt(socket.IPPROTO_IP, getattr(socket, name), bytes.fromhex(value))
	before = fast()
	again = sum(ask(size) for _ in range(count))
	print(fast() - before - again)
	EOF
}
# takes WANTED PORT...: as many of them, and as ask has it. The first packet by each processor may have been one for
# which the route had to be looked up.
takes() {
	local taken
	taken=$(ask "${@:2}")
	echo "$taken of $1"
	((taken <= $1 && taken + ($1 ? $(nproc) : 0) >= $1))
}

plain_packets() {
	takes 10 7000 10
	takes 10 7000 10 1472
	# With other addresses and ports, and on the link as they are.
	takes 10 7001 10
	takes 10 7002 10
	# Inside another packet they need the network layer.
	takes 0 7003 3
}

tcp() {
	background host1 "$tmp/iperf.log" iperf3 -s
	wait_listen host1 5201
	local before after packets
	before=$(fast) packets=$(counter lbu fwd packets)
	ns client iperf3 -J -c $VIP -n 5M >"$tmp/iperf.json"
	[ "$(jq '.end.sum_received.bytes >= 5000000' "$tmp/iperf.json")" = true ]
	after=$(fast) packets=$(($(counter lbu fwd packets) - packets))
	# All but what opens and closes the two connections, and what the host had not learnt of.
	((after - before > packets / 2))
	wait_for 10 sh -c "ip netns exec lbu nlb -j route show $VIP:5201/tcp | jq -e 'all(.[]; .state != \"established\")'"
}

# A packet that somebody else has, too, who sees it as it came.
watched_packets() {
	capture_start lbu client "$tmp/in.pcap" udp port 7000
	capture_start lbu host1 "$tmp/out.pcap" udp
	takes 10 7000 10
	capture_stop
	tcpdump -n -q -r "$tmp/in.pcap" 2>/dev/null >"$tmp/in.txt"
	tcpdump -n -q -r "$tmp/out.pcap" 2>/dev/null >"$tmp/out.txt"
	head -n 3 "$tmp/in.txt" "$tmp/out.txt"
	[ "$(grep -cE "^.* > $VIP\\.7000: UDP.* 100$" "$tmp/in.txt")" -ge 13 ]
	[ "$(grep -cE "^.* > $HOST1\\.[0-9]+: UDP.* 100$" "$tmp/out.txt")" -ge 10 ]
	# Not even the first ones left with the VIP as their destination.
	not grep -q "$VIP\\.7000" "$tmp/out.txt"
}

other_packets() {
	# Options (no operation, three times, and their end); fragments.
	takes 0 7000 3 100 IP_OPTIONS=01010100
	takes 0 7000 3 4000
	local before
	before=$(counter lbu tunnel drop-ttl-expired)
	ns client python3 - <<-EOF
	import socket
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(5)
	s.connect(("$VIP", 7000))
	for _ in range(3):
	    s.send(b"x")
	    s.recv(9)
	s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
	s.send(b"x")
	try:
	    s.recv(9)
	    raise SystemExit("an answer")
	except OSError:
	    pass
	EOF
	[ "$(counter lbu tunnel drop-ttl-expired)" = $((before + 1)) ]
}

# Who hooks in where packets leave sees them.
leaving_hooks() {
	ns lbu nft -f - <<-EOF
		table ip seen {
			counter out { }
			chain post { type filter hook postrouting priority 0; oifname host1 counter name out; }
		}
	EOF
	takes 0 7000 5
	[ "$(ns lbu nft -j list counter ip seen out | jq '.nftables[] | .counter // empty | .packets')" -ge 5 ]
	ns lbu nft delete table ip seen
	takes 10 7000 10
}

# Another link-layer address of the host is used as soon as it is known.
new_neighbour() {
	ip -n host1 link set lbu address 02:00:00:00:00:77
	ip -n lbu neigh replace $HOST1 lladdr 02:00:00:00:00:77 dev host1
	takes 10 7000 10
	# Unknown, it is asked for.
	ip -n lbu neigh del $HOST1 dev host1
	takes 10 7000 10
}

# Tagged packets are those of the device of the VLAN.
vlan() {
	ip -n client link add link lbu name lbu.5 type vlan id 5 || skip "no VLANs in this kernel"
	ip -n lbu link add link client name client.5 type vlan id 5
	ip -n client addr add 10.9.0.2/24 dev lbu.5
	ip -n lbu addr add 10.9.0.1/24 dev client.5
	ip -n client link set lbu.5 up
	ip -n lbu link set client.5 up
	ip -n client route replace $VIP via 10.9.0.1
	ip -n host1 route add 10.9.0.2 via 10.0.4.2
	takes 10 7000 10
	ip -n lbu link del client.5
	ip -n client link del lbu.5
	ip -n client route replace $VIP via 10.0.1.1
}

# Devices are renamed, go, and come, also into another namespace, while there is traffic by all of them.
devices_under_traffic() {
	background client "$tmp/flood.log" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('$VIP', 7000))
while True:
    try:
        s.send(bytes(300))
    except OSError:
        pass"
	local n
	for n in 1 2; do
		ip -n lbu link set host2 down
		ip -n lbu link set host2 name other
		ip -n lbu link set other name host2
		ip -n lbu link add here type veth peer name there
		ip -n lbu link set there netns host2
		ip -n lbu link set here up
		ip -n host2 link del there
		wait_for 10 not ip -n lbu link show here
		ip -n lbu link set client down
		ip -n lbu link set client up
		ip -n lbu link set host1 down
		ip -n lbu link set host1 up
		ip -n lbu link set host2 up
	done
	# Its packets and those of the others.
	[ "$(ask 7000 10)" -gt 10 ]
}

modules_under_traffic() {
	rmmod nlb_fwd
	modprobe nlb_fwd
	l4 7000/udp $HOST1
	wait_for 20 some_are_fast
	netns_del lbu
	netns_del client host1 host2
	wait_for 30 unload_modules
}
some_are_fast() { (($(fast) > 10)); }

ktap_begin
load_modules nlb_fwd
topology
vip_add lbu host1
ns host1 nlb forwarder add $LBU_TO_HOST1
l4 7000/udp $HOST1
l4 7001/udp $HOST2 via half-nat port 8001
l4 7002/udp $HOST1 via direct
l4 7003/udp $HOST1 via ipip
l4 5201/tcp $HOST1
ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
ip -n host1 link add tun4 type ipip local $HOST1 remote $LBU_TO_HOST1
ip -n host1 link set tun4 up
for port in 7000 7002 7003; do udp_echo host1 $VIP $port; done
udp_echo host2 $HOST2 8001
ktap_run "everything plain takes the fast path" plain_packets
ktap_run "and so do the packets of a connection" tcp
ktap_run "packets that others have, too" watched_packets
ktap_run "what needs more is left to the ordinary path" other_packets
ktap_run "hooks where packets leave see them" leaving_hooks
ktap_run "another address of a neighbour" new_neighbour
ktap_run "a VLAN" vlan
ktap_run "devices come and go under traffic" devices_under_traffic
ktap_run "modules and namespaces go under traffic" modules_under_traffic
ktap_end
