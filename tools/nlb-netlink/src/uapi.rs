// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attribute ids, commands and enums of the three families, generated from
//! `Documentation/netlink/specs`, and the reasons for which migrations do not go through.

pub mod fwd;
pub mod migrator;
pub mod reason;
pub mod tunnel;
