// SPDX-License-Identifier: MIT OR Apache-2.0

//! `nlb migration drain`: all connections of a service go to other machines.
//!
//! Pass after pass lists the connections there are and hands each new one over, many at a time,
//! until a pass finds none that is worth an attempt. What a pass does with each is in [`Tally`].

mod tally;

use std::{
    net::IpAddr,
    sync::{
        atomic::{
            AtomicBool,
            Ordering::Relaxed, //
        },
        mpsc,
        Arc,
        Mutex, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use nlb_netlink::{
    Error,
    Migrator,
    NotMoved,
    ReadBytes,
    TcpConnection,
    TcpConnections, //
};
use rustix::process::{
    getrlimit,
    setrlimit,
    Resource,
    Rlimit, //
};
use signal_hook::{
    consts::TERM_SIGNALS,
    flag, //
};

use super::Outcome;
use crate::{
    cli::DrainArgs,
    failure::Failure,
    output::Format, //
};
use tally::{
    Attempt,
    Progress,
    Tally, //
};

/// Between two passes when the one before could move nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Of a thread, in bytes: there may be thousands, and none goes deep.
const STACK: usize = 256 << 10;

/// Descriptors besides the netlink sockets of the threads.
const OTHER_DESCRIPTORS: u64 = 64;

/// An attempt to move one connection, and the host to try first.
struct Job {
    connection: TcpConnection,
    first: usize,
}

/// What all threads share.
struct Shared<'a> {
    args: &'a DrainArgs,
    jobs: Mutex<mpsc::Receiver<Job>>,
    /// Attempts that are not under way yet shall not begin.
    stop: Arc<AtomicBool>,
}

pub(super) fn run(args: &DrainArgs, format: Format) -> Outcome {
    allow_descriptors(u64::from(args.jobs) + OTHER_DESCRIPTORS)?;
    let stop = stop_flag().map_err(|error| Failure::Text(format!("signals: {error}")))?;
    let mut connections = TcpConnections::open()?;
    let mut tally = Tally::new(args);
    let progress = Progress::new(format);
    // Before the threads: what is missing is told once.
    drop(Migrator::open()?);

    let (jobs, queue) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let shared = Shared {
        args,
        jobs: Mutex::new(queue),
        stop,
    };
    let outcome = thread::scope(|scope| {
        for n in 0..args.jobs {
            let (shared, done) = (&shared, done.clone());
            let thread = thread::Builder::new().stack_size(STACK);
            if let Err(error) = thread.spawn_scoped(scope, move || work(shared, &done)) {
                return Err(Failure::Text(format!(
                    "thread {n} of {}: {error}",
                    args.jobs
                )));
            }
        }
        // Only the threads have it: they are all gone when nothing more can come.
        drop(done);
        // Dropped at the end, by which the threads learn that there is nothing more to do.
        let jobs = jobs;
        passes(
            &shared,
            &jobs,
            &results,
            &mut connections,
            &mut tally,
            &progress,
        )
        .map_err(Failure::from)
    });
    progress.end();
    tally.end(shared.stop.load(Relaxed));
    tally.print(format)?;
    outcome?;
    tally.verdict()
}

/// Lets this process have as many descriptors.
fn allow_descriptors(wanted: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let failed = |text: String| Failure::Text(format!("{wanted} descriptors: {text}"));
    if let Some(maximum) = maximum.filter(|&maximum| maximum < wanted) {
        return Err(failed(format!("the limit (ulimit -Hn) is {maximum}")));
    }
    let limit = Rlimit {
        current: Some(wanted),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).map_err(|error| failed(error.to_string()))
}

/// Becomes true by SIGINT or SIGTERM. The second of them ends the process.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in TERM_SIGNALS {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_default(*signal, Arc::clone(&stop))?;
        flag::register(*signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Passes until nothing is left to try.
fn passes(
    shared: &Shared<'_>,
    jobs: &mpsc::Sender<Job>,
    results: &mpsc::Receiver<(TcpConnection, Attempt)>,
    connections: &mut TcpConnections,
    tally: &mut Tally<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    let mut turn = 0usize;
    loop {
        if shared.stop.load(Relaxed) {
            return Ok(());
        }
        let mut listed = connections.at(shared.args.from)?;
        let filters = &shared.args.filter;
        listed.retain(|connection| filters.iter().all(|one| one.matches(connection.remote)));
        let todo = tally.begin_pass(listed, Instant::now());
        if todo.is_empty() {
            if !tally.is_hopeful(Instant::now()) {
                return Ok(());
            }
            thread::sleep(PAUSE);
            continue;
        }
        let before = tally.moved();
        let mut waiting = 0usize;
        for connection in todo {
            let first = turn;
            turn = turn.wrapping_add(1);
            // The receiver is in `shared`.
            if jobs.send(Job { connection, first }).is_ok() {
                waiting += 1;
            }
        }
        while waiting > 0 {
            match results.recv_timeout(Duration::from_millis(200)) {
                Ok((connection, attempt)) => {
                    waiting -= 1;
                    tally.count(connection, attempt, Instant::now());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            progress.show(tally, waiting);
        }
        if tally.moved() == before {
            thread::sleep(PAUSE);
        }
    }
}

/// A thread: one attempt after the other, over a netlink socket of its own.
fn work(shared: &Shared<'_>, done: &mpsc::Sender<(TcpConnection, Attempt)>) {
    let mut migrator = None;
    loop {
        let job = match shared.jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let Ok(Job { connection, first }) = job else {
            return;
        };
        let attempt = if shared.stop.load(Relaxed) {
            Attempt::NotBegun
        } else {
            attempt(&mut migrator, shared.args, connection, first)
        };
        if done.send((connection, attempt)).is_err() {
            return;
        }
    }
}

/// Tries one host after the other, until one takes the connection or it is its own obstacle.
fn attempt(
    slot: &mut Option<Migrator>,
    args: &DrainArgs,
    connection: TcpConnection,
    first: usize,
) -> Attempt {
    let timeout = args.timeout.map(|ms| Duration::from_millis(ms.into()));
    let mut failure = None;
    for turn in 0..args.to.len() {
        let index = first.wrapping_add(turn) % args.to.len();
        let Some(&host) = args.to.get(index) else {
            break;
        };
        let result = hand_over(slot, connection, host, timeout);
        match result {
            Ok(()) => return Attempt::Moved(host),
            Err(not_moved) => {
                if not_moved.was_reset() {
                    return Attempt::failed(&not_moved);
                }
                failure = Some(not_moved);
            }
        }
    }
    match failure {
        Some(failure) => Attempt::failed(&failure),
        None => Attempt::NotBegun,
    }
}

fn hand_over(
    slot: &mut Option<Migrator>,
    connection: TcpConnection,
    host: IpAddr,
    timeout: Option<Duration>,
) -> Result<(), NotMoved> {
    let migrator = match &mut *slot {
        Some(migrator) => migrator,
        none => none.insert(Migrator::open()?),
    };
    let TcpConnection { local, remote } = connection;
    let result = migrator.migrate_connection(remote, local, ReadBytes::Nothing, host, timeout);
    if matches!(&result, Err(failure) if !matches!(failure.error, Error::Refused(_))) {
        *slot = None;
    }
    result.map(drop)
}
