"""The graph of a network, which sets the coefficients of its closed form; weights don't matter (docs/theory.md)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Graph:
    """Connections among the hidden populations and the output.

    order     populations from the output down
    incoming  per population, the hidden populations that project to it, without repetition
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
