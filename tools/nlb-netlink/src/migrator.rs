// SPDX-License-Identifier: MIT OR Apache-2.0

//! The family `nlb-migrator`: peers and migrations.

use std::{
    fmt,
    net::{
        IpAddr,
        SocketAddr, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd, //
    },
    time::Duration, //
};

use crate::{
    connection::Connection,
    error::{
        Error,
        Malformed,
        Result, //
    },
    message::Request,
    object::{
        Keep,
        Migration,
        Peer,
        Stats, //
    },
    uapi::migrator::{
        cmd,
        keep,
        migration,
        peer,
        stats,
        Algorithm,
        Phase,
        Role,
        FAMILY, //
    },
    value::Named,
};

/// A key to be given to a peer (TCP-AO, RFC 5925).
///
/// Not `Debug`, so that the secret ends in no log.
pub struct NewKey<'a> {
    /// Id in segments to the peer; the peer's `recv_id` of the key.
    pub send_id: u8,
    /// Id in segments from the peer; `send_id` when `None`.
    pub recv_id: Option<u8>,
    /// How segments are signed; HMAC-SHA-256 when `None`.
    pub algorithm: Option<Algorithm>,
    /// What both sides know, 16 to 80 bytes.
    pub secret: &'a [u8],
}

impl NewKey<'_> {
    fn put(&self, request: Request) -> Request {
        let mut request = request.u8(peer::SEND_ID, self.send_id);
        if let Some(id) = self.recv_id {
            request = request.u8(peer::RECV_ID, id);
        }
        if let Some(algorithm) = self.algorithm {
            request = request.u32(peer::ALGORITHM, algorithm as u32);
        }
        request.put(peer::SECRET, self.secret)
    }
}

/// Which of the bytes that were read from a connection go with it, as if nobody had read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadBytes<'a> {
    /// None.
    #[default]
    Nothing,
    /// These, the last that were read, at most 32767. Only the program that has the socket can give
    /// them back.
    Given(&'a [u8]),
    /// So many of the last, from the kernel's copy; see [`Migrator::keep_add`].
    Kept(u32),
    /// All since the connection began, from the kernel's copy.
    AllKept,
}

impl ReadBytes<'_> {
    fn put(self, request: Request) -> Request {
        match self {
            Self::Nothing => request,
            Self::Given(bytes) => request.put(migration::READ_DATA, bytes),
            Self::Kept(count) => request.u32(migration::READ_BYTES, count),
            Self::AllKept => request.put(migration::READ_ALL, &[]),
        }
    }
}

/// A handle of the family `nlb-migrator`.
pub struct Migrator {
    connection: Connection,
}

impl Migrator {
    /// Open a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let connection = Connection::open(FAMILY)?;
        Ok(Self { connection })
    }

    /// Allow migrations to and from a peer; `port` is its migrator's TCP port, 4770 when `None`.
    ///
    /// Without a key, whoever can send with its address can do in its name what a peer can.
    pub fn peer_add(
        &mut self,
        addr: IpAddr,
        port: Option<u16>,
        key: Option<&NewKey<'_>>,
    ) -> Result<()> {
        let request = peer_new(addr, port, key);
        self.connection.execute(&request, peer::NAMES)
    }

    /// Give a peer one more key.
    pub fn peer_key_add(&mut self, addr: IpAddr, key: &NewKey<'_>) -> Result<()> {
        let request = Request::new(cmd::PEER_KEY_NEW).addr(peer::ADDR, addr);
        self.connection.execute(&key.put(request), peer::NAMES)
    }

    /// Remove a key, which must not be the peer's last.
    pub fn peer_key_del(&mut self, addr: IpAddr, send_id: u8) -> Result<()> {
        let request = Request::new(cmd::PEER_KEY_DEL).addr(peer::ADDR, addr);
        self.connection
            .execute(&request.u8(peer::SEND_ID, send_id), peer::NAMES)
    }

    /// Prefer a key: begin connections with it, and ask the peer to use it on those there are.
    pub fn peer_key_use(&mut self, addr: IpAddr, send_id: u8) -> Result<()> {
        let request = Request::new(cmd::PEER_KEY_USE).addr(peer::ADDR, addr);
        self.connection
            .execute(&request.u8(peer::SEND_ID, send_id), peer::NAMES)
    }

    /// Remove a peer and close its connections.
    pub fn peer_del(&mut self, addr: IpAddr) -> Result<()> {
        let request = Request::new(cmd::PEER_DEL).addr(peer::ADDR, addr);
        self.connection.execute(&request, peer::NAMES)
    }

    /// One peer.
    pub fn peer(&mut self, addr: IpAddr) -> Result<Peer> {
        let request = Request::new(cmd::PEER_GET).addr(peer::ADDR, addr);
        self.connection.get(&request, peer::NAMES, Peer::decode)
    }

    /// All peers.
    pub fn peers(&mut self) -> Result<Vec<Peer>> {
        let request = Request::new(cmd::PEER_GET);
        self.connection.dump(request, peer::NAMES, Peer::decode)
    }

    /// Hand the connection of `socket` to a peer.
    ///
    /// Blocks until it lives there, which takes up to a few times `timeout` (the time to wait for
    /// each answer of the target; 2 s when `None`). On success the descriptor is dead and may only
    /// be closed. On a refusal the connection stayed with the caller and works as before, unless
    /// [`NotMoved::was_reset`] says that it could not be saved. After an error that is no
    /// [`Error::Refused`](crate::Error::Refused), drop this handle: more of the answer may come.
    /// [`handover`](crate::handover) has this with ownership.
    pub fn migrate(
        &mut self,
        socket: impl AsFd,
        peer: IpAddr,
        timeout: Option<Duration>,
    ) -> Result<Migration, NotMoved> {
        self.hand_over(migrate(by_fd(socket.as_fd()), peer, timeout))
    }

    /// As [`Self::migrate`], with bytes that were read from the socket: the peer's application reads
    /// them as if nobody had.
    pub fn migrate_read(
        &mut self,
        socket: impl AsFd,
        read: ReadBytes<'_>,
        peer: IpAddr,
        timeout: Option<Duration>,
    ) -> Result<Migration, NotMoved> {
        let request = migrate(by_fd(socket.as_fd()), peer, timeout);
        self.hand_over(read.put(request))
    }

    /// Hand a connection to a peer, whatever process has its socket. As [`Self::migrate`]; the
    /// process finds `ECONNABORTED` in its socket when the connection has gone.
    pub fn migrate_connection(
        &mut self,
        client: SocketAddr,
        vip: SocketAddr,
        read: ReadBytes<'_>,
        peer: IpAddr,
        timeout: Option<Duration>,
    ) -> Result<Migration, NotMoved> {
        let request = Request::new(cmd::MIGRATE)
            .addr(migration::CLIENT_ADDR, client.ip())
            .port(migration::CLIENT_PORT, client.port())
            .addr(migration::VIP_ADDR, vip.ip())
            .port(migration::VIP_PORT, vip.port());
        self.hand_over(read.put(migrate(request, peer, timeout)))
    }

    fn hand_over(&mut self, request: Request) -> Result<Migration, NotMoved> {
        let attempt = self
            .connection
            .work(request, migration::NAMES, Migration::decode);
        match attempt {
            (Some(migration), Ok(())) => Ok(migration),
            (None, Ok(())) => Err(Error::from(Malformed::Empty).into()),
            (migration, Err(error)) => Err(NotMoved {
                error,
                migration: migration.map(Box::new),
            }),
        }
    }

    /// One migration; the role tells two with the same id apart.
    pub fn migration(&mut self, id: u64, role: Role) -> Result<Migration> {
        let request = Request::new(cmd::MIGRATION_GET)
            .u64(migration::ID, id)
            .u32(migration::ROLE, role as u32);
        self.connection
            .get(&request, migration::NAMES, Migration::decode)
    }

    /// The migrations under way, the live ones and the last that ended.
    pub fn migrations(&mut self) -> Result<Vec<Migration>> {
        let request = Request::new(cmd::MIGRATION_GET);
        self.connection
            .dump(request, migration::NAMES, Migration::decode)
    }

    /// Have the kernel keep what programs read from connections to `vip`, from the first byte on,
    /// until it is more than `bytes` (1 to 32767), so that it can go with them.
    pub fn keep_add(&mut self, vip: SocketAddr, bytes: u32) -> Result<()> {
        let request = about(cmd::KEEP_NEW, vip).u32(keep::BYTES, bytes);
        self.connection.execute(&request, keep::NAMES)
    }

    /// End that, and let go of the copies.
    pub fn keep_del(&mut self, vip: SocketAddr) -> Result<()> {
        self.connection
            .execute(&about(cmd::KEEP_DEL, vip), keep::NAMES)
    }

    /// What is kept for one address and port.
    pub fn keep(&mut self, vip: SocketAddr) -> Result<Keep> {
        self.connection
            .get(&about(cmd::KEEP_GET, vip), keep::NAMES, Keep::decode)
    }

    /// What is kept for which addresses and ports.
    pub fn keeps(&mut self) -> Result<Vec<Keep>> {
        let request = Request::new(cmd::KEEP_GET);
        self.connection.dump(request, keep::NAMES, Keep::decode)
    }

    /// The counters.
    pub fn stats(&mut self) -> Result<Stats> {
        let request = Request::new(cmd::STATS_GET);
        self.connection
            .get(&request, stats::NAMES, |attrs| Stats::decode(FAMILY, attrs))
    }
}

fn peer_new(addr: IpAddr, port: Option<u16>, key: Option<&NewKey<'_>>) -> Request {
    let mut request = Request::new(cmd::PEER_NEW).addr(peer::ADDR, addr);
    if let Some(port) = port {
        request = request.port(peer::PORT, port);
    }
    match key {
        Some(key) => key.put(request),
        None => request.put(peer::UNAUTHENTICATED, &[]),
    }
}

fn about(command: u8, vip: SocketAddr) -> Request {
    Request::new(command)
        .addr(keep::VIP_ADDR, vip.ip())
        .port(keep::VIP_PORT, vip.port())
}

fn by_fd(socket: BorrowedFd<'_>) -> Request {
    // A borrowed descriptor is never negative.
    let fd = u32::try_from(socket.as_raw_fd()).unwrap_or(u32::MAX);
    Request::new(cmd::MIGRATE).u32(migration::FD, fd)
}

fn migrate(request: Request, peer: IpAddr, timeout: Option<Duration>) -> Request {
    let request = request.addr(migration::PEER_ADDR, peer);
    match timeout {
        Some(timeout) => {
            let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            request.u32(migration::TIMEOUT, milliseconds)
        }
        None => request,
    }
}

/// Why a connection was not moved.
#[derive(Debug)]
pub struct NotMoved {
    /// The kernel's refusal, or what was wrong on the way to it.
    pub error: Error,
    /// How far the migration came; `None` if none was begun.
    pub migration: Option<Box<Migration>>,
}

impl NotMoved {
    /// The phase the migration ended in.
    pub fn phase(&self) -> Option<Phase> {
        match self.migration.as_ref()?.phase? {
            Named::Known(phase) => Some(phase),
            Named::Unknown(_) => None,
        }
    }

    /// Whether the connection could not be saved: its client got a RST.
    pub fn was_reset(&self) -> bool {
        self.phase() == Some(Phase::Reset)
    }
}

impl From<Error> for NotMoved {
    fn from(error: Error) -> Self {
        Self {
            error,
            migration: None,
        }
    }
}

impl From<NotMoved> for Error {
    fn from(failure: NotMoved) -> Self {
        failure.error
    }
}

impl fmt::Display for NotMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for NotMoved {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn migrate_bytes() {
        let five = || Request::new(cmd::MIGRATE).u32(migration::FD, 5);
        let peer = [10, 0, 2, 2].into();
        let request = migrate(five(), peer, Some(Duration::from_millis(1500)));
        #[rustfmt::skip]
        assert_eq!(request.finish(0x24, 3).unwrap(), [
            44, 0, 0, 0, 0x24, 0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0,
            4, 1, 0, 0,
            8, 0, 11, 0, 5, 0, 0, 0,
            8, 0, 3, 0, 10, 0, 2, 2,
            8, 0, 12, 0, 0xdc, 5, 0, 0,
        ]);
        let without = migrate(five(), peer, None).finish(0x24, 3).unwrap();
        assert_eq!(without.len(), 36);
    }

    #[test]
    fn what_was_read_bytes() {
        for (read, bytes) in [
            (ReadBytes::Nothing, &[][..]),
            (
                ReadBytes::Given(b"GET"),
                &[7, 0, 21, 0, b'G', b'E', b'T', 0],
            ),
            (ReadBytes::Kept(5), &[8, 0, 22, 0, 5, 0, 0, 0]),
            (ReadBytes::AllKept, &[4, 0, 23, 0]),
        ] {
            let request = read.put(Request::new(cmd::MIGRATE));
            assert_eq!(&request.finish(0x24, 3).unwrap()[20..], bytes);
        }
    }

    #[test]
    fn keep_bytes() {
        let vip = "192.0.2.10:80".parse().unwrap();
        let request = about(cmd::KEEP_NEW, vip).u32(keep::BYTES, 4096);
        #[rustfmt::skip]
        assert_eq!(request.finish(0x24, 1).unwrap()[16..], [
            11, 1, 0, 0,
            8, 0, 1, 0, 192, 0, 2, 10,
            6, 0, 2, 0, 0, 80, 0, 0,
            8, 0, 3, 0, 0, 16, 0, 0,
        ]);
    }

    #[test]
    fn peer_new_bytes() {
        let bytes = peer_new([10, 0, 2, 2].into(), Some(4771), None)
            .finish(0x24, 1)
            .unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[16..], [
            1, 1, 0, 0,
            8, 0, 1, 0, 10, 0, 2, 2,
            6, 0, 2, 0, 0x12, 0xa3, 0, 0,
            4, 0, 8, 0,
        ]);
        let key = NewKey {
            send_id: 7,
            recv_id: Some(9),
            algorithm: Some(Algorithm::HmacSha1),
            secret: b"sixteen letters!",
        };
        let bytes = peer_new([10, 0, 2, 2].into(), None, Some(&key))
            .finish(0x24, 1)
            .unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[28..], [
            5, 0, 10, 0, 7, 0, 0, 0,
            5, 0, 11, 0, 9, 0, 0, 0,
            8, 0, 12, 0, 2, 0, 0, 0,
            20, 0, 13, 0, b's', b'i', b'x', b't', b'e', b'e', b'n', b' ', b'l', b'e', b't', b't',
            b'e', b'r', b's', b'!',
        ]);
    }
}
