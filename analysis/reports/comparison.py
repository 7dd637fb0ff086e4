"""Conditions side by side: accuracies over seeds with intervals, paired differences, and tests of both kinds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.statistics import Paired, compare, equivalence_power, holm, interval, power, seeds_for
from actrelax.analysis.tables import Format, Table, without_nan

Row = dict[str, Any]
"""A condition in a table.

condition  its name
own        options that only its runs have
seeds      the number of seeds that finished
diverged   the seeds that diverged
accuracy   mean, low, high: final test accuracy in percent with its 95 % interval; None without a seed
train_accuracy  final training accuracy, likewise; None where it was not measured
against    reference -> fields of `Paired`, with p by Holm's correction over the column, and the verdict
"""

LEVEL = 0.05


@dataclass(frozen=True)
class Conditions:
    """The conditions to compare.

    names       in the order of the table
    references  conditions that all others are compared with; each is itself compared with those before it
    own         condition -> options that only its runs have
    """

    names: Sequence[str]
    references: Sequence[str]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def compared(conditions: Conditions, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the numbers of a table, as table.json has them: rows, references, and the power of the tests.

    Raises
    ------
    ActrelaxError
        If there is something to test and statsmodels is not installed.
    """
    import pandas  # slow to load

    ran = {name: [o for o in outcomes if o.condition == name] for name in conditions.names}
    ran = {name: runs for name, runs in ran.items() if runs}
    accuracies = {n: {o.seed: o.final_accuracy() for o in runs if o.state is State.FINISHED} for n, runs in ran.items()}
    by_seed = pandas.DataFrame(accuracies).sort_index()
    against: dict[str, Row] = {name: {} for name in ran}
    for number, reference in enumerate(conditions.references):
        others = [name for name in ran if name not in conditions.references[: number + 1]] if reference in ran else []
        pairs = {name: by_seed[[name, reference]].dropna() for name in others}
        found = {name: compare(*both.to_numpy().T) for name, both in pairs.items() if len(both)}
        different = holm([paired.p_difference for paired in found.values()])
        equivalent = holm([paired.p_equivalence for paired in found.values()])
        for (name, paired), p, q in zip(found.items(), different, equivalent, strict=True):
            corrected = {"p_difference": p, "p_equivalence": q, "verdict": _verdict(paired, p, q)}
            against[name][reference] = asdict(paired) | corrected
    rows = [
        {
            "condition": name,
            "own": conditions.own.get(name, {}),
            "seeds": len(accuracies[name]),
            "diverged": [o.seed for o in runs if o.state is State.DIVERGED],
            "accuracy": _mean(list(accuracies[name].values())),
            "train_accuracy": _mean([o.final_accuracy("train") for o in runs if o.state is State.FINISHED]),
            "against": against[name],
        }
        for name, runs in ran.items()
    ]
    first = conditions.references[0]
    part = {"references": list(conditions.references), "rows": rows, "power": _power(first, rows)}
    return dict(without_nan(part))


def _mean(values: Sequence[float]) -> dict[str, float] | None:
    if not values or math.isnan(statistics.fmean(values)):
        return None
    low, high = interval(values)
    return {"mean": statistics.fmean(values), "low": low, "high": high}


def _verdict(paired: Paired, p_difference: float, p_equivalence: float) -> str:
    """Return what the tests say: "=" equivalent, "*" different, "?" neither, as one can be both."""
    equivalent = p_equivalence < LEVEL or paired.is_identical
    return ("=" if equivalent else "") + ("*" if p_difference < LEVEL else "") or "?"


def _power(reference: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return the power of the tests against a reference, alone and at the first step of Holm's procedure."""
    tested = [(row["condition"], row["against"][reference]) for row in rows if reference in row["against"]]
    tested = sorted(((n, p) for n, p in tested if p["deviation"] > 0), key=lambda each: float(each[1]["deviation"]))
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


def table(caption: str, part: Mapping[str, Any]) -> Table:
    """Return a table of conditions as text."""
    own = sorted({option for row in part["rows"] for option in row["own"]})
    columns: list[tuple[str, Format]] = [("condition", ""), *((option, str) for option in own)]
    columns += [("seeds", _seeds), ("test accuracy (%)", _accuracy), ("train accuracy (%)", _accuracy)]
    for reference in part["references"]:
        columns += [(f"minus {reference}", _difference), ("p (difference)", _p), ("p (equivalence)", _p)]
    rows = []
    for row in part["rows"]:
        cells = [
            row["condition"],
            *(row["own"].get(option) for option in own),
            row,
            row["accuracy"],
            row["train_accuracy"],
        ]
        for reference in part["references"]:
            paired = row["against"].get(reference)
            if paired:
                paired = paired | {"of": row["seeds"]}
                cells += [paired, paired["p_difference"], paired["p_equivalence"]]
            else:
                cells += [None] * 3
        rows.append(cells)
    return Table.of(caption, columns, rows)


def _seeds(row: Row) -> str:
    return f"{row['seeds']}" + (f", {len(row['diverged'])} diverged" if row["diverged"] else "")


def _accuracy(value: Mapping[str, float]) -> str:
    between = "" if value["low"] is None else " ({low:.1f} to {high:.1f})".format(**value)
    return f"{value['mean']:.1f}{between}"


def _difference(paired: Mapping[str, Any]) -> str:
    if paired["difference"] == paired["deviation"] == 0:
        return "0 (identical)"
    between = "" if paired["low"] is None else " ({low:+.2f} to {high:+.2f})".format(**paired)
    return f"{paired['difference']:+.2f}{between}" + (
        f", {paired['seeds']} pairs" if paired["seeds"] < paired["of"] else ""
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def remarks(part: Mapping[str, Any]) -> list[str]:
    """Return the lines below a table: intervals, tests, their power, and diverged seeds."""
    lines = [
        "Final accuracies, means of a run's last three epochs (five from thirty epochs on): mean over seeds, 95 %",
        "interval; differences in test accuracy, seed by seed, likewise.",
        "p (difference): paired t test. p (equivalence): two one-sided t tests, margin 1 point. Below 0.05 the two are",
        "different, or equivalent. Both with Holm's correction over the column; intervals are not corrected.",
    ]
    if found := part["power"]:
        which = {"median": ", the median", "most": ", the most", "": ""}
        lines += [
            f"Power at 0.05 and at 0.05 / {found['tests']}, Holm's first step, to find a difference of a point from "
            f"{found['reference']}:",
            *(
                f"{_both(p['difference'])} under {p['condition']} (deviation of {p['seeds']} differences: "
                f"{p['deviation']:.2f} points{which[p['which']]}),"
                for p in found["of"]
            ),
            f"and equivalence that is exact: {', '.join(_both(p['equivalence']) for p in found['of'])}.",
            f"0.8 for a difference at Holm's first step takes {found['seeds_for_0.8']} seeds at the median.",
        ]
    return lines + [
        f"Diverged under {row['condition']}: seed {', '.join(map(str, row['diverged']))}; means and differences are "
        "those of the others."
        for row in part["rows"]
        if row["diverged"]
    ]


def _both(powers: Sequence[float]) -> str:
    return " and ".join(f"{value:.2f}" for value in powers)


def among(outcomes: Sequence[Outcome]) -> Conditions | None:
    """Return the conditions of runs that have ended, against backprop or else the first; None where each is one run."""
    ended = [o.condition for o in outcomes if o.state.is_final]
    names = list(dict.fromkeys(ended))
    if len(names) == len(ended):
        return None
    return Conditions(names, [next((name for name in names if name.startswith("backprop")), names[0])])
