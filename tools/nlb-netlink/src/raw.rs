// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests that need not follow the specification: what the tests of the kernel modules send to
//! see them refused. Nothing else should use it.

use crate::{
    connection::Connection,
    error::Result,
    message::Request,
    uapi::{
        fwd,
        migrator,
        tunnel, //
    },
};

/// A request of arbitrary bytes.
#[derive(Clone, Debug)]
pub struct RawRequest(Request);

impl RawRequest {
    /// A request without attributes.
    pub fn new(cmd: u8) -> Self {
        Self(Request::new(cmd))
    }

    /// The same request for the whole table.
    #[must_use]
    pub fn dump(self) -> Self {
        Self(self.0.dump())
    }

    /// Append an attribute of any type, flags included, with any payload.
    #[must_use]
    pub fn attribute(self, kind: u16, payload: &[u8]) -> Self {
        Self(self.0.put(kind, payload))
    }

    /// Append bytes that need not be an attribute.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        Self(self.0.raw(bytes))
    }

    /// Send it to the family and return the attributes of each answered object.
    pub fn send(&self, family: &str) -> Result<Vec<Vec<u8>>> {
        let names = names(family, &self.0);
        Connection::open(family)?.bytes(&self.0, names)
    }
}

fn names(family: &str, request: &Request) -> &'static [&'static str] {
    attribute_names(family, request.cmd()).unwrap_or_default()
}

/// Names of a family's commands, by id, from 1.
pub fn command_names(family: &str) -> Option<&'static [&'static str]> {
    match family {
        fwd::FAMILY => Some(fwd::cmd::NAMES),
        tunnel::FAMILY => Some(tunnel::cmd::NAMES),
        migrator::FAMILY => Some(migrator::cmd::NAMES),
        _ => None,
    }
}

/// Names of the attributes of a family's command, by id, from 1.
pub fn attribute_names(family: &str, cmd: u8) -> Option<&'static [&'static str]> {
    let sets = match family {
        fwd::FAMILY => fwd::cmd::ATTRIBUTES,
        tunnel::FAMILY => tunnel::cmd::ATTRIBUTES,
        migrator::FAMILY => migrator::cmd::ATTRIBUTES,
        _ => return None,
    };
    sets.get(usize::from(cmd).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_ids() {
        assert_eq!(
            attribute_names(fwd::FAMILY, fwd::cmd::ROUTE_NEW),
            Some(fwd::route::NAMES)
        );
        assert_eq!(attribute_names(fwd::FAMILY, 0), None);
        assert_eq!(attribute_names(fwd::FAMILY, 255), None);
        assert_eq!(attribute_names("nlctrl", 1), None);
        let commands = command_names(migrator::FAMILY).unwrap();
        assert_eq!(commands[usize::from(migrator::cmd::MIGRATE) - 1], "migrate");
    }

    #[test]
    fn a_wrong_attribute_reaches_the_kernel() {
        // CTRL_CMD_GETFAMILY with a family name of 1000 bytes.
        let request = RawRequest::new(3).attribute(2, &[b'x'; 1000]);
        let error = request.send("nlctrl").unwrap_err();
        assert!(error.refusal().unwrap().text.is_some(), "{error}");
    }
}
