// SPDX-License-Identifier: GPL-2.0

//! Authentication of TCP segments with keys that both sides know: TCP-AO, RFC 5925.
//!
//! Keys are on sockets. A connection that a listener accepts has the keys that the listener had for
//! the other side's address when the handshake ended; from then on each has its own.
//!
//! C headers: [`include/uapi/linux/tcp.h`](srctree/include/uapi/linux/tcp.h),
//! [`include/net/tcp_ao.h`](srctree/include/net/tcp_ao.h).

use super::{
    RawAddr,
    Socket, //
};
use crate::{
    bindings,
    errno::{
        EISCONN,
        ENOPROTOOPT,
        ENOTCONN,
        EOPNOTSUPP, //
    },
    wire::addr::Addr, //
};
use core::{
    mem::offset_of,
    net::{
        Ipv6Addr,
        SocketAddr, //
    },
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Overwrites bytes in a way that is not optimised away.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: The bytes are ours to write.
    unsafe { bindings::memzero_explicit(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// Bytes that nobody else may know. They cannot be printed, and are overwritten when dropped.
pub struct Secret {
    bytes: KBox<[u8; Self::MAX]>,
    len: u8,
}

impl Secret {
    /// Most bytes of a secret, `TCP_AO_MAXKEYLEN`.
    pub const MAX: usize = bindings::TCP_AO_MAXKEYLEN as usize;

    /// A copy of `bytes`. `EINVAL` if there are none, or more than [`Self::MAX`]; `ENOMEM`.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut copy = KBox::new([0; Self::MAX], GFP_KERNEL)?;
        let room = copy.get_mut(..bytes.len()).ok_or(EINVAL)?;
        room.copy_from_slice(bytes);
        let len = u8::try_from(bytes.len()).map_err(|_| EINVAL)?;
        // Dropped, and overwritten, if it is refused.
        let secret = Self { bytes: copy, len };
        if len == 0 {
            return Err(EINVAL);
        }
        Ok(secret)
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.bytes[..]);
    }
}

/// How segments are signed (RFC 5926; HMAC-SHA-256 is the kernel's addition).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-1.
    HmacSha1,
    /// AES-128-CMAC.
    Aes128Cmac,
}

impl Algorithm {
    /// Its name in `struct tcp_ao_add`.
    const fn name(self) -> &'static CStr {
        match self {
            Self::HmacSha256 => c"hmac(sha256)",
            Self::HmacSha1 => c"hmac(sha1)",
            Self::Aes128Cmac => c"cmac(aes128)",
        }
    }
}

/// A master key with its parameters (MKT of RFC 5925).
pub struct Key {
    /// Id in the segments that are signed with it here (SendID).
    pub send_id: u8,
    /// Id in the segments that the other side signs with it (RecvID), its SendID.
    pub recv_id: u8,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The secret that traffic keys are derived from.
    pub secret: Secret,
}

/// What became of segments that arrived at a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Signed correctly.
    pub good: u64,
    /// Signed wrongly; dropped.
    pub bad: u64,
    /// Signed with a key that is not there; dropped.
    pub unknown_key: u64,
    /// Not signed; dropped.
    pub unsigned: u64,
}

impl Counters {
    /// Adds those of another socket.
    pub fn add(&mut self, other: &Counters) {
        self.good = self.good.saturating_add(other.good);
        self.bad = self.bad.saturating_add(other.bad);
        self.unknown_key = self.unknown_key.saturating_add(other.unknown_key);
        self.unsigned = self.unsigned.saturating_add(other.unsigned);
    }
}

/// A key on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// [`Key::send_id`].
    pub send_id: u8,
    /// [`Key::recv_id`].
    pub recv_id: u8,
    /// What is sent is signed with it at present.
    pub sending: bool,
    /// Segments that were signed with it correctly.
    pub good: u64,
    /// Segments that were not.
    pub bad: u64,
}

/// A key's address and the length of its prefix: that of the whole address.
fn match_of(peer: Addr) -> (bindings::__kernel_sockaddr_storage, u8) {
    let ip = Ipv6Addr::from(*peer.as_bytes()).to_canonical();
    let (raw, _) = RawAddr::new(SocketAddr::new(ip, 0));
    // SAFETY: The type consists of integers and a pointer that nobody looks at; the length is
    // checked at compile time.
    let addr = unsafe { core::mem::transmute::<RawAddr, bindings::__kernel_sockaddr_storage>(raw) };
    (addr, if peer.is_v4() { 32 } else { 128 })
}

/// A socket that is locked (`lock_sock()`).
struct Locked<'a>(&'a Socket);

impl<'a> Locked<'a> {
    /// `subclass` is lockdep's, 0 but for the inner one of two locks.
    fn new(socket: &'a Socket, subclass: u32) -> Self {
        // SAFETY: The socket is valid; callers may sleep.
        unsafe { bindings::lock_sock_nested(socket.sk(), subclass as c_int) };
        Self(socket)
    }

    /// What the socket has for TCP-AO, valid while it is locked.
    fn info(&self) -> Option<NonNull<bindings::tcp_ao_info>> {
        // SAFETY: The socket is valid, of TCP, and locked.
        NonNull::new(unsafe { bindings::tcp_ao_info(self.0.sk()) })
    }

    /// The keys, until `visit` returns `false`. Whether it did not.
    fn each(&self, mut visit: impl FnMut(NonNull<bindings::tcp_ao_key>) -> bool) -> bool {
        let Some(info) = self.info() else {
            return true;
        };
        // SAFETY: `info` is valid. The list changes only under the lock, which is held.
        let mut node = unsafe { (*info.as_ptr()).head.first };
        while !node.is_null() {
            // SAFETY: All nodes of this list are members of keys.
            let key = unsafe {
                node.byte_sub(offset_of!(bindings::tcp_ao_key, node))
                    .cast::<bindings::tcp_ao_key>()
            };
            if let Some(key) = NonNull::new(key) {
                if !visit(key) {
                    return false;
                }
            }
            // SAFETY: As above.
            node = unsafe { (*node).next };
        }
        true
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: Locked by `new()`, in this thread.
        unsafe { bindings::release_sock(self.0.sk()) };
    }
}

/// Reads a counter.
///
/// # Safety
///
/// `counter` is valid.
unsafe fn read(counter: *const bindings::atomic64_t) -> u64 {
    // SAFETY: By the contract of this function; a volatile read of an aligned number is
    // `atomic64_read()`. CAST: Counters are not negative.
    unsafe { (&raw const (*counter).counter).read_volatile() as u64 }
}

/// The address a key is for.
///
/// # Safety
///
/// The key is valid and of a locked socket.
unsafe fn addr_of(key: NonNull<bindings::tcp_ao_key>) -> Option<Addr> {
    let key = key.as_ptr();
    // SAFETY: By the contract of this function; a key does not change but for its counters. The
    // address is a union of plain bytes, of which as many were written as its family has.
    unsafe {
        let len = match u32::from((*key).family) {
            bindings::AF_INET => 4,
            bindings::AF_INET6 => 16,
            _ => return None,
        };
        Addr::from_octets(core::slice::from_raw_parts(
            (&raw const (*key).addr).cast::<u8>(),
            len,
        ))
    }
}

/// Whether two keys are the same in all that a segment's signature depends on.
///
/// # Safety
///
/// Both are valid and of locked sockets.
unsafe fn same(one: NonNull<bindings::tcp_ao_key>, other: NonNull<bindings::tcp_ao_key>) -> bool {
    // SAFETY: By the contract of this function.
    if unsafe { addr_of(one) != addr_of(other) } {
        return false;
    }
    let (one, other) = (one.as_ptr(), other.as_ptr());
    // SAFETY: By the contract of this function; a key does not change but for its counters.
    unsafe {
        let len = usize::from((*one).keylen).min(Secret::MAX);
        let secret = |key: *const bindings::tcp_ao_key| {
            core::slice::from_raw_parts((&raw const (*key).key).cast::<u8>(), len)
        };
        (*one).sndid == (*other).sndid
            && (*one).rcvid == (*other).rcvid
            && (*one).algo == (*other).algo
            && (*one).maclen == (*other).maclen
            && (*one).keylen == (*other).keylen
            && (*one).prefixlen == (*other).prefixlen
            && secret(one) == secret(other)
    }
}

impl Socket {
    /// Sets an option of TCP-AO, with the checks of `do_tcp_setsockopt()` and one more, which needs
    /// the same lock: a connection that is over shares its keys with a TIME_WAIT socket, perhaps,
    /// and is no longer charged for them; a change would spoil the accounts.
    fn set_auth<T>(&self, name: u32, value: &mut T) -> Result {
        const SHUTDOWN_MASK: u8 = (bindings::RCV_SHUTDOWN | bindings::SEND_SHUTDOWN) as u8;

        let locked = Locked::new(self, 0);
        let sk = self.sk();
        // SAFETY: The socket is valid, and locked.
        let (state, shutdown) = unsafe {
            let state = u32::from((*sk).__sk_common.skc_state);
            (state, (&raw const (*sk).sk_shutdown).read_volatile())
        };
        if shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK {
            return Err(ENOTCONN.into());
        }
        if locked.info().is_none() && state != bindings::TCP_LISTEN && state != bindings::TCP_CLOSE
        {
            return Err(EISCONN.into());
        }
        // SAFETY: The socket is valid, of TCP, and locked; the value is valid, and only read.
        to_result(unsafe {
            bindings::tcp_ao_parse(
                sk,
                name as c_int,
                (&raw mut *value).cast(),
                size_of::<T>() as c_int,
            )
        })
    }

    /// Adds a key for segments to and from `peer`, before the socket is connected or, where there
    /// is one already, at any time. Segments from there that are not signed are dropped from now on.
    ///
    /// With `prefer` what is sent is signed with it, and the other side is asked to do the same
    /// (not for a listener).
    ///
    /// `EEXIST` if one of the ids is in use for `peer`; `ENOMEM`, also if the keys of the socket
    /// would exceed `net.core.optmem_max`; `EISCONN`, connected without a key; `ENOTCONN`, the
    /// connection is over; `EOPNOTSUPP` if the kernel does not know TCP-AO or the algorithm.
    pub fn auth_add(&self, peer: Addr, key: &Key, prefer: bool) -> Result {
        let (addr, prefix) = match_of(peer);
        let mut add = bindings::tcp_ao_add {
            addr,
            prefix,
            sndid: key.send_id,
            rcvid: key.recv_id,
            keylen: key.secret.len,
            ..Default::default()
        };
        for (to, from) in add.alg_name.iter_mut().zip(key.algorithm.name().to_bytes()) {
            *to = *from as c_char;
        }
        for (to, from) in add.key.iter_mut().zip(key.secret.bytes()) {
            *to = *from;
        }
        add.set_set_current(prefer.into());
        add.set_set_rnext(prefer.into());
        let result = self.set_auth(bindings::TCP_AO_ADD_KEY, &mut add);
        wipe(&mut add.key);
        result.map_err(|error| {
            if error == ENOENT || error == ENOPROTOOPT {
                EOPNOTSUPP.into()
            } else {
                error
            }
        })
    }

    /// Removes a key for `peer`. `other`, which has to be on the socket as well, takes its place.
    ///
    /// `ENOENT`; `EBUSY` if segments are signed with it and there is no other; `ENOTCONN`, the
    /// connection is over.
    pub fn auth_remove(&self, peer: Addr, key: &Key, other: Option<&Key>) -> Result {
        let (addr, prefix) = match_of(peer);
        let mut del = bindings::tcp_ao_del {
            addr,
            prefix,
            sndid: key.send_id,
            rcvid: key.recv_id,
            ..Default::default()
        };
        if let Some(other) = other {
            del.set_set_current(1);
            del.set_set_rnext(1);
            del.current_key = other.send_id;
            del.rnext = other.recv_id;
        }
        self.set_auth(bindings::TCP_AO_DEL_KEY, &mut del)
    }

    /// Asks the other side of a connection to sign with `key`, which is on the socket (RNextKeyID).
    /// If it has the key it does from its next segment on, else nothing changes. `ENOENT`;
    /// `ENOTCONN`, the connection is over.
    pub fn auth_ask(&self, key: &Key) -> Result {
        let mut info = bindings::tcp_ao_info_opt {
            rnext: key.recv_id,
            ..Default::default()
        };
        info.set_set_rnext(1);
        self.set_auth(bindings::TCP_AO_INFO, &mut info)
    }

    /// Has a listener drop segments that are not signed from addresses without a key, too, or take
    /// them again.
    pub fn auth_require(&self, on: bool) -> Result {
        let mut info = bindings::tcp_ao_info_opt::default();
        info.set_ao_required(on.into());
        self.set_auth(bindings::TCP_AO_INFO, &mut info)
    }

    /// What became of the segments that arrived. All 0 without TCP-AO.
    pub fn auth_counters(&self) -> Counters {
        let locked = Locked::new(self, 0);
        let Some(info) = locked.info() else {
            return Counters::default();
        };
        // SAFETY: `info` is valid while the socket is locked.
        unsafe {
            let counters = &raw const (*info.as_ptr()).counters;
            Counters {
                good: read(&raw const (*counters).pkt_good),
                bad: read(&raw const (*counters).pkt_bad),
                unknown_key: read(&raw const (*counters).key_not_found),
                unsigned: read(&raw const (*counters).ao_required),
            }
        }
    }

    /// Calls `visit` with each key for `peer`, with the socket locked.
    pub fn auth_keys(&self, peer: Addr, mut visit: impl FnMut(KeyUse)) {
        let locked = Locked::new(self, 0);
        let Some(info) = locked.info() else {
            return;
        };
        // SAFETY: `info` is valid while the socket is locked; the field changes when segments
        // arrive, and is read as READ_ONCE() does.
        let current = unsafe { (&raw const (*info.as_ptr()).current_key).read_volatile() };
        locked.each(|key| {
            let raw = key.as_ptr();
            // SAFETY: The key is valid while the socket is locked.
            if unsafe { addr_of(key) } != Some(peer) {
                return true;
            }
            // SAFETY: As above.
            visit(unsafe {
                KeyUse {
                    send_id: (*raw).sndid,
                    recv_id: (*raw).rcvid,
                    sending: raw == current,
                    good: read(&raw const (*raw).pkt_good),
                    bad: read(&raw const (*raw).pkt_bad),
                }
            });
            true
        });
    }

    /// Whether this connection has TCP-AO, and every key of it is the `listener`'s, too.
    ///
    /// Not so if it was accepted before keys were removed there (or the first was added).
    pub fn auth_agrees(&self, listener: &Socket) -> bool {
        const SINGLE_DEPTH_NESTING: u32 = 1;

        let outer = Locked::new(listener, 0);
        let inner = Locked::new(self, SINGLE_DEPTH_NESTING);
        inner.info().is_some()
            && inner.each(|mine| {
                // SAFETY: Both keys are of locked sockets.
                !outer.each(|theirs| !unsafe { same(mine, theirs) })
            })
    }
}

#[kunit_tests(nlb_socket_auth)]
mod tests {
    use super::*;
    use crate::net::{
        socket::SocketFamily,
        Net, //
    };

    const PEER: Addr = Addr::v4([192, 0, 2, 1]);
    const OTHER: Addr = Addr::v4([192, 0, 2, 2]);

    fn key(send_id: u8, recv_id: u8, secret: &[u8]) -> Result<Key> {
        Ok(Key {
            send_id,
            recv_id,
            algorithm: Algorithm::HmacSha256,
            secret: Secret::new(secret)?,
        })
    }

    fn socket() -> Result<Socket> {
        // SAFETY: The first namespace is always there.
        let net = unsafe { Net::from_raw(&raw mut bindings::init_net) };
        Socket::tcp(net, SocketFamily::V4)
    }

    fn count(socket: &Socket, peer: Addr) -> usize {
        let mut count = 0;
        socket.auth_keys(peer, |_| count += 1);
        count
    }

    #[test]
    fn secrets_have_bounds() {
        assert!(matches!(Secret::new(&[]), Err(EINVAL)));
        assert!(matches!(Secret::new(&[1; Secret::MAX + 1]), Err(EINVAL)));
        assert!(matches!(Secret::new(&[1; 300]), Err(EINVAL)));
        for len in [1, 16, Secret::MAX] {
            assert!(Secret::new(&[7; Secret::MAX][..len]).is_ok_and(|s| s.bytes().len() == len));
        }
    }

    #[test]
    fn keys_of_a_socket() -> Result {
        let socket = socket()?;
        let (one, two) = (key(1, 2, b"one")?, key(2, 1, b"two")?);
        if socket.auth_add(PEER, &one, true) == Err(EOPNOTSUPP.into()) {
            // A kernel without TCP-AO.
            return Ok(());
        }
        assert_eq!(socket.auth_add(PEER, &one, false), Err(EEXIST));
        assert_eq!(socket.auth_add(PEER, &key(1, 9, b"x")?, false), Err(EEXIST));
        assert_eq!(socket.auth_add(PEER, &key(9, 2, b"x")?, false), Err(EEXIST));
        socket.auth_add(PEER, &two, false)?;
        socket.auth_add(OTHER, &one, false)?;
        assert_eq!((count(&socket, PEER), count(&socket, OTHER)), (2, 1));
        let mut sending = 0;
        socket.auth_keys(PEER, |used| {
            if used.sending {
                sending = used.send_id;
            }
            assert_eq!((used.good, used.bad), (0, 0));
        });
        assert_eq!(sending, 1);
        // What signs goes only if another one takes its place.
        assert_eq!(socket.auth_remove(PEER, &one, None), Err(EBUSY));
        socket.auth_remove(PEER, &one, Some(&two))?;
        assert_eq!(socket.auth_remove(PEER, &one, None), Err(ENOENT));
        assert_eq!(socket.auth_ask(&key(7, 7, b"x")?), Err(ENOENT));
        socket.auth_ask(&two)?;
        assert_eq!(count(&socket, PEER), 1);
        assert_eq!(socket.auth_counters(), Counters::default());
        Ok(())
    }

    #[test]
    fn keys_agree() -> Result {
        let (listener, child) = (socket()?, socket()?);
        assert!(!child.auth_agrees(&listener));
        if listener.auth_add(PEER, &key(1, 1, b"one")?, false) == Err(EOPNOTSUPP.into()) {
            return Ok(());
        }
        assert!(!child.auth_agrees(&listener));
        child.auth_add(PEER, &key(1, 1, b"one")?, false)?;
        assert!(child.auth_agrees(&listener));
        // The listener may have more, not less.
        listener.auth_add(PEER, &key(2, 2, b"two")?, false)?;
        assert!(child.auth_agrees(&listener));
        child.auth_add(PEER, &key(3, 3, b"three")?, false)?;
        assert!(!child.auth_agrees(&listener));
        // All that matters is compared: ids, secret, address.
        for (send_id, recv_id, secret, peer) in [
            (3, 4, &b"three"[..], PEER),
            (4, 3, b"three", PEER),
            (3, 3, b"thref", PEER),
            (3, 3, b"three!", PEER),
            (3, 3, b"three", OTHER),
        ] {
            let near = key(send_id, recv_id, secret)?;
            listener.auth_add(peer, &near, false)?;
            assert!(!child.auth_agrees(&listener));
            listener.auth_remove(peer, &near, None)?;
        }
        listener.auth_add(PEER, &key(3, 3, b"three")?, false)?;
        assert!(child.auth_agrees(&listener));
        Ok(())
    }
}
