# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For tests of who may speak to a migrator: changes of the keys, and what they do to migrations.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck disable=SC2034 # for those who source this
peer=$(dirname "${BASH_SOURCE[0]}")/peer.py

# Both machines without a peer, then each with the key that is given (words of nlb peer add).
keys() {
	ns lbu nlb peer del $HOST1 2>/dev/null || true
	ns host1 nlb peer del $LBU_TO_HOST1 2>/dev/null || true
	# shellcheck disable=SC2086
	ns lbu nlb peer add $HOST1 $1
	# shellcheck disable=SC2086
	ns host1 nlb peer add $LBU_TO_HOST1 $2
}
good() { keys "key 1 secret-file $tmp/secret" "key 1 secret-file $tmp/secret"; }

# Connections move; they stay. Also as a condition, where "set -e" has no effect.
moves() { classifier --to $HOST1 && client --bytes 20000 --count 2 && migrated 2 && stop classifier; }
stays() {
	classifier --to $HOST1 --timeout 1500 && client --bytes 20000 && refused 1 "peer cannot be reached" &&
		stop classifier
}
# more MACHINE NAME BEFORE: a counter has grown.
more() { [ "$(counter "$1" migrator "$2")" -gt "$3" ] || { echo "$2 of $1 did not grow from $3"; return 1; }; }
snmp() { ns "$1" nstat -asz "TcpExt$2" | awk -v name="TcpExt$2" '$1 == name { print $2 }'; }
