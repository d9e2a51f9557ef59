#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Runs Python programs for python3.c, each in a fork of this process, which has loaded what they import.

usage: server.py SOCKET

A request is one packet: the arguments and the environment as python3.c writes them, with five descriptors: standard
input, output and error, working directory, network namespace. The answers are 32-bit numbers: the process's id, and when
it has ended its exit status, or the signal it died of as a negative number.
"""

import array
import gc
import os
import pathlib
import selectors
import signal
import socket
import struct
import sys
import types

# What the selftests import.
import argparse  # noqa: F401
import collections  # noqa: F401
import contextlib
import ctypes
import dataclasses  # noqa: F401
import errno  # noqa: F401
import fcntl  # noqa: F401
import heapq  # noqa: F401
import ipaddress  # noqa: F401
import json  # noqa: F401
import random  # noqa: F401
import re  # noqa: F401
import select  # noqa: F401
import shlex  # noqa: F401
import subprocess  # noqa: F401
import tempfile  # noqa: F401
import threading
import time  # noqa: F401
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import genl  # noqa: E402, F401
import pcap  # noqa: E402, F401
del sys.path[0]

REQUEST, DESCRIPTORS = 1 << 18, 5
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def receive(connection):
    """The arguments, the environment and the descriptors of a request; None if whoever connected has gone again."""
    descriptors = array.array("i")
    data, control, _, _ = connection.recvmsg(REQUEST, socket.CMSG_SPACE(DESCRIPTORS * descriptors.itemsize))
    for _, _, payload in control:
        descriptors.frombytes(payload)
    if len(descriptors) != DESCRIPTORS:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    strings = [os.fsdecode(string) for string in data.split(b"\0")]
    end = 1 + int(strings[0])
    return strings[1:end], dict(string.split("=", 1) for string in strings[end:-1] if "=" in string), descriptors


def become(environment, descriptors):
    """In the fork: what it was asked from."""
    *standard, directory, namespace = descriptors
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.fchdir(directory)
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)


def program(arguments):
    """The code that python3 would run for ARGUMENTS, and what __file__ is for it; sets sys.argv and sys.path."""
    arguments = arguments[1:]
    while arguments[:1] == ["-u"]:
        sys.stdout.reconfigure(write_through=True)
        del arguments[0]
    if arguments[:1] == ["-c"]:
        sys.argv, source, name, file, first = ["-c"] + arguments[2:], arguments[1], "<string>", None, ""
    elif arguments[:1] in ([], ["-"]):
        sys.argv, source, name, file, first = arguments or [""], sys.stdin.read(), "<stdin>", None, ""
    else:
        name = file = arguments[0]
        sys.argv, source, first = arguments, pathlib.Path(name).read_bytes(), str(pathlib.Path(name).resolve().parent)
    sys.path.insert(0, first)
    return compile(source, name, "exec"), file


def serve(path):
    """Returns only in forks: the arguments of each."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(woken, selectors.EVENT_READ)
    running = {}
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection = listener.accept()[0]
                request = receive(connection)
                if not request:
                    connection.close()
                    continue
                arguments, environment, descriptors = request
                pid = os.fork()
                if not pid:
                    for held in (listener, woken, wake, connection, waiting, *running.values()):
                        held.close()
                    become(environment, descriptors)
                    return arguments
                for descriptor in descriptors:
                    os.close(descriptor)
                running[pid] = connection
                waiting.register(connection, selectors.EVENT_READ, pid)
                tell(connection, pid)
            elif key.fileobj is woken:
                woken.recv(4096)
                for pid, status in ended():
                    connection = running.pop(pid)
                    if connection in waiting.get_map():
                        waiting.unregister(connection)
                    tell(connection, os.waitstatus_to_exitcode(status))
                    connection.close()
            elif key.data in running:
                # It says nothing more: it was killed.
                waiting.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)


def tell(connection, number):
    with contextlib.suppress(OSError):
        connection.send(struct.pack("=i", number))


def ended():
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            yield pid, status


def run(code, file):
    """The exit status of a program. Tearing the interpreter down would take longer than most programs."""
    module = types.ModuleType("__main__")
    module.__file__ = file
    sys.modules["__main__"] = module
    status = 0
    try:
        exec(code, module.__dict__)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return status


gc.freeze()
os._exit(run(*program(serve(sys.argv[1]))) & 0xFF)
