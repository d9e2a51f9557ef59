#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# nlb save and nlb apply: what was saved changes nothing, a file is made true whatever was there
# before, a connection outlives changes of weights, states and schedulers, and a plan that the
# kernel refuses in the middle leaves nothing behind.

. "$(dirname "$0")/../migrator/lib.sh"

lbu() { nlb -n lbu "$@"; }
# refuses TEXT COMMAND...: status 1, says TEXT and prints nothing else.
refuses() {
	local text=$1 rc=0
	shift
	"$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
	cat "$tmp/out" "$tmp/err"
	[ "$rc" = 1 ] && grep -qF -- "$text" "$tmp/err" && [ ! -s "$tmp/out" ]
}
# becomes FILE: apply makes the configuration FILE, and has nothing to do after that.
becomes() {
	lbu apply "$1"
	[ -z "$(lbu apply "$1" dry-run)" ]
}

saved_changes_nothing() {
	lbu keep add $VIP:80 bytes 4096
	lbu forwarder add 10.0.9.9
	lbu peer add 10.0.9.9 port 4771 unauthenticated
	lbu service add "[2001:db8:10::10]:53/udp" scheduler mh
	lbu endpoint set $VIP:80 host $HOST2 weight 7 state draining
	lbu save >"$tmp/saved.toml"
	cat "$tmp/saved.toml"
	[ "$(grep -c '^\[\[' "$tmp/saved.toml")" = 11 ]
	not grep -q "$(cat "$tmp/secret")" "$tmp/saved.toml"
	[ -z "$(lbu apply "$tmp/saved.toml" dry-run)" ]
	lbu save | lbu apply -
	[ "$(lbu -j apply - <"$tmp/saved.toml")" = "[]" ]
	lbu save | cmp - "$tmp/saved.toml"
	lbu -j save | jq -e '.keep[0].bytes == 4096 and (.service | length) == 2 and .peer[0].key[0].id == 1'
}

# To another namespace, where nothing is; and back to nothing.
restored_elsewhere() {
	sed '/^source = /d' "$tmp/saved.toml" >"$tmp/bare.toml"
	refuses "has not this key 1 yet: name its secret-file" nlb -n host1 apply "$tmp/bare.toml"
	lbu save secret-file "$tmp/secret" | sed '/^source = /d' >"$tmp/whole.toml"
	netns_add fresh
	ip -n fresh -batch - <<-EOC
		link add eth0 type veth peer name eth1
		addr add 10.0.2.1/24 dev eth0
		addr add 10.0.3.1/24 dev eth0
		link set eth0 up
		link set eth1 up
	EOC
	nlb -n fresh apply "$tmp/whole.toml"
	nlb -n fresh save | cmp - "$tmp/saved.toml"
	printf '%s = []\n' forwarder keep peer service >"$tmp/none.toml"
	nlb -n fresh apply "$tmp/none.toml"
	[ "$(nlb -n fresh save | tail -n +2)" = "$(cat <<-EOC
		forwarder = []
		peer = []
		keep = []
		rule = []
		service = []
	EOC
	)" ]
	netns_del fresh
}

# An l4 service whose one endpoint, scheduler and weights change while a connection goes on.
connection_goes_on() {
	cat >"$tmp/l4.toml" <<-EOC
		[[service]]
		vip = "$VIP:81"
		[[service.endpoint]]
		host = "$HOST1"
	EOC
	becomes "$tmp/l4.toml"
	[ "$(lbu -j service | jq -c 'map(.vip_port)')" = "[81]" ]
	# What the file does not name is left alone.
	[ "$(lbu -j keep | jq length)" = 1 ]
	ip netns exec host1 /usr/bin/python3 -c '
import socket
s = socket.create_server(("", 81))
c, _ = s.accept()
while data := c.recv(100): c.sendall(data)' &
	local server=$!
	wait_listen host1 81
	coproc talk { exec ip netns exec client /usr/bin/python3 -uc '
import socket, sys
c = socket.create_connection(("192.0.2.10", 81))
for line in sys.stdin:
    c.sendall(line.encode())
    print(c.recv(100).decode().strip())'; }
	# shellcheck disable=SC2154 # coproc sets it
	local talks=$talk_PID answer
	says() {
		echo "$1" >&"${talk[1]}"
		read -rt 20 answer <&"${talk[0]}"
		[ "$answer" = "$1" ]
	}
	says before
	cat >"$tmp/l4.toml" <<-EOC
		[[service]]
		vip = "$VIP:81"
		scheduler = "wlc"
		[[service.endpoint]]
		host = "$HOST1"
		state = "draining"
		weight = 9
		[[service.endpoint]]
		host = "$HOST2"
	EOC
	lbu apply "$tmp/l4.toml" dry-run | tee "$tmp/plan"
	diff "$tmp/plan" - <<-EOC
		nlb endpoint add $VIP:81/tcp host $HOST2 via tunnel weight 1 state active max-routes 0 resume-routes 0 backup no
		nlb service set $VIP:81/tcp scheduler wlc  # was scheduler wrr
		nlb endpoint set $VIP:81/tcp host $HOST1 weight 9 state draining  # was weight 1 state active
	EOC
	says "nothing has changed yet"
	lbu -j endpoint show $VIP:81 | jq -e 'length == 1 and .[0].weight == 1'
	becomes "$tmp/l4.toml"
	says "changed"
	# The endpoint goes, its connection stays.
	printf '[[service]]\nvip = "%s:81"\nscheduler = "wlc"\n[[service.endpoint]]\nhost = "%s"\n' $VIP $HOST2 >"$tmp/l4.toml"
	becomes "$tmp/l4.toml"
	[ "$(lbu -j endpoint show $VIP:81 | jq -r '.[].host_addr')" = $HOST2 ]
	says "still here"
	kill $talks $server
}

# The kernel refuses the last command: there is no way to the host.
refused_in_the_middle() {
	lbu save >"$tmp/before.toml"
	cat >"$tmp/bad.toml" <<-EOC
		forwarder = []
		[[keep]]
		vip = "$VIP:80"
		bytes = 1
		[[service]]
		vip = "$VIP:81"
		[[service.endpoint]]
		host = "$HOST1"
		weight = 5
		[[service.endpoint]]
		host = "2001:db8:99::1"
	EOC
	refuses "bad.toml:10:1: nlb endpoint add $VIP:81/tcp host 2001:db8:99::1 via tunnel weight 1 state active max-routes 0 resume-routes 0 backup no: " \
		lbu apply "$tmp/bad.toml"
	grep -F "; nothing has changed" "$tmp/err"
	lbu save | diff "$tmp/before.toml" -
	# Found before anything is done.
	sed -i 's/weight = 5/weigth = 5/' "$tmp/bad.toml"
	refuses "bad.toml:9:1: unknown key \`weigth\`; an endpoint has host, via, port, tun-port, tun-csum, weight" lbu apply "$tmp/bad.toml" dry-run
	refuses "bad.toml:9:1" lbu apply "$tmp/bad.toml"
	refuses "No such file" lbu apply "$tmp/nothing.toml"
	lbu save | diff "$tmp/before.toml" -
}

keys_are_exchanged() {
	(umask 077 && echo "another secret of 27 bytes" >"$tmp/secret2")
	cat >"$tmp/peers.toml" <<-EOC
		[[peer]]
		addr = "$HOST1"
		[[peer.key]]
		id = 2
		secret-file = "$tmp/secret3"
	EOC
	refuses "peers.toml:3:1: $tmp/secret3: No such file" lbu apply "$tmp/peers.toml"
	[ "$(lbu -j peer | jq length)" = 3 ]
	sed -i 's/secret3/secret2/' "$tmp/peers.toml"
	becomes "$tmp/peers.toml"
	lbu -j peer | jq -e 'length == 1 and (.[0].keys | length == 1 and .[0].send_id == 2 and .[0].preferred)'
}

# top and doctor are not changed by what is there; here they only have to see it.
rates() {
	lbu top once interval 0.2 | tee "$tmp/top"
	grep -E "^$VIP:81/tcp +l4 " "$tmp/top"
	grep -E "^  $HOST2 +active +1 " "$tmp/top"
	lbu -j top interval 0.2 | jq -e '.rows | map(select(.host == "10.0.3.2")) | length == 1'
}

# The live table, on a terminal of its own: it is drawn, sorts, and ends with q.
live() {
	/usr/bin/python3 - >"$tmp/screen" <<-'EOC'
		import os, pty, select, sys, time
		pid, fd = pty.fork()
		if pid == 0:
		    os.execlp("nlb", "nlb", "-n", "lbu", "top", "interval", "0.1")
		seen, keys = b"", [(b"by name", b"b"), (b"by bytes", b"q")]
		end = time.time() + 60
		while time.time() < end:
		    if keys and keys[0][0] in seen:
		        os.write(fd, keys.pop(0)[1])
		    if select.select([fd], [], [], 0.1)[0]:
		        try:
		            data = os.read(fd, 4096)
		        except OSError:
		            break
		        if not data:
		            break
		        seen += data
		if time.time() >= end:
		    os.kill(pid, 9)
		_, status = os.waitpid(pid, 0)
		sys.stdout.buffer.write(seen)
		sys.exit(0 if status == 0 and not keys else 1)
	EOC
	grep -qF "$VIP:81/tcp" "$tmp/screen"
	# The terminal is as it was.
	grep -q $'\e\[?1049l' "$tmp/screen"
}

ktap_begin
cluster
ktap_run "what was saved changes nothing" saved_changes_nothing
ktap_run "restored elsewhere" restored_elsewhere
ktap_run "a connection goes on through changes" connection_goes_on
ktap_run "refused in the middle, nothing has changed" refused_in_the_middle
ktap_run "keys of peers are exchanged" keys_are_exchanged
ktap_run "rates" rates
ktap_run "rates, live on a terminal" live
ktap_end
