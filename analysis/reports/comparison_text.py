"""Text of a comparison: its table, with the lines above and below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actrelax.analysis.reports.comparison import ENOUGH, Row
from actrelax.analysis.statistics import LEVEL, MOST_SEEDS, RELATIVE_MARGIN
from actrelax.analysis.tables import Format, Table

SHARE = f"{100 * RELATIVE_MARGIN:g} %"


_TESTS = (
    "Holm's procedure tests at 0.05/k, so it excludes 0 exactly if p (difference) is below 0.05. p (within ...)",
    "are two one-sided t tests: below 0.05, the two conditions are equivalent within the margin. If such a test",
    "found nothing and had a power below 0.5, the power is shown instead of p: the test would probably have missed",
    "even equal means.",
)
"""Lines on intervals and tests below a table."""


def families(part: Mapping[str, Any]) -> list[str]:
    """Return the lines above a table: the primary contrast and the families of corrected tests."""
    first, primary = part["references"][0], part["primary"]
    lines = []
    if primary:
        same = next(row for row in part["rows"] if row["condition"] == primary)["against"][first]
        said = "the same computation, not tested" if _is_identical(same) else "tested alone, p not adjusted"
        lines.append(f"Primary contrast: {primary} minus {first}, {said}.")
    found = [
        f"{len(members)} condition{'' if len(members) == 1 else 's'} minus {reference}"
        for reference, members in part["families"].items()
    ]
    if found:
        lines.append(f"Holm {'families' if len(found) > 1 else 'family'}: {'; '.join(found)}.")
        lines[-1] += " Within each, p (difference) and the two p of equivalence are adjusted separately."
    if part["margins"]["errors"] is not None and (found or primary):
        lines.append(f"{SHARE} of {first}'s errors are {part['margins']['errors']:.2f} points.")
    return lines


def table(caption: str, part: Mapping[str, Any]) -> Table:
    """Return the table of a comparison, one row per condition; without tests there are no columns for tests."""
    own = sorted({option for row in part["rows"] for option in row["own"]})
    columns: list[tuple[str, Format]] = [("condition", ""), *((option, str) for option in own)]
    columns += [("seeds", _seeds), ("test accuracy (%)", _accuracy), ("train accuracy (%)", _accuracy)]
    references = part["references"] if _is_tested(part) else []
    for reference in references:
        columns += [(f"minus {reference}", _difference), ("p (difference)", _p)]
        columns += [("p (within 1 point)", _equivalence), (f"p (within {SHARE} of errors)", _equivalence)]
    rows = []
    for row in part["rows"]:
        options = [row["own"].get(option) for option in own]
        cells = [row["condition"], *options, row, row["accuracy"], row["train_accuracy"]]
        for reference in references:
            paired = row["against"].get(reference)
            cells += [None] * 4 if paired is None else _compared(paired | {"of": row["seeds"]})
        rows.append(cells)
    return Table.of(caption, columns, rows)


def _is_tested(part: Mapping[str, Any]) -> bool:
    return any(row["against"] for row in part["rows"])


def _compared(paired: Row) -> list[Any]:
    tests = [(paired[f"p_equivalence{of}"], paired[f"power_equivalence{of}"]) for of in ("", "_errors")]
    return [paired, paired["p_difference"], *(None if p is None else (p, power) for p, power in tests)]


def _seeds(row: Row) -> str:
    return f"{row['seeds']}" + (f", {len(row['diverged'])} diverged" if row["diverged"] else "")


def _accuracy(value: Mapping[str, float]) -> str:
    between = "" if value["low"] is None else " ({low:.1f} to {high:.1f})".format(**value)
    return f"{value['mean']:.1f}{between}"


def _is_identical(paired: Mapping[str, Any]) -> bool:
    return bool(paired["difference"] == paired["deviation"] == 0)


def _difference(paired: Mapping[str, Any]) -> str:
    if _is_identical(paired):
        return "0 (identical)"
    between = "" if paired["low"] is None else " ({low:+.2f} to {high:+.2f})".format(**paired)
    return f"{paired['difference']:+.2f}{between}" + (
        f", {paired['seeds']} pairs" if paired["seeds"] < paired["of"] else ""
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _equivalence(test: tuple[float, float]) -> str:
    """Format the p value of a test of equivalence, or its power if that was too low for a verdict."""
    p, power = test
    return f"power {power:.2f}" if p >= LEVEL and power < ENOUGH else _p(p)


def remarks(part: Mapping[str, Any]) -> list[str]:
    """Return the lines below a table: explanations of accuracies, intervals and tests, power, and diverged seeds."""
    lines = [
        "Accuracies are means over seeds with 95 % intervals; a run's accuracy is the mean of its last three epochs",
        "(five from 30 epochs on).",
    ]
    if _is_tested(part):
        lines[-1] += " Differences in test accuracy are paired by seed. p (difference) is a paired t test."
        alone = "95 % for the primary contrast and " if part["primary"] else ""
        lines += [
            f"The interval of a difference has the level of its test, {alone}1 - 0.05/k where",
            *_TESTS,
        ]
    if found := part["power"]:
        which = {"median": ", the median", "most": ", the largest", "": ""}
        lines += [
            f"Power at the levels 0.05 and 0.05 / {found['tests']} (Holm's first step) to find a difference of one "
            f"point from {found['reference']}:",
            *(
                f"{_both(p['difference'])} for {p['condition']} (standard deviation of {p['seeds']} differences: "
                f"{p['deviation']:.2f} points{which[p['which']]}),"
                for p in found["of"]
            ),
            f"and to find equal means equivalent: {', '.join(_both(p['equivalence']) for p in found['of'])}.",
            f"At the median, a power of 0.8 for a difference at Holm's first step needs {_seeds_needed(found)} seeds.",
        ]
    lines += [
        f"Diverged under {row['condition']}: seed {', '.join(map(str, row['diverged']))}, left out of means and "
        "differences."
        for row in part["rows"]
        if row["diverged"]
    ]
    short = any(0 < epochs < 5 for epochs in part["epochs"])
    return [*lines, *(["Runs of fewer than five epochs are judged by their last epoch."] if short else [])]


def _seeds_needed(found: Mapping[str, Any]) -> str:
    seeds = found["seeds_for_0.8"]
    return f"more than {MOST_SEEDS:,}" if seeds is None else str(seeds)


def _both(powers: Sequence[float]) -> str:
    return " and ".join(f"{value:.2f}" for value in powers)
