#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# long
#
# Bytes that a program has read go along from the copy that the kernel keeps;
# see keep.py.

. "$(dirname "$0")/lib.sh"

# shellcheck source=selftests/kmemleak.sh
. "$(dirname "$0")/../kmemleak.sh"

# Where the kernel looks for it.
cluster
ktap_begin
[ ! -w /sys/kernel/debug/kmemleak ] || forget_leaks
ktap_run "IPv4" python3 -u "$(dirname "$tcp")/keep.py"
ipv6
ktap_run "IPv6, and the modules go" python3 -u "$(dirname "$tcp")/keep.py" unload
ktap_run "nothing leaked" nothing_leaked
ktap_end
