#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The checker of captures complains about each broken one, and about no good one.

Needs no kernel: python3 selftests/lib/test_invariants.py
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

top = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(top))
import genl  # noqa: E402
import invariants  # noqa: E402

FIN, SYN, RST, ACK = 1, 2, 4, 16
C, LBU, HOST = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\2\0\0\0\0\3"
CLIENT, VIP = ("10.0.1.2", 40000), ("192.0.2.10", 80)
# Both wrap within the connection.
ISN = {C: 0xFFFFFF00, LBU: 0x7FFFFFFF, HOST: 0x7FFFFFFF}
SCALE = 2
TSVAL = {C: 500000, LBU: 0xFFFFFFFE, HOST: 0xFFFFFFFE}


def packet(sender, at, seq, ack, flags=ACK, data=b"", window=1000, tsval=0, tsecr=0, stamp=True, ports=None):
    """A frame. seq and ack count from the SYNs, tsval and tsecr (None: 0) from the first ones."""
    own, other = (C, LBU) if sender == C else (LBU, C)
    source, destination = (CLIENT, VIP) if sender == C else (VIP, CLIENT)
    option = b""
    if flags & SYN:
        option += bytes([3, 3, SCALE, 1])
    if stamp:
        absent = tsecr is None or flags & (SYN | ACK) == SYN
        echo = 0 if absent else (TSVAL[other] + tsecr) & 0xFFFFFFFF
        option += b"\1\1\10\12" + struct.pack(">II", (TSVAL[own] + tsval) & 0xFFFFFFFF, echo)
    tcp = struct.pack(">HHIIBBHHH", ports or source[1], destination[1], (ISN[own] + seq) & 0xFFFFFFFF,
                      (ISN[other] + ack) & 0xFFFFFFFF if flags & ACK else 0, (20 + len(option)) // 4 << 4, flags,
                      window, 0, 0) + option + data
    address = [bytes(map(int, name.split("."))) for name, _ in (source, destination)]
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, *address)
    return at, b"\2\0\0\0\0\4" + sender + b"\x08\0" + ip + tcp


def good():
    """A connection that moves from the LBU to a host; what is sent again is in it, too."""
    return [
        packet(C, 1, 0, 0, SYN, window=1000),
        packet(LBU, 2, 0, 1, SYN | ACK, window=1000),
        packet(C, 3, 1, 1),
        packet(C, 4, 1, 1, data=b"GET /", tsval=1),
        packet(LBU, 5, 1, 6, tsecr=1, window=999),
        packet(C, 6, 6, 1, data=b"x" * 400, tsval=2),
        packet(C, 7, 406, 1, data=b"y" * 400, tsval=2),
        packet(HOST, 8, 1, 806, data=b"answer", tsval=10, tsecr=2),
        packet(C, 9, 6, 1, data=b"x" * 400, tsval=3),
        packet(C, 10, 806, 7, tsval=4, tsecr=10),
        packet(HOST, 11, 1, 806, data=b"answ", tsval=11, tsecr=2),
        packet(C, 12, 806, 7, FIN | ACK, tsval=5, tsecr=11),
        packet(HOST, 13, 7, 807, FIN | ACK, tsval=12, tsecr=5),
        packet(C, 14, 807, 8, tsval=6, tsecr=12),
    ]


def refused():
    """The LBU has no memory for a segment, and then some."""
    return added(packet(LBU, 7.4, 1, 406, tsval=1, tsecr=2, window=0), packet(LBU, 7.5, 1, 406, tsval=2, tsecr=2, window=100))


def changed(at, with_):
    """The good capture with the packet of time `at` replaced."""
    return [with_ if frame[0] == at else frame for frame in good()]


def without(*times):
    return [frame for frame in good() if frame[0] not in times]


def added(*more):
    return sorted(good() + list(more), key=lambda frame: frame[0])


def write(path, packets, magic=0xA1B23C4D, snap=0):
    """A capture with nanoseconds."""
    with open(path, "wb") as capture:
        capture.write(struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 65536, 1))
        for at, data in packets:
            kept = data[:snap] if snap else data
            capture.write(struct.pack("<IIII", 0, int(at * 1000), len(kept), len(data)) + kept)


# Name, packets, part of the complaint.
BROKEN = [
    ("a RST", added(packet(HOST, 14.5, 8, 807, RST | ACK)), "RST"),
    ("a RST of the client", changed(14, packet(C, 14, 807, 8, RST | ACK)), "RST"),
    ("a byte that changes when it is sent again", changed(9, packet(C, 9, 6, 1, data=b"x" * 399 + b"z", tsval=3)),
     "byte 404 of the stream is another"),
    ("another machine that sends other bytes", changed(11, packet(HOST, 11, 1, 806, data=b"anwe", tsval=11, tsecr=2)),
     "byte 2 of the stream is another"),
    ("a segment that is missing", without(6, 9), "400 bytes are left out"),
    ("a host that goes on too far", changed(8, packet(HOST, 8, 3, 806, data=b"swer", tsval=10, tsecr=2)),
     "2 bytes are left out"),
    ("a stream that ends early", changed(12, packet(C, 12, 800, 7, FIN | ACK, tsval=5, tsecr=11)),
     "FIN 6 bytes before the end"),
    ("bytes behind the FIN", added(packet(C, 12.5, 807, 7, data=b"more", tsval=5, tsecr=11)), "bytes behind the FIN"),
    ("an acknowledgement that goes back", changed(11, packet(HOST, 11, 1, 805, data=b"answ", window=1001, tsval=11,
                                                             tsecr=2)), "acknowledgement goes back by 1"),
    ("an acknowledgement of nothing", changed(8, packet(HOST, 8, 1, 807, data=b"answer", tsval=10, tsecr=2)),
     "acknowledges 1 bytes that were never sent"),
    ("bytes that are never acknowledged", changed(12, packet(C, 12, 806, 7, FIN | ACK, data=b"tail", tsval=5, tsecr=11)),
     "3 bytes of the client were never acknowledged"),
    ("a window that shrinks", changed(11, packet(HOST, 11, 1, 806, data=b"answ", window=999, tsval=11, tsecr=2)),
     "window retreats by 4"),
    ("a host that promises less than the LBU", changed(8, packet(HOST, 8, 1, 806, data=b"answer", window=700, tsval=10,
                                                                 tsecr=2)), "window retreats by 396"),
    ("a host that takes back what the LBU has promised", changed(8, packet(HOST, 8, 1, 806, data=b"answer", window=0,
                                                                           tsval=10, tsecr=2)), "window retreats by"),
    ("bytes beyond the window", added(packet(C, 7.5, 806, 1, data=b"w" * 3200, tsval=2)), "bytes beyond the window"),
    ("a TSval that goes back", changed(11, packet(HOST, 11, 1, 806, data=b"answ", tsval=9, tsecr=2)),
     "TSval goes back by 1"),
    ("a host with a clock of its own", changed(8, packet(HOST, 8, 1, 806, data=b"answer", tsval=-4000, tsecr=2)),
     "TSval goes back by 4000"),
    ("a TSecr of 0", changed(8, packet(HOST, 8, 1, 806, data=b"answer", tsval=10, tsecr=None)), "TSecr is 0"),
    ("a TSecr that goes back", changed(11, packet(HOST, 11, 1, 806, data=b"answ", tsval=11, tsecr=1)),
     "TSecr goes back by 1"),
    ("a TSecr that was never sent", changed(8, packet(HOST, 8, 1, 806, data=b"answer", tsval=10, tsecr=7)),
     "TSecr was never sent"),
    ("a segment without a timestamp", changed(8, packet(HOST, 8, 1, 806, data=b"answer", stamp=False)), "no timestamp"),
    ("an LBU that goes on", added(packet(LBU, 8.5, 7, 806, tsval=10, tsecr=2)), "had given the connection away"),
    ("a connection that begins in the middle", good()[3:], "beginning was not captured"),
    ("no answer to the SYN", good()[:1], "nobody answered"),
    ("a segment that is no ACK", added(packet(C, 7.5, 806, 1, 0, tsval=2)), "neither SYN nor ACK"),
    ("nothing", [], "no connection"),
]


def run(*arguments):
    """Status and output of the program."""
    done = subprocess.run([sys.executable, str(top / "invariants.py"), *map(str, arguments)],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def main():
    ktap = genl.Ktap()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "capture"

        def complaints(packets, **wanted):
            write(path, packets)
            return invariants.check([path], **wanted).complaints

        ktap.result(not complaints(good()), "a good connection that moves", *complaints(good()))
        plain = [(at, data.replace(HOST, LBU, 1)) for at, data in good()]
        ktap.result(not complaints(plain), "a good connection that stays", *complaints(plain))
        said = complaints(refused(), pruned=1)
        ktap.result(not said, "a segment that is refused for want of memory", *said)
        said = complaints(refused())
        ktap.result(any("withdrawn 1 times" in line for line in said), "a window that is withdrawn with memory", f"said {said}")
        for name, packets, text in BROKEN:
            said = complaints(packets)
            ktap.result(any(text in line for line in said), f"complains about {name}", f"said {said}")

        reset = good()[:9] + [packet(HOST, 10, 7, 806, RST | ACK, window=0, tsval=12, tsecr=3)]
        ktap.result(not complaints(reset, resets=1), "one RST that is expected", *complaints(reset, resets=1))
        astray = good()[:9] + [packet(HOST, 10, 90, 806, RST | ACK, tsval=12, tsecr=3)]
        said = complaints(astray, resets=1)
        ktap.result(any("does not accept" in line for line in said), "a RST out of place", f"said {said}")
        said = complaints(reset + reset[-1:], resets=1)
        ktap.result(any("after its RST" in line for line in said), "two RSTs", f"said {said}")
        said = complaints(good(), resets=1)
        ktap.result(any("0 connections were reset" in line for line in said), "a RST that does not come", f"said {said}")
        again = good() + [(at + 100, data) for at, data in good()]
        ktap.result(bool(complaints(again)), "the same ports with the same numbers are no new connection")

        again = added(packet(C, 14.2, 806, 8, FIN | ACK, tsval=7, tsecr=12), packet(HOST, 14.4, 8, 0, RST, stamp=False))
        ktap.result(not complaints(again), "a RST for what comes again after the end", *complaints(again))
        ktap.result(bool(complaints(again[:-2] + again[-1:])), "a RST after the end for nothing")
        before = added(packet(C, 12.5, 806, 7, FIN | ACK, tsval=5, tsecr=11), packet(HOST, 14.4, 7, 0, RST, stamp=False))
        ktap.result(not complaints(before), "a RST after the end for a FIN that came again", *complaints(before))
        late = added(packet(HOST, 14.4, 7, 0, RST, stamp=False))
        ktap.result(not complaints(late), "a RST after the end for an acknowledgement that came late", *complaints(late))
        late = added(packet(HOST, 14.4, 7, 807, RST | ACK, tsval=13, tsecr=6))
        ktap.result(bool(complaints(late)), "a RST that answers nothing, with the same number")
        early = added(packet(C, 12.5, 806, 7, FIN | ACK, tsval=5, tsecr=11), packet(HOST, 12.8, 7, 0, RST, stamp=False))
        ktap.result(bool(complaints(early)), "a RST for it before the end")

        overtaken = added(packet(LBU, 8.5, 1, 6, tsecr=1, window=999, tsval=9))
        ktap.result(not complaints(overtaken, late=True), "a packet that is late", *complaints(overtaken, late=True))
        ktap.result(bool(complaints(overtaken)), "a packet that should not be late")
        too_late = added(packet(LBU, 8.5, 1, 6, tsecr=1, window=999, tsval=11))
        said = complaints(too_late, late=True)
        ktap.result(any("had given the connection away" in line for line in said), "a packet sent too late", f"said {said}")

        # As a program: several files, what it is told to expect, and files that are none.
        two = [path.with_suffix(suffix) for suffix in (".client", ".servers")]
        for file, mine in zip(two, (True, False)):
            write(file, [frame for frame in good() if (frame[1][6:12] == C) == mine])
        status, said = run("--connections", 1, "--moved", 1, *two)
        ktap.result(status == 0 and "1 connections, 1 moved" in said, "two captures are merged by time", said)
        status, said = run("--moved", 2, *two)
        ktap.result(status == 1 and "moved: 1, not 2" in said, "says how many were to move", said)
        # To the host, back to the LBU, and to the host again.
        returns = added(packet(LBU, 8.5, 7, 806, tsval=10, tsecr=2))
        write(path, returns)
        status, said = run("--moves", 3, path)
        ktap.result(status == 0, "a connection that returns, when told so", said)
        status, said = run("--moves", 1, path)
        ktap.result(status == 1 and "moves: 3, not 1" in said, "says how often it was to move", said)
        begun = ("--port", 80, "--begun", SCALE, path)
        for first in (3, 4):
            write(path, good()[first:])
            status, said = run("--moved", 1, *begun)
            ktap.result(status == 0, f"connections that had begun before, from packet {first} on", said)
        write(path, good()[3:7] + [packet(HOST, 8, 1, 805, data=b"answer", tsval=10, tsecr=2, window=1)])
        status, said = run(*begun)
        ktap.result(status == 1 and "window retreats" in said, "of those, the window is looked at", said)
        write(path, good()[3:7] + [packet(HOST, 8, 2, 5, data=b"answer", tsval=-1, tsecr=2)])
        status, said = run(*begun)
        ktap.result(status == 1 and all(what in said for what in ("acknowledgement goes back", "TSval goes back", "left out")),
                    "and their numbers", said)
        write(path, good(), snap=100)
        status, said = run(path)
        ktap.result(status == 1 and "not captured whole" in said, "says that packets were cut", said)
        status, said = run("--headers", path)
        ktap.result(status == 0, "takes cut packets when told so", said)
        write(path, good(), magic=0xA1B2C3D4)
        status, said = run(path)
        ktap.result(status == 0, "a capture with microseconds", said)
        whole = path.read_bytes()
        for name, data in (("empty", b""), ("garbage", b"garbage" * 50), ("cut in a packet", whole[:-3]),
                           ("cut in a header", whole + b"\1\2\3")):
            path.write_bytes(data)
            status, said = run(path)
            ktap.result(status == 1 and "cannot be read" in said and "Traceback" not in said, f"a file: {name}", said)
        status, said = run(path.with_name("missing"))
        ktap.result(status == 1 and "cannot be read" in said, "no file", said)
        # Whatever stands in a packet, there is a verdict.
        write(path, [(at, data[:14] + bytes(value ^ (n * 37 + i & 0xFF) for n, value in enumerate(data[14:])))
                     for i in range(40) for at, data in good()])
        status, said = run(path)
        ktap.result(status in (0, 1) and "Traceback" not in said, "packets of noise", said)
    ktap.end()


if __name__ == "__main__":
    main()
