# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# uml: the pinned kernel source as a user-mode Linux debug kernel, for KUnit.
#   o/   output tree: give it to "make ARCH=um -C"; the kernel is o/linux
# Inside the build root it is mounted on /w/uml, the source on /w/kernel.

disk=4

key() {
	declare -f build uml_build
	cat "$top/selftests/kunit/uml.config"
	id_of kernel
}

uml_build() {
	in_root "$root" -b "$1:/w/uml" -r "$kernel:/w/kernel" -r "$top/selftests/kunit:/w/src" -- bash -c '
		set -e
		make="make -C /w/kernel/linux O=/w/uml/o ARCH=um CC=gcc-14"
		mkdir -p /w/uml/o
		$make defconfig
		cd /w/uml/o
		ARCH=um /w/kernel/linux/scripts/kconfig/merge_config.sh -m -O /w/uml/o /w/uml/o/.config /w/src/uml.config
		$make olddefconfig
		missing=$(grep "^CONFIG.*=" /w/src/uml.config | grep -vxFf /w/uml/o/.config) || true
		[ -z "$missing" ] || { echo "options that this kernel did not take:" $missing; exit 1; }
		nice $make -j'"$jobs"
}

build() {
	local root kernel
	artefact root && root=$path
	artefact kernel && kernel=$path
	logged "KUnit: building user-mode Linux with debug checks (about 5 min)" uml_build "$1"
}
