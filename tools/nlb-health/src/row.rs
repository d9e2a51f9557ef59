// SPDX-License-Identifier: MIT OR Apache-2.0

//! A row of the health and load table (FIG. 13A, entry 1302): which application, how it is, and what load
//! balancing units shall do with it.

use std::{
    fmt,
    net::SocketAddr, //
};

/// Longest [`AppType::protocol`], in bytes.
pub const PROTOCOL_MAX: usize = 31;
/// Longest [`AppType::detail`], in bytes.
pub const DETAIL_MAX: usize = 255;
/// Largest [`Status::load`]: percent of the capacity.
pub const LOAD_MAX: u8 = 100;
/// Largest [`Status::capacity`]; the number has no unit.
pub const CAPACITY_MAX: u8 = 99;

/// The 32-bit number that stands for an application's identity (column 1302(A): "a 32-bit number that maps to the
/// above information"). Its host chooses it, and does not use it again in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u32);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What requests are for, on whichever host: the type of application by which a cache is searched (FIG. 18, 1802).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppType {
    /// Virtual address and port; port 0 stands for all.
    pub vip: SocketAddr,
    /// Protocol above IP, as in its header: 6 is TCP, 17 UDP.
    pub transport: u8,
    /// What is spoken above it, such as `http`: up to [`PROTOCOL_MAX`] of `a-z`, `0-9`, `-`, `.`, `+`; may be empty.
    pub protocol: String,
    /// Protocol-specific information, such as a pattern of URLs: up to [`DETAIL_MAX`] bytes of UTF-8 without control
    /// characters; may be empty.
    pub detail: String,
}

/// Column 1302(A): what names one application endpoint of one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What it serves.
    pub app_type: AppType,
    /// Physical address and port.
    pub physical: SocketAddr,
}

/// Whether an application is functioning: the quasi-Boolean value of column 1302(B).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Nobody has said yet.
    Unknown = 0,
    /// It handles requests.
    Healthy = 1,
    /// It does not.
    Failing = 2,
}

impl Health {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Healthy, Self::Failing];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|health| *health as u8 == byte)
    }
}

/// A load balancing state (column 1302(C)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Directive {
    /// New connections are welcome.
    Active = 1,
    /// No further packet may be sent there.
    Inactive = 2,
    /// Packets of existing connections only.
    Draining = 3,
}

impl Directive {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Draining];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Draining => "draining",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|directive| *directive as u8 == byte)
    }
}

/// Columns 1302(B) and 1302(C): what changes in the life of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status {
    /// Whether it functions.
    pub health: Health,
    /// How busy it is, in percent of its capacity, 0 to [`LOAD_MAX`].
    pub load: u8,
    /// What it can take, compared with the others of its type, 0 to [`CAPACITY_MAX`].
    pub capacity: u8,
    /// What the host wants load balancing units to do.
    pub target: Directive,
    /// What the host believes that they are doing.
    pub current: Directive,
}

impl Status {
    /// Load and capacity are in their ranges.
    pub fn is_valid(&self) -> bool {
        self.load <= LOAD_MAX && self.capacity <= CAPACITY_MAX
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Column 1302(A). It never changes: another identity is another row.
    pub identity: Identity,
    /// Columns 1302(B) and 1302(C).
    pub status: Status,
}

impl Row {
    /// Every field is in its limits.
    pub fn is_valid(&self) -> bool {
        let app_type = &self.identity.app_type;
        app_type.transport != 0
            && is_protocol(app_type.protocol.as_bytes())
            && is_detail(&app_type.detail)
            && is_address(&app_type.vip)
            && is_address(&self.identity.physical)
            && self.status.is_valid()
    }

    /// Bytes of memory that tables count for it.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + self.identity.app_type.protocol.len()
            + self.identity.app_type.detail.len()
    }
}

/// Whether `text` may be an [`AppType::protocol`].
pub fn is_protocol(text: &[u8]) -> bool {
    text.len() <= PROTOCOL_MAX
        && text
            .iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.+".contains(c))
}

/// Whether `text` may be an [`AppType::detail`].
pub fn is_detail(text: &str) -> bool {
    text.len() <= DETAIL_MAX && !text.chars().any(char::is_control)
}

/// Whether it is an address that a machine can have, without scope or flow label. IPv4 comes as such, not mapped into IPv6.
pub fn is_address(address: &SocketAddr) -> bool {
    let ip = address.ip();
    !ip.is_unspecified()
        && !ip.is_multicast()
        && match address {
            SocketAddr::V4(v4) => !v4.ip().is_broadcast(),
            SocketAddr::V6(v6) => {
                v6.ip().to_ipv4_mapped().is_none() && v6.scope_id() == 0 && v6.flowinfo() == 0
            }
        }
}

/// Whether `text` is a DNS name as it may be in a heartbeat: up to 253 bytes of labels of 1 to 63 letters, digits, `-` and `_`.
pub fn is_dns_name(text: &[u8]) -> bool {
    text.len() <= crate::wire::NAME_MAX
        && text.split(|c| *c == b'.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .iter()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c))
        })
}
