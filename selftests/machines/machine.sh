#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# machine.sh ROLE: what a guest of scripts/machines does after every boot. Sets up its part of the network
# that selftests/lib.sh draws (without host2) and does what it is told at port 7000: serve.sh.

# The driver and the module names of the network cards are not loaded by anybody else here.
modprobe virtio_net
for dev in eth0 eth1; do
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

case $1 in
lbu)
	# eth0 leads to the client, eth1 to the host.
	address eth0 10.0.1.1
	address eth1 10.0.2.1 "${steps[@]/#/10.0.2.1}"
	modprobe -a nlb_fwd nlb_migrator
	sysctl -qw net.ipv4.ip_forward=1
	for n in "${steps[@]}"; do
		ip route add "10.0.2.2$n" dev eth1 src "10.0.2.1$n"
		peer_add "10.0.2.2$n"
		nlb service add "192.0.2.10:8$n/tcp" mode peek
	done
	peer_add 10.0.2.2
	nlb service add 192.0.2.10:80/tcp mode peek
	;;
host1)
	# eth0 leads to the LBU, eth1 to the client.
	address eth0 10.0.2.2 "${steps[@]/#/10.0.2.2}"
	address eth1 10.0.4.1
	ip route add 10.0.1.2 via 10.0.4.2
	ip route add default via 10.0.2.1
	modprobe nlb_migrator
	for n in "" "${steps[@]/#/1}"; do
		n=10.0.2.${n:-1}
		nlb forwarder add "$n"
		peer_add "$n"
	done
	;;
esac
ip link add nlb0 type nlb
ip addr add 192.0.2.10/32 dev nlb0
ip link set nlb0 up
mkdir -p /tmp/log
# On the console, with the time that it took.
echo "nlb-guest: ready" >/dev/kmsg
exec socat -t 600 TCP-LISTEN:7000,fork,reuseaddr EXEC:"bash $(dirname "$0")/serve.sh"
