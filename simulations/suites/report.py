"""Tables and figures of a suite: accuracies with intervals, tested differences, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actrelax.analysis import figures
from actrelax.analysis.reports import comparison, comparison_text, suite_report
from actrelax.analysis.reports.comparison import Conditions
from actrelax.analysis.reports.curves import over_training
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.simulations.suites.suite import Suite


def conditions_of(suite: Suite, variant: str) -> Conditions:
    """Return the conditions of a variant's table, with the first two as references and their contrast as primary."""
    names = list(suite.conditions)
    return Conditions(names, names[:2], {name: suite.own.get((variant, name), {}) for name in names}, names[1])


def write(folder: Path, name: str, suite: Suite, outcomes: Sequence[Outcome], command: str) -> str:
    """Write table.json and the figures of the finished runs, and return the tables as Markdown."""
    for variant in suite.variants:
        _draw(folder, variant, suite, [o for o in outcomes if o.variant == variant])
    return suite_report.write_document(folder, document(name, suite, outcomes, command))


def document(name: str, suite: Suite, outcomes: Sequence[Outcome], command: str) -> dict[str, Any]:
    """Return the content of table.json."""
    by_variant = {variant: [o for o in outcomes if o.variant == variant] for variant in suite.variants}
    parts = [_part(suite, variant, mine) for variant, mine in by_variant.items() if mine]
    said = {"title": suite.title, "command": command, "remark": suite.remark}
    return {"kind": "conditions", "name": name, **said, "parts": parts}


def _part(suite: Suite, variant: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    part = comparison.compared(conditions_of(suite, variant), outcomes)
    epochs = part["epochs"] or [0]
    minutes = sum(o.wall_seconds for o in outcomes) / 60
    done, wanted = len(outcomes), len(suite.conditions) * suite.seeds
    count = f"{done}" if done == wanted else f"{done} of {wanted}"
    lengths = f"{' or '.join(map(str, epochs))} epoch{'' if epochs == [1] else 's'}"
    took = f"{count} runs of {lengths}, {minutes:.0f} minutes of wall time in all."
    work = {"runs": done, "runs_wanted": wanted, "epochs": epochs, "minutes": minutes}
    said = {"above": comparison_text.families(part), "notes": [*comparison_text.remarks(part), took]}
    return {"variant": variant} | part | work | said


def _draw(folder: Path, variant: str, suite: Suite, outcomes: Sequence[Outcome]) -> None:
    """Draw learning curves of the finished runs, and angles if they were measured."""
    suffix = f"-{variant.replace(' ', '-')}" if variant else ""
    finished = [o for o in outcomes if o.state is State.FINISHED]
    if not finished:
        return
    named = {name: _with_losses(name, [o for o in outcomes if o.condition == name]) for name in suite.conditions}
    finished, order = [replace(o, condition=named[o.condition]) for o in finished], list(named.values())
    with figures.saved(folder / f"learning-curves{suffix}.png", columns=2, legend=True) as (_, axes):
        for ax, column in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            over_training(ax, finished, column, order)
    if any("angle" in o.curves for o in finished):
        with figures.saved(folder / f"angles{suffix}.png", legend=True) as (_, (ax,)):
            over_training(ax, finished, "angle", order).set_ylim(0, None)


def _with_losses(name: str, outcomes: Sequence[Outcome]) -> str:
    """Return the name of a condition in figures, with the number of finished seeds if some diverged."""
    diverged = sum(o.state is State.DIVERGED for o in outcomes)
    return f"{name} ({len(outcomes) - diverged} of {len(outcomes)} seeds)" if diverged else name
