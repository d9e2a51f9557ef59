#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""moved.py FROM TO FLOW-ID HOST: says to a forwarder that the connection of a flow id has moved on to HOST (MOVED, as
in Documentation/tunnel.rst)."""

import ipaddress
import os
import socket
import struct
import sys

PORT = 4770
MOVED = 6


def main(source, forwarder, flow_id, host):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    message = struct.pack(">BBHI8s", 1 << 4 | MOVED, 0, 0, int(flow_id, 16), os.urandom(8))
    message += ipaddress.ip_address(host).packed
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((source, PORT))
        sock.sendto(message, (forwarder, PORT))


if __name__ == "__main__":
    main(*sys.argv[1:])
