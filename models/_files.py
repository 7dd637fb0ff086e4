"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from uuid import uuid4


def partial_of(path: Path) -> Path:
    """Return a unique temporary name beside `path`, so that two processes never write to the same file."""
    return path.with_name(f"{path.name[:200]}.{uuid4().hex[:8]}.partial")


def write_whole(path: Path, content: BytesIO) -> None:
    """Write a temporary file, flush it to disk and rename it to `path`; on an OSError an earlier file stays."""
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
