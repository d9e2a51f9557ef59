#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# run.sh [--part K/N] [--debug | NAME...]: run, inside the guest, all selftests whose name contains one of NAMEs, or the
# K-th of N shares of them, and report in KTAP.
# Those in debug/ need a kernel with fault injection and kmemleak, and count elsewhere as not there. Those with a line
# "# debug" would run anywhere, but do so on that kernel alone unless they are named: it is several times as fast, and
# nothing in them depends on the distribution's. --debug runs both.
# Those with a line "# long" run when one of NAMEs is in theirs, or with NLB_TEST=all.
# Each runs in new process, mount and network namespaces: what it leaves there ends with it. After
# each, our modules must unload, nothing of it may be left, and the kernel log must be free of
# complaints. A test that hangs is killed and has failed (limit: 600 s, or a line "# timeout: N"; with LONG=1, ten times that).
# With NLB_AGAIN, what failed is run again when the others have ended, and that counts: for where more runs beside the tests
# than there are processors. The kernel's complaints, and what is left behind, are not excused.

cd "$(dirname "$0")" || exit 1
# Only for its functions; the runner makes no namespaces of its own.
. ./lib.sh

# Namespaces other than the runner's own that have a process or a mount.
strangers() {
	lsns -n -t pid -o NS,COMMAND | grep -v "$(readlink /proc/self/ns/pid | tr -dc 0-9)"
	lsns -n -t net -o NS,COMMAND | grep -v "$(readlink /proc/self/ns/net | tr -dc 0-9)"
}
nobody_left() { [ -z "$(strangers)" ]; }

# What there is once for the whole machine can be set from the first network namespace only.
touch /run/nlb-first-net
mount --bind /proc/self/ns/net /run/nlb-first-net

# The kernel rewrites its own code where the first netfilter hook of a kind comes and where the last one goes. QEMU
# before 8.1 may run what has been replaced when another processor was about to at that moment, and the kernel dies of
# an int3 that is not there any more. Our modules come and go under traffic; with hooks that stay, nothing is rewritten.
if (($(nproc) > 1)); then
	for hook in prerouting input forward output postrouting; do
		hooks+="chain $hook { type filter hook $hook priority 0; }"$'\n'
	done
	nft "table inet stay { $hooks }
		table netdev stay {
			chain ingress { type filter hook ingress device lo priority 0; }
			chain egress { type filter hook egress device lo priority 0; }
		}"
fi

part=1 parts=1
if [ "${1:-}" = --part ]; then
	part=${2%/*} parts=${2#*/}
	shift 2
fi
debug=
if [ "${1:-}" = --debug ]; then
	debug=1
	shift
fi
# Whether a test is one of those for the kernel with debug checks.
is_debug() { [[ $1 = debug/* ]] || grep -qx '# debug' "$1"; }
mapfile -t tests < <(find . -mindepth 2 -name 'test_*' -type f -executable | sed 's|^\./||' | sort)
chosen=()
for t in "${tests[@]}"; do
	[[ $t != debug/* || -d /sys/kernel/debug/failslab ]] || continue
	if (($# == 0)); then
		if is_debug "$t"; then [ -n "$debug" ]; else [ -z "$debug" ]; fi && chosen+=("$t")
	fi
	for name in "$@"; do
		[[ $t != *"$name"* ]] || { chosen+=("$t") && break; }
	done
done
((${#chosen[@]})) || fail "no selftest has '$*' in its name"
shares=() long=()
for t in "${chosen[@]}"; do
	if (($#)) || [ -n "$debug" ] || [ "${NLB_TEST:-}" = all ] || ! grep -qx '# long' "$t"; then shares+=("$t"); else long+=("$t"); fi
done
chosen=()
for ((n = part - 1; n < ${#shares[@]}; n += parts)); do chosen+=("${shares[n]}"); done
((part == 1)) || long=()

# run TEST: in new namespaces. Sets rc to its exit status, why to why it has failed, and final if to run it again could
# not excuse that.
run() {
	local limit log mark="nlb-selftest $1 $RANDOM$RANDOM"
	export NLB_PYTHON=/tmp/python-$BASHPID-$((++n))
	echo "$mark" >/dev/kmsg
	limit=$(sed -n 's/^# timeout: \([0-9]*\)$/\1/p' "$1")
	[ -z "${LONG:-}" ] || limit=$((${limit:-600} * 10))
	timeout -k 5 -s KILL "${limit:-600}" unshare --mount --pid --fork --kill-child --mount-proc --net \
		sh -c 'ip link set lo up; python/server.py "$NLB_PYTHON" & exec "$0"' "./$1" </dev/null 2>&1 |
		sed -u 's/^/    /'
	rc=${PIPESTATUS[0]}
	why=() final=
	wait_for 10 nobody_left >/dev/null || why+=("left behind: $(strangers | tr '\n' ';')")
	unload_modules >/tmp/unload 2>&1 || why+=("modules do not unload: $(tr '\n' ' ' </tmp/unload)")
	log=$(dmesg | sed "1,/$(printf %s "$mark" | sed 's|/|\\/|g')/d")
	# What has been overwritten cannot be judged.
	dmesg | grep -qF "$mark" || why+=("the kernel log has overrun")
	if grep -qEf complaints <<<"$log"; then
		why+=("the kernel complained:")
		mapfile -t -O "${#why[@]}" why < <(grep -Ef complaints -m1 -B3 -A40 <<<"$log")
	fi
	((${#why[@]} == 0)) || final=1
	case $rc in
	0 | "$KSFT_SKIP") ;;
	124 | 137) why+=("killed after ${limit:-600} s") ;;
	*) why+=("exit status $rc") ;;
	esac
}
# report TEST
report() {
	((${#why[@]} == 0)) || ktap_note "${why[@]}"
	ktap_note "$((SECONDS - start)) s"
	if ((${#why[@]})); then
		ktap_not_ok "$1"
	elif [ "$rc" = "$KSFT_SKIP" ]; then
		ktap_skip "$1" "see above"
	else
		ktap_ok "$1"
	fi
}

ktap_begin
echo "1..$((${#chosen[@]} + ${#long[@]}))"
for t in "${long[@]}"; do ktap_skip "$t" "takes long; 'make test ALL=1' or 'make selftests T=$t' runs it"; done
again=()
for t in "${chosen[@]}"; do
	start=$SECONDS
	echo "# selftests: $t"
	if [ -z "${NLB_AGAIN:-}" ]; then
		run "$t"
	else
		run "$t" >/tmp/output
		if ((${#why[@]})) && [ -z "$final" ]; then
			again+=("$t")
			# Not a result yet.
			{ cat /tmp/output && ktap_note "${why[@]}" "$((SECONDS - start)) s" "$t failed beside other tests"; } | sed 's/^[ #]*/# /'
			continue
		fi
		cat /tmp/output
	fi
	report "$t"
done
for t in "${again[@]}"; do
	start=$SECONDS
	echo "# selftests: $t, again"
	run "$t"
	report "$t"
done
((ktap_failed == 0)) || exit 1
exit 0
