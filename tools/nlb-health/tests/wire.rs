// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages are what they were when they come out again; nothing else is taken.

mod common;
#[path = "wire/groups.rs"]
mod groups;
#[path = "wire/requests.rs"]
mod requests;

use nlb_health::{
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    wire::*,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::net::{IpAddr, SocketAddr};

fn directive() -> impl Strategy<Value = Directive> {
    select(&[Directive::Active, Directive::Inactive, Directive::Draining][..])
}

fn status() -> impl Strategy<Value = Status> {
    let health = select(&[Health::Unknown, Health::Healthy, Health::Failing][..]);
    (health, 0..=100u8, 0..=99u8, directive(), directive()).prop_map(
        |(health, load, capacity, target, current)| Status {
            health,
            load,
            capacity,
            target,
            current,
        },
    )
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        (1..=223u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d])),
        any::<[u8; 15]>().prop_map(|tail| {
            let mut ip = [0x20; 16];
            ip[1..].copy_from_slice(&tail);
            IpAddr::from(ip)
        }),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn row() -> impl Strategy<Value = Row> {
    (
        (address(), 1..=255u8, "[a-z0-9.+-]{0,31}", "[ -~é]{0,100}"),
        address(),
        status(),
    )
        .prop_map(
            |((vip, transport, protocol, detail), physical, status)| Row {
                identity: Identity {
                    app_type: AppType {
                        vip,
                        transport,
                        protocol,
                        detail,
                    },
                    physical,
                },
                status,
            },
        )
}

/// By rising id.
fn rising<T>(mut rows: Vec<(u32, T)>) -> Vec<(AppId, T)> {
    rows.sort_by_key(|(app, _)| *app);
    rows.dedup_by_key(|(app, _)| *app);
    rows.into_iter().map(|(app, t)| (AppId(app), t)).collect()
}

fn operation() -> impl Strategy<Value = Operation> {
    let change = prop_oneof![
        row().prop_map(Change::Add),
        status().prop_map(Change::Update),
        Just(Change::Delete),
    ];
    (any::<u32>(), 1..=u64::MAX, change).prop_map(|(app, generation, change)| Operation {
        app: AppId(app),
        generation,
        change,
    })
}

fn member_id() -> impl Strategy<Value = MemberId> {
    (1..=u32::MAX, 1..=u64::MAX, any::<u16>(), address())
        .prop_filter("a port", |(.., address)| address.port() != 0)
        .prop_map(|(host, epoch, renewal, address)| MemberId {
            host,
            epoch,
            renewal,
            address,
        })
}

fn membership() -> impl Strategy<Value = Message> {
    use foca::{Member, Message::*, State};
    let kind = (0..10u8, any::<u8>(), member_id()).prop_map(|(kind, probe_number, id)| {
        let (target, origin) = (id, id);
        match kind {
            0 => Ping(probe_number),
            1 => Ack(probe_number),
            2 => PingReq {
                target,
                probe_number,
            },
            3 => IndirectPing {
                origin,
                probe_number,
            },
            4 => IndirectAck {
                target,
                probe_number,
            },
            5 => ForwardedAck {
                origin,
                probe_number,
            },
            6 => Announce,
            7 => Feed,
            8 => Gossip,
            _ => TurnUndead,
        }
    });
    let state = select(&[State::Alive, State::Suspect, State::Down][..]);
    let update = (member_id(), any::<u16>(), state);
    let update = update.prop_map(|(id, incarnation, state)| Member::new(id, incarnation, state));
    (
        1..=u32::MAX,
        (member_id(), any::<u16>(), member_id(), kind),
        vec(update, 0..20),
    )
        .prop_map(
            |(group, (src, src_incarnation, dst, message), mut updates)| {
                if matches!(message, Announce | TurnUndead) {
                    updates.clear();
                }
                let header = foca::Header {
                    src,
                    src_incarnation,
                    dst,
                    message,
                };
                Message::Membership(Membership {
                    group,
                    header,
                    updates,
                })
            },
        )
}

/// Of all lengths that a number of variable length may have.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value >> shift)
}

/// By rising host, in which requests go to an address with a port.
fn records(least: usize) -> impl Strategy<Value = Vec<Relayed>> {
    let record = (
        (1..=u32::MAX, 1..=u64::MAX, address()),
        number().prop_map(|beat| beat.max(1)),
        0..=AGE_LIMIT_MAX,
        AGE_LIMIT_MIN..=AGE_LIMIT_MAX,
        vec(number(), 1..=16),
    );
    let record = record.prop_map(
        |((host, epoch, address), beat, age, age_limit, generations)| Relayed {
            host,
            epoch,
            beat,
            age,
            age_limit,
            generations,
            address,
        },
    );
    vec(record, least..=5).prop_map(|mut records| {
        for record in &mut records {
            let port = record.address.port().max(1);
            record.address.set_port(port);
        }
        records.sort_by_key(|record| record.host);
        records.dedup_by_key(|record| record.host);
        records
    })
}

fn consolidated() -> impl Strategy<Value = Message> {
    (1..=u64::MAX, records(1))
        .prop_map(|(number, records)| Message::Consolidated(Consolidated { number, records }))
}

fn in_group() -> impl Strategy<Value = Message> {
    let id = || 1..=u64::MAX;
    prop_oneof![
        membership(),
        consolidated(),
        groups::changes(),
        groups::heard_part(),
        (1..=u32::MAX, id(), id()).prop_map(|(host, epoch, number)| {
            Message::Heard(Heard {
                host,
                epoch,
                number,
            })
        }),
        (
            (1..=u32::MAX, 1..=u32::MAX),
            id(),
            id(),
            vec(1..=u32::MAX, 1..=LBUS_MAX)
        )
            .prop_map(|((group, host), epoch, beat, mut lbus)| {
                lbus.sort();
                lbus.dedup();
                Message::PassedOn(PassedOn {
                    group,
                    host,
                    epoch,
                    beat,
                    lbus,
                })
            }),
        (
            (1..=u32::MAX, 1..=u32::MAX),
            (id(), id()),
            any::<bool>(),
            vec(any::<u64>(), 1..=16)
        )
            .prop_map(|((group, host), (epoch, beat), forward, generations)| {
                Message::MemberHeartbeat(MemberHeartbeat {
                    group,
                    host,
                    epoch,
                    heartbeat: Heartbeat {
                        beat,
                        age_limit: 5000,
                        forward,
                        generations,
                        name: None,
                    },
                })
            }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let id = 1..=u64::MAX;
    let age_limit = AGE_LIMIT_MIN..=AGE_LIMIT_MAX;
    let name = option::of("[a-z0-9_-]{1,63}(\\.[a-z0-9-]{1,20}){0,3}");
    let generations = vec(any::<u64>(), 1..=16);
    prop_oneof![
        5 => in_group(),
        1 => (
            id.clone(),
            age_limit.clone(),
            any::<bool>(),
            generations,
            name
        )
            .prop_map(
                |(beat, age_limit, forward, generations, name)| Message::Heartbeat(Heartbeat {
                    beat,
                    age_limit,
                    forward,
                    generations,
                    name,
                })
            ),
        1 => Just(Message::Goodbye),
        1 => vec(operation(), 1..4).prop_map(Message::RowChange),
        1 => (1..=u32::MAX, id.clone(), 1..=u16::MAX).prop_map(|(host, request, chunks)| {
            Message::GetSnapshot(GetSnapshot {
                host,
                request,
                chunks,
            })
        }),
        1 => (
            1..=u32::MAX,
            id.clone(),
            age_limit,
            1..=16u8,
            id.clone(),
            vec((0..1000u32, row()), 1..4)
        )
            .prop_map(|(lbu, request, age_limit, chunks, generation, rows)| {
                let chunk = (request % u64::from(chunks)) as u8;
                let place = |(n, row)| (n * u32::from(chunks) + u32::from(chunk), row);
                Message::Snapshot(Snapshot {
                    lbu,
                    request,
                    age_limit,
                    chunks,
                    chunk,
                    generation,
                    parts: PARTS_MAX,
                    part: (request % 256) as u16,
                    rows: rising(rows.into_iter().map(place).collect()),
                })
            }),
        1 => (
            id.clone(),
            vec((any::<u32>(), (directive(), id.clone())), 0..=POSTULATE_MAX)
        )
            .prop_map(|(postulate, rows)| {
                let rows = rising(rows).into_iter();
                let rows = rows.map(|(app, (target, generation))| Postulated {
                    app,
                    target,
                    generation,
                });
                Message::Postulate(Postulate {
                    postulate,
                    rows: rows.collect(),
                })
            }),
        1 => (
            1..=u32::MAX,
            id.clone(),
            id,
            vec((any::<u32>(), option::of(directive())), 0..90)
        )
            .prop_map(|(host, epoch, postulate, rows)| Message::PostulateWrong(
                PostulateWrong {
                    host,
                    epoch,
                    postulate,
                    rows: rising(rows),
                }
            )),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in message()) {
        let mut body = Vec::new();
        message.encode(&mut body);
        prop_assert!(body.len() <= BODY_MAX);
        prop_assert_eq!(Message::decode(message.number(), &body), Ok(message.clone()));
        // Neither shorter nor longer.
        for len in 0..body.len() {
            prop_assert!(Message::decode(message.number(), &body[..len]).is_err());
        }
        body.push(0);
        prop_assert!(Message::decode(message.number(), &body).is_err());
    }

    #[test]
    fn what_is_changed_is_refused_or_something_else(
        message in message(),
        changes in vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = vec![message.number()];
        message.encode(&mut bytes);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        common::body(&bytes);
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        common::body(&bytes);
    }
}

/// One wrong field each, in a message that is right otherwise.
#[test]
fn what_is_malformed_has_a_name() {
    let beat = |at: usize, value: u8| {
        let mut body = Vec::new();
        let beat = Heartbeat {
            beat: 1,
            age_limit: 5000,
            forward: false,
            generations: vec![3],
            name: Some("a.b".to_owned()),
        };
        Message::Heartbeat(beat).encode(&mut body);
        body[at] = value;
        Message::decode(1, &body)
    };
    assert!(beat(0, 0).is_ok());
    assert_eq!(beat(7, 0), Err(Error::Id));
    assert_eq!(beat(8, 1), Err(Error::AgeLimit));
    assert_eq!(beat(12, 2), Err(Error::Reserved));
    assert_eq!(beat(13, 0), Err(Error::Chunk));
    assert_eq!(beat(13, 17), Err(Error::Chunk));
    assert_eq!(beat(14, 2), Err(Error::Name));
    assert_eq!(beat(14, 4), Err(Error::Short));
    assert_eq!(beat(14, 0), Err(Error::Long));
    assert_eq!(beat(15, 1), Err(Error::Reserved));
    assert_eq!(beat(24, b'.'), Err(Error::Name));
    assert_eq!(Message::decode(15, &[]), Err(Error::Type));
    assert_eq!(Message::decode(3, &[0, 0]), Err(Error::Count));
    assert_eq!(Message::decode(3, &[0, 92]), Err(Error::Count));

    let add = |at: usize, value: u8| {
        let mut body = Vec::new();
        let row = Row {
            identity: Identity {
                app_type: AppType {
                    vip: SocketAddr::from(([192, 0, 2, 10], 80)),
                    transport: 6,
                    protocol: "http".to_owned(),
                    detail: "/a".to_owned(),
                },
                physical: SocketAddr::from(([10, 0, 2, 2], 80)),
            },
            status: Status {
                health: Health::Healthy,
                load: 100,
                capacity: 99,
                target: Directive::Active,
                current: Directive::Active,
            },
        };
        let operation = Operation {
            app: AppId(1),
            generation: 1,
            change: Change::Add(row),
        };
        Message::RowChange(vec![operation]).encode(&mut body);
        body[at] = value;
        Message::decode(3, &body)
    };
    assert!(add(0, 0).is_ok());
    assert_eq!(add(2, 4), Err(Error::Operation));
    assert_eq!(add(14, 0), Err(Error::Generation));
    assert_eq!(add(15, 3), Err(Error::Health));
    assert_eq!(add(16, 101), Err(Error::Load));
    assert_eq!(add(17, 100), Err(Error::Load));
    assert_eq!(add(18, 0), Err(Error::Directive));
    assert_eq!(add(19, 4), Err(Error::Directive));
    assert_eq!(add(20, 0), Err(Error::Protocol));
    assert_eq!(add(23, 5), Err(Error::Address));
    assert_eq!(add(24, 224), Err(Error::Address));
    assert_eq!(add(37, b'H'), Err(Error::Protocol));
    assert_eq!(add(41, 0xff), Err(Error::Detail));
    assert_eq!(add(41, 7), Err(Error::Detail));
}

/// The same of the messages in groups.
#[test]
fn what_is_malformed_in_groups_has_a_name() {
    let address = SocketAddr::from(([10, 0, 2, 2], 4772));
    let id = |host| MemberId {
        host,
        epoch: 1,
        renewal: 0,
        address,
    };
    let changed = |message: &Message, at: usize, value: u8| {
        let mut body = Vec::new();
        message.encode(&mut body);
        body[at] = value;
        Message::decode(message.number(), &body)
    };
    let membership = Message::Membership(Membership {
        group: 1,
        header: foca::Header {
            src: id(1),
            src_incarnation: 0,
            dst: id(2),
            message: foca::Message::Gossip,
        },
        updates: vec![foca::Member::alive(id(3))],
    });
    // Group 4, source 21 and 2, destination 21, kind 1, count 2, member 21 and 2, state 1.
    assert!(changed(&membership, 0, 1).is_ok());
    assert_eq!(changed(&membership, 3, 0), Err(Error::Id));
    assert_eq!(changed(&membership, 7, 0), Err(Error::Id));
    assert_eq!(changed(&membership, 18, 5), Err(Error::Address));
    assert_eq!(changed(&membership, 30, 0), Err(Error::Id));
    assert_eq!(changed(&membership, 48, 11), Err(Error::Member));
    // An announcement has nothing more.
    assert_eq!(changed(&membership, 48, 7), Err(Error::Long));
    assert_eq!(changed(&membership, 50, 2), Err(Error::Short));
    assert_eq!(changed(&membership, 49, 1), Err(Error::Count));
    assert_eq!(changed(&membership, 54, 0), Err(Error::Id));
    assert_eq!(changed(&membership, 74, 4), Err(Error::Member));
    let no_port = MemberId {
        address: SocketAddr::from(([10, 0, 2, 2], 256)),
        ..id(1)
    };
    let header = foca::Header {
        src: no_port,
        src_incarnation: 0,
        dst: id(2),
        message: foca::Message::Announce,
    };
    let announce = Message::Membership(Membership {
        group: 1,
        header,
        updates: vec![],
    });
    assert_eq!(changed(&announce, 23, 0), Err(Error::Address));
    // Who is asked for by his address has no id.
    assert!(changed(&announce, 30, 0).is_ok());

    let record = |host| Relayed {
        host,
        epoch: 1,
        beat: 300,
        age: 5,
        age_limit: 127,
        generations: vec![3],
        address,
    };
    let consolidated = Message::Consolidated(Consolidated {
        number: 1,
        records: vec![record(1), record(2)],
    });
    // Number 8, count 2; host 4, life 8, address 7, chunks 1, beat 2, age 1, limit 1, generation 1.
    assert!(changed(&consolidated, 0, 1).is_ok());
    assert_eq!(changed(&consolidated, 7, 0), Err(Error::Id));
    assert_eq!(changed(&consolidated, 9, 0), Err(Error::Count));
    assert_eq!(changed(&consolidated, 9, 1), Err(Error::Long));
    assert_eq!(changed(&consolidated, 13, 0), Err(Error::Id));
    assert_eq!(changed(&consolidated, 21, 0), Err(Error::Id));
    assert_eq!(changed(&consolidated, 22, 7), Err(Error::Address));
    let no_port = Relayed {
        address: SocketAddr::from(([10, 0, 2, 2], 256)),
        ..record(1)
    };
    let no_port = Message::Consolidated(Consolidated {
        number: 1,
        records: vec![no_port],
    });
    assert_eq!(changed(&no_port, 27, 0), Err(Error::Address));
    assert_eq!(changed(&consolidated, 29, 0), Err(Error::Chunk));
    assert_eq!(changed(&consolidated, 31, 0), Err(Error::Number));
    assert_eq!(changed(&consolidated, 33, 99), Err(Error::AgeLimit));
    assert_eq!(changed(&consolidated, 13, 2), Err(Error::Order));
    assert_eq!(
        Message::decode(10, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
        Err(Error::Count)
    );
    let mut body = Vec::new();
    consolidated.encode(&mut body);
    // The last generation is longer than any number.
    body.pop();
    body.extend([0xff; 9]);
    for (last, result) in [
        (1, Ok(())),
        (2, Err(Error::Number)),
        (0x81, Err(Error::Number)),
    ] {
        body.push(last);
        assert_eq!(Message::decode(10, &body).map(drop), result);
        body.pop();
    }

    let passed = Message::PassedOn(PassedOn {
        group: 1,
        host: 1,
        epoch: 1,
        beat: 1,
        lbus: vec![2, 3],
    });
    assert!(changed(&passed, 0, 1).is_ok());
    assert_eq!(changed(&passed, 3, 0), Err(Error::Id));
    assert_eq!(changed(&passed, 7, 0), Err(Error::Id));
    assert_eq!(changed(&passed, 25, 0), Err(Error::Count));
    assert_eq!(changed(&passed, 25, 65), Err(Error::Count));
    assert_eq!(changed(&passed, 29, 0), Err(Error::Id));
    assert_eq!(changed(&passed, 33, 2), Err(Error::Order));
    let heard = Message::Heard(Heard {
        host: 1,
        epoch: 1,
        number: 1,
    });
    for at in [3, 11, 19] {
        assert_eq!(changed(&heard, at, 0), Err(Error::Id));
    }
    let heartbeat = Message::MemberHeartbeat(MemberHeartbeat {
        group: 1,
        host: 1,
        epoch: 1,
        heartbeat: Heartbeat {
            beat: 1,
            age_limit: 5000,
            forward: false,
            generations: vec![3],
            name: None,
        },
    });
    for at in [3, 7, 15, 23] {
        assert_eq!(changed(&heartbeat, at, 0), Err(Error::Id));
    }
}
