"""Transmission delays of feedback: times in a problem, numbers of steps in a scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from actrelax.models._names import is_number, known, whole_steps
from actrelax.models.errors import ActrelaxError


@dataclass(frozen=True)
class Delays:
    """Transmission delays of feedback.

    given        one time for all projections, or projection -> time
    projections  names of the projections that carry feedback
    """

    given: float | Mapping[str, float]
    projections: Sequence[str]

    @cached_property
    def times(self) -> dict[str, float]:
        """Projection -> delay, for the delayed projections."""
        every = self.given if isinstance(self.given, Mapping) else dict.fromkeys(self.projections, self.given)
        return {name: delay for name, delay in every.items() if delay > 0}

    def check(self) -> None:
        """Refuse unknown projections and invalid times."""
        if isinstance(self.given, Mapping):
            for name in self.given:
                known("feedback projection", name, self.projections, where="delays")
        for delay in self.given.values() if isinstance(self.given, Mapping) else [self.given]:
            if not is_number(delay) or not 0 <= delay < math.inf:
                raise ActrelaxError(f"a delay must be a time, 0 or more, got {delay!r}.")

    def steps(self, dt: float) -> dict[str, int]:
        """Return projection -> delay in steps of dt; refuse a delay that is not a whole number of dt.

        >>> Delays({"hidden1->output": 0.3}, ["hidden1->output"]).steps(0.1)
        {'hidden1->output': 3}
        """
        return {name: whole_steps(f"the delay of {name!r}", delay, dt) for name, delay in self.times.items()}


def delay_line_key(projection: str) -> str:
    """Return the state's key for a projection's delay line: its last signals, (steps, batch, ...), newest first."""
    return f"{projection}.sent"
