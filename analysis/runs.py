"""A run's folder, in one definition: what simulations write and analysis reads."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from actrelax.models.errors import ActrelaxError

SUMMARY, METRICS = "summary.json", "metrics.csv"


@dataclass(frozen=True)
class Summary:
    """The outcome of one training run; accuracies lie in [0, 1]. The names are stable: scripts depend on them."""

    test_accuracy: float
    train_accuracy: float
    rule: str
    assumptions: str
    dataset: str
    network: str
    epochs: int
    seed: int
    wall_seconds: float
    images_per_second: float
    device: str
    versions: Mapping[str, str]


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("actrelax", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def write_run(folder: Path, summary: Summary, metrics: Sequence[Mapping[str, float]]) -> None:
    """Write summary.json and metrics.csv, a row per epoch; each file is replaced as a whole or not at all.

    Raises
    ------
    ActrelaxError
        If the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{METRICS}.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(metrics[0]))
            writer.writeheader()
            writer.writerows(metrics)
        os.replace(partial, folder / METRICS)
        partial = folder / f"{SUMMARY}.partial"
        partial.write_text(json.dumps(asdict(summary), indent=2) + "\n")
        os.replace(partial, folder / SUMMARY)
    except OSError as error:
        raise ActrelaxError(f"can't write to {folder}: {error.strerror}.") from error


def read_run(folder: Path) -> tuple[Summary, list[dict[str, float]]]:
    """Read what `write_run` wrote.

    Raises
    ------
    ActrelaxError
        If the folder holds no finished run.
    """
    try:
        found = json.loads((folder / SUMMARY).read_text())
        with (folder / METRICS).open(newline="") as file:
            metrics = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return Summary(**{field.name: found[field.name] for field in fields(Summary)}), metrics
    except (OSError, ValueError, KeyError) as error:
        raise ActrelaxError(f"{folder} holds no finished run: {SUMMARY} or {METRICS} can't be read.") from error
