#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# When a migration can not be, the connection stays with the classifier and
# works as if nobody had tried. When nobody can know who owns it, the client
# gets a RST instead of silence.
# timeout: 400

. "$(dirname "$0")/lib.sh"

# TEXT: host1 refuses with it, the client is served by the classifier.
stays() {
	watch
	client --bytes 100000
	holds --connections 1 --moved 0
	refused 1 "$1"
	served classifier 1
	no_route_of "$(last_port)"
	stop classifier
}

no_listener() {
	classifier --to $HOST1
	stays "no listener"
}

queue_full() {
	local i
	start full-host1 host1 server 0.0.0.0 80 --backlog 0 --no-accept
	wait_listen host1 80
	classifier --to $HOST1
	# The first goes into the queue and stays there; then there is no room.
	for i in 1 2; do
		start "filler$i" client client $VIP 80 --bytes 100 --patience 200
	done
	wait_for 20 refused 1 "accept queue"
	: >"$tmp/classifier.log"
	stays "accept queue"
	stop filler1
	stop filler2
	stop full-host1
}

unknown_forwarder() {
	ns host1 nlb forwarder del $LBU_TO_HOST1
	classifier --to $HOST1
	stays "forwarder"
	ns host1 nlb forwarder add $LBU_TO_HOST1
}

vip_not_here() {
	ip -n host1 addr del $VIP/32 dev nlb0
	classifier --to $HOST1
	stays "VIP"
	ip -n host1 addr add $VIP/32 dev nlb0
}

options_differ() {
	ns host1 sysctl -qw "net.ipv4.$1=0"
	classifier --to $HOST1
	stays "$2"
	ns host1 sysctl -qw "net.ipv4.$1=1"
}

# The peer does not take calls.
peer_unreachable() {
	cut_peers
	classifier --to $HOST1 --timeout 500
	stays "no answer"
	mend_peers
}

# PHASE BYTES: host1 falls silent when the migration has come to PHASE. The client sends 1000 bytes at
# once and the rest slowly.
silent_in() {
	classifier --to $HOST1 --timeout 8000
	# The connection between the migrators is up before the answers get slow.
	client --bytes 1000
	slow_answers 2s
	: >"$tmp/classifier.log"
	start client client client $VIP 80 --bytes "$2" --chunk 1000 --pause 0.2
	wait_for 30 in_phase "$1"
	cut_peers
	wait_for 60 test -s "$tmp/client.log"
	mend_peers
	prompt_answers
	cat "$tmp/client.log" "$tmp/classifier.log"
}
in_phase() { migrations lbu | jq -e --arg phase "$1" 'any(.phase == $phase)'; }

silent_before_commit() {
	silent_in "$1" 1000
	refused 1 "no answer"
	jq -e '.error == null' "$tmp/client.log"
	migrations lbu | jq -e 'any(.phase == "aborted")'
	no_route_of "$(last_port)"
	stop classifier
}

silent_after_commit() {
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	silent_in committed 80000
	capture_stop
	jq -e '.error != null' "$tmp/client.log"
	migrations lbu | jq -e 'any(.phase == "reset")'
	"$pcap" one-rst $VIP "$tmp/to.pcap"
	no_route_of "$(last_port)"
	stop classifier
}

nobody_else_waits() {
	classifier --to $HOST1
	client --bytes 1000
	stop classifier
	cut_peers
	"$(dirname "$0")/waits.py" ip netns exec lbu nft delete table inet cut
}

works_again() {
	classifier --to $HOST1
	client --bytes 100000 --count 5
	migrated 5
	stop classifier
}

try() {
	whole
	ktap_run "$@"
}

ktap_begin
cluster
try "no listener on the host" no_listener
try "accept queue full" queue_full
server host1 server 0.0.0.0 80
try "forwarder not known to the host" unknown_forwarder
try "VIP not on the host" vip_not_here
try "host without timestamps" options_differ tcp_timestamps timestamps
try "host without window scaling" options_differ tcp_window_scaling scaling
try "host without SACK" options_differ tcp_sack SACK
try "peer unreachable" peer_unreachable
try "target falls silent after PREPARE" silent_before_commit preparing
try "target falls silent after STATE" silent_before_commit frozen
try "target falls silent after COMMIT: one RST" silent_after_commit
try "a silent target keeps nobody else waiting" nobody_else_waits
try "the next connections move" works_again
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_end
