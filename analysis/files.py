"""Atomic writing and checked reading of files, and locks between processes."""

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
    """Return whether a file or folder exists.

    Raises
    ------
    ActrelaxError
        If the system denies access to it.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # not allowed, a name too long, a null byte
        raise ActrelaxError(f"can't look at {path}: {getattr(error, 'strerror', None) or error}.") from error
    return True


def require_places(*files: Path) -> None:
    """Raise an error, before anything is computed, if files can't be written for what stands in their places.

    Raises
    ------
    ActrelaxError
        If a folder has the name of one of the files, or a file the name of a folder above it.
    """
    for file in files:
        if exists(file) and file.is_dir():
            raise ActrelaxError(f"can't write to {file}: Is a directory.")
        above = next(folder for folder in file.absolute().parents if exists(folder))
        if not above.is_dir():
            raise ActrelaxError(f"can't write to {file.parent}: Not a directory.")


def listed(folder: Path) -> list[Path]:
    """Return the sorted contents of a folder.

    Raises
    ------
    ActrelaxError
        If the folder can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ActrelaxError(f"can't list {folder}: {error.strerror}.") from error


def read_text(path: Path, said: str) -> str:
    """Return the content of a UTF-8 text file, without a byte-order mark.

    Raises
    ------
    ActrelaxError
        If the file can't be read; the message begins with `said`.
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
        If the file can't be read or holds no JSON object; the message begins with `said`.
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
    """Write a text file atomically.

    Raises
    ------
    ActrelaxError
        If the file can't be written.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BytesIO]:
    """Collect a file's content in the `with` block, then replace the file atomically if the block raised no error.

    Raises
    ------
    ActrelaxError
        If the file can't be written; an existing file stays unchanged.
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
    """Lock a folder against other processes during the `with` block, and remove it afterwards if it is empty.

    Raises
    ------
    ActrelaxError
        If another process holds the lock, or the folder can't be written.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    with locked(folder / LOCK, wait=False) as mine:
        if not mine:
            raise ActrelaxError(
                f"another process is writing into {folder}: wait until it has ended, or choose another folder."
            )
        try:
            for left in folder.glob(f"*.{'[0-9a-f]' * 8}.partial"):  # from processes that were killed
                left.unlink(missing_ok=True)
            yield
        finally:
            with suppress(OSError):  # not empty
                (folder / LOCK).unlink()  # a process that has already opened it notices, and opens a new file
                for path in made:
                    path.rmdir()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock against other processes during the `with` block; the system releases the locks of a killed process.

    Parameters
    ----------
    path : pathlib.Path
        Lock file; the file and its folder are created if missing.
    wait : bool, default True
        Wait until the lock is free; if False, yield False at once if another process holds it.

    Yields
    ------
    bool
        Whether the lock is held.

    Raises
    ------
    ActrelaxError
        If the file can't be created.
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
