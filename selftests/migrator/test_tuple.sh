#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# A connection can be named by its addresses, whatever program has it; that
# program finds it aborted. What is no connection of a program is refused.

. "$(dirname "$0")/lib.sh"

# The address and port of the client of the only connection to the VIP at the LBU.
remote() { ns lbu ss -Htn state established "sport = :80" | awk '{ print $4 }' | sed 's/^\[::ffff:\(.*\)\]/\1/'; }
one_remote() { [ "$(remote | wc -l)" = 1 ]; }
by_tuple() { ns lbu nlb -j migration start client "$1" vip "${2:-$VIP:80}" to $HOST1; }
# refuses TEXT CLIENT VIP
refuses() {
	local text=$1
	shift
	not by_tuple "$@" 2>"$tmp/error"
	cat "$tmp/error"
	jq -e --arg text "$text" '.error == $text' "$tmp/error"
}

# ADDRESS: where the program listens.
moves() {
	start_load keeper lbu keeper "$1" 80
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --bytes 30000
	local client=$!
	wait_for 30 one_remote
	by_tuple "$(remote)" >"$tmp/moved"
	cat "$tmp/moved"
	jq -e '.[0] | .phase == "active" and .role == "origin" and .peer_addr == "10.0.2.2"' "$tmp/moved"
	wait $client
	cat "$tmp/client.log"
	end_load keeper
	jq -e '.accepted == 1 and .ECONNABORTED == 1' "$tmp/keeper.log"
}

not_there() {
	refuses "no such connection" 10.0.1.2:40000
	refuses "no such connection" 10.0.1.2:40000 $VIP:81
}

# In the accept queue it has no program that could be told.
not_accepted() {
	start idle lbu server $VIP 80 --no-accept
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --bytes 1000
	local client=$!
	wait_for 30 one_remote
	refuses "no program has accepted the connection yet" "$(remote)"
	stop idle
	# It gets a RST with the end of the program, as ever.
	not wait $client
	jq -e '.failures == {"recv: ECONNRESET (sent 1000, got 0)": 1}' "$tmp/client.log"
}

# TIME_WAIT is no connection any more.
time_wait() {
	local from
	start_load server lbu server $VIP 80
	wait_listen lbu 80
	from=$(ns client python3 - <<-'END'
	import socket
	s = socket.create_connection(("192.0.2.10", 80))
	print("%s:%d" % s.getsockname())
	s.sendall(b"x")
	s.recv(1)
	s.shutdown(socket.SHUT_WR)
	s.recv(1)
	END
	)
	# The client has it: the migration of its other end.
	wait_for 10 ns client sh -c "[ -n \"\$(ss -Htn state time-wait sport = :${from##*:})\" ]"
	not ns client nlb -j migration start client $VIP:80 vip "$from" to $HOST1 2>"$tmp/error"
	jq -e '.error == "connection is not established" and .errno == "ENOTCONN"' "$tmp/error"
	end_load server
}

# The migrators' own connection.
of_the_kernel() {
	local port
	port=$(ns lbu ss -Htn state established "dport = :4770 and dst $HOST1" | awk '{ print $3 }' | head -n 1)
	[ -n "$port" ]
	refuses "socket belongs to the kernel" $HOST1:4770 "$port"
}

# Connections of another namespace are not there.
elsewhere() {
	start_load keeper lbu keeper $VIP 80
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --bytes 1000
	wait_for 30 one_remote
	not ns host2 nlb -j migration start client "$(remote)" vip $VIP:80 to $LBU_TO_HOST2 2>"$tmp/error"
	jq -e '.error == "no such connection"' "$tmp/error"
	by_tuple "$(remote)"
	end_load keeper
}

ktap_begin
cluster
start_load server-host1 host1 server 0.0.0.0 80
wait_listen host1 80
ktap_run "a connection named by its addresses moves, and its program is told" moves $VIP
ktap_run "an IPv4 connection of an IPv6 socket moves" moves ::
ktap_run "refused: no such connection" not_there
ktap_run "refused: not accepted" not_accepted
ktap_run "refused: TIME_WAIT" time_wait
ktap_run "refused: a connection of the kernel" of_the_kernel
ktap_run "refused: a connection of another namespace" elsewhere
ktap_end
