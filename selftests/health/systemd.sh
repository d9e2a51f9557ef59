# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154 # tmp is of lib.sh
#
# Machines that are booted: systemd is process 1 of namespaces of its own, in the network namespace of that name. What it
# and its units write below /etc, /usr and /var is on a disk, and there again at the next boot; what is below /run and /tmp
# goes. All that was written is on the disk, as if it was synced always.

# machine_boot MACHINE DIR [TARGET]: begins to boot it, up to there; the first time, with what is in DIR laid over /.
machine_boot() {
	local group=/sys/fs/cgroup/nlb-$1 console=$tmp/$1.console
	mkdir -p "$group" "$tmp/$1/disk"
	rm -f "$tmp/$1".{parent,ended}
	(
		# Not "ip netns exec", which hides the control groups.
		(
			echo "$BASHPID" >"$group/cgroup.procs"
			exec nsenter --net="/run/netns/$1" unshare --mount --uts --ipc --cgroup --pid --fork --kill-child \
				--propagation private \
				bash -ec "$(declare -f machine_init); machine_init $1 $2 $tmp/$1/disk ${3:-basic.target}"
		) &
		echo $! >"$tmp/$1.parent"
		wait $! && how=0 || how=$?
		echo $how >"$tmp/$1.ended"
	) >"$console" 2>&1 </dev/null &
	wait_for 60 machine_init_pid "$1"
}
# The number of its process 1.
machine_init_pid() {
	local parent
	read -r parent <"$tmp/$1.parent" && grep -o '[0-9]\+' "/proc/$parent/task/$parent/children"
}
# machine_wait MACHINE [TARGET]: until it has booted.
machine_wait() {
	{ wait_for 400 machine_has_come "$@" && [ ! -s "$tmp/$1.ended" ]; } || {
		tail -n 40 "$tmp/$1.console"
		at "$1" systemctl list-jobs
		return 1
	}
}
machine_has_come() { [ -s "$tmp/$1.ended" ] || at "$1" systemctl is-active --quiet "${2:-basic.target}"; }
# machine_ends MACHINE SIGNAL: until it has ended as the kernel ends namespaces: HUP is for a reboot, INT for power off.
machine_ends() {
	wait_for 400 test -s "$tmp/$1.ended" || {
		tail -n 40 "$tmp/$1.console"
		return 1
	}
	is "$(kill -l "$(<"$tmp/$1.ended")")" "$2"
	machine_off "$1"
}

# Runs as process 1 until it is systemd: MACHINE DIR DISK TARGET.
machine_init() {
	local dir
	hostname "$1"
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount --bind "$3" /mnt
	# What is mounted there would be hidden.
	mkdir -p /mnt/modules
	mount --rbind /usr/lib/modules /mnt/modules
	for dir in etc usr var; do
		mkdir -p "/mnt/$dir/"{upper,work}
		mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir/upper,workdir=/mnt/$dir/work" overlay "/$dir"
	done
	mount --rbind /mnt/modules /usr/lib/modules
	[ -e /mnt/installed ] || {
		# Of the distribution nothing is enabled.
		rm -rf /etc/systemd/system/multi-user.target.wants
		cp -a "$2/." /
		rm -f /etc/machine-id
		systemd-machine-id-setup
		systemd-sysusers
		touch /mnt/installed
	}
	mount -t tmpfs tmpfs /tmp
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	cat /proc/sys/kernel/random/uuid >/run/boot-id
	mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
	# What follows an update takes a minute, and is not needed.
	touch /etc/.updated /var/.updated
	# Whoever makes a container does that; credentials of units are mounted by a child.
	mount --make-rshared /
	exec env -i container=nlb PATH="$PATH" /lib/systemd/systemd --system --unit="$4" --show-status=no
}

# at MACHINE COMMAND...: there, beside systemd.
at() { nsenter -t "$(machine_init_pid "$1")" --all -- "${@:2}"; }

# machine_off MACHINE: everything there ends at once, as if its power was cut.
machine_off() {
	local group=/sys/fs/cgroup/nlb-$1
	[ ! -e "$group" ] || {
		echo 1 >"$group/cgroup.kill"
		wait_for 60 machine_is_empty "$group"
		find "$group" -depth -type d -exec rmdir {} +
	}
	wait_for 60 test -s "$tmp/$1.ended"
}
machine_is_empty() { grep -qx 'populated 0' "$1/cgroup.events"; }

# machine_unplug MACHINE: its network namespace goes, with all that is in it; its wires stay, in the namespace "wires".
machine_unplug() {
	local link
	for link in $(ip -n "$1" -j link show type veth | jq -r '.[].ifname'); do
		ip -n "$1" link set "$link" netns wires name "$1-$link"
	done
	netns_del "$1"
}
# machine_plug MACHINE: into another one, which knows nothing.
machine_plug() {
	local link
	netns_add "$1"
	for link in $(ip -n wires -j link | jq -r --arg prefix "$1-" '.[].ifname | select(startswith($prefix))'); do
		ip -n wires link set "$link" netns "$1" name "${link#"$1-"}"
	done
}

machines_cleanup() {
	local rc=$? parent machine
	set +e
	for parent in "$tmp"/*.parent; do
		machine=${parent##*/}
		[ ! -e "$parent" ] || machine_off "${machine%.parent}"
	done
	(exit "$rc")
	lib_cleanup
}
trap machines_cleanup EXIT

# installed MACHINE: what "make install" and whoever sets it up have put there.
installed() {
	local root=$tmp/$1/root generator
	mkdir -p "$root"/usr/{sbin,lib/sysusers.d,lib/systemd/system} "$root/etc/nlb" "$root/var/www"
	cp /nlb/bin/{nlb,nlb-agent,nlbd} "$root/usr/sbin/"
	cp /nlb/units/*.service "$root/usr/lib/systemd/system/"
	# Generators have nothing to find, and together they are given 90 seconds only.
	mkdir -p "$root/etc/systemd/system-generators"
	for generator in /usr/lib/systemd/system-generators/*; do
		ln -s /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
	done
	cp /nlb/units/nlb-agent.sysusers "$root/usr/lib/sysusers.d/nlb-agent.conf"
	install -m 600 "$tmp/key1" "$root/etc/nlb/health.key"
}
secret() { printf '[[key]]\nid = 1\nsecret_file = "health.key"\n'; }
# nginx_installed MACHINE: with a page that says where it is.
nginx_installed() {
	local root=$tmp/$1/root
	mkdir -p "$root/etc/nginx"
	cat >"$root/etc/nginx/nginx.conf" <<-EOF
		user www-data;
		pid /run/nginx.pid;
		events { }
		http {
			access_log off;
			keepalive_requests 1000000;
			keepalive_timeout 3600;
			server { listen 80; root /var/www; }
		}
	EOF
	echo "web $1" >"$root/var/www/page"
}

# What the daemon of the LBU knows, and what has become of it in the kernel.
health() { at lbu nlb -j health; }
rows() { health | jq -c '[.rows[] | .host | tostring] | sort'; }
rows_are() { [ "$(rows)" = "$1" ]; }
field_is() { [ "$(lbu -j endpoint show "$VIP:${4:-80}/tcp" host "${address[$1]}" | jq -r ".[0].$2")" = "$3" ]; }
becomes() {
	wait_for 120 field_is "$1" state "$2" "${3:-80}" || {
		lbu endpoint show
		at "$1" nlb app show
		logged "$1" nlb-agent
		return 1
	}
}
# runs MACHINE UNIT: within time.
runs() {
	wait_for 60 at "$1" systemctl is-active --quiet "$2" || {
		at "$1" systemctl status --no-pager "$2"
		return 1
	}
}
property() { at "$1" systemctl show -P "$3" "$2"; }
logged() { at "$1" journalctl -q -b --no-pager -o cat -u "$2"; }
is_logged() { logged "$1" "$2" | grep -q "$3"; }
# How often the LBU has changed what an endpoint does.
changes() { logged lbu nlbd-health | grep -c 'endpoint is' || true; }

# many_begin: a client that opens a connection after the other, until many_end, which fails if one of them did.
many_begin() {
	rm -f "$tmp/enough"
	background client "$tmp/many.log" python3 -c "
import http.client, os, sys
while not os.path.exists('$tmp/enough'):
    c = http.client.HTTPConnection('$VIP', 80, timeout=20)
    c.request('GET', '/page')
    sys.stdout.write(c.getresponse().read().decode())
    sys.stdout.flush()
    c.close()"
	echo $! >"$tmp/many.pid"
	wait_for 60 is_more 0
}
many_fails() {
	tail -n 20 "$tmp/many.log"
	ns client ss -tanoi
	return 1
}
# is_more COUNT: than so many answers of host1.
is_more() { (($(grep -c host1 "$tmp/many.log") > $1)); }
many_end() {
	touch "$tmp/enough"
	wait_for 60 gone "$(<"$tmp/many.pid")" || many_fails
	not grep -vx 'web host[12]' "$tmp/many.log"
}
# What has a unit lose no connection, as Documentation/health.rst has it: /etc/systemd/system/nginx.service.d/nlb.conf.
clean_stop_conf() {
	cat <<-EOF
		[Unit]
		After=nlb-agent.service
		[Service]
		ExecStartPost=-+/usr/sbin/nlb app undo web
		ExecStop=
		ExecStop=-+/usr/sbin/nlb app drain web wait
		ExecStop=-/usr/sbin/nginx -s quit
		TimeoutStopSec=300
		KillSignal=SIGQUIT
	EOF
}
