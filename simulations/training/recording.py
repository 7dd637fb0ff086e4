"""Options of a run's folder and files."""

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
    """Options of a run's files, which do not change its result."""

    out: Path | None = None
    """Folder of the run. Default: runs/DATASET-NETWORK-CONDITION-seedN."""
    resume: Path | None = None
    """Continue the run in this folder, with its options; only --epochs may be increased."""
    overwrite: bool = False
    """Replace an existing run in --out."""
    trust: bool = False
    """With --resume: allow the Python file of the run's network to be executed; alternatively, give your copy as
    --network FILE.py:FUNCTION."""
    accept_changes: bool = False
    """With --resume: continue even if files, images or weights have changed."""
    network: tyro.conf.Suppress[str | None] = None
    """With --resume: the --network given with it."""
    checkpoint_every: int | None = None
    """Number of batches between checkpoints. Default: one checkpoint after each epoch."""
    read_every: int = 50
    """Number of batches between checks of loss, accuracy and finiteness; each check waits for the device."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""
    quiet: bool = False
    """Print no line per epoch and no remarks on options without an effect on standard error."""
    json: bool = False
    """Print only the summary, as JSON, on standard output."""

    def folder_of(self, experiment: Experiment) -> Path:
        """Return the folder of the run."""
        return self.resume or self.out or Path("runs") / experiment.name

    def check(self) -> None:
        """Raise an error for values out of range and incompatible options."""
        require(checkpoint_every=(self.checkpoint_every, 1, math.inf), read_every=(self.read_every, 1, math.inf))
        if self.resume is None and (self.trust or self.accept_changes):
            raise ActrelaxError("--trust and --accept-changes need --resume: give --resume, or leave them out.")
        if self.resume is not None and (self.out is not None or self.overwrite):
            raise ActrelaxError("--resume continues a run in its folder: leave --out and --overwrite out.")
