# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# kernel: the pinned Debian kernel, and its source configured as Debian configured it, with the Rust
# metadata that the headers package does not ship.
#   version   the kernel release that was taken
#   boot/     vmlinuz and lib/modules/<version>
#   linux/    source        o/  output tree: give it to "make -C"
# Inside the build root the whole directory is mounted on /w/kernel.

disk=5

key() {
	local v
	v=$(pick_kernel) || exit $?
	printf '%s\n' "$v"
	declare -f build fetch unpack_source prepare_tree
	id_of root
}

kver_wanted() {
	[ -n "${KVER:-}" ] || KVER=$(sed -n 's/^KVER ?= *//p' "$top/kernel.mk")
	[[ $KVER =~ ^[0-9]+\.[0-9]+\.[0-9]+\+deb13-[a-z-]*amd64$ ]] ||
		die "KVER=$KVER is not the release of a Debian 13 backports kernel such as $(sed -n 's/^KVER ?= *//p' "$top/kernel.mk")"
	printf '%s\n' "$KVER"
}

# source_package 7.2.12+deb13-amd64 -> linux-source-7.2
source_package() {
	local v=${1%%+*}
	printf 'linux-source-%s\n' "${v%.*}"
}

# complete RELEASE: print the package version if everything that belongs to this kernel is there.
complete() {
	local v p
	v=$(archive_versions "linux-binary-$1" | head -n 1)
	[ -n "$v" ] || return 1
	for p in "linux-modules-$1" "linux-headers-$1" "$(source_package "$1")"; do
		archive_versions "$p" | grep -qxF -- "$v" || return 1
	done
	printf '%s\n' "$v"
}

# The wanted release, or the newest complete one of the same flavour when it has left the archive.
# What was picked is remembered, so that later runs need no archive.
pick_kernel() {
	local want flavour r memo
	want=$(kver_wanted) || exit $?
	memo=$cache/picked-$want
	if [ -f "$memo" ]; then
		r=$(<"$memo")
	else
		archive_update
		if complete "$want" >/dev/null; then
			r=$want
		else
			flavour=${want#*+}
			r=$(apt-cache pkgnames linux-binary- | sed -n "s/^linux-binary-\([0-9][^+]*+$flavour\)$/\1/p" | sort -rV |
				while read -r r; do
					if complete "$r" >/dev/null; then
						echo "$r"
						break
					fi
				done)
			[ -n "$r" ] || die "the archive has no complete set of packages for a $flavour kernel; try another KVER="
		fi
		printf '%s\n' "$r" >"$memo"
	fi
	[ "$r" = "$want" ] ||
		say "NOTE: the packages of kernel $want have left the archive; using $r, the newest complete set"
	printf '%s\n' "$r"
}

fetch() {
	local v
	v=$(complete "$2") || die "the packages of kernel $2 have left the archive; remove $cache/picked-* and try again"
	archive_unpack "$1/pkg" "linux-binary-$2=$v" "linux-modules-$2=$v" "linux-headers-$2=$v" \
		"$(source_package "$2")=$v"
}

# In the root, which has xz; the machine may not.
unpack_source() {
	in_root "$root" -b "$1:/w/kernel" -- sh -c 'tar -C /w/kernel -xf /w/kernel/pkg/usr/src/linux-source-*.tar.xz'
	mv "$1"/linux-source-* "$1/linux"
}

prepare_tree() {
	in_root "$root" -b "$1:/w/kernel" -- make -C /w/kernel/linux -j"$jobs" O=/w/kernel/o CC=gcc-14 \
		LOCALVERSION="+${2#*+}" olddefconfig modules_prepare
}

build() {
	local release root want have
	release=$(pick_kernel 2>/dev/null)
	artefact root
	root=$path
	archive_update
	printf '%s\n' "$release" >"$1/version"
	logged "Kernel $release: fetching Debian's packages" fetch "$1" "$release"
	logged "Kernel $release: unpacking the source" unpack_source "$1"
	mkdir -p "$1/o" "$1/boot/lib"
	mv "$1/pkg/usr/lib/modules" "$1/boot/lib/"
	mv "$1/boot/lib/modules/$release/vmlinuz" "$1/boot/vmlinuz"
	cp "$1/pkg/usr/src/linux-headers-$release/.config" "$1/o/.config"
	want=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"/\1/p' "$1/o/.config")
	have=$(in_root "$root" -- rustc --version)
	[ "$want" = "$have" ] ||
		die "kernel $release was built with '$want' and Debian 13 now has '$have'; choose another KVER="
	logged "Kernel $release: Rust metadata (about 1 min)" prepare_tree "$1" "$release"
	cp "$1/pkg/usr/src/linux-headers-$release/Module.symvers" "$1/o/"
	have=$(<"$1/o/include/config/kernel.release")
	[ "$have" = "$release" ] || die "the source calls itself $have, but the kernel is $release"
	[ -s "$1/o/rust/libkernel.rmeta" ] || die "kernel $release has no Rust support; choose another KVER="
	rm -rf "$1/pkg"
}
