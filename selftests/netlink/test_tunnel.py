#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Every command of the family nlb-tunnel, with good and with bad attributes."""

import errno
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import genl  # noqa: E402
from genl import Case, Request, be16, ip, replaced, u32  # noqa: E402

FORWARDER = [("FORWARDER_ADDR", ip("10.0.2.1"))]
FLOW = 61000 << 16 | 1
KEY = [("MAPPING_FORWARDER_ADDR", ip("10.0.2.1")), ("MAPPING_FLOW_ID", u32(FLOW))]
MAPPING = KEY + [
    ("MAPPING_PROTO", u32(6)),
    ("MAPPING_CLIENT_ADDR", ip("198.51.100.7")), ("MAPPING_CLIENT_PORT", be16(40000)),
    ("MAPPING_VIP_ADDR", ip("192.0.2.10")), ("MAPPING_VIP_PORT", be16(80)),
]
HOST_SIDE = [("MAPPING_SIDE", u32(2))]
IPV6_FORWARDER = [("FORWARDER_ADDR", ip("2001:db8:2::1"))]
IPV6_KEY = [("MAPPING_FORWARDER_ADDR", ip("2001:db8:2::1")), ("MAPPING_FLOW_ID", u32(FLOW))]
IPV6_MAPPING = IPV6_KEY + [
    ("MAPPING_PROTO", u32(6)),
    ("MAPPING_CLIENT_ADDR", ip("2001:db8:1::7")), ("MAPPING_CLIENT_PORT", be16(40000)),
    ("MAPPING_VIP_ADDR", ip("2001:db8:10::10")), ("MAPPING_VIP_PORT", be16(80)),
]

REQUESTS = [
    Request("FORWARDER_NEW", FORWARDER),
    Request("FORWARDER_DEL", FORWARDER),
    Request("FORWARDER_GET", FORWARDER, privileged=False),
    Request("MAPPING_NEW", MAPPING),
    Request("MAPPING_DEL", KEY),
    Request("MAPPING_GET", HOST_SIDE + KEY, privileged=False),
]


SPECIAL = [
    Case("exists", "FORWARDER_NEW", FORWARDER, errno.EEXIST, "forwarder exists"),
    Case("0.0.0.0", "FORWARDER_NEW", replaced(FORWARDER, "FORWARDER_ADDR", ip("0.0.0.0")), errno.EINVAL,
         "not a unicast address", attr="FORWARDER_ADDR"),
    Case("multicast", "FORWARDER_NEW", replaced(FORWARDER, "FORWARDER_ADDR", ip("239.1.1.1")), errno.EINVAL,
         "not a unicast address", attr="FORWARDER_ADDR"),
    Case("::", "FORWARDER_NEW", replaced(FORWARDER, "FORWARDER_ADDR", ip("::")), errno.EINVAL,
         "not a unicast address", attr="FORWARDER_ADDR"),
    Case("link-local", "FORWARDER_NEW", replaced(FORWARDER, "FORWARDER_ADDR", ip("fe80::1")), errno.EINVAL,
         "not a unicast address", attr="FORWARDER_ADDR"),
    Case("unknown IPv6", "FORWARDER_GET", replaced(FORWARDER, "FORWARDER_ADDR", ip("2001:db8::9")), errno.ENOENT,
         "no such forwarder"),
    Case("client of the other family", "MAPPING_NEW", replaced(MAPPING, "MAPPING_CLIENT_ADDR", ip("2001:db8::7")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="MAPPING_CLIENT_ADDR"),
    Case("forwarder of the other family", "MAPPING_NEW",
         replaced(MAPPING, "MAPPING_FORWARDER_ADDR", ip("2001:db8::1")),
         errno.EAFNOSUPPORT, "not of the VIP's address family", attr="MAPPING_FORWARDER_ADDR"),
    Case("unknown", "FORWARDER_DEL", replaced(FORWARDER, "FORWARDER_ADDR", ip("10.0.2.9")), errno.ENOENT,
         "no such forwarder"),
    Case("unknown", "FORWARDER_GET", replaced(FORWARDER, "FORWARDER_ADDR", ip("10.0.2.9")), errno.ENOENT,
         "no such forwarder"),
    Case("exists", "MAPPING_NEW", MAPPING, errno.EEXIST, "mapping exists"),
    Case("unknown forwarder", "MAPPING_NEW", replaced(MAPPING, "MAPPING_FORWARDER_ADDR", ip("10.0.2.9")),
         errno.ENOENT, "no such forwarder"),
    Case("flow id with a low source port", "MAPPING_NEW", replaced(MAPPING, "MAPPING_FLOW_ID", u32(60999 << 16 | 1)),
         errno.ERANGE, "flow id out of range", attr="MAPPING_FLOW_ID"),
    Case("flow id with destination port 0", "MAPPING_NEW", replaced(MAPPING, "MAPPING_FLOW_ID", u32(61000 << 16)),
         errno.ERANGE, "flow id out of range", attr="MAPPING_FLOW_ID"),
    Case("protocol ICMP", "MAPPING_NEW", replaced(MAPPING, "MAPPING_PROTO", u32(1)), errno.EINVAL,
         "protocol must be TCP (6) or UDP (17)", attr="MAPPING_PROTO"),
    Case("VIP on no nlb device", "MAPPING_NEW", replaced(replaced(MAPPING, "MAPPING_VIP_ADDR", ip("192.0.2.11")),
         "MAPPING_FLOW_ID", u32(FLOW + 1)), errno.EADDRNOTAVAIL, "VIP is not an address of an nlb device",
         attr="MAPPING_VIP_ADDR"),
    Case("unknown", "MAPPING_DEL", replaced(KEY, "MAPPING_FLOW_ID", u32(FLOW + 7)), errno.ENOENT, "no such mapping"),
    Case("unknown", "MAPPING_GET", replaced(HOST_SIDE + KEY, "MAPPING_FLOW_ID", u32(FLOW + 7)), errno.ENOENT,
         "no such mapping"),
    Case("side 3", "MAPPING_GET", replaced(HOST_SIDE + KEY, "MAPPING_SIDE", u32(3)), errno.ERANGE,
         "integer out of range", attr="MAPPING_SIDE"),
]


def sh(command):
    subprocess.run(command, shell=True, check=True)


def main():
    sh("modprobe nlb_tunnel && ip link add nlb0 type nlb && ip addr add 192.0.2.10/32 dev nlb0 && "
       "ip addr add 2001:db8:10::10/128 dev nlb0 && ip link set nlb0 up")
    ktap = genl.Ktap()
    tunnel = genl.Family("nlb-tunnel")
    accepted = genl.accepting(ktap, tunnel)

    def state():
        """Addresses of the forwarders; mappings without what time changes."""
        found = [sorted(str(genl.attributes(reply[4:])[0]) for reply in tunnel.dump("FORWARDER_GET").replies)]
        moving = [tunnel.attr(f"MAPPING_{name}") for name in ("IDLE", "PACKETS", "BYTES")]
        found.append(sorted(
            str([(kind, value) for kind, value in genl.attributes(reply[4:]) if kind not in moving])
            for reply in tunnel.dump("MAPPING_GET").replies))
        return found

    ktap.result(state() == [[], []], "a new namespace has nothing", str(state()))
    listener = genl.Family("nlb-tunnel")
    listener.join("mappings")
    accepted("good", "FORWARDER_NEW", FORWARDER)
    accepted("good", "MAPPING_NEW", MAPPING)
    events = [event[0] for event in listener.events()]
    ktap.result(tunnel.ids["NLB_TUNNEL_CMD_MAPPING_NTF"] in events, "mapping_ntf is sent", str(events))
    for command, attrs in (("FORWARDER_GET", FORWARDER), ("MAPPING_GET", HOST_SIDE + KEY)):
        answer = accepted("good", command, attrs)
        sent = {tunnel.attr(key): value for key, value in attrs}
        got = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        ktap.result(sent.items() <= got.items(), f"{command.lower()}: the reply names the object", str(got))
    ktap.result(len(tunnel.dump("MAPPING_GET", HOST_SIDE).replies) == 1, "dump of the host side has it")
    ktap.result(len(tunnel.dump("MAPPING_GET", [("MAPPING_SIDE", u32(1))]).replies) == 0,
                "dump of the forwarder side has not")

    for request in REQUESTS:
        for case in genl.hostile(request):
            # On the forwarder side the flow id alone is the key.
            if (case.command, case.missing) == ("MAPPING_GET", "MAPPING_SIDE"):
                case.attrs = KEY
            genl.refuse(ktap, tunnel, case, state)
    for case in SPECIAL:
        genl.refuse(ktap, tunnel, case, state)
    genl.unprivileged(ktap, "nlb-tunnel", REQUESTS, state)

    stats = tunnel.do("STATS_GET")
    counters = [genl.attributes(value) for _, value in genl.attributes(stats.replies[0][4:])] if stats.replies else []
    ktap.result(stats.error == 0 and len(counters) > 3 and all(len(entry) == 2 for entry in counters),
                "stats_get: named counters", str(counters))
    listener.events()
    accepted("good", "MAPPING_DEL", KEY)
    accepted("good again", "MAPPING_NEW", MAPPING)
    accepted("with a mapping", "FORWARDER_DEL", FORWARDER)
    events = [event[0] for event in listener.events()]
    ktap.result(events.count(tunnel.ids["NLB_TUNNEL_CMD_MAPPING_DEL_NTF"]) == 2, "mapping_del_ntf is sent", str(events))
    ktap.result(state() == [[], []], "all is gone again", str(state()))
    for request in (Request("FORWARDER_NEW", IPV6_FORWARDER), Request("MAPPING_NEW", IPV6_MAPPING)):
        accepted("IPv6", request.command, request.good)
        for case in genl.hostile(request):
            genl.refuse(ktap, tunnel, case, state)
    answer = accepted("IPv6", "MAPPING_GET", HOST_SIDE + IPV6_KEY)
    got = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
    ktap.result(all(got.get(tunnel.attr(key)) == value for key, value in IPV6_MAPPING),
                "mapping_get: the reply has the IPv6 addresses", str(got))
    ktap.result([len(entries) for entries in state()] == [1, 1], "dumps have the IPv6 entries", str(state()))
    accepted("IPv6, with a mapping", "FORWARDER_DEL", IPV6_FORWARDER)
    ktap.result(state() == [[], []], "all of IPv6 is gone again", str(state()))
    ktap.end()


if __name__ == "__main__":
    main()
