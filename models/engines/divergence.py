"""What is said, and kept, when a relaxation becomes non-finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from actrelax.models.engines.request import SolveRequest
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import DivergenceError, Status


def is_finite(activities: Mapping[str, Tensor]) -> bool:
    """Whether there is neither nan nor inf."""
    return all(bool(torch.isfinite(x).all()) for x in activities.values())


def first_bad(problem: RelaxationProblem, state: State) -> str | None:
    """Return the first population, from the input up, that has become non-finite; None if none has."""
    activities = problem.activities(state)
    bad = (name for name in problem.network.populations if not is_finite({name: activities[name]}))
    return next(bad, None)


def refuse_non_finite(request: SolveRequest, step: int, state: State, previous: State | None = None) -> None:
    """Look at the state after a step, unless the request doesn't want to know.

    Raises
    ------
    DivergenceError
        If something is nan or inf there; its trajectory ends with the state before.
    """
    if request.check_finite and not is_finite(request.problem.activities(state)):
        raise divergence(request, step, state, previous)


def divergence(request: SolveRequest, step: int, state: State, previous: State | None = None) -> DivergenceError:
    """Return the error for a state that is non-finite after a step; without a state before it is so at the start."""
    bad = first_bad(request.problem, state)
    assert bad is not None
    if previous is None:
        sentence = (
            f'population "{bad}" is non-finite at the start: look for inf and nan in stimuli, targets and weights.'
        )
        return DivergenceError(sentence, request.outcome(Status.DIVERGED, state, 0))
    return DivergenceError(
        on_the_way(bad, step, request.grid.steps), request.outcome(Status.DIVERGED, previous, step - 1)
    )


def on_the_way(population: str, step: int, steps: int) -> str:
    """Say when a population became non-finite."""
    return (
        f'population "{population}" became non-finite at step {step} of {steps}: '
        "lower eta, the learning rate or the scale of the feedback weights."
    )
