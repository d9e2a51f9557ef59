#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Services that schedule each datagram by itself: who gets which, that nothing is remembered of them, what is counted,
# fragments, and ICMP errors about what goes to hosts and what comes from them.

. "$(dirname "$0")/../lib.sh"
modes=$(cd "$(dirname "$0")" && pwd)/modes.py
lbu() { nlb -n lbu "$@"; }
# routes [PORT]: how many there are, to this port.
routes() { lbu -j route show | jq --argjson port "${1:-null}" 'map(select($port == null or .vip_port == $port)) | length'; }

# who PORT COUNT [VIP]: from one socket, so many datagrams to the service; prints who answers each, as "1212".
who() {
	ns client python3 - "$@" <<-EOF
	import socket, sys
	port, count, vip = int(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] + ["$VIP"])[0]
	s = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
	s.settimeout(20)
	s.connect((vip, port))
	for n in range(count):
	    s.send(b"%d" % n)
	    name, _, number = s.recv(100).decode().partition(" ")
	    assert number == str(n), (name, number)
	    print(name, end="")
	print()
	EOF
}

# names MACHINE NAME PORT...: answers with its name and what it was sent, from the address that was asked.
names() {
	cat >"$tmp/names.py" <<-EOF
	import socket, sys, threading
	def serve(port):
	    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
	    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
	    s.bind(("::", port))
	    while True:
	        data, ancillary, _, peer = s.recvmsg(65536, 200)
	        here = [(level, kind, value[:16] + bytes(4)) for level, kind, value in ancillary
	                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)]
	        s.sendmsg([sys.argv[1].encode() + b" " + data], here, 0, peer)
	for port in map(int, sys.argv[2:]):
	    threading.Thread(target=serve, args=(port,)).start()
	print("ready", flush=True)
	EOF
	background "$1" "$tmp/$1.log" python3 "$tmp/names.py" "${@:2}"
	wait_for 20 grep -q ready "$tmp/$1.log"
}

# both PORT VIA [WORD...]: a service for both VIPs with both hosts by this way, and these words.
both() {
	lbu service add "$VIP:$1/udp" one-packet yes "${@:3}"
	lbu endpoint add "$VIP:$1/udp" host $HOST1 via "$2"
	lbu endpoint add "$VIP:$1/udp" host $HOST2 via "$2"
	lbu service add "[$VIP6]:$1/udp" one-packet yes "${@:3}"
	lbu endpoint add "[$VIP6]:$1/udp" host $HOST1_6 via "$2"
	lbu endpoint add "[$VIP6]:$1/udp" host $HOST2_6 via "$2"
}

configure() {
	both 7101 tunnel scheduler rr
	both 7102 direct scheduler rr
	both 7103 ipip scheduler rr
	both 7104 direct scheduler mh
	both 7105 direct scheduler rr affinity 300
	ns host1 nlb forwarder add $LBU_TO_HOST1
	ns host1 nlb forwarder add $LBU_TO_HOST1_6
	ns host2 nlb forwarder add $LBU_TO_HOST2
	ns host2 nlb forwarder add $LBU_TO_HOST2_6
	names host1 1 7101 7102 7103 7104 7105
	names host2 2 7101 7102 7103 7104 7105
	lbu -j service show "$VIP:7101/udp" | jq -e '.[0].one_packet'
}

# One after the other, all ways that need no route; none is made, and each datagram counts as a connection.
each_by_itself() {
	local port vip said
	for port in 7101 7102 7103; do
		for vip in $VIP $VIP6; do
			said=$(who $port 10 $vip)
			echo "$port $vip: $said"
			[[ $said = 1212121212 || $said = 2121212121 ]]
		done
	done
	[ "$(routes)" = 0 ]
	[ "$(counter lbu fwd one-packet)" = 60 ]
	[ "$(counter lbu fwd route-new)" = 0 ]
	[ "$(counter lbu fwd stateless-packets)" = 0 ]
	lbu -j service show | jq -e '[.[] | select(.vip_port < 7104)] | length == 6 and all(.connections == 10 and .packets == 10)'
	lbu -j endpoint show | jq -e '[.[] | select(.vip_port < 7104)] | length == 12 and
		all(.connections == 5 and .packets == 5 and .routes == 0)'
	[ "$(counter host1 tunnel decap-ipip)" = 20 ]
}

# Weights, states, affinity and hashes hold for datagrams as for connections.
as_scheduled() {
	local said n all=
	lbu service set "$VIP:7102/udp" scheduler wrr
	lbu endpoint set "$VIP:7102/udp" host $HOST1 weight 3
	said=$(who 7102 16)
	[ "$(tr -d 2 <<<"$said")" = 111111111111 ]
	lbu endpoint set "$VIP:7102/udp" host $HOST1 state draining
	[ "$(who 7102 4)" = 2222 ]
	lbu endpoint set "$VIP:7102/udp" host $HOST2 state inactive
	not who 7102 1
	[ "$(counter lbu fwd pass-no-endpoint)" -gt 0 ]
	for n in {1..12}; do
		said=$(who 7104 3)
		[[ $said = 111 || $said = 222 ]]
		all+=$said
	done
	[[ $all = *1* && $all = *2* ]]
	said=$(who 7105 3)$(who 7105 3)$(who 7105 3)
	[[ $said = 111111111 || $said = 222222222 ]]
	[ "$(routes)" = 0 ]
}

traced() {
	lbu -j trace 198.51.100.7:4000 "$VIP:7101/udp" | tee "$tmp/trace"
	jq -e '.outcome == "one-packet" and .choice == "scheduler" and .forward == "ipip"' "$tmp/trace"
	lbu -j trace "[2001:db8:77::7]:4000" "[$VIP6]:7104/udp" | tee "$tmp/trace"
	jq -e '.outcome == "one-packet" and .forward == "direct"' "$tmp/trace"
	lbu trace 198.51.100.7:4000 "$VIP:7101/udp" | grep 'without a route (one-packet)'
}

# Flows that have a route keep it; others have none, or get one, as the service says.
switched() {
	lbu service set "$VIP:7103/udp" one-packet no
	[[ $(who 7103 4) = @(1111|2222) ]]
	[ "$(routes 7103)" = 1 ]
	lbu route flush
	ns client python3 - <<-EOF
	import socket, subprocess
	def ask(s):
	    s.send(b"0")
	    return s.recv(100)
	def one_packet(value):
	    subprocess.run(["nlb", "-n", "lbu", "service", "set", "$VIP:7103/udp", "one-packet", value], check=True)
	sockets = []
	for _ in range(2):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    s.settimeout(20)
	    s.connect(("$VIP", 7103))
	    sockets.append(s)
	old, new = sockets
	first = ask(old)
	one_packet("yes")
	assert [ask(old) for _ in range(4)] == [first] * 4
	assert len({ask(new) for _ in range(4)}) == 2
	EOF
	[ "$(routes 7103)" = 1 ]
	lbu save >"$tmp/saved"
	[ "$(grep -c 'one-packet = "yes"' "$tmp/saved")" = 10 ]
	[ -z "$(lbu apply "$tmp/saved" dry-run)" ]
	sed 's/one-packet = "yes"/one-packet = "no"/' "$tmp/saved" | lbu apply -
	lbu -j service show | jq -e 'all(.one_packet | not)'
	lbu apply "$tmp/saved"
	lbu -j service show | jq -e 'all(.one_packet)'
}

refused() {
	lbu service add "$VIP:7109/udp"
	lbu endpoint add "$VIP:7109/udp" host $HOST1 via half-nat
	while IFS='|' read -r text words; do
		# shellcheck disable=SC2086
		not lbu $words 2>"$tmp/err"
		cat "$tmp/err"
		grep -qF "$text" "$tmp/err"
	done <<-EOF
	half-nat and nat need routes, and the service makes none|endpoint add $VIP:7104/udp host 10.0.2.9 via half-nat
	half-nat and nat need routes, and the service makes none|endpoint add $VIP:7104/udp host 10.0.2.9 via nat
	an endpoint of the service needs routes|service set $VIP:7109/udp one-packet yes
	only UDP in mode l4 is scheduled packet by packet|service add $VIP:7109/tcp one-packet yes
	only UDP in mode l4 is scheduled packet by packet|service add $VIP:7109/tcp mode peek one-packet yes
	EOF
	lbu -j service show "$VIP:7109/udp" | jq -e '.[0].one_packet | not'
	lbu service del "$VIP:7109/udp"
}

# Host1 is behind host2 now, by a narrower link.
errors() {
	local told errors port
	# A router on the way is no host.
	ip -n host2 link del nlb0
	behind_a_router
	ns host1 nlb forwarder add $LBU_TO_HOST2
	ns host1 nlb forwarder add $LBU_TO_HOST2_6
	for port in 7106 7107; do
		lbu service add "$VIP:$port/udp" one-packet yes scheduler rr
		lbu endpoint add "$VIP:$port/udp" host $FAR via ipip
		lbu service add "[$VIP6]:$port/udp" one-packet yes scheduler rr
		lbu endpoint add "[$VIP6]:$port/udp" host $FAR6 via ipip
	done
	lbu service set "$VIP:7107/udp" scheduler mh
	lbu service set "[$VIP6]:7107/udp" scheduler mh
	background host1 "$tmp/far.log" "$modes" serve 7106 7107
	wait_for 20 grep -q ready "$tmp/far.log"
	# Answers by a link that is as wide as ever.
	ip -n host1 route replace $CLIENT via 10.0.4.2
	ip -n host1 route replace $CLIENT6 via 2001:db8:4::2
	told=$(counter lbu fwd icmp-told) errors=$(counter lbu fwd icmp-errors)
	ns client "$modes" big "1380=$VIP:7106" "1360=[$VIP6]:7106"
	[ "$(counter lbu fwd icmp-told)" = $((told + 2)) ]
	ns client "$modes" pieces "$VIP:7106" "[$VIP6]:7106"
	ns client "$modes" late 1 "$VIP:7106" "[$VIP6]:7106"
	[ "$(counter lbu fwd icmp-errors)" = "$errors" ]
	# By a hash the host is found that an answer has come from, for which the way to the client is too narrow.
	ip -n host1 route replace $CLIENT via 10.0.6.1
	ip -n host1 route replace $CLIENT6 via 2001:db8:6::1
	ns client python3 - <<-EOF
	import socket
	for vip in ("$VIP", "$VIP6"):
	    s = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
	    s.settimeout(2)
	    s.connect((vip, 7107))
	    for attempt in range(10):
	        s.send(bytes(1300))
	        try:
	            assert s.recv(65536) == bytes(1300)
	            break
	        except TimeoutError:
	            assert attempt < 9, "no answer"
	EOF
	(($(counter lbu fwd icmp-errors) >= errors + 2))
	ip -n host1 route get $CLIENT | grep 'mtu 1300'
	ip -n host1 route get $CLIENT6 | grep 'mtu 1300'
	[ "$(routes 7106)" = 0 ]
	[ "$(routes 7107)" = 0 ]
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1 host2
vip_add_ipv6 lbu host1 host2
ktap_run "services for one packet" configure
ktap_run "each datagram is scheduled by itself" each_by_itself
ktap_run "as the scheduler, states and affinity say" as_scheduled
ktap_run "trace" traced
ktap_run "on and off again" switched
ktap_run "what needs routes is refused" refused
ktap_run "ICMP errors" errors
ktap_end
