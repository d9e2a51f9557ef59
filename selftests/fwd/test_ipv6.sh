#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 300
#
# Services with IPv6 VIPs, beside one in IPv4: TCP and UDP pass the tunnel at their length, answers
# do not pass the LBU, ICMPv6 comes from it where a router would send it.

. "$(dirname "$0")/../lib.sh"
tcp=$(cd "$(dirname "$0")/../migrator" && pwd)/tcp.py
pcap=$(cd "$(dirname "$0")/.." && pwd)/pcap.py

# l4 PORT PROTO: on both hosts, in both families.
l4() {
	local vip
	for vip in "[$VIP6]:$1/$2" "$VIP:$1/$2"; do ns lbu nlb service add "$vip" mode l4; done
	ns lbu nlb endpoint add "[$VIP6]:$1/$2" host $HOST1_6
	ns lbu nlb endpoint add "[$VIP6]:$1/$2" host $HOST2_6
	ns lbu nlb endpoint add "$VIP:$1/$2" host $HOST1
	ns lbu nlb endpoint add "$VIP:$1/$2" host $HOST2
}

bytes_both_ways() {
	l4 9100 tcp
	for host in host1 host2; do
		background $host "$tmp/$host-echo.log" "$tcp" server :: 9100
		wait_listen $host 9100
	done
	capture_start client lbu "$tmp/to.pcap" ip6 proto 6
	capture_start lbu host1 "$tmp/tunnel.pcap" ip6 proto 6
	ns client "$tcp" client $VIP6 9100 --bytes 1000000 --count 8
	capture_stop
	"$pcap" no-rst "$tmp/to.pcap"
	"$pcap" same-length "$tmp/to.pcap" "$tmp/tunnel.pcap"
	"$pcap" no-data-from $VIP6 "$tmp/to.pcap"
	ns lbu nlb -j endpoint show "[$VIP6]:9100/tcp" | jq -e 'map(.connections) == [4, 4]'
	[ "$(counter lbu tunnel encap-learning)" -gt 0 ]
	[ "$(counter host1 tunnel decap-packets)" -gt 0 ]
	[ "$(counter host1 tunnel drop-unknown-flow-id)" = 0 ]
}

# The same service in IPv4, with the same hosts.
beside_ipv4() {
	ns client "$tcp" client $VIP 9100 --bytes 1000000 --count 4
	ns lbu nlb -j endpoint show $VIP:9100/tcp | jq -e 'map(.connections) == [2, 2]'
	ns lbu nlb -j endpoint show "[$VIP6]:9100/tcp" | jq -e 'map(.connections) == [4, 4]'
	# Dumps have the routes of both.
	ns lbu nlb -j route show | jq -e '[.[] | .vip_addr] | unique == ["192.0.2.10", "2001:db8:10::10"]'
	ns lbu nlb route show | grep -F "[$CLIENT6]"
}

udp() {
	l4 9000 udp
	for host in host1 host2; do
		background $host "$tmp/$host-udp.log" python3 -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 102, 1)  # UDP_NO_CHECK6_RX
s.bind(('$VIP6', 9000))
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(b'$host ' + data, peer)"
		wait_for 20 ns $host sh -c 'ss -Huln | grep -q :9000'
	done
	ns client python3 - <<-EOF
	import socket
	hosts = set()
	for number in range(20):
	    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	    s.settimeout(10)
	    s.connect(("$VIP6", 9000))
	    mine = set()
	    for size in (0, 1, 7, 100, 1400):
	        s.send(bytes([number]) * size)
	        name, data = s.recv(2000).split(b" ", 1)
	        assert data == bytes([number]) * size, (number, size)
	        mine.add(name)
	    assert len(mine) == 1, "a flow moved"
	    hosts |= mine
	assert hosts == {b"host1", b"host2"}, hosts
	EOF
	[ "$(ns lbu nlb -j route show | jq '[.[] | select(.proto == "udp")] | length')" = 20 ]
}

# A checksum of zero, which its receiver has to permit (RFC 6936), stays zero.
udp_without_checksum() {
	capture_start host1 lbu "$tmp/udp.pcap" ip6 proto 17
	ns client python3 - <<-EOF
	import socket
	UDP_NO_CHECK6_TX = 101
	for _ in range(4):
	    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	    s.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)
	    s.settimeout(10)
	    s.connect(("$VIP6", 9000))
	    for _ in range(3):
	        s.send(b"x")
	        assert s.recv(100).endswith(b" x")
	EOF
	capture_stop
	tcpdump -n -r "$tmp/udp.pcap" 'ip6[40:2] >= 61000 and ip6[46:2] = 0' 2>/dev/null | grep .
}

iperf() {
	l4 5201 tcp
	for host in host1 host2; do
		background $host "$tmp/iperf-$host.log" iperf3 -s
		wait_listen $host 5201
	done
	ns lbu nlb endpoint set "[$VIP6]:5201/tcp" host $HOST2_6 weight 0
	ns client iperf3 -6 -c $VIP6 -t 2 -J >"$tmp/iperf.json"
	jq '.end.sum_received.bits_per_second' "$tmp/iperf.json"
	jq -e '.end.sum_received.bytes > 1000000' "$tmp/iperf.json"
}

# Batches of segments go as one: the average packet is longer than the link can carry.
batches_stay_whole() {
	ns lbu nlb -j endpoint show "[$VIP6]:5201/tcp" host $HOST1_6 | tee "$tmp/endpoint"
	jq -e '.[0] | .bytes / .packets > 1500' "$tmp/endpoint"
}

# A first packet that leaves no room for a LEARN6 around it: the LEARN6 goes ahead.
large_first_packet() {
	local before
	before=$(counter lbu tunnel learn-sent)
	ns client python3 - <<-EOF
	import socket
	s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	s.settimeout(10)
	s.connect(("$VIP6", 9000))
	s.send(bytes(1440))
	assert len(s.recv(2000)) == 1446
	EOF
	[ "$(counter lbu tunnel learn-sent)" -gt "$before" ]
}

# The LBU is a router on the way.
hop_limit_is_used_up() {
	capture_start client lbu "$tmp/hop.pcap" icmp6
	ns client python3 -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
s.sendto(b'x', ('$VIP6', 9000))"
	capture_stop
	tcpdump -n -r "$tmp/hop.pcap" 2>/dev/null | tee "$tmp/hop.txt"
	grep -q 'time exceeded in-transit' "$tmp/hop.txt"
	[ "$(counter lbu tunnel drop-ttl-expired)" = 1 ]
}

# A narrower link behind the LBU: the client is told and sends smaller packets.
path_mtu() {
	ip -n lbu link set host1 mtu 1300
	ip -n host1 link set lbu mtu 1300
	ns lbu nlb service add "[$VIP6]:7001/tcp" mode l4
	ns lbu nlb endpoint add "[$VIP6]:7001/tcp" host $HOST1_6
	background host1 "$tmp/sink.log" nc -6 -l -k -p 7001
	wait_listen host1 7001
	ns client python3 -c "
import socket
s = socket.create_connection(('$VIP6', 7001), timeout=30)
s.sendall(bytes(3000000))
s.shutdown(socket.SHUT_WR)
s.recv(1)"
	[ "$(counter lbu tunnel drop-too-big)" -gt 0 ]
	ns client ip -6 route get $VIP6 | grep -q 'mtu 1300'
	ip -n lbu link set host1 mtu 1500
	ip -n host1 link set lbu mtu 1500
	ns client ip -6 route flush cache
}

# The way to the host changes under a connection: the remembered route is not used any more.
route_changes() {
	ns client python3 - <<-EOF
	import socket, subprocess
	s = socket.create_connection(("$VIP6", 9100), timeout=20)
	def both_ways(data):
	    s.sendall(data)
	    got = b""
	    while len(got) < len(data):
	        part = s.recv(65536)
	        assert part
	        got += part
	    assert got == data
	both_ways(b"before" * 1000)
	for host, device in (("$HOST1_6", "host1"), ("$HOST2_6", "host2")):
	    subprocess.run(["ip", "-n", "lbu", "route", "replace", host + "/128", "dev", device, "mtu", "1400"], check=True)
	both_ways(b"after" * 1000)
	EOF
	ip -n lbu route del $HOST1_6/128
	ip -n lbu route del $HOST2_6/128
}

# What has no ports is the local stack's.
no_ports() {
	local protocol
	protocol=$(counter lbu fwd pass-protocol)
	ns client ping -6 -q -c 1 -W 5 $VIP6
	[ "$(counter lbu fwd pass-protocol)" -gt "$protocol" ]
}

# A service in mode peek: new connections are the classifier's, on this machine.
peek() {
	ns lbu nlb service add "[$VIP6]:8080/tcp" mode peek
	ns lbu nlb endpoint add "[$VIP6]:8080/tcp" host $HOST1_6
	background lbu "$tmp/peek.log" python3 -c "
import socket
s = socket.create_server(('$VIP6', 8080), family=socket.AF_INET6)
while True:
    c, peer = s.accept()
    c.sendall(peer[0].encode())
    c.close()"
	wait_listen lbu 8080
	[ "$(ns client python3 -c "
import socket
print(socket.create_connection(('$VIP6', 8080), timeout=10).recv(100).decode())")" = "$CLIENT6" ]
	[ "$(counter lbu fwd pass-peek)" -gt 0 ]
	[ "$(ns lbu nlb -j route show | jq '[.[] | select(.vip_port == 8080)] | length')" = 0 ]
}

# The LBU's own address as endpoint: forwarder and host are one machine.
one_machine() {
	ns lbu nlb forwarder add $LBU6
	ns lbu nlb service add "[$VIP6]:7002/udp" mode l4
	ns lbu nlb endpoint add "[$VIP6]:7002/udp" host $LBU6 source $LBU6
	background lbu "$tmp/echo.log" python3 -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('$VIP6', 7002))
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(data, peer)"
	wait_for 20 ns lbu sh -c 'ss -Huln | grep -q :7002'
	ns client python3 - <<-EOF
	import socket
	s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	s.settimeout(10)
	s.connect(("$VIP6", 7002))
	for size in (5, 1400, 5):
	    s.send(bytes(size))
	    assert len(s.recv(2000)) == size
	EOF
	[ "$(counter lbu tunnel decap-packets)" -gt 0 ]
}

# The host loses all mappings: it says UNKNOWN, and learns them again.
host_forgets() {
	ns lbu nlb endpoint set "[$VIP6]:9000/udp" host $HOST2_6 weight 0
	ns client python3 - <<-EOF
	import socket, subprocess
	s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	s.settimeout(1)
	s.connect(("$VIP6", 9000))
	def ask(data):
	    for attempt in range(20):
	        s.send(data)
	        try:
	            if s.recv(2000) == b"host1 " + data:
	                return attempt
	        except TimeoutError:
	            pass
	    raise SystemExit("no answer")
	ask(b"before")
	ns = ["ip", "netns", "exec", "host1", "nlb", "forwarder"]
	subprocess.run(ns + ["del", "$LBU_TO_HOST1_6"], check=True)
	subprocess.run(ns + ["add", "$LBU_TO_HOST1_6"], check=True)
	# One packet is lost, which makes the host say that it does not know the flow.
	assert ask(b"after") <= 2
	EOF
	[ "$(counter lbu tunnel unknown-received)" -gt 0 ]
}

service_goes() {
	ns lbu nlb service del "[$VIP6]:9100/tcp"
	[ "$(ns lbu nlb -j route show | jq '[.[] | select(.vip_addr == "2001:db8:10::10" and .vip_port == 9100)] | length')" = 0 ]
	# The one in IPv4 stays.
	ns client "$tcp" client $VIP 9100 --bytes 1000 --count 1
	ns client python3 -c "
import socket
try:
    socket.create_connection(('$VIP6', 9100), timeout=10)
    raise SystemExit('connected')
except ConnectionRefusedError:
    pass"
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1 host2
vip_add_ipv6 lbu host1 host2
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host2 nlb forwarder add $LBU_TO_HOST2
ns host1 nlb forwarder add $LBU_TO_HOST1_6
ns host2 nlb forwarder add $LBU_TO_HOST2_6
ktap_run "a megabyte both ways, byte by byte" bytes_both_ways
ktap_run "IPv4 beside it" beside_ipv4
ktap_run "UDP flows keep their host" udp
ktap_run "UDP without checksum" udp_without_checksum
ktap_run "iperf3 passes" iperf
ktap_run "batches of segments stay whole" batches_stay_whole
ktap_run "a first packet too large for the learning form" large_first_packet
ktap_run "the hop limit is used up at the LBU" hop_limit_is_used_up
ktap_run "a narrower link behind the LBU" path_mtu
ktap_run "the way to the host changes" route_changes
ktap_run "ICMPv6 is the local stack's" no_ports
ktap_run "a peek service leaves connections to this machine" peek
ktap_run "forwarder and host on one machine" one_machine
ktap_run "a host that forgot learns again" host_forgets
ktap_run "a removed service takes its routes along" service_goes
ktap_end
