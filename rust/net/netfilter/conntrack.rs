// SPDX-License-Identifier: GPL-2.0

//! What connection tracking knows of a connection.
//!
//! Its functions are in a module that need not be there. So it is shown a packet, by its own hook on
//! the way out: an ICMP error about a packet of the client. Connection tracking gives an error the
//! entry of the connection that it is about, whatever it thinks of that connection's state, and
//! neither changes that entry nor makes one (`nf_conntrack_inet_error()`). The packet goes nowhere.
//!
//! Entries of another zone than the default one are not found.

use super::HookNum;
use crate::{
    bindings,
    net::{
        skbuff::SkBuff,
        Net, //
    },
    time,
    wire::{
        addr::FourTuple,
        icmp,
        ipv4,
        ipv6, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    macros::kunit_tests,
    prelude::*,
    sync::rcu, //
};

/// What of the quoted segment there is: its ports, and the sequence number that all errors have.
const QUOTED_LEN: usize = 8;
/// The longest packet: two headers of IP, and one of ICMP between them.
const MAX_LEN: usize = 2 * ipv6::HEADER_LEN + icmp::HEADER_LEN + QUOTED_LEN;
/// Unreachable, for any reason (RFC 792, RFC 4443 section 3.1).
const UNREACHABLE_V4: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
const TTL: u8 = 64;

/// The entry of a connection.
///
/// # Invariants
///
/// The pointer is to an entry, of which the packet has a reference.
pub struct Tracked {
    entry: NonNull<bindings::nf_conn>,
    packet: SkBuff,
}

impl Tracked {
    /// Whether connection tracking is there at all.
    #[inline]
    pub fn is_possible() -> bool {
        // SAFETY: No preconditions.
        unsafe { bindings::nf_ct_is_loaded() }
    }

    /// The entry of a connection of this machine. Any context but hard interrupts; with `flags` that
    /// allow it, it may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: it could not be asked for.
    pub fn find(net: &Net, tuple: &FourTuple, flags: Flags) -> Result<Option<Self>> {
        if !Self::is_possible() {
            return Ok(None);
        }
        let report = Report::new(tuple).ok_or(EINVAL)?;
        let bytes = report.bytes().ok_or(EINVAL)?;
        // CAST: `MAX_LEN` at most.
        let mut packet = SkBuff::alloc(0, bytes.len() as u16, flags)?;
        packet.put(bytes)?;
        packet.reset_network_header();
        // CAST: As above.
        packet.set_transport_header(report.icmp_offset as u16);
        let shown = net.show(
            tuple.is_v4(),
            HookNum::LocalOut,
            &rcu::read_lock(),
            bindings::nf_ip_hook_priorities_NF_IP_PRI_CONNTRACK,
            packet,
        );
        let Some(packet) = shown else {
            return Ok(None);
        };
        let mut direction = 0;
        // SAFETY: The packet is valid.
        let entry = unsafe { bindings::nf_ct_get(packet.as_raw(), &mut direction) };
        let Some(entry) = NonNull::new(entry) else {
            packet.consume();
            return Ok(None);
        };
        // INVARIANT: What a packet refers to is an entry, and it has a reference of it. It has no
        // template, which rules at an earlier hook would have given it.
        Ok(Some(Self { entry, packet }))
    }

    /// Whether the connection has other addresses, ports or sequence numbers on its way than in the
    /// packets of this machine (NAT; SYNPROXY, helpers).
    pub fn is_translated(self) -> bool {
        let either = (bindings::ip_conntrack_status_IPS_NAT_MASK
            | bindings::ip_conntrack_status_IPS_SEQ_ADJUST) as c_ulong;
        // SAFETY: By the type invariants; others set bits in it meanwhile.
        let status = unsafe { (&raw const (*self.entry.as_ptr()).status).read_volatile() };
        // It was not lost.
        self.packet.consume();
        status & either != 0
    }

    /// Ends the entry: from now on there is none of the connection. Who sees it next, or else the
    /// tracker's garbage collector, destroys it and tells those who listen for that.
    pub fn expire(self) {
        // CAST: Entries have the lower half of the clock (`nfct_time_stamp`).
        let now = time::jiffies() as u32;
        // SAFETY: By the type invariants. Packets may set it meanwhile, and read it, as a whole.
        unsafe { (&raw mut (*self.entry.as_ptr()).timeout).write_volatile(now) };
        self.packet.consume();
    }
}

/// An ICMP error by the virtual address about a packet of the client.
struct Report {
    buffer: [u8; MAX_LEN],
    icmp_offset: usize,
    len: usize,
}

impl Report {
    /// `None` never happens: there is room for all.
    fn new(tuple: &FourTuple) -> Option<Self> {
        let (client, vip) = (tuple.client(), tuple.vip());
        let mut report = Self {
            buffer: [0; MAX_LEN],
            icmp_offset: 0,
            len: 0,
        };
        if let (Some(client), Some(vip)) = (client.to_v4(), vip.to_v4()) {
            let mut ip = ipv4::Repr {
                source: vip,
                destination: client,
                protocol: icmp::PROTOCOL_V4,
                payload_len: (icmp::HEADER_LEN + ipv4::HEADER_LEN + QUOTED_LEN) as u16,
                ident: 0,
                dont_fragment: true,
                tos: 0,
                ttl: TTL,
            };
            report.put(&ip.emit().ok()?)?;
            report.put_unreachable(UNREACHABLE_V4)?;
            (ip.source, ip.destination) = (client, vip);
            ip.protocol = tuple.proto().number();
            ip.payload_len = QUOTED_LEN as u16;
            report.put(&ip.emit().ok()?)?;
        } else {
            let mut ip = ipv6::Repr {
                source: vip,
                destination: client,
                next_header: icmp::PROTOCOL_V6,
                payload_len: (icmp::HEADER_LEN + ipv6::HEADER_LEN + QUOTED_LEN) as u16,
                hop_limit: TTL,
            };
            report.put(&ip.emit())?;
            report.put_unreachable(UNREACHABLE_V6)?;
            (ip.source, ip.destination) = (client, vip);
            ip.next_header = tuple.proto().number();
            ip.payload_len = QUOTED_LEN as u16;
            report.put(&ip.emit())?;
        }
        report.put(&tuple.client_port().to_be_bytes())?;
        report.put(&tuple.vip_port().to_be_bytes())?;
        report.put(&[0; 4])?;
        Some(report)
    }

    /// The checksum is of no interest to the tracker: on the way out it is not there yet.
    fn put_unreachable(&mut self, kind: u8) -> Option<()> {
        self.icmp_offset = self.len;
        self.put(&[kind, 0, 0, 0, 0, 0, 0, 0])
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.buffer.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.buffer.get(..self.len)
    }
}

#[kunit_tests(nlb_netfilter_conntrack)]
mod tests {
    use super::*;
    use crate::wire::{
        addr::{
            Addr,
            Proto, //
        },
        report, //
    };

    fn is_about(tuple: &FourTuple, len: usize) -> Result {
        let made = Report::new(tuple).ok_or(EINVAL)?;
        let bytes = made.bytes().ok_or(EINVAL)?;
        assert_eq!(bytes.len(), len);
        let read = report::Report::parse(bytes, len).map_err(|_| EINVAL)?;
        assert_eq!(
            (read.source, read.destination),
            (tuple.vip(), tuple.client())
        );
        assert!(read.kind == icmp::Kind::Unreachable);
        assert_eq!(read.icmp_offset, made.icmp_offset);
        assert!(read.quoted.tuple == *tuple);
        Ok(())
    }

    #[test]
    fn report_quotes_the_client() -> Result {
        is_about(
            &FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
            56,
        )?;
        let addr = |last| Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let tuple = FourTuple::new(addr(1), 40000, addr(2), 80, Proto::Tcp).ok_or(EINVAL)?;
        is_about(&tuple, 96)
    }
}
