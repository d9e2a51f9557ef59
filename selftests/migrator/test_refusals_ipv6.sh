#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What IPv6 has that cannot be moved, and listeners of either family; see
# refusals_ipv6.py.
# long

. "$(dirname "$0")/lib.sh"

cluster
ipv6
python3 -u "$(dirname "$tcp")/refusals_ipv6.py"
