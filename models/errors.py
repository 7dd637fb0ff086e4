"""What goes wrong, in one sentence: what was given, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actrelax.models.trajectory import Trajectory


class ActrelaxError(ValueError):
    """Input that can't be used. The message is one sentence."""


class DivergenceError(ActrelaxError):
    """Something became non-finite; where it was a relaxation, ``trajectory`` holds what was reached before."""

    def __init__(self, message: str, trajectory: Trajectory | None = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`, the keys of the registry of that `kind`.

    Raises
    ------
    ActrelaxError
        If it isn't; the message lists the known names.

    Examples
    --------
    >>> known("integrator", "rk5", ["euler", "rk4"])
    Traceback (most recent call last):
        ...
    actrelax.models.errors.ActrelaxError: unknown integrator 'rk5'; known: euler, rk4.
    """
    names = list(names)
    if not isinstance(name, str) or name not in names:
        raise ActrelaxError(f"unknown {kind} {name!r}; known: {', '.join(names)}.")
    return name
