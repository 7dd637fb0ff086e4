"""What can be lifted, on which layers, at what cost: every suite's differences from backprop, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actrelax.analysis import figures
from actrelax.analysis.files import write_text
from actrelax.analysis.reports import comparison, results_table
from actrelax.analysis.reports.comparison import Line
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.style import written
from actrelax.analysis.tables import latex, markdown
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.report import compared

TITLE = "What can be lifted, on which layers, at what cost? (results of the suites that lift something)"

COLUMNS = {
    ("mlp-mnist", "tanh"): "MNIST\ntanh",
    ("mlp-mnist", "relu"): "MNIST\nrelu",
    ("mlp-mnist-ce", ""): "MNIST\ncross-\nentropy",
    ("mlp-fashion", "tanh"): "Fashion\ntanh",
    ("mlp-fashion", "relu"): "Fashion\nrelu",
    ("unfrozen-mnist", ""): "MNIST\nunfrozen",
    ("unfrozen-fashion", ""): "Fashion\nunfrozen",
    ("cnn-cifar10", ""): "CIFAR-10",
    ("cnn-cifar10-long", ""): "CIFAR-10\n30 epochs",
    ("cnn-cifar10-converged", ""): "CIFAR-10\nconverged",
    ("cnn-cifar10-adam", ""): "CIFAR-10\nconverged\nAdam",
    ("graph-cifar10", ""): "CIFAR-10\nskips",
    ("cnn-cifar100", ""): "CIFAR-100",
    ("cnn-svhn", ""): "SVHN",
    ("cnn-svhn10k", ""): "svhn10k",
}
"""(suite, variant) -> how a figure calls it; MLPs first."""

ROWS = {
    "AR": ("AR", "AR, frozen", "AR, 100 steps"),
    "AR, converged": (),
    "no derivatives, dense": (),
    "no derivatives, conv": (),
    "no derivatives": (),
    "no derivatives in the relaxation": (),
    "learned feedback, dense": (),
    "learned feedback, conv": (),
    "learned feedback": (),
    "Kolen-Pollack feedback": (),
    "sign feedback": (),
    "random feedback": (),
    "learned feedback, no derivatives in the relaxation": ("both",),
    "learned feedback and no derivatives, dense": ("simplified, dense",),
    "no derivatives, and learned feedback, dense": ("simplified",),
    "current gain in the relaxation": (),
    "current gain in the weight update": (),
    "current gain in both": (),
    "current activity in the weight update": (),
}
"""What is lifted -> how suites call it, where that is something else."""


REFERENCE = "backprop"


@dataclass(frozen=True)
class Column:
    """One suite's comparisons with backprop.

    name   how figures call it; `place` is the suite and variant
    seeds  of backprop
    lines  row -> the condition's line of the suite's table
    """

    name: str
    place: str
    seeds: int
    lines: dict[str, Line]


def columns(results: Path) -> list[Column]:
    """Read the results of all suites that have some.

    Raises
    ------
    ActrelaxError
        If there are none, or some can't be read.
    """
    found = []
    for (suite, variant), name in COLUMNS.items():
        mine = [o for o in results_table.read(results / suite).values() if o.variant == variant]
        _refuse_mixed(results / suite, mine)
        lines = {line.condition: line for line in comparison.lines(compared(SUITES[suite], variant), mine)}
        rows = {row: lines[called] for row, names in ROWS.items() for called in names or (row,) if called in lines}
        rows = {row: line for row, line in rows.items() if line.diverged or _difference(line) is not None}
        if rows and REFERENCE in lines:
            place = f"{suite} {variant}".strip()
            found.append(Column(name, place, len(lines[REFERENCE].accuracies), rows))
    if not found:
        raise ActrelaxError(f"there are no results to compare in {results}: carry out a suite first.")
    return found


def write(folder: Path, results: Path, command: str) -> str:
    """Write table.md, table.tex and map.png; returns table.md's text."""
    found = columns(results)
    head = ["", *(f"{column.place} ({_seeds(column.seeds)})" for column in found)]
    rows = [[row, *(_cell(column, row) for column in found)] for row in _rows(found)]
    text = f"# map\n\n{TITLE}\n\n    {command}\n\n{markdown(head, rows)}\n{NOTES}"
    write_text(folder / "table.md", text)
    write_text(folder / "table.tex", latex(head, rows))
    _draw(folder / "map.png", found)
    return text


NOTES = """\
Points of test accuracy above backprop, seed by seed. AR relaxes as the rest of its column does.
=: equivalent within a point, or identical. *: different. Both at p < 0.05 with Holm's correction over the suite's
conditions. ?: these seeds can't tell.
"""


def _refuse_mixed(folder: Path, found: Sequence[Outcome]) -> None:
    """Raise an error if the folder has runs of different options under one name."""
    seen = set()
    for o in found:
        if (o.condition, o.seed) in seen:
            raise ActrelaxError(
                f"{folder} has two runs of {o.condition} with seed {o.seed}, of different options: "
                "reproduce one of them into an --out of its own."
            )
        seen.add((o.condition, o.seed))


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _rows(found: Sequence[Column]) -> list[str]:
    return [row for row in ROWS if any(row in column.lines for column in found)]


def _difference(line: Line) -> float | None:
    paired = line.against.get(REFERENCE)
    return paired.difference if paired is not None and paired.seeds else None


def _cell(column: Column, row: str, between: str = " ") -> str:
    """Return what a table says of a condition: difference and verdict, seeds that diverged or are to come."""
    return between.join(_parts(column, column.lines[row])) if row in column.lines else ""


def _parts(column: Column, line: Line) -> Iterator[str]:
    difference = _difference(line)
    if difference is not None:
        yield f"{round(difference, 1) + 0.0:+.1f} {line.verdict(REFERENCE)}"  # never -0.0
    if line.diverged:
        yield f"({len(line.diverged)} diverged)"
    elif len(line.accuracies) < column.seeds:
        yield f"({_seeds(len(line.accuracies))})"


def _draw(path: Path, found: Sequence[Column]) -> None:
    rows = _rows(found)
    values, texts = [], []
    for row in rows:
        lines = [column.lines.get(row) for column in found]
        values.append([math.nan if line is None or (d := _difference(line)) is None else d for line in lines])
        texts.append([_cell(column, row, "\n") for column in found])
    with written(path, (3.6 + 0.72 * len(found), 1.2 + 0.34 * len(rows))) as figure:
        ax = figure.subplots()
        figures.difference_table(ax, values, texts, rows, [f"{column.name}\n({column.seeds})" for column in found])
