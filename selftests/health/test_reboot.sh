#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 2400
#
# The LBU and both hosts as machines of their own, each with a systemd that begins what is enabled there: machines lose
# their power and boot again, with another boot id, without their network namespace and what was in it, and, at last,
# without our modules. Nobody does anything by hand: what somebody had done before, or a program has reported, is on
# their disks, or gone.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/systemd.sh"

# VIP:80 is an nginx that systemd starts; VIP:9000 reports by itself that it is healthy, once; VIP:9001 drains.
agent_config() {
	cat <<-EOF
		host = ${1#host}
		lbus = ["${lbu_of[$1]}:4771"]
		addresses = ["${address[$1]}"]
		age_limit_ms = 15000
		[group]
		id = 7
		address = "${address[$1]}:4772"
		members = ["$HOST1:4772", "$HOST2:4772"]
		[[app]]
		name = "web"
		vip = "$VIP:80/tcp"
		unit = "nginx.service"
		[[app]]
		name = "reports"
		vip = "$VIP:9000/tcp"
		[[app]]
		name = "drains"
		vip = "$VIP:9001/tcp"
	EOF
	secret
}
# network_installed MACHINE: addresses, routes and the VIP, as a boot brings them.
network_installed() {
	local root=$tmp/$1/root
	{ network "$1" && vip; } >"$root/etc/network.batch"
	cat >"$root/usr/lib/systemd/system/network.service" <<-EOF
		[Unit]
		Wants=network.target
		Before=network.target
		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/usr/sbin/ip -batch /etc/network.batch
		ExecStart=/usr/sbin/sysctl -qw net.ipv4.ip_forward=1
		[Install]
		WantedBy=multi-user.target
	EOF
	# What takes time, and is of no use here.
	systemctl -q --root "$root" mask getty.target sys-kernel-config.mount sys-fs-fuse-connections.mount \
		systemd-pstore
}
host_installed() {
	local root=$tmp/$1/root
	installed "$1"
	nginx_installed "$1"
	network_installed "$1"
	cp /usr/lib/systemd/system/nginx.service "$root/usr/lib/systemd/system/"
	agent_config "$1" >"$root/etc/nlb/agent.toml"
	printf '[[forwarder]]\naddr = "%s"\n' "${lbu_of[$1]}" >"$root/etc/nlb/nlb.toml"
	systemctl -q --root "$root" enable network nlb nlb-agent nginx
}
lbu_installed() {
	local root=$tmp/lbu/root port host
	installed lbu
	network_installed lbu
	# Who is silent gets nothing, whatever becomes of the others.
	{ printf '%s\n' 'lbu = 9' 'panic_stale = false' 'age_limit_ms = 600000' && secret; } >"$root/etc/nlb/health.toml"
	for port in 80 81 9000 9001; do
		printf '[[service]]\nvip = "%s"\nscheduler = "rr"\n' "$VIP:$port/tcp"
		for host in host1 host2; do printf '[[service.endpoint]]\nhost = "%s"\n' "${address[$host]}"; done
	done >"$root/etc/nlb/nlb.toml"
	systemctl -q --root "$root" enable network nlb nlbd-health
}

boots() {
	local machine
	for machine in "$@"; do
		machine_plug "$machine"
		machine_boot "$machine" "$tmp/$machine/root" multi-user.target
	done
	for machine in "$@"; do machine_wait "$machine" multi-user.target; done
}
# power_cut MACHINE: of its wires, nobody is at that end.
power_cut() {
	machine_off "$1"
	machine_unplug "$1"
}
boot_id() { at "$1" cat /proc/sys/kernel/random/boot_id; }

# said HOST NAME FIELD
said() { at "$1" nlb -j app show "$2" | jq -r ".[0].$3"; }
said_is() { [ "$(said "$1" "$2" "$3")" = "$4" ]; }
leader() {
	logged "$1" nlb-agent | sed -n 's/.*leader of the group leader=\([0-9]*\) .*/host\1/p' | tail -n 1
}
leads() { [ "$(leader "$2")" = "$1" ]; }
other() { if [ "$1" = host1 ]; then echo host2; else echo host1; fi; }

# held NAME HOST: a connection to that host, on which something is said all the time, unless somebody makes it quiet.
held() {
	rm -f "$tmp/quiet"
	background client "$tmp/$1.log" python3 -c "
import http.client, os, time
while True:
    c = http.client.HTTPConnection('$VIP', 80, timeout=60)
    c.connect()
    c.request('GET', '/page')
    if c.getresponse().read() == b'web $2\n':
        break
    c.close()
print(*c.sock.getsockname(), flush=True)
c.auto_open = 0
while True:
    while os.path.exists('$tmp/quiet'):
        time.sleep(0.1)
    c.request('GET', '/page')
    assert c.getresponse().read() == b'web $2\n'
    print('x', flush=True)
    time.sleep(0.2)"
	echo $! >"$tmp/$1.pid"
	wait_for 60 grep -qs x "$tmp/$1.log"
}
answers() { grep -c x "$tmp/$1.log"; }
# It goes on now, as it did before.
held_goes_on() {
	wait_for 60 has_answers "$1" $(($(answers "$1") + 2))
	not grep -vE '^x$|^10.0.1.2 [0-9]+$' "$tmp/$1.log"
}
has_answers() { (($(answers "$1") > $2)); }
held_ends() {
	kill "$(<"$tmp/$1.pid")"
	wait_for 60 gone "$(<"$tmp/$1.pid")"
}
client_port() { awk 'NR == 1 { print $2 }' "$tmp/$1.log"; }

everybody_serves() {
	local host
	for host in host1 host2; do becomes $host active; done
	wait_for 60 rows_are '["1","1","1","2","2","2"]'
	# Others may open connections meanwhile, so that these all have the same turn.
	wait_for 60 both_answer
}
both_answer() { [ "$(web)" = "web host1 web host2" ]; }

all_boot() {
	local host pid
	everybody_serves
	health | jq -e '.stale | length == 0'
	for host in host1 host2; do
		at $host nlb app health reports healthy
		at $host nlb app health drains healthy
		at $host nlb app drain drains wait
		becomes $host active 9000
		becomes $host draining 9001
	done
	# Each boot is another one to the daemons, whatever their units see of the machine.
	is "$(boot_id host1 | wc -c)" 37
	pid=$(property host1 nlb-agent MainPID)
	is "$(at host1 nsenter -t "$pid" --mount cat /proc/sys/kernel/random/boot_id)" "$(boot_id host1)"
	pid=$(property lbu nlbd-health MainPID)
	is "$(at lbu nsenter -t "$pid" --mount cat /proc/sys/kernel/random/boot_id)" "$(boot_id lbu)"
	not [ "$(boot_id host1)" = "$(boot_id host2)" ]
	not [ "$(boot_id host1)" = "$(</proc/sys/kernel/random/boot_id)" ]
}

# host_loses_power HOST: nobody else notices.
host_loses_power() {
	local off=$1 on changes
	on=$(other "$off")
	boot_id "$off" >"$tmp/boot-id"
	echo "$off" >"$tmp/off"
	held stays "$on"
	changes=$(changes)
	power_cut "$off"
	becomes "$off" draining
	becomes "$off" draining 9000
	is "$(web)" "web $on"
	health | jq -e '.stale | length == 3'
	rows_are "$(rows_of "$on")"
	# Those of the one that is off, one of which was draining already.
	is "$(changes)" $((changes + 2))
	held_goes_on stays
	held_ends stays
	wait_for 60 leads "$on" "$on"
}
# report_again HOST: what had reported that it is healthy has ended; that it shall drain holds.
report_again() {
	is "$(said "$1" reports health)" unknown
	field_is "$1" state draining 9000
	at "$1" nlb app health reports healthy
	at "$1" nlb app health drains healthy
	becomes "$1" active 9000
	said_is "$1" drains target draining
	field_is "$1" state draining 9001
}
rows_of() { jq -nc --arg host "${1#host}" '[$host, $host, $host]'; }
# And is back.
host_is_back() {
	local off on
	off=$(<"$tmp/off")
	on=$(other "$off")
	held stays "$on"
	boots "$off"
	everybody_serves
	not [ "$(boot_id "$off")" = "$(<"$tmp/boot-id")" ]
	held_goes_on stays
	held_ends stays
	report_again "$off"
	# Who comes back does not take over.
	wait_for 60 leads "$on" "$off"
}
follower_loses_power() {
	local leader
	wait_for 60 same_leader
	leader=$(leader host1)
	host_loses_power "$(other "$leader")"
	host_is_back
}
# It stays off for now.
leader_loses_power() {
	wait_for 60 same_leader
	host_loses_power "$(leader host1)"
}
same_leader() { [ -n "$(leader host1)" ] && [ "$(leader host1)" = "$(leader host2)" ]; }

# With what Documentation/health.rst has for it, no connection is lost.
host_reboots() {
	local before host=host1
	at $host mkdir -p /etc/systemd/system/nginx.service.d
	clean_stop_conf | at $host bash -c 'cat >/etc/systemd/system/nginx.service.d/nlb.conf'
	at $host systemctl daemon-reload
	held stays host2
	many_begin
	at $host systemctl --no-block reboot
	machine_ends $host HUP
	machine_unplug $host
	# It has said goodbye.
	rows_are '["2","2","2"]'
	health | jq -e '.stale | length == 0'
	field_is $host state draining
	before=$(grep -c host1 "$tmp/many.log")
	boots $host
	everybody_serves
	wait_for 60 is_more "$before" || many_fails
	many_end
	held_goes_on stays
	held_ends stays
	report_again $host
}

# An agent that is not heard of any more, and whose word may be used for ten minutes.
agent_dies_long_before() {
	mkdir -p "$tmp/patient"
	{
		cat <<-EOF
			host = 5
			lbus = ["$LBU:4771"]
			addresses = ["$HOST1", "$HOST2"]
			socket = "$tmp/patient/socket"
			state = "$tmp/patient/state.json"
			age_limit_ms = 600000
			[[app]]
			name = "one"
			vip = "$VIP:81/tcp"
			physical = "$HOST1:81"
			[[app]]
			name = "two"
			vip = "$VIP:81/tcp"
			physical = "$HOST2:81"
		EOF
		keys 1
	} >"$tmp/patient/agent.toml"
	background client "$tmp/patient/agent.log" nlb-agent run --config "$tmp/patient/agent.toml"
	echo $! >"$tmp/patient/agent.pid"
	wait_for 60 app patient show
	app patient health one healthy
	app patient health two healthy
	wait_for 60 patient_is_heard
	end KILL "$tmp/patient/agent.pid"
}

patient_is_heard() { health | jq -e '[.rows[] | select(.host == 5)] | length == 2'; }

# What an LBU knew of its connections is gone. Who says where one has been has it go on; others are reset, not left to
# wait. A host is dead meanwhile, of which the LBU's file of services says nothing.
lbu_boots_meanwhile() {
	local pid port passed off on boot host
	off=$(<"$tmp/off")
	on=$(other "$off")
	held known "$on"
	held forgotten "$on"
	port=$(client_port known)
	agent_dies_long_before
	# In this boot, another nlbd waits for that agent, and not for the host.
	pid=$(property lbu nlbd-health MainPID)
	at lbu systemctl kill -s KILL nlbd-health
	wait_for 60 rows_are "$(rows_of "$on")"
	not [ "$(property lbu nlbd-health MainPID)" = "$pid" ]
	becomes "$on" active 81
	field_is "$off" state draining
	touch "$tmp/quiet"
	boot=$(boot_id lbu)
	at lbu systemctl --no-block poweroff
	machine_ends lbu INT
	machine_unplug lbu
	boots lbu
	becomes "$on" active
	becomes "$off" draining
	wait_for 60 rows_are "$(rows_of "$on")"
	is "$(web)" "web $on"
	not [ "$(boot_id lbu)" = "$boot" ]
	wait_for 60 follows
	becomes "$on" active 9000
	becomes "$off" draining 9000
	for host in host1 host2; do
		becomes $host draining 9001
		becomes $host draining 81
	done
	routes_are_not "$port"
	lbu route add $VIP:80/tcp client $CLIENT:"$port" host "${address[$on]}"
	passed=$(counter lbu fwd pass-mid-stream)
	rm "$tmp/quiet"
	held_goes_on known
	held_ends known
	wait_for 60 gone "$(<"$tmp/forgotten.pid")"
	grep -q ConnectionResetError "$tmp/forgotten.log"
	(($(counter lbu fwd pass-mid-stream) > passed))
	host_is_back
}
follows() { at lbu nlb -j health | jq -e '.version == .applied'; }
routes_are_not() { lbu -j route show | jq -e --argjson port "$1" 'all(.client_port != $port)'; }

# All of them, and nothing of ours is left in the kernel.
site_loses_power() {
	local machine
	for machine in host1 lbu host2; do power_cut $machine; done
	unload_modules
	is "$(our_modules)" ""
	boots host2 lbu host1
	everybody_serves
	for machine in host1 host2; do
		is "$(said $machine reports health)" unknown
		becomes $machine draining 9001
	done
}

ktap_begin
modprobe overlay
topology
netns_add wires
keys_make 1
for machine in lbu host1 host2; do
	if [ $machine = lbu ]; then lbu_installed; else host_installed $machine; fi
	machine_unplug $machine
done
boots lbu host1 host2
ktap_run "all machines boot, each with its own id" all_boot
ktap_run "a host loses power" follower_loses_power
ktap_run "a host reboots" host_reboots
ktap_run "the leader of the group loses power" leader_loses_power
ktap_run "the LBU boots while it is off, and it is back" lbu_boots_meanwhile
ktap_run "all lose power" site_loses_power
ktap_end
