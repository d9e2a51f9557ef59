#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Migration between machines that have booted at different times, and that lose
# power at every step of the protocol. Runs in the client's guest of
# scripts/machines; LBU and host are guests of their own.

. "$(dirname "$0")/../migrator/lib.sh"

machines=$(realpath "$(dirname "$0")")
many=$machines/many.py
invariants=$machines/../invariants.py

# Namespaces of this guest as ever, and the other guests by their control port.
eval "namespace_$(declare -f ns)"
ns() {
	case $1 in
	lbu) remote 10.0.1.1 "${@:2}" ;;
	host1) remote 10.0.4.1 "${@:2}" ;;
	*) namespace_ns "$@" ;;
	esac
}
remote() {
	local answer
	answer=$(printf '%q ' "${@:2}" | namespace_ns client timeout 30 socat -t 30 - "TCP:$1:7000,connect-timeout=2") || :
	[ -n "$answer" ] || {
		echo "$1 does not answer to: ${*:2}" | cut -c1-200 >&2
		return 255
	}
	printf '%s\n' "${answer%$'\n'*}"
	return "${answer##*$'\n'}"
}
# run MACHINE NAME PROGRAM...: in the background, until the machine ends.
run() { ns "$1" bash -c "setsid $(printf '%q ' "${@:3}") >/tmp/log/$2 2>&1 </dev/null &"; }

boot_id() { ns "$1" cat /proc/sys/kernel/random/boot_id; }
# Off, and on again, as if by the switch.
power_cycle() {
	boot=$(boot_id "$1")
	timeout 3 bash -c "$(declare -f ns remote namespace_ns); ns $1 sh -c 'echo b >/proc/sysrq-trigger'" || :
}
reborn() { local now; now=$(boot_id "$1") && [ -n "$now" ] && [ "$now" != "$boot" ]; }
uptime_of() { ns "$1" cut -d. -f1 /proc/uptime | head -n 1; }

client_network() {
	modprobe virtio_net
	wait_for 30 test -e /sys/class/net/eth1
	ip netns add client
	ip link set eth0 netns client
	ip link set eth1 netns client
	ip -n client link set lo up
	# Replies from the VIP come in by another link than the one that leads to it.
	namespace_ns client sysctl -qw net.ipv4.conf.all.rp_filter=2
	ip -n client addr add 10.0.1.2/24 dev eth0
	ip -n client addr add 10.0.4.2/24 dev eth1
	ip -n client link set eth0 up
	ip -n client link set eth1 up
	by_lbu
	# Port 87 has this way only.
	ip -n client rule add ipproto tcp dport 87 lookup 87
	ip -n client route add $VIP via 10.0.1.1 table 87
	# Who was off is spoken to soon after it is there again, and not given up before.
	namespace_ns client sysctl -qw net.ipv4.tcp_rto_max_ms=10000 net.ipv4.tcp_retries2=100
}
by_lbu() { ip -n client route replace $VIP via 10.0.1.1; }
past_lbu() { ip -n client route replace $VIP via 10.0.4.1; }

all_are_up() {
	wait_for 120 ns lbu true
	wait_for 120 ns host1 true
}

# The programs on a machine that has just booted. Port 8N is for step N, which has a peer of its own.
start_server() {
	local n roles=(server 0.0.0.0 80)
	for n in {1..7}; do roles+=(+ server 0.0.0.0 "8$n"); done
	run host1 server "$many" /tmp/log/server "${roles[@]}"
	wait_for 60 ns host1 sh -c 'ss -Htln | grep -q :87'
}
start_classifier() {
	local n roles=(classifier "$VIP" 80 --to "$HOST1" --timeout 5000)
	for n in {1..7}; do roles+=(+ classifier "$VIP" "8$n" --to "10.0.2.2$n" --timeout 30000); done
	run lbu classifier "$many" /tmp/log/classifier "${roles[@]}"
	wait_for 60 ns lbu sh -c 'ss -Htln | grep -q :87'
}

# Some connections move; every byte and every timestamp is right.
moves() {
	local n before after
	for n in lbu host1; do echo "$n is up for $(uptime_of $n) s"; done
	before=$(paws)
	capture client eth0 "$tmp/eth0.pcap" --immediate-mode -- tcp port 80
	capture client eth1 "$tmp/eth1.pcap" --immediate-mode -- tcp port 80
	capture_ready
	client --count 5 --parallel 2 --bytes 60000 --chunk 2000 --pause 0.02
	capture_stop
	"$invariants" --late --port 80 --connections 5 --moved 5 "$tmp/eth0.pcap" "$tmp/eth1.pcap"
	after=$(paws)
	[ "$before" = "$after" ]
}
# Segments that somebody took for old by their timestamps.
paws() {
	local n
	for n in client lbu host1; do ns $n nstat -asz TcpExtPAWSEstab TcpExtPAWSActive TcpExtTSEcrRejected | awk '/^Tcp/ { print $1, $2 }'; done
}

# Seven connections, six of which are stopped because a record of theirs never arrives; the last has moved, and its
# client's packets have no other way than by the LBU. The clients send for 40 s, that one for longer: who has nothing more
# to say does not notice that a machine has gone.
STEPS=("PREPARE lost" "READY lost" "STATE lost" "STAGED lost" "COMMIT lost" "INJECTED lost" moved)
TYPES=(2 3 5 6 7 8)
HERE=(preparing preparing frozen frozen committed committed active)
THERE=(null prepared prepared staged staged active active)
stop_at_each_step() {
	local n type rules clients=()
	rm -f "$tmp"/client.* "$tmp"/moved.*
	capture client eth0 "$tmp/eth0.pcap" --immediate-mode -- tcp portrange 81-87
	capture client eth1 "$tmp/eth1.pcap" --immediate-mode -- tcp portrange 81-87
	capture_ready
	# First, for the others do not wait for it.
	namespace_ns client "$many" "$tmp/moved" client "$VIP" 87 --bytes 150000 --chunk 500 --pause 0.4 --patience 600 &
	moved_pid=$!
	wait_for 60 lives_at_target
	rules="add table ip lose
		add chain ip lose in { type filter hook input priority -400; }
		add chain ip lose out { type filter hook output priority -400; }"
	for n in 1 2 3 4 5 6; do
		type=${TYPES[n - 1]}
		rules+="
			add rule ip lose out ip daddr 10.0.2.2$n tcp dport 4770 @ih,40,8 $type drop
			add rule ip lose in ip saddr 10.0.2.2$n tcp sport 4770 @ih,40,8 $type drop"
		clients+=(+ client "$VIP" "8$n" --bytes 50000 --chunk 500 --pause 0.4 --patience 400)
	done
	ns lbu nft "$rules"
	namespace_ns client "$many" "$tmp/client" "${clients[@]:1}" &
	clients_pid=$!
	wait_for 40 phases_are lbu "${HERE[@]}"
	wait_for 10 phases_are host1 "${THERE[@]}"
}
lives_at_target() { migrations lbu | jq -e 'map(select(.vip_port == 87)) | last.phase == "active"'; }
# phases_are MACHINE PHASE...: those of the last migrations with ports 81 to 87.
phases_are() {
	local list n phases=()
	list=$(migrations "$1")
	for n in {1..7}; do
		phases+=("$(jq -r "map(select(.vip_port == 8$n)) | last.phase" <<<"$list")")
	done
	echo "$1: ${phases[*]}"
	[ "${phases[*]}" = "${*:2}" ]
}
# Whether each client came to its end well or with a reset: ends_are GOOD|RESET...
ends_are() {
	local n want
	wait_for 600 both_gone || echo "not all clients have ended"
	capture_stop
	mv "$tmp/moved.1" "$tmp/client.7"
	tail -n +1 "$tmp"/client.?
	for n in {1..7}; do
		want=${!n}
		echo "${STEPS[n - 1]}: $want"
		if [ "$want" = good ]; then
			jq -e '.error == null' "$tmp/client.$n"
		else
			jq -e '.error | contains("ECONNRESET")' "$tmp/client.$n"
		fi
	done
}
both_gone() { gone $clients_pid && gone $moved_pid; }
# only PORT [DEVICE]: the packets of that port, by eth0 if not said.
only() {
	local dev=${2:-eth0}
	tcpdump -r "$tmp/$dev.pcap" -w "$tmp/$dev-$1.pcap" tcp port "$1" 2>/dev/null
	echo "$tmp/$dev-$1.pcap"
}

target_dies() {
	local n
	stop_at_each_step
	power_cycle host1
	ns lbu nft delete table ip lose
	wait_for 300 reborn host1
	ends_are good good good good reset reset reset
	for n in 1 2 3 4; do "$pcap" no-rst "$(only 8$n)"; done
	for n in 5 6; do "$pcap" one-rst $VIP "$(only 8$n)"; done
	# By the stack of the target, when it is up again and the LBU has brought it the client's packet.
	"$pcap" no-rst "$(only 87)"
	"$pcap" one-rst $VIP "$(only 87)" "$(only 87 eth1)"
	wait_for 60 phases_are lbu aborted aborted aborted aborted reset reset closed
	migrations lbu | jq -e 'map(select(.vip_port == 87)) | last.error == "target restarted"'
	ns lbu nlb -j route show | jq -e 'all(.vip_port | IN(80, 87))'
}

# Those that were injected live on, if the client's packets find a way. If they find the LBU again, which does not know
# the connection any more, its stack answers with a RST; the target does not hear of that.
origin_dies() {
	stop_at_each_step
	power_cycle lbu
	past_lbu
	ends_are reset reset reset reset reset good reset
	wait_for 300 reborn lbu
	by_lbu
	"$pcap" one-rst $VIP "$(only 87)"
	"$pcap" no-rst "$(only 87 eth1)"
	# Only its timers would end it: of retransmissions, or keepalive.
	ns host1 ss -Htn state established sport = :87 | grep .
	migrations host1 | jq -e 'map(select(.vip_port == 87)) | last.phase == "active"'
	ns host1 ss -K sport = :87
}
# What the target has learnt again after its death is idle; no migration looks after it.
no_mappings_but_one() { ns host1 nlb -j mapping show side host | jq -e 'length <= 1 and all(.vip_port == 87)'; }
nothing_is_left() {
	wait_for 100 no_mappings_but_one
	[ "$(counter host1 migrator held-now)" = 0 ]
	migrations host1 | jq -e 'all(.phase == "aborted" or .phase == "closed")'
	[ -z "$(ns host1 ss -Htn state established 'sport >= :80 and sport <= :87')" ]
}
ktap_begin
client_network || fail "no network"
ktap_run "three machines are up" all_are_up
start_server && start_classifier
ktap_run "connections move between machines" moves
ktap_run "the target loses power at each step" target_dies
start_server
ktap_run "connections move to a target that is younger than the origin" moves
ktap_run "the origin loses power at each step" origin_dies
start_classifier
ktap_run "connections move from an origin that is younger than the target" moves
ktap_run "nothing is left at the target" nothing_is_left
ktap_end
