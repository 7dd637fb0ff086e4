"""Conditions side by side: accuracies over seeds with intervals, paired differences, and tests of both kinds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import Paired, compare, equivalence_power, holm, interval, power, seeds_for


@dataclass(frozen=True)
class Conditions:
    """What is compared.

    names       in the order of the table
    references  those that others are compared with, and the later ones with the earlier
    own         condition -> options that only its runs have
    """

    names: Sequence[str]
    references: Sequence[str]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A condition in a table.

    own            options that only these runs have
    accuracies     of the seeds that finished, in percent
    diverged       seeds that did not
    against        condition -> how this one compares with it, over the seeds that finished under both
    p_difference   condition -> p of the paired t test, by Holm's correction over the column
    p_equivalence  condition -> p of the two one-sided tests, likewise
    """

    condition: str
    own: Mapping[str, Any]
    accuracies: Mapping[int, float]
    diverged: Sequence[int]
    against: Mapping[str, Paired]
    p_difference: Mapping[str, float]
    p_equivalence: Mapping[str, float]

    def verdict(self, reference: str, level: float = 0.05) -> str:
        """Return what the tests say: "=" equivalent, "*" different, "?" neither, as one can be both."""
        equivalent = self.p_equivalence[reference] < level or self.against[reference].is_identical
        different = self.p_difference[reference] < level
        return ("=" if equivalent else "") + ("*" if different else "") or "?"


def lines(conditions: Conditions, outcomes: Sequence[Outcome]) -> list[Line]:
    """Return a table: a line each of the conditions that have outcomes."""
    names = [name for name in conditions.names if any(o.condition == name for o in outcomes)]
    found = {name: [o for o in outcomes if o.condition == name] for name in names}
    accuracies = {n: {o.seed: o.test_accuracy for o in os if o.state is State.FINISHED} for n, os in found.items()}
    against: dict[str, dict[str, Paired]] = {name: {} for name in names}
    difference: dict[str, dict[str, float]] = {name: {} for name in names}
    equivalence: dict[str, dict[str, float]] = {name: {} for name in names}
    for number, reference in enumerate(conditions.references):
        compared = conditions.references[: number + 1]
        others = [name for name in names if name not in compared] if reference in names else []
        for name in others:
            common = sorted(accuracies[name].keys() & accuracies[reference].keys())
            mine, its = ([accuracies[n][seed] for seed in common] for n in (name, reference))
            against[name][reference] = compare(mine, its)
        for into, p in (
            (difference, [against[name][reference].p_difference for name in others]),
            (equivalence, [against[name][reference].p_equivalence for name in others]),
        ):
            for name, adjusted in zip(others, holm(p), strict=True):
                into[name][reference] = adjusted
    return [
        Line(
            name,
            conditions.own.get(name, {}),
            accuracies[name],
            [o.seed for o in found[name] if o.state is State.DIVERGED],
            against[name],
            difference[name],
            equivalence[name],
        )
        for name in names
    ]


def cells(conditions: Conditions, table: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return a table as text: its head and its rows."""
    own = sorted({option for line in table for option in line.own})
    head = ["condition", *own, "seeds", "test accuracy (%)"]
    for reference in conditions.references:
        head += [f"minus {reference}", "p (difference)", "p (equivalence)"]
    return head, [
        [
            line.condition,
            *(f"{line.own.get(option, '')}" for option in own),
            str(len(line.accuracies)) + (f", {len(line.diverged)} diverged" if line.diverged else ""),
            _mean(list(line.accuracies.values())),
            *(cell for reference in conditions.references for cell in _comparison(line, reference)),
        ]
        for line in table
    ]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = interval(values)
    return f"{statistics.fmean(values):.1f}" + ("" if np.isnan(low) else f" ({low:.1f} to {high:.1f})")


def _comparison(line: Line, reference: str) -> list[str]:
    paired = line.against.get(reference)
    if paired is None or not paired.seeds:
        return ["", "", ""]
    if paired.is_identical:
        return ["0 (identical)", "", ""]
    between = "" if np.isnan(paired.low) else f" ({paired.low:+.2f} to {paired.high:+.2f})"
    between += f", {paired.seeds} pairs" if paired.seeds < len(line.accuracies) else ""
    return [f"{paired.difference:+.2f}{between}", _p(line.p_difference[reference]), _p(line.p_equivalence[reference])]


def _p(value: float) -> str:
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def remarks(conditions: Conditions, table: Sequence[Line]) -> str:
    """Return what a reader of the table has to know: intervals, tests, diverged seeds, and the power of the tests."""
    said = [
        "Test accuracy after the last epoch: mean over seeds, 95 % interval; differences, seed by seed, likewise.",
        "p (difference): paired t test. p (equivalence): two one-sided t tests, margin 1 point. Below 0.05 the two are",
        "different, or equivalent. Both with Holm's correction over the column; intervals are not corrected.",
        *_powers(conditions, table),
    ]
    for line in table:
        if line.diverged:
            seeds = ", ".join(map(str, line.diverged))
            said.append(
                f"Diverged under {line.condition}: seed {seeds}; means and differences are those of the others."
            )
    return "\n".join(said) + "\n"


def _powers(conditions: Conditions, table: Sequence[Line]) -> list[str]:
    """Say what power the tests against the first reference had, alone and as the first step of Holm's procedure."""
    first = conditions.references[0]
    tested = [(line.condition, line.against[first]) for line in table if first in line.against]
    tested = sorted(((name, p) for name, p in tested if p.deviation > 0), key=lambda each: each[1].deviation)
    if not tested:
        return []
    corrected = 0.05 / len(tested)
    median, most = tested[(len(tested) - 1) // 2], tested[-1]
    shown = {", the median": median, ", the most": most} if len(tested) > 1 else {"": median}

    def powers(of: Callable[..., float], p: Paired) -> str:
        return " and ".join(f"{of(p.seeds, p.deviation, level=level):.2f}" for level in (0.05, corrected))

    return [
        f"Power at 0.05 and at 0.05 / {len(tested)}, Holm's first step, to find a difference of a point from {first}:",
        *(
            f"{powers(power, p)} under {name} (deviation of {p.seeds} differences: {p.deviation:.2f} points{which}),"
            for which, (name, p) in shown.items()
        ),
        f"and equivalence that is exact: {', '.join(powers(equivalence_power, p) for _, p in shown.values())}.",
        f"0.8 for a difference at Holm's first step takes {seeds_for(median[1].deviation, corrected)} seeds at the "
        "median.",
    ]


def among(outcomes: Sequence[Outcome]) -> Conditions | None:
    """Return the conditions of runs that have ended, against backprop or else the first; None where each is one run."""
    ended = [o.condition for o in outcomes if o.state.is_final]
    names = list(dict.fromkeys(ended))
    if len(names) == len(ended):
        return None
    return Conditions(names, [next((name for name in names if name.startswith("backprop")), names[0])])
