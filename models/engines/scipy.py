"""The SciPy engine: the problem as a vector field over sparse matrices, by our own fixed steps or `adaptive`.

Always in float64 on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch

from actrelax.models.engines import adaptive
from actrelax.models.engines.request import SolveRequest, refuse_non_finite
from actrelax.models.engines.sparse_problem import SparseProblem, refused
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Trajectory


def unsupported(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says what SciPy can't do here."""
    if integrator.engine not in (None, "scipy"):
        return f'"{integrator.name}" is a method of another engine.'
    if integrator.name == "exact":
        return 'the law is evaluated by PyTorch: use that engine, or "scipy:DOP853" with a small rtol.'
    if problem.is_noisy:
        return "noise is for the engines torch and brian2."
    if problem.delay.times:
        return "delays are for the engines torch and brian2."
    return refused(problem)


@torch.no_grad()
def solve(
    request: SolveRequest,
    rtol: float | None = None,
    atol: float | None = None,
    max_evaluations: int | None = None,
    dense: bool = False,
) -> Trajectory:
    """Integrate.

    Parameters
    ----------
    request : SolveRequest
    rtol, atol : float, optional
        Local error that adaptive methods allow, relative and absolute, 1e-8 and 1e-12 unless given; atol well below
        the smallest gradients.
    max_evaluations : int, optional
        Of the vector field, by adaptive methods, 100,000 unless given: with relu and current gains they stall at the
        kinks, and those that are not implicit crawl where time constants are far apart.
    dense : bool, default False
        Keep the interpolants of all steps that an adaptive method takes, in memory: `Trajectory.at`.

    Raises
    ------
    ActrelaxError
        For options out of range or of no use, or if a method gives up, or reaches the limit on evaluations.
    DivergenceError
        If a population becomes non-finite. Of adaptive methods its trajectory ends with the last step that was
        accepted.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what becomes of them is looked at
        if request.integrator.engine == "scipy":
            return adaptive.run(request, adaptive.Limits.given(rtol, atol, max_evaluations), dense)
        given = {"rtol": rtol, "atol": atol, "max_evaluations": max_evaluations, "dense": dense or None}
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ActrelaxError(f'"{request.integrator.name}" takes fixed steps: leave out {" and ".join(unused)}.')
        return _stepped(request)


def _stepped(request: SolveRequest) -> Trajectory:
    """Take the steps of one of our own integrators; a look at each state costs little here."""
    flat = SparseProblem(request.problem)
    state, settled, step = flat.initial_state(), False, 0
    tensors = flat.as_tensors(state)
    request.record(0, tensors)
    refuse_non_finite(request, 0, tensors)
    for step in range(1, request.grid.steps + 1):
        state = request.integrator.step(flat, state, request.grid.dt)
        previous, tensors = tensors, flat.as_tensors(state)
        refuse_non_finite(request, step, tensors, previous)
        request.record(step, tensors)
        settled = request.has_settled(previous, tensors)
        if settled:
            break
    return request.outcome(request.status(settled), tensors, step)
