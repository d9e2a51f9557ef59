#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# COMMIT or its answer is lost. The origin asks again until the deadline: the
# connection moves, or stays, or the client gets one RST that it takes, whatever
# the target has sent meanwhile; and late packets get none.
# timeout: 400

. "$(dirname "$0")/lib.sh"

replay=$(dirname "$tcp")/replay.py

# The connection between the migrators breaks, at this end only or at both.
break_at() {
	local machine
	for machine in "$@"; do ns "$machine" ss -K state established "( sport = :4770 or dport = :4770 )" >/dev/null; done
}

in_doubt() { migrations lbu | jq -e 'any(.phase == "committed")'; }
# The newest one, for those before it are shown for a while; or it has come to its end, where looking takes long.
lives_there() { migrations host1 | jq -e 'last.phase | . == "active" or . == "closed"'; }
staged_there() { migrations host1 | jq -e 'any(.phase == "staged")'; }

# RECORD THERE: a connection on its way, of which the RECORD is lost; THERE holds at host1.
on_its_way() {
	classifier --to $HOST1 --timeout 10000
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	lose "$1"
	start client client client $VIP 80 --bytes 20000 --chunk 500 --pause 0.05
	wait_for 10 in_doubt
	wait_for 10 "$2"
}
client_is_fine() {
	wait_for 40 test -s "$tmp/client.log"
	capture_stop
	cat "$tmp/client.log" "$tmp/classifier.log"
	jq -e '.error == null' "$tmp/client.log"
	"$pcap" no-rst "$tmp/to.pcap"
}
moved() { migrated 1; }
stayed() {
	refused 1 "$1"
	served classifier 1
	no_route_of "$(last_port)"
}

commit_late() {
	on_its_way commit staged_there
	find_again
	client_is_fine
	moved
}

injected_late() {
	on_its_way injected lives_there
	find_again
	client_is_fine
	moved
}

# The origin alone notices, and asks over a new connection.
injected_lost() {
	local before
	before=$(counter lbu migrator commits-repeated)
	on_its_way injected lives_there
	break_at lbu
	find_again
	client_is_fine
	moved
	[ "$(counter lbu migrator commits-repeated)" -gt "$before" ]
}

# The target notices as well, and gives up; it says so when it is asked.
commit_lost() {
	on_its_way commit staged_there
	break_at host1 lbu
	find_again
	client_is_fine
	stayed "origin lost"
}

# The host, which has given that one up, drops its late packets; but not those of a new connection with its addresses,
# which comes another way than from the LBU.
new_one_by_another_way() {
	local port
	port=$(migrations host1 | jq last.client_port)
	# The client's end of the old one is in TIME_WAIT.
	nap 1.2
	ns client sysctl -qw net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range="$port $port"
	ip -n client route change $VIP via 10.0.4.1
	ns client python3 - "$VIP" <<-'EOF'
	import socket, sys
	s = socket.create_connection((sys.argv[1], 80), timeout=20)
	s.sendall(b"here")
	assert s.recv(4) == b"here"
	EOF
	ip -n client route change $VIP via $LBU
	ns client sysctl -qw net.ipv4.ip_local_port_range="32768 60999"
	# The mapping goes when they are not dropped any more.
	ns host1 nlb -j mapping show side host | jq -e --argjson port "$port" 'any(.client_port == $port)' ||
		skip "it has taken so long that nothing is dropped any more"
}

# Nothing breaks, and no answer comes: the origin does not trust the connection any more.
commit_swallowed() {
	local port
	on_its_way commit staged_there
	port=$(ns lbu ss -Htn state established "dport = :4770" | awk '{ sub(/.*:/, "", $3); print $3; exit }')
	ns lbu nft "flush chain inet lose in
		flush chain inet lose out
		add rule inet lose out tcp sport $port tcp dport 4770 drop"
	client_is_fine
	find_again
	moved
}

# The target has the connection and speaks to the client, but never answers the origin. The client, who
# only listens, has to be told, with a number that the origin does not know.
client_waits() {
	classifier --to $HOST1 --timeout 3000
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	lose injected
	silent_client_is_reset
	capture_stop
	find_again
	refused 1 "no answer"
	tcpdump -nr "$tmp/to.pcap" 2>/dev/null
	"$pcap" one-rst $VIP "$tmp/to.pcap"
	no_route_of "$(last_port)"
}

target_is_told() { wait_for 15 nobody_there; }
nobody_there() {
	migrations host1 | jq -e 'all(.phase != "active")' && [ -z "$(ns host1 ss -Htn state established sport = :80)" ]
}

# Everything the client of the last connection ever sent comes again: a RST a second at most, in case the
# first one was lost.
late_packets() {
	local dropped sent seconds
	dropped=$(counter lbu migrator drop-tombstone)
	capture_start client lbu "$tmp/late.pcap" tcp port 80
	# The client's own RST in answer to ours would be one more packet.
	ns client nft "add table ip quiet
		add chain ip quiet out { type filter hook output priority 0; }
		add rule ip quiet out tcp flags rst drop"
	read -r sent seconds < <(ns client "$replay" "$tmp/to.pcap" $CLIENT "$(last_port)")
	capture_stop
	ns client nft delete table ip quiet
	echo "$sent late packets"
	tcpdump -nr "$tmp/late.pcap" 2>/dev/null
	[ "$(counter lbu migrator drop-tombstone)" -ge $((dropped + sent)) ]
	[ "$(tcpdump -nr "$tmp/late.pcap" "src host $VIP and tcp[tcpflags] & tcp-rst != 0" 2>/dev/null | wc -l)" -le "$seconds" ]
}

# A new connection from the same port of the same client is another one.
same_port() {
	classifier --to $HOST1
	ns client python3 - "$VIP" "$(last_port_of "$tmp/to.pcap")" <<-'EOF'
	import socket, sys
	s = socket.socket()
	s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	s.bind(("", int(sys.argv[2])))
	s.settimeout(20)
	s.connect((sys.argv[1], 80))
	for _ in range(50):
	    s.sendall(b"x" * 500)
	    got = 0
	    while got < 500:
	        got += len(s.recv(500))
	EOF
	migrated 1
}
last_port_of() { tcpdump -nr "$1" "dst host $VIP" 2>/dev/null | tail -n 1 | sed 's/.*'"$CLIENT"'\.\([0-9]*\) >.*/\1/'; }

try() {
	whole
	find_again 2>/dev/null
	ktap_run "$@"
	stop classifier
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
classifier --to $HOST1
client --bytes 1000 >/dev/null
try "COMMIT comes late: the connection moves" commit_late
try "INJECTED comes late: the connection moves" injected_late
try "INJECTED is lost with the connection it came by: it moves" injected_lost
try "COMMIT is lost with the connection it went by: it stays" commit_lost
ktap_run "the same port at once, by another way" new_one_by_another_way
try "a dead connection swallows COMMIT: it moves" commit_swallowed
try "no answer ever: a silent client gets one RST with the right number" client_waits
ktap_run "the target forgets it" target_is_told
ktap_run "late packets get no RST" late_packets
try "the same port may be used again at once" same_port
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_end
