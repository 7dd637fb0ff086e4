"""Freed memory that a process keeps."""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = 2**29
"""Bytes of freed memory that a process may keep."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**25  # glibc's limit of the latter


def keep_freed_memory() -> None:
    """Let glibc keep up to `KEPT` bytes of freed memory, and blocks of up to 32 MiB, for new tensors.

    By default glibc returns them to the system, which clears every page again before it hands it out: this takes up to
    a quarter of a step of a convolutional network (docs/performance.md). Does nothing with other C libraries, or if the
    user has set a ``MALLOC_...`` variable.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _LARGEST)
            mallopt(_TRIM_THRESHOLD, KEPT)
