#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The programs at both ends of a migrated connection, and the one in between.

server      echoes what it gets; knows nothing of migrations
client      sends pseudo-random bytes while it reads them back, checks each one
classifier  accepts on the VIP, peeks, asks the kernel to migrate; what stays
            with it, it serves like the server

Each prints one JSON object a connection on its standard output.
"""

import argparse
import errno
import json
import os
import pathlib
import random
import select
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import genl  # noqa: E402

lock = threading.Lock()


def report(**facts):
    with lock:
        print(json.dumps(facts), flush=True)


def listen(address, port, backlog):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(backlog)
    return sock


def echo(connection, peer, place):
    """Send everything back until the other side has finished."""
    total, error = 0, None
    try:
        while data := connection.recv(1 << 16):
            connection.sendall(data)
            total += len(data)
    except OSError as failure:
        error = errno.errorcode.get(failure.errno, str(failure))
    connection.close()
    report(place=place, client=f"{peer[0]}:{peer[1]}", bytes=total, error=error)


def server(args):
    sock = listen(args.address, args.port, args.backlog)
    if args.no_accept:
        threading.Event().wait()
    while True:
        connection, peer = sock.accept()
        threading.Thread(target=echo, args=(connection, peer, "server"), daemon=True).start()


def classify(connection, peer, args):
    """Wait for the first bytes, or serve some, then try to hand the connection over."""
    if args.serve:
        return hand_over_busy(connection, peer, args)
    deadline = time.monotonic() + 20
    while len(data := connection.recv(1 << 20, socket.MSG_PEEK)) < args.peek:
        if not data or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    while args.gate and not os.path.exists(args.gate):
        time.sleep(0.05)
    given = []
    if args.read:
        data = connection.recv(args.read)
        if args.give_back:
            given = [("MIGRATION_READ_DATA", data[-args.give_back:] + b"?" * (args.give_back - len(data)))]
    answer = migrate(genl.Family("nlb-migrator"), connection, args, given)
    report(place="migrate", client=f"{peer[0]}:{peer[1]}", error=genl.name_of(answer.error) if answer.error else None,
           text=answer.text)
    if answer.error:
        echo(connection, peer, "classifier")
    else:
        connection.close()


def hand_over_busy(connection, peer, args):
    """Serve the connection for a random number of bytes, then hand it over while it goes on.

    As long as the kernel says that it is busy (EBUSY), try again: something else is in flight every moment.
    """
    with lock:
        args.served = getattr(args, "served", 0) + 1
        left = random.Random(f"{args.seed} {args.served}").randint(*args.serve)
    while left > 0 and (data := connection.recv(min(left, 1 << 16))):
        connection.sendall(data)
        left -= len(data)
    family = genl.Family("nlb-migrator")
    for attempts in range(1, 2001):
        answer = migrate(family, connection, args)
        if answer.error != errno.EBUSY:
            break
        time.sleep(0.001)
    report(place="migrate", client=f"{peer[0]}:{peer[1]}", error=genl.name_of(answer.error) if answer.error else None,
           text=answer.text, attempts=attempts)
    if answer.error:
        echo(connection, peer, "classifier")
    else:
        connection.close()


def migrate(family, connection, args, given=()):
    return family.do("MIGRATE", [
        ("MIGRATION_FD", genl.u32(connection.fileno())),
        ("MIGRATION_PEER_ADDR", genl.ip(args.to)),
        ("MIGRATION_TIMEOUT", genl.u32(args.timeout)), *given])


def classifier(args):
    sock = listen(args.address, args.port, 1024)
    while True:
        connection, peer = sock.accept()
        threading.Thread(target=classify, args=(connection, peer, args), daemon=True).start()


def client_once(args, seed):
    """One connection; what went wrong, or None."""
    chance = random.Random(f"{args.seed} {seed}")
    data = chance.randbytes(chance.randint(*args.bytes))
    source = ("", args.from_port) if args.from_port else None
    sock = socket.create_connection((args.address, args.port), args.patience, source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if args.keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL:
            sock.setsockopt(socket.IPPROTO_TCP, option, 1)
    sock.settimeout(args.patience)
    failure = []
    end = len(data)

    def send():
        nonlocal end
        try:
            first = args.first or args.chunk
            sock.sendall(data[:first])
            time.sleep(max(args.first_pause, args.pause))
            for at in range(first, len(data), args.chunk):
                if args.until and os.path.exists(args.until):
                    # Before it is sent, so that nobody waits for more who has got it.
                    end = min(at + args.chunk, len(data))
                    sock.sendall(data[at:end])
                    break
                sock.sendall(data[at:at + args.chunk])
                if args.pause:
                    time.sleep(args.pause)
        except OSError as error:
            failure.append(f"send: {errno.errorcode.get(error.errno, error)}")

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    got = 0
    try:
        while got < end:
            part = sock.recv(1 << 16)
            if not part:
                failure.append(f"end of stream after {got} of {end} bytes")
                break
            if part != data[got:got + len(part)]:
                failure.append(f"wrong bytes at {got}")
                break
            got += len(part)
        if not failure and not args.keep_open:
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):
                failure.append("more bytes than were sent")
    except OSError as error:
        failure.append(f"recv after {got} bytes: {errno.errorcode.get(error.errno, error)}")
    sender.join(args.patience)
    if args.keep_open:
        select.select([sock], [], [], args.keep_open)
    local = sock.getsockname()
    sock.close()
    report(place="client", client=f"{local[0]}:{local[1]}", bytes=got, error="; ".join(failure) or None)
    return not failure


def client(args):
    results = []
    at_once = threading.Semaphore(args.parallel)

    def run(seed):
        with at_once:
            results.append(client_once(args, seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(args.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if len(results) == args.count and all(results) else 1


def span(text):
    """N or N-M, as the least and the most."""
    least, _, most = text.partition("-")
    return int(least), int(most or least)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    for name, function in (("server", server), ("client", client), ("classifier", classifier)):
        role = roles.add_parser(name)
        role.set_defaults(function=function)
        role.add_argument("address")
        role.add_argument("port", type=int)
        role.add_argument("--seed", default="1", help="for what is random")
        if name == "server":
            role.add_argument("--backlog", type=int, default=1024)
            role.add_argument("--no-accept", action="store_true")
        if name == "classifier":
            role.add_argument("--to", required=True)
            role.add_argument("--peek", type=int, default=1)
            role.add_argument("--read", type=int, default=0, help="bytes to take away before (not only peek)")
            role.add_argument("--serve", type=span, help="bytes to serve before, N or N-M")
            role.add_argument("--give-back", type=int, default=0, help="the last bytes that were read go along")
            role.add_argument("--timeout", type=int, default=2000)
            role.add_argument("--gate", help="wait until this file is there")
        if name == "client":
            role.add_argument("--bytes", type=span, default=(200_000, 200_000), help="N or N-M")
            role.add_argument("--chunk", type=int, default=10_000)
            role.add_argument("--first", type=int, help="bytes of the first write, if not those of a chunk")
            role.add_argument("--pause", type=float, default=0)
            role.add_argument("--first-pause", type=float, default=0)
            role.add_argument("--count", type=int, default=1)
            role.add_argument("--parallel", type=int, default=16)
            role.add_argument("--patience", type=float, default=30)
            role.add_argument("--from-port", type=int, help="the port of the client's end, with --count 1")
            role.add_argument("--keepalive", action="store_true", help="ask after a second of silence")
            role.add_argument("--until", help="end soon after this file is there, or when all was sent")
            role.add_argument("--keep-open", type=float, default=0, help="seconds to stay, without a FIN")
    args = parser.parse_args()
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
