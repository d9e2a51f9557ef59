# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A client, an LBU with a classifier and two hosts with a server, ready to
# migrate connections to the VIP, port 80.

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

tcp=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tcp.py
load=$(dirname "$tcp")/load.py
# shellcheck disable=SC2034 # for those who source this
pcap=$(dirname "$tcp")/../pcap.py
invariants=$(dirname "$tcp")/../invariants.py
pruned=$(dirname "$tcp")/pruned.py

# new_secret FILE
new_secret() { (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$1"); }
# peer_add MACHINE ADDR: a peer, with the key that all machines have.
peer_add() { ns "$1" nlb peer add "$2" key 1 secret-file "$tmp/secret"; }

cluster() {
	load_modules nlb_fwd nlb_migrator
	topology
	vip_add lbu host1 host2
	new_secret "$tmp/secret"
	export NLB_SECRET_FILE=$tmp/secret
	machines_meet
	service_add $VIP:80/tcp
}
machines_meet() {
	ns host1 nlb forwarder add $LBU_TO_HOST1
	peer_add host1 $LBU_TO_HOST1
	ns host2 nlb forwarder add $LBU_TO_HOST2
	peer_add host2 $LBU_TO_HOST2
	peer_add lbu $HOST1
	peer_add lbu $HOST2
}
service_add() {
	ns lbu nlb service add "$1" mode peek
	ns lbu nlb endpoint add "$1" host $HOST1
	ns lbu nlb endpoint add "$1" host $HOST2
}

# both_families: cluster's machines do the same over IPv6, too.
both_families() {
	topology_ipv6
	vip_add_ipv6 lbu host1 host2
	HOST1=$HOST1_6 HOST2=$HOST2_6 LBU_TO_HOST1=$LBU_TO_HOST1_6 LBU_TO_HOST2=$LBU_TO_HOST2_6 machines_meet
	HOST1=$HOST1_6 HOST2=$HOST2_6 service_add "[$VIP6]:80/tcp"
	vips="(host $VIP or host $VIP6)"
}
# ipv6: from now on, all that these functions do is done over IPv6, beside what cluster has made.
ipv6() {
	both_families
	export NLB_TEST_IPV6=1
	# shellcheck disable=SC2034 # for those who source this
	VIP=$VIP6 CLIENT=$CLIENT6 HOST1=$HOST1_6 HOST2=$HOST2_6 \
		LBU_TO_HOST1=$LBU_TO_HOST1_6 LBU_TO_HOST2=$LBU_TO_HOST2_6
	vips="host $VIP"
}

# A program started by one of these ends when `stop NAME` is called, when another of that name is
# started, or when the test ends.
start() { start_program "$tcp" "$@"; }
start_load() { start_program "$load" "$@"; }
start_program() {
	local program=$1 name=$2 machine=$3
	shift 3
	stop "$name"
	: >"$tmp/$name.log"
	# Appends, so that a test can empty the log meanwhile.
	ip netns exec "$machine" "$program" "$@" >>"$tmp/$name.log" 2>&1 </dev/null &
	# In a file, for what runs in a subshell may leave it to another one to end the program.
	echo $! >"$tmp/$name.pid"
}
stop() {
	local pid=''
	[ ! -s "$tmp/$1.pid" ] || read -r pid <"$tmp/$1.pid"
	[ -n "$pid" ] || return 0
	: >"$tmp/$1.pid"
	# ip netns exec is replaced by the program, so its end is the port's end.
	kill "$pid" 2>/dev/null || return 0
	wait_for 5 gone "$pid"
}
# One of load.py, with its report.
end_load() {
	stop "$1"
	cat "$tmp/$1.log"
}
server() { start "server-$1" "$@" && wait_listen "$1" 80; }
classifier() {
	start classifier lbu classifier $VIP 80 "$@"
	wait_listen lbu 80
}
client() { ns client "$tcp" client $VIP 80 "$@"; }

# watch: from now on, capture every packet of the VIP's connections where it is sent; holds OPTION...: up
# to now, all that invariants.py checks holds for each of them.
watch() {
	local at
	for at in client:lbu lbu:client host1:client host2:client; do
		capture_sent "${at%:*}" "${at#*:}" "$tmp/sent-${at%:*}.pcap" tcp port 80 and "${vips:-host $VIP}"
	done
	capture_ready
	"$pruned" >"$tmp/pruned"
}
holds() {
	local before
	capture_stop
	[ -z "$capture_missed" ] || fail "not everything was captured:$capture_missed"
	before=$(<"$tmp/pruned")
	"$invariants" --port 80 --pruned $(($("$pruned") - before)) "$@" "$tmp"/sent-*.pcap
}
# all_moved N: so for N connections, each of which has moved; or what kept the others.
all_moved() {
	holds --connections "$1" --moved "$1" || {
		grep -v '"error": null' "$tmp/classifier.log"
		return 1
	}
}

# reports NAME FILTER: the lines of a program's log that are reports and pass jq's FILTER, as an array.
reports() { jq -nR "[inputs | fromjson? // empty | select($2)]" "$tmp/$1.log"; }
# migrated N: N attempts said they succeeded; refused N TEXT: N said TEXT.
migrated() { [ "$(reports classifier '.place == "migrate" and .error == null' | jq length)" = "$1" ]; }
refused() {
	cat "$tmp/classifier.log"
	reports classifier '.place == "migrate" and .error != null' |
		jq -e --argjson n "$1" --arg text "$2" '[.[] | select(.text | contains($text))] | length == $n'
}
# served NAME N: the program NAME (server-host1, classifier) finished N connections without an error.
served() { [ "$(reports "$1" '.place != "migrate" and .error == null' | jq length)" = "$2" ]; }
# The client's port in the classifier's last attempt.
last_port() { reports classifier '.place == "migrate"' | jq -r 'last.client | split(":")[1]'; }

migrations() { ns "$1" nlb -j migration show; }
# Routes of ended connections stay for their last packets, in state fin-wait or closed.
no_routes() { ns lbu nlb -j route show | jq -e 'all(.state == "fin-wait" or .state == "closed")'; }
# What was refused or aborted is remembered with its mapping, for 90 s at most; a wait for this has to be longer.
no_mappings() { [ "$(ns "$1" nlb -j mapping show side host | jq length)" = 0 ]; }

# Answers of host1's migrator arrive this much later (tc's time format).
slow_answers() {
	ns host1 tc qdisc replace dev lbu root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
	ns host1 tc qdisc replace dev lbu parent 1:4 handle 40: netem delay "$1"
	ns host1 tc filter replace dev lbu parent 1: protocol ip prio 1 u32 match ip sport 4770 0xffff flowid 1:4
	ns host1 tc filter replace dev lbu parent 1: protocol ipv6 prio 2 u32 match ip6 sport 4770 0xffff flowid 1:4
}
prompt_answers() { ns host1 tc qdisc del dev lbu root; }
no_route_of() { [ "$(ns lbu nlb -j route show | jq --argjson port "$1" '[.[] | select(.client_port == $port)] | length')" = 0 ]; }

# Cut the wire between the migrators of LBU and hosts, both ways: at the LBU, so that answers which are
# on their way (slow_answers) do not arrive either.
cut_peers() {
	ns lbu nft 'add table inet cut
		add chain inet cut in { type filter hook input priority -400; }
		add chain inet cut out { type filter hook output priority -400; }
		add rule inet cut in tcp sport 4770 drop
		add rule inet cut out tcp dport 4770 drop'
}
mend_peers() { ns lbu nft delete table inet cut; }

# When a connection is closed here, all that was on its way to its socket has reached it before the freeze.
no_backlog() { [ "$(counter lbu migrator drop-backlog)" = 0 ]; }

# What a test that failed in the middle may have left undone.
whole() {
	mend_peers
	prompt_answers
	ns host1 nlb forwarder add $LBU_TO_HOST1
	peer_add host1 $LBU_TO_HOST1
	ip -n host1 addr add $VIP/32 dev nlb0
	ns host1 sysctl -qw net.ipv4.tcp_timestamps=1 net.ipv4.tcp_window_scaling=1 net.ipv4.tcp_sack=1
} >/dev/null 2>&1

# A migration that is given up while the host holds packets: what was held is dropped and sent again.
given_up() {
	classifier --to $HOST1 --peek 1000 --timeout 5000
	client --bytes 2000
	slow_answers 2s
	watch
	start client client client $VIP 80 --bytes 60000 --chunk 1000 --pause 0.1
	wait_for 10 frozen
	cut_peers
	wait_for 60 test -s "$tmp/client.log"
	holds --connections 1 --moved 0
	mend_peers
	prompt_answers
	cat "$tmp/client.log"
	jq -e '.error == null' "$tmp/client.log"
	stop classifier
}
frozen() { migrations lbu | jq -e 'any(.phase == "frozen" or .phase == "prepared")'; }

# lose RECORD: the LBU sends no COMMIT, or hears no INJECTED; find_again. A record is known by its type, the sixth
# byte of a segment. INJECTED may come behind others in one, so nothing is heard after COMMIT but HELLO.
lose() {
	ns lbu nft "add table inet lose
		add set inet lose committed { type inet_service; flags dynamic; }
		add chain inet lose in { type filter hook input priority -400; }
		add chain inet lose out { type filter hook output priority -400; }"
	case $1 in
	commit) ns lbu nft "add rule inet lose out tcp dport 4770 @ih,40,8 7 drop" ;;
	injected)
		ns lbu nft "add rule inet lose out tcp dport 4770 @ih,40,8 7 add @committed { tcp dport }
			add rule inet lose in tcp sport @committed @ih,40,8 != 1 drop"
		;;
	esac
}
find_again() { ns lbu nft delete table inet lose; }

# A client that has sent all and got all, and only listens: it has to be told by a reset.
silent_client_is_reset() {
	ns client python3 - "$VIP" <<-'EOF'
	import socket, sys
	s = socket.create_connection((sys.argv[1], 80), timeout=30)
	s.sendall(b"x" * 5000)
	got = 0
	while got < 5000:
	    got += len(s.recv(5000))
	try:
	    raise SystemExit(f"got {s.recv(1)} instead of a reset")
	except ConnectionResetError:
	    pass
	EOF
}
