// SPDX-License-Identifier: GPL-2.0

//! ARP packets for IPv4 over Ethernet, as seen in hooks of [`Family::Arp`].
//!
//! Source: RFC 826, and [`include/uapi/linux/if_arp.h`](srctree/include/uapi/linux/if_arp.h).
//!
//! [`Family::Arp`]: super::netfilter::Family::Arp

use super::skbuff::SkBuff;
use kernel::prelude::*;

/// Length of a packet.
const LEN: u16 = 28;
/// Hardware type, protocol type, their address lengths: Ethernet and IPv4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Offsets.
const OPERATION: usize = 6;
const SENDER_IPV4: usize = 14;
const TARGET_IPV4: usize = 24;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target's address.
    Request,
    /// Answers.
    Reply,
    /// Something else.
    Other(u16),
}

/// The part of an ARP packet that concerns IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is for.
    pub operation: Operation,
    /// The sender's address; unspecified in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// The address that is asked for, or that of whom the answer is for.
    pub target: [u8; 4],
}

impl Packet {
    /// Reads the packet at `skb`'s network header; `None` if it is none for IPv4 over Ethernet, or
    /// is not in the linear part, as the kernel's ARP has it.
    pub fn read(skb: &SkBuff) -> Option<Self> {
        let bytes = skb.network_header().first_chunk::<{ LEN as usize }>()?;
        if !bytes.starts_with(&ETHERNET_IPV4) {
            return None;
        }
        let operation = match u16::from_be_bytes(*bytes.get(OPERATION..)?.first_chunk()?) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Other(other),
        };
        Some(Self {
            operation,
            sender: *bytes.get(SENDER_IPV4..)?.first_chunk()?,
            target: *bytes.get(TARGET_IPV4..)?.first_chunk()?,
        })
    }

    /// Whether it announces the sender's own address (gratuitous ARP).
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }
}

/// Replaces the sender's IPv4 address in the packet at the network header.
///
/// Errors: `EINVAL` if it is none for IPv4 over Ethernet, `ENOMEM`.
pub fn set_sender(skb: &mut SkBuff, address: [u8; 4]) -> Result {
    Packet::read(skb).ok_or(EINVAL)?;
    let bytes = skb.network_header_mut(LEN)?;
    bytes
        .get_mut(SENDER_IPV4..SENDER_IPV4 + 4)
        .ok_or(EINVAL)?
        .copy_from_slice(&address);
    Ok(())
}
