#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# Rules: whose packets a service does not take, what those hear who send them, and what goes on.

. "$(dirname "$0")/lib.sh"

# heard PROTO/PORT[/SOURCE[/VIP]]...: of each, what who asks there hears: the host's name, "refused" or "nothing".
heard() {
	ns client python3 - "$@" <<-'END'
	import socket, sys
	def ask(proto, port, source="", vip="192.0.2.10"):
	    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
	    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
	    with socket.socket(family, kind) as s:
	        s.settimeout(1)
	        s.bind((source, 0))
	        try:
	            s.connect((vip, int(port)))
	            if proto == "udp":
	                s.send(b"who")
	            return s.recv(10).decode().strip()
	        except ConnectionRefusedError:
	            return "refused"
	        except TimeoutError:
	            return "nothing"
	print(*(ask(*one.split("/")) for one in sys.argv[1:]))
	END
}
# hear WANT ASK...
hear() {
	heard "${@:2}" >"$tmp/heard"
	is "$(<"$tmp/heard")" "$1"
}
# counted PRIORITY: packets that a rule has decided about.
counted() { lbu -j rule show priority "$1" | jq '.[0].packets'; }

drops() {
	lbu rule add drop from 10.0.1.0/24 to $VIP:9300/tcp
	hear "nothing host1 host1" tcp/9300 udp/9300 tcp/9301
	# A SYN, and perhaps one that came again.
	(($(counted 10) >= 1))
	[ "$(counter lbu fwd drop-rule)" = "$(counted 10)" ]
	lbu rule show | grep -E "^ +10 +drop +10.0.1.0/24 +$VIP:9300/tcp +tcp +[1-9]"
	lbu -j rule show | jq -e '.[0] | .bytes >= 40 and .from_prefix == 24 and .vip_port == 9300 and (has("vip_port_last") | not)'
	lbu rule del priority 10
	hear host1 tcp/9300
}

rejects() {
	lbu rule add reject from 10.0.1.2
	hear "refused refused host1" tcp/9300 udp/9300 tcp/9300/10.0.1.3
	is "$(counted 10) $(counter lbu fwd reject-rule)" "2 2"
	# What is for no service is not what rules are about.
	ns client ping -q -c 1 -W 5 $VIP
	lbu rule flush
	lbu rule add reject from 2001:db8:1::/64
	hear "refused refused host1" tcp/9302//$VIP6 udp/9302//$VIP6 tcp/9300
	lbu rule flush
	hear "host1 host1" tcp/9302//$VIP6 udp/9302//$VIP6
	is "$(lbu -j rule)" "[]"
}

# A SYN that carries data, and segments from the middle of nothing: the numbers that a RST has to have.
numbers() {
	lbu rule add reject from any
	ns client python3 - <<-'END'
	import socket, struct
	def checksum(data):
	    data += b"\0" * (len(data) % 2)
	    total = sum(struct.unpack(f">{len(data) // 2}H", data))
	    total = (total & 0xffff) + (total >> 16)
	    return 0xffff - ((total & 0xffff) + (total >> 16) & 0xffff)
	pseudo = socket.inet_aton("10.0.1.2") + socket.inet_aton("192.0.2.10")
	raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
	raw.settimeout(1)
	SYN, RST, ACK, FIN = 2, 4, 16, 1
	def said(port, flags, seq, ack, data=b"", broken=False):
	    head = struct.pack(">HHIIBBHHH", port, 9300, seq, ack, 0x50, flags, 1000, 0, 0)
	    whole = pseudo + struct.pack(">HH", 6, len(head + data)) + head + data
	    head = head[:16] + struct.pack(">H", checksum(whole) ^ broken) + head[18:]
	    raw.sendto(head + data, ("192.0.2.10", 0))
	    try:
	        while True:
	            segment = raw.recv(1000)[20:]
	            if struct.unpack(">HH", segment[:4]) == (9300, port):
	                return struct.unpack(">IIxB", segment[4:14])
	    except TimeoutError:
	        return None
	for name, got, want in (
	        ("SYN", said(7001, SYN, 0xffffffff, 0), (0, 0, RST | ACK)),
	        ("SYN with data", said(7002, SYN, 5, 0, b"data"), (0, 10, RST | ACK)),
	        ("ACK", said(7003, ACK, 5, 77, b"data"), (77, 0, RST)),
	        ("FIN without ACK", said(7004, FIN, 5, 0), (0, 6, RST | ACK)),
	        ("RST", said(7005, RST, 5, 0), None),
	        ("wrong checksum", said(7006, SYN, 5, 0, broken=True), None)):
	    assert got == want, (name, got, want)
	END
	lbu rule flush
}

# Datagrams in fragments, three each: they are judged when they are whole, and one answer says so.
in_pieces() {
	local before
	state() {
		lbu -j stats show fwd | jq -c --arg rule "$1-rule" '.[0].counters
			| [.fragments, .defragmented, .[$rule], .["pass-fragment"]]'
	}
	# grown ACTION BEFORE WANT
	grown() { is "$(jq -cn "[$(state "$1"), $2] | transpose | map(.[0] - .[1])")" "$3"; }
	# fragments WANT VIP PORT [VIP PORT]
	fragments() {
		ns client python3 - "$@" <<-'END'
		import socket, sys
		want, *to = sys.argv[1:]
		for vip, port in zip(to[::2], to[1::2]):
		    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
		    with socket.socket(family, socket.SOCK_DGRAM) as s:
		        s.settimeout(1 if want == "nothing" else 20)
		        s.connect((vip, int(port)))
		        s.send(bytes(4000))
		        try:
		            said = s.recv(10).decode()
		        except ConnectionRefusedError:
		            said = "refused"
		        except TimeoutError:
		            said = "nothing"
		        assert said == want, (vip, said, want)
		END
	}
	lbu rule add reject to $VIP:9300/udp
	lbu rule add reject to "[$VIP6]:9302/udp"
	before=$(state reject)
	fragments refused $VIP 9300 $VIP6 9302
	grown reject "$before" "[6,2,2,0]"
	is "$(lbu -j rule | jq -c 'map([.packets, .bytes])')" "[[1,4028],[1,4048]]"
	# Those for other services go on.
	fragments host1 $VIP 9301
	lbu rule flush
	lbu rule add drop to $VIP:9300/udp
	before=$(state drop)
	fragments nothing $VIP 9300
	grown drop "$before" "[3,1,1,0]"
	lbu rule flush
	fragments host1 $VIP 9300 $VIP6 9302
}

order() {
	lbu rule add drop from 10.0.0.0/8 priority 50
	lbu rule add accept from 10.0.1.3 priority 40
	lbu rule add reject to $VIP:9301/tcp priority 30
	lbu rule add reject to $VIP:8000-9299/tcp priority 20
	hear "nothing host1 refused refused host1" tcp/9300 tcp/9300/10.0.1.3 tcp/9301 tcp/9301/10.0.1.3 udp/9300/10.0.1.3
	is "$(lbu -j rule | jq -c 'map([.priority, .action])')" '[[20,"reject"],[30,"reject"],[40,"accept"],[50,"drop"]]'
	is "$(counted 20) $(counted 40)" "0 2"
	lbu rule add drop proto udp
	is "$(lbu -j rule | jq -c '.[-1] | [.priority, .proto]')" '[60,"udp"]'
	refuses "another rule has this priority (attribute priority)" lbu rule add drop from any priority 50
	refuses "has bits behind its prefix (attribute from-addr)" lbu rule add drop from 10.0.0.1/8
	refuses "no such rule" lbu rule del priority 51
	# A file brings them back, in their order, and changes one.
	lbu save >"$tmp/saved"
	is "$(lbu apply "$tmp/saved" dry-run)" ""
	lbu rule flush
	lbu apply "$tmp/saved"
	lbu save | diff "$tmp/saved" -
	sed -i 's,^from = "10.0.1.3",from = "10.0.1.4",' "$tmp/saved"
	is "$(lbu -j apply "$tmp/saved" | jq -r '.[].command')" "nlb rule del priority 40
nlb rule add priority 40 accept from 10.0.1.4"
	hear nothing tcp/9300/10.0.1.3
	lbu rule flush
}

# What has a route goes on, until that is gone; then it is the rule's.
goes_on() {
	local action said
	for action in drop reject; do
		lbu route flush
		hold 9300 1
		said=$(counter lbu fwd "$action-rule")
		lbu rule add $action from 10.0.1.2
		send 9303 20000 1 10.0.1.3
		wait_for 20 routes_are 2
		lbu route show from 10.0.1.3 | grep -q :9303
		lbu route flush from 10.0.1.2/31
		wait_for 20 routes_are 0
		lbu rule flush
		kill $holder
		hold 9300 1
		lbu rule add $action from 10.0.1.0/24
		is "$(lbu -j route show | jq length)" 1
		lbu route flush $VIP:9300/tcp from 10.0.1.0/24
		# The client's FIN has no route.
		kill $holder
		wait_for 20 decided $action "$said"
		lbu rule flush
	done
}
# While there is a route, new connections are opened at the ingress of devices; there it is the same.
first_packets() {
	local before n ask=()
	hold 9300 1
	service 9305-9306/tcp rr 1
	lbu rule add accept from 10.0.1.2 priority 1
	lbu rule add reject from 10.0.1.0/24 priority 2
	before=$(counter lbu fwd fast-packets)
	# By each processor, the way to the host may have to be looked up first. Nobody listens on the host.
	for ((n = 0; n <= $(nproc); n++)); do ask+=(tcp/9305 tcp/9306); done
	hear "${ask[*]/*/refused}" "${ask[@]}"
	(($(counter lbu fwd fast-packets) > before))
	is "$(counted 1) $(counted 2)" "${#ask[@]} 0"
	is "$(lbu -j service show $VIP:9305-9306/tcp | jq '.[0].connections')" ${#ask[@]}
	hear refused tcp/9305/10.0.1.3
	is "$(counted 1) $(counted 2)" "${#ask[@]} 1"
	is "$(lbu -j route show from 10.0.1.3)" "[]"
	kill $holder
	lbu rule flush
	lbu service del $VIP:9305-9306/tcp
}
decided() { (($(counter lbu fwd "$1-rule") > $2)); }

# In mode peek it is as for any other service: the classifier sees nothing of it.
peek() {
	lbu service add $VIP:9304/tcp mode peek
	background lbu "$tmp/classifier.log" python3 -c "
import socket
s = socket.create_server(('$VIP', 9304))
while True:
    c, _ = s.accept()
    c.sendall(b'classifier')
    c.close()"
	local classifier=$!
	wait_listen lbu 9304
	lbu rule add reject from 10.0.1.2
	hear "refused classifier" tcp/9304 tcp/9304/10.0.1.3
	lbu rule flush
	hear classifier tcp/9304
	kill $classifier
}

# Rules come and go while packets do; listeners are told.
under_load() {
	local n
	# Without an endpoint no packet gets a route that others would follow, and each is judged.
	lbu service add $VIP:9304/udp
	background lbu "$tmp/events" nlb -j monitor services
	local monitor=$!
	wait_for 20 grep -qs Watching "$tmp/events"
	flood 9304
	local flood=$!
	for ((n = 0; n < 10; n++)); do
		lbu rule add drop from 10.0.$n.0/24 priority 7
		lbu rule add reject from 10.0.0.0/16
		lbu rule del priority 7
		lbu rule flush
	done
	kill $flood
	told() { is "$(grep -c "\"event\":\"$1\"" "$tmp/events")" 20; }
	wait_for 20 told rule
	wait_for 20 told rule-del
	kill $monitor
}

# The module goes while packets of each kind come, and with it its rules.
module_goes() {
	local first=20000 port floods=() dropped refused before
	lbu rule add accept to $VIP:9303/udp priority 1
	lbu rule add drop to $VIP:9304/udp
	lbu rule add reject to $VIP:9300/udp
	dropped=$(counter lbu fwd drop-rule) refused=$(counter lbu fwd reject-rule)
	for port in 9303 9304 9300; do
		flood $port $first
		floods+=($!)
		((first += 10000))
	done
	wait_for 20 decided drop $((dropped + 100))
	wait_for 20 decided reject $((refused + 100))
	accepted() { (($(counted 1) > 100)); }
	wait_for 20 accepted
	rmmod nlb_fwd
	modprobe nlb_fwd
	is "$(lbu -j rule)" "[]"
	# Nothing is left that would judge the packets that still come.
	lbu service add $VIP:9304/udp
	before=$(counter lbu fwd pass-no-endpoint)
	passed() { (($(counter lbu fwd pass-no-endpoint) > before + 100)); }
	wait_for 20 passed
	is "$(counter lbu fwd drop-rule) $(counter lbu fwd reject-rule)" "0 0"
	rmmod nlb_fwd
	kill "${floods[@]}"
}

ktap_begin
load_modules nlb_fwd
five_endpoints
topology_ipv6
vip_add_ipv6 lbu host1
ns client ip addr add 10.0.1.3/24 dev lbu
ns host1 ip route add 10.0.1.3 via 10.0.4.2
ns host1 nlb forwarder add $LBU_TO_HOST1_6
for port in 9300 9301; do
	listen $port
	for proto in tcp udp; do service $port/$proto rr 1; done
done
service 9303/udp rr 1
background host1 "$tmp/ipv6.log" python3 -c "
import socket, threading
t = socket.create_server(('$VIP6', 9302), family=socket.AF_INET6)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.bind(('$VIP6', 9302))
def datagrams():
    while True:
        data, peer = u.recvfrom(100)
        u.sendto(b'host1', peer)
threading.Thread(target=datagrams, daemon=True).start()
while True:
    c, _ = t.accept()
    c.sendall(b'host1')
    c.close()"
wait_listen host1 9302
for proto in tcp udp; do
	ns lbu nlb service add "[$VIP6]:9302/$proto"
	ns lbu nlb endpoint add "[$VIP6]:9302/$proto" host $HOST1_6
done
ktap_run "drop: by source, port and protocol" drops
ktap_run "reject: by RST and by ICMP, over IPv4 and IPv6" rejects
ktap_run "reject: the numbers of a RST" numbers
ktap_run "fragments are judged when they are together" in_pieces
ktap_run "the lowest priority decides; saved and applied" order
ktap_run "connections that have a route go on" goes_on
ktap_run "connections opened at the ingress of devices" first_packets
ktap_run "mode peek" peek
ktap_run "rules change under load" under_load
ktap_run "the module goes under load, with rules" module_goes
ktap_end
