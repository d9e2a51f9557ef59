#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# nlb-agent on two hosts, which are a group, and nlbd on the LBU: who is not well, shall get nothing, or is not heard of
# any more, gets no new connections, and keeps those that it has. Two applications: "echo", which registers, and "web",
# an nginx that is checked.

. "$(dirname "$0")/look.sh"

# One speaks IPv4, the other IPv6.
says_to=([host1]="$LBU_TO_HOST1:4771" [host2]="[$LBU_TO_HOST2_6]:4771")

agent_more() {
	cat <<-EOF
		name = "$1.example"
		metrics = "127.0.0.1:4772"
		register = [65534]
		[group]
		id = 7
		address = "${address[$1]}:4772"
		members = ["$HOST1:4772", "$HOST2:4772"]
	EOF
}
health_config() {
	cat <<-EOF
		lbu = 9
		metrics = "127.0.0.1:4771"
		socket = "$tmp/nlbd"
		state = "$tmp/nlbd.json"
		[[allotment]]
		service = "$VIP:9002/udp"
		scheme = "tokens"
		tokens = 40
		age_ms = 3600000
		[[allotment]]
		service = "$VIP:9003/udp"
		scheme = "percentages"
		age_ms = 2000
	EOF
}

# allotted PORT STATE AMOUNTS: the allotment's state, and what endpoints have of it, by their addresses.
allotted() {
	[ "$(lbu -j allotment show "$VIP:$1/udp" | jq -r '.[0] | [.state, (.shares | sort_by(.host_addr)[].amount)] | join(" ")')" = "$2 $3" ]
}
# went PORT COUNT: how many of so many flows each host gets.
went() { flows "$1" "$2" | awk -v first="$HOST1" '$2 == first { n++ } END { print n + 0, NR - n }'; }

applications_register() {
	local host
	for host in host1 host2; do
		app $host register echo vip $VIP:9000/tcp protocol echo capacity 40
		for port in 80 9000; do becomes $port $host active; done
		wait_for 20 field_is 9000 $host weight 40
	done
	wait_for 20 rows_are 4
	nlb health socket "$tmp/nlbd"
	grep -qx watch /proc/"$(<"$tmp/nlbd.pid")"/task/*/comm
	is "$(who 9000 6)" "host1 host2"
	is "$(web)" "web host1 web host2"
}

load_and_capacity_are_weights() {
	app host1 load echo 75
	wait_for 20 field_is 9000 host1 weight 10
	app host2 capacity echo 99
	wait_for 20 field_is 9000 host2 weight 99
	app host2 capacity echo 40
	wait_for 20 field_is 9000 host2 weight 40
	# What somebody sets by hand while its host speaks does not last.
	lbu endpoint set $VIP:9000/tcp host $HOST2 weight 3 state draining
	becomes 9000 host2 active
	wait_for 20 field_is 9000 host2 weight 40
}

metrics() {
	local drops='nlbd_health_datagrams_dropped_total{reason="datagram-magic"}' before machine name page
	for machine in "lbu 4771" "host1 4772"; do
		page=$tmp/metrics-${machine% *}
		# shellcheck disable=SC2086
		scrape $machine >"$page"
		# Comments; name, labels and number.
		not grep -vE '^# (HELP|TYPE) [a-z_]+ |^[a-z_]+(\{([a-z_]+="[^"]*"[,}])+)? [0-9.e+-]+$' "$page"
		not grep -qF "$(<"$tmp/key1")" "$page"
		# shellcheck disable=SC2086
		is "$(scrape $machine / -o /dev/null -w '%{http_code}')" 404
	done
	for name in checks_total check_duration_seconds_bucket app_load_ratio; do
		grep -q "^nlb_agent_$name{" "$page"
	done
	grep -qxF 'nlbd_health_hosts{state="known"} 2' "$tmp/metrics-lbu"
	grep -qxF "nlbd_health_panic{service=\"$VIP:9000/tcp\"} 0" "$tmp/metrics-lbu"
	before=$(metric lbu 4771 "$drops")
	ns lbu python3 -c "
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x' * 44, ('127.0.0.1', 4771))"
	wait_for 20 metric_is lbu 4771 "$drops" $((before + 1))
	app host1 health echo failing
	wait_for 20 metric_is host1 4772 'nlb_agent_app_healthy{app="echo"}' 0
	wait_for 20 metric_is lbu 4771 'nlbd_health_rows{health="failing",target="active"}' 1
	wait_for 20 metric_is lbu 4771 'nlbd_health_endpoints{state="draining"}' 1
	app host1 health echo healthy
	becomes 9000 host1 active
}

reported_failing() {
	app host1 health echo failing
	becomes 9000 host1 draining
	is "$(who 9000 4)" host2
	# The directive is another thing, and so is the other application.
	app_is host1 echo target active
	field_is 80 host1 state active
	goes_on
	app host1 health echo healthy
	becomes 9000 host1 active
	is "$(who 9000 4)" "host1 host2"
}

# What happens is told as it happens, with its cause, and to nobody who may not ask.
events() {
	local of=".service == \"$VIP:9000/tcp\" and .endpoint == \"$HOST1\""
	events_begin -j
	app host1 health echo failing
	wait_for 20 happened '.event == "row" and .change == "updated" and .host == 1 and .health == "failing"'
	wait_for 20 happened ".event == \"endpoint\" and $of and .state == \"draining\" and .cause == \"failing\""
	health | jq -e '[.rows[] | select(.state == "draining" and .cause == "failing")] | length == 1'
	grep -a 'endpoint is draining: failing' "$tmp/nlbd.log"
	not happened ".event == \"endpoint\" and .endpoint == \"$HOST2\""
	app host1 health echo healthy
	wait_for 20 happened ".event == \"endpoint\" and $of and .state == \"active\" and .cause == \"healthy\""
	app host1 drain echo wait
	wait_for 20 happened ".event == \"endpoint\" and $of and .state == \"draining\" and .cause == \"directive\""
	app host1 undo echo
	becomes 9000 host1 active
	wait_for 20 app_is host1 echo current active
	kill "$watcher"
	not as 65534 lbu nlb health events socket "$tmp/nlbd"
	grep 'may not ask' "$tmp/err"
}

check_fails() {
	end TERM "$tmp/host1/pid"
	becomes 80 host1 draining
	app_is host1 web health failing
	is "$(web)" "web host2"
	field_is 9000 host1 state active
	goes_on
	start_nginx host1
	becomes 80 host1 active
	is "$(web)" "web host1 web host2"
}

# It accepts, and does not answer.
application_stands_still() {
	local workers
	mapfile -t workers < <(pgrep -P "$(<"$tmp/host1/pid")")
	((${#workers[@]}))
	kill -STOP "${workers[@]}"
	becomes 80 host1 draining
	app_is host1 web health failing
	is "$(web)" "web host2"
	goes_on
	kill -CONT "${workers[@]}"
	becomes 80 host1 active
	is "$(web)" "web host1 web host2"
}

# What is sent to the host, and what it sends, gets lost between it and the LBU.
link_is_cut() {
	ns lbu nft 'add table inet cut
		add chain inet cut in { type filter hook prerouting priority -450; }
		add chain inet cut out { type filter hook postrouting priority 450; }
		add rule inet cut in iifname host1 counter drop
		add rule inet cut out oifname host1 counter drop'
	becomes 80 host1 draining
	becomes 9000 host1 draining
	is "$(web)" "web host2"
	is "$(who 9000 4)" host2
	ns lbu nft delete table inet cut
	becomes 80 host1 active
	becomes 9000 host1 active
	is "$(web)" "web host1 web host2"
	goes_on
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

# Load and capacity decide who gets connections, for as long as somebody says so.
allotments() {
	local port host
	for port in 9002 9003; do
		lbu service add $VIP:$port/udp scheduler rr
		for host in host1 host2; do lbu endpoint add $VIP:$port/udp host "${address[$host]}"; done
		app host1 register a$port vip $VIP:$port/udp capacity 60
		app host2 register a$port vip $VIP:$port/udp capacity 20
	done
	wait_for 20 allotted 9002 valid "30 10"
	is "$(went 9002 20)" "15 5"
	allotted 9002 valid "15 5"
	# A quarter is left when they have gone: another one is asked for.
	went 9002 10 >"$tmp/went"
	wait_for 20 allotted 9002 valid "30 10"
	app host1 load a9002 50
	wait_for 20 allotted 9002 valid "24 16"
	app host1 health a9002 failing
	wait_for 20 allotted 9002 valid 40
	is "$(went 9002 8)" "0 8"
	wait_for 20 allotted 9003 valid "75 25"
}
# Nobody says anything any more: what was known last goes on, and the scheduler picks as soon as an allotment is too old.
nlbd_dies() {
	local port host
	end KILL "$tmp/nlbd.pid"
	field_is 9000 host1 state active
	app host1 health echo failing
	is "$(who 9000 4)" "host1 host2"
	wait_for 20 allotted 9003 over "75 25"
	is "$(went 9003 20)" "10 10"
	nlbd_start
	wait_for 20 rows_are 8
	becomes 9000 host1 draining
	field_is 9000 host2 state active
	is "$(who 9000 4)" host2
	goes_on
	wait_for 20 allotted 9003 valid "75 25"
	app host1 health echo healthy
	becomes 9000 host1 active
	for port in 9002 9003; do
		for host in host1 host2; do app $host unregister a$port; done
		lbu service del $VIP:$port/udp
	done
	wait_for 20 rows_are 4
}

# Whose endpoints all are failing sends to all that ask for connections.
panic() {
	app host1 health echo failing
	becomes 9000 host1 draining
	app host2 health echo failing
	becomes 9000 host1 active
	field_is 9000 host2 state active
	health | jq -e '[.rows[] | select(.panic)] | length == 2'
	app host1 drain echo wait
	is "$(who 9000 4)" host2
	app host1 undo echo
	app host1 health echo healthy
	app host2 health echo healthy
	wait_for 20 app_is host1 echo current active
	becomes 9000 host1 active
	wait_for 60 is_settled
}
# Nobody gets anything by panic, all that is known is in force, and nlbd has heard names again.
is_settled() { health | jq -e '.version == .applied and all(.rows[]; (.panic | not) and .name != null)'; }

forged() {
	local before name
	before=$(health | jq -c '[.rows, .stale]')
	# Garbage; a goodbye of host 1 with a wrong tag, with a key that nobody has; and one that was here already.
	ns lbu python3 - <<-EOF
		import socket
		to = ("127.0.0.1", 4771)
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		for data in (b"", b"x" * 43, b"x" * 44, b"x" * 2000):
		    s.sendto(data, to)
		goodbye = bytes.fromhex("6e6c6268 01 02 01 00 00000001 ffffffffffffff00 0000000000000001")
		s.sendto(goodbye + b"\0" * 16, to)
		s.sendto(goodbye[:6] + b"\7" + goodbye[7:] + b"\0" * 16, to)
		raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
		while True:
		    packet = raw.recv(2048)
		    if packet[9] == 17 and packet[22:24] == to[1].to_bytes(2, "big") and packet[28:32] == b"nlbh":
		        break
		s.sendto(packet[28:], to)
		s.sendto(packet[28:], to)
	EOF
	for name in short magic long tag key replay; do wait_for 20 is_counted "datagram-$name"; done
	is "$(counted datagram-short)" 2
	is "$(counted datagram-tag)" 1
	is "$(health | jq -c '[.rows, .stale]')" "$before"
	# Nor does anybody of the host speak for others, here or elsewhere.
	chmod a+rx "$tmp" "$tmp/host1"
	not as 65533 host1 nlb app drain echo socket "$tmp/host1/socket"
	grep 'may not ask' "$tmp/err"
	not as 65534 host1 nlb app drain echo socket "$tmp/host1/socket"
	grep 'not an application of user 65534' "$tmp/err"
	not as 65534 host1 nlb app register mine vip $VIP:9000/tcp physical $HOST2:9000 health failing \
		socket "$tmp/host1/socket"
	grep 'no address of this host' "$tmp/err"
	not as 65534 host1 nlb app register mine vip $VIP:9000/tcp physical $HOST1:1 health failing \
		socket "$tmp/host1/socket"
	grep 'is the same endpoint' "$tmp/err"
	not as 65534 lbu nlb health socket "$tmp/nlbd"
	grep 'may not ask' "$tmp/err"
	app_is host1 echo target active
}
# Of two hosts in a group one speaks for both, and its death costs the other nothing.
leader_dies() {
	local host before
	for host in host1 host2; do wait_for 20 leads host1 $host; done
	before=$(counted changes)
	wait_for 20 are_counted changes "$before"
	before=$(changes)
	end KILL "$tmp/host1/agent.pid"
	ages
	for port in 80 9000; do becomes $port host1 draining; done
	# Nothing was too old of the other one.
	wait_for 20 rows_are 2
	is "$(changes)" $((before + 2))
	health | jq -e '.stale | length == 2'
	is "$(who 9000 4)" host2
	is "$(web)" "web host2"
	goes_on
	wait_for 20 leads host2 host2
	# What was registered is not forgotten.
	agent_start host1
	for port in 80 9000; do becomes $port host1 active; done
	app_is host1 echo registered true
	health | jq -e '.stale | length == 0'
	# Who comes back does not take over.
	wait_for 20 leads host2 host1
	before=$(counted changes)
	wait_for 20 are_counted changes "$before"
}
# Until nothing that is not said again is used any more it takes four seconds: to ask before that costs time.
ages() { nap 3; }

# Another life of the agent, or another check, is no news; on a machine that is slow, too.
agent_restarts() {
	local before age_limit=15000
	end TERM "$tmp/host1/agent.pid"
	agent_start host1
	wait_for 20 heard_beat host1
	before=$(changes)
	end TERM "$tmp/host1/agent.pid"
	agent_start host1
	# Nobody has said again how busy it is.
	app_is host1 echo load 75
	app host1 capacity echo 30
	wait_for 20 field_is 9000 host1 weight 8
	sed -i 's/interval_ms = 200/interval_ms = 300/' "$tmp/host1/agent.toml"
	kill -HUP "$(<"$tmp/host1/agent.pid")"
	wait_for 20 grep -q 'read again' "$tmp/host1/agent.log"
	app_is host1 web health healthy
	app host1 capacity echo 40
	wait_for 20 field_is 9000 host1 weight 10
	is "$(changes)" "$before"
	goes_on
	end TERM "$tmp/host1/agent.pid"
	age_limit='' agent_start host1
}
# heard_beat MACHINE: an LBU has asked this life of the agent for its table.
heard_beat() { ns "$1" nlb -j app show socket "$tmp/$1/socket" | jq -e '.lbus | length == 1'; }

# A program that ends with its connection shall be draining, and is so when it comes again.
held_drains() {
	local held
	held
	app host1 drain held
	kill "$held"
	wait_for 20 not app host1 show held
	held
	app_is host1 held target draining
	kill "$held"
	wait_for 20 not app host1 show held
	end TERM "$tmp/host1/agent.pid"
	agent_start host1
	held
	app_is host1 held target draining
	app host1 undo held
	app_is host1 held target active
	kill "$held"
	wait_for 20 rows_are 4
}
held() {
	background host1 "$tmp/held-app.log" "$examples/report" held $VIP:9002/tcp "$tmp/host1/socket"
	held=$!
	wait_for 20 app host1 show held
}

# A process that stands still hears nobody, which is nobody's silence.
nlbd_stands_still() {
	local before aged
	before=$(changes) aged=$(counted chunk-aged)
	kill -STOP "$(<"$tmp/nlbd.pid")"
	# More than the age limit.
	nap 5
	kill -CONT "$(<"$tmp/nlbd.pid")"
	app host1 capacity echo 30
	wait_for 20 field_is 9000 host1 weight 8
	is "$(changes)" "$before"
	is "$(counted chunk-aged)" "$aged"
	app host1 capacity echo 40
	wait_for 20 field_is 9000 host1 weight 10
}

# An nlbd that cannot do what a host asks for is not silent: the host waits for it.
drain_in_trouble() {
	end KILL "$tmp/nlbd.pid"
	background lbu "$tmp/nlbd.log" setpriv --bounding-set=-net_admin nlbd health --config "$tmp/health.toml"
	echo $! >"$tmp/nlbd.pid"
	wait_for 20 rows_are 4
	app host1 drain echo
	wait_for 20 has_trouble
	# More than the age limit and what may be on the way.
	nap 6
	app_is host1 echo current active
	field_is 9000 host1 state active
	end KILL "$tmp/nlbd.pid"
	nlbd_start
	wait_for 20 app_is host1 echo current draining
	field_is 9000 host1 state draining
	app host1 undo echo
	becomes 9000 host1 active
	wait_for 20 app_is host1 echo current active
	health | jq -e '.trouble == null'
}
has_trouble() { health | jq -e .trouble; }

# The new key is added everywhere, sent with everywhere, and the old one deleted.
keys_rotate() {
	local step host process before
	for step in "1 2" "2 1" "2"; do
		# shellcheck disable=SC2086
		{ health_config && keys $step; } >"$tmp/health.toml"
		for host in host1 host2; do
			# shellcheck disable=SC2086
			{ agent_config $host && keys $step; } >"$tmp/$host/agent.toml"
		done
		for process in nlbd host1/agent host2/agent; do
			: >"$tmp/$process.log"
			kill -HUP "$(<"$tmp/$process.pid")"
		done
		for process in nlbd host1/agent host2/agent; do wait_for 20 grep -q 'read again' "$tmp/$process.log"; done
	done
	app host1 drain echo wait
	field_is 9000 host1 state draining
	app host1 undo echo
	becomes 9000 host1 active
	# Who has the old one only is not heard.
	before=$(counted datagram-key)
	{ agent_config host1 && keys 1; } >"$tmp/host1/agent.toml"
	kill -HUP "$(<"$tmp/host1/agent.pid")"
	wait_for 20 are_counted datagram-key "$before"
	{ agent_config host1 && keys 2; } >"$tmp/host1/agent.toml"
	kill -HUP "$(<"$tmp/host1/agent.pid")"
	becomes 9000 host1 active
	wait_for 20 rows_are 4
	# What is wrong changes nothing.
	echo nonsense >>"$tmp/health.toml"
	kill -HUP "$(<"$tmp/nlbd.pid")"
	wait_for 20 grep -q 'the old configuration stays' "$tmp/nlbd.log"
	rows_are 4
}

goodbye() {
	events_begin
	end USR2 "$tmp/host1/agent.pid"
	becomes 9000 host1 draining
	becomes 80 host1 draining
	rows_are 2
	health | jq -e '.stale | length == 0'
	goes_on
	for line in "host 1 down: goodbye" "endpoint $VIP:80/tcp $HOST1 draining: gone"; do
		wait_for 20 grep -qx "$line" "$tmp/events.log"
	done
	kill "$watcher"
	# Nobody has said anything of these.
	field_is 9001 host1 state active
	field_is 9001 host1 weight 7
	field_is 9001 host2 state inactive
	[ ! -e "$tmp/host1/socket" ]
}

# Who has left, and who is silent, gets nothing when all endpoints are made anew, and active.
module_anew() {
	services_anew
	for port in 80 9000; do becomes $port host1 draining; done
	key=2 agent_start host1
	for port in 80 9000; do becomes $port host1 active; done
	end KILL "$tmp/host1/agent.pid"
	ages
	for port in 80 9000; do becomes $port host1 draining; done
	services_anew
	for port in 80 9000; do becomes $port host1 draining; done
	for port in 80 9000; do field_is $port host2 state active; done
	health | jq -e '.stale | length == 2'
	# It is made anew while nlbd looks on.
	lbu endpoint del $VIP:9000/tcp host $HOST1
	lbu endpoint add $VIP:9000/tcp host $HOST1
	look 43
	becomes 9000 host1 draining
	# What is there, and somebody opens, stays open.
	lbu endpoint set $VIP:9000/tcp host $HOST1 state active
	look 44
	wait_for 20 stale_are 1
	field_is 9000 host1 state active
}
stale_are() { [ "$(health | jq '.stale | length')" = "$1" ]; }
# look CAPACITY: has nlbd look at nlb_fwd, by something new; else it does so within ten seconds.
look() { app host2 capacity echo "$1"; }
services_anew() {
	: >"$tmp/nlbd.log"
	rmmod nlb_fwd
	wait_for 20 grep -q 'nlb_fwd was unloaded' "$tmp/nlbd.log"
	wait_for 20 has_trouble
	load_modules nlb_fwd
	lbu apply "$tmp/services.toml"
}

ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1 host2
keys_make 1 2
for port in 80 9000 9001; do
	lbu service add $VIP:$port/tcp scheduler rr
	lbu endpoint add $VIP:$port/tcp host $HOST1 weight 7
	lbu endpoint add $VIP:$port/tcp host $HOST2
done
lbu endpoint set $VIP:9001/tcp host $HOST2 state inactive
for port in 80 9000; do
	printf '[[service]]\nvip = "%s:%s"\nscheduler = "rr"\n' $VIP $port
	printf '[[service.endpoint]]\nhost = "%s"\n' $HOST1 $HOST2
done >"$tmp/services.toml"
for host in host1 host2; do ns $host nlb forwarder add "${lbu_of[$host]}"; done
pages
listen 9000
nlbd_start
for host in host1 host2; do agent_start $host; done
ktap_run "applications register, and get connections" applications_register
hold_host1
ktap_run "load and capacity become weights" load_and_capacity_are_weights
ktap_run "metrics" metrics
ktap_run "reported failing: no new connections, the old one goes on" reported_failing
ktap_run "events" events
ktap_run "a check fails" check_fails
ktap_run "an application stands still" application_stands_still
ktap_run "a host's link is cut" link_is_cut
ktap_run "drain, and undo" drain_and_undo
ktap_run "allotments" allotments
ktap_run "nlbd dies" nlbd_dies
ktap_run "all are failing" panic
ktap_run "forged, unauthenticated and replayed datagrams, users who may not" forged
ktap_run "the leader of a group dies" leader_dies
ktap_run "the agent is restarted, and a check changed" agent_restarts
ktap_run "what shall be draining, and ends with its program" held_drains
ktap_run "nlbd stands still" nlbd_stands_still
ktap_run "nlbd is there, and cannot follow" drain_in_trouble
ktap_run "keys rotate" keys_rotate
ktap_run "goodbye" goodbye
ktap_run "nlb_fwd is loaded anew" module_anew
ktap_end
