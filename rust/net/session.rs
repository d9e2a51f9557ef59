// SPDX-License-Identifier: GPL-2.0

//! Threads around sockets: a listener that hands out connections, and a bounded set of
//! connections with a thread each.
//!
//! Both end as soon as their owner is dropped, whatever the threads wait for: the sockets are shut
//! down, which wakes the threads, and the threads are joined. So an owner among a namespace's state
//! is all it takes to leave nothing behind on the namespace's exit and on unloading.

use crate::{
    errno::ESHUTDOWN,
    kthread::{
        Current,
        Thread, //
    },
    net::{
        netns::Net,
        socket::{
            Socket,
            SocketFamily, //
        }, //
    },
};
use core::net::SocketAddr;
use kernel::{
    fmt, new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The socket of a session, until its thread is done with it.
#[pin_data]
struct Shared {
    #[pin]
    socket: Mutex<Option<Arc<Socket>>>,
}

impl Shared {
    // Not part of a generic function: lockdep wants one name, at one address, for each class, and
    // a generic function has its strings in every module that uses it.
    fn new(socket: Arc<Socket>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                socket <- new_mutex!(Some(socket), "nlb::Session"),
            }),
            GFP_KERNEL,
        )
    }
}

struct Session {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Table {
    open: bool,
    sessions: KVec<Session>,
}

#[pin_data]
struct Inner {
    max: usize,
    #[pin]
    table: Mutex<Table>,
}

/// A bounded set of sockets, each with a thread that serves it.
///
/// A thread must not own what owns the set: it would have to wait for itself.
pub struct Sessions(Pin<KBox<Inner>>);

impl Sessions {
    /// An empty set that takes up to `max` sessions.
    pub fn new(max: usize) -> Result<Self> {
        Ok(Self(KBox::pin_init(
            pin_init!(Inner {
                max,
                table <- new_mutex!(
                    Table {
                        open: true,
                        sessions: KVec::new(),
                    },
                    "nlb::Sessions"
                ),
            }),
            GFP_KERNEL,
        )?))
    }

    /// Has a new thread run `serve` on `socket`, and shut the socket down afterwards. A socket that
    /// is still to be connected is welcome.
    ///
    /// `ENOSPC` if the set is full, `ESHUTDOWN` after [`Self::stop`]; the socket is then closed.
    pub fn spawn<F>(&self, name: fmt::Arguments<'_>, socket: Arc<Socket>, serve: F) -> Result
    where
        F: FnOnce(&Arc<Socket>, &Current) + Send + 'static,
    {
        let shared = Shared::new(socket.clone())?;
        let mine = shared.clone();
        let run = move |current: &Current| {
            serve(&socket, current);
            socket.shutdown();
            // The last reference but for this thread's own, so the socket closes now, not when
            // the thread is joined.
            *mine.socket.lock() = None;
            drop(socket);
        };

        // Threads that are done are joined after the lock was dropped.
        let mut done = KVec::new();
        let mut table = self.0.table.lock();
        if !table.open {
            return Err(ESHUTDOWN.into());
        }
        let mut i = 0;
        while let Some(session) = table.sessions.get(i) {
            if !session.thread.is_finished() {
                i += 1;
                continue;
            }
            done.reserve(1, GFP_KERNEL)?;
            if let Ok(session) = table.sessions.remove(i) {
                done.push(session, GFP_KERNEL)?;
            }
        }
        if table.sessions.len() >= self.0.max {
            return Err(ENOSPC);
        }
        table.sessions.reserve(1, GFP_KERNEL)?;
        let thread = Thread::spawn(name, run)?;
        table
            .sessions
            .push(Session { shared, thread }, GFP_KERNEL)?;
        Ok(())
    }

    /// Number of sessions that are being served.
    pub fn count(&self) -> usize {
        let table = self.0.table.lock();
        let running = table.sessions.iter();
        running
            .filter(|session| !session.thread.is_finished())
            .count()
    }

    /// Shuts all sockets down and waits for all threads. No session can be added afterwards.
    pub fn stop(&self) {
        let mut table = self.0.table.lock();
        table.open = false;
        let sessions = core::mem::replace(&mut table.sessions, KVec::new());
        drop(table);
        for session in &sessions {
            if let Some(socket) = session.shared.socket.lock().as_ref() {
                socket.shutdown();
            }
        }
        // Joins.
        drop(sessions);
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long a listener rests when the machine has no memory for a connection, in milliseconds.
const ACCEPT_PAUSE: u32 = 100;

/// A listening socket with a thread that accepts connections.
pub struct Listener {
    socket: Arc<Socket>,
    // Joined when dropped, after `drop()` below has shut down the socket.
    _thread: Thread,
}

impl Listener {
    /// Listens on `addr` in `net` (of its family only) and has `accept` called with the listening socket and every
    /// connection, one at a time.
    /// Fails as `bind()` does, `EADDRINUSE` above all.
    pub fn start<F>(
        net: &Net,
        addr: SocketAddr,
        backlog: u32,
        name: fmt::Arguments<'_>,
        mut accept: F,
    ) -> Result<Self>
    where
        F: FnMut(&Socket, Socket) + Send + 'static,
    {
        let family = match addr {
            SocketAddr::V4(_) => SocketFamily::V4,
            SocketAddr::V6(_) => SocketFamily::V6,
        };
        let socket = Socket::tcp(net, family)?;
        if family == SocketFamily::V6 {
            socket.set_v6only()?;
        }
        socket.set_reuseaddr();
        socket.bind(addr)?;
        socket.listen(backlog)?;
        let socket = Arc::new(socket, GFP_KERNEL)?;
        let listener = socket.clone();
        let thread = Thread::spawn(name, move |current: &Current| {
            while !listener.is_shut_down() && !current.should_stop() {
                match listener.accept() {
                    Ok(connection) => accept(&listener, connection),
                    Err(_) => current.sleep(ACCEPT_PAUSE),
                }
            }
        })?;
        Ok(Self {
            socket,
            _thread: thread,
        })
    }

    /// The listening socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The address and port it listens on.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.socket.shutdown();
    }
}
