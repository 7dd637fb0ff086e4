"""How a relaxation approaches backprop's gradient."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from actrelax.models.closed_form import Term, evaluate_all, hop_matrix, remainders, settled_plan, terms, uncovered
from actrelax.models.engines import PAPERS, Steps, StepSize, TorchOptions, integrator_named, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, Matrix, coefficients
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import FLOOR, Record, Trajectory, relative_error

_TIMES = 64
"""States of a population that are held at once."""


def errors_over_time(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    integrator: str | Integrator,
    steps: int | Steps = PAPERS,
    *,
    every: int = 1,
    **size: Unpack[StepSize],
) -> Trajectory:
    """Relax, and record how far each hidden population is from its gradient; the states themselves are not kept.

    Parameters
    ----------
    problem : RelaxationProblem
    gradients : mapping
        Population -> (batch, *population.shape), as `activity_gradients` returns them.
    integrator, steps, **size
        As for `solve`.
    every : int, default 1
        As for `Record`.

    Returns
    -------
    Trajectory
        ``recorded[population]``, (len(times),): max |x - gradient| / max |gradient|.
    """

    def errors(state: State) -> dict[str, Tensor]:
        found = {name: relative_error(state[name], gradients[name]) for name in problem.network.hidden}
        return {name: torch.tensor(error, dtype=torch.float64) for name, error in found.items()}

    return solve(problem, integrator, steps, record=Record(errors, every), **size)


class Distances(NamedTuple):
    """How far from its equilibrium a relaxation ends."""

    steps: int
    by_population: dict[str, dict[str, float]]


def distances(
    problem: RelaxationProblem,
    integrator: str | Integrator = "sequential",
    steps: int | Steps = PAPERS,
    *,
    options: TorchOptions | None = None,
) -> Distances:
    """Return how far from its equilibrium a frozen relaxation ends, and how much is left of where it began.

    With `Steps.until`, the distances are those after the computed number of steps, although `solve` returns the
    equilibrium itself once the tolerance is reached.

    Parameters
    ----------
    problem : RelaxationProblem
        Whose gains are frozen; without a clip, unless it has no effect.
    integrator, steps, options
        As for `solve`.

    Returns
    -------
    Distances
        The steps, and hidden population -> ``"error"``, max |x - equilibrium| / max |equilibrium| over the batch; and
        where there is a law ``"initial"``, the share of x that is still made of initial activities
        (`closed_form.remainders`). The first is the larger, the smaller gradients are against activities.
    """
    scheme = integrator_named(integrator)
    relaxed = solve(problem, scheme, steps, options=options)
    has_law = scheme.takes_time and uncovered(problem) is None
    taken = round(relaxed.time / relaxed.dt) if scheme.takes_time else relaxed.steps  # not adaptive ones
    if has_law and isinstance(steps, Steps) and steps.tolerance is not None:
        relaxed = solve(problem, scheme, Steps(taken, dt=relaxed.dt), options=options)
    settled = evaluate_all(problem, settled_plan(problem.network.graph))
    found = {name: {"error": relative_error(relaxed.final[name], settled[name])} for name in problem.network.hidden}
    if has_law:
        for name, left in remainders(problem, scheme, dt=relaxed.dt, steps=taken).items():
            found[name]["initial"] = left
    return Distances(taken, found)


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


def spread_out(steps: int, points: int = 30) -> list[int]:
    """Return so many steps of a relaxation, evenly spaced, the first (0) and the last among them."""
    at: list[int] = np.unique(np.linspace(0, steps, min(points, steps + 1)).round().astype(int)).tolist()
    return at


def predicted_errors(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    integrator: str | Integrator,
    *,
    dt: float,
    at: Sequence[int],
) -> dict[str, list[float]]:
    """Return what the scheme's law says about the same errors, without relaxing (THEORY.md section 4).

    Feedback is carried through the network once, whatever the number of times.

    Parameters
    ----------
    problem : RelaxationProblem
        Where `closed_form.uncovered` has no objection.
    gradients : mapping
        As for `errors_over_time`.
    integrator : str or Integrator
    dt : float
        The relaxation's step.
    at : sequence of int
        After how many steps.

    Returns
    -------
    dict
        Hidden population -> its error after each of these.
    """
    laws = laws_at(problem, integrator, dt=dt, at=at)
    return {name: _errors(found, laws, gradients[name]) for name, found in terms(problem).items()}


def laws_at(problem: RelaxationProblem, integrator: str | Integrator, *, dt: float, at: Sequence[int]) -> list[Matrix]:
    """Return the coefficients of the closed form after each of these numbers of steps of dt."""
    scheme, matrix = integrator_named(integrator), hop_matrix(problem)
    return [coefficients(scheme.transition, matrix, dt, n) for n in at]


def _errors(found: Sequence[Term], laws: Sequence[Matrix], gradient: Tensor) -> list[float]:
    """Return the errors of one population under several laws."""
    gradient = gradient.to(found[0].value).flatten()
    largest = torch.cat([(x - gradient).abs().amax(1) for x in states_under(found, laws)])
    errors: list[float] = (largest / gradient.abs().max().clamp(min=FLOOR)).tolist()
    return errors


def states_under(found: Sequence[Term], laws: Sequence[Matrix]) -> Iterator[Tensor]:
    """Yield a population's states under several laws, (some laws, batch x units) at a time: a matrix product each."""
    values = torch.stack([term.value.flatten() for term in found])
    weights = torch.tensor([[C[term.row, term.column] for term in found] for C in laws]).to(values)
    for rows in torch.split(weights, _TIMES):
        yield rows @ values


def predicted_steps(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    integrator: str | Integrator,
    *,
    dt: float,
    tolerance: float,
    most: int = 100_000,
) -> dict[str, int | None]:
    """Return the first step from which each population's error stays below a tolerance, by the law alone.

    The light cone: what is l hops below the clamp hears of it after l steps, and has forgotten its own activity when
    P(K < l) is below the tolerance times gradient over activity, both carried down by the network's own feedback.

    Parameters
    ----------
    problem, gradients, integrator, dt
        As for `predicted_errors`; with dt / tau of 1 at most.
    tolerance : float
        Of max |x - gradient| / max |gradient|.
    most : int, default 100000
        Steps.

    Returns
    -------
    dict
        Hidden population -> steps; None where `most` are not enough.

    Raises
    ------
    ActrelaxError
        Where there is no law, or for a larger dt.
    """
    scheme, matrix = integrator_named(integrator), hop_matrix(problem)
    if dt * -matrix.diagonal().min() > 1:
        raise ActrelaxError(f"steps are predicted up to dt / tau = 1, where nothing alternates; got dt = {dt:g}.")

    def law(n: int) -> Matrix:
        return coefficients(scheme.transition, matrix, dt, n)

    predicted: dict[str, int | None] = {}
    for name, found in terms(problem).items():
        allowed = tolerance * float(gradients[name].abs().max())
        largest = sum(float(term.value.abs().max()) for term in found)
        # 1 - C[l, L] never rises: once this bound is within what is allowed, the error stays there
        enough = allowed / largest if largest else math.inf
        settled = _first(partial(_remains_below, enough, law, found[0].row), most)
        if settled is None:
            predicted[name] = None
        else:
            below = _errors(found, [law(n) for n in range(settled + 1)], gradients[name])
            predicted[name] = stays_below(below, tolerance)
    return predicted


def _remains_below(share: float, law: Callable[[int], Matrix], row: int, n: int) -> bool:
    """Say whether less than a share of a population's activity is other than the clamp's after n steps."""
    return bool(law(n)[row, :-1].sum() < share)


def _first(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the first number for which something holds that, once it does, always holds; None beyond `most`."""
    high = 1
    while not holds(min(high, most)):
        if high >= most:
            return None
        high *= 2
    return bisect_left(range(min(high, most) + 1), True, key=holds)
