"""Clean termination of a program by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(KeyboardInterrupt):
    """Raised when a signal has stopped a run, after its checkpoint was saved; the message is one sentence."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class AbandonedError(Exception):
    """Raised when another process of the run has ended; the message is one sentence."""


@dataclass
class Stop:
    """Number of the signal that requests a stop; 0 if there is none yet."""

    signal_number: int = 0


_OPEN: list[Stop] = []
"""Stops of the open blocks, innermost last."""


@contextmanager
def stopping_cleanly(patiently: bool = False) -> Iterator[Stop]:
    """Record the first Ctrl-C or SIGTERM instead of ending at once; a second signal takes effect.

    With `patiently`, further signals are recorded, too: torchrun repeats signals that a cluster has already sent to
    each process, and kills slow processes itself. Signals reach the main thread only, so other threads record none. A
    nested block starts with the signal of the outer block.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if _OPEN:
        stop.signal_number = _OPEN[-1].signal_number
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # signals that the caller ignores stay ignored, as for background jobs of a shell
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
