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

from collections.abc import Mapping, Sequence
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
    slots   source population -> its slots, to which the first `len(slots)` of the sent vectors are added
    """

    own: bool
    matrix: Matrix
    slots: Mapping[str, tuple[int, ...]]

    @property
    def arriving(self) -> int:
        """Number of vectors from above, one per slot."""
        columns: int = self.matrix.shape[1]
        return columns - self.own

    @cached_property
    def is_copy(self) -> bool:
        """Return whether the population sends its only vector, its activity, unchanged."""
        return self.matrix.shape[1] == 1 and bool((self.matrix == 1).all())


Plan = Mapping[str, Generators]
"""Population -> its generators, from the output down to the lowest hidden population."""


@dataclass(frozen=True)
class FromAbove:
    """A vector from `hops` populations above, weighted by the populations that read it.

    hops      0 for the population's initial activity
    is_clamp  whether the vector is the clamped output, carried down, or initial activities
    """

    hops: int
    is_clamp: bool

    def weight(self, coefficients: Matrix, level: int, below: int) -> float:
        """Return the vector's weight in the population `below` hops under `level`."""
        if self.is_clamp:
            return float(coefficients[-1 - self.hops - below, -1])
        return float(coefficients[level - below, level + self.hops])

    def one_hop_down(self) -> FromAbove:
        """Return the same vector as the next population receives it."""
        return FromAbove(self.hops + 1, self.is_clamp)


@dataclass(frozen=True)
class ForBelow:
    """A weighted sum for the population `hops` below, which adds it to its activity."""

    hops: int

    def weight(self, coefficients: Matrix, level: int, below: int) -> float:
        """Return the vector's weight in the population `below` hops under `level`."""
        return float(below == self.hops)

    def one_hop_down(self) -> ForBelow:
        """Return the same vector as the next population receives it."""
        return ForBelow(self.hops - 1)


Vector = FromAbove | ForBelow


def exact_plan(graph: Graph, coefficients: Matrix) -> Plan:
    """Return an exact plan: each hop carries vectors from above or vectors for below, whichever are fewer.

    The plan starts with vectors from above and changes once to vectors for below, where these are fewer. Vectors with
    no weight in any population are left out.

    Parameters
    ----------
    graph : Graph
    coefficients : numpy.ndarray
        C, (L + 1, L + 1) for L hidden populations, from the lowest up; the last column belongs to the clamp. With
        skip connections, C of a chain of L populations with one tau, whose entries depend only on the number of hops.
    """
    arriving: dict[str, list[Vector]] = {name: [] for name in graph.order}
    plan: dict[str, Generators] = {}
    for level, name in zip(reversed(range(len(coefficients))), graph.order, strict=True):
        stack: list[Vector] = [FromAbove(0, is_clamp=not plan), *arriving[name]]
        depths = range(graph.below[name] + 1)
        weights = np.array([[vector.weight(coefficients, level, below) for vector in stack] for below in depths])
        sent, sending = _fewest(stack, weights)
        slots = {}
        for source in graph.sources[name]:
            # leave out vectors for populations below the end of every path from the source
            taken = [v.one_hop_down() for v in sent if isinstance(v, FromAbove) or v.hops <= graph.below[source] + 1]
            arriving[source] += [vector for vector in taken if vector not in arriving[source]]
            slots[source] = tuple(arriving[source].index(vector) for vector in taken)
        activity = weights[0] if plan else np.ones(1)  # the output is clamped
        plan[name] = _without_unused(Generators(True, np.vstack([activity, sending]), slots))
    return plan


def _fewest(stack: Sequence[Vector], weights: Matrix) -> tuple[list[Vector], Matrix]:
    """Return the vectors to send and their weights in the stack.

    weights  (1 + depth, stack), one row for the population itself and one for each number of hops below
    """
    read = [i for i in range(len(stack)) if weights[1:, i].any()]
    readers = [below for below in range(1, len(weights)) if weights[below].any()]
    if len(readers) < len(read) or any(isinstance(vector, ForBelow) for vector in stack):
        return [ForBelow(below) for below in readers], weights[readers]
    return [stack[i] for i in read], np.eye(len(stack))[read]


def _without_unused(generators: Generators) -> Generators:
    """Drop the initial activity if no coefficient uses it and there are other vectors."""
    matrix = generators.matrix
    if matrix[:, 0].any() or matrix.shape[1] == 1:
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
            slots=dict.fromkeys(graph.sources[name], (0,)),
        )
        for name in graph.order
    }
