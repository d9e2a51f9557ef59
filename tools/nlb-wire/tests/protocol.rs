// SPDX-License-Identifier: GPL-2.0

//! The examples of Documentation/migration-protocol.rst are what the code writes and reads.

use nlb_wire::{
    addr::{Addr, FourTuple, Proto},
    flow_id::FlowId,
    record::{
        parse, ConnectionState, Hello, Prepare, Ranges, Reason, Record, SocketOptions, State,
        HEADER_LEN, RECORD_MAX,
    },
};

const DOCUMENT: &str = include_str!("../../../Documentation/migration-protocol.rst");

const ID: u64 = 0x0102_0304_0506_0708;

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// The connection of the examples.
const CONNECTION: ConnectionState = ConnectionState {
    tuple: FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
    snd_una: 0x1000_0001,
    snd_nxt: 0x1000_0001,
    write_seq: 0x1000_0001,
    rcv_nxt: 0x2000_0013,
    copied_seq: 0x2000_0001,
    fin: false,
    out_of_order: Ranges::new(),
    out_of_order_fin: false,
    sacks: Ranges::new(),
    rcv_wup: 0x2000_0001,
    rcv_wnd: 65152,
    rcv_mwnd_seq: 0x2000_0001 + 65152,
    snd_wl1: 0x2000_0001,
    snd_wnd: 64256,
    max_window: 64256,
    window_clamp: 65535,
    rcv_ssthresh: 65152,
    wscale_ok: true,
    snd_wscale: 7,
    rcv_wscale: 7,
    sack_ok: true,
    tstamp_ok: true,
    usec_ts: false,
    ecn_ok: false,
    ecn_flags: 0,
    mss_clamp: 1460,
    rcv_mss: 536,
    tsval_now: 0x0102_0304,
    ts_recent: 0x0506_0708,
    ts_recent_age: 0,
    srtt_us: 8000,
    mdev_us: 2000,
    mdev_max_us: 50000,
    rttvar_us: 50000,
    rtt_min_us: 1000,
    snd_cwnd: 10,
    snd_ssthresh: 0x7fff_ffff,
    reordering: 3,
    bytes_acked: 0,
    bytes_received: 18,
    options: SocketOptions {
        nodelay: true,
        ..SocketOptions::NONE
    },
};

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

fn encode(record: &Record<'_>, id: u64) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_MAX];
    let len = record.encode(id, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn prepare() -> Record<'static> {
    Record::Prepare(Prepare {
        forwarder: Addr::v4([10, 0, 2, 1]),
        flow_id: FlowId::from_ports(61000, 1).unwrap(),
        timeout_ms: 2000,
        connection: &CONNECTION,
    })
}

fn state() -> Record<'static> {
    Record::State(State {
        connection: Some(&CONNECTION),
        offset: 0,
        total: 18,
        data: REQUEST,
    })
}

#[test]
fn examples_of_the_document() {
    let hello = Record::Hello(Hello {
        min_version: 1,
        max_version: 1,
        capabilities: 0,
        boot_id: 0x1122_3344_5566_7788,
    });
    let refused = Record::Refused(Reason {
        code: 64,
        text: "no listener",
    });
    for (name, record, id, len) in [
        ("hello", hello, 0, 40),
        ("prepare", prepare(), ID, 288),
        ("refused", refused, ID, 39),
        ("commit", Record::Commit, ID, 24),
    ] {
        let bytes = example(name);
        assert_eq!(bytes.len(), len, "{name}");
        assert_eq!(encode(&record, id), bytes, "{name}");
        let (header, payload) = parse(&bytes).unwrap();
        let mut room = None;
        let decoded = Record::decode(&header, payload, &mut room);
        assert_eq!((header.id(), decoded), (id, Ok(record)), "{name}");
    }
}

/// Of STATE the document shows what it does not share with PREPARE.
#[test]
fn state_of_the_document() {
    const ROUTE: usize = 4 + 24;

    let (prepare, own) = (example("prepare"), example("state"));
    // Up to the options of the socket; then comes section 9.
    let common = &prepare[HEADER_LEN..prepare.len() - ROUTE - 8];
    let bytes = encode(&state(), ID);
    let (header, payload) = parse(&bytes).unwrap();
    assert_eq!(payload, [common, &own].concat());
    assert!(header.is_last());
    assert_eq!(header.payload_len(), 266);
    assert_eq!(bytes[20..24], [0x99, 0x64, 0x48, 0x22]);
    assert!(DOCUMENT.contains("266 bytes of payload, and 99 64 48 22 as its CRC"));
    let mut room = None;
    assert_eq!(Record::decode(&header, payload, &mut room), Ok(state()));
}
