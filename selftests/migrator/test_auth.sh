#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Who may speak to a migrator: keys that agree, disagree, change and go, and what others get.
# timeout: 900

. "$(dirname "$0")/keys.sh"

# The LBU's port of its connection with host1.
link_port() { ns lbu ss -Htn state established dport = :4770 dst $HOST1 | awk '{ sub(".*:", "", $3); print $3 }'; }

signed() {
	capture_start host1 lbu "$tmp/link.pcap" tcp port 4770
	moves
	capture_stop
	"$peer" signed "$tmp/link.pcap" | grep 'keys 1$'
	ns host1 nlb -j peer key show | jq -e '.[0] | .good > 0 and .bad == 0 and .preferred and .sending == 1'
	[ "$(counter host1 migrator segments-verified)" -gt 0 ]
}

wrong_secret() {
	keys "key 1 secret-file $tmp/secret" "key 1 secret-file $tmp/other"
	local before mib
	before=$(counter host1 migrator drop-bad-mac) mib=$(snmp host1 TCPAOBad)
	stays
	more host1 drop-bad-mac "$before"
	[ "$(snmp host1 TCPAOBad)" -gt "$mib" ]
	ns host1 nlb -j peer key show | jq -e '.[0].bad > 0'
}

wrong_algorithm() {
	local before algorithm
	keys "key 1 secret-file $tmp/secret algorithm hmac-sha1" "key 1 secret-file $tmp/secret"
	before=$(counter host1 migrator drop-bad-mac)
	stays
	more host1 drop-bad-mac "$before"
	for algorithm in hmac-sha1 aes-128-cmac; do
		keys "key 1 secret-file $tmp/secret algorithm $algorithm" "key 1 secret-file $tmp/secret algorithm $algorithm"
		moves
	done
}

wrong_id() {
	local before
	keys "key 1 secret-file $tmp/secret" "key 2 secret-file $tmp/secret"
	before=$(counter host1 migrator drop-unknown-key)
	stays
	more host1 drop-unknown-key "$before"
	# Ids need not be the same both ways, they have to match.
	keys "key 10 recv-id 20 secret-file $tmp/secret" "key 20 recv-id 10 secret-file $tmp/secret"
	moves
}

one_side_only() {
	local before
	keys "key 1 secret-file $tmp/secret" unauthenticated
	before=$(counter host1 migrator drop-unknown-key)
	stays
	more host1 drop-unknown-key "$before"
	keys unauthenticated "key 1 secret-file $tmp/secret"
	before=$(counter host1 migrator drop-unsigned)
	stays
	more host1 drop-unsigned "$before"
}

neither() {
	keys unauthenticated unauthenticated
	ns host1 nlb peer show | grep unauthenticated
	moves
	# The first key ends what is not signed.
	for m in lbu:$HOST1 host1:$LBU_TO_HOST1; do
		ns ${m%%:*} nlb peer key add ${m#*:} id 1 secret-file "$tmp/secret"
	done
	not grep unauthenticated < <(ns host1 nlb peer show)
	capture_start host1 lbu "$tmp/link.pcap" tcp port 4770 and 'tcp[tcpflags] & tcp-syn != 0'
	wait_for 10 moves
	capture_stop
	"$peer" signed "$tmp/link.pcap"
}

# Whoever has the peer's address, or another one, but no key: not even a SYN-ACK.
stranger() {
	good
	local before
	for from in lbu:$HOST1 client:10.0.4.1; do
		before=$(counter host1 migrator drop-unsigned)
		capture_start host1 ${from%%:*} "$tmp/stranger.pcap" tcp src port 4770
		ns ${from%%:*} "$peer" nothing ${from#*:}
		capture_stop
		# The header of the file alone.
		[ "$(stat -c %s "$tmp/stranger.pcap")" = 24 ]
		more host1 drop-unsigned "$before"
	done
	before=$(counter host1 migrator drop-bad-mac)
	ns lbu "$peer" nothing $HOST1 --secret "$tmp/other"
	more host1 drop-bad-mac "$before"
	moves
}

# New keys come and old ones go while connections move over one connection between the migrators.
rotation() {
	good
	classifier --to $HOST1
	client --bytes 20000
	local port id
	port=$(link_port)
	[ -n "$port" ]
	client --bytes 20000 --count 40 --parallel 3 >"$tmp/many.log" &
	local pid=$!
	for id in 2 3; do
		new_secret "$tmp/secret$id"
		ns lbu nlb peer key add $HOST1 id $id secret-file "$tmp/secret$id"
		ns host1 nlb peer key add $LBU_TO_HOST1 id $id secret-file "$tmp/secret$id"
		sleep 1
		ns lbu nlb peer key use $HOST1 id $id
		sleep 1
		ns host1 nlb peer key use $LBU_TO_HOST1 id $id
		wait_for 20 all_use lbu $id
		wait_for 20 all_use host1 $id
		ns lbu nlb peer key del $HOST1 id $((id - 1))
		ns host1 nlb peer key del $LBU_TO_HOST1 id $((id - 1))
	done
	wait $pid
	reports classifier '.place == "migrate" and .error != null'
	migrated 41
	[ "$(link_port)" = "$port" ]
	stop classifier
	capture_start host1 lbu "$tmp/link.pcap" tcp port 4770
	moves
	capture_stop
	"$peer" signed "$tmp/link.pcap" | grep 'keys 3$'
}
# all_use MACHINE ID: what it sends is signed with that key.
all_use() { ns "$1" nlb -j peer key show | jq -e --argjson id "$2" 'all(.[]; (.sending == 0) != (.send_id == $id))'; }

# A key that both sides sign with goes: the connection goes on with another one that both have. If
# they have none, it breaks, and comes again when they do.
removal() {
	good
	moves
	local port
	port=$(link_port)
	ns lbu nlb peer key add $HOST1 id 2 secret-file "$tmp/other"
	ns host1 nlb peer key add $LBU_TO_HOST1 id 2 secret-file "$tmp/other"
	ns lbu nlb peer key del $HOST1 id 1
	moves
	ns host1 nlb peer key del $LBU_TO_HOST1 id 1
	moves
	[ "$(link_port)" = "$port" ]
	ns lbu nlb peer key add $HOST1 id 3 secret-file "$tmp/secret"
	ns lbu nlb peer key del $HOST1 id 2
	classifier --to $HOST1 --timeout 1000
	client --bytes 20000
	refused 1 "no answer"
	stop classifier
	ns host1 nlb peer key add $LBU_TO_HOST1 id 3 secret-file "$tmp/secret"
	wait_for 60 moves
}

ktap_begin
cluster
new_secret "$tmp/other"
server host1 server 0.0.0.0 80
ktap_run "signed connections between migrators" signed
ktap_run "another secret" wrong_secret
ktap_run "another algorithm" wrong_algorithm
ktap_run "another id" wrong_id
ktap_run "a key on one side only" one_side_only
ktap_run "no key, and then one" neither
ktap_run "who has no key gets no answer" stranger
ktap_run "keys rotate under running migrations" rotation
ktap_run "a key goes that is in use" removal
ktap_end
