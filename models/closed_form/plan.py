"""Plans of the closed form: the vectors to carry down each hop of a network, and their coefficients (docs/theory.md).

The closed form is a product with the upper triangular matrix C: population l adds up the initial activities of the
populations m above it, each carried down by feedback and weighted by C[l, m]. The blocks of C above its diagonal have
low rank: with l populations below a hop and L - l above it, min(l, L - l) vectors are enough. A plan is C in
*sequentially semiseparable* (SSS) form [1]_: a small matrix per population, which combines its initial activity and
the vectors from above into its activity and the vectors that it sends.

.. [1] S. Chandrasekaran, P. Dewilde, M. Gu, T. Pals, X. Sun, A.-J. van der Veen, D. White, "Some fast algorithms for
   sequentially semiseparable representations", SIAM J. Matrix Anal. Appl. 27(2), 341-364, 2005.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Matrix
from actrelax.models.network import Graph


@dataclass(frozen=True, eq=False)
class Generators:
    """The small matrix of one population, which combines its initial activity and the vectors from above.

    own     whether the population's initial activity is used
    matrix  (1 + sent, own + arriving), [[D, U], [V, W]] in the notation of SSS forms: columns are the initial
            activity (D, V), if used, and the vectors from above (U, W); the first row gives the population's activity
            (D, U), each further one a vector to send (V, W)
    slots   source population -> (vector, slot): the sent vectors that it takes, and the slots to which they are added
    """

    own: bool
    matrix: Matrix
    slots: Mapping[str, Slots]

    @property
    def arriving(self) -> int:
        """Number of vectors from above, one per slot."""
        columns: int = self.matrix.shape[1]
        return columns - self.own

    @cached_property
    def is_copy(self) -> bool:
        """Return whether the population sends its only vector, its activity, unchanged."""
        return self.matrix.shape[1] == 1 and bool((self.matrix == 1).all())

    @cached_property
    def taken(self) -> Mapping[str, tuple[int, ...]]:
        """Source population -> numbers of the sent vectors that it takes, each once."""
        return {source: tuple(dict.fromkeys(vector for vector, _ in slots)) for source, slots in self.slots.items()}


Slots = tuple[tuple[int, int], ...]
"""Pairs of a sent vector and a slot to which it is added."""
Plan = Mapping[str, Generators]
"""Population -> its generators, from the output down to the lowest hidden population."""


@dataclass(frozen=True)
class FromAbove:
    """A vector from `hops` populations above, weighted by the populations that read it.

    hops      0 for the population's initial activity
    is_clamp  whether the vector is the clamped output carried down, along all paths of at most `hops` hops, or initial
              activities along paths of `hops` hops, with the clamp along shorter ones
    """

    hops: int
    is_clamp: bool

    def weight(self, coefficients: Matrix, level: int, below: int) -> float:
        """Return the vector's weight in the population `below` hops under `level`."""
        if self.is_clamp:
            return float(coefficients[-1 - self.hops - below, -1])
        return float(coefficients[level - below, level + self.hops])

    def sent_to(self, source: str, hops: Hops) -> list[Vector]:
        """Return the vectors of a source to which this one is added.

        The clamp's weight P(K >= k) after k hops is P(K = k) + ... + P(K = k* - 1) + P(K >= k*), so that the clamp
        along shorter paths joins the initial activities: they need one vector per number of hops, the clamp a last one.
        """
        arrived = self.hops + hops.length(source)
        longest = hops.above[source] if self.is_clamp else arrived
        return [*(FromAbove(k, False) for k in range(arrived, longest)), FromAbove(longest, self.is_clamp)]


@dataclass(frozen=True)
class ForBelow:
    """A weighted sum for the population `hops` below, which adds it to its activity."""

    hops: int

    def weight(self, coefficients: Matrix, level: int, below: int) -> float:
        """Return the vector's weight in the population `below` hops under `level`."""
        return float(below == self.hops)

    def sent_to(self, source: str, hops: Hops) -> list[Vector]:
        """Return the vector as a source receives it; none if every path from the source ends before."""
        left = self.hops - hops.length(source)
        return [ForBelow(left)] if 0 <= left <= hops.below[source] else []


Vector = FromAbove | ForBelow


class Hops:
    """Numbers of hops along the longest paths of a graph, in which the way into a relay takes none.

    above  population -> hops up to the output
    below  population -> hops down to the lowest hidden population
    """

    def __init__(self, graph: Graph, relays: Collection[str]) -> None:
        self.relays = relays
        self.above, self.below = dict.fromkeys(graph.order, 0), dict.fromkeys(graph.order, 0)
        for name in graph.order:
            for source in graph.sources[name]:
                self.above[source] = max(self.above[source], self.length(source) + self.above[name])
        for name in reversed(graph.order):
            for source in graph.sources[name]:
                self.below[name] = max(self.below[name], self.length(source) + self.below[source])

    def length(self, source: str) -> int:
        """Return the length of the way into a source."""
        return int(source not in self.relays)


def exact_plan(graph: Graph, coefficients: Matrix, *, from_zero: bool = False, relays: Collection[str] = ()) -> Plan:
    """Return an exact plan: each hop carries vectors from above or vectors for below, whichever are fewer.

    The plan starts with vectors from above and changes once to vectors for below, where these are fewer. Vectors with
    no weight in any population are left out.

    Parameters
    ----------
    graph : Graph
    coefficients : numpy.ndarray
        C, (L + 1, L + 1) for L hidden populations, from the lowest up; the last column belongs to the clamp. With
        skip connections, C of a chain of L populations with one tau, whose entries depend only on the number of hops.
    from_zero : bool, default False
        Whether initial activities are 0.
    relays : collection of str, default ()
        Populations of the graph that equal their input at all times; C leaves them out.
    """
    hops = Hops(graph, relays)
    arriving: dict[str, list[Vector]] = {name: [] for name in graph.order}
    plan: dict[str, Generators] = {}
    level = len(coefficients)
    for name in graph.order:
        level -= hops.length(name)
        stack = [FromAbove(0, is_clamp=not plan)] if name not in relays else []
        stack += arriving[name]  # type: ignore[arg-type]
        depths = range(hops.below[name] + 1)
        weights = np.array([[vector.weight(coefficients, level, below) for vector in stack] for below in depths])
        if from_zero and plan and name not in relays:
            weights[:, 0] = 0
        to_relays = any(source in relays for source in graph.sources[name])
        sent, sending = _fewest(stack, weights, first=0 if to_relays else 1)
        slots = {}
        for source in graph.sources[name]:
            found = [(number, v) for number, vector in enumerate(sent) for v in vector.sent_to(source, hops)]
            arriving[source] += [v for v in dict.fromkeys(v for _, v in found) if v not in arriving[source]]
            slots[source] = tuple((number, arriving[source].index(vector)) for number, vector in found)
        activity = weights[0] if plan else np.ones(1)  # the output is clamped
        plan[name] = _without_unused(Generators(name not in relays, np.vstack([activity, sending]), slots))
    return plan


def _fewest(stack: Sequence[Vector], weights: Matrix, first: int) -> tuple[list[Vector], Matrix]:
    """Return the vectors to send and their weights in the stack.

    weights  (1 + depth, stack), one row for the population itself and one for each number of hops below
    first    hops to the first population below that reads the vectors: 0 for a relay
    """
    read = [i for i in range(len(stack)) if weights[first:, i].any()]
    readers = [below for below in range(first, len(weights)) if weights[below].any()]
    if len(readers) < len(read) or any(isinstance(vector, ForBelow) for vector in stack):
        return [ForBelow(below) for below in readers], weights[readers]
    return [stack[i] for i in read], np.eye(len(stack))[read]


def _without_unused(generators: Generators) -> Generators:
    """Drop the initial activity if no coefficient uses it and there are other vectors."""
    matrix = generators.matrix
    if not generators.own or matrix[:, 0].any() or matrix.shape[1] == 1:
        return generators
    return Generators(False, matrix[:, 1:], generators.slots)


@lru_cache(maxsize=64)
def settled_plan(graph: Graph) -> Plan:
    """Return the plan of the equilibrium, where each population equals its input and passes it down unchanged.

    Refuses a graph with cycles, whose equilibrium takes more than one sweep.
    """
    if graph.is_recurrent:
        raise ActrelaxError(f"the closed form needs a network without cycles, got {graph.cycles_in_words}.")
    return {
        name: Generators(
            own=name == graph.order[0],
            matrix=np.ones((2 if graph.sources[name] else 1, 1)),
            slots=dict.fromkeys(graph.sources[name], ((0, 0),)),
        )
        for name in graph.order
    }
