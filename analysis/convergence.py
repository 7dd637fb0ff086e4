"""The approach of a relaxation to backprop's gradient."""

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

from actrelax.analysis.deterministic import deterministic
from actrelax.analysis.requirements import checked_step, require_relaxation
from actrelax.models._names import known, whole_number
from actrelax.models.closed_form import Term, hop_matrix, remainders, terms, uncovered
from actrelax.models.engines import PAPERS, Steps, StepSize, TorchOptions, integrator_named, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, Matrix, coefficients
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import FLOOR, Record, Trajectory, relative_error

_TIMES = 64
"""Largest number of states of a population in memory at once."""


def errors_over_time(
    problem: RelaxationProblem,
    gradients: Mapping[str, Tensor],
    integrator: str | Integrator,
    steps: int | Steps = PAPERS,
    *,
    every: int = 1,
    **size: Unpack[StepSize],
) -> Trajectory:
    """Return the errors of the hidden populations against their gradients during a relaxation, without its states.

    Parameters
    ----------
    problem : RelaxationProblem
    gradients : mapping
        Population -> (batch, *population.shape), from `activity_gradients`; populations without one are skipped.
    integrator, steps, every, **size
        As for `solve` and `Record`.

    Returns
    -------
    Trajectory
        ``recorded[population]``, (len(times),): max |x - gradient| / max |gradient|.
    """

    chosen = hidden_gradients(problem, gradients)

    def errors(state: State) -> dict[str, Tensor]:
        found = {name: relative_error(state[name], gradient) for name, gradient in chosen.items()}
        return {name: torch.tensor(error, dtype=torch.float64) for name, error in found.items()}

    return solve(problem, integrator, steps, record=Record(errors, every), **size)


def hidden_gradients(
    problem: RelaxationProblem, gradients: Mapping[str, Tensor], *, every: bool = False
) -> dict[str, Tensor]:
    """Return the given gradients of hidden populations as tensors, in topological order.

    Raises
    ------
    ActrelaxError
        For an unknown population, a gradient of the wrong shape, or, with `every`, a missing one; for a
        `ForwardProblem`.
    """
    require_relaxation(problem, "an error against gradients")
    for name, given in gradients.items():
        known("population", name, [*problem.network.hidden, problem.network.output], where="gradients")
        shape = tuple(problem.feedforward.activities[name].shape)
        if tuple(np.shape(given)) != shape:
            raise ActrelaxError(f"the gradient of {name!r} must have shape {shape}, got {tuple(np.shape(given))}.")
    if missing := [v for v in problem.network.hidden if every and v not in gradients]:
        raise ActrelaxError(
            f"gradients must cover all hidden populations, got none for {', '.join(missing)}: "
            "pass activity_gradients(...)."
        )
    like = problem.clamped
    return {v: torch.as_tensor(gradients[v], device=like.device) for v in problem.network.hidden if v in gradients}


class Distances(NamedTuple):
    """Distance between the final state of a relaxation and its equilibrium, per population."""

    steps: int
    by_population: dict[str, dict[str, float]]


def distances(
    problem: RelaxationProblem,
    integrator: str | Integrator = "sequential",
    steps: int | Steps = PAPERS,
    *,
    options: TorchOptions | None = None,
) -> Distances:
    """Return the distance of each population from equilibrium at the end of a relaxation.

    A clip must have no effect. With `Steps.until` the state is taken after the computed number of steps, whereas
    `solve` would return the equilibrium itself.

    Returns
    -------
    Distances
        Number of steps, and hidden population -> ``"error"``, max |x - equilibrium| / max |equilibrium| over the batch,
        and, where the closed form applies, ``"initial"``, the share of initial activities (`closed_form.remainders`).
    """
    require_relaxation(problem, "a distance from equilibrium")
    scheme = integrator_named(integrator)
    relaxed = solve(problem, scheme, steps, options=options)
    has_law = scheme.takes_time and uncovered(problem) is None
    taken = round(relaxed.time / relaxed.dt) if scheme.takes_time else relaxed.steps  # not adaptive ones
    if has_law and isinstance(steps, Steps) and steps.tolerance is not None:
        relaxed = solve(problem, scheme, Steps(taken, dt=relaxed.dt), options=options)
    settled = solve(deterministic(problem), "equilibrium", options=options).final
    found = {name: {"error": relative_error(relaxed.final[name], settled[name])} for name in problem.network.hidden}
    if has_law:
        for name, left in remainders(problem, scheme, dt=relaxed.dt, steps=taken).items():
            found[name]["initial"] = left
    return Distances(taken, found)


def stays_below(errors: ArrayLike, tolerance: float) -> int | None:
    """Return the first index after which all errors, (points,), stay below a tolerance; None if the last one does not.

    Errors may rise again, so the first error below the tolerance is not enough.

    Examples
    --------
    >>> stays_below([1.0, 0.1, 0.7, 0.2, 0.1], 0.5)
    3
    """
    values = np.asarray(errors)
    # nan counts as above
    above = np.flatnonzero(~(values < tolerance))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(values) else None


def spread_out(steps: int, points: int = 30) -> list[int]:
    """Return at most `points` evenly spaced steps of a relaxation, including 0 and the last."""
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
    """Return the errors of `errors_over_time` from the closed form, without relaxing (docs/theory.md).

    The cost is one feedback pass, however many times are requested.

    Parameters
    ----------
    problem : RelaxationProblem
        Covered by the closed form (`closed_form.uncovered`).
    gradients, integrator
        As for `errors_over_time`.
    dt : float
        Step size, in the unit of tau.
    at : sequence of int
        Numbers of steps.

    Returns
    -------
    dict
        Hidden population -> its error at each entry of `at`.

    Raises
    ------
    ActrelaxError
        If the closed form does not apply, `solve` would refuse dt, or a number of steps is not a whole number >= 0.
    """
    chosen, by_population = hidden_gradients(problem, gradients), terms(problem)
    laws = laws_at(problem, integrator, dt=checked_step(problem, integrator, dt), at=at)
    return {name: _errors(found, laws, chosen[name]) for name, found in by_population.items() if name in chosen}


def laws_at(problem: RelaxationProblem, integrator: str | Integrator, *, dt: float, at: Sequence[int]) -> list[Matrix]:
    """Return the coefficients of the closed form after each number of steps in `at`.

    dt is a number in the problem's unit of time that `solve` would take (`checked_step`).

    Raises
    ------
    ActrelaxError
        If an entry of `at` is not a whole number >= 0.
    """
    scheme, matrix = integrator_named(integrator), hop_matrix(problem)
    return [coefficients(scheme.transition, matrix, dt, whole_number("each number in at", n, least=0)) for n in at]


def _errors(found: Sequence[Term], laws: Sequence[Matrix], gradient: Tensor) -> list[float]:
    """Return the errors of one population for several coefficient matrices."""
    gradient = gradient.to(found[0].value).flatten()
    largest = torch.cat([(x - gradient).abs().amax(1) for x in states_under(found, laws)])
    errors: list[float] = (largest / gradient.abs().max().clamp(min=FLOOR)).tolist()
    return errors


def states_under(found: Sequence[Term], laws: Sequence[Matrix]) -> Iterator[Tensor]:
    """Yield a population's states, (laws, batch x units), for up to 64 coefficient matrices at a time."""
    values = torch.stack([term.value.flatten() for term in found])
    weights = torch.tensor([C[term.row, term.column] for C in laws for term in found]).to(values)
    for rows in torch.split(weights.reshape(len(laws), len(found)), _TIMES):
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
    """Return the step from which each population's error stays below a tolerance, without relaxing.

    The clamp reaches a population l hops below it after l steps. The initial activities have decayed once P(K < l)
    is below the tolerance times the ratio of gradient to activity, both propagated by the network's feedback.

    Parameters
    ----------
    problem, gradients, integrator, dt
        As for `predicted_errors`; dt / tau must be at most 1.
    tolerance : float
        Bound on max |x - gradient| / max |gradient|, between 0 and 1.
    most : int, default 100000
        Largest number of steps, 1 or more.

    Returns
    -------
    dict
        Hidden population -> number of steps; None if `most` steps are not enough.

    Raises
    ------
    ActrelaxError
        If the closed form does not apply, dt / tau exceeds 1, or dt, tolerance or most is out of range.
    """
    chosen, by_population = hidden_gradients(problem, gradients), terms(problem)
    scheme, matrix, dt = integrator_named(integrator), hop_matrix(problem), problem.time("dt", dt)
    Steps.until(tolerance, dt=dt, most=most)  # raises
    if dt * -matrix.diagonal().min() > 1:
        raise ActrelaxError(f"steps can be predicted for dt / tau up to 1, got dt = {dt:g}: choose a smaller dt.")

    def law(n: int) -> Matrix:
        return coefficients(scheme.transition, matrix, dt, n)

    predicted: dict[str, int | None] = {}
    for name, found in by_population.items():
        if name not in chosen:
            continue
        allowed = tolerance * float(chosen[name].abs().max())
        largest = sum(float(term.value.abs().max()) for term in found)
        # 1 - C[l, L] never rises: once this bound is below the tolerance, so is every later error
        enough = allowed / largest if largest else math.inf
        settled = bisect_left(range(most + 1), True, key=partial(_remains_below, enough, law, found[0].row))
        predicted[name] = None
        if settled <= most:
            below = _errors(found, [law(n) for n in range(settled + 1)], chosen[name])
            predicted[name] = stays_below(below, tolerance)
    return predicted


def _remains_below(share: float, law: Callable[[int], Matrix], row: int, n: int) -> bool:
    """Return whether the initial activities contribute less than `share` to a population after n steps."""
    return bool(law(n)[row, :-1].sum() < share)
