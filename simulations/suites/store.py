"""Where runs are kept: a folder for each configuration, so that no run is ever done twice.

FOLDER/DATASET-NETWORK-CONDITION-seedN-HASH/        the run (`analysis.runs`), or why it has none: diverged.json
FOLDER/.locks/HASH                                  held by whoever does the run
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from actrelax.analysis.files import replacing
from actrelax.analysis.runs import RunFolder
from actrelax.simulations.training.experiment import Experiment, as_options

DIVERGED = "diverged.json"


class State(StrEnum):
    """How far a run is."""

    OPEN = "open"
    BEGUN = "begun"
    FINISHED = "finished"
    DIVERGED = "diverged"

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to do."""
        return self in (State.FINISHED, State.DIVERGED)


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
        options = as_options(self.experiment) | {"data_dir": None}
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        e = self.experiment
        rule = "backprop" if e.rule == "backprop" else e.relaxation.assumptions
        named = f"{Path(e.images.dataset).stem}-{Path(e.model.network).name}-{rule}-seed{e.seed}-{self.hash}"
        return RunFolder(self.root / re.sub(r"[^\w.-]", "_", named))

    @property
    def state(self) -> State:
        """How far it is."""
        if self.folder.is_finished():
            return State.FINISHED
        if (self.folder.path / DIVERGED).exists():
            return State.DIVERGED
        return State.BEGUN if self.folder.is_begun() else State.OPEN

    @property
    def epochs(self) -> int:
        """How many are done."""
        if self.state is State.OPEN or not (self.folder.path / "metrics.csv").exists():
            return 0
        return max(0, len(self.folder.table("metrics")) - 1)

    @property
    def reason(self) -> str:
        """Why a run that diverged did."""
        return str(json.loads((self.folder.path / DIVERGED).read_text())["reason"])

    def write_divergence(self, reason: str) -> None:
        """End it without an outcome."""
        with replacing(self.folder.path / DIVERGED) as file:
            file.write(f"{json.dumps({'reason': reason}, indent=2)}\n".encode())

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the run against other processes, in the block; False where another one holds it.

        The system lets go of what a killed process held.
        """
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / self.hash)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
