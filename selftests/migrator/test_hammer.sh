#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Netlink requests and records at random, from an address that is trusted, while
# connections move: those do not mind, and nothing is left over. SEED repeats a
# run; LONG=1 makes it ten times as long.
# timeout: 1200

. "$(dirname "$0")/lib.sh"

seed=${SEED:-$RANDOM$RANDOM}
count=${LONG:+1500}
count=${count:-150}

# What /proc/net/sockstat says of TCP, without memory and TIME_WAIT, which come and go.
sockets() { ns "$1" sed -n 's/^TCP: inuse \([0-9]*\) orphan \([0-9]*\) .* alloc \([0-9]*\) .*/inuse \1 orphan \2/p' /proc/net/sockstat; }
settled() {
	local machine
	for machine in lbu host1; do
		sockets $machine
		[ "$(sockets $machine)" = "$(cat "$tmp/sockets-$machine")" ]
	done
}

# Ports of these connections are not those of later ones, which nobody shall end by saying again what was said.
something_to_repeat() {
	capture lbu host1 "$tmp/migrators.pcap" -- tcp port 4770
	capture_ready
	ns client sysctl -qw net.ipv4.ip_local_port_range="20000 29999"
	classifier --to $HOST1
	client --count 12 --parallel 3 --bytes 20000-60000 --seed "$seed"
	ns client sysctl -qw net.ipv4.ip_local_port_range="40000 60999"
	capture_stop
	stop classifier
	wait_for 30 no_routes
	wait_for 100 no_mappings host1
	sockets lbu | tee "$tmp/sockets-lbu"
	sockets host1 | tee "$tmp/sockets-host1"
	[ -s "$tmp/sockets-lbu" ] && [ -s "$tmp/sockets-host1" ]
}

hammered() {
	ns lbu nlb service add $VIP:8080/tcp mode peek
	ns lbu nlb endpoint add $VIP:8080/tcp host $HOST1
	ns lbu nlb keep add $VIP:8080 bytes 100
	start server-own host1 server 0.0.0.0 8080
	wait_listen host1 8080
	classifier --to $HOST1
	start client client client $VIP 80 --count $((count * 2)) --parallel 2 --bytes 5000-30000 --seed "$seed" --pause 0.05
	"$(dirname "$tcp")/hammer.py" "$seed" $count "$tmp/migrators.pcap"
	stop server-own
}

others_did_not_mind() {
	wait_for 300 gone "$(cat "$tmp/client.pid")"
	reports client '.error != null'
	[ "$(reports client '.error != null' | jq length)" = 0 ]
	reports classifier '.place == "migrate"' | jq -c 'group_by(.text) | map({text: .[0].text, count: length})'
	reports classifier '.place == "migrate" and .error == null' | jq -e 'length > 20'
	stop classifier
}

still_works() {
	classifier --to $HOST1
	client --count 10 --bytes 50000
	migrated 10
	stop classifier
}

# Connections that were made of old records may wait for a client that does not exist, as long as their server lives.
# (ss -K ends connections only where the kernel has INET_DIAG_DESTROY.)
nothing_is_left() {
	server host1 server 0.0.0.0 80
	wait_for 100 no_mappings host1 || ns host1 nlb mapping show
	wait_for 60 settled
	[ "$(counter host1 migrator held-now)" = 0 ]
	no_backlog
}

# Nor do they try for a quarter of an hour to have something acknowledged.
little_patience() { ns host1 sysctl -qw net.ipv4.tcp_retries2=5 net.ipv4.tcp_orphan_retries=3; }

ktap_begin
ktap_note "seed $seed"
cluster
little_patience
# Without the key nothing of the nonsense would come as far as the records.
for pair in "host1 $LBU_TO_HOST1" "lbu $HOST1"; do
	read -r machine peer <<<"$pair"
	ns "$machine" nlb peer del "$peer"
	ns "$machine" nlb peer add "$peer" unauthenticated
done
server host1 server 0.0.0.0 80
ktap_run "something to repeat" something_to_repeat
ktap_run "nonsense by netlink and by the migrators' port" hammered
ktap_run "connections moved meanwhile, without an error" others_did_not_mind
ktap_run "connections move afterwards" still_works
ktap_run "nothing is left" nothing_is_left
ktap_end
