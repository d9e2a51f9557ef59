#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Connections move at random moments, while the client sends and gets all the
# time: every byte that was acknowledged appears, and each connection keeps all
# that invariants.py checks. COUNT connections (100, or 1000 with LONG=1); SEED
# repeats a run.
# timeout: 3000

. "$(dirname "$0")/lib.sh"

count=${COUNT:-${LONG:+1000}}
count=${count:-100}
seed=${SEED:-$RANDOM$RANDOM}
# So many connections in a row for each capture, which a small machine has to keep.
batch=50

# HOST BYTES OPTION...: `batch` connections of so many bytes each, which are served by the LBU for a random
# part of it before they move; client options.
moved_while_busy() {
	local host=$1 bytes=$2 size part
	shift 2
	while ((count_left > 0)); do
		size=$((count_left < batch ? count_left : batch))
		part=$seed-$host-$count_left
		start classifier lbu classifier $VIP 80 --to "$host" --serve 1-60000 --seed "$part" --timeout 20000
		wait_listen lbu 80
		watch
		client --count $size --parallel 8 --bytes "$bytes" --seed "$part" "$@" >"$tmp/clients.log" || {
			grep -v '"error": null' "$tmp/clients.log" "$tmp/classifier.log"
			holds --connections $size || :
			return 1
		}
		all_moved $size
		migrated $size
		stop classifier
		count_left=$((count_left - size))
	done
	reports classifier '.place == "migrate"' | jq -c '[.[].attempts] | {most_attempts: max, attempts: add}'
}

all_gone() {
	wait_for 30 no_routes
	wait_for 100 no_mappings host1
	[ "$(counter host1 migrator held-now)" = 0 ]
	[ "$(counter lbu migrator out-reset)" = 0 ]
	no_backlog
}

# Much over one connection, whose headers alone are no small capture.
one_stream() { "$(dirname "$tcp")/stream.py" "$1"; }
megabytes=${LONG:+1024}
megabytes=${megabytes:-64}

# For two minutes and more after the move, the client sends now and then, and probes of it while it is idle.
lasting_begins() {
	service_add $VIP:8000/tcp
	start lasting-server host1 server 0.0.0.0 8000
	start lasting-classifier lbu classifier $VIP 8000 --to $HOST1
	wait_listen host1 8000
	wait_listen lbu 8000
	start lasting client client $VIP 8000 --bytes 4200 --chunk 100 --pause 3 --keepalive
	wait_for 20 has_moved
}
has_moved() { reports lasting-classifier '.error == null' | jq -e 'length == 1'; }
lasting_ends() {
	wait_for 180 test -s "$tmp/lasting.log"
	cat "$tmp"/lasting*.log
	jq -e '.error == null and .bytes == 4200' "$tmp/lasting.log"
	served lasting-server 1
	(($(ns client nstat -asz TcpExtTCPKeepAlive | awk '/KeepAlive/ { print $2 }') >= 20))
}

ktap_begin
ktap_note "seed $seed"
cluster
ktap_run "one moves that will last for long" lasting_begins
ktap_run "$megabytes MB in each direction over one connection" one_stream $megabytes
server host1 server 0.0.0.0 80
server host2 server 0.0.0.0 80
count_left=$((count / 2)) ktap_run "$((count / 2)) connections of 64 to 512 KiB" \
	moved_while_busy $HOST1 65536-524288 --chunk 20000
count_left=$((count - count / 2)) ktap_run "$((count - count / 2)) connections with small segments" \
	moved_while_busy $HOST2 65536-131072 --chunk 700
ktap_run "two minutes afterwards, it goes on" lasting_ends
ktap_run "nothing is left" all_gone
ktap_end
