"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from actrelax.models.errors import ActrelaxError


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
    """Collect the content of a file; if the block ends without an error, write it beside `path` and rename it.

    Raises
    ------
    ActrelaxError
        If the file can't be written; an earlier one is left as it was.
    """
    content, partial = BytesIO(), path.with_name(f"{path.name}.partial")
    yield content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
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
    from filelock import FileLock, Timeout  # here: benchmarks/gpu.py runs without it

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
