"""What a relaxation leaves: its final state, what was recorded on the way, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results.relative_error import relative_error

if TYPE_CHECKING:
    import xarray


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


def time_after(steps: int, dt: float) -> float:
    """Return when that many steps end, to 12 digits: 3 steps of 0.1 end at 0.3, and infinity is one step away."""
    return float(f"{steps * dt:.12g}") if steps else 0.0


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One relaxation, as `solve` returns it, whichever engine ran it.

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
    state : mapping
        All variables at the end, as a problem's `initial_state` has them at the start.
    at : callable, optional
        Time -> population -> (batch, *population.shape), between steps too; of SciPy's adaptive methods with
        ``dense=True`` only.
    ended : float, optional
        When it ended, where that is no whole number of dt; of SciPy's adaptive methods only.
    units : mapping
        Population -> indices of the units that were recorded, into its flattened shape, or None for all; what a
        function recorded is among them where it has the name and the shape of a population.
    options : mapping
        The engine's options, as `solve` was given them.
    method : {"stepped", "closed-form"}
        How the end was reached.

    Examples
    --------
    >>> from actrelax import build, solve
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> trajectory = solve(problem, "euler", steps=10, record=True)
    >>> trajectory["hidden1"].shape
    torch.Size([11, 3, 32])
    >>> dict(trajectory.to_xarray().sizes)
    {'time': 11, 'sample': 3, 'hidden1_unit': 32, 'output_unit': 10}
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
    state: State
    at: Callable[[float], State] | None = None
    ended: float | None = None
    units: Mapping[str, Sequence[int] | None] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    method: str = "stepped"

    @property
    def time(self) -> float:
        """When it ended, in the problem's unit of time; infinite at equilibrium."""
        if self.ended is not None:
            return self.ended
        return time_after(self.steps, self.dt)

    def __getitem__(self, name: str) -> Tensor:
        """Return (len(times), ...): what was recorded of a population."""
        if name not in self.recorded:
            known = ", ".join(self.recorded) or "nothing: ask solve to record"
            raise ActrelaxError(f"{name!r} was not recorded; recorded: {known}.")
        return self.recorded[name]

    def error(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return how far each population is from its gradient, max |x - gradient| / max |gradient|.

        Parameters
        ----------
        gradients : mapping
            Population -> (batch, *population.shape), as `activity_gradients` returns them.

        Returns
        -------
        dict
            Population -> (len(times),), of those that were recorded, over the units that were; without a recording
            all, at the end only, (1,).

        Raises
        ------
        ActrelaxError
            If a function recorded something else under a population's name.
        """
        over_time = {name: self.recorded[name] for name in gradients if name in self.recorded}
        if not self.times:
            over_time = {name: self.final[name][None] for name in gradients if name in self.final}
        errors = {}
        for name, states in over_time.items():
            expected = self._of_recorded_units(name, gradients[name]) if self.times else gradients[name]
            errors[name] = torch.tensor([relative_error(x, expected) for x in states], dtype=torch.float64)
        return errors

    def _of_recorded_units(self, name: str, gradient: Tensor) -> Tensor:
        if name not in self.units:
            raise ActrelaxError(
                f"what was recorded as {name!r} is not that population's activity: leave it out of the gradients."
            )
        chosen = self.units[name]
        return gradient if chosen is None else gradient.flatten(1)[:, list(chosen)]

    def to_xarray(self) -> xarray.Dataset:
        """Return what was recorded with labels: dimensions time, sample and NAME_unit (`netcdf.labelled`)."""
        from actrelax.models.results.xarray_io import labelled  # xarray takes a second to load

        return labelled(self)

    def save(self, path: str | Path) -> None:
        """Write the same as a NetCDF file, which `netcdf.open_trajectory` and any other tool opens.

        Raises
        ------
        ActrelaxError
            If it can't be written.
        """
        from actrelax.models.results.xarray_io import save

        save(self, Path(path))

    def __repr__(self) -> str:
        step = "without time" if math.isinf(self.dt) else f"of {self.dt:g}"
        return (
            f"Trajectory({self.status.value} after {self.steps} steps {step} by {self.integrator} on "
            f"{self.engine}, {self.method}, {len(self.times)} recorded)"
        )


class DivergenceError(ActrelaxError):
    """Something became non-finite; where it was a relaxation, ``trajectory`` holds what was reached before."""

    def __init__(self, message: str, trajectory: Trajectory | None = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory
