// SPDX-License-Identifier: MIT OR Apache-2.0

//! A connection to a daemon on this machine: a line there, a line back.

use crate::Error;
use rustix::{
    io::Errno,
    net::{
        connect, socket_with,
        sockopt::{set_socket_timeout, Timeout},
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType,
    },
};
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longest request that the agent reads, in bytes, with its newline.
const REQUEST_MAX: usize = 4096;
/// Longest answer that is read: all that an LBU may know of applications fits in.
const ANSWER_MAX: usize = 128 << 20;

/// A connection to the socket of `nlb-agent`. That of `nlbd health` takes and gives lines in the same way.
///
/// An application that was registered to be held by a connection is there as long as that is open.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
    /// What has come of the next answer.
    received: Vec<u8>,
    /// The answer to an earlier request has not come in time, and is still to come.
    is_late: bool,
}

impl Connection {
    /// Connects to the socket at `path`. `timeout` is for that, and for each answer.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`], and [`Error::Timeout`] if so many wait already that the agent has no room for another one.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let stream = connected(path, Instant::now() + timeout);
        Ok(Self {
            stream: stream.map_err(|source| failed(path, timeout, source))?,
            path: path.to_owned(),
            timeout,
            received: Vec::new(),
            is_late: false,
        })
    }

    /// Says something, such as a [`Request`](crate::Request), and returns what was answered, without its newline. After
    /// [`Error::Timeout`] and [`Error::Argument`] the connection can be used further, after others not.
    ///
    /// # Errors
    ///
    /// All but [`Error::Refused`]: what an answer says is not looked at.
    pub fn ask(&mut self, request: impl fmt::Display) -> Result<String, Error> {
        let line = format!("{request}\n");
        if line.len() > REQUEST_MAX || line.find('\n') != Some(line.len() - 1) {
            let what = format!("a request is one line of up to {REQUEST_MAX} bytes");
            return Err(Error::Argument(what));
        }
        let deadline = Some(Instant::now() + self.timeout);
        if self.is_late {
            self.answer(deadline)?;
            self.is_late = false;
        }
        let written = self.write(line.as_bytes(), deadline);
        // Whoever is refused at once hears why, although it cannot write any more.
        match (self.answer(deadline), written) {
            (Err(Error::Agent { path, .. } | Error::Timeout { path, .. }), Err(source)) => {
                Err(Error::Agent { path, source })
            }
            (Err(timeout @ Error::Timeout { .. }), Ok(())) => {
                self.is_late = true;
                Err(timeout)
            }
            (answer, _) => answer,
        }
    }

    /// The next line that comes without being asked for, without its newline: where the daemon was asked to tell what
    /// happens. Waits for it for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`], also when the daemon has ended, and [`Error::Answer`].
    pub fn listen(&mut self) -> Result<String, Error> {
        self.answer(None)
    }

    fn write(&mut self, mut line: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        while !line.is_empty() {
            self.stream.set_write_timeout(left(deadline)?)?;
            match self.stream.write(line) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => line = line.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next line that comes.
    fn answer(&mut self, deadline: Option<Instant>) -> Result<String, Error> {
        let mut looked = 0;
        loop {
            let new = self.received.get(looked..).unwrap_or_default();
            if let Some(end) = new.iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(looked + end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return String::from_utf8(line).map_err(|_| Error::Answer("it is not UTF-8"));
            }
            looked = self.received.len();
            if looked >= ANSWER_MAX {
                return Err(Error::Answer("it is too long"));
            }
            let read = self.read(deadline);
            read.map_err(|source| failed(&self.path, self.timeout, source))?;
        }
    }

    /// Some more bytes.
    fn read(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let mut part = [0; 16384];
        self.stream.set_read_timeout(left(deadline)?)?;
        match self.stream.read(&mut part) {
            Ok(0) => {
                let what = "the connection has ended";
                Err(io::Error::new(ErrorKind::ConnectionReset, what))
            }
            Ok(len) => {
                self.received.extend(part.iter().take(len));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A stream to the socket at `path`. If it listens and does not accept, that waits until then.
fn connected(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    loop {
        // This is for connect(), too: unix_stream_connect() in the kernel's net/unix/af_unix.c.
        set_socket_timeout(&socket, Timeout::Send, left(Some(deadline))?)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            // Nothing has been done.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What an error of the socket at `path` means, after a wait of up to `after`.
fn failed(path: &Path, after: Duration, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout { path, after },
        _ => Error::Agent { path, source },
    }
}

/// The time until then, if there is an end. A socket takes no time at all for all of it.
fn left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}
