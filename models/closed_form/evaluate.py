"""The closed form in PyTorch: one population after the other, from the output down.

This module applies a plan (`plan`) to tensors. The vectors of a hop are concatenated along the batch dimension, so each
projection is applied once per hop. Each population is yielded as soon as its activity is known, so that weights can
learn from it, and its memory can be freed, before the next population is computed (docs/theory.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from actrelax.models.assumptions import Gain
from actrelax.models.closed_form.law import hop_taus, uncovered
from actrelax.models.closed_form.plan import Generators, Plan, exact_plan, settled_plan
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
    graph = problem.network.graph
    if not integrator.takes_time:
        return settled_plan(graph)
    return _cached_plan(graph, integrator, hop_taus(problem), dt, steps, problem.start == "zero")


@lru_cache(maxsize=64)
def _cached_plan(
    graph: Graph, integrator: Integrator, taus: tuple[float, ...], dt: float, steps: int, from_zero: bool
) -> Plan:
    C = coefficients(integrator.transition, chain_matrix(taus), dt, steps)
    if from_zero:
        C[:, :-1] = 0  # initial activities are 0, whatever their coefficients
    return exact_plan(graph, C)


def plan_applications(plan: Plan, network: Network) -> int:
    """Return the number of feedback applications in a plan, summed over projections."""
    return sum(
        len(generators.slots.get(projection.source, ()))
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
        stack = _combine(generators, own, arrived.pop(name, None))
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
            at_weights = _at_weights(problem, projection, amplified[gain].sent(len(slots)))
            if stack.count == 1:  # the only vector is the activity itself
                postsynaptic[projection.name] = at_weights.data
            sent = _from_weights(problem, projection, at_weights)
            arrived[source] = _add(arrived.get(source), sent, slots, plan[source].arriving)
            del at_weights, sent  # free their memory before the caller computes updates
        products = {gain: product.activity for gain, product in amplified.items()}
        yield PopulationState((name,), {name: stack.activity}, products, postsynaptic)


@torch.no_grad()
def evaluate_all(problem: RelaxationProblem, plan: Plan) -> State:
    """Return population -> activity, (batch, *population.shape), of all populations of `stream`."""
    if isinstance(problem.network, CapturedNetwork):
        assert plan is settled_plan(problem.network.graph)
        start = dict.fromkeys(problem.relaxing, problem.clamped)  # which a sweep with eta = 1 does not read
        return {problem.network.output: problem.clamped, **equilibrium(problem, start, math.inf)}
    return {name: x for population in stream(problem, plan) for name, x in population.state.items()}


@dataclass(slots=True, eq=False)
class Stack:
    """Several vectors of one population in one tensor.

    data   (count, batch, *population.shape); for a single vector (batch, *population.shape), so that it uses the
           kernels of a plain activity
    count  number of vectors
    """

    data: Tensor
    count: int

    @property
    def rows(self) -> Tensor:
        """(count, batch * size), one row per vector."""
        return self.data.reshape(self.count, -1)

    @property
    def shape(self) -> torch.Size:
        """(batch, *population.shape) of one vector."""
        return self.data.shape if self.count == 1 else self.data.shape[1:]

    @property
    def activity(self) -> Tensor:
        """The first vector."""
        return self.data if self.count == 1 else self.data[0]

    def sent(self, count: int) -> Stack:
        """Return the first `count` vectors after the activity; a single vector is both."""
        if self.count == 1:
            return self
        return Stack(self.data[1] if count == 1 else self.data[1 : 1 + count], count)


def _combine(generators: Generators, own: Tensor | None, arrived: Stack | None) -> Stack:
    """Return a population's activity and, after it, the vectors to send: `generators.matrix` @ (own, arrived)."""
    if own is None:
        assert arrived is not None
        return arrived if generators.is_copy else _stacked(_on(generators, arrived.data) @ arrived.rows, arrived.shape)
    if arrived is None:
        return Stack(own, 1) if generators.is_copy else _stacked(_on(generators, own) @ own.reshape(1, -1), own.shape)
    matrix = _on(generators, own)
    rows = matrix[:, 1:] @ arrived.rows
    return _stacked(rows.addr_(matrix[:, 0], own.flatten()), own.shape)  # without copying own into one stack


def _stacked(rows: Tensor, shape: torch.Size) -> Stack:
    count = len(rows)
    return Stack(rows.view(shape if count == 1 else (count, *shape)), count)


def _at_weights(problem: RelaxationProblem, projection: Projection, stack: Stack) -> Stack:
    """Carry the vectors of a projection's target back to the projection's weights."""
    route = problem.feedforward.routes[projection.name]
    return _each(stack, lambda data: projection.postsynaptic(data, route.repeated(stack.count)))


def _from_weights(problem: RelaxationProblem, projection: Projection, stack: Stack) -> Stack:
    """Carry vectors from a projection's weights back to its source."""
    route, weight = problem.feedforward.routes[projection.name], problem.feedback_weight(projection)
    return _each(stack, lambda data: projection.feedback_from_weights(data, route.repeated(stack.count), weight))


def _each(stack: Stack, carry: Callable[[Tensor], Tensor]) -> Stack:
    """Apply a map to all vectors at once, concatenated along the batch dimension."""
    if stack.count == 1:
        return Stack(carry(stack.data), 1)
    data = carry(stack.data.flatten(0, 1))
    return Stack(data.view(stack.count, -1, *data.shape[1:]), stack.count)


def _add(arrived: Stack | None, signal: Stack, slots: tuple[int, ...], count: int) -> Stack:
    """Add the vectors that a projection sends to its source's slots; return the vectors of all `count` slots."""
    # never in place: a projection without weights returns the tensor that was sent
    if slots == tuple(range(count)):
        return signal if arrived is None else Stack(arrived.data + signal.data, count)
    data = signal.data[None] if signal.count == 1 else signal.data
    before = data.new_zeros(count, *data.shape[1:]) if arrived is None else arrived.data
    return Stack(before.index_add(0, _constant(_index, slots, data.device), data), count)


@lru_cache(maxsize=1024)
def _matrix(generators: Generators, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the generators' matrix as a tensor."""
    matrix = torch.from_numpy(generators.matrix).to(dtype)
    # subnormal numbers are slow and have no effect
    return torch.where(matrix.abs() < torch.finfo(dtype).tiny, 0.0, matrix).to(device)


@lru_cache(maxsize=1024)
def _index(slots: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(slots, device=device)


def _on(generators: Generators, like: Tensor) -> Tensor:
    """Return the generators' matrix with the dtype and device of a tensor."""
    return _constant(_matrix, generators, like.dtype, like.device)


def _constant(make: Any, *arguments: object) -> Tensor:
    """Return a cached tensor; under torch.compile, whose tensors have no values yet, a new one."""
    constant: Tensor = (make.__wrapped__ if torch.compiler.is_compiling() else make)(*arguments)
    if type(constant) is not Tensor:  # made under a mode such as FakeTensorMode, useless outside it
        make.cache_clear()
    return constant
