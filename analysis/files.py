"""Files that are written whole or not at all and checked when they are read, and locks between processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from actrelax.models._files import write_whole
from actrelax.models.errors import ActrelaxError

LOCK = ".lock"


def exists(path: Path) -> bool:
    """Return whether there is a file or folder; `Path.exists` raises where a folder may not be entered.

    Raises
    ------
    ActrelaxError
        If the system refuses to say.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # not allowed, a name too long, a null byte
        raise ActrelaxError(f"can't look at {path}: {getattr(error, 'strerror', None) or error}.") from error
    return True


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted.

    Raises
    ------
    ActrelaxError
        If it can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ActrelaxError(f"can't list {folder}: {error.strerror}.") from error


def read_text(path: Path, said: str) -> str:
    """Return a text file in UTF-8, without the byte-order mark that some programs put before it.

    Raises
    ------
    ActrelaxError
        If it can't be read; the sentence begins with `said`.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError, MemoryError) as error:
        raise ActrelaxError(f"{said}: {path.name} can't be read.") from error


def read_json(path: Path, said: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    ActrelaxError
        If it can't be read, or holds something else; the sentence begins with `said`.
    """
    text = read_text(path, said)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # nested a thousand deep
        raise ActrelaxError(f"{said}: {path.name} can't be read.") from error
    if not isinstance(found, dict):
        raise ActrelaxError(f"{said}: {path.name} can't be read.")
    return found


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
    content = BytesIO()
    yield content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ActrelaxError(f"can't write to {path}: {error.strerror}.") from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder against all other processes that claim it; afterwards it has no lock, and is gone if it is empty.

    Raises
    ------
    ActrelaxError
        If another process holds it, or it can't be written.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    with locked(folder / LOCK, wait=False) as mine:
        if not mine:
            raise ActrelaxError(
                f"another process is writing into {folder}: wait until it has ended, or choose another folder."
            )
        try:
            for left in folder.glob(f"*.{'[0-9a-f]' * 8}.partial"):  # by processes that were killed
                left.unlink(missing_ok=True)
            yield
        finally:
            with suppress(OSError):  # not empty
                (folder / LOCK).unlink()  # whoever has opened it already finds out, and opens a new one
                for path in made:
                    path.rmdir()


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
