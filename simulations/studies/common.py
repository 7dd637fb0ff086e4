"""Common parts of the studies: their folder, their reports, and training with measurements."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from actrelax import Network
from actrelax.analysis.files import write_text
from actrelax.models.learning import Rule
from actrelax.simulations.data import Dataset
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.assemble import assemble, load_images
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.state import Training

OUT = Path("runs/studies")
"""Folder for figures and numbers; docs/figures/findings and results/studies hold copies."""

DIGITS = varied(Experiment(), {"dataset": "digits", "batch_size": 64})
"""Training on the digits, with 23 batches per epoch."""

EXECUTION = Execution(threads=1, compile="no")
"""Execution without compilation, which would take longer than a training on the digits."""


def report(path: Path, numbers: Mapping[str, Any], *lines: str) -> None:
    """Print lines, and write numbers, rounded to 6 significant digits, and the last line as JSON.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    write_text(path, json.dumps({**_rounded(numbers), "last line": lines[-1]}, indent=1) + "\n")
    print("\n".join(lines))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {f"{key:g}" if isinstance(key, float) else str(key): _rounded(x) for key, x in value.items()}
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def trained(
    experiment: Experiment,
    *callbacks: Callback,
    data: Dataset | None = None,
    execution: Execution = EXECUTION,
    rule: Rule | None = None,
) -> Network:
    """Train an experiment and return its network; `data` and `rule` replace the experiment's own."""
    training = assemble(experiment, execution, data=data).training
    training.rule = rule or training.rule
    train(training, callbacks)
    return training.network


Measure = Callable[[Training, Options], Mapping[str, float]]


def followed(
    base: Experiment,
    conditions: Mapping[str, Options],
    measure: Measure,
    seeds: int,
    execution: Execution = EXECUTION,
    interventions: Mapping[str, Callback] | None = None,
) -> pd.DataFrame:
    """Train under each condition with each seed, and measure before the first and after every epoch.

    `interventions` maps conditions to callbacks that change their training.

    Returns
    -------
    pandas.DataFrame
        Columns condition, seed, epoch, "accuracy" on the test images, from 0 to 1, and the columns of `measure`.
    """
    rows: list[dict[str, Any]] = []
    data = load_images(base.images)
    for condition, options in conditions.items():
        changes = [each for name, each in (interventions or {}).items() if name == condition]
        for seed in range(seeds):
            look = _Look(rows, {"condition": condition, "seed": seed}, measure, options)
            trained(varied(base, {**options, "seed": seed}), *changes, look, data=data, execution=execution)
    return pd.DataFrame(rows)


class _Look(Callback):
    """Callback that adds a row before the first and after every epoch."""

    def __init__(self, rows: list[dict[str, Any]], key: Mapping[str, Any], measure: Measure, options: Options) -> None:
        self.rows, self.key, self.measure, self.options = rows, key, measure, options

    def on_start(self, training: Training) -> None:
        self.on_epoch(training)

    def on_epoch(self, training: Training) -> None:
        row = {"epoch": training.epoch, "accuracy": training.tables["metrics"][-1]["test_accuracy"]}
        self.rows.append({**self.key, **row, **self.measure(training, self.options)})


def by(rows: pd.DataFrame, position: str, column: str) -> dict[float, list[float]]:
    """Return position -> values of a column over the seeds, without missing values."""
    groups = rows.dropna(subset=column).groupby(position, sort=False)[column]
    return {float(at): list(values) for at, values in groups}


def mean_and_range(values: Sequence[float]) -> dict[str, float]:
    """Return mean, least and most."""
    return {"mean": fmean(values), "least": min(values), "most": max(values)}


def curves(rows: pd.DataFrame, column: str) -> dict[str, dict[float, list[float]]]:
    """Return condition -> epoch -> values of a column over the seeds, for `figures.over_epochs`."""
    return {str(name): by(of, "epoch", column) for name, of in rows.groupby("condition", sort=False)}


def at_epoch(rows: pd.DataFrame, epoch: int) -> dict[str, float]:
    """Return means over the seeds after an epoch; accuracy in percent."""
    means = rows[rows["epoch"] == epoch].drop(columns=["seed", "epoch"]).mean(numeric_only=True)
    return {**means, "accuracy": 100 * means["accuracy"]}
