"""The closed form of captured networks: by the same plans as `evaluate`, with one transpose of a piece per vector.

Weighted operations carry the vectors of a hop in one call where they can. Relays pass vectors on; the way into a relay
is no hop (docs/any-module.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from actrelax.models.closed_form.plan import Generators, Plan
from actrelax.models.closed_form.stack import Stack, add, combine
from actrelax.models.network import CapturedNetwork, CapturedPass, Graph, Projection
from actrelax.models.problem import RelaxationProblem


def whole_graph(network: CapturedNetwork) -> Graph:
    """Return the graph of a captured network with its relays."""
    order = network.path.names
    sources = (dict.fromkeys(p.source for p in network.incoming[name] if p.source != network.input) for name in order)
    return Graph(order, tuple(map(tuple, sources)))


def stream_captured(problem: RelaxationProblem, plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """Yield the final activity of each population and relay by a plan, the output first.

    A population that is silent for certain, a relay that no vector reaches, is left out. Call it under
    ``torch.no_grad()``.
    """
    passed, arrived = problem.feedforward, dict[str, Stack]()
    assert isinstance(passed, CapturedPass)
    for name in problem.relaxing:
        problem.refuse_complex(name, passed.activities[name])
    for name, generators in plan.items():
        own = problem.initial_activity(name).to(problem.clamped) if generators.own else None
        vectors = arrived.pop(name, None)
        if own is None and vectors is None:
            continue
        stack = combine(generators, own, vectors)
        del own, vectors
        _send(problem, name, generators, stack, plan, arrived)
        passed.forget(name)
        yield name, stack.activity


def _send(
    problem: RelaxationProblem, name: str, generators: Generators, stack: Stack, plan: Plan, arrived: dict[str, Stack]
) -> None:
    """Carry a population's vectors to its sources."""
    passed = problem.feedforward
    assert isinstance(passed, CapturedPass)
    wires = [p for p in problem.network.incoming[name] if generators.taken.get(p.source)]
    signals: dict[str, list[Tensor]] = {projection.name: [] for projection in wires}
    for number, vector in enumerate(stack.vectors):
        for projection in wires:
            if number in generators.taken[projection.source]:
                signals[projection.name].append(passed.sent(projection, vector))  # type: ignore[arg-type]
    for projection in wires:
        source, given = projection.source, signals.pop(projection.name)
        several = carried(problem, projection, given)
        sent = Stack(several if len(given) > 1 else several[0], len(given))
        arrived[source] = add(arrived.get(source), sent, generators, source, plan[source].arriving)


def carried(problem: RelaxationProblem, projection: Projection, signals: Sequence[Tensor]) -> Tensor:
    """Return op^T of several signals, stacked in front: in one call where the operation takes several."""
    route: Any = problem.feedforward.routes[projection.name]
    weight = problem.feedback_weight(projection)
    if len(signals) > 1 and route is not None and route.takes_several:
        return projection.feedback_signal(torch.stack(list(signals)), route, weight)
    found = [projection.feedback_signal(y, route, weight) for y in signals]
    return found[0][None] if len(found) == 1 else torch.stack(found)
