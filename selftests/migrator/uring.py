# SPDX-License-Identifier: GPL-2.0
"""accept() by io_uring, with the bare system calls (include/uapi/linux/io_uring.h)."""

import ctypes
import mmap
import os
import socket
import struct

SYS_SETUP, SYS_ENTER = 425, 426
OFF_RING, OFF_SQES = 0, 0x10000000
FEAT_SINGLE_MMAP, OP_ACCEPT, ACCEPT_MULTISHOT, ENTER_GETEVENTS = 1, 13, 1, 1
LIBC = ctypes.CDLL(None, use_errno=True)


def call(*arguments):
    result = LIBC.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Acceptor:
    """One multishot accept request of a listener."""

    def __init__(self, listener):
        params = ctypes.create_string_buffer(120)
        self.fd = call(SYS_SETUP, 8, params)
        fields = struct.unpack("=30I", params.raw)
        sq_entries, cq_entries, features = fields[0], fields[1], fields[5]
        if not features & FEAT_SINGLE_MMAP:
            raise OSError("io_uring of an old kernel")
        # struct io_sqring_offsets begins at byte 40, struct io_cqring_offsets at 80.
        _, sq_tail, sq_mask, _, _, _, sq_array = fields[10:17]
        self.head, self.tail, self.mask, _, _, self.cqes = fields[20:26]
        self.ring = mmap.mmap(self.fd, max(self.cqes + cq_entries * 16, sq_array + sq_entries * 4), offset=OFF_RING)
        sqes = mmap.mmap(self.fd, 64 * sq_entries, offset=OFF_SQES)
        sqes[:64] = struct.pack("=BBHiQQIIQ", OP_ACCEPT, 0, ACCEPT_MULTISHOT, listener.fileno(), 0, 0, 0, 0, 1).ljust(64, b"\0")
        self.put(sq_array, 0)
        self.put(sq_tail, self.get(sq_tail) + 1)
        if call(SYS_ENTER, self.fd, 1, 0, 0, None, 0) != 1:
            raise OSError("the request was not taken")

    def get(self, at):
        return struct.unpack_from("=I", self.ring, at)[0]

    def put(self, at, value):
        struct.pack_into("=I", self.ring, at, value)

    def accepted(self):
        """The next connection, or None if there is none yet."""
        call(SYS_ENTER, self.fd, 0, 0, ENTER_GETEVENTS, None, 0)
        head = self.get(self.head)
        if head == self.get(self.tail):
            return None
        _, result, _ = struct.unpack_from("=QiI", self.ring, self.cqes + (head & self.get(self.mask)) * 16)
        self.put(self.head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return socket.socket(fileno=result)

    def close(self):
        os.close(self.fd)
