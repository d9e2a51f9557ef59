# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Scenarios of state.py, and every packet as its sender sent it.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

state=$(dirname "$tcp")/state.py
# both: if not empty, each of them over IPv4, and as often over IPv6 at the same time.
times=${TIMES:-1} beside=10 both='' options=()
# Of many runs only the headers are kept; the programs compare the bytes, too.
((times == 1)) || SNAP=128 options=(--headers)

# Scenarios of what is in flight: a retransmission timeout would be seen, and does not come by itself when the machine
# is slow; and those of all else.
long_timeouts() {
	local machine
	for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=10000000; done
	ns lbu sysctl -qw net.ipv4.tcp_early_retrans=0
}
usual_timeouts() {
	local machine
	for machine in lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_rto_min_us=200000; done
}

packets_are_right() { holds "${options[@]}"; }
# Made by hand, they have no handshake to begin with.
packets_without_handshake_are_right() { holds "${options[@]}" --begun 7; }

# scenarios CHECK: those on stdin, a result each, and one for what CHECK finds in their packets. Packets of a thousand
# runs find room for one scenario at a time.
scenarios() {
	local line
	((times > 100)) || {
		watched "$1"
		return
	}
	while read -r line; do watched "$1" <<<"$line"; done
}
watched() {
	local machine line list results=0
	mapfile -t list
	# What a congestion window has grown to stays, however long a program takes.
	for machine in client lbu host1; do ns $machine sysctl -qw net.ipv4.tcp_slow_start_after_idle=0; done
	watch
	while read -r line; do
		case $line in
		"ok "*) ktap_ok "${line#ok }" ;;
		"not ok "*) ktap_not_ok "${line#not ok }" ;;
		*) ktap_note "${line#\# }" && continue ;;
		esac
		results=$((results + 1))
	done < <(printf '%s\n' "${list[@]}" | python3 "$state" --times "$times" --beside "$beside" ${both:+--both} 2>&1)
	((results == ${#list[@]})) || ktap_not_ok "all scenarios came to an end"
	ktap_run "the packets of all these" "$1"
}

# Each pair of them once.
all_window_scales() {
	local ours
	times=15 beside=15 scenarios packets_are_right < <(for ours in {0..14}; do
		echo "window scales 0 to 14, and $ours: window_scales each $ours"
	done)
}

# Whatever a connection may be in the middle of.
all_scenarios() {
	long_timeouts
	scenarios packets_are_right <<-EOF
		200 KB in flight and lost, as much not sent: in_flight
		some segments in flight are lost: in_flight_holes
		all in flight has arrived, no acknowledgement has: in_flight_received
		in CLOSE_WAIT, the reply in flight: half_closed_with_reply
	EOF
	usual_timeouts
	scenarios packets_are_right <<-EOF
		an attempt fails, all queues stay: rolled_back
		in flight and lost, without SACK: in_flight 0
		not sent, nothing in flight: unsent
		client's window closed: client_window_closed opens
		client's window closed, the update is lost: client_window_closed lost
		our window closed: our_window_closed
		500 KB partly read: partly_read
		one hole: holes 1
		5 holes: holes 5
		32 holes: holes 32
		33 holes are refused: holes 33
		holes and a FIN behind them: holes 3 fin
		holes without SACK: holes 2 "" 0
		CLOSE_WAIT, nothing unread: half_closed 0
		CLOSE_WAIT, one byte unread: half_closed 1
		CLOSE_WAIT, 5 bytes unread: half_closed 5
		CLOSE_WAIT, 300,000 bytes unread: half_closed 300000
		CLOSE_WAIT, the program has seen the end: half_closed 0 seen
		closed by us, refused: shut_down
		window scales 0 and 0: window_scales 0 0
		window scales 0 and 14: window_scales 0 14
		window scales 14 and 0: window_scales 14 0
		window scales 7 and 3: window_scales 7 3
		segments of 1300 bytes: window_scales 7 7 1300
		large segments: window_scales 7 7 9000
		links of 1300 bytes at the host: smaller_mtu
		timestamps in microseconds: microseconds
		congestion that is marked: ecn
		both machines track connections: tracked 1
		connections that are tracked from the SYN on only: tracked 0
		connections that are exempt from that: tracked 0 exempt
		options of the socket: options
		what has been learnt of the path: learnt
		probes of a connection that is idle: keepalive
		the same, and the listener has others: keepalive 1
	EOF
	scenarios packets_without_handshake_are_right <<-EOF
		sequence numbers and timestamps wrap: wrap
	EOF
}

# A link that is so narrow has no addresses of IPv6 any more.
small_segments() { both='' scenarios packets_are_right <<<"small segments: window_scales 7 7 600"; }
