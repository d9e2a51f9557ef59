#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# The host's end of the tunnel in IPv6: who is listened to, what is learnt, what the VIP says to its
# neighbours; and IPv4 beside it.

. "$(dirname "$0")/../lib.sh"

# Send raw IPv6 packets from a machine: python statements in stdin; udp(), tcp() and send() are there.
raw() {
	local n=$1
	{
		cat <<-'EOF'
		import socket, struct
		def address(text):
		    return socket.inet_pton(socket.AF_INET6, text)
		def checksum(data):
		    data += b"\0" * (len(data) % 2)
		    total = sum(struct.unpack(f">{len(data) // 2}H", data))
		    while total >> 16:
		        total = (total & 0xFFFF) + (total >> 16)
		    return ~total & 0xFFFF
		def packet(proto, source, destination, segment, at, extension=b"", first=None):
		    source, destination = address(source), address(destination)
		    pseudo = source + destination + struct.pack(">IxxxB", len(segment), proto)
		    segment = segment[:at] + struct.pack(">H", checksum(pseudo + segment)) + segment[at + 2:]
		    head = struct.pack(">IHBB", 0x60000000, len(extension + segment), proto if first is None else first, 64)
		    return head + source + destination + extension + segment
		def tcp(source, sport, destination, dport, flags=2):
		    return packet(6, source, destination, struct.pack(">HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 1000, 0, 0), 16)
		def udp(source, sport, destination, dport, payload, **extension):
		    return packet(17, source, destination, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload, 6, **extension)
		def send(data):
		    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
		    s.sendto(data, (socket.inet_ntop(socket.AF_INET6, data[24:40]), 0))
		def learn(flow, cookie=b"12345678", client="2001:db8:1::2", cport=40000, vip="2001:db8:10::10", vport=9000, inner=b"", proto=17, version=1, kind=4):
		    return struct.pack(">BBHI", version << 4 | kind, proto, 0, flow) + cookie + address(client) + address(vip) + struct.pack(">HH", cport, vport) + inner
		EOF
		cat
	} | ns "$n" python3 -
}

mappings() { ns host1 nlb -j mapping show side host | jq length; }

# A static mapping; the packet appears on nlb0 as the client sent it and the socket gets it.
compact_form() {
	ns host1 nlb mapping add forwarder $LBU_TO_HOST1_6 id 0xee480007 client "[$CLIENT6]:40000" vip "[$VIP6]:9000" proto udp
	background host1 "$tmp/got" python3 -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('$VIP6', 9000))
while True:
    print(s.recvfrom(2000), flush=True)"
	wait_for 10 ns host1 sh -c 'ss -Huln | grep -q :9000'
	capture_start host1 nlb0 "$tmp/nlb0.pcap" udp
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 7, b"hello"))
	EOF
	wait_for 10 grep -q hello "$tmp/got"
	capture_stop
	cat "$tmp/got"
	grep -qF "(b'hello', ('2001:db8:1::2', 40000, 0, 0))" "$tmp/got"
	tcpdump -n -vv -r "$tmp/nlb0.pcap" 2>/dev/null | tee "$tmp/nlb0.txt"
	grep -q '2001:db8:1::2.40000 > 2001:db8:10::10.9000' "$tmp/nlb0.txt"
	grep -q 'udp sum ok' "$tmp/nlb0.txt"
}

# Whichever devices have the VIP, and whoever was given it last.
several_devices() {
	comes "alone"
	ip -n host1 addr add $VIP6/128 dev lo
	comes "on lo, too"
	ip -n host1 link add nlb1 type nlb
	ip -n host1 link set nlb1 up
	ip -n host1 addr add $VIP6/128 dev nlb1 nodad
	comes "on nlb1, too"
	ip -n host1 addr del $VIP6/128 dev nlb0
	comes "not on nlb0"
	ip -n host1 addr add $VIP6/128 dev nlb0 nodad
	ip -n host1 addr del $VIP6/128 dev lo
	ip -n host1 link set nlb1 down
	comes "nlb1 is down"
	ip -n host1 link del nlb1
	comes "alone again"
}
# comes TEXT: a packet with this text, which comes through the tunnel, reaches the program.
comes() {
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 7, b"$1"))
	EOF
	wait_for 10 grep -qF "b'$1'" "$tmp/got"
}

# Options before the UDP header stay where they are, also when a packet is longer by them than its
# headers are as a rule.
behind_options() {
	raw lbu <<-EOF
	pad = lambda next_header: bytes([next_header, 0, 1, 4, 0, 0, 0, 0])
	send(udp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 7, b"options", extension=pad(17), first=60))
	send(udp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 7, b"long", extension=pad(60) * 5 + pad(17), first=0))
	EOF
	wait_for 10 grep -q "b'options'" "$tmp/got"
	wait_for 10 grep -q "b'long'" "$tmp/got"
}

# The same packet from a machine that is no forwarder is an ordinary packet.
stranger() {
	capture_start host1 nlb0 "$tmp/nlb0.pcap" udp
	raw client <<-EOF
	send(udp("2001:db8:4::2", 0xee48, "2001:db8:4::1", 7, b"stranger"))
	EOF
	capture_stop
	not grep -q stranger "$tmp/got"
	[ "$(tcpdump -n -r "$tmp/nlb0.pcap" 2>/dev/null | wc -l)" = 0 ]
}

# An unknown flow id: dropped and counted, UNKNOWN goes back, no RST.
unknown_flow_id() {
	capture_start lbu host1 "$tmp/lbu.pcap" ip6
	raw lbu <<-EOF
	send(tcp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 99))
	EOF
	capture_stop
	tcpdump -n -r "$tmp/lbu.pcap" 2>/dev/null | tee "$tmp/lbu.txt"
	[ "$(counter host1 tunnel drop-unknown-flow-id)" = 1 ]
	tcpdump -n -r "$tmp/lbu.pcap" 'ip6[6] = 6 and ip6[53] & 4 != 0' 2>/dev/null | not grep .
	tcpdump -n -r "$tmp/lbu.pcap" "src host $HOST1_6 and udp port 4770 and ip6[48] = 0x13" 2>/dev/null | grep .
}

# An ordinary connection between the two machines is not touched.
ordinary() {
	background host1 "$tmp/ordinary.log" nc -6 -l -p 7000
	wait_listen host1 7000
	echo ordinary | ns lbu nc -6 -N -w 5 $HOST1_6 7000
	grep -q ordinary "$tmp/ordinary.log"
}

learns_and_confirms() {
	capture_start lbu host1 "$tmp/lbu.pcap" udp port 4770
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1_6", 4770, "$HOST1_6", 4770, learn(0xee490001, inner=udp("$CLIENT6", 40000, "$VIP6", 9000, b"learnt"))))
	EOF
	wait_for 10 grep -q learnt "$tmp/got"
	capture_stop
	tcpdump -n -x -r "$tmp/lbu.pcap" 2>/dev/null
	# CONFIRM: version and type, zeroes, flow id, the cookie.
	tcpdump -n -x -r "$tmp/lbu.pcap" "src host $HOST1_6" 2>/dev/null | sed 's/^.*0x00..://' |
		tr -d ' \n' | grep -q 12000000ee4900013132333435363738
	ns host1 nlb mapping show | grep ee490001
}

# Whatever is wrong with a LEARN, nothing is learnt.
learns_nothing_wrong() {
	local before
	before=$(mappings)
	raw client <<-EOF
	send(udp("2001:db8:4::2", 4770, "2001:db8:4::1", 4770, learn(0xee4a0001)))
	EOF
	raw lbu <<-EOF
	v4 = struct.pack(">BBHI", 0x11, 17, 0, 0xee4a0001) + b"12345678" + socket.inet_aton("10.0.1.2") + socket.inet_aton("$VIP") + struct.pack(">HH", 40000, 9000)
	wrong = [
	    v4, learn(0xee4a0001)[:51], learn(0xee4a0001)[:15], b"", b"\x14",
	    learn(0xee470001), learn(0xee4a0000), learn(1),
	    learn(0xee4a0001, version=2), learn(0xee4a0001, kind=1), learn(0xee4a0001, kind=10), learn(0xee4a0001, kind=9),
	    learn(0xee4a0001, proto=1), learn(0xee4a0001, vip="2001:db8:10::99"), learn(0xee4a0001, cport=0), learn(0xee4a0001, vport=0),
	    learn(0xee4a0001, client="fe80::1"), learn(0xee4a0001, client="ff02::1"), learn(0xee4a0001, client="::"),
	    learn(0xee4a0001, client="::ffff:10.0.1.2"), learn(0xee4a0001, client="::ffff:10.0.1.2", vip="::ffff:192.0.2.10"),
	    learn(0xee4a0001, inner=b"\x60"), learn(0xee4a0001, inner=bytes(60)),
	    learn(0xee4a0001, inner=udp("$CLIENT6", 40001, "$VIP6", 9000, b"other tuple")),
	    learn(0xee4a0001, inner=udp("$CLIENT6", 40000, "$VIP6", 9000, b"cut")[:-2]),
	]
	for data in wrong:
	    send(udp("$LBU_TO_HOST1_6", 4770, "$HOST1_6", 4770, data))
	zero = bytearray(udp("$LBU_TO_HOST1_6", 4770, "$HOST1_6", 4770, learn(0xee4a0001)))
	zero[46:48] = b"\0\0"
	send(bytes(zero))
	EOF
	sleep 0.5
	ns host1 nlb stats show tunnel
	[ "$(mappings)" = "$before" ]
	[ "$(counter host1 tunnel drop-bad-checksum)" = 1 ]
	not grep -q -e 'other tuple' -e cut "$tmp/got"
}

# advertised ADDRESS: yes or no, after the client has sent neighbour solicitations for it to host1.
advertised() {
	ip -n client neigh flush dev host1
	capture_start client host1 "$tmp/nd.pcap" icmp6
	ip -n client route replace "$1/128" dev host1
	ns client ping -6 -q -c 1 -W 2 "$1" >&2 || true
	ip -n client route del "$1/128" dev host1
	capture_stop
	tcpdump -n -r "$tmp/nd.pcap" >"$tmp/nd.txt" 2>/dev/null
	cat "$tmp/nd.txt" >&2
	if ! grep -q "neighbor solicitation, who has $1" "$tmp/nd.txt"; then
		echo "not asked"
	elif grep -q "neighbor advertisement, tgt is $1" "$tmp/nd.txt"; then
		echo yes
	else
		echo no
	fi
}

vip_is_not_advertised() {
	[ "$(advertised $VIP6)" = no ]
	# Nor with the flag that makes it answer ARP.
	ip -n host1 link set nlb0 arp on
	[ "$(advertised $VIP6)" = no ]
	ip -n host1 link set nlb0 arp off
	# Its own address is answered as ever.
	[ "$(advertised 2001:db8:4::1)" = yes ]
}

# A host that asks for a neighbour on behalf of the VIP does not say so.
vip_does_not_ask() {
	ip -n host1 neigh flush dev client
	capture_start client host1 "$tmp/nd.pcap" icmp6
	ns host1 ping -6 -q -c 1 -W 3 -I $VIP6 2001:db8:4::2 || true
	capture_stop
	tcpdump -n -r "$tmp/nd.pcap" 2>/dev/null | tee "$tmp/nd.txt"
	grep -q 'who has 2001:db8:4::2' "$tmp/nd.txt"
	not grep -q "$VIP6 > .*neighbor solicitation" "$tmp/nd.txt"
}

forwarder_leaves() {
	[ "$(mappings)" = 3 ]
	ns host1 nlb forwarder del $LBU_TO_HOST1_6
	# That of the IPv4 forwarder stays.
	[ "$(mappings)" = 1 ]
	: >"$tmp/got"
	raw lbu <<-EOF
	send(udp("$LBU_TO_HOST1_6", 0xee48, "$HOST1_6", 7, b"later"))
	EOF
	sleep 0.5
	not grep -q later "$tmp/got"
}

ktap_begin
load_modules nlb_tunnel
topology
topology_ipv6
vip_add host1
vip_add_ipv6 host1
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host1 nlb forwarder add $LBU_TO_HOST1_6
ns host1 nlb mapping add forwarder $LBU_TO_HOST1 id 0xee480007 client 10.0.1.2:40000 vip $VIP:9000 proto udp
ktap_run "compact form: a packet comes out as it went in" compact_form
ktap_run "several devices have the VIP" several_devices
ktap_run "extension headers stay in place" behind_options
ktap_run "only forwarders are listened to" stranger
ktap_run "an unknown flow id: dropped, told, no RST" unknown_flow_id
ktap_run "ordinary traffic between the machines" ordinary
ktap_run "LEARN6 is learnt, confirmed and delivered" learns_and_confirms
ktap_run "a wrong LEARN6 teaches nothing" learns_nothing_wrong
ktap_run "the VIP is not advertised to neighbours" vip_is_not_advertised
ktap_run "the VIP does not ask for neighbours" vip_does_not_ask
ktap_run "a removed forwarder is a stranger" forwarder_leaves
ktap_end
