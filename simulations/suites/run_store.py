"""Store of runs: one folder per experiment, so that each run is done only once.

FOLDER/DATASET-NETWORK-CONDITION-seedN-HASH/        the run (`analysis.runs`), with diverged.json if it diverged
FOLDER/.locks/HASH                                  lock held by the process that does the run
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
    """Entry of the store: one run.

    root            folder of all runs
    experiment      experiment with absolute paths (`Experiment.resolved`)
    execution       options of the computation, which do not enter the hash
    accept_changes  continue and report the run even if its inputs have changed
    """

    root: Path
    experiment: Experiment
    execution: Execution
    accept_changes: bool = False

    @property
    def hash(self) -> str:
        """Hash of the experiment (`hash_of`)."""
        return hash_of(self.experiment)

    @property
    def folder(self) -> RunFolder:
        """Folder of the run."""
        return RunFolder(self.root / re.sub(r"[^\w.-]", "_", f"{self.experiment.name}-{self.hash}"))

    @property
    def state(self) -> State:
        """State of the run."""
        return self.folder.state

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        if self.state is State.OPEN or not exists(self.folder.path / "metrics.csv"):
            return 0
        return max(0, len(self.folder.table("metrics")) - 1)

    def check_files(self) -> None:
        """Raise an error if the file of the run's network has changed since the run began."""
        files = fingerprint(self.experiment.model.network)
        if files and self.folder.is_begun():
            verify(self.folder, {"files": files}, accept_changes=self.accept_changes)

    def recording(self, *, resume: bool = False) -> Recording:
        """Return the recording options of a new run, or of one that resumes from its checkpoint.

        A resumed run may load the user's network file, because the command line names that file.
        """
        if not resume:
            return Recording(out=self.folder.path, overwrite=True, quiet=True)
        named, accept = self.experiment.model.network, self.accept_changes
        return Recording(resume=self.folder.path, quiet=True, network=named, accept_changes=accept)

    def held(self) -> AbstractContextManager[bool]:
        """Lock the run against other processes, in a `with` block that yields False if another process holds it."""
        return locked(self.root / ".locks" / self.hash, wait=False)
