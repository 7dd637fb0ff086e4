"""Tables: CSV files, and rows of text as Markdown, LaTeX and on a terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from actrelax.analysis.files import write_text

Cells = Sequence[str]


def write_csv(path: Path, head: Cells, rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all.

    Raises
    ------
    ActrelaxError
        If it can't be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return a table's rows, column -> text.

    Raises
    ------
    OSError
        If it can't be read.
    """
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def markdown(head: Cells, rows: Iterable[Cells]) -> str:
    """Return a table in GitHub's Markdown.

    Examples
    --------
    >>> print(markdown(["depth", "error"], [["2", "0.1"]]), end="")
    | depth | error |
    | --- | --- |
    | 2 | 0.1 |
    """
    lines = ([cell.replace("|", r"\|") for cell in row] for row in (head, ["---"] * len(head), *rows))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def read_markdown(text: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table in GitHub's Markdown.

    Examples
    --------
    >>> read_markdown(markdown(["depth", "max |x|"], [["2", ""]]))
    (['depth', 'max |x|'], [['2', '']])
    """
    head, _, *rows = (_cells(line) for line in text.splitlines())
    return head, rows


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def plain(head: Cells, rows: Sequence[Cells]) -> str:
    """Return a table for a terminal, the first column to the left.

    Examples
    --------
    >>> print(plain(["run", "accuracy"], [["backprop", "98.1"], ["ar", "9.3"]]))
    run       accuracy
    backprop      98.1
    ar             9.3
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    first, *others = widths
    return "\n".join(
        "  ".join(
            [f"{row[0]:{first}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))]
        ).rstrip()
        for row in (head, *rows)
    )


def latex(head: Cells, rows: Iterable[Cells]) -> str:
    """Return a tabular of LaTeX's package booktabs, the first column to the left."""
    first, *others = (" & ".join(map(_escaped, row)) + r" \\" for row in (head, *rows))
    columns = "l" + "r" * (len(head) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule", *others, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(cell: str) -> str:
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", re.sub(r"([%&#_])", r"\\\1", cell).replace("<", "$<$"))
