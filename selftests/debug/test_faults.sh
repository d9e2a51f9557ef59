#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 3000
#
# Every allocation of a migration not once, at the origin and at the target, whatever the connection is in the
# middle of: no connection is lost, no byte, no memory.

. "$(dirname "$0")/../migrator/lib.sh"
# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"

faults=$(dirname "$0")/faults.py

# What is marked so (expedited forwarding, or low priority with 100 bytes of payload) is lost on its way from client to
# LBU, and to the client.
lossy_class() {
	local machine
	for machine in client lbu; do
		ns $machine nft 'add table inet lossy
			add chain inet lossy in { type filter hook prerouting priority -400; }
			add rule inet lossy in ip dscp ef drop
			add rule inet lossy in ip6 dscp ef drop
			add rule inet lossy in ip dscp cs1 meta length 152 drop
			add rule inet lossy in ip6 dscp cs1 meta length 172 drop'
	done
}
# Nothing that was lost is waited for long.
short_timeouts() {
	local machine
	for machine in client lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=20000; done
}
slowly() {
	slow_answers 20ms
	"$faults" "$@"
	prompt_answers
}

ktap_begin
# The kernel's threads are not in the process namespace of this test, but below its /proc is one that has them.
umount /proc
cluster
lossy_class
short_timeouts
ns lbu nlb keep add $VIP:80 bytes 8000
forget_leaks
ktap_run "an allocation not at the origin: unread bytes" "$faults" unread origin
ktap_run "an allocation not at the target: unread bytes and early packets" slowly early target
ktap_run "no memory to hold early packets" slowly holding
ktap_run "no memory to keep what is read" "$faults" reading
for side in origin target; do
	ktap_run "an allocation not at the $side: CLOSE_WAIT, data in flight and unsent" "$faults" closed $side
done
ipv6
ns lbu nlb keep add "[$VIP]:80" bytes 8000
for side in origin target; do
	ktap_run "an allocation not at the $side: IPv6, all queues, kept bytes, options" "$faults" all-queues $side
done
ktap_run "nothing leaked" nothing_leaked
ktap_end
