#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# What a target makes of segments that were sent before, of peers it cannot talk to, and of peers that
# have the key and ask for what is not theirs; and what can be seen of the keys.
# timeout: 900

. "$(dirname "$0")/keys.sh"

# Segments of this connection and of one before, and of a handshake, sent again.
replayed() {
	good
	local before
	state() { ns host1 nlb -j stats show migrator | jq -c '.[0].counters | [."records-in", ."bad-records", ."in-active", ."in-refused", ."in-aborted"]'; }
	capture_start lbu host1 "$tmp/old.pcap" tcp port 4770
	moves
	capture_stop
	# Answers that are on their way arrive first.
	wait_for 20 no_live_in
	before=$(state)
	ns lbu "$peer" replay host1 "$tmp/old.pcap"
	moves_state "$before"
	good
	moves
	wait_for 20 no_live_in
	before=$(state)
	ns lbu "$peer" replay host1 "$tmp/old.pcap"
	moves_state "$before"
	moves
}
no_live_in() { ns host1 nlb -j migration show | jq -e 'all(.[]; .role != "target" or .phase == "closed")'; }
moves_state() { sleep 1; [ "$(state)" = "$1" ] || { echo "$1 became $(state)"; return 1; }; }

capabilities() {
	good
	[ "$(ns lbu "$peer" capabilities $HOST1 --secret "$tmp/secret")" = pong ]
	[ "$(ns lbu "$peer" capabilities $HOST1 --secret "$tmp/secret" --bits 0xffff)" = pong ]
	[ "$(ns lbu "$peer" capabilities $HOST1 --secret "$tmp/secret" --bits 0x40001)" = \
		"refused: unknown capability is required: 0x40000" ]
	[ "$(ns lbu "$peer" capabilities $HOST1 --secret "$tmp/secret" --version 9)" = \
		"refused: peer speaks another version: 9 to 9, here 1" ]
	moves
	# And the other way round, as an origin.
	ns lbu nlb peer del $HOST1
	ns host1 nlb peer del $LBU_TO_HOST1
	background host1 "$tmp/refuser.log" "$peer" refuser $HOST1
	local pid=$!
	wait_listen host1 4770
	ns lbu nlb peer add $HOST1 unauthenticated
	classifier --to $HOST1
	client --bytes 20000
	refused 1 "unknown capability is required: 0x10000"
	stop classifier
	ns lbu nlb -j peer show $HOST1 | jq -e '.[0].state == "failed"'
	kill $pid
	wait $pid || true
}

# A state from a peer is a request to make a socket, and not each is granted.
forged() {
	good
	# Not by a function: its shell would not pass the signal on.
	ip netns exec lbu tcpdump -q -n -U --immediate-mode -s 0 -i host1 -w "$tmp/prepare.pcap" tcp dst port 4770 2>"$tmp/prepare.err" &
	local pid=$! before
	wait_for 30 grep -q 'listening on' "$tmp/prepare.err"
	moves
	kill -INT $pid
	wait $pid || true
	forge() { ns lbu "$peer" forge $HOST1 --secret "$tmp/secret" "$tmp/prepare.pcap" "$@"; }
	for client in 0.0.0.0 0.1.2.3 224.0.0.1 239.1.2.3 255.255.255.255; do
		# Not even a record.
		forge $CLIENT=$client | grep '^closed'
	done
	for client in $HOST1 $VIP 127.0.0.1 10.0.4.1 10.0.4.255; do
		forge $CLIENT=$client | grep "^refused: client's address is not another machine's"
	done
	for vip in 192.0.2.11 $HOST1 127.0.0.1 $LBU; do
		forge $VIP=$vip | grep '^refused: VIP is not on an nlb device'
	done
	forge $LBU_TO_HOST1=10.0.2.77 | grep '^refused: forwarder is not configured'
	# What was asked for in truth: the connection is gone, so is its port; it could come.
	stop server-host1
	forge $CLIENT=10.0.1.3 | grep '^refused: no listener'
	server host1 server 0.0.0.0 80
	wait_for 100 no_mappings host1
	before=$(counter host1 migrator in-active)
	moves
	[ "$(counter host1 migrator in-active)" = $((before + 2)) ]
}

flooded() { "$(dirname "$tcp")/holds.py" "$tmp/secret" "$tmp/prepare.pcap"; }

# Nothing that can be read of a machine has a secret in it.
secrets() {
	good
	moves
	local secret
	secret=$(cat "$tmp/secret")
	{
		ns lbu nlb peer show
		ns lbu nlb -j peer show
		ns lbu nlb peer key show
		ns lbu nlb stats show
		ns lbu ss -tnaeimpO
		dmesg
		cat /proc/[0-9]*/cmdline /proc/[0-9]*/comm
		ns lbu python3 - <<-PY
		import sys
		sys.path.insert(0, "$(dirname "$0")/..")
		import genl
		for reply in genl.Family("nlb-migrator").dump("PEER_GET").replies:
		    print(reply)
		PY
	} >"$tmp/all" 2>/dev/null
	[ "$(wc -l <"$tmp/all")" -gt 20 ]
	not grep -qaF "${secret:0:16}" "$tmp/all"
	not ns lbu nlb peer key add $HOST1 id 5 secret-file /dev/null 2>"$tmp/all"
	not ns lbu nlb peer key add $HOST1 id 1 secret-file "$tmp/secret" 2>>"$tmp/all"
	grep "peer has a key with this id" "$tmp/all"
	not grep -qaF "${secret:0:16}" "$tmp/all"
}

# slow_peer HOW: host2 is a peer that has agreed to take connections and then hardly reads.
slow_peer() {
	good
	ns host2 nlb peer del $LBU_TO_HOST2
	ns lbu nlb peer del $HOST2
	background host2 "$tmp/slow.log" "$peer" "$1" $HOST2
	local pid=$!
	wait_listen host2 4770
	ns lbu nlb peer add $HOST2 unauthenticated
	"$(dirname "$tcp")/drips.py" "$1" "$tmp/slow.log"
	kill $pid
	wait $pid || true
	ns lbu nlb peer del $HOST2
	peer_add lbu $HOST2
	peer_add host2 $LBU_TO_HOST2
}
signals() {
	good
	stop server-host1
	# So that there is something to wait for.
	slow_answers 20ms
	"$(dirname "$tcp")/drips.py" signals
	prompt_answers
	server host1 server 0.0.0.0 80
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
ktap_run "capabilities and versions" capabilities
ktap_run "secrets stay secret" secrets
ktap_run "old segments are sent again" replayed
ktap_run "states that no target takes" forged
ktap_run "more early packets than are held of all connections" flooded
ktap_run "a peer that reads in drips keeps no connection frozen" slow_peer drips
ktap_run "the rest of a record comes later" slow_peer late
ktap_run "signals meanwhile" signals
ktap_end
