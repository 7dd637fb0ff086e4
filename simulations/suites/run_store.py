"""Where runs are kept: a folder for each configuration, so that no run is ever done twice.

FOLDER/DATASET-NETWORK-CONDITION-seedN-HASH/        the run (`analysis.runs`), or why it has none: diverged.json
FOLDER/.locks/HASH                                  held by whoever does the run
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from actrelax.analysis.files import locked
from actrelax.analysis.runs import RunFolder, State
from actrelax.simulations.training.experiment import LATER, REMOVED, RENAMED, Experiment, as_options

ADDED = ("tau_spread_over",)
"""Options that are newer than results that are kept: what these did is no part of what tells a run from others."""


@dataclass(frozen=True)
class Kept:
    """One run's place.

    root        folder of all runs
    experiment  resolved: what it will be on this machine
    """

    root: Path
    experiment: Experiment

    @property
    def hash(self) -> str:
        """What tells it from runs with other options, wherever their data lie."""
        options = REMOVED | as_options(self.experiment) | {"data_dir": None}  # the hashes of kept results include them
        options = {
            RENAMED.get(name, name): value
            for name, value in options.items()
            if name not in ADDED or value != LATER[name]
        }
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.root / re.sub(r"[^\w.-]", "_", f"{self.experiment.name}-{self.hash}"))

    @property
    def state(self) -> State:
        """How far it is."""
        return self.folder.state

    @property
    def epochs(self) -> int:
        """How many are done."""
        if self.state is State.OPEN or not (self.folder.path / "metrics.csv").exists():
            return 0
        return max(0, len(self.folder.table("metrics")) - 1)

    def held(self) -> AbstractContextManager[bool]:
        """Hold the run against other processes, in a `with` block; False where another one holds it."""
        return locked(self.root / ".locks" / self.hash, wait=False)
