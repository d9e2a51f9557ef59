#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 600
#
# Every allocation of a migration fails once, at the origin and at the target: no connection is lost, no byte,
# no memory.

. "$(dirname "$0")/../migrator/lib.sh"

faults=$(dirname "$0")/faults.py

# An object counts as leaked only when it is five seconds old.
leaks() {
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
}
nothing_leaked() { ! leaks | grep .; }

ktap_begin
# The kernel's threads are not in the process namespace of this test, but below its /proc is one that has them.
umount /proc
cluster
leaks >/dev/null
echo clear >/sys/kernel/debug/kmemleak
ktap_run "an allocation fails at the origin" "$faults" origin
ktap_run "an allocation fails at the target" "$faults" target
ktap_run "nothing leaked" nothing_leaked
ktap_end
