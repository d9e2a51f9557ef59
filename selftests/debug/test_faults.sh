#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 600
#
# Every allocation of a migration not once, at the origin and at the target: no connection is lost, no byte,
# no memory.

. "$(dirname "$0")/../migrator/lib.sh"
# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"

faults=$(dirname "$0")/faults.py

nothing_leaked() { ! leaks | grep .; }

ktap_begin
# The kernel's threads are not in the process namespace of this test, but below its /proc is one that has them.
umount /proc
cluster
forget_leaks
ktap_run "an allocation not at the origin" "$faults" origin
ktap_run "an allocation not at the target" "$faults" target
ktap_run "nothing leaked" nothing_leaked
ktap_end
