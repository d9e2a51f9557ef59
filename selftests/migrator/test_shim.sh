#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 600
#
# Classifier and application on one machine, both for port 80 of the VIP and
# without SO_REUSEPORT: a brand new connection is the classifier's, a migrated
# one, and one to another address of the machine, is the application's.

. "$(dirname "$0")/lib.sh"

# MACHINE COUNT: what the application there has accepted in all. It says so when it ends.
application() { start_load "server-$1" "$1" server 0.0.0.0 80 && wait_listen "$1" 80; }
accepted() {
	end_load "server-$1"
	jq -e --argjson n "$2" '(.accepted // 0) == $n' "$tmp/server-$1.log"
	application "$1"
}
# The classifier of lib.sh, on a port of its own.
aside() {
	start classifier lbu classifier $VIP 8080 --to "$1"
	wait_listen lbu 8080
}
at_vip() { ns client "$load" client $VIP 80 --count "$1" --bytes 5000; }

new_ones() {
	aside $HOST1
	at_vip 20
	migrated 20
	accepted host1 20
	accepted lbu 0
	[ "$(counter lbu fwd steered)" -ge 20 ]
	# The connection has the service's port, not the classifier's.
	migrations lbu | jq -e 'all(.vip_port == 80)'
	stop classifier
}

refused_ones() {
	aside 10.0.9.9
	client --bytes 5000
	refused 1 "no such peer"
	served classifier 1
	accepted lbu 0
	stop classifier
}

other_address() {
	aside $HOST1
	ns client "$load" client $LBU 80 --count 3 --bytes 5000
	accepted lbu 3
	migrated 0
	stop classifier
}

# Without a classifier there is one listener, which gets everything.
no_classifier() {
	local before
	before=$(counter lbu fwd pass-no-classifier)
	at_vip 3
	accepted lbu 3
	[ "$(counter lbu fwd pass-no-classifier)" -gt "$before" ]
}

# With a SYN cookie nothing remembers the connection before its ACK comes.
cookies() {
	ns lbu sysctl -qw net.ipv4.tcp_syncookies=2
	aside $HOST1
	at_vip 5
	ns lbu sysctl -qw net.ipv4.tcp_syncookies=1
	migrated 5
	accepted lbu 0
	stop classifier
}

# Early demultiplexing finds connections before the hook does, if it is on.
no_early_demux() {
	ns lbu sysctl -qw net.ipv4.tcp_early_demux=0
	aside 10.0.9.9
	client --bytes 50000 --count 3
	ns lbu sysctl -qw net.ipv4.tcp_early_demux=1
	refused 3 "no such peer"
	accepted lbu 0
	stop classifier
}

# A SYN for a connection in TIME_WAIT is brand new, too.
time_wait() {
	ip netns exec lbu python3 - >"$tmp/closer.log" <<-'END' &
	import socket
	s = socket.create_server(("192.0.2.10", 8080))
	for turn in range(2):
	    c, peer = s.accept()
	    assert c.getsockname() == ("192.0.2.10", 80), c.getsockname()
	    # This side closes first.
	    c.shutdown(socket.SHUT_WR)
	    assert c.recv(1) == b""
	    c.close()
	    print("accepted", peer[1], flush=True)
	END
	local closer=$!
	wait_listen lbu 8080
	ns client python3 - <<-'END'
	import socket, time
	for turn in range(2):
	    s = socket.socket()
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	    s.bind(("", 45678))
	    s.settimeout(20)
	    s.connect(("192.0.2.10", 80))
	    assert s.recv(1) == b""
	    s.close()
	    time.sleep(1)
	END
	wait $closer
	cat "$tmp/closer.log"
	[ "$(grep -c 'accepted 45678' "$tmp/closer.log")" = 2 ]
	accepted lbu 0
}

# The application here is no target for the classifier here.
to_itself() {
	ns lbu nlb peer add $LBU unauthenticated
	aside $LBU
	client --bytes 5000
	ns lbu nlb peer del $LBU
	refused 1 "peer is this machine"
	served classifier 1
	stop classifier
}

# host2 is an LBU as well, whose classifier moves its connections to this machine.
migrated_here() {
	aside $HOST1
	ns lbu nlb forwarder add $HOST2
	ns host2 nlb service add $VIP:80/tcp mode peek
	ns host2 nlb endpoint add $VIP:80/tcp host $LBU_TO_HOST2
	stop server-host2
	start second host2 classifier $VIP 80 --to $LBU_TO_HOST2
	wait_listen host2 80
	# The client has another address on that side.
	ip -n lbu route replace 10.0.5.2 via $CLIENT
	ip -n client route replace $VIP via 10.0.5.1
	at_vip 10
	ip -n client route replace $VIP via 10.0.1.1
	cat "$tmp/second.log"
	[ "$(reports second '.place == "migrate" and .error == null' | jq length)" = 10 ]
	accepted lbu 10
	migrated 0
	stop second
	stop classifier
	application host2
}

ktap_begin
cluster
ns lbu nlb service del $VIP:80/tcp
ns lbu nlb service add $VIP:80/tcp mode peek classifier 8080
ns lbu nlb -j service show | jq -e '.[0].classifier_port == 8080' >/dev/null || fail "the service has no classifier port"
for machine in lbu host1 host2; do application $machine; done
ktap_run "brand new connections go to the classifier, and on" new_ones
ktap_run "what cannot be moved stays with the classifier" refused_ones
ktap_run "another address of the machine is the application's" other_address
ktap_run "without a classifier the application gets all" no_classifier
ktap_run "brand new connections by SYN cookies" cookies
ktap_run "brand new connections without early demultiplexing" no_early_demux
ktap_run "a brand new connection after TIME_WAIT" time_wait
ktap_run "refused: to the same machine" to_itself
ktap_run "migrated connections go to the application" migrated_here
ktap_end
