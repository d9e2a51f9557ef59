#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Services in mode l4: the kernel picks the host by weight, TCP and UDP pass the
# tunnel, answers do not pass the LBU.

. "$(dirname "$0")/../lib.sh"
tcp=$(cd "$(dirname "$0")/../migrator" && pwd)/tcp.py
pcap=$(cd "$(dirname "$0")/.." && pwd)/pcap.py

# Who answers on PORT: the name of the machine, by TCP (and by UDP where NAME is given).
name_server() {
	local host=$1 port=$2
	background "$host" "$tmp/$host-$port.log" python3 -c "
import socket, threading
name = b'$host'
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(('$VIP', $port))
def udp():
    while True:
        data, peer = u.recvfrom(2000)
        u.sendto(name + b' ' + data, peer)
threading.Thread(target=udp, daemon=True).start()
t = socket.create_server(('0.0.0.0', $port), backlog=1000)
while True:
    c, _ = t.accept()
    c.sendall(name)
    c.close()
"
	wait_listen "$host" "$port"
}

# N connections to PORT, one after the other; how often each host answered.
ask() {
	ns client python3 -c "
import collections, socket
c = collections.Counter()
for _ in range($2):
    s = socket.create_connection(('$VIP', $1), timeout=20)
    data = b''
    while part := s.recv(100):
        data += part
    c[data.decode()] += 1
print(c['host1'], c['host2'])"
}

service() {
	ns lbu nlb service add "$VIP:$1/$2" mode l4
	ns lbu nlb endpoint add "$VIP:$1/$2" host $HOST1 weight "$3"
	ns lbu nlb endpoint add "$VIP:$1/$2" host $HOST2 weight "$4"
}

# 80 connections by the weights 1 and 3: the order is fixed, so the counts are.
by_weight() {
	service 9000 tcp 1 3
	name_server host1 9000
	name_server host2 9000
	ask 9000 80 | tee "$tmp/counts"
	[ "$(cat "$tmp/counts")" = "20 60" ]
	ns lbu nlb -j endpoint show $VIP:9000/tcp | jq -e 'map(.connections) == [20, 60]'
}

weight_changes() {
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST2 weight 0
	[ "$(ask 9000 20)" = "20 0" ]
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST2 weight 1
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST1 weight 0
	[ "$(ask 9000 20)" = "0 20" ]
}

# No endpoint takes new connections: refused at once, not silence.
nobody_takes_it() {
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST1 weight 0
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST2 weight 0
	ns client python3 -c "
import socket
try:
    socket.create_connection(('$VIP', 9000), timeout=10)
    raise SystemExit('connected')
except ConnectionRefusedError:
    pass"
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST1 weight 1
	ns lbu nlb endpoint set $VIP:9000/tcp host $HOST2 weight 3
}

# Of each connection one packet is longer, its SYN. The client's ACK says that the host has it, and nothing else is sent.
acks_confirm() {
	local before
	before=$(told)
	ask 9000 20
	echo "before: $before, and then: $(told)"
	diff <(told) <(jq -c '.[0] += 20 | .[1] += 20' <<<"$before")
	# Nobody has acknowledged anything.
	ns client nft "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; add rule ip deaf in tcp dport 44447 drop"
	ns client python3 -c "
import socket
s = socket.socket()
s.bind(('', 44447))
s.setblocking(False)
s.connect_ex(('$VIP', 9000))"
	wait_for 10 mapping_is 44447 learning
	ns client nft delete table ip deaf
}
# What the LBU has sent in a LEARN, what clients have said of it, and hosts; and what these did not know.
told() {
	ns lbu nlb -j stats show tunnel | jq -c '[.[0].counters["encap-learning", "confirm-implied", "confirm-received", "unknown-received"]]'
}
# mapping_is CLIENT-PORT STATE
mapping_is() { ns lbu nlb -j mapping show side forwarder | jq -e "any(.[]; .client_port == $1 and .state == \"$2\")"; }

# In mid-connection the host has to say that it has learnt again what it forgot, for the client has nothing new to say.
host_forgets() {
	service 9200 tcp 1 0
	background host1 "$tmp/host1-9200.log" "$tcp" server 0.0.0.0 9200
	wait_listen host1 9200
	coproc talk { exec ip netns exec client /usr/bin/python3 -uc "
import socket, sys
s = socket.create_connection(('$VIP', 9200), timeout=20)
s.send(b'one')
assert s.recv(3, socket.MSG_WAITALL) == b'one'
print(s.getsockname()[1])
sys.stdin.readline()
s.send(b'two')
assert s.recv(3, socket.MSG_WAITALL) == b'two'
print('two')
sys.stdin.readline()"; }
	# shellcheck disable=SC2154 # coproc sets it
	local talks=$talk_PID number text
	read -rt 20 number <&"${talk[0]}"
	mapping_is "$number" confirmed
	told
	ns host1 nlb forwarder del $LBU_TO_HOST1
	ns host1 nlb forwarder add $LBU_TO_HOST1
	local before
	before=$(told)
	echo >&"${talk[1]}"
	read -rt 20 text <&"${talk[0]}"
	[ "$text" = two ]
	wait_for 10 mapping_is "$number" confirmed
	echo "before: $before, and then: $(told)"
	jq -es '.[0] as $before | .[1] | .[1] == $before[1] and .[2] > $before[2] and .[3] > $before[3]' <(echo "$before") <(told)
	echo >&"${talk[1]}"
	wait "$talks"
}

bytes_both_ways() {
	service 9100 tcp 1 1
	for host in host1 host2; do
		background $host "$tmp/$host-echo.log" "$tcp" server 0.0.0.0 9100
		wait_listen $host 9100
	done
	capture_start client lbu "$tmp/to.pcap" tcp port 9100
	capture_start lbu host1 "$tmp/tunnel.pcap" tcp
	ns client "$tcp" client $VIP 9100 --bytes 1000000 --count 8
	capture_stop
	"$pcap" no-rst "$tmp/to.pcap"
	"$pcap" same-length "$tmp/to.pcap" "$tmp/tunnel.pcap"
	"$pcap" batches "$tmp/tunnel.pcap"
	"$pcap" no-data-from $VIP "$tmp/to.pcap"
}

udp() {
	service 9000 udp 1 1
	ns client python3 - <<-EOF
	import socket
	hosts = set()
	for number in range(20):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    s.settimeout(10)
	    s.connect(("$VIP", 9000))
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

# Checksum left out by the sender (RFC 768) stays left out.
udp_without_checksum() {
	capture_start host1 lbu "$tmp/udp.pcap" udp
	ns client python3 - <<-EOF
	import socket
	SO_NO_CHECK = 11
	for _ in range(4):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
	    s.settimeout(10)
	    s.connect(("$VIP", 9000))
	    for _ in range(3):
	        s.send(b"x")
	        assert s.recv(100).endswith(b" x")
	EOF
	capture_stop
	tcpdump -n -vv -r "$tmp/udp.pcap" 'src portrange 61000-65535' 2>/dev/null | tee "$tmp/udp.txt"
	grep -q 'no cksum' "$tmp/udp.txt"
	not grep -q 'bad udp cksum' "$tmp/udp.txt"
}

iperf() {
	ns lbu nlb service add $VIP:5201/tcp mode l4
	ns lbu nlb endpoint add $VIP:5201/tcp host $HOST1
	background host1 "$tmp/iperf.log" iperf3 -s
	wait_listen host1 5201
	ns client iperf3 -c $VIP -t 2 -J >"$tmp/iperf.json"
	jq '.end.sum_received.bits_per_second' "$tmp/iperf.json"
	jq -e '.end.sum_received.bytes > 1000000' "$tmp/iperf.json"
}

replaced() { ns lbu nlb -j stats show fwd | jq '.[0].counters["route-replaced"]'; }

# A closed connection's tuple comes again: its first SYN is the new connection.
tuple_again() {
	ns client python3 - <<-EOF
	import socket
	def once():
	    s = socket.socket()
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	    s.bind(("10.0.1.2", 33333))
	    s.settimeout(20)
	    s.connect(("$VIP", 9000))
	    s.recv(100)
	    # A RST ends it, so that the port is free at once.
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
	    s.close()
	for _ in range(10):
	    once()
	EOF
	# Nine SYNs found the route of a closed connection, and were not left to it.
	[ "$(replaced)" -ge $(($1 + 9)) ]
}

# Milliseconds until a route expires, and its state.
expiry() { ns lbu nlb -j route show | jq -r ".[] | select($1) | \"\(.expires) \(.state)\""; }
within() {
	local ms state
	read -r ms state < <(expiry "$1" | tee "$tmp/expiry")
	[ "$state" = "$2" ] && ((ms > $3 * 1000 && ms <= $4 * 1000)) || ! cat "$tmp/expiry"
}
none_is_left() { [ -z "$(expiry "$1")" ]; }

# The times that a service says count for the routes there are, and for those that come.
timeouts() {
	local flow=".client_port == 44444" connection=".client_port == 44445"
	ns client python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 44444))
s.sendto(b'?', ('$VIP', 9000))"
	wait_for 10 within "$flow" udp 200 300
	ns lbu nlb service set $VIP:9000/udp idle-timeout 5000
	within "$flow" udp 4900 5000
	ns lbu nlb service set $VIP:9000/udp idle-timeout 1
	wait_for 20 none_is_left "$flow"
	ns lbu nlb service set $VIP:9000/udp idle-timeout 0

	ns lbu nlb service set $VIP:9000/tcp idle-timeout 7000 fin-timeout 6000
	coproc talk { exec ip netns exec client /usr/bin/python3 -uc "
import socket, sys
s = socket.socket()
s.bind(('', 44445))
s.connect(('$VIP', 9000))
s.recv(100)
print('open')
sys.stdin.readline()
s.shutdown(socket.SHUT_WR)
print('shut')
sys.stdin.readline()"; }
	# shellcheck disable=SC2154 # coproc sets it
	local talks=$talk_PID open shut
	read -rt 20 open <&"${talk[0]}"
	wait_for 10 within "$connection" established 6900 7000
	ns lbu nlb service set $VIP:9000/tcp idle-timeout 8000
	within "$connection" established 7900 8000
	echo >&"${talk[1]}"
	read -rt 20 shut <&"${talk[0]}"
	[ "$open $shut" = "open shut" ]
	wait_for 10 within "$connection" fin-wait 5900 6000
	ns lbu nlb service set $VIP:9000/tcp fin-timeout 1
	wait_for 20 none_is_left "$connection"
	ns lbu nlb service set $VIP:9000/tcp fin-timeout 0 idle-timeout 0
	echo >&"${talk[1]}"
	wait "$talks"

	# A SYN whose answer the client never sees.
	ns client nft "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; add rule ip deaf in tcp dport 44446 drop"
	ns client python3 -c "
import socket
s = socket.socket()
s.bind(('', 44446))
s.setblocking(False)
s.connect_ex(('$VIP', 9000))"
	wait_for 10 within ".client_port == 44446" syn-recv 50 60
	ns lbu nlb service set $VIP:9000/tcp syn-timeout 1
	wait_for 20 none_is_left ".client_port == 44446"
	ns client nft delete table ip deaf
}

# What does not belong to a connection gets the answer the local stack gives.
stray_segments() {
	ns client python3 -c "
import socket
try:
    socket.create_connection(('$VIP', 9999), timeout=10)
    raise SystemExit('connected')
except ConnectionRefusedError:
    pass"
}

service_goes() {
	ns lbu nlb service del $VIP:9000/tcp
	[ "$(ns lbu nlb -j route show | jq '[.[] | select(.vip_port == 9000 and .proto == "tcp")] | length')" = 0 ]
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
topology
vip_add lbu host1 host2
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host2 nlb forwarder add $LBU_TO_HOST2
ktap_run "connections are spread by weight" by_weight
ktap_run "a changed weight counts at once" weight_changes
ktap_run "no endpoint takes connections: refused" nobody_takes_it
ktap_run "an ACK tells the LBU that the host knows the flow id" acks_confirm
ktap_run "a host that forgot in mid-connection learns again" host_forgets
ktap_run "a megabyte both ways, byte by byte" bytes_both_ways
ktap_run "UDP flows keep their host" udp
ktap_run "UDP without checksum" udp_without_checksum
ktap_run "iperf3 passes" iperf
ktap_run "a tuple that comes again is a new connection" tuple_again "$(replaced)"
ktap_run "timeouts of a service" timeouts
ktap_run "a port without service is refused" stray_segments
ktap_run "a removed service takes its routes along" service_goes
ktap_end
