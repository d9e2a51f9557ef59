#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Packets that reach the host before the connection does are held and delivered
# in order: no RST, no byte lost. The migrators' answers are made slow, so that
# the client sends all the while.

. "$(dirname "$0")/lib.sh"

held_in_order() {
	classifier --to $HOST1 --peek 1000
	client --bytes 2000
	slow_answers 60ms
	watch
	client --bytes 60000 --chunk 1000 --pause 0.004 --count 10 --parallel 1
	prompt_answers
	holds --connections 10 --moved 10
	migrated 11
	migrations lbu
	migrations host1 | jq -e '[.[].held_packets] | add > 20'
	stop classifier
}

# From one to as many as a hold takes, and more.
matrix() {
	slow_answers 500ms
	# Each write a segment, and all of them at once.
	ns client sysctl -qw net.ipv4.tcp_autocorking=0
	ip -n client route change $VIP via $LBU initcwnd 512
	stop server-host1
	watch
	"$(dirname "$tcp")/early.py" 1 2 3 8 32 64 200 300
	holds --connections 8 --moved 8
	ip -n client route change $VIP via $LBU
	ns client sysctl -qw net.ipv4.tcp_autocorking=1
	prompt_answers
}

# BYTES PORT: 400 segments of so many bytes far outside of the window, in the name of the client's connection from
# that port, as soon as somebody writes to the pipe.
flood() {
	ns client python3 - "$tmp/go" "$VIP" "$CLIENT" "$@" <<-'EOF'
	import socket, struct, sys
	vip, client = map(socket.inet_aton, sys.argv[2:4])
	raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
	zeros, port = bytes(int(sys.argv[4])), int(sys.argv[5])
	segments = []
	for n in range(400):
	    header = struct.pack(">HHIIBBHHH", port, 80, n << 20, 0, 5 << 4, 0x10, 100, 0, 0)
	    # Zeros add nothing to it.
	    sums = client + vip + struct.pack(">HH", 6, len(header) + len(zeros)) + header
	    total = sum(struct.unpack(">16H", sums))
	    total = (total & 0xFFFF) + (total >> 16)
	    total = ~(total + (total >> 16)) & 0xFFFF
	    segments.append(header[:16] + struct.pack(">HH", total, 0) + zeros)
	open(sys.argv[1]).read()
	for segment in segments:
	    raw.sendto(segment, (sys.argv[2], 0))
	EOF
}

# BYTES PORT COUNTER: more than may be held; what is over is lost like in any network, and the connection does not
# mind.
more_than_fits() {
	local dropped flood
	mkfifo "$tmp/go"
	flood "$1" "$2" &
	flood=$!
	classifier --to $HOST1 --peek 1000 --timeout 20000
	client --bytes 2000
	# Almost as long as packets are held.
	slow_answers 2700ms
	dropped=$(counter host1 migrator "$3")
	start client client client $VIP 80 --from-port "$2" --bytes 50000 --chunk 1000 --pause 0.1
	wait_for 10 frozen
	echo >"$tmp/go"
	wait $flood
	rm "$tmp/go"
	wait_for 60 test -s "$tmp/client.log"
	prompt_answers
	jq -e '.error == null' "$tmp/client.log"
	wait_for 20 migrated 2
	[ "$(counter host1 migrator "$3")" -gt "$dropped" ]
	stop classifier
}

# What waits for longer than the client does is let go.
given_up_late() {
	local before
	before=$(counter host1 migrator drop-hold-age)
	given_up
	[ "$(counter host1 migrator drop-hold-age)" -gt "$before" ]
}

# Packets as large as the client's stack makes them, which only a network card would cut.
large_ones() {
	slow_answers 1500ms
	ip -n client route change $VIP via $LBU initcwnd 512
	stop server-host1
	"$(dirname "$tcp")/early.py" --large 2
	ip -n client route change $VIP via $LBU
	prompt_answers
}

nothing_is_held() {
	local machine
	wait_for 100 no_mappings host1
	[ "$(counter host1 migrator held-now)" = 0 ]
	no_backlog
	for machine in client lbu host1; do
		ns $machine nstat -asz TcpInCsumErrors | grep '^TcpInCsumErrors *0 '
	done
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
ktap_run "early packets are held and delivered in order" held_in_order
ktap_run "more early packets than fit" more_than_fits 100 5000 drop-hold-packets
ktap_run "more bytes in early packets than fit" more_than_fits 1400 5001 drop-hold-bytes
ktap_run "a migration given up while packets are held" given_up_late
ktap_run "1 to 300 early packets at once" matrix
ktap_run "early packets of 64 KB" large_ones
ktap_run "nothing is held at the end" nothing_is_held
ktap_end
