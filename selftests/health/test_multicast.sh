#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# Hosts that know no LBU reach two of them by multicast, one host in a group of IPv4, the other of IPv6, without our kernel
# modules. LBUs come late, are killed, and are cut off from the groups; a host is told that nobody sends it connections when
# both have said so. All four machines are in one network, a VXLAN over the links that there are.

. "$(dirname "$0")/lib.sh"

declare -A number=([lbu]=1 [client]=2 [host1]=3 [host2]=4) link=([lbu]=$LBU [client]=$CLIENT [host1]=$HOST1 [host2]=$HOST2)
machines=(lbu client host1 host2) units=(lbu client)
GROUP4=239.192.0.71 GROUP6=ff15::71
declare -A group=([host1]="$GROUP4:4771" [host2]="[$GROUP6]:4771")
# Where the one LBU is, for who has this to know.
declare -A unicast=([host1]='"10.0.9.1:4771"' [host2]='"[2001:db8:9::1]:4771"')

# lan MACHINE: what is for all goes to each of the others; where these are, nobody has to learn.
lan() {
	local n=$1 other
	ip -n "$n" link add lan address "02:00:00:00:09:0${number[$n]}" type vxlan id 9 dstport 4789 local "${link[$n]}" nolearning
	for other in "${machines[@]}"; do
		[ "$other" = "$n" ] || carry "$n" "$other" append
	done
	ip -n "$n" addr add "10.0.9.${number[$n]}/24" dev lan
	ip -n "$n" addr add "2001:db8:9::${number[$n]}/64" dev lan nodad
	ip -n "$n" link set lan up
}
# carry MACHINE OTHER append|del
carry() { ns "$1" bridge fdb "$3" 00:00:00:00:00:00 dev lan dst "${link[$2]}"; }

agent_config() {
	cat <<-EOF
		host = ${1#host}
		name = "$1.example"
		lbus = [${lbus+"${unicast[$1]}"}]
		multicast = [{ group = "${group[$1]}", interface = "lan" }]
		addresses = ["10.0.9.${number[$1]}"]
		socket = "$tmp/$1/socket"
		state = "$tmp/$1/state.json"
		heartbeat_ms = 300
		age_limit_ms = 4000
	EOF
}
# One hears groups by sockets of their own, the other by those that it has.
unit_config() {
	printf 'lbu = %s\nsocket = "%s"\nstate = "%s"\n' "${number[$1]}" "$tmp/$1/nlbd" "$tmp/$1/nlbd.json"
	[ "$1" = client ] || printf 'listen = ["10.0.9.1:4771", "[2001:db8:9::1]:4771"]\n'
	[ "${multicast-yes}" != yes ] || printf 'multicast = [%s, %s]\n' "$(entry host1)" "$(entry host2)"
	[ -z "${haproxy:-}" ] || printf '[[haproxy]]\nsocket = "%s"\nbackend = "web"\nvip = "%s"\n' "$tmp/nobody" "$VIP:80/tcp"
}
entry() { printf '{ group = "%s", interface = "lan" }' "${group[$1]}"; }

unit_start() {
	mkdir -p "$tmp/$1"
	unit_write "$1"
	background "$1" "$tmp/$1/nlbd.log" nlbd health --config "$tmp/$1/health.toml"
	echo $! >"$tmp/$1/nlbd.pid"
	wait_for 20 unit "$1"
}
unit_write() {
	{ unit_config "$1" && keys 1; } >"$tmp/$1/health.toml"
	ns "$1" nlbd check --health "$tmp/$1/health.toml"
}
# reload FOLDER PROGRAM
reload() {
	: >"$tmp/$1/$2.log"
	kill -HUP "$(<"$tmp/$1/$2.pid")"
	wait_for 20 grep -q 'configuration read again' "$tmp/$1/$2.log"
}
unit_reload() {
	unit_write "$1"
	reload "$1" nlbd
}

unit() { nlb -j health socket "$tmp/$1/nlbd"; }
# knows UNIT HOST...: of these hosts and no others it has the row, as it is.
knows() { [ "$(unit "$1" | jq -r '[.rows[] | select(.health == "healthy") | .name] | sort | join(" ")')" = "${*:2}" ]; }
all_know() { for u in "${units[@]}"; do knows "$u" host1.example host2.example || return; done; }
is_stale() { [ "$(unit "$1" | jq '.stale | length')" = "$2" ]; }
counted() { unit "$1" | jq ".counters[\"$2\"] // 0"; }
hears_more() { (($(counted "$1" heartbeat) > $2)); }
trouble() { unit "$1" | jq -r '.trouble // ""'; }
has_trouble() { trouble "$1" | grep -qF -- "$2"; }
# lbus_are HOST UNIT...: who has asked it.
lbus_are() {
	local answer
	answer=$(echo '{"command":"show"}' | socat -t 20 - "UNIX-CONNECT:$tmp/$1/socket" | jq -c .lbus)
	[ "$answer" = "$2" ]
}
# has_joined UNIT GROUP: as the interface knows it.
declare -A mac=([$GROUP4]=01:00:5e:40:00:47 [$GROUP6]=33:33:00:00:00:71)
has_joined() { ns "$1" ip maddr show dev lan | grep -qF "${mac[$2]}"; }

agents_first() {
	local host
	# Nobody is there: a group says nothing of that, and nothing is waited for.
	for host in host1 host2; do
		agent_start $host
		app $host register web vip $VIP:80/tcp
		app $host drain web wait
		app_is $host web current draining
		app $host undo web
		lbus_are $host '[]'
	done
}
units_come_late() {
	local unit
	for unit in "${units[@]}"; do
		unit_start "$unit"
		wait_for 20 has_joined "$unit" $GROUP4
		wait_for 20 has_joined "$unit" $GROUP6
		wait_for 20 knows "$unit" host1.example host2.example
		not has_trouble "$unit" "is not heard"
	done
	for host in host1 host2; do
		wait_for 20 lbus_are $host '[1,2]'
		wait_for 20 app_is $host web current active
	done
}
# What one datagram says, both hear, once.
heard_once() {
	local unit before
	for unit in "${units[@]}"; do
		before=$(counted "$unit" heartbeat)
		wait_for 20 hears_more "$unit" $((before + 4))
		for reason in datagram-replay datagram-type datagram-tag message-for-others; do is "$(counted "$unit" $reason)" 0; done
	done
	all_know
	app host1 health web failing
	for unit in "${units[@]}"; do wait_for 20 knows "$unit" host2.example; done
	app host1 health web healthy
	wait_for 20 all_know
}
# Who comes without a key to the group is nobody.
forged() {
	local unit to
	for to in $GROUP4 $GROUP6; do
		ns host1 python3 -c "
import socket
six = ':' in '$to'
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
index = socket.if_nametoindex('lan')
if six:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
else:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('10.0.9.3'))
s.sendto(b'nlbh' + bytes([1, 2, 1, 0]) + bytes(36), ('$to', 4771))"
	done
	for unit in "${units[@]}"; do wait_for 20 is_counted "$unit" datagram-reserved 2; done
	all_know
}
is_counted() { is "$(counted "$1" "$2")" "$3"; }

# One of two that cannot do what is asked for is waited for, for as long as that takes.
drain_needs_both() {
	app host2 drain web wait
	app_is host2 web current draining
	app host2 undo web
	wait_for 20 app_is host2 web current active
	haproxy=yes unit_reload client
	wait_for 20 has_trouble client "does not follow"
	app host1 drain web
	wait_for 20 draining lbu
	nap 6
	app_is host1 web target draining
	app_is host1 web current active
	unit_reload client
	wait_for 20 app_is host1 web current draining
	app host1 undo web
	wait_for 20 app_is host1 web current active
}
draining() { unit "$1" | jq -e '.rows[] | select(.host == 1 and .target == "draining")'; }

unit_dies() {
	end KILL "$tmp/client/nlbd.pid"
	app host1 drain web wait
	app_is host1 web current draining
	knows lbu host1.example host2.example
	unit_start client
	wait_for 20 draining client
	app host1 undo web
	wait_for 20 app_is host1 web current active
	wait_for 20 all_know
}

# The network carries the groups to one of them only: there, and nowhere else, nothing is known any more.
group_is_not_carried() {
	local host
	for host in host1 host2; do carry $host client del; done
	wait_for 30 knows client
	is_stale client 2
	knows lbu host1.example host2.example
	# It is asked all the same, by its own address.
	app host1 drain web wait
	app_is host1 web current draining
	app host1 undo web
	for host in host1 host2; do carry $host client append; done
	wait_for 20 all_know
	wait_for 20 app_is host1 web current active
}

# The interface goes, and another one of that name comes.
interface_comes_again() {
	local unit
	for unit in "${units[@]}"; do
		ip -n "$unit" link del lan
		wait_for 20 has_trouble "$unit" "multicast group $GROUP4:4771 at lan is not heard: interface lan: "
		grep -q 'is not heard' "$tmp/$unit/nlbd.log"
		wait_for 30 knows "$unit"
		lan "$unit"
		wait_for 20 knows "$unit" host1.example host2.example
		not has_trouble "$unit" "is not heard"
	done
	ip -n host1 link del lan
	wait_for 20 grep -q 'cannot send: interface lan: ' "$tmp/host1/agent.log"
	wait_for 30 knows lbu host2.example
	lan host1
	wait_for 20 all_know
}

# Other groups, and addresses beside them, are taken with another reading of the files.
configurations_change() {
	multicast='' unit_reload lbu
	wait_for 20 not has_joined lbu $GROUP4
	not has_joined lbu $GROUP6
	wait_for 30 knows lbu
	knows client host1.example host2.example
	# By the one's own address it is heard again, beside the group where the other is.
	for host in host1 host2; do
		{ lbus=yes agent_config $host && keys 1; } >"$tmp/$host/agent.toml"
		reload $host agent
	done
	wait_for 20 all_know
	app host1 drain web wait
	app_is host1 web current draining
	app host1 undo web
	unit_reload lbu
	wait_for 20 has_joined lbu $GROUP4
	# Twice on the way, and taken once.
	wait_for 20 is_replayed
	wait_for 20 app_is host1 web current active
	all_know
	# A host has an address of each family from the start, or none.
	sed -i 's/239\.192\.0\.71/ff15::99/; s/"ff15::99:4771"/"[ff15::99]:4771"/' "$tmp/host1/agent.toml"
	kill -HUP "$(<"$tmp/host1/agent.pid")"
	wait_for 20 grep -q 'the old configuration stays: lbus or multicast of another address family' "$tmp/host1/agent.log"
}
is_replayed() { (($(counted lbu datagram-replay) > 0)); }

goodbye() {
	end USR2 "$tmp/host1/agent.pid"
	for unit in "${units[@]}"; do
		wait_for 20 knows "$unit" host2.example
		is_stale "$unit" 0
		(($(counted "$unit" goodbye) > 0))
	done
}

ktap_begin
topology
# The VXLAN's way from each to each; the LBU forwards.
ns lbu sysctl -qw net.ipv4.conf.all.rp_filter=0
for machine in "${machines[@]}"; do lan "$machine"; done
keys_make 1
ktap_run "hosts in groups without anybody" agents_first
ktap_run "LBUs that come late" units_come_late
ktap_run "both hear what is said once" heard_once
ktap_run "datagrams without a key" forged
ktap_run "a drain is confirmed by both" drain_needs_both
ktap_run "an LBU is killed, and comes again" unit_dies
ktap_run "the network carries the groups to one only" group_is_not_carried
ktap_run "interfaces go, and come again" interface_comes_again
ktap_run "groups and addresses change" configurations_change
ktap_run "goodbye" goodbye
ktap_end
