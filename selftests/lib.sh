# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the selftests and the demo share. A test starts with
#
#	. "$(dirname "$0")/../lib.sh"
#	ktap_begin
#	load_modules nlb_fwd nlb_migrator
#	topology
#	vip_add lbu host1 host2
#	ktap_run "what is shown" some_function
#	ktap_end
#
# and is run by run.sh in process, mount and network namespaces of its own. The machines are network
# namespaces, and a device is named after the machine it leads to:
#
#	          10.0.1.0/24           10.0.2.0/24
#	 client ---------------- lbu ------------------ host1
#	   | | .2             .1  | .1               .2 |
#	   | |                    |     10.0.3.0/24     |
#	   | |                    +------------------ host2
#	   | |                      .1               .2 | |
#	   | +-- 10.0.4.0/24 (.2) ----------- (.1) host1  |
#	   +---- 10.0.5.0/24 (.2) ------------------ (.1) host2
#
# The client reaches the VIP through the LBU; hosts reach the client's address 10.0.1.2 by the direct
# links, so that replies do not pass the LBU.

# shellcheck source=selftests/ktap.sh
. "$(dirname "${BASH_SOURCE[0]}")/ktap.sh"

# Addresses for the tests to use.
# shellcheck disable=SC2034
VIP=192.0.2.10 CLIENT=10.0.1.2 LBU=10.0.1.1 HOST1=10.0.2.2 HOST2=10.0.3.2 \
	LBU_TO_HOST1=10.0.2.1 LBU_TO_HOST2=10.0.3.1
# The same in IPv6, after topology_ipv6: network 10.0.N.0/24 is 2001:db8:N::/64 as well.
# shellcheck disable=SC2034
VIP6=2001:db8:10::10 CLIENT6=2001:db8:1::2 LBU6=2001:db8:1::1 HOST1_6=2001:db8:2::2 HOST2_6=2001:db8:3::2 \
	LBU_TO_HOST1_6=2001:db8:2::1 LBU_TO_HOST2_6=2001:db8:3::1

nlb_namespaces=()
tmp=$(mktemp -d)
# A process is dear where the processor is emulated: nap is a sleep without one, on a pipe in which nothing comes.
exec {nap_pipe}<> <(:)
nap() { read -rt "$1" -u "$nap_pipe" || :; }

# ns MACHINE COMMAND...: run COMMAND on that machine.
ns() {
	local n=$1
	shift
	ip netns exec "$n" "$@"
}

netns_add() {
	local n
	for n in "$@"; do
		ip netns add "$n" || fail "cannot add the namespace $n"
		nlb_namespaces+=("$n")
		ip -n "$n" link set lo up
	done
}

# netns_del NAME...: what runs there is killed first.
netns_del() {
	local n p
	for n in "$@"; do
		# One may end by itself before its turn.
		for p in $(ip netns pids "$n" 2>/dev/null); do kill -KILL "$p" 2>/dev/null || :; done
		ip netns del "$n"
		nlb_namespaces=("${nlb_namespaces[@]/#%$n/}")
	done
}

topology() {
	local n
	netns_add client lbu host1 host2
	ip -batch - <<-EOF || fail "cannot link the machines"
		link add lbu netns client type veth peer name client netns lbu
		link add host1 netns lbu type veth peer name lbu netns host1
		link add host2 netns lbu type veth peer name lbu netns host2
		link add host1 netns client type veth peer name client netns host1
		link add host2 netns client type veth peer name client netns host2
	EOF
	for n in client lbu host1 host2; do network "$n" | ip -n "$n" -batch - || fail "cannot set up $n"; done
	ns lbu sysctl -qw net.ipv4.ip_forward=1
	# Replies from the VIP come in by another link than the one that leads to it.
	ns client sysctl -qw net.ipv4.conf.all.rp_filter=2
}

# network MACHINE: its addresses and routes, for "ip -batch".
network() {
	case $1 in
	client)
		cat <<-EOF
			addr add 10.0.1.2/24 dev lbu
			addr add 10.0.4.2/24 dev host1
			addr add 10.0.5.2/24 dev host2
			link set lbu up
			link set host1 up
			link set host2 up
			route add default via 10.0.1.1
			route add $VIP via 10.0.1.1
		EOF
		;;
	lbu)
		cat <<-EOF
			addr add 10.0.1.1/24 dev client
			addr add 10.0.2.1/24 dev host1
			addr add 10.0.3.1/24 dev host2
			link set client up
			link set host1 up
			link set host2 up
		EOF
		;;
	host1)
		cat <<-EOF
			addr add 10.0.2.2/24 dev lbu
			addr add 10.0.4.1/24 dev client
			link set lbu up
			link set client up
			route add 10.0.1.2 via 10.0.4.2
			route add default via 10.0.2.1
		EOF
		;;
	host2)
		cat <<-EOF
			addr add 10.0.3.2/24 dev lbu
			addr add 10.0.5.1/24 dev client
			link set lbu up
			link set client up
			route add 10.0.1.2 via 10.0.5.2
			route add default via 10.0.3.1
		EOF
		;;
	esac
}

# topology_ipv6: the same addresses and routes in IPv6, on the links that topology made.
topology_ipv6() {
	local link n device end
	ns lbu sysctl -qw net.ipv6.conf.all.forwarding=1
	for link in "client lbu 1::2" "lbu client 1::1" "lbu host1 2::1" "host1 lbu 2::2" "lbu host2 3::1" \
		"host2 lbu 3::2" "client host1 4::2" "host1 client 4::1" "client host2 5::2" "host2 client 5::1"; do
		read -r n device end <<<"$link"
		ip -n "$n" addr add "2001:db8:$end/64" dev "$device" nodad || fail "no IPv6 on $n"
	done
	ip -n client route add default via 2001:db8:1::1
	ip -n host1 route add 2001:db8:1::2 via 2001:db8:4::2
	ip -n host2 route add 2001:db8:1::2 via 2001:db8:5::2
	ip -n host1 route add default via 2001:db8:2::1
	ip -n host2 route add default via 2001:db8:3::1
}

# behind_a_router: host1 is reached through host2, and so is the client from there; FAR is host1 as host2 knows it, and FAR6. The
# links are as wide as ever at their ends, and narrower in between.
# shellcheck disable=SC2034 # for those who source this
FAR=10.0.6.2 FAR6=2001:db8:6::2
behind_a_router() {
	ip link add host1 netns host2 type veth peer name host2 netns host1
	ip -n host2 -batch - <<-EOF
		link set host1 up
		addr add 10.0.6.1/24 dev host1
		addr add 2001:db8:6::1/64 dev host1 nodad
		route add $FAR dev host1 mtu 1400
		route add $FAR6 dev host1 mtu 1400
		route replace $CLIENT via 10.0.5.2 mtu 1300
		route replace $CLIENT6 via 2001:db8:5::2 mtu 1300
		route add $VIP via $LBU_TO_HOST2
		route add $VIP6 via $LBU_TO_HOST2_6
	EOF
	ip -n host1 -batch - <<-EOF
		link set host2 up
		addr add $FAR/24 dev host2
		addr add $FAR6/64 dev host2 nodad
		route replace $CLIENT via 10.0.6.1
		route replace $CLIENT6 via 2001:db8:6::1
		route add $LBU_TO_HOST2 via 10.0.6.1
		route add $LBU_TO_HOST2_6 via 2001:db8:6::1
	EOF
	ip -n lbu -batch - <<-EOF
		route add $FAR via $HOST2
		route add $FAR6 via $HOST2_6
	EOF
	ns host2 sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# vip_add_ipv6 MACHINE...: the IPv6 VIP on nlb0, which is there.
vip_add_ipv6() {
	local n
	for n in "$@"; do ip -n "$n" addr add "$VIP6/128" dev nlb0 || fail "cannot put the IPv6 VIP on nlb0 of $n"; done
}

# vip_add MACHINE...: nlb0 with the VIP on it.
vip_add() {
	local n
	for n in "$@"; do vip | ip -n "$n" -batch - || fail "cannot put the VIP on nlb0 of $n"; done
}
# The same for "ip -batch".
vip() { printf '%s\n' "link add nlb0 type nlb" "addr add $VIP/32 dev nlb0" "link set nlb0 up"; }

# load_modules NAME...: with what they depend on, as installed.
load_modules() {
	local m
	for m in "$@"; do modprobe "$m" || fail "cannot load $m"; done
}

# The loaded modules that were built here.
our_modules() {
	local m
	for m in /nlb/modules/*.ko; do
		m=${m##*/} m=${m%.ko} m=${m//-/_}
		[ ! -d "/sys/module/$m" ] || printf '%s\n' "$m"
	done
}

# unload_modules: all of ours, users before what they use. Namespaces that are still being torn down
# may hold a module for a moment.
unload_modules() {
	local deadline=$((SECONDS + 20)) m
	while [ -n "$(our_modules)" ]; do
		for m in $(our_modules); do rmmod "$m" 2>/dev/null || :; done
		((SECONDS < deadline)) || {
			for m in $(our_modules); do rmmod "$m"; done
			return 1
		}
		[ -z "$(our_modules)" ] || nap 0.1
	done
	return 0
}

# not COMMAND...: for a command that has to fail. (What "!" inverts does not end a test under "set -e".)
not() {
	if "$@"; then
		echo "must not succeed: $*"
		return 1
	fi
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds.
wait_for() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS <= deadline)) || {
			echo "did not become true in time: $*"
			return 1
		}
		nap 0.1
	done
}

# gone PID: the process has ended. (A shell that is at work elsewhere has not always asked for its children, which
# kill takes for alive then.)
gone() {
	local line
	# Between "(name)" and what follows is the state.
	{ read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
	[[ ${line##*) } = Z* ]]
}

# udp_echo MACHINE ADDRESS PORT: sends datagrams back.
udp_echo() {
	background "$1" "$tmp/echo-$1-$3.log" python3 -c "
import socket
s = socket.socket(socket.AF_INET6 if ':' in '$2' else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('$2', $3))
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(data, peer)"
	wait_for 20 ns "$1" sh -c "ss -Huln | grep -q :$3"
}

# wait_listen MACHINE PORT: until a TCP socket listens there.
wait_listen() {
	local port
	printf -v port %04X "$2"
	wait_for 30 ns "$1" grep -qs ":$port 0*:0000 0A" /proc/net/tcp /proc/net/tcp6
}

# background MACHINE LOGFILE COMMAND...: start COMMAND there; its pid is in $!.
background() {
	local n=$1 log=$2
	shift 2
	ip netns exec "$n" "$@" >"$log" 2>&1 </dev/null &
}

# start_nginx MACHINE [LISTEN[,LISTEN]... [ACCESS_LOG]]: nginx there, on port 80 at least, for the pages in
# $tmp/MACHINE/www; what it logs is beside them. $! is its process.
start_nginx() {
	local dir=$tmp/$1 listen=${2:-80}
	cat >"$dir/conf" <<-EOF
	daemon off;
	pid $dir/pid;
	error_log $dir/error.log;
	events { worker_connections 4096; }
	http {
		access_log ${3:-$dir/access.log};
		server { listen ${listen//,/; listen }; root $dir/www; }
	}
	EOF
	chmod a+rx "$tmp"
	chmod -R a+rX "$dir"
	background "$1" "$tmp/$1.log" nginx -e "$dir/error.log" -c "$dir/conf"
	wait_listen "$1" 80
}

# counter MACHINE FAMILY NAME
counter() { ns "$1" nlb -j stats show "$2" | jq --arg name "$3" '.[0].counters[$name]'; }

# Capture on a device: capture_start MACHINE DEVICE FILE [FILTER...]; capture_stop ends all of them, and sets
# capture_missed if they may not have seen everything.
capture_pids=() capture_files=() capture_missed=''
capture_start() {
	capture "$1" "$2" "$3" --immediate-mode -s 256 -- "${@:4}"
	capture_ready
}
# The same with whole packets, and only those that the machine sends; several may start side by side, until
# capture_ready.
# SNAP: of each packet, only so many bytes.
capture_sent() { capture "$1" "$2" "$3" -Q out --time-stamp-precision=nano -s "${SNAP:-0}" -- "${@:4}"; }
capture() {
	local n=$1 dev=$2 file=$3 options=()
	shift 3
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	: >"$file.err"
	ip netns exec "$n" tcpdump -q -n -U -B 32768 "${options[@]}" -i "$dev" -w "$file" "$@" 2>"$file.err" &
	capture_pids+=($!)
	capture_files+=("$file")
}
capture_ready() {
	local file
	for file in "${capture_files[@]}"; do wait_for 30 grep -q 'listening on' "$file.err"; done
}
capture_stop() {
	local file
	# What was sent just before has to pass the kernel's buffer (1 s) and tcpdump's first.
	sleep 1.2
	if ((${#capture_pids[@]})); then
		kill -INT "${capture_pids[@]}" 2>/dev/null || :
		wait "${capture_pids[@]}" 2>/dev/null || :
	fi
	capture_missed=''
	for file in "${capture_files[@]}"; do
		grep -q '^0 packets dropped by kernel' "$file.err" || capture_missed+=" $file"
	done
	capture_pids=() capture_files=()
}

lib_cleanup() {
	local rc=$? n
	set +e
	trap - EXIT
	# shellcheck disable=SC2046
	kill -KILL $(jobs -p) 2>/dev/null
	# Not "wait", which waits for the last process substitution, too: once a test did not end here.
	for ((n = 0; n < 50; n++)); do
		[ -n "$(jobs -pr)" ] || break
		nap 0.1
	done
	for n in "${nlb_namespaces[@]}"; do
		[ -z "$n" ] || [ ! -e "/run/netns/$n" ] || netns_del "$n"
	done
	rm -rf "$tmp"
	exit $rc
}
trap lib_cleanup EXIT
trap 'exit 143' TERM INT
