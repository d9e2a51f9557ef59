# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154 # lib.sh sets what is not set here
#
# Debian packages from the mirror this machine already uses, with signatures checked, and without
# touching the machine's own package state. Sourced by get.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The first mirror in the machine's own configuration that carries Debian itself.
archive_mirror() {
	command -v apt-get >/dev/null ||
		die "this is not a Debian machine (no apt-get); build against your own kernel tree with 'make KDIR=...'"
	local m
	# A site that serves the main Debian archive says so in its Release file.
	m=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk -F'|' '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
	[ -n "$m" ] || m=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null |
		awk -F'|' '$2 ~ /^(bookworm|trixie|stable|oldstable)$/ { print $1; exit }')
	[ -n "$m" ] || die "apt knows no Debian mirror; add one to /etc/apt/sources.list and run 'apt-get update'"
	printf '%s\n' "${m%/}"
}

# The sources.list lines of Debian 13 and its backports.
archive_sources() {
	local m
	m=$(archive_mirror) || exit $?
	[ -f "$keyring" ] ||
		die "the keys that sign Debian's archive are missing; install the package 'debian-archive-keyring'"
	printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$m" trixie "$keyring" "$m" trixie-backports
}

# archive_update: fetch the package lists into a private apt state below the cache, unless that was done a
# moment ago.
archive_update() {
	local d=$cache/apt
	export APT_CONFIG=$d/apt.conf
	mkdir -p "$d/lists/partial" "$d/archives/partial"
	exec 8>"$d/.lock"
	flock 8
	if [ -n "$(find "$d/update.done" -mmin -20 2>/dev/null)" ]; then
		exec 8>&-
		return
	fi
	[ -f "$d/status" ] || : >"$d/status"
	cat >"$APT_CONFIG.new" <<-EOF
		Dir::Etc::SourceList "$d/sources.list";
		Dir::Etc::SourceParts "-";
		Dir::Etc::Preferences "-";
		Dir::Etc::PreferencesParts "-";
		Dir::State "$d";
		Dir::State::Lists "$d/lists";
		Dir::State::Status "$d/status";
		Dir::Cache "$d";
		Dir::Cache::Archives "$d/archives";
		APT::Architecture "amd64";
		APT::Architectures "amd64";
		APT::Sandbox::User "root";
		APT::Update::Error-Mode "any";
		Acquire::Languages "none";
		Acquire::Retries "3";
	EOF
	# The mirror is looked up with the machine's configuration, not with ours.
	(unset APT_CONFIG && archive_sources) >"$d/sources.list.new" 8>&- || exit $?
	mv "$APT_CONFIG.new" "$APT_CONFIG"
	mv "$d/sources.list.new" "$d/sources.list"
	apt-get -q update >"$d/update.log" 2>&1 8>&- || {
		tail -n 3 "$d/update.log" >&2
		die "the package archive cannot be reached or is not signed as expected; check the network and /etc/apt/sources.list"
	}
	touch "$d/update.done"
	exec 8>&-
}

# archive_versions PACKAGE: its versions in the archive, newest first.
archive_versions() {
	apt-cache madison "$1" 2>/dev/null | awk -F'|' '{ gsub(/ /, "", $2); print $2 }'
}

# archive_unpack DIR PACKAGE=VERSION...: download and unpack, nothing is installed.
archive_unpack() {
	local dir=$1 p d
	shift
	mkdir -p "$dir"
	for p in "$@"; do
		# Goes with the unfinished product if this is interrupted.
		d=$(mktemp -d "${dir%/*}/debs.XXXXXX")
		(cd "$d" && apt-get -q download "$p") || {
			rm -rf "$d"
			die "cannot download $p from the package archive; check the network"
		}
		dpkg-deb -x "$d"/*.deb "$dir"
		rm -rf "$d"
	done
}

# debootstrap_into DIR PACKAGE...: a minimal Debian 13 with these packages.
debootstrap_into() {
	local dir=$1 lines
	shift
	unset APT_CONFIG
	lines=$(archive_sources) || exit $?
	mapfile -t lines <<<"$lines"
	# Nobody reads manuals there, and what a crash cuts short is thrown away.
	TMPDIR=$cache mmdebstrap --mode=root --variant=minbase --architectures=amd64 "${mm_opts[@]}" \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--include="$(IFS=, && echo "$*")" trixie "$dir" "${lines[@]}"
}
mm_opts=()
