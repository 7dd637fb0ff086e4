"""Learning curves of conditions: accuracies, loss and angles over the epochs, drawn for a report."""

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
"""Column of `Outcome.curves` -> label of its axis."""

CAPTIONS = {
    "test_accuracy": "Test accuracy after each epoch.",
    "validation_accuracy": "Accuracy on the validation images after each epoch.",
    "train_accuracy": "Accuracy on the training images during each epoch; each batch is measured before its update.",
    "train_loss": "Training loss during each epoch; each batch is measured before its update.",
    "angle": "Angle between AR's updates and backprop's, mean over projections and over the measurements of an epoch.",
}
"""Column -> caption of its figure, in the order of the report."""


def over_training(ax: Axes, outcomes: Sequence[Outcome], column: str, conditions: Sequence[str]) -> Axes:
    """Draw a column over the epochs, one line per condition: the mean over seeds with its 95 % interval.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    outcomes : sequence of Outcome
    column : {"train_loss", "train_accuracy", "validation_accuracy", "test_accuracy", "angle"}
        Column of `Outcome.curves`; runs that lack it are left out.
    conditions : sequence of str
        Conditions in the order of their colours.
    """
    for number, name in enumerate(conditions):
        found = [o.curves for o in outcomes if o.condition == name and column in o.curves]
        if found:
            values = over_epochs(found, column)
            figures.band(ax, name, values, number=number, percent=column.endswith("_accuracy"))
            if len(values) == 1:  # a line does not show a single point
                ax.lines[-1].set_marker(".")
    ax.set(xlabel="epoch", ylabel=LABELS[column])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def over_epochs(curves: Sequence[Mapping[str, Sequence[float]]], column: str) -> dict[float, list[float]]:
    """Return epoch -> values of the seeds, without the untrained network, whose values would stretch the axis."""
    found: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve["epoch"], curve[column], strict=True):
            if epoch > 0 and not np.isnan(value):
                found.setdefault(epoch, []).append(value)
    return found


def pictures(folder: Path, outcomes: Sequence[Outcome], suffix: str = "") -> list[Picture]:
    """Draw one figure per measured column into a folder, as PNG and PDF.

    Parameters
    ----------
    folder : pathlib.Path
    outcomes : sequence of Outcome
        Runs without a finished epoch are left out.
    suffix : str, default ""
        Suffix of the file names.

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
    """Describe the end of each curve, as alternative text of the figure."""
    percent, ends = column.endswith("_accuracy"), []
    for name in conditions:
        last = [o.curves[column][-1] for o in outcomes if o.condition == name and column in o.curves]
        if last:
            ends.append(f"{name} {statistics.fmean(last) * (100 if percent else 1):.3g}")
    label = LABELS[column]
    return f"{label[0].upper()}{label[1:]} over the epochs, one line per condition. At the end: {'; '.join(ends)}."
