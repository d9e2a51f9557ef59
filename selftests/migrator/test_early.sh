#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that reach the host before the connection does are held and delivered
# in order: no RST, no byte lost. The migrators' answers are made slow, so that
# the client sends all the while.

. "$(dirname "$0")/lib.sh"

held_in_order() {
	classifier --to $HOST1 --peek 1000
	client --bytes 2000
	slow_answers 60ms
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	capture_start client host1 "$tmp/from.pcap" tcp port 80
	client --bytes 60000 --chunk 1000 --pause 0.004 --count 10 --parallel 1
	capture_stop
	prompt_answers
	migrated 11
	"$pcap" no-rst "$tmp/to.pcap" "$tmp/from.pcap"
	migrations lbu
	migrations host1 | jq -e '[.[].held_packets] | add > 20'
	stop classifier
}

# PORT: 400 segments far outside of the window, in the name of the client's connection.
flood() {
	ns client python3 - "$1" "$VIP" "$CLIENT" <<-'EOF'
	import socket, struct, sys
	port, vip, client = int(sys.argv[1]), *map(socket.inet_aton, sys.argv[2:4])
	raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
	for n in range(400):
	    segment = struct.pack(">HHIIBBHHH", port, 80, n << 20, 0, 5 << 4, 0x10, 100, 0, 0) + bytes(100)
	    sums = client + vip + struct.pack(">HH", 6, len(segment)) + segment
	    total = sum(struct.unpack(f">{len(sums) // 2}H", sums))
	    total = (total & 0xFFFF) + (total >> 16)
	    total = ~(total + (total >> 16)) & 0xFFFF
	    raw.sendto(segment[:16] + struct.pack(">H", total) + segment[18:], (sys.argv[2], 0))
	EOF
}

# More than may be held: what is over is lost like in any network, and the connection does not mind.
more_than_fits() {
	classifier --to $HOST1 --peek 1000 --timeout 8000
	client --bytes 2000
	slow_answers 2s
	start client client client $VIP 80 --bytes 100000 --chunk 1000 --pause 0.1
	wait_for 10 frozen
	flood "$(migrations lbu | jq 'last.client_port')"
	wait_for 60 test -s "$tmp/client.log"
	prompt_answers
	jq -e '.error == null' "$tmp/client.log"
	migrated 2
	[ "$(counter host1 migrator drop-hold-packets)" -gt 100 ]
	stop classifier
}

# A migration that is given up: what was held is dropped and sent again.
given_up() {
	classifier --to $HOST1 --peek 1000 --timeout 5000
	client --bytes 2000
	slow_answers 2s
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	start client client client $VIP 80 --bytes 60000 --chunk 1000 --pause 0.1
	wait_for 10 frozen
	cut_peers
	wait_for 60 test -s "$tmp/client.log"
	capture_stop
	mend_peers
	prompt_answers
	cat "$tmp/client.log"
	jq -e '.error == null' "$tmp/client.log"
	"$pcap" no-rst "$tmp/to.pcap"
	stop classifier
}
frozen() { migrations lbu | jq -e 'any(.phase == "frozen" or .phase == "prepared")'; }

nothing_is_held() {
	wait_for 10 no_mappings host1
	[ "$(counter host1 migrator held-now)" = 0 ]
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
ktap_run "early packets are held and delivered in order" held_in_order
ktap_run "more early packets than fit" more_than_fits
ktap_run "a migration given up while packets are held" given_up
ktap_run "nothing is held at the end" nothing_is_held
ktap_end
