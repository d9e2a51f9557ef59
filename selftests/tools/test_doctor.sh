#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# nlb doctor: a cluster that is right has no FAIL; one thing is broken at a time, and the line that
# says so names it.

. "$(dirname "$0")/../migrator/lib.sh"

doctor() { nlb -n "$1" doctor interval 0.1; }
# well MACHINE: nothing fails there, but perhaps for a moment, as when the kernel looks for routers by the nlb device.
well() { wait_for 10 is_well "$1"; }
is_well() {
	doctor "$1" >"$tmp/out"
	cat "$tmp/out"
	not grep -E '^(FAIL|WARN)' "$tmp/out"
}
# ill MACHINE LEVEL TEXT: this is found there.
ill() {
	local rc=0
	doctor "$1" >"$tmp/out" 2>&1 || rc=$?
	cat "$tmp/out"
	[ "$rc" = "$([ "$2" = FAIL ] && echo 1 || echo 0)" ]
	grep -A 1 -E "^$2 " "$tmp/out" | grep -F -A 1 -- "$3" | grep -q '^      '
}

right() {
	well lbu
	well host1
	grep -E "^OK +modules +loaded: nlb_core, nlb_tunnel, nlb_migrator, nlb_fwd" "$tmp/out"
	nlb -n host1 -j doctor interval 0.1 | jq -e 'all(.level == "ok") and any(.check == "forwarder")'
}

devices() {
	ip -n host1 link set nlb0 down
	ill host1 FAIL "nlb0 is down"
	ip -n host1 link set nlb0 up
	ip -n host1 addr add $VIP/32 dev lo
	ill host1 FAIL "$VIP is on lo, too"
	ns host1 sysctl -qw net.ipv4.conf.all.arp_ignore=1
	ill host1 FAIL "$VIP is on lo, too"
	ns host1 sysctl -qw net.ipv4.conf.all.arp_announce=2
	well host1
	grep -E "^OK +vip +$VIP is on a device of the kind nlb, and on lo, which is silent about it" "$tmp/out"
	ns host1 sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0
	ip -n host1 addr del $VIP/32 dev lo
	well host1
}

ways() {
	ns lbu sysctl -qw net.ipv4.ip_local_port_range="32768 65535"
	ill lbu FAIL "local ports go up to 65535"
	ns lbu sysctl -qw net.ipv4.ip_local_port_range="32768 60999"
	ip -n lbu link set host2 mtu 1400
	ill lbu WARN "packets to host $HOST2 have up to 1400 bytes"
	ip -n lbu link set host2 down
	ill lbu FAIL "no way to host $HOST2"
	ip -n lbu link set host2 up mtu 1500
	ip -n host2 link set lbu down
	ill lbu FAIL "host $HOST2 is behind host2, which has no carrier"
	ip -n host2 link set lbu up
	well lbu
}

other_ways() {
	nlb -n lbu service add $VIP:81/tcp
	nlb -n lbu endpoint add $VIP:81/tcp host $HOST1 via half-nat port 8000
	ns lbu sysctl -qw net.ipv4.ip_local_port_range="1024 60999"
	well lbu
	nlb -n lbu endpoint add $VIP:81/tcp host $HOST2 via nat port 8000
	ill lbu FAIL "local ports begin at 1024; those up to 32767 are for connections by nat"
	ns lbu sysctl -qw net.ipv4.ip_local_port_range="32768 60999"
	well lbu
	nlb -n lbu endpoint del $VIP:81/tcp host $HOST2
	nlb -n lbu endpoint add $VIP:81/tcp host $HOST2 via ipip
	ill lbu WARN "packets to host $HOST2 via ipip have up to 1480 bytes"
	ip -n lbu link set host2 mtu 1520
	well lbu
	ip -n lbu link set host2 mtu 1500
	nlb -n lbu service del $VIP:81/tcp
	well lbu
}

host_side() {
	ns host1 sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.lbu.rp_filter=1
	ip -n host1 route replace default via 10.0.4.2
	ill host1 WARN "its reverse path filter is strict"
	ns host1 sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lbu.rp_filter=0
	nlb -n host1 forwarder del $LBU_TO_HOST1
	ill host1 FAIL "no forwarder is configured"
	nlb -n host1 forwarder add $LBU_TO_HOST1
	nlb -n lbu peer del $HOST2
	ill lbu FAIL "host $HOST2 is no peer"
	peer_add lbu $HOST2
	well lbu
}

no_module() {
	for n in client lbu host1 host2; do netns_del $n; done
	unload_modules || return 1
	not nlb doctor >"$tmp/out"
	grep -A 1 "^FAIL  modules    no module of nlb is loaded" "$tmp/out" | grep "modprobe nlb_fwd"
}

ktap_begin
cluster
ktap_run "a cluster that is right" right
ktap_run "devices and VIPs" devices
ktap_run "ports and ways to hosts" ways
ktap_run "what the other ways need" other_ways
ktap_run "what a host needs, and peers" host_side
ktap_run "no module" no_module
ktap_end
