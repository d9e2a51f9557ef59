#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# forward.sh packets | routes | connections | nanoseconds: the benchmark of forwarding, inside a guest, whose clock has to
# count instructions except for the last part. It prints what was measured (JSON), a table for people, and at the end
# lines NAME=VALUE for programs.
#
# PACKETS=N: of one measurement (default 50000). FLOWS=N: of these so many connections (10000). REPEATS=N: measurements of
# which the median counts (3). ROUTES=N: with which the largest table is measured (1000000). NEW=N: connections that are
# opened (100000).

. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/common.sh"
set -e

packets=${PACKETS:-50000} flows=${FLOWS:-10000} most=${ROUTES:-1000000} new=${NEW:-100000} repeats=${REPEATS:-3}
# Bytes of a frame without its checksum: the shortest and the longest of Ethernet; and packets of 65,200 bytes.
short=60 long=1514 batches=$((packets / 10))
# Connections to an earlier port may still be known.
port=80 client_port=1024
generators="udp tcp"

# The machines. Client, LBU and host1 of lib.sh stand in a row, and nobody speaks without having been asked.

mac() { ns "$1" cat "/sys/class/net/$2/address"; }
neighbour() { ip -n "$1" neigh replace "$2" lladdr "$(mac "$4" "$5")" nud permanent dev "$3"; }

machines() {
	local n
	[[ $generators != *udp* ]] || modprobe pktgen || fail "this kernel has no pktgen"
	topology
	for n in client lbu host1; do ns $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1; done
	# Room for what tunnels add.
	ip -n lbu link set host1 mtu 1600
	ip -n host1 link set lbu mtu 1600
	neighbour lbu $HOST1 host1 host1 lbu
	neighbour lbu $CLIENT client client lbu
	neighbour host1 $LBU_TO_HOST1 lbu lbu host1
	whole_checksums
	ip -n lbu route add 10.64.0.0/10 via $CLIENT
	ip -n host1 route add 10.64.0.0/10 via $LBU_TO_HOST1
	lbu_mac=$(mac lbu client)
}

# The checksum of a packet is in it, as when it comes by a wire; or it begins in it, as in a batch that GRO has made.
whole_checksums() { ns client ethtool -K lbu tx-checksumming off >/dev/null; }
begun_checksums() { ns client ethtool -K lbu tx-checksumming on tx-tcp-segmentation on >/dev/null; }

# ingress MACHINE DEVICE RULE: what becomes of all that arrives there; `open MACHINE` undoes it.
ingress() { ns "$1" nft "add table netdev bench; add chain netdev bench in { type filter hook ingress device $2 priority 0; }; add rule netdev bench in $3"; }
open() { ns "$1" nft delete table netdev bench; }

# clients_at NUMBER: sets `client` to the address of that client.
clients_at() {
	local n=$(((10 << 24 | 64 << 16) + $1))
	client=$((n >> 24)).$((n >> 16 & 255)).$((n >> 8 & 255)).$((n & 255))
}

# The generators: `udp SIZE` is pktgen, `tcp KIND` is nlb-bench send; FIRST is the number of the first of FLOWS clients.
# Each sends COUNT packets TIMES times, and prints how many nanoseconds that took each time.

# udp SIZE[-shared] FIRST FLOWS COUNT TIMES: with -shared, pktgen keeps a reference to what it has sent.
udp() {
	local first last shared='!SHARED'
	[[ $1 != *-shared ]] || shared=SHARED
	clients_at "$2" && first=$client
	clients_at $(($2 + $3 - 1)) && last=$client
	ns client bash -c '
		cd /proc/net/pktgen && echo rem_device_all >kpktgend_0 && echo add_device lbu >kpktgend_0 || exit 1
		while read -r word; do echo "$word" >lbu || exit 1; done
		# What the kernel has put off until now is no part of it.
		sleep 0.1
		for ((n = 0; n < $1; n++)); do
			echo start >pgctrl
			[[ $(<lbu) =~ Result:\ OK:\ ([0-9]+)\( ]] && echo "${BASH_REMATCH[1]}000"
		done
	' pktgen "$5" <<-END
		count $4
		pkt_size ${1%-shared}
		clone_skb 0
		delay 0
		flag UDPCSUM
		flag $shared
		src_min $first
		src_max $last
		dst_min $VIP
		dst_max $VIP
		dst_mac $lbu_mac
		udp_src_min $client_port
		udp_src_max $client_port
		udp_dst_min $port
		udp_dst_max $port
	END
}
# tcp KIND FIRST FLOWS COUNT TIMES
tcp() {
	local n out
	clients_at "$2"
	for ((n = 0; n < $5; n++)); do
		out=$(ns client nlb-bench send lbu "$lbu_mac" $VIP $port "$client" "$3" "$4" "$1") && [[ $out =~ \"ns\":([0-9]+) ]] &&
			echo "${BASH_REMATCH[1]}"
	done
}

# Sets `seen` to the frames and bytes that the LBU has received from the client, and has sent to the host.
traffic() {
	mapfile -t seen < <(ns lbu cat /sys/class/net/client/statistics/rx_{packets,bytes} /sys/class/net/host1/statistics/tx_{packets,bytes})
}

# Some may be in the queue of another processor.
have_come() { traffic && [ "$((seen[0] - before[0])) $((seen[2] - before[2]))" = "$((count * times)) $want" ]; }

# measured MODE GENERATOR KIND FIRST FLOWS COUNT [TIMES]: all packets have to come as far as they shall, or it is no result.
measured() {
	local mode=$1 generator=$2 kind=$3 count=$6 times=${7:-$repeats} before took added want=0
	traffic && before=("${seen[@]}")
	mapfile -t took < <($generator "$kind" "$4" "$5" "$count" "$times")
	[ "$mode" = drop ] || want=$((count * times))
	wait_for 5 have_come && [ ${#took[@]} = "$times" ] ||
		fail "$mode: of $count packets, $times times, $((seen[0] - before[0])) came to the LBU, $((seen[2] - before[2])) to the host"
	added=$((want ? seen[3] - before[3] - seen[1] + before[1] : 0))
	# shellcheck disable=SC2016
	jq -nc --arg mode "$mode" --arg kind "$generator-$kind" --argjson count "$count" --argjson added $((added / (count * times))) \
		'($ARGS.positional | map(tonumber / $count) | sort) as $each |
			{what: "packets", $mode, $kind, $count, $added, $each, median: $each[$each | length / 2 | floor]}' \
		--args "${took[@]}" | tee -a "$results"
}

# The ways through the LBU: what to set up and to take away.

steered_by() {
	local how=() proto
	case $1 in
	drop) ingress lbu client drop ;;
	plain) ip -n lbu route add $VIP via $HOST1 ;;
	nft-fwd) ingress lbu client "fwd ip to $HOST1 device host1" ;;
	nft-flowtable)
		modprobe nf_conntrack
		sysctl -qw net.netfilter.nf_conntrack_max=100000
		ns lbu nft -f - <<-END
			table ip bench {
				flowtable fast { hook ingress priority 0; devices = { client, host1 }; }
				counter slow { }
				chain in { type nat hook prerouting priority dstnat; ip daddr $VIP dnat to $HOST1; }
				chain through { type filter hook forward priority filter; flow add @fast; counter name slow; }
			}
		END
		;;
	ipvs-*)
		ip -n lbu addr add $VIP/32 dev lo
		case $1 in ipvs-dr) how=(-g) ;; ipvs-nat) how=(-m) ;; ipvs-tun) how=(-i) ;; esac
		for proto in u t; do
			ns lbu ipvsadm -A -$proto $VIP:$port -s rr
			ns lbu ipvsadm -a -$proto $VIP:$port -r $HOST1:$port "${how[@]}"
		done
		;;
	nlb-*)
		case $1 in *nat) how=(port "$port") ;; esac
		for proto in udp tcp; do
			ns lbu nlb service add $VIP:$port/$proto mode l4 scheduler rr
			ns lbu nlb endpoint add $VIP:$port/$proto host $HOST1 via "${1#nlb-}" "${how[@]}"
		done
		;;
	esac
}
steered_no_more() {
	case $1 in
	drop | nft-fwd) open lbu ;;
	plain) ip -n lbu route del $VIP ;;
	nft-flowtable)
		# Five packets of each connection have gone the slow way when it begins.
		[ "$(ns lbu nft -j list counter ip bench slow | jq '.nftables[].counter.packets // empty')" -le $((6 * flows)) ] ||
			fail "$1: connections are not in the flow table"
		ns lbu nft delete table ip bench
		;;
	ipvs-*) ns lbu ipvsadm -C && ip -n lbu addr del $VIP/32 dev lo ;;
	nlb-*) ns lbu nlb service del $VIP:$port/udp && ns lbu nlb service del $VIP:$port/tcp ;;
	esac
}

# What the modes of nlb need. Only when everything else has been measured: its hooks cost a little.
nlb_machines() {
	load_modules nlb_fwd
	vip_add lbu host1
	ns host1 nlb forwarder add $LBU_TO_HOST1
	# Nobody answers the clients.
	ns host1 nft "add table ip sink; add chain ip sink in { type filter hook prerouting priority 0; iifname nlb0 drop; }"
}

# first_packets opened | continued: the first packet of each connection, or the second one, by each generator.
first_packets() {
	local generator
	for generator in $generators; do "$1_$generator"; done
}
opened_udp() { udp $short 0 $flows $flows 1; }
opened_tcp() {
	[ "$mode" != nft-flowtable ] || return 0
	tcp syn 0 $flows $flows 1
}
continued_udp() { opened_udp; }
continued_tcp() {
	tcp ack 0 $flows $flows 1
	[ "$mode" = nft-flowtable ] || return 0
	# conntrack picks up what it has not seen from its beginning, but wants to hear both sides.
	clients_at 0
	ns host1 nlb-bench send lbu "$(mac lbu host1)" $HOST1 $port "$client" $flows $flows answer
	tcp ack 0 $flows $flows 1
}

# mode MODE: measures it, with connections that are there. In the tunnel, the host has to answer their first packet.
mode() {
	local mode=$1
	port=$((port + 1))
	steered_by $mode
	case $mode in
	drop | plain | nft-fwd) ;;
	*)
		[ $mode != nlb-tunnel ] || open host1
		first_packets opened >/dev/null
		[ $mode != nlb-tunnel ] || ingress host1 lbu drop
		first_packets continued >/dev/null
		;;
	esac
	if [[ $generators = *udp* ]]; then
		measured $mode udp $short 0 $flows "$packets"
		measured $mode udp $short-shared 0 $flows "$packets"
		measured $mode udp $long 0 $flows "$packets"
	fi
	measured $mode tcp ack 0 $flows "$packets"
	begun_checksums
	measured $mode tcp batch 0 100 $batches
	whole_checksums
	steered_no_more $mode
}

# All of them, of connections that are there.
packets() {
	local mode
	machines
	mode drop
	ingress host1 lbu drop
	for mode in plain nft-fwd nft-flowtable ipvs-dr ipvs-nat ipvs-tun; do mode $mode; done
	nlb_machines
	for mode in nlb-tunnel nlb-direct nlb-ipip nlb-half-nat nlb-nat; do mode $mode; done
}

# of_mode MODE KIND: in a program of show, the median of one measurement, and what it is above that of dropping.
# shellcheck disable=SC2016
mode_functions='
	def of_mode(mode; kind): first(of("packets")[] | select(.mode == mode and .kind == kind));
	def above(mode; kind): of_mode(mode; kind).median - of_mode("drop"; kind).median;
	def modes: of("packets") | map(.mode) | reduce .[] as $m ([]; if index($m) then . else . + [$m] end) | .[] | select(. != "drop");
	def cell: tostring | " " * (14 - length) + .;
'
show_packets() {
	# shellcheck disable=SC2016
	show "$mode_functions"'
		def kinds: "udp-60", "udp-60-shared", "udp-1514", "tcp-ack", "tcp-batch";
		"", "Instructions for a packet above those of dropping it at once, Linux \($kernel)", "",
		"                " + ([kinds | cell] | add) + "   of IPVS DR   bytes added",
		"drop (all)      " + ([kinds as $k | of_mode("drop"; $k).median | round | cell] | add),
		(modes as $m | $m + " " * (16 - ($m | length)) + ([kinds as $k | above($m; $k) | round | cell] | add) +
			"   " + (above($m; "udp-60") / above("ipvs-dr"; "udp-60") | three | cell) +
			"   " + (of_mode($m; "udp-60").added | cell)),
		"",
		((kinds | select(. != "udp-60")) as $k |
			"forward_vs_ipvs_dr_\($k | gsub("-"; "_"))=\(above("nlb-tunnel"; $k) / above("ipvs-dr"; $k) | three)"),
		"forward_vs_ipvs_dr=\(above("nlb-tunnel"; "udp-60") / above("ipvs-dr"; "udp-60") | three)",
		"tunnel_bytes_added=\([of("packets")[] | select(.mode == "nlb-tunnel") | .added] | max)"'
}

# Bytes of memory that the kernel has for itself: slabs, tables, per CPU. When it has done what it had put off.
memory() {
	sleep 3
	awk '$1 == "SUnreclaim:" || $1 == "VmallocUsed:" || $1 == "Percpu:" { n += $2 } END { print n * 1024 }' /proc/meminfo
}
# kept WHAT COUNT BYTES
kept() { echo "{\"what\":\"memory\",\"of\":\"$1\",\"count\":$2,\"each\":$(($3 / $2))}" | tee -a "$results"; }

# inserted ROUTES EACH: what the packet cost that opened a connection, until there were so many.
inserted() { echo "{\"what\":\"insert\",\"routes\":$1,\"each\":$2}" | tee -a "$results"; }

# The same flows, among more and more routes.
routes() {
	local n have=0 before now sample took
	machines
	steered_by drop
	measured drop udp $short 0 $flows "$packets"
	steered_no_more drop
	nlb_machines
	ingress host1 lbu drop
	before=$(memory)
	steered_by nlb-tunnel
	for n in $((most / 1000)) $((most / 10)) "$most"; do
		took=$(udp $short $have $((n - have)) $((n - have)) 1)
		inserted "$n" $((took / (n - have)))
		have=$n
		[ "$(counter lbu fwd route-new)" = "$n" ] || fail "there are not $n routes"
		now=$(memory)
		kept "nlb-tunnel" "$n" $((now - before))
		sample=$((n < flows ? n : flows))
		open host1
		udp $short 0 $sample $sample 1 >/dev/null
		ingress host1 lbu drop
		before=$((before + $(memory) - now))
		measured "nlb-tunnel-$n" udp $short 0 $sample "$packets"
	done
}
show_routes() {
	# shellcheck disable=SC2016
	show "$mode_functions"'
		def of_routes: [of("packets")[] | select(.mode | startswith("nlb-tunnel-"))];
		"", "Instructions for a packet in the tunnel above those of dropping it at once, Linux \($kernel)", "",
		(of_routes[] | "  \(.mode | sub("nlb-tunnel-"; "")) routes: \(.median - of_mode("drop"; .kind).median | round)"),
		(of("insert")[] | "  \(.routes) routes: \(.each - of_mode("drop"; "udp-60").median | round) for each that was opened until then"),
		(of("memory")[] | "  \(.count) routes: \(.each) bytes of kernel memory for each"),
		"",
		(of_mode("drop"; "udp-60").median as $drop | [of("insert")[].each - $drop] | "insert_1m_vs_1k=\(last / first | three)"),
		"bytes_per_route=\(of("memory") | last.each)",
		(of_mode("drop"; "udp-60").median as $drop | of_routes | "forward_1m_vs_1k=\((last.median - $drop) / (first.median - $drop) | three)")'
}

# Connections that are opened.
connections() {
	local mode before n first=$new
	machines
	steered_by drop
	measured drop tcp syn 0 "$new" "$new" 1
	steered_no_more drop
	ingress host1 lbu drop
	for mode in ipvs-dr nlb-direct nlb-tunnel; do
		[ $mode != nlb-direct ] || nlb_machines
		port=$((port + 1))
		steered_by $mode
		before=$(memory)
		measured $mode tcp syn 0 "$new" "$new" 1
		# Of the tunnel it is measured with more routes: what those of nlb-direct have left behind would be in it.
		[ $mode = nlb-tunnel ] || kept $mode "$new" $(($(memory) - before))
		# The client's ACK opens the rest, which costs more than another one.
		measured $mode-opens tcp ack 0 $flows $flows 1
		measured $mode-open tcp ack 0 $flows $flows
		steered_no_more $mode
	done
	# If the host answers a SYN in the tunnel, that costs the LBU more than dropping the answer. Of a connection whose
	# answers were lost the SYN travels in a LEARN again, and neither side makes anything new.
	port=$((port + 1))
	steered_by nlb-tunnel
	open host1
	for ((n = 0; n < repeats; n++)); do
		ingress lbu host1 drop
		tcp syn "$first" $flows $flows 1 >/dev/null
		measured nlb-tunnel-unheard tcp syn "$first" $flows $flows 1
		open lbu
		measured nlb-tunnel-answered tcp syn "$first" $flows $flows 1
		first=$((first + flows))
	done
}
show_connections() {
	# shellcheck disable=SC2016
	show "$mode_functions"'
		def middle(mode): [of("packets")[] | select(.mode == mode) | .median] | sort | .[length / 2 | floor];
		def cost(mode): above(mode; "tcp-syn");
		def opens(mode): middle(mode + "-opens") - middle(mode + "-open") | round;
		# Where there is no answer, the two differ by chance.
		([middle("nlb-tunnel-answered") - middle("nlb-tunnel-unheard"), 0] | max) as $answer |
		(cost("nlb-tunnel") + $answer) as $tunnel |
		"", "Instructions for a new TCP connection above those of dropping its first packet at once, Linux \($kernel)", "",
		"  IPVS DR                \(cost("ipvs-dr") | round), and \(opens("ipvs-dr")) more for its first ACK than for others",
		"  nlb, direct            \(cost("nlb-direct") | round), and \(opens("nlb-direct"))",
		"  nlb, tunnel            \($tunnel | round), and \(opens("nlb-tunnel")); \($answer | round) of them for an answer of the host",
		(of("memory")[] | "  \(.of), \(.count) connections: \(.each) bytes of kernel memory for each"),
		"",
		"newconn_per_s=\(1e9 / $tunnel | round)",
		"newconn_per_s_ipvs=\(1e9 / cost("ipvs-dr") | round)",
		"newconn_direct_vs_ipvs=\(cost("ipvs-dr") / cost("nlb-direct") | three)",
		"newconn_vs_ipvs=\(cost("ipvs-dr") / $tunnel | three)",
		"bytes_per_connection_ipvs=\(first(of("memory")[] | select(.of == "ipvs-dr")).each)"'
}

# The same in time, where the clock tells it. What needs neither pktgen nor hooks for devices.
nanoseconds() {
	local mode
	generators=tcp
	ingress() { ns "$1" nft "add table ip bench; add chain ip bench in { type filter hook prerouting priority -600; }; add rule ip bench in iifname $2 $3"; }
	open() { ns "$1" nft delete table ip bench; }
	machines
	mode drop
	ingress host1 lbu drop
	mode plain
	nlb_machines
	for mode in nlb-tunnel nlb-direct nlb-ipip nlb-half-nat nlb-nat; do mode $mode; done
}
show_nanoseconds() {
	# shellcheck disable=SC2016
	show "$mode_functions"'
		def kinds: "tcp-ack", "tcp-batch";
		"", "Nanoseconds for a packet above those of dropping it before it is routed, Linux \($kernel)", "",
		"                " + ([kinds | cell] | add),
		"drop (all)      " + ([kinds as $k | of_mode("drop"; $k).median | round | cell] | add),
		(modes | . + " " * (16 - length) + (. as $m | [kinds as $k | above($m; $k) | round | cell] | add)),
		"",
		"forward_ns=\(above("nlb-tunnel"; "tcp-ack") | round)",
		"forward_vs_plain_ns=\(above("nlb-tunnel"; "tcp-ack") / above("plain"; "tcp-ack") | three)"'
}

case ${1:-} in
packets | routes | connections) clock_counts_instructions ;;
nanoseconds) ;;
*) fail "usage: forward.sh packets | routes | connections | nanoseconds" ;;
esac
"$1"
"show_$1"
