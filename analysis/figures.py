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

from actrelax.models.errors import ActrelaxError
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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        except OSError as error:
            raise ActrelaxError(f"can't write to {path}: {error.strerror}.") from error


def learning_curves(ax: Axes, runs: Mapping[str, Sequence[Mapping[str, float]]], measure: str) -> Axes:
    """Draw an accuracy over epochs, a line per run.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    runs : mapping
        Label -> rows of metrics.csv.
    measure : {"train_accuracy", "test_accuracy"}
    """
    for label, metrics in runs.items():
        ax.plot([row["epoch"] for row in metrics], [100 * row[measure] for row in metrics], label=label)
    ax.set(xlabel="epoch", ylabel=f"{measure.split('_')[0]} accuracy (%)", xlim=(0, None), ylim=(None, 101))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
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
