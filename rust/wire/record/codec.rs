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
//! | 9 total | 4 | how many bytes go along in all |
//! | 10 offset | 4 | how many of them earlier records brought |
//! | 11 out of order | 8 to 256 | up to 32 ranges received beyond a hole, ascending: start, end |
//! | 12 SACK | 8 to 32 | up to 4 blocks that are being reported, most recent first: start, end |
//! | 16 data | 1.. | the next bytes |
//! | 32 route | 24 | forwarder (16 bytes), flow id, timeout in ms |
//! | 0x800d options | 28 | bits (1 byte), TCP_KEEPCNT (1), IP_TOS or IPV6_TCLASS (1), zero (1), TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, SO_MAX_PACING_RATE (8) |
//! | 0x800e congestion control | 16 | name in printable ASCII, zeros behind it |
//!
//! Numbers are 4 bytes where nothing else is said, except mss_clamp, rcv_mss and ports (2), wscale
//! and ecn_flags (1), counters (8). IPv4 addresses are IPv4-mapped; all of a record are of one
//! family. Option bits: window scale 1, SACK 2, timestamps 4, microsecond timestamps 8, ECN 16, FIN
//! received 32, FIN received out of order 64. Bits of the socket's options: TCP_NODELAY 1,
//! SO_KEEPALIVE 2; what is zero has not been set.
//!
//! The bytes that go along are those received and not read (`copied_seq` up to `rcv_nxt`), then
//! those written and not acknowledged (`snd_una` up to `snd_nxt` as sent, from there up to
//! `write_seq` as not yet sent), then those of the ranges of section 11. A FIN counts in the
//! sequence numbers, but brings no byte: bit 32 says that it is the number before `rcv_nxt`, bit 64
//! that it is the last one of the last range. [`ConnectionState::validate`] has what must hold
//! between all these numbers.
//!
//! PREPARE has sections 1 to 9, 11, 12, 0x800d and 0x800e unless they are empty, and 32. STATE has 9 and 10;
//! where the offset is 0 also 1 to 8, and 11, 12, 0x800d and 0x800e unless they are empty; and 16 unless
//! there is no data at all. The one that brings the last byte has the flag LAST. The order of sections is free. A
//! section whose type has the top bit set may be skipped by who does not know it; any other unknown
//! one is an error, and so is one that is missing, doubled, or has no place in the record.

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
    options::SocketOptions,
    range::Ranges,
    seal,
    section::{
        len_of,
        need,
        Found,
        Writer,
        CONGESTION,
        CONGESTION_CONTROL,
        COUNTERS,
        DATA,
        FIXED,
        HEAD,
        OFFSET,
        OPTIONS,
        OUT_OF_ORDER,
        ROUTE,
        RTT,
        SACK,
        SEQUENCE,
        SOCKET_OPTIONS,
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
    Type,
    HEADER_LEN,
    MAX_PAYLOAD, //
};

/// Most bytes of data in one STATE record; every record has room for so many.
pub const CHUNK_MAX: usize =
    MAX_PAYLOAD - len_of(TUPLE, SACK) - len_of(SOCKET_OPTIONS, CONGESTION_CONTROL) - HEAD;

/// Most bytes of a PREPARE's payload.
pub(super) const PREPARE_LEN: usize =
    len_of(TUPLE, TOTAL) + len_of(OUT_OF_ORDER, SACK) + len_of(ROUTE, CONGESTION_CONTROL);

/// Longest time that an origin may wait for an answer, in milliseconds. A target remembers longer what
/// became of a migration.
pub const TIMEOUT_MAX_MS: u32 = 60_000;

/// The question whether the target would take a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prepare<'a> {
    /// The forwarder whose tunnel the client's packets come by.
    pub forwarder: Addr,
    /// The flow id of the connection in that tunnel.
    pub flow_id: FlowId,
    /// How long the origin waits for each answer, in milliseconds; [`TIMEOUT_MAX_MS`] at most.
    pub timeout_ms: u32,
    /// The connection as it is now; it goes on until the freeze.
    pub connection: &'a ConnectionState,
}

impl<'a> Prepare<'a> {
    pub(super) fn parse(
        payload: &[u8],
        room: &'a mut Option<ConnectionState>,
    ) -> Result<Prepare<'a>, Error> {
        let mut found = Found::parse(payload)?;
        let route = need(&mut found.route, ROUTE)?;
        let total = u32::from_be_bytes(*need(&mut found.total, TOTAL)?);
        let connection = parse_connection(&mut found, total, room)?;
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
        if family && self.forwarder.is_unicast() && self.timeout_ms <= TIMEOUT_MAX_MS {
            Ok(())
        } else {
            Err(Error::BadValue)
        }
    }

    pub(super) fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let mut writer = Writer::new(payload);
        emit_connection(self.connection, &mut writer)?;
        writer.section::<TOTAL>()?;
        writer.u32s([self.connection.data_len()])?;
        writer.section::<ROUTE>()?;
        writer.put(*self.forwarder.as_bytes())?;
        writer.u32s([self.flow_id.value(), self.timeout_ms])?;
        Ok(writer.len())
    }
}

/// A piece of a connection's state: the first brings the state proper, each the next bytes.
///
/// The bytes `offset..offset + data.len()` never exceed `total`, and there is no piece without
/// data, unless `total` is zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State<'a> {
    /// The state proper; there exactly if `offset` is zero. Its `data_len()` is `total`.
    pub connection: Option<&'a ConnectionState>,
    /// How many bytes came before this piece.
    pub offset: u32,
    /// How many bytes there are in all.
    pub total: u32,
    /// The next bytes, in the order of [`ConnectionState::runs`]; [`CHUNK_MAX`] at most.
    pub data: &'a [u8],
}

impl<'a> State<'a> {
    /// Whether this piece is the last one.
    pub fn is_last(&self) -> bool {
        self.head().is_last()
    }

    fn head(&self) -> StateHead<'a> {
        StateHead {
            connection: self.connection,
            offset: self.offset,
            total: self.total,
            len: self.data.len(),
        }
    }

    pub(super) fn parse(
        payload: &'a [u8],
        last: bool,
        room: &'a mut Option<ConnectionState>,
    ) -> Result<State<'a>, Error> {
        let mut found = Found::parse(payload)?;
        let total = u32::from_be_bytes(*need(&mut found.total, TOTAL)?);
        let offset = u32::from_be_bytes(*need(&mut found.offset, OFFSET)?);
        let data = found.data.take().unwrap_or_default();
        let connection = match offset {
            0 => Some(parse_connection(&mut found, total, room)?),
            _ => None,
        };
        found.finish()?;
        let state = State {
            connection,
            offset,
            total,
            data,
        };
        // Whether the state proper is there and fits has just been seen to.
        state.head().check_data()?;
        if state.is_last() != last {
            return Err(Error::BadFlags);
        }
        Ok(state)
    }

    pub(super) fn emit(&self, payload: &mut [u8]) -> Result<usize, Error> {
        self.head().emit(payload, |data| {
            data.copy_from_slice(self.data);
            Ok(())
        })
    }
}

/// A [`State`] whose data is not at hand, but to be put where it goes.
#[derive(Clone, Copy, Debug)]
pub struct StateHead<'a> {
    /// As in [`State`].
    pub connection: Option<&'a ConnectionState>,
    /// As in [`State`].
    pub offset: u32,
    /// As in [`State`].
    pub total: u32,
    /// How many bytes of data there are.
    pub len: usize,
}

impl StateHead<'_> {
    /// Writes the whole record, header included, and returns its length; `fill` writes the data, and
    /// its error is passed on. Other errors are those of [`Record::encode`](super::Record::encode).
    pub fn encode<E: From<Error>>(
        &self,
        id: u64,
        record: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let payload = record.get_mut(HEADER_LEN..).ok_or(Error::NoSpace)?;
        let len = self.emit(payload, fill)?;
        Ok(seal(record, Type::State, self.is_last(), id, len)?)
    }

    fn is_last(&self) -> bool {
        (self.offset as usize).saturating_add(self.len) == self.total as usize
    }

    fn check(&self) -> Result<(), Error> {
        if self.connection.is_some() != (self.offset == 0) {
            return Err(Error::BadValue);
        }
        if self
            .connection
            .is_some_and(|state| state.data_len() != self.total)
        {
            return Err(Error::Invalid(Invalid::Total));
        }
        self.check_data()
    }

    fn check_data(&self) -> Result<(), Error> {
        if self.len == 0 && self.total != 0 {
            return Err(Error::MissingSection(DATA));
        }
        let end = (self.offset as usize).saturating_add(self.len);
        if self.len > CHUNK_MAX || end > self.total as usize {
            return Err(Error::TooLong);
        }
        Ok(())
    }

    fn emit<E: From<Error>>(
        &self,
        payload: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.check()?;
        let mut writer = Writer::new(payload);
        if let Some(connection) = self.connection {
            emit_connection(connection, &mut writer)?;
        }
        writer.section::<TOTAL>()?;
        writer.u32s([self.total])?;
        writer.section::<OFFSET>()?;
        writer.u32s([self.offset])?;
        if self.len != 0 {
            writer.head(DATA, self.len)?;
            fill(writer.slice(self.len)?)?;
        }
        Ok(writer.len())
    }
}

/// Writes sections 1 to 8, 11, 12, 0x800d and 0x800e. Nothing is sent that the receiver would refuse.
fn emit_connection(state: &ConnectionState, writer: &mut Writer<'_>) -> Result<(), Error> {
    state.validate().map_err(Error::Invalid)?;
    emit_fixed(state, writer.array()?)?;
    writer.ranges(OUT_OF_ORDER, state.out_of_order.as_slice())?;
    writer.ranges(SACK, state.sacks.as_slice())?;
    state.options.emit(writer)
}

/// Writes sections 1 to 8.
fn emit_fixed(state: &ConnectionState, fixed: &mut [u8; FIXED]) -> Result<(), Error> {
    let mut writer = Writer::new(fixed);
    writer.section::<TUPLE>()?;
    writer.put([state.tuple.proto().number(), 0, 0, 0])?;
    writer.put(state.tuple.client_port().to_be_bytes())?;
    writer.put(state.tuple.vip_port().to_be_bytes())?;
    writer.put(*state.tuple.client().as_bytes())?;
    writer.put(*state.tuple.vip().as_bytes())?;

    writer.section::<SEQUENCE>()?;
    writer.u32s([
        state.snd_una,
        state.snd_nxt,
        state.write_seq,
        state.rcv_nxt,
        state.copied_seq,
    ])?;

    writer.section::<WINDOW>()?;
    writer.u32s([
        state.snd_wnd,
        state.snd_wl1,
        state.max_window,
        state.rcv_wnd,
        state.rcv_wup,
        state.rcv_mwnd_seq,
        state.window_clamp,
        state.rcv_ssthresh,
    ])?;

    writer.section::<OPTIONS>()?;
    let bits = u16::from(state.wscale_ok)
        | (u16::from(state.sack_ok) << 1)
        | (u16::from(state.tstamp_ok) << 2)
        | (u16::from(state.usec_ts) << 3)
        | (u16::from(state.ecn_ok) << 4)
        | (u16::from(state.fin) << 5)
        | (u16::from(state.out_of_order_fin) << 6);
    writer.put(bits.to_be_bytes())?;
    writer.put([state.snd_wscale, state.rcv_wscale])?;
    writer.put(state.mss_clamp.to_be_bytes())?;
    writer.put(state.rcv_mss.to_be_bytes())?;

    writer.section::<TIMESTAMPS>()?;
    writer.u32s([state.tsval_now, state.ts_recent, state.ts_recent_age])?;

    writer.section::<RTT>()?;
    writer.u32s([
        state.srtt_us,
        state.mdev_us,
        state.mdev_max_us,
        state.rttvar_us,
        state.rtt_min_us,
    ])?;

    writer.section::<CONGESTION>()?;
    writer.u32s([state.snd_cwnd, state.snd_ssthresh, state.reordering])?;
    writer.put([state.ecn_flags, 0, 0, 0])?;

    writer.section::<COUNTERS>()?;
    writer.put(state.bytes_acked.to_be_bytes())?;
    writer.put(state.bytes_received.to_be_bytes())
}

/// Takes sections 1 to 8, 11, 12, 0x800d and 0x800e out, into `room`; the state is checked by
/// [`ConnectionState::validate`].
fn parse_connection<'a>(
    found: &mut Found<'_>,
    total: u32,
    room: &'a mut Option<ConnectionState>,
) -> Result<&'a ConnectionState, Error> {
    let tuple = need(&mut found.tuple, TUPLE)?;
    let sequence = need(&mut found.sequence, SEQUENCE)?;
    let window = need(&mut found.window, WINDOW)?;
    let options = need(&mut found.options, OPTIONS)?;
    let timestamps = need(&mut found.timestamps, TIMESTAMPS)?;
    let rtt = need(&mut found.rtt, RTT)?;
    let congestion = need(&mut found.congestion, CONGESTION)?;
    let counters = need(&mut found.counters, COUNTERS)?;

    if field::array(tuple, 1) != [0; 3] || field::array(congestion, 13) != [0; 3] {
        return Err(Error::BadValue);
    }
    let bits = field::u16(options, 0);
    if bits & !0x7f != 0 {
        return Err(Error::BadValue);
    }
    let tuple = FourTuple::new(
        Addr::v6(field::array(tuple, 8)),
        field::u16(tuple, 4),
        Addr::v6(field::array(tuple, 24)),
        field::u16(tuple, 6),
        Proto::from_number(field::u8(tuple, 0)).ok_or(Error::BadValue)?,
    );
    let tuple = tuple.ok_or(Error::BadValue)?;
    let socket_options = SocketOptions::take(found)?;
    // Made where it is to stay: it is large.
    let state = room.insert(ConnectionState {
        tuple,
        snd_una: field::u32(sequence, 0),
        snd_nxt: field::u32(sequence, 4),
        write_seq: field::u32(sequence, 8),
        rcv_nxt: field::u32(sequence, 12),
        copied_seq: field::u32(sequence, 16),
        fin: bits & 32 != 0,
        out_of_order: Ranges::new(),
        out_of_order_fin: bits & 64 != 0,
        sacks: Ranges::new(),
        snd_wnd: field::u32(window, 0),
        snd_wl1: field::u32(window, 4),
        max_window: field::u32(window, 8),
        rcv_wnd: field::u32(window, 12),
        rcv_wup: field::u32(window, 16),
        rcv_mwnd_seq: field::u32(window, 20),
        window_clamp: field::u32(window, 24),
        rcv_ssthresh: field::u32(window, 28),
        wscale_ok: bits & 1 != 0,
        sack_ok: bits & 2 != 0,
        tstamp_ok: bits & 4 != 0,
        usec_ts: bits & 8 != 0,
        ecn_ok: bits & 16 != 0,
        snd_wscale: field::u8(options, 2),
        rcv_wscale: field::u8(options, 3),
        mss_clamp: field::u16(options, 4),
        rcv_mss: field::u16(options, 6),
        tsval_now: field::u32(timestamps, 0),
        ts_recent: field::u32(timestamps, 4),
        ts_recent_age: field::u32(timestamps, 8),
        srtt_us: field::u32(rtt, 0),
        mdev_us: field::u32(rtt, 4),
        mdev_max_us: field::u32(rtt, 8),
        rttvar_us: field::u32(rtt, 12),
        rtt_min_us: field::u32(rtt, 16),
        snd_cwnd: field::u32(congestion, 0),
        snd_ssthresh: field::u32(congestion, 4),
        reordering: field::u32(congestion, 8),
        ecn_flags: field::u8(congestion, 12),
        bytes_acked: u64::from_be_bytes(field::array(counters, 0)),
        bytes_received: u64::from_be_bytes(field::array(counters, 8)),
        options: socket_options,
    });
    if let Some(value) = found.out_of_order.take() {
        state.out_of_order.parse(value);
    }
    if let Some(value) = found.sack.take() {
        state.sacks.parse(value);
    }
    state.validate().map_err(Error::Invalid)?;
    if state.data_len() != total {
        return Err(Error::Invalid(Invalid::Total));
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
