#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh instructions | nanoseconds | load | soak: the benchmark of migrations, inside a guest. It prints what was
# measured (JSON), a table for people, and at the end lines NAME=VALUE for programs.
#
# COUNT=N: connections of each case (default 200). CROWD=N: where many are moved at a time (default 1000). MINUTES=N: how
# long the soak takes (default 10).

. "$(dirname "$0")/../migrator/lib.sh"
. "$(dirname "$0")/common.sh"

count=${COUNT:-200} crowd=${CROWD:-1000}
# What a migration costs.

# Two machines that have nothing to do with nlb.
peer_topology() {
	netns_add rclient rhost
	ip link add rhost netns rclient type veth peer name rclient netns rhost
	ip -n rhost addr add 10.1.0.1/24 dev rclient
	ip -n rclient addr add 10.1.0.2/24 dev rhost
	ip -n rhost link set rclient up
	ip -n rclient link set rhost up
	ip -n rhost addr add "$VIP/32" dev lo
	ip -n rclient route add "$VIP" via 10.1.0.1
	# A packet takes a while: what the client does with it is not part of moving the connection.
	ns rhost tc qdisc add dev rclient root netem delay 5ms
}

# Bytes that the client has sent, and those of them that are unread when the connection moves.
sizes="1000 500" large="16884 16384"

# Every answer of the target is two seconds late: after three, as many as may stand still at a time are frozen and
# staged. Ahead of all others, for what these leave in the slab allocator would be used again.
standing_still() {
	slow_answers 2s
	# shellcheck disable=SC2086
	measure rate client lbu host1 $VIP $HOST1 $sizes 32 32 3
	prompt_answers
}

# By TCP_REPAIR and by nlb, one connection after the other; before those, the function that is named.
costs() {
	peer_topology
	# shellcheck disable=SC2086
	{
		measure repair rclient rhost $VIP $sizes "$count" whole
		measure repair rclient rhost $VIP $large "$count" whole
		measure repair rclient rhost $VIP $sizes "$count" lossless
		measure repair rclient rhost $VIP $large "$count" lossless
		measure repair rclient rhost $VIP $sizes "$count" bare
		measure repair rclient rhost $VIP $large "$count" bare
		cluster
		"${1:-:}"
		measure migrate client lbu host1 $VIP $HOST1 $sizes "$count"
		measure migrate client lbu host1 $VIP $HOST1 $large "$count"
	}
}

# table WHAT: of the costs.
table() {
	# shellcheck disable=SC2016
	show '
		def line: "p50 \(.p50), p10 \(.p10), p90 \(.p90)";
		"", "'"$1"' to move a connection, Linux \($kernel)",
		(range(of("migration") | length) as $i | of("tcp_repair_whole")[$i] as $t |
			of("tcp_repair_lossless")[$i] as $l | of("tcp_repair_bare")[$i] as $b | of("migration")[$i] as $n |
			"", "  \($n.unread) bytes unread, \($n.count) connections",
			"    TCP_REPAIR: dump             \($t.dump | line)",
			"                close            \($t.close | line)",
			"                restore          \($t.restore | line)",
			"                all              \($t.both | line)",
			"                lossless         \($l.both | line)",
			"                bare             \($b.both | line)",
			"    nlb:        export and close \($n.export | line)",
			"                inject           \($n.inject | line)",
			"                all              \($n.both | line)",
			"                close and accept \($n.files | line), by the programs, not in \"all\"",
			"                frozen           \($n.freeze | line)",
			"                whole migration  \($n.total | line)",
			"    nlb to TCP_REPAIR            \($n.both.p50 / $t.both.p50 | three), lossless \($n.both.p50 / $l.both.p50 | three), bare \($n.both.p50 / $b.both.p50 | three)"),
		""'
}

instructions() {
	clock_counts_instructions
	costs standing_still
	# The work of both machines, on one processor.
	# shellcheck disable=SC2086
	measure rate client lbu host1 $VIP $HOST1 $sizes "$crowd" 16
	table Instructions
	# shellcheck disable=SC2016
	show '
		(of("rate") as [$memory, $rate] |
			"  \($rate.count) connections by \($rate.threads) callers: \($rate.ns / $rate.count | round) instructions for each, all parts",
			"  \($memory.count) at the same moment, staged and frozen: \($memory.bytes_in_flight) bytes of kernel memory for each"),
		"",
		"memory_in_flight=\(of("rate")[0].bytes_in_flight)",
		(of("migration")[0] | "export_instructions=\(.export.p50)", "inject_instructions=\(.inject.p50)", "frozen_instructions=\(.freeze.p50)"),
		"tcp_repair_instructions=\(of("tcp_repair_whole")[0].both.p50)",
		"migration_vs_tcp_repair_lossless=\(of("migration")[0].both.p50 / of("tcp_repair_lossless")[0].both.p50 | three)",
		"migration_vs_tcp_repair_bare=\(of("migration")[0].both.p50 / of("tcp_repair_bare")[0].both.p50 | three)",
		"migration_vs_tcp_repair_16k=\(of("migration")[1].both.p50 / of("tcp_repair_whole")[1].both.p50 | three)",
		"migration_vs_tcp_repair=\(of("migration")[0].both.p50 / of("tcp_repair_whole")[0].both.p50 | three)",
		"migrations_per_s=\(of("rate")[1] | .count * 1e9 / .ns | round)"'
}

# The same in time, where the clock tells it.
nanoseconds() {
	costs
	table Nanoseconds
	# shellcheck disable=SC2016
	show '
		(of("migration")[0] | "export_ns=\(.export.p50)", "inject_ns=\(.inject.p50)", "frozen_ns=\(.freeze.p50)"),
		"tcp_repair_ns=\(of("tcp_repair_whole")[0].both.p50)",
		"migration_vs_tcp_repair_ns=\(of("migration")[0].both.p50 / of("tcp_repair_whole")[0].both.p50 | three)"'
}

# Real clients: nginx on the hosts, nlbd on the LBU.

web() {
	local host dir
	for host in host1 host2; do
		dir=$tmp/$host
		mkdir -p "$dir/www"
		head -c 1000 /dev/zero | tr '\0' x >"$dir/www/page"
		start_nginx "$host" "80 backlog=4096" off
	done
}

nlbd_start() {
	cat >"$tmp/classify.toml" <<-EOF
	listen = ["$VIP:80"]
	default = "all"
	unplaced = "close"
	[pool.all]
	hosts = ["$HOST1", "$HOST2"]
	EOF
	background lbu "$tmp/nlbd.log" nlbd classify --config "$tmp/classify.toml"
	nlbd=$!
	wait_listen lbu 80
}
nlbd_stop() {
	kill -TERM "$nlbd"
	wait_for 20 gone "$nlbd" || fail "nlbd does not end: $(cat "$tmp/nlbd.log")"
	cat "$tmp/nlbd.log"
}

balanced_by_the_kernel() {
	ns lbu nlb service del $VIP:80/tcp
	ns lbu nlb service add $VIP:80/tcp mode l4
	ns lbu nlb endpoint add $VIP:80/tcp host $HOST1
	ns lbu nlb endpoint add $VIP:80/tcp host $HOST2
}

# Retransmission timeouts of all machines since they were started, those of the migrators included.
timeouts() {
	local machine sum=0
	for machine in client lbu host1 host2; do
		sum=$((sum + $(ns $machine awk '$1 == "TcpExt:" {
			if (!n) n = split($0, name); else for (i = 1; i <= n; i++) if (name[i] == "TCPTimeouts") print $i
		}' /proc/net/netstat)))
	done
	echo $sum
}

# load NAME: clients one at a time, then many, with the timeouts that they caused.
load() {
	local before
	measure ns client load "warm-$1" $VIP /page 50 2 1
	before=$(timeouts)
	measure ns client load "$1" $VIP /page "$crowd" 5 1
	measure ns client load "$1" $VIP /page "$crowd" 5 16
	echo "{\"what\":\"timeouts\",\"of\":\"$1\",\"count\":$(($(timeouts) - before))}" | tee -a "$results"
}

under_load() {
	local moved
	cluster
	web
	nlbd_start
	load migrated
	nlbd_stop
	moved=$(counter lbu migrator out-active)
	[ "$moved" = $((2 * crowd + 50)) ] || fail "$moved connections were moved instead of $((2 * crowd + 50))"
	balanced_by_the_kernel
	load l4
	# shellcheck disable=SC2016
	show '
		def us: . / 1000 | round;
		def line: "p50 \(.p50 | us), p99 \(.p99 | us)";
		"", "Time of HTTP requests in microseconds, Linux \($kernel) on '"$(nproc)"' processors",
		(range(2) as $i | of("migrated")[$i] as $m | of("l4")[$i] as $l |
			"", "  \($m.connections) connections with 5 requests each, \($m.clients) at a time",
			"    first request, the connection is migrated    \($m.first | line)",
			"    later requests of the same connections       \($m.later | line)",
			"    first request, mode l4 (nothing is migrated) \($l.first | line)",
			"    later requests, mode l4                      \($l.later | line)",
			"    added by the migration                       p50 \($m.first.p50 - $l.first.p50 | us), p99 \($m.first.p99 - $l.first.p99 | us)",
			"    migrations per second meanwhile              \($m.connections * 1e9 / $m.ns | round)"),
		"",
		(of("timeouts")[] | "  retransmission timeouts on all machines, \(.of): \(.count)"),
		"",
		"latency_added_p50_us=\(of("migrated")[0].first.p50 - of("l4")[0].first.p50 | us)",
		"latency_added_p99_us=\(of("migrated")[0].first.p99 - of("l4")[0].first.p99 | us)",
		"rto_caused=\(of("timeouts")[0].count)"'
}

no_route() { [ "$(ns lbu nlb -j route show | jq length)" = 0 ]; }

# $settled: what the kernel keeps for good, in KiB, when all that is remembered of connections for a while is forgotten.
# In the file slabs-$1, what of.
settle() {
	local machine cache
	# Those of ended connections stay for a while, too.
	wait_for 300 no_route || fail "routes stay"
	for machine in host1 host2; do wait_for 120 no_mappings $machine || fail "mappings stay"; done
	# Longer than tombstones and arrivals, and TIME_WAIT.
	sleep 70
	echo 3 >/proc/sys/vm/drop_caches
	# Pages whose objects are all free are kept, too.
	for cache in /sys/kernel/slab/*/shrink; do echo 1 >"$cache" || true; done
	awk 'NR > 2 { print $1, $2, $4 }' /proc/slabinfo | sort >"$tmp/slabs-$1"
	settled=$(awk '$1 == "SUnreclaim:" { print $2 }' /proc/meminfo)
}

# As many connections as come through, each of which moves, for minutes: what grows?
soak() {
	local before timeouts begin moved seconds
	cluster
	web
	nlbd_start
	# What is allocated once and stays.
	measure ns client load warm $VIP /page "$((4 * crowd))" 2 16
	settle before
	before=$settled timeouts=$(timeouts) moved=$(counter lbu migrator out-active)
	begin=$SECONDS
	while ((SECONDS - begin < ${MINUTES:-10} * 60)); do
		measure ns client load soak $VIP /page "$crowd" 2 16
	done
	seconds=$((SECONDS - begin)) moved=$(($(counter lbu migrator out-active) - moved)) timeouts=$(($(timeouts) - timeouts))
	settle after
	nlbd_stop
	echo
	echo "  $moved connections have moved in $seconds seconds, and each was answered twice"
	echo "  memory of the kernel, in KiB: $before before, $settled after"
	echo "  of these, where more than ten KiB have come: objects before and after"
	join "$tmp/slabs-before" "$tmp/slabs-after" |
		awk '{ kib = ($4 - $2) * $3 / 1024 } kib > 10 { printf "    %-24s %7d %7d   %d KiB\n", $1, $2, $4, kib }' | sort -k 4 -n -r
	echo
	echo "soak_connections=$moved"
	echo "soak_per_s=$((moved / seconds))"
	echo "soak_grown_kib=$((settled - before))"
	echo "soak_rto=$timeouts"
}

case ${1:-} in
instructions) instructions ;;
nanoseconds) nanoseconds ;;
load) under_load ;;
soak) soak ;;
*) fail "usage: bench.sh instructions | nanoseconds | load | soak" ;;
esac
