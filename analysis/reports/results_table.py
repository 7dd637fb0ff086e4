"""Outcomes of runs, and the two tables in which a suite keeps them.

runs.csv    one row per run: variant, condition, seed, state, last accuracies, versions and device
curves.csv  one row per run and epoch: loss, accuracies, mean angle to backprop's updates, stability if watched
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from actrelax.analysis.files import exists, locked, write_text
from actrelax.analysis.runs import RunFolder, State
from actrelax.analysis.summary import Summary
from actrelax.analysis.tables import read_csv, write_csv
from actrelax.models.errors import ActrelaxError

RUNS, CURVES = "runs.csv", "curves.csv"
_CURVE = {
    "epoch": "epoch",
    "train_loss": "train_loss",
    "train_accuracy": "train_accuracy",
    "validation_accuracy": "validation_accuracy",
    "test_accuracy": "test_accuracy",
    "angle": "angle mean",
    "unsettled_share": "unsettled share",
    "abscissa_forward": "abscissa forward",
    "abscissa_backward": "abscissa backward",
}
"""Column -> column of metrics.csv; columns without any value are left out."""


Key = tuple[str, str, str]
"""Variant, condition, run."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run.

    run           hash that identifies the run
    state         finished, diverged, begun or open
    reason        reason of a divergence, or ""
    wall_seconds  time of training and evaluation, in seconds
    curves        column -> one value per epoch so far, beginning with the untrained network
    made_with     versions, commit and device of a finished run, or ""
    """

    variant: str
    condition: str
    seed: int
    run: str
    state: State
    reason: str
    wall_seconds: float
    curves: Mapping[str, list[float]]
    made_with: str = ""

    def final_accuracy(self, of: str = "test") -> float:
        """Return the mean accuracy of the last epochs, in percent: the last 1 of up to 4, 3 of up to 29, else 5.

        `of` is "test", "train" or "validation"; nan if that accuracy was not measured. Averaging reduces the noise of
        single epochs at a constant learning rate.
        """
        last = 5 if self.epochs >= 30 else 3 if self.epochs >= 5 else 1
        found = self.curves.get(f"{of}_accuracy", [])[1:][-last:]  # without the untrained network
        return 100 * fmean(found) if found else math.nan

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return max(0, len(self.curves.get("epoch", [])) - 1)


def outcome_of(folder: RunFolder, condition: str, seed: int, run: str, variant: str = "") -> Outcome:
    """Read the outcome of a run, which may be unfinished.

    Raises
    ------
    ActrelaxError
        If its tables can't be read.
    """
    state, metrics = folder.state, folder.path / "metrics.csv"
    # a run that has only begun, or diverged at once, may have no table, or a table without rows
    rows = folder.table("metrics") if state is State.FINISHED or exists(metrics) else []
    if state is State.FINISHED and not rows:
        raise ActrelaxError(f"{folder.path} holds no finished run: metrics.csv has no rows.")
    curves = {column: [row[name] for row in rows] for column, name in _CURVE.items() if rows and name in rows[0]}
    timing = folder.table("timing") if len(rows) > 1 else []
    seconds = sum(row["train_seconds"] + row["evaluate_seconds"] for row in timing)
    reason = folder.divergence() if state is State.DIVERGED else ""
    made_with = _made_with(folder.summary()) if state is State.FINISHED else ""
    return Outcome(variant, condition, seed, run, state, reason, seconds, curves, made_with)


def _made_with(summary: Summary) -> str:
    return f"{', '.join(f'{name} {version}' for name, version in summary.versions.items())} on {summary.device}"


def read(folder: Path) -> dict[Key, Outcome]:
    """Return the outcomes in a results folder; none if it has no tables.

    Raises
    ------
    ActrelaxError
        If `write` did not write these tables.
    """
    if not exists(folder / RUNS):
        return {}
    said = f"{folder} holds no results that can be read"
    columns = {
        RUNS: ("variant", "condition", "seed", "run", "state", "reason", "wall_seconds"),
        CURVES: ("run", "epoch"),
    }
    try:  # runs.csv first, as curves.csv is written first
        runs, points = (read_csv(folder / name, columns[name], said) for name in (RUNS, CURVES))
        curves: dict[str, dict[str, list[float]]] = {}
        for point in points:
            curve = curves.setdefault(point["run"], {})
            for name, value in point.items():
                if name != "run" and value:  # an empty cell is no value
                    curve.setdefault(name, []).append(float(value))
        found = {}
        for row in runs:
            variant, condition, run, state = (row[name] for name in ("variant", "condition", "run", "state"))
            found[variant, condition, run] = Outcome(
                variant,
                condition,
                int(row["seed"]),
                run,
                State(state),
                row["reason"],
                float(row["wall_seconds"]),
                curves.get(run, {}) if state == State.DIVERGED.value else curves[run],
                row.get("made_with", ""),  # older tables have none
            )
            if State(state) is State.FINISHED and "test_accuracy" not in curves[run]:
                raise KeyError("test_accuracy")
    except (KeyError, ValueError) as error:
        why = f"{str(error).removesuffix('.')}, " if isinstance(error, ActrelaxError) else f"{said}: "
        raise ActrelaxError(f"{why}move {RUNS} and {CURVES} away.") from error
    return found


def held(folder: Path) -> AbstractContextManager[bool]:
    """Lock a results folder against other processes, in a `with` block."""
    return locked(folder / ".lock")


def add(folder: Path, outcomes: Mapping[Key, Outcome]) -> dict[Key, Outcome]:
    """Add outcomes to both tables, keeping rows of other processes, and return all outcomes.

    Raises
    ------
    ActrelaxError
        If the tables can't be read or written.
    """
    with held(folder):
        found = read(folder)
        if not outcomes.keys() <= found.keys():
            found |= outcomes
            write(folder, found.values())
    return found


def write(folder: Path, outcomes: Iterable[Outcome]) -> None:
    """Write both tables, each atomically."""
    import pandas  # slow to load

    outcomes = list(outcomes)
    columns = [column for column in _CURVE if any(column in o.curves for o in outcomes)]
    curves = {o.run: pandas.DataFrame(dict(o.curves)) for o in outcomes}  # conditions may share a run
    points = pandas.concat([curve.map("{:.6g}".format).assign(run=run) for run, curve in curves.items()])
    text = points.reindex(columns=["run", *columns]).to_csv(index=False, lineterminator="\n")
    write_text(folder / CURVES, text)
    last = [column for column in ("validation_accuracy", "test_accuracy", "train_accuracy") if column in columns]
    head = ["variant", "condition", "seed", "run", "state", *last, "wall_seconds", "reason", "made_with"]
    rows = []
    for o in outcomes:
        accuracies = [f"{o.curves[name][-1]:.6g}" if name in o.curves else "" for name in last]
        ended = [o.state, *accuracies, f"{o.wall_seconds:.1f}", o.reason, o.made_with]
        rows.append([o.variant, o.condition, o.seed, o.run, *ended])
    write_csv(folder / RUNS, head, rows)
