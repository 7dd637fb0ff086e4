"""How a relaxation approaches backprop's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from actrelax.models.agreement import disagreement
from actrelax.models.carrying import settled_plan
from actrelax.models.closed_form import predict, uncovered
from actrelax.models.engines import solve
from actrelax.models.foreign import integrator_named
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.settling import remainders
from actrelax.models.streaming import collected
from actrelax.models.trajectory import Trajectory


def errors_over_time(problem: RelaxationProblem, gradients: Mapping[str, Tensor], **options: Any) -> Trajectory:
    """Relax, and record how far each hidden population is from its gradient; the states themselves are not kept.

    Parameters
    ----------
    problem : RelaxationProblem
    gradients : mapping
        Population -> (batch, *population.shape), as `activity_gradients` returns them.
    **options
        As for `solve`: integrator, eta, steps, every ...

    Returns
    -------
    Trajectory
        ``recorded[population]``, (len(times),): max |x - gradient| / max |gradient|.
    """

    def errors(state: State) -> dict[str, Tensor]:
        found = {name: disagreement(state[name], gradients[name]) for name in problem.network.hidden}
        return {name: torch.tensor(error, dtype=torch.float64) for name, error in found.items()}

    return solve(problem, record=errors, **options)


class Distances(NamedTuple):
    """How far from its equilibrium a relaxation ends."""

    steps: int
    by_population: dict[str, dict[str, float]]


def distances(problem: RelaxationProblem, integrator: str | Integrator = "sequential", **options: Any) -> Distances:
    """Return how far from its equilibrium a frozen relaxation ends, and how much is left of where it began.

    With steps="auto" that is after the steps that the tolerance takes, whether or not `solve` takes what has settled
    for the equilibrium itself.

    Parameters
    ----------
    problem : RelaxationProblem
        Whose gains are frozen; without a clip, unless it has no effect.
    integrator, **options
        As for `solve`.

    Returns
    -------
    Distances
        The steps, and hidden population -> ``"error"``, max |x - equilibrium| / max |equilibrium| over the batch; and
        where there is a law ``"initial"``, the share of x that is still made of initial activities
        (`settling.remainders`). The first is the larger, the smaller gradients are against activities.
    """
    relaxed, scheme = solve(problem, integrator, **options), integrator_named(integrator)
    has_law = scheme.takes_time and uncovered(problem) is None
    if has_law and options.get("steps") == "auto":
        relaxed = solve(problem, integrator, dt=relaxed.dt, steps=relaxed.steps, check_finite=False)
    settled = collected(problem, settled_plan(problem.network.graph))
    found = {name: {"error": disagreement(relaxed.final[name], settled[name])} for name in problem.network.hidden}
    if has_law:
        for name, left in remainders(problem, scheme, dt=relaxed.dt, steps=relaxed.steps).items():
            found[name]["initial"] = left
    return Distances(relaxed.steps, found)


def stays_below(errors: ArrayLike, tolerance: float) -> int | None:
    """Return the first of a curve's points from which on all errors are below a tolerance.

    Errors need not fall monotonically: the first that is small is not enough.

    Parameters
    ----------
    errors : array_like
        (points,).
    tolerance : float

    Returns
    -------
    int or None
        Its index; None if the last error isn't below.

    Examples
    --------
    >>> stays_below([1.0, 0.1, 0.7, 0.2, 0.1], 0.5)
    3
    """
    values = np.asarray(errors)
    # written so that nan is not below
    above = np.flatnonzero(~(values < tolerance))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(values) else None


def predicted_errors(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    integrator: str | Integrator,
    *,
    dt: float,
    steps: int,
    points: int = 30,
) -> tuple[list[int], dict[str, list[float]]]:
    """Return what the scheme's law says about the same errors, without relaxing.

    Parameters
    ----------
    problem : RelaxationProblem
        Where `closed_form.uncovered` has no objection.
    gradients : mapping
        As for `errors_over_time`.
    integrator : str or Integrator
    dt, steps
        The relaxation's.
    points : int
        At how many steps, evenly spaced, the first and the last among them.

    Returns
    -------
    steps : list of int
    errors : dict
        Hidden population -> its error after each of these.
    """
    scheme = integrator_named(integrator)
    at = np.unique(np.linspace(0, steps, min(points, steps + 1)).round().astype(int)).tolist()
    states = [predict(problem, scheme, dt=dt, steps=n) for n in at]
    names = problem.network.hidden
    errors = {name: [disagreement(x[name], gradients[name].to(x[name])) for x in states] for name in names}
    return at, errors
