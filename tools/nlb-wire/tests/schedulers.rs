// SPDX-License-Identifier: GPL-2.0

//! What schedulers promise, for endpoints and weights that nobody chose.

use nlb_wire::{
    addr::{
        Addr,
        FourTuple,
        Proto, //
    },
    least::least,
    maglev::{
        self,
        By,
        SLOTS, //
    },
};
use proptest::{
    collection::{
        btree_map,
        vec, //
    },
    prelude::*,
};

/// The table of these endpoints, by address.
fn table(endpoints: &[(u32, u32)]) -> Vec<u32> {
    let mut entries: Vec<_> = (0..)
        .zip(endpoints)
        .map(|(index, (host, weight))| {
            maglev::Entry::new(index, (Addr::v4(host.to_be_bytes()), 0), *weight)
        })
        .collect();
    let mut table = vec![0; SLOTS];
    maglev::fill(&mut entries, &mut table).unwrap();
    table
        .into_iter()
        .map(|index| endpoints[usize::from(index)].0)
        .collect()
}

/// Endpoints at any addresses, of weights as they are in one service, at least two that count.
fn endpoints() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let weight = prop_oneof![Just(0u32), Just(1), 1..=100u32, 1..=65535u32];
    btree_map(any::<u32>(), weight, 2..40)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_filter("two that count", |all: &Vec<_>| {
            all.iter().filter(|(_, weight)| *weight > 0).count() >= 2
        })
        .prop_shuffle()
}

fn total(endpoints: &[(u32, u32)]) -> f64 {
    endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn maglev_shares_follow_the_weights(endpoints in endpoints()) {
        let table = table(&endpoints);
        let exact = |weight: &u32| f64::from(*weight) * SLOTS as f64 / total(&endpoints);
        // Who is to have less than a slot has one all the same, at the cost of others.
        let light = endpoints.iter().filter(|(_, weight)| *weight > 0 && exact(weight) < 1.0);
        let off = 1.0 + light.count() as f64;
        for (host, weight) in &endpoints {
            let count = table.iter().filter(|slot| *slot == host).count();
            prop_assert_eq!(*weight == 0, count == 0);
            let exact = exact(weight);
            prop_assert!((count as f64 - exact).abs() < off, "{count} for {exact}");
        }
    }

    #[test]
    fn maglev_does_not_depend_on_the_order(endpoints in endpoints(), by in any::<prop::sample::Index>()) {
        let mut other = endpoints.clone();
        other.rotate_left(by.index(endpoints.len()));
        prop_assert!(table(&endpoints) == table(&other));
    }

    #[test]
    fn maglev_moves_little_when_one_goes(endpoints in endpoints(), gone in any::<prop::sample::Index>()) {
        let mut rest = endpoints.clone();
        let (gone, _) = rest.remove(gone.index(endpoints.len()));
        prop_assume!(total(&rest) > 0.0);
        let (before, after) = (table(&endpoints), table(&rest));
        let needless = before.iter().zip(&after).filter(|(b, a)| **b != gone && a != b).count();
        prop_assert!(needless * 100 <= SLOTS, "{needless}");
    }

    #[test]
    fn maglev_has_somebody_for_every_connection(client in any::<[u8; 16]>(), v4 in any::<bool>(), port in any::<u16>()) {
        let table: Vec<_> = (0..SLOTS).map(|slot| (slot & 0xff) as u16).collect();
        let [a, b, c, d, ..] = client;
        let (client, vip) = match v4 {
            true => (Addr::v4([a, b, c, d]), Addr::v4([192, 0, 2, 10])),
            false => (Addr::v6(client), Addr::v6([1; 16])),
        };
        if let Some(tuple) = FourTuple::new(client, port, vip, 80, Proto::Tcp) {
            let picked = maglev::pick(&table, &tuple, By::ClientAndPort);
            prop_assert!(picked.is_some_and(|index| index < 256));
        }
    }

    #[test]
    fn least_is_nobody_more_than(candidates in vec((0..1u64 << 41, 0..=100u32), 0..40)) {
        let all = candidates.iter().enumerate();
        let picked = least(all.map(|(index, (load, weight))| (index, *load, *weight)));
        prop_assert_eq!(picked.is_none(), candidates.iter().all(|(_, weight)| *weight == 0));
        if let Some(picked) = picked {
            let (load, weight) = candidates[picked];
            prop_assert!(weight > 0);
            for (index, (other, its_weight)) in candidates.iter().enumerate() {
                let (mine, others) = (load * u64::from(*its_weight), other * u64::from(weight));
                prop_assert!(*its_weight == 0 || mine < others || (mine == others && picked <= index));
            }
        }
    }
}
