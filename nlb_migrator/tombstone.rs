// SPDX-License-Identifier: GPL-2.0

//! Tombstones: what stands where a connection had its socket.
//!
//! A packet that comes late would find no socket, and the stack would answer with a RST, every
//! time. If the connection lives elsewhere, that RST would end it; if it was reset, one RST is
//! enough. So such packets end here, for a while.
//!
//! A connection is reset when nobody can tell whether it lives at the target. Then nobody here
//! knows either what the target has sent, and so which sequence number a RST must have for the
//! client to take it (RFC 5961 section 3.2). The client is asked, with a segment that it has to
//! answer with an acknowledgment; or it says so unasked, by any segment of its own. Its
//! acknowledgment number is the sequence number of the RST.

use crate::stats::{
    Counter,
    Stats, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};
use nlb::{
    net::{
        netfilter::Verdict,
        skbuff::{
            DropReason,
            SkBuff, //
        },
        tcp,
        Net, //
    },
    sync::{
        family_table::FamilyTable,
        lock::SpinLockBh,
        rhashtable::{
            InsertError,
            Position as Place,
            Scan, //
        }, //
    },
    time,
    wire::{
        addr::FourTuple,
        parse::Parsed,
        record::ConnectionState,
        seq::SeqNum,
        tcp::{
            Flags,
            Packet, //
        }, //
    }, //
};

/// Tombstones of a namespace.
const MAX: u32 = 65_536;
/// How long packets of a connection that lives elsewhere are dropped. The route is plumbed and seen
/// by every CPU before the socket goes, so what is late was taken aside behind the forwarder, for
/// instance to a queue of user space (NFQUEUE).
const LEFT_MS: u32 = 5_000;
/// How long a client that was reset may go on sending.
const RESET_MS: u32 = 60_000;
/// Time between two questions to the client, and between two RSTs.
const AGAIN_MS: u32 = 1_000;
/// How often the client is asked.
const PROBES: u8 = 3;
/// The longest TCP header, options included.
const TCP_HEADER_MAX: usize = 60;
/// A segment that lies further ahead than this is none of this connection: the largest window there
/// can be (RFC 7323 section 2.3), which is also more than a target can have taken in the time.
const AHEAD: u32 = 1 << 30;

/// Where a connection stood when its socket was closed.
#[derive(Clone, Copy)]
struct Stand {
    snd_una: SeqNum,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    /// Value and echo of the timestamps option, if the connection has it.
    timestamps: Option<(u32, u32)>,
}

impl Stand {
    /// For a connection that is not to be reset.
    const NONE: Self = Self {
        snd_una: SeqNum(0),
        snd_nxt: SeqNum(0),
        rcv_nxt: SeqNum(0),
        timestamps: None,
    };
}

impl From<&ConnectionState> for Stand {
    fn from(state: &ConnectionState) -> Self {
        Self {
            snd_una: SeqNum(state.snd_una),
            snd_nxt: SeqNum(state.snd_nxt),
            rcv_nxt: SeqNum(state.rcv_nxt),
            timestamps: state
                .tstamp_ok
                .then_some((state.tsval_now, state.ts_recent)),
        }
    }
}

/// A segment of the client.
#[derive(Clone, Copy)]
struct Segment {
    seq: SeqNum,
    ack: SeqNum,
    flags: Flags,
    /// Sequence space that it takes.
    len: u32,
}

/// How far a reset has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none: the connection lives elsewhere.
    Left,
    /// The client was asked so many times, at this time for the last one.
    Asked(u8, u64),
    /// A RST with this sequence number was sent at this time.
    Told(SeqNum, u64),
    /// The client has no such connection any more, it says.
    Gone,
    /// The client has opened a new connection from the same port.
    Over,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pass,
    Drop,
    Reset { seq: SeqNum, ack: SeqNum },
}

impl Stage {
    /// Judges a segment of the client at `now` (jiffies).
    fn judge(&mut self, stand: &Stand, segment: &Segment, now: u64) -> Answer {
        if segment.flags.is_initial_syn() {
            *self = Self::Over;
        }
        match *self {
            Self::Over => return Answer::Pass,
            Self::Left | Self::Gone => return Answer::Drop,
            Self::Asked(..) | Self::Told(..) => {}
        }
        let end = segment.seq.add(segment.len);
        // One below is what a keepalive probe has.
        if !end.between(stand.rcv_nxt.sub(1), stand.rcv_nxt.add(AHEAD)) {
            return Answer::Drop;
        }
        if segment.flags.contains(Flags::RST) {
            *self = Self::Gone;
            return Answer::Drop;
        }
        if !segment.flags.contains(Flags::ACK) || segment.ack.before(stand.snd_una) {
            return Answer::Drop;
        }
        let seq = match *self {
            // The client was further than it had said when the RST was on its way.
            Self::Told(seq, _) if segment.ack.after(seq) => segment.ack,
            // The RST was lost, perhaps. Everything else was sent before it arrived.
            Self::Told(_, at) if now.wrapping_sub(at) < time::ms_to_jiffies(AGAIN_MS) => {
                return Answer::Drop;
            }
            Self::Told(seq, _) => seq,
            _ => segment.ack,
        };
        *self = Self::Told(seq, now);
        Answer::Reset { seq, ack: end }
    }

    /// Whether the client is to be asked again, or to be told without having answered.
    fn tick(&mut self, stand: &Stand, now: u64) -> Option<Tick> {
        let Self::Asked(times, at) = *self else {
            return None;
        };
        if now.wrapping_sub(at) < time::ms_to_jiffies(AGAIN_MS) {
            return None;
        }
        if times < PROBES {
            *self = Self::Asked(times.saturating_add(1), now);
            return Some(Tick::Ask);
        }
        // Something on the way lets no such segment pass. If all that was in flight has arrived and
        // the target has sent nothing, this is the right number.
        *self = Self::Told(stand.snd_nxt, now);
        Some(Tick::Tell)
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tick {
    Ask,
    Tell,
}

/// The tombstone of one connection.
#[pin_data]
struct Tombstone {
    tuple: FourTuple,
    stand: Stand,
    /// Jiffies when it goes.
    until: u64,
    #[pin]
    stage: SpinLockBh<Stage>,
}

impl Tombstone {
    fn is_over(&self, now: u64) -> bool {
        now > self.until || *self.stage.lock() == Stage::Over
    }

    fn ask(&self, net: &Net, stats: &Stats) {
        stats.inc(Counter::ResetProbes);
        let Stand {
            snd_una, rcv_nxt, ..
        } = self.stand;
        // Without a route the client does not hear us whatever we do.
        let _ = tcp::send_probe(
            net,
            &self.tuple,
            snd_una.sub(1),
            rcv_nxt,
            self.stand.timestamps,
        );
    }

    fn tell(&self, net: &Net, stats: &Stats, seq: SeqNum, ack: SeqNum) {
        stats.inc(Counter::ResetsSent);
        let _ = tcp::send_reset(net, &self.tuple, seq, ack);
    }
}

/// The tombstones of a namespace.
#[pin_data]
pub(crate) struct Tombstones {
    #[pin]
    table: FamilyTable<FourTuple, Arc<Tombstone>>,
}

/// A client that is being told that its connection is over.
pub(crate) struct Reset(Arc<Tombstone>);

impl Reset {
    /// Asks the client which RST it will take, unless it has said so. From now on its packets must
    /// come here.
    pub(crate) fn ask(&self, net: &Net, stats: &Stats) {
        if matches!(*self.0.stage.lock(), Stage::Asked(..)) {
            self.0.ask(net, stats);
        }
    }
}

impl Tombstones {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table <- FamilyTable::new(MAX),
        })
    }

    fn add(
        &self,
        tuple: FourTuple,
        stand: Stand,
        stage: Stage,
        life_ms: u32,
        stats: &Stats,
    ) -> Result<Arc<Tombstone>> {
        let now = time::jiffies();
        let stone = Arc::pin_init(
            pin_init!(Tombstone {
                tuple,
                stand,
                until: now.saturating_add(time::ms_to_jiffies(life_ms)),
                stage <- nlb::new_spinlock_bh!(stage, "nlb_migrator::Tombstone"),
            }),
            GFP_KERNEL,
        )?;
        let insert = || self.table.insert(&tuple, stone.clone(), GFP_KERNEL);
        let result = match insert() {
            Err(InsertError::Exists) => {
                self.table.remove(&tuple);
                insert()
            }
            result => result,
        };
        result.inspect_err(|_| stats.inc(Counter::TombstonesFull))?;
        Ok(stone)
    }

    /// The connection lives elsewhere: its late packets are dropped. To be called before the socket
    /// closes; without memory the stack answers them as it likes.
    pub(crate) fn left(&self, tuple: &FourTuple, stats: &Stats) {
        let _ = self.add(*tuple, Stand::NONE, Stage::Left, LEFT_MS, stats);
    }

    /// The connection was ended here without a packet, and another machine resets it.
    pub(crate) fn killed(&self, tuple: &FourTuple, stats: &Stats) {
        let _ = self.add(*tuple, Stand::NONE, Stage::Left, RESET_MS, stats);
    }

    /// The connection is to be reset. To be called before the socket closes, without a packet.
    ///
    /// Errors: `ENOSPC`, `ENOMEM`; then the socket has to send the RST itself.
    pub(crate) fn reset(&self, state: &ConnectionState, stats: &Stats) -> Result<Reset> {
        let stage = Stage::Asked(1, time::jiffies());
        let stone = self.add(state.tuple, state.into(), stage, RESET_MS, stats)?;
        Ok(Reset(stone))
    }

    /// The connection comes here (again): its packets pass.
    pub(crate) fn end(&self, tuple: &FourTuple) {
        self.table.remove(tuple);
    }

    /// Asks again where no answer came, and forgets what is old. Once a second.
    pub(crate) fn tick(&self, net: &Net, stats: &Stats) {
        let mut place = Place::default();
        loop {
            let guard = rcu::read_lock();
            let now = time::jiffies();
            let done = self.table.scan(&guard, &mut place, |stone| {
                if stone.is_over(now) {
                    return Scan::Remove;
                }
                let due = stone.stage.lock().tick(&stone.stand, now);
                match due {
                    None => {}
                    Some(Tick::Ask) => stone.ask(net, stats),
                    Some(Tick::Tell) => {
                        stone.tell(net, stats, stone.stand.snd_nxt, stone.stand.rcv_nxt);
                    }
                }
                Scan::Continue
            });
            if done {
                return;
            }
        }
    }

    /// Whether there are none, the usual case on a host.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of tombstones.
    pub(crate) fn len(&self) -> u64 {
        self.table.len().into()
    }

    /// Decides about a packet that has come to the sockets; `parsed` are its headers.
    pub(crate) fn take(
        &self,
        net: &Net,
        guard: &rcu::Guard,
        stats: &Stats,
        mut skb: SkBuff,
        parsed: &Parsed,
    ) -> Verdict {
        let Some(stone) = self.table.get(guard, &parsed.tuple) else {
            return Verdict::Accept(skb);
        };
        let now = time::jiffies();
        if now > stone.until {
            return Verdict::Accept(skb);
        }
        let headers = parsed.l4_offset.saturating_add(TCP_HEADER_MAX);
        // Without memory `segment` does not find all of it.
        let _ = u32::try_from(headers.min(parsed.total_len)).map(|len| skb.may_pull(len));
        let answer = match segment(&skb, parsed) {
            Some(segment) => stone.stage.lock().judge(&stone.stand, &segment, now),
            None => Answer::Drop,
        };
        match answer {
            Answer::Pass => return Verdict::Accept(skb),
            Answer::Drop => {}
            Answer::Reset { seq, ack } => stone.tell(net, stats, seq, ack),
        }
        stats.inc(Counter::DropTombstone);
        Verdict::Drop(skb, DropReason::NETFILTER_DROP)
    }
}

fn segment(skb: &SkBuff, parsed: &Parsed) -> Option<Segment> {
    let header = skb.data().get(parsed.l4_offset..)?;
    let header = Packet::new_checked(header).ok()?;
    let data = parsed
        .total_len
        .checked_sub(parsed.l4_offset)?
        .checked_sub(header.header_len())?;
    let flags = header.flags();
    // SYN and FIN take a number each.
    let marks = u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
    Some(Segment {
        seq: header.seq(),
        ack: header.ack(),
        flags,
        len: u32::try_from(data).ok()?.wrapping_add(marks),
    })
}

#[kunit_tests(nlb_migrator_tombstone)]
mod tests {
    use super::*;

    const SECOND: u64 = time::HZ;

    /// The numbers wrap around in the middle of it.
    fn stand() -> Stand {
        Stand {
            snd_una: SeqNum(0xffff_fff0),
            snd_nxt: SeqNum(0xffff_fff8),
            rcv_nxt: SeqNum(0xffff_ff00),
            timestamps: None,
        }
    }

    /// A segment whose numbers lie so far beyond [`stand`].
    fn from_client(seq: u32, ack: u32, flags: Flags, len: u32) -> Segment {
        Segment {
            seq: stand().rcv_nxt.add(seq),
            ack: stand().snd_una.add(ack),
            flags,
            len,
        }
    }

    fn reset(seq: u32, ack: u32) -> Answer {
        Answer::Reset {
            seq: stand().snd_una.add(seq),
            ack: stand().rcv_nxt.add(ack),
        }
    }

    #[test]
    fn the_answer_gives_the_number_of_the_only_rst() {
        let mut stage = Stage::Asked(1, 0);
        let answer = from_client(0, 100, Flags::ACK, 0);
        assert_eq!(stage.judge(&stand(), &answer, 1), reset(100, 0));
        // What was sent before the RST arrived is late, data or not.
        for len in [0, 1000] {
            let late = from_client(0, 100, Flags::ACK, len);
            assert_eq!(stage.judge(&stand(), &late, 2), Answer::Drop);
        }
        assert_eq!(stage.tick(&stand(), 10 * SECOND), None);
    }

    #[test]
    fn a_lost_rst_is_sent_again_once_a_second() {
        let mut stage = Stage::Asked(1, 0);
        let data = from_client(0, 100, Flags::ACK | Flags::PSH, 10);
        assert_eq!(stage.judge(&stand(), &data, 0), reset(100, 10));
        let mut sent = 0;
        for tenth in 1..=50 {
            if stage.judge(&stand(), &data, tenth * SECOND / 10) != Answer::Drop {
                sent += 1;
            }
        }
        assert_eq!(sent, 5);
    }

    #[test]
    fn a_client_that_was_further_is_told_at_once() {
        let mut stage = Stage::Told(stand().snd_nxt, 0);
        let ahead = from_client(0, 5000, Flags::ACK, 0);
        assert_eq!(stage.judge(&stand(), &ahead, 1), reset(5000, 0));
        let behind = from_client(0, 4000, Flags::ACK, 0);
        assert_eq!(stage.judge(&stand(), &behind, 2), Answer::Drop);
        // Not even later is there a way back.
        assert_eq!(stage.judge(&stand(), &behind, 2 * SECOND), reset(5000, 0));
    }

    #[test]
    fn segments_of_another_time_are_dropped() {
        for segment in [
            // Acknowledges less than was acknowledged long ago.
            from_client(0, 0u32.wrapping_sub(1), Flags::ACK, 0),
            // Outside of any window.
            from_client(0u32.wrapping_sub(100), 0, Flags::ACK, 50),
            from_client(AHEAD + 1, 0, Flags::ACK, 0),
            // No acknowledgment number.
            from_client(0, 0, Flags::PSH, 10),
        ] {
            let mut stage = Stage::Asked(1, 0);
            assert_eq!(stage.judge(&stand(), &segment, 1), Answer::Drop);
            assert_eq!(stage, Stage::Asked(1, 0));
        }
    }

    #[test]
    fn a_silent_client_is_asked_again_and_told_in_the_end() {
        let mut stage = Stage::Asked(1, 0);
        let mut due = KVec::new();
        for now in 0..20 * SECOND {
            if let Some(tick) = stage.tick(&stand(), now) {
                due.push(tick, GFP_KERNEL).unwrap_or(());
            }
        }
        assert!(matches!(due.as_slice(), [Tick::Ask, Tick::Ask, Tick::Tell]));
    }

    #[test]
    fn a_client_without_the_connection_is_left_alone() {
        let mut stage = Stage::Asked(1, 0);
        // Its window allows it anything that is not before what we have.
        let gone = from_client(0, 0, Flags::RST, 0);
        assert_eq!(stage.judge(&stand(), &gone, 1), Answer::Drop);
        assert_eq!(stage.tick(&stand(), 10 * SECOND), None);
        let late = from_client(0, 100, Flags::ACK, 10);
        assert_eq!(stage.judge(&stand(), &late, 10 * SECOND), Answer::Drop);
    }

    #[test]
    fn a_new_connection_passes() {
        for before in [Stage::Left, Stage::Asked(1, 0), Stage::Gone] {
            let mut stage = before;
            let syn = from_client(12345, 0, Flags::SYN, 1);
            assert_eq!(stage.judge(&stand(), &syn, 1), Answer::Pass);
            let ack = from_client(12346, 0, Flags::ACK, 0);
            assert_eq!(stage.judge(&stand(), &ack, 1), Answer::Pass);
        }
    }

    #[test]
    fn a_connection_that_left_is_never_reset() {
        let mut stage = Stage::Left;
        for flags in [Flags::ACK, Flags::FIN | Flags::ACK, Flags::RST] {
            let segment = from_client(0, 0, flags, 0);
            assert_eq!(stage.judge(&stand(), &segment, 100 * SECOND), Answer::Drop);
        }
        assert_eq!(stage.tick(&stand(), 100 * SECOND), None);
    }
}
