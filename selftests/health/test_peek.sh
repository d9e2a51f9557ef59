#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# From the agent to the classifier: connections to a service in mode "peek" are accepted by nlbd classify, which picks a
# host of a pool that goes by the weights of endpoints, and moves them there. nlbd health sets these by what agents say.
# Who is not well, shall get nothing, or is not heard of any more, gets no new connections, and keeps those that it has.

. "$(dirname "$0")/look.sh"

web_more="capacity = 40"
classify_config() {
	cat <<-EOF
		listen = ["$VIP:80"]
		peek_timeout_ms = 20000
		migrate_timeout_ms = 20000
		default = "web"
		[pool.web]
		weights = "endpoints"
		hosts = ["$HOST1", "$HOST2"]
	EOF
}

# of_host1 COUNT: how many of so many new connections it gets, or -1 if one was not answered.
of_host1() {
	{
		ns client curl -sS --fail --fail-early --max-time 60 -H 'Connection: close' "http://$VIP/page?[1-$1]" >"$tmp/answers" &&
			[ "$(grep -cx 'web host[12]' "$tmp/answers")" = "$1" ]
	} || {
		echo -1
		return
	}
	grep -c host1 "$tmp/answers" || true
}
# has_share LEAST MOST: of 40 new connections host1 gets so many. The classifier reads the weights once a second, and what
# it has sent by those of before may count for a turn.
has_share() {
	local got
	got=$(of_host1 40)
	echo "$got of 40"
	((got >= $1 && got <= $2))
}
gets_share() {
	wait_for 60 has_share "$@" || {
		lbu endpoint show
		has_share "$@"
	}
}
# gets_nothing: from now on, whatever the classifier knows; and soon it does not even ask the kernel.
gets_nothing() {
	is "$(of_host1 12)" 0
	wait_for 60 is_not_asked
}
is_not_asked() {
	local before
	before=$(refusals)
	is "$(of_host1 12)" 0
	is "$(refusals)" "$before"
}
refusals() { grep -c 'gets no new connections' "$tmp/classify.log" || true; }

# A connection that host1 has got, on which it is asked for the page all the time.
hold_web() {
	background client "$tmp/held.log" python3 -c "
import http.client, time
while True:
    c = http.client.HTTPConnection('$VIP', 80, timeout=120)
    c.request('GET', '/page')
    if c.getresponse().read() == b'web host1\n':
        break
    c.close()
c.auto_open = 0
while True:
    c.request('GET', '/page')
    assert c.getresponse().read() == b'web host1\n'
    print('x', end='', flush=True)
    time.sleep(0.4)"
	wait_for 60 test -s "$tmp/held.log"
}

connections_are_moved() {
	local host
	for host in host1 host2; do
		becomes 80 $host active
		wait_for 20 field_is 80 $host weight 40
	done
	# 20, if nothing else is meant.
	gets_share 16 24
	lbu -j migration show | jq -e '[.[] | select(.role == "origin" and .error == null) | .peer_addr] | unique | length == 2'
}

capacity_and_load_are_shares() {
	# 40 to 10: 32.
	app host2 capacity web 10
	wait_for 20 field_is 80 host2 weight 10
	gets_share 27 37
	# 10 to 40: 8.
	app host2 capacity web 40
	app host1 load web 75
	wait_for 20 field_is 80 host1 weight 10
	wait_for 20 field_is 80 host2 weight 40
	gets_share 3 13
	goes_on
	# As busy as the other one: 20.
	app host2 load web 75
	wait_for 20 field_is 80 host2 weight 10
	gets_share 16 24
}

# The check is good: somebody else knows better.
reported_failing() {
	app host1 health web failing
	becomes 80 host1 draining
	gets_nothing
	goes_on
	app host1 health web healthy
	becomes 80 host1 active
	gets_share 16 24
}

# It accepts what is moved to it, and does not answer.
application_stands_still() {
	local workers
	mapfile -t workers < <(pgrep -P "$(<"$tmp/host1/pid")")
	((${#workers[@]}))
	kill -STOP "${workers[@]}"
	becomes 80 host1 draining
	app_is host1 web health failing
	gets_nothing
	kill -CONT "${workers[@]}"
	becomes 80 host1 active
	gets_share 16 24
	goes_on
}

drain_and_undo() {
	app host1 drain web wait
	app_is host1 web current draining
	gets_nothing
	goes_on
	app host1 undo web
	becomes 80 host1 active
	wait_for 20 app_is host1 web current active
	gets_share 16 24
}

agent_is_killed() {
	end KILL "$tmp/host1/agent.pid"
	becomes 80 host1 draining
	health | jq -e '.stale | length == 1'
	gets_nothing
	goes_on
	agent_start host1
	becomes 80 host1 active
	# What it has reported of its load last may be lost.
	gets_share 8 40
}

# Whose endpoints all are failing has all of them get connections.
panic() {
	local host
	for host in host1 host2; do app $host health web failing; done
	wait_for 20 all_panic
	for host in host1 host2; do becomes 80 $host active; done
	gets_share 16 24
	for host in host1 host2; do app $host health web healthy; done
	wait_for 20 not all_panic
	goes_on
}
all_panic() { health | jq -e '[.rows[] | select(.panic)] | length == 2'; }

# Both daemons find it again: what hosts say is told to the new endpoints, and the classifier goes by those.
module_anew() {
	rmmod nlb_fwd
	wait_for 20 has_trouble
	load_modules nlb_fwd
	service_made
	app host1 drain web wait
	becomes 80 host1 draining
	gets_nothing
	app host1 undo web
	becomes 80 host1 active
	gets_share 8 40
}
has_trouble() { health | jq -e .trouble; }
service_made() {
	lbu service add $VIP:80/tcp mode peek
	local host
	for host in host1 host2; do lbu endpoint add $VIP:80/tcp host "${address[$host]}"; done
}

ktap_begin
load_modules nlb_fwd nlb_migrator
topology
vip_add lbu host1 host2
keys_make 1 peers
service_made
for host in host1 host2; do
	ns $host nlb forwarder add "${lbu_of[$host]}"
	ns $host nlb peer add "${lbu_of[$host]}" key 1 secret-file "$tmp/keypeers"
	lbu peer add "${address[$host]}" key 1 secret-file "$tmp/keypeers"
done
pages
nlbd_start
for host in host1 host2; do agent_start $host; done
classify_config >"$tmp/classify.toml"
ns lbu nlbd check --config "$tmp/classify.toml"
background lbu "$tmp/classify.log" nlbd classify --config "$tmp/classify.toml"
wait_listen lbu 80
ktap_run "new connections are moved to both" connections_are_moved
hold_web
ktap_run "capacity and load become shares" capacity_and_load_are_shares
ktap_run "reported failing: no new connections, the old one goes on" reported_failing
ktap_run "an application stands still" application_stands_still
ktap_run "drain, and undo" drain_and_undo
ktap_run "an agent is killed" agent_is_killed
ktap_run "all are failing" panic
ktap_run "nlb_fwd is loaded anew" module_anew
ktap_end
