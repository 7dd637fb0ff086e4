"""What learning stands: from trainings at several levels of a perturbation to a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from actrelax.analysis import figures
from actrelax.analysis.convergence import stays_below
from actrelax.analysis.tables import read_csv, write_csv

Scale = Literal["linear", "log", "symlog"]
"""Of an axis of levels; symlog: logarithmic from the smallest level on, with room for 0."""

Kind = Literal["angles", "predicted", "first"]

MAPPINGS: dict[Kind, str] = {"angles": "angle ", "predicted": "predicted ", "first": "first "}
"""Of a `Learned`: what its columns begin with in a table."""


@dataclass(frozen=True)
class Learned:
    """What one training came to.

    series     the perturbation, or what is compared with it
    level      how strong it was; nan for a training without levels, which is drawn as a line across
    seed       of the training
    accuracy   of the test images at the end, from 0 to 1
    angles     projection -> angle between its updates and backprop's, the mean over training, in degrees; those to
               hidden populations, since updates of what projects to the output are exact
    predicted  projection -> the same by a law
    first      projection -> the angle at the first batch alone, of weights that have learned nothing
    """

    series: str
    level: float
    seed: int
    accuracy: float
    angles: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    first: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_angle(self) -> float:
        """The mean over projections; nan without."""
        return sum(self.angles.values()) / len(self.angles) if self.angles else math.nan


def write(path: Path, rows: Sequence[Learned]) -> None:
    """Write a CSV file, a row per training."""
    columns = list(dict.fromkeys((kind, name) for kind in MAPPINGS for row in rows for name in getattr(row, kind)))
    head = ["series", "level", "seed", "accuracy", *(MAPPINGS[kind] + name for kind, name in columns)]
    cells = [
        [row.series, row.level, row.seed, row.accuracy, *(getattr(row, kind).get(name, "") for kind, name in columns)]
        for row in rows
    ]
    write_csv(path, head, cells)


def read(path: Path) -> list[Learned]:
    """Return what `write` wrote.

    Raises
    ------
    OSError
        If it can't be read.
    """
    return [
        Learned(
            row["series"],
            float(row["level"]),
            int(row["seed"]),
            float(row["accuracy"]),
            **{kind: _under(row, prefix) for kind, prefix in MAPPINGS.items()},
        )
        for row in read_csv(path)
    ]


def _under(row: Mapping[str, str], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): float(x) for name, x in row.items() if name.startswith(prefix) and x}


def accuracies(rows: Sequence[Learned], series: str) -> dict[float, list[float]]:
    """Return level -> the seeds' accuracies of a series, in the order of the rows."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row.series == series:
            found.setdefault(row.level, []).append(row.accuracy)
    return found


def angles(rows: Sequence[Learned], series: str, projection: str, kind: Kind = "angles") -> dict[float, list[float]]:
    """Return level -> the seeds' angles of a projection, of one kind; levels without any are left out."""
    found: dict[float, list[float]] = {}
    for row in rows:
        values: Mapping[str, float] = getattr(row, kind)
        if row.series == series and projection in values:
            found.setdefault(row.level, []).append(values[projection])
    return found


def first_below(accuracies: Mapping[float, Sequence[float]], bound: float) -> float | None:
    """Return the first level from which on mean accuracies are below a bound.

    Parameters
    ----------
    accuracies : mapping
        Level -> the seeds' accuracies, from the harmless level to the worst.
    bound : float

    Returns
    -------
    float or None
        None if the worst level isn't below.

    Examples
    --------
    >>> first_below({0.1: [0.9, 0.92], 0.2: [0.6, 0.7], 0.4: [0.3, 0.3]}, 0.8)
    0.2
    """
    first = stays_below([float(np.mean(values)) for values in accuracies.values()], bound)
    return None if first is None else list(accuracies)[first]


def draw(
    path: Path, rows: Sequence[Learned], *, xlabel: str, scale: Scale, chance: float = 0.1, first: bool = False
) -> None:
    """Draw accuracy (left) and angles (right) against the level: means over seeds with their 95 % intervals.

    Of one series each projection's angle is drawn, of several the lowest projection's, whose way from the output is the
    longest. Circles are predictions. Trainings without levels are lines across.

    Parameters
    ----------
    path : pathlib.Path
    rows : sequence of Learned
    xlabel : str
    scale : {"linear", "log", "symlog"}
    chance : float, default 0.1
        Accuracy of guessing.
    first : bool, default False
        Whether angles at the first batch are drawn, too, as crosses.
    """
    levels = sorted({row.level for row in rows if not math.isnan(row.level)})
    with figures.saved(path, columns=2) as (_, (left, right)):
        accuracy_panel(left, rows, chance)
        angle_panel(right, rows, ["predicted", "first"] if first else ["predicted"])
        for ax in (left, right):
            _mark(ax, levels, scale)
            ax.set_xlabel(xlabel)
            ax.legend(fontsize="small")


def series_of(rows: Sequence[Learned]) -> list[str]:
    """Return the series that have levels."""
    return list(dict.fromkeys(row.series for row in rows if not math.isnan(row.level)))


def accuracy_panel(ax: Axes, rows: Sequence[Learned], chance: float) -> Axes:
    """Draw a line per series, and across the axes each reference's mean, and chance."""
    for number, series in enumerate(series_of(rows)):
        figures.band(ax, series, accuracies(rows, series), number=number, percent=True)
    references: dict[str, list[float]] = {}
    for row in rows:
        if math.isnan(row.level):
            references.setdefault(row.series, []).append(row.accuracy)
    means = {series: float(np.mean(values)) for series, values in references.items()}
    for (series, mean), style in zip([*means.items(), ("chance", chance)], ("-", "--", ":"), strict=False):
        ax.axhline(100 * mean, color="0.45", linewidth=1, linestyle=style, label=series)
    ax.set(ylabel="test accuracy (%)", ylim=(0, 100))
    return ax


def angle_panel(ax: Axes, rows: Sequence[Learned], beside: Sequence[Kind] = ("predicted",)) -> Axes:
    """Draw each projection's angle, or of several series each one's in the lowest projection; others as marks."""
    several, projections = series_of(rows), list(dict.fromkeys(name for row in rows for name in row.angles))
    lines = [(series, projections[0], series) for series in several]
    if len(several) == 1:
        lines = [(several[0], name, name) for name in projections]
    for number, (series, projection, label) in enumerate(lines):
        figures.band(ax, label, angles(rows, series, projection), number=number)
        colour = ax.lines[-1].get_color()
        for kind in beside:
            found = angles(rows, series, projection, kind)
            ax.plot(list(found), [np.mean(x) for x in found.values()], color=colour, **_MARKS[kind])
    for kind in beside:
        if any(getattr(row, kind) for row in rows):
            ax.plot([], [], color="0.3", label=_SAID[kind], **_MARKS[kind])
    whose = f"angle of updates of {projections[0]}" if len(several) > 1 else "angle of updates"
    ax.set(ylabel=f"{whose}\nto backprop's (degrees)", ylim=(-2, 95), yticks=range(0, 91, 15))
    return ax


_MARKS: dict[Kind, dict[str, Any]] = {
    "predicted": {"marker": "o", "fillstyle": "none", "markersize": 4, "markeredgewidth": 0.8, "linestyle": "none"},
    "first": {"marker": "x", "markersize": 4, "markeredgewidth": 1.0, "linestyle": "none"},
}
_SAID: dict[Kind, str] = {"predicted": "predicted", "first": "at the first batch"}


def _mark(ax: Axes, levels: Sequence[float], scale: Scale) -> None:
    """Mark the levels on the axis, and no other place."""
    if scale == "symlog":
        least = min(level for level in levels if level > 0)
        ax.set_xscale("symlog", linthresh=least, linscale=0.5)
        ax.set_xlim(min(0, levels[0]) - least / 5, levels[-1] * 1.2)
    else:
        ax.set_xscale(scale)
    ax.xaxis.set_major_locator(FixedLocator(levels))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
