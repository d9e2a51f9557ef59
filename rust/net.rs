// SPDX-License-Identifier: GPL-2.0

//! Networking.

pub mod arp;
pub mod genetlink;
pub mod ip;
pub mod netdevice;
pub mod netfilter;
pub mod netns;
pub mod rtnl;
pub mod session;
pub mod skbuff;
pub mod socket;
pub mod tcp;

pub use netns::Net;
