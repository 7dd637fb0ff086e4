"""Files are written whole or not at all: beside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from actrelax.models.errors import ActrelaxError


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
    beside = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ActrelaxError(f"can't write to {path}: {error.strerror}.") from error
