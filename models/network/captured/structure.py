"""The populations and projections of a captured network along one path, by name."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from actrelax.models.network.activations import ACTIVATIONS
from actrelax.models.network.captured.operations import Operation, signal_of
from actrelax.models.network.captured.paths import Path
from actrelax.models.network.graph import Graph
from actrelax.models.network.population import Population

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class CapturedProjection:
    """A projection of a captured network: one weighted operation of the module, or a copy.

    name            name of the projection: the module that calls the operation
    source, target  names of populations; a relay is among them
    kind            "dense" or "conv"
    weight, bias    names of its weight and bias in the module; "" for none, and for a weight that is computed
    number          number of the operation on its path, None for a copy
    parameter       name of the parameter that the weight is, or of which it is a view
    psi             name of the projection after which the feedback weights are called: the first of those whose
                    weights are the same, or views of the same
    """

    name: str
    source: str
    target: str
    kind: str
    weight: str
    bias: str
    number: int | None
    parameter: str = ""
    psi: str = ""

    def feedback_signal(self, y: Tensor, route: Operation | None, weight: Tensor | None) -> Tensor:
        """Return op^T(y; weight), None for W; the route of a captured projection is its operation of this pass."""
        return y if route is None else signal_of(route, y, weight)


def structure_of(path: Path, parameters: Sequence[str], psi_names: dict[Hashable, str]) -> dict[str, Any]:
    """Return the attributes of a `CapturedNetwork` that follow from a path.

    `parameters` are the names of the module's parameters. `psi_names`, weight -> name of its feedback weights, keeps
    the first name of a weight, even if another path calls the weight's projections in another order.
    """
    named = [_projection(path, wire, parameters, psi_names) for wire in path.wires]
    everything = [INPUT, *path.names[::-1]]
    shapes = dict(zip(path.names, path.shapes, strict=True))
    relays = [name for name, r in zip(path.names, path.relays, strict=True) if r and name != OUTPUT]
    populations = {
        name: Population(name, shapes.get(name, path.stimulus), ACTIVATIONS["identity"])
        for name in everything
        if name not in relays
    }
    incoming = {name: [p for p in named if p.target == name] for name in everything}
    order = tuple(reversed([name for name in populations if name != INPUT]))
    sources = (dict.fromkeys(_relaxing_sources(name, incoming, relays)) for name in order)
    return {
        "_wired": {p.name: p for p in named},
        "_of_stimulus": {INPUT, *(path.names[number] for number in path.of_stimulus)},
        "outgoing": {name: [p for p in named if p.source == name] for name in everything},
        "incoming": incoming,
        "relays": {name: shapes[name] for name in relays},
        "populations": populations,
        "graph": Graph(order, tuple(map(tuple, sources))),
    }


def _projection(path: Path, wire: Any, parameters: Sequence[str], psi_names: dict[Hashable, str]) -> CapturedProjection:
    numbers = wire.weight, wire.bias, wire.parameter
    weight, bias, parameter = ("" if number is None or number < 0 else parameters[number] for number in numbers)
    return CapturedProjection(
        wire.name,
        INPUT if wire.source is None else path.names[wire.source],
        path.names[wire.target],
        wire.kind,
        weight,
        bias,
        wire.operation,
        parameter,
        psi_names.setdefault(wire.origin, wire.shared) if wire.shared else "",
    )


def _relaxing_sources(
    name: str, incoming: Mapping[str, Sequence[CapturedProjection]], relays: Sequence[str]
) -> Iterator[str]:
    """Yield the populations from which signals reach one, directly or by relays: one hop."""
    for projection in incoming[name]:
        if projection.source in relays:
            yield from _relaxing_sources(projection.source, incoming, relays)
        elif projection.source != INPUT:
            yield projection.source
