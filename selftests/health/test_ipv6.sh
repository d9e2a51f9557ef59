#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# An IPv6 VIP, and no machine has an address of IPv4: hosts of a group, their leader and the LBU speak IPv6, an
# application's check does, and the endpoints are IPv6 addresses. Who is not well, shall get nothing, or is not heard of
# any more, gets no new connections, and keeps those that it has.

. "$(dirname "$0")/look.sh"

agent_more() {
	cat <<-EOF
		name = "$1.example"
		[group]
		id = 7
		address = "[${address[$1]}]:4772"
		members = ["[$HOST1_6]:4772", "[$HOST2_6]:4772"]
	EOF
}

# There is nothing but IPv6.
everything_is_ipv6() {
	local machine
	for machine in client lbu host1 host2; do
		is "$(ip -n $machine -j -4 addr show scope global | jq -c '[.[].addr_info[]?]')" '[]'
	done
	lbu -j endpoint show | jq -e 'all(.vip_addr == "'"$VIP6"'" and (.host_addr | contains(":")))'
	health | jq -e 'all(.rows[]; (.vip, .physical) | startswith("[2001:db8:"))'
}

applications_register() {
	local host
	for host in host1 host2; do
		app $host register echo vip "$VIP:9000/tcp" protocol echo capacity 40
		for port in 80 9000; do becomes $port $host active; done
		wait_for 20 field_is 9000 $host weight 40
	done
	wait_for 20 rows_are 4
	everything_is_ipv6
	is "$(who 9000 6)" "host1 host2"
	is "$(web)" "web host1 web host2"
}

load_and_capacity_are_weights() {
	app host1 load echo 75
	wait_for 20 field_is 9000 host1 weight 10
	app host2 capacity echo 99
	wait_for 20 field_is 9000 host2 weight 99
	goes_on
}

reported_failing() {
	app host1 health echo failing
	becomes 9000 host1 draining
	is "$(who 9000 4)" host2
	field_is 80 host1 state active
	goes_on
	app host1 health echo healthy
	becomes 9000 host1 active
	is "$(who 9000 4)" "host1 host2"
}

check_fails() {
	end TERM "$tmp/host1/pid"
	becomes 80 host1 draining
	app_is host1 web health failing
	is "$(web)" "web host2"
	field_is 9000 host1 state active
	goes_on
	start_nginx host1 "$everywhere"
	becomes 80 host1 active
	is "$(web)" "web host1 web host2"
}

drain_and_undo() {
	app host1 drain echo wait
	app_is host1 echo current draining
	field_is 9000 host1 state draining
	is "$(who 9000 4)" host2
	goes_on
	app host1 undo echo
	becomes 9000 host1 active
	wait_for 20 app_is host1 echo current active
	is "$(who 9000 4)" "host1 host2"
}

# Of two hosts in a group one speaks for both; what is known of it gets too old, and of the other one nothing does.
leader_is_killed() {
	local host port before
	for host in host1 host2; do wait_for 20 leads host1 $host; done
	before=$(counted changes)
	wait_for 20 are_counted changes "$before"
	before=$(changes)
	end KILL "$tmp/host1/agent.pid"
	for port in 80 9000; do becomes $port host1 draining; done
	rows_are 2
	is "$(changes)" $((before + 2))
	health | jq -e '.stale | length == 2'
	is "$(who 9000 4)" host2
	is "$(web)" "web host2"
	goes_on
	wait_for 20 leads host2 host2
	agent_start host1
	for port in 80 9000; do becomes $port host1 active; done
	health | jq -e '.stale | length == 0'
	is "$(who 9000 4)" "host1 host2"
	is "$(web)" "web host1 web host2"
}

# It knows again who shall get nothing, by asking hosts at their addresses.
nlbd_is_killed() {
	end KILL "$tmp/nlbd.pid"
	app host1 health echo failing
	is "$(who 9000 4)" "host1 host2"
	nlbd_start
	wait_for 20 rows_are 4
	becomes 9000 host1 draining
	is "$(who 9000 4)" host2
	goes_on
	app host1 health echo healthy
	becomes 9000 host1 active
}

goodbye() {
	end USR2 "$tmp/host1/agent.pid"
	for port in 80 9000; do becomes $port host1 draining; done
	rows_are 2
	health | jq -e '.stale | length == 0'
	goes_on
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1 host2
vip_add_ipv6 lbu host1 host2
for machine in client lbu host1 host2; do ip -n $machine -4 addr flush scope global; done
VIP="[$VIP6]" address=([host1]=$HOST1_6 [host2]=$HOST2_6) lbu_of=([host1]=$LBU_TO_HOST1_6 [host2]=$LBU_TO_HOST2_6)
for host in host1 host2; do says_to[$host]="[${lbu_of[$host]}]:4771"; done
everywhere='[::]:80'
keys_make 1
for port in 80 9000; do
	lbu service add "$VIP:$port/tcp" scheduler rr
	for host in host1 host2; do lbu endpoint add "$VIP:$port/tcp" host "${address[$host]}"; done
done
for host in host1 host2; do ns $host nlb forwarder add "${lbu_of[$host]}"; done
pages "$everywhere"
listen 9000
nlbd_start
for host in host1 host2; do agent_start $host; done
ktap_run "applications register, and get connections" applications_register
hold_host1
ktap_run "load and capacity become weights" load_and_capacity_are_weights
ktap_run "reported failing: no new connections, the old one goes on" reported_failing
ktap_run "a check fails" check_fails
ktap_run "drain, and undo" drain_and_undo
ktap_run "the leader of the group is killed" leader_is_killed
ktap_run "nlbd is killed" nlbd_is_killed
ktap_run "goodbye" goodbye
ktap_end
