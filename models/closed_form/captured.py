"""The closed form of captured networks: by the same plans as `evaluate`, with one transpose of a piece per vector.

Relays pass vectors on; the way into a relay is no hop (docs/any-module.md). Vectors are separate tensors, since most
pass a population as they are, and large ones are carried faster one by one: they fit the cache and reuse its memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from actrelax.models.closed_form.plan import Generators, Plan
from actrelax.models.network import CapturedNetwork, CapturedPass, Graph, Projection
from actrelax.models.network.captured import Sums
from actrelax.models.problem import RelaxationProblem
from actrelax.models.problem.field_checks import refuse_complex

LARGE = 2**16
"""Elements of a signal from which on a CPU carries several one by one."""


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
    passed, arrived = problem.feedforward, dict[str, Sums]()
    assert isinstance(passed, CapturedPass)
    for name in problem.relaxing:
        refuse_complex(name, passed.activities[name], problem.state_like)
    for name, generators in plan.items():
        own = problem.initial_activity(name).to(problem.clamped) if generators.own else None
        slots = arrived.pop(name, None)
        if own is None and slots is None:
            continue
        if slots is None:
            activity, *sent = combined(generators, [own], ())
        else:
            before = [] if own is None else [own]
            spare = {len(before) + slot for slot in slots.own}
            vectors = [slots.signals.get(slot) for slot in range(generators.arriving)]
            activity, *sent = combined(generators, [*before, *vectors], spare)
            del before, vectors
        del own, slots
        _send(problem, name, generators, sent, arrived)
        passed.forget(name)
        yield name, activity


def combined(generators: Generators, inputs: Sequence[Tensor | None], spare: Collection[int]) -> list[Tensor]:
    """Return a population's activity and, after it, the vectors to send: `generators.matrix` @ inputs.

    `spare` has the numbers of the inputs that may change in place, if no other row reads them.
    """
    like = next(x for x in inputs if x is not None)
    tiny = torch.finfo(like.dtype).tiny  # subnormal numbers are slow and have no effect
    matrix = np.where(np.abs(generators.matrix) < tiny, 0.0, generators.matrix)
    readers = np.count_nonzero(matrix, axis=0)
    rows = []
    for row in matrix.tolist():
        terms = [(c, number, x) for number, (c, x) in enumerate(zip(row, inputs, strict=True)) if c and x is not None]
        terms.sort(key=lambda term: term[0] != 1)  # a coefficient of 1 takes no multiplication
        total, is_new = torch.zeros_like(like) if not terms else terms[0][2], False
        if terms:
            is_new = terms[0][1] in spare and readers[terms[0][1]] == 1
            if terms[0][0] != 1:
                total, is_new = total.mul_(terms[0][0]) if is_new else terms[0][0] * total, True
        for c, _, x in terms[1:]:
            total, is_new = total.add_(x, alpha=c) if is_new else torch.add(total, x, alpha=c), True
        rows.append(total)
    return rows


def _send(
    problem: RelaxationProblem,
    name: str,
    generators: Generators,
    sent: list[Tensor],
    arrived: dict[str, Sums],
) -> None:
    """Carry a population's vectors to its sources, and free each on the way."""
    passed: Any = problem.feedforward
    wires = [p for p in problem.network.incoming[name] if generators.taken.get(p.source)]
    for projection in wires:
        arrived.setdefault(projection.source, Sums())
    numbers, count = iter(range(len(sent))), _together(sent) if sent else 1
    while some := list(islice(numbers, count)):
        signals: dict[str, list[Tensor]] = {projection.name: [] for projection in wires}
        for number in some:
            vector, sent[number] = sent[number], sent[number].new_empty(0)
            for projection in wires:
                if number in generators.taken[projection.source]:
                    signals[projection.name].append(passed.sent(projection, vector))
            del vector
        for projection in wires:
            taken = [number for number in some if number in generators.taken[projection.source]]
            _arrive(problem, projection, generators, taken, signals.pop(projection.name), arrived)


def _arrive(
    problem: RelaxationProblem,
    projection: Projection,
    generators: Generators,
    numbers: Sequence[int],
    signals: Sequence[Tensor],
    arrived: Mapping[str, Sums],
) -> None:
    """Carry signals through an operation, and add them to the slots of its source."""
    source, route = projection.source, cast(Any, problem.feedforward.routes[projection.name])
    for number, signal in zip(numbers, carried(problem, projection, signals), strict=True):
        places = [slot for vector, slot in generators.slots[source] if vector == number]
        for slot in places:
            arrived[source].add(slot, signal, route is not None and route.sends_new and len(places) == 1)


def _together(sent: Sequence[Tensor]) -> int:
    """Return how many vectors to carry at a time: on a CPU one, if they are large."""
    return 1 if sent[0].device.type == "cpu" and sent[0].numel() > LARGE else len(sent)


def carried(problem: RelaxationProblem, projection: Projection, signals: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return op^T of several signals: in one call where the operation takes several."""
    route: Any = problem.feedforward.routes[projection.name]
    weight = problem.feedback_weight(projection)
    if len(signals) > 1 and route is not None and route.takes_several:
        return list(projection.feedback_signal(torch.stack(list(signals)), route, weight))
    return [projection.feedback_signal(y, route, weight) for y in signals]
