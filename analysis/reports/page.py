"""A report: one HTML file that needs nothing else, to be read in a browser, on a phone, or on paper.

Its content is tables, pictures and sections; the template (page.html) decides how they look. Jinja escapes all text.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from actrelax.analysis.files import write_text
from actrelax.analysis.tables import Table
from actrelax.models.errors import ActrelaxError


@dataclass(frozen=True)
class Picture:
    """A picture, kept in the page itself.

    png      the file's content
    alt      what it shows, for those who can't see it
    caption  the line below it
    """

    png: bytes
    alt: str
    caption: str

    @classmethod
    def read(cls, path: Path, alt: str, caption: str) -> Picture:
        """Take a PNG file.

        Raises
        ------
        ActrelaxError
            If it can't be read, or is something else.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ActrelaxError(f"can't read {path}: {error.strerror}.") from error
        if not content.startswith(b"\x89PNG") or len(content) < 24:
            raise ActrelaxError(f"{path} is no PNG file: it is damaged or something else.")
        return cls(content, alt, caption)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which stand in the first chunk of every PNG."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def is_wide(self) -> bool:
        """Whether it takes a row of its own: several panels."""
        return self.size[0] > 2 * self.size[1]

    @property
    def source(self) -> str:
        """The picture as a URL that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the page, in this order: paragraphs, tables, notes, pictures, code. Folded: closed until clicked on."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A report: its title, the paragraphs below it, and its sections."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """Return a report as a document of its own."""
    return _template().render(page=page)


def write(path: Path, page: Page) -> None:
    """Write a report, whole or not at all.

    Raises
    ------
    ActrelaxError
        If it can't be written.
    """
    write_text(path, html(page))


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["bold"] = lambda cell: cell.startswith("**") and cell.endswith("**")
    return environment.from_string((files("actrelax.analysis.reports") / "page.html").read_text(encoding="utf-8"))
