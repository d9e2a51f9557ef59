#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
# timeout: 900
#
# Thousands of connections leave at once, over one connection of the migrators; with LONG=1, 10,000.

. "$(dirname "$0")/lib.sh"

thousands=$(dirname "$tcp")/thousands.py

ktap_begin
cluster
if [ -n "${LONG:-}" ]; then
	ktap_run "10,000 connections, 4096 at once" "$thousands" 10000 4096
else
	ktap_run "1,000 connections at once" "$thousands" 1000 1000
fi
ktap_run "nothing is left at the host" wait_for 100 no_mappings host1
ktap_end
