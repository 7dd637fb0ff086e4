"""Errors and warnings, in one sentence each: the given value, the rule and the remedy."""

from __future__ import annotations

import inspect
import warnings
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


def _is_inside(module: str) -> bool:
    """Return whether a module is one of the models or of PyTorch, which wraps some of their functions."""
    return module.startswith((f"{__package__}.", "torch."))
