// SPDX-License-Identifier: GPL-2.0

//! The state of a route, followed from the client's packets alone where that is all there is.
//!
//! As a rule replies go from the host straight to the client, so the forwarder sees one direction,
//! as IPVS does in direct routing (`tcp_states_dr` in `net/netfilter/ipvs/ip_vs_proto_tcp.c`).
//! Where they pass the forwarder, it learns from them that the server closes. The state decides how
//! long a silent route is kept, and nothing else.

use super::{
    addr::Proto,
    tcp::Flags, //
};

/// The state of a route.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum State {
    /// The client sent SYN and nothing else yet.
    SynRecv = 1,
    /// The client sent something after its SYN.
    Established = 2,
    /// One of both sent FIN; the other may go on sending for long.
    FinWait = 3,
    /// One of both sent RST.
    Close = 4,
    /// Not TCP.
    Udp = 5,
}

/// What a packet of the client does to its route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The route goes on in this state, and its timeout starts anew.
    Next(State),
    /// The packet opens a new connection: forget the route and treat the packet as a miss.
    Replace,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [State; 5] = [
        State::SynRecv,
        State::Established,
        State::FinWait,
        State::Close,
        State::Udp,
    ];

    /// The state with this number.
    pub const fn from_number(number: u8) -> Option<State> {
        match number {
            1 => Some(State::SynRecv),
            2 => Some(State::Established),
            3 => Some(State::FinWait),
            4 => Some(State::Close),
            5 => Some(State::Udp),
            _ => None,
        }
    }

    /// The state of a route that this packet makes.
    ///
    /// A TCP packet other than SYN makes a route where a connection moves here: that is
    /// established.
    #[inline]
    pub const fn initial(proto: Proto, flags: Flags) -> State {
        match proto {
            Proto::Udp => State::Udp,
            Proto::Tcp if flags.is_initial_syn() => State::SynRecv,
            Proto::Tcp => State::Established,
        }
    }

    /// What a packet with these control bits does to a route in this state.
    ///
    /// A SYN in an established connection is left to the host, which answers it with a challenge
    /// ACK (RFC 5961 section 4). A RST may be forged and is not judged here: if packets without
    /// RST follow, the connection lives and the route is established again.
    #[inline]
    pub const fn step(self, flags: Flags) -> Step {
        if matches!(self, State::Udp) {
            return Step::Next(State::Udp);
        }
        if flags.contains(Flags::RST) {
            return Step::Next(State::Close);
        }
        if flags.is_initial_syn() {
            return match self {
                State::FinWait | State::Close => Step::Replace,
                state => Step::Next(state),
            };
        }
        if flags.contains(Flags::FIN) {
            return Step::Next(State::FinWait);
        }
        match self {
            State::FinWait => Step::Next(State::FinWait),
            state if !flags.contains(Flags::ACK) => Step::Next(state),
            _ => Step::Next(State::Established),
        }
    }

    /// What a packet of the server with these control bits does to a route in this state.
    ///
    /// Only the client's packets establish a connection, or show that it lives on after a RST.
    #[inline]
    pub const fn reply(self, flags: Flags) -> State {
        match self {
            State::Udp | State::Close => self,
            _ if flags.contains(Flags::RST) => State::Close,
            _ if flags.contains(Flags::FIN) => State::FinWait,
            _ => self,
        }
    }

    /// The state's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::SynRecv => "syn-recv",
            State::Established => "established",
            State::FinWait => "fin-wait",
            State::Close => "close",
            State::Udp => "udp",
        }
    }
}

/// How long a route is kept after its last packet, in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// After SYN.
    pub syn_recv: u32,
    /// In an established connection.
    pub established: u32,
    /// After FIN.
    pub fin_wait: u32,
    /// After RST.
    pub close: u32,
    /// For UDP.
    pub udp: u32,
}

impl Timeouts {
    /// The defaults, close to those of IPVS.
    pub const DEFAULT: Timeouts = Timeouts {
        syn_recv: 60,
        established: 900,
        fin_wait: 120,
        close: 10,
        udp: 300,
    };

    /// The timeout of a state.
    #[inline]
    pub const fn of(&self, state: State) -> u32 {
        match state {
            State::SynRecv => self.syn_recv,
            State::Established => self.established,
            State::FinWait => self.fin_wait,
            State::Close => self.close,
            State::Udp => self.udp,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::{
        State::*,
        Step::*,
        *, //
    };

    #[test]
    fn table() {
        let syn = Flags::SYN;
        let ack = Flags::ACK;
        let fin = Flags::FIN | Flags::ACK;
        let rst = Flags::RST;
        let none = Flags::default();
        for (state, flags, want) in [
            (SynRecv, syn, Next(SynRecv)),
            (SynRecv, ack, Next(Established)),
            (SynRecv, fin, Next(FinWait)),
            (SynRecv, rst, Next(Close)),
            (SynRecv, none, Next(SynRecv)),
            (Established, syn, Next(Established)),
            (Established, ack, Next(Established)),
            (Established, fin, Next(FinWait)),
            (Established, rst, Next(Close)),
            (Established, rst | ack, Next(Close)),
            (Established, syn | ack, Next(Established)),
            (FinWait, syn, Replace),
            (FinWait, syn | Flags::ECE | Flags::CWR, Replace),
            (FinWait, syn | ack, Next(FinWait)),
            (FinWait, ack, Next(FinWait)),
            (FinWait, fin, Next(FinWait)),
            (FinWait, rst, Next(Close)),
            (Close, syn, Replace),
            (Close, ack, Next(Established)),
            (Close, fin, Next(FinWait)),
            (Close, rst, Next(Close)),
            (Close, syn | rst, Next(Close)),
            (Close, none, Next(Close)),
            (Udp, none, Next(Udp)),
            (Udp, syn, Next(Udp)),
        ] {
            assert_eq!(state.step(flags), want, "{state:?} {flags:?}");
        }
    }

    #[test]
    fn replies() {
        let ack = Flags::ACK;
        for state in [SynRecv, Established, FinWait] {
            assert_eq!(state.reply(ack), state);
            assert_eq!(state.reply(Flags::SYN | ack), state);
            assert_eq!(state.reply(Flags::FIN | ack), FinWait);
            assert_eq!(state.reply(Flags::RST | ack), Close);
            assert_eq!(state.reply(Flags::RST | Flags::FIN), Close);
        }
        for bits in 0..=255 {
            assert_eq!(Close.reply(Flags(bits)), Close);
            assert_eq!(Udp.reply(Flags(bits)), Udp);
        }
    }

    #[test]
    fn tcp_never_becomes_udp_and_only_closed_routes_are_replaced() {
        for bits in 0..=255 {
            let flags = Flags(bits);
            for state in [SynRecv, Established, FinWait, Close] {
                match state.step(flags) {
                    Next(next) => assert_ne!(next, Udp),
                    Replace => {
                        assert!(flags.is_initial_syn() && matches!(state, FinWait | Close));
                    }
                }
            }
            assert_eq!(Udp.step(flags), Next(Udp));
        }
    }

    #[test]
    fn initial_states_numbers_and_timeouts() {
        assert_eq!(State::initial(Proto::Tcp, Flags::SYN), SynRecv);
        assert_eq!(State::initial(Proto::Tcp, Flags::ACK), Established);
        assert_eq!(State::initial(Proto::Udp, Flags::SYN), Udp);
        let seconds = [60, 900, 120, 10, 300];
        for (state, seconds) in State::ALL.into_iter().zip(seconds) {
            assert_eq!(State::from_number(state as u8), Some(state));
            assert_eq!(Timeouts::default().of(state), seconds);
        }
        assert_eq!(State::from_number(0), None);
        assert_eq!(State::from_number(6), None);
    }
}
