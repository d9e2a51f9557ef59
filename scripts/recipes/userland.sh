# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# userland: Debian 13 with the newer Rust of its backports, for machines without a recent cargo.

disk=2
packages=(cargo ca-certificates dbus-daemon g++ gcc libc6-dev make rust-clippy rustc rustfmt)

key() {
	declare -p packages
	declare -f build
}

build() {
	mm_opts=(--aptopt='APT::Default-Release "trixie-backports"')
	logged "Userland root: Debian 13 with a newer Rust (about 1 min)" debootstrap_into "$1" "${packages[@]}"
	mkdir -p "$1/w"
}
