"""A run's folder kept up to date while it trains."""

from __future__ import annotations

from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.loop import Callback, Training
from actrelax.simulations.training.signals import Stop, Stopped


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
        # a signal may have reached some processes only, or between two batches: they stop after the same one
        signal_number = int(training.processes.largest(self.stop.signal_number))
        if signal_number:
            self.check.look(training)
            self._save(training)
            raise Stopped(
                f"stopped after {training.batch} of {len(training.batches)} batches of epoch {training.epoch + 1}: "
                f"continue with actrelax train --resume {self.folder.path}",
                signal_number,
            )
        if self.every and training.done % self.every == 0:
            self.check.look(training)
            self._save(training)

    def on_epoch(self, training: Training) -> None:
        self._save(training)

    def _save(self, training: Training) -> None:
        state = training.state_dict()
        if training.processes.is_first:
            self.folder.write_tables(training.tables)
            self.folder.write_checkpoint(state)
        training.processes.wait()  # a disk may be slow
