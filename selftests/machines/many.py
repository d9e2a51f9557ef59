#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""many.py LOG ROLE ARGUMENT... [+ ROLE ARGUMENT...]...

Run several roles of migrator/tcp.py, each in a process of its own: for an
emulated machine, starting the interpreter is the most work. The n-th writes to
LOG.n.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "migrator"))
import tcp  # noqa: E402


def main():
    log, roles = sys.argv[1], [[]]
    for word in sys.argv[2:]:
        if word == "+":
            roles.append([])
        else:
            roles[-1].append(word)
    for number, role in enumerate(roles, 1):
        if os.fork() == 0:
            output = os.open(f"{log}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv[1:] = role
            return tcp.main()
    worst = 0
    for _ in roles:
        worst = max(worst, os.waitstatus_to_exitcode(os.wait()[1]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
