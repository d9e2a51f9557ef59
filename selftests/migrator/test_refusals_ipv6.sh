#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# As test_refusals.sh over IPv6, and what IPv6 has that cannot be moved, and
# listeners of either family.

. "$(dirname "$0")/lib.sh"

cluster
ipv6
python3 -u "$(dirname "$tcp")/refusals.py"
