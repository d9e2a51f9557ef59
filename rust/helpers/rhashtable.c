// SPDX-License-Identifier: GPL-2.0

#include <linux/jhash.h>
#include <linux/rhashtable.h>

__nlb_helper u32 nlb_helper_jhash2(const u32 *k, u32 length, u32 initval)
{
	return jhash2(k, length, initval);
}

__nlb_helper int nlb_helper_rhashtable_init(struct rhashtable *ht,
					    const struct rhashtable_params *params)
{
	return rhashtable_init(ht, params);
}

__nlb_helper int nlb_helper_rhashtable_lookup_insert_key(struct rhashtable *ht, const void *key,
							 struct rhash_head *obj,
							 const struct rhashtable_params *params)
{
	return rhashtable_lookup_insert_key(ht, key, obj, *params);
}

__nlb_helper int nlb_helper_rhashtable_remove_fast(struct rhashtable *ht, struct rhash_head *obj,
						   const struct rhashtable_params *params)
{
	return rhashtable_remove_fast(ht, obj, *params);
}

__nlb_helper int nlb_helper_rhashtable_replace_fast(struct rhashtable *ht,
						    struct rhash_head *obj_old,
						    struct rhash_head *obj_new,
						    const struct rhashtable_params *params)
{
	return rhashtable_replace_fast(ht, obj_old, obj_new, *params);
}

__nlb_helper const void *nlb_helper_rht_bucket_const(struct bucket_table *tbl, unsigned int hash)
{
	return rht_bucket(tbl, rht_bucket_index(tbl, hash));
}
