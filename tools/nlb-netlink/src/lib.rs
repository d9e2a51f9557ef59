// SPDX-License-Identifier: MIT OR Apache-2.0

//! Typed interface of the generic netlink families of the nlb kernel modules.
//!
//! | handle       | family         | objects                             |
//! |--------------|----------------|-------------------------------------|
//! | [`Fwd`]      | `nlb-fwd`      | [`Service`] [`Endpoint`] [`Route`] [`Rule`] [`Allotment`] [`Miss`] |
//! | [`Tunnel`]   | `nlb-tunnel`   | [`Forwarder`] [`Mapping`]           |
//! | [`Migrator`] | `nlb-migrator` | [`Peer`] [`Keep`] [`Migration`]     |
//!
//! A handle owns one netlink socket, belongs to the network namespace in which it was opened and
//! may be moved to another thread; a program that wants to have several requests under way opens
//! several handles. All calls block until the kernel has answered. [`Monitor`] receives the
//! notifications of all families on a socket of its own. A server that only wants to hand
//! connections over needs nothing but [`handover`].
//!
//! What the kernel refuses comes back as [`Error::Refused`] with the errno, the kernel's text and
//! the attribute it complained about. Answers are parsed without trust: a malformed one is
//! [`Error::Malformed`], never a panic.
//!
//! [`TcpConnections`] is no family of ours: it lists the connections there are to be migrated. Nor
//! is [`Links`]: it shows what packets meet on their way.
//!
//! The serialised form of the objects is stable: keys are the names of the specification in snake
//! case, absent attributes are left out, addresses are text, ports and counters numbers, protocols
//! and enums names, and flow ids text with eight hexadecimal digits.

#![forbid(unsafe_code)]

pub mod attr;
mod connection;
mod error;
mod fwd;
pub mod handover;
mod links;
mod message;
mod migrator;
mod monitor;
mod object;
pub mod raw;
mod sockets;
mod tunnel;
pub mod uapi;
mod value;

pub use crate::{
    connection::family_is_loaded, //
    error::{
        errno_name,
        Error,
        Malformed,
        Offender,
        Refusal,
        Result, //
    },
    fwd::{
        EndpointChange,
        Fwd,
        NewAllotment,
        NewEndpoint,
        NewRule,
        NewService,
        Picking, //
    },
    links::{
        Link,
        LinkAddr,
        Links,
        Way, //
    },
    migrator::{
        Migrator,
        NewKey,
        NotMoved,
        ReadBytes, //
    },
    monitor::{
        Event,
        Group,
        Monitor, //
    },
    object::{
        Allotment,
        AllotmentShare,
        Counter,
        Endpoint,
        EndpointId,
        Forwarder,
        Keep,
        Mapping,
        Migration,
        Miss,
        Peer,
        PeerKey,
        Route,
        Rule,
        Service,
        Stats,
        Trace, //
    },
    sockets::{
        AcceptQueue,
        TcpConnection,
        TcpConnections, //
    },
    tunnel::Tunnel,
    uapi::{
        fwd::{
            AllotmentScheme,
            AllotmentState,
            EndpointState,
            Forward,
            MissState,
            RouteEnd,
            RouteOrigin,
            RouteState,
            RuleAction,
            Scheduler,
            ServiceMode,
            TraceChoice,
            TraceOutcome,
            TraceSlow, //
        },
        migrator::{
            Algorithm,
            PeerState,
            Phase,
            Role, //
        },
        reason::Reason,
        tunnel::{
            MappingSide,
            MappingState, //
        },
    },
    value::{
        ConnectionKey,
        Destination,
        Enumeration,
        FlowId,
        Named,
        ParseError,
        Ports,
        Proto,
        ServiceKey, //
    },
};
