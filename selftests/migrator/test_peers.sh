#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The migrators' port against strangers, garbage and peers that break off.

. "$(dirname "$0")/lib.sh"

peer=$(dirname "$0")/peer.py

# From a machine that is no peer: not answered; where unauthenticated peers have to be answered, closed
# without a word.
stranger() {
	ns client "$peer" nothing 10.0.4.1
	ns host1 nlb peer add 10.0.9.9 unauthenticated
	local before
	before=$(counter host1 migrator drop-not-peer)
	ns client python3 - <<-'EOF'
	import socket
	s = socket.create_connection(("10.0.4.1", 4770), timeout=10)
	s.settimeout(10)
	try:
	    s.sendall(b"hello")
	    assert s.recv(100) == b""
	except ConnectionResetError:
	    pass
	EOF
	[ "$(counter host1 migrator drop-not-peer)" = $((before + 1)) ]
	ns host1 nlb peer del 10.0.9.9
	ns client "$peer" nothing 10.0.4.1
}

# From a peer: every kind of nonsense closes that connection and nothing else.
garbage() {
	ns lbu "$peer" garbage $HOST1 --secret "$tmp/secret"
	ns host1 nlb peer show
	ns host1 nlb -j peer show | jq -e '.[0].bad_records > 50'
}

still_works() {
	classifier --to $HOST1
	client --bytes 50000 --count 3
	migrated 3
	stop classifier
}

# More connections than are allowed, all silent.
many_silent() { ns lbu "$peer" silent $HOST1 --secret "$tmp/secret"; }

# The peers' connection is killed; the next migration sets up a new one.
reconnect() {
	ns host1 ss -K sport = :4770 >/dev/null
	ns lbu ss -K dport = :4770 >/dev/null
	classifier --to $HOST1
	client --bytes 50000 --count 2
	served server-host1 5
	stop classifier
}

removed_peer() {
	ns host1 nlb peer del $LBU_TO_HOST1
	classifier --to $HOST1 --timeout 500
	client --bytes 50000
	refused 1 "no answer"
	stop classifier
	peer_add host1 $LBU_TO_HOST1
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
ktap_run "a connection moves before" still_works
ktap_run "a stranger gets nothing" stranger
ktap_run "garbage closes the connection that sent it" garbage
ktap_run "hundreds of silent connections" many_silent
: >"$tmp/server-host1.log"
ktap_run "connections still move" still_works
ktap_run "the migrators' connection breaks" reconnect
ktap_run "a peer that was removed takes nothing" removed_peer
ktap_end
