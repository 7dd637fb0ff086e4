"""Errors and warnings: one sentence each, which says what was given and what would be right."""

from __future__ import annotations

import inspect
import warnings


class ActrelaxError(ValueError):
    """Input that can't be used. The message is one sentence."""


def warn(message: str) -> None:
    """Warn at the line of the caller's program that led here, however many calls of this library lie between.

    Parameters
    ----------
    message : str
        One sentence, shown as a `UserWarning`.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_inside(module: str) -> bool:
    """Return whether a module belongs to the models, or to PyTorch, which wraps some of their functions."""
    return module.startswith((f"{__package__}.", "torch."))
