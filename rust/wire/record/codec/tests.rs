// SPDX-License-Identifier: GPL-2.0

use super::{
    super::{
        options::CongestionControl,
        range::Range,
        state::{
            tests::{
                busy,
                EXAMPLE, //
            },
            MAX_OUT_OF_ORDER,
            MAX_SACKS, //
        },
    },
    *, //
};
use std::{
    vec,
    vec::Vec, //
};

/// Bytes of a PREPARE without data out of order and options.
const SHORT_PREPARE: usize =
    PREPARE_LEN - len_of(OUT_OF_ORDER, SACK) - len_of(SOCKET_OPTIONS, CONGESTION_CONTROL);

fn emit(state: &State<'_>) -> Vec<u8> {
    let mut payload = vec![0xee; MAX_PAYLOAD];
    let len = state.emit(&mut payload).unwrap();
    payload.truncate(len);
    payload
}

fn first(data: &[u8]) -> State<'_> {
    State {
        connection: Some(&EXAMPLE),
        offset: 0,
        total: 101,
        data,
    }
}

fn prepare() -> Prepare<'static> {
    Prepare {
        forwarder: Addr::v4([10, 0, 0, 1]),
        flow_id: FlowId::nth(0),
        timeout_ms: 1000,
        connection: &EXAMPLE,
    }
}

#[test]
fn round_trip() {
    let data: Vec<u8> = (0..101).collect();
    let mut empty = EXAMPLE;
    empty.copied_seq = empty.rcv_nxt;
    let all: Vec<u8> = (0..252).map(|n| n as u8).collect();
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
                connection: Some(&empty),
                offset: 0,
                total: 0,
                data: &[],
            },
            true,
        ),
        (
            State {
                connection: Some(&busy()),
                offset: 0,
                total: 252,
                data: &all,
            },
            true,
        ),
    ] {
        let payload = emit(&state);
        assert_eq!(state.is_last(), last);
        assert_eq!(State::parse(&payload, last, &mut None), Ok(state));
        assert_eq!(
            State::parse(&payload, !last, &mut None),
            Err(Error::BadFlags)
        );
        for len in 0..payload.len() {
            assert!(State::parse(&payload[..len], last, &mut None).is_err());
            assert_eq!(state.emit(&mut vec![0; len]), Err(Error::NoSpace));
        }
    }
    let mut payload = [0; PREPARE_LEN];
    for (connection, len) in [
        (&EXAMPLE, SHORT_PREPARE),
        (&busy(), SHORT_PREPARE + 3 * (HEAD + 16) + HEAD + 28),
    ] {
        let mut prepare = prepare();
        prepare.connection = connection;
        assert_eq!(prepare.emit(&mut payload), Ok(len));
        assert_eq!(Prepare::parse(&payload[..len], &mut None), Ok(prepare));
    }
}

#[test]
fn congestion_control() {
    let name = |text: &[u8]| {
        let mut name = [0; 16];
        name[..text.len()].copy_from_slice(text);
        CongestionControl::new(&name)
    };
    assert_eq!(
        name(b"cubic").unwrap().as_bytes(),
        b"cubic\0\0\0\0\0\0\0\0\0\0\0"
    );
    assert_eq!(name(b"bbr\0rest"), name(b"bbr"));
    for bad in [
        &b""[..],
        b"\0x",
        b"a b",
        b"a\x7f",
        b"a\xff",
        b"0123456789abcdef",
    ] {
        assert_eq!(name(bad), None);
    }

    let mut state = EXAMPLE;
    state.options.congestion_control = name(b"reno");
    let piece = State {
        connection: Some(&state),
        ..first(&[7; 101])
    };
    let payload = emit(&piece);
    let head = [0x80, 14, 0, 16];
    let at = payload
        .windows(4)
        .position(|window| window == head)
        .unwrap()
        + 4;
    assert_eq!(&payload[at..at + 16], b"reno\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(State::parse(&payload, true, &mut None), Ok(piece));
    // Each state has one encoding.
    for (index, byte) in [(0, 0), (1, b' '), (15, b'x'), (5, b'x')] {
        let mut other = payload.clone();
        other[at + index] = byte;
        let parsed = State::parse(&other, true, &mut None).err();
        assert_eq!(parsed, Some(Error::BadValue), "{index}");
    }
}

#[test]
fn largest_record() {
    let data = vec![7; CHUNK_MAX + 1];
    let mut state = EXAMPLE;
    state.copied_seq = state.rcv_nxt.wrapping_sub(1 << 20);
    state.options.nodelay = true;
    state.options.congestion_control = CongestionControl::new(b"0123456789abcde\0");
    for n in 1..=MAX_OUT_OF_ORDER as u32 {
        let start = state.rcv_nxt.wrapping_add(n * 1000);
        let range = Range {
            start,
            end: start.wrapping_add(500),
        };
        state.out_of_order.push(range).unwrap();
        if n <= MAX_SACKS as u32 {
            state.sacks.push(range).unwrap();
        }
    }
    let mut piece = State {
        connection: Some(&state),
        offset: 0,
        total: (1 << 20) + 500 * MAX_OUT_OF_ORDER as u32,
        data: &data[1..],
    };
    let payload = emit(&piece);
    assert_eq!(payload.len(), MAX_PAYLOAD);
    assert_eq!(State::parse(&payload, false, &mut None), Ok(piece));
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
            0, 2, 0, 20, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff, 0xf0, 0,
            0, 0, 100, 0xff, 0xff, 0xff, 0xff
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
fn exact_bytes_of_a_busy_connection() {
    let busy = busy();
    let state = State {
        connection: Some(&busy),
        offset: 0,
        total: 252,
        data: b"GET",
    };
    let payload = emit(&state);
    assert_eq!(
        payload[44..68],
        [
            0, 2, 0, 20, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 10, 0, 0, 0, 30, 0, 0, 0, 100, 0xff,
            0xff, 0xff, 0xff
        ]
    );
    assert_eq!(
        payload[104..116],
        [0, 4, 0, 8, 0, 0x47, 7, 10, 0x05, 0xb4, 0x02, 0x18]
    );
    assert_eq!(
        payload[FIXED..FIXED + 40],
        [
            0, 11, 0, 16, 0, 0, 0, 200, 0, 0, 1, 44, 0, 0, 1, 144, 0, 0, 1, 150, // ranges
            0, 12, 0, 16, 0, 0, 1, 144, 0, 0, 1, 150, 0, 0, 0, 210, 0, 0, 1, 44, // SACK
        ]
    );
    assert_eq!(
        payload[FIXED + 40..FIXED + 72],
        [
            0x80, 13, 0, 28, 3, 3, 0x10, 0, 0, 0, 2, 88, 0, 0, 0, 20, 0, 0, 0x75, 0x30, 0, 0, 0x40,
            0, 0, 0, 0, 2, 0, 0, 0, 0
        ]
    );
    assert_eq!(
        payload[FIXED + 72..FIXED + 92],
        *b"\x80\x0e\0\x10reno\0\0\0\0\0\0\0\0\0\0\0\0"
    );
    assert_eq!(
        payload[FIXED + 92..],
        [0, 9, 0, 4, 0, 0, 0, 252, 0, 10, 0, 4, 0, 0, 0, 0, 0, 16, 0, 3, b'G', b'E', b'T']
    );
    let closed = ConnectionState {
        copied_seq: 99,
        fin: true,
        ..EXAMPLE
    };
    let payload = emit(&State {
        connection: Some(&closed),
        offset: 0,
        total: 0,
        data: &[],
    });
    assert_eq!(
        payload[104..116],
        [0, 4, 0, 8, 0, 0x27, 7, 10, 0x05, 0xb4, 0x02, 0x18]
    );
    assert_eq!(payload[FIXED..FIXED + 8], [0, 9, 0, 4, 0, 0, 0, 0]);
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
        assert_eq!(State::parse(&missing, false, &mut None), want);
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
    assert_eq!(State::parse(&payload, false, &mut None), want);
    let mut payload = [0; SHORT_PREPARE + 8];
    prepare().emit(&mut payload).unwrap();
    payload[SHORT_PREPARE..].copy_from_slice(&[0, 10, 0, 4, 0, 0, 0, 0]);
    let want = Err(Error::UnexpectedSection(OFFSET));
    assert_eq!(Prepare::parse(&payload, &mut None), want);
}

#[test]
fn an_origin_waits_for_a_minute_at_most() {
    let mut payload = [0; SHORT_PREPARE];
    let patient = |timeout_ms| Prepare {
        timeout_ms,
        ..prepare()
    };
    assert!(patient(TIMEOUT_MAX_MS).emit(&mut payload).is_ok());
    assert!(Prepare::parse(&payload, &mut None).is_ok());
    let too_long = patient(TIMEOUT_MAX_MS + 1).emit(&mut payload);
    assert_eq!(too_long, Err(Error::BadValue));
    // The timeout is the last that was written.
    payload[SHORT_PREPARE - 1] += 1;
    assert_eq!(Prepare::parse(&payload, &mut None), Err(Error::BadValue));
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
            Error::Invalid(Invalid::Total),
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
                connection: Some(&EXAMPLE),
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
    assert_eq!(
        State::parse(&payload, false, &mut None),
        Err(Error::TooLong)
    );
}

#[test]
fn values_are_checked() {
    for (at, value, want) in [
        (4, 1, Error::BadValue),
        (4, 17, Error::Invalid(Invalid::Tuple)),
        (5, 1, Error::BadValue),
        (12, 1, Error::BadValue),
        (55, 0xf1, Error::Invalid(Invalid::SendQueue)),
        (59, 0xef, Error::Invalid(Invalid::SendQueue)),
        (59, 0xf1, Error::Invalid(Invalid::Total)),
        (108, 1, Error::BadValue),
        (109, 0x80, Error::BadValue),
        (FIXED - 20 - 3, 1, Error::BadValue),
        (FIXED + 7, 100, Error::Invalid(Invalid::Total)),
    ] {
        let mut payload = emit(&first(b"GET"));
        payload[at] = value;
        assert_eq!(
            State::parse(&payload, false, &mut None),
            Err(want),
            "byte {at}"
        );
    }
    let connection = busy();
    let busy = State {
        connection: Some(&connection),
        offset: 0,
        total: 252,
        data: b"GET",
    };
    for (at, value, want) in [
        (0, 7, Error::BadValue),
        (3, 1, Error::BadValue),
        (2, 1, Error::Invalid(Invalid::Options)),
    ] {
        let mut payload = emit(&busy);
        payload[FIXED + 44 + at] = value;
        assert_eq!(
            State::parse(&payload, false, &mut None),
            Err(want),
            "byte {at}"
        );
    }
    let mut payload = emit(&busy);
    payload[FIXED + 44..FIXED + 72].fill(0);
    assert_eq!(
        State::parse(&payload, false, &mut None),
        Err(Error::BadValue)
    );

    let mut broken = EXAMPLE;
    broken.mss_clamp = 0;
    let mut bad = first(b"GET");
    bad.connection = Some(&broken);
    let want = Err(Error::Invalid(Invalid::Mss));
    assert_eq!(bad.emit(&mut [0; 1024]), want);

    for (at, value) in [(0, 1), (12, 0), (16, 0x10), (19, 0)] {
        let mut payload = [0; SHORT_PREPARE];
        prepare().emit(&mut payload).unwrap();
        payload[SHORT_PREPARE - 24 + at] = value;
        assert_eq!(
            Prepare::parse(&payload, &mut None),
            Err(Error::BadValue),
            "byte {at}"
        );
    }
    let mut bad = prepare();
    bad.forwarder = Addr::v6([1; 16]);
    assert_eq!(bad.emit(&mut [0; 1024]), Err(Error::BadValue));
}
