# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# uml: the pinned kernel source as a user-mode Linux debug kernel, for KUnit. With KASAN=1, one with KASAN instead
# of lockdep: together they do not boot without a complaint.
#   o/   output tree: give it to "make ARCH=um -C"; the kernel is o/linux
# Inside the build root it is mounted on /w/uml, the source on /w/kernel.

disk=4

key() {
	declare -f build uml_build
	echo "$uml_compiler"
	(uml_config)
	id_of kernel
}

# What the default configuration is changed by.
uml_config() {
	cd "$top/selftests/kunit" || return
	if [ -n "${KASAN:-}" ]; then
		grep -vwf <(grep -ohw 'CONFIG_[A-Z0-9_]*' kasan.config) uml.config
		cat kasan.config
	else
		cat uml.config
	fi
}

uml_build() {
	(uml_config) >"$1/config"
	in_root "$root" -b "$1:/w/uml" -r "$kernel:/w/kernel" -- bash -c '
		set -e
		make="make -C /w/kernel/linux O=/w/uml/o ARCH=um '"$uml_compiler"'"
		mkdir -p /w/uml/o
		$make defconfig
		cd /w/uml/o
		ARCH=um /w/kernel/linux/scripts/kconfig/merge_config.sh -m -O /w/uml/o /w/uml/o/.config /w/uml/config
		$make olddefconfig
		missing=$(grep "^CONFIG.*=" /w/uml/config | grep -vxFf /w/uml/o/.config) || true
		[ -z "$missing" ] || { echo "options that this kernel did not take:" $missing; exit 1; }
		nice $make -j'"$jobs"
}

build() {
	local root kernel
	artefact root && root=$path
	artefact kernel && kernel=$path
	logged "KUnit: building user-mode Linux with debug checks (about 5 min)" uml_build "$1"
}
