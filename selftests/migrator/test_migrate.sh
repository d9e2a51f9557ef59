#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Connections move from the LBU into a host, with every byte in its place and
# nobody the wiser, whatever options the client uses and however much it had
# sent before.

. "$(dirname "$0")/lib.sh"

one_connection() {
	classifier --to $HOST1
	capture lbu host1 "$tmp/tunnel.pcap" -s 256 -- tcp and not port 4770
	watch
	client --bytes 300000
	holds --connections 1 --moved 1
	migrated 1
	wait_for 5 served server-host1 1
	served classifier 0
	"$pcap" same-length "$tmp/sent-client.pcap" "$tmp/tunnel.pcap"
	"$pcap" no-data-from $VIP "$tmp/sent-lbu.pcap"
	stop classifier
}

is_reported() {
	migrations lbu
	migrations lbu | jq -e '.[0] | .role == "origin" and .peer_addr == "10.0.2.2" and .vip_port == 80 and .export_ns > 0 and .freeze_ns > 0'
	migrations host1 | jq -e '.[0] | .role == "target" and .peer_addr == "10.0.2.1" and .inject_ns > 0'
}

leaves_nothing() {
	wait_for 30 no_routes
	wait_for 100 no_mappings host1
	migrations lbu | jq -e 'all(.phase == "closed")'
	migrations host1 | jq -e 'all(.phase == "closed")'
}

# Nothing read, some unread, more than one segment unread.
unread() {
	classifier --to $HOST1 --peek "$1"
	client --bytes 400000 --first "$1" --first-pause 0.3
	migrated 1
	migrations lbu | jq -e --argjson n "$1" '[.[] | select(.unread_bytes >= $n)] | length >= 1'
	stop classifier
}

# The classifier may have taken bytes; the rest goes on where it stopped, or as far before as it gives
# back of them. READ GIVEN
after_read() {
	classifier --to $HOST1 --peek 100 --read "$1" --give-back "$2"
	# The server echoes what it gets.
	ns client python3 - $(($1 - $2)) <<-'EOF'
	import socket, sys
	first = int(sys.argv[1])
	s = socket.create_connection(("192.0.2.10", 80), timeout=20)
	s.sendall(bytes(range(100)))
	got = b""
	while len(got) < 100 - first:
	    part = s.recv(100)
	    assert part, got
	    got += part
	assert got == bytes(range(first, 100)), got
	s.sendall(b"more")
	assert s.recv(100) == b"more"
	EOF
	migrated 1
	stop classifier
}

# As much as one netlink attribute holds, together with as much that was not read.
much_read() {
	classifier --to $HOST1 --peek 60000 --read 32767 --give-back 32767
	client --bytes 400000 --chunk 60000 --first-pause 0.3
	migrated 1
	migrations lbu | jq -e '[.[] | select(.unread_bytes >= 60000)] | length >= 1'
	stop classifier
}

# Nobody can give back more than there was; the connection stays.
more_than_read() {
	classifier --to $HOST1 --peek 100 --read 40 --give-back 41
	client --bytes 100 --chunk 100 --patience 3 || :
	wait_for 10 refused 1 "more bytes are given back than were read"
	stop classifier
}

# NAME=VALUE...: options that the client does not offer.
without() {
	local setting
	for setting in "$@"; do ns client sysctl -qw "net.ipv4.$setting=0"; done
	classifier --to $HOST2
	watch
	client --bytes 300000 --count 3
	holds --connections 3 --moved 3
	migrated 3
	stop classifier
	for setting in "$@"; do ns client sysctl -qw "net.ipv4.$setting=1"; done
}

many() {
	classifier --to $HOST1
	watch
	client --count 100 --parallel 20 --bytes 30000
	all_moved 100
	migrated 100
	wait_for 10 no_routes
	stop classifier
}

application_ends_first() {
	classifier --to $HOST1
	ns client python3 - <<-'EOF'
	import socket
	s = socket.create_connection(("192.0.2.10", 80), timeout=20)
	s.sendall(b"x" * 1000)
	s.shutdown(socket.SHUT_WR)
	got = 0
	while part := s.recv(4096):
	    got += len(part)
	assert got == 1000, got
	EOF
	stop classifier
}

# Nothing of this end passes the LBU: only the host can tell it.
host_resets() {
	classifier --to $HOST1
	ns client python3 - <<-'EOF' &
	import socket
	s = socket.create_connection(("192.0.2.10", 80), timeout=30)
	s.sendall(b"x")
	assert s.recv(10) == b"x"
	try:
	    raise SystemExit(f"got {s.recv(10)} instead of a reset")
	except ConnectionResetError:
	    pass
	EOF
	local client=$! port
	wait_for 20 migrated 1
	port=$(last_port)
	wait_for 10 ns host1 sh -c "ss -Htn state established dport = :$port | grep -q ."
	ns lbu nlb -j route show | jq -e --argjson p "$port" 'any(.client_port == $p and .state == "established")'
	ns host1 ss -K state established dport = ":$port"
	wait $client
	wait_for 20 no_routes
	migrations lbu | jq -e --argjson p "$port" 'any(.client_port == $p and .phase == "closed")'
	stop classifier
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
server host2 server 0.0.0.0 80
ktap_run "a connection moves with every byte, unseen" one_connection
ktap_run "both sides report it" is_reported
ktap_run "after its end nothing is left" leaves_nothing
ktap_run "1 unread byte" unread 1
ktap_run "10,000 unread bytes" unread 10000
ktap_run "60,000 unread bytes" unread 60000
ktap_run "bytes the classifier has read stay with it" after_read 40 0
ktap_run "bytes the classifier has read and gives back" after_read 40 40
ktap_run "the last of the bytes the classifier has read, given back" after_read 60 1
ktap_run "32767 bytes given back, and more that were not read" much_read
ktap_run "refused: more bytes given back than were read" more_than_read
ktap_run "client without timestamps" without tcp_timestamps
ktap_run "client without window scaling" without tcp_window_scaling
ktap_run "client without SACK" without tcp_sack
ktap_run "client without any option" without tcp_timestamps tcp_window_scaling tcp_sack
ktap_run "100 connections, 20 at a time" many
ktap_run "the application ends a connection" application_ends_first
ktap_run "the host resets a connection: the LBU is told" host_resets
ktap_end
