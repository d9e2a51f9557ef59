# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What test_health.sh looks at: the kernel's endpoints and who answers, and what nlbd counts and tells. Its agents, which
# check a web server.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A test that has its agents speak to another address than lbu_of, or that has more in their configurations, says so by
# these: lines for the agent, and for the application.
declare -A says_to=()
agent_more() { :; }
web_more=
agent_config() {
	cat <<-EOF
		host = ${1#host}
		lbus = ["${says_to[$1]-${lbu_of[$1]}:4771}"]
		addresses = ["${address[$1]}"]
		socket = "$tmp/$1/socket"
		state = "$tmp/$1/state.json"
		heartbeat_ms = 300
		age_limit_ms = ${age_limit:-4000}
		$(agent_more "$1")
		[[app]]
		name = "web"
		vip = "$VIP:80/tcp"
		$web_more
		[[app.check]]
		kind = "http"
		path = "/page"
		body = "web $1"
		interval_ms = 200
		rise = 1
		fall = 1
	EOF
}
health_config() { printf 'lbu = 9\nsocket = "%s"\nstate = "%s"\n' "$tmp/nlbd" "$tmp/nlbd.json"; }

is_counted() { are_counted "$1" 0; }
# are_counted REASON COUNT: more than so many.
are_counted() { (($(counted "$1") > $2)); }
counted() { health | jq ".counters[\"$1\"] // 0"; }

# field PORT HOST FIELD: of an endpoint, in the kernel.
field() { lbu -j endpoint show "$VIP:$1/tcp" host "${address[$2]}" | jq -r ".[0].$3"; }
field_is() { [ "$(field "$1" "$2" "$3")" = "$4" ]; }
becomes() { wait_for 30 field_is "$1" "$2" state "$3"; }

# who PORT COUNT: who answers so many new connections.
who() {
	ns client python3 -c "
import socket
for _ in range($2):
    with socket.create_connection(('$VIP'.strip('[]'), $1), timeout=20) as s:
        print(s.recv(100).decode().strip())" | sort -u | xargs
}

# A connection to host1 on which something is said all the time.
hold_host1() {
	background client "$tmp/held.log" python3 -c "
import socket, time
while True:
    s = socket.create_connection(('$VIP'.strip('[]'), 9000), timeout=20)
    if s.recv(100) == b'host1 ':
        break
    s.close()
while True:
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    print('x', end='', flush=True)
    time.sleep(0.1)"
	wait_for 20 test -s "$tmp/held.log"
}

# leads HOST WHERE: as far as it is known there.
leads() { grep -a 'leader of the group' "$tmp/$2/agent.log" | tail -n 1 | grep -q "leader=${1#host} "; }

# as USER NAMESPACE COMMAND...
as() { ns "$2" setpriv --reuid "$1" --clear-groups "${@:3}" 2>"$tmp/err"; }

# scrape MACHINE PORT [PATH]; metric_is MACHINE PORT SERIES VALUE.
scrape() { ns "$1" curl -sS --max-time 20 "${@:4}" "http://127.0.0.1:$2${3-/metrics}"; }
metric() { scrape "$1" "$2" | awk -v series="$3" '$1 == series { print $2 }'; }
metric_is() { [ "$(metric "$1" "$2" "$3")" = "$4" ]; }

# How often the LBU has changed what an endpoint does.
changes() { grep -ac 'endpoint is' "$tmp/nlbd.log" || true; }

# happened TEST: somebody who watches was told of an event of which jq says so.
happened() { jq -Rse "[split(\"\\n\")[] | fromjson?] | any($1)" "$tmp/events.log"; }
# events_begin [OPTION...]: somebody watches.
events_begin() {
	background lbu "$tmp/events.log" nlb "$@" health events socket "$tmp/nlbd"
	# shellcheck disable=SC2034 # for those who source this
	watcher=$!
	wait_for 20 grep -q Watching "$tmp/events.log"
}
