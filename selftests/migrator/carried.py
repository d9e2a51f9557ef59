# SPDX-License-Identifier: GPL-2.0
"""What a connection takes along besides its bytes: scenarios of state.py."""

import socket

import crowd
from machines import counter
from scene import Info, Scene, buffers, counters, expect, fill, loss, pattern, wait_until, with_sysctl

SO_MAX_PACING_RATE = 47
# TCP_INFINITE_SSTHRESH
INFINITE_SSTHRESH = 0x7FFFFFFF


def options():
    """What the program has set on its socket goes along, the rest is the listener's."""
    tcp, sol = socket.IPPROTO_TCP, socket.SOL_SOCKET
    tos = {"ip": (socket.IPPROTO_IP, socket.IP_TOS), "ip6": (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}[crowd.network().ip]
    values = {(sol, socket.SO_KEEPALIVE): 1, (tcp, socket.TCP_NODELAY): 1, (tcp, socket.TCP_KEEPIDLE): 700,
              (tcp, socket.TCP_KEEPINTVL): 33, (tcp, socket.TCP_KEEPCNT): 7, (tcp, socket.TCP_USER_TIMEOUT): 43_210,
              (tcp, socket.TCP_NOTSENT_LOWAT): 12_345, tos: 0x10, (sol, SO_MAX_PACING_RATE): 9_000_000}

    def found(sock):
        return {key: sock.getsockopt(*key) for key in values}

    def congestion(sock):
        return sock.getsockopt(tcp, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()

    scene = Scene()
    scene.listener.sock.setsockopt(tcp, socket.TCP_KEEPIDLE, 55)
    scene.listener.sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    with with_sysctl("lbu", "ipv4/tcp_congestion_control", "reno"):
        client, origin = scene.connect()
    assert congestion(origin) == "reno"
    plain = found(origin)
    moved = scene.migrate(origin)
    assert found(moved) == plain | {(tcp, socket.TCP_KEEPIDLE): 55, (tcp, socket.TCP_NODELAY): 1}, found(moved)
    # That was the LBU's default and not the program's choice.
    assert congestion(moved) != "reno"
    scene.finish(client, moved)

    client, origin = scene.connect()
    for key, value in values.items():
        origin.setsockopt(*key, value)
    origin.setsockopt(tcp, socket.TCP_CONGESTION, b"reno")
    set_here = found(origin)
    assert set_here == values, set_here
    moved = scene.migrate(origin)
    assert found(moved) == set_here, found(moved)
    assert congestion(moved) == "reno"
    scene.finish(client, moved)


def learnt():
    """What TCP has learnt of the path goes along: round trips, congestion window, its threshold, reordering."""
    def path(sock):
        info = Info(sock)
        return {name: getattr(info, name) for name in ("rto", "rtt", "rttvar", "min_rtt", "cwnd", "ssthresh", "reordering")}

    # Not what the host's connections begin with. They have it from their listener.
    with with_sysctl("lbu", "ipv4/tcp_reordering", "9"):
        scene = Scene()
        client, origin = scene.connect(lambda sock: buffers(sock, receive=4 << 20))
    buffers(origin, send=6 << 20)
    data = pattern(300_000)
    with loss("client", "prerouting", "iifname lbu tcp sport 80 numgen inc mod 3 0"):
        assert fill(origin, data) == len(data)
        wait_until("a loss is noticed", lambda: Info(origin).ssthresh < INFINITE_SSTHRESH)
    expect(client, data)
    wait_until("all is acknowledged", lambda: Info(origin).unacked == 0)
    before = path(origin)
    crowd.note(f"{before}")
    assert before["ssthresh"] < INFINITE_SSTHRESH and before["reordering"] >= 9 and before["rtt"] and before["min_rtt"]
    moved = scene.migrate(origin)
    after = path(moved)
    assert after == before, f"{after}"
    scene.finish(client, moved)


def keepalive(listener="0"):
    """The host goes on to ask an idle client whether it is there; its listener would have it do so after two hours, or not."""
    scene = Scene()
    scene.listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(listener))
    client, origin = scene.connect()
    origin.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        origin.setsockopt(socket.IPPROTO_TCP, option, 1)
    origin.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    moved = scene.migrate(origin)
    before = counters(("host1", "TCPKeepAlive"))[0]

    def all_are_asked(_):
        wait_until("each is asked more often than one that does not answer", lambda:
                   counter("host1", "TCPKeepAlive") - before >= 5 * crowd.size())
    crowd.once(all_are_asked)
    scene.finish(client, moved)
