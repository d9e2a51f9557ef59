// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hosts that speak for hosts without an agent (the proxies 1704 of FIG. 17A). They come in pairs, for one may fail: of
//! an application that both know, one row counts.

use super::plan::{weight, worse, AllGone, Place};
use nlb_health::row::{Directive, Health, Identity, Row, Status};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Of all `rows`, each with its host, those that count. What a proxy says does not if the host says it itself, but for
/// what it asks for: it is told when that is in force. Of what several proxies say, see [`together`]; where a host `left`
/// with a goodbye, there are no connections however they find it.
pub(super) fn once<'a>(
    rows: impl Iterator<Item = (u32, &'a Row)>,
    proxies: &BTreeSet<u32>,
    left: &HashSet<Place>,
) -> Vec<(Place, Status)> {
    let mut own = Vec::new();
    let mut proxied: HashMap<&Identity, (Place, Status)> = HashMap::new();
    for (host, row) in rows {
        let status = row.status;
        if proxies.contains(&host) {
            let known = proxied.entry(&row.identity);
            known
                .and_modify(|(_, known)| *known = together(*known, status))
                .or_insert((Place::of(row), status));
        } else {
            own.push((&row.identity, (Place::of(row), status)));
        }
    }
    for (identity, (_, status)) in &mut own {
        if let Some((_, said)) = proxied.get(identity) {
            status.target = worse(status.target, said.target);
        }
    }
    for (identity, _) in &own {
        proxied.remove(identity);
    }
    for (place, status) in proxied.values_mut() {
        if left.contains(place) {
            status.target = worse(status.target, Directive::Draining);
        }
    }
    let own = own.into_iter().map(|(_, row)| row);
    own.chain(proxied.into_values()).collect()
}

/// Of `all` that is gone, what counts beside `rows`: a proxy that is silent has no say where somebody else speaks.
pub(super) fn gone(all: &AllGone, rows: &[(Place, Status)], proxies: &BTreeSet<u32>) -> AllGone {
    let rows = rows.iter().filter(|_| !proxies.is_empty());
    let here: HashSet<_> = rows.map(|(place, _)| place).collect();
    let all = all.iter();
    let all = all.filter(|((place, host), _)| !(proxies.contains(host) && here.contains(place)));
    all.map(|(key, gone)| (*key, *gone)).collect()
}

/// It is healthy if one of them finds so: the other one may be cut off from it. If both do, the smaller weight counts. No
/// connections are asked for if one of them asks for none.
fn together(one: Status, other: Status) -> Status {
    let rank = |status: &Status| (status.health != Health::Healthy, weight(status));
    let better = if rank(&one) <= rank(&other) {
        one
    } else {
        other
    };
    Status {
        target: worse(one.target, other.target),
        ..better
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::Gone, *};
    use nlb_health::row::AppType;

    fn row(last: u8, detail: &str, health: Health, capacity: u8, target: Directive) -> Row {
        Row {
            identity: Identity {
                app_type: AppType {
                    vip: "192.0.2.10:80".parse().unwrap(),
                    transport: 6,
                    protocol: "http".to_owned(),
                    detail: detail.to_owned(),
                },
                physical: ([10, 0, 0, last], 80).into(),
            },
            status: Status {
                health,
                load: 0,
                capacity,
                target,
                current: Directive::Active,
            },
        }
    }

    #[test]
    fn pairs_count_once() {
        use Directive::{Active, Draining, Inactive};
        use Health::{Failing, Healthy, Unknown};
        let (proxies, none) = ([7, 8].into(), HashSet::new());
        // Host, health, capacity and target of each row; health, weight and target of what counts.
        let cases = [
            (vec![(7, Healthy, 50, Active)], (Healthy, 50, Active)),
            (
                vec![(7, Healthy, 50, Active), (8, Healthy, 40, Active)],
                (Healthy, 40, Active),
            ),
            (
                vec![(7, Failing, 50, Active), (8, Healthy, 60, Active)],
                (Healthy, 60, Active),
            ),
            (
                vec![(7, Healthy, 60, Active), (8, Unknown, 50, Active)],
                (Healthy, 60, Active),
            ),
            (
                vec![(7, Failing, 50, Active), (8, Failing, 50, Active)],
                (Failing, 50, Active),
            ),
            (
                vec![(7, Healthy, 50, Draining), (8, Healthy, 50, Active)],
                (Healthy, 50, Draining),
            ),
            (
                vec![(7, Failing, 50, Draining), (8, Healthy, 50, Active)],
                (Healthy, 50, Draining),
            ),
            // Its own agent knows better.
            (
                vec![(7, Healthy, 50, Active), (1, Failing, 30, Active)],
                (Failing, 30, Active),
            ),
            (
                vec![(1, Healthy, 30, Active), (8, Failing, 50, Active)],
                (Healthy, 30, Active),
            ),
            // But who is told that it is draining may stop it.
            (
                vec![(8, Failing, 50, Draining), (1, Healthy, 30, Active)],
                (Healthy, 30, Draining),
            ),
            (
                vec![
                    (7, Healthy, 50, Active),
                    (1, Healthy, 30, Draining),
                    (8, Healthy, 50, Inactive),
                ],
                (Healthy, 30, Inactive),
            ),
        ];
        for (said, expected) in cases {
            let rows: Vec<_> = said
                .iter()
                .map(|(host, health, capacity, target)| {
                    (*host, row(1, "", *health, *capacity, *target))
                })
                .collect();
            let all = once(rows.iter().map(|(host, row)| (*host, row)), &proxies, &none);
            let all: Vec<_> = all
                .iter()
                .map(|(_, status)| (status.health, weight(status), status.target))
                .collect();
            assert_eq!(all, [expected], "{said:?}");
        }
    }

    #[test]
    fn others_all_count() {
        let good = |last, detail| row(last, detail, Health::Healthy, 50, Directive::Active);
        let rows = [
            (7, good(1, "")),
            (8, good(2, "")),
            (8, good(1, "/shop/*")),
            (1, good(1, "/x")),
        ];
        let none = HashSet::new();
        let count = |proxies: &[u32]| {
            let proxies = proxies.iter().copied().collect();
            once(rows.iter().map(|(host, row)| (*host, row)), &proxies, &none).len()
        };
        assert_eq!(count(&[7, 8]), 4);
        let rows = [(7, good(1, "")), (8, good(1, ""))];
        let count = |proxies: BTreeSet<u32>| {
            once(rows.iter().map(|(host, row)| (*host, row)), &proxies, &none).len()
        };
        assert_eq!((count([7, 8].into()), count([].into())), (1, 2));
    }

    /// One that has asked for no connections, and is dead, does not keep them away for ever.
    #[test]
    fn who_is_silent_has_no_say_where_another_speaks() {
        let row = row(1, "", Health::Healthy, 50, Directive::Active);
        let (here, mut away) = (Place::of(&row), Place::of(&row));
        away.physical.set_port(81);
        let gone = Gone {
            silent: Some(Directive::Draining),
            set: None,
        };
        let keys = [(here, 1), (here, 7), (away, 7)];
        let all: AllGone = keys.into_iter().map(|key| (key, gone)).collect();
        let rows = [(here, row.status)];
        let left = |proxies: &[u32]| {
            let proxies = proxies.iter().copied().collect();
            let left = super::gone(&all, &rows, &proxies);
            left.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(left(&[7, 8]), [(here, 1), (away, 7)]);
        assert_eq!(left(&[]), keys);
    }
}
