"""A suite's tables and figures: accuracies with intervals, differences with tests, curves with bands."""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from actrelax.analysis import figures
from actrelax.analysis.files import replacing
from actrelax.analysis.statistics import Paired, compare, equivalence_power, holm, interval, power
from actrelax.analysis.tables import latex, markdown
from actrelax.simulations.suites.definitions import Options, Suite
from actrelax.simulations.suites.results import Outcome
from actrelax.simulations.suites.store import State


@dataclass(frozen=True)
class Line:
    """A condition in a table.

    own         options that only these runs have
    accuracies  of the seeds that finished, in percent
    diverged    seeds that did not
    against     condition -> how this one compares with it, over the seeds that finished under both
    different   condition -> p that the two are the same, by Holm's correction over the table
    apart       condition -> p that they are a margin apart, likewise
    """

    condition: str
    own: Options
    accuracies: Mapping[int, float]
    diverged: Sequence[int]
    against: Mapping[str, Paired]
    different: Mapping[str, float]
    apart: Mapping[str, float]


def lines(suite: Suite, outcomes: Sequence[Outcome]) -> list[Line]:
    """Return a table of one variant's outcomes: against the first two conditions, backprop and AR."""
    names = [name for name in suite.conditions if any(o.condition == name for o in outcomes)]
    found = {name: [o for o in outcomes if o.condition == name] for name in names}
    accuracies = {n: {o.seed: o.test_accuracy for o in os if o.state is State.FINISHED} for n, os in found.items()}
    against: dict[str, dict[str, Paired]] = {name: {} for name in names}
    different: dict[str, dict[str, float]] = {name: {} for name in names}
    apart: dict[str, dict[str, float]] = {name: {} for name in names}
    for reference in list(suite.conditions)[:2]:
        others = [name for name in names if name != reference] if reference in names else []
        for name in others:
            common = sorted(accuracies[name].keys() & accuracies[reference].keys())
            mine, its = ([accuracies[n][seed] for seed in common] for n in (name, reference))
            against[name][reference] = compare(mine, its, suite.margin)
        for into, p in (
            (different, [against[name][reference].p_different for name in others]),
            (apart, [against[name][reference].p_apart for name in others]),
        ):
            for name, adjusted in zip(others, holm(p), strict=True):
                into[name][reference] = adjusted
    return [
        Line(
            name,
            suite.own.get((outcomes[0].variant, name), {}),
            accuracies[name],
            [o.seed for o in found[name] if o.state is State.DIVERGED],
            against[name],
            different[name],
            apart[name],
        )
        for name in names
    ]


def cells(suite: Suite, table: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return a table as text: its head and its rows."""
    references = list(suite.conditions)[:2]
    own = sorted({option for line in table for option in line.own})
    head = ["condition", *own, "seeds", "test accuracy (%)"]
    for reference in references:
        head += [f"minus {reference}", "p (same)", "p (apart)"]
    return head, [
        [
            line.condition,
            *(f"{line.own.get(option, '')}" for option in own),
            str(len(line.accuracies)) + (f", {len(line.diverged)} diverged" if line.diverged else ""),
            _mean(list(line.accuracies.values())),
            *(cell for reference in references for cell in _comparison(line, reference)),
        ]
        for line in table
    ]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = interval(values)
    return f"{plain.fmean(values):.1f}" + ("" if np.isnan(low) else f" ({low:.1f} to {high:.1f})")


def _comparison(line: Line, reference: str) -> list[str]:
    paired = line.against.get(reference)
    if paired is None or not paired.seeds:
        return ["", "", ""]
    between = "" if np.isnan(paired.low) else f" ({paired.low:+.2f} to {paired.high:+.2f})"
    return [f"{paired.difference:+.2f}{between}", _p(line.different[reference]), _p(line.apart[reference])]


def _p(value: float) -> str:
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def remarks(suite: Suite, table: Sequence[Line]) -> str:
    """Return what a reader of the table has to know: intervals, tests, diverged seeds, and the power of the tests."""
    first = next(iter(suite.conditions))
    paired = [line.against[first] for line in table if first in line.against]
    seeds = max((p.seeds for p in paired), default=0)
    deviations = [p.deviation for p in paired if p.seeds == seeds]
    points = "a point" if suite.margin == 1 else f"{suite.margin:g} points"
    said = [
        "Test accuracy after the last epoch: mean over seeds, 95 % interval; differences, seed by seed, likewise.",
        "p (same): paired t test. p (apart): two one-sided t tests; below 0.05 the two are equivalent within",
        f"{points}. Both with Holm's correction over the table.",
    ]
    if seeds > 1:
        deviation = plain.median(deviations)
        said += [
            f"With {seeds} seeds, whose differences from {first} deviate by {deviation:.2f} points (median over",
            f"conditions), before the correction, a difference of {points} is found with probability",
            f"{power(seeds, deviation, suite.margin):.2f}, and equivalence, where it is exact, with",
            f"{equivalence_power(seeds, deviation, suite.margin):.2f}.",
        ]
    for line in table:
        if line.diverged:
            said.append(f"Diverged under {line.condition}: seed {', '.join(map(str, line.diverged))}.")
    return "\n".join(said) + "\n"


def write(folder: Path, name: str, suite: Suite, outcomes: Sequence[Outcome], command: str) -> str:
    """Write table.md, table.tex and the figures of what there is; returns table.md's text."""
    texts, tabulars = [f"# {name}\n\n{suite.title}\n\n    {command}\n"], []
    for variant in suite.variants:
        mine = [o for o in outcomes if o.variant == variant]
        if not mine:
            continue
        table = lines(suite, mine)
        epochs = sorted({len(o.curves["epoch"]) - 1 for o in mine if o.state is State.FINISHED})
        title = f"## {variant}\n\n" if variant else ""
        minutes = sum(o.wall_seconds for o in mine) / 60
        took = f"{len(mine)} runs of {' or '.join(map(str, epochs))} epochs, {minutes:.0f} minutes of one thread.\n"
        texts.append(f"{title}{markdown(*cells(suite, table))}\n{remarks(suite, table)}{took}")
        tabulars.append((f"% {variant}\n" if variant else "") + latex(*cells(suite, table)))
        _draw(folder, variant, suite, mine)
    for file_name, text in (("table.md", "\n".join(texts)), ("table.tex", "\n".join(tabulars))):
        with replacing(folder / file_name) as file:
            file.write(text.encode())
    return "\n".join(texts)


def _draw(folder: Path, variant: str, suite: Suite, outcomes: Sequence[Outcome]) -> None:
    """Draw learning curves and, where they were measured, angles."""
    suffix = f"-{variant.replace(' ', '-')}" if variant else ""
    finished = [o for o in outcomes if o.state is State.FINISHED]
    by_condition = {n: c for n in suite.conditions if (c := [o.curves for o in finished if o.condition == n])}
    if not by_condition:
        return
    order = {name: number for number, name in enumerate(suite.conditions)}
    with figures.saved(folder / f"learning-curves{suffix}.png", columns=2, legend=True) as (_, axes):
        for ax, column in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            for name, curves in by_condition.items():
                figures.band(ax, name, _over_epochs(curves, column), number=order[name], percent=True)
            ax.set(xlabel="epoch", ylabel=column.replace("_", " ") + " (%)")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    angles = {n: c for n, c in by_condition.items() if all("angle" in curve for curve in c)}
    if angles:
        with figures.saved(folder / f"angles{suffix}.png", legend=True) as (_, (ax,)):
            for name, curves in angles.items():
                figures.band(ax, name, _over_epochs(curves, "angle"), number=order[name])
            ax.set(xlabel="epoch", ylabel="angle to backprop's updates (degrees)", ylim=(0, None))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _over_epochs(curves: Sequence[Mapping[str, list[float]]], column: str) -> dict[float, list[float]]:
    """Return epoch -> the seeds' values; the untrained network's would hide the differences."""
    found: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in zip(curve["epoch"], curve[column], strict=True):
            if epoch > 0 and not np.isnan(value):
                found.setdefault(epoch, []).append(value)
    return found
