"""Report as one self-contained HTML file, for a browser, a phone, or paper.

A page consists of sections with tables and pictures; the template page.html formats them. Jinja escapes all text.
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
    """Picture that is embedded in the page.

    png      content of the PNG file
    alt      alternative text
    caption  line below the picture
    """

    png: bytes
    alt: str
    caption: str

    @classmethod
    def read(cls, path: Path, alt: str, caption: str) -> Picture:
        """Read a PNG file.

        Raises
        ------
        ActrelaxError
            If the file can't be read, or is no PNG file.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ActrelaxError(f"can't read {path}: {error.strerror}.") from error
        if not content.startswith(b"\x89PNG") or len(content) < 24:
            raise ActrelaxError(f"{path} is not a PNG file, or is damaged: give a file that ends in .png.")
        return cls(content, alt, caption)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the first chunk of the PNG file."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def is_wide(self) -> bool:
        """True if the picture needs a separate row, as one with several panels does."""
        return self.size[0] > 2 * self.size[1]

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Section:
    """Part of a page: paragraphs, tables, notes, pictures and code, in this order; `folded` hides it until clicked."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """Report: a title, the paragraphs below it, and sections."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """Return a report as a complete HTML document."""
    return _template().render(page=page)


def write(path: Path, page: Page) -> None:
    """Write a report atomically.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    write_text(path, html(page))


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["bold"] = lambda cell: cell.startswith("**") and cell.endswith("**")
    return environment.from_string((files("actrelax.analysis.reports") / "page.html").read_text(encoding="utf-8"))
