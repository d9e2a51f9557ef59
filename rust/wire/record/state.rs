// SPDX-License-Identifier: GPL-2.0

//! What makes up a TCP connection that moves.

use core::fmt;

use super::{
    super::{
        addr::{
            FourTuple,
            Proto, //
        },
        seq::SeqNum, //
    },
    options::SocketOptions,
    range::{
        Range,
        Ranges, //
    },
};

/// Most ranges of data received out of order.
pub const MAX_OUT_OF_ORDER: usize = 32;

/// Most SACK blocks: more do not fit the options of a segment. C: `TCP_NUM_SACKS`.
pub const MAX_SACKS: usize = 4;

/// A connection in state ESTABLISHED, or CLOSE_WAIT if [`Self::fin`].
///
/// The names are those of `struct tcp_sock` and its parts, in the same units. Its bytes go along
/// with it, in the order of [`Self::runs`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionState {
    /// Addresses and ports.
    pub tuple: FourTuple,
    /// First sequence number that the client has not acknowledged.
    pub snd_una: u32,
    /// Next sequence number to be sent.
    pub snd_nxt: u32,
    /// The one behind the last byte that the application has written.
    pub write_seq: u32,
    /// Next sequence number expected from the client.
    pub rcv_nxt: u32,
    /// First byte that the application has not read.
    pub copied_seq: u32,
    /// The client has closed its direction: its FIN is the last number before `rcv_nxt`. The
    /// application has not been told, whether it has here or not: the next one has to be.
    pub fin: bool,
    /// Received beyond `rcv_nxt`, in ascending order, with at least one byte missing before each.
    pub out_of_order: Ranges<MAX_OUT_OF_ORDER>,
    /// The last number of the last of these ranges is the client's FIN.
    pub out_of_order_fin: bool,
    /// What the next SACK option says, most recent first; each in one of these ranges.
    pub sacks: Ranges<MAX_SACKS>,
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
    /// What the program has set on the socket.
    pub options: SocketOptions,
}

/// What bytes of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Received, acknowledged, and not read by the application.
    Unread,
    /// Sent, and not acknowledged by the client.
    Sent,
    /// Written by the application and not sent.
    Unsent,
    /// Received beyond a hole.
    OutOfOrder,
}

/// Bytes of one sort, one after the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The sort.
    pub part: Part,
    /// The sequence number of the first byte.
    pub seq: u32,
    /// How many bytes.
    pub len: u32,
}

/// What is wrong with a [`ConnectionState`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Invalid {
    /// The 4-tuple is not that of a TCP connection.
    Tuple,
    /// `snd_una`, `snd_nxt` and `write_seq` are not in this order, or too far apart.
    SendQueue,
    /// `copied_seq` and `rcv_nxt` do not fit together.
    UnreadBytes,
    /// Data received out of order that is not: ranges which are empty, touch, or come in another
    /// order, or any behind a FIN.
    OutOfOrder,
    /// SACK blocks without SACK, or of what has not been received.
    Sacks,
    /// The number of bytes that go along is another one than the sequence numbers say.
    Total,
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
    /// A value that setsockopt() would not take.
    Options,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invalid::Tuple => "4-tuple is not that of a TCP connection",
            Invalid::SendQueue => "sequence numbers of the send queue contradict each other",
            Invalid::UnreadBytes => "sequence numbers of unread bytes contradict each other",
            Invalid::OutOfOrder => "ranges of data out of order contradict each other",
            Invalid::Sacks => "SACK block for what has not been received",
            Invalid::Total => "number of bytes does not fit the sequence numbers",
            Invalid::ReceiveWindow => "receive window contradicts itself",
            Invalid::SendWindow => "send window contradicts itself",
            Invalid::WindowScale => "window scale out of range",
            Invalid::Mss => "segment size out of range",
            Invalid::Timestamps => "timestamp unit without timestamps",
            Invalid::Ecn => "ECN bits contradict what was negotiated",
            Invalid::Rtt => "round trip time out of range",
            Invalid::Congestion => "congestion window out of range",
            Invalid::Options => "socket option out of range",
        })
    }
}

/// The largest window there is: 65535 scaled by 14 (RFC 7323 section 2.3), rounded up.
const MAX_WINDOW: u32 = 1 << 30;

/// The smallest MSS that the stack works with. C: `TCP_MIN_MSS` in `include/net/tcp.h`.
pub const MIN_MSS: u16 = 88;

/// The largest MSS: 65535 less the headers of IPv4 and TCP.
pub const MAX_MSS: u16 = 65495;

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
    /// Bytes that have been received in order and not been read.
    #[inline]
    pub fn unread_len(&self) -> u32 {
        let numbers = self.rcv_nxt.wrapping_sub(self.copied_seq);
        numbers.saturating_sub(u32::from(self.fin))
    }

    /// Bytes that have been written and not been acknowledged.
    #[inline]
    pub fn send_len(&self) -> u32 {
        self.write_seq.wrapping_sub(self.snd_una)
    }

    /// Bytes that have been received out of order.
    #[inline]
    pub fn out_of_order_len(&self) -> u32 {
        if self.out_of_order.is_empty() {
            return 0;
        }
        let numbers = self.out_of_order.sum();
        numbers.saturating_sub(u32::from(self.out_of_order_fin))
    }

    /// Bytes that go along with the state.
    #[inline]
    pub fn data_len(&self) -> u32 {
        self.unread_len()
            .saturating_add(self.send_len())
            .saturating_add(self.out_of_order_len())
    }

    /// The bytes that go along, in the order in which they go; none of these runs is empty.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let run = |part, seq, len| Run { part, seq, len };
        let sent = self.snd_nxt.wrapping_sub(self.snd_una);
        let unsent = self.write_seq.wrapping_sub(self.snd_nxt);
        let ranges = self.out_of_order.as_slice();
        let last = ranges.len().saturating_sub(1);
        [
            run(Part::Unread, self.copied_seq, self.unread_len()),
            run(Part::Sent, self.snd_una, sent),
            run(Part::Unsent, self.snd_nxt, unsent),
        ]
        .into_iter()
        .chain(ranges.iter().enumerate().map(move |(index, range)| {
            let fin = u32::from(self.out_of_order_fin && index == last);
            let len = range.len().saturating_sub(fin);
            run(Part::OutOfOrder, range.start, len)
        }))
        .filter(|run| run.len != 0)
    }

    /// The rest of the run that the byte at `offset` of all that go along is in.
    pub fn run_at(&self, offset: u32) -> Option<Run> {
        // Most often there are no others.
        let unread = self.unread_len();
        if offset < unread {
            return Some(Run {
                part: Part::Unread,
                seq: self.copied_seq.wrapping_add(offset),
                len: unread.saturating_sub(offset),
            });
        }
        let mut offset = offset;
        for run in self.runs() {
            if offset < run.len {
                return Some(Run {
                    seq: run.seq.wrapping_add(offset),
                    len: run.len.saturating_sub(offset),
                    ..run
                });
            }
            offset = offset.saturating_sub(run.len);
        }
        None
    }

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
            unread <= MAX_WINDOW && (unread != 0 || !self.fin),
            Invalid::UnreadBytes,
        )?;
        let sent = SeqNum(self.snd_nxt).distance_from(SeqNum(self.snd_una));
        check(
            sent <= self.send_len() && self.send_len() <= MAX_WINDOW,
            Invalid::SendQueue,
        )?;
        // Rare, and its registers are not for everybody to save.
        if !(self.out_of_order.is_empty() && self.sacks.is_empty() && !self.out_of_order_fin) {
            self.validate_out_of_order()?;
        }

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
        // MAX_SIGNED is all bits but the highest, which none of them may have.
        let rtts = self.srtt_us | self.mdev_us | self.mdev_max_us | self.rttvar_us;
        check(rtts <= MAX_SIGNED, Invalid::Rtt)?;
        let segments = self.snd_cwnd | self.snd_ssthresh | self.reordering;
        check(
            segments <= MAX_SIGNED
                && self.snd_cwnd != 0
                && self.snd_ssthresh != 0
                && self.reordering != 0,
            Invalid::Congestion,
        )?;
        check(self.options.is_valid(), Invalid::Options)
    }

    /// The TCP code warns when `rcv_nxt` gets into the middle of a SACK block, and expects of the
    /// buffers in its queue that they are in order.
    #[inline(never)]
    fn validate_out_of_order(&self) -> Result<(), Invalid> {
        let ranges = self.out_of_order.as_slice();
        let mut before = self.rcv_nxt;
        for range in ranges {
            let near = |seq: u32| (1..=MAX_WINDOW).contains(&seq.wrapping_sub(self.rcv_nxt));
            let good = near(range.start)
                && near(range.end)
                && SeqNum(range.start).after(SeqNum(before))
                && SeqNum(range.end).after(SeqNum(range.start));
            if !good {
                return Err(Invalid::OutOfOrder);
            }
            before = range.end;
        }
        if (self.fin && !ranges.is_empty()) || (self.out_of_order_fin && ranges.is_empty()) {
            return Err(Invalid::OutOfOrder);
        }
        let known = |sack: &Range| {
            SeqNum(sack.end).after(SeqNum(sack.start)) && ranges.iter().any(|r| r.contains(sack))
        };
        let sacks = self.sacks.as_slice();
        if (self.sack_ok || sacks.is_empty()) && sacks.iter().all(known) {
            Ok(())
        } else {
            Err(Invalid::Sacks)
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
