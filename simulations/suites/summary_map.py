"""Summary map: differences from backprop of all suites that lift an assumption, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actrelax.analysis import figures
from actrelax.analysis.reports import comparison, results_table, suite_report
from actrelax.analysis.reports.comparison import Row
from actrelax.analysis.style import written
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites import depth_figure
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.report import conditions_of
from actrelax.simulations.suites.suite import Suite

TITLE = "What can be lifted, on which layers, at what cost? (results of the suites that lift something)"

COLUMNS = {
    ("mlp-mnist", "tanh"): "MNIST\ntanh",
    ("mlp-mnist", "relu"): "MNIST\nrelu",
    ("mlp-mnist-own-rates", "tanh"): "MNIST\ntanh\nown rates",
    ("mlp-mnist-own-rates", "relu"): "MNIST\nrelu\nown rates",
    ("mlp-mnist-ce", ""): "MNIST\ncross-\nentropy",
    ("mlp-fashion", "tanh"): "Fashion\ntanh",
    ("mlp-fashion", "relu"): "Fashion\nrelu",
    ("unfrozen-mnist", ""): "MNIST\nunfrozen",
    ("unfrozen-fashion", ""): "Fashion\nunfrozen",
    ("cnn-cifar10", ""): "CIFAR-10",
    ("cnn-cifar10-own-rates", ""): "CIFAR-10\nown rates",
    ("cnn-cifar10-long", ""): "CIFAR-10\n30 epochs",
    ("cnn-cifar10-converged", ""): "CIFAR-10\nconverged",
    ("cnn-cifar10-converged-own-rates", ""): "CIFAR-10\nconverged\nown rates",
    ("cnn-cifar10-adam", ""): "CIFAR-10\nconverged\nAdam",
    ("unfrozen-cifar10", ""): "CIFAR-10\nunfrozen",
    ("graph-cifar10", ""): "CIFAR-10\nskips",
    ("cnn-cifar100", ""): "CIFAR-100",
    ("cnn-svhn", ""): "SVHN",
    ("cnn-svhn10k", ""): "svhn10k",
}
"""(results folder, variant) -> name in the figure."""

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
"""Row -> names of the condition in suites, if they differ from the row's."""


REFERENCE = "backprop"


def suite_of(results: str) -> Suite:
    """Return the suite of a results folder; "NAME-own-rates" has the conditions of NAME."""
    return SUITES[results.removesuffix("-own-rates")]


@dataclass(frozen=True)
class Column:
    """Comparisons of one suite's conditions with backprop.

    name   name in the figure
    place  suite and variant
    seeds  number of backprop's seeds
    cells  row -> difference from backprop, verdict, and numbers of seeds
    """

    name: str
    place: str
    seeds: int
    cells: dict[str, dict[str, Any]]


def columns(results: Path) -> list[Column]:
    """Read the results of all suites in a folder.

    Raises
    ------
    ActrelaxError
        If there are no results, or they can't be read.
    """
    found = []
    for (suite, variant), name in COLUMNS.items():
        mine = [o for o in results_table.read(results / suite).values() if o.variant == variant]
        comparison.refuse_mixed(results / suite, mine)
        rows = {r["condition"]: r for r in comparison.compared(conditions_of(suite_of(suite), variant), mine)["rows"]}
        if REFERENCE not in rows:
            continue
        seeds = rows[REFERENCE]["seeds"]
        cells = {
            row: _cell(rows[called], seeds)
            for row, names in ROWS.items()
            for called in names or (row,)
            if called in rows
        }
        cells = {row: cell for row, cell in cells.items() if cell["diverged"] or cell["difference"] is not None}
        if cells:
            found.append(Column(name, f"{suite} {variant}".strip(), seeds, cells))
    if not found:
        raise ActrelaxError(f"{results} holds no results to compare: carry out a suite first.")
    return found


def _cell(row: Row, of: int) -> dict[str, Any]:
    paired = row["against"].get(REFERENCE, {})
    counts = {"diverged": len(row["diverged"]), "seeds": row["seeds"], "of": of}
    return {"difference": paired.get("difference"), "verdict": paired.get("verdict")} | counts


def write(folder: Path, results: Path, command: str) -> str:
    """Write table.json, map.png and, if networks of several depths were trained, depth.png; return the table."""
    found = columns(results)
    names = [row for row in ROWS if any(row in column.cells for column in found)]
    heads = {column.place: f"{column.place} ({suite_report.seeds(column.seeds)})" for column in found}
    rows = [{"": row} | {column.place: column.cells.get(row) for column in found} for row in names]
    part = {"variant": "", "heads": heads, "rows": rows, "notes": NOTES}
    _draw(folder / "map.png", found, names)
    depth_figure.draw(folder / "depth.png", results)
    said = {"title": TITLE, "command": command, "remark": ""}
    return suite_report.write_document(folder, {"kind": "map", "name": "map", **said, "parts": [part]})


NOTES = """\
Final test accuracy minus backprop's in points, paired by seed. AR relaxes like the other conditions of its column.
=: equivalent within a point; %: equivalent within 10 % of backprop's errors; *: different; all at p < 0.05, with Holm's
correction over the suite's conditions, except for AR, which is tested alone. Identical results: =%.
~: none of these. ?: none of these, with so few seeds that even equal means would probably not be found equivalent.\
""".splitlines()


def _draw(path: Path, found: Sequence[Column], names: Sequence[str]) -> None:
    cells = [[column.cells.get(name) for column in found] for name in names]
    values = [[cell["difference"] if cell else None for cell in row] for row in cells]
    texts = [[suite_report.map_cell(cell, "\n") if cell else "" for cell in row] for row in cells]
    heads = [f"{column.name}\n({column.seeds})" for column in found]
    with written(path, (3.6 + 0.72 * len(found), 1.2 + 0.34 * len(names))) as figure:
        differences = [[math.nan if value is None else value for value in row] for row in values]
        figures.difference_table(figure.subplots(), differences, texts, names, heads)
