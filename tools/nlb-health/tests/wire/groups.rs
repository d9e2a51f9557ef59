// SPDX-License-Identifier: MIT OR Apache-2.0

//! Any changes of a group, and anything that is said of them.

use super::{number, records};
use nlb_health::wire::*;
use proptest::{collection::vec, prelude::*};

pub(crate) fn changes() -> impl Strategy<Value = Message> {
    let same = (1..=u32::MAX, number(), number(), 0..=AGE_LIMIT_MAX);
    let all = (2..=u64::MAX, records(0), vec(same, 1..=20));
    all.prop_map(|(number, records, same)| {
        let mut same: Vec<_> = same
            .into_iter()
            .map(|(host, back, more, age)| Same {
                host,
                base: number - back % (number - 1) - 1,
                more: more.max(1),
                age,
            })
            .filter(|same| same.base != 0)
            .collect();
        same.sort_by_key(|same| same.host);
        same.dedup_by_key(|same| same.host);
        Message::Changes(Changes {
            number,
            records,
            same,
        })
    })
}

pub(crate) fn heard_part() -> impl Strategy<Value = Message> {
    let heard = (1..=u32::MAX, 1..=u64::MAX, 1..=u64::MAX);
    let missing = vec(1..=u32::MAX, 1..=SAME_MAX);
    (heard, missing).prop_map(|((host, epoch, number), mut missing)| {
        missing.sort();
        missing.dedup();
        let heard = Heard {
            host,
            epoch,
            number,
        };
        Message::HeardPart(HeardPart { heard, missing })
    })
}
