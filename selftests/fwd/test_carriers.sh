#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Packets inside of GRE and GUE, with and without checksums, which the host's kernel takes out: through narrower links in
# both directions, with routers on the way that say so, each byte compared at both ends and on the wire.

. "$(dirname "$0")/../lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
modes=$here/modes.py carriers=$here/carriers.py
lbu() { nlb -n lbu "$@"; }

# Other addresses of host1 as host2 knows it: a GRE device takes packets with a checksum, or those without.
FAR_CSUM=10.0.6.3 FAR_CSUM6=2001:db8:6::3
# The second port of GUE.
PORT=5555

# take MODULE...: what the host's kernel needs; without it there is nothing to be seen here.
take() {
	local module
	for module in "$@"; do
		[ -d "/sys/module/$module" ] || modprobe -q "$module" || missing+=" $module"
	done
}

# service PORT HOST HOST6 WORD...: on both VIPs, TCP and UDP, with this endpoint.
service() {
	local port=$1 host=$2 host6=$3 proto
	shift 3
	for proto in tcp udp; do
		lbu service add "$VIP:$port/$proto"
		lbu endpoint add "$VIP:$port/$proto" host "$host" "$@"
		lbu service add "[$VIP6]:$port/$proto"
		lbu endpoint add "[$VIP6]:$port/$proto" host "$host6" "$@"
	done
}

# Host1 is behind host2. Its devices for what comes out of GUE are those for IP in IP.
configure() {
	ip -n host1 -batch - <<-EOF
		addr add $FAR_CSUM/24 dev host2
		addr add $FAR_CSUM6/64 dev host2 nodad
		link add gre4 type gre local $FAR remote $LBU_TO_HOST2
		link add gre4-csum type gre local $FAR_CSUM remote $LBU_TO_HOST2 icsum
		link add gre6 type ip6gre local $FAR6 remote $LBU_TO_HOST2_6
		link add gre6-csum type ip6gre local $FAR_CSUM6 remote $LBU_TO_HOST2_6 icsum
		link add tun4 type ipip local $FAR remote $LBU_TO_HOST2
		link add tun6 type ip6tnl mode ip6ip6 local $FAR6 remote $LBU_TO_HOST2_6
	EOF
	for device in gre4 gre4-csum gre6 gre6-csum tun4 tun6; do ip -n host1 link set $device up; done
	ns host1 ip fou add port 6080 gue
	ns host1 ip fou add port $PORT gue
	ns host1 ip -6 fou add port 6080 gue
	ns host1 ip -6 fou add port $PORT gue
	ip -n host2 route add $FAR_CSUM dev host1 mtu 1400
	ip -n host2 route add $FAR_CSUM6 dev host1 mtu 1400
	ip -n lbu route add $FAR_CSUM via $HOST2
	ip -n lbu route add $FAR_CSUM6 via $HOST2_6
	service 7001 $FAR $FAR6 via gre
	service 7002 $FAR_CSUM $FAR_CSUM6 via gre tun-csum yes
	service 7003 $FAR $FAR6 via gue
	service 7004 $FAR $FAR6 via gue tun-port $PORT tun-csum yes
	service 7005 $FAR $FAR6 via gue tun-port $PORT tun-csum no
	background host1 "$tmp/host1.log" "$modes" serve 7001 7002 7003 7004 7005
	wait_for 20 grep -q ready "$tmp/host1.log"
	lbu endpoint show "$VIP:7001/tcp" | grep -E " $FAR +gre +$LBU_TO_HOST2 "
	lbu -j endpoint show >"$tmp/endpoints"
	# shows PORT FORWARD TUN_PORT CSUM CSUM6
	while read -r port forward tun csum csum6; do
		jq -e --argjson p "$port" --arg f "$forward" --argjson t "$tun" --argjson c "$csum" --argjson c6 "$csum6" '
			[.[] | select(.vip_port == $p)] | length == 4 and all(.forward == $f and .tun_port == $t and
			.tun_csum == (if .vip_addr | contains(":") then $c6 else $c end))' "$tmp/endpoints"
	done <<-EOF
		7001 gre null false false
		7002 gre null true true
		7003 gue 6080 false true
		7004 gue $PORT true true
		7005 gue $PORT false false
	EOF
}

# What is saved makes the same again, and nothing else.
saved() {
	lbu save >"$tmp/saved"
	grep -E 'via = "gue"' "$tmp/saved"
	[ -z "$(lbu apply "$tmp/saved" dry-run)" ]
	sed 's/tun-port = 5555/tun-port = 5556/; s/tun-csum = "no"/tun-csum = "yes"/' "$tmp/saved" >"$tmp/other"
	lbu apply "$tmp/other"
	lbu -j endpoint show | jq -e 'all(.tun_port != 5555) and all(.forward != "gre" or .tun_csum)'
	lbu apply "$tmp/saved"
	lbu -j endpoint show | jq -S 'map(del(.connections, .packets, .bytes)) | sort' >"$tmp/after"
	jq -S 'map(del(.connections, .packets, .bytes)) | sort' "$tmp/endpoints" | cmp - "$tmp/after"
}

# forgotten: what all have learnt of paths; see test_errors.sh.
forgotten() {
	local proto=$((RANDOM % 50 + 200)) n
	ip -n client -batch - <<-EOF
		route replace $VIP via 10.0.1.1 proto $proto
		route replace $VIP6 via 2001:db8:1::1 proto $proto
	EOF
	for n in $FAR $FAR_CSUM; do ip -n lbu route replace $n via $HOST2 proto $((proto++)); done
	for n in $FAR6 $FAR_CSUM6; do ip -n lbu route replace $n via $HOST2_6 proto $((proto++)); done
	ip -n host1 route replace $CLIENT via 10.0.6.1 proto $proto
	ip -n host1 route replace $CLIENT6 via 2001:db8:6::1 proto $proto
}

# knows MACHINE DESTINATION MTU: whether the MTU of a path is known there.
knows() { ip -n "$1" route get "$2" | tee "$tmp/route" | grep "mtu $3" || ! cat "$tmp/route"; }

# way PORT MTU MTU6: bytes there and back through narrower links both ways. The client learns these MTUs, and the host that
# of its own way, by an error that travels inside as well.
way() {
	local errors told
	forgotten
	errors=$(counter lbu fwd icmp-errors) told=$(counter lbu fwd icmp-told)
	ns client "$modes" ask 300000 "$CLIENT=$VIP:$1" "$CLIENT6=[$VIP6]:$1"
	(($(counter lbu fwd icmp-errors) >= errors + 2))
	(($(counter lbu fwd icmp-told) >= told + 2))
	knows client $VIP "$2"
	knows client $VIP6 "$3"
	knows host1 $CLIENT 1300
	knows host1 $CLIENT6 1300
	lbu -j route show | jq -e --argjson p "$1" '[.[] | select(.vip_port == $p)] |
		length >= 6 and all((.forward == "gre" or .forward == "gue") and (has("flow_id") | not))'
}

# Batches of segments go as one: the average packet is longer than the link can carry.
batches_stay_whole() {
	local port targets=()
	for port in 7001 7002 7003 7004 7005; do targets+=("$CLIENT=$VIP:$port" "$CLIENT6=[$VIP6]:$port"); done
	ns client "$modes" ask 1000000 "${targets[@]}"
	lbu -j endpoint show | tee "$tmp/endpoints"
	jq -e '[.[] | select(.proto == "tcp")] | length == 10 and all(.bytes / .packets > 1500)' "$tmp/endpoints"
}

# Where the device does nothing, the kernel cuts the batches and fills all checksums.
on_the_wire() {
	ns lbu ethtool -K host2 tx-checksumming off tx-tcp-segmentation off tx-tcp6-segmentation off gso off >/dev/null
	ns lbu ethtool -k host2 | grep -E '^(tx-checksumming|generic-segmentation-offload): off'
	capture host2 lbu "$tmp/wire.pcap" --immediate-mode -s 0 -- "src $LBU_TO_HOST2 or src $LBU_TO_HOST2_6"
	capture_ready
	ns client "$modes" ask 100000 "$CLIENT=$VIP:7001" "$CLIENT6=[$VIP6]:7001" "$CLIENT=$VIP:7002" "$CLIENT6=[$VIP6]:7002" \
		"$CLIENT=$VIP:7003" "$CLIENT6=[$VIP6]:7003" "$CLIENT=$VIP:7004" "$CLIENT6=[$VIP6]:7004" \
		"$CLIENT=$VIP:7005" "$CLIENT6=[$VIP6]:7005"
	capture_stop
	ns lbu ethtool -K host2 tx-checksumming on tx-tcp-segmentation on tx-tcp6-segmentation on gso on >/dev/null
	[ -z "$capture_missed" ]
	"$carriers" wire "$tmp/wire.pcap" 7001=gre,gre 7002=gre+csum,gre+csum 7003=gue:6080,gue+csum:6080 \
		7004=gue+csum:$PORT,gue+csum:$PORT 7005=gue:$PORT,gue:$PORT
}

# What is too long, too late, in fragments, or to nobody.
datagrams() {
	local before late pieces
	forgotten
	before=$(counter lbu fwd icmp-told) late=$(counter lbu fwd drop-too-big)
	ns client "$modes" big "1376=$VIP:7001" "1356=[$VIP6]:7001" "1372=$VIP:7002" "1352=[$VIP6]:7002" \
		"1368=$VIP:7003" "1348=[$VIP6]:7003"
	# The third way leads to the host of the first one, of which the LBU has been told by then.
	[ "$(counter lbu fwd icmp-told)" = $((before + 4)) ]
	[ "$(counter lbu fwd drop-too-big)" = $((late + 2)) ]
	late=$(counter lbu fwd drop-ttl-expired)
	ns client "$modes" late 1 "$VIP:7001" "[$VIP6]:7001" "$VIP:7003" "[$VIP6]:7003"
	[ "$(counter lbu fwd drop-ttl-expired)" = $((late + 4)) ]
	pieces=$(counter lbu fwd defragmented)
	ns client "$modes" pieces "$VIP:7001" "[$VIP6]:7001" "$VIP:7002" "[$VIP6]:7002" "$VIP:7003" "[$VIP6]:7003" \
		"$VIP:7004" "[$VIP6]:7004"
	[ "$(counter lbu fwd defragmented)" = $((pieces + 24)) ]
	# Too long for the LBU's own link already.
	before=$(counter lbu fwd drop-too-big)
	ip -n lbu route replace $FAR via $HOST2 mtu 1390
	ip -n lbu route replace $FAR6 via $HOST2_6 mtu 1390
	ns client "$modes" big "1366=$VIP:7001" "1346=[$VIP6]:7001" "1358=$VIP:7003" "1338=[$VIP6]:7003"
	[ "$(counter lbu fwd drop-too-big)" = $((before + 4)) ]
	forgotten
}

# Errors about datagrams that are of no connection's way are not believed.
forged() {
	ns client "$carriers" forge $VIP 7003 $CLIENT $LBU_TO_HOST2 $FAR 6080
	ns client "$carriers" forge $VIP6 7003 $CLIENT6 $LBU_TO_HOST2_6 $FAR6 6080
	forgotten
}

# Nobody takes the datagrams: the client hears that the host cannot be reached.
nobody() {
	ns host1 ip fou del port 6080
	ns host1 ip -6 fou del port 6080
	ns client "$carriers" unreachable "$VIP:7003" "[$VIP6]:7003"
	ns host1 ip fou add port 6080 gue
	ns host1 ip -6 fou add port 6080 gue
	ns client "$modes" ask 1000 "$CLIENT=$VIP:7003" "$CLIENT6=[$VIP6]:7003"
}

traced() {
	forgotten
	lbu -j trace 198.51.100.7:40000 "$VIP:7002/tcp" | tee "$tmp/trace"
	jq -e '.forward == "gre" and .outcome == "new-route" and .slow == "ipip" and .mtu == 1472' "$tmp/trace"
	lbu -j trace "[2001:db8:7::7]:40000" "[$VIP6]:7003/udp" | tee "$tmp/trace"
	jq -e '.forward == "gue" and .mtu == 1448' "$tmp/trace"
}

# What makes no sense.
refused() {
	while IFS='|' read -r text words; do
		# shellcheck disable=SC2086
		not lbu endpoint add $words 2>"$tmp/err"
		cat "$tmp/err"
		grep -qF "$text" "$tmp/err"
	done <<-EOF
	only gue has a port|$VIP:7001/tcp host $HOST1 via gre tun-port 6080
	only gue has a port|$VIP:7001/tcp host $HOST1 tun-port 6080
	only gre and gue have a checksum|$VIP:7001/tcp host $HOST1 via ipip tun-csum yes
	only half-nat and nat change the port|$VIP:7001/tcp host $HOST1 via gue port 80
	not the address of another machine|$VIP:7001/tcp host $LBU via gre
	not the address of another machine|[$VIP6]:7001/tcp host $LBU6 via gue
	EOF
	lbu service add "$VIP:7009/tcp" mode peek
	not lbu endpoint add "$VIP:7009/tcp" host $HOST1 via gue
	lbu service del "$VIP:7009/tcp"
}

missing=''
take ip_gre ip6_gre ipip ip6_tunnel fou fou6
[ -z "$missing" ] || skip "the kernel has no$missing"
ktap_begin
load_modules nlb_fwd
topology
topology_ipv6
behind_a_router
vip_add lbu host1
vip_add_ipv6 lbu host1
ktap_run "services with endpoints in GRE and GUE" configure
ktap_run "saved and applied" saved
ktap_run "GRE: through narrower links" way 7001 1376 1356
ktap_run "GRE with checksum: through narrower links" way 7002 1372 1352
ktap_run "GUE: through narrower links" way 7003 1368 1348
ktap_run "GUE with checksum: through narrower links" way 7004 1368 1348
ktap_run "GUE without checksum: through narrower links" way 7005 1368 1348
ktap_run "batches of segments stay whole" batches_stay_whole
ktap_run "on the wire" on_the_wire
ktap_run "datagrams too long, too late, or in fragments" datagrams
ktap_run "forged errors" forged
ktap_run "nobody takes them out" nobody
ktap_run "trace" traced
ktap_run "what makes no sense is refused" refused
ktap_end
