"""Conditions' accuracies and angles while they learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from actrelax.analysis import figures
from actrelax.analysis.outcomes import Outcome

LABELS = {
    "train_loss": "training loss",
    "train_accuracy": "train accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "angle": "angle to backprop's updates (degrees)",
}
"""Column of `Outcome.curves` -> what its axis says."""


def over_training(ax: Axes, outcomes: Sequence[Outcome], column: str, conditions: Sequence[str]) -> Axes:
    """Draw a column over the epochs, a line a condition: means over its seeds, with their 95 % intervals.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    outcomes : sequence of Outcome
    column : {"train_loss", "train_accuracy", "validation_accuracy", "test_accuracy", "angle"}
        Conditions of which some run lacks it are left out.
    conditions : sequence of str
        In the order of their colours.
    """
    for number, name in enumerate(conditions):
        found = [o.curves for o in outcomes if o.condition == name]
        if found and all(column in curves for curves in found):
            values = over_epochs(found, column)
            figures.band(ax, name, values, number=number, percent=column.endswith("_accuracy"))
            if len(values) == 1:  # a single epoch is a point, which a line doesn't show
                ax.lines[-1].set_marker(".")
    ax.set(xlabel="epoch", ylabel=LABELS[column])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def over_epochs(curves: Sequence[Mapping[str, Sequence[float]]], column: str) -> dict[float, list[float]]:
    """Return epoch -> the seeds' values; the untrained network's would hide the differences."""
    found: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve["epoch"], curve[column], strict=True):
            if epoch > 0 and not np.isnan(value):
                found.setdefault(epoch, []).append(value)
    return found
