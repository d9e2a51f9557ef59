#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run what comes in on stdin, to its end; the last line of the output has the exit status.

cd /tmp/log || exit
command=$(cat)
(eval "$command") </dev/null 2>&1
printf '\nnlb-status %s\n' $?
