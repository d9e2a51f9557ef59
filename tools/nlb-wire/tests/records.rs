// SPDX-License-Identifier: GPL-2.0

//! Properties of the migrators' records.

mod common;

use common::{
    connection, decode_and_encode, flow_id, forwarder_of, parse_everything, unicast, unicast_v6,
};
use nlb_wire::{
    addr::Addr,
    flow_id::FlowId,
    record::{
        parse, seal, ConnectionState, Header, Hello, Part, Prepare, Reason, Record, State, Type,
        CHUNK_MAX, HEADER_LEN, MAX_PAYLOAD, MAX_TEXT, RECORD_MAX, SHORT_MAX, TIMEOUT_MAX_MS,
    },
};
use proptest::{collection::vec, prelude::*};

/// A record that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Box<Record<'static>>),
    Prepare {
        forwarder: Addr,
        flow_id: FlowId,
        timeout_ms: u32,
        connection: Box<ConnectionState>,
    },
    Reason {
        refused: bool,
        code: u32,
        text: String,
    },
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Owned::Plain(record) => **record,
            Owned::Prepare {
                forwarder,
                flow_id,
                timeout_ms,
                connection,
            } => Record::Prepare(Prepare {
                forwarder: *forwarder,
                flow_id: *flow_id,
                timeout_ms: *timeout_ms,
                connection,
            }),
            Owned::Reason {
                refused,
                code,
                text,
            } => {
                let reason = Reason { code: *code, text };
                if *refused {
                    Record::Refused(reason)
                } else {
                    Record::Failed(reason)
                }
            }
        }
    }
}

fn short_record() -> impl Strategy<Value = Owned> {
    let hello = (1..=255u8, 1..=255u8, any::<u32>(), any::<u64>()).prop_map(
        |(a, b, capabilities, boot_id)| {
            Record::Hello(Hello {
                min_version: a.min(b),
                max_version: a.max(b),
                capabilities,
                boot_id,
            })
        },
    );
    let forwarders = (unicast(), unicast_v6());
    let prepare = (forwarders, flow_id(), 0..=TIMEOUT_MAX_MS, connection()).prop_map(
        |((v4, v6), flow_id, timeout_ms, connection)| Owned::Prepare {
            forwarder: forwarder_of(&connection, v4, v6),
            flow_id,
            timeout_ms,
            connection: Box::new(connection),
        },
    );
    let injected =
        any::<(u64, u32)>().prop_map(|(inject_ns, held)| Record::Injected { inject_ns, held });
    let plain = prop_oneof![
        hello,
        injected,
        any::<u64>().prop_map(Record::Ping),
        any::<u64>().prop_map(Record::Pong),
        prop::sample::select(vec![
            Record::Ready,
            Record::Staged,
            Record::Commit,
            Record::Abort,
            Record::Aborted,
            Record::Closed,
        ]),
    ];
    prop_oneof![
        plain.prop_map(|record| Owned::Plain(Box::new(record))),
        prepare,
        (any::<bool>(), any::<u32>(), "\\PC{0,32}").prop_map(|(refused, code, text)| {
            Owned::Reason {
                refused,
                code,
                text,
            }
        }),
    ]
}

fn id_for(record: &Record<'_>, id: u64) -> u64 {
    match record.kind() {
        Type::Hello | Type::Ping | Type::Pong => 0,
        _ => id,
    }
}

/// Sends a state as an origin would, in pieces of `piece` bytes, and reads it as a target would.
fn transfer(state: ConnectionState, data: &[u8], piece: usize) -> (ConnectionState, Vec<u8>) {
    let mut stream = Vec::new();
    let mut record = vec![0; RECORD_MAX];
    let mut offset = 0;
    loop {
        let end = (offset + piece).min(data.len());
        let state = State {
            connection: (offset == 0).then_some(&state),
            offset: offset as u32,
            total: data.len() as u32,
            data: &data[offset..end],
        };
        let len = Record::State(state).encode(7, &mut record).unwrap();
        stream.extend(&record[..len]);
        offset = end;
        if offset == data.len() {
            break;
        }
    }
    let mut rest = &stream[..];
    let mut connection = None;
    let mut got = Vec::new();
    loop {
        let (header, payload) = parse(rest).unwrap();
        rest = &rest[HEADER_LEN + payload.len()..];
        let mut room = None;
        let Record::State(state) = Record::decode(&header, payload, &mut room).unwrap() else {
            panic!("{header:?}");
        };
        connection = connection.or(state.connection.copied());
        assert_eq!(state.offset as usize, got.len());
        got.extend(state.data);
        assert_eq!(state.is_last(), rest.is_empty());
        if rest.is_empty() {
            return (connection.unwrap(), got);
        }
    }
}

proptest! {
    #[test]
    fn generated_connections_are_valid(state in connection()) {
        prop_assert_eq!(state.validate(), Ok(()));
    }

    #[test]
    fn short_records_round_trip(owned in short_record(), id in 1..=u64::MAX) {
        let record = owned.record();
        if let Owned::Reason { text, .. } = &owned {
            prop_assume!(text.len() <= MAX_TEXT);
        }
        let id = id_for(&record, id);
        let mut bytes = [0; SHORT_MAX];
        let len = record.encode(id, &mut bytes).unwrap();
        let (header, payload) = parse(&bytes[..len]).unwrap();
        prop_assert_eq!(header.id(), id);
        let mut room = None;
        prop_assert_eq!(Record::decode(&header, payload, &mut room), Ok(record));
        for cut in 0..len {
            prop_assert!(parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn any_damage_of_up_to_three_bits_is_noticed(
        owned in short_record(),
        bits in vec(any::<prop::sample::Index>(), 1..=3),
    ) {
        let record = owned.record();
        if let Owned::Reason { text, .. } = &owned {
            prop_assume!(text.len() <= MAX_TEXT);
        }
        let mut bytes = [0; SHORT_MAX];
        let len = record.encode(id_for(&record, 1), &mut bytes).unwrap();
        let good = bytes;
        for bit in bits {
            let bit = bit.index(len * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assume!(good != bytes);
        prop_assert!(parse(&bytes[..len]).is_err());
    }

    #[test]
    fn states_arrive_whole(state in connection(), seed in any::<u32>(), share in 1..2000usize) {
        let mut number = seed;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        })
        .take(state.data_len() as usize)
        .collect();
        let piece = (data.len() / share).clamp(1, CHUNK_MAX);
        let (got, bytes) = transfer(state, &data, piece);
        prop_assert_eq!(got, state);
        prop_assert!(bytes == data);
    }

    #[test]
    fn every_byte_has_one_place(state in connection()) {
        // Runs are what `run_at` finds, without a gap, and no sequence number is in two of a
        // direction.
        let mut offset = 0;
        let mut received = state.copied_seq;
        let mut sent = state.snd_una;
        for run in state.runs() {
            prop_assert!(run.len > 0);
            prop_assert_eq!(state.run_at(offset), Some(run));
            let last = state.run_at(offset + run.len - 1).unwrap();
            prop_assert_eq!((last.part, last.len), (run.part, 1));
            prop_assert_eq!(last.seq, run.seq.wrapping_add(run.len - 1));
            offset += run.len;
            let next = match run.part {
                Part::Unread | Part::OutOfOrder => &mut received,
                Part::Sent | Part::Unsent => &mut sent,
            };
            if run.part == Part::OutOfOrder {
                prop_assert!(run.seq.wrapping_sub(*next) as i32 > 0);
            } else {
                prop_assert_eq!(run.seq, *next);
            }
            *next = run.seq.wrapping_add(run.len);
        }
        prop_assert_eq!(offset, state.data_len());
        prop_assert_eq!(state.run_at(offset), None);
        prop_assert_eq!(sent, state.write_seq);
    }

    #[test]
    fn random_payloads_are_survived(kind in 1..=14u8, last in any::<bool>(), payload in vec(any::<u8>(), 0..300)) {
        let kind = Type::from_number(kind).unwrap();
        let id = u64::from(!matches!(kind, Type::Hello | Type::Ping | Type::Pong));
        let last = last && kind == Type::State;
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(&payload);
        let len = seal(&mut bytes, kind, last, id, payload.len()).unwrap();
        prop_assert_eq!(len, bytes.len());
        let (header, payload) = parse(&bytes).unwrap();
        decode_and_encode(&header, payload);
    }

    #[test]
    fn mutated_records_are_survived(
        state in connection(),
        prepare in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let data = vec![7; 20.min(state.data_len() as usize)];
        let record = if prepare {
            Record::Prepare(Prepare {
                forwarder: forwarder_of(&state, [10, 0, 0, 1], Addr::v6([0x20; 16])),
                flow_id: FlowId::nth(1),
                timeout_ms: 1,
                connection: &state,
            })
        } else {
            Record::State(State { connection: Some(&state), offset: 0, total: state.data_len(), data: &data })
        };
        let mut bytes = vec![0; 1024];
        let len = record.encode(1, &mut bytes).unwrap();
        let last = matches!(record, Record::State(state) if state.is_last());
        let mut payload = bytes[HEADER_LEN..len].to_vec();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        payload.truncate(cut.index(payload.len() + 1).max(payload.len() / 2));
        // A right CRC around wrong bytes: what an attacker would send.
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(&payload);
        seal(&mut bytes, record.kind(), last, 1, payload.len()).unwrap();
        let (header, payload) = parse(&bytes).unwrap();
        decode_and_encode(&header, payload);
        parse_everything(&bytes);
    }
}

#[test]
fn a_large_state_arrives_whole() {
    let mut state = {
        use proptest::{strategy::ValueTree, test_runner::TestRunner};
        connection()
            .new_tree(&mut TestRunner::deterministic())
            .unwrap()
            .current()
    };
    let data: Vec<u8> = (0..3_000_003u32).map(|n| (n % 251) as u8).collect();
    let others = state.data_len() - state.unread_len();
    let unread = data.len() as u32 - others + u32::from(state.fin);
    state.copied_seq = state.rcv_nxt.wrapping_sub(unread);
    let (got, bytes) = transfer(state, &data, CHUNK_MAX);
    assert_eq!(got, state);
    assert!(bytes == data);
}

#[test]
fn headers_beyond_the_limit_are_refused_at_once() {
    let header = Header::new(Type::State, false, 1, MAX_PAYLOAD).unwrap();
    let mut bytes = header.emit(&[&vec![0; MAX_PAYLOAD]]).unwrap();
    assert!(Header::parse(&bytes).is_ok());
    bytes[11] = 1;
    assert!(Header::parse(&bytes).is_err());
}
