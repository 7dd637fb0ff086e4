"""A run's folder kept up to date while it trains, and a clean end when it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.loop import Callback, Training


class Stopped(KeyboardInterrupt):
    """A signal stopped the run, which left a checkpoint; the message is one sentence."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


@dataclass
class Stop:
    """The signal that asks to stop, 0 for none yet."""

    signal_number: int = 0


@contextmanager
def stopping_cleanly() -> Iterator[Stop]:
    """Collect the first Ctrl-C or SIGTERM instead of dying of it; the second acts at once.

    Signals come to the main thread only; in another one nothing is collected.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        for each, handler in earlier.items():
            signal.signal(each, handler)

    for number in earlier:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class Recorder(Callback):
    """Write tables and checkpoint after each epoch, every so many batches, and when told to stop.

    Nothing is saved before it was found sound.

    Parameters
    ----------
    folder : RunFolder
    check : DivergenceCheck
    stop : Stop
    every : int, optional
        Batches between two checkpoints.

    Raises
    ------
    Stopped
        From `on_batch`, once a signal came.
    """

    def __init__(self, folder: RunFolder, check: DivergenceCheck, stop: Stop, every: int | None = None) -> None:
        self.folder, self.check, self.stop, self.every = folder, check, stop, every

    def on_start(self, training: Training) -> None:
        self._save(training)

    def on_batch(self, training: Training) -> None:
        if self.stop.signal_number:
            self.check.look(training)
            self._save(training)
            raise Stopped(
                f"stopped after {training.batch} of {len(training.batches)} batches of epoch {training.epoch + 1}: "
                f"continue with actrelax train --resume {self.folder.path}",
                self.stop.signal_number,
            )
        if self.every and training.batch % self.every == 0:
            self.check.look(training)
            self._save(training)

    def on_epoch(self, training: Training) -> None:
        self._save(training)

    def _save(self, training: Training) -> None:
        self.folder.write_tables(training.tables)
        self.folder.write_checkpoint(training.state_dict())
