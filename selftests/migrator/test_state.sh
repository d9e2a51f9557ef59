#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 900
#
# Whatever a connection is in the middle of goes along: data in flight and to be
# sent, windows that are closed, data out of order, a half-closed connection,
# numbers that are about to wrap. (Each of it many times: debug/test_repeat.sh.)

. "$(dirname "$0")/state.sh"

ktap_begin
cluster
all_scenarios
ktap_run "nothing is left at the host" wait_for 30 no_mappings host1
ktap_end
