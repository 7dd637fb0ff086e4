"""Conditions' accuracies and angles while they learned: drawn, and as pictures of a report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from actrelax.analysis import figures
from actrelax.analysis.reports.page import Picture
from actrelax.analysis.reports.results_table import Outcome

LABELS = {
    "train_loss": "training loss",
    "train_accuracy": "train accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "angle": "angle to backprop's updates (degrees)",
}
"""Column of `Outcome.curves` -> what its axis says."""

CAPTIONS = {
    "test_accuracy": "Test accuracy after each epoch.",
    "validation_accuracy": "Accuracy on the images that were held out, after each epoch.",
    "train_accuracy": "Accuracy on the training images over each epoch, each batch before its update.",
    "train_loss": "Training loss over each epoch, each batch before its update.",
    "angle": "Angle between AR's updates and backprop's, mean over projections and over the epoch's measurements.",
}
"""Column -> what its figure shows, in the order of the report."""


def over_training(ax: Axes, outcomes: Sequence[Outcome], column: str, conditions: Sequence[str]) -> Axes:
    """Draw a column over the epochs, a line per condition: means over its seeds, with their 95 % intervals.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    outcomes : sequence of Outcome
    column : {"train_loss", "train_accuracy", "validation_accuracy", "test_accuracy", "angle"}
        Runs that lack it are left out.
    conditions : sequence of str
        In the order of their colours.
    """
    for number, name in enumerate(conditions):
        found = [o.curves for o in outcomes if o.condition == name and column in o.curves]
        if found:
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


def pictures(folder: Path, outcomes: Sequence[Outcome], suffix: str = "") -> list[Picture]:
    """Draw all that was measured over the epochs, a figure each, into a folder as PNG and as PDF.

    Parameters
    ----------
    folder : pathlib.Path
    outcomes : sequence of Outcome
        Those that did an epoch are drawn.
    suffix : str
        Of the files' names.

    Raises
    ------
    ActrelaxError
        If a file can't be written.
    """
    begun = [o for o in outcomes if o.epochs]
    order = list(dict.fromkeys(o.condition for o in outcomes))
    found = []
    for column, caption in CAPTIONS.items():
        if any(column in o.curves for o in begun):
            path = folder / f"{column.replace('_', '-')}{suffix}.png"
            with figures.saved(path, legend="below", also=[".pdf"]) as (_, (ax,)):
                over_training(ax, begun, column, order)
            found.append(Picture.read(path, _in_words(begun, column, order), caption))
    return found


def _in_words(outcomes: Sequence[Outcome], column: str, conditions: Sequence[str]) -> str:
    """Say where each curve ends, for those who can't see it."""
    percent, ends = column.endswith("_accuracy"), []
    for name in conditions:
        last = [o.curves[column][-1] for o in outcomes if o.condition == name and column in o.curves]
        if last:
            ends.append(f"{name} {statistics.fmean(last) * (100 if percent else 1):.3g}")
    label = LABELS[column]
    return f"{label[0].upper()}{label[1:]} over the epochs, a line per condition. At the end: {'; '.join(ends)}."
