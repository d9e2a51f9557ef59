#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Load of applications that report none, from what the kernel knows of real programs to the weights of nlb_fwd: an nginx
# that accepts nothing for a while, so that its queue fills; a server that gets more and more connections; and processes
# of a control group that wait for their processor. Each is one application of host1, beside one that is not measured.
# Programs come to rest, and so does the load. What host2 does nobody measures.

. "$(dirname "$0")/look.sh"

# Which application is at which port.
declare -A port=([queue]=80 [connections]=9000 [pressure]=9001 [other]=9002)
apps=(queue connections other)
group=/sys/fs/cgroup/nlb-load

agent_config() {
	local app
	cat <<-EOF
		host = 1
		lbus = ["$LBU_TO_HOST1:4771"]
		addresses = ["$HOST1"]
		socket = "$tmp/host1/socket"
		state = "$tmp/host1/state.json"
		heartbeat_ms = 300
		age_limit_ms = 15000
	EOF
	for app in "${apps[@]}"; do
		printf '[[app]]\nname = "%s"\nvip = "%s:%s/tcp"\n' "$app" $VIP "${port[$app]}"
		# A queue has room for 8, 16 connections are all that one can take.
		case $app in
		queue) printf '[app.load]\nqueue = true\ninterval_ms = 200\n' ;;
		connections) printf '[app.load]\nconnections = 16\ninterval_ms = 200\n' ;;
		pressure) printf '[app.load]\npressure = "%s"\ninterval_ms = 200\n' "$tmp/pressure" ;;
		esac
	done
}
health_config() {
	printf 'lbu = 9\nsocket = "%s"\nstate = "%s"\n' "$tmp/nlbd" "$tmp/nlbd.json"
}

# load APPLICATION: as the LBU knows it.
load() { health | jq --arg vip "$VIP:${port[$1]}/tcp" '.rows[] | select(.vip == $vip) | .load'; }
# load_is APPLICATION LEAST MOST: and the forwarder has the weight that belongs to it, of a capacity of 50.
load_is() {
	local load
	load=$(load "$1")
	((load >= $2 && load <= $3)) && field_is "${port[$1]}" host1 weight $(((50 * (100 - load) + 99) / 100))
}

applications_are_idle() {
	local app
	for app in "${apps[@]}"; do
		app host1 health "$app" healthy
		becomes "${port[$app]}" host1 active
		wait_for 60 load_is "$app" 0 0
	done
}

# The kernel has these connections; nginx has not.
queue_fills() {
	local worker
	worker=$(pgrep -P "$(<"$tmp/host1/pid")")
	echo "$worker" >"$tmp/worker"
	kill -STOP "$worker"
	background client "$tmp/queued.log" python3 -c "
import os, socket, time
all = [socket.create_connection(('$VIP', 80), timeout=60) for _ in range(6)]
print('open', flush=True)
while not os.path.exists('$tmp/go'):
    time.sleep(0.1)
for connection in all:
    connection.settimeout(60)
    connection.sendall(b'GET /page HTTP/1.0\r\n\r\n')
    assert connection.makefile('rb').read().endswith(b'web host1\n')
print('served', flush=True)
time.sleep(600)"
	wait_for 60 grep -qx open "$tmp/queued.log"
}
# Half of them here.
connections_grow() {
	hold 9000 16
	echo "$holder" >"$tmp/holder"
}
# Of two that want the same processor one waits.
processes_wait() {
	local n
	for n in 1 2; do
		(
			echo "$BASHPID" >"$group/cgroup.procs"
			exec taskset -c 0 nice -n 19 sh -c 'while :; do :; done'
		) &
		echo $!
	done >"$tmp/busy"
}
load_follows() {
	queue_fills
	connections_grow
	wait_for 120 load_is queue 40 75
	wait_for 120 load_is connections 30 50
	# Who does not say how busy it is, and is not measured, is not.
	load_is other 0 0
}
pressure_follows() {
	[ -e "$tmp/pressure" ] || skip "this kernel has no pressure stall information"
	processes_wait
	wait_for 120 load_is pressure 30 100
}

# Who is busier than the other one gets less.
shares_follow() {
	local answers
	answers=$(ns client python3 -c "
import socket
for _ in range(32):
    with socket.create_connection(('$VIP', 9000), timeout=60) as s:
        print(s.recv(100).decode().strip())")
	wait_for 60 load_is connections 30 75
	(($(grep -c host1 <<<"$answers") < $(grep -c host2 <<<"$answers")))
}

load_goes() {
	kill -CONT "$(<"$tmp/worker")"
	kill "$(<"$tmp/holder")"
	touch "$tmp/go"
	wait_for 60 grep -qx served "$tmp/queued.log"
	wait_for 120 load_is queue 0 10
	wait_for 120 load_is connections 0 10
}
pressure_goes() {
	[ -e "$tmp/pressure" ] || skip "this kernel has no pressure stall information"
	# shellcheck disable=SC2046
	kill $(<"$tmp/busy")
	wait_for 120 load_is pressure 0 10
}

# Nothing is concluded from what cannot be measured.
nothing_listens() {
	: >"$tmp/host1/agent.log"
	end TERM "$tmp/host1/pid"
	wait_for 60 grep -q 'load cannot be measured: nothing listens at port 80' "$tmp/host1/agent.log"
	wait_for 60 load_is queue 0 10
	field_is 80 host1 state active
	pages_again
	wait_for 60 grep -q 'load is measured again' "$tmp/host1/agent.log"
}
pages_again() { start_nginx host1 "80 backlog=8"; }

ktap_begin
load_modules nlb_fwd
topology
vip_add lbu host1 host2
keys_make 1
if mkdir "$group" 2>/dev/null && [ -e "$group/cpu.pressure" ]; then
	# "ip netns exec" hides the control groups.
	touch "$tmp/pressure"
	mount --bind "$group/cpu.pressure" "$tmp/pressure"
	apps+=(pressure)
fi
for app in "${apps[@]}"; do
	lbu service add "$VIP:${port[$app]}/tcp" scheduler wrr
	lbu endpoint add "$VIP:${port[$app]}/tcp" host $HOST1
done
lbu endpoint add $VIP:9000/tcp host $HOST2 weight 50
for host in host1 host2; do ns $host nlb forwarder add "${lbu_of[$host]}"; done
mkdir -p "$tmp/host1/www"
echo "web host1" >"$tmp/host1/www/page"
pages_again
listen 9000
nlbd_start
agent_start host1
ktap_run "nobody is busy" applications_are_idle
ktap_run "a queue that is not emptied, and connections, are load" load_follows
ktap_run "waiting for a processor is load" pressure_follows
ktap_run "the busy one gets fewer connections" shares_follow
ktap_run "load goes as it came" load_goes
ktap_run "nobody waits for a processor any more" pressure_goes
ktap_run "nothing listens any more" nothing_listens
[ ! -e "$tmp/pressure" ] || umount "$tmp/pressure"
[ ! -d "$group" ] || wait_for 20 rmdir "$group"
ktap_end
