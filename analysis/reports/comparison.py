"""Comparison of conditions: accuracies over seeds, paired differences, and tests for difference and equivalence."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
from actrelax.models.errors import ActrelaxError

Row = dict[str, Any]
"""Row of a comparison: one condition.

condition       its name
own             options that differ from the other conditions
seeds           number of seeds that finished
diverged        seeds that diverged
accuracy        mean, low, high: final test accuracy in percent with its 95 % interval; None if no seed finished
train_accuracy  mean, low, high: final training accuracy in percent; None if it was not measured
against         reference -> comparison with it

A comparison has

seeds, difference, deviation   fields of `Paired`
level, low, high               level of the test for a difference, and the interval of the difference at that level
p_difference                   p value, Holm-corrected over the family; uncorrected for the primary contrast
p_equivalence, power_equivalence                p value, corrected in the same way, and power, within a point
p_equivalence_errors, power_equivalence_errors  the same within a tenth of the first reference's errors
verdict                        see `_verdict`
"""

ENOUGH = 0.5
"""Smallest power at which a failed test of equivalence is informative."""


@dataclass(frozen=True)
class Conditions:
    """Conditions to compare.

    names       conditions in the order of the table
    references  conditions with which all others are compared; each is also compared with the references before it
    own         condition -> options that differ from the other conditions
    primary     condition whose contrast with the first reference is tested alone, without correction
    """

    names: Sequence[str]
    references: Sequence[str]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primary: str = ""


def refuse_mixed(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Raise an error if two of a suite's runs have the same variant, condition and seed."""
    for (_, condition, seed), count in Counter((o.variant, o.condition, o.seed) for o in outcomes).items():
        if count > 1:
            raise ActrelaxError(
                f"{folder} has two runs of {condition} with seed {seed} and different options: "
                "reproduce one of them with another --out."
            )


def compared(conditions: Conditions, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the rows, margins, families, power and numbers of epochs of a comparison, in the format of table.json.

    Raises
    ------
    ActrelaxError
        If there are tests to correct and statsmodels is not installed.
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
        "epochs": sorted({o.epochs for runs in finished.values() for o in runs}),
        "margins": {"point": margins[""], "errors": margins["_errors"]},
        "rows": rows,
    }
    return dict(without_nan(part | {"power": _power(first, part)}))


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    """Compare two conditions over the seeds they share."""
    seeds = sorted(first.keys() & second.keys())
    return compare([first[seed] for seed in seeds], [second[seed] for seed in seeds])


def _tested(family: Mapping[str, Paired], margins: Mapping[str, float]) -> dict[str, Row]:
    """Test all members of a family; each kind of test is corrected for multiple comparisons."""
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
    """Return the verdict of the tests as marks.

    "=" equivalent within a point, "%" equivalent within a tenth of the errors, "*" different, in any combination;
    "~" none of these although a test of equivalence had a power of 0.5 or more; "?" none of these, with less power.
    """
    found = "".join(
        mark
        for mark, p in (("=", "p_equivalence"), ("%", "p_equivalence_errors"), ("*", "p_difference"))
        if tests[p] < LEVEL or (is_identical and mark != "*")
    )
    could = max(tests["power_equivalence"], tests["power_equivalence_errors"]) >= ENOUGH
    return found or ("~" if could and not math.isnan(tests["p_difference"]) else "?")


def _power(reference: str, part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the power of a family's tests against a reference, uncorrected and at Holm's first step."""
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
    """Return the conditions of the runs that have ended; None if no condition has several runs.

    The reference is the first condition whose name begins with "backprop", or else the first of all.
    """
    ended = [o.condition for o in outcomes if o.state.is_final]
    names = list(dict.fromkeys(ended))
    if len(names) == len(ended):
        return None
    return Conditions(names, [next((name for name in names if name.startswith("backprop")), names[0])])
