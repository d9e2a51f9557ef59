#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A connection whose packets come by another machine's tunnel stays where it is: whoever moved it on, or back,
# would find the packets go where they went before. (What comes by a wire moves on: test_state.sh.)

. "$(dirname "$0")/lib.sh"

# drain MACHINE ADDR: all of the service, in one pass; what is reported is what the test is about.
drain() { ns "$1" nlb -j migration drain from $VIP:80 to "$2" retry 0 >"$tmp/report" || [ $? = 1 ]; }
# stays TEXT: one connection was refused for this reason.
stays() {
	cat "$tmp/report"
	jq -e --arg text "$1" '.moved == 0 and .refused == 1 and .reset == 0 and (.reasons | length) == 1 and
		.reasons[0].reason == $text' "$tmp/report"
}
# begun: a client whose first piece has come back, and that sends no second one before ends_well, when it goes on and every
# byte is there.
begun() {
	rm -f "$tmp/ready" "$tmp/gate"
	background client "$tmp/client.log" "$load" client $VIP 80 --count 1 --chunk 1000 --bytes 5000 \
		--ready "$tmp/ready" --gate "$tmp/gate"
	client=$!
	wait_for 60 [ -e "$tmp/ready" ]
}
ends_well() {
	touch "$tmp/gate"
	wait "$client" || { cat "$tmp/client.log"; return 1; }
	holds --connections 1 "$@"
}
active_at() { migrations "$1" | jq -e 'any(.phase == "active" and .role == "target")'; }

# host1 is set up as whoever wants to move connections on would set it up.
origin() {
	ns host1 nlb service add $VIP:80/tcp mode peek
	peer_add host1 $HOST2
	ns host2 nlb forwarder add $HOST1
	peer_add host2 $HOST1
	server host1 server 0.0.0.0 80
	server host2 server 0.0.0.0 80
}

moved_on() {
	classifier --to $HOST1
	watch
	begun
	wait_for 10 active_at host1
	drain host1 $HOST2
	stays "client's packets come by a forwarder's tunnel"
	ends_well --moved 1
	wait_for 5 served server-host1 1
	served server-host2 0
}

# The mapping is taken away as if the path had changed, which it has not: the next packet brings it back.
unmapped() {
	local id
	watch
	begun
	wait_for 10 active_at host1
	id=$(migrations host1 | jq -r 'map(select(.phase == "active"))[0].flow_id')
	is_mapped "$id"
	ns host1 nlb mapping del forwarder $LBU_TO_HOST1 id "$id"
	not is_mapped "$id"
	touch "$tmp/gate"
	wait_for 60 is_mapped "$id"
	ends_well --moved 1
}
is_mapped() { ns host1 nlb -j mapping show side host | jq -e --arg id "$1" 'any(.flow_id == $id)'; }

# The LBU still has the route, and would send on what the client sends to the connection that it has back.
moved_back() {
	watch
	begun
	wait_for 10 active_at host1
	stop classifier
	start server-lbu lbu server $VIP 80
	wait_listen lbu 80
	ns lbu nlb forwarder add $HOST1
	drain host1 $LBU_TO_HOST1
	stays "target: connection has a route there"
	ends_well --moved 1
	stop server-lbu
	ns lbu nlb forwarder del $HOST1
}

# Not even from a host that the connection came to with its first packet.
never_moved() {
	ns lbu nlb service del $VIP:80/tcp
	ns lbu nlb service add $VIP:80/tcp mode l4
	ns lbu nlb endpoint add $VIP:80/tcp host $HOST1
	watch
	begun
	drain host1 $HOST2
	stays "client's packets come by a forwarder's tunnel"
	ends_well --moved 0
}

ktap_begin
cluster
origin
ktap_run "on, to another host" moved_on
ktap_run "on, and the mapping was taken away too early" unmapped
ktap_run "back, while the route is there" moved_back
ktap_run "on, what has come by the tunnel from its SYN" never_moved
ktap_end
