#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The fast path, at the ingress of devices: which packets it takes, which it leaves to the ordinary path, and what it
# does when devices, neighbours and modules come and go.

. "$(dirname "$0")/../lib.sh"
modes=$(cd "$(dirname "$0")" && pwd)/modes.py

# l4 PORT/PROTO HOST WORD...: a service with this endpoint, on the VIP of its family.
l4() {
	local vip=$VIP
	[[ $2 != *:* ]] || vip="[$VIP6]"
	ns lbu nlb service add "$vip:$1" mode l4
	ns lbu nlb endpoint add "$vip:$1" host "${@:2}"
}
fast() { counter lbu fwd fast-packets; }

# ask PORT COUNT [SIZE [OPTION]...]: from one socket, with these options at the level of IP ("NAME=BYTES"), so many
# datagrams that have to come back. Prints how many packets took the fast path: none of the first one, which opens the
# connection, nor of the second, if the host had not learnt of it by then. TO is whom it asks, in place of the VIP.
ask() {
	ns client python3 - "$@" <<-EOF
	import json, socket, subprocess, sys
	port, count, size = *map(int, sys.argv[1:3]), int((sys.argv[3:] + ["100"])[0])
	to = "${TO:-$VIP}"
	s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(5)
	s.connect((to, port))
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

over_ipv6() {
	local TO=$VIP6
	takes 10 7000 10
	takes 10 7000 10 1452
	takes 10 7001 10
	takes 10 7002 10
	takes 0 7003 3
	# In fragments.
	takes 0 7000 3 4000
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

# Where someone filters what leaves, who filters what arrives sees connections before they have a route.
arriving_hooks() {
	# Nobody listens: after the host's answer the client sends nothing more.
	l4 5202/tcp $HOST1
	local n before
	# By each processor, the ordinary path looks up the way to the host.
	for ((n = 0; n <= 2 * $(nproc); n++)); do refused; done
	ns lbu nft -f - <<-EOF
		table ip seen {
			chain in { type filter hook prerouting priority -500; tcp dport 5202 drop; }
			chain out { type filter hook postrouting priority 0; }
		}
	EOF
	before=$(opened)
	not ns client timeout 3 bash -c "</dev/tcp/$VIP/5202"
	[ "$(opened)" = "$before" ]
	# Elsewhere connections are opened ahead of them.
	ns lbu nft delete chain ip seen out
	wait_for 20 refused
	opened
	[ "$(opened)" != "$before" ]
	ns lbu nft delete table ip seen
	ns lbu nlb service del "$VIP:5202/tcp"
}
refused() { ns client timeout 1 bash -c "</dev/tcp/$VIP/5202" 2>&1 | grep refused; }
# What hosts were told of connections, and which there are.
opened() {
	echo "$(counter lbu tunnel learn-sent) $(counter lbu tunnel encap-learning)"
	ns lbu nlb -j service show "$VIP:5202/tcp" | jq '.[0].connections'
	ns lbu nlb -j route show "$VIP:5202/tcp" | jq -c 'map(.client_port)'
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

# Ports are not asked, but the device that they belong to: what is for this machine is taken there, and what only passes
# is not. The client's link is the port of a bridge, and host1's that of a bond.
bridge_and_bond() {
	ip -n lbu link add br0 type bridge || skip "no bridges in this kernel"
	ip -n lbu link add bond0 type bond mode active-backup || skip "no bonds in this kernel"
	ip -n lbu -batch - <<-EOF
		addr flush dev client
		link set client master br0
		addr add $LBU/24 dev br0
		link set br0 up
		link set host1 down
		link set host1 master bond0
		addr flush dev host1
		addr add $LBU_TO_HOST1/24 dev bond0
		link set bond0 up
	EOF
	wait_for 10 ns client ping -q -c 1 -W 1 $LBU
	wait_for 10 ns lbu ping -q -c 1 -W 1 $HOST1
	takes 10 7000 10
	takes 10 7002 10
	# Between two ports of the bridge; host2 has the VIP meanwhile.
	ip -n lbu addr flush dev host2
	ip -n lbu link set host2 master br0
	ip -n host2 addr add $VIP/32 dev lo
	ip -n host2 addr add 10.0.1.99/24 dev lbu
	ip -n host2 route replace $CLIENT dev lbu
	udp_echo host2 $VIP 7000
	ip -n client route replace $VIP via 10.0.1.99
	wait_for 10 ns client ping -q -c 1 -W 1 10.0.1.99
	local packets
	packets=$(counter lbu fwd packets)
	takes 0 7000 5
	[ "$(counter lbu fwd packets)" = "$packets" ]
	ip -n client route replace $VIP via $LBU
	ip -n host2 addr del $VIP/32 dev lo
	ip -n host2 addr del 10.0.1.99/24 dev lbu
	ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
	ip -n lbu -batch - <<-EOF
		link del br0
		link del bond0
		link set host1 up
		addr add $LBU/24 dev client
		addr add $LBU_TO_HOST1/24 dev host1
		addr add $LBU_TO_HOST2/24 dev host2
		addr add $LBU6/64 dev client nodad
		addr add $LBU_TO_HOST1_6/64 dev host1 nodad
		addr add $LBU_TO_HOST2_6/64 dev host2 nodad
	EOF
	# The bridge may have had another address than its port.
	ip -n client neigh flush dev lbu
	ip -n host1 neigh flush dev lbu
	wait_for 10 ns client ping -q -c 1 -W 1 $LBU
	wait_for 10 ns lbu ping -q -c 1 -W 1 $HOST1
	takes 10 7000 10
	TO=$VIP6 takes 10 7000 10
}

# A link that becomes narrower, and wide again.
other_mtu() {
	takes 10 7002 10 1472
	ip -n lbu link set host1 mtu 1000
	ns client "$modes" big "1000=$VIP:7002"
	ip -n client route flush cache
	takes 10 7002 10 900
	ip -n lbu link set host1 mtu 1500
	takes 10 7002 10 900
}

# The only device that leads to a host goes, while its routes are remembered.
device_of_a_host() {
	ip -n lbu link add here type veth peer name there netns host2
	ip -n lbu -batch - <<-EOF
		addr add 10.0.77.1/24 dev here
		addr add 2001:db8:77::1/64 dev here nodad
		link set here up
	EOF
	ip -n host2 -batch - <<-EOF
		addr add 10.0.77.2/24 dev there
		addr add 2001:db8:77::2/64 dev there nodad
		link set there up
	EOF
	l4 7004/udp 10.0.77.2 via direct
	l4 7004/udp 2001:db8:77::2 via direct
	l4 7005/udp 10.0.77.2 via half-nat port 8005
	l4 7005/udp 2001:db8:77::2 via half-nat port 8005
	l4 7006/udp 10.0.77.2
	l4 7006/udp 2001:db8:77::2
	background client "$tmp/flows.log" python3 -c "
import socket, time
socks = []
for to in ('$VIP', '$VIP6'):
    for port in (7004, 7005, 7006):
        s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
        s.connect((to, port))
        socks.append(s)
while True:
    for s in socks:
        try:
            s.send(bytes(300))
        except OSError:
            pass
    time.sleep(0.01)"
	wait_for 60 all_flow
	ip -n lbu link del here
	# Nothing is left to be sent there.
	local before
	before=$(counter lbu fwd drop-no-route)
	wait_for 60 more_lost "$before"
	kill $!
	for port in 7004 7005 7006; do
		ns lbu nlb service del "$VIP:$port/udp"
		ns lbu nlb service del "[$VIP6]:$port/udp"
	done
}
all_flow() { ns lbu nlb -j endpoint show | jq -e '[.[] | select(.vip_port >= 7004 and .vip_port <= 7006)] | all(.packets > 10)'; }
more_lost() { (($(counter lbu fwd drop-no-route) > $1)); }

# Devices are renamed, go, and come, also into another namespace, while there is traffic by all of them.
devices_under_traffic() {
	background client "$tmp/flood.log" python3 -c "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('$VIP', 7000))
while True:
    try:
        s.send(bytes(300))
    except OSError:
        pass
    # More than is answered, and no answer would come to who asks beside it.
    time.sleep(0.001)"
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
		ip -n lbu link set host1 mtu 1400
		ip -n lbu link set host1 up
		ip -n lbu link set host1 mtu 1500
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
topology_ipv6
vip_add lbu host1
vip_add_ipv6 lbu host1
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host1 nlb forwarder add $LBU_TO_HOST1_6
l4 5201/tcp $HOST1
ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
ip -n host2 route replace $CLIENT6 via $LBU_TO_HOST2_6
ip -n host1 link add tun4 type ipip local $HOST1 remote $LBU_TO_HOST1
ip -n host1 link set tun4 up
ip -n host1 link add tun6 type ip6tnl mode ip6ip6 local $HOST1_6 remote $LBU_TO_HOST1_6
ip -n host1 link set tun6 up
while read -r vip host1 host2; do
	l4 7000/udp "$host1"
	l4 7001/udp "$host2" via half-nat port 8001
	l4 7002/udp "$host1" via direct
	l4 7003/udp "$host1" via ipip
	for port in 7000 7002 7003; do udp_echo host1 "$vip" $port; done
	udp_echo host2 "$host2" 8001
done <<EOF
$VIP $HOST1 $HOST2
$VIP6 $HOST1_6 $HOST2_6
EOF
ktap_run "everything plain takes the fast path" plain_packets
ktap_run "over IPv6, too" over_ipv6
ktap_run "and so do the packets of a connection" tcp
ktap_run "packets that others have, too" watched_packets
ktap_run "what needs more is left to the ordinary path" other_packets
ktap_run "hooks where packets leave see them" leaving_hooks
ktap_run "hooks where packets arrive see what opens a connection" arriving_hooks
ktap_run "another address of a neighbour" new_neighbour
ktap_run "a VLAN" vlan
ktap_run "a bridge and a bond" bridge_and_bond
ktap_run "another MTU" other_mtu
ktap_run "a host's device goes" device_of_a_host
ktap_run "devices come and go under traffic" devices_under_traffic
ktap_run "modules and namespaces go under traffic" modules_under_traffic
ktap_end
