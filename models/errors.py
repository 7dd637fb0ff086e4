"""What goes wrong, in one sentence: what was given, and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actrelax.models.results.trajectory import Trajectory


class ActrelaxError(ValueError):
    """Input that can't be used. The message is one sentence."""


class DivergenceError(ActrelaxError):
    """Something became non-finite; where it was a relaxation, ``trajectory`` holds what was reached before."""

    def __init__(self, message: str, trajectory: Trajectory | None = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory
