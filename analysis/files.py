"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from filelock import FileLock, Timeout

from actrelax.models.errors import ActrelaxError
from actrelax.models.results.files import beside


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


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock against other processes while the block runs; the system releases what a killed process held.

    Parameters
    ----------
    path : pathlib.Path
        The lock's file, which is made, and its folder too.
    wait : bool, default True
        Wait until it is free; otherwise yield False where it is not.

    Yields
    ------
    bool
        Whether the lock is held.

    Raises
    ------
    ActrelaxError
        If the file can't be made.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise ActrelaxError(f"can't write to {path.parent}: {error.strerror}.") from error
    try:
        yield True
    finally:
        lock.release()
