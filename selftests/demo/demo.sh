#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job, told as a story: live connections move from the LBU into the
# TCP stack of a host, where an unmodified nginx accepts them. `make demo` runs
# this in the guest. Every claim it prints is checked, and the first that does
# not hold ends it with status 1.

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"

bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
[ -n "${NO_COLOR:-}" ] && bold='' dim='' green='' red='' plain=''

chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '%s\n' "$@"; }

# on MACHINE COMMAND...: show the command and what it prints.
on() {
	local n=$1 rc
	shift
	printf '%s%-6s#%s %s\n' "$dim" "$n" "$plain" "$*"
	ns "$n" "$@" 2>&1 | sed 's/^/          /'
	rc=${PIPESTATUS[0]}
	[ "$rc" = 0 ] || broken "the last command ended with status $rc"
}

broken() {
	printf '%s  ✗ %s%s\n' "$red" "$*" "$plain"
	dmesg | tail -n 5
	tail -n 5 "$tmp"/*.log
	exit 1
}

# holds TEXT COMMAND...: a claim, and the command that checks it.
holds() {
	local text=$1 out
	shift
	out=$("$@" 2>&1) || broken "$text${out:+: $out}"
	printf '%s  ✓%s %s%s\n' "$green" "$plain" "$text" "${out:+ ${dim}($out)$plain}"
}

is() { [ "$1" = "$2" ] || { echo "expected $2, got $1"; return 1; }; }

# One nginx on HOST, with a page for each path and a big file.
nginx_start() {
	local host=$1 dir=$tmp/$1
	mkdir -p "$dir"/www/{a,b}
	for path in a b; do echo "$path, served by $host" >"$dir/www/$path/page"; done
	sed "s|DIR|$dir|; s|DIR|$dir|g; s|HOST|$host|" "$here/nginx.conf" >"$dir/nginx.conf"
	chmod -R a+rX "$tmp" "$dir"
	background "$host" "$tmp/$host-nginx.log" nginx -e "$dir/error.log" -c "$dir/nginx.conf"
	wait_listen "$host" 80
}

answered_by() { ns client curl -sS --max-time 60 -o /dev/null -w '%header{x-host}' "http://$VIP$1"; }

moved() { ns lbu nlb -j migration show | jq '[.[] | select(.role == "origin" and (.phase == "active" or .phase == "closed"))] | length'; }

chapter "The machines"
tell "One Linux $(uname -r), as Debian ships it, and four machines in it, each a network namespace:" \
	"" \
	"  client 10.0.1.2 ──── LBU ──┬── host1 10.0.2.2    the VIP is $VIP" \
	"     │                       └── host2 10.0.3.2" \
	"     └───── direct links to both hosts, for the replies"
load_modules nlb_fwd nlb_migrator
topology
vip_add lbu host1 host2
tell "" "$(lsmod | awk '/^nlb/ { printf "  %-13s %7d bytes\n", $1, $2 }')"

chapter "The hosts"
tell "Each runs nginx from the distribution, and knows one thing about load balancing: whom to trust." \
	"Migrators prove who they are by a key that both have (TCP-AO)."
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$tmp/secret")
on host1 nlb forwarder add $LBU_TO_HOST1
on host1 nlb peer add $LBU_TO_HOST1 key 1 secret-file "$tmp/secret"
on host2 nlb forwarder add $LBU_TO_HOST2
on host2 nlb peer add $LBU_TO_HOST2 key 1 secret-file "$tmp/secret"
nginx_start host1
nginx_start host2
head -c 100M /dev/urandom >"$tmp/host1/www/a/big"
chmod a+r "$tmp/host1/www/a/big"

chapter "The load balancing unit"
on lbu nlb peer add $HOST1 key 1 secret-file "$tmp/secret"
on lbu nlb peer add $HOST2 key 1 secret-file "$tmp/secret"
on lbu nlb service add $VIP:80/tcp mode peek
on lbu nlb endpoint add $VIP:80/tcp host $HOST1
on lbu nlb endpoint add $VIP:80/tcp host $HOST2
on lbu nlb service show
tell "" "A new connection to the VIP goes to the classifier, which looks at the first request:"
sed 's/^/          /' "$here/classify.toml" | grep -v '# '
background lbu "$tmp/nlbd.log" nlbd classify --config "$here/classify.toml"
wait_listen lbu 80

capture_start client lbu "$tmp/client-to-lbu.pcap" tcp port 80
capture_start client host1 "$tmp/client-from-host1.pcap" tcp port 80
capture_start client host2 "$tmp/client-from-host2.pcap" tcp port 80
capture_start lbu host1 "$tmp/lbu-to-host1.pcap" tcp and host $HOST1

chapter "1. The LBU accepts, the right host answers"
on client curl -sS --max-time 60 "http://$VIP/a/page"
on client curl -sS --max-time 60 "http://$VIP/b/page"
holds "/a/ is served by host1" is "$(answered_by /a/page)" host1
holds "/b/ is served by host2" is "$(answered_by /b/page)" host2
holds "all four connections were accepted by the LBU and moved" is "$(moved)" 4
on lbu nlb migration show

chapter "2. A long download, moved at its first bytes"
tell "100 MB of random bytes, $(sha256sum <"$tmp/host1/www/a/big" | cut -c1-16)…"
on client curl -sS --max-time 300 -o "$tmp/got" -w '%{size_download} bytes in %{time_total} s\n' "http://$VIP/a/big"
holds "every byte arrived, SHA-256 is the same" is "$(sha256sum <"$tmp/got")" "$(sha256sum <"$tmp/host1/www/a/big")"
rm "$tmp/got"

chapter "3. Two requests on one connection"
before=$(moved)
on client curl -sS --max-time 60 "http://$VIP/a/page?first" "http://$VIP/a/page?second"
on host1 tail -n 2 "$tmp/host1/access.log"
holds "it was moved once, at the first request" is "$(($(moved) - before))" 1
holds "nginx saw both requests on the same connection" \
	is "$(tail -n 1 "$tmp/host1/access.log" | grep -o 'request 2 "GET /a/page?second')" 'request 2 "GET /a/page?second'
on lbu nlb route show

chapter "4. A service that the kernel balances alone"
tell "No classifier: the forwarder picks the endpoint at the SYN. host1 has weight 1, host2 weight 3."
on lbu nlb service add $VIP:8080/tcp mode l4
on lbu nlb endpoint add $VIP:8080/tcp host $HOST1 weight 1
on lbu nlb endpoint add $VIP:8080/tcp host $HOST2 weight 3
for host in host1 host2; do
	background $host "$tmp/$host-http.log" python3 -m http.server -d "$tmp/$host/www" 8080
	wait_listen $host 8080
done
for _ in 1 2 3 4 5 6 7 8; do ns client curl -sS --max-time 60 "http://$VIP:8080/a/page"; done | sort | uniq -c >"$tmp/shares"
sed 's/^/          /' "$tmp/shares"
holds "as the weights say" is "$(awk '{ print $NF, $1 }' "$tmp/shares" | paste -sd ' ')" "host1 2 host2 6"
on lbu nlb service add $VIP:5201/tcp mode l4
on lbu nlb endpoint add $VIP:5201/tcp host $HOST1
background host1 "$tmp/iperf3-server.log" iperf3 -s
wait_listen host1 5201
tell "iperf3 across an l4 service, client to host (through the tunnel):"
on client sh -c "iperf3 -c $VIP -t 3 -f m | grep -E 'sender|receiver'"
on lbu nlb endpoint show

chapter "5. One service, five ways to its hosts"
tell "The tunnel needs our module on the host. Others need none: on the link, in an IP packet, or translated." \
	"For half-nat, host2 answers through the LBU; with nat it knows the LBU only."
on host1 ip addr add 10.0.2.3/24 dev lbu
on host2 ip addr add 10.0.3.3/24 dev lbu
on host2 ip addr add 10.0.3.4/24 dev lbu
on host2 ip link add ipip-lbu type ipip local $HOST2 remote $LBU_TO_HOST2
on host2 ip link set ipip-lbu up
on host2 ip rule add from 10.0.3.3 lookup 100
on host2 ip route add default via $LBU_TO_HOST2 table 100
on lbu nlb service add $VIP:8090/tcp scheduler rr
on lbu nlb endpoint add $VIP:8090/tcp host $HOST1
on lbu nlb endpoint add $VIP:8090/tcp host 10.0.2.3 via direct
on lbu nlb endpoint add $VIP:8090/tcp host $HOST2 via ipip
on lbu nlb endpoint add $VIP:8090/tcp host 10.0.3.3 via half-nat port 8080
on lbu nlb endpoint add $VIP:8090/tcp host 10.0.3.4 via nat port 8080
for host in host1 host2; do
	background $host "$tmp/$host-8090.log" python3 -m http.server -d "$tmp/$host/www" 8090
	wait_listen $host 8090
done
for _ in 1 2 3 4 5; do ns client curl -sS --max-time 60 "http://$VIP:8090/a/page"; done | sort | uniq -c >"$tmp/ways"
sed 's/^/          /' "$tmp/ways"
holds "five requests, five ways" is \
	"$(ns lbu nlb -j endpoint show $VIP:8090/tcp | jq -r 'map("\(.forward) \(.connections)") | sort | join(", ")')" \
	"direct 1, half-nat 1, ipip 1, nat 1, tunnel 1"
holds "host1 answered two, host2 three" is "$(awk '{ print $NF, $1 }' "$tmp/ways" | paste -sd ' ')" "host1 2 host2 3"
on lbu nlb route show $VIP:8090/tcp

chapter "6. An application gets sick"
tell "Agents check the application and report to the LBU, each second, in datagrams with a key of their own." \
	"Nobody touches the load balancer:"
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$tmp/health-key")
on lbu nlb service add $VIP:8070/tcp scheduler rr
on lbu nlb endpoint add $VIP:8070/tcp host $HOST1
on lbu nlb endpoint add $VIP:8070/tcp host $HOST2
declare -A lbu_of=([host1]=$LBU_TO_HOST1 [host2]=$LBU_TO_HOST2) address=([host1]=$HOST1 [host2]=$HOST2)
for host in host1 host2; do
	sed "s|DIR|$tmp|g; s|NAME|$host|g; s|NUMBER|${host#host}|g; s|LBU|${lbu_of[$host]}|; s|ADDRESS|${address[$host]}|" \
		"$here/agent.toml" >"$tmp/$host/agent.toml"
	background $host "$tmp/$host-agent.log" nlb-agent run --config "$tmp/$host/agent.toml"
done
sed 's/^/          /' "$tmp/host1/agent.toml" | grep -v '# '
sed "s|DIR|$tmp|g" "$here/health.toml" >"$tmp/health.toml"
background lbu "$tmp/nlbd-health.log" nlbd health --config "$tmp/health.toml"
endpoints_are() {
	local states
	states=$(ns lbu nlb -j endpoint show $VIP:8070/tcp | jq -r 'sort_by(.host_addr) | map(.state) | join(" ")')
	is "$states" "$1"
}
are_healthy() { ns lbu nlb -j health socket "$tmp/nlbd-health" | jq -e '[.rows[].health] == ["healthy", "healthy"]'; }
answers() { for _ in 1 2 3 4; do ns client curl -sS --max-time 60 "http://$VIP:8070/a/page"; done | sort | uniq -c | awk '{ print $NF, $1 }' | paste -sd ' '; }
wait_for 30 are_healthy || broken "the LBU does not hear of both hosts"
on lbu nlb health socket "$tmp/nlbd-health"
holds "both hosts serve" is "$(answers)" "host1 2 host2 2"
ln "$tmp/host1/www/a/big" "$tmp/host2/www/a/big"
tell "" "Two clients begin to load the big file. Then host1 loses the page that is looked at."
downloads=()
for n in 1 2; do
	ns client curl -sS --max-time 300 --limit-rate 8M -o /dev/null -w '%header{x-host} %{size_download}' "http://$VIP:8070/a/big" \
		>"$tmp/download$n" &
	downloads+=($!)
done
on host1 mv "$tmp/host1/www/a/page" "$tmp/host1/www/a/lost"
wait_for 30 endpoints_are "draining active" || broken "the endpoint of host1 is still in use"
on lbu nlb health socket "$tmp/nlbd-health"
on lbu nlb endpoint show $VIP:8070/tcp
holds "new connections go to host2" is "$(answers)" "host2 4"
for download in "${downloads[@]}"; do wait "$download" || broken "a download was cut"; done
holds "who was at host1 already was served to the end" is "$(sort "$tmp"/download[12] | xargs)" "host1 104857600 host2 104857600"
on host1 mv "$tmp/host1/www/a/lost" "$tmp/host1/www/a/page"
wait_for 30 endpoints_are "active active" || broken "the endpoint of host1 is not in use again"
holds "well again, it serves again" is "$(answers)" "host1 2 host2 2"

chapter "7. The evidence"
capture_stop
holds "no connection of the client was reset" "$here/../pcap.py" no-early-rst "$tmp"/client-{to-lbu,from-host1,from-host2}.pcap
holds "no packet grew in the tunnel" \
	"$here/../pcap.py" same-length "$tmp/client-to-lbu.pcap" "$tmp/lbu-to-host1.pcap"
holds "the LBU sent the client no byte of the answers" \
	"$here/../pcap.py" no-data-from $VIP "$tmp/client-to-lbu.pcap"
holds "they came from host1 by the direct link" \
	"$here/../pcap.py" data-from $VIP "$tmp/client-from-host1.pcap"
tell "" "What a packet of the client looks like before and in the tunnel:"
"$here/../pcap.py" pair "$tmp/client-to-lbu.pcap" "$tmp/lbu-to-host1.pcap" | sed 's/^/          /'
tell "" "The counters that are not zero:"
on lbu sh -c "nlb stats show | grep -v ' 0\$'"
on host1 sh -c "nlb stats show | grep -v ' 0\$'"

chapter "And out again"
# The shell need not tell of each program that ends with its machine.
disown -a
for m in lbu host1 host2 client; do netns_del $m; done
unload_modules || broken "the modules do not unload"
holds "modules unloaded; the kernel log has no complaint" sh -c "! dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace'"
tell "" "${green}The demo is complete: every claim above was checked.${plain}"
