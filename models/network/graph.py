"""The graph of a network, which determines the coefficients of its closed form (docs/theory.md, section 4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.projection import Projection


@dataclass(frozen=True)
class Graph:
    """Connections among the hidden populations and the output.

    order     populations from the output down
    incoming  per population, the hidden populations that project to it, each once
    """

    order: tuple[str, ...]
    incoming: tuple[tuple[str, ...], ...]

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return Graph, (self.order, self.incoming)  # without cached properties

    @cached_property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Population -> hidden populations that project to it."""
        return dict(zip(self.order, self.incoming, strict=True))

    @cached_property
    def below(self) -> Mapping[str, int]:
        """Population -> hops down to the lowest hidden population, along the longest path."""
        found: dict[str, int] = {}
        for name in reversed(self.order):
            found[name] = max((1 + found[source] for source in self.sources[name]), default=0)
        return found

    @cached_property
    def above(self) -> Mapping[str, int]:
        """Population -> hops up to the output, along the longest path."""
        found = dict.fromkeys(self.order, 0)
        for name in self.order:
            for source in self.sources[name]:
                found[source] = max(found[source], 1 + found[name])
        return found

    @cached_property
    def is_chain(self) -> bool:
        """Return whether every hidden population projects to the next one only."""
        pairs = itertools.pairwise(self.order)
        return all(sources == (below,) for sources, (_, below) in zip(self.incoming[:-1], pairs, strict=True))


def topological_order(input_name: str, populations: Sequence[str], projections: Sequence[Projection]) -> list[str]:
    """Return the populations from the input to the output; refuse cycles, unknown names and undriven populations."""
    if input_name in populations:
        raise ActrelaxError("the population 'input' is made from input_shape: leave it out of populations.")
    names = [input_name, *populations]
    parents: dict[str, list[str]] = {name: [] for name in names}
    for p in projections:
        for end in (p.source, p.target):
            if end not in parents:
                raise ActrelaxError(f"projection {p.name!r} names an unknown population {end!r}; known: {names}.")
        if p.target == input_name:
            raise ActrelaxError(f"projection {p.name!r} drives the input, which only holds the stimulus.")
        parents[p.target].append(p.source)
    undriven = [name for name in populations if not parents[name]]
    if undriven:
        raise ActrelaxError(f"nothing drives population {undriven[0]!r}: add a projection to it.")
    sources = {p.source for p in projections}
    outputs = [name for name in names if name not in sources]
    try:
        order = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        raise ActrelaxError(f"populations form a cycle: {' -> '.join(reversed(error.args[1]))}.") from error
    if len(outputs) != 1:
        raise ActrelaxError(f"exactly one population, the output, must feed no other, got {outputs}.")
    return [name for name in order if name != outputs[0]] + outputs
