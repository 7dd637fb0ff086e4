"""Memory that a process keeps."""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = 2**29
"""Bytes of freed memory that a process may keep."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**25  # glibc's limit of the second


def keep_freed_memory() -> None:
    """Let glibc keep up to `KEPT` bytes of freed memory, and blocks of up to 32 MiB, for new tensors.

    By default it returns them to the system, which clears each page that is asked for again: up to a quarter of a step
    of a convolutional network (docs/performance.md). Other C libraries, and ``MALLOC_...`` variables of the user, stay
    as they are.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _LARGEST)
            mallopt(_TRIM_THRESHOLD, KEPT)
