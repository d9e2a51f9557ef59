#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Programs for test_flood.sh.

syns VIP PORT                SYNs from all over the place, until it is killed
serve ADDRESS PORT NAME      TCP: says its name, and sends back what it gets
clients VIP PORT COUNT FILE  TCP: opens connections, which go on once FILE is there
stray VIP PORT CLIENT        a packet from the middle of a connection
ipip FROM HOST VIP PORT CLIENT  a datagram from CLIENT in an IP packet to HOST
reply_lost VIP PORT CLIENT PORT  what a router says about a reply
inside_lost FROM HOST CLIENT PORT VIP PORT  what HOST says about a client's packet that FROM has sent it in another one
"""

import itertools
import pathlib
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tunnel"))
from icmp import checksum, family, packet, ports, pseudo, send, too_big  # noqa: E402


def syns(vip, port):
    sources = "2001:db8:f::{:x}" if ":" in vip else "198.18.{0}.{1}"
    for number in itertools.count(1):
        source = sources.format(number % 65536 if ":" in vip else number // 250 % 250, number % 250 + 1)
        segment = struct.pack(">HHIIBBHHH", 1024 + number % 60000, int(port), number, 0, 0x50, 2, 500, 0, 0)
        total = checksum(pseudo(source, vip, 6, len(segment)) + segment)
        send(packet(source, vip, 6, segment[:16] + struct.pack(">H", total) + segment[18:]))
        time.sleep(0.002)


def serve(address, port, name):
    def answer(connection):
        try:
            connection.sendall(name.encode())
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except OSError as error:
            print(error, flush=True)
        connection.close()

    listener = socket.socket(family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen(1000)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        assert part, f"the end after {len(data)} of {count} bytes"
        data += part
    return data


def back(connection, data):
    """What is sent comes back, byte by byte."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    assert exactly(connection, len(data)) == data
    sender.join()


def clients(vip, port, count, go_on):
    connections = []
    for _ in range(int(count)):
        # SYNs come again after 1, 2, 4 and 8 seconds.
        connection = socket.create_connection((vip, int(port)), timeout=60)
        print(exactly(connection, 5).decode(), connection.getsockname()[1], flush=True)
        connections.append(connection)
    chance = random.Random(count)
    for _ in range(2):
        for connection in connections:
            back(connection, chance.randbytes(100))
        # Batches, where the devices take them.
        back(connections[0], chance.randbytes(300_000))
        print("open", flush=True)
        while not pathlib.Path(go_on).exists():
            time.sleep(0.1)
    for connection in connections:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
    print("over", flush=True)


def stray(vip, port, client):
    send(ports(client, vip, 999, int(port), 6))


def ipip(source, host, vip, port, client):
    inner = ports(client, vip, 999, int(port), 17, b"who")
    send(packet(source, host, 41 if ":" in host else 4, inner))


# Of what was sent nobody here knows the sequence numbers: it is known by its ports, and not believed.
def reply_lost(vip, port, client, client_port):
    send(too_big(client, vip, 1300, ports(vip, client, int(port), int(client_port), 6, bytes(100))))


def inside_lost(source, host, client, client_port, vip, port):
    inner = ports(client, vip, int(client_port), int(port), 6, bytes(1380))
    send(too_big(host, source, 1400, packet(source, host, 41 if ":" in host else 4, inner)[:600]))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
