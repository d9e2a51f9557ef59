#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 900
# long
#
# Whatever a connection is in the middle of goes along: data in flight and to be
# sent, windows that are closed, data out of order, a half-closed connection,
# numbers that are about to wrap. TIMES repeats each (debug/test_repeat.sh).

. "$(dirname "$0")/state.sh"

ktap_begin
cluster
long_timeouts
scenarios packets_are_right <<-EOF
	300 KB in flight and lost, 2 MB not sent: in_flight
	some segments in flight are lost: in_flight_holes
	all in flight has arrived, no acknowledgement has: in_flight_received
	in CLOSE_WAIT, the reply in flight: half_closed_with_reply
	an attempt fails, all queues stay: rolled_back
EOF
usual_timeouts
# tcp_rmem's maximum for window scales of 0, 3, 7 and 14.
scenarios packets_are_right <<-EOF
	in flight and lost, without SACK: in_flight 0
	not sent, nothing in flight: unsent
	client's window closed: client_window_closed opens
	client's window closed, the update is lost: client_window_closed lost
	our window closed: our_window_closed
	megabytes partly read: partly_read
	one hole: holes 1
	5 holes: holes 5
	32 holes: holes 32
	33 holes are refused: holes 33
	holes and a FIN behind them: holes 3 fin
	holes without SACK: holes 2 "" 0
	CLOSE_WAIT, nothing unread: half_closed 0
	CLOSE_WAIT, one byte unread: half_closed 1
	CLOSE_WAIT, 5 bytes unread: half_closed 5
	CLOSE_WAIT, 1,000,000 bytes unread: half_closed 1000000
	CLOSE_WAIT, the program has seen the end: half_closed 0 seen
	closed by us, refused: shut_down
	window scales for buffers of 65535 and 65535: window_scales 65535 65535
	window scales for buffers of 65535 and 1 GiB: window_scales 65535 1073741824
	window scales for buffers of 1 GiB and 65535: window_scales 1073741824 65535
	window scales for buffers of 6 MB and 400 KB: window_scales 6291456 400000
	small segments: window_scales 6291456 6291456 600
	large segments: window_scales 6291456 6291456 9000
	options of the socket: options
EOF
# Made by hand, it has no handshake to begin with.
scenarios no_reset <<-EOF
	sequence numbers and timestamps wrap: wrap
EOF
ktap_run "nothing is left at the host" wait_for 30 no_mappings host1
ktap_end
