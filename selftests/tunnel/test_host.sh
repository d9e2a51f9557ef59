#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The host's end of the tunnel: who is listened to, what is learnt, what the VIP
# says to its neighbours.

. "$(dirname "$0")/../lib.sh"

# Send raw IPv4 packets from a machine: python statements in stdin; udp(), tcp() and send() are there.
raw() {
	local n=$1
	{
		cat <<-'EOF'
		import socket, struct
		def checksum(data):
		    data += b"\0" * (len(data) % 2)
		    total = sum(struct.unpack(f">{len(data) // 2}H", data))
		    while total >> 16:
		        total = (total & 0xFFFF) + (total >> 16)
		    return ~total & 0xFFFF
		def packet(proto, source, destination, segment, at):
		    source, destination = socket.inet_aton(source), socket.inet_aton(destination)
		    pseudo = source + destination + struct.pack(">BBH", 0, proto, len(segment))
		    segment = segment[:at] + struct.pack(">H", checksum(pseudo + segment)) + segment[at + 2:]
		    head = struct.pack(">BBHHHBB2x4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, proto, source, destination)
		    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + segment
		def tcp(source, sport, destination, dport, flags=2):
		    return packet(6, source, destination, struct.pack(">HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 1000, 0, 0), 16)
		def udp(source, sport, destination, dport, payload):
		    return packet(17, source, destination, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload, 6)
		def send(data):
		    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
		    s.sendto(data, (socket.inet_ntoa(data[16:20]), 0))
		def learn(flow, cookie=b"12345678", client="10.0.1.2", cport=40000, vip="192.0.2.10", vport=9000, inner=b"", proto=17, version=1, kind=1):
		    return struct.pack(">BBHI", version << 4 | kind, proto, 0, flow) + cookie + socket.inet_aton(client) + socket.inet_aton(vip) + struct.pack(">HH", cport, vport) + inner
		EOF
		cat
	} | ns "$n" python3 -
}

counted() { ns "$1" nlb -j stats show tunnel | jq -e --arg name "$2" '.[0].counters[$name] > 0'; }
mappings() { ns host1 nlb -j mapping show side host | jq length; }

# A static mapping; the packet appears on nlb0 as the client sent it and the socket gets it.
compact_form() {
	ns host1 nlb mapping add forwarder $LBU_TO_HOST1 id 0xee480007 client 10.0.1.2:40000 vip $VIP:9000 proto udp
	background host1 "$tmp/got" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('$VIP', 9000))
while True:
    print(s.recvfrom(2000), flush=True)"
	wait_for 10 ns host1 sh -c 'ss -Huln | grep -q :9000'
	capture_start host1 nlb0 "$tmp/nlb0.pcap"
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 0xee48, "$HOST1", 7, b"hello"))
	EOF
	wait_for 10 grep -q hello "$tmp/got"
	capture_stop
	cat "$tmp/got"
	grep -qF "(b'hello', ('10.0.1.2', 40000))" "$tmp/got"
	tcpdump -n -vv -r "$tmp/nlb0.pcap" 2>/dev/null | tee "$tmp/nlb0.txt"
	grep -q '10.0.1.2.40000 > 192.0.2.10.9000' "$tmp/nlb0.txt"
	grep -q 'udp sum ok' "$tmp/nlb0.txt"
}

# Strict reverse path filtering on every device is no obstacle.
strict_rp_filter() {
	ns host1 sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.nlb0.rp_filter=1
	ip -n host1 route replace 10.0.1.2 via 10.0.2.1
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 0xee48, "$HOST1", 7, b"strict"))
	EOF
	wait_for 10 grep -q strict "$tmp/got"
	ip -n host1 route replace 10.0.1.2 via 10.0.4.2
	ns host1 sysctl -qw net.ipv4.conf.all.rp_filter=0
}

# Whichever devices have the VIP, and whoever was given it last: an nlb device that is up takes the packets.
several_devices() {
	comes "alone"
	ip -n host1 addr add $VIP/32 dev lo
	comes "on lo, too"
	ip -n host1 link add nlb1 type nlb
	ip -n host1 link set nlb1 up
	ip -n host1 addr add $VIP/32 dev nlb1
	comes "on nlb1, too"
	ip -n host1 link set nlb1 down
	comes "nlb1 is down"
	ip -n host1 link set nlb1 up
	ip -n host1 link set nlb0 down
	comes "nlb0 is down"
	ip -n host1 addr del $VIP/32 dev nlb1
	ip -n host1 addr add $VIP/32 dev nlb1
	comes "given anew"
	ip -n host1 link set nlb0 up
	ip -n host1 link del nlb1
	comes "nlb1 is gone"
	ip -n host1 addr del $VIP/32 dev lo
	comes "alone again"
}
# comes TEXT: a packet with this text, which comes through the tunnel, reaches the program.
comes() {
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 0xee48, "$HOST1", 7, b"$1"))
	EOF
	wait_for 10 grep -qF "b'$1'" "$tmp/got"
}

# The same packet from a machine that is no forwarder is an ordinary packet.
stranger() {
	# Not the router solicitations of the device itself.
	capture_start host1 nlb0 "$tmp/nlb0.pcap" ip
	raw client <<-EOF
	send(udp("10.0.4.2", 0xee48, "10.0.4.1", 7, b"stranger"))
	EOF
	capture_stop
	not grep -q stranger "$tmp/got"
	[ "$(tcpdump -n -r "$tmp/nlb0.pcap" 2>/dev/null | wc -l)" = 0 ]
}

# An unknown flow id: dropped and counted, UNKNOWN goes back, no RST.
unknown_flow_id() {
	capture_start lbu host1 "$tmp/lbu.pcap"
	raw lbu <<-EOF
	send(tcp("$LBU_TO_HOST1", 0xee48, "$HOST1", 99))
	EOF
	capture_stop
	tcpdump -n -x -r "$tmp/lbu.pcap" 2>/dev/null | tee "$tmp/lbu.txt"
	counted host1 drop-unknown-flow-id
	not grep . < <(tcpdump -n -r "$tmp/lbu.pcap" 'tcp[tcpflags] & tcp-rst != 0' 2>/dev/null)
	tcpdump -n -r "$tmp/lbu.pcap" 'src host 10.0.2.2 and udp port 4770 and udp[8] = 0x13' 2>/dev/null | grep .
}

# An ordinary connection between the two machines is not touched.
ordinary() {
	background host1 "$tmp/ordinary.log" nc -l -p 7000
	wait_listen host1 7000
	echo ordinary | ns lbu nc -N -w 5 $HOST1 7000
	grep -q ordinary "$tmp/ordinary.log"
}

learns_and_confirms() {
	capture_start lbu host1 "$tmp/lbu.pcap" udp port 4770
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 4770, "$HOST1", 4770, learn(0xee490001, inner=udp("10.0.1.2", 40000, "$VIP", 9000, b"learnt"))))
	EOF
	wait_for 10 grep -q learnt "$tmp/got"
	capture_stop
	tcpdump -n -x -r "$tmp/lbu.pcap" 2>/dev/null
	# CONFIRM: version and type, zeroes, flow id, the cookie.
	tcpdump -n -x -r "$tmp/lbu.pcap" 'src host 10.0.2.2' 2>/dev/null | sed 's/^.*0x00..://' |
		tr -d ' \n' | grep -q 12000000ee4900013132333435363738
	ns host1 nlb mapping show | grep ee490001
}

# Of a SYN the forwarder hears by what the client does when it was answered; what else comes in a LEARN is confirmed, be
# it of the same connection, or nothing.
only_syns_are_not_confirmed() {
	local before
	before=$(counter host1 tunnel confirm-sent)
	learn_tcp 2
	learn_tcp 2
	wait_for 10 sh -c "ip netns exec host1 nlb mapping show | grep ee490002"
	[ "$(counter host1 tunnel confirm-sent)" = "$before" ]
	# ACK; SYN with ACK, which opens nothing; RST.
	learn_tcp 16 18 4
	wait_for 10 confirmed $((before + 3))
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 4770, "$HOST1", 4770, learn(0xee490002, proto=6, cport=40002)))
	EOF
	wait_for 10 confirmed $((before + 4))
}
# learn_tcp FLAGS...: a LEARN with a segment of this connection, for each.
learn_tcp() {
	raw lbu <<-EOF
	for flags in map(int, "$*".split()):
	    inner = tcp("10.0.1.2", 40002, "$VIP", 9000, flags)
	    send(udp("$LBU_TO_HOST1", 4770, "$HOST1", 4770, learn(0xee490002, proto=6, cport=40002, inner=inner)))
	EOF
}
confirmed() { [ "$(counter host1 tunnel confirm-sent)" = "$1" ]; }

# Whatever is wrong with a LEARN, nothing is learnt.
learns_nothing_wrong() {
	local before
	before=$(mappings)
	raw client <<-EOF
	send(udp("10.0.4.2", 4770, "10.0.4.1", 4770, learn(0xee4a0001)))
	EOF
	raw lbu <<-EOF
	wrong = [
	    learn(0xee4a0001)[:27], learn(0xee4a0001)[:15], b"", b"\x11",
	    learn(0xee470001), learn(0xee4a0000), learn(1),
	    learn(0xee4a0001, version=2), learn(0xee4a0001, kind=0), learn(0xee4a0001, kind=10), learn(0xee4a0001, kind=8),
	    learn(0xee4a0001, proto=1), learn(0xee4a0001, vip="192.0.2.99"), learn(0xee4a0001, cport=0), learn(0xee4a0001, vport=0),
	    learn(0xee4a0001, inner=b"\x45"), learn(0xee4a0001, inner=bytes(60)),
	    learn(0xee4a0001, inner=udp("10.0.1.2", 40001, "$VIP", 9000, b"other tuple")),
	    learn(0xee4a0001, inner=udp("10.0.1.2", 40000, "$VIP", 9000, b"cut")[:-2]),
	    learn(0xee4a0001, inner=udp("10.0.1.2", 40000, "$VIP", 9000, b"sum").replace(b"\x40\x11", b"\x41\x11", 1)),
	]
	for data in wrong:
	    send(udp("$LBU_TO_HOST1", 4770, "$HOST1", 4770, data))
	EOF
	sleep 0.5
	ns host1 nlb stats show tunnel
	[ "$(mappings)" = "$before" ]
	not grep -q -e 'other tuple' -e cut -e sum "$tmp/got"
}

arp_silence() {
	ip -n client addr add 192.0.2.200/24 dev host1
	ip -n client route add 192.0.2.10/32 dev host1 metric 1 2>/dev/null || true
	not ns client arping -q -c 2 -w 2 -I host1 $VIP
	ip -n host1 addr add $VIP/32 dev lo
	not ns client arping -q -c 2 -w 2 -I host1 $VIP
	ip -n host1 addr del $VIP/32 dev lo
	# Its own address is answered as ever.
	ns client arping -q -c 1 -w 5 -I host1 10.0.4.1
	ip -n host1 link set nlb0 arp on
	ns client arping -q -c 1 -w 5 -I host1 $VIP
	ip -n host1 link set nlb0 arp off
	not ns client arping -q -c 2 -w 2 -I host1 $VIP
	ip -n client addr del 192.0.2.200/24 dev host1
}

# A host that asks for a neighbour on behalf of the VIP does not say so.
arp_announce() {
	capture_start client host1 "$tmp/arp.pcap" arp
	ip -n host1 neigh flush dev client
	ns host1 ping -q -c 1 -W 3 -I $VIP 10.0.4.2 || true
	capture_stop
	tcpdump -n -r "$tmp/arp.pcap" 2>/dev/null | tee "$tmp/arp.txt"
	grep -q 'who-has 10.0.4.2 tell 10.0.4.1' "$tmp/arp.txt"
	not grep -q "tell $VIP" "$tmp/arp.txt"
}

forwarder_leaves() {
	ns host1 nlb forwarder del $LBU_TO_HOST1
	[ "$(mappings)" = 0 ]
	: >"$tmp/got"
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1", 0xee48, "$HOST1", 7, b"later"))
	EOF
	sleep 0.5
	not grep -q later "$tmp/got"
}

ktap_begin
load_modules nlb_tunnel
topology
vip_add host1
ns host1 nlb forwarder add $LBU_TO_HOST1
ktap_run "compact form: a packet comes out as it went in" compact_form
ktap_run "strict rp_filter is no obstacle" strict_rp_filter
ktap_run "several devices have the VIP" several_devices
ktap_run "only forwarders are listened to" stranger
ktap_run "an unknown flow id: dropped, told, no RST" unknown_flow_id
ktap_run "ordinary traffic between the machines" ordinary
ktap_run "LEARN is learnt, confirmed and delivered" learns_and_confirms
ktap_run "a SYN is learnt and not confirmed" only_syns_are_not_confirmed
ktap_run "a wrong LEARN teaches nothing" learns_nothing_wrong
ktap_run "the VIP answers no ARP" arp_silence
ktap_run "the VIP is not announced" arp_announce
ktap_run "a removed forwarder is a stranger" forwarder_leaves
ktap_end
