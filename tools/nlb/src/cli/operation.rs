// SPDX-License-Identifier: MIT OR Apache-2.0

//! The grammar of what is about the configuration as a whole.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::Duration, //
};

use clap::{
    Args,
    ValueEnum, //
};
use nlb_netlink::ServiceKey;

/// Arguments of `save`.
#[derive(Args)]
pub(crate) struct SaveArgs {
    /// File that has the secret of every key, to be named in what is printed
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// The file, as save prints one; - for standard input
    pub(crate) file: PathBuf,
    /// Print the commands that would be run, in their order, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `trace`.
#[derive(Args)]
pub(crate) struct TraceArgs {
    /// Address and port of the client
    #[arg(value_name = "CLIENT:PORT")]
    pub(crate) client: SocketAddr,
    /// Where it connects to, like 192.0.2.10:80/tcp; tcp when left out
    #[arg(value_name = "VIP:PORT/PROTO")]
    pub(crate) service: ServiceKey,
}

/// Arguments of `top`.
#[derive(Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks at the counters
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// What to sort by
    #[arg(long, value_enum, default_value = "name")]
    pub(crate) sort: SortBy,
    /// Print one table and end; so it is, too, where input or output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// Arguments of `doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Seconds in which to look for counters of drops that grow
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
}

/// What `top` sorts by; the numbers from the largest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// Service, and host
    Name,
    /// Routes of connections that are not being closed
    Active,
    /// New connections
    Connections,
    /// Packets from clients
    Packets,
    /// Bytes of them
    Bytes,
}

impl SortBy {
    const ALL: [(char, Self, &'static str); 5] = [
        ('n', Self::Name, "name"),
        ('a', Self::Active, "active"),
        ('c', Self::Connections, "connections"),
        ('p', Self::Packets, "packets"),
        ('b', Self::Bytes, "bytes"),
    ];

    /// What a key chooses.
    pub(crate) fn of_letter(letter: char) -> Option<Self> {
        let mut all = Self::ALL.iter();
        let (_, sort, _) = all.find(|(own, ..)| *own == letter)?;
        Some(*sort)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, own, _)| *own == self)
            .map_or("", |(.., name)| name)
    }
}

/// A time from a tenth of a second to an hour.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|time| (0.1..=3600.0).contains(time));
    match seconds {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err("not a number of seconds from 0.1 to 3600".to_owned()),
    }
}
