#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets that reach the host before the connection does are held and delivered
# in order: no RST, no byte lost. The migrators' answers are made slow, so that
# the client sends all the while.

. "$(dirname "$0")/lib.sh"

held_in_order() {
	classifier --to $HOST1 --peek 1000
	client --bytes 2000
	slow_answers 60ms
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	capture_start client host1 "$tmp/from.pcap" tcp port 80
	client --bytes 60000 --chunk 1000 --pause 0.004 --count 10 --parallel 1
	capture_stop
	prompt_answers
	migrated 11
	"$pcap" no-rst "$tmp/to.pcap" "$tmp/from.pcap"
	migrations lbu
	migrations host1 | jq -e '[.[].held_packets] | add > 20'
	stop classifier
}

# Far more than may be held: what is over is lost like in any network, and
# comes again.
more_than_fits() {
	classifier --to $HOST1 --peek 1000 --timeout 5000
	client --bytes 2000
	slow_answers 400ms
	client --bytes 4000000 --chunk 100 --count 1
	prompt_answers
	served server-host1 12
	stop classifier
}

# A migration that is given up: what was held is dropped and sent again.
given_up() {
	classifier --to $HOST1 --peek 1000 --timeout 300
	client --bytes 2000
	slow_answers 200ms
	capture_start client lbu "$tmp/to.pcap" tcp port 80
	start client client client $VIP 80 --bytes 60000 --chunk 1000 --pause 0.004
	wait_for 10 frozen
	cut_peers
	wait_for 30 test -s "$tmp/client.log"
	capture_stop
	mend_peers
	prompt_answers
	cat "$tmp/client.log"
	jq -e '.error == null' "$tmp/client.log"
	"$pcap" no-rst "$tmp/to.pcap"
	stop classifier
}
frozen() { migrations lbu | jq -e 'any(.phase == "frozen" or .phase == "prepared")'; }

nothing_is_held() {
	wait_for 10 no_mappings host1
	[ "$(counter host1 migrator held-now)" = 0 ]
}

ktap_begin
cluster
server host1 server 0.0.0.0 80
ktap_run "early packets are held and delivered in order" held_in_order
ktap_run "more early packets than fit" more_than_fits
ktap_run "a migration given up while packets are held" given_up
ktap_run "nothing is held at the end" nothing_is_held
ktap_end
