"""How a relaxation approaches backprop's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from actrelax.models.agreement import disagreement
from actrelax.models.engines import solve
from actrelax.models.problem import RelaxationProblem, State
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
        return {name: torch.tensor(disagreement(state[name], gradients[name])) for name in problem.network.hidden}

    return solve(problem, record=errors, **options)
