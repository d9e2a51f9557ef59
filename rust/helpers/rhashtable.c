// SPDX-License-Identifier: GPL-2.0

#include <linux/rhashtable.h>

__nlb_helper int nlb_helper_rhashtable_init(struct rhashtable *ht,
					    const struct rhashtable_params *params)
{
	return rhashtable_init(ht, params);
}

__nlb_helper void *nlb_helper_rhashtable_lookup(struct rhashtable *ht, const void *key,
						const struct rhashtable_params *params)
{
	return rhashtable_lookup(ht, key, *params);
}

__nlb_helper int nlb_helper_rhashtable_lookup_insert_fast(struct rhashtable *ht,
							  struct rhash_head *obj,
							  const struct rhashtable_params *params)
{
	return rhashtable_lookup_insert_fast(ht, obj, *params);
}

__nlb_helper int nlb_helper_rhashtable_remove_fast(struct rhashtable *ht, struct rhash_head *obj,
						   const struct rhashtable_params *params)
{
	return rhashtable_remove_fast(ht, obj, *params);
}

__nlb_helper struct bucket_table *nlb_helper_rht_table_rcu(struct rhashtable *ht)
{
	return rht_dereference_rcu(ht->tbl, ht);
}

__nlb_helper struct bucket_table *nlb_helper_rht_future_table_rcu(struct rhashtable *ht,
								  struct bucket_table *tbl)
{
	return rht_dereference_rcu(tbl->future_tbl, ht);
}

__nlb_helper struct rhash_head *nlb_helper_rht_first_rcu(struct bucket_table *tbl,
							 unsigned int bucket)
{
	return rht_ptr_rcu(rht_bucket(tbl, bucket));
}

__nlb_helper struct rhash_head *nlb_helper_rht_next_rcu(struct rhash_head *he)
{
	return rcu_dereference(he->next);
}

__nlb_helper bool nlb_helper_rht_is_a_nulls(const struct rhash_head *ptr)
{
	return rht_is_a_nulls(ptr);
}
