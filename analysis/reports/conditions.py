"""Conditions side by side: accuracies over seeds with intervals, paired differences, and tests of both kinds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from actrelax.analysis.reports.outcomes import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import Paired, compare, equivalence_power, holm, interval, power


@dataclass(frozen=True)
class Conditions:
    """What is compared.

    names       in the order of the table
    references  those that others are compared with, and the later ones with the earlier
    margin      up to which accuracies count as equivalent, in percent
    own         condition -> options that only its runs have
    """

    names: Sequence[str]
    references: Sequence[str]
    margin: float = 1.0
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A condition in a table.

    own         options that only these runs have
    accuracies  of the seeds that finished, in percent
    diverged    seeds that did not
    against     condition -> how this one compares with it, over the seeds that finished under both
    different   condition -> p of the test that the two are the same, by Holm's correction over the column
    apart       condition -> p of the test that they are a margin apart, likewise
    """

    condition: str
    own: Mapping[str, Any]
    accuracies: Mapping[int, float]
    diverged: Sequence[int]
    against: Mapping[str, Paired]
    different: Mapping[str, float]
    apart: Mapping[str, float]


def lines(conditions: Conditions, outcomes: Sequence[Outcome]) -> list[Line]:
    """Return a table: a line each of the conditions that have outcomes."""
    names = [name for name in conditions.names if any(o.condition == name for o in outcomes)]
    found = {name: [o for o in outcomes if o.condition == name] for name in names}
    accuracies = {n: {o.seed: o.test_accuracy for o in os if o.state is State.FINISHED} for n, os in found.items()}
    against: dict[str, dict[str, Paired]] = {name: {} for name in names}
    different: dict[str, dict[str, float]] = {name: {} for name in names}
    apart: dict[str, dict[str, float]] = {name: {} for name in names}
    for number, reference in enumerate(conditions.references):
        compared = conditions.references[: number + 1]
        others = [name for name in names if name not in compared] if reference in names else []
        for name in others:
            common = sorted(accuracies[name].keys() & accuracies[reference].keys())
            mine, its = ([accuracies[n][seed] for seed in common] for n in (name, reference))
            against[name][reference] = compare(mine, its, conditions.margin)
        for into, p in (
            (different, [against[name][reference].p_different for name in others]),
            (apart, [against[name][reference].p_apart for name in others]),
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
            different[name],
            apart[name],
        )
        for name in names
    ]


def cells(conditions: Conditions, table: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return a table as text: its head and its rows."""
    own = sorted({option for line in table for option in line.own})
    head = ["condition", *own, "seeds", "test accuracy (%)"]
    for reference in conditions.references:
        head += [f"minus {reference}", "p (same)", "p (apart)"]
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
    between = "" if np.isnan(paired.low) else f" ({paired.low:+.2f} to {paired.high:+.2f})"
    return [f"{paired.difference:+.2f}{between}", _p(line.different[reference]), _p(line.apart[reference])]


def _p(value: float) -> str:
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def remarks(conditions: Conditions, table: Sequence[Line]) -> str:
    """Return what a reader of the table has to know: intervals, tests, diverged seeds, and the power of the tests."""
    points = "a point" if conditions.margin == 1 else f"{conditions.margin:g} points"
    said = [
        "Test accuracy after the last epoch: mean over seeds, 95 % interval; differences, seed by seed, likewise.",
        "p (same): paired t test. p (apart): two one-sided t tests; below 0.05 the two are equivalent within",
        f"{points}. Both with Holm's correction over the column.",
        *_powers(conditions, table, points),
    ]
    for line in table:
        if line.diverged:
            seeds = ", ".join(map(str, line.diverged))
            said.append(
                f"Diverged under {line.condition}: seed {seeds}; means and differences are those of the others."
            )
    return "\n".join(said) + "\n"


class _Power(NamedTuple):
    """How likely one comparison finds a difference of the margin, and equivalence where it is exact."""

    difference: float
    equivalence: float
    condition: str
    paired: Paired

    def __str__(self) -> str:
        p = self.paired
        return f"under {self.condition} ({p.seeds} seeds, whose differences deviate by {p.deviation:.2f} points)"


def _powers(conditions: Conditions, table: Sequence[Line], points: str) -> list[str]:
    """Say what power the comparisons with the first reference had: the least certain one, and the most."""
    first, margin = conditions.references[0], conditions.margin
    paired = {line.condition: line.against[first] for line in table if first in line.against}
    found = [
        _Power(power(p.seeds, p.deviation, margin), equivalence_power(p.seeds, p.deviation, margin), name, p)
        for name, p in paired.items()
        if p.seeds > 1
    ]
    if not found:
        return []
    least, most = (pick(found, key=lambda power: power[:2]) for pick in (min, max))
    said = [
        f"Before the correction a difference of {points} from {first} is found with probability",
        f"{least.difference:.2f}, and equivalence, where it is exact, with {least.equivalence:.2f}",
        f"{least}" + ("." if most is least else ";"),
    ]
    if most is not least:
        said.append(f"with {most.difference:.2f} and {most.equivalence:.2f} {most}.")
    return said


def among(outcomes: Sequence[Outcome]) -> Conditions | None:
    """Return the conditions of runs that have ended, against backprop or else the first; None where each is one run."""
    ended = [o.condition for o in outcomes if o.state.is_final]
    names = list(dict.fromkeys(ended))
    if len(names) == len(ended):
        return None
    return Conditions(names, [next((name for name in names if name.startswith("backprop")), names[0])])
