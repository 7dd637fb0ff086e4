"""What a relaxation leaves: its final state, what was recorded on the way, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from actrelax.models.problem import RelaxationProblem


class Status(Enum):
    """How a relaxation ended.

    COMPLETED    all steps were taken; whether it is near equilibrium was not asked
    SETTLED      ``stop_change`` was reached, perhaps before all steps were taken
    NOT_SETTLED  all steps were taken without reaching ``stop_change``: take more
    DIVERGED     a population became non-finite; only on the trajectory of a `DivergenceError`
    """

    COMPLETED = "completed"
    SETTLED = "settled"
    NOT_SETTLED = "not settled"
    DIVERGED = "diverged"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One relaxation, as `solve` returns it.

    Attributes
    ----------
    problem : RelaxationProblem
    integrator, engine : str
    dt : float
        In the problem's unit of time; infinite for "equilibrium".
    steps : int
        Steps that were taken.
    status : Status
    final : mapping
        Population -> (batch, *population.shape) at the end, in topological order: the hidden ones and the
        clamped output.
    times : tuple of float
        When was recorded, the start included.
    recorded : mapping
        Name -> (len(times), ...): what was recorded then.
    feedback_applications : int
        How often feedback was carried through a projection: the work done.
    """

    problem: RelaxationProblem
    integrator: str
    engine: str
    dt: float
    steps: int
    status: Status
    final: Mapping[str, Tensor]
    times: tuple[float, ...]
    recorded: Mapping[str, Tensor]
    feedback_applications: int

    def __repr__(self) -> str:
        return (
            f"Trajectory({self.status.value} after {self.steps} steps of {self.dt:g} by {self.integrator} on "
            f"{self.engine}, {len(self.times)} recorded)"
        )
