"""Where a run is kept, and how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import tyro

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.options import require


@dataclass(frozen=True)
class Recording:
    """What is kept of a run, and how often; nothing here changes its result."""

    out: Path | None = None
    """Folder of the run; runs/DATASET-NETWORK-CONDITION-seedN unless given."""
    resume: Path | None = None
    """Continue the run in this folder; its options are taken from there, and only more --epochs may be given."""
    overwrite: bool = False
    """Replace a run that is in --out already."""
    trust: bool = False
    """With --resume: run the Python file that the run names; or name your own copy by --network FILE.py:FUNCTION."""
    accept_changes: bool = False
    """With --resume: go on although files, images or weights have changed."""
    network: tyro.conf.Suppress[str | None] = None
    """With --resume: the --network that was given beside it."""
    checkpoint_every: int | None = None
    """Batches between two checkpoints; without it one is saved at the end of each epoch."""
    read_every: int = 50
    """Batches between two checks of loss, accuracy and finiteness; each check waits for the device."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""
    quiet: bool = False
    """Leave out the line per epoch on standard error, and what it says of options without an effect."""
    json: bool = False
    """Print the summary as JSON, and nothing else, on standard output."""

    def folder_of(self, experiment: Experiment) -> Path:
        """Return where the run is, or will be."""
        return self.resume or self.out or Path("runs") / experiment.name

    def check(self) -> None:
        """Refuse numbers out of range and options that exclude each other."""
        require(checkpoint_every=(self.checkpoint_every, 1, math.inf), read_every=(self.read_every, 1, math.inf))
        if self.resume is None and (self.trust or self.accept_changes):
            raise ActrelaxError("--trust and --accept-changes are for a run that is resumed: leave them out.")
        if self.resume is not None and (self.out is not None or self.overwrite):
            raise ActrelaxError("--resume continues a run in its folder: leave --out and --overwrite out.")
