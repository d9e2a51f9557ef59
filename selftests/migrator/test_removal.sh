#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Namespaces and modules go away while connections are moved and used. The
# runner checks the kernel log and that the modules unload.

. "$(dirname "$0")/lib.sh"

traffic() {
	background client "$tmp/traffic.log" "$tcp" client $VIP 80 --count 2000 --parallel 8 --bytes 30000 --patience 3
	wait_for 20 moved_some
}
moved_some() { [ "$(migrations lbu | jq '[.[] | select(.phase == "active" or .phase == "closed")] | length')" -gt 5 ]; }

no_complaint() { ! dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace|waiting for .* to become free'; }

host_leaves() {
	traffic
	netns_del host1
	sleep 1
	no_complaint
}

lbu_leaves() {
	netns_del lbu
	sleep 1
	no_complaint
}

device_leaves() {
	traffic
	ip -n host1 link del nlb0
	sleep 1
	ip -n lbu link del nlb0
	sleep 1
	no_complaint
}

modules_leave() {
	traffic
	unload_modules
	no_complaint
	not grep -q ^nlb /proc/modules
}


ktap_begin
cluster
server host1 server 0.0.0.0 80
classifier --to $HOST1
ktap_run "a host's namespace goes under traffic" host_leaves
ktap_run "the LBU's namespace goes under traffic" lbu_leaves
for n in "${nlb_namespaces[@]}"; do [ -z "$n" ] || netns_del "$n"; done
cluster
server host1 server 0.0.0.0 80
classifier --to $HOST1
ktap_run "nlb devices go under traffic" device_leaves
for n in "${nlb_namespaces[@]}"; do [ -z "$n" ] || netns_del "$n"; done
cluster
server host1 server 0.0.0.0 80
classifier --to $HOST1
ktap_run "modules go under traffic" modules_leave
ktap_end
