# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the tests of health and load share: agents on two hosts, and nlbd on the LBU. A test has functions agent_config
# HOST and health_config, which print the configurations without keys.

. "$(dirname "${BASH_SOURCE[0]}")/../fwd/lib.sh"

# shellcheck disable=SC2034 # for those who source this
declare -A address=([host1]=$HOST1 [host2]=$HOST2) lbu_of=([host1]=$LBU_TO_HOST1 [host2]=$LBU_TO_HOST2)
# Programs that report by the C library.
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../examples" && pwd)
export LD_LIBRARY_PATH=$examples/../lib

keys_make() {
	local id
	for id in "$@"; do (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$tmp/key$id"); done
}
# keys ID...: the first one is sent with.
keys() {
	local id
	for id in "$@"; do printf '[[key]]\nid = %s\nsecret_file = "%s"\n' "$id" "$tmp/key$id"; done
}
# agent_start HOST [MACHINE]: there, if it has another name; with the key $key, or 1.
agent_start() {
	mkdir -p "$tmp/$1"
	{ agent_config "$1" && keys "${key:-1}"; } >"$tmp/$1/agent.toml"
	nlb-agent check --config "$tmp/$1/agent.toml"
	background "${2:-$1}" "$tmp/$1/agent.log" nlb-agent run --config "$tmp/$1/agent.toml"
	echo $! >"$tmp/$1/agent.pid"
	wait_for 20 app "$1" show
}
nlbd_start() {
	{ health_config && keys 1; } >"$tmp/health.toml"
	ns lbu nlbd check --health "$tmp/health.toml"
	background lbu "$tmp/nlbd.log" nlbd health --config "$tmp/health.toml"
	echo $! >"$tmp/nlbd.pid"
	wait_for 20 health
}
# end SIGNAL FILE: of the process whose number is there.
end() {
	local pid
	pid=$(<"$2")
	kill "-$1" "$pid"
	wait_for 20 gone "$pid"
}

lbu() { nlb -n lbu "$@"; }
app() { nlb app "${@:2}" socket "$tmp/$1/socket"; }
# app_is HOST APP FIELD VALUE
app_is() { [ "$(nlb -j app show "$2" socket "$tmp/$1/socket" | jq -r ".[0].$3")" = "$4" ]; }
health() { nlb -j health socket "$tmp/nlbd"; }
rows_are() { [ "$(health | jq '.rows | length')" = "$1" ]; }

# pages [LISTEN[,LISTEN]...]: a page of web servers on the hosts.
pages() {
	local host
	for host in host1 host2; do
		mkdir -p "$tmp/$host/www"
		echo "web $host" >"$tmp/$host/www/page"
		start_nginx $host "$@"
	done
}
# Who answers four new connections.
web() { ns client curl -sS --max-time 20 -H 'Connection: close' "http://$VIP/page"{,,,} | sort -u | xargs; }

# $tmp/held.log has an x for each answer on the connection that is held, and nothing else unless it is cut.
is_longer() { (($(stat -c %s "$tmp/held.log") > $1)) && not grep -v '^x*$' "$tmp/held.log"; }
goes_on() { wait_for 20 is_longer $(($(stat -c %s "$tmp/held.log") + 2)); }
