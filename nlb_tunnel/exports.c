// SPDX-License-Identifier: GPL-2.0
/*
 * Exports the symbols of crate `nlb_tunnel` to the modules which import it, as the
 * kernel's rust/exports.c does for crate `kernel`.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
