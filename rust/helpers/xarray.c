// SPDX-License-Identifier: GPL-2.0

#include <linux/xarray.h>

__nlb_helper void nlb_helper_xa_init_alloc_bh(struct xarray *xa)
{
	xa_init_flags(xa, XA_FLAGS_ALLOC | XA_FLAGS_LOCK_BH);
}

__nlb_helper void nlb_helper_xa_lock_bh(struct xarray *xa)
{
	xa_lock_bh(xa);
}

__nlb_helper void nlb_helper_xa_unlock_bh(struct xarray *xa)
{
	xa_unlock_bh(xa);
}
