#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# nlbd with an unmodified nginx and curl: requests go by the rules, what can not
# be placed or moved is treated as configured, a crowd of bad clients holds
# nobody up.
# timeout: 400

. "$(dirname "$0")/../migrator/lib.sh"

web() {
	local host=$1 dir=$tmp/$1
	mkdir -p "$dir/www"/{a,b}
	for path in a b; do echo "$path $host" >"$dir/www/$path/page"; done
	start_nginx "$host"
	echo $! >"$tmp/web-$host.pid"
}

nlbd_start() {
	sed -e "$1" >"$tmp/classify.toml" <<-EOF
	listen = ["$VIP:80"]
	peek_timeout_ms = 1500
	migrate_timeout_ms = 1000
	default = "two"
	unplaced = "close"
	[pool.one]
	hosts = ["$HOST1"]
	[pool.two]
	hosts = ["$HOST2"]
	[[rule]]
	path = "/a/"
	pool = "one"
	EOF
	ns lbu nlbd check --config "$tmp/classify.toml"
	# That of a test that failed in the middle.
	stop nlbd
	background lbu "$tmp/nlbd.log" nlbd classify --config "$tmp/classify.toml"
	nlbd=$!
	echo $nlbd >"$tmp/nlbd.pid"
	wait_listen lbu 80
}
nlbd_stop() {
	kill -TERM $nlbd
	wait $nlbd
	rm "$tmp/nlbd.pid"
	cat "$tmp/nlbd.log"
}
get() { ns client curl -sS --max-time 20 "http://$VIP$1"; }

by_rules() {
	nlbd_start ""
	[ "$(get /a/page)" = "a host1" ]
	[ "$(get /b/page)" = "b host2" ]
	[ "$(ns client curl -sS --max-time 20 -X POST -d x=y -o /dev/null -w '%{http_code}' "http://$VIP/a/page")" = 405 ]
	nlbd_stop
	grep -q 'accepted=3 placed=3' "$tmp/nlbd.log"
	grep -q 'migrated=3' "$tmp/nlbd.log"
}

# Of two hosts one gets no new connections, says its endpoint: the classifier need not know.
draining_hosts() {
	local n state
	for state in draining inactive; do
		nlbd_start "s/^hosts = .\"$HOST1\".*/hosts = [\"$HOST1\", \"$HOST2\"]/"
		ns lbu nlb endpoint set $VIP:80/tcp host $HOST1 state $state
		for n in {1..6}; do [ "$(get /a/page)" = "a host2" ]; done
		nlbd_stop
		grep 'gets no new connections' "$tmp/nlbd.log"
		ns lbu nlb -j migration show | jq -e 'any(.error == "host is an endpoint that gets no new connections")'
	done
	nlbd_start "s/^hosts = .\"$HOST1\".*/hosts = [\"$HOST1\", \"$HOST2\"]/"
	ns lbu nlb endpoint set $VIP:80/tcp host $HOST1 state active
	for n in {1..6}; do get /a/page; done | grep host1
	nlbd_stop
}

# How many of 24 new connections host1 gets.
of_host1() { (for _ in {1..24}; do get /a/page; done) | grep -c host1 || true; }
of_host1_is() { [ "$(of_host1)" = "$1" ]; }
weigh() {
	ns lbu nlb endpoint set $VIP:80/tcp host $HOST1 weight "$1"
	ns lbu nlb endpoint set $VIP:80/tcp host $HOST2 weight "$2"
}
# A pool goes by what the endpoints can take, as soon as that changes, and by the file's weights if nobody says.
endpoint_weights() {
	local host refused
	weigh 3 1
	nlbd_start "s/^hosts = .\"$HOST1\".*/weights = \"endpoints\"\nhosts = [{ addr = \"$HOST1\", weight = 2 }, \"$HOST2\"]/"
	wait_for 60 of_host1_is 18
	weigh 1 3
	wait_for 60 of_host1_is 6
	# Who is draining is not even asked.
	ns lbu nlb endpoint set $VIP:80/tcp host $HOST1 state draining
	wait_for 60 of_host1_is 0
	refused=$(grep -c 'gets no new connections' "$tmp/nlbd.log" || true)
	of_host1_is 0
	[ "$(grep -c 'gets no new connections' "$tmp/nlbd.log" || true)" = "$refused" ]
	for host in $HOST1 $HOST2; do ns lbu nlb endpoint del $VIP:80/tcp host "$host"; done
	wait_for 60 of_host1_is 16
	for host in $HOST1 $HOST2; do ns lbu nlb endpoint add $VIP:80/tcp host "$host"; done
	wait_for 60 of_host1_is 12
	nlbd_stop
}

garbage_is_closed() {
	nlbd_start ""
	[ -z "$(printf '\x16\x03\x01\x00\xa5' | ns client nc -w 10 $VIP 80)" ]
	[ "$(get /a/page)" = "a host1" ]
	nlbd_stop
	grep -q 'not_http=1' "$tmp/nlbd.log"
}

garbage_goes_where_configured() {
	nlbd_start 's/unplaced = "close"/unplaced = "one"/'
	printf 'BLURB\r\n\r\n' | ns client nc -w 10 $VIP 80 | grep -q '400 Bad Request'
	nlbd_stop
	grep -q 'migrated=1' "$tmp/nlbd.log"
}

# host1's nginx is away: its requests go to the default.
refused_goes_to_default() {
	stop web-host1
	wait_for 10 ns host1 sh -c '! ss -Htln sport = :80 | grep -q .'
	nlbd_start ""
	[ "$(get /a/page)" = "a host2" ]
	nlbd_stop
	grep -q 'stayed here: target: no listener' "$tmp/nlbd.log"
}

# Nobody is there: 503.
nobody_is_there() {
	nlbd_start 's/default = "two"/default = "one"/'
	[ "$(ns client curl -sS --max-time 20 -o /dev/null -w '%{http_code}' "http://$VIP/a/page")" = 503 ]
	nlbd_stop
	grep -q 'failed=1' "$tmp/nlbd.log"
}

reload() {
	nlbd_start ""
	[ "$(get /b/page)" = "b host2" ]
	sed -i 's/default = "two"/default = "one"/' "$tmp/classify.toml"
	kill -HUP $nlbd
	wait_for 10 grep -q 'read again' "$tmp/nlbd.log"
	[ "$(get /b/page)" = "b host1" ]
	echo 'nonsense' >>"$tmp/classify.toml"
	kill -HUP $nlbd
	wait_for 10 grep -q 'the old configuration stays' "$tmp/nlbd.log"
	[ "$(get /b/page)" = "b host1" ]
	nlbd_stop
}

# Silent, slow and senseless clients by the thousand; good ones in between.
crowd() {
	nlbd_start ""
	ns client python3 - <<-EOF
	import resource, socket
	resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
	crowd = []
	for number in range(3000):
	    s = socket.create_connection(("$VIP", 80), timeout=30)
	    s.setblocking(False)
	    try:
	        if number % 3 == 1:
	            s.send(b"GET /a/page HTTP/1.1\r\nHost: ")
	        if number % 3 == 2:
	            s.send(bytes([number % 256]) * 100 + b"\xff\0")
	    except OSError:
	        pass
	    crowd.append(s)
	    if number % 300 == 0:
	        good = socket.create_connection(("$VIP", 80), timeout=30)
	        good.sendall(b"GET /a/page HTTP/1.0\r\n\r\n")
	        answer = b""
	        while part := good.recv(4096):
	            answer += part
	        assert answer.endswith(b"a host1\n"), answer
	EOF
	[ "$(get /a/page)" = "a host1" ]
	nlbd_stop
	grep -q 'accepted=3011 ' "$tmp/nlbd.log"
	grep -q 'migrated=11 ' "$tmp/nlbd.log"
}

mistakes_are_named() {
	echo 'listen = 3' >"$tmp/bad.toml"
	not nlbd check --config "$tmp/bad.toml" 2>"$tmp/said"
	cat "$tmp/said"
	grep -q "bad.toml:1:" "$tmp/said"
	not nlbd check --config "$tmp/none.toml" 2>"$tmp/said"
	grep -q "cannot read" "$tmp/said"
}

ktap_begin
cluster
web host1
web host2
ktap_run "requests go by the rules" by_rules
ktap_run "hosts that are to get no new connections get none" draining_hosts
ktap_run "a pool goes by the weights of endpoints" endpoint_weights
ktap_run "garbage is closed" garbage_is_closed
ktap_run "garbage goes to the pool for it" garbage_goes_where_configured
ktap_run "a refused connection goes to the default" refused_goes_to_default
ktap_run "nobody is there: 503" nobody_is_there
web host1
ktap_run "SIGHUP reads the configuration again" reload
ktap_run "a crowd of bad clients" crowd
ktap_run "mistakes in the configuration are named" mistakes_are_named
ktap_end
