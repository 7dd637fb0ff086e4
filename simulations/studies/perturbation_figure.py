"""The figure of a perturbation study: accuracy and angles to backprop's updates against the level (`perturbation`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from actrelax.analysis import figures
from actrelax.simulations.studies.common import by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scale = Literal["linear", "log", "symlog"]
"""Scale of the axis of levels; symlog is logarithmic above the smallest level, and includes 0."""


def draw(path: Path, rows: pd.DataFrame, *, xlabel: str, scale: Scale, chance: float = 0.1) -> None:
    """Draw accuracy (left) and angles (right) against the level: means over seeds with 95 % intervals.

    For one series the angles of all projections are drawn, for several series the angle of the lowest projection, which
    is farthest from the output. Circles are predictions, crosses angles at the first batch, and horizontal lines the
    references.
    """
    levels = sorted(rows["level"].dropna().unique())
    with figures.saved(path, columns=2) as (_, (left, right)):
        accuracy_panel(left, rows, chance)
        angle_panel(right, rows)
        for ax in (left, right):
            if scale == "symlog":
                least = min(level for level in levels if level > 0)
                ax.set_xscale("symlog", linthresh=least, linscale=0.5)
                ax.set_xlim(min(0, levels[0]) - least / 5, levels[-1] * 1.2)
            else:
                ax.set_xscale(scale)
            ax.set_xticks(levels, [f"{level:g}" for level in levels])
            ax.set_xticks([], minor=True)
            ax.set_xlabel(xlabel)
            ax.legend(fontsize="small")


def accuracy_panel(ax: Axes, rows: pd.DataFrame, chance: float) -> None:
    """Draw one line per series, and horizontal lines for the means of the references and for chance."""
    for number, (series, of) in enumerate(rows.dropna(subset="level").groupby("series", sort=False)):
        figures.band(ax, str(series), by(of, "level", "accuracy"), number=number, percent=True)
    means = dict(rows[rows["level"].isna()].groupby("series", sort=False)["accuracy"].mean())
    for (name, level), style in zip({**means, "chance": chance}.items(), ("-", "--", ":"), strict=False):
        ax.axhline(100 * level, color="0.45", linewidth=1, linestyle=style, label=name)
    ax.set(ylabel="test accuracy (%)", ylim=(0, 100))


_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "predicted": ("predicted", {"marker": "o", "fillstyle": "none", "markersize": 4, "markeredgewidth": 0.8}),
    "first": ("at the first batch", {"marker": "x", "markersize": 4, "markeredgewidth": 1.0}),
}


def angle_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the angles of all projections, or of the lowest one for several series, with predictions as marks."""
    projections = [name.removeprefix("angle ") for name in rows.filter(like="angle ")]
    series = list(rows.dropna(subset="level").groupby("series", sort=False))
    lines = [(name, of, projections[0]) for name, of in series]
    if len(series) == 1:
        lines = [(name, series[0][1], name) for name in projections]
    for number, (label, of, projection) in enumerate(lines):
        figures.band(ax, str(label), by(of, "level", f"angle {projection}"), number=number)
        for kind, (_, marks) in _MARKS.items():
            if f"{kind} {projection}" in of:
                means = of.groupby("level", sort=False)[f"{kind} {projection}"].mean()
                ax.plot(means.index, means, color=ax.lines[-1].get_color(), linestyle="none", **marks)
    for kind, (label, marks) in _MARKS.items():
        if any(name.startswith(f"{kind} ") for name in rows):
            ax.plot([], [], color="0.3", label=label, linestyle="none", **marks)
    whose = f"angle of updates of {projections[0]}" if len(series) > 1 else "angle of updates"
    ax.set(ylabel=f"{whose}\nto backprop's (degrees)", ylim=(-2, 95), yticks=range(0, 91, 15))
