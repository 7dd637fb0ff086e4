"""The files of a run, written while it trains."""

from __future__ import annotations

from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.loop import Callback, Training
from actrelax.simulations.training.signals import Stop, Stopped


class KeepBest(Callback):
    """Keep the network of the epoch with the best validation accuracy; stands before the `Recorder` of the run.

    A run that is killed between the two repeats the epoch.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_epoch(self, training: Training) -> None:
        if training.best_epoch == training.epoch:
            state = training.state_dict()
            if training.processes.is_first:
                kept = {name: state[name] for name in ("network", "images")}
                self.folder.write_best({**kept, "epoch": training.epoch})


class Recorder(Callback):
    """Write tables and checkpoint after each epoch, every `every` batches, and after a signal, which raises `Stopped`.

    Only a training that passes the check is saved. `program` continues the run, as the message of `Stopped` says.
    """

    def __init__(
        self, folder: RunFolder, check: DivergenceCheck, stop: Stop, every: int | None = None, program: str = "train"
    ) -> None:
        self.folder, self.check, self.stop, self.every, self.program = folder, check, stop, every, program

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
                f"continue with actrelax {self.program} --resume {self.folder.path}",
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
