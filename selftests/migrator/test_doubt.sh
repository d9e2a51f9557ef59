#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# debug
# timeout: 300
#
# What an origin does that does not know whether the target has the connection, over several connections to
# a target that is played by hand (target.py).

. "$(dirname "$0")/lib.sh"

# host2 is no migrator any more.
by_hand() {
	local rc=0
	ns host2 nlb peer del $LBU_TO_HOST2
	ns lbu nlb peer del $HOST2
	ns lbu nlb peer add $HOST2 unauthenticated
	"$(dirname "$tcp")/target.py" "$1" || rc=$?
	ns lbu nlb peer del $HOST2
	peer_add lbu $HOST2
	peer_add host2 $LBU_TO_HOST2
	return $rc
}

ktap_begin
cluster
ktap_run "an ABORT that is owed is told once over each connection" by_hand owed
ktap_run "a COMMIT that cannot be repeated keeps nobody waiting" by_hand busy
ktap_end
