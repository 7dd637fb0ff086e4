"""The result of a relaxation: final state, recorded values, status."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import InitialValueProblem, State
from actrelax.models.results.relative_error import relative_error

if TYPE_CHECKING:
    import xarray


class Status(Enum):
    """Outcome of a relaxation.

    COMPLETED    all steps were taken; nothing tested whether the state is near equilibrium
    SETTLED      the tolerance of `Steps.until` was reached
    NOT_SETTLED  all steps were taken before the tolerance was reached: take more steps
    DIVERGED     a population became non-finite; only in the trajectory of a `DivergenceError`
    """

    COMPLETED = "completed"
    SETTLED = "settled"
    NOT_SETTLED = "not settled"
    DIVERGED = "diverged"


def time_after(steps: int, dt: float) -> float:
    """Return the time after ``steps`` steps of ``dt``, rounded to 12 digits so that 3 steps of 0.1 give 0.3.

    Without steps the time is 0, even if ``dt`` is infinite.
    """
    return float(f"{steps * dt:.12g}") if steps else 0.0


def time_unit_of(problem: InitialValueProblem, engine: str) -> str:
    """Return the unit of a relaxation's times, for axes: "ms" in Brian2, "units of tau" only if every tau is 1."""
    if engine == "brian2" or problem.time_unit is not None:
        return "ms"
    ones = not problem.dynamics and all(problem.taus.extremes(name) == (1.0, 1.0) for name in problem.taus.shapes)
    return "units of tau" if ones else "the unit of tau"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The result of `solve`, the same for all engines.

    Attributes
    ----------
    problem : RelaxationProblem or ForwardProblem
    integrator, engine : str
    dt : float
        Step size in the problem's unit of time; infinite for "equilibrium".
    steps : int
        Number of steps taken; for SciPy's methods, which choose their steps, the accepted ones.
    status : Status
    final : mapping
        Population -> (batch, *population.shape) at the end: the hidden populations and the clamped output, in
        topological order.
    times : tuple of float
        Times of the recorded values, in the problem's unit; the first is the start.
    recorded : mapping
        Name -> (len(times), ...). If `solve` wrote a Zarr store, values are read from it when a name is looked up.
    feedback_applications : int
        Number of times that feedback passed through a projection: a measure of the work.
    products : int, optional
        Only for "equilibrium" on a network with cycles, which is a single step: the number of products with the
        feedback of a cycle that GMRES took, the largest over the cycles.
    state : mapping
        All state variables at the end, in the form of the problem's `initial_state`.
    at : callable, optional
        Time -> population -> (batch, *population.shape), at any time up to the end. Only for SciPy's adaptive methods
        with ``dense=True``.
    ended : float, optional
        Time of the end, if not a whole number of dt. Only for SciPy's adaptive methods.
    units : mapping
        Population -> indices of the recorded units into its flattened shape, or None for all units. Values that a
        function recorded count as a population's activity if they have its name and its shape.
    options : mapping
        Options of the engine, as given to `solve`.
    evaluation : {"stepped", "closed-form"}
        How the final state was computed: step by step or by the closed form.
    arguments : mapping
        Arguments of `solve`, stored in files so that the relaxation can be repeated (`load_problem`).

    Examples
    --------
    >>> from actrelax import RelaxationProblem, build, solve
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> trajectory = solve(problem, "euler", steps=10, record=True)
    >>> trajectory["hidden1"].shape
    torch.Size([11, 3, 32])
    >>> dict(trajectory.to_xarray().sizes)
    {'time': 11, 'sample': 3, 'hidden1_unit': 32, 'output_unit': 10}
    """

    problem: Any  # a RelaxationProblem or a ForwardProblem
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
    evaluation: str = "stepped"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    products: int | None = None

    @property
    def t(self) -> NDArray[np.float64]:
        """Times of the recorded values, (len(times),)."""
        return np.array(self.times)

    @property
    def time_unit(self) -> str:
        """Unit of the times, for axes: "ms" in Brian2, "units of tau" if every tau is 1, else "the unit of tau"."""
        return time_unit_of(self.problem, self.engine)

    @property
    def success(self) -> bool:
        """Return whether the relaxation took all its steps or settled."""
        return self.status in (Status.COMPLETED, Status.SETTLED)

    @property
    def time(self) -> float:
        """Time of the end, in the problem's unit; infinite for "equilibrium"."""
        if self.ended is not None:
            return self.ended
        return time_after(self.steps, self.dt)

    def __getitem__(self, name: str) -> Tensor:
        """Return the recorded values of one name, (len(times), ...); refuse a name that was not recorded."""
        if name not in self.recorded:
            known = ", ".join(self.recorded) or "nothing: pass record=True to solve"
            raise ActrelaxError(f"{name!r} was not recorded; recorded: {known}.")
        return self.recorded[name]

    def error(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the relative error of each population's activity, max |x - gradient| / max |gradient|.

        Parameters
        ----------
        gradients : mapping
            Population -> (batch, *population.shape), as `activity_gradients` returns them, or some of these.

        Returns
        -------
        dict
            Population -> (len(times),), for the recorded populations and over their recorded units. If nothing was
            recorded: all populations at the end, (1,).

        Raises
        ------
        ActrelaxError
            For an unknown population, a gradient of another shape than the population's activity, or if a function
            recorded other values under a population's name.
        """
        for name, given in gradients.items():
            known("population", name, self.problem.network.populations, where="gradients")
            shape = tuple(self.final[name].shape) if name in self.final else None
            if shape is not None and tuple(np.shape(given)) != shape:
                raise ActrelaxError(f"the gradient of {name!r} must have shape {shape}, got {tuple(np.shape(given))}.")
        device = self.problem.state_like.device
        gradients = {name: torch.as_tensor(gradient, device=device) for name, gradient in gradients.items()}
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
                f"the values recorded as {name!r} are not the population's activity: leave it out of the gradients."
            )
        chosen = self.units[name]
        return gradient if chosen is None else gradient.flatten(1)[:, list(chosen)]

    def to_xarray(self) -> xarray.Dataset:
        """Return the recorded values with the dimensions time, sample and NAME_unit.

        If nothing was recorded, the final state is the only point in time.

        Raises
        ------
        ActrelaxError
            If a recorded name clashes with a dimension, or NetCDF does not allow it.
        """
        from actrelax.models.results.xarray_io import labelled  # xarray takes a second to load

        return labelled(self)

    def save(self, path: str | Path) -> None:
        """Write `to_xarray` to a NetCDF file, which `open_trajectory` reads.

        An existing file is replaced once the new one is complete.

        Raises
        ------
        ActrelaxError
            As for `to_xarray`, and if the file can't be written or its name ends in .zarr.
        """
        from actrelax.models.results.xarray_io import save

        save(self, Path(path))

    def to_html(self, path: str | Path, *, samples: int | None = None) -> None:
        """Write the relaxation as one HTML file for a browser; needs the package bokeh.

        All hidden populations must be recorded: ``solve(..., record=True)``.

        Parameters
        ----------
        path : str or pathlib.Path
            File to write or replace.
        samples : int, optional
            Number of samples to show, from the first. Default: all.

        Raises
        ------
        ActrelaxError
            If bokeh is missing, a hidden population was not recorded, the page would exceed 25 MB, or the file can't
            be written.
        """
        from actrelax.analysis.view.page import to_html  # the page compares with predictions, which analysis makes

        to_html(self, path, samples=samples)

    def __repr__(self) -> str:
        step = "without time" if math.isinf(self.dt) else f"of {self.dt:g}"
        if self.ended is not None:
            step = f"until {self.ended:g}"
        return (
            f"Trajectory({self.status.value} after {self.steps} steps {step} by {self.integrator} on "
            f"{self.engine}, {self.evaluation}, {len(self.times)} recorded)"
        )


class DivergenceError(ActrelaxError):
    """A value became non-finite. ``trajectory`` is the relaxation until then, or None outside a relaxation."""

    def __init__(self, message: str, trajectory: Trajectory | None = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory
