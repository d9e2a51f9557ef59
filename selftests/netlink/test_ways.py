#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What is said to the family nlb-fwd of GRE and GUE, and of datagrams that are scheduled each by itself."""

import errno
import subprocess

import test_fwd
from test_fwd import ENDPOINT, HOST, NAT, SERVICE, UDP, VIP, genl
from genl import Case, Request, be16, ip, replaced, u32

GUE = [("ENDPOINT_FORWARD", u32(7)), ("ENDPOINT_TUN_PORT", be16(5555)), ("ENDPOINT_TUN_CSUM", u32(1))]
SINGLE = UDP + [("SERVICE_ONE_PACKET", u32(1))]
SINGLE_SET = UDP[:3] + [("SERVICE_ONE_PACKET", u32(1))]
FAR = replaced(HOST, "ENDPOINT_HOST_ADDR", ip("10.9.9.9"))

REQUESTS = [
    Request("ENDPOINT_NEW", ENDPOINT + GUE, optional=(
        "ENDPOINT_SOURCE_ADDR", "ENDPOINT_WEIGHT", "ENDPOINT_FORWARD", "ENDPOINT_TUN_PORT", "ENDPOINT_TUN_CSUM")),
    Request("SERVICE_NEW", SINGLE, optional=("SERVICE_ONE_PACKET",)),
    Request("SERVICE_SET", SINGLE_SET, optional=("SERVICE_ONE_PACKET",)),
]
NO_UDP = "only UDP in mode l4 is scheduled packet by packet"
SPECIAL = [
    Case("port 0 of gue", "ENDPOINT_NEW", ENDPOINT + replaced(GUE, "ENDPOINT_TUN_PORT", be16(0)), errno.ERANGE,
         "integer out of range", attr="ENDPOINT_TUN_PORT"),
    Case("checksum 2", "ENDPOINT_NEW", ENDPOINT + replaced(GUE, "ENDPOINT_TUN_CSUM", u32(2)), errno.ERANGE,
         "integer out of range", attr="ENDPOINT_TUN_CSUM"),
    Case("a port of the host with gue", "ENDPOINT_NEW", FAR + replaced(NAT, "ENDPOINT_FORWARD", u32(7)), errno.EINVAL,
         "only half-nat and nat change the port", attr="ENDPOINT_HOST_PORT"),
    Case("a checksum", "ENDPOINT_SET", HOST + [("ENDPOINT_WEIGHT", u32(5)), ("ENDPOINT_TUN_CSUM", u32(1))], errno.EINVAL,
         "Unknown attribute type", attr="ENDPOINT_TUN_CSUM"),
    Case("one packet 2", "SERVICE_NEW", replaced(SINGLE, "SERVICE_ONE_PACKET", u32(2)), errno.ERANGE,
         "integer out of range", attr="SERVICE_ONE_PACKET"),
    Case("one packet with TCP", "SERVICE_NEW", replaced(SINGLE, "SERVICE_PROTO", u32(6)), errno.EINVAL, NO_UDP,
         attr="SERVICE_ONE_PACKET"),
    Case("no one packet with TCP", "SERVICE_SET", VIP + [("SERVICE_ONE_PACKET", u32(0))], errno.EINVAL, NO_UDP,
         attr="SERVICE_ONE_PACKET"),
    Case("one packet of no service", "SERVICE_SET", SINGLE_SET, errno.ENOENT, "no such service"),
]
for way in (None, 1, 2, 3, 4, 5, 6):
    said = [("ENDPOINT_FORWARD", u32(way))] if way else []
    SPECIAL.append(Case(f"a port of gue by way {way}", "ENDPOINT_NEW", FAR + said + [("ENDPOINT_TUN_PORT", be16(6080))],
                        errno.EINVAL, "only gue has a port", attr="ENDPOINT_TUN_PORT"))
    if way != 6:
        SPECIAL.append(Case(f"a checksum by way {way}", "ENDPOINT_NEW", FAR + said + [("ENDPOINT_TUN_CSUM", u32(0))],
                            errno.EINVAL, "only gre and gue have a checksum", attr="ENDPOINT_TUN_CSUM"))


def main():
    subprocess.run(["modprobe", "nlb_fwd"], check=True)
    subprocess.run("""ip link add near type veth peer name far
                   ip addr add 10.7.0.1/24 dev near && ip addr add 2001:db8:2::1/64 dev near nodad
                   ip link set near up && ip link set far up""", shell=True, check=True)
    ktap = genl.Ktap()
    fwd = genl.Family("nlb-fwd")
    accepted = genl.accepting(ktap, fwd)

    def state():
        return [[reply for reply in fwd.dump(command).replies] for command in ("SERVICE_GET", "ENDPOINT_GET")]

    def shown(command, attrs, *names):
        answer = accepted("as it was made", command, attrs)
        found = dict(genl.attributes(answer.replies[0][4:])) if answer.replies else {}
        return [found.get(fwd.attr(name)) for name in names]

    def says(want, what, command, attrs, *names):
        found = shown(command, attrs, *names)
        ktap.result(found == want, what, f"{found} in place of {want}")

    accepted("good", "SERVICE_NEW", SERVICE)
    accepted("good", "ENDPOINT_NEW", ENDPOINT)
    for request in REQUESTS:
        for case in genl.hostile(request):
            genl.refuse(ktap, fwd, case, state)
    for case in SPECIAL:
        genl.refuse(ktap, fwd, case, state)
    genl.unprivileged(ktap, "nlb-fwd", REQUESTS, state)
    says([None], "TCP has no such thing", "SERVICE_GET", VIP, "SERVICE_ONE_PACKET")
    accepted("good", "SERVICE_DEL", VIP)

    for family, convert, there in (("IPv4", lambda attrs: attrs, "10.7.0.2"),
                                   ("IPv6", lambda attrs: test_fwd.in_ipv6(attrs, None, None), "2001:db8:2::2")):
        accepted(family, "SERVICE_NEW", convert(SERVICE))
        host = replaced(convert(HOST), "ENDPOINT_HOST_ADDR", ip(there))
        csum = "ENDPOINT_TUN_CSUM"
        for number, given, want in (
                (6, [], [None, u32(0)]), (6, [(csum, u32(1))], [None, u32(1)]), (3, [], [None, None]),
                (7, [], [be16(6080), u32(family == "IPv6")]), (7, [(csum, u32(0))], [be16(6080), u32(0)]),
                (7, GUE[1:], [be16(5555), u32(1)])):
            accepted(f"{family}, way {number}", "ENDPOINT_NEW", host + [("ENDPOINT_FORWARD", u32(number))] + given)
            says(want, f"{family}, way {number}: what packets travel in", "ENDPOINT_GET", host, "ENDPOINT_TUN_PORT", csum)
            accepted(f"{family}, way {number}", "ENDPOINT_DEL", host)
        accepted(family, "SERVICE_DEL", convert(VIP))

        single, key, off = convert(SINGLE), convert(UDP[:3]), [("SERVICE_ONE_PACKET", u32(0))]
        host = replaced(host, "ENDPOINT_PROTO", u32(17))
        accepted(family, "SERVICE_NEW", single)
        says([u32(1)], f"{family}: each by itself", "SERVICE_GET", key, "SERVICE_ONE_PACKET")
        for number in (4, 5):
            by = host + [("ENDPOINT_FORWARD", u32(number))]
            genl.refuse(ktap, fwd, Case(f"{family}: way {number} without routes", "ENDPOINT_NEW", by, errno.EINVAL,
                                        "half-nat and nat need routes, and the service makes none",
                                        attr="ENDPOINT_FORWARD"), state)
            accepted(family, "SERVICE_SET", key + off)
            says([u32(0)], f"{family}: not any more", "SERVICE_GET", key, "SERVICE_ONE_PACKET")
            accepted(f"{family}, way {number}", "ENDPOINT_NEW", by)
            genl.refuse(ktap, fwd, Case(f"{family}: way {number} needs routes", "SERVICE_SET", convert(SINGLE_SET), errno.EINVAL,
                                        "an endpoint of the service needs routes (half-nat, nat)",
                                        attr="SERVICE_ONE_PACKET"), state)
            accepted(f"{family}, way {number}", "ENDPOINT_DEL", host)
            accepted(family, "SERVICE_SET", convert(SINGLE_SET))
        for number in (1, 2, 3, 6, 7):
            accepted(f"{family}, way {number}", "ENDPOINT_NEW", host + [("ENDPOINT_FORWARD", u32(number))])
            accepted(f"{family}, way {number}", "ENDPOINT_DEL", host)
        accepted(family, "SERVICE_DEL", key)
    ktap.result(state() == [[], []], "all is gone again", str(state()))
    ktap.end()


if __name__ == "__main__":
    main()
