# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the tests of services, schedulers and rules share: five endpoints, and clients that count.

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

lbu() { ns lbu nlb "$@"; }
is() { [ "$1" = "$2" ] || ! echo "is $1, not $2"; }
# refuses TEXT COMMAND...
refuses() {
	local text=$1
	shift
	not "$@" 2>"$tmp/err"
	grep -qF -- "$text" "$tmp/err" || ! cat "$tmp/err"
}
routes_are() { [ "$(lbu -j route show | jq length)" = "$1" ]; }

# Addresses of host1 and host2 that serve as five endpoints.
endpoints=(10.0.2.2 10.0.2.3 10.0.2.4 10.0.3.2 10.0.3.3)

# service PORT/PROTO SCHEDULER WEIGHT...: with one endpoint for each weight.
service() {
	local n
	ns lbu nlb service add "$VIP:$1" scheduler "$2"
	for ((n = 3; n <= $#; n++)); do
		ns lbu nlb endpoint add "$VIP:$1" host "${endpoints[n - 3]}" weight "${!n}"
	done
}

set_endpoint() { ns lbu nlb endpoint set "$VIP:$1" host "${endpoints[$2]}" "${@:3}"; }

# shares PORT/PROTO FIELD...: of the endpoints, in the order they were added.
shares() { ns lbu nlb -j endpoint show "$VIP:$1" | jq -c "map(.$2)"; }
shares_are() { [ "$(shares "$1" "$2" | tee "$tmp/shares")" = "$3" ] || ! cat "$tmp/shares"; }

# send PORT FIRST COUNT [CLIENT]: a datagram from each of so many ports, from port FIRST on. By one processor, which
# then handles them all: two that look at an endpoint at the same time may both find that there is room.
send() {
	ns client python3 -c "
import os, socket
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for port in range($2, $2 + $3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('${4:-$CLIENT}', port))
        s.sendto(b'?', ('$VIP', $1))"
}

# flood PORT [FIRST]: the same from 10,000 ports again and again, until $! is killed.
flood() {
	background client "$tmp/flood" python3 -c "
import socket, itertools
for port in itertools.cycle(range(${2:-20000}, ${2:-20000} + 10000)):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('$CLIENT', port))
        try:
            s.sendto(b'?', ('$VIP', $1))
        except OSError:
            pass"
}

# flows PORT COUNT [CLIENT]: the same from port 20000 on, without other routes, and where it went: "PORT HOST".
flows() {
	ns lbu nlb route flush "$VIP:$1/udp"
	send "$1" 20000 "$2" "${3:-$CLIENT}"
	wait_for 20 all_are_there "$1" "$2"
	ns lbu nlb -j route show "$VIP:$1/udp" | jq -r '.[] | "\(.client_port) \(.host_addr)"' | sort
}
all_are_there() { [ "$(ns lbu nlb -j route show "$VIP:$1/udp" | jq length)" = "$2" ]; }

# hold PORT COUNT: open so many connections, and keep them; who has them is in $holder.
holds=0
hold() {
	local log=$tmp/hold-$1-$((++holds))
	background client "$log" python3 -c "
import socket, time
all = [socket.create_connection(('$VIP', $1), timeout=20) for _ in range($2)]
# What is not read when it ends would make that a RST.
for connection in all:
    connection.recv(100)
print('open', flush=True)
time.sleep(600)"
	# shellcheck disable=SC2034 # for those who source this
	holder=$!
	wait_for 60 grep -qsx open "$log"
}

# Says who it is, and what it hears; to a "?" over UDP nothing.
listen() {
	local host
	for host in host1 host2; do
		background $host "$tmp/$host-$1.log" python3 -c "
import socket, threading
def answer(c):
    c.sendall(b'$host ')
    while data := c.recv(100):
        c.sendall(data)
    c.close()
def datagrams():
    while True:
        data, peer = u.recvfrom(100)
        if data != b'?':
            u.sendto(b'$host', peer)
vip = '$VIP'.strip('[]')
family = socket.AF_INET6 if ':' in vip else socket.AF_INET
t = socket.create_server((vip, $1), family=family, backlog=1000)
u = socket.socket(family, socket.SOCK_DGRAM)
u.bind((vip, $1))
threading.Thread(target=datagrams, daemon=True).start()
while True:
    threading.Thread(target=answer, args=(t.accept()[0],), daemon=True).start()"
		wait_listen $host "$1"
	done
}

# five_endpoints: the machines, of which two hosts have all the addresses.
five_endpoints() {
	local n
	topology
	vip_add lbu host1 host2
	for n in 2 3; do ns host1 ip addr add 10.0.2.$((n + 1))/24 dev lbu; done
	ns host2 ip addr add 10.0.3.3/24 dev lbu
	ns host1 nlb forwarder add $LBU_TO_HOST1
	ns host2 nlb forwarder add $LBU_TO_HOST2
}
