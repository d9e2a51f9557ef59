// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handing an established connection over to another machine, for any server.
//!
//! The server accepts on the VIP, looks at what the client sent without reading it (`MSG_PEEK`),
//! picks the machine, and gives the connection away. There, the application that listens on the VIP
//! gets it from its `accept()`, with all bytes that were not read here.
//!
//! ```no_run
//! use std::net::{IpAddr, TcpListener};
//!
//! fn main() -> std::io::Result<()> {
//!     let target: IpAddr = "10.0.2.2".parse().unwrap();
//!     let listener = TcpListener::bind("192.0.2.10:80")?;
//!     for connection in listener.incoming() {
//!         let connection = connection?;
//!         let mut head = [0; 5];
//!         if connection.peek(&mut head)? < 5 || &head != b"GET /" {
//!             continue;
//!         }
//!         if let Err(stayed) = nlb_netlink::handover::migrate(connection, target) {
//!             eprintln!("{target}: {stayed}");
//!             if let Some(connection) = stayed.connection {
//!                 // It works as before: serve it here, or try another machine.
//!                 drop(connection);
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! This needs `CAP_NET_ADMIN`, the module `nlb_migrator`, a peer for the target and a service for
//! the VIP; see `Documentation/libnlb.rst`, also for the same in C.

use std::{
    fmt,
    net::IpAddr,
    os::fd::AsFd,
    time::Duration, //
};

use crate::{
    error::Error,
    migrator::{
        NotMoved,
        ReadBytes, //
    },
    Migrator,
};

/// How to hand a connection over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// How long to wait for each answer of the target, from 10 ms to 30 s; the kernel's 2 s when
    /// `None`.
    pub timeout: Option<Duration>,
    /// Bytes that were read from the connection and go with it all the same.
    pub read: ReadBytes<'a>,
}

/// A connection that did not move.
#[derive(Debug)]
pub struct Stayed<S> {
    /// The connection, which works as before; `None` if it is lost.
    pub connection: Option<S>,
    /// Why.
    pub error: Error,
}

impl<S> fmt::Display for Stayed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: fmt::Debug> std::error::Error for Stayed<S> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Hand a connection over to the machine `target`, which is a peer.
///
/// Blocks until it lives there. The socket is closed then, which the client does not notice; other
/// descriptors of the same socket are dead, too.
pub fn migrate<S: AsFd>(connection: S, target: IpAddr) -> Result<(), Stayed<S>> {
    migrate_with(connection, target, Options::default())
}

/// As [`migrate`], with options.
pub fn migrate_with<S: AsFd>(
    connection: S,
    target: IpAddr,
    options: Options<'_>,
) -> Result<(), Stayed<S>> {
    // A handle for each call: it must belong to the network namespace the thread is in now.
    let mut migrator = match Migrator::open() {
        Ok(migrator) => migrator,
        Err(error) => {
            return Err(Stayed {
                connection: Some(connection),
                error,
            })
        }
    };
    match migrator.migrate_read(&connection, options.read, target, options.timeout) {
        Ok(_) => Ok(()),
        Err(not_moved) => Err(Stayed {
            connection: (!is_lost(&not_moved)).then_some(connection),
            error: not_moved.error,
        }),
    }
}

/// Whether the connection must not be used after this error of a request.
fn is_lost(not_moved: &NotMoved) -> bool {
    match &not_moved.error {
        Error::Refused(refusal) => not_moved.was_reset() || refusal.cost_the_connection(),
        // Whatever the kernel did, it could not be heard.
        Error::NoAnswer | Error::Malformed(_) => true,
        // Such as no memory to begin with.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{
        TcpListener,
        TcpStream, //
    };

    use super::*;
    use crate::{
        Reason,
        Refusal, //
    };

    #[test]
    fn a_connection_that_stays_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, from) = listener.accept().unwrap();
        // Whether the module is there or not: nobody has a peer with this address.
        let stayed = migrate(server, "203.0.113.99".parse().unwrap()).unwrap_err();
        assert!(!stayed.to_string().is_empty());
        let server = stayed.connection.unwrap();
        assert_eq!(server.peer_addr().unwrap(), from);
        drop(client);
    }

    #[test]
    fn only_some_errors_cost_the_connection() {
        let refused = |errno, code: Option<Reason>| {
            let refusal = Refusal {
                errno,
                text: None,
                attribute: None,
                code: code.map(|code| code as u32),
            };
            NotMoved::from(Error::Refused(refusal))
        };
        assert!(is_lost(&refused(104, Some(Reason::NoAnswer))));
        assert!(!is_lost(&refused(110, Some(Reason::NoAnswer))));
        assert!(!is_lost(&refused(104, None)));
        assert!(!is_lost(&Error::TooLong.into()));
        assert!(is_lost(&Error::NoAnswer.into()));
    }
}
