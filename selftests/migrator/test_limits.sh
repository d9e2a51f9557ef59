#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# What is in a migration's way and is no matter of the connection's state: an error
# that waits to be read, no way back to the client, no memory for TCP in the whole
# machine, packets that come late.

. "$(dirname "$0")/lib.sh"

limits=$(dirname "$tcp")/limits.py

# The host cannot answer the client: it finds out at the latest when it makes the socket.
no_way_back() {
	ip -n host1 route del 10.0.1.2
	ip -n host1 route del default
	server host1 server 0.0.0.0 80
	classifier --to $HOST1
	watch
	client --bytes 100000
	holds --connections 1 --moved 0
	refused 1 "stack refused the connection (no route to the client?)"
	served classifier 1
	no_route_of "$(last_port)"
	stop classifier
	ip -n host1 route add 10.0.1.2 via 10.0.4.2
	ip -n host1 route add default via 10.0.2.1
	classifier --to $HOST1
	client --bytes 100000
	migrated 1
	stop classifier
	stop server-host1
}

no_memory() {
	slow_answers 1s
	"$limits" no_memory
	prompt_answers
}

nothing_is_held() {
	wait_for 100 no_mappings host1
	[ "$(counter host1 migrator held-now)" = 0 ]
	no_backlog
}

ktap_begin
cluster
ktap_run "an error waits to be read" "$limits" error_waits
ktap_run "no route from the host to the client" no_way_back
ktap_run "TCP has no memory left" no_memory
ktap_run "nothing is held at the end" nothing_is_held
ktap_run "packets that come late, here and there" "$limits" late_packets
ktap_end
