# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # used by those who source it
#
# What all scripts share: messages with elapsed time, logged commands, the cache, and running a
# command inside a Debian root. Meant to be sourced.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Without a home directory (a bare CI job) there is still a well-defined place.
cache=${NLB_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nlb}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
build=${BUILD:-$top/build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
jobs=${JOBS:-$(nproc)}
: "${NLB_START:=$(date +%s)}"
export NLB_START NLB_CACHE=$cache

# Messages go to stderr: stdout belongs to results (paths, test output).
say() {
	local t=$(($(date +%s) - NLB_START))
	printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# What has to be undone when the script ends, however it ends.
cleanup_cmds=()
on_exit() { cleanup_cmds+=("$(printf '%q ' "$@")"); }
run_cleanup() {
	local i
	stop_logged
	for ((i = ${#cleanup_cmds[@]} - 1; i >= 0; i--)); do
		eval "${cleanup_cmds[i]}" || true
	done
}
trap run_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

logged_pid=
stop_logged() {
	[ -n "$logged_pid" ] || return 0
	local i
	kill -- "-$logged_pid" 2>/dev/null
	# Nothing may be written any more when we clean up.
	for ((i = 0; i < 100; i++)); do
		kill -0 -- "-$logged_pid" 2>/dev/null || break
		((i != 20)) || kill -KILL -- "-$logged_pid" 2>/dev/null
		sleep 0.1
	done
}

# logged WHAT COMMAND...: run COMMAND with its output in a log file; say what happens, give a sign of
# life every 20 s, and show the end of the log if it fails.
logged() {
	local what=$1 log pid start t last
	shift
	mkdir -p "$cache/log"
	log=$cache/log/$(printf %s "$what" | tr -c 'A-Za-z0-9.+\n' - | cut -c1-60)-$$.log
	start=$(date +%s)
	say "$what ..."
	# In a process group of its own, so that all of it can be stopped.
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	logged_pid=$pid
	t=0
	while kill -0 $pid 2>/dev/null; do
		sleep 0.5
		t=$((t + 1))
		if ((t % 40 == 0)); then
			last=$(tail -n 1 "$log" | tr -cd '[:print:]' | cut -c1-70)
			say "  ... $(($(date +%s) - start)) s: $last"
		fi
	done
	logged_pid=
	if wait $pid; then
		say "$what: done in $(($(date +%s) - start)) s"
		return
	fi
	tail -n 25 "$log" >&2
	die "$what failed; the whole log is $log"
}

# show_goals GOALS PARTS RESULTS...: all lines NAME=VALUE of the results, those of the GOALS (selftests/bench/goals.sh)
# last. The status says whether they are reached; if so many PARTS were asked for that are not all (0 is all), what they
# do not measure is no matter.
show_goals() {
	local goals=$1 parts=$2 names option=()
	shift 2
	((parts)) || option=(--all)
	names=$(awk '{ printf "%s%s", sep, $1; sep = "|" }' <<<"$goals")
	echo
	grep -hE '^[a-z0-9_]+=' "$@" | grep -vE "^($names)=" || true
	"$top/selftests/bench/goals.sh" "${option[@]}" "$@" <<<"$goals"
}

need_root() {
	[ "$(id -u)" = 0 ] ||
		die "$1 needs root; run it with sudo, or build against your own kernel tree with 'make KDIR=...'"
}

# need_disk GIB DIR
need_disk() {
	local free
	mkdir -p "$2" || die "cannot create $2; set NLB_CACHE to a directory that can be written"
	free=$(($(stat -f -c '%a * %S / 1048576' "$2")))
	((free >= $1 * 1024)) ||
		die "$2 has $free MiB free and $1 GiB are needed; make room or point NLB_CACHE to a bigger disk"
}

# need_tool COMMAND PACKAGE: install what is missing when that is possible.
need_tool() {
	command -v "$1" >/dev/null && return
	local fix="install the package '$2', which has the missing command '$1'"
	if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
		die "$fix"
	fi
	say "'$1' is missing: installing the package $2"
	mkdir -p "$cache/log"
	# Others may be about to do the same.
	local lock
	exec {lock}>"$cache/.packages.lock"
	flock "$lock"
	if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$2" \
		>"$cache/log/apt-$2.log" 2>&1 </dev/null; then
		{
			apt-get -q update &&
				DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$2"
		} >"$cache/log/apt-$2.log" 2>&1 </dev/null || die "$fix (apt-get could not: see $cache/log/apt-$2.log)"
	fi
	exec {lock}>&-
	command -v "$1" >/dev/null || die "$fix"
}

# in_root ROOT [-b SRC:DST | -r SRC:DST]... [-e VAR=VALUE]... -- COMMAND...
# Run COMMAND inside ROOT, in its own mount and process namespaces, with SRC visible as DST, below
# /w or an existing file (-r: read only). Nothing is mounted outside, and nothing survives the command.
in_root() {
	local root=$1 binds=() env=()
	shift
	while [ "$1" != -- ]; do
		case $1 in
		-b | -r) binds+=("$1" "$2") ;;
		-e) env+=("$2") ;;
		esac
		shift 2
	done
	shift
	# shellcheck disable=SC2016 # the inner shell expands these
	unshare --mount --pid --fork --kill-child --propagation private bash -c '
		set -e
		root=$1 n=$2
		shift 2
		mount --bind "$root" "$root"
		mount -t tmpfs tmpfs "$root/w"
		while ((n)); do
			src=${2%%:*} dst=$root${2#*:}
			if [ -d "$src" ]; then mkdir -p "$dst"; else : >>"$dst"; fi
			mount --bind "$src" "$dst"
			[ "$1" != -r ] || mount -o remount,bind,ro "$dst"
			shift 2
			n=$((n - 2))
		done
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		mount -t tmpfs tmpfs "$root/tmp"
		exec chroot "$root" /usr/bin/env -i "$@"
	' in_root "$root" ${#binds[@]} "${binds[@]}" \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 TMPDIR=/tmp \
		"${env[@]}" "$@"
}

hash_of() { sha256sum | cut -c1-12; }

# id_of NAME: what a key has of a product that it is made from; the same wherever the cache is.
id_of() {
	local p
	p=$("$top/scripts/get" "$1") || exit $?
	printf '%s\n' "${p##*/}"
}

# built_for ID DIR: DIR is about to get what is built for ID; what was built there for something else goes.
# Kbuild sees that a command has changed, but not that the kernel's own headers have.
built_for() {
	[ "$(cat "$2/.built-for" 2>/dev/null)" = "$1" ] || rm -rf "${2:?}"
	mkdir -p "$2"
	echo "$1" >"$2/.built-for"
}

# Which user-mode Linux: kunit (small, for KUnit), debug (with what the selftests need, and fault injection), or with
# KASAN=1 kasan; how it and modules for it are compiled, and where these modules are. Rust code takes part in KASAN
# only beside clang.
uml_kind=${KASAN:+kasan}
: "${uml_kind:=${NLB_UML:-debug}}"
# shellcheck disable=SC2034 # for those who source this
uml_compiler=CC=gcc-14 uml_modules=$build/$uml_kind/modules
# shellcheck disable=SC2034
[ "$uml_kind" != kasan ] || uml_compiler=LLVM=1

# stage_guest DIR MODULES: what a guest finds in /nlb, with the modules that were built there, as far as it has been built.
stage_guest() {
	mkdir -p "$1"/{scripts,bin,modules,depmod,units}
	# Not while build-tools changes what is there.
	exec 7>>"$build/.tools.lock"
	flock -s 7
	cp "$top/scripts/guest-init" "$1/scripts/"
	cp -a "$top/selftests" "$top/include" "$1/"
	find "$2" -maxdepth 2 -name '*.ko' -exec cp -t "$1/modules" {} + 2>/dev/null || true
	find "$build/bin" "$build/selftests" -maxdepth 1 -type f -exec cp -t "$1/bin" {} + 2>/dev/null || true
	cp "$top"/tools/{nlb/nlb,nlb-agent/nlb-agent,nlbd/nlbd-classify,nlbd/nlbd-health}.service "$top/tools/nlb-agent/nlb-agent.sysusers" "$1/units/"
	[ ! -d "$build/examples" ] || cp -a "$build/examples" "$1/"
	[ ! -d "$build/lib" ] || { mkdir "$1/lib" && cp -a "$build"/lib/libnlb.so* "$1/lib/"; }
	exec 7>&-
}

# artefact NAME: build what scripts/recipes/NAME.sh describes unless the cache has it; set $path.
# A recipe defines key() (prints everything the result depends on), and build() (fills the directory
# $1). A result appears under its final name only when complete.
artefact() {
	path=$("$top/scripts/get" "$1") || exit $?
}
