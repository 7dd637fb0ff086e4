"""A file's content is collected, then written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from actrelax.models.errors import ActrelaxError
from actrelax.models.files import beside


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    ActrelaxError
        As `replacing`.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BytesIO]:
    """Collect a file's content; when the block is left without an error it takes the place of `path`, at once.

    Raises
    ------
    ActrelaxError
        If it can't be written; what was there before is untouched.
    """
    content = BytesIO()
    yield content
    try:
        with beside(path) as place, place.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ActrelaxError(f"can't write to {path}: {error.strerror}.") from error
