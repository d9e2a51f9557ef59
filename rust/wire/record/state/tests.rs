// SPDX-License-Identifier: GPL-2.0

use super::{
    super::super::addr::Addr,
    super::options::CongestionControl,
    *, //
};

/// A connection of a browser in its first request, with sequence numbers about to wrap.
pub(in super::super) const EXAMPLE: ConnectionState = ConnectionState {
    tuple: FourTuple::v4([192, 0, 2, 1], 40000, [198, 51, 100, 1], 80, Proto::Tcp),
    snd_una: 0xffff_fff0,
    snd_nxt: 0xffff_fff0,
    write_seq: 0xffff_fff0,
    rcv_nxt: 100,
    copied_seq: 0xffff_ffff,
    fin: false,
    out_of_order: Ranges::new(),
    out_of_order_fin: false,
    sacks: Ranges::new(),
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
    options: SocketOptions::NONE,
};

pub(in super::super) fn ranges<const MAX: usize>(list: &[(u32, u32)]) -> Ranges<MAX> {
    let mut ranges = Ranges::new();
    for &(start, end) in list {
        ranges.push(Range { start, end }).unwrap();
    }
    ranges
}

/// [`EXAMPLE`] with bytes in all queues.
pub(in super::super) fn busy() -> ConnectionState {
    ConnectionState {
        snd_nxt: 10,
        write_seq: 30,
        out_of_order: ranges(&[(200, 300), (400, 406)]),
        out_of_order_fin: true,
        sacks: ranges(&[(400, 406), (210, 300)]),
        options: SocketOptions {
            nodelay: true,
            keepalive: true,
            keepalive_count: 3,
            keepalive_idle: 600,
            keepalive_interval: 20,
            tos: 0x10,
            user_timeout: 30_000,
            notsent_lowat: 16_384,
            max_pacing_rate: 1 << 33,
            congestion_control: CongestionControl::new(b"reno\0\0\0\0\0\0\0\0\0\0\0\0"),
        },
        ..EXAMPLE
    }
}

#[test]
fn all_bytes_have_their_place() {
    let state = busy();
    assert_eq!(state.validate(), Ok(()));
    assert_eq!(
        (
            state.unread_len(),
            state.send_len(),
            state.out_of_order_len(),
            state.data_len()
        ),
        (101, 46, 105, 252)
    );
    let run = |part, seq, len| Run { part, seq, len };
    let runs: std::vec::Vec<Run> = state.runs().collect();
    assert_eq!(
        runs,
        [
            run(Part::Unread, u32::MAX, 101),
            run(Part::Sent, 0xffff_fff0, 26),
            run(Part::Unsent, 10, 20),
            run(Part::OutOfOrder, 200, 100),
            run(Part::OutOfOrder, 400, 5),
        ]
    );
    for (offset, want) in [
        (0, Some(runs[0])),
        (100, Some(run(Part::Unread, 99, 1))),
        (101, Some(runs[1])),
        (126, Some(run(Part::Sent, 9, 1))),
        (127, Some(runs[2])),
        (147, Some(runs[3])),
        (246, Some(run(Part::OutOfOrder, 299, 1))),
        (247, Some(runs[4])),
        (251, Some(run(Part::OutOfOrder, 404, 1))),
        (252, None),
        (u32::MAX, None),
    ] {
        assert_eq!(state.run_at(offset), want, "{offset}");
    }
    let nothing = ConnectionState {
        copied_seq: 99,
        fin: true,
        ..EXAMPLE
    };
    assert_eq!((nothing.validate(), nothing.data_len()), (Ok(()), 0));
    assert_eq!(nothing.run_at(0), None);
}

#[test]
fn good_ones_pass() {
    type Change = fn(&mut ConnectionState);
    let changes: [Change; 12] = [
        |_| {},
        |s| s.copied_seq = s.rcv_nxt,
        |s| (s.copied_seq, s.fin) = (s.rcv_nxt - 1, true),
        |s| (s.snd_nxt, s.write_seq) = (7, 7),
        |s| s.write_seq = 1 << 29,
        |s| s.out_of_order = ranges(&[(101, 102), (200, 1000)]),
        |s| (s.out_of_order, s.out_of_order_fin) = (ranges(&[(101, 102)]), true),
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
    let cases: [(Change, Invalid); 48] = [
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
        (|s| s.copied_seq = s.rcv_nxt + 1, Invalid::UnreadBytes),
        (
            |s| (s.copied_seq, s.fin) = (s.rcv_nxt, true),
            Invalid::UnreadBytes,
        ),
        (|s| s.snd_nxt += 1, Invalid::SendQueue),
        (|s| s.write_seq -= 1, Invalid::SendQueue),
        (|s| s.write_seq = 1 << 30, Invalid::SendQueue),
        (|s| (s.snd_nxt, s.write_seq) = (8, 7), Invalid::SendQueue),
        (
            |s| s.out_of_order = ranges(&[(100, 101)]),
            Invalid::OutOfOrder,
        ),
        (
            |s| s.out_of_order = ranges(&[(99, 102)]),
            Invalid::OutOfOrder,
        ),
        (
            |s| s.out_of_order = ranges(&[(200, 200)]),
            Invalid::OutOfOrder,
        ),
        (
            |s| s.out_of_order = ranges(&[(200, 300), (300, 301)]),
            Invalid::OutOfOrder,
        ),
        (
            |s| s.out_of_order = ranges(&[(200, 300), (150, 151)]),
            Invalid::OutOfOrder,
        ),
        (
            |s| s.out_of_order = ranges(&[(200, (1 << 30) + 101)]),
            Invalid::OutOfOrder,
        ),
        (|s| s.out_of_order_fin = true, Invalid::OutOfOrder),
        (
            |s| (s.fin, s.out_of_order) = (true, ranges(&[(200, 300)])),
            Invalid::OutOfOrder,
        ),
        (|s| s.sacks = ranges(&[(200, 300)]), Invalid::Sacks),
        (
            |s| {
                s.out_of_order = ranges(&[(200, 300), (400, 500)]);
                s.sacks = ranges(&[(200, 500)]);
            },
            Invalid::Sacks,
        ),
        (
            |s| {
                s.out_of_order = ranges(&[(200, 300)]);
                s.sacks = ranges(&[(250, 240)]);
            },
            Invalid::Sacks,
        ),
        (
            |s| {
                s.out_of_order = ranges(&[(200, 300)]);
                (s.sacks, s.sack_ok) = (ranges(&[(200, 300)]), false);
            },
            Invalid::Sacks,
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
        (|s| s.options.keepalive_count = 128, Invalid::Options),
        (|s| s.options.keepalive_idle = 32768, Invalid::Options),
        (|s| s.options.keepalive_interval = 32768, Invalid::Options),
        (|s| s.options.tos = 0x11, Invalid::Options),
        (|s| s.options.user_timeout = 1 << 31, Invalid::Options),
    ];
    for (index, (change, invalid)) in cases.into_iter().enumerate() {
        let mut state = EXAMPLE;
        change(&mut state);
        assert_eq!(state.validate(), Err(invalid), "case {index}");
    }
}
