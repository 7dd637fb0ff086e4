"""The files of a run, written while it trains."""

from __future__ import annotations

from actrelax.analysis.fingerprints import Fingerprints, verify, verify_checkpoint
from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.loop import Callback, Training
from actrelax.simulations.training.signals import Stop, Stopped


def restore(training: Training, folder: RunFolder, inputs: Fingerprints, *, accept_changes: bool = False) -> bool:
    """Load a run's checkpoint; return whether there was one.

    Raises
    ------
    ActrelaxError
        If it is not the run's, or what the run depends on has changed.
    """
    verify(folder, inputs, accept_changes=accept_changes)
    state = folder.checkpoint()
    if state is not None:
        verify_checkpoint(folder, state, accept_changes=accept_changes)
        with folder.fitting():
            training.load_state_dict(state)
    return state is not None


class KeepBest(Callback):
    """Keep the network of the epoch with the best validation accuracy; stands before the `Recorder` of the run.

    A run that is killed between the two repeats the epoch. `run` is as in the `Recorder`.
    """

    def __init__(self, folder: RunFolder, run: str) -> None:
        self.folder, self.run = folder, run

    def on_epoch(self, training: Training) -> None:
        if training.best_epoch == training.epoch:
            state = training.state_dict()
            if training.processes.is_first:
                kept = {name: state[name] for name in ("network", "images")}
                self.folder.write_best({**kept, "epoch": training.epoch, "run": self.run})


class Recorder(Callback):
    """Write tables and checkpoint after each epoch, every `every` batches, and after a signal, which raises `Stopped`.

    Only a training that passes the check is saved. `again` are the words that continue the run, as the message of
    `Stopped` says; `run` marks its checkpoints (`fingerprints.identity`).
    """

    def __init__(
        self, folder: RunFolder, check: DivergenceCheck, stop: Stop, every: int | None = None, *, again: str, run: str
    ) -> None:
        self.folder, self.check, self.stop, self.every, self.again, self.run = folder, check, stop, every, again, run

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
                f"continue with actrelax {self.again}",
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
            self.folder.write_checkpoint({**state, "run": self.run})
        training.processes.wait()  # a disk may be slow
