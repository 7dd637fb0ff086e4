"""Errors and warnings: one sentence each, with the given value, the rule and the remedy."""

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
        The finished relaxation, if only its file could not be written. `DivergenceError` holds an unfinished one.
    """

    trajectory: Any = None


def warn(message: str) -> None:
    """Issue a warning that points to the user's code, at the first frame outside actrelax.

    Python shows each text once per line, so a single call of the user's, such as a whole training, shows a text once.
    `warnings.catch_warnings` resets this: don't enter it between the batches of a loop.
    """
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
"""Phrases in PyTorch's and NumPy's errors for tensors that are too large to allocate, or to measure in bytes."""


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error reports a failed allocation."""
    return isinstance(error, MemoryError) or any(sentence in str(error) for sentence in _TOO_LARGE)


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation into an `ActrelaxError`: `what` needs more memory, and `remedy` helps."""
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ActrelaxError) or not lacks_memory(error):
            raise
        raise ActrelaxError(f"{what} needs more memory than there is: {remedy}.") from error


def _is_inside(module: str) -> bool:
    """Return whether a module belongs to actrelax, or to PyTorch, whose decorators add frames."""
    return module.startswith(("actrelax.", "torch."))
