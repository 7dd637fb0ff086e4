"""What the closed form carries down a network: sources or targets, whichever are fewer (THEORY.md section 5).

The law of a frozen relaxation (`closed_form`) is a sum over everything above a population. Carried down hop by hop it
is either *sources*, each initial activity above brought to this level, or *targets*, what each population below will
add to its own: combined before they travel. A population with few others above it needs few sources, one with few
below it few targets; so min(l, L - l) vectors pass between levels l and l + 1 of L, exactly and for any weights. Each
vector that no coefficient asks for (outside the light cone, from a silent start, after convergence) stays away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Sizes:
    """How large things are, for a tolerance that is relative to each population's own size.

    gains   (L,): of the feedback into each hidden population, from the lowest up
    starts  (L + 1,): of the initial activities from the lowest up, and of the clamp
    """

    gains: Sequence[float]
    starts: Sequence[float]


def balanced_plan(graph: Graph, law: Matrix, sizes: Sizes, tolerance: float) -> Plan:
    """Return a plan of a chain that carries no more than the tolerance asks for: its law's numerical rank.

    Between levels l and l + 1 what counts is the rank of the block C[..l, l+1..]: rows are targets below, columns
    sources above. The row spaces are nested, so each is factorised in the last one's basis. Feedback weakens or
    amplifies with every hop; so entries are first scaled to what they amount to in the population that reads them,
    and each row to maximum 1: then one tolerance means the same in every population.

    Parameters
    ----------
    graph : Graph
        A chain.
    law : numpy.ndarray
        (L + 1, L + 1), C as `closed_form.coefficients` returns it.
    sizes : Sizes
    tolerance : float
        Error of each population relative to its largest contribution, about.
    """
    top = len(law) - 1
    gains = np.asarray(sizes.gains, dtype=np.float64)
    gains = np.where(gains > 0, gains, 1.0)
    starts = np.asarray(sizes.starts, dtype=np.float64)
    reach = np.concatenate([[1.0], np.cumprod(gains)])  # gain of all maps from a level down to the lowest
    size = law * np.outer(1 / reach, reach * starts)
    largest = np.abs(size).max(1)
    size = size / np.where(largest > 0, largest, 1.0)[:, None]
    inverse = np.divide(1.0, starts, out=np.zeros_like(starts), where=starts > 0)
    plan: dict[str, Station] = {}
    own = np.array([inverse[top] / gains[top - 1]])
    plan[graph.order[0]] = Station(True, np.ones(1), own[:, None], {graph.order[1]: (0,)})
    basis = size[:top, top:]  # (targets, rows that arrive): what each target below reads from what arrives here
    for level in reversed(range(top)):
        name = graph.order[top - level]
        read = np.concatenate([[law[level, level]], largest[level] * basis[level]])
        if level == 0:
            plan[name] = Station(True, read, np.zeros((0, len(read))), {})
            break
        left, values, right = np.linalg.svd(np.column_stack([size[:level, level], basis[:level]]), full_matrices=False)
        rank = max(1, int((values > tolerance / math.sqrt(top)).sum()))  # the cuts' errors add up, as if at random
        into = np.concatenate([[inverse[level]], np.ones(basis.shape[1])]) / gains[level - 1]
        plan[name] = Station(True, read, right[:rank] * into, {graph.order[top - level + 1]: tuple(range(rank))})
        basis = left[:, :rank] * values[:rank]
    return plan
