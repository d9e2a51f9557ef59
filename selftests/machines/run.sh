#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Migration between machines that have booted at different times, and that lose
# power at every step of the protocol. Runs in the client's guest of
# scripts/machines; LBU, host1 and host2 are guests of their own. Connections to
# port 8N go from the LBU to host1; those to 9N go on from there to host2, as their
# client's packets come to host1 itself then.

. "$(dirname "$0")/../migrator/lib.sh"

machines=$(realpath "$(dirname "$0")")
many=$machines/many.py
invariants=$machines/../invariants.py
# With -e it ends with 4 where it has nothing to look at, which would be taken for a test that was skipped.
jq() { command jq "$@" || return 1; }
# The same wire, as it is seen from its two ends.
HOST1_TO_HOST2=10.0.6.1 HOST2_FOR_HOST1=10.0.6.2

# Namespaces of this guest as ever, and the other guests by their control port.
eval "namespace_$(declare -f ns)"
ns() {
	case $1 in
	lbu) remote 10.0.1.1 "${@:2}" ;;
	host1) remote 10.0.4.1 "${@:2}" ;;
	host2) remote 10.0.5.1 "${@:2}" ;;
	*) namespace_ns "$@" ;;
	esac
}
# The answer is complete with the status, whenever the connection ends: socat does not always see at once that the program
# at its other end has.
remote() {
	local fd line status='' answer=()
	exec {fd}< <(printf '%q ' "${@:2}" | namespace_ns client timeout 30 socat -t 30 - "TCP:$1:7000,connect-timeout=2" 2>/dev/null || :)
	while IFS= read -r line <&"$fd"; do
		[[ $line != "nlb-status "* ]] || {
			status=${line#* }
			break
		}
		answer+=("$line")
	done
	exec {fd}<&-
	[ -n "$status" ] || {
		echo "$1 does not answer to: ${*:2}" | cut -c1-200 >&2
		return 255
	}
	# The status begins a line.
	[ -n "${answer[-1]}" ] || unset "answer[-1]"
	((${#answer[@]} == 0)) || printf '%s\n' "${answer[@]}"
	return "$status"
}
# run MACHINE NAME PROGRAM...: in the background, until the machine ends.
run() { ns "$1" bash -c "setsid $(printf '%q ' "${@:3}") >/tmp/log/$2 2>&1 </dev/null &"; }

# each MACHINE,... COMMAND...: on all of them at once.
each() {
	local n rc=0 pids=()
	for n in ${1//,/ }; do
		ns "$n" "${@:2}" &
		pids+=($!)
	done
	for n in "${pids[@]}"; do wait "$n" || rc=$?; done
	return $rc
}

boot_id() { ns "$1" cat /proc/sys/kernel/random/boot_id; }
remember_boot() { boot_id "$1" >"$tmp/boot-$1"; }
# Off, and on again, as if by the switch.
power_cycle() { timeout 3 bash -c "$(declare -f ns remote namespace_ns each); each $1 sh -c 'echo b >/proc/sysrq-trigger'" || :; }
reborn() { local now; now=$(boot_id "$1") && [ -n "$now" ] && [ "$now" != "$(<"$tmp/boot-$1")" ]; }
uptime_of() { ns "$1" cut -d. -f1 /proc/uptime | head -n 1; }

client_network() {
	modprobe virtio_net
	wait_for 30 test -e /sys/class/net/eth2
	ip netns add client
	ip link set eth0 netns client
	ip link set eth1 netns client
	ip link set eth2 netns client
	# Replies from the VIP come in by another link than the one that leads to it. Who was off is spoken to soon after it is
	# there again, and not given up before.
	namespace_ns client sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.tcp_rto_max_ms=10000 net.ipv4.tcp_retries2=100
	ip -n client -batch - <<-EOF
		link set lo up
		addr add 10.0.1.2/24 dev eth0
		addr add 10.0.4.2/24 dev eth1
		addr add 10.0.5.2/24 dev eth2
		link set eth0 up
		link set eth1 up
		link set eth2 up
		route add $VIP via 10.0.1.1
		route add $VIP via 10.0.4.1 table 81
		route add $VIP via 10.0.5.1 table 82
	EOF
}
# The client's way to the VIP, for one port or several: by the LBU if not said.
to_host1() { ip -n client rule add ipproto tcp dport "$1" lookup 81; }
to_host2() { ip -n client rule add ipproto tcp dport "$1" lookup 82; }
by_lbu() {
	local n
	for n in 81 82; do while ip -n client rule del lookup $n 2>/dev/null; do :; done; done
}

all_are_up() {
	local n
	for n in lbu host1 host2; do wait_for 240 ns $n true; done
}

# The programs on a machine that has just booted. Port 8N or 9N is for step N, which has a peer of its own. What host1 has of
# the ports from 90 on, it hands over as soon as the file is there that is named after the port; so does the LBU with 8N.
start_host2() {
	local n roles=(server 0.0.0.0 88)
	for n in {0..7}; do roles+=(+ server 0.0.0.0 "9$n"); done
	run host2 server "$many" /tmp/log/server "${roles[@]}"
	wait_for 60 listens host2 9
}
start_host1() {
	local n roles=(server 0.0.0.0 80 + classifier 0.0.0.0 90 --to "$HOST2_FOR_HOST1" --timeout 30000 --gate /tmp/log/90)
	for n in {1..7}; do
		roles+=(+ server 0.0.0.0 "8$n" + classifier 0.0.0.0 "9$n" --to "${HOST2_FOR_HOST1}$n" --timeout 30000 --gate /tmp/log/91-97)
	done
	run host1 server "$many" /tmp/log/server "${roles[@]}"
	wait_for 60 listens host1 16
}
start_classifier() {
	local n roles=(classifier "$VIP" 80 --to "$HOST1" --timeout 5000 + classifier "$VIP" 88 --to "$HOST2" --timeout 5000
		+ classifier "$VIP" 90 --to "$HOST1" --timeout 5000)
	for n in {1..7}; do
		roles+=(+ classifier "$VIP" "8$n" --to "${HOST1}$n" --timeout 30000 --gate /tmp/log/81-87
			+ classifier "$VIP" "9$n" --to "$HOST1" --timeout 30000)
	done
	run lbu classifier "$many" /tmp/log/classifier "${roles[@]}"
	wait_for 60 listens lbu 17
}
# How many ports of the VIP there are listeners for.
listens() { [ "$(ns "$1" ss -Htln 'sport >= :80 and sport <= :97' | grep -c LISTEN)" = "$2" ]; }
# open_gate MACHINE PORTS, shut_gate MACHINE PORTS
open_gate() { ns "$1" touch "/tmp/log/$2"; }
shut_gate() { ns "$1" rm -f "/tmp/log/$2"; }

# The packets of these ports come to host1 itself from now on. What was on its way by the LBU has passed when host1 forgets
# that they did: one wire changes no order.
path_changes() {
	to_host1 "$1"
	wait_for 60 ns lbu ping -qc 1 -W 5 $HOST1
	ns host1 bash -c "nlb -j mapping show side host | jq -r '.[] | select(.vip_port >= 90).flow_id' |
		while read -r id; do nlb mapping del forwarder $LBU_TO_HOST1 id \$id; done"
}

# Some connections move, to host1, or to host2, or to the one and then to the other; every byte and every timestamp is right.
moves() {
	local n before after pid
	for n in lbu host1 host2; do echo "$n is up for $(uptime_of $n) s"; done
	before=$(paws)
	shut_gate host1 90
	capture_all 'port 80 or port 88 or port 90'
	rm -f "$tmp/until"
	namespace_ns client "$many" "$tmp/moves" \
		client "$VIP" 80 --count 5 --parallel 2 --bytes 60000 --chunk 2000 --pause 0.02 \
		+ client "$VIP" 88 --count 2 --bytes 60000 --chunk 2000 --pause 0.02 \
		+ client "$VIP" 90 --count 5 --bytes 1000000 --chunk 500 --pause 0.2 --patience 200 --until "$tmp/until" &
	pid=$!
	wait_for 60 live_at host1 90 5
	path_changes 90
	open_gate host1 90
	wait_for 60 live_at host2 90 5
	touch "$tmp/until"
	wait $pid || { cat "$tmp"/moves.*; return 1; }
	capture_stop
	by_lbu
	"$invariants" --late --port 80 --connections 5 --moved 5 "$tmp"/eth?.pcap
	"$invariants" --late --port 88 --connections 2 --moved 2 "$tmp"/eth?.pcap
	"$invariants" --late --port 90 --connections 5 --moves 10 "$tmp"/eth?.pcap
	after=$(paws)
	[ "$before" = "$after" ]
}
capture_all() {
	local n
	# Those of a test that has failed.
	pkill -x tcpdump || :
	for n in 0 1 2; do capture client eth$n "$tmp/eth$n.pcap" --immediate-mode -- tcp and "($1)"; done
	capture_ready
}
# live_at MACHINE PORT N: so many connections that have come there have not ended.
live_at() { migrations "$1" | jq -e "map(select(.vip_port == $2 and .role == \"target\" and .phase == \"active\")) | length == $3"; }
# Segments that somebody took for old by their timestamps.
paws() {
	local n
	for n in client lbu host1 host2; do ns $n nstat -asz TcpExtPAWSEstab TcpExtPAWSActive TcpExtTSEcrRejected | awk '/^Tcp/ { print $1, $2 }'; done
}

# Twice seven connections, from the LBU to host1 and from host1 to host2. Of each seven, six are stopped because a record of
# theirs never arrives, and the last moves. The clients send until they are told that it is enough: who has nothing more to say
# does not notice that a machine has gone.
STEPS=("PREPARE lost" "READY lost" "STATE lost" "STAGED lost" "COMMIT lost" "INJECTED lost" moved)
TYPES=(2 3 5 6 7 8)
stop_at_each_step() {
	local n p clients=()
	rm -f "$tmp"/client.* "$tmp/until"
	shut_gate lbu 81-87
	shut_gate host1 91-97
	capture_all 'portrange 81-97'
	for p in 8 9; do
		for n in {1..7}; do
			clients+=(+ client "$VIP" "$p$n" --bytes 1000000 --chunk 500 --pause 0.4 --patience 600 --until "$tmp/until")
		done
	done
	namespace_ns client "$many" "$tmp/client" "${clients[@]:1}" &
	clients_pid=$!
	# So many, for the ports 91 to 97 are behind the others.
	wait_for 100 phases_are host1 target 9 active active active active active active active
	wait_for 60 wait_at_lbu
	path_changes 91-97
	lose lbu eth1 "$HOST1"
	lose host1 eth2 $HOST2_FOR_HOST1
	for n in lbu host1 host2; do remember_boot $n; done
	# The connections stand still for a few seconds only, so nothing is done one after the other from here on.
	open_gate lbu 81-87 &
	open_gate host1 91-97
	wait_for 60 all_are_stopped
	cat "$tmp"/stopped.*
}
wait_at_lbu() { [ "$(ns lbu ss -Htn state established 'sport >= :81 and sport <= :87' | grep -c .)" = 7 ]; }
# lose MACHINE DEVICE PEER: records to and from the peers PEER1 to PEER6, one type each. All that is sent is kept.
lose() {
	local n rules="add table ip lose
		add chain ip lose in { type filter hook input priority -400; }
		add chain ip lose out { type filter hook output priority -400; }"
	for n in {1..6}; do
		rules+="
			add rule ip lose out ip daddr $3$n tcp dport 4770 @ih,40,8 ${TYPES[n - 1]} drop
			add rule ip lose in ip saddr $3$n tcp sport 4770 @ih,40,8 ${TYPES[n - 1]} drop"
	done
	ns "$1" nft "$rules"
	run "$1" records.log tcpdump -n -U --immediate-mode -i "$2" -w /tmp/log/records tcp dst port 4770
	wait_for 60 ns "$1" grep -q 'listening on' /tmp/log/records.log
}
find_again() { ns "$1" sh -c 'nft delete table ip lose; pkill -x tcpdump'; }
HERE=(preparing preparing frozen frozen committed committed active)
THERE=(null prepared prepared staged staged active active)
all_are_stopped() {
	local n rc=0 pids=()
	phases_are lbu origin 8 "${HERE[@]}" >"$tmp/stopped.1" &
	pids+=($!)
	phases_are host1 origin 9 "${HERE[@]}" target 8 "${THERE[@]}" >"$tmp/stopped.2" &
	pids+=($!)
	phases_are host2 target 9 "${THERE[@]}" >"$tmp/stopped.3" &
	pids+=($!)
	for n in "${pids[@]}"; do wait "$n" || rc=1; done
	return $rc
}
# phases_are MACHINE ROLE 8|9 PHASE...: those of the last migrations in that role with the ports 81 to 87, or 91 to 97; maybe
# another ROLE and so on.
phases_are() {
	local machine=$1 list rc=0 found
	shift
	list=$(migrations "$machine")
	while (($#)); do
		found=$(jq -r --arg role "$1" --argjson p "$2" '[range($p * 10 + 1; $p * 10 + 8) as $port |
			map(select(.vip_port == $port and .role == $role)) | last.phase | tostring] | join(" ")' <<<"$list")
		echo "$machine, $1, ports $2..: $found"
		[ "$found" = "${*:3:7}" ] || rc=1
		shift 9
	done
	return $rc
}

# Whether each client came to its end well or with a reset: ends_are 8|9 GOOD|RESET...
ends_are() {
	local n want file
	for n in {1..7}; do
		want=${*:n + 1:1}
		file=$tmp/client.$((n + ($1 - 8) * 7))
		echo "port $1$n, ${STEPS[n - 1]}, $want: $(<"$file")"
		if [ "$want" = good ]; then
			jq -e '.error == null' "$file"
		else
			jq -e '.error | contains("ECONNRESET")' "$file"
		fi
	done
}
all_have_ended() {
	local rc=0
	touch "$tmp/until"
	wait_for 300 gone $clients_pid || rc=1
	capture_stop
	return $rc
}
# only PORT [DEVICE]: the packets of that port, by eth0 if not said.
only() {
	local dev=${2:-eth0}
	tcpdump -r "$tmp/$dev.pcap" -w "$tmp/$dev-$1.pcap" tcp port "$1" 2>/dev/null
	echo "$tmp/$dev-$1.pcap"
}
# Of the migrations of its last life.
knows_nothing() { migrations "$1" | jq -e 'length == 0'; }
# refuses_old ORIGIN FROM TO: STATE, COMMIT and ABORT of the migration whose INJECTED was lost.
refuses_old() { ns "$1" "$machines/../migrator/peer.py" old "$3" --source "$2" --secret /nlb/keys/secret /tmp/log/records; }

# host1 is the target of the ones, and the origin of the others.
host1_dies() {
	stop_at_each_step
	power_cycle host1
	find_again lbu
	# Those that were injected live on, if the client's packets find a way.
	to_host2 96
	wait_for 300 reborn host1
	knows_nothing host1
	refuses_old lbu ${LBU_TO_HOST1}6 ${HOST1}6
	knows_nothing host1
	all_have_ended
	by_lbu
}
host1_was_target() {
	local n
	ends_are 8 good good good good reset reset reset
	for n in {1..4}; do "$pcap" no-rst "$(only 8$n)"; done
	for n in 5 6; do "$pcap" one-rst $VIP "$(only 8$n)"; done
	# By the stack of the target, when it is up again and the LBU has brought it the client's packet.
	"$pcap" no-rst "$(only 87)"
	"$pcap" one-rst $VIP "$(only 87)" "$(only 87 eth1)"
	wait_for 60 phases_are lbu origin 8 aborted aborted aborted aborted reset reset closed
	migrations lbu | jq -e 'map(select(.vip_port == 87)) | last.error == "target restarted"'
	ns lbu nlb -j route show | jq -e 'all(.vip_port | IN(80, 87, 88) or . >= 90)'
}
# What was not injected is lost, and host1's stack says so when it is there again.
host1_was_origin() {
	local n
	ends_are 9 reset reset reset reset reset good reset
	for n in 1 2 3 4 5 7; do
		"$pcap" one-rst $VIP "$(only 9$n eth1)"
		"$pcap" no-rst "$(only 9$n)"
	done
	"$pcap" no-rst "$(only 96)" "$(only 96 eth1)" "$(only 96 eth2)"
	"$pcap" no-rst "$(only 97 eth2)"
	wait_for 60 phases_are lbu origin 9 closed closed closed closed closed closed closed
	survives_alone host2 97
}
# The connection lives at the target, which does not hear of the reset by another machine's stack: only its timers would end
# it, of retransmissions, or keepalive. What was not injected there was forgotten.
survives_alone() {
	wait_for 100 live_with_ports "$1" "$2"
	ns "$1" ss -Htn state established sport = ":$2" | grep .
	ns "$1" ss -K sport = ":$2"
	wait_for 60 live_with_ports "$1"
}
# live_with_ports MACHINE PORT...: that have come there and are not over, of those that are stopped at a step.
live_with_ports() {
	migrations "$1" | jq -e "map(select(.role == \"target\" and (.vip_port | . > 80 and . < 88 or . > 90) and
		(.phase | IN(\"aborted\", \"closed\") | not)).vip_port) == [${*:2}]"
}

# The LBU is the origin of the ones, and host2 the target of the others.
lbu_and_host2_die() {
	stop_at_each_step
	power_cycle lbu,host2
	find_again host1
	to_host1 86
	wait_for 300 reborn host2
	knows_nothing host2
	refuses_old host1 ${HOST1_TO_HOST2}6 ${HOST2_FOR_HOST1}6
	wait_for 300 reborn lbu
	knows_nothing lbu
	all_have_ended
	by_lbu
}
# Those that were injected live on, if the client's packets find a way. If they find the LBU again, which does not know
# the connection any more, its stack answers with a RST; the target does not hear of that.
lbu_was_origin() {
	local n
	ends_are 8 reset reset reset reset reset good reset
	for n in 1 2 3 4 5 7; do "$pcap" one-rst $VIP "$(only 8$n)"; done
	"$pcap" no-rst "$(only 86)" "$(only 86 eth1)"
	"$pcap" no-rst "$(only 87 eth1)"
	survives_alone host1 87
}
host2_was_target() {
	local n
	ends_are 9 good good good good reset reset reset
	for n in {1..7}; do "$pcap" no-rst "$(only 9$n)"; done
	for n in {1..4} 7; do "$pcap" no-rst "$(only 9$n eth1)"; done
	for n in 5 6; do "$pcap" one-rst $VIP "$(only 9$n eth1)"; done
	"$pcap" one-rst $VIP "$(only 97 eth1)" "$(only 97 eth2)"
	wait_for 60 phases_are host1 origin 9 aborted aborted aborted aborted reset reset closed
	migrations host1 | jq -e 'map(select(.vip_port == 97 and .role == "origin")) | last.error == "target restarted"'
}
# What a target has learnt again after its death is idle; no migration looks after it.
no_mappings_but_one() { ns "$1" nlb -j mapping show side host | jq -e "length <= 1 and all(.vip_port == $2)"; }
nothing_is_left() {
	local n
	wait_for 100 no_mappings_but_one host1 87
	wait_for 100 no_mappings_but_one host2 97
	for n in host1 host2; do
		[ "$(counter $n migrator held-now)" = 0 ]
		migrations $n | jq -e 'all(.phase | IN("aborted", "closed", "reset"))'
		[ -z "$(ns $n ss -Htn state established 'sport >= :80 and sport <= :97')" ]
	done
}
ktap_begin
client_network || fail "no network"
ktap_run "four machines are up" all_are_up
{ start_host2 && start_host1 && start_classifier; } || fail "no programs"
ktap_run "connections move between machines" moves
ktap_run "host1 loses power at each step" host1_dies
ktap_run "as a target" host1_was_target
ktap_run "as an origin" host1_was_origin
start_host1
ktap_run "connections move to a target that is younger than the origin, and on" moves
ktap_run "LBU and host2 lose power at each step" lbu_and_host2_die
ktap_run "the one as an origin" lbu_was_origin
ktap_run "the other as a target" host2_was_target
start_host2 && start_classifier
ktap_run "connections move from an origin that is younger than the target, and on" moves
ktap_run "nothing is left at the targets" nothing_is_left
ktap_end
