// SPDX-License-Identifier: GPL-2.0

#include <linux/slab.h>

__nlb_helper struct kmem_cache *nlb_helper_kmem_cache_create(const char *name, unsigned int size,
							     unsigned int align)
{
	return kmem_cache_create(name, size, align, 0, NULL);
}

__nlb_helper void *nlb_helper_kmem_cache_alloc(struct kmem_cache *cache, gfp_t flags)
{
	return kmem_cache_alloc(cache, flags);
}
