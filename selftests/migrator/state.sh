# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Scenarios of state.py, and every packet as its sender sent it.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

state=$(dirname "$tcp")/state.py
times=${TIMES:-1} options=()
# Of many runs only the headers are kept; the programs compare the bytes, too.
((times == 1)) || SNAP=128 options=(--headers)

# Scenarios of what is in flight: a retransmission timeout would be seen, and does not come by itself when the machine
# is slow; and those of all else.
long_timeouts() {
	local machine
	for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=3000000; done
	ns lbu sysctl -qw net.ipv4.tcp_early_retrans=0
	ns client sysctl -qw net.ipv4.tcp_slow_start_after_idle=0
}
usual_timeouts() {
	local machine
	for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=200000; done
}

packets_are_right() { holds "${options[@]}"; }
no_reset() {
	capture_stop
	"$pcap" no-rst "$tmp"/sent-*.pcap
}

# scenarios CHECK: those on stdin, a result each, and one for what CHECK finds in their packets.
scenarios() {
	local line list results=0
	mapfile -t list
	watch
	while read -r line; do
		case $line in
		"ok "*) ktap_ok "${line#ok }" ;;
		"not ok "*) ktap_not_ok "${line#not ok }" ;;
		*) ktap_note "${line#\# }" && continue ;;
		esac
		results=$((results + 1))
	done < <(printf '%s\n' "${list[@]}" | python3 "$state" --times "$times" 2>&1)
	((results == ${#list[@]})) || ktap_not_ok "all scenarios came to an end"
	ktap_run "the packets of all these" "$1"
}
