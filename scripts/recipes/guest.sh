# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # shared with lib.sh and get
#
# guest: what the virtual machine boots.
#   vmlinuz      Debian's kernel, as it is
#   initrd       finds the root disk
#   root.img     Debian 13 with the programs the tests and the demo use (never written to)
#   modules/     lib/modules/<version> of that kernel, uncompressed, for depmod

disk=3
packages=(
	bind9-dnsutils bsdutils busybox-static conntrack curl dash dbus dnsmasq-base ethtool haproxy iperf3 iproute2 ipvsadm iputils-arping
	iputils-ping jq kmod mount netcat-openbsd nftables nginx-light nodejs openssl procps python3-minimal
	python3 python3-grpcio redis-server socat strace systemd tcpdump traceroute util-linux websocketd
)

key() {
	declare -p packages
	declare -f build guest_modules
	cat "$top/scripts/guest-initrd"
	id_of kernel
}

# The modules without what a machine of virtio devices can never load.
guest_modules() {
	local src=$1 dst=$2
	mkdir -p "$dst"
	(cd "$src" && find . -name build -prune -o -name source -prune -o -type f -print |
		grep -vE '^./kernel/(drivers/(gpu|hv|xen|nvme|infiniband|scsi|target|md|iommu|video|hid|input|usb|accel|media|net/(ethernet|wireless|hyperv|phy|can))|sound|net/(ceph|rds|sunrpc|bluetooth|wireless|can)|fs/(ceph|xfs|btrfs|ocfs2|gfs2|nfs|nfsd|smb|jfs|f2fs|ntfs3|dlm|bcachefs))/' |
		cpio -pdm "$dst") &&
		find "$dst" -name '*.ko.xz' -exec xz -d {} +
}

build() {
	local kernel root version
	artefact root
	root=$path
	artefact kernel
	kernel=$path
	version=$(<"$kernel/version")
	logged "Guest: Debian 13 with the programs for tests (about 1 min)" debootstrap_into "$1/tree" "${packages[@]}"
	cp "$kernel/boot/vmlinuz" "$1/vmlinuz"
	mkdir -p "$1/modules/lib/modules/$version/updates" "$1/initrd.d"/{bin,dev,proc,sys,new} "$1/tree/nlb"
	{
		declare -f guest_modules
		echo 'set -e; guest_modules "/w/kernel/boot/lib/modules/$1" "/w/out/modules/lib/modules/$1"'
		echo 'depmod -b /w/out/modules "$1"'
		echo 'cp -a "/w/out/modules/lib/modules" /w/out/tree/usr/lib/'
		echo 'cp /w/out/tree/bin/busybox /w/out/initrd.d/bin/'
		echo 'cp "/w/out/modules/lib/modules/$1/kernel/drivers/block/virtio_blk.ko" /w/out/initrd.d/'
		echo 'cp /w/src/guest-initrd /w/out/initrd.d/init'
		echo '(cd /w/out/initrd.d && find . | cpio -o -H newc) >/w/out/initrd'
		echo 'mke2fs -q -t ext4 -O ^has_journal -L root -d /w/out/tree /w/out/root.img "$2"M'
	} >"$1/pack"
	rm -rf "$1"/tree/usr/share/{doc,man,locale,info} "$1"/tree/var/cache/*
	mkdir -p "$1/tree/var/cache/nginx"
	echo nlb >"$1/tree/etc/hostname"
	printf '127.0.0.1 localhost nlb\n' >"$1/tree/etc/hosts"
	logged "Guest: packing the disk image" in_root "$root" -b "$1:/w/out" -r "$kernel:/w/kernel" \
		-r "$top/scripts:/w/src" -- bash /w/out/pack "$version" $(($(du -sm "$1/tree" | cut -f1) + 500))
	rm -rf "$1/tree" "$1/initrd.d" "$1/pack"
}
