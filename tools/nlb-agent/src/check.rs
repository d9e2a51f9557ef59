// SPDX-License-Identifier: MIT OR Apache-2.0

//! External checks: whether an application answers, asked again and again.

mod grpc;
mod http;
mod tls;

#[cfg(test)]
pub(crate) use self::{grpc::serving, http::judge};
pub(crate) use self::{
    grpc::{Call, PATH, SERVICE_MAX},
    http::Get,
    tls::{roots_in, roots_of_system, Roots, Tls},
};

use crate::metrics::{Looks, Outcome};
use nlb_health::row::Health;
use rustix::{
    io::Errno,
    process::{kill_process_group, Pid, Signal},
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{join, AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    process::{Child, Command},
    sync::mpsc,
    time::{interval, timeout, MissedTickBehavior},
};
use tracing::{info, warn};

/// As much is read of a server by one look, whatever it is.
const READ_MAX: u64 = 1024 * 1024;

/// Longest reason for which a server may have chosen the words, in characters.
pub(crate) const WHY_MAX: usize = 300;

/// So many times as often as it takes to be failing an application cannot be looked at before nothing is known of it.
const BLIND: u64 = 10;

/// How an application is looked at, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) probe: Probe,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// So many good results in a row, and it is healthy.
    pub(crate) rise: u64,
    /// So many bad ones, and it is failing.
    pub(crate) fall: u64,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It accepts a connection.
    Tcp(SocketAddr),
    /// It answers a GET, in TLS if there is any.
    Http {
        address: SocketAddr,
        tls: Option<Tls>,
        get: Get,
    },
    /// It has a certificate in TLS that is valid for so many days.
    Certificate {
        address: SocketAddr,
        tls: Tls,
        days: u64,
    },
    /// Its health service says that it serves, in TLS if there is any.
    Grpc {
        address: SocketAddr,
        tls: Option<Tls>,
        call: Call,
    },
    /// The command succeeds.
    Command(Vec<String>),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Http { address, get, .. } => write!(f, "{} {address}{}", self.kind(), get.path),
            Self::Certificate { address, .. } => write!(f, "certificate {address}"),
            Self::Grpc { address, call, .. } => write!(f, "grpc {address}/{}", call.service),
            Self::Command(words) => write!(f, "command {}", words.join(" ")),
        }
    }
}

/// What a check has found, when that has changed.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The name of the application.
    pub(crate) app: String,
    /// Which of its checks.
    pub(crate) index: usize,
    /// Since when checks are these: each reading of the configuration counts.
    pub(crate) generation: u64,
    pub(crate) health: Health,
    /// Why it is not healthy.
    pub(crate) why: Option<String>,
}

/// Results in a row make a verdict.
#[derive(Debug)]
pub(crate) struct Hysteresis {
    healthy: Option<bool>,
    others: u64,
    /// Looks since the last one that has come to anything.
    blind: u64,
}

impl Hysteresis {
    /// Goes on from what is known.
    pub(crate) fn after(health: Health) -> Self {
        let healthy = match health {
            Health::Unknown => None,
            Health::Healthy => Some(true),
            Health::Failing => Some(false),
        };
        Self {
            healthy,
            others: 0,
            blind: 0,
        }
    }

    /// The new verdict, if this result makes one. The first result does, if nothing was known.
    pub(crate) fn take(&mut self, check: &Check, is_good: bool) -> Option<bool> {
        if self.healthy == Some(is_good) {
            self.others = 0;
            return None;
        }
        self.others += 1;
        let needed = if is_good { check.rise } else { check.fall };
        if self.healthy.is_some() && self.others < needed {
            return None;
        }
        self.others = 0;
        self.healthy = Some(is_good);
        self.healthy
    }

    /// The same for a look that may not have come to anything, with the reason. After many of these in a row nothing is
    /// known any more.
    pub(crate) fn look(
        &mut self,
        check: &Check,
        result: Result<(), Miss>,
    ) -> Option<(Health, Option<String>)> {
        let why = match result {
            Ok(()) => None,
            Err(Miss::Bad(why)) => Some(why),
            Err(Miss::Blind(why)) => {
                self.blind = self.blind.saturating_add(1);
                if self.blind == 1 {
                    warn!("cannot look at {}: {why}", check.probe);
                }
                if self.blind != check.fall.saturating_mul(BLIND) {
                    return None;
                }
                self.healthy = None;
                return Some((Health::Unknown, Some(format!("cannot look: {why}"))));
            }
        };
        if std::mem::take(&mut self.blind) > 0 {
            info!("can look at {} again", check.probe);
        }
        let health = match self.take(check, why.is_none())? {
            true => Health::Healthy,
            false => Health::Failing,
        };
        Some((health, why))
    }
}

impl Check {
    /// Looks for ever, and tells what changes from what was known `before`.
    pub(crate) async fn watch(
        self,
        app: String,
        index: usize,
        generation: u64,
        before: Health,
        (verdicts, looks): (mpsc::Sender<Verdict>, Arc<Looks>),
    ) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hysteresis = Hysteresis::after(before);
        loop {
            ticks.tick().await;
            let begun = Instant::now();
            let looked = timeout(self.timeout, self.probe.look()).await;
            let (outcome, result) = match looked {
                Ok(Ok(())) => (Outcome::Good, Ok(())),
                Ok(Err(miss @ Miss::Bad(_))) => (Outcome::Bad, Err(miss)),
                Ok(Err(miss @ Miss::Blind(_))) => (Outcome::Blind, Err(miss)),
                Err(_) => {
                    let what = format!("no answer in {} ms", self.timeout.as_millis());
                    (Outcome::Timeout, Err(Miss::Bad(what)))
                }
            };
            looks.count(&app, &self.probe, outcome, begun.elapsed());
            let Some((health, why)) = hysteresis.look(&self, result) else {
                continue;
            };
            let verdict = Verdict {
                app: app.clone(),
                index,
                generation,
                health,
                why: why.map(|why| format!("{}: {why}", self.probe)),
            };
            if verdicts.send(verdict).await.is_err() {
                return;
            }
        }
    }
}

/// Why a look has not found that all is well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The application is not as it shall be.
    Bad(String),
    /// The agent could not look: nothing is known.
    Blind(String),
}

impl Miss {
    /// A reason in which there may be words of the server, such as names in its certificate.
    fn said(why: String) -> Self {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self::Bad(why.chars().take(WHY_MAX).map(clean).collect())
    }

    fn of(error: &io::Error) -> Self {
        let text = error.to_string();
        match Errno::from_io_error(error) {
            Some(
                Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::ADDRNOTAVAIL | Errno::AGAIN,
            ) => Self::Blind(text),
            _ => Self::Bad(text),
        }
    }

    /// Of a connection. Either no port is left for it, or there is no address of this machine for it, which is no fault
    /// of the agent.
    fn of_connection(error: &io::Error, to: &SocketAddr) -> Self {
        let has_address = || {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to))
        };
        match Self::of(error) {
            Self::Blind(text)
                if error.kind() == io::ErrorKind::AddrNotAvailable
                    && has_address().is_err_and(|own| own.kind() == error.kind()) =>
            {
                Self::Bad(text)
            }
            miss => miss,
        }
    }
}

impl Probe {
    /// The name of its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http { tls: None, .. } => "http",
            Self::Http { tls: Some(_), .. } => "https",
            Self::Certificate { .. } => "certificate",
            Self::Grpc { .. } => "grpc",
            Self::Command(_) => "command",
        }
    }

    /// Looks once. What is wrong is said in words.
    pub(crate) async fn look(&self) -> Result<(), Miss> {
        match self {
            Self::Tcp(address) => connect(address).await.map(drop),
            Self::Http { address, tls, get } => {
                let stream = connect(address).await?;
                let answer = match tls {
                    None => http::get(stream, get).await,
                    Some(tls) => match tls.connect(stream).await {
                        Ok(stream) => http::get(stream, get).await,
                        Err(why) => Err(why),
                    },
                };
                answer.map_err(Miss::said)
            }
            Self::Certificate { address, tls, days } => {
                let stream = tls.connect(connect(address).await?).await;
                let looked = stream.and_then(|stream| tls::is_valid_for(&stream, *days));
                looked.map_err(Miss::said)
            }
            Self::Grpc { address, tls, call } => {
                let stream = connect(address).await?;
                let answer = match tls {
                    None => call.ask(stream).await,
                    Some(tls) => match tls.connect(stream).await {
                        Ok(stream) => call.ask(stream).await,
                        Err(why) => Err(why),
                    },
                };
                answer.map_err(Miss::said)
            }
            Self::Command(words) => {
                let Some((program, arguments)) = words.split_first() else {
                    return Ok(());
                };
                let running = Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .process_group(0)
                    // One that takes too long is dropped with what waits for it.
                    .kill_on_drop(true)
                    .spawn();
                let mut running = Group(running.map_err(|error| Miss::of(&error))?);
                let ended = running.0.wait().await;
                let ended = ended.map_err(|error| Miss::of(&error))?;
                if ended.success() {
                    Ok(())
                } else {
                    Err(Miss::Bad(ended.to_string()))
                }
            }
        }
    }
}

/// A connection, of which no more than [`READ_MAX`] is read.
async fn connect(
    address: &SocketAddr,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Miss> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| Miss::of_connection(&error, address))?;
    let (reader, writer) = stream.into_split();
    Ok(join(reader.take(READ_MAX), writer))
}

/// A command and the processes that it has begun, which end when it is dropped before it has ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // It is known no more when it has ended; then its number may be somebody else's.
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
