#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# However a migrated connection ends at the host, the LBU is told, and lets go of
# the route.

. "$(dirname "$0")/lib.sh"

# A connection to the VIP that is left open; its port is in $tmp/port.
opened() {
	rm -f "$tmp/port" "$tmp/end"
	ip netns exec client python3 - "$tmp" >"$tmp/open.log" 2>&1 <<-'END' &
	import pathlib, socket, sys
	tmp = pathlib.Path(sys.argv[1])
	s = socket.create_connection(("192.0.2.10", 80), timeout=100)
	s.sendall(b"x" * 1000)
	(tmp / "port").write_text(str(s.getsockname()[1]))
	try:
	    while s.recv(4096):
	        pass
	    print("end")
	except OSError as error:
	    print(type(error).__name__)
	END
	client=$!
	wait_for 20 [ -s "$tmp/port" ]
	wait_for 20 migrated 1
	phase active
}
phase() { migrations lbu | jq -e --argjson p "$(cat "$tmp/port")" --arg phase "$1" 'any(.client_port == $p and .phase == $phase)'; }
# The route may stay for the last packets of a connection, but not as that of a living one.
told() {
	wait_for 30 phase closed
	wait_for 30 no_routes
	migrations host1 | jq -e --argjson p "$(cat "$tmp/port")" 'any(.client_port == $p and .phase == "closed")'
}

# Between injection and accept().
listener_closed() {
	server host1 server 0.0.0.0 80 --no-accept
	classifier --to $HOST1
	opened
	stop server-host1
	told
	wait $client
	grep -q ConnectionResetError "$tmp/open.log"
	stop classifier
}

# With bytes that it has not read: the client gets a RST.
application_killed() {
	start_load keeper host1 keeper 0.0.0.0 80
	wait_listen host1 80
	classifier --to $HOST1
	opened
	# Accepted.
	wait_for 10 ns host1 sh -c "ss -Htnp state established sport = :80 | grep -q users:"
	kill -KILL "$(cat "$tmp/keeper.pid")"
	told
	wait $client
	grep -q ConnectionResetError "$tmp/open.log"
	stop classifier
}

# Nothing comes from the client any more, and the host gives up.
client_vanishes() {
	server host1 server 0.0.0.0 80
	classifier --to $HOST1
	ns host1 sysctl -qw net.ipv4.tcp_retries2=3
	ns host1 nft 'add table ip cut
		add chain ip cut out { type filter hook output priority 0; }
		add rule ip cut out ip saddr 192.0.2.10 drop'
	opened
	told
	ns host1 nft delete table ip cut
	kill $client
	stop classifier
	stop server-host1
}

apart() {
	cut_peers
	ns lbu ss -K -t dport = :4770
	ns host1 ss -K -t sport = :4770
	wait_for 20 lost
}
lost() { ns lbu nlb -j peer show | jq -e --arg host $HOST1 'any(.addr == $host and .state != "up")'; }

# While the migrators do not reach each other, and for longer than the host remembers it.
nobody_to_be_told() {
	local asked
	asked=$(commits_repeated)
	server host1 server 0.0.0.0 80
	classifier --to $HOST1 --timeout 1000
	opened
	apart
	kill $client
	wait_for 20 ended host1
	phase active
	sleep 13
	mend_peers
	told
	[ "$(commits_repeated)" -gt "$asked" ]
	stop classifier
	stop server-host1
}
ended() { migrations "$1" | jq -e --argjson p "$(cat "$tmp/port")" 'any(.client_port == $p and .phase == "closed")'; }

# One that lives on is not taken for one that has ended, and its end is heard of over the new connection.
lives_on() {
	local asked
	server host1 server 0.0.0.0 80
	classifier --to $HOST1
	opened
	apart
	asked=$(commits_repeated)
	mend_peers
	wait_for 20 asked_again "$asked"
	# The answer comes.
	nap 2
	phase active
	kill $client
	told
	stop classifier
	stop server-host1
}

# Of a host that is no peer any more nothing is heard: the route finds out by itself, but not before a keepalive is due.
nobody_tells() {
	server host1 server 0.0.0.0 80
	classifier --to $HOST1
	opened
	route_kept_for 400000 432000
	ns lbu nlb peer del $HOST1
	wait_for 20 phase closed
	# What the service says goes first.
	ns lbu nlb service set $VIP:80/tcp idle-timeout 8000
	route_kept_for 7900 8000
	ns lbu nlb service set $VIP:80/tcp idle-timeout 0
	route_kept_for 7200 7440
	# One that moves afterwards is heard of again.
	peer_add lbu $HOST1
	ns lbu nlb route flush host $HOST1
	kill $client
	: >"$tmp/classifier.log"
	opened
	route_kept_for 400000 432000
	kill $client
	told
	stop classifier
	stop server-host1
}
# The route of the connection expires in so many seconds without a packet, at least and at most.
route_kept_for() {
	ns lbu nlb -j route show | jq -e --argjson p "$(cat "$tmp/port")" --argjson from $1 --argjson to $2 \
		'map(select(.client_port == $p).expires / 1000) | length == 1 and all(. > $from and . <= $to)'
}
commits_repeated() { ns lbu nlb -j stats show migrator | jq '.[0].counters["commits-repeated"]'; }
asked_again() { [ "$(commits_repeated)" -gt "$1" ]; }

ktap_begin
cluster
ktap_run "the client connects again from the same port" "$(dirname "$tcp")/reopen.py"
ktap_run "the listener is closed before it has accepted" listener_closed
ktap_run "the application is killed" application_killed
ktap_run "the client vanishes" client_vanishes
ktap_run "nobody hears of the end until the host has forgotten it" nobody_to_be_told
ktap_run "one that lives on while the migrators are apart" lives_on
ktap_run "of a host that is no peer any more nothing is heard" nobody_tells
ktap_end
