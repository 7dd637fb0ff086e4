"""Tables: CSV files, and numbers as text in Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actrelax.analysis.files import read_text, write_text
from actrelax.models.errors import ActrelaxError

Form = Literal["markdown", "latex", "html"]
Format = str | Callable[[Any], str]
"""Format of a column's numbers: a format specification or a function."""


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path, columns: Sequence[str], said: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file, column -> text, separated by commas, semicolons or tabs.

    Parameters
    ----------
    path : pathlib.Path
    columns : sequence of str
        Required columns.
    said : str
        Beginning of the error message.

    Raises
    ------
    ActrelaxError
        If the file can't be read, lacks a column, or has rows of different lengths.
    """
    text = read_text(path, said)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)  # the comma if there is one column
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise ActrelaxError(f"{said}: {path.name} can't be read.") from error
    if not rows or missing_from(rows[0], columns) or len(set(rows[0])) < len(rows[0]):
        lacking = ", ".join(missing_from(rows[0], columns)) if rows else ""
        raise ActrelaxError(f"{said}: {path.name} {f'lacks {lacking}' if lacking else 'has no head of columns'}.")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(rows[0]):
            raise ActrelaxError(f"{said}: {path.name} has {len(row)} cells in row {number}, not {len(rows[0])}.")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def missing_from(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted names that were not found."""
    return [name for name in wanted if name not in found]


def without_nan(value: Any) -> Any:
    """Replace nan and infinities in a nested value by None, since JSON has neither.

    Examples
    --------
    >>> without_nan({"low": math.nan, "seeds": [0, 1], "mean": 97.5})
    {'low': None, 'seeds': [0, 1], 'mean': 97.5}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Table:
    """Table of text cells; the first cell names the row, and cells in **asterisks** are bold.

    numeric  True for each column of numbers, which is aligned to the right
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    @classmethod
    def of(cls, caption: str, columns: Iterable[tuple[str, Format]], rows: Iterable[Sequence[Any]]) -> Table:
        """Return a table of formatted values.

        Parameters
        ----------
        caption : str
        columns : iterable of (str, Format)
            Name and format of each column; text values are not formatted.
        rows : iterable of sequences
            One value per column; None is an empty cell. A column is numeric if none of its values is text.

        Examples
        --------
        >>> print(Table.of("", [("run", ""), ("accuracy", ".1f")], [["backprop", 98.12], ["ar", None]]).text())
        | run      |   accuracy |
        |:---------|-----------:|
        | backprop |       98.1 |
        | ar       |            |
        """
        head, forms = map(list, zip(*columns, strict=True))
        rows = list(rows)
        cells = [[_cell(value, form) for value, form in zip(row, forms, strict=True)] for row in rows]
        filled = [[row[i] for row in rows if row[i] is not None] for i in range(len(head))]
        numeric = [bool(column) and not any(isinstance(value, str) for value in column) for column in filled]
        return cls(caption, head, cells, numeric)

    def text(self, form: Form = "markdown") -> str:
        """Return the table, without its caption, in GitHub's Markdown, LaTeX (booktabs) or HTML."""
        import pandas  # slow to load

        frame = pandas.DataFrame(list(self.rows), columns=list(self.head))
        if form == "html":
            return re.sub(r"\*\*(.*?)\*\*", r"<strong>\1</strong>", frame.to_html(index=False, border=0))
        if form == "latex":
            columns = "".join("r" if numeric else "l" for numeric in self.numeric)
            text = frame.to_latex(index=False, escape=True, column_format=columns).replace("<", "$<$")
            return re.sub(r"\*\*(.*?)\*\*", r"\\textbf{\1}", re.sub(r"(?<!\w)-(?=\d)", "$-$", text)).rstrip()
        frame = frame.map(lambda cell: cell.replace("|", r"\|")).rename(columns=lambda name: name.replace("|", r"\|"))
        align = ["right" if numeric else "left" for numeric in self.numeric]
        return str(frame.to_markdown(index=False, disable_numparse=True, colalign=align))


def _cell(value: Any, form: Format) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return form(value) if callable(form) else format(value, form)
