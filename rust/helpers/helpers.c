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

#include "bottom_half.c"
#include "dst.c"
#include "genetlink.c"
#include "ip.c"
#include "kthread.c"
#include "neighbour.c"
#include "net_namespace.c"
#include "netdevice.c"
#include "netfilter.c"
#include "percpu.c"
#include "rcu.c"
#include "rhashtable.c"
#include "sched.c"
#include "security.c"
#include "skbuff.c"
#include "slab.c"
#include "socket.c"
#include "string.c"
#include "tcp.c"
#include "tracepoint.c"
#include "xarray.c"
