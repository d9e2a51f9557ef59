// SPDX-License-Identifier: GPL-2.0

//! Tests of the schedulers.

use super::*;
use nlb::wire::{
    addr::Addr,
    least::load, //
};

/// An endpoint.
pub(crate) struct Host {
    number: u32,
    weight: u32,
    max: u32,
    backup: bool,
    step: u32,
    /// Connections that it has, as whoever picks it counts them.
    pub(crate) active: Atomic<u32>,
    /// Whether clients may come again.
    pub(crate) keeps_clients: Atomic<bool>,
}

impl Host {
    /// One of weight 1, without a limit.
    pub(crate) fn new(number: u32) -> Result<Arc<Self>> {
        Ok(Arc::new(host(number, 1, 0, false, STEPS), GFP_KERNEL)?)
    }
}

impl Candidate for Host {
    fn place(&self) -> Place {
        Place {
            host: Addr::v4(self.number.to_be_bytes()),
            port: 0,
        }
    }

    fn share(&self) -> u32 {
        self.weight
    }

    fn is_idle(&self) -> bool {
        self.active.load(Relaxed) == 0
    }

    fn load(&self) -> u64 {
        load(self.active.load(Relaxed), 0)
    }

    fn step(&self) -> u32 {
        self.step
    }

    fn is_backup(&self) -> bool {
        self.backup
    }

    fn has_room(&self) -> bool {
        self.max == 0 || self.active.load(Relaxed) < self.max
    }

    fn keeps_clients(&self) -> bool {
        self.keeps_clients.load(Relaxed)
    }

    fn does_without_routes(&self) -> bool {
        self.number != FIRST + NEEDS_ROUTES
    }
}

/// The address of number 0.
const FIRST: u32 = 0x0a00_0000;
/// The number of a host that connections need a route to.
const NEEDS_ROUTES: u32 = 77;

fn host(number: u32, weight: u32, max: u32, backup: bool, step: u32) -> Host {
    Host {
        number: FIRST + number,
        weight,
        max,
        backup,
        step,
        active: Atomic::new(0),
        keeps_clients: Atomic::new(true),
    }
}

#[kunit_tests(nlb_fwd_scheduler)]
mod cases {
    use super::*;
    use nlb::wire::addr::Proto;

    /// Endpoints as (number, weight, limit, whether it is a backup).
    fn limited(
        scheduler: Scheduler,
        endpoints: &[(u32, u32, u32, bool)],
    ) -> Result<Arc<Schedule<Host>>> {
        let mut hosts = KVec::new();
        for (number, weight, max, backup) in endpoints {
            let host = host(*number, *weight, *max, *backup, STEPS);
            hosts.push(Arc::new(host, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Schedule::new(scheduler, hosts, false)
    }

    fn schedule(scheduler: Scheduler, weights: &[u32]) -> Result<Arc<Schedule<Host>>> {
        let mut endpoints = KVec::new();
        for (number, weight) in (1..).zip(weights) {
            endpoints.push((number, *weight, 0, false), GFP_KERNEL)?;
        }
        limited(scheduler, &endpoints)
    }

    impl From<NoEndpoint> for Error {
        fn from(_: NoEndpoint) -> Error {
            ENOENT
        }
    }

    /// Connection `number`.
    fn tuple(number: u32) -> FourTuple {
        let [_, high, port @ ..] = number.to_be_bytes();
        let port = u16::from_be_bytes(port);
        FourTuple::v4([10, 1, 0, high], port, [192, 0, 2, 10], 80, Proto::Tcp)
    }

    /// How often each host is picked by so many connections, all of which stay if `stay`.
    fn counts(schedule: &Schedule<Host>, start: u32, number: u32, stay: bool) -> Result<KVec<u32>> {
        let turn = Atomic::new(start);
        let mut counts = KVec::from_elem(0u32, schedule.endpoints().len(), GFP_KERNEL)?;
        for number in 0..number {
            let picked = schedule.pick(&turn, &tuple(number))?;
            picked.active.fetch_add(u32::from(stay), Relaxed);
            for (count, host) in counts.iter_mut().zip(schedule.endpoints()) {
                *count += u32::from(Arc::ptr_eq(host, picked));
            }
        }
        Ok(counts)
    }

    #[test]
    fn round_robin_by_weight() -> Result {
        // What divides the table's length is exact, in every stretch of one round.
        for weights in [&[1u32, 3][..], &[1, 1], &[2, 0, 6], &[1]] {
            let total: u32 = weights.iter().sum();
            for start in [0, 5, u32::MAX - 3] {
                let schedule = schedule(Scheduler::Wrr, weights)?;
                let counts = counts(&schedule, start, total * 16, false)?;
                for (count, weight) in counts.iter().zip(weights) {
                    assert_eq!(*count, weight * 16);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn weights_may_be_large() -> Result {
        let weights = [65535u32, 32768, 16384, 0, 1];
        for scheduler in [Scheduler::Wrr, Scheduler::Wlc, Scheduler::Mh] {
            let schedule = schedule(scheduler, &weights)?;
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let counts = counts(&schedule, 0, MAX_SLOTS, scheduler != Scheduler::Wrr)?;
            let tolerance = if scheduler == Scheduler::Mh { 300 } else { 2 };
            for (count, weight) in counts.iter().zip(weights) {
                let want = u64::from(weight) * u64::from(MAX_SLOTS) / total;
                assert!(u64::from(*count).abs_diff(want) <= tolerance.min(weight.into()));
            }
        }
        Ok(())
    }

    #[test]
    fn heavy_endpoints_get_no_bursts() -> Result {
        let schedule = schedule(Scheduler::Wrr, &[1, 3])?;
        let turn = Atomic::new(0);
        let mut row = 0;
        for _ in 0..1000 {
            let picked = schedule.pick(&turn, &tuple(1))?;
            row = if picked.weight == 3 { row + 1 } else { 0 };
            assert!(row <= 3);
        }
        Ok(())
    }

    #[test]
    fn weights_do_not_count() -> Result {
        for scheduler in [Scheduler::Rr, Scheduler::Lc] {
            let schedule = schedule(scheduler, &[1, 7, 0, 100, 3])?;
            assert_eq!(*counts(&schedule, 0, 256, true)?, [64, 64, 0, 64, 64]);
        }
        Ok(())
    }

    #[test]
    fn least_connections() -> Result {
        // Whoever is behind catches up first.
        let schedule = schedule(Scheduler::Lc, &[1, 1, 1])?;
        for (host, active) in schedule.endpoints().iter().zip([100, 0, 40]) {
            host.active.store(active, Relaxed);
        }
        assert_eq!(*counts(&schedule, 0, 40, true)?, [0, 40, 0]);
        assert_eq!(*counts(&schedule, 0, 120, true)?, [0, 60, 60]);
        assert_eq!(*counts(&schedule, 0, 300, true)?, [100, 100, 100]);
        Ok(())
    }

    #[test]
    fn least_connections_by_weight() -> Result {
        let weighted = schedule(Scheduler::Wlc, &[1, 3, 0, 4])?;
        assert_eq!(*counts(&weighted, 0, 800, true)?, [100, 300, 0, 400]);
        // Connections that are gone at once leave everybody equal: by turns, as weighted round robin.
        let idle = schedule(Scheduler::Wlc, &[1, 3, 0, 4])?;
        assert_eq!(*counts(&idle, 0, 800, false)?, [100, 300, 0, 400]);
        Ok(())
    }

    #[test]
    fn consistent_hashing() -> Result {
        let both = schedule(Scheduler::Mh, &[1, 1, 0, 2])?;
        let counts = counts(&both, 0, 4000, true)?;
        // 5 % of 4000 is above seven standard deviations.
        for (count, want) in counts.iter().zip([1000u32, 1000, 0, 2000]) {
            assert!(count.abs_diff(want) <= 200);
            assert!((want == 0) == (*count == 0));
        }
        // Neither turn nor load matters.
        let again = schedule(Scheduler::Mh, &[1, 1, 0, 2])?;
        let turn = Atomic::new(77);
        let without = schedule(Scheduler::Mh, &[1, 0, 0, 2])?;
        let mut moved = 0u32;
        for number in 0..4000 {
            let host = both.pick(&turn, &tuple(number))?.number;
            let same = again.pick(&turn, &tuple(number))?.number;
            let now = without.pick(&turn, &tuple(number))?.number;
            assert_eq!(host, same);
            assert!(now != 0x0a00_0002);
            moved += u32::from(host != 0x0a00_0002 && host != now);
        }
        assert!(moved <= 80);
        Ok(())
    }

    #[test]
    fn all_of_a_client_to_one() -> Result {
        let all = schedule(Scheduler::Sh, &[1, 1, 0, 2])?;
        let turn = Atomic::new(0);
        let mut counts = [0u32; 4];
        for number in 0..256 {
            // Ports differ, and then clients do.
            let host = all.pick(&turn, &tuple(number << 16))?;
            for port in 1..8 {
                let other = all.pick(&turn, &tuple(number << 16 | port))?;
                assert!(core::ptr::eq(&**host, &**other));
            }
            for (count, other) in counts.iter_mut().zip(all.endpoints()) {
                *count += u32::from(Arc::ptr_eq(host, other));
            }
        }
        // Four standard deviations.
        for (count, want) in counts.iter().zip([64u32, 64, 0, 128]) {
            assert!(count.abs_diff(want) <= 32);
            assert!((want == 0) == (*count == 0));
        }
        // Without routes, too.
        let mut hosts = KVec::new();
        for number in 1..4 {
            hosts.push(Host::new(number)?, GFP_KERNEL)?;
        }
        let all = Schedule::new(Scheduler::Sh, hosts, true)?;
        for number in 0..256 {
            let host = all.pick_by_hash(&tuple(number << 16)).ok_or(ENOENT)?;
            assert!(core::ptr::eq(
                &**host,
                &**all.pick(&turn, &tuple(number << 16 | 9))?
            ));
        }
        Ok(())
    }

    #[test]
    fn shortest_expected_delay() -> Result {
        let sed = schedule(Scheduler::Sed, &[1, 3, 0])?;
        let nq = schedule(Scheduler::Nq, &[1, 3, 0])?;
        let turn = Atomic::new(0);
        // With one more, 1/1 and 2/3; but the first one has nothing to do.
        for schedule in [&sed, &nq] {
            for (host, active) in schedule.endpoints().iter().zip([0, 1, 0]) {
                host.active.store(active, Relaxed);
            }
        }
        assert!(Arc::ptr_eq(
            sed.pick(&turn, &tuple(0))?,
            &sed.endpoints()[1]
        ));
        assert!(Arc::ptr_eq(nq.pick(&turn, &tuple(0))?, &nq.endpoints()[0]));
        // In the long run by weight: (n + 1) / weight is the same for all.
        for schedule in [&sed, &nq] {
            let _ = counts(schedule, 0, 399, true)?;
            for (host, want) in schedule.endpoints().iter().zip([100u32, 300, 0]) {
                assert!(host.active.load(Relaxed).abs_diff(want) <= 1);
            }
        }
        // Who has nothing to do comes by turns.
        let idle = schedule(Scheduler::Nq, &[1, 1, 0, 1])?;
        assert_eq!(*counts(&idle, 0, 96, false)?, [32, 32, 0, 32]);
        Ok(())
    }

    #[test]
    fn failover() -> Result {
        let turn = Atomic::new(0);
        let hosts = [
            (1, 1, 0, false),
            (2, 5, 10, false),
            (3, 5, 10, false),
            (4, 0, 0, false),
        ];
        let schedule = limited(Scheduler::Fo, &hosts)?;
        assert_eq!(*counts(&schedule, 0, 10, true)?, [0, 10, 0, 0]);
        assert_eq!(*counts(&schedule, 7, 15, true)?, [5, 0, 10, 0]);
        // As soon as there is room again.
        schedule.endpoints()[2].active.fetch_sub(1u32, Relaxed);
        assert_eq!(schedule.pick(&turn, &tuple(0))?.number, FIRST + 3);
        Ok(())
    }

    #[test]
    fn two_random_choices() -> Result {
        let weighted = schedule(Scheduler::Twos, &[1, 3, 0, 4])?;
        let found = counts(&weighted, 0, 800, true)?;
        for (count, want) in found.iter().zip([100u32, 300, 0, 400]) {
            assert!(count.abs_diff(want) <= want / 10);
        }
        // One that has far more than others is it only when it is drawn twice: 40 is four standard deviations.
        let loaded = schedule(Scheduler::Twos, &[1, 1, 1])?;
        loaded.endpoints()[0].active.store(100_000, Relaxed);
        for start in [0, 77, u32::MAX - 500] {
            let found = counts(&loaded, start, 900, true)?;
            assert!(found[0].abs_diff(100) <= 40);
            assert!(found[1].abs_diff(found[2]) <= 40);
        }
        // What would happen is what happens.
        let turn = Atomic::new(5);
        for number in 0..100 {
            let would = weighted.would_pick(&turn, &tuple(number))?.number;
            assert_eq!(weighted.pick(&turn, &tuple(number))?.number, would);
        }
        Ok(())
    }

    const ALL: [Scheduler; 10] = [
        Scheduler::Wrr,
        Scheduler::Rr,
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Mh,
        Scheduler::Sh,
        Scheduler::Sed,
        Scheduler::Nq,
        Scheduler::Fo,
        Scheduler::Twos,
    ];

    #[test]
    fn nobody_to_pick() -> Result {
        let turn = Atomic::new(0);
        for scheduler in ALL {
            for weights in [&[][..], &[0, 0]] {
                let schedule = schedule(scheduler, weights)?;
                let picked = schedule.pick(&turn, &tuple(0));
                assert!(matches!(picked, Err(NoEndpoint::Nobody)));
                assert_eq!(schedule.endpoints().len(), weights.len());
            }
        }
        Ok(())
    }

    /// Number of connections of each host.
    fn active(schedule: &Schedule<Host>) -> Result<KVec<u32>> {
        let mut active = KVec::new();
        for host in schedule.endpoints() {
            active.push(host.active.load(Relaxed), GFP_KERNEL)?;
        }
        Ok(active)
    }

    #[test]
    fn limits_are_kept() -> Result {
        let turn = Atomic::new(0);
        for scheduler in ALL {
            let hosts = [
                (1, 1, 10, false),
                (2, 100, 20, false),
                (3, 0, 0, false),
                (4, 1, 70, false),
            ];
            let schedule = limited(scheduler, &hosts)?;
            let _ = counts(&schedule, 0, 100, true)?;
            assert_eq!(*active(&schedule)?, [10, 20, 0, 70]);
            let picked = schedule.pick(&turn, &tuple(0));
            assert!(matches!(picked, Err(NoEndpoint::Overflow)));
            // One place that is free again is found, whatever the table says.
            for host in schedule.endpoints() {
                if host.weight > 0 {
                    host.active.fetch_sub(1u32, Relaxed);
                    assert_eq!(schedule.pick(&turn, &tuple(5))?.number, host.number);
                    host.active.fetch_add(1u32, Relaxed);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_divided() -> Result {
        let hosts = [
            (1, 1, 1, false),
            (2, 1, 0, false),
            (3, 2, 0, false),
            (4, 1, 0, false),
        ];
        for (scheduler, want) in [
            (Scheduler::Rr, [1, 100, 100, 100]),
            (Scheduler::Lc, [1, 100, 100, 100]),
            (Scheduler::Wrr, [1, 75, 150, 75]),
            (Scheduler::Wlc, [1, 75, 150, 75]),
            (Scheduler::Sed, [1, 75, 150, 75]),
            (Scheduler::Nq, [1, 75, 150, 75]),
            (Scheduler::Mh, [1, 75, 150, 75]),
            (Scheduler::Twos, [1, 75, 150, 75]),
        ] {
            let schedule = limited(scheduler, &hosts)?;
            let counts = counts(&schedule, 0, 301, true)?;
            // That of a hash is above three standard deviations.
            let tolerance = match scheduler {
                Scheduler::Mh => 30,
                Scheduler::Twos => 12,
                _ => 2,
            };
            for (count, want) in counts.iter().zip(want) {
                assert!(count.abs_diff(want) <= tolerance);
            }
        }
        Ok(())
    }

    #[test]
    fn connections_without_routes() -> Result {
        let picks = |hosts: &[(u32, u32, u32, bool)], on| -> Result<KVec<Option<Addr>>> {
            let mut endpoints = KVec::new();
            for (number, weight, max, backup) in hosts {
                let host = host(*number, *weight, *max, *backup, STEPS);
                endpoints.push(Arc::new(host, GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let schedule = Schedule::new(Scheduler::Rr, endpoints, on)?;
            let mut picks = KVec::new();
            for number in 0..100 {
                let picked = schedule.pick_by_hash(&tuple(number));
                picks.push(picked.map(|host| host.place().host), GFP_KERNEL)?;
            }
            Ok(picks)
        };
        let addr = |number: u32| Some(host(number, 1, 0, false, STEPS).place().host);
        let all = [
            (1, 1, 0, false),
            (2, 2, 0, false),
            (NEEDS_ROUTES, 3, 0, false),
            (4, 0, 0, false),
            (5, 1, 0, true),
        ];
        // None without a table, which is there at need.
        assert!(picks(&all, false)?.iter().all(Option::is_none));
        let both = picks(&all, true)?;
        assert!(both.iter().all(|host| [addr(1), addr(2)].contains(host)));
        for number in [1, 2] {
            assert!(both.contains(&addr(number)));
        }
        // Whoever else comes or is full does not move a connection.
        let [one, two, ..] = all;
        let full = (two.0, two.1, 1, two.3);
        assert_eq!(*picks(&[one, full], true)?, *both);
        let alone = picks(&[two], true)?;
        assert!(alone.iter().all(|host| *host == addr(2)));
        // A backup, if there is nobody else.
        let backup = picks(&[(4, 0, 0, false), (5, 1, 0, true)], true)?;
        assert!(backup.iter().all(|host| *host == addr(5)));
        assert!(picks(&[], true)?.iter().all(Option::is_none));
        Ok(())
    }

    #[test]
    fn backups_take_what_no_other_can() -> Result {
        let turn = Atomic::new(0);
        for (scheduler, want) in [
            (Scheduler::Rr, [5, 5, 15, 15]),
            (Scheduler::Lc, [5, 5, 15, 15]),
            (Scheduler::Wrr, [5, 5, 20, 10]),
            (Scheduler::Wlc, [5, 5, 20, 10]),
        ] {
            let hosts = [
                (1, 1, 5, false),
                (2, 1, 5, false),
                (3, 2, 20, true),
                (4, 1, 0, true),
            ];
            let schedule = limited(scheduler, &hosts)?;
            assert_eq!(*counts(&schedule, 0, 10, true)?, [5, 5, 0, 0]);
            let _ = counts(&schedule, 0, 30, true)?;
            assert_eq!(*active(&schedule)?, want);
        }
        for scheduler in ALL {
            // No regular one at all, then none with a weight, then backups that are full.
            for regular in [&[][..], &[(1, 0, 0, false)]] {
                let mut hosts = KVec::new();
                hosts.extend_from_slice(regular, GFP_KERNEL)?;
                hosts.extend_from_slice(&[(2, 3, 4, true), (3, 1, 6, true)], GFP_KERNEL)?;
                let schedule = limited(scheduler, &hosts)?;
                let _ = counts(&schedule, 0, 10, true)?;
                let active = active(&schedule)?;
                assert!(active.ends_with(&[4, 6]));
                let picked = schedule.pick(&turn, &tuple(0));
                assert!(matches!(picked, Err(NoEndpoint::Overflow)));
            }
            let nobody = limited(scheduler, &[(1, 0, 0, false), (2, 0, 0, true)])?;
            let picked = nobody.pick(&turn, &tuple(0));
            assert!(matches!(picked, Err(NoEndpoint::Nobody)));
        }
        Ok(())
    }

    #[test]
    fn a_slow_start_counts_by_its_step() -> Result {
        for step in [1, 4, 15, 16] {
            for (scheduler, whole, tolerance) in [
                (Scheduler::Rr, [1600, 1600], 2),
                (Scheduler::Lc, [1600, 1600], 2),
                (Scheduler::Wrr, [1600, 3200], 8),
                (Scheduler::Wlc, [1600, 3200], 8),
                (Scheduler::Mh, [1600, 3200], 250),
                (Scheduler::Twos, [1600, 3200], 30),
            ] {
                let mut hosts = KVec::new();
                for (number, weight, step) in [(1, 1, STEPS), (2, 2, step)] {
                    let host = host(number, weight, 0, false, step);
                    hosts.push(Arc::new(host, GFP_KERNEL)?, GFP_KERNEL)?;
                }
                let schedule = Schedule::new(scheduler, hosts, false)?;
                let [one, other] = whole;
                let want = [one, other * step / STEPS];
                let counts = counts(&schedule, 0, want.iter().sum(), true)?;
                for (count, want) in counts.iter().zip(want) {
                    assert!(count.abs_diff(want) <= tolerance);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn machines_agree_on_backups() -> Result {
        let hosts = [
            (1, 0, 0, false),
            (2, 1, 0, true),
            (3, 2, 0, true),
            (4, 1, 0, true),
        ];
        let mut other = hosts;
        other.rotate_left(2);
        let here = limited(Scheduler::Mh, &hosts)?;
        let there = limited(Scheduler::Mh, &other)?;
        let turns = (Atomic::new(3), Atomic::new(77));
        for number in 0..1000 {
            let one = here.pick(&turns.0, &tuple(number))?.number;
            assert_eq!(one, there.pick(&turns.1, &tuple(number))?.number);
        }
        let counts = counts(&here, 0, 4000, false)?;
        for (count, want) in counts.iter().zip([0u32, 1000, 2000, 1000]) {
            assert!(count.abs_diff(want) <= 200);
        }
        Ok(())
    }

    #[test]
    fn many_endpoints() -> Result {
        // One client is for one endpoint, and so is the heaviest.
        let many = |one: &Scheduler| !matches!(one, Scheduler::Sh | Scheduler::Fo);
        for scheduler in ALL.into_iter().filter(many) {
            let schedule = schedule(scheduler, &[100; crate::service::MAX_ENDPOINTS])?;
            let turn = Atomic::new(0);
            for number in 0..MAX_SLOTS {
                let picked = schedule.pick(&turn, &tuple(number))?;
                picked.active.fetch_add(1u32, Relaxed);
            }
            assert!(schedule.endpoints().iter().all(|host| host.load() > 0));
        }
        Ok(())
    }
}
