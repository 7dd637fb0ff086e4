"""The graph of a network, which determines the coefficients of its closed form (docs/theory.md, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.projection import Projection


@dataclass(frozen=True)
class Graph:
    """Connections among the hidden populations and the output.

    order     populations from the output down, those of a cycle one after another
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
    def is_recurrent(self) -> bool:
        """Return whether the graph has cycles; if not, every population comes after all populations that it feeds."""
        place = {name: i for i, name in enumerate(self.order)}
        return any(place[source] <= place[name] for name in self.order for source in self.sources[name])

    @cached_property
    def components(self) -> tuple[tuple[str, ...], ...]:
        """The strongly connected components, from the lowest up: cycles, and populations in no cycle."""
        return tuple(map(tuple, _components({name: self.sources[name] for name in reversed(self.order)})))

    @cached_property
    def cycles(self) -> tuple[tuple[str, ...], ...]:
        """The components that contain a cycle, from the lowest up."""
        return tuple(c for c in self.components if _is_cycle(c, self.sources)) if self.is_recurrent else ()

    @property
    def cycles_in_words(self) -> str:
        """The cycles for messages: "a cycle of a, b", "cycles of a, b and of c"."""
        listed = " and ".join(f"of {', '.join(names)}" for names in self.cycles)
        return f"{'a cycle' if len(self.cycles) == 1 else 'cycles'} {listed}"

    @cached_property
    def below(self) -> Mapping[str, int]:
        """Population -> hops down to the lowest hidden population, along the longest path; refuses cycles."""
        self._refuse_cycles()
        found: dict[str, int] = {}
        for name in reversed(self.order):
            found[name] = max((1 + found[source] for source in self.sources[name]), default=0)
        return found

    @cached_property
    def above(self) -> Mapping[str, int]:
        """Population -> hops up to the output, along the longest path; refuses cycles."""
        self._refuse_cycles()
        found = dict.fromkeys(self.order, 0)
        for name in self.order:
            for source in self.sources[name]:
                found[source] = max(found[source], 1 + found[name])
        return found

    @cached_property
    def is_chain(self) -> bool:
        """Return whether every hidden population projects to the next one only."""
        return self.incoming == (*((below,) for below in self.order[1:]), ())

    def _refuse_cycles(self) -> None:
        if self.is_recurrent:
            raise ActrelaxError(f"longest paths need a network without cycles, got {self.cycles_in_words}.")


def topological_order(input_name: str, populations: Sequence[str], projections: Sequence[Projection]) -> list[str]:
    """Return the populations from the input to the output; refuse invalid names, drives and outputs.

    Populations in a cycle are in the order in which they are entered from below.
    """
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
    _check_cycles(parents)
    sources = {p.source for p in projections}
    outputs = [name for name in names if name not in sources]
    if len(outputs) != 1:
        raise ActrelaxError(f"exactly one population, the output, must feed no other, got {outputs}.")
    return [name for name in _ordered(parents) if name != outputs[0]] + outputs


def _is_cycle(component: Sequence[str], parents: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a strongly connected component is more than a population that doesn't project to itself."""
    return len(component) > 1 or component[0] in parents[component[0]]


def _check_cycles(parents: Mapping[str, Sequence[str]]) -> None:
    """Refuse a cycle that the input doesn't reach, and one that feeds no population outside it."""
    for cycle in _components(parents):
        if not _is_cycle(cycle, parents):
            continue
        listed, inside = ", ".join(map(repr, cycle)), set(cycle)
        if all(source in inside for name in cycle for source in parents[name]):
            raise ActrelaxError(f"nothing outside their cycle drives {listed}: add a projection from 'input' to one.")
        if not any(source in inside for name, sources in parents.items() if name not in inside for source in sources):
            raise ActrelaxError(
                f"the output must be outside all cycles, but the cycle of {listed} feeds no other population: add a "
                f"copy to a population of its own, such as Projection({cycle[-1]!r}, 'output')."
            )


def _components(parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the strongly connected components, each in the order of `parents`, as are their first populations."""
    index = {name: i for i, name in enumerate(parents)}
    edges = {(index[source], index[name]) for name, sources in parents.items() for source in sources}
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    adjacency = sparse.coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(index), len(index)))
    _, labels = csgraph.connected_components(adjacency.tocsr(), connection="strong")
    found: dict[int, list[str]] = {}
    for name, label in zip(parents, labels, strict=True):
        found.setdefault(int(label), []).append(name)
    return list(found.values())


def _ordered(parents: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the populations in topological order, with those of a component one after another.

    A component begins with its first population that is driven from outside; the others follow as if nothing in the
    component drove that one (a weak topological order [1]_).

    .. [1] F. Bourdoncle, "Efficient chaotic iteration strategies with widenings", Formal Methods in Programming and
       Their Applications, LNCS 735, 128-141, 1993.
    """
    components = {component[0]: component for component in _components(parents)}
    leader = {name: first for first, component in components.items() for name in component}
    condensed = {
        first: [leader[source] for name in component for source in parents[name] if leader[source] != first]
        for first, component in components.items()
    }
    for first in TopologicalSorter(condensed).static_order():
        inside = {name: [s for s in parents[name] if leader[s] == first] for name in components[first]}
        entered = [name for name in inside if len(inside[name]) < len(parents[name])]
        if len(inside) == 1:
            yield first
        else:
            yield from _ordered(inside | {entered[0]: []})
