#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# Services with several ports and with all: which one a packet is for, what their connections share, and which port of
# the host they get to.

. "$(dirname "$0")/lib.sh"

# one PORTS/PROTO HOST: a service with one endpoint.
one() {
	lbu service add "$1"
	lbu endpoint add "$1" host "$2"
}
# went VIP PORT...: a datagram to each port, and where all of them went, "PORT HOST" each.
went() {
	ns client python3 - "$@" <<-'END'
	import socket, sys
	family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
	for port in map(int, sys.argv[2:]):
	    with socket.socket(family, socket.SOCK_DGRAM) as s:
	        s.sendto(b"?", (sys.argv[1], port))
	END
	wait_for 20 routes_are $(($# - 1))
	lbu -j route show | jq -r 'sort_by(.vip_port) | map("\(.vip_port) \(.host_addr)") | join(", ")' | tee "$tmp/went"
	lbu route flush
}

order() {
	one $VIP:9000-9009/udp 10.0.2.2
	is "$(went $VIP 9000 9005 9009)" "9000 10.0.2.2, 9005 10.0.2.2, 9009 10.0.2.2"
	one $VIP:9005/udp 10.0.2.3
	one "$VIP:*/udp" 10.0.3.2
	one $VIP:9010-9011/udp 10.0.3.3
	is "$(went $VIP 1 8999 9000 9005 9009 9010 9012 65535)" "1 10.0.3.2, 8999 10.0.3.2, 9000 10.0.2.2, 9005 10.0.2.3, \
9009 10.0.2.2, 9010 10.0.3.3, 9012 10.0.3.2, 65535 10.0.3.2"
	lbu -j service show $VIP:9000-9009/udp | jq -e '.[0] | .vip_port == 9000 and .vip_port_last == 9009 and .connections == 5'
	lbu service show | grep "^$VIP:\*/udp "
	# Another protocol is another service.
	refuses "no such service" lbu service show $VIP:9000-9009/tcp
	lbu service del $VIP:9005/udp
	lbu service del $VIP:9010-9011/udp
	is "$(went $VIP 9005 9010)" "9005 10.0.2.2, 9010 10.0.3.2"
	lbu service del $VIP:9000-9009/udp
	is "$(went $VIP 9005)" "9005 10.0.3.2"
	lbu service del "$VIP:*/udp"
}

order_ipv6() {
	one "[$VIP6]:*/udp" $HOST1_6
	one "[$VIP6]:9000-9009/udp" $HOST2_6
	one "[$VIP6]:9005/udp" $HOST1_6
	is "$(went $VIP6 8999 9000 9005)" "8999 $HOST1_6, 9000 $HOST2_6, 9005 $HOST1_6"
	# Nothing of it holds for the IPv4 VIP.
	one $VIP:9001/udp 10.0.2.2
	is "$(went $VIP 9001)" "9001 10.0.2.2"
	for service in "[$VIP6]:*/udp" "[$VIP6]:9000-9009/udp" "[$VIP6]:9005/udp" $VIP:9001/udp; do lbu service del "$service"; done
}

refused() {
	one $VIP:8000-8999/tcp 10.0.2.2
	for ports in 7000-8000 8999-9000 8100-8200 8000-8100 7000-9999; do
		refuses "the ports overlap those of another service (attribute vip-port-last)" lbu service add "$VIP:$ports/tcp"
	done
	refuses "service exists" lbu service add $VIP:8000-8999/tcp
	refuses "no such service" lbu service del $VIP:8000-8998/tcp
	refuses "no such service" lbu service del $VIP:8000/tcp
	lbu service add "$VIP:*/tcp"
	refuses "service exists" lbu service add "$VIP:*/tcp"
	refuses "mode peek with several ports needs a classifier port" lbu service add $VIP:7000-7001/tcp mode peek
	refuses "the classifier's port must not be the service's" \
		lbu service add $VIP:7000-7001/tcp mode peek classifier 7001
	refuses "replies from ports above 60999 look like the tunnel's" lbu endpoint add "$VIP:*/tcp" host 10.0.2.2 via nat
	refuses "has several ports; name the one" lbu route add $VIP:8000-8999/tcp client 198.51.100.7:1 host 10.0.2.2
	lbu route add $VIP:8080/tcp client 198.51.100.7:1 host 10.0.2.2
	is "$(lbu -j route show $VIP:8000-8999/tcp | jq length)" 1
	# A file brings back what there is, and ports of what goes are free for what comes.
	lbu save >"$tmp/saved"
	is "$(lbu apply "$tmp/saved" dry-run)" ""
	sed -i 's/8000-8999/8999-9999/' "$tmp/saved"
	lbu apply "$tmp/saved"
	lbu -j service show | jq -e 'map(.vip_port) | sort == [1, 8999]'
	routes_are 0
	lbu service del $VIP:8999-9999/tcp
	lbu service del "$VIP:*/tcp"
}

# All ports of a client go to one endpoint, and have an allotment together.
shared() {
	lbu service add $VIP:9000-9999/udp scheduler rr affinity 600
	lbu endpoint add $VIP:9000-9999/udp host 10.0.2.2
	lbu endpoint add $VIP:9000-9999/udp host 10.0.3.2
	went $VIP 9000 9100 9200 9300 | tr ',' '\n' | awk '{ print $2 }' | sort -u >"$tmp/hosts"
	is "$(wc -l <"$tmp/hosts")" 1
	lbu service set $VIP:9000-9999/udp affinity 0
	lbu allotment set $VIP:9000-9999/udp scheme tokens age 3600000 share 10.0.3.2=3
	is "$(went $VIP 9001 9002 9003)" "9001 10.0.3.2, 9002 10.0.3.2, 9003 10.0.3.2"
	lbu -j allotment show | jq -e '.[0] | .vip_port_last == 9999 and .left == 0'
	lbu service del $VIP:9000-9999/udp
}

# With nat the host's port is the one that the client has connected to, if the endpoint has none of its own.
ports_of_the_host() {
	local port
	background host1 "$tmp/ports.log" python3 -c "
import socket, threading
def serve(port):
    s = socket.create_server(('10.0.2.2', port))
    while True:
        c, _ = s.accept()
        c.sendall(str(port).encode())
        c.close()
for port in (8003, 8004, 8005):
    threading.Thread(target=serve, args=(port,)).start()"
	local server=$!
	for port in 8003 8004 8005; do wait_listen host1 $port; done
	lbu service add $VIP:8000-8004/tcp
	lbu endpoint add $VIP:8000-8004/tcp host 10.0.2.2 via nat
	lbu -j endpoint show | jq -e '.[0] | has("host_port") | not'
	says 8003 8003
	says 8004 8004
	lbu endpoint del $VIP:8000-8004/tcp host 10.0.2.2
	lbu endpoint add $VIP:8000-8004/tcp host 10.0.2.2 via nat port 8005
	says 8003 8005
	lbu service del $VIP:8000-8004/tcp
	kill $server
}
says() {
	ns client python3 -c "
import socket
with socket.create_connection(('$VIP', $1), timeout=20) as s:
    print(s.recv(10).decode())" >"$tmp/said"
	is "$(<"$tmp/said")" "$2"
}

# A classifier for many ports listens on one of its own; its connections have the ports they are for.
peek() {
	background lbu "$tmp/classifier.log" python3 -c "
import socket
s = socket.create_server(('$VIP', 8080))
while True:
    c, _ = s.accept()
    c.sendall(str(c.getsockname()[1]).encode())
    c.close()"
	local classifier=$!
	wait_listen lbu 8080
	lbu service add $VIP:8100-8199/tcp mode peek classifier 8080
	says 8100 8100
	says 8199 8199
	lbu service add "$VIP:*/tcp" mode peek classifier 8080
	says 7000 7000
	lbu service del $VIP:8100-8199/tcp
	lbu service del "$VIP:*/tcp"
	kill $classifier
}

ktap_begin
load_modules nlb_fwd
five_endpoints
topology_ipv6
vip_add_ipv6 lbu
ktap_run "a packet's own port comes before several, and these before all" order
ktap_run "the same over IPv6" order_ipv6
ktap_run "refused: ports that overlap, and what needs one port" refused
ktap_run "affinity and allotments are of all ports" shared
ktap_run "the port stays with nat, unless the endpoint has one" ports_of_the_host
ktap_run "mode peek with several ports" peek
ktap_end
