"""What the closed form carries down a network: sources or targets, whichever are fewer (THEORY.md section 5).

The law of a frozen relaxation (`closed_form`) is a sum over everything above a population. Carried down hop by hop it
is either *sources*, each initial activity above brought to this level, or *targets*, what each population below will
add to its own: combined before they travel. A population with few others above it needs few sources, one with few
below it few targets; so min(l, L - l) vectors pass between levels l and l + 1 of L, exactly and for any weights. Each
vector that no coefficient asks for (outside the light cone, from a silent start, after convergence) stays away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from actrelax.models.integrators import Matrix
from actrelax.models.network import Graph


@dataclass(frozen=True, eq=False)
class Station:
    """What one population makes of its stack: its own initial activity, where it counts, and what arrived.

    own     whether the stack's first row is the population's own initial activity
    read    (rows,): its activity is read @ stack
    sent    (k, rows): what it sends down is sent @ stack
    places  source population -> those of its arriving rows to which the first so many sent rows are added
    """

    own: bool
    read: Matrix
    sent: Matrix
    places: Mapping[str, tuple[int, ...]]

    @cached_property
    def matrix(self) -> Matrix:
        """(1 + k, rows): everything at once, read first."""
        return np.vstack([self.read, self.sent])

    @property
    def arriving(self) -> int:
        """Rows that come from above."""
        return len(self.read) - self.own

    @cached_property
    def is_copy(self) -> bool:
        """Whether one row arrives, and is the activity and all that is sent."""
        return self.matrix.shape[1] == 1 and bool((self.matrix == 1).all())


Plan = Mapping[str, Station]
"""Population -> its station, from the output down to the lowest hidden population."""


class Coefficients(Protocol):
    """What a population adds up: coefficients of A^k x(0) and of A^k times the clamp, k hops up."""

    def initial(self, target: int, hops: int) -> float:
        """Return that of initial activities; `target` counts chains' levels from the lowest."""

    def clamp(self, target: int, hops: int) -> float:
        """Return that of the clamped output."""


@dataclass(frozen=True)
class ByLevel:
    """Of a chain: C[l, m], whatever the time constants."""

    C: Matrix

    def initial(self, target: int, hops: int) -> float:
        return float(self.C[target, target + hops])

    def clamp(self, target: int, hops: int) -> float:
        return float(self.C[target, -1])


@dataclass(frozen=True)
class ByHops:
    """Of any graph with one time constant: by the number of hops, wherever the population stands."""

    C: Matrix

    def initial(self, target: int, hops: int) -> float:
        return float(self.C[0, hops])

    def clamp(self, target: int, hops: int) -> float:
        return float(self.C[len(self.C) - 1 - hops, -1])


class _Row(NamedTuple):
    """What a row of a stack holds: a source of some kind so many hops up, or the target so many hops below."""

    kind: str
    hops: int

    def further(self) -> _Row:
        """Return the same one population down."""
        return _Row(self.kind, self.hops + (-1 if self.kind == "target" else 1))


def exact_plan(graph: Graph, coefficients: Coefficients, *, silent: bool = False) -> Plan:
    """Return the plan without approximation: min(sources, targets) vectors over each hop.

    Sources are carried from the top and turned into targets where these are fewer, never back.

    Parameters
    ----------
    graph : Graph
    coefficients : Coefficients
    silent : bool, default False
        Whether all hidden populations start at zero: then only the clamp is a source.
    """
    arriving: dict[str, list[_Row]] = {name: [] for name in graph.order}
    plan: dict[str, Station] = {}
    for level, name in zip(reversed(range(len(graph.order))), graph.order, strict=True):
        is_output = not plan
        own = _Row("clamp" if is_output else "silent" if silent else "initial", 0)
        stack = [own, *arriving[name]]
        # what the population so many hops below reads from each row; 0 hops below it is this one
        reach = range(graph.below[name] + 1)
        read = np.array([[_weight(coefficients, level - j, j, row) for row in stack] for j in reach])
        targets = [j for j in range(1, len(read)) if read[j].any()]
        wanted = [i for i in range(len(stack)) if read[1:, i].any()]
        if any(row.kind == "target" for row in stack) or len(targets) < len(wanted):
            sent, rows = read[targets], [_Row("target", j) for j in targets]
        else:
            sent, rows = np.eye(len(stack))[wanted], [stack[i] for i in wanted]
        places = {}
        for source in graph.sources[name]:
            # further down than a source's own lowest target nothing is asked for
            taken = [row.further() for row in rows if row.kind != "target" or row.hops <= graph.below[source] + 1]
            arriving[source] += [row for row in taken if row not in arriving[source]]
            places[source] = tuple(arriving[source].index(row) for row in taken)
        first = np.ones(1) if is_output else read[0]
        plan[name] = _trimmed(Station(True, first, sent, places))
    return plan


def _weight(coefficients: Coefficients, target: int, below: int, row: _Row) -> float:
    if row.kind == "silent":
        return 0.0
    if row.kind == "target":
        return float(row.hops == below)
    if row.kind == "clamp":
        return coefficients.clamp(target, row.hops + below)
    return coefficients.initial(target, row.hops + below)


def _trimmed(station: Station) -> Station:
    """Leave out a population's own initial activity where nobody asks for it, if anything else is there."""
    if station.matrix[:, 0].any() or station.matrix.shape[1] == 1:
        return station
    return Station(False, station.read[1:], station.sent[:, 1:], station.places)


@lru_cache(maxsize=64)
def settled_plan(graph: Graph) -> Plan:
    """Return the plan of the equilibrium: each population is what arrives, and sends that on."""
    one, all_of_it = np.ones(1), np.ones((1, 1))
    sources = graph.sources
    return {
        name: Station(i == 0, one, all_of_it if sources[name] else all_of_it[:0], dict.fromkeys(sources[name], (0,)))
        for i, name in enumerate(graph.order)
    }
