#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# nlbd has a HAProxy follow (FIG. 17B), without our kernel modules: the server of a host that is not well, drains or is
# gone gets no new connections, also of a HAProxy that was started anew; and a server that nobody speaks of is left
# alone. Two proxies speak for a host that has no agent (FIG. 17A).

. "$(dirname "$0")/lib.sh"

address+=([proxy8]=127.0.0.1 [proxy9]=$HOST1)
lbu_of+=([proxy8]=127.0.0.1 [proxy9]=$LBU_TO_HOST1)
agent_config() {
	cat <<-EOF
		host = ${1: -1}
		lbus = ["${lbu_of[$1]}:4771"]
		addresses = ["${address[$1]}"]
		socket = "$tmp/$1/socket"
		state = "$tmp/$1/state.json"
		heartbeat_ms = 300
		age_limit_ms = 4000
	EOF
	[[ $1 = host* ]] || cat <<-EOF
		[[app]]
		name = "bare"
		vip = "$VIP:80/tcp"
		physical = "$HOST2:82"
		[[app.check]]
		kind = "http"
		path = "/page"
		interval_ms = 200
	EOF
}
health_config() {
	printf 'lbu = 9\nsocket = "%s"\nstate = "%s"\nforwarder = false\nproxies = [8, 9]\n' "$tmp/nlbd" "$tmp/nlbd.json"
	printf '[[haproxy]]\nsocket = "%s"\nbackend = "web"\nvip = "%s"\n' "$tmp/admin" "$VIP:80/tcp"
}

# haproxy_start OPTION...: and it is the one that answers; its process is in haproxy.pid.
haproxy_start() {
	cat >"$tmp/haproxy.cfg" <<-EOF
		global
		  nbthread 1
		  stats socket $tmp/admin mode 600 level admin
		defaults
		  mode tcp
		  timeout client 60s
		  timeout server 60s
		  timeout connect 20s
		frontend vip
		  bind $VIP:80
		  default_backend web
		backend web
		  balance roundrobin
		  server host1 $HOST1:80
		  server host2 $HOST2:80
		  server other $HOST2:81 weight 7 disabled
		  server bare $HOST2:82 weight 7 disabled
	EOF
	background lbu "$tmp/haproxy.log" haproxy -db -f "$tmp/haproxy.cfg" "$@"
	echo $! >"$tmp/haproxy.pid"
	wait_for 20 haproxy_answers
	wait_listen lbu 80
}
haproxy_answers() { is "$(runtime "show info" | sed -n 's/^Pid: //p')" "$(<"$tmp/haproxy.pid")"; }
runtime() { echo "$1" | ns lbu socat -t 20 - "UNIX-CONNECT:$tmp/admin"; }
# What was forced on a server (1: maint, 8: drain), and its weight.
server() { runtime "show servers state web" | awk -v name="$1" '$4 == name { print $7, $8 }'; }
server_is() { is "$(server "$1")" "$2"; }
becomes() { wait_for 30 server_is "$@"; }

# A connection to host1 on which something is said all the time.
hold_host1() {
	rm -f "$tmp/held.log"
	background client "$tmp/held.log" python3 -c "
import http.client, time
def page():
    c.request('GET', '/page')
    return c.getresponse().read()
while True:
    c = http.client.HTTPConnection('$VIP', timeout=20)
    if page() == b'web host1\n':
        break
    c.close()
c.auto_open = 0
while True:
    assert page() == b'web host1\n'
    print('x', end='', flush=True)
    time.sleep(0.1)"
	wait_for 20 test -s "$tmp/held.log"
}

weights() {
	local host
	for host in host1 host2; do
		app $host register web vip $VIP:80/tcp physical "${address[$host]}:80" protocol http capacity 40
		becomes $host "0 40"
	done
	app host1 load web 50
	becomes host1 "0 20"
	health | jq -e '.trouble == null and all(.rows[]; .state == "active")'
	is "$(web)" "web host1 web host2"
	hold_host1
	# There is no forwarder to look for.
	grep -qx nlbd <(threads)
	not grep -qx watch <(threads)
}

threads() { cat /proc/"$(<"$tmp/nlbd.pid")"/task/*/comm; }

sick_and_well() {
	app host1 health web failing
	wait_for 30 drains host1
	is "$(web)" "web host2"
	goes_on
	app host1 health web healthy
	wait_for 30 takes host1
	is "$(web)" "web host1 web host2"
}
drains() { [[ $(server "$1") = "8 "* ]]; }
takes() { [[ $(server "$1") = "0 "* ]]; }

drain_and_undo() {
	app host1 drain web wait
	drains host1
	app_is host1 web current draining
	is "$(web)" "web host2"
	goes_on
	app host1 undo web
	wait_for 30 takes host1
	is "$(web)" "web host1 web host2"
}

# What somebody else sets does not last.
by_hand() {
	runtime "set server web/host1 state drain; set server web/host2 weight 1"
	wait_for 30 takes host1
	becomes host2 "0 40"
}

# By another process that goes on with what the first one had.
reload() {
	local old
	old=$(<"$tmp/haproxy.pid")
	app host1 health web failing
	wait_for 30 drains host1
	haproxy_start -sf "$old"
	wait_for 30 drains host1
	becomes host2 "0 40"
	is "$(web)" "web host2"
	goes_on
	app host1 health web healthy
	wait_for 30 takes host1
	kill -KILL "$old"
	wait_for 20 grep -q Traceback "$tmp/held.log"
}

inactive() {
	hold_host1
	app host1 drain web state inactive wait
	[[ $(server host1) = "1 "* ]]
	wait_for 20 grep -q Traceback "$tmp/held.log"
	is "$(web)" "web host2"
	app host1 undo web
	wait_for 30 takes host1
}

restart() {
	app host1 health web failing
	wait_for 30 drains host1
	end KILL "$tmp/haproxy.pid"
	wait_for 20 trouble_is 'contains("backend web at '"$tmp/admin"' does not follow: ") and contains("does it run")'
	app host2 capacity web 30
	haproxy_start
	wait_for 30 drains host1
	becomes host2 "0 30"
	is "$(web)" "web host2"
	wait_for 20 trouble_is '. == null'
	app host1 health web healthy
	wait_for 30 takes host1
	is "$(web)" "web host1 web host2"
}

# What jq says of it.
trouble_is() { health | jq -e ".trouble | $1"; }

# Nor is it forgotten who is gone.
goodbye() {
	end USR2 "$tmp/host1/agent.pid"
	wait_for 30 drains host1
	end KILL "$tmp/haproxy.pid"
	haproxy_start
	wait_for 30 drains host1
	is "$(web)" "web host2"
	agent_start host1
	wait_for 30 takes host1
	server_is other "5 7"
}

# Of an application that two know, one row counts.
proxies() {
	server_is bare "5 7"
	agent_start proxy8 lbu
	# By now it is not said any more that it is disabled by the configuration alone.
	becomes bare "4 50"
	agent_start proxy9 host1
	wait_for 20 health_of_bare_is "healthy healthy"
	server_is bare "4 50"
	# One of them may be wrong, or gone.
	app proxy8 health bare failing
	wait_for 20 health_of_bare_is "failing healthy"
	app proxy9 capacity bare 30
	becomes bare "4 30"
	app proxy9 health bare failing
	becomes bare "12 30"
	app proxy8 health bare healthy
	becomes bare "4 50"
	end KILL "$tmp/proxy9/agent.pid"
	wait_for 20 health_of_bare_is "healthy"
	app proxy8 capacity bare 40
	becomes bare "4 40"
	app proxy8 drain bare wait
	server_is bare "12 40"
}
health_of_bare_is() { is "$(health | jq -r '[.rows[] | select(.physical == "'$HOST2:82'").health] | join(" ")')" "$1"; }

ktap_begin
topology
ip -n lbu addr add $VIP/32 dev lo
keys_make 1
pages 80,82
haproxy_start
nlbd_start
for host in host1 host2; do agent_start $host; done
ktap_run "load and capacity become weights" weights
ktap_run "failing, and healthy again" sick_and_well
ktap_run "drain, and undo" drain_and_undo
ktap_run "by hand" by_hand
ktap_run "a reload of HAProxy" reload
ktap_run "inactive" inactive
ktap_run "HAProxy dies, and is started again" restart
ktap_run "goodbye" goodbye
ktap_run "proxies" proxies
ktap_end
