"""How large -x + feedback can get on the way: a clip that is larger is without effect."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from actrelax.models.closed_form.law import hop_matrix, hop_taus, terms
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem


def unbounded(problem: RelaxationProblem, integrator: Integrator, *, dt: float) -> str | None:
    """Return None where `bracket_bound` holds, else one sentence that says why not."""
    if (integrator.order, integrator.stages) != (1, 1):
        return f'brackets are bounded for schemes of one stage, "{integrator.name}" has others: step the relaxation.'
    if len(set(hop_taus(problem))) > 1:
        return "brackets are bounded for one time constant, this problem has several: step the relaxation."
    if dt > hop_taus(problem)[0]:
        return "brackets are bounded up to dt / tau = 1: step the relaxation, or take smaller steps."
    return None


@torch.no_grad()
def bracket_bound(problem: RelaxationProblem, integrator: Integrator, *, dt: float) -> Tensor:
    """Return what |-x + feedback| of no neuron exceeds, at any step of a relaxation, however long.

    Brackets obey the relaxation's own law, from those of the first step on and with nothing clamped, since a step
    moves each neuron by the same share of its bracket: those of step n are sums of the first ones carried down by
    feedback, with coefficients that are probabilities. So no bracket exceeds the largest of what is carried, nor is it
    often far below (1.0 to 1.2 times in the papers' CNN; 4 in a chain whose maps double everything); norms of the
    feedback weights would be fifty to a thousand times too large. Nothing waits for the device.

    Parameters
    ----------
    problem : RelaxationProblem
        With a law (`closed_form.uncovered`).
    integrator : Integrator
        Where `unbounded` has no objection.
    dt : float
        Its step, in the problem's unit of time.

    Returns
    -------
    torch.Tensor
        Without dimensions.

    Examples
    --------
    >>> from actrelax import INTEGRATORS, build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> bool(0 < bracket_bound(problem, INTEGRATORS["euler"], dt=0.1) < 10)
    True
    """
    start = problem.initial_state(dt)
    moved = integrator.step(problem, start, dt)
    share = 1 - float(integrator.transition(hop_matrix(problem), dt)[0, 0])
    first = {name: (moved[name] - start[name]) / share for name in start}
    carried = terms(replace(problem, start=first, clamped=0 * problem.clamped))
    return torch.stack([term.value.abs().max() for found in carried.values() for term in found]).max()
