// SPDX-License-Identifier: GPL-2.0

//! The origin: finding a connection by its addresses, whoever has it.

use core::ptr;

use kernel::sync::rcu;

use crate::{
    bindings,
    net::Net,
    wire::addr::FourTuple, //
};

use super::{
    export::TcpSocket,
    refusal::Refusal,
    sock,
    sock::{
        SockRef,
        Tuple, //
    },
};

impl TcpSocket {
    /// The connection of `net` with these addresses and ports, the VIP being the local ones.
    ///
    /// It stays with the program that has it, which finds ECONNABORTED in its socket when the
    /// connection has gone. An IPv4 connection of an AF_INET6 socket is found like any other. One
    /// that is bound to a device is not: its addresses may stand for several connections.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoConnection`]; [`Refusal::NotEstablished`] for what is left of a connection
    /// (TIME_WAIT) and what is not one yet; [`Refusal::NotAccepted`] while it has no program.
    pub fn from_tuple(net: &Net, tuple: &FourTuple) -> Result<TcpSocket, Refusal> {
        let addrs = Tuple::new(tuple).ok_or(Refusal::NoConnection)?;
        let sk = addrs
            .established(net, 0, &rcu::read_lock())
            .ok_or(Refusal::NoConnection)?;
        // SAFETY: What was found is a socket of some sort, with a reference that is ours. A full
        // socket does not become one of the other two.
        let small = unsafe {
            matches!(
                sock::state(sk.as_ptr()),
                bindings::TCP_TIME_WAIT | bindings::TCP_NEW_SYN_RECV
            )
        };
        if small {
            // SAFETY: The reference is ours; this is the function that knows all three sorts.
            unsafe { bindings::sock_gen_put(sk.as_ptr()) };
            return Err(Refusal::NotEstablished);
        }
        // SAFETY: It is a full socket, of TCP as the table is, and the reference is ours.
        let sk = unsafe { SockRef::from_raw(sk) };
        let socket = TcpSocket::from_sock(sk, net)?;
        if !socket.is_accepted() {
            return Err(Refusal::NotAccepted);
        }
        Ok(socket)
    }

    /// Whether a program has the socket: in the accept queue, nobody has it yet.
    fn is_accepted(&self) -> bool {
        // SAFETY: The socket is valid. accept() sets the pointer (sock_graft()), close() clears it,
        // each on its own CPU; a volatile read is READ_ONCE(). It is only compared.
        let socket = unsafe {
            ptr::read_volatile(&raw const (*self.as_raw()).sk_socket) //
        };
        !socket.is_null()
    }
}
