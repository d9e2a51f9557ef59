#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Applications that listen in every way there is get connections by their plain
# accept(); see listeners.py.

. "$(dirname "$0")/lib.sh"

cluster
# IPv6 beside it, for listeners of both families.
(ipv6)
python3 -u "$(dirname "$tcp")/listeners.py"
