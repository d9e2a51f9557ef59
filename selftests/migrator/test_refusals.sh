#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What cannot be moved is refused with the reason, by not one packet, and works
# as before; see refusals.py. (A target that cannot take it: test_rollback.sh.)

. "$(dirname "$0")/lib.sh"

cluster
python3 -u "$(dirname "$tcp")/refusals.py"
