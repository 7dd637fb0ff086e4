"""Learning by activation relaxation: relax, then a local Hebbian rule (THEORY.md sections 1 and 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.losses import Loss, LossFunction, loss_named
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.models.updates import Backward, Updates, add_to_grad, check_decay, local_updates, outcome


@torch.no_grad()
def relax_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    assumptions: str | Assumptions = "ar",
    integrator: str | Integrator = "sequential",
    dt: float | None = None,
    eta: float | None = None,
    steps: int | None = None,
    duration: float | None = None,
    stop_change: float | None = None,
    updates: Updates | None = None,
    check_finite: bool = True,
    generator: torch.Generator | None = None,
    **fields: Any,
) -> Backward:
    """Relax, and add each projection's local update to its parameters' `.grad`: AR's ``loss.backward()``.

    The update of W is the product of the presynaptic activity and the postsynaptic gain times activity; at
    equilibrium it is the exact gradient. Learned feedback weights receive the same update. No autograd graph is
    built, and nothing but `.grad` changes.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        Stimuli, (batch, *input shape).
    y : torch.Tensor
        Targets: integer labels (batch,) or (batch, *output shape).
    loss : str, Loss or callable, default "cross-entropy"
        A name of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
    assumptions : str or Assumptions, default "ar"
        A name of `assumptions.PRESETS`, or any combination of knobs.
    integrator, dt, eta, steps, duration, stop_change, check_finite, generator
        As for `solve`; the papers' 100 sequential steps of eta = 0.1 unless given. ``integrator="equilibrium"``
        gives backprop's gradient exactly, in one sweep, where the assumptions are the standard ones.
    updates : Updates, optional
        Reduction over the batch (mean unless given), factors, clip, decay.
    **fields
        Other fields of `RelaxationProblem`: tau, start, clip, noise, delays ...

    Returns
    -------
    Backward

    Raises
    ------
    ActrelaxError
        For input that can't be used.
    DivergenceError
        If the relaxation becomes non-finite; no `.grad` has changed then.

    Examples
    --------
    >>> from actrelax.models.architectures import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> x, y = torch.rand(8, 64), torch.arange(8)
    >>> before = relax_backward(network, x, y, steps=50).loss
    >>> optimiser.step()
    >>> bool(relax_backward(network, x, y, steps=50).loss < before)
    True
    """
    updates = updates or Updates()
    chosen = loss_named(loss)
    problem = RelaxationProblem.from_batch(network, x, y, loss=chosen, assumptions=assumptions, **fields)
    if problem.is_continuous:
        raise ActrelaxError("continuous plasticity changes weights during the relaxation: use relax_continuously.")
    check_decay(problem, updates)
    trajectory = solve(
        problem,
        integrator,
        dt=dt,
        eta=eta,
        steps=steps,
        duration=duration,
        stop_change=stop_change,
        check_finite=check_finite,
        generator=generator,
    )
    state = {variable: x.to(problem.clamped) for variable, x in trajectory.state.items()}  # an engine's own precision
    for projection in network.projections.values():
        for parameter, update in local_updates(problem, projection, state, updates):
            add_to_grad(parameter, update)
    return outcome(problem, chosen, y, updates, trajectory)
