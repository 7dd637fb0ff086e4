"""A clean end when a program is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal stopped the run, which left a checkpoint; the message is one sentence."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class AbandonedError(Exception):
    """Another process of this run has ended; the message is one sentence."""


@dataclass
class Stop:
    """The signal that asks to stop, 0 for none yet."""

    signal_number: int = 0


_OPEN: list[Stop] = []
"""Those of the blocks that are open."""


@contextmanager
def stopping_cleanly(patiently: bool = False) -> Iterator[Stop]:
    """Collect the first Ctrl-C or SIGTERM instead of dying of it; the second acts at once, or patiently not at all.

    Patience is for a process that somebody else kills where it takes too long, and may signal more than once: torchrun
    repeats what a cluster has sent to each process already.

    Signals come to the main thread only; in another one nothing is collected. A block inside another begins with what
    that one has collected.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if _OPEN:
        stop.signal_number = _OPEN[-1].signal_number
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # what the caller ignores, as a shell does for its background jobs, stays ignored
    earlier = {number: handler for number, handler in earlier.items() if handler is not signal.SIG_IGN}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        if not patiently:
            for each, handler in earlier.items():
                signal.signal(each, handler)

    for number in earlier:
        signal.signal(number, handle)
    _OPEN.append(stop)
    try:
        yield stop
    finally:
        _OPEN.pop()
        for number, handler in earlier.items():
            signal.signal(number, handler)
