# SPDX-License-Identifier: GPL-2.0
"""Threads that play the same scenario at the same time, a connection each.

What a connection does, every thread does by itself. What is done to a whole
machine, such as to lose its packets, is done once, when all have come there:
none is ahead of it, and none behind. With several networks each number plays in
each of them: what takes long is waiting, and all wait at the same time.
"""

import argparse
import contextlib
import faulthandler
import os
import shlex
import sys
import threading
import time
import traceback

from machines import HERE, IPV4, IPV6

# How many seconds a scenario may take.
PATIENCE = 240
_here = threading.local()


class Crowd:
    """`numbers` threads in each of the networks; how a scenario went, when they have ended."""

    def __init__(self, numbers, patience, first=0, networks=(HERE,)):
        self.patience, self.networks = patience, networks
        self.places = [(number, network) for number in range(first, first + numbers) for network in networks]
        self.count = count = len(self.places)
        self.barrier = threading.Barrier(count)
        self.given, self.answer = [None] * count, None
        self.undo = []  # what is done to machines at the moment, and how it ends
        self.notes = [[] for _ in range(count)]
        self.failure = None  # of the first that failed, and what it had noted

    def play(self, function, arguments):
        """Whether it went well for all."""
        threads = [threading.Thread(target=self._part, args=(index, function, arguments), daemon=True)
                   for index in range(self.count)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + self.patience
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            # Nothing ends a thread but the end of the program.
            print("it hangs:", flush=True)
            faulthandler.dump_traceback(sys.stdout)
            os._exit(1)
        for undo in reversed(self.undo):
            try:
                undo()
            except Exception:  # pylint: disable=broad-except
                self.failure = self.failure or traceback.format_exc().rstrip()
        return self.failure is None

    def _part(self, index, function, arguments):
        _here.crowd, _here.index = self, index
        try:
            function(*arguments)
        except threading.BrokenBarrierError:
            pass  # another one has failed
        except BaseException:  # pylint: disable=broad-except
            if self.failure is None:
                self.failure = "\n".join(self.notes[index] + [traceback.format_exc().rstrip()])
            self.barrier.abort()


def number():
    """Which one this is; no other one in its network has the number, nor had it in a crowd before."""
    return _here.crowd.places[_here.index][0]


def network():
    """Where this one is."""
    return _here.crowd.places[_here.index][1]


def networks():
    """Where they all are."""
    return _here.crowd.networks


def size():
    """How many there are."""
    return _here.crowd.count


def note(text):
    """For people, if this one fails."""
    _here.crowd.notes[_here.index].append(text)


def once(function, given=None):
    """When all have come here, one calls the function with a list of what each has given; all get what it returns."""
    crowd = _here.crowd
    crowd.given[_here.index] = given
    crowd.barrier.wait()
    if _here.index == 0:
        crowd.answer = function(list(crowd.given))
    crowd.barrier.wait()
    return crowd.answer


@contextlib.contextmanager
def meanwhile(change, given=None):
    """change(list of what each has given) does something to a machine and returns what undoes it."""
    undo = once(lambda everything: _begin(change(everything)), given)
    yield
    # Where one has failed, the crowd undoes it when all have ended.
    once(lambda _: _end(undo))


def _begin(undo):
    _here.crowd.undo.append(undo)
    return undo


def _end(undo):
    _here.crowd.undo.remove(undo)
    undo()


def until_the_end(undo):
    """What is to be done when all have ended."""
    _here.crowd.undo.append(undo)


def succeeds(function, arguments, times, beside, where):
    """Whether a scenario goes well that many times in each network, so many of them beside each other; what went wrong is
    told."""
    start, left = time.monotonic(), times
    while left:
        numbers = min(left, beside)
        several = Crowd(numbers, PATIENCE, times - left, where)
        if not several.play(function, arguments):
            print(f"# after {times - left} of {times}:\n# " + several.failure.replace("\n", "\n# "))
            return False
        left -= numbers
    print(f"# {', '.join(several.notes[0])}; {times} in {time.monotonic() - start:.1f} s")
    return True


def main(scenarios):
    """Reads lines "TEXT: SCENARIO [ARGUMENT...]", plays each scenario --times N where lib.sh's cluster() is, --beside M
    of them at the same time (with --both over IPv4, and as many over IPv6), and answers each line with "ok TEXT" or "not ok
    TEXT". Lines that begin with "#" are for people. One process for all of them: starting one is dear where the processor
    is emulated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--beside", type=int, default=10)
    parser.add_argument("--both", action="store_true")
    args = parser.parse_args()
    where = (IPV4, IPV6) if args.both else (HERE,)
    for line in sys.stdin:
        text, _, words = line.rstrip("\n").rpartition(": ")
        name, *arguments = shlex.split(words)
        good = succeeds(scenarios[name], arguments, args.times, args.beside, where)
        print("ok" if good else "not ok", text, flush=True)
