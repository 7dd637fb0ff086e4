"""Figures in one style: readable in print and without colour vision. Each draws on the axes it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actrelax.analysis.files import replacing
from actrelax.models.trajectory import Trajectory

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart in greyscale by the line styles
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]

_STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=_COLOURS, linestyle=_STYLES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
}


@contextmanager
def saved(path: Path, columns: int = 1) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Open a figure of so many panels in the project's style, and write it to `path` when done.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(4.2 * columns, 3.2))
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield figure, list(axes)
        with replacing(path) as file:
            figure.savefig(file, format=path.suffix[1:])


def learning_curves(ax: Axes, runs: Mapping[str, Sequence[Mapping[str, float]]], measure: str) -> Axes:
    """Draw a measure over epochs, a line per run.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    runs : mapping
        Label -> rows of metrics.csv.
    measure : str
        A column of the metrics; accuracies are drawn in percent.
    """
    percent = measure.endswith("_accuracy")
    for label, metrics in runs.items():
        values = [row[measure] * (100 if percent else 1) for row in metrics]
        # a single epoch is a point, which a line doesn't show
        ax.plot([row["epoch"] for row in metrics], values, label=label, marker="." if len(values) < 4 else None)
    ax.set(xlabel="epoch", ylabel=measure.replace("_", " ") + (" (%)" if percent else ""), xlim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(ax.lines) > 1:
        ax.legend(loc="lower right" if percent else "best")
    return ax


def errors(ax: Axes, trajectory: Trajectory) -> Axes:
    """Draw what `convergence.errors_over_time` recorded, each population's error over the steps, on a log axis."""
    steps = [time / trajectory.dt for time in trajectory.times]
    for name, error in trajectory.recorded.items():
        ax.semilogy(steps, error.tolist(), label=name)
    ax.set(xlabel=f"relaxation step ({trajectory.integrator}, {trajectory.dt:g} tau each)", xlim=(0, None))
    ax.set_ylabel("error against backprop\n(largest, relative)")
    ax.legend(title="population")
    return ax
