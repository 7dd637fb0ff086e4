"""Conditions side by side: accuracies over seeds with intervals, paired differences, and tests of both kinds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import (
    LEVEL,
    MARGIN,
    RELATIVE_MARGIN,
    Paired,
    compare,
    equivalence_power,
    holm,
    holm_levels,
    interval,
    power,
    seeds_for,
)
from actrelax.analysis.tables import without_nan

Row = dict[str, Any]
"""A condition in a table.

condition       its name
own             options that only its runs have
seeds           the number of seeds that finished
diverged        the seeds that diverged
accuracy        mean, low, high: final test accuracy in percent with its 95 % interval; None without a seed
train_accuracy  final training accuracy, likewise; None where it was not measured
against         reference -> how it compares with it

A comparison is

seeds, difference, deviation   fields of `Paired`
level, low, high               at which the difference was tested, and the interval at that level
p_difference                   by Holm's correction over the family; the primary contrast's own
p_equivalence, power_equivalence                within a point, likewise; the power with which it was tested
p_equivalence_errors, power_equivalence_errors  within a tenth of the first reference's errors
verdict                        `_verdict`
"""

ENOUGH = 0.5
"""Least power of a test of equivalence that failed for its failure to say anything."""


@dataclass(frozen=True)
class Conditions:
    """The conditions to compare.

    names       in the order of the table
    references  conditions that all others are compared with; each is itself compared with those before it
    own         condition -> options that only its runs have
    primary     condition whose contrast with the first reference is the primary one: tested alone, at the full level
    """

    names: Sequence[str]
    references: Sequence[str]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primary: str = ""


def compared(conditions: Conditions, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the numbers of a table, as table.json has them: rows, margins, families and the power of the tests.

    Raises
    ------
    ActrelaxError
        If there is something to test and statsmodels is not installed.
    """
    ran = {name: [o for o in outcomes if o.condition == name] for name in conditions.names}
    ran = {name: runs for name, runs in ran.items() if runs}
    finished = {name: [o for o in runs if o.state is State.FINISHED] for name, runs in ran.items()}
    accuracies = {name: {o.seed: o.final_accuracy() for o in runs} for name, runs in finished.items()}
    means = {name: _mean(list(found.values())) for name, found in accuracies.items()}
    first = conditions.references[0]
    known = means.get(first)
    margins = {"": MARGIN, "_errors": RELATIVE_MARGIN * (100 - known["mean"]) if known else math.nan}
    against: dict[str, Row] = {name: {} for name in ran}
    families = []
    for number, reference in enumerate(conditions.references):
        others = [name for name in ran if name not in conditions.references[: number + 1]] if reference in ran else []
        found = {name: _paired(accuracies[name], accuracies[reference]) for name in others}
        found = {name: paired for name, paired in found.items() if paired.seeds}
        alone = [name for name in found if name == conditions.primary and reference == first]
        family = [name for name in found if name not in alone]
        for members in (alone, family):
            for name, tests in _tested({member: found[member] for member in members}, margins).items():
                against[name][reference] = tests
        families.append([reference, [name for name in family if found[name].is_testable]])
    rows = [
        {
            "condition": name,
            "own": conditions.own.get(name, {}),
            "seeds": len(finished[name]),
            "diverged": [o.seed for o in runs if o.state is State.DIVERGED],
            "accuracy": means[name],
            "train_accuracy": _mean([o.final_accuracy("train") for o in finished[name]]),
            "against": against[name],
        }
        for name, runs in ran.items()
    ]
    part = {
        "references": list(conditions.references),
        "primary": conditions.primary if against.get(conditions.primary) else "",
        "families": {reference: members for reference, members in families if members},
        "margins": {"point": margins[""], "errors": margins["_errors"]},
        "rows": rows,
    }
    return dict(without_nan(part | {"power": _power(first, part)}))


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    """Compare two conditions over the seeds that both have."""
    seeds = sorted(first.keys() & second.keys())
    return compare([first[seed] for seed in seeds], [second[seed] for seed in seeds])


def _tested(family: Mapping[str, Paired], margins: Mapping[str, float]) -> dict[str, Row]:
    """Test a family, each kind of test corrected for the number of its members."""
    p = [paired.p_difference for paired in family.values()]
    tests: dict[str, list[float]] = {"p_difference": holm(p), "level": holm_levels(p)}
    for name, margin in margins.items():
        p = [paired.p_equivalence(margin) for paired in family.values()]
        powers = [
            equivalence_power(paired.seeds, paired.deviation, margin, level)
            for paired, level in zip(family.values(), holm_levels(p), strict=True)
        ]
        tests |= {f"p_equivalence{name}": holm(p), f"power_equivalence{name}": powers}
    found = {}
    for number, (name, paired) in enumerate(family.items()):
        mine = {key: values[number] for key, values in tests.items()}
        low, high = paired.interval(mine["level"] if paired.is_testable else LEVEL)
        is_identical = paired.is_identical
        counts = {"seeds": paired.seeds, "difference": paired.difference, "deviation": paired.deviation}
        found[name] = counts | {"low": low, "high": high} | mine | {"verdict": _verdict(mine, is_identical)}
    return found


def _mean(values: Sequence[float]) -> dict[str, float] | None:
    if not values or math.isnan(statistics.fmean(values)):
        return None
    low, high = interval(values)
    return {"mean": statistics.fmean(values), "low": low, "high": high}


def _verdict(tests: Mapping[str, float], is_identical: bool) -> str:
    """Return what the tests say.

    "=" equivalent within a point, "%" within a tenth of the errors, "*" different, in any combination; "?" none of
    them, and these seeds had less than even chances to show that equals are equivalent; "~" none of them all the same.
    """
    found = "".join(
        mark
        for mark, p in (("=", "p_equivalence"), ("%", "p_equivalence_errors"), ("*", "p_difference"))
        if tests[p] < LEVEL or (is_identical and mark != "*")
    )
    could = max(tests["power_equivalence"], tests["power_equivalence_errors"]) >= ENOUGH
    return found or ("~" if could and not math.isnan(tests["p_difference"]) else "?")


def _power(reference: str, part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the power of the family's tests against a reference, alone and at the first step of Holm's procedure."""
    members = part["families"].get(reference) or [part["primary"]]
    tested = [(row["condition"], row["against"].get(reference)) for row in part["rows"] if row["condition"] in members]
    tested = sorted(((n, p) for n, p in tested if p and p["deviation"] > 0), key=lambda each: each[1]["deviation"])
    if not tested:
        return None
    levels = LEVEL, LEVEL / len(tested)

    def powers(of: Callable[..., float], seeds: int, deviation: float) -> list[float]:
        return [of(seeds, deviation, level=level) for level in levels]

    median = tested[(len(tested) - 1) // 2]
    shown = {"median": median, "most": tested[-1]} if len(tested) > 1 else {"": median}
    return {
        "reference": reference,
        "tests": len(tested),
        "of": [
            {
                "condition": name,
                "which": which,
                "seeds": p["seeds"],
                "deviation": p["deviation"],
                "difference": powers(power, p["seeds"], p["deviation"]),
                "equivalence": powers(equivalence_power, p["seeds"], p["deviation"]),
            }
            for which, (name, p) in shown.items()
        ],
        "seeds_for_0.8": seeds_for(median[1]["deviation"], levels[1]),
    }


def among(outcomes: Sequence[Outcome]) -> Conditions | None:
    """Return the conditions of runs that have ended, against backprop or else the first; None where each is one run."""
    ended = [o.condition for o in outcomes if o.state.is_final]
    names = list(dict.fromkeys(ended))
    if len(names) == len(ended):
        return None
    return Conditions(names, [next((name for name in names if name.startswith("backprop")), names[0])])
