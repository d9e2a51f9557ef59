// SPDX-License-Identifier: GPL-2.0

//! Moving established TCP connections between sockets, and between machines.
//!
//! Origin: a [`TcpSocket`] is frozen under its socket lock ([`TcpSocket::freeze`]), read, and then
//! either closed without a packet or released as if nothing had happened. Target: a [`Listener`]
//! gets the connection as a new child in its accept queue ([`Listener::inject`]), which a plain
//! accept() returns.
//!
//! The TCP internals are not exported to modules. What is used instead hangs off the sockets: the
//! listener's `icsk_af_ops->syn_recv_sock`, the child's `sk_backlog_rcv`, `sk_prot->disconnect`.
//!
//! C headers: [`include/net/tcp.h`](srctree/include/net/tcp.h),
//! [`include/net/inet_connection_sock.h`](srctree/include/net/inet_connection_sock.h).

mod child;
mod data;
mod export;
mod listener;
mod lookup;
mod options;
mod queue;
mod reads;
mod refusal;
mod request;
mod reset;
mod rx_data;
mod skb_list;
mod sock;
mod steer;
mod tx_data;

pub use self::{
    data::ConnectionData,
    export::{
        Closed,
        Frozen,
        TcpSocket, //
    },
    listener::{
        tuple_in_use,
        Injected,
        Listener, //
    },
    reads::{
        JustRead,
        ReadWatch,
        Reader,
        SocketId, //
    },
    refusal::Refusal,
    reset::{
        send_probe,
        send_refusal,
        send_reset, //
    },
    steer::{
        steer,
        Steered, //
    },
};
