"""The report of a suite's results folder: its tables as it wrote them, its curves drawn again, every run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actrelax.analysis.reports import curves
from actrelax.analysis.reports.page import Page, Picture, Section, Table
from actrelax.analysis.reports.results_table import Outcome, read
from actrelax.analysis.runs import State
from actrelax.analysis.tables import read_markdown
from actrelax.models.errors import ActrelaxError

TABLE = "table.md"


def is_suite(folder: Path) -> bool:
    """Whether a suite left its results here."""
    return (folder / TABLE).exists()


@dataclass(frozen=True)
class Part:
    """What table.md says about one variant: title (empty for the only one), paragraphs, tables, blocks of code."""

    title: str
    text: list[str]
    tables: list[tuple[list[str], list[list[str]]]]
    code: list[str]


@dataclass(frozen=True)
class Results:
    """A suite's results folder, read.

    name      of the suite
    parts     what table.md says, the introduction first
    outcomes  every run; none where the suite trains nothing
    """

    folder: Path
    name: str
    parts: list[Part]
    outcomes: list[Outcome]


def read_results(folder: Path) -> Results:
    """Read what a suite left.

    Raises
    ------
    ActrelaxError
        If it can't be read.
    """
    try:
        text = (folder / TABLE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ActrelaxError(f"{folder} holds no suite's results: {TABLE} can't be read.") from error
    parts = _parts(text)
    if not parts:
        raise ActrelaxError(f"{folder} holds no suite's results: {TABLE} begins with no title.")
    return Results(folder, parts[0].title, parts, list(read(folder).values()))


def _parts(text: str) -> list[Part]:
    """Cut table.md at its titles; nothing if it begins with something else."""
    parts: list[Part] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        title = re.fullmatch(r"#+ (.+)", block)
        if title:
            parts.append(Part(title[1], [], [], []))
        elif not parts:
            return []
        elif block.startswith("    "):
            parts[-1].code.append(block.strip())
        elif block.startswith("|"):
            parts[-1].tables.append(read_markdown(block))
        else:
            parts[-1].text.append(re.sub(r"\\(.)", r"\1", " ".join(block.split())))
    return parts


def page(results: Results, folder: Path) -> Page:
    """Draw the suite's curves into a folder, and return its report.

    Parameters
    ----------
    results : Results
    folder : pathlib.Path
        Where each figure is written as PNG and as PDF.

    Raises
    ------
    ActrelaxError
        If a figure can't be written.
    """
    introduction = results.parts[0]
    sections = [_section(results, part, folder) for part in results.parts if part.tables]
    if not any(section.pictures for section in sections):
        sections.append(Section("Figures", pictures=_as_drawn(results)))
    if results.outcomes:
        sections.append(Section("Every run", tables=[outcome_table(results.outcomes)], folded=True))
    sections.append(Section("Command", code="\n".join(introduction.code)))
    return Page(f"Suite {results.name}", introduction.text[:1], sections)


def tables(results: Results, part: Part) -> list[Table]:
    """Return the tables of one part."""
    title = f"Conditions, {part.title}" if part is not results.parts[0] else "Conditions"
    return [Table(title, head, rows) for head, rows in part.tables]


def _section(results: Results, part: Part, folder: Path) -> Section:
    """Show one variant: its table, what has to be known about it, and the curves of the runs that finished."""
    is_only = part is results.parts[0]
    variant, notes = ("", part.text[1:]) if is_only else (part.title, part.text)
    finished = [o for o in results.outcomes if o.variant == variant and o.state is State.FINISHED]
    drawn = curves.pictures(folder, finished, f"-{variant.replace(' ', '-')}" if variant else "")
    if drawn:
        notes = [*notes, "Lines are means over seeds, bands their 95 % intervals; runs that diverged are left out."]
    return Section("Results" if is_only else variant, tables=tables(results, part), notes=notes, pictures=drawn)


def _as_drawn(results: Results) -> list[Picture]:
    """Take the figures that the suite drew itself."""
    return [
        Picture.read(path, f"{path.stem.replace('-', ' ')}, of the suite {results.name}", path.name)
        for path in sorted(results.folder.glob("*.png"))
    ]


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row per run."""
    accuracies = ("test_accuracy", "train_accuracy")
    head = ["condition", "variant", "seed", "state", "epochs", "test accuracy (%)", "train accuracy (%)"]
    rows = [
        [
            o.condition,
            o.variant,
            str(o.seed),
            o.state.value,
            str(o.epochs),
            *(f"{100 * o.curves[name][-1]:.2f}" if o.epochs else "" for name in accuracies),
            f"{o.wall_seconds:.1f}",
            o.reason,
        ]
        for o in outcomes
    ]
    return Table("Each run after its last epoch", [*head, "wall time (s)", "why it diverged"], rows)
