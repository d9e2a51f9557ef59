// SPDX-License-Identifier: GPL-2.0

//! PREPARE and STATE: a connection as sections of type (2 bytes), length (2 bytes) and value.
//!
//! | type | length | value |
//! |---|---|---|
//! | 1 tuple | 40 | protocol, 3 zero bytes, client port, VIP port, client, VIP (16 bytes each) |
//! | 2 sequence | 20 | snd_una, snd_nxt, write_seq, rcv_nxt, copied_seq |
//! | 3 window | 32 | snd_wnd, snd_wl1, max_window, rcv_wnd, rcv_wup, rcv_mwnd_seq, window_clamp, rcv_ssthresh |
//! | 4 options | 8 | bits (2 bytes), snd_wscale, rcv_wscale, mss_clamp, rcv_mss |
//! | 5 timestamps | 12 | tsval_now, ts_recent, ts_recent_age |
//! | 6 rtt | 20 | srtt_us, mdev_us, mdev_max_us, rttvar_us, rtt_min_us |
//! | 7 congestion | 16 | snd_cwnd, snd_ssthresh, reordering, ecn_flags, 3 zero bytes |
//! | 8 counters | 16 | bytes_acked, bytes_received |
//! | 9 total | 4 | how many unread bytes there are in all |
//! | 10 offset | 4 | how many of them earlier records brought |
//! | 16 data | 1.. | the next unread bytes |
//! | 17, 18 | | unsent and unacknowledged bytes: reserved, refused |
//! | 32 route | 24 | forwarder (16 bytes), flow id, timeout in ms |
//!
//! Numbers are 4 bytes where nothing else is said, except mss_clamp, rcv_mss and ports (2), wscale
//! and ecn_flags (1), counters (8). IPv4 addresses are IPv4-mapped. Option bits: window scale 1,
//! SACK 2, timestamps 4, microsecond timestamps 8, ECN 16.
//!
//! PREPARE has sections 1 to 9 and 32. STATE has 9 and 10, where the offset is 0 also 1 to 8, and
//! 16 unless there is no data at all; the one that brings the last byte has the flag LAST. The
//! order of sections is free. A section whose type has the top bit set may be skipped by who does
//! not know it; any other unknown one is an error, and so is one that is missing, doubled, or has
//! no place in the record.

use super::{
    super::{
        addr::{
            Addr,
            FourTuple,
            Proto, //
        },
        field,
        flow_id::FlowId, //
    },
    section::{
        len_of,
        Found,
        Writer,
        CONGESTION,
        COUNTERS,
        DATA,
        HEAD,
        OFFSET,
        OPTIONS,
        ROUTE,
        RTT,
        SEQUENCE,
        TIMESTAMPS,
        TOTAL,
        TUPLE,
        WINDOW, //
    },
    state::{
        ConnectionState,
        Invalid, //
    },
    Error,
    MAX_PAYLOAD, //
};

/// Most bytes of data in one STATE record; every record has room for so many.
pub const CHUNK_MAX: usize = MAX_PAYLOAD - len_of(TUPLE, OFFSET) - HEAD;

/// Bytes of a PREPARE's payload.
pub(super) const PREPARE_LEN: usize = len_of(TUPLE, TOTAL) + len_of(ROUTE, ROUTE);

/// The question whether the target would take a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prepare {
    /// The forwarder whose tunnel the client's packets come by.
    pub forwarder: Addr,
    /// The flow id of the connection in that tunnel.
    pub flow_id: FlowId,
    /// How long the origin waits for each answer, in milliseconds.
    pub timeout_ms: u32,
    /// The connection as it is now; it goes on until the freeze.
    pub connection: ConnectionState,
}

impl Prepare {
    pub(super) fn parse(payload: &[u8]) -> Result<Prepare, Error> {
        let mut found = Found::parse(payload)?;
        let route = found.need(ROUTE)?;
        let total = field::u32(found.need(TOTAL)?, 0);
        let connection = parse_connection(&mut found, total)?;
        found.finish()?;
        let prepare = Prepare {
            forwarder: Addr::v6(field::array(route, 0)),
            flow_id: FlowId::new(field::u32(route, 16)).ok_or(Error::BadValue)?,
            timeout_ms: field::u32(route, 20),
            connection,
        };
        prepare.check()?;
        Ok(prepare)
    }

    fn check(&self) -> Result<(), Error> {
        let family = self.forwarder.is_v4() == self.connection.tuple.is_v4();
        if family && self.forwarder.is_unicast() {
            Ok(())
        } else {
            Err(Error::BadValue)
        }
    }

    pub(super) fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let mut writer = Writer::new(payload);
        emit_connection(&self.connection, &mut writer)?;
        writer.section(TOTAL)?;
        writer.u32s(&[self.connection.unread_len])?;
        writer.section(ROUTE)?;
        writer.put(self.forwarder.as_bytes())?;
        writer.u32s(&[self.flow_id.value(), self.timeout_ms])?;
        Ok(writer.len())
    }
}

/// A piece of a connection's state: the first brings the state proper, each the next unread bytes.
///
/// The bytes `offset..offset + data.len()` never exceed `total`, and there is no piece without
/// data, unless `total` is zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State<'a> {
    /// The state proper; there exactly if `offset` is zero. Its `unread_len` is `total`.
    pub connection: Option<ConnectionState>,
    /// How many unread bytes came before this piece.
    pub offset: u32,
    /// How many unread bytes there are in all.
    pub total: u32,
    /// The next unread bytes; [`CHUNK_MAX`] at most.
    pub data: &'a [u8],
}

impl<'a> State<'a> {
    /// Whether this piece is the last one.
    pub fn is_last(&self) -> bool {
        (self.offset as usize).saturating_add(self.data.len()) == self.total as usize
    }

    fn check(&self) -> Result<(), Error> {
        if self.connection.is_some() != (self.offset == 0) {
            return Err(Error::BadValue);
        }
        if self
            .connection
            .is_some_and(|state| state.unread_len != self.total)
        {
            return Err(Error::Invalid(Invalid::UnreadBytes));
        }
        if self.data.is_empty() && self.total != 0 {
            return Err(Error::MissingSection(DATA));
        }
        let end = (self.offset as usize).saturating_add(self.data.len());
        if self.data.len() > CHUNK_MAX || end > self.total as usize {
            return Err(Error::TooLong);
        }
        Ok(())
    }

    pub(super) fn parse(payload: &'a [u8], last: bool) -> Result<State<'a>, Error> {
        let mut found = Found::parse(payload)?;
        let total = field::u32(found.need(TOTAL)?, 0);
        let offset = field::u32(found.need(OFFSET)?, 0);
        let data = found.take(DATA).unwrap_or_default();
        let connection = match offset {
            0 => Some(parse_connection(&mut found, total)?),
            _ => None,
        };
        found.finish()?;
        let state = State {
            connection,
            offset,
            total,
            data,
        };
        state.check()?;
        if state.is_last() != last {
            return Err(Error::BadFlags);
        }
        Ok(state)
    }

    pub(super) fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let mut writer = Writer::new(payload);
        if let Some(connection) = &self.connection {
            emit_connection(connection, &mut writer)?;
        }
        writer.section(TOTAL)?;
        writer.u32s(&[self.total])?;
        writer.section(OFFSET)?;
        writer.u32s(&[self.offset])?;
        if !self.data.is_empty() {
            writer.bytes(DATA, self.data)?;
        }
        Ok(writer.len())
    }
}

/// Writes sections 1 to 8. Nothing is sent that the receiver would refuse.
fn emit_connection(state: &ConnectionState, writer: &mut Writer<'_>) -> Result<(), Error> {
    state.validate().map_err(Error::Invalid)?;
    writer.section(TUPLE)?;
    writer.put(&[state.tuple.proto().number(), 0, 0, 0])?;
    writer.put(&state.tuple.client_port().to_be_bytes())?;
    writer.put(&state.tuple.vip_port().to_be_bytes())?;
    writer.put(state.tuple.client().as_bytes())?;
    writer.put(state.tuple.vip().as_bytes())?;

    writer.section(SEQUENCE)?;
    writer.u32s(&[
        state.snd_una,
        state.snd_una,
        state.snd_una,
        state.rcv_nxt,
        state.copied_seq,
    ])?;

    writer.section(WINDOW)?;
    writer.u32s(&[
        state.snd_wnd,
        state.snd_wl1,
        state.max_window,
        state.rcv_wnd,
        state.rcv_wup,
        state.rcv_mwnd_seq,
        state.window_clamp,
        state.rcv_ssthresh,
    ])?;

    writer.section(OPTIONS)?;
    let bits = u16::from(state.wscale_ok)
        | (u16::from(state.sack_ok) << 1)
        | (u16::from(state.tstamp_ok) << 2)
        | (u16::from(state.usec_ts) << 3)
        | (u16::from(state.ecn_ok) << 4);
    writer.put(&bits.to_be_bytes())?;
    writer.put(&[state.snd_wscale, state.rcv_wscale])?;
    writer.put(&state.mss_clamp.to_be_bytes())?;
    writer.put(&state.rcv_mss.to_be_bytes())?;

    writer.section(TIMESTAMPS)?;
    writer.u32s(&[state.tsval_now, state.ts_recent, state.ts_recent_age])?;

    writer.section(RTT)?;
    writer.u32s(&[
        state.srtt_us,
        state.mdev_us,
        state.mdev_max_us,
        state.rttvar_us,
        state.rtt_min_us,
    ])?;

    writer.section(CONGESTION)?;
    writer.u32s(&[state.snd_cwnd, state.snd_ssthresh, state.reordering])?;
    writer.put(&[state.ecn_flags, 0, 0, 0])?;

    writer.section(COUNTERS)?;
    writer.put(&state.bytes_acked.to_be_bytes())?;
    writer.put(&state.bytes_received.to_be_bytes())?;
    Ok(())
}

/// Takes sections 1 to 8 out; the state is checked by [`ConnectionState::validate`].
fn parse_connection(found: &mut Found<'_>, unread_len: u32) -> Result<ConnectionState, Error> {
    let tuple = found.need(TUPLE)?;
    let sequence = found.need(SEQUENCE)?;
    let window = found.need(WINDOW)?;
    let options = found.need(OPTIONS)?;
    let timestamps = found.need(TIMESTAMPS)?;
    let rtt = found.need(RTT)?;
    let congestion = found.need(CONGESTION)?;
    let counters = found.need(COUNTERS)?;
    let word = |section, index: usize| field::u32(section, index.saturating_mul(4));

    if field::array(tuple, 1) != [0; 3] || field::array(congestion, 13) != [0; 3] {
        return Err(Error::BadValue);
    }
    let bits = field::u16(options, 0);
    if bits & !0x1f != 0 {
        return Err(Error::BadValue);
    }
    let snd_una = word(sequence, 0);
    if word(sequence, 1) != snd_una || word(sequence, 2) != snd_una {
        return Err(Error::Invalid(Invalid::SendQueue));
    }
    let state = ConnectionState {
        tuple: FourTuple::new(
            Addr::v6(field::array(tuple, 8)),
            field::u16(tuple, 4),
            Addr::v6(field::array(tuple, 24)),
            field::u16(tuple, 6),
            Proto::from_number(field::u8(tuple, 0)).ok_or(Error::BadValue)?,
        )
        .ok_or(Error::BadValue)?,
        snd_una,
        rcv_nxt: word(sequence, 3),
        copied_seq: word(sequence, 4),
        snd_wnd: word(window, 0),
        snd_wl1: word(window, 1),
        max_window: word(window, 2),
        rcv_wnd: word(window, 3),
        rcv_wup: word(window, 4),
        rcv_mwnd_seq: word(window, 5),
        window_clamp: word(window, 6),
        rcv_ssthresh: word(window, 7),
        wscale_ok: bits & 1 != 0,
        sack_ok: bits & 2 != 0,
        tstamp_ok: bits & 4 != 0,
        usec_ts: bits & 8 != 0,
        ecn_ok: bits & 16 != 0,
        snd_wscale: field::u8(options, 2),
        rcv_wscale: field::u8(options, 3),
        mss_clamp: field::u16(options, 4),
        rcv_mss: field::u16(options, 6),
        tsval_now: word(timestamps, 0),
        ts_recent: word(timestamps, 1),
        ts_recent_age: word(timestamps, 2),
        srtt_us: word(rtt, 0),
        mdev_us: word(rtt, 1),
        mdev_max_us: word(rtt, 2),
        rttvar_us: word(rtt, 3),
        rtt_min_us: word(rtt, 4),
        snd_cwnd: word(congestion, 0),
        snd_ssthresh: word(congestion, 1),
        reordering: word(congestion, 2),
        ecn_flags: field::u8(congestion, 12),
        bytes_acked: u64::from_be_bytes(field::array(counters, 0)),
        bytes_received: u64::from_be_bytes(field::array(counters, 8)),
        unread_len,
    };
    state.validate().map_err(Error::Invalid)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::{
        super::state::tests::EXAMPLE,
        *, //
    };
    use std::{
        vec,
        vec::Vec, //
    };

    const FIXED: usize = len_of(TUPLE, COUNTERS);

    fn emit(state: &State<'_>) -> Vec<u8> {
        let mut payload = vec![0xee; MAX_PAYLOAD];
        let len = state.emit(&mut payload).unwrap();
        payload.truncate(len);
        payload
    }

    fn first(data: &[u8]) -> State<'_> {
        State {
            connection: Some(EXAMPLE),
            offset: 0,
            total: 101,
            data,
        }
    }

    fn prepare() -> Prepare {
        Prepare {
            forwarder: Addr::v4([10, 0, 0, 1]),
            flow_id: FlowId::nth(0),
            timeout_ms: 1000,
            connection: EXAMPLE,
        }
    }

    #[test]
    fn round_trip() {
        let data: Vec<u8> = (0..101).collect();
        let mut empty = EXAMPLE;
        (empty.copied_seq, empty.unread_len) = (empty.rcv_nxt, 0);
        for (state, last) in [
            (first(&data), true),
            (first(&data[..1]), false),
            (
                State {
                    connection: None,
                    offset: 1,
                    total: 101,
                    data: &data[1..],
                },
                true,
            ),
            (
                State {
                    connection: Some(empty),
                    offset: 0,
                    total: 0,
                    data: &[],
                },
                true,
            ),
        ] {
            let payload = emit(&state);
            assert_eq!(state.is_last(), last);
            assert_eq!(State::parse(&payload, last), Ok(state));
            assert_eq!(State::parse(&payload, !last), Err(Error::BadFlags));
            for len in 0..payload.len() {
                assert!(State::parse(&payload[..len], last).is_err());
                assert_eq!(state.emit(&mut vec![0; len]), Err(Error::NoSpace));
            }
        }
        let mut payload = [0; PREPARE_LEN];
        assert_eq!(prepare().emit(&mut payload), Ok(PREPARE_LEN));
        assert_eq!(Prepare::parse(&payload), Ok(prepare()));
    }

    #[test]
    fn largest_record() {
        let data = vec![7; CHUNK_MAX + 1];
        let mut state = EXAMPLE;
        (state.copied_seq, state.unread_len) = (state.rcv_nxt.wrapping_sub(1 << 20), 1 << 20);
        let mut piece = State {
            connection: Some(state),
            offset: 0,
            total: 1 << 20,
            data: &data[1..],
        };
        let payload = emit(&piece);
        assert_eq!(payload.len(), MAX_PAYLOAD);
        assert_eq!(State::parse(&payload, false), Ok(piece));
        piece.data = &data;
        assert_eq!(piece.emit(&mut [0; MAX_PAYLOAD + 9]), Err(Error::TooLong));
    }

    #[test]
    fn exact_bytes() {
        let payload = emit(&first(b"GET"));
        assert_eq!(payload[..12], [0, 1, 0, 40, 6, 0, 0, 0, 0x9c, 0x40, 0, 80]);
        assert_eq!(
            payload[44..68],
            [
                0, 2, 0, 20, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff,
                0xf0, 0, 0, 0, 100, 0xff, 0xff, 0xff, 0xff
            ]
        );
        assert_eq!(
            payload[104..116],
            [0, 4, 0, 8, 0, 7, 7, 10, 0x05, 0xb4, 0x02, 0x18]
        );
        assert_eq!(
            payload[FIXED..],
            [0, 9, 0, 4, 0, 0, 0, 101, 0, 10, 0, 4, 0, 0, 0, 0, 0, 16, 0, 3, b'G', b'E', b'T']
        );
    }

    #[test]
    fn sections_missing_or_out_of_place() {
        let good = emit(&first(b"GET"));
        let mut at = 0;
        while at < good.len() {
            let kind = u16::from_be_bytes([good[at], good[at + 1]]);
            let end = at + HEAD + usize::from(good[at + 3]);
            let mut missing = good.clone();
            missing.drain(at..end);
            let want = Err(Error::MissingSection(kind));
            assert_eq!(State::parse(&missing, false), want);
            at = end;
        }
        let later = State {
            connection: None,
            offset: 1,
            total: 101,
            data: b"x",
        };
        let mut payload = emit(&later);
        payload.extend(&good[..44]);
        let want = Err(Error::UnexpectedSection(TUPLE));
        assert_eq!(State::parse(&payload, false), want);
        let mut payload = [0; PREPARE_LEN + 8];
        prepare().emit(&mut payload).unwrap();
        payload[PREPARE_LEN..].copy_from_slice(&[0, 10, 0, 4, 0, 0, 0, 0]);
        let want = Err(Error::UnexpectedSection(OFFSET));
        assert_eq!(Prepare::parse(&payload), want);
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused() {
        let data = [0; 102];
        let later = State {
            connection: None,
            offset: 100,
            total: 101,
            data: &data[..1],
        };
        for (state, want) in [
            (first(&data), Error::TooLong),
            (first(&[]), Error::MissingSection(DATA)),
            (
                State {
                    total: 102,
                    ..first(&data)
                },
                Error::Invalid(Invalid::UnreadBytes),
            ),
            (
                State {
                    connection: None,
                    ..first(&data[..1])
                },
                Error::BadValue,
            ),
            (
                State {
                    connection: Some(EXAMPLE),
                    ..later
                },
                Error::BadValue,
            ),
            (
                State {
                    data: &data[..2],
                    ..later
                },
                Error::TooLong,
            ),
            (
                State {
                    offset: u32::MAX,
                    ..later
                },
                Error::TooLong,
            ),
            (State { data: &[], ..later }, Error::MissingSection(DATA)),
        ] {
            assert_eq!(state.emit(&mut [0; 1024]), Err(want), "{state:?}");
        }
        // The same judgement on bytes: offset 100 becomes 101.
        let mut payload = emit(&later);
        payload[15] = 101;
        assert_eq!(State::parse(&payload, false), Err(Error::TooLong));
    }

    #[test]
    fn values_are_checked() {
        for (at, value, want) in [
            (4, 1, Error::BadValue),
            (4, 17, Error::Invalid(Invalid::Tuple)),
            (5, 1, Error::BadValue),
            (12, 1, Error::BadValue),
            (55, 0xf1, Error::Invalid(Invalid::SendQueue)),
            (59, 0xf1, Error::Invalid(Invalid::SendQueue)),
            (108, 1, Error::BadValue),
            (109, 0x20, Error::BadValue),
            (FIXED - 20 - 3, 1, Error::BadValue),
            (FIXED + 7, 100, Error::Invalid(Invalid::UnreadBytes)),
        ] {
            let mut payload = emit(&first(b"GET"));
            payload[at] = value;
            assert_eq!(State::parse(&payload, false), Err(want), "byte {at}");
        }
        let mut bad = first(b"GET");
        bad.connection.as_mut().unwrap().mss_clamp = 0;
        let want = Err(Error::Invalid(Invalid::Mss));
        assert_eq!(bad.emit(&mut [0; 1024]), want);

        for (at, value) in [(0, 1), (12, 0), (16, 0x10), (19, 0)] {
            let mut payload = [0; PREPARE_LEN];
            prepare().emit(&mut payload).unwrap();
            payload[PREPARE_LEN - 24 + at] = value;
            assert_eq!(Prepare::parse(&payload), Err(Error::BadValue), "byte {at}");
        }
        let mut bad = prepare();
        bad.forwarder = Addr::v6([1; 16]);
        assert_eq!(bad.emit(&mut [0; 1024]), Err(Error::BadValue));
    }
}
