"""The local rule: presynaptic activity times postsynaptic gain times activity (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from actrelax.models.closed_form import PopulationState
from actrelax.models.learning.gradients import BackwardOptions, corrected, is_finite, to_gradients
from actrelax.models.learning.report import SettlingReport
from actrelax.models.network import Projection
from actrelax.models.problem import RelaxationProblem, State


@torch.no_grad()
def hebbian_product(
    problem: RelaxationProblem,
    projection: Projection,
    state: State,
    options: BackwardOptions,
    counted: Tensor | None = None,
    target: PopulationState | None = None,
    shares: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the updates of one projection at a state, and a number that is finite only if they are.

    dW = outer(presynaptic, postsynaptic) and db = postsynaptic (`Projection.plasticity`), summed over the samples and
    multiplied by `BackwardOptions.scale`. `counted` (`counted_samples`) excludes samples without a loss gradient;
    `shares` multiply the samples' updates.
    """
    pre = presynaptic_factor(problem, projection, state)
    post = postsynaptic_factor(problem, projection, state, target)
    if counted is not None:
        post = post * counted.view(-1, *[1] * (post.dim() - 1))
    if shares is not None:
        pre, post = without_dropped(pre, shares), times_shares(post, shares)
    scale = options.scale(problem.network.kind(projection), len(problem.clamped))
    updates = projection.plasticity(pre, post, scale)
    weight = updates["weight"]
    if weight.numel() < pre.numel() + post.numel():
        return updates, _sum(weight)
    return updates, _norm(pre) * _norm(post)  # no element of an outer product is larger


def counted_samples(problem: RelaxationProblem) -> Tensor:
    """Return 0 for each sample with a clamp of exactly zero, else 1: (batch,), in the clamp's dtype.

    The gradient of other samples is zero, and updates from the remains of their initial activity would be noise.
    """
    return (problem.clamped != 0).unsqueeze(-1).flatten(1).any(1).to(problem.clamped)


def local_updates(
    problem: RelaxationProblem,
    projection: Projection,
    state: State,
    options: BackwardOptions,
    correction: Tensor | None = None,
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield (parameter, gradient) of one projection at a state: W, bias and learned psi."""
    if projection.map is None:
        return
    updates, _ = hebbian_product(problem, projection, state, options, counted_samples(problem))
    scaled = corrected(updates, correction)
    for slot, gradient in to_gradients(problem.network, problem.assumptions, projection, scaled, options.updates):
        yield getattr(projection, slot), gradient


def times_shares(x: Tensor, shares: Tensor) -> Tensor:
    """Multiply the samples of a batch by their shares, (batch,); a share of 0 gives 0 for nan and inf, too."""
    return without_dropped(x * shares.view(-1, *[1] * (x.dim() - 1)), shares)


def without_dropped(x: Tensor, shares: Tensor) -> Tensor:
    """Return the samples of a batch, with 0 in place of those with a share of 0."""
    return torch.where(shares.view(-1, *[1] * (x.dim() - 1)) == 0, 0.0, x)


def populations_read(problem: RelaxationProblem, projection: Projection) -> set[str]:
    """Return the relaxing populations that the projection's update depends on."""
    network = problem.network
    knobs = network.knobs(projection, problem.assumptions)
    read = {projection.target}
    if knobs.presynaptic == "current":
        read.add(projection.source)
    if knobs.weight_gain == "current":  # the current drive
        read |= {p.source for p in network.incoming[projection.target]}
    return read - {network.input}


def presynaptic_factor(problem: RelaxationProblem, projection: Projection, state: State) -> Tensor:
    """Return the presynaptic activity at the weights, from the feedforward pass or current."""
    is_frozen = problem.network.knobs(projection, problem.assumptions).presynaptic == "feedforward"
    activities = problem.feedforward.activities if is_frozen else problem.activities_like_weights(state)
    return projection.presynaptic(activities[projection.source], problem.feedforward.routes[projection.name])


def postsynaptic_factor(
    problem: RelaxationProblem, projection: Projection, state: State, target: PopulationState | None = None
) -> Tensor:
    """Return the postsynaptic gain times activity at the weights, taken from `target` if already computed there."""
    knobs = problem.network.knobs(projection, problem.assumptions)
    signal = None
    if target is not None:
        if knobs.weight_gain == knobs.activity_gain and projection.name in target.postsynaptic:
            return target.postsynaptic[projection.name]
        signal = target.amplified.get(knobs.weight_gain)
    if signal is None:
        signal = problem.gain_times_activity(projection, knobs.weight_gain, state)
    return projection.postsynaptic(signal, problem.feedforward.routes[projection.name])


class Plasticity:
    """The updates of a network, each computed as soon as its populations have arrived, from the output down.

    Set `settled` if the populations are at equilibrium; `shares` are factors of the samples, (batch,).

    Attributes
    ----------
    totals : dict
        Projection -> its updates (`hebbian_product`), before clip and decay.
    finite : torch.Tensor
        Whether stimuli, clamp, updates and the activities that no update reads are all finite: a zero-dimensional
        boolean on the device.
    report : SettlingReport or None
        Whether the phases have settled, on a network with cycles.
    shares : torch.Tensor or None
        As given.
    """

    report: SettlingReport | None = None

    def __init__(
        self,
        problem: RelaxationProblem,
        arrivals: Iterable[PopulationState],
        options: BackwardOptions,
        settled: bool = False,
        shares: Tensor | None = None,
    ) -> None:
        network, self.shares = problem.network, shares
        counted = None if settled else counted_samples(problem)  # at equilibrium, activity is zero without a clamp
        self.totals: dict[Projection, dict[str, Tensor]] = {}
        waiting = {p: populations_read(problem, p) for p in network.projections.values() if learns(p)}
        read = set().union(*waiting.values())
        learning = (lambda x: x) if shares is None else partial(without_dropped, shares=shares)
        sums = [_sum(learning(x)) for x in (problem.feedforward.activities[network.input], problem.clamped)]
        here: dict[str, PopulationState] = {}
        for arrived in arrivals:
            here |= dict.fromkeys(arrived.names, arrived)
            if read.isdisjoint(arrived.names):  # with frozen weights no update reads these populations
                sums += [_sum(learning(x)) for x in arrived.state.values()]
            for projection in [p for p, read in waiting.items() if read <= here.keys()]:
                del waiting[projection]
                state = {variable: x for each in here.values() for variable, x in each.state.items()}
                target = here[projection.target]
                self.totals[projection], size = hebbian_product(
                    problem, projection, state, options, counted, target, shares
                )
                sums.append(size)
            needed = set().union(*waiting.values())
            here = {name: each for name, each in here.items() if name in needed}
        self.finite = is_finite(torch.stack(sums).sum())

    def first_overflow(self) -> str | None:
        """Return the name of the first projection with a non-finite update, or None."""
        totals = self.totals.items()
        return next((p.name for p, each in totals if not all(bool(x.isfinite().all()) for x in each.values())), None)


def _sum(x: Tensor) -> Tensor:
    """Return the sum in float32 or wider, which is finite only if all entries are."""
    return x.sum(dtype=torch.promote_types(x.dtype, torch.float32))


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32))
    return norm


def learns(projection: Projection) -> bool:
    """Return whether any parameter of the projection requires a gradient."""
    parameters = (projection.weight, projection.bias, projection.feedback)
    return projection.map is not None and any(p is not None and p.requires_grad for p in parameters)
