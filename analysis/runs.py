"""Folder of a run, written by simulations and read by analysis.

config.json     version; experiment: the options that determine the result; execution: how it is computed
fingerprints.json  SHA-256 of the inputs (`analysis.fingerprints`)
metrics.csv     one row per epoch, beginning with the untrained network: results that the seed determines
alignment.csv   one row per measurement of the angle to backprop's gradient, with --measure-alignment
timing.csv      one row per epoch: seconds, images per second
best.pt         network with the best validation accuracy, with --validation
checkpoint.pt   state of the training: weights, optimiser, schedule, random state, tables
summary.json    outcome of a finished run
diverged.json   reason of the divergence of a suite's run
figures/        learning curves
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from actrelax.analysis.files import exists, read_json, replacing, require_places, write_text
from actrelax.analysis.summary import Summary, parsed
from actrelax.analysis.tables import read_csv, write_csv
from actrelax.models.errors import ActrelaxError

Rows = Sequence[Mapping[str, float]]
TABLES = ("metrics", "alignment", "timing")
COLUMNS = {
    "metrics": ("epoch", "train_accuracy", "test_accuracy"),
    "alignment": ("epoch", "batch"),
    "timing": ("train_seconds", "evaluate_seconds"),
}
"""Table -> required columns."""
VERSION = 3
"""Version of the format of config.json."""
PARTS = frozenset({"experiment", "execution"})
"""Keys of the config.json of a training, in any version of its format."""
CONFIG, CHECKPOINT, SUMMARY, DIVERGED = "config.json", "checkpoint.pt", "summary.json", "diverged.json"
BEST = "best.pt"
FINGERPRINTS = "fingerprints.json"
LEARNING_CURVES, PLASTICITY = "figures/learning-curves.png", "figures/plasticity.png"
FILES = (SUMMARY, DIVERGED, CHECKPOINT, BEST, *(f"{table}.csv" for table in TABLES), FINGERPRINTS, CONFIG)
"""Files of a run in the order of their removal; the configuration, which marks the run as begun, is the last."""


class State(StrEnum):
    """State of a run."""

    OPEN = "open"
    BEGUN = "begun"
    FINISHED = "finished"
    DIVERGED = "diverged"

    @property
    def is_final(self) -> bool:
        """True if the run has finished or diverged."""
        return self in (State.FINISHED, State.DIVERGED)


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return option -> value of a training's config.json, merging experiment and execution."""
    return {**config["experiment"], **config["execution"]}


@dataclass(frozen=True)
class RunFolder:
    """Files of one run, each of which is replaced atomically.

    An `ActrelaxError` names the file that can't be read or written, and the reason.
    """

    path: Path

    @property
    def figures(self) -> Path:
        """Folder of the run's figures."""
        return self.path / "figures"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    def is_begun(self) -> bool:
        """Return whether the folder holds a run."""
        return exists(self.path / CONFIG)

    def is_finished(self) -> bool:
        """Return whether the folder holds a finished run."""
        return exists(self.path / SUMMARY)

    @property
    def state(self) -> State:
        """State of the run."""
        if self.is_finished():
            return State.FINISHED
        if exists(self.path / DIVERGED):
            return State.DIVERGED
        return State.BEGUN if self.is_begun() else State.OPEN

    def check_begin(
        self,
        options: Mapping[str, Any],
        resumed: Mapping[str, Any] | None,
        *,
        overwrite: bool = False,
        may_differ: Collection[str] = (),
    ) -> None:
        """Check that a run may begin or be resumed with the given options.

        Parameters
        ----------
        options : mapping
            Given options.
        resumed : mapping or None
            Options of the resumed run; None for a new run.
        overwrite : bool, default False
            Allow a new run to replace an existing one.
        may_differ : collection of str, optional
            Options that a resumed run may change.

        Raises
        ------
        ActrelaxError
            If a new run would replace another, or files that no run of this program wrote, or the options differ from
            the resumed run's.
        """
        self._check_places()
        if resumed is not None and overwrite:
            raise ActrelaxError("--resume continues a run in its folder: leave --overwrite out.")
        if resumed is None:
            if self._holds_run(options) and not overwrite:
                raise ActrelaxError(
                    f"{self.path} holds a run: --resume {self.path} continues it, --overwrite replaces it."
                )
            return
        for name, stored in resumed.items():
            if name not in may_differ and options[name] != stored:
                option = name.replace("_", "-")
                if stored in (None, []):
                    raise ActrelaxError(
                        f"{self.path} is a run without --{option}: leave the option out, or begin another run."
                    )
                raise ActrelaxError(
                    f"{self.path} is a run with --{option} {stored}, not {options[name]}: "
                    "leave the option out, or begin another run."
                )

    def _holds_run(self, options: Mapping[str, Any]) -> bool:
        """Return whether the folder holds a run of the program with these options; refuse files of any other origin."""
        keys = {name: self._keys(name) for name in (CONFIG, FINGERPRINTS)}
        if keys[CONFIG] >= PARTS or keys[CONFIG] == options.keys():
            return True
        found = [name for name in (*FILES, LEARNING_CURVES, PLASTICITY) if exists(self.path / name)]
        if found == [FINGERPRINTS] and "options" in keys[FINGERPRINTS]:  # of a run that was killed as it began
            return False
        if found:
            raise ActrelaxError(
                f"{self.path} holds no run that this program can read, but files that a run would replace "
                f"({', '.join(found)}): give another --out, or move the files away."
            )
        return False

    def _keys(self, name: str) -> Set[str]:
        """Return the keys of one of the run's JSON files; none if it can't be read."""
        try:
            return self._read_json(name, "").keys()
        except ActrelaxError:
            return frozenset()

    def _check_places(self) -> None:
        """Raise an error if a folder has the name of one of the run's files, or a file the name of a folder."""
        for path in (self.figures, self.tensorboard):
            if exists(path) and not path.is_dir():
                raise ActrelaxError(f"can't write to {path}: Not a directory.")
        drawn = self.figures.glob("*.png") if exists(self.figures) else ()
        require_places(*(self.path / name for name in FILES), *drawn)

    def clear(self) -> None:
        """Delete the files of a run that `check_begin` has allowed a new one to replace, and no others."""
        if not self.is_begun():
            return
        try:
            for name in (*FILES, LEARNING_CURVES, PLASTICITY):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.tensorboard, ignore_errors=True)
        except OSError as error:
            raise ActrelaxError(f"can't remove the run in {self.path}: {error.strerror}.") from error

    def write_config(self, options: Mapping[str, Any]) -> None:
        """Write config.json, which marks the run as begun."""
        self._write_json(CONFIG, options)

    def lengthen(self, options: Mapping[str, Any]) -> None:
        """Delete the summary of a finished run that continues, and write its new options."""
        try:
            (self.path / SUMMARY).unlink(missing_ok=True)
        except OSError as error:
            raise ActrelaxError(f"can't remove {self.path / SUMMARY}: {error.strerror}.") from error
        self.write_config(options)

    def config(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return self._read_json(CONFIG, "no run")

    def training_config(self) -> dict[str, Any]:
        """Return the options of a training: "version", "experiment" and "execution".

        Raises
        ------
        ActrelaxError
            If another program, or an incompatible version, wrote the run.
        """
        config = self.config()
        if missing := PARTS - config.keys():
            raise ActrelaxError(
                f"{self.path} is not a run of actrelax train: its {CONFIG} has no {' or '.join(sorted(missing))}."
            )
        if config.get("version") != VERSION:
            raise ActrelaxError(
                f"{self.path} holds no run of actrelax train that this version reads: its {CONFIG} has version "
                f"{config.get('version')}, not {VERSION}."
            )
        return config

    def write_tables(self, tables: Mapping[str, Rows]) -> None:
        """Write each table with rows as NAME.csv."""
        for name, rows in tables.items():
            if rows:
                columns = list(rows[0])
                write_csv(self.path / f"{name}.csv", columns, ([row[column] for column in columns] for row in rows))

    def table(self, name: str) -> list[dict[str, float]]:
        """Return the rows of NAME.csv."""
        said = f"{self.path} holds no table {name}"
        rows = read_csv(self.path / f"{name}.csv", COLUMNS[name], said)
        try:
            return [{key: float(value) for key, value in row.items()} for row in rows]
        except ValueError as error:
            raise ActrelaxError(f"{said}: {name}.csv can't be read.") from error

    def write_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save the state of a training."""
        with replacing(self.path / CHECKPOINT) as file:
            torch.save(dict(state), file)

    def write_best(self, state: Mapping[str, Any]) -> None:
        """Save the network with the best validation accuracy so far."""
        with replacing(self.path / BEST) as file:
            torch.save(dict(state), file)

    def checkpoint(self, *, best: bool = False) -> dict[str, Any] | None:
        """Return the last checkpoint, or the best network, on the CPU; None if it does not exist."""
        path = self.path / (BEST if best else CHECKPOINT)
        if not exists(path):
            return None
        try:
            with ZipFile(path) as file:
                if file.testzip() is not None:  # torch does not verify checksums
                    raise BadZipFile("wrong checksum")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes make zipfile and the unpickler raise nearly anything
            raise ActrelaxError(f"{path} is not a checkpoint, or is damaged: start the run again.") from error
        return state

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Convert exceptions from loading the checkpoint, inside the `with` block, into one sentence."""
        try:
            yield
        except Exception as error:
            raise ActrelaxError(f"{self.path / CHECKPOINT} belongs to another run: start the run again.") from error

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json, which marks the run as finished."""
        self._write_json(SUMMARY, asdict(summary))

    def summary(self) -> Summary:
        """Return the run's outcome."""
        return parsed(self._read_json(SUMMARY, "no finished run"), f"{self.path} holds no finished run: {SUMMARY}")

    def write_divergence(self, reason: str) -> None:
        """Write diverged.json, which marks the run as diverged."""
        self._write_json(DIVERGED, {"reason": reason})

    def divergence(self) -> str:
        """Return the reason of a run's divergence."""
        return str(self._read_json(DIVERGED, "no run that diverged").get("reason", ""))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_text(self.path / name, f"{json.dumps(content, indent=2)}\n")

    def _read_json(self, name: str, lacking: str) -> dict[str, Any]:
        return read_json(self.path / name, f"{self.path} holds {lacking}")
