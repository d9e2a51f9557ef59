#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# Programs that people use, by every way to a host, over IPv4 and IPv6: curl and nginx, dig and dnsmasq, traceroute,
# iperf3, ping.

. "$(dirname "$0")/../lib.sh"

ways=(tunnel direct ipip half-nat nat)
tunnel=7001 direct=7002 ipip=7003
# What a way with addresses of its own sends to port N + 1000 of host2.
half_nat=7004 nat=7005

# way_of NUMBER HOST HOST6 WORD...: a service on port NUMBER of both VIPs, TCP and UDP, with this endpoint.
way_of() {
	local proto
	for proto in tcp udp; do
		nlb -n lbu service add "$VIP:$1/$proto"
		nlb -n lbu endpoint add "$VIP:$1/$proto" host "$2" "${@:4}"
		nlb -n lbu service add "[$VIP6]:$1/$proto"
		nlb -n lbu endpoint add "[$VIP6]:$1/$proto" host "$3" "${@:4}"
	done
}

# Both families, and TCP and UDP, on each port.
servers() {
	local machine=$1 addresses=$2 port listen=80
	shift 2
	mkdir -p "$tmp/$machine/www"
	head -c 3000000 /dev/urandom >"$tmp/$machine/www/file"
	for port in "$@"; do listen+=",[::]:$port ipv6only=off"; done
	start_nginx "$machine" "$listen"
	for port in "$@"; do
		background "$machine" "$tmp/$machine-dns-$port.log" dnsmasq -k -C /dev/null -u root -R -h -z -a "$addresses" -p "$((port + 50))" \
			--host-record=www.example,192.0.2.80,2001:db8::80 --txt-record="big.example,$(printf 'x%.0s' {1..250})"
		wait_listen "$machine" "$port"
		wait_listen "$machine" "$((port + 50))"
	done
}

configure() {
	local n
	topology_ipv6
	vip_add lbu host1
	vip_add_ipv6 lbu host1
	ns host1 nlb forwarder add $LBU_TO_HOST1
	ns host1 nlb forwarder add $LBU_TO_HOST1_6
	ip -n host1 link add tun4 type ipip local $HOST1 remote $LBU_TO_HOST1
	ip -n host1 link set tun4 up
	ip -n host1 link add tun6 type ip6tnl mode ip6ip6 local $HOST1_6 remote $LBU_TO_HOST1_6
	ip -n host1 link set tun6 up
	ip -n host2 route replace $CLIENT via $LBU_TO_HOST2
	ip -n host2 route replace $CLIENT6 via $LBU_TO_HOST2_6
	# HTTP on a port, DNS on the one 50 above, iperf3 on the one 100 above.
	for n in 0 50 100; do
		way_of $((tunnel + n)) $HOST1 $HOST1_6
		way_of $((direct + n)) $HOST1 $HOST1_6 via direct
		way_of $((ipip + n)) $HOST1 $HOST1_6 via ipip
		way_of $((half_nat + n)) $HOST2 $HOST2_6 via half-nat port $((half_nat + n + 1000))
		way_of $((nat + n)) $HOST2 $HOST2_6 via nat port $((nat + n + 1000))
	done
	servers host1 $VIP,$VIP6 $tunnel $direct $ipip
	servers host2 $HOST2,$HOST2_6 $((half_nat + 1000)) $((nat + 1000))
	meters host1 $VIP $VIP6 $tunnel $direct $ipip
	meters host2 $HOST2 $HOST2_6 $((half_nat + 1000)) $((nat + 1000))
}
# An iperf3 for each family: over UDP it answers from the address that it is bound to.
meters() {
	local machine=$1 port address
	for port in "${@:4}"; do
		for address in "$2" "$3"; do
			background "$machine" "$tmp/iperf3-server-$port-$address" iperf3 -s -B "$address" -p $((port + 100))
		done
		wait_for 30 both_listen "$machine" $((port + 100))
	done
}
both_listen() { [ "$(ns "$1" ss -Htln sport = ":$2" | wc -l)" = 2 ]; }

web() {
	local port=$1 host=$2 vip
	for vip in $VIP "[$VIP6]"; do
		# Two requests over one connection.
		ns client curl -sSf --max-time 60 "http://$vip:$port/file" "http://$vip:$port/file" -o "$tmp/first" -o "$tmp/second" \
			-w '%{num_connects} ' >"$tmp/connects"
		[ "$(cat "$tmp/connects")" = "1 0 " ]
		cmp "$tmp/first" "$tmp/$host/www/file"
		cmp "$tmp/second" "$tmp/$host/www/file"
	done
}

names() {
	local port=$(($1 + 50)) vip transport
	for vip in $VIP $VIP6; do
		for transport in +notcp +tcp; do
			[ "$(ns client dig +short +tries=3 $transport -p $port "@$vip" www.example A)" = 192.0.2.80 ]
			[ "$(ns client dig +short +tries=3 $transport -p $port "@$vip" www.example AAAA)" = 2001:db8::80 ]
			ns client dig +short +tries=3 $transport -p $port "@$vip" big.example TXT | grep -q 'x\{250\}'
		done
	done
}

# The LBU is a router on the way; it is where the VIP is, so this is what it calls itself (as with IPVS). Then the VIP
# answers, wherever it is.
hops() {
	local family vip
	while read -r family vip; do
		ns client traceroute "-$family" -n -q 1 -w 5 -m 4 -T -p "$1" "$vip" >"$tmp/hops"
		ns client traceroute "-$family" -n -q 1 -w 5 -m 2 -N 1 -U -p $(($1 + 50)) "$vip" >>"$tmp/hops"
		cat "$tmp/hops"
		# dnsmasq does not answer what is no question.
		awk -v vip="$vip" '
			/^traceroute/ { runs++ }
			$1 == 1 && $2 == vip { firsts++ }
			$1 == 2 && $2 == vip { lasts++ }
			$1 ~ /^[3-9]/ { lasts = 9 }
			END { exit !(runs == 2 && firsts == 2 && lasts == 1) }' "$tmp/hops"
	done <<-EOF
		4 $VIP
		6 $VIP6
	EOF
}

# All ways and families at the same time, one after the other on each: TCP there and back, UDP there and back. It ends when a
# second is over, and the datagrams of that time fit into a socket's buffer, however late they are read.
sent=2000000 datagrams=50 size=1200
measure() {
	local name port vip measuring=()
	drops >"$tmp/drops"
	for name in "${ways[@]}"; do
		name=${name/-/_}
		port=$((${!name} + 100))
		for vip in $VIP $VIP6; do
			# shellcheck disable=SC2016 # the inner shell expands these
			background client "$tmp/iperf3-$port-$vip.log" bash -ec '
				run() { iperf3 -J -c "$1" -p "$2" "${@:4}" >"$3" || { cat "$3"; exit 1; }; }
				run "$1" "$2" "$3-tcp" -n "$4"
				run "$1" "$2" "$3-tcp-back" -n "$4" -R
				run "$1" "$2" "$3-udp" -u -b 500K -l "$5" -k "$6"
				run "$1" "$2" "$3-udp-back" -u -b 500K -l "$5" -k "$6" -R
			' measure "$vip" $port "$tmp/iperf3-$port-$vip" $sent $size $datagrams
			measuring+=($!)
		done
	done
	for name in "${measuring[@]}"; do wait "$name"; done
	# Nothing was thrown away, but what TCP has to learn of IPIP's way.
	drops | diff "$tmp/drops" -
}
drops() {
	nlb -n lbu -j stats show fwd | jq -S '.[0].counters | with_entries(select((.key | startswith("drop")) and .key != "drop-too-big"))'
}

# What arrived at the other end, by iperf3, and what the LBU has counted on its way to the host.
arrived() {
	local port=$((${!1} + 100)) vip name head=28
	for vip in $VIP $VIP6; do
		name=$tmp/iperf3-$port-$vip
		cat "$name.log"
		jq -cs 'map(.end | [.sum_sent, .sum_received] | map([.bytes, .packets, .lost_packets]))' "$name"-{tcp,tcp-back,udp,udp-back}
		jq -es 'map(.end) | all(.sum_sent.bytes >= '$sent' and .sum_received.bytes == .sum_sent.bytes)' "$name"-tcp{,-back}
		# The last ones may come when iperf3 does not listen any more.
		jq -es 'map(.end) | all(.sum_sent.packets >= '$datagrams' and .sum_received.packets > 0 and .sum_received.lost_packets == 0)' \
			"$name"-udp{,-back}
		case $vip in *:*) vip="[$vip]" head=48 ;; esac
		# A connection to control each, and one for the data; over UDP the first datagram of each has four bytes.
		nlb -n lbu -j endpoint show "$vip:$port/tcp" | jq -ce --slurpfile tcp "$name-tcp" \
			'.[0] | .connections == 6 and .bytes > $tcp[0].end.sum_sent.bytes or (tojson | halt_error)'
		nlb -n lbu -j endpoint show "$vip:$port/udp" | jq -ce --slurpfile udp "$name-udp" --argjson head $head --argjson size $size '
			$udp[0].end.sum_sent.packets as $sent | .[0] | .connections == 2 and .packets == $sent + 2
				and .bytes == $sent * ($size + $head) + 2 * (4 + $head) or (tojson | halt_error)'
	done
}

way() {
	local host=host1
	case $1 in half_nat | nat) host=host2 ;; esac
	web "${!1}" $host
	names "${!1}"
	hops "${!1}"
}

# Beside them, ping is what it was: the LBU's.
pings() {
	ns client ping -n -c 2 -i 0.2 -W 10 $VIP
	ns client ping -n -c 2 -i 0.2 -W 10 $VIP6
}

ktap_begin
load_modules nlb_fwd nlb_tunnel
topology
ktap_run "machines with nginx and dnsmasq" configure
for name in "${ways[@]}"; do ktap_run "curl, dig and traceroute: $name" way "${name/-/_}"; done
ktap_run "iperf3 by all ways at once" measure
for name in "${ways[@]}"; do ktap_run "iperf3: $name" arrived "${name/-/_}"; done
ktap_run "ping" pings
ktap_end
