// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attribute ids, commands and enums of the three families, generated from
//! `Documentation/netlink/specs`.

pub mod fwd;
pub mod migrator;
pub mod tunnel;
