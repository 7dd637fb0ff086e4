"""Learning by activation relaxation: relax, then apply the local rule (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.closed_form import PopulationState, settled_plan, stream
from actrelax.models.engines import PAPERS, Steps, StepSize, integrator_named
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.solve import resolve, run, warn_unsettled
from actrelax.models.engines.steps import take_steps
from actrelax.models.engines.torch import plan_for
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.learning.captured import captured_gradients
from actrelax.models.learning.gradients import (
    Backward,
    BackwardOptions,
    add_to_grad,
    check_decay,
    corrected,
    to_gradients,
)
from actrelax.models.learning.plasticity import Plasticity
from actrelax.models.learning.settling import (
    check_cycles,
    default_steps,
    losses_learned,
    pass_for,
    report_on,
    shares_of,
    stops_at_non_finite,
    with_default_start,
)
from actrelax.models.network import CapturedNetwork, Network, check_network
from actrelax.models.problem import Loss, LossFunction, ProblemFields, RelaxationProblem, loss_named
from actrelax.models.results import DivergenceError, Trajectory


class RelaxFields(ProblemFields, StepSize, total=False):
    """Further keywords of `relax_backward`: fields of the problem, and shorthand for `Steps`."""


@torch.no_grad()
def relax_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    steps: int | Steps = PAPERS,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    assumptions: str | Assumptions = "ar",
    integrator: str | Integrator = "sequential",
    options: BackwardOptions | None = None,
    **fields: Unpack[RelaxFields],
) -> Backward:
    """Relax, and add the local updates to the parameters' `.grad`, without autograd.

    The update of W is the product of the presynaptic activity and the postsynaptic gain times activity; at
    equilibrium it is the exact gradient. Learned feedback weights receive the same update. A sample whose loss gradient
    is exactly zero adds nothing, unless BatchNorm connects it to others. Only `.grad` changes, and no autograd graph
    is built. For ``loss.backward()``, use `ActivationRelaxation`.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        Stimuli, (batch, *input shape).
    y : torch.Tensor
        Targets: integer labels (batch,) or (batch, *output shape).
    steps : int or Steps, default Steps(100, eta=0.1)
        As for `solve`; by default the papers' steps. On a network with cycles the default is
        ``Steps.until(1e-2, eta=0.5, most=100)``, from zero.
    loss : str, Loss or callable, default "cross-entropy"
        A key of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample. A mean over the batch
        divides by the batch size, or by the sum of class weights for the losses that `from_function` lists.
    assumptions : str or Assumptions, default "ar"
        A key of `assumptions.PRESETS`, or any combination of knobs.
    integrator : str or Integrator, default "sequential"
        As for `solve`; by default the papers' sweep. ``"equilibrium"`` gives backprop's gradient exactly, in one sweep,
        under the standard assumptions.
    options : BackwardOptions, optional
        Reduction over the batch; update factors, clip and decay; evaluation; checks; generator for the noise; on a
        network with cycles how its rates settle, and whether samples learn that have not.
    **fields
        Other fields of `RelaxationProblem` (tau, start, clip, noise, delays, ...), and eta, dt or duration as shorthand
        for `Steps`.

    Returns
    -------
    Backward

    Raises
    ------
    ActrelaxError
        For invalid arguments.
    DivergenceError
        If stimuli, clamp, activities or updates become non-finite; `.grad` is then unchanged. The closed form may miss
        a non-finite activity behind a relu's zero gain, which changes no update.

    Warns
    -----
    UserWarning
        If `Steps.until` takes its largest number of steps without settling.

    Examples
    --------
    >>> from actrelax import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> x, y = torch.rand(8, 64), torch.arange(8)
    >>> before = relax_backward(network, x, y, 50, eta=0.1).loss
    >>> optimiser.step()
    >>> bool(relax_backward(network, x, y, 50, eta=0.1).loss < before)
    True
    """
    check_network(network)
    options = options or BackwardOptions()
    usual = default_steps(network, integrator_named(integrator), PAPERS)
    steps, of_problem = take_steps(usual if steps is PAPERS else steps, fields, usual)
    assumptions = look_up("assumptions", assumptions, PRESETS)
    chosen = loss_named(loss)
    passed = pass_for(network, x, options)
    output = passed.activities[network.output]
    losses, clamped = chosen.both(output, y)
    correction = chosen.correction(output, y, options.reduction)
    problem = RelaxationProblem(network, passed, clamped, assumptions, **with_default_start(network, of_problem))
    request = prepare(problem, integrator, steps, options)
    if isinstance(network, CapturedNetwork):
        return _add_captured_gradients(request, options, losses, correction)
    learned, trajectory = learn(request, options)
    gradients: dict[nn.Parameter, Tensor] = {}
    for projection in network.projections.values():
        scaled = corrected(learned.totals.get(projection, {}), correction)
        for slot, update in to_gradients(network, assumptions, projection, scaled, options.updates):
            parameter = getattr(projection, slot)  # projections may share it
            gradients[parameter] = gradients[parameter] + update if parameter in gradients else update
    for parameter, gradient in gradients.items():
        add_to_grad(parameter, gradient)
    loss_value = options.reduced(losses_learned(losses, learned.report).sum(), len(x), correction)
    return Backward(loss_value, output, learned.finite, len(x), trajectory, learned.report)


def _add_captured_gradients(
    request: SolveRequest, options: BackwardOptions, losses: Tensor, correction: Tensor | None
) -> Backward:
    """Relax a captured network, and add its updates to `.grad`."""
    output = request.problem.feedforward.activities[request.problem.network.output]
    gradients, finite, trajectory = captured_gradients(request, options, 1.0 if correction is None else correction)
    for parameter, gradient in gradients.items():
        add_to_grad(parameter, gradient)  # type: ignore[arg-type]
    loss = options.reduced(losses.sum(), len(output), correction)
    return Backward(loss, output, finite, len(output), trajectory)


def learn(
    request: SolveRequest,
    options: BackwardOptions,
    watch: Callable[[Iterator[PopulationState]], Iterator[PopulationState]] = iter,
) -> tuple[Plasticity, Trajectory | None]:
    """Relax a prepared request, and return the updates and, if kept, the trajectory.

    Updates are computed as populations arrive, from the output down; `watch` sees each population first, and must yield
    it to the local rule.
    """
    request = request.measured()
    problem, plan = request.problem, plan_for(request)
    if plan is not None and not options.keep:
        learned = Plasticity(
            problem, watch(stream(problem, plan)), options, settled=plan is settled_plan(problem.network.graph)
        )
        if not options.check_finite or bool(learned.finite):
            warn_unsettled(request, request.status(False))
            return learned, None
    trajectory = run(request)  # raises for a non-finite population
    all_at_once = PopulationState(tuple(trajectory.final), trajectory.state)
    report = report_on(request, trajectory, options) if problem.network.is_recurrent else None
    shares = None if report is None else shares_of(report, problem, trajectory.state, options)
    learned = Plasticity(problem, watch(iter([all_at_once])), options, shares=shares)
    learned.report = report
    overflow = learned.first_overflow() if options.check_finite and not bool(learned.finite) else None
    if overflow is not None:
        raise DivergenceError(
            f"the update of projection {overflow!r} is not finite, although all activities are: "
            "scale the stimuli or the loss down."
        )
    return learned, trajectory if options.keep else None


def prepare(
    problem: RelaxationProblem, integrator: str | Integrator, steps: Steps, options: BackwardOptions
) -> SolveRequest:
    """Check the arguments of `relax_backward` and return them as a request."""
    if problem.assumptions.is_continuous:
        raise ActrelaxError("continuous plasticity changes weights during the relaxation: use relax_continuously.")
    check_decay(problem, options.updates)
    check_cycles(problem.network, options)
    request = resolve(problem, integrator, steps, evaluation=options.evaluation, generator=options.generator)
    return replace(
        request,
        options=replace(request.options, check_finite=stops_at_non_finite(problem.network, options)),
        agree=options.agree,
    )
