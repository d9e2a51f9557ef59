// SPDX-License-Identifier: GPL-2.0
/*
 * Non-trivial C macros cannot be used in Rust, and inlined C functions cannot
 * be called. This file makes functions ("helpers") that wrap those. Nothing
 * here has logic of its own.
 *
 * One file per header, sorted alphabetically.
 */

#include <linux/compiler_types.h>

#define __nlb_helper

#include "netdevice.c"
#include "rcu.c"
#include "skbuff.c"
