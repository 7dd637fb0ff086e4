"""Errors and warnings, in one sentence each: the given value, the rule and the remedy."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ActrelaxError(ValueError):
    """Invalid input, or a file that can't be read or written. The message is one sentence.

    Attributes
    ----------
    trajectory : Trajectory or None
        The result of a relaxation whose file could not be written at its end; for `DivergenceError` see there.
    """

    trajectory: Any = None


def warn(message: str) -> None:
    """Warn with one sentence, at the line of the caller's program, past all frames of this library."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


_TOO_LARGE = (
    "allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
    "Maximum allowed dimension exceeded",
)
"""What PyTorch and NumPy say of tensors for which there is no memory, or not even a number of bytes."""


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error is an allocator's."""
    return isinstance(error, MemoryError) or any(sentence in str(error) for sentence in _TOO_LARGE)


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn an allocator's error into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ActrelaxError) or not lacks_memory(error):
            raise
        raise ActrelaxError(f"{what} needs more memory than there is: {remedy}.") from error


def _is_inside(module: str) -> bool:
    """Return whether a module is one of the models or of PyTorch, which wraps some of their functions."""
    return module.startswith((f"{__package__}.", "torch."))
