"""What a relaxation problem refuses when it is made: values out of range, wrong shapes, what excludes each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from actrelax.models._names import is_number, known
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem.unit_dynamics import UnitDynamics

if TYPE_CHECKING:
    from actrelax.models.problem.problem import RelaxationProblem


def check(problem: RelaxationProblem) -> None:
    """Look at all fields of a problem.

    Raises
    ------
    ActrelaxError
        For the first that can't be used.
    """
    for projection in problem.network.projections.values():
        problem.network.feedback_weight(projection, problem.assumptions)
    output = problem.feedforward.activities[problem.network.output]
    if problem.clamped.shape != output.shape:
        raise ActrelaxError(
            f"clamped must be of the output's shape {tuple(output.shape)}, got {tuple(problem.clamped.shape)}."
        )
    if problem.clip is not None and not (is_number(problem.clip) and problem.clip > 0):
        raise ActrelaxError(f"clip must be positive, got {problem.clip!r}.")
    problem.taus.check(zero=False)
    problem.sigmas.check(zero=True)
    _check_dynamics(problem)
    if not is_number(problem.input_noise) or not 0 <= problem.input_noise < math.inf:
        raise ActrelaxError(f"input_noise must be a number, 0 or positive, got {problem.input_noise!r}.")
    problem.delay.check()
    _check_start(problem)


def _check_dynamics(problem: RelaxationProblem) -> None:
    if not isinstance(problem.dynamics, Mapping):
        raise ActrelaxError(f"dynamics must map populations to UnitDynamics, got {type(problem.dynamics).__name__}.")
    for name, dynamics in problem.dynamics.items():
        known("population", name, problem.relaxing, where="dynamics")
        if not isinstance(dynamics, UnitDynamics):
            raise ActrelaxError(f"dynamics of {name!r} must be UnitDynamics, got {type(dynamics).__name__}.")
        if isinstance(problem.tau, Mapping) and name in problem.tau:
            raise ActrelaxError(f"population {name!r} has dynamics of its own: leave its tau out.")
        if problem.sigmas.extremes(name)[1] > 0:
            raise ActrelaxError(f"noise is for leaky units, population {name!r} has dynamics of its own.")
    if problem.dynamics and problem.clip is not None:
        raise ActrelaxError("a clip is for leaky units: leave it out, or the dynamics.")


def _check_start(problem: RelaxationProblem) -> None:
    if not isinstance(problem.start, Mapping):
        known("start", problem.start, ["feedforward", "zero"])
        return
    for name in problem.start:
        known("population", name, problem.relaxing, where="start")
    for name in problem.relaxing:
        x = problem.feedforward.activities[name]
        shape, dtype = x.shape, torch.promote_types(x.dtype, torch.float32)  # that of states
        given = problem.start.get(name)
        if not isinstance(given, Tensor) or (given.shape, given.dtype) != (shape, dtype):
            raise ActrelaxError(f"start must give population {name!r} a state of shape {tuple(shape)}, {dtype}.")
