"""Learning in captured networks: the local rule for the weights of projections and the parameters of pieces.

A population's activity is carried back through its piece once. The signals at its drives give the Hebbian products,
those at the piece's own parameters are their updates (docs/any-module.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor

from actrelax.models.assumptions import Assumptions, Gain
from actrelax.models.closed_form import Plan, remainders, settled_plan, stream_captured, uncovered
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.solve import run, warn_unsettled
from actrelax.models.engines.torch import plan_for
from actrelax.models.errors import ActrelaxError, enough_memory, warn
from actrelax.models.learning.captured_samples import Counted
from actrelax.models.learning.captured_updates import Arrivals, Feedback, ParameterUpdates, Sending, hebbian_products
from actrelax.models.learning.gradients import BackwardOptions, Updates, is_finite, separate
from actrelax.models.network import CapturedNetwork, CapturedPass
from actrelax.models.network.captured import parameter_of
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import DivergenceError, Trajectory


@torch.no_grad()
def deliver(passed: CapturedPass, clamped: Tensor, updates: ParameterUpdates, feedback: Feedback | None = None) -> None:
    """Carry a clamp down to the equilibrium, population by population, and add the updates on the way.

    Each population is delivered to those below at once and freed, with what its weights read: the pass is used up.
    """
    for name in [name for name in passed.activities if name != passed.network.output]:
        del passed.activities[name]  # type: ignore[attr-defined]  # initial activities, which are not needed
    arrived = Arrivals(clamped, feedback or {})
    with without_autocast(clamped.device), without_hooks(passed.parameters):
        for number in range(len(passed.path.pieces)):
            if number in arrived.signals:
                gains = passed.gains_of(number).all
                found = passed.adjoints(number, arrived.signals.pop(number), gains, keep=False)
                _learn(passed, number, found, updates, arrived, keep=False)


@torch.no_grad()
def learn_at(
    problem: RelaxationProblem, state: State, updates: ParameterUpdates, learning: Collection[str] | None = None
) -> None:
    """Add the updates of a captured network at any state of a relaxation.

    `learning` names the projections that learn, by default all. The parameters of a piece learn with its first
    projection, or, if it has none, with the name "".
    """
    activity = partial(problem.activity_of, state=state)
    with _learning(problem) as (passed, counted):
        for number, name in enumerate(passed.path.names):
            _learn_at(passed, number, activity(name), counted, updates, True, activity, learning)


@torch.no_grad()
def learn_along(problem: RelaxationProblem, plan: Plan, updates: ParameterUpdates) -> None:
    """Add the updates at the end of a relaxation by a plan of the closed form, and free the pass on the way."""
    with _learning(problem) as (passed, counted):
        for name, x in stream_captured(problem, plan):
            passed.activities.pop(name, None)  # type: ignore[attr-defined]  # the initial activity
            _learn_at(passed, passed.path.names.index(name), x, counted, updates, keep=False)


@contextmanager
def _learning(problem: RelaxationProblem) -> Iterator[tuple[CapturedPass, Counted]]:
    """Yield the pass, and the samples that count."""
    passed = problem.feedforward
    assert isinstance(passed, CapturedPass)
    with without_autocast(problem.clamped.device), without_hooks(passed.parameters):
        yield passed, Counted(problem)


def _learn_at(
    passed: CapturedPass,
    number: int,
    x: Tensor,
    counted: Counted,
    updates: ParameterUpdates,
    keep: bool,
    activity: Callable[[str], Tensor] | None = None,
    learning: Collection[str] | None = None,
) -> None:
    """Add the updates that a population gives at an activity; without `keep`, free the tensors that they read.

    `activity`, population -> tensor, is needed where gains or presynaptic factors are current.
    """
    x, gains, drive = counted.of(number, x), passed.gains_of(number).learning, None
    if "current" in gains:
        assert activity is not None
        drive = passed.current_drive(number, activity)
    _learn(passed, number, passed.adjoints(number, x, gains, keep, drive), updates, None, keep, activity, learning)


def _learn(
    passed: CapturedPass,
    number: int,
    found: Mapping[Gain, list[Tensor | None]],
    updates: ParameterUpdates,
    arrived: Arrivals | None,
    keep: bool,
    activity: Callable[[str], Tensor] | None = None,
    learning: Collection[str] | None = None,
) -> None:
    """Add the updates that a population's transposed activity gives; send on what follows, if anything `arrived`.

    `activity`, population -> tensor, gives projections their current presynaptic factors; `learning` names the
    projections that learn, None for all.
    """
    wires, gains = passed.path.incoming[number], passed.gains_of(number)
    for position, wire in enumerate(wires):
        sends = arrived is not None and wire.source is not None
        signal = found[gains.sent[position]][position] if sends else None
        learned = gains.learned[position]
        to_learn = signal if learned is None else found[learned][position]
        if learning is not None and wire.name not in learning:
            to_learn = None
        for each in found.values():
            each[position] = None  # free each as soon as it is used
        is_new = False
        if wire.operation is not None:
            operation = passed.operations[wire.operation]
            psi = arrived.feedback.get(wire.name) if arrived is not None else None
            if activity is not None and wire.source is not None and gains.presynaptic[position] == "current":
                operation = operation.reading(activity(passed.path.names[wire.source]))
            how = Sending(sends, psi, passed.learns_feedback(wire.name), keep)
            signal = hebbian_products(operation, to_learn, signal, updates, how)
            is_new = operation.sends_new
        if arrived is not None and wire.source is not None and signal is not None:
            arrived.add(wire.source, signal, is_new)
    if learning is not None and (wires[0].name if wires else "") not in learning:
        return
    own = found[gains.own][len(wires) :]
    for parameter, update in zip(passed.own_parameters(number), own, strict=True):
        updates.add(parameter, update, "phi")


@contextmanager
def without_hooks(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Keep the parameters' hooks from being called for parts of their gradients."""
    hooks = [(p._backward_hooks, dict(p._backward_hooks)) for p in parameters if p._backward_hooks]
    for registered, _ in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, kept in hooks:
            registered.update(kept)


def captured_gradients(
    request: SolveRequest,
    options: BackwardOptions,
    scale: float | Tensor = 1.0,
    *,
    loss_scale: float | Tensor = 1.0,
) -> tuple[dict[Tensor, Tensor], Tensor, Trajectory | None]:
    """Relax a captured network; return the gradients of its parameters, whether they are finite, and the trajectory.

    The gradients are clipped, and `scale` times the sum over the batch, or its mean. They are those of a loss times
    `loss_scale`, which the clip and the decay leave out.
    """
    request = request.measured()
    problem, trajectory = request.problem, None
    factors, share = options.updates.factors, share_of(problem, options, scale)
    assert isinstance(problem.network, CapturedNetwork)
    refuse_computed_weights(problem.network, problem.assumptions, factors)
    with enough_memory("this relaxation", "take smaller batches or networks"):
        plan = None if reads_state(problem.assumptions) else plan_for(request)
        if plan is settled_plan(problem.network.graph) and not options.keep:
            # at equilibrium all is linear in the clamp: scaled there, gradients equal autograd's bit for bit
            updates = ParameterUpdates(factors)
            assert isinstance(problem.feedforward, CapturedPass)
            clamped = problem.clamped if isinstance(share, float) and share == 1 else problem.clamped * share
            deliver(problem.feedforward, clamped, updates, _own_feedback(problem))
            warn_unsettled(request, request.status(False))
        else:
            _warn_of_little(request)
            updates = scaled_updates(options, share)
            if plan is None or options.keep:
                trajectory = run(request)  # raises for a non-finite population
                learn_at(problem, trajectory.state, updates)
            else:
                learn_along(problem, plan, updates)
        gradients = parameter_gradients(problem, updates, options.updates, loss_scale)
    finite = is_finite(torch.stack([_sum(problem.clamped), *map(_norm, gradients.values())]).sum())
    if options.check_finite and not bool(finite):
        raise DivergenceError(
            "an update of a captured network is not finite: look for inf and nan in stimuli, targets and weights, or "
            "scale the stimuli or the loss down."
        )
    return gradients, finite, trajectory if options.keep else None


def share_of(problem: RelaxationProblem, options: BackwardOptions, scale: float | Tensor) -> float | Tensor:
    """Return the factor of all updates: `scale`, divided by the batch size for a mean."""
    return scale / len(problem.clamped) if options.reduction == "mean" else scale


def scaled_updates(options: BackwardOptions, share: float | Tensor) -> ParameterUpdates:
    """Return empty updates that are scaled by the options' factors and a share."""
    return ParameterUpdates({k: options.updates.factors.get(k, 1.0) * share for k in ("dense", "conv", "phi")})


def reads_state(assumptions: Assumptions) -> bool:
    """Return whether updates read gains or presynaptic factors of the moment, and so all populations at once."""
    return any("current" in (knobs.weight_gain, knobs.presynaptic) for knobs in assumptions.all_knobs)


def _own_feedback(problem: RelaxationProblem) -> Feedback:
    """Return the weights of feedback that is not carried by the weights themselves."""
    plain = all(knobs.feedback == "transpose" for knobs in problem.assumptions.all_knobs)
    if plain and problem.feedback_transform is None:
        return {}
    found = {name: problem.feedback_weight(p) for name, p in problem.feedback_projections.items()}
    return {name: psi for name, psi in found.items() if psi is not None}


def parameter_gradients(
    problem: RelaxationProblem, updates: ParameterUpdates, options: Updates, loss_scale: float | Tensor = 1.0
) -> dict[Tensor, Tensor]:
    """Return the gradients of parameters and of feedback weights: clipped, then with Kolen and Pollack's decay.

    They are those of a loss times `loss_scale`: clip and decay are, too.
    """
    network, passed = problem.network, problem.feedforward
    assert isinstance(network, CapturedNetwork)
    assert isinstance(passed, CapturedPass)
    is_scaled = options.clip is not None and (isinstance(loss_scale, Tensor) or loss_scale != 1)

    def clipped(update: Tensor) -> Tensor:
        return options.clipped_(update / loss_scale) * loss_scale if is_scaled else options.clipped_(update)

    found = {
        leaf: update if leaf is passed.stimulus else clipped(update)  # the input's gradient is no update
        for leaf, update in separate(updates.gradients()).items()
    }
    for name, (psi, projection) in passed.learned_feedback.items():
        weight = parameter_of(passed.operations[projection.number].weight)
        users = (p for p in network.projections.values() if p.psi == name)
        is_computed = weight.grad_fn is not None
        update = updates.of(passed.operations[p.number].weight for p in users) if is_computed else found.get(weight)
        if update is None:
            continue
        found[psi] = clipped(update.clone()) if is_computed else update.clone()
        if options.decay and network.decays(projection, problem.assumptions):
            for w in (weight, psi):
                found[w] = found[w] + options.decay * loss_scale * w.detach()
    return {leaf: update for leaf, update in found.items() if leaf.requires_grad}


def refuse_computed_weights(network: CapturedNetwork, assumptions: Assumptions, factors: Mapping[str, float]) -> None:
    """Refuse factors and decay of weights that are computed from parameters: what they would scale is not defined."""
    for projection in network.projections.values():
        factor = factors.get(projection.kind, 1.0)
        if factor != 1 and projection.number is not None and not projection.weight:
            raise ActrelaxError(
                f"factors={{{projection.kind!r}: {factor:g}}} needs weights that are Parameters, but the weights of "
                f"{projection.name!r} are computed from others (pruned, normalised, masked ...): leave the factor out."
            )
        if not projection.parameter and network.decays(projection, assumptions):
            raise ActrelaxError(
                f'"kolen-pollack" feedback needs weights that are Parameters, but the weights of {projection.name!r} '
                "are computed from others (pruned, normalised, masked ...): use learned feedback."
            )


def _warn_of_little(request: SolveRequest) -> None:
    """Warn, once per network, where a relaxation ends long before the clamp has arrived at the lowest population."""
    problem, network = request.problem, request.problem.network
    if not isinstance(network, CapturedNetwork) or "little has arrived" in network.said or problem.start == "zero":
        return
    if uncovered(problem) is not None or request.grid.stop_change is not None or len(network.populations) < 3:
        return
    left = remainders(problem, request.integrator, dt=request.grid.dt, steps=request.grid.steps)
    lowest, share = max(left.items(), key=lambda item: item[1])
    if share > 0.5:
        network.said.add("little has arrived")
        arrived = max(0.0, 1 - share)
        warn(
            f"after {request.grid.steps} steps {arrived:.0%} of the gradient has reached population {lowest!r}: "
            'pass Steps.until(...), which costs what the equilibrium costs, or start="zero", which keeps directions.'
        )


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast: stimuli and weights are already cast, and states keep their dtype."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.coalesce().values() if x.is_sparse else x, dtype=_wide(x))
    return norm


def _sum(x: Tensor) -> Tensor:
    return x.sum(dtype=_wide(x))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
