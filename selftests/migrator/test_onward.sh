#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 600
#
# A connection whose packets come by another machine's tunnel moves on: the host that it was at sends them on,
# and tells that machine, which sends them to the new host by itself. From then on the old one is not needed.
# (What comes by a wire moves on: test_state.sh.)

. "$(dirname "$0")/lib.sh"

moved=$(dirname "$tcp")/moved.py

# drain MACHINE ADDR: all of the service, in one pass; what is reported is what the test is about.
drain() { ns "$1" nlb -j migration drain from "$(service)" to "$2" retry 0 >"$tmp/report" || [ $? = 1 ]; }
service() { case $VIP in *:*) echo "[$VIP]:80" ;; *) echo "$VIP:80" ;; esac; }
# goes: one connection was moved; stays TEXT: one was refused for this reason.
goes() {
	cat "$tmp/report"
	jq -e '.moved == 1 and .refused == 0 and .reset == 0' "$tmp/report"
}
stays() {
	cat "$tmp/report"
	jq -e --arg text "$1" '.moved == 0 and .refused == 1 and .reset == 0 and (.reasons | length) == 1 and
		.reasons[0].reason == $text' "$tmp/report"
}
# begun: a client whose first piece has come back, and that sends no second one before ends_well, when it goes on and every
# byte is there.
begun() {
	had=$(finished host1)
	rm -f "$tmp/ready" "$tmp/gate"
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --chunk 1000 --bytes 5000 \
		--ready "$tmp/ready" --gate "$tmp/gate"
	client=$!
	wait_for 60 [ -e "$tmp/ready" ]
}
ends_well() {
	touch "$tmp/gate"
	wait "$client" || { cat "$tmp/client.log"; return 1; }
	holds --connections 1 "$@"
}
# What was begun has ended at host1, without an error.
finished() { reports "server-$1" '.error == null' | jq length; }
at_host1() { [ "$(finished host1)" = $((had + 1)) ]; }
active_at() { migrations "$1" | jq -e 'any(.phase == "active" and .role == "target")'; }
# The one route of the LBU that is not of a connection that has ended, and where it leads.
the_route() { ns lbu nlb -j route show | jq -e '[.[] | select(.state == "established")] | select(length == 1)[0]'; }
leads_to() { the_route | jq -e --arg host "$1" '.host_addr == $host'; }
# any_moved_to HOST: host1 sends packets on to there.
any_moved_to() { ns host1 nlb -j mapping show side host | jq -e --arg host "$1" 'any(.moved_to == $host)'; }
# ended MACHINE: nothing is left of connections that moved on from there.
ended() { [ -z "$(ns "$1" nlb -j migration show | jq -r '.[] | select(.phase == "active") | .phase')" ]; }

# Both hosts are set up as whoever wants to move connections between them would set them up: each is the other's
# forwarder and peer. No service: they balance nothing.
origin() {
	peer_add host1 $HOST2
	ns host2 nlb forwarder add $HOST1
	peer_add host2 $HOST1
	ns host1 nlb forwarder add $HOST2
	server host1 server "$1" 80
	server host2 server "$1" 80
}

# Once the LBU knows, host1 may be turned off.
moved_on() {
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	drain host1 $HOST2
	goes
	wait_for 30 leads_to $HOST2
	wait_for 30 ended lbu
	not any_moved_to $HOST2
	off host1
	ends_well --moved 1
	on host1
	wait_for 5 served server-host2 1
	served server-host1 0
	stop classifier
}
# off MACHINE: it neither hears nor says anything; on MACHINE.
off() {
	ns "$1" nft 'add table inet off
		add chain inet off in { type filter hook prerouting priority -600; policy drop; }
		add chain inet off out { type filter hook output priority -600; policy drop; }'
}
on() { ns "$1" nft delete table inet off; }

# Also what nobody has migrated before: it has come by the tunnel from its SYN.
from_its_syn() {
	ns lbu nlb service del "$(service)/tcp"
	ns lbu nlb service add "$(service)/tcp" mode l4
	ns lbu nlb endpoint add "$(service)/tcp" host $HOST1
	watch
	begun
	ns lbu nlb endpoint add "$(service)/tcp" host $HOST2
	drain host1 $HOST2
	goes
	wait_for 30 leads_to $HOST2
	ends_well --moved 1
	# The endpoints have what is theirs.
	wait_for 10 no_routes
	ns lbu nlb service del "$(service)/tcp"
	service_add "$(service)/tcp"
}

# A host that the LBU gives no connections of this service: they go by host1, to their end.
no_endpoint() {
	local before
	ns lbu nlb endpoint del "$(service)/tcp" host $HOST2
	before=$(counter lbu tunnel moved-elsewhere)
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	drain host1 $HOST2
	goes
	wait_for 10 counter_above lbu tunnel moved-elsewhere "$before"
	before=$(counter host1 tunnel relay-packets)
	leads_to $HOST1
	any_moved_to $HOST2
	ends_well --moved 1
	[ "$(counter host1 tunnel relay-packets)" -gt "$before" ]
	# The end is reported from host2 to host1 to the LBU.
	wait_for 30 ended host1
	wait_for 30 ended lbu
	wait_for 10 no_routes
	ns lbu nlb endpoint add "$(service)/tcp" host $HOST2
	stop classifier
}
counter_above() { [ "$(counter "$1" "$2" "$3")" -gt "$4" ]; }

# There and back, at once and time and again, whatever the LBU knows of it.
to_and_fro() {
	local n
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	for n in {1..10}; do
		drain host1 $HOST2
		goes
		[ $((n % 5)) != 0 ] || wait_for 30 leads_to $HOST2
		drain host2 $HOST1
		goes
		[ $((n % 5)) != 0 ] || wait_for 30 leads_to $HOST1
	done
	# The client has sent nothing meanwhile, so only the last owner has spoken.
	ends_well
	wait_for 5 at_host1
	wait_for 30 ended host1
	wait_for 30 ended host2
	wait_for 30 ended lbu
	stop classifier
}

# While the client sends, and host1 answers late: what comes meanwhile is held, and goes round between no machines. Nobody
# reads it but the last one.
while_it_sends() {
	local any=$1 n before machine
	for machine in host1 host2; do
		stop server-$machine
		start_load keeper-$machine $machine keeper "$any" 80
		wait_listen $machine 80
	done
	classifier --to $HOST1
	slow_answers 200ms
	before=$(went_round)
	watch
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --chunk 500 --bytes 60000 --pause 0.05
	client=$!
	wait_for 10 active_at host1
	for n in {1..4}; do
		drain host1 $HOST2
		goes
		drain host2 $HOST1
		goes
	done
	prompt_answers
	end_load keeper-host2
	server host2 server "$any" 80
	drain host1 $HOST2
	goes
	wait "$client" || { cat "$tmp/client.log"; return 1; }
	holds --connections 1 --returns
	[ "$(went_round)" = "$before" ]
	[ "$(counter host1 migrator held-delivered)" -gt 0 ]
	end_load keeper-host1
	server host1 server "$any" 80
	wait_for 30 ended host1
	wait_for 30 ended lbu
	stop classifier
}
# Packets whose TTL was used up.
went_round() {
	local machine
	for machine in lbu host1 host2; do counter $machine tunnel drop-ttl-expired; done | jq -s add
}

# Back to the LBU itself, where an application listens, too; and out again, by a route.
moved_back() {
	classifier --to $HOST1
	ns lbu nlb forwarder add $HOST1
	peer_add lbu $HOST1 2>/dev/null || :
	watch
	begun
	wait_for 10 active_at host1
	stop classifier
	start server-lbu lbu server $VIP 80
	wait_listen lbu 80
	drain host1 $LBU_TO_HOST1
	goes
	not the_route
	drain lbu $HOST2
	goes
	leads_to $HOST2
	ends_well --moves 2
	wait_for 5 served server-lbu 0
	wait_for 30 ended host1
	wait_for 30 ended lbu
	stop server-lbu
	ns lbu nlb forwarder del $HOST1
}

# A mapping that is taken away too early is taught again by the LBU, which does not know that the connection has moved on.
unmapped() {
	local id
	ns lbu nlb endpoint del "$(service)/tcp" host $HOST2
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	id=$(the_route | jq -r .flow_id)
	is_mapped "$id"
	drain host1 $HOST2
	goes
	ns host1 nlb mapping del forwarder $LBU_TO_HOST1 id "$id"
	not is_mapped "$id"
	touch "$tmp/gate"
	wait_for 60 is_mapped "$id"
	ends_well --moved 1
	ns lbu nlb endpoint add "$(service)/tcp" host $HOST2
	stop classifier
}
is_mapped() {
	ns host1 nlb -j mapping show side host |
		jq -e --arg id "$1" --arg addr "$LBU_TO_HOST1" 'any(.flow_id == $id and .forwarder_addr == $addr)'
}

# Who has no listener for it takes nothing, and nothing is left of the attempt.
no_listener() {
	stop server-host2
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	drain host1 $HOST2
	stays "target: no listener"
	ends_well --moved 1
	wait_for 5 at_host1
	[ "$(ns host1 nlb -j mapping show side forwarder | jq length)" = 0 ]
	stop classifier
	server host2 server "$1" 80
}

# Whoever lies about a connection, be it its host, changes nothing: host2 is asked, and does not have it.
lies() {
	local id before
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	id=$(the_route | jq -r .flow_id)
	before=$(counter host2 tunnel drop-ask)
	ns host1 "$moved" $HOST1 $LBU_TO_HOST1 "$id" $HOST2
	wait_for 10 counter_above host2 tunnel drop-ask "$before"
	# Another machine than the one that has it gets a GONE, which means nothing.
	before=$(counter lbu tunnel gone-sent)
	ns host2 "$moved" $HOST2 $LBU_TO_HOST2 "$id" $HOST2
	wait_for 10 counter_above lbu tunnel gone-sent "$before"
	# A host that is none.
	before=$(counter lbu tunnel moved-elsewhere)
	ns host1 "$moved" $HOST1 $LBU_TO_HOST1 "$id" $CLIENT
	wait_for 10 counter_above lbu tunnel moved-elsewhere "$before"
	leads_to $HOST1
	ends_well --moved 1
	wait_for 5 at_host1
	stop classifier
}

all() {
	local any=$1 over=$2
	ktap_run "on, to another host$over" moved_on
	ktap_run "on, what has come by the tunnel from its SYN$over" from_its_syn
	ktap_run "on, to a host that is no endpoint$over" no_endpoint
	ktap_run "to and fro$over" to_and_fro
	ktap_run "to and fro, while the client sends$over" while_it_sends "$any"
	ktap_run "back, to the LBU$over" moved_back
	ktap_run "on, and the mapping was taken away too early$over" unmapped
	ktap_run "not to where nobody listens$over" no_listener "$any"
	ktap_run "who lies changes nothing$over" lies
}

ktap_begin
cluster
origin 0.0.0.0
all 0.0.0.0 ""
ipv6
stop server-host1
stop server-host2
origin ::
all :: ", over IPv6"
ktap_end
