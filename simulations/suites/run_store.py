"""Where runs are kept: a folder for each experiment, so that no run is ever done twice.

FOLDER/DATASET-NETWORK-CONDITION-seedN-HASH/        the run (`analysis.runs`), or why it has none: diverged.json
FOLDER/.locks/HASH                                  held by whoever does the run
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from actrelax.analysis.files import exists, locked
from actrelax.analysis.fingerprints import verify
from actrelax.analysis.runs import RunFolder, State
from actrelax.simulations.training.configuration import hash_of
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.run import Recording
from actrelax.simulations.training.user_code import fingerprint


@dataclass(frozen=True)
class Kept:
    """One run's place.

    root        folder of all runs
    experiment  with absolute paths (`Experiment.resolved`)
    execution   how it will be computed; no part of its hash
    accept_changes  whether it may go on, or be reported, although its inputs have changed
    """

    root: Path
    experiment: Experiment
    execution: Execution
    accept_changes: bool = False

    @property
    def hash(self) -> str:
        """What identifies the experiment (`hash_of`)."""
        return hash_of(self.experiment)

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
        if self.state is State.OPEN or not exists(self.folder.path / "metrics.csv"):
            return 0
        return max(0, len(self.folder.table("metrics")) - 1)

    def check_files(self) -> None:
        """Refuse a run whose network's file has changed since."""
        files = fingerprint(self.experiment.model.network)
        if files and self.folder.is_begun():
            verify(self.folder, {"files": files}, accept_changes=self.accept_changes)

    def recording(self, *, resume: bool = False) -> Recording:
        """Return how it is done, anew or from its checkpoint; its own network is one that the command has named."""
        if not resume:
            return Recording(out=self.folder.path, overwrite=True, quiet=True)
        named, accept = self.experiment.model.network, self.accept_changes
        return Recording(resume=self.folder.path, quiet=True, network=named, accept_changes=accept)

    def held(self) -> AbstractContextManager[bool]:
        """Hold the run against other processes, in a `with` block; False where another one holds it."""
        return locked(self.root / ".locks" / self.hash, wait=False)
