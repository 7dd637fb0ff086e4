"""Learning by activation relaxation: relax, then apply the local rule (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from actrelax.models._names import known, look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.closed_form import PopulationState, ToleranceOf, stream
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.solve import resolve, run, warn_unsettled
from actrelax.models.engines.steps import Steps
from actrelax.models.engines.torch import Method, plan_for
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.learning.gradients import (
    Backward,
    Updates,
    add_to_grad,
    check_decay,
    no_samples,
    reduce,
    to_gradients,
)
from actrelax.models.learning.plasticity import Plasticity, learns
from actrelax.models.network import Network, Projection
from actrelax.models.problem import Loss, LossFunction, RelaxationProblem, loss_named
from actrelax.models.results import DivergenceError, Trajectory


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
    steps: Steps | None = None,
    duration: float | None = None,
    tolerance: float | None = None,
    tolerance_of: ToleranceOf | None = None,
    max_steps: int | None = None,
    stop_change: float | None = None,
    method: Method = "auto",
    keep: bool = False,
    updates: Updates | None = None,
    check_finite: bool = True,
    generator: torch.Generator | None = None,
    **fields: Any,
) -> Backward:
    """Relax, and add each projection's local update to its parameters' `.grad`: AR's ``loss.backward()``.

    The update of W is the product of the presynaptic activity and the postsynaptic gain times activity; at
    equilibrium it is the exact gradient. Learned feedback weights receive the same update. Only `.grad` changes, and
    no autograd graph is built.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        Stimuli, (batch, *input shape).
    y : torch.Tensor
        Targets: integer labels (batch,) or (batch, *output shape).
    loss : str, Loss or callable, default "cross-entropy"
        A key of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
    assumptions : str or Assumptions, default "ar"
        A key of `assumptions.PRESETS`, or any combination of knobs.
    integrator, dt, eta, steps, duration, tolerance, tolerance_of, max_steps, stop_change, check_finite, generator
        As for `solve`; by default the papers' 100 sequential steps of eta = 0.1. ``integrator="equilibrium"`` gives
        backprop's gradient exactly, in one sweep, under the standard assumptions.
    method : {"auto", "stepped", "closed-form"}, default "auto"
        As for the PyTorch engine (`engines.torch.solve`): by default the closed form if it applies, at about the cost
        of backprop for any number of steps.
    keep : bool, default False
        Keep the relaxed activities in `Backward.trajectory`; otherwise each population is freed after its last use.
    updates : Updates, optional
        Reduction over the batch (the mean by default), factors, clip, decay, and sums over processes.
    **fields
        Other fields of `RelaxationProblem`: tau, start, clip, noise, delays ...

    Returns
    -------
    Backward

    Raises
    ------
    ActrelaxError
        For invalid arguments.
    DivergenceError
        If stimuli, clamp, activities or updates become non-finite; `.grad` is then unchanged. (With the closed form, an
        activity behind the zero gain of a relu may pass, since it changes nothing.)

    Warns
    -----
    UserWarning
        If steps="auto" ends at max_steps.

    Examples
    --------
    >>> from actrelax import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> x, y = torch.rand(8, 64), torch.arange(8)
    >>> before = relax_backward(network, x, y, steps=50).loss
    >>> optimiser.step()
    >>> bool(relax_backward(network, x, y, steps=50).loss < before)
    True
    """
    updates = updates or Updates()
    assumptions = look_up("assumptions", assumptions, PRESETS)
    if updates.across is not None and len(x) == 0:
        return _to_grad(network, assumptions, _no_updates(network), updates, *no_samples(network, x))
    chosen = loss_named(loss)
    passed = network.feedforward(x, keep_drives=False)
    output = passed.activities[network.output]
    losses, clamped = chosen.both(output, y)
    problem = RelaxationProblem(network, passed, clamped, assumptions, **fields)
    if problem.assumptions.is_continuous:
        raise ActrelaxError("continuous plasticity changes weights during the relaxation: use relax_continuously.")
    check_decay(problem, updates)
    request = resolve(
        problem,
        integrator,
        stop_change=stop_change,
        check_finite=check_finite,
        generator=generator,
        dt=dt,
        eta=eta,
        steps=steps,
        duration=duration,
        tolerance=tolerance,
        tolerance_of=tolerance_of,
        max_steps=max_steps,
    )
    learned, trajectory = _learn(request, updates, method, keep)
    return _to_grad(network, assumptions, learned.totals, updates, output, losses, learned.finite, trajectory)


def _learn(request: SolveRequest, updates: Updates, method: Method, keep: bool) -> tuple[Plasticity, Trajectory | None]:
    """Relax and compute the updates as populations arrive; return the trajectory if `keep` is set."""
    plan, options = None, dict[str, Any]()
    if request.engine == "torch":
        plan, options = plan_for(request, method), {"method": method}
    elif known("method", method, get_args(Method)) == "closed-form":
        raise ActrelaxError(f"the closed form needs the engine torch, got {request.engine}: leave out method.")
    if plan is not None and not keep:
        learned = Plasticity(request.problem, stream(request.problem, plan), updates)
        if not request.check_finite or bool(learned.finite):
            warn_unsettled(request, request.status(False), request.grid.steps)
            return learned, None
    trajectory = run(replace(request, options=options))  # raises for a non-finite population
    learned = Plasticity(request.problem, [_at_once(trajectory)], updates)
    overflow = learned.first_overflow() if request.check_finite and not bool(learned.finite) else None
    if overflow is not None:
        raise DivergenceError(
            f"the update of projection {overflow!r} is not finite, although all activities are: "
            "scale the stimuli or the loss down."
        )
    return learned, trajectory if keep else None


def _to_grad(
    network: Network,
    assumptions: Assumptions,
    totals: Mapping[Projection, Mapping[str, Tensor]],
    updates: Updates,
    output: Tensor,
    losses: Tensor,
    finite: Tensor,
    trajectory: Trajectory | None = None,
) -> Backward:
    """Add updates summed over the batch to `.grad`, in the network's order, which is the same in all processes."""
    named = [(p, name) for p in network.projections.values() for name in totals.get(p, ())]
    scaled, backward = reduce(
        output, losses, updates, finite, trajectory, scaled=[totals[p][name] for p, name in named]
    )
    whole: dict[Projection, dict[str, Tensor]] = {}
    for (projection, name), update in zip(named, scaled, strict=True):
        whole.setdefault(projection, {})[name] = update
    for projection, by_name in whole.items():
        for parameter, update in to_gradients(network, assumptions, projection, by_name, updates):
            add_to_grad(parameter, update)
    return backward


def _no_updates(network: Network) -> dict[Projection, dict[str, Tensor]]:
    """Return the totals of zero samples."""
    return {
        p: {name: torch.zeros_like(w) for name, w in (("weight", p.weight), ("bias", p.bias)) if w is not None}
        for p in network.projections.values()
        if learns(p)
    }


def _at_once(trajectory: Trajectory) -> PopulationState:
    """Return the end of a trajectory, all populations together."""
    return PopulationState(tuple(trajectory.final), trajectory.state)
