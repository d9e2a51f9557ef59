// SPDX-License-Identifier: MIT OR Apache-2.0

//! Load of applications that report none, as the kernel knows it: pressure on the processors, connections that wait to
//! be accepted, and connections that are there.

use nlb_netlink::TcpConnections;
use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{interval, MissedTickBehavior},
};
use tracing::{info, warn};

/// Most of a file that is read, in bytes; there are about a hundred.
const FILE_MAX: u64 = 4096;

/// What is measured of an application. The largest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    /// A file of pressure stall information: `/proc/pressure/cpu`, or `cpu.pressure` of a control group.
    pub(crate) pressure: Option<PathBuf>,
    /// How full the queue of connections is that wait to be accepted.
    pub(crate) queue: bool,
    /// So many connections are all that it can take.
    pub(crate) connections: Option<u64>,
    /// Where it listens: the host's address, or the VIP.
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) port: u16,
    pub(crate) interval: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The name of the application.
    pub(crate) app: String,
    /// Since when it is measured in this way: each reading of the configuration counts.
    pub(crate) generation: u64,
    /// Percent of the capacity.
    pub(crate) load: u8,
}

impl Measure {
    /// Measures for ever.
    pub(crate) async fn watch(self, app: String, generation: u64, loads: mpsc::Sender<Measured>) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            ticks.tick().await;
            let measure = self.clone();
            let taken = tokio::task::spawn_blocking(move || measure.take()).await;
            let taken = taken.unwrap_or_else(|error| Err(error.to_string()));
            match &taken {
                Err(what) if trouble.as_ref() != Some(what) => {
                    warn!(app = app.as_str(), "load cannot be measured: {what}");
                }
                Ok(_) if trouble.is_some() => info!(app = app.as_str(), "load is measured again"),
                _ => {}
            }
            let load = taken.as_ref().ok().copied();
            trouble = taken.err();
            let Some(load) = load else {
                continue;
            };
            let app = app.clone();
            let measured = Measured {
                app,
                generation,
                load,
            };
            if loads.send(measured).await.is_err() {
                return;
            }
        }
    }

    /// Measures once, in percent. Blocks. If something cannot be measured, nothing is known: what is left might be the
    /// smaller part.
    pub(crate) fn take(&self) -> Result<u8, String> {
        let mut load = 0;
        if let Some(path) = &self.pressure {
            load = load.max(pressure(path)?);
        }
        if self.queue || self.connections.is_some() {
            let open = TcpConnections::open();
            let mut sockets = open.map_err(|error| error.to_string())?;
            load = load.max(self.sockets(&mut sockets)?);
        }
        Ok(load)
    }

    fn sockets(&self, sockets: &mut TcpConnections) -> Result<u8, String> {
        let mut load = 0;
        if self.queue {
            let queue = sockets.queue(&self.addresses, self.port);
            let queue = queue.map_err(|error| error.to_string())?;
            let Some(queue) = queue else {
                return Err(format!("nothing listens at port {}", self.port));
            };
            load = load.max(percent(queue.waiting, queue.room));
        }
        if let Some(most) = self.connections {
            let count = sockets.count(&self.addresses, self.port);
            let count = count.map_err(|error| error.to_string())?;
            load = load.max(percent(count, most));
        }
        Ok(load)
    }
}

/// A part in percent, at most 100.
fn percent(part: u64, whole: u64) -> u8 {
    let percent = (part.min(whole) * 100).checked_div(whole);
    percent.map_or(u8::from(part > 0) * 100, |percent| percent.min(100) as u8)
}

/// The part of the last ten seconds in which somebody had to wait for a processor (`Documentation/accounting/psi.rst` of
/// the kernel), rounded.
fn pressure(path: &Path) -> Result<u8, String> {
    let named = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let kind = path.metadata().map_err(|error| named(&error))?;
    if !kind.is_file() {
        // To read a pipe may take for ever.
        return Err(named(&"this is not a file"));
    }
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| named(&error))?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let field = some.and_then(|some| some.split(' ').find_map(|word| word.strip_prefix("avg10=")));
    let average = field.and_then(|field| field.parse().ok());
    let average = average.filter(|average: &f64| (0.0..=100.0).contains(average));
    let average = average.ok_or_else(|| named(&"this is no pressure stall information"))?;
    Ok(average.round() as u8)
}
