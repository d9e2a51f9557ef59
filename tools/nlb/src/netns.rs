// SPDX-License-Identifier: MIT OR Apache-2.0

//! Named network namespaces, as `ip netns` makes them.

use std::os::fd::AsFd;

use rustix::{
    fs::{
        open,
        Mode,
        OFlags, //
    },
    io::Errno,
    thread::{
        move_into_link_name_space,
        LinkNameSpaceType, //
    },
};

use crate::failure::Failure;

/// Where `ip netns` puts them.
const DIRECTORY: &str = "/var/run/netns";

/// Move the calling thread, the only one, into a network namespace.
pub(crate) fn enter(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.contains('/') || name == ".." {
        return Err(Failure::Text(format!(
            "`{name}` is not the name of a network namespace"
        )));
    }
    let file = open(
        format!("{DIRECTORY}/{name}"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let file = file.map_err(|error| {
        Failure::Text(match error {
            Errno::NOENT => format!(
                "there is no network namespace `{name}` (`ip netns list` shows those that are)"
            ),
            other => format!("cannot open the network namespace `{name}`: {other}"),
        })
    })?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| {
        Failure::Text(match error {
            Errno::PERM => {
                format!("cannot enter the network namespace `{name}`: this needs CAP_SYS_ADMIN")
            }
            other => format!("cannot enter the network namespace `{name}`: {other}"),
        })
    })
}
