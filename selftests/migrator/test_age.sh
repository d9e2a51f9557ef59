#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# debug
#
# The age of the client's last timestamp goes along (age.py).

. "$(dirname "$0")/lib.sh"

cluster
ns lbu nlb peer del $HOST1
ns lbu nlb peer add $HOST1 port 4771 unauthenticated
python3 -u "$(dirname "$tcp")/age.py"
