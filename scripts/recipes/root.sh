# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# root: Debian 13 with the compilers Debian's own kernels are built with. The rustc there has to be
# the one of the kernel, to the letter: the hash in every mangled Rust symbol depends on it.

disk=3
packages=(
	bc bindgen bison bzip2 clang clang-format cpio e2fsprogs flex gcc-14 kmod libc6-dev libelf-dev
	libssl-dev lld llvm make pahole perl python3 python3-jsonschema python3-yaml rsync rust-clippy
	rust-src rustc rustfmt shellcheck xz-utils yamllint
)

key() {
	declare -p packages
	declare -f build
}

build() {
	logged "Build root: Debian 13 with the kernel's compilers (about 1 min)" debootstrap_into "$1" "${packages[@]}"
	# Where sources and results are mounted, see in_root().
	mkdir -p "$1/w"
}
