#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# machine.sh ROLE: what a guest of scripts/machines does after every boot. Sets up its part of the network
# that selftests/lib.sh draws, with a wire between the hosts besides (10.0.6.0/24: host1 is .1, host2 .2), and does
# what it is told at port 7000: serve.sh.

# The driver and the module names of the network cards are not loaded by anybody else here.
modprobe virtio_net
for dev in eth0 eth1 eth2; do
	until [ -e /sys/class/net/$dev ]; do sleep 0.1; done
done

# address DEVICE ADDRESS...
address() {
	local dev=$1 a
	shift
	for a in "$@"; do ip addr add "$a/24" dev "$dev"; done
	ip link set "$dev" up
}
peer_add() { nlb peer add "$1" key 1 secret-file /nlb/keys/secret; }
# Each step of the protocol has peers of its own, so that it has a connection of its own.
steps=(1 2 3 4 5 6 7)
# origin DEVICE NETWORK: of connections to the machine at its other end. From .1N to .2N for step N, and from .1 to .2.
origin() {
	local n
	peer_add "$2.2"
	for n in "${steps[@]}"; do
		ip route add "$2.2$n" dev "$1" src "$2.1$n"
		peer_add "$2.2$n"
	done
}
services() {
	local n
	for n in "$@"; do nlb service add "192.0.2.10:$n/tcp" mode peek; done
}
# target NETWORK: of connections from there.
target() {
	local n
	for n in "${steps[@]/#/.1}" .1; do
		nlb forwarder add "$1$n"
		peer_add "$1$n"
	done
}

case $1 in
lbu)
	# eth0 leads to the client, eth1 and eth2 to the hosts.
	address eth0 10.0.1.1
	address eth1 10.0.2.1 "${steps[@]/#/10.0.2.1}"
	address eth2 10.0.3.1
	modprobe -a nlb_fwd nlb_migrator
	sysctl -qw net.ipv4.ip_forward=1
	origin eth1 10.0.2
	peer_add 10.0.3.2
	services 80 88 90 "${steps[@]/#/8}" "${steps[@]/#/9}"
	;;
host1)
	# eth0 leads to the LBU, eth1 to the client, eth2 to host2.
	address eth0 10.0.2.2 "${steps[@]/#/10.0.2.2}"
	address eth1 10.0.4.1
	address eth2 10.0.6.1 "${steps[@]/#/10.0.6.1}"
	ip route add 10.0.1.2 via 10.0.4.2
	ip route add default via 10.0.2.1
	modprobe -a nlb_fwd nlb_migrator
	target 10.0.2
	origin eth2 10.0.6
	services 90 "${steps[@]/#/9}"
	;;
host2)
	# eth0 leads to the LBU, eth1 to host1, eth2 to the client.
	address eth0 10.0.3.2
	address eth1 10.0.6.2 "${steps[@]/#/10.0.6.2}"
	address eth2 10.0.5.1
	ip route add 10.0.1.2 via 10.0.5.2
	ip route add default via 10.0.3.1
	modprobe nlb_migrator
	target 10.0.6
	nlb forwarder add 10.0.3.1
	peer_add 10.0.3.1
	;;
esac
ip link add nlb0 type nlb
ip addr add 192.0.2.10/32 dev nlb0
ip link set nlb0 up
mkdir -p /tmp/log
# On the console, with the time that it took; scripts/machines looks for it.
echo "nlb-guest: ready" >/dev/kmsg
exec socat -t 600 TCP-LISTEN:7000,fork,reuseaddr EXEC:"bash $(dirname "$0")/serve.sh"
