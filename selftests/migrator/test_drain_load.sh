#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# debug
# timeout: 600
#
# Thousands of connections leave by one command, while all of their clients go on sending. COUNT: 2,000, or 10,000 with
# LONG=1.

. "$(dirname "$0")/lib.sh"

count=${COUNT:-${LONG:+10000}}
count=${count:-2000}
# Each client sends 16 times, for longer than the drain takes.
pause=5 chunk=100 bytes=1600
[ -z "${LONG:-}" ] || pause=20

established() { ns lbu ss -Htn state established "sport = :80" | wc -l; }
all_are_here() { [ "$(established)" = "$count" ]; }
# What all clients together have sent, in segments with data that are no repetitions.
sent() { ns client nstat -asz TcpExtTCPOrigDataSent | awk '/OrigDataSent/ { print $2 }'; }

# Nobody reads at the LBU: what the clients have sent so far goes along, and what they send meanwhile goes after it.
under_load() {
	local machine client before during
	for machine in host1 host2; do
		start_load server-$machine $machine server 0.0.0.0 80
		wait_listen $machine 80
	done
	start_load keeper lbu keeper $VIP 80
	wait_listen lbu 80
	background client "$tmp/client.log" "$load" client $VIP 80 --count "$count" --every 0.001 \
		--chunk $chunk --bytes $bytes --pause $pause --patience $((60 * pause))
	client=$!
	wait_for $((24 * pause)) all_are_here
	before=$(sent)
	ns lbu nlb -j migration drain from $VIP:80 to $HOST1 to $HOST2 jobs 64 timeout 20000 >"$tmp/report"
	during=$(($(sent) - before))
	cat "$tmp/report"
	jq -e --argjson n "$count" '.connections == $n and .moved == $n and .passes == 1 and (.hosts | length) == 2' \
		"$tmp/report"
	jq -r '"# \(.moved) connections moved, \(.moved_per_second | floor) a second"' "$tmp/report"
	echo "# meanwhile, the clients have sent $during segments"
	((during > 0))
	wait $client || :
	# Each has got back what it has sent, byte by byte.
	cat "$tmp/client.log"
	jq -e --argjson n "$count" '.good == $n and .connections == $n' "$tmp/client.log"
	end_load keeper
	jq -e --argjson n "$count" '.accepted == $n and .ECONNABORTED == $n' "$tmp/keeper.log"
	end_load server-host1
	end_load server-host2
	# And the servers have got it once.
	cat "$tmp"/server-host[12].log | jq -es --argjson n "$count" --argjson bytes $bytes \
		'(map(.accepted) | add) == $n and (map(.finished) | add) == $n and (map(.bytes) | add) == $n * $bytes'
}
nothing_is_left() {
	wait_for 60 no_routes
	wait_for 100 no_mappings host1
	wait_for 60 no_mappings host2
	[ "$(counter lbu migrator out-reset)" = 0 ]
	no_backlog
}

ktap_begin
cluster
ktap_run "$count connections under load" under_load
ktap_run "nothing is left" nothing_is_left
ktap_end
