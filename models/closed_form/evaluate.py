"""The closed form in PyTorch: one population after the other, from the output down.

This module applies a plan (`plan`) to tensors. The vectors of a hop are concatenated along the batch dimension, so each
projection is applied once per hop. Each population is yielded as soon as its activity is known, so that weights can
learn from it, and its memory can be freed, before the next population is computed (docs/theory.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from actrelax.models.assumptions import Gain
from actrelax.models.closed_form.captured import stream_captured, whole_graph
from actrelax.models.closed_form.law import hop_taus, uncovered
from actrelax.models.closed_form.plan import Plan, exact_plan, settled_plan
from actrelax.models.closed_form.stack import Stack, add, combine, each
from actrelax.models.integrators import Integrator, chain_matrix, coefficients, equilibrium
from actrelax.models.network import CapturedNetwork, Graph, Network, Projection
from actrelax.models.problem import RelaxationProblem, State


@dataclass(frozen=True, eq=False)
class PopulationState:
    """The final state of one or more populations.

    names         names of the populations
    state         variable -> (batch, *population.shape), as in the states of a problem
    amplified     activity gain -> gain times activity, if computed
    postsynaptic  incoming projection -> `Projection.postsynaptic` of gain times activity, if computed
    """

    names: tuple[str, ...]
    state: State
    amplified: Mapping[Gain, Tensor] = field(default_factory=dict)
    postsynaptic: Mapping[str, Tensor] = field(default_factory=dict)


def why_not(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None if the closed form gives the result of the steps, else the reason in one sentence."""
    if integrator.takes_time:
        return uncovered(problem)
    if problem.network.is_recurrent:
        return uncovered(problem)
    if problem.dynamics or problem.delay.times:
        return "the closed form of the equilibrium needs leaky units without delays: step the relaxation."
    return integrator.unsupported(problem)


def plan_of(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> Plan:
    """Return the plan that gives the result of `steps` steps of `dt`."""
    network = problem.network
    if not integrator.takes_time:
        return settled_plan(network.graph)
    graph, relays = network.graph, tuple[str, ...]()
    if isinstance(network, CapturedNetwork):
        graph, relays = whole_graph(network), tuple(network.relays)
    return _cached_plan(graph, relays, integrator, hop_taus(problem), dt, steps, problem.start == "zero")


@lru_cache(maxsize=64)
def _cached_plan(
    graph: Graph,
    relays: tuple[str, ...],
    integrator: Integrator,
    taus: tuple[float, ...],
    dt: float,
    steps: int,
    from_zero: bool,
) -> Plan:
    C = coefficients(integrator.transition, chain_matrix(taus), dt, steps)
    return exact_plan(graph, C, from_zero=from_zero, relays=relays)


def plan_applications(plan: Plan, network: Network) -> int:
    """Return the number of feedback applications in a plan, summed over projections."""
    return sum(
        len(generators.taken.get(projection.source, ()))
        for name, generators in plan.items()
        for projection in network.incoming[name]
    )


def stream(problem: RelaxationProblem, plan: Plan) -> Iterator[PopulationState]:
    """Yield the final state of a frozen relaxation by a plan (`plan_of`), one population after another, output first.

    Call it under ``torch.no_grad()``.
    """
    network, arrived = problem.network, dict[str, Stack]()
    for name, generators in plan.items():
        # a given start has the dtype of states, feedback the dtype of the weights
        own = problem.initial_activity(name).to(problem.clamped) if generators.own else None
        stack = combine(generators, own, arrived.pop(name, None))
        amplified: dict[Gain, Stack] = {}
        postsynaptic: dict[str, Tensor] = {}
        for projection in network.incoming[name]:
            source = projection.source
            slots = generators.slots.get(source)
            if not slots:
                continue
            gain = problem.activity_gain(projection)
            if gain not in amplified:
                amplified[gain] = Stack(problem.apply_gain(name, gain, stack.data), stack.count)
            at_weights = _at_weights(problem, projection, amplified[gain].sent(generators.taken[source]))
            if stack.count == 1:  # the only vector is the activity itself
                postsynaptic[projection.name] = at_weights.data
            sent = _from_weights(problem, projection, at_weights)
            arrived[source] = add(arrived.get(source), sent, generators, source, plan[source].arriving)
            del at_weights, sent  # free their memory before the caller computes updates
        products = {gain: product.activity for gain, product in amplified.items()}
        yield PopulationState((name,), {name: stack.activity}, products, postsynaptic)


@torch.no_grad()
def evaluate_all(problem: RelaxationProblem, plan: Plan) -> State:
    """Return population -> activity, (batch, *population.shape), of all populations of `stream`."""
    if isinstance(problem.network, CapturedNetwork):
        if plan is not settled_plan(problem.network.graph):
            populations = problem.network.populations
            return {name: x for name, x in stream_captured(problem, plan) if name in populations}
        start = dict.fromkeys(problem.relaxing, problem.clamped)  # which a sweep with eta = 1 does not read
        return {problem.network.output: problem.clamped, **equilibrium(problem, start, math.inf)}
    return {name: x for population in stream(problem, plan) for name, x in population.state.items()}


def _at_weights(problem: RelaxationProblem, projection: Projection, stack: Stack) -> Stack:
    """Carry the vectors of a projection's target back to the projection's weights."""
    route = problem.feedforward.routes[projection.name]
    return each(stack, lambda data: projection.postsynaptic(data, route.repeated(stack.count)))


def _from_weights(problem: RelaxationProblem, projection: Projection, stack: Stack) -> Stack:
    """Carry vectors from a projection's weights back to its source."""
    route, weight = problem.feedforward.routes[projection.name], problem.feedback_weight(projection)
    return each(stack, lambda data: projection.feedback_from_weights(data, route.repeated(stack.count), weight))
