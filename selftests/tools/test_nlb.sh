#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The command nlb: every object added, shown as table and as JSON, and removed;
# refusals with the kernel's text and status 1, wrong usage with 2; events; and a
# connection taken out of a running process.

. "$(dirname "$0")/../migrator/lib.sh"

# refuses STATUS TEXT COMMAND...: not with this status, says TEXT and prints nothing else.
refuses() {
	local status=$1 text=$2 rc=0
	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
	cat "$tmp/out" "$tmp/err"
	[ "$rc" = "$status" ] && grep -qF -- "$text" "$tmp/err" && [ ! -s "$tmp/out" ]
}
# json FILTER COMMAND...: its output passes the filter.
json() {
	local filter=$1
	shift
	"$@" >"$tmp/out"
	cat "$tmp/out"
	jq -e "$filter" "$tmp/out" >/dev/null
}
lbu() { nlb -n lbu "$@"; }
host() { nlb -n host1 "$@"; }

services() {
	lbu service add $VIP:81/tcp
	lbu service add $VIP:53/udp mode l4
	lbu service show | grep -E "^$VIP:80/tcp +peek +- +- +- +2 +0 +0 +0$"
	json '.[0] | .vip_addr == "192.0.2.10" and .vip_port == 53 and .proto == "udp" and .mode == "l4"' \
		lbu -j service show $VIP:53/udp
	[ "$(lbu -j service list | jq length)" = 3 ]
	[ "$(lbu -p service ls | wc -l)" -gt 3 ]
	[ "$(lbu ser | wc -l)" = 4 ]
	refuses 1 "Error: service exists" lbu service add $VIP:81
	refuses 1 '"errno":"EEXIST"' lbu -j service add $VIP:81
	lbu service add "[$VIP6]:80/tcp" mode l4
	lbu service show "[$VIP6]:80/tcp" | grep -F "[$VIP6]:80/tcp"
	json '.[0] | .vip_addr == "2001:db8:10::10" and .mode == "l4"' lbu -j service show "[$VIP6]:80"
	refuses 1 "not of the VIP's address family (attribute host-addr)" lbu endpoint add "[$VIP6]:80" host $HOST1
	lbu service del "[$VIP6]:80"
	refuses 2 "is not a service" lbu service add $VIP
	refuses 2 "possible values: peek, l4" lbu service add $VIP:82 mode l7
	json '.[0].scheduler == "wrr"' lbu -j service show $VIP:81
	lbu service set $VIP:81 scheduler maglev
	lbu service show $VIP:81 | grep -E "^$VIP:81/tcp +l4 +mh "
	lbu service set $VIP:81 affinity 300 prefix 24
	lbu service show $VIP:81 | grep -E "^$VIP:81/tcp +l4 +mh +300/24 +- "
	lbu service set $VIP:81 slow-start 60
	json '.[0] | .affinity_timeout == 300 and .affinity_prefix == 24 and .slow_start == 60' lbu -j service show $VIP:81
	lbu service set $VIP:81 idle-timeout 3600 fin-timeout 30
	json '.[0] | .idle_timeout == 3600 and .fin_timeout == 30 and .syn_timeout == 0' lbu -j service show $VIP:81
	refuses 1 "at most 31 days (2678400 seconds) (attribute syn-timeout)" lbu service set $VIP:81 syn-timeout 2678401
	refuses 1 "longer than the VIP's address (attribute affinity-prefix)" lbu service set $VIP:81 prefix 64
	refuses 2 "required" lbu service set $VIP:81
	refuses 1 "only mode l4 has a scheduler (attribute scheduler)" lbu service set $VIP:80 scheduler lc
	refuses 2 "possible values: wrr, rr, lc, wlc, mh, sh, sed, nq, fo, twos" lbu service add $VIP:82 scheduler dh
	lbu service zero
	lbu service zero $VIP:81
	refuses 1 "Error: no such service" lbu service zero $VIP:82
	lbu service del $VIP:81
	lbu service del $VIP:53/udp
	refuses 1 "Error: no such service" lbu service del $VIP:81
	refuses 1 "Error: no such service" lbu service show $VIP:81
}

endpoints() {
	lbu service add $VIP:81
	lbu endpoint add $VIP:81 host $HOST1 weight 3
	lbu endpoint add $VIP:81 --host $HOST2 --source $LBU_TO_HOST2
	lbu endpoint set $VIP:81 host $HOST2 weight 0
	json 'map({host_addr, source_addr, weight, state}) == [
		{"host_addr": "10.0.2.2", "source_addr": "10.0.2.1", "weight": 3, "state": "active"},
		{"host_addr": "10.0.3.2", "source_addr": "10.0.3.1", "weight": 0, "state": "active"}]' lbu -j endpoint show $VIP:81
	lbu endpoint set $VIP:81 host $HOST1 state draining
	lbu endpoint show $VIP:81 host $HOST1 | grep -E " $HOST1 +tunnel +$LBU_TO_HOST1 +3 +draining +0 +0 "
	lbu endpoint set $VIP:81 host $HOST1 state active weight 4
	lbu endpoint show $VIP:81 host $HOST1 | grep -E " $HOST1 +tunnel +$LBU_TO_HOST1 +4 +active "
	lbu endpoint set $VIP:81 host $HOST1 weight 3
	lbu endpoint set $VIP:81 host $HOST2 max-routes 9 backup yes
	lbu endpoint show $VIP:81 host $HOST2 | grep -E " $HOST2 +tunnel +$LBU_TO_HOST2 +0 +active +0 +0 +9 +yes +0 +0 +0$"
	refuses 1 "resume-routes is more than max-routes (attribute resume-routes)" lbu endpoint set $VIP:81 host $HOST2 resume-routes 10
	lbu endpoint set $VIP:81 host $HOST2 resume-routes 6
	lbu endpoint show $VIP:81 host $HOST2 | grep -E " +9/6 +yes "
	refuses 1 "resume-routes is more than max-routes (attribute max-routes)" lbu endpoint set $VIP:81 host $HOST2 max-routes 5
	lbu endpoint set $VIP:81 host $HOST2 resume-routes 0
	json '.[0] | .max_routes == 9 and .backup' lbu -j endpoint show $VIP:81 host $HOST2
	lbu endpoint show $VIP:81 host $HOST1 | grep -E " +3 +active +0 +0 +- +no +0 +0 +0$"
	refuses 2 "required" lbu endpoint set $VIP:81 host $HOST1
	refuses 2 "possible values: active, draining, inactive" lbu endpoint set $VIP:81 host $HOST1 state down
	[ "$(lbu -j endpoint | jq length)" = 4 ]
	lbu endpoint show $VIP:81 host $HOST1 | grep -E " $HOST1 +tunnel +$LBU_TO_HOST1 +3 "
	refuses 1 "at most 65535 (attribute weight)" lbu endpoint set $VIP:81 host $HOST1 weight 65536
	refuses 2 "required" lbu endpoint add $VIP:81 weight 1
	lbu endpoint del $VIP:81 host $HOST1
	refuses 1 "no such endpoint" lbu endpoint del $VIP:81 host $HOST1
	lbu service del $VIP:81
	[ "$(lbu -j endpoint | jq length)" = 2 ]
}

routes() {
	lbu route add $VIP:80 client 198.51.100.7:40000 host $HOST1
	lbu route add $VIP:80 client 198.51.100.7:40001 host $HOST2
	lbu route show | grep -E "^198.51.100.7:40000 +$VIP:80/tcp +$HOST1 +$LBU_TO_HOST1 +0x[0-9a-f]{8} +established +manual "
	json '.[0] | .host_addr == "10.0.3.2" and .origin == "manual" and (.flow_id | test("^0x[0-9a-f]{8}$"))' \
		lbu -j route show $VIP:80 client 198.51.100.7:40001
	[ "$(lbu -j route show host $HOST2 | jq length)" = 1 ]
	[ "$(lbu -j mapping show side forwarder | jq length)" = 2 ]
	local id
	id=$(lbu -j route show host $HOST2 | jq -r '.[0].flow_id')
	json '.[0] | .client_port == 40001 and .side == "forwarder"' lbu -j mapping show side forwarder id "$id"
	refuses 1 "Error" lbu route add $VIP:80 client 198.51.100.7:40000 host $HOST1
	lbu route flush host $HOST2
	[ "$(lbu -j route | jq length)" = 1 ]
	lbu route del $VIP:80 client 198.51.100.7:40000
	refuses 1 "no such route" lbu route del $VIP:80 client 198.51.100.7:40000
	[ "$(lbu -j mapping | jq length)" = 0 ]
}

tunnel_ends() {
	host forwarder add 10.0.9.9
	refuses 1 "forwarder exists" host forwarder add 10.0.9.9
	host mapping add forwarder 10.0.9.9 id 0xee480001 client 198.51.100.7:40000 vip $VIP:80
	host mapping show | grep -E "^host +0xee480001 +10.0.9.9 +- +198.51.100.7:40000 +$VIP:80 +tcp .* static "
	json '.[0] | .static and .forwarder_addr == "10.0.9.9" and .flow_id == "0xee480001" and .proto == "tcp"' \
		host -j mapping show side host id 0xee480001 forwarder 10.0.9.9
	[ "$(host -j mapping show side host id 0xee480001 | jq length)" = 1 ]
	refuses 1 "flow id" host mapping add forwarder 10.0.9.9 id 1 client 198.51.100.7:40000 vip $VIP:80
	refuses 2 "is not a flow id" host mapping del forwarder 10.0.9.9 id ee480001
	host mapping del forwarder 10.0.9.9 id 0xee480001
	refuses 1 "no such mapping" host mapping del forwarder 10.0.9.9 id 0xee480001
	host forwarder del 10.0.9.9
	refuses 1 "no such forwarder" host forwarder show 10.0.9.9
}

peers() {
	refuses 2 "unauthenticated" host peer add 10.0.9.9
	host peer add 10.0.9.9 port 4771 unauthenticated
	json '.[0] | .port == 4771 and .migrations_in == 0 and .unauthenticated and .keys == []' host -j peer show 10.0.9.9
	refuses 1 "peer exists already" host peer add 10.0.9.9 unauthenticated
	host peer del 10.0.9.9
	(umask 077 && echo "a secret of 21 bytes!" >"$tmp/secret")
	host peer add 10.0.9.9 key 7 secret-file "$tmp/secret" 2>"$tmp/err"
	[ ! -s "$tmp/err" ]
	chmod 644 "$tmp/secret"
	host peer key add 10.0.9.9 id 8 recv-id 9 algorithm aes-128-cmac secret-file "$tmp/secret" 2>"$tmp/err"
	grep "can be read by others" "$tmp/err"
	printf "0123456789abcdef" | host peer key add 10.0.9.9 id 255 secret-file -
	refuses 1 "16 to 80 bytes" host peer key add 10.0.9.9 id 10 secret-file /dev/null
	refuses 1 "No such file" host peer key add 10.0.9.9 id 10 secret-file "$tmp/nothing"
	refuses 1 "peer has a key with this id" host peer key add 10.0.9.9 id 8 secret-file "$tmp/secret"
	host peer show | grep -E "^10.0.9.9 +4770 +idle +7,8,255 "
	host peer key use 10.0.9.9 id 8
	host peer key show | grep -E "^10.0.9.9 +8 +9 +aes-128-cmac +yes +0 +0 +0"
	host peer key | grep -E "^10.0.9.9 +7 +7 +hmac-sha256 +no "
	host peer key del 10.0.9.9 id 7
	refuses 1 "peer has no key with this id" host peer key use 10.0.9.9 id 7
	host peer key del 10.0.9.9 id 8
	refuses 1 "last key of the peer" host peer key del 10.0.9.9 id 255
	json '.[0].keys | length == 1 and .[0].send_id == 255 and .[0].preferred' host -j peer show 10.0.9.9
	host peer del 10.0.9.9
	refuses 1 "no such peer" host peer show 10.0.9.9
}

events() {
	lbu -j monitor count 6 >"$tmp/events" 2>"$tmp/watching" &
	wait_for 20 grep -q "Watching services, routes, mappings, migrations" "$tmp/watching"
	lbu service add $VIP:81
	lbu endpoint add $VIP:81 host $HOST1
	lbu endpoint set $VIP:81 host $HOST1 weight 7
	lbu endpoint del $VIP:81 host $HOST1
	lbu service del $VIP:81
	lbu service add $VIP:82
	wait $!
	cat "$tmp/events"
	[ "$(jq -r .event "$tmp/events" | tr '\n' ' ')" = "service endpoint endpoint endpoint-del service-del service " ]
	json '.[2].endpoint.weight == 7' jq -s . "$tmp/events"
	lbu service del $VIP:82
}

# A process that knows nothing of migrations accepts a connection; it is taken to host1.
taken_from_a_process() {
	local fd id
	server host1 server 0.0.0.0 80
	# shellcheck disable=SC2016
	background lbu "$tmp/fd" /usr/bin/python3 -c '
import socket, time
s = socket.create_server(("192.0.2.10", 80))
print("ready", flush=True)
c, _ = s.accept()
print(c.fileno(), flush=True)
time.sleep(60)'
	local pid=$!
	wait_listen lbu 80
	client --bytes 100000 &
	local client=$!
	wait_for 20 grep -qx '[0-9]*' "$tmp/fd"
	fd=$(tail -n 1 "$tmp/fd")
	refuses 1 "no such peer" lbu migration start pid $pid fd "$fd" to 10.0.9.9
	refuses 1 "has no file descriptor 99" lbu migration start pid $pid fd 99 to $HOST1
	lbu -j migration start pid $pid fd "$fd" to $HOST1 timeout 5000 | tee "$tmp/migration"
	id=$(jq '.[0].id' "$tmp/migration")
	wait $client
	json '.[0] | .role == "origin" and .peer_addr == "10.0.2.2"' lbu -j migration show "$id"
	lbu migration show "$id" | grep -E "^ *$id +origin +$HOST1 "
	refuses 1 "no such migration" lbu migration show "$id" role target
	json '.[0].role == "target"' host -j migration show "$id" role target
	kill $pid
}

counters() {
	lbu stats | grep -E '^nlb-fwd +route-manual +[1-9]'
	[ "$(lbu -j stats show | jq -r '.[].family' | tr '\n' ' ')" = "nlb-fwd nlb-tunnel nlb-migrator " ]
	json '.[0].counters | length > 0 and all(. > 0)' lbu -j stats show fwd nonzero
	# Of each processor, and together what all have counted.
	json 'length == ([.[].cpu] | unique | length) and length > 0' lbu -j stats show fwd percpu
	[ "$(lbu -j stats show fwd percpu | jq 'map(.counters["route-manual"]) | add')" = \
		"$(lbu -j stats show fwd | jq '.[0].counters["route-manual"]')" ]
	lbu stats show tunnel percpu | grep -qE '^nlb-tunnel +0 +'
	refuses 1 "only fwd and tunnel" lbu stats show migrator percpu
}

reader_goes_away() {
	lbu stats | head -n 0
	[ "${PIPESTATUS[0]}" = 0 ]
}

# What nlb never sends, nlb-nlraw does; netlink/ has the full list, this is for the tool itself.
hostile_requests() {
	said() {
		local want=$1 got
		shift
		got=$(nlb-nlraw -n lbu fwd "$@" || true)
		echo "$got"
		[ "$got" = "$(printf '%b' "$want")" ]
	}
	local vip=("vip-addr:ip=$VIP" vip-port:be16=83 proto:u32=6)
	said 'ERANGE\tinteger out of range\tmode' service-new "${vip[@]}" mode:u32=9
	said 'EINVAL\tduplicate attribute\tvip-addr' service-new "${vip[@]}" mode:u32=1 1:hex=c000020a
	said 'EINVAL\tUnknown attribute type\t99' service-new "${vip[@]}" mode:u32=1 99:u32=1
	said 'EINVAL\tmissing attribute\tvip-port' service-new vip-addr:ip=$VIP proto:u32=6 mode:u32=1
	said 'OK\t-\t-' service-new "${vip[@]}" mode:u32=1
	[ "$(lbu -j service show $VIP:83 | jq length)" = 1 ]
	said 'OK\t-\t-' 2 "${vip[@]}"
	[ "$(lbu -j service | jq length)" = 1 ]
	refuses 2 "is no command" nlb-nlraw -n lbu fwd service-nex
}

no_privilege() {
	refuses 1 "CAP_NET_ADMIN" ns lbu setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all nlb service add $VIP:83
	ns lbu setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all nlb service show | grep -q peek
}

# What counts is the capability in the user namespace that owns the network namespace.
other_user_namespace() {
	local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups unshare --user --map-root-user)
	refuses 1 "CAP_NET_ADMIN" ns lbu "${nobody[@]}" nlb service add $VIP:83
	json 'length == 1' "${nobody[@]}" --net sh -c "nlb service add $VIP:83 && nlb -j service show"
	[ "$(lbu -j service show | jq length)" = 1 ]
}

other_namespace() {
	refuses 1 "there is no network namespace" nlb -n nowhere service
	netns_add fresh
	[ "$(nlb -n fresh -j service | jq length)" = 0 ]
	netns_del fresh
}

no_module() {
	local watcher
	nlb monitor services routes >"$tmp/events" 2>"$tmp/watching" &
	watcher=$!
	wait_for 20 grep -q "Watching services, routes" "$tmp/watching"
	for n in client lbu host1 host2; do netns_del $n; done
	unload_modules || return 1
	# Who watches is told, and need not wait for what never comes.
	wait_for 20 gone $watcher
	not wait $watcher
	grep "the module nlb_fwd was unloaded" "$tmp/watching"
	refuses 1 "modprobe nlb_fwd" nlb service
	refuses 1 "modprobe nlb_tunnel" nlb forwarder
	refuses 1 "modprobe nlb_migrator" nlb monitor migrations
	refuses 1 "not loaded" nlb -j stats
}

ktap_begin
cluster
ktap_run "services" services
ktap_run "endpoints" endpoints
ktap_run "routes and the forwarder's mappings" routes
ktap_run "forwarders and the host's mappings" tunnel_ends
ktap_run "peers" peers
ktap_run "events as they happen" events
ktap_run "a connection is taken from a process" taken_from_a_process
ktap_run "counters" counters
ktap_run "a reader that goes away" reader_goes_away
ktap_run "hostile requests" hostile_requests
ktap_run "without privilege one may look" no_privilege
ktap_run "other user namespaces" other_user_namespace
ktap_run "other namespaces" other_namespace
ktap_run "without modules the remedy is told" no_module
ktap_end
