#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""How often the machines of lib.sh's cluster() had too little memory for a segment until now, all together."""

from machines import counter

print(sum(counter(name, "PruneCalled") for name in ("client", "lbu", "host1", "host2")))
