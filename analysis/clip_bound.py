"""Upper bound on |-x + feedback| during a relaxation, above which a clip has no effect."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from actrelax.models.closed_form import each_term, hop_matrix, hop_taus, uncovered
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem


def why_no_bound(problem: RelaxationProblem, integrator: Integrator, *, dt: float) -> str | None:
    """Return None if `largest_derivative` holds, else the missing condition in one sentence."""
    reason = uncovered(problem)
    if reason is not None:
        return reason
    dt = problem.time("dt", dt)
    if not problem.network.hidden:
        return "the bound on |-x + feedback| needs a hidden population."
    if (integrator.order, integrator.stages) != (1, 1):
        return f'the bound on |-x + feedback| needs a scheme of one stage, got "{integrator.name}".'
    taus = set(hop_taus(problem))
    if len(taus) > 1:
        return f"the bound on |-x + feedback| needs one tau, got {len(taus)}."
    if not 0 < dt <= hop_taus(problem)[0]:
        return f"the bound on |-x + feedback| needs dt / tau above 0 and up to 1, got {dt / hop_taus(problem)[0]:g}."
    return None


@torch.no_grad()
def largest_derivative(problem: RelaxationProblem, integrator: Integrator, *, dt: float) -> Tensor:
    """Return an upper bound on |-x + feedback|, tau |dx/dt|, over all neurons and all steps.

    A step moves each neuron by a fixed share of -x + feedback. These derivatives therefore follow the same relaxation
    with a clamp of zero: after n steps they are averages of the first step's derivatives, propagated by feedback, so
    none exceeds the largest term. The bound is 1.0 to 1.2 times the largest derivative
    in the papers' CNN and 4 times in a chain whose maps each double their input; norms of the feedback weights would
    give 50 to 1000 times. It takes a few feedback passes and does not wait for the device.

    Parameters
    ----------
    problem : RelaxationProblem
        A problem without clip.
    integrator : Integrator
        A scheme for which `why_no_bound` returns None.
    dt : float
        Length of a step, in the problem's unit of time.

    Returns
    -------
    torch.Tensor
        A scalar.

    Examples
    --------
    >>> from actrelax import INTEGRATORS, build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> bool(0 < largest_derivative(problem, INTEGRATORS["euler"], dt=0.1) < 10)
    True
    """
    start, dt = problem.initial_state(), problem.time("dt", dt)
    moved = integrator.step(problem, start, dt)
    share = 1 - float(integrator.transition(hop_matrix(problem), dt)[0, 0])
    first = {name: (moved[name] - start[name]) / share for name in start}
    carried = each_term(replace(problem, start=first, clamped=0 * problem.clamped))
    return torch.stack([term.value.abs().max() for _, term in carried]).max()
