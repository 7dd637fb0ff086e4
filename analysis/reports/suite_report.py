"""Results of suites, sweeps, the map and figure 1: table.json, its text in Markdown, and the HTML report.

table.json holds the numbers of a results folder, from which all text is made:

kind                  "conditions" (a suite: `comparison`, `comparison_text`), "rates", "map" or "steps"
name, title, command  name and title of the suite, and the command that repeats it
remark                additional paragraph, or ""
parts                 one per table: its variant ("" if there is only one), rows, lines above it (above) and below
                      it (notes), and further numbers
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actrelax.analysis.files import exists, read_json, write_text
from actrelax.analysis.reports import comparison_text, curves
from actrelax.analysis.reports.page import Page, Picture, Section
from actrelax.analysis.reports.results_table import Outcome
from actrelax.analysis.runs import State
from actrelax.analysis.tables import Format, Table, missing_from, without_nan
from actrelax.models.errors import ActrelaxError

TABLE = "table.json"
Document = Mapping[str, Any]
"""The content of a table.json."""


def is_suite(folder: Path) -> bool:
    """Return whether a folder holds the results of a suite."""
    return exists(folder / TABLE)


def write_document(folder: Path, document: Document) -> str:
    """Write table.json, and return it as text."""
    document = without_nan(document)
    write_text(folder / TABLE, f"{json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)}\n")
    return text(document)


def read_document(folder: Path) -> Document:
    """Read table.json.

    Raises
    ------
    ActrelaxError
        If the file can't be read.
    """
    said = f"{folder} holds no suite's results"
    found = read_json(folder / TABLE, said)
    if missing := missing_from(list(found), ("kind", "name", "title", "command", "remark", "parts")):
        raise ActrelaxError(f"{said}: {TABLE} lacks {', '.join(missing)}.")
    try:
        text(found)  # uses every field
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ActrelaxError(f"{said}: {TABLE} is damaged or of another version.") from error
    return found


def text(document: Document) -> str:
    """Return the content of a table.json as Markdown."""
    blocks = [f"# {document['name']}", document["title"], f"    {document['command']}", document["remark"]]
    for part, table in zip(document["parts"], tables(document), strict=True):
        head = f"## {part['variant']}" if part["variant"] else ""
        blocks += [head, "\n".join(part.get("above", [])), table.text(), "\n".join(part["notes"])]
    return "\n\n".join(filter(None, blocks)) + "\n"


def markdown_table(folder: Path, variant: str = "") -> str:
    """Return one table of a results folder in Markdown.

    Raises
    ------
    ActrelaxError
        If there is no such table.
    """
    document = read_document(folder)
    for part, table in zip(document["parts"], tables(document), strict=True):
        if part["variant"] == variant:
            return table.text()
    raise ActrelaxError(f"{folder / TABLE} has no table {variant!r}.")


def tables(document: Document) -> list[Table]:
    """Return the table of each part."""
    found = []
    for part in document["parts"]:
        caption = f"Conditions, {part['variant']}" if part["variant"] else "Conditions"
        if document["kind"] == "conditions":
            found.append(comparison_text.table(caption, part))
            continue
        head, heads = list(part["rows"][0]), part.get("heads", {})
        columns: list[tuple[str, Format]] = [(head[0], "g")]
        columns += [(heads.get(name, name), CELLS[document["kind"]]) for name in head[1:]]
        found.append(Table.of(caption, columns, [[row.get(name) for name in head] for row in part["rows"]]))
    return found


def _rate(cell: Mapping[str, Any]) -> str:
    """Format a sweep's cell: mean accuracy, bold at the best rate, and the number of diverged seeds."""
    mean = "" if cell["accuracy"] is None else f"{cell['accuracy']:.1f}"
    lost = f"{cell['diverged']} diverged" if cell["diverged"] else ""
    return ", ".join(filter(None, (f"**{mean}**" if cell["best"] else mean, lost)))


def map_cell(cell: Mapping[str, Any], between: str = " ") -> str:
    """Format a cell of the map: difference and verdict, and the number of diverged or finished seeds."""
    parts = []
    if cell["difference"] is not None:
        parts.append(f"{round(cell['difference'], 1) + 0.0:+.1f} {cell['verdict']}")  # never -0.0
    if cell["diverged"]:
        parts.append(f"({cell['diverged']} diverged)")
    elif cell["seeds"] < cell["of"]:
        parts.append(f"({seeds(cell['seeds'])})")
    return between.join(parts)


def seeds(count: int) -> str:
    """Return a count of seeds as text."""
    return f"{count} seed{'' if count == 1 else 's'}"


def _steps(cell: Mapping[str, Sequence[int | None]]) -> str:
    """Format a cell of figure 1: the range of measured steps over seeds, and of predicted steps in parentheses."""
    return _span(cell["measured"]) + (f" ({_span(cell['predicted'])})" if cell["predicted"] else "")


def _span(steps: Sequence[int | None]) -> str:
    known = [n for n in steps if n is not None]
    if len(known) < len(steps):
        return "-"
    return f"{min(known)}" if min(known) == max(known) else f"{min(known)} to {max(known)}"


CELLS: Mapping[str, Callable[[Any], str]] = {"rates": _rate, "map": map_cell, "steps": _steps}
"""Kind of a table.json -> format of all cells but the first of a row."""


def page(folder: Path, document: Document, outcomes: Sequence[Outcome], out: Path) -> Page:
    """Return the report on a results folder, and draw its curves into `out`, as PNG and PDF.

    Raises
    ------
    ActrelaxError
        If a figure can't be written.
    """
    parts = zip(document["parts"], tables(document), strict=True)
    sections = [_section(part, table, outcomes, out) for part, table in parts]
    if not any(section.pictures for section in sections):
        drawn = sorted(folder.glob("*.png"))
        words = [f"{path.stem.replace('-', ' ')}, of the suite {document['name']}" for path in drawn]
        pictures = [Picture.read(path, alt, path.name) for path, alt in zip(drawn, words, strict=True)]
        sections.append(Section("Figures", pictures=pictures))
    if outcomes:
        sections.append(Section("Every run", tables=[outcome_table(outcomes)], folded=True))
    sections.append(Section("Command", code=document["command"]))
    return Page(f"Suite {document['name']}", list(filter(None, (document["title"], document["remark"]))), sections)


def _section(part: Mapping[str, Any], table: Table, outcomes: Sequence[Outcome], out: Path) -> Section:
    """Return the section of one variant: table, notes, and curves of the finished runs."""
    variant, notes = part["variant"], [" ".join(part["notes"])]
    above = [" ".join(part["above"])] if part.get("above") else []
    finished = [o for o in outcomes if o.variant == variant and o.state is State.FINISHED]
    drawn = curves.pictures(out, finished, f"-{variant.replace(' ', '-')}" if variant else "")
    if drawn:
        notes.append("Lines are means over seeds, bands their 95 % intervals; runs that diverged are left out.")
    return Section(variant or "Results", above, [table], notes, drawn)


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table with one row per run."""
    words, percent = ("condition", "variant", "seed", "state", "epochs"), ("test accuracy (%)", "train accuracy (%)")
    columns = [(name, "") for name in words] + [(name, ".2f") for name in percent]
    columns += [("wall time (s)", ".1f"), ("why it diverged", "")]
    rows = []
    for o in outcomes:
        final = [o.final_accuracy(of) if o.epochs else None for of in ("test", "train")]
        rows.append([o.condition, o.variant, o.seed, o.state.value, o.epochs, *final, o.wall_seconds, o.reason])
    return Table.of("Each run's final accuracy", columns, rows)
