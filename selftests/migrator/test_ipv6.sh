#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Connections over IPv6, moved between IPv6 peers, with all that goes along and
# all that may go wrong; IPv4 beside them.
# timeout: 600

. "$(dirname "$0")/state.sh"

early=$(dirname "$tcp")/early.py

moves_with_unread_bytes() {
	classifier --to $HOST1 --peek 1000 --timeout 20000
	watch
	client --bytes 1000-200000 --count 20 --parallel 4 --patience 60
	holds --connections 20 --moved 20
	migrated 20
	stop classifier
	# Signed by TCP-AO with the key of the IPv6 address.
	[ "$(counter host1 migrator segments-verified)" -gt 0 ]
	[ "$(counter host1 migrator drop-bad-mac)" = 0 ]
	migrations host1 | jq -e 'all(.vip_addr == "'$VIP'" and .client_addr == "'$CLIENT'")'
}

early_packets() {
	slow_answers 500ms
	ns client sysctl -qw net.ipv4.tcp_autocorking=0
	ip -n client route replace $VIP via $LBU6 initcwnd 512
	stop server-host1
	watch
	"$early" 1 3 64 200 300
	# On a busy machine some are tried again.
	holds
	ip -n client route del $VIP via $LBU6
	ns client sysctl -qw net.ipv4.tcp_autocorking=1
	prompt_answers
	server host1 server :: 80
}

# INJECTED never arrives, and the client only listens: it is asked, and told by one RST that it takes.
one_reset() {
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
	[ "$(counter lbu migrator reset-probes)" -gt 0 ]
	wait_for 15 nobody_there
	stop classifier
}
nobody_there() {
	migrations host1 | jq -e 'all(.phase != "active")' && [ -z "$(ns host1 ss -Htn state established sport = :80)" ]
}

last_port() { reports classifier '.place == "migrate"' | jq -r 'last.client | split(":") | last'; }

# The host says when the connection has ended, and then again when it is reset.
ends_are_told() {
	wait_for 20 all_closed
	wait_for 20 no_routes
	wait_for 100 no_mappings host1
}
all_closed() { migrations lbu | jq -e 'all(.phase != "active")'; }

by_address() {
	local from client
	start_load keeper lbu keeper $VIP 80
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --bytes 30000
	client=$!
	wait_for 30 one_remote
	from=$(remote)
	not ns lbu nlb migration start client "$from" vip 192.0.2.10:80 to $HOST1 2>"$tmp/error"
	grep "not of the VIP's address family" "$tmp/error"
	ns lbu nlb -j migration start client "$from" vip "[$VIP]:80" to $HOST1 | tee "$tmp/moved" |
		jq -e '.[0] | .phase == "active" and .peer_addr == "'$HOST1'" and .vip_addr == "'$VIP'"'
	wait $client
	end_load keeper
	jq -e '.accepted == 1 and .ECONNABORTED == 1' "$tmp/keeper.log"
}
remote() { ns lbu ss -Htn state established "sport = :80" | awk '{ print $4 }'; }
one_remote() { [ "$(remote | wc -l)" = 1 ]; }

drained() {
	start_load keeper lbu keeper $VIP 80
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count 20 --bytes 30000
	local client=$!
	wait_for 30 twenty
	ns lbu nlb -j migration drain from "[$VIP]:80" timeout 20000 to $HOST1 filter client=2001:db8:77::/48 >"$tmp/report"
	twenty
	ns lbu nlb -j migration drain from "[$VIP]:80" timeout 20000 to $HOST1 filter client=2001:db8:1::/64 >"$tmp/report"
	cat "$tmp/report"
	wait_for 10 none_left
	wait $client
	end_load keeper
}
twenty() { [ "$(remote | wc -l)" = 20 ]; }
none_left() { [ "$(remote | wc -l)" = 0 ]; }

# A classifier on a port of its own beside an application on the VIP's: brand new connections are steered.
steered() {
	ns lbu nlb service del "[$VIP]:80/tcp"
	ns lbu nlb service add "[$VIP]:80/tcp" mode peek classifier 8080
	start app lbu server :: 80
	start classifier lbu classifier :: 8080 --to $HOST1 --timeout 20000
	wait_listen lbu 80
	wait_listen lbu 8080
	client --bytes 20000 --count 3 --parallel 1
	migrated 3
	served app 0
	ns client "$tcp" client $LBU6 80 --bytes 2000
	served app 1
	stop classifier
	stop app
}

# nginx, unmodified, for both families by one socket; nlbd in front of it.
nginx_for_both() {
	local dir=$tmp/host1 family address
	mkdir -p "$dir/www"
	head -c 3000000 /dev/urandom >"$dir/www/page"
	stop server-host1
	start_nginx host1 "[::]:80 ipv6only=off"
	for address in "[$VIP]" 192.0.2.10; do
		family=$HOST1
		[ "$address" = "[$VIP]" ] || family=10.0.2.2
		printf '%s\n' "listen = [\"$address:80\"]" 'default = "one"' '[pool.one]' "hosts = [\"$family\"]" >"$tmp/classify.toml"
		background lbu "$tmp/nlbd.log" nlbd classify --config "$tmp/classify.toml"
		echo $! >"$tmp/nlbd.pid"
		wait_listen lbu 80
		for _ in 1 2 3; do ns client curl -sS -m 60 "http://$address/page" "http://$address/page" -o "$tmp/one" -o "$tmp/two"; done
		cmp "$dir/www/page" "$tmp/one"
		cmp "$dir/www/page" "$tmp/two"
		stop nlbd
	done
	cat "$tmp/nlbd.log" "$dir/access.log"
	[ "$(wc -l <"$dir/access.log")" = 12 ]
}

ktap_begin
cluster
ipv6
server host1 server :: 80
ktap_run "20 connections move with unread bytes" moves_with_unread_bytes
ktap_run "1 to 300 early packets at once" early_packets
ktap_run "a migration given up while packets are held" given_up
ktap_run "no answer ever: a silent client gets one RST with the right number" one_reset
ktap_run "connections named by their addresses" by_address
ktap_run "all connections of a service" drained
ktap_run "a classifier beside an application on the same port" steered
ktap_run "the LBU is told of their ends" ends_are_told
ktap_run "nlbd, and nginx with one socket for both families" nginx_for_both
# The scenarios have listeners of their own.
kill "$(cat "$tmp/host1/pid")" 2>/dev/null
wait_for 10 sh -c '[ -z "$(ip netns exec host1 ss -Htln sport = :80)" ]'
long_timeouts
scenarios packets_are_right <<-EOF
	200 KB in flight and lost, as much not sent: in_flight
	some segments in flight are lost: in_flight_holes
	in CLOSE_WAIT, the reply in flight: half_closed_with_reply
EOF
usual_timeouts
scenarios packets_are_right <<-EOF
	an attempt fails, all queues stay: rolled_back
	client's window closed, the update is lost: client_window_closed lost
	our window closed: our_window_closed
	5 holes: holes 5
	33 holes are refused: holes 33
	holes and a FIN behind them: holes 3 fin
	CLOSE_WAIT, 5 bytes unread: half_closed 5
	small segments: window_scales 7 7 1300
	links of 1300 bytes at the host: smaller_mtu
	timestamps in microseconds: microseconds
	options of the socket, traffic class among them: options
EOF
scenarios packets_without_handshake_are_right <<-EOF
	sequence numbers and timestamps wrap: wrap
EOF
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_end
