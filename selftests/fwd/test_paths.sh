#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 400
#
# The less travelled paths: large first packets, hosts that forget, TTL and MTU,
# fragments, one machine as LBU and host, and tearing everything down under traffic.

. "$(dirname "$0")/../lib.sh"

l4() {
	ns lbu nlb service add "$VIP:$1/$2" mode l4
	ns lbu nlb endpoint add "$VIP:$1/$2" host $HOST1
}

# udp_ask PORT SIZE...: one flow that sends datagrams of these sizes and gets each back.
udp_ask() {
	ns client python3 - "$@" <<-EOF
	import socket, sys
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(5)
	s.connect(("$VIP", int(sys.argv[1])))
	for size in map(int, sys.argv[2:]):
	    for attempt in range(5):
	        s.send(bytes(size))
	        try:
	            assert len(s.recv(65536)) == size
	            break
	        except TimeoutError:
	            print("again", size)
	    else:
	        raise SystemExit(f"no answer to {size} bytes")
	EOF
}

# A full table: connections that are known go on, others do without a route.
full_table() {
	rmmod nlb_fwd
	modprobe nlb_fwd max_routes=3
	l4 7003 udp
	udp_echo host1 $VIP 7003
	ns client python3 - <<-EOF
	import socket
	flows = []
	answered = []
	for _ in range(5):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    s.settimeout(2)
	    s.connect(("$VIP", 7003))
	    flows.append(s)
	for _ in range(10):
	    answered.append([])
	    for number, s in enumerate(flows):
	        s.send(b"x")
	        try:
	            s.recv(10)
	            answered[-1].append(number)
	        except TimeoutError:
	            pass
	    if len(answered[-1]) == 5:
	        break
	# The first one without a route is refused, as long as there is no table for such.
	assert 3 not in answered[0] and len(answered) > 1, answered
	assert all(one[:3] == [0, 1, 2] for one in answered) and len(answered[-1]) == 5, answered
	EOF
	[ "$(counter lbu fwd drop-table-full)" -ge 1 ]
	[ "$(counter lbu fwd stateless-packets)" -ge 2 ]
	[ "$(ns lbu nlb -j route show | jq length)" = 3 ]
	[ "$(ns lbu nlb -j mapping show side forwarder | jq length)" = 3 ]
	rmmod nlb_fwd
	modprobe nlb_fwd
}

# A first packet that leaves no room for a LEARN around it: the LEARN goes ahead.
large_first_packet() {
	l4 7000 udp
	udp_echo host1 $VIP 7000
	local before
	before=$(counter lbu tunnel learn-sent)
	udp_ask 7000 1472 1472 100
	[ "$(counter lbu tunnel learn-sent)" -gt "$before" ]
	[ "$(counter host1 tunnel drop-unknown-flow-id)" = 0 ]
}

# The host loses all mappings: it says UNKNOWN, and learns them again.
host_forgets() {
	ns client python3 - <<-EOF
	import socket, subprocess
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(1)
	s.connect(("$VIP", 7000))
	def ask(data):
	    for attempt in range(20):
	        s.send(data)
	        try:
	            if s.recv(2000) == data:
	                return attempt
	        except TimeoutError:
	            pass
	    raise SystemExit("no answer")
	assert ask(b"before") == 0
	ns = ["ip", "netns", "exec", "host1", "nlb", "forwarder"]
	subprocess.run(ns + ["del", "$LBU_TO_HOST1"], check=True)
	subprocess.run(ns + ["add", "$LBU_TO_HOST1"], check=True)
	# One packet is lost, which makes the host say that it does not know the flow.
	assert ask(b"after") <= 2
	EOF
	[ "$(counter lbu tunnel unknown-received)" -gt 0 ]
	[ "$(counter host1 tunnel drop-unknown-flow-id)" -gt 0 ]
}

# The LBU is a router on the way.
ttl_is_used_up() {
	capture_start client lbu "$tmp/ttl.pcap" icmp
	ns client python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
s.sendto(b'x', ('$VIP', 7000))"
	capture_stop
	tcpdump -n -r "$tmp/ttl.pcap" 2>/dev/null | tee "$tmp/ttl.txt"
	grep -q 'ICMP time exceeded in-transit' "$tmp/ttl.txt"
	[ "$(counter lbu tunnel drop-ttl-expired)" = 1 ]
}

# A narrower link behind the LBU: the client is told and sends smaller packets.
path_mtu() {
	ip -n lbu link set host1 mtu 1300
	ip -n host1 link set lbu mtu 1300
	background host1 "$tmp/sink.log" nc -l -k -p 7001
	wait_listen host1 7001
	l4 7001 tcp
	ns client python3 -c "
import socket
s = socket.create_connection(('$VIP', 7001), timeout=30)
s.sendall(bytes(3000000))
s.shutdown(socket.SHUT_WR)
s.recv(1)"
	[ "$(counter lbu tunnel drop-too-big)" -gt 0 ]
	ns client ip route get $VIP | grep -q 'mtu 1300'
	ip -n lbu link set host1 mtu 1500
	ip -n host1 link set lbu mtu 1500
	ns client ip route flush cache
}

# What has no ports is the local stack's.
no_ports() {
	ns client ping -q -c 1 -W 5 $VIP
	[ "$(counter lbu fwd pass-protocol)" -gt 0 ]
}

# Packets in fragments, and in the learning form as well as in the compact one.
fragments() {
	l4 7004 udp
	udp_echo host1 $VIP 7004
	udp_ask 7004 4000 100 8192 1473
	[ "$(counter lbu fwd fragments)" -gt "$(counter lbu fwd defragmented)" ]
	[ "$(counter lbu tunnel encap-fragmented)" -ge 3 ]
	[ "$(counter host1 tunnel defragmented)" -ge 3 ]
	[ "$(counter lbu fwd pass-fragment)" = 0 ]
}

# The LBU's own address as endpoint: forwarder and host are one machine.
one_machine() {
	ns lbu nlb forwarder add $LBU
	ns lbu nlb service add $VIP:7002/udp mode l4
	ns lbu nlb endpoint add $VIP:7002/udp host $LBU source $LBU
	udp_echo lbu $VIP 7002
	udp_ask 7002 5 1400 5
	[ "$(counter lbu tunnel decap-packets)" -gt 0 ]
	ns lbu nlb service del $VIP:7002/udp
	ns lbu nlb forwarder del $LBU
}

# Many short UDP flows and one TCP stream after the other, from now on.
flood() {
	background client "$tmp/flood.log" python3 -c "
import socket
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('$VIP', 7000))
    for _ in range(5):
        try:
            s.send(bytes(300))
        except OSError:
            pass
    s.close()"
	background client "$tmp/stream.log" sh -c "while :; do iperf3 -c $VIP -t 5; sleep 0.1; done"
}

service_under_traffic() {
	l4 5201 tcp
	for _ in 1 2 3; do
		wait_for 30 sh -c "[ \"\$(ip netns exec lbu nlb -j route show | jq length)\" -gt 100 ]"
		ns lbu nlb service del $VIP:7000/udp
		[ "$(ns lbu nlb -j route show | jq '[.[] | select(.vip_port == 7000)] | length')" = 0 ]
		l4 7000 udp
	done
	wait_for 30 sh -c "[ \"\$(ip netns exec lbu nlb -j route show | jq length)\" -gt 100 ]"
}

modules_under_traffic() {
	rmmod nlb_fwd
	# The flow ids of the routes went with them.
	[ "$(ns lbu nlb -j mapping show side forwarder | jq length)" = 0 ]
	rmmod nlb_tunnel
	not ip -n lbu link show nlb0
	modprobe nlb_fwd
	vip_add lbu host1
	ns host1 nlb forwarder add $LBU_TO_HOST1
	l4 7000 udp
	l4 5201 tcp
	wait_for 30 sh -c "[ \"\$(ip netns exec lbu nlb -j route show | jq length)\" -gt 100 ]"
}

namespaces_under_traffic() {
	netns_del host1
	sleep 1
	netns_del lbu
	netns_del client host2
	wait_for 30 unload_modules
}

ktap_begin
load_modules nlb_fwd
topology
vip_add lbu host1
ns host1 nlb forwarder add $LBU_TO_HOST1
ktap_run "a full table refuses what is new" full_table
ktap_run "a first packet too large for the learning form" large_first_packet
ktap_run "a host that forgot learns again" host_forgets
ktap_run "TTL is used up at the LBU" ttl_is_used_up
ktap_run "a narrower link behind the LBU" path_mtu
ktap_run "ICMP is the local stack's" no_ports
ktap_run "packets in fragments" fragments
ktap_run "forwarder and host on one machine" one_machine
background host1 "$tmp/iperf.log" iperf3 -s
wait_listen host1 5201
flood
ktap_run "services come and go under traffic" service_under_traffic
ktap_run "modules come and go under traffic" modules_under_traffic
ktap_run "namespaces go under traffic" namespaces_under_traffic
ktap_end
