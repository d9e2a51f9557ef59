// SPDX-License-Identifier: GPL-2.0

//! The flow id: 32 bits that stand in the two port fields of a tunnelled packet.

use core::fmt;

/// A flow id: the source port in the upper half, the destination port in the lower.
///
/// # Invariants
///
/// The source half is in [`FlowId::SOURCE_MIN`]`..=65535`, above the default range of local ports
/// (`ip_local_port_range`), and the destination half is not zero. So a packet from a forwarder
/// whose source port is below that range is an ordinary packet between the two machines.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct FlowId(u32);

impl FlowId {
    /// The smallest source port of a tunnelled packet.
    pub const SOURCE_MIN: u16 = 61000;

    /// The number of destination ports: every one but zero.
    const DESTINATIONS: u32 = 65535;

    /// How many flow ids there are.
    pub const COUNT: u32 = (65536 - Self::SOURCE_MIN as u32) * Self::DESTINATIONS;

    /// The flow id with this value, if its halves are in range.
    #[inline]
    pub const fn new(value: u32) -> Option<FlowId> {
        FlowId::from_ports((value >> 16) as u16, (value & 0xffff) as u16)
    }

    /// The flow id in the ports (host byte order) of a packet, if they are one.
    #[inline]
    pub const fn from_ports(source: u16, destination: u16) -> Option<FlowId> {
        if source < FlowId::SOURCE_MIN || destination == 0 {
            return None;
        }
        // INVARIANT: Both halves were just checked.
        Some(FlowId(((source as u32) << 16) | destination as u32))
    }

    /// The flow id number `counter`, counted modulo [`FlowId::COUNT`].
    ///
    /// Counting up from any value visits every flow id once before it repeats one, except that a
    /// repeat may come early where the counter itself wraps. The divisors are constants.
    #[inline]
    pub const fn nth(counter: u32) -> FlowId {
        let index = counter % FlowId::COUNT;
        let source = (FlowId::SOURCE_MIN as u32).wrapping_add(index / FlowId::DESTINATIONS);
        let destination = (index % FlowId::DESTINATIONS).wrapping_add(1);
        // INVARIANT: `index / DESTINATIONS < 65536 - SOURCE_MIN`, and the remainder plus one is in
        // `1..=65535`.
        FlowId((source << 16) | destination)
    }

    /// The number of a flow id: [`FlowId::nth`] of it is the flow id. Smaller than [`FlowId::COUNT`].
    #[inline]
    pub const fn number(self) -> u32 {
        let source = self.source().wrapping_sub(FlowId::SOURCE_MIN);
        let destination = self.destination().wrapping_sub(1);
        // `nth` is made of these, and the greatest is `COUNT - 1`.
        (source as u32)
            .wrapping_mul(FlowId::DESTINATIONS)
            .wrapping_add(destination as u32)
    }

    /// The source port, host byte order.
    #[inline]
    pub const fn source(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The destination port, host byte order.
    #[inline]
    pub const fn destination(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The value: source half in the upper 16 bits.
    #[inline]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashSet,
        string::ToString, //
    };

    #[test]
    fn range_is_checked() {
        for (value, ok) in [
            (0, false),
            (0xee48_0000, false),
            (0xee48_0001, true),
            (0xee47_ffff, false),
            (0xffff_ffff, true),
            (0xffff_0000, false),
            (0x0050_ee48, false),
        ] {
            let id = FlowId::new(value);
            assert_eq!(id.is_some(), ok, "{value:#x}");
            if let Some(id) = id {
                assert_eq!(id.value(), value);
                assert_eq!(FlowId::from_ports(id.source(), id.destination()), Some(id));
            }
        }
        assert_eq!(FlowId::new(0xee48_0001).unwrap().to_string(), "0xee480001");
    }

    #[test]
    fn counting_visits_each_once() {
        assert_eq!(FlowId::nth(0).value(), 0xee48_0001);
        assert_eq!(FlowId::nth(65534).value(), 0xee48_ffff);
        assert_eq!(FlowId::nth(65535).value(), 0xee49_0001);
        assert_eq!(FlowId::nth(FlowId::COUNT - 1).value(), 0xffff_ffff);
        assert_eq!(FlowId::nth(FlowId::COUNT), FlowId::nth(0));
        let ids: HashSet<_> = (0..200_000).map(FlowId::nth).collect();
        assert_eq!(ids.len(), 200_000);
        assert!(ids.iter().all(|id| FlowId::new(id.value()) == Some(*id)));
        let ends = [0, 65534, 65535, FlowId::COUNT - 1];
        assert!(ends.iter().all(|n| FlowId::nth(*n).number() == *n));
    }
}
