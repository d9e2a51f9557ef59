#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Services, endpoints, weights, states, schedulers, allotments and rules change at random under load, also by files that are
# applied, all ways to hosts, both families and protocols: no connection breaks that need not, and at the end nothing is left.

. "$(dirname "$0")/../lib.sh"
# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"
here=$(cd "$(dirname "$0")" && pwd)

# A module that goes while what belongs to its namespaces goes.
nothing_left() {
	rmmod nlb_fwd
	netns_del lbu
	netns_del client host1 host2
	wait_for 30 unload_modules
}

ktap_begin
[ ! -w /sys/kernel/debug/kmemleak ] || forget_leaks
load_modules nlb_fwd
topology
topology_ipv6
vip_add lbu host1
vip_add_ipv6 lbu host1
ip -n host1 -batch - <<-EOF
	addr add 10.0.2.3/24 dev lbu
	addr add 10.0.2.4/24 dev lbu
	addr add 2001:db8:2::3/64 dev lbu nodad
	link add tun4 type ipip local 10.0.2.4 remote $LBU_TO_HOST1
	link set tun4 up
EOF
carriers=''
if modprobe -qa ip_gre fou; then
	carriers=1
	ip -n host1 -batch - <<-EOF
		addr add 10.0.2.5/24 dev lbu
		addr add 10.0.2.6/24 dev lbu
		link add gre4 type gre local 10.0.2.5 remote $LBU_TO_HOST1 icsum
		link set gre4 up
		link add gue4 type ipip local 10.0.2.6 remote $LBU_TO_HOST1
		link set gue4 up
	EOF
	ns host1 ip fou add port 6080 gue
fi
ip -n host2 -batch - <<-EOF
	addr add 10.0.3.3/24 dev lbu
	addr add 2001:db8:3::3/64 dev lbu nodad
	route replace $CLIENT via $LBU_TO_HOST2
	route replace $CLIENT6 via $LBU_TO_HOST2_6
EOF
# Of those whom the rules are about, and not chosen for others.
ip -n client -batch - <<-EOF
	addr add 198.51.100.7/32 dev lbu
	addr add 198.51.100.8/32 dev lbu
	addr add 2001:db8:f::7/128 dev lbu nodad preferred_lft 0
	addr add 2001:db8:f::8/128 dev lbu nodad preferred_lft 0
EOF
ns host1 nlb forwarder add $LBU_TO_HOST1
ns host1 nlb forwarder add $LBU_TO_HOST1_6
background host1 "$tmp/host1.log" "$here/modes.py" serve 7000
background host2 "$tmp/host2.log" "$here/modes.py" serve 8000
wait_for 20 grep -q ready "$tmp/host1.log"
wait_for 20 grep -q ready "$tmp/host2.log"
NLB_CARRIERS=$carriers ktap_run "connections and flows that need not break do not" ns client "$here/chaos.py" $((${LONG:+180} + 20)) ${SEED:+"$SEED"}
ktap_run "namespaces and modules go" nothing_left
[ ! -w /sys/kernel/debug/kmemleak ] || ktap_run "nothing has leaked" nothing_leaked
ktap_end
