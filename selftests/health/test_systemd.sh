#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 1800
#
# The daemons as units of a real systemd, one on the LBU and one on host1, with the sandbox that the units have; and an
# nginx that systemd starts, stops and restarts, which is what the agent makes its row of. On host2 is another one, which
# is always there.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/systemd.sh"

declare -A says_to=([host1]="$LBU_TO_HOST1:4771" [host2]="$LBU_TO_HOST2:4771")
agent_config() {
	cat <<-EOF
		host = ${1#host}
		lbus = ["${says_to[$1]}"]
		addresses = ["${address[$1]}"]
		${2-"socket = \"$tmp/$1/socket\"
		state = \"$tmp/$1/state.json\""}
		[[app]]
		name = "web"
		vip = "$VIP:80/tcp"
		capacity = 40
	EOF
}

host1_installed() {
	local root=$tmp/host1/root
	installed host1
	{ agent_config host1 "" && echo 'unit = "nginx.service"' && secret; } >"$root/etc/nlb/agent.toml"
	nginx_installed host1
}
lbu_installed() {
	local root=$tmp/lbu/root
	installed lbu
	{ echo 'lbu = 9' && secret; } >"$root/etc/nlb/health.toml"
	cat >"$root/etc/nlb/classify.toml" <<-EOF
		listen = ["$LBU:8080"]
		default = "app"
		[pool.app]
		hosts = ["$HOST1"]
	EOF
}

why_is() { [ "$(at host1 nlb -j app show web | jq -r '.[0].why')" = "$1" ]; }

units_are_right() {
	local said
	said=$(at lbu systemd-analyze verify --man=no /usr/lib/systemd/system/nlb{,-agent,d-health,d-classify}.service 2>&1)
	is "$said" ""
}

# sandboxed MACHINE UNIT CAPABILITIES PROGRAM: the process of the unit has these and no others, is not root, gets no more,
# and cannot write where the program is.
sandboxed() {
	local pid uid set
	runs "$1" "$2"
	pid=$(property "$1" "$2" MainPID)
	# It counts as active before it is the program, with what it needs to become that.
	wait_for 60 at "$1" grep -qx "${4##*/}" "/proc/$pid/comm"
	at "$1" cat "/proc/$pid/status" >"$tmp/status"
	cat "$tmp/status"
	uid=$(awk '$1 == "Uid:" { print $2 }' "$tmp/status")
	((uid != 0 && uid != 65534))
	is "$(awk '$1 == "Uid:" { print $3, $4, $5 }' "$tmp/status")" "$uid $uid $uid"
	for set in Inh Prm Eff Bnd Amb; do
		is "$set $(awk -v set="Cap$set:" '$1 == set { print $2 }' "$tmp/status")" "$set $(printf '%016x' "$3")"
	done
	is "$(awk '$1 == "NoNewPrivs:" { print $2 }' "$tmp/status")" 1
	is "$(awk '$1 == "Seccomp:" { print $2 }' "$tmp/status")" 2
	not at "$1" nsenter -t "$pid" --mount -- touch "$4.new" 2>"$tmp/err"
	grep 'Read-only file system' "$tmp/err"
	# Nor sees the processes of others.
	[ "$2" = nlbd-classify ] || not at "$1" nsenter -t "$pid" --mount -S "$uid" -G "$uid" -- test -e /proc/1/status
}

# As after a boot, and after somebody has changed the file.
configuration_is_applied() {
	is "$(lbu -j service show | jq length)" 0
	at lbu systemctl start nlb
	is "$(lbu -j endpoint show $VIP:80/tcp | jq length)" 2
	lbu endpoint set $VIP:80/tcp host "${address[host2]}" weight 7
	at lbu systemctl reload nlb
	field_is host2 weight 1
}

daemons_run() {
	at lbu systemctl start nlbd-health
	at host1 systemctl start nlb-agent
	# CAP_NET_ADMIN.
	sandboxed lbu nlbd-health $((1 << 12)) /usr/sbin/nlbd
	sandboxed host1 nlb-agent 0 /usr/sbin/nlb-agent
	# And CAP_NET_BIND_SERVICE.
	at lbu systemctl start nlbd-classify
	sandboxed lbu nlbd-classify $((1 << 12 | 1 << 10)) /usr/sbin/nlbd
	at lbu systemctl reload nlbd-classify
	at lbu systemctl is-active nlbd-classify
	at lbu systemctl stop nlbd-classify
	# Those of nginx on host1 are not there, as it does not run.
	wait_for 60 rows_are '["2"]'
	wait_for 60 why_is "unit nginx.service is inactive (dead)"
}

unit_starts_and_stops() {
	becomes host2 active
	at host1 systemctl start nginx
	becomes host1 active
	wait_for 60 rows_are '["1","2"]'
	is "$(web)" "web host1 web host2"
	at host1 systemctl stop nginx
	becomes host1 draining
	wait_for 60 rows_are '["2"]'
	is "$(web)" "web host2"
	at host1 systemctl start nginx
	becomes host1 active
	is "$(web)" "web host1 web host2"
}

# A unit that has to end first: nobody is sent to nginx while it waits for that.
stop_job_waits() {
	at host1 bash -c 'cat >/etc/systemd/system/first.service' <<-EOF
		[Unit]
		BindsTo=nginx.service
		After=nginx.service
		[Service]
		ExecStart=/bin/sleep infinity
		ExecStop=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.2; done'
	EOF
	at host1 systemctl daemon-reload
	at host1 systemctl start first
	at host1 systemctl stop --no-block nginx
	becomes host1 draining
	at host1 systemctl is-active nginx
	rows_are '["1","2"]'
	why_is "unit nginx.service is active (running), stop job"
	# It was thought better of.
	at host1 touch /run/go
	wait_for 60 rows_are '["2"]'
	at host1 systemctl start nginx
	becomes host1 active
}

unit_dies() {
	at host1 systemctl kill -s KILL nginx
	becomes host1 draining
	why_is "unit nginx.service is failed (failed)"
	rows_are '["1","2"]'
	is "$(at host1 nlb -j app show web | jq -r '.[0].health')" failing
	is "$(web)" "web host2"
	at host1 systemctl start nginx
	becomes host1 active
	is "$(web)" "web host1 web host2"
}

# With what Documentation/health.rst has for it, a unit that is stopped loses not one connection.
clean_stop() {
	at host1 mkdir -p /etc/systemd/system/nginx.service.d
	clean_stop_conf | at host1 bash -c 'cat >/etc/systemd/system/nginx.service.d/nlb.conf'
	at host1 systemctl daemon-reload
	many_begin
	local before
	at host1 systemctl stop nginx
	wait_for 60 rows_are '["2"]'
	before=$(grep -c host1 "$tmp/many.log")
	at host1 systemctl start nginx
	wait_for 60 is_more "$before"
	many_end
}

reloads() {
	local pid
	pid=$(property host1 nlb-agent MainPID)
	at host1 sed -i 's/^capacity = 40/capacity = 30/' /etc/nlb/agent.toml
	at host1 systemctl reload nlb-agent
	wait_for 60 field_is host1 weight 30
	is "$(property host1 nlb-agent MainPID)" "$pid"
	pid=$(property lbu nlbd-health MainPID)
	at lbu systemctl reload nlbd-health
	wait_for 60 is_logged lbu nlbd-health 'read again'
	is "$(property lbu nlbd-health MainPID)" "$pid"
	is "$(web)" "web host1 web host2"
}

# Whoever is killed is started again, and goes on where it was.
killed() {
	local pid
	at host1 nlb app drain web wait
	field_is host1 state draining
	pid=$(property host1 nlb-agent MainPID)
	at host1 systemctl kill -s KILL nlb-agent
	wait_for 60 is_another host1 nlb-agent "$pid"
	wait_for 60 at host1 nlb app show web
	is "$(at host1 nlb -j app show web | jq -r '.[0] | [.health, .target] | join(" ")')" "healthy draining"
	field_is host1 state draining
	at host1 nlb app undo web
	becomes host1 active
	pid=$(property lbu nlbd-health MainPID)
	at lbu systemctl kill -s KILL nlbd-health
	wait_for 60 is_another lbu nlbd-health "$pid"
	wait_for 60 rows_are '["1","2"]'
	at host1 systemctl kill -s KILL nginx
	becomes host1 draining
	at host1 systemctl start nginx
	becomes host1 active
}
is_another() {
	at "$1" systemctl is-active --quiet "$2" && [ "$(property "$1" "$2" MainPID)" != "$3" ]
}

# What does not concern the unit changes nothing: systemd executes itself anew, and the bus is another one.
bus_comes_and_goes() {
	local changes
	changes=$(changes)
	at host1 systemctl daemon-reexec
	at host1 systemctl restart dbus
	wait_for 60 is_logged host1 nlb-agent 'cannot ask systemd'
	wait_for 60 is_logged host1 nlb-agent 'can be asked for units again'
	is "$(changes)" "$changes"
	field_is host1 state active
	at host1 systemctl kill -s KILL nginx
	becomes host1 draining
	at host1 systemctl start nginx
	becomes host1 active
}

# The host says goodbye: nobody waits until it is too old.
host_goes_down() {
	at host1 systemctl --no-block poweroff
	wait_for 60 rows_are '["2"]'
	health | jq -e '.stale | length == 0'
	becomes host1 draining
	is "$(web)" "web host2"
}

ktap_begin
load_modules nlb_fwd nlb_migrator
modprobe overlay
topology
vip_add lbu host1 host2
keys_make 1
lbu service add $VIP:80/tcp scheduler rr
for host in host1 host2; do
	lbu endpoint add $VIP:80/tcp host "${address[$host]}"
	ns $host nlb forwarder add "${lbu_of[$host]}"
done
host1_installed
lbu_installed
lbu save >"$tmp/lbu/root/etc/nlb/nlb.toml"
lbu service del $VIP:80/tcp
for machine in lbu host1; do machine_boot $machine "$tmp/$machine/root"; done
mkdir -p "$tmp/host2/www"
echo "web host2" >"$tmp/host2/www/page"
start_nginx host2
agent_start host2
app host2 health web healthy
for machine in lbu host1; do machine_wait $machine; done
ktap_run "systemd finds nothing wrong with the units" units_are_right
ktap_run "services are what the file says" configuration_is_applied
ktap_run "the daemons run in their sandboxes" daemons_run
ktap_run "a unit is started and stopped" unit_starts_and_stops
ktap_run "a stop job that waits" stop_job_waits
ktap_run "a unit is killed" unit_dies
ktap_run "a clean stop loses nothing" clean_stop
ktap_run "reload" reloads
ktap_run "daemons are killed" killed
ktap_run "systemd and the bus come anew" bus_comes_and_goes
ktap_run "the host goes down" host_goes_down
ktap_end
