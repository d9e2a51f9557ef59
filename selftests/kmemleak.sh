# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the kernel with debug checks: what kmemleak finds.

# Objects that nobody points to. One counts as leaked only when it is five seconds old. What the kernel took as it came
# up is not ours; some of it (hwrng's buffers) is found by no scan, and named when nobody has just written to it.
leaks() {
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	echo scan >/sys/kernel/debug/kmemleak
	awk -v RS='unreferenced object ' 'NR > 1 && !/do_initcalls/ { printf "%s%s", RS, $0 }' /sys/kernel/debug/kmemleak
}

# What was there before is none of ours.
forget_leaks() {
	leaks >/dev/null
	echo clear >/sys/kernel/debug/kmemleak
}

# Whether nothing has leaked since then. A scan also names what is in use, or about to be freed, and found by nothing that
# the scan looks at: of the kernel's own objects some, now and then. What has leaked, the next scan names again.
nothing_leaked() {
	[ -w /sys/kernel/debug/kmemleak ] || skip "this kernel has no kmemleak"
	[ -z "$(leaks)" ] || not grep . <<<"$(leaks)"
}
