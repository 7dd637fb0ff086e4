"""A suite's tables and figures: accuracies with intervals, differences with tests, curves with bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actrelax.analysis import figures
from actrelax.analysis.files import write_text
from actrelax.analysis.reports import comparison
from actrelax.analysis.reports.comparison import Conditions
from actrelax.analysis.reports.curves import over_training
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.tables import latex, markdown
from actrelax.simulations.suites.suite import Suite


def compared(suite: Suite, variant: str) -> Conditions:
    """Return what is compared in one variant's table: against the first two conditions, backprop and AR."""
    names = list(suite.conditions)
    own = {name: suite.own.get((variant, name), {}) for name in names}
    return Conditions(names, names[:2], own)


def write(folder: Path, name: str, suite: Suite, outcomes: Sequence[Outcome], command: str) -> str:
    """Write table.md, table.tex and the figures of what there is; returns table.md's text."""
    text, tabular = tables(name, suite, outcomes, command)
    write_text(folder / "table.md", text)
    write_text(folder / "table.tex", tabular)
    for variant in suite.variants:
        _draw(folder, variant, suite, [o for o in outcomes if o.variant == variant])
    return text


def tables(name: str, suite: Suite, outcomes: Sequence[Outcome], command: str) -> tuple[str, str]:
    """Return the variants' tables in Markdown, with what is to be said of them, and in LaTeX."""
    remark = f"\n{suite.remark}\n" if suite.remark else ""
    texts, tabulars = [f"# {name}\n\n{suite.title}\n\n    {command}\n{remark}"], []
    for variant in suite.variants:
        mine = [o for o in outcomes if o.variant == variant]
        if not mine:
            continue
        against = compared(suite, variant)
        table = comparison.lines(against, mine)
        head, rows = comparison.cells(against, table)
        epochs = sorted({o.epochs for o in mine if o.state is State.FINISHED}) or [0]
        title = f"## {variant}\n\n" if variant else ""
        minutes = sum(o.wall_seconds for o in mine) / 60
        wanted = len(suite.conditions) * suite.seeds
        count = f"{len(mine)}" if len(mine) == wanted else f"{len(mine)} of {wanted}"
        lengths = f"{' or '.join(map(str, epochs))} epoch{'' if epochs == [1] else 's'}"
        took = f"{count} runs of {lengths}, {minutes:.0f} minutes of wall time in all.\n"
        remarks = f"{comparison.remarks(against, table)}{took}"
        texts.append(f"{title}{markdown(head, rows)}\n{remarks}")
        notes = "".join(f"% {line}\n" for line in [variant, *remarks.splitlines()] if line)
        tabulars.append(notes + latex(head, rows))
    return "\n".join(texts), "\n".join(tabulars)


def _with_losses(name: str, outcomes: Sequence[Outcome]) -> str:
    """Return how figures call a condition: with how many of its seeds they show, where that is not all."""
    diverged = sum(o.state is State.DIVERGED for o in outcomes)
    return f"{name} ({len(outcomes) - diverged} of {len(outcomes)} seeds)" if diverged else name


def _draw(folder: Path, variant: str, suite: Suite, outcomes: Sequence[Outcome]) -> None:
    """Draw learning curves and, where they were measured, angles, of the runs that finished."""
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
