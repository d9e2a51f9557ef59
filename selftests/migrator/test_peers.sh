#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The migrators' port against strangers, garbage and peers that break off.

. "$(dirname "$0")/lib.sh"

# From a machine that is no peer: closed without a word.
stranger() {
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
	[ "$(ns host1 nlb -j peer show | jq length)" = 1 ]
}

# From a peer: every kind of nonsense closes that connection and nothing else.
garbage() {
	ns lbu python3 - <<-'EOF'
	import random, socket, struct
	r = random.Random(1)
	def crc32c(data):
	    crc = 0xFFFFFFFF
	    for byte in data:
	        crc ^= byte
	        for _ in range(8):
	            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
	    return crc ^ 0xFFFFFFFF
	def record(kind, payload, length=None, magic=b"nlbm", version=1, crc=None):
	    head = struct.pack(">4sBBHIQ", magic, version, kind, 0, len(payload) if length is None else length, 7)
	    good = crc32c(head + struct.pack(">I", 0) + payload)
	    return head + struct.pack(">I", good if crc is None else crc) + payload
	hello = record(1, b"")
	attempts = [b"", b"n", b"nlb", b"GET / HTTP/1.0\r\n\r\n", bytes(24), b"\xff" * 24,
	            record(1, b"", magic=b"nlbn"), record(1, b"", version=9), record(1, b"", crc=1),
	            record(99, b""), record(2, b""), record(5, b"\0" * 10), record(7, b"", length=0xFFFFFFFF),
	            record(2, bytes(2000)), record(5, bytes(60000)), record(1, b"\0" * 65536)]
	attempts += [r.randbytes(r.randrange(1, 400)) for _ in range(40)]
	attempts += [record(r.randrange(256), r.randbytes(r.randrange(300))) for _ in range(60)]
	for data in attempts:
	    s = socket.create_connection(("10.0.2.2", 4770), timeout=10)
	    s.settimeout(15)
	    try:
	        s.sendall(data)
	        s.shutdown(socket.SHUT_WR)
	        while s.recv(4096):
	            pass
	    except TimeoutError:
	        raise
	    except OSError:
	        # It was closed before all was said.
	        pass
	    s.close()
	EOF
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
many_silent() {
	ns lbu python3 - <<-'EOF'
	import socket
	keep = []
	for _ in range(200):
	    try:
	        s = socket.create_connection(("10.0.2.2", 4770), timeout=5)
	        keep.append(s)
	    except OSError:
	        pass
	assert keep
	EOF
}

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
	refused 1 ""
	stop classifier
	ns host1 nlb peer add $LBU_TO_HOST1
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
