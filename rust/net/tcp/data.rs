// SPDX-License-Identifier: GPL-2.0

//! The bytes of a connection on their way to a new socket.

use kernel::{
    macros::kunit_tests,
    prelude::*, //
};

use crate::wire::record::{
    ConnectionState,
    Part, //
};

use super::{
    refusal::Refusal,
    rx_data::RxData,
    tx_data::TxData, //
};

/// Most unread bytes that a connection may have and still be moved.
///
/// Twice the default window of a connection that nobody reads: more only gathers where an
/// application has set a large SO_RCVBUF or has read for long, and then stopped.
pub(super) const MAX_UNREAD: u32 = 4 << 20;

/// Most bytes that may wait to be sent or acknowledged: what `net.ipv4.tcp_wmem` allows by default.
pub(super) const MAX_SEND: u32 = 4 << 20;

/// Most bytes that may have been received out of order. The client still has them, so they would
/// come again; a connection with so many holes has other troubles.
pub(super) const MAX_OUT_OF_ORDER: u32 = 1 << 20;

/// The bytes that go along with a [`ConnectionState`], in socket buffers that are ready to be put
/// into the queues of a new socket.
///
/// All memory is allocated here, in process context, so that nothing can fail for want of it once
/// the socket exists.
pub struct ConnectionData {
    pub(super) unread: RxData,
    pub(super) send: TxData,
    pub(super) out_of_order: RxData,
    len: u32,
}

impl ConnectionData {
    /// No bytes.
    pub const fn new() -> ConnectionData {
        ConnectionData {
            unread: RxData::new(),
            send: TxData::new(),
            out_of_order: RxData::new(),
            len: 0,
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no more bytes go along with the state than a socket takes.
    pub fn check(state: &ConnectionState) -> Result<(), Refusal> {
        let out_of_order = state.out_of_order_len();
        Self::check_lens(state.unread_len(), state.send_len(), out_of_order)
    }

    /// The same for numbers of bytes.
    pub(super) fn check_lens(unread: u32, send: u32, out_of_order: u32) -> Result<(), Refusal> {
        if unread > MAX_UNREAD {
            Err(Refusal::UnreadTooLarge)
        } else if send > MAX_SEND {
            Err(Refusal::DataInFlight)
        } else if out_of_order > MAX_OUT_OF_ORDER {
            Err(Refusal::OutOfOrder)
        } else {
            Ok(())
        }
    }

    /// Appends a copy of the next bytes that go along with `state`, always the same. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EFBIG` for more than belong to the state, or are taken; a part may have been
    /// appended then.
    pub fn push(&mut self, state: &ConnectionState, mut bytes: &[u8]) -> Result {
        Self::check(state).map_err(|_| EFBIG)?;
        while !bytes.is_empty() {
            let run = state.run_at(self.len).ok_or(EFBIG)?;
            let count = bytes.len().min(run.len as usize);
            let (part, rest) = bytes.split_at_checked(count).ok_or(EINVAL)?;
            match run.part {
                Part::Unread => self.unread.push(run.seq, part)?,
                Part::Sent | Part::Unsent => self.send.push(&run, part)?,
                Part::OutOfOrder => self.out_of_order.push(run.seq, part)?,
            }
            // CAST: Not more than `run.len`.
            self.len = self.len.saturating_add(count as u32);
            bytes = rest;
        }
        Ok(())
    }

    /// Appends what is left when all bytes are there: a FIN among what came out of order. May sleep.
    pub(super) fn finish(&mut self, state: &ConnectionState) -> Result {
        match state.out_of_order.as_slice().last() {
            Some(range) if state.out_of_order_fin => {
                self.out_of_order.push_fin(range.end.wrapping_sub(1))
            }
            _ => Ok(()),
        }
    }

    /// The memory that all of it takes, as the kernel accounts it.
    pub fn truesize(&self) -> usize {
        self.rx_truesize().saturating_add(self.send.truesize())
    }

    /// The memory of what has been received.
    pub(super) fn rx_truesize(&self) -> usize {
        self.unread
            .truesize()
            .saturating_add(self.out_of_order.truesize())
    }
}

impl Default for ConnectionData {
    fn default() -> ConnectionData {
        ConnectionData::new()
    }
}

#[kunit_tests(nlb_tcp_data)]
mod tests {
    use super::{
        super::{
            rx_data,
            sock,
            sock::tcp_skb_cb,
            tx_data, //
        },
        *, //
    };
    use crate::{
        bindings,
        wire::{
            addr::{
                FourTuple,
                Proto, //
            },
            record::{
                Range,
                Ranges,
                Run,
                SocketOptions, //
            },
        },
    };
    use core::ptr::NonNull;

    /// A connection with bytes in all queues, whose numbers are about to wrap.
    fn state() -> Result<ConnectionState> {
        let mut out_of_order = Ranges::new();
        for (start, end) in [(100, 5000), (6000, 6001), (7000, 7001)] {
            out_of_order.push(Range { start, end }).ok_or(EINVAL)?;
        }
        Ok(ConnectionState {
            tuple: FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
            snd_una: 0u32.wrapping_sub(tx_data::CHUNK + 10),
            snd_nxt: 20,
            write_seq: 20 + 2 * tx_data::CHUNK + 7,
            rcv_nxt: 50,
            copied_seq: 50u32.wrapping_sub(2 * rx_data::CHUNK as u32 + 3),
            fin: false,
            out_of_order,
            out_of_order_fin: true,
            sacks: Ranges::new(),
            rcv_wup: 50,
            rcv_wnd: 65152,
            rcv_mwnd_seq: 65202,
            snd_wl1: 40,
            snd_wnd: 64256,
            max_window: 64256,
            window_clamp: 65535,
            rcv_ssthresh: 65152,
            wscale_ok: true,
            snd_wscale: 7,
            rcv_wscale: 10,
            sack_ok: true,
            tstamp_ok: false,
            usec_ts: false,
            ecn_ok: false,
            ecn_flags: 0,
            mss_clamp: 1460,
            rcv_mss: 536,
            tsval_now: 0,
            ts_recent: 0,
            ts_recent_age: 0,
            srtt_us: 8000,
            mdev_us: 2000,
            mdev_max_us: 50000,
            rttvar_us: 50000,
            rtt_min_us: u32::MAX,
            snd_cwnd: 10,
            snd_ssthresh: 0x7fff_ffff,
            reordering: 3,
            bytes_acked: 0,
            bytes_received: 0,
            options: SocketOptions::NONE,
        })
    }

    /// The byte with a sequence number; both directions differ.
    fn byte(part: Part, seq: u32) -> u8 {
        let direction = u32::from(matches!(part, Part::Sent | Part::Unsent));
        (seq.wrapping_mul(2_654_435_761) >> 24) as u8 ^ direction as u8
    }

    /// Checks the buffers of a list against the runs they should hold; gives the flags of the last.
    fn check(mut pop: impl FnMut() -> Option<NonNull<bindings::sk_buff>>, runs: &[Run]) -> u16 {
        let mut flags = 0;
        let mut runs = runs.iter();
        let mut want = runs.next().copied();
        while let Some(skb) = pop() {
            let skb = skb.as_ptr();
            // SAFETY: The buffer has just come out of the list.
            unsafe {
                assert!((*skb).__bindgen_anon_1.__bindgen_anon_1.next.is_null());
                let cb = tcp_skb_cb(skb);
                flags = (*cb).tcp_flags;
                let fin = u32::from(flags & sock::TCPHDR_FIN != 0);
                assert_eq!((*cb).end_seq.wrapping_sub((*cb).seq), (*skb).len + fin);
                for at in 0..(*skb).len {
                    let mut got = 0u8;
                    let err = bindings::skb_copy_bits(skb, at as i32, (&raw mut got).cast(), 1);
                    assert_eq!(err, 0);
                    let Some(run) = &mut want else {
                        assert!(false);
                        return flags;
                    };
                    assert_eq!((*cb).seq.wrapping_add(at), run.seq);
                    assert_eq!(got, byte(run.part, run.seq));
                    run.seq = run.seq.wrapping_add(1);
                    run.len -= 1;
                    if run.len == 0 {
                        want = runs.next().copied();
                    }
                }
                sock::free_skb_list(skb);
            }
        }
        assert!(want.is_none());
        flags
    }

    #[test]
    fn pieces_come_out_where_they_belong() -> Result {
        let state = state()?;
        assert!(state.validate().is_ok());
        let mut stream = KVVec::new();
        let mut runs = KVec::new();
        for run in state.runs() {
            runs.push(run, GFP_KERNEL)?;
            for at in 0..run.len {
                stream.push(byte(run.part, run.seq.wrapping_add(at)), GFP_KERNEL)?;
            }
        }
        let mut data = ConnectionData::new();
        let mut rest = stream.as_slice();
        for size in [1, 0, 7, rx_data::CHUNK - 8, 1, 20_011].into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at(size.min(rest.len()));
            data.push(&state, piece)?;
            rest = more;
        }
        assert_eq!(data.len(), state.data_len());
        assert!(data.push(&state, &[0]) == Err(EFBIG));
        data.finish(&state)?;
        assert!(data.rx_truesize() > 2 * rx_data::CHUNK);
        assert!(data.send.truesize() > 3 * tx_data::CHUNK as usize);

        let of = |parts: &[Part]| {
            let mut list = KVec::new();
            for run in runs.iter().filter(|run| parts.contains(&run.part)) {
                list.push(*run, GFP_KERNEL)?;
            }
            Ok::<_, Error>(list)
        };
        check(|| data.unread.pop(), &of(&[Part::Unread])?);
        check(|| data.send.pop_sent(), &of(&[Part::Sent])?);
        check(|| data.send.pop_unsent(), &of(&[Part::Unsent])?);
        let flags = check(|| data.out_of_order.pop(), &of(&[Part::OutOfOrder])?);
        assert!(flags & sock::TCPHDR_FIN != 0);
        Ok(())
    }

    #[test]
    fn too_much_is_refused() -> Result {
        let mut large = state()?;
        large.write_seq = large.snd_una.wrapping_add(MAX_SEND + 1);
        assert!(ConnectionData::check(&large) == Err(Refusal::DataInFlight));
        assert!(ConnectionData::new().push(&large, &[0]) == Err(EFBIG));
        large.write_seq = large.snd_una.wrapping_add(MAX_SEND);
        assert!(ConnectionData::check(&large).is_ok());
        large.copied_seq = large.rcv_nxt.wrapping_sub(MAX_UNREAD + 1);
        assert!(ConnectionData::check(&large) == Err(Refusal::UnreadTooLarge));
        large.copied_seq = large.rcv_nxt;
        let range = Range {
            start: large.rcv_nxt.wrapping_add(10_000),
            end: large.rcv_nxt.wrapping_add(10_001 + MAX_OUT_OF_ORDER),
        };
        large.out_of_order.push(range).ok_or(EINVAL)?;
        assert!(ConnectionData::check(&large) == Err(Refusal::OutOfOrder));
        Ok(())
    }
}
