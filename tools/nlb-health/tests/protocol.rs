// SPDX-License-Identifier: MIT OR Apache-2.0

//! The examples of Documentation/health-protocol.rst are what the code writes and reads.

use nlb_health::{
    row::{AppId, AppType, Directive, Health, Identity, Row, Status},
    seal::{Keys, Opener, Sealer},
    wire::*,
};
use std::net::SocketAddr;

const DOCUMENT: &str = include_str!("../../../Documentation/health-protocol.rst");
const SECRET: &[u8] = b"0123456789abcdef";

/// The bytes of an example: of each of its lines those in front of the explanation, which stands
/// behind three spaces.
fn example(name: &str) -> Vec<u8> {
    let (_, behind) = DOCUMENT
        .split_once(&format!("\n.. example: {name}\n\n::\n\n"))
        .unwrap();
    behind
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("  "))
        .flat_map(|line| line.trim_start().split("   ").next())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn row() -> Row {
    Row {
        identity: Identity {
            app_type: AppType {
                vip: SocketAddr::from(([192, 0, 2, 10], 80)),
                transport: 6,
                protocol: "http".to_owned(),
                detail: "/shop/*".to_owned(),
            },
            physical: SocketAddr::from(([10, 0, 2, 2], 8080)),
        },
        status: Status {
            health: Health::Healthy,
            load: 25,
            capacity: 50,
            target: Directive::Active,
            current: Directive::Active,
        },
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let status = Status {
        health: Health::Failing,
        target: Directive::Draining,
        ..row().status
    };
    let operation = |app, generation, change| Operation {
        app: AppId(app),
        generation,
        change,
    };
    vec![
        (
            "heartbeat",
            Message::Heartbeat(Heartbeat {
                beat: 1,
                age_limit: 5000,
                forward: false,
                generations: vec![7, 0],
                name: Some("host1.example".to_owned()),
            }),
        ),
        (
            "row change",
            Message::RowChange(vec![
                operation(1, 5, Change::Add(row())),
                operation(3, 6, Change::Update(status)),
                operation(5, 7, Change::Delete),
            ]),
        ),
        (
            "get table snapshot",
            Message::GetSnapshot(GetSnapshot {
                host: 0x0a00_0202,
                request: 0x1122_3344_5566_7788,
                chunks: 0xffff,
            }),
        ),
        (
            "send table snapshot",
            Message::Snapshot(Snapshot {
                lbu: 9,
                request: 0x1122_3344_5566_7788,
                age_limit: 5000,
                chunks: 2,
                chunk: 1,
                generation: 7,
                parts: 1,
                part: 0,
                rows: vec![(AppId(1), row())],
            }),
        ),
        (
            "postulate table state",
            Message::Postulate(Postulate {
                postulate: 4,
                rows: vec![Postulated {
                    app: AppId(3),
                    target: Directive::Draining,
                    generation: 6,
                }],
            }),
        ),
        (
            "postulate wrong",
            Message::PostulateWrong(PostulateWrong {
                host: 0x0a00_0202,
                epoch: 0x0102_0304_0506_0708,
                postulate: 4,
                rows: vec![(AppId(3), Some(Directive::Active))],
            }),
        ),
    ]
}

const LIFE: u64 = 0x0102_0304_0506_0708;

fn in_groups() -> Vec<(&'static str, Message)> {
    let member = |host| MemberId {
        host: 0x0a00_0200 + u32::from(host),
        epoch: LIFE,
        renewal: 0,
        address: SocketAddr::from(([10, 0, 2, host], 4772)),
    };
    vec![
        (
            "membership",
            Message::Membership(Membership {
                group: 7,
                header: foca::Header {
                    src: member(2),
                    src_incarnation: 0,
                    dst: member(3),
                    message: foca::Message::Ping(5),
                },
                updates: vec![foca::Member::new(member(4), 1, foca::State::Suspect)],
            }),
        ),
        (
            "heartbeat of a member",
            Message::MemberHeartbeat(MemberHeartbeat {
                group: 7,
                host: 0x0a00_0203,
                epoch: 0x0102_0304_0506_0708,
                heartbeat: Heartbeat {
                    beat: 300,
                    age_limit: 5000,
                    forward: true,
                    generations: vec![7, 0],
                    name: None,
                },
            }),
        ),
        (
            "consolidated heartbeat",
            Message::Consolidated(Consolidated {
                number: 9,
                records: vec![Relayed {
                    host: 0x0a00_0202,
                    epoch: LIFE,
                    beat: 300,
                    age: 20,
                    age_limit: 5000,
                    generations: vec![7, 0],
                    address: SocketAddr::from(([10, 0, 2, 2], 4772)),
                }],
            }),
        ),
        (
            "heard",
            Message::Heard(Heard {
                host: 0x0a00_0203,
                epoch: LIFE,
                number: 9,
            }),
        ),
        (
            "changes of a group",
            Message::Changes(Changes {
                number: 11,
                records: vec![Relayed {
                    host: 0x0a00_0202,
                    epoch: LIFE,
                    beat: 300,
                    age: 20,
                    age_limit: 5000,
                    generations: vec![7, 0],
                    address: SocketAddr::from(([10, 0, 2, 2], 4772)),
                }],
                same: vec![
                    Same {
                        host: 0x0a00_0204,
                        base: 9,
                        more: 2,
                        age: 300,
                    },
                    Same {
                        host: 0x0a00_0205,
                        base: 10,
                        more: 1,
                        age: 0,
                    },
                ],
            }),
        ),
        (
            "heard in part",
            Message::HeardPart(HeardPart {
                heard: Heard {
                    host: 0x0a00_0203,
                    epoch: LIFE,
                    number: 11,
                },
                missing: vec![0x0a00_0205],
            }),
        ),
        (
            "passed on",
            Message::PassedOn(PassedOn {
                group: 7,
                host: 0x0a00_0202,
                epoch: LIFE,
                beat: 300,
                lbus: vec![1, 9],
            }),
        ),
    ]
}

#[test]
fn examples_of_the_document() {
    for (name, message) in messages().into_iter().chain(in_groups()) {
        let mut body = Vec::new();
        message.encode(&mut body);
        assert_eq!(hex(&example(name)), hex(&body), "{name}");
        assert_eq!(
            Message::decode(message.number(), &example(name)),
            Ok(message)
        );
    }
}

/// A whole datagram: goodbye.
#[test]
fn datagram_of_the_document() {
    let keys = Keys::new(1, SECRET).unwrap();
    let mut sealer = Sealer::new(0x0a00_0202, 0x0102_0304_0506_0708);
    let datagram = sealer.seal(&keys, &Message::Goodbye);
    assert_eq!(hex(&example("datagram")), hex(&datagram));
    assert!(Opener::new(Route::ToLbus, 1).open(&keys, &datagram).is_ok());
}

/// The names of all counters are explained.
#[test]
fn names_of_the_document() {
    use nlb_health::{seal, wire};
    let seal = [
        seal::Error::Short,
        seal::Error::Long,
        seal::Error::Magic,
        seal::Error::Version,
        seal::Error::Type,
        seal::Error::Reserved,
        seal::Error::Key,
        seal::Error::Tag,
        seal::Error::Epoch,
        seal::Error::Replay,
        seal::Error::Late,
        seal::Error::Senders,
    ];
    let body = [
        wire::Error::Short,
        wire::Error::Long,
        wire::Error::Type,
        wire::Error::Reserved,
        wire::Error::AgeLimit,
        wire::Error::Chunk,
        wire::Error::Name,
        wire::Error::Generation,
        wire::Error::Operation,
        wire::Error::Count,
        wire::Error::Address,
        wire::Error::Protocol,
        wire::Error::Detail,
        wire::Error::Health,
        wire::Error::Load,
        wire::Error::Directive,
        wire::Error::Part,
        wire::Error::Id,
        wire::Error::Order,
        wire::Error::Member,
        wire::Error::Number,
    ];
    let seal = seal.into_iter().map(seal::Error::name);
    for name in seal.chain(body.into_iter().map(wire::Error::name)) {
        assert!(DOCUMENT.contains(&format!("``{name}``")), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
