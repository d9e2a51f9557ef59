#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What must hold for every TCP connection, whatever machine serves it.

invariants.py FILE... reads captures and checks each connection in them:

* no RST, and none but one acceptable RST where one is expected (--resets); what comes to the server when both sides
  have closed, and know it, may be answered by one, as any TCP does that has forgotten the connection: what is sent
  again, and an acknowledgement that the last one has overtaken;
* no hole: a segment begins where the last one ended, or earlier;
* a byte that is sent again is the byte that was sent first;
* the acknowledgement number never goes back, and never runs ahead;
* the right edge of the window never retreats, and nothing is sent beyond it; a machine without memory for a segment takes
  back all that it has promised, which may be seen as often as machines say that this happened (--pruned);
* TSval and TSecr never go back, TSecr is never 0 after the SYN;
* one owner: no machine transmits after another has taken over from it.

All captures together have to show each packet once, where it is sent
(`tcpdump -Q out` on every machine): networks may change the order, senders must
not. Machines are told apart by their link-layer address. Where the machines'
clocks differ, one machine may capture what it sends and gets (--late): then a
packet of the server that another one has overtaken by another way shows late.
Connections may have begun before, if all of them had agreed on the same window
scale (--begun) and on timestamps, and nothing is in flight when they show first.

Prints what does not hold and a summary; status 1 if anything does not.
"""

import argparse
import collections
import dataclasses
import heapq
import ipaddress
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import pcap  # noqa: E402
from pcap import ACK, FIN, RST, SYN  # noqa: E402

# Bytes behind the last acknowledgement that are kept for comparison.
KEEP = 4 << 20
# Complaints that are shown; all are counted.
SHOWN = 40


@dataclasses.dataclass(slots=True)
class Segment:
    """A TCP segment. `length` is that of its payload; `payload` what was captured of it."""

    time: int
    machine: bytes
    source: tuple
    destination: tuple
    seq: int
    ack: int
    flags: int
    window: int
    length: int
    payload: bytes
    scale: int | None = None
    tsval: int | None = None
    tsecr: int | None = None


def options(segment, data):
    """Takes down the options that matter here; nonsense ends the list."""
    at = 0
    while at < len(data) and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        if at + 2 > len(data) or data[at + 1] < 2 or at + data[at + 1] > len(data):
            return
        kind, body = data[at], data[at + 2:at + data[at + 1]]
        if kind == 3 and len(body) == 1:
            segment.scale = min(body[0], 14)
        elif kind == 8 and len(body) == 8:
            segment.tsval, segment.tsecr = struct.unpack(">II", body)
        at += data[at + 1]


def parse(frame):
    """The TCP segment in a frame, or None."""
    ip = frame.data
    if len(ip) < 20:
        return None
    if ip[0] >> 4 == 4:
        head, protocol, addresses = (ip[0] & 15) * 4, ip[9], (ip[12:16], ip[16:20])
        # 0 where the device has yet to cut the segment: then the capture knows the length.
        total = struct.unpack(">H", ip[2:4])[0] or len(ip) + frame.cut
    elif ip[0] >> 4 == 6 and len(ip) >= 40:
        head, protocol, addresses = 40, ip[6], (ip[8:24], ip[24:40])
        total = struct.unpack(">H", ip[4:6])[0]
        total = 40 + total if total else len(ip) + frame.cut
    else:
        return None
    tcp = ip[head:total]
    if protocol != 6 or len(tcp) < 20 or len(tcp) < (tcp[12] >> 4) * 4:
        return None
    sport, dport, seq, ack, offset, flags, window = struct.unpack(">HHIIBBH", tcp[:16])
    offset = (offset >> 4) * 4
    if offset < 20:
        return None
    segment = Segment(frame.time, frame.sender, (addresses[0], sport), (addresses[1], dport), seq, ack, flags,
                      window, max(total - head - offset, 0), tcp[offset:])
    options(segment, tcp[20:offset])
    return segment


def signed(difference):
    """The nearer of the two ways round, of 32-bit numbers."""
    return ((difference + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


class Side:
    """What one side has said so far. Offsets count from its SYN, which is number 0."""

    def __init__(self):
        self.isn = None
        self.scale = self.tsval = self.tsecr = None
        self.end = 0  # behind the last byte (or SYN, FIN) that was sent
        self.fin = None  # offset of the FIN
        self.acked = None  # the highest acknowledgement, in the other side's offsets
        self.acks = collections.deque(maxlen=8)  # the acknowledgements of the last segments
        self.edge = None  # the right edge of the window, in the other side's offsets
        self.edge_of = None  # the machine that has said so
        self.promised = None  # the furthest edge that there was
        self.machines = []  # who spoke for this side, in order
        self.taken_over = None  # TSval with which the last of them began
        self.bytes, self.base = bytearray(), 1
        self.sent_again = 0
        self.reset = False

    def offset(self, number):
        """A sequence number as an offset, the one nearest to what was sent last."""
        return self.end + signed(number - self.isn - self.end)


class Connection:
    def __init__(self, checker, first):
        """With its SYN, or, if it had begun before, with any other segment."""
        by_client = first.flags & SYN or first.destination[1] == checker.port
        self.checker = checker
        self.client, self.server = (first.source, first.destination)[::1 if by_client else -1]
        self.sides = {self.client: Side(), self.server: Side()}
        self.segments = 0
        self.repeated = 0  # FINs of the client but the first, and its segments since both sides have closed and know it
        self.scaled = self.stamped = None  # agreed on in the handshake
        self.withdrawn = []  # where the window was, for want of memory
        if not first.flags & SYN:
            self.scaled = self.stamped = True
            for number, side in ((first.seq, self.sides[first.source]), (first.ack, self.sides[first.destination])):
                side.isn, side.end, side.scale = (number - 1) & 0xFFFFFFFF, 1, checker.begun

    def __str__(self):
        (address, port), (_, server_port) = self.client, self.server
        return f"{ipaddress.ip_address(address)}:{port} > {server_port}"

    def complain(self, segment, what):
        who = "client" if segment.source == self.client else "server"
        self.checker.complain(f"{self}: segment {self.segments} ({who}): {what}")

    @property
    def moves(self):
        return len(self.sides[self.server].machines) - 1

    def feed(self, segment):
        self.segments += 1
        me, other = self.sides[segment.source], self.sides[segment.destination]
        if self.late(segment, me):
            self.checker.count["late"] += 1
            return
        self.owner(segment, me)
        if me.reset:
            self.complain(segment, "sent after its RST")
        if segment.flags & RST:
            self.rst(segment, me, other)
            return
        if segment.source == self.client and (self.over() or segment.flags & FIN and me.fin is not None):
            self.repeated += 1
        if segment.flags & SYN:
            self.syn(segment, me, other)
        elif me.isn is None or other.isn is None:
            self.complain(segment, "outside of a handshake")
            return
        if segment.flags & ACK:
            self.acknowledgement(segment, me, other)
        elif not segment.flags & SYN:
            self.complain(segment, "neither SYN nor ACK")
        if self.stamped:
            self.timestamp(segment, me, other)
        if not segment.flags & SYN:
            self.sequence(segment, me, other)

    def late(self, segment, me):
        """Whether it was sent before another machine took over, and came after the first packet of that one."""
        return (self.checker.late and segment.machine in me.machines[:-1] and segment.tsval is not None
                and me.taken_over is not None and signed(segment.tsval - me.taken_over) <= 0)

    def owner(self, segment, me):
        """One machine speaks for a side until another does, and (unless connections return) never again."""
        if me.machines and me.machines[-1] == segment.machine:
            return
        if segment.machine in me.machines and not self.checker.returns:
            self.complain(segment, f"from {segment.machine.hex(':')}, which had given the connection away")
        else:
            me.machines.append(segment.machine)
            me.taken_over = segment.tsval
            self.checker.count["moves"] += segment.source == self.server and len(me.machines) > 1

    def over(self):
        """Both sides have closed, and each has said that it knows."""
        client, server = self.sides[self.client], self.sides[self.server]
        return all(side.fin is not None and (peer.acked or 0) > side.fin
                   for side, peer in ((client, server), (server, client)))

    def rst(self, segment, me, other):
        if segment.source == self.server and self.repeated and self.over():
            self.repeated -= 1
            return
        number = me.offset(segment.seq) if me.isn is not None else None
        # A RST for what has an acknowledgement takes its number from there (RFC 9293, 3.10.7.1).
        if segment.source == self.server and self.over() and not segment.flags & ACK and number in list(other.acks)[:-1]:
            other.acks.remove(number)
            return
        if segment.source == self.client or not self.checker.resets:
            self.complain(segment, "RST")
        elif number is None or number not in (me.end, other.acked):
            self.complain(segment, "RST that the client does not accept (RFC 5961)")
        me.reset = True

    def syn(self, segment, me, other):
        if me.isn is not None and me.isn != segment.seq:
            self.complain(segment, "second SYN with another sequence number")
            return
        me.isn, me.end, me.scale = segment.seq, max(me.end, 1), segment.scale
        if me.tsval is None:
            me.tsval = segment.tsval
        if segment.source == self.server and self.scaled is None:
            self.scaled = me.scale is not None and other.scale is not None
            self.stamped = me.tsval is not None and other.tsval is not None

    def acknowledgement(self, segment, me, other):
        ack = other.offset(segment.ack)
        if ack > other.end:
            self.complain(segment, f"acknowledges {ack - other.end} bytes that were never sent")
        if me.acked is not None and ack < me.acked:
            self.complain(segment, f"acknowledgement goes back by {me.acked - ack}")
        me.acked = max(me.acked or 0, ack)
        me.acks.append(ack)
        shift = me.scale if self.scaled and not segment.flags & SYN else 0
        edge = ack + (segment.window << shift)
        # What is left of a closed connection keeps the window only roughly (tcp_time_wait()).
        ended = me.fin is not None and other.fin is not None and ack > other.fin
        # Without memory for a segment, Linux takes back all that it has promised (tcp_select_window()).
        refused = not segment.window and segment.machine == me.edge_of
        if me.edge is not None and edge < me.edge and not ended:
            if refused:
                self.withdrawn.append(f"{self}: segment {self.segments}")
            else:
                self.complain(segment, f"right edge of the window retreats by {me.edge - edge}")
        me.edge, me.edge_of = edge if refused else max(me.edge or 0, edge), segment.machine
        me.promised = max(me.promised or 0, edge)

    def timestamp(self, segment, me, other):
        if segment.tsval is None:
            self.complain(segment, "no timestamp")
            return
        if me.tsval is not None and signed(segment.tsval - me.tsval) < 0:
            self.complain(segment, f"TSval goes back by {-signed(segment.tsval - me.tsval)}")
        me.tsval = segment.tsval
        # Of what a side has said before the capture nothing is known.
        if not segment.flags & ACK or other.tsval is None:
            return
        # Once in 2^32 units it may be 0.
        if segment.tsecr == 0 and abs(signed(other.tsval)) > 1 << 16:
            self.complain(segment, "TSecr is 0")
            return
        if signed(segment.tsecr - other.tsval) > 0:
            self.complain(segment, "TSecr was never sent")
        if me.tsecr is not None and signed(segment.tsecr - me.tsecr) < 0:
            self.complain(segment, f"TSecr goes back by {-signed(segment.tsecr - me.tsecr)}")
        me.tsecr = segment.tsecr

    def sequence(self, segment, me, other):
        begin = me.offset(segment.seq)
        end = begin + segment.length
        if begin > me.end:
            self.complain(segment, f"{begin - me.end} bytes are left out")
        if segment.length:
            if other.promised is not None and end > other.promised:
                self.complain(segment, f"{end - other.promised} bytes beyond the window")
            if me.fin is not None and end > me.fin:
                self.complain(segment, f"{end - me.fin} bytes behind the FIN")
            me.sent_again += max(min(end, me.end) - begin, 0)
            if not self.checker.headers:
                self.content(segment, me, begin)
        if segment.flags & FIN:
            if me.fin is not None and me.fin != end:
                self.complain(segment, f"FIN at {end}, and before at {me.fin}")
            elif me.fin is None and end < me.end:
                self.complain(segment, f"FIN {me.end - end} bytes before the end of the data")
            me.fin, end = end, end + 1
        me.end = max(me.end, end)
        self.trim(me, other)

    def content(self, segment, me, begin):
        if len(segment.payload) < segment.length:
            self.checker.cut += 1
            segment.payload += bytes(segment.length - len(segment.payload))
        at = begin - me.base
        if at < 0:
            # Older than what is kept, hence long acknowledged.
            segment.payload, at = segment.payload[-at:], 0
        known = me.bytes[at:at + len(segment.payload)]
        if known != segment.payload[:len(known)]:
            first = next(n for n, pair in enumerate(zip(known, segment.payload)) if pair[0] != pair[1])
            self.complain(segment, f"byte {me.base + at + first - 1} of the stream is another one than before")
        if at > len(me.bytes):
            me.bytes += bytes(at - len(me.bytes))
        me.bytes += segment.payload[len(known):]

    @staticmethod
    def trim(me, other):
        old = (other.acked or 0) - me.base - KEEP
        if old > KEEP:
            del me.bytes[:old]
            me.base += old

    def finish(self):
        """The capture has ended, or the ports are used again."""
        client, server = self.sides[self.client], self.sides[self.server]
        if client.reset or server.reset:
            return
        self.checker.withdrawn += self.withdrawn
        if server.isn is None:
            self.checker.complain(f"{self}: nobody answered the SYN")
        elif client.fin is not None and server.fin is not None:
            for name, side, peer in (("client", client, server), ("server", server, client)):
                if peer.acked is None or peer.acked < side.fin:
                    self.checker.complain(
                        f"{self}: {side.fin - (peer.acked or 0)} bytes of the {name} were never acknowledged")


class Checker:
    """All connections of some captures."""

    def __init__(self, resets=0, pruned=0, port=None, late=False, headers=False, returns=False, begun=None):
        self.resets, self.pruned, self.begun = resets, pruned, begun
        self.port, self.late, self.headers, self.returns = port, late, headers, returns
        self.open, self.complaints, self.withdrawn = {}, [], []
        self.count = collections.Counter()
        self.cut = 0

    def complain(self, what):
        self.complaints.append(what)

    def feed(self, segment):
        if self.port is not None and self.port not in (segment.source[1], segment.destination[1]):
            return
        self.count["segments"] += 1
        key = frozenset((segment.source, segment.destination))
        connection = self.open.get(key)
        if segment.flags & (SYN | ACK) == SYN and (connection is None or self.anew(connection, segment)):
            if connection:
                self.end(connection)
            connection = self.open[key] = Connection(self, segment)
        if connection is None and self.begun is not None and segment.flags & ACK and not segment.flags & RST:
            connection = self.open[key] = Connection(self, segment)
        if connection is None:
            self.complain(f"segment of a connection whose beginning was not captured: {segment.source[1]} > "
                          f"{segment.destination[1]}")
            return
        connection.feed(segment)

    @staticmethod
    def anew(connection, syn):
        """Whether a SYN begins another connection with the same addresses and ports."""
        sides = connection.sides
        over = all(side.fin is not None for side in sides.values()) or any(side.reset for side in sides.values())
        return over and sides[syn.source].isn != syn.seq

    def end(self, connection):
        connection.finish()
        sides = connection.sides.values()
        self.count["connections"] += 1
        self.count["moved"] += connection.moves > 0
        self.count["reset"] += connection.sides[connection.server].reset
        self.count["bytes"] += sum(max(side.end - 1, 0) for side in sides)
        self.count["again"] += sum(side.sent_again for side in sides)

    def finish(self):
        for connection in self.open.values():
            self.end(connection)
        self.open.clear()
        if not self.count["connections"]:
            self.complain("no connection in the captures")
        if self.count["reset"] != self.resets:
            self.complain(f"{self.count['reset']} connections were reset, not {self.resets}")
        if len(self.withdrawn) > self.pruned:
            self.complain(f"the window was withdrawn {len(self.withdrawn)} times, and there was too little memory "
                          f"{self.pruned} times; the last time: {self.withdrawn[-1]}")
        return self


def check(paths, **wanted):
    """A finished Checker, fed with the packets of all files in the order of their times."""
    checker = Checker(**wanted)
    for frame in heapq.merge(*map(pcap.frames, paths), key=lambda frame: frame.time):
        segment = parse(frame)
        if segment:
            checker.feed(segment)
    return checker.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="look at this port only")
    parser.add_argument("--connections", type=int, help="there are as many connections")
    parser.add_argument("--moved", type=int, help="so many of them change their owner")
    parser.add_argument("--moves", type=int, help="they change their owner so many times in all, and may return")
    parser.add_argument("--returns", action="store_true", help="they may return to an owner, however often they move")
    parser.add_argument("--resets", type=int, default=0, help="so many of them end with a RST of the server")
    parser.add_argument("--pruned", type=int, default=0, help="so often there was too little memory for a segment")
    parser.add_argument("--begun", type=int, metavar="SCALE", help="they had begun before, with this scale of both windows")
    parser.add_argument("--headers", action="store_true", help="whole packets were not captured, so do not compare bytes")
    parser.add_argument("--late", action="store_true", help="packets were captured where they arrive, by several ways")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    try:
        checker = check(args.files, resets=args.resets, pruned=args.pruned, port=args.port, late=args.late,
                        headers=args.headers, returns=args.returns or args.moves is not None, begun=args.begun)
    except (OSError, ValueError) as error:
        print(f"cannot be read: {error}")
        return 1
    for name, wanted in (("connections", args.connections), ("moved", args.moved), ("moves", args.moves)):
        if wanted is not None and checker.count[name] != wanted:
            checker.complain(f"{name}: {checker.count[name]}, not {wanted}")
    if checker.cut:
        checker.complain(f"{checker.cut} segments were not captured whole (use --headers if that is meant)")
    for complaint in checker.complaints[:SHOWN]:
        print(complaint)
    count = checker.count
    print(f"{count['connections']} connections, {count['moved']} moved, {count['reset']} reset, "
          f"{count['segments']} segments, {count['bytes']} bytes, {count['again']} sent again: "
          f"{len(checker.complaints)} complaints")
    return 1 if checker.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
