// SPDX-License-Identifier: GPL-2.0

//! What makes up a TCP connection that moves.

use core::fmt;

use super::super::{
    addr::{
        FourTuple,
        Proto, //
    },
    seq::SeqNum, //
};

/// An established connection with nothing in flight from the server's side.
///
/// The names are those of `struct tcp_sock` and its parts, in the same units. Everything the client
/// has sent and not yet seen acknowledged is the client's to send again; what the server's side has
/// sent is acknowledged up to `snd_una`, and nothing waits to be sent: `snd_nxt` and `write_seq`
/// equal it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionState {
    /// Addresses and ports.
    pub tuple: FourTuple,
    /// First sequence number the client has not acknowledged: the next to be sent.
    pub snd_una: u32,
    /// Next sequence number expected from the client.
    pub rcv_nxt: u32,
    /// First byte that the application has not read.
    pub copied_seq: u32,
    /// `rcv_nxt` when the window was last advertised.
    pub rcv_wup: u32,
    /// Window last advertised, in bytes.
    pub rcv_wnd: u32,
    /// Highest right edge ever advertised.
    pub rcv_mwnd_seq: u32,
    /// Sequence number of the segment that last updated `snd_wnd`.
    pub snd_wl1: u32,
    /// The client's window, in bytes.
    pub snd_wnd: u32,
    /// The largest window the client ever advertised, in bytes.
    pub max_window: u32,
    /// Largest window to advertise, in bytes.
    pub window_clamp: u32,
    /// Current limit of the advertised window, in bytes.
    pub rcv_ssthresh: u32,
    /// Window scaling was negotiated.
    pub wscale_ok: bool,
    /// Shift count of the windows the client sends.
    pub snd_wscale: u8,
    /// Shift count of the windows we send.
    pub rcv_wscale: u8,
    /// Selective acknowledgments were negotiated.
    pub sack_ok: bool,
    /// Timestamps were negotiated.
    pub tstamp_ok: bool,
    /// Our timestamps count microseconds, not milliseconds.
    pub usec_ts: bool,
    /// ECN (RFC 3168) was negotiated.
    pub ecn_ok: bool,
    /// `TCP_ECN_*` bits of the kernel; only those of RFC 3168.
    pub ecn_flags: u8,
    /// Largest segment the client takes, options not counted.
    pub mss_clamp: u16,
    /// Estimate of the segment size the client sends.
    pub rcv_mss: u16,
    /// The timestamp of a segment sent at export.
    pub tsval_now: u32,
    /// The client's timestamp to be echoed.
    pub ts_recent: u32,
    /// Seconds since `ts_recent` came; the clocks of two machines have nothing in common.
    pub ts_recent_age: u32,
    /// Smoothed round trip time in 1/8 microseconds; 0 if never measured.
    pub srtt_us: u32,
    /// Its mean deviation in 1/4 microseconds.
    pub mdev_us: u32,
    /// The largest deviation in the last round trip.
    pub mdev_max_us: u32,
    /// The deviation that the retransmission timeout is made of.
    pub rttvar_us: u32,
    /// Least round trip time in microseconds; all ones if never measured.
    pub rtt_min_us: u32,
    /// Congestion window in segments.
    pub snd_cwnd: u32,
    /// Slow start threshold in segments; 0x7fffffff if none yet.
    pub snd_ssthresh: u32,
    /// How far segments may be reordered before one counts as lost.
    pub reordering: u32,
    /// Bytes the client has acknowledged in all.
    pub bytes_acked: u64,
    /// Bytes received from the client in all.
    pub bytes_received: u64,
    /// Bytes from `copied_seq` to `rcv_nxt`, which follow as data.
    pub unread_len: u32,
}

/// What is wrong with a [`ConnectionState`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Invalid {
    /// The 4-tuple is not that of a TCP connection.
    Tuple,
    /// Bytes wait to be sent or acknowledged; they are not carried yet.
    SendQueue,
    /// `copied_seq`, `rcv_nxt` and the number of unread bytes do not fit together.
    UnreadBytes,
    /// The advertised window contradicts `rcv_nxt`.
    ReceiveWindow,
    /// The client's window contradicts itself or its scale.
    SendWindow,
    /// A window scale above 14, or one that was not negotiated.
    WindowScale,
    /// A segment size out of range.
    Mss,
    /// Microsecond timestamps without timestamps.
    Timestamps,
    /// ECN bits that contradict what was negotiated.
    Ecn,
    /// A round trip time out of range.
    Rtt,
    /// A congestion window, threshold or reordering degree out of range.
    Congestion,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invalid::Tuple => "4-tuple is not that of a TCP connection",
            Invalid::SendQueue => "unsent or unacknowledged bytes are not supported yet",
            Invalid::UnreadBytes => "number of unread bytes does not fit the sequence numbers",
            Invalid::ReceiveWindow => "receive window contradicts itself",
            Invalid::SendWindow => "send window contradicts itself",
            Invalid::WindowScale => "window scale out of range",
            Invalid::Mss => "segment size out of range",
            Invalid::Timestamps => "timestamp unit without timestamps",
            Invalid::Ecn => "ECN bits contradict what was negotiated",
            Invalid::Rtt => "round trip time out of range",
            Invalid::Congestion => "congestion window out of range",
        })
    }
}

/// The largest window there is: 65535 scaled by 14 (RFC 7323 section 2.3), rounded up.
const MAX_WINDOW: u32 = 1 << 30;

/// C: `TCP_MIN_MSS` in `include/net/tcp.h`.
const MIN_MSS: u16 = 88;

/// 65535 less the headers of IPv4 and TCP.
const MAX_MSS: u16 = 65495;

/// Many fields of `tcp_sock` are unsigned, but computed with as signed numbers.
const MAX_SIGNED: u32 = i32::MAX as u32;

/// Whether a tuple can be that of a TCP connection.
fn is_connection(tuple: &FourTuple) -> bool {
    tuple.proto() == Proto::Tcp
        && tuple.client().is_unicast()
        && tuple.vip().is_unicast()
        && tuple.client_port() != 0
        && tuple.vip_port() != 0
}

/// `TCP_ECN_MODE_RFC3168`, `TCP_ECN_QUEUE_CWR`, `TCP_ECN_DEMAND_CWR`, `TCP_ECN_SEEN`.
const ECN_RFC3168: u8 = 0x0f;

impl ConnectionState {
    /// Whether the fields fit together and are in the ranges that the TCP code relies on.
    ///
    /// The first three checks of windows are those of `TCP_REPAIR_WINDOW`
    /// (`tcp_repair_set_window()` in `net/ipv4/tcp.c`).
    pub fn validate(&self) -> Result<(), Invalid> {
        let check = |good: bool, invalid| if good { Ok(()) } else { Err(invalid) };
        check(is_connection(&self.tuple), Invalid::Tuple)?;

        let rcv_nxt = SeqNum(self.rcv_nxt);
        let unread = rcv_nxt.distance_from(SeqNum(self.copied_seq));
        check(
            unread == self.unread_len && unread <= MAX_WINDOW,
            Invalid::UnreadBytes,
        )?;

        let scale = |shift: u8| {
            if self.wscale_ok {
                shift <= 14
            } else {
                shift == 0
            }
        };
        check(
            scale(self.snd_wscale) && scale(self.rcv_wscale),
            Invalid::WindowScale,
        )?;

        let wup = SeqNum(self.rcv_wup);
        let advertised = SeqNum(self.rcv_mwnd_seq);
        check(
            self.rcv_wnd <= MAX_WINDOW
                && rcv_nxt.distance_from(wup) <= MAX_WINDOW
                && advertised.distance_from(wup) <= MAX_WINDOW
                && advertised.after_eq(wup.add(self.rcv_wnd))
                && self.window_clamp > 0
                && self.window_clamp <= MAX_SIGNED
                && self.rcv_ssthresh <= MAX_SIGNED,
            Invalid::ReceiveWindow,
        )?;

        let largest = 0xffff_u32.checked_shl(u32::from(self.snd_wscale));
        let largest = largest.unwrap_or(0);
        check(
            self.max_window >= self.snd_wnd
                && self.max_window <= largest
                && SeqNum(self.snd_wl1).before_eq(rcv_nxt.add(self.rcv_wnd)),
            Invalid::SendWindow,
        )?;

        check(
            (MIN_MSS..=MAX_MSS).contains(&self.mss_clamp) && (1..=MAX_MSS).contains(&self.rcv_mss),
            Invalid::Mss,
        )?;
        check(self.tstamp_ok || !self.usec_ts, Invalid::Timestamps)?;
        check(
            self.ecn_flags & !ECN_RFC3168 == 0 && self.ecn_ok == (self.ecn_flags & 1 != 0),
            Invalid::Ecn,
        )?;
        let rtts = [self.srtt_us, self.mdev_us, self.mdev_max_us, self.rttvar_us];
        check(rtts.iter().all(|&rtt| rtt <= MAX_SIGNED), Invalid::Rtt)?;
        let segments = [self.snd_cwnd, self.snd_ssthresh, self.reordering];
        check(
            segments
                .iter()
                .all(|count| (1..=MAX_SIGNED).contains(count)),
            Invalid::Congestion,
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::super::addr::Addr,
        *, //
    };

    /// A connection of a browser in its first request, with sequence numbers about to wrap.
    pub(in super::super) const EXAMPLE: ConnectionState = ConnectionState {
        tuple: FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
        snd_una: 0xffff_fff0,
        rcv_nxt: 100,
        copied_seq: 0xffff_ffff,
        rcv_wup: 100,
        rcv_wnd: 65152,
        rcv_mwnd_seq: 65252,
        snd_wl1: 90,
        snd_wnd: 64256,
        max_window: 64256,
        window_clamp: 65535,
        rcv_ssthresh: 65152,
        wscale_ok: true,
        snd_wscale: 7,
        rcv_wscale: 10,
        sack_ok: true,
        tstamp_ok: true,
        usec_ts: false,
        ecn_ok: false,
        ecn_flags: 0,
        mss_clamp: 1460,
        rcv_mss: 536,
        tsval_now: 0x0102_0304,
        ts_recent: 0x0506_0708,
        ts_recent_age: 3,
        srtt_us: 8000,
        mdev_us: 2000,
        mdev_max_us: 50000,
        rttvar_us: 50000,
        rtt_min_us: u32::MAX,
        snd_cwnd: 10,
        snd_ssthresh: 0x7fff_ffff,
        reordering: 3,
        bytes_acked: 0,
        bytes_received: 101,
        unread_len: 101,
    };

    #[test]
    fn good_ones_pass() {
        type Change = fn(&mut ConnectionState);
        let changes: [Change; 7] = [
            |_| {},
            |s| (s.copied_seq, s.unread_len) = (s.rcv_nxt, 0),
            |s| s.rcv_mwnd_seq += 1000,
            |s| (s.snd_wnd, s.rcv_wnd) = (0, 0),
            |s| {
                (s.wscale_ok, s.snd_wscale, s.rcv_wscale) = (false, 0, 0);
            },
            |s| (s.ecn_ok, s.ecn_flags) = (true, 9),
            |s| s.max_window = 0xffff << 7,
        ];
        for change in changes {
            let mut state = EXAMPLE;
            change(&mut state);
            assert_eq!(state.validate(), Ok(()), "{state:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        type Change = fn(&mut ConnectionState);
        let v6 = FourTuple::new(Addr::v6([1; 16]), 1, Addr::v6([2; 16]), 2, Proto::Tcp);
        assert!(is_connection(&v6.unwrap()));
        let cases: [(Change, Invalid); 28] = [
            (
                |s| s.tuple = FourTuple::v4([10, 0, 0, 1], 1, [10, 0, 0, 2], 2, Proto::Udp),
                Invalid::Tuple,
            ),
            (
                |s| s.tuple = FourTuple::v4([10, 0, 0, 1], 0, [10, 0, 0, 2], 2, Proto::Tcp),
                Invalid::Tuple,
            ),
            (
                |s| s.tuple = FourTuple::v4([10, 0, 0, 1], 1, [224, 0, 0, 2], 2, Proto::Tcp),
                Invalid::Tuple,
            ),
            (|s| s.unread_len -= 1, Invalid::UnreadBytes),
            (|s| s.copied_seq = 0, Invalid::UnreadBytes),
            (
                |s| (s.copied_seq, s.unread_len) = (s.rcv_nxt + 1, u32::MAX),
                Invalid::UnreadBytes,
            ),
            (|s| s.snd_wscale = 15, Invalid::WindowScale),
            (|s| s.rcv_wscale = 15, Invalid::WindowScale),
            (|s| s.wscale_ok = false, Invalid::WindowScale),
            (|s| s.rcv_wup = s.rcv_nxt + 1, Invalid::ReceiveWindow),
            (|s| s.rcv_mwnd_seq -= 1, Invalid::ReceiveWindow),
            (|s| s.rcv_wnd = (1 << 30) + 1, Invalid::ReceiveWindow),
            (|s| s.rcv_wnd = u32::MAX, Invalid::ReceiveWindow),
            (|s| s.window_clamp = 0, Invalid::ReceiveWindow),
            (|s| s.window_clamp = 1 << 31, Invalid::ReceiveWindow),
            (|s| s.rcv_ssthresh = 1 << 31, Invalid::ReceiveWindow),
            (|s| s.snd_wnd = s.max_window + 1, Invalid::SendWindow),
            (|s| s.max_window = (0xffff << 7) + 1, Invalid::SendWindow),
            (
                |s| s.snd_wl1 = s.rcv_nxt + s.rcv_wnd + 1,
                Invalid::SendWindow,
            ),
            (|s| s.mss_clamp = 87, Invalid::Mss),
            (|s| s.mss_clamp = 65496, Invalid::Mss),
            (|s| s.rcv_mss = 0, Invalid::Mss),
            (
                |s| (s.tstamp_ok, s.usec_ts) = (false, true),
                Invalid::Timestamps,
            ),
            (|s| s.ecn_flags = 0x10, Invalid::Ecn),
            (|s| s.ecn_ok = true, Invalid::Ecn),
            (|s| s.srtt_us = 1 << 31, Invalid::Rtt),
            (|s| s.snd_cwnd = 0, Invalid::Congestion),
            (|s| s.snd_ssthresh = 1 << 31, Invalid::Congestion),
        ];
        for (index, (change, invalid)) in cases.into_iter().enumerate() {
            let mut state = EXAMPLE;
            change(&mut state);
            assert_eq!(state.validate(), Err(invalid), "case {index}");
        }
    }
}
