// SPDX-License-Identifier: MIT OR Apache-2.0

//! What became of the connections that were to be drained.

use std::{
    collections::{
        BTreeMap,
        HashMap,
        HashSet, //
    },
    io::{
        self,
        IsTerminal,
        Write, //
    },
    net::IpAddr,
    time::{
        Duration,
        Instant, //
    },
};

use nlb_netlink::{
    NotMoved,
    Phase,
    TcpConnection, //
};
use serde::Serialize;

use crate::{
    cli::DrainArgs,
    command::Outcome,
    failure::Failure,
    output::Format, //
};

const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const ENOBUFS: i32 = 105;
const ENOTCONN: i32 = 107;

/// How a connection stayed where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stay {
    /// Nothing was begun, or the host did not want it.
    Refused,
    /// It was taken back from the middle of a migration.
    RolledBack,
}

impl Stay {
    fn text(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::RolledBack => "rolled back",
        }
    }
}

/// The result of one attempt.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// The connection lives at a host now.
    Moved(IpAddr),
    /// It stayed.
    Stayed {
        how: Stay,
        reason: String,
        /// Whether another attempt may fare better.
        again: bool,
    },
    /// It could not be saved.
    Reset(String),
    /// There was no attempt.
    NotBegun,
}

impl Attempt {
    /// The attempt that failed so.
    pub(super) fn failed(failure: &NotMoved) -> Self {
        let reason = match failure.error.refusal() {
            Some(refusal) => refusal.message(),
            None => failure.error.to_string(),
        };
        if failure.was_reset() {
            return Self::Reset(reason);
        }
        let how = match failure.phase() {
            None | Some(Phase::Refused) => Stay::Refused,
            Some(_) => Stay::RolledBack,
        };
        // These errors say so themselves; what was begun can be begun again. ENOTCONN is a
        // connection that is about to leave the list.
        let passing = [EAGAIN, EBUSY, ENOBUFS, ENOTCONN];
        let again = how == Stay::RolledBack
            || failure
                .error
                .errno()
                .is_some_and(|errno| passing.contains(&errno));
        Self::Stayed { how, reason, again }
    }
}

/// A connection that is still here.
struct Left {
    since: Instant,
    last: Attempt,
}

/// The account of a drain: each connection that was seen is in one of its numbers at the end.
pub(super) struct Tally<'a> {
    args: &'a DrainArgs,
    began: Instant,
    seconds: f64,
    passes: u64,
    seen: u64,
    moved: BTreeMap<IpAddr, u64>,
    reset: BTreeMap<String, u64>,
    ended: u64,
    left: HashMap<TcpConnection, Left>,
    interrupted: bool,
}

/// The report as it is serialised.
#[derive(Serialize)]
struct Report<'a> {
    from: String,
    to: &'a [IpAddr],
    passes: u64,
    seconds: f64,
    /// All that were seen: the sum of the next five.
    connections: u64,
    moved: u64,
    refused: u64,
    rolled_back: u64,
    reset: u64,
    /// Gone before they could be moved.
    ended: u64,
    /// Seen, and not tried because of the interruption.
    not_tried: u64,
    moved_per_second: f64,
    hosts: &'a BTreeMap<IpAddr, u64>,
    reasons: Vec<Reason<'a>>,
    interrupted: bool,
}

#[derive(Serialize)]
struct Reason<'a> {
    outcome: &'static str,
    reason: &'a str,
    connections: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(args: &'a DrainArgs) -> Self {
        Self {
            args,
            began: Instant::now(),
            seconds: 0.0,
            passes: 0,
            seen: 0,
            moved: BTreeMap::new(),
            reset: BTreeMap::new(),
            ended: 0,
            left: HashMap::new(),
            interrupted: false,
        }
    }

    /// Takes note of the connections there are; gives those that are worth an attempt.
    pub(super) fn begin_pass(
        &mut self,
        listed: Vec<TcpConnection>,
        now: Instant,
    ) -> Vec<TcpConnection> {
        let listed: HashSet<_> = listed.into_iter().collect();
        let before = self.left.len();
        self.left
            .retain(|connection, _| listed.contains(connection));
        self.ended += (before - self.left.len()) as u64;
        let mut todo = Vec::new();
        for connection in listed {
            match self.left.get(&connection) {
                // Also one that has the addresses of one that was moved.
                None => {
                    self.seen += 1;
                    let last = Attempt::NotBegun;
                    self.left.insert(connection, Left { since: now, last });
                    todo.push(connection);
                }
                Some(left) if self.is_worth_it(left, now) => todo.push(connection),
                Some(_) => {}
            }
        }
        if !todo.is_empty() {
            self.passes += 1;
        }
        todo
    }

    fn is_worth_it(&self, left: &Left, now: Instant) -> bool {
        let retry = Duration::from_secs(self.args.retry.into());
        matches!(left.last, Attempt::Stayed { again: true, .. }) && now - left.since < retry
    }

    /// Whether another pass may move what this one could not.
    pub(super) fn is_hopeful(&self, now: Instant) -> bool {
        self.left.values().any(|left| self.is_worth_it(left, now))
    }

    /// Takes note of an attempt's result.
    pub(super) fn count(&mut self, connection: TcpConnection, attempt: Attempt, now: Instant) {
        match attempt {
            Attempt::Moved(host) => {
                self.left.remove(&connection);
                *self.moved.entry(host).or_default() += 1;
            }
            Attempt::Reset(reason) => {
                self.left.remove(&connection);
                *self.reset.entry(reason).or_default() += 1;
            }
            // An earlier attempt may have more to say.
            Attempt::NotBegun => {}
            stayed @ Attempt::Stayed { .. } => {
                let left = self.left.entry(connection);
                let since = now;
                left.and_modify(|left| left.last = stayed.clone())
                    .or_insert(Left {
                        since,
                        last: stayed,
                    });
            }
        }
    }

    /// Connections that live at a host now.
    pub(super) fn moved(&self) -> u64 {
        self.moved.values().sum()
    }

    fn resets(&self) -> u64 {
        self.reset.values().sum()
    }

    /// No more is coming.
    pub(super) fn end(&mut self, interrupted: bool) {
        self.seconds = self.began.elapsed().as_secs_f64();
        self.interrupted = interrupted;
    }

    fn report(&self) -> Report<'_> {
        let mut reasons = BTreeMap::new();
        let mut not_tried = 0;
        for left in self.left.values() {
            match &left.last {
                Attempt::Stayed { how, reason, .. } => {
                    *reasons.entry((*how, reason.as_str())).or_default() += 1;
                }
                _ => not_tried += 1,
            }
        }
        let sum = |which: Stay| -> u64 {
            let fits = reasons.iter().filter(|((how, _), _)| *how == which);
            fits.map(|(_, count)| *count).sum()
        };
        let (refused, rolled_back) = (sum(Stay::Refused), sum(Stay::RolledBack));
        let stayed = reasons.iter().map(|((how, reason), connections)| Reason {
            outcome: how.text(),
            reason,
            connections: *connections,
        });
        let reset = self.reset.iter().map(|(reason, connections)| Reason {
            outcome: "reset",
            reason,
            connections: *connections,
        });
        let moved = self.moved();
        Report {
            from: self.args.from.to_string(),
            to: &self.args.to,
            passes: self.passes,
            seconds: self.seconds,
            connections: self.seen,
            moved,
            refused,
            rolled_back,
            reset: self.resets(),
            ended: self.ended,
            not_tried,
            moved_per_second: moved as f64 / self.seconds.max(1e-9),
            hosts: &self.moved,
            reasons: stayed.chain(reset).collect(),
            interrupted: self.interrupted,
        }
    }

    /// Prints the report.
    pub(super) fn print(&self, format: Format) -> io::Result<()> {
        let report = self.report();
        if format.is_json() {
            return format.json(&report);
        }
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{} connections in {} passes, {:.3} s, {:.0} moved a second",
            report.connections, report.passes, report.seconds, report.moved_per_second
        )?;
        writeln!(out, "{:>8}  moved", report.moved)?;
        for (host, count) in report.hosts {
            writeln!(out, "{:>8}    to {host}", count)?;
        }
        for reason in &report.reasons {
            let Reason {
                outcome,
                reason,
                connections,
            } = reason;
            writeln!(out, "{connections:>8}  {outcome}: {reason}")?;
        }
        for (count, what) in [
            (report.ended, "ended before they could be moved"),
            (report.not_tried, "not tried"),
        ] {
            if count > 0 {
                writeln!(out, "{count:>8}  {what}")?;
            }
        }
        out.flush()
    }

    /// Success if nobody stayed.
    pub(super) fn verdict(&self) -> Outcome {
        let (stayed, reset) = (self.left.len(), self.resets());
        let text = match (stayed, reset) {
            _ if self.interrupted => format!("interrupted, {stayed} connections stayed"),
            (0, 0) => return Ok(()),
            (_, 0) => format!("{stayed} connections stayed"),
            (_, _) => format!("{stayed} connections stayed, {reset} were reset"),
        };
        Err(Failure::Text(text))
    }
}

/// A line on standard error that says how far it has come.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// Only people want it.
    pub(super) fn new(format: Format) -> Self {
        Self {
            shown: !format.is_json() && io::stderr().is_terminal(),
        }
    }

    /// Shows the numbers of now.
    pub(super) fn show(&self, tally: &Tally<'_>, waiting: usize) {
        if self.shown {
            let moved = tally.moved();
            let seconds = tally.began.elapsed().as_secs_f64();
            eprint!(
                "\r\x1b[Kpass {}: {moved} moved, {waiting} to go, {} reset, {:.0} moved a second",
                tally.passes,
                tally.resets(),
                moved as f64 / seconds.max(1e-9)
            );
        }
    }

    /// Clears the line.
    pub(super) fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{
        Cli,
        MigrationCommand,
        Object, //
    };

    fn with_args(retry: &str, run: impl FnOnce(&DrainArgs)) {
        let line =
            format!("nlb migration drain --from 192.0.2.10:80 --to 10.0.2.2 --retry {retry}");
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Object::Migration {
            command: Some(MigrationCommand::Drain(args)),
        } = &cli.object
        else {
            panic!("{line}");
        };
        run(args);
    }

    fn connection(port: u16) -> TcpConnection {
        TcpConnection {
            local: "192.0.2.10:80".parse().unwrap(),
            remote: ([10, 0, 1, 2], port).into(),
        }
    }

    fn stayed(again: bool) -> Attempt {
        Attempt::Stayed {
            how: Stay::Refused,
            reason: "busy".to_owned(),
            again,
        }
    }

    #[test]
    fn each_connection_is_counted_once() {
        with_args("5", |args| {
            let mut tally = Tally::new(args);
            let start = Instant::now();
            let all: Vec<_> = (1..=5).map(connection).collect();
            let mut todo = tally.begin_pass(all.clone(), start);
            todo.sort();
            assert_eq!(todo, all);
            tally.count(connection(1), Attempt::Moved([10, 0, 2, 2].into()), start);
            tally.count(connection(2), stayed(true), start);
            tally.count(connection(3), stayed(false), start);
            tally.count(connection(4), Attempt::Reset("lost".to_owned()), start);
            tally.count(connection(5), stayed(true), start);

            // The fifth has ended meanwhile, a new one came, and the first is there anew.
            let listed = [1, 2, 3, 6].map(connection).to_vec();
            let mut todo = tally.begin_pass(listed, start);
            todo.sort();
            assert_eq!(todo, [1, 2, 6].map(connection));
            for port in [1, 6] {
                tally.count(
                    connection(port),
                    Attempt::Moved([10, 0, 3, 2].into()),
                    start,
                );
            }
            tally.count(connection(2), stayed(true), start);
            assert!(tally.is_hopeful(start));

            let late = start + Duration::from_secs(6);
            assert!(!tally.is_hopeful(late));
            assert!(tally
                .begin_pass([2, 3].map(connection).to_vec(), late)
                .is_empty());
            tally.end(false);
            let report = tally.report();
            assert_eq!(
                (report.connections, report.moved, report.refused),
                (7, 3, 2)
            );
            assert_eq!((report.reset, report.ended, report.not_tried), (1, 1, 0));
            assert_eq!(report.passes, 2);
            assert_eq!(report.reasons.len(), 2);
            assert!(tally.verdict().is_err());
        });
    }

    #[test]
    fn nothing_left_is_success() {
        with_args("0", |args| {
            let mut tally = Tally::new(args);
            let now = Instant::now();
            tally.begin_pass(vec![connection(1)], now);
            tally.count(connection(1), stayed(true), now);
            // Without time for another attempt.
            assert!(!tally.is_hopeful(now));
            assert!(tally.verdict().is_err());
            assert!(tally.begin_pass(Vec::new(), now).is_empty());
            assert!(tally.verdict().is_ok());
            tally.end(true);
            assert!(tally.verdict().is_err());
        });
    }
}
