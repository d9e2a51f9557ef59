// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handing connections over.

use nlb_netlink::{
    Error,
    Migrator, //
};
use std::{
    io,
    net::{
        IpAddr,
        TcpStream, //
    },
    sync::{
        mpsc,
        Arc,
        Mutex, //
    },
    thread,
    time::Duration, //
};
use tokio::sync::oneshot;

/// What moves a connection to a host. One for each thread.
pub(crate) trait Migrate: Send {
    /// Moves it, or says why it stayed. Blocks.
    fn migrate(&mut self, socket: &TcpStream, host: IpAddr, time: Duration) -> Result<(), String>;
}

/// The kernel's migrator.
#[derive(Default)]
pub(crate) struct Kernel(Option<Migrator>);

impl Migrate for Kernel {
    fn migrate(&mut self, socket: &TcpStream, host: IpAddr, time: Duration) -> Result<(), String> {
        let migrator = match &mut self.0 {
            Some(migrator) => migrator,
            // The module may be loaded, or loaded again, after the daemon was started.
            none => none.insert(Migrator::open().map_err(|error| error.to_string())?),
        };
        match migrator.migrate(socket, host, Some(time)) {
            Ok(_) => Ok(()),
            Err(failure) => {
                if !matches!(failure.error, Error::Refused(_)) {
                    self.0 = None;
                }
                Err(failure.to_string())
            }
        }
    }
}

/// What became of a connection.
pub(crate) struct Outcome {
    /// The host that has it now, or the socket that still works.
    pub(crate) end: Result<IpAddr, TcpStream>,
    /// Hosts that it could not go to, with the reasons.
    pub(crate) refusals: Vec<(IpAddr, String)>,
}

struct Job {
    socket: TcpStream,
    hosts: Vec<IpAddr>,
    time: Duration,
    done: oneshot::Sender<Outcome>,
}

/// Threads that hand connections over. They end when this is dropped and the queue is empty.
pub(crate) struct Workers {
    queue: mpsc::Sender<Job>,
}

impl Workers {
    /// Starts a thread for each of `migrators`.
    pub(crate) fn start(migrators: Vec<Box<dyn Migrate>>) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for mut migrator in migrators {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name("migrate".into())
                .spawn(move || loop {
                    let job = match jobs.lock() {
                        Ok(jobs) => jobs.recv(),
                        Err(_) => return,
                    };
                    let Ok(job) = job else {
                        return;
                    };
                    let outcome = hand_over(&mut *migrator, job.socket, &job.hosts, job.time);
                    // Nobody waits any more when the daemon is about to end.
                    let _ = job.done.send(outcome);
                })?;
        }
        Ok(Self { queue })
    }

    /// Tries the hosts in this order until one takes the connection.
    ///
    /// The queue is bounded by the connections there can be.
    pub(crate) async fn hand_over(
        &self,
        socket: TcpStream,
        hosts: Vec<IpAddr>,
        time: Duration,
    ) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        let job = Job {
            socket,
            hosts,
            time,
            done,
        };
        self.queue.send(job).ok()?;
        outcome.await.ok()
    }
}

fn hand_over(
    migrator: &mut dyn Migrate,
    socket: TcpStream,
    hosts: &[IpAddr],
    time: Duration,
) -> Outcome {
    let mut refusals = Vec::new();
    for host in hosts {
        match migrator.migrate(&socket, *host, time) {
            Ok(()) => {
                return Outcome {
                    end: Ok(*host),
                    refusals,
                }
            }
            Err(reason) => refusals.push((*host, reason)),
        }
    }
    Outcome {
        end: Err(socket),
        refusals,
    }
}
