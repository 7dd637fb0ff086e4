"""Files of a run, written during training."""

from __future__ import annotations

from actrelax.analysis.fingerprints import Fingerprints, verify, verify_checkpoint
from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.callbacks import DivergenceCheck
from actrelax.simulations.training.loop import Callback
from actrelax.simulations.training.signals import Stop, Stopped
from actrelax.simulations.training.state import Training


def restore(training: Training, folder: RunFolder, inputs: Fingerprints, *, accept_changes: bool = False) -> bool:
    """Load a run's checkpoint, and return whether there was one.

    Raises
    ------
    ActrelaxError
        If the checkpoint belongs to another run, or the run's inputs have changed.
    """
    verify(folder, inputs, accept_changes=accept_changes)
    state = folder.checkpoint()
    if state is not None:
        verify_checkpoint(folder, state, accept_changes=accept_changes)
        with folder.fitting():
            training.load_state_dict(state)
    return state is not None


class KeepBest(Callback):
    """Callback that saves the network with the best validation accuracy.

    It must precede the run's `Recorder`, so that a run killed between the two repeats the epoch. `run` is the mark of
    the run's checkpoints, as for `Recorder`.
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
    """Callback that saves tables and checkpoint after each epoch, every `every` batches, and after a signal.

    Only a training that passes `check` is saved. A signal raises `Stopped`, whose message contains `again`, the command
    that continues the run. `run` is the mark of the run's checkpoints (`fingerprints.identity`).
    """

    def __init__(
        self, folder: RunFolder, check: DivergenceCheck, stop: Stop, every: int | None = None, *, again: str, run: str
    ) -> None:
        self.folder, self.check, self.stop, self.every, self.again, self.run = folder, check, stop, every, again, run

    def on_start(self, training: Training) -> None:
        self._save(training)

    def on_batch(self, training: Training) -> None:
        # all processes stop after the same batch, even if the signal reached only some of them
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
        training.processes.wait()  # for the first process, whose disk may be slow
