"""Plots in one style, readable in print and without colour vision; each draws on the given axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.typing import ColorType
from numpy.typing import ArrayLike, NDArray

from actrelax.analysis.statistics import interval
from actrelax.analysis.style import COLOURS, STYLES
from actrelax.analysis.style import saved as saved
from actrelax.models._names import whole_number
from actrelax.models.errors import ActrelaxError


def learning_curves(ax: Axes, runs: Mapping[str, Sequence[Mapping[str, float]]], measure: str) -> Axes:
    """Draw a measure over epochs, one line per run; accuracies in percent.

    `runs` maps labels to rows of metrics.csv, and `measure` is a column of them.
    """
    percent = measure.endswith("_accuracy")
    for label, metrics in runs.items():
        values = [row[measure] * (100 if percent else 1) for row in metrics]
        # a line does not show a single point
        ax.plot([row["epoch"] for row in metrics], values, label=label, marker="." if len(values) < 4 else None)
    ax.set(xlabel="epoch", ylabel=measure.replace("_", " ") + (" (%)" if percent else ""), xlim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(ax.lines) > 1:
        ax.legend(loc="lower right" if percent else "best")
    return ax


def band(
    ax: Axes,
    label: str,
    values: Mapping[float, Sequence[float]],
    *,
    number: int,
    percent: bool = False,
    log: bool = False,
) -> Axes:
    """Draw means over seeds with 95 % confidence intervals.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    label : str
    values : mapping
        Position -> the seeds' values.
    number : int
        Index of the colour and line style; after the last colour, colours repeat with other line styles.
    percent : bool, default False
        Values are accuracies from 0 to 1: draw them in percent, and cut intervals at 0 and 100.
    log : bool, default False
        Use a logarithmic axis, and take means and intervals of the logarithms.
    """
    at, scale = sorted(values), 100 if percent else 1
    drawn = [np.log(values[x]) if log else scale * np.asarray(values[x]) for x in at]
    curves = np.array([[np.mean(v), *interval(v)] for v in drawn]).reshape(-1, 3).T
    mean, low, high = np.exp(curves) if log else curves
    if percent:
        low, high = low.clip(0, 100), high.clip(0, 100)
    if log:
        ax.set_yscale("log")
    line = _numbered(ax, label, at, mean, number)
    ax.fill_between(at, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return ax


def over_epochs(ax: Axes, measures: Mapping[str, Mapping[float, Sequence[float]]], ylabel: str, **how: bool) -> Axes:
    """Draw a `band` over epochs for each condition; `measures` maps label -> epoch -> values of the seeds."""
    for number, (label, by_epoch) in enumerate(measures.items()):
        band(ax, label, by_epoch, number=number, **how)
    ax.set(xlabel="epoch", ylabel=ylabel, xlim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def sensitivity(ax: Axes, accuracies: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str) -> Axes:
    """Draw accuracies against a setting on a logarithmic axis: means as lines, seeds as dots.

    `accuracies` maps label -> setting -> accuracies of the seeds, in percent.
    """
    for number, (label, by_setting) in enumerate(accuracies.items()):
        at = sorted(by_setting)
        line = _numbered(ax, label, at, [float(np.mean(by_setting[x])) for x in at], number)
        for x in at:
            ax.plot([x] * len(by_setting[x]), by_setting[x], ".", color=line.get_color(), markersize=4)
    ax.set(xscale="log", xlabel=xlabel)
    ax.xaxis.set_major_locator(FixedLocator(sorted({x for by_setting in accuracies.values() for x in by_setting})))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", rotation=45)
    return ax


def estimates(
    ax: Axes, label: str, values: Mapping[float, tuple[float, float, float]], *, number: int, crossed: Sequence[float]
) -> Axes:
    """Draw estimates with their intervals as bars; positions in `crossed` get a cross.

    `values` maps positions to (estimate, low, high); `number` is as for `band`.
    """
    at = sorted(values)
    line = _numbered(ax, label, at, [values[x][0] for x in at], number)
    ax.plot(at, line.get_ydata(), ".", color=line.get_color())
    ax.vlines(at, [values[x][1] for x in at], [values[x][2] for x in at], color=line.get_color(), linewidth=0.8)
    ax.plot(crossed, [values[x][0] for x in crossed], "x", color=line.get_color(), markersize=8)
    return ax


def _numbered(ax: Axes, label: str, xs: Sequence[float], ys: ArrayLike, number: int) -> Line2D:
    style = STYLES[(number + number // len(COLOURS)) % len(STYLES)]
    (line,) = ax.plot(xs, ys, label=label, color=COLOURS[number % len(COLOURS)], linestyle=style)
    return line


def approach(
    ax: Axes,
    times: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    predicted: tuple[Sequence[float], Mapping[str, Sequence[float]]] | None = None,
    *,
    unit: str = "the unit of tau",
) -> Axes:
    """Draw errors against backprop over time, on a log axis, and predictions of the closed form as circles.

    At most seven populations are drawn, evenly spaced.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    times : sequence of float
    errors : mapping
        Population -> one error per time.
    predicted : tuple, optional
        Times of the predictions, and population -> one error per time.
    unit : str, default "the unit of tau"
        Unit of the times (`Trajectory.time_unit`).

    Raises
    ------
    ActrelaxError
        Without populations or times, for numbers of errors and times that differ, or if a prediction is missing.
    """
    _require_series("errors", errors, times)
    drawn = _some(list(errors))
    if predicted is not None:
        if missing := [name for name in errors if name not in predicted[1]]:
            raise ActrelaxError(f"predicted must have all populations of errors, got none for {', '.join(missing)}.")
        _require_series("predictions", predicted[1], predicted[0])
    for name in drawn:
        (line,) = ax.semilogy(times, errors[name], label=name)
        if predicted is not None:
            at, law = predicted
            circles(ax, at, law[name], color=line.get_color())
    if predicted is not None:
        circles(ax, [], [], label="predicted")
    ax.set(xlabel=f"time ({unit})", xlim=(min(times), max(times)))
    ax.set_ylabel("error against backprop\n(largest, relative)")
    _add_legend(ax, len(drawn))
    return ax


def _add_legend(ax: Axes, lines: int, size: str | None = None) -> None:
    """Add a legend: inside the axes, or beside them if there are too many lines for that."""
    if lines < 5:
        ax.legend(fontsize=size)
    else:
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def circles(
    ax: Axes, at: Sequence[float], values: Sequence[float], *, color: ColorType = "0.3", label: str | None = None
) -> Axes:
    """Draw predictions as open circles, through which the measured line remains visible."""
    ax.plot(at, values, "o", color=color, fillstyle="none", markersize=4, markeredgewidth=0.8, label=label)
    return ax


def costs(ax: Axes, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str) -> Axes:
    """Draw costs relative to backprop on log axes.

    `lines` maps each label to its positions on the x-axis and the ratio to backprop at each; other numbers of ratios
    are refused.
    """
    for label, (xs, ratios) in lines.items():
        _require_length("ratios", label, ratios, xs, "position")
    for i, (label, (xs, ratios)) in enumerate(lines.items()):
        # colours and line styles repeat after seven lines
        ax.loglog(xs, ratios, label=label, marker="os^v"[i // len(COLOURS) % 4], markersize=3)
    ax.axhline(1, color="0.3", linestyle="-", linewidth=0.8, label="backprop", zorder=1)
    ax.set(xlabel=xlabel, ylabel="time per training step (relative to backprop)")
    # ticks at 1, 2, 5, 10, ... on the y-axis, and at the measured positions on the x-axis
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_locator(FixedLocator(sorted({x for xs, _ in lines.values() for x in xs})))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    _add_legend(ax, len(lines), "small")
    return ax


def heat_map(
    ax: Axes,
    times: Sequence[float],
    activities: Mapping[str, NDArray[np.floating]],
    most: int = 40,
    *,
    unit: str = "the unit of tau",
) -> Axes:
    """Draw activities over time as a heat map, each population relative to its largest activity.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    times : sequence of float
        Rising. Each activity reaches half way to the times before and after it.
    activities : mapping
        Population -> (len(times), units), from the input up.
    most : int, default 40
        Largest number of units per population, 1 or more: sorted by initial activity, evenly spaced.
    unit : str, default "the unit of tau"
        Unit of the times (`Trajectory.time_unit`).

    Raises
    ------
    ActrelaxError
        Without populations or times, or for activities of another shape.
    """
    _require_series("activities", activities, times)
    for name, x in activities.items():
        if np.ndim(x) != 2 or not np.size(x):
            raise ActrelaxError(f"activities of {name!r} must have shape ({len(times)}, units), got {np.shape(x)}.")
    most = whole_number("most", most, least=1)
    bands = [_heat_rows(x, most) for x in activities.values()]
    ends = np.cumsum([len(rows) for rows in bands])
    middles = [end - (len(rows) - GAP) / 2 - GAP for end, rows in zip(ends, bands, strict=True)]
    rows = np.concatenate(bands)[:-GAP]
    image = ax.pcolormesh(
        _edges(times),
        np.arange(len(rows) + 1),
        rows,
        cmap="PuOr",  # readable without colour vision; white is zero
        norm=SymLogNorm(0.01, vmin=-1, vmax=1),
        rasterized=True,
    )
    ticks = {name: y for name, y in zip(activities, middles, strict=True) if name in _some(list(activities))}
    ax.set_yticks(list(ticks.values()), list(ticks))
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel=f"time ({unit})")
    ax.grid(False)
    bar = ax.figure.colorbar(image, ax=ax, ticks=[-1, -0.1, -0.01, 0, 0.01, 0.1, 1], format="%g")
    bar.set_label("activity (relative to maximum)")
    return ax


def _edges(times: Sequence[float]) -> NDArray[np.float64]:
    """Return the middles between rising times, and a first and a last edge as far from their times."""
    if len(times) == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    middles = (np.asarray(times[1:]) + times[:-1]) / 2
    return np.array([2 * times[0] - middles[0], *middles, 2 * times[-1] - middles[-1]])


def difference_table(
    ax: Axes,
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
) -> Axes:
    """Draw a coloured table of differences in percentage points of accuracy.

    `values` and `texts` are (rows, columns), named by `rows` and `columns`, and refused otherwise; nan has no colour.
    """
    for what, table in (("values", values), ("texts", texts)):
        lengths = [len(line) for line in table]
        if not (rows and columns and lengths == [len(columns)] * len(rows)):
            raise ActrelaxError(
                f"{what} must have one row per name in rows and one entry per name in columns, at least one of each, "
                f"{len(rows)} x {len(columns)}, got rows of length {lengths}."
            )
    # readable without colour vision; differences within a point are nearly white
    norm = SymLogNorm(1, linscale=0.3, vmin=-40, vmax=40)
    image = ax.imshow(values, cmap="PuOr", norm=norm, aspect="auto")
    for y, line in enumerate(zip(values, texts, strict=True)):
        for x, (value, text) in enumerate(zip(*line, strict=True)):
            dark = abs(norm(value) - 0.5) > 0.3
            ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), columns, fontsize=7)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.grid(False)
    bar = ax.figure.colorbar(image, ax=ax, ticks=[-30, -10, -3, -1, 0, 1, 3, 10, 30], format="%+g", aspect=40)
    bar.set_label("test accuracy minus backprop's (points)")
    return ax


GAP = 3
"""Empty rows between populations."""


def _heat_rows(x: NDArray[np.floating], most: int) -> NDArray[np.floating]:
    """Return the rows of selected units, relative to the largest activity, with a gap above."""
    order = np.argsort(x[0], kind="stable")
    picked = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int))]
    rows = x[:, picked].T / max(float(np.abs(x).max()), np.finfo(float).tiny)
    return np.concatenate([rows, np.full((GAP, len(x)), np.nan)])


def _require_series(what: str, series: Mapping[str, Sized], times: Sequence[float]) -> None:
    """Refuse no series, no times, and a series without exactly one entry per time."""
    if not series:
        raise ActrelaxError(f"{what} must have at least one population, got none.")
    if not len(times):
        raise ActrelaxError(f"{what} need at least one time, got none.")
    for name, values in series.items():
        _require_length(what, name, values, times, "time")


def _require_length(what: str, name: str, values: Sized, places: Sized, place: str) -> None:
    if len(values) != len(places):
        raise ActrelaxError(f"{what} of {name!r} must have {len(places)} entries, one per {place}, got {len(values)}.")


def _some(names: Sequence[str]) -> Sequence[str]:
    """Return at most seven names, evenly spaced."""
    return names[:: math.ceil(len(names) / 7)]
