// SPDX-License-Identifier: GPL-2.0

//! Services with more than one port.
//!
//! A packet's own port is looked for first, by one hash lookup among all services. What is here is
//! for those that have none: by VIP and protocol, ranges in ascending order, and beneath them the
//! service for all ports.

use crate::service::{
    Service,
    ServiceKey, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    errno::EADDRINUSE,
    sync::{
        family_table::{
            ByFamily,
            FamilyKey,
            FamilyTable, //
        },
        rcu::RcuCell, //
    },
    wire::{
        addr::{
            Addr,
            Proto, //
        },
        ports::{
            self,
            Ports, //
        },
    },
};

/// What services have in common that a packet without a service of its own port can be for.
#[derive(Clone, Copy)]
struct Side {
    vip: Addr,
    proto: Proto,
}

impl Side {
    #[inline]
    fn of(key: &ServiceKey) -> Self {
        Self {
            vip: key.vip,
            proto: key.proto,
        }
    }
}

impl FamilyKey for Side {
    type V4 = u64;
    type V6 = [u32; 5];

    #[inline]
    fn by_family(&self) -> ByFamily<u64, [u32; 5]> {
        let proto = u32::from(self.proto.number());
        match self.vip.to_v4() {
            Some(octets) => {
                let vip = u32::from_be_bytes(octets);
                ByFamily::V4(u64::from(vip) << 32 | u64::from(proto))
            }
            None => {
                let [a, b, c, d] = self.vip.words();
                ByFamily::V6([a, b, c, d, proto])
            }
        }
    }
}

/// The services of a [`Side`] that have more than one port. Never changes: it is replaced.
struct Ranges<T> {
    some: KVec<(Ports, T)>,
    all: Option<T>,
}

impl<T: Clone> Ranges<T> {
    const fn new() -> Self {
        Self {
            some: KVec::new(),
            all: None,
        }
    }

    #[inline]
    fn find(&self, port: u16) -> Option<&T> {
        ports::find(&self.some, port).or(self.all.as_ref().filter(|_| Ports::ALL.contains(port)))
    }

    fn is_empty(&self) -> bool {
        self.some.is_empty() && self.all.is_none()
    }

    /// A copy with room for one more. `ENOMEM`.
    fn copy(&self) -> Result<Self> {
        let mut copy = Self {
            some: KVec::with_capacity(self.some.len().saturating_add(1), GFP_KERNEL)?,
            all: self.all.clone(),
        };
        copy.some.extend_from_slice(&self.some, GFP_KERNEL)?;
        Ok(copy)
    }

    /// The same with one more. `EADDRINUSE` if another has one of its ports, `ENOMEM`.
    fn with(&self, ports: Ports, new: T) -> Result<Self> {
        let mut next = self.copy()?;
        if !ports.is_all() {
            let place = ports::place(&self.some, ports).ok_or(EADDRINUSE)?;
            next.some
                .insert_within_capacity(place, (ports, new))
                .map_err(|_| ENOMEM)?;
        } else if next.all.replace(new).is_some() {
            return Err(EADDRINUSE.into());
        }
        Ok(next)
    }

    /// The same without the one that has these ports. `ENOMEM`.
    fn without(&self, ports: Ports) -> Result<Self> {
        let mut next = self.copy()?;
        if ports.is_all() {
            next.all = None;
        }
        next.some.retain(|(own, _)| *own != ports);
        Ok(next)
    }
}

type Group = RcuCell<Ranges<Arc<Service>>>;

/// The services of a namespace that have more than one port.
///
/// Who changes it excludes other changes, and waits for readers.
#[pin_data]
pub(crate) struct Wide {
    #[pin]
    groups: FamilyTable<Side, Arc<Group>>,
}

impl Wide {
    /// Room for so many.
    pub(crate) fn new(max: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            groups <- FamilyTable::new(max),
        })
    }

    /// The service of a packet for which there is none of its own port.
    #[inline]
    pub(crate) fn find<'a>(
        &'a self,
        guard: &'a rcu::Guard,
        key: &ServiceKey,
    ) -> Option<&'a Arc<Service>> {
        if self.groups.is_empty() {
            return None;
        }
        let group = self.groups.get(guard, &Side::of(key))?;
        group.get(guard)?.find(key.ports.first())
    }

    /// Adds a service. `EADDRINUSE` if another has one of its ports, but for one that is for all of
    /// them; `ENOSPC`, `ENOMEM`.
    pub(crate) fn add(&self, service: &Arc<Service>) -> Result {
        let side = Side::of(service.key());
        let ports = service.key().ports;
        let Some(group) = self.group(&side) else {
            let first = Arc::new(Ranges::new().with(ports, service.clone())?, GFP_KERNEL)?;
            let group = Arc::new(RcuCell::new(Some(first)), GFP_KERNEL)?;
            self.groups.insert(&side, group, GFP_KERNEL)?;
            return Ok(());
        };
        let ranges = group.get_arc().ok_or(EINVAL)?;
        let ranges = ranges.with(ports, service.clone())?;
        group.replace(Some(Arc::new(ranges, GFP_KERNEL)?));
        Ok(())
    }

    /// Removes a service. `ENOMEM`, and then nothing has changed.
    pub(crate) fn remove(&self, key: &ServiceKey) -> Result {
        let side = Side::of(key);
        let Some(group) = self.group(&side) else {
            return Ok(());
        };
        let ranges = group.get_arc().ok_or(EINVAL)?.without(key.ports)?;
        if ranges.is_empty() {
            self.groups.remove(&side);
        } else {
            group.replace(Some(Arc::new(ranges, GFP_KERNEL)?));
        }
        Ok(())
    }

    fn group(&self, side: &Side) -> Option<Arc<Group>> {
        self.groups.get(&rcu::read_lock(), side).cloned()
    }
}

#[kunit_tests(nlb_fwd_ports)]
mod tests {
    use super::*;

    fn ports(first: u16, last: u16) -> Result<Ports> {
        Ports::new(first, last).ok_or(EINVAL)
    }

    #[test]
    fn a_range_comes_before_all() -> Result {
        let ranges = Ranges::new().with(Ports::ALL, 0)?;
        let ranges = ranges.with(ports(8000, 8999)?, 1)?;
        let ranges = ranges.with(ports(7000, 7999)?, 2)?;
        let ranges = ranges.with(ports(9000, 9001)?, 3)?;
        let of = |port| ranges.find(port).copied();
        assert_eq!([of(6999), of(7000), of(7999)], [Some(0), Some(2), Some(2)]);
        assert_eq!([of(8000), of(8999)], [Some(1), Some(1)]);
        assert_eq!([of(9001), of(9002), of(65535)], [Some(3), Some(0), Some(0)]);
        // No packet is for this port.
        assert_eq!(of(0), None);
        let ranges = ranges.without(Ports::ALL)?;
        assert_eq!([ranges.find(80), ranges.find(8500)], [None, Some(&1)]);
        Ok(())
    }

    #[test]
    fn ranges_do_not_overlap() -> Result {
        let ranges = Ranges::new()
            .with(ports(100, 199)?, 1)?
            .with(ports(300, 300)?, 2)?;
        for (first, last) in [
            (1, 100),
            (150, 160),
            (199, 250),
            (100, 199),
            (250, 400),
            (300, 300),
        ] {
            let error = ranges.with(ports(first, last)?, 3).err();
            assert!(error.is_some_and(|error| error == EADDRINUSE));
        }
        assert!(ranges.with(ports(200, 299)?, 3).is_ok());
        let all = ranges.with(Ports::ALL, 3)?;
        assert!(all.with(Ports::ALL, 4).is_err());
        let none = all.without(ports(100, 199)?)?.without(ports(300, 300)?)?;
        assert!(!none.is_empty() && none.without(Ports::ALL)?.is_empty());
        Ok(())
    }
}
