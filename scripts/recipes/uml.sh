# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# uml: the pinned kernel source as a user-mode Linux kernel with debug checks, of the kind that lib.sh chose.
#   o/   output tree: give it to "make ARCH=um -C"; the kernel is o/linux
# Inside the build root it is mounted on /w/uml, the source on /w/kernel.

disk=4

key() {
	declare -f build uml_build uml_config
	echo "$uml_kind $uml_compiler"
	uml_config
	id_of kernel
}

# What Linux's default configuration is changed by. The kernel for KUnit has this and nothing else: it builds in a
# fraction of the time.
uml_config() (
	cd "$top/selftests/kunit" || exit
	case $uml_kind in
	kunit) cat kunit.config ;;
	debug) cat kunit.config debug.config ;;
	# With lockdep, it does not boot without a complaint.
	kasan)
		grep -hvwf <(grep -ohw 'CONFIG_[A-Z0-9_]*' kasan.config) kunit.config debug.config
		cat kasan.config
		;;
	esac
)

uml_build() {
	uml_config >"$1/config"
	in_root "$root" -b "$1:/w/uml" -r "$kernel:/w/kernel" -- bash -c '
		set -e
		make="make -C /w/kernel/linux O=/w/uml/o ARCH=um '"$uml_compiler"'"
		mkdir -p /w/uml/o
		cd /w/uml/o
		if [ '"$uml_kind"' = kunit ]; then
			$make KCONFIG_ALLCONFIG=/w/uml/config allnoconfig
		else
			$make defconfig
			ARCH=um /w/kernel/linux/scripts/kconfig/merge_config.sh -m -O /w/uml/o /w/uml/o/.config /w/uml/config
			$make olddefconfig
		fi
		missing=$(grep "^CONFIG.*=" /w/uml/config | grep -vxFf /w/uml/o/.config) || true
		[ -z "$missing" ] || { echo "options that this kernel did not take:" $missing; exit 1; }
		nice $make -j'"$jobs"'
	'
}

build() {
	local root kernel
	artefact root && root=$path
	artefact kernel && kernel=$path
	logged "User-mode Linux: building the kernel '$uml_kind'" uml_build "$1"
}
