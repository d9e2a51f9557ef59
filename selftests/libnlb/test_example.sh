#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# The example of libnlb, a server in C (tools/libnlb/examples/handover.c), with
# an unmodified nginx and curl: what it hands over arrives, what it can not hand
# over it still serves, and it is told why.

. "$(dirname "$0")/../migrator/lib.sh"

examples=$(cd "$(dirname "$0")/../../examples" && pwd)
export LD_LIBRARY_PATH=$examples/../lib

web() {
	local dir=$tmp/$1
	mkdir -p "$dir/www/app"
	echo "page of $1" >"$dir/www/app/page"
	start_nginx "$1"
}

# handover HOST [COMMAND...]: the example on the LBU, below COMMAND, as $program.
program=handover
handover() {
	local host=$1
	shift
	stop handover
	background lbu "$tmp/handover.log" "$@" "$examples/$program" $VIP "$host"
	echo $! >"$tmp/handover.pid"
	wait_listen lbu 80
}
get() { ns client curl -sS --max-time 20 "http://$VIP$1"; }
in_phase() { migrations lbu | jq --arg phase "$1" '[.[] | select(.phase == $phase)] | length'; }

# stays ERRNO REASON TEXT: a request is answered by the example itself, which says why.
stays() {
	[ "$(get /app/page)" = "not here" ]
	cat "$tmp/handover.log"
	grep -q ": -$1, reason $2: .*$3" "$tmp/handover.log"
}

goes_over() {
	local before
	before=$(migrations lbu | jq length)
	handover $HOST1
	[ "$(get /app/page)" = "page of host1" ]
	# Two requests of one connection, of which the second goes straight to the host.
	[ "$(ns client curl -sS --max-time 20 "http://$VIP/app/page" "http://$VIP/app/page")" = "page of host1
page of host1" ]
	# What is not for the host stays.
	[ "$(get /other)" = "not here" ]
	[ ! -s "$tmp/handover.log" ]
	[ "$(migrations lbu | jq length)" = $((before + 2)) ]
	wait_for 20 no_routes
}

static_goes_over() { program=handover-static goes_over; }

no_peer() {
	handover 10.0.9.9
	stays 2 192 "no such peer"
}
no_service() {
	ns lbu nlb service del $VIP:80/tcp
	handover $HOST1
	stays 2 199 "no service for the VIP and port"
	ns lbu nlb service add $VIP:80/tcp mode peek
	ns lbu nlb endpoint add $VIP:80/tcp host $HOST1
	[ "$(get /app/page)" = "page of host1" ]
}
no_listener() {
	handover $HOST2
	stays 111 64 "target: no listener"
	[ "$(in_phase refused)" = 1 ]
}
no_address() {
	handover example.org
	stays 22 0 "the target is not an IP address"
}
no_host() {
	ns lbu nlb peer add 10.0.2.77 unauthenticated
	handover 10.0.2.77
	stays 113 193 "peer cannot be reached"
	ns lbu nlb peer del 10.0.2.77
}
no_privilege() {
	ns lbu sysctl -qw net.ipv4.ip_unprivileged_port_start=0
	handover $HOST1 setpriv --reuid 65534 --regid 65534 --clear-groups --
	stays 1 0 CAP_NET_ADMIN
	stop handover
	# The capability is enough, no other right is needed.
	handover $HOST1 setpriv --reuid 65534 --regid 65534 --clear-groups \
		--inh-caps +net_admin --ambient-caps +net_admin --
	[ "$(get /app/page)" = "page of host1" ]
}
# The target's answer to COMMIT is lost, so the program's side can not know that the client has its page.
# One error number says that the connection is gone.
lost() {
	slow_answers 4s
	handover $HOST1
	get /app/page >"$tmp/client.log" 2>&1 &
	local client=$!
	wait_for 20 committed
	cut_peers
	wait_for 30 test -s "$tmp/handover.log"
	wait $client || :
	cat "$tmp/client.log" "$tmp/handover.log"
	grep -q ': -104, reason [1-9][0-9]*: connection was reset: ' "$tmp/handover.log"
	[ "$(in_phase reset)" = 1 ]
	mend_peers
	prompt_answers
}
committed() { [ "$(in_phase committed)" = 1 ]; }

# After the modules are gone: the program is told what to do, and serves on.
no_module() {
	unload_modules
	# It was on nlb0.
	ip -n lbu addr add $VIP/32 dev lo
	handover $HOST1
	stays 38 0 "modprobe nlb_migrator"
}

ktap_begin
cluster
web host1
ktap_run "a connection goes over" goes_over
ktap_run "a connection goes over, linked with the archive" static_goes_over
ktap_run "target is no peer" no_peer
ktap_run "target is no address" no_address
ktap_run "target cannot be reached" no_host
ktap_run "nothing listens at the target" no_listener
ktap_run "no service for the VIP" no_service
ktap_run "CAP_NET_ADMIN is needed, and enough" no_privilege
ktap_run "a lost connection has an error number of its own" lost
whole
ktap_run "without the module" no_module
ktap_end
