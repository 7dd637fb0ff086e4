"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from uuid import uuid4


def partial_of(path: Path) -> Path:
    """Return a new name beside `path`: two processes that write one file don't touch each other's part of it."""
    return path.with_name(f"{path.name[:200]}.{uuid4().hex[:8]}.partial")


def write_whole(path: Path, content: BytesIO) -> None:
    """Write a file beside `path`, bring it onto the disk and rename it; an OSError leaves an earlier one as it was."""
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
