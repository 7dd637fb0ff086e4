"""The feedback of a captured network as sparse matrices: pieces and weighted operations transposed unit by unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial, reduce
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from actrelax.models.closed_form import carried
from actrelax.models.engines.connections import Connection
from actrelax.models.engines.sparse_system import Drive, vector
from actrelax.models.network import CapturedPass
from actrelax.models.network.captured import CurrentDrive, refuse_stale, signal_of
from actrelax.models.problem import RelaxationProblem

MOST_UNITS = 20_000
"""The most units of which matrices are made, each by a backward pass: of one sample where samples don't mix."""
TOGETHER = 64
"""Signals that weighted operations carry together."""
_KNOWN: WeakKeyDictionary[RelaxationProblem, tuple[object, dict[Key, sparse.csr_array]]] = WeakKeyDictionary()
Key = tuple[str, str]
"""The part of the feedback in a matrix, and the name of its projection or population.

sent    from a projection's target to its source
read    from below the target's function to the source; drive is the same with the projection's own weight
result  from a population to its function
"""
Send = Callable[[Tensor], Sequence[Tensor]]
"""Function that carries signals from one place, (signals, *shape), to others, (signals, *shape there) each."""


def refused(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says why the feedback of a captured network can't be made into matrices."""
    network, passed = problem.network, problem.feedforward
    assert isinstance(passed, CapturedPass)
    for relay in network.relays:  # type: ignore[union-attr]
        wires: Any = network.incoming[relay]
        gains = [problem.activity_gain(p) for p in wires if p.source != network.input]
        if "current" in gains and not passed.current(passed.path.names.index(relay)).is_linear:
            return (
                f"relay {relay!r} applies a pointwise function but has no drive, so its current gain runs on PyTorch "
                'only: pass engine="torch", or frozen gains for the projections into it.'
            )
    units = CapturedFeedback(problem).units
    if units > MOST_UNITS:
        return (
            f"matrices of a captured network take at most {MOST_UNITS:,} units, got {units:,}: take a smaller network, "
            'a smaller batch if the module mixes samples, or engine="torch".'
        )
    return None


class CapturedFeedback:
    """The matrices of a captured network's projections, each computed when it is first asked for.

    They are kept as long as the problem, unless feedback weights change.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        passed = problem.feedforward
        assert isinstance(passed, CapturedPass)
        self.problem, self.passed = problem, passed
        for operation in passed.operations:
            refuse_stale(operation)
        carriers: Any = problem.feedback_projections.values()
        read = [tensor for p in carriers for tensor in passed.feedback_of(p)[1]]
        key = [(id(tensor), tensor._version) for tensor in read if tensor is not None]
        kept, self._matrices = _KNOWN.get(problem, (None, {}))
        if kept != key:
            self._matrices = {}
            _KNOWN[problem] = key, self._matrices

    @cached_property
    @torch.no_grad()
    def units(self) -> int:
        """Number of units that need a backward pass each, those of relays and of functions before pooling included."""
        return sum(self._units_of(name) for name in self.passed.path.names)

    def matrix(self, connection: Connection) -> sparse.csr_array:
        """Return a connection's feedback as a matrix, (source units, target units), the batch included.

        With the current gain the target's units are those of its function.
        """
        first = "read" if connection.gain == "current" else "sent"
        paths = [[self._along(p, first if p is path[0] else "sent") for p in path] for path in connection.paths]
        products = [reduce(lambda above, below: below @ above, matrices) for matrices in paths]
        total = sum(products[1:], products[0]).tocsr()
        total.eliminate_zeros()
        return total

    def drive_matrix(self, projection: Any) -> sparse.csr_array:
        """Return a projection's part of the drive of its target's function, (function's units, source units)."""
        return self._along(projection, "drive").T.tocsr()

    def drive(self, target: str) -> Drive:
        """Return the drive of a population's pointwise function; its bias includes the drive of the stimulus."""
        passed, matrices = self.passed, dict[str, sparse.csr_array]()
        for p in self._into(target):
            matrix = self.drive_matrix(p)
            matrices[p.source] = matrices[p.source] + matrix if p.source in matrices else matrix
        silent = self._current(target).at(lambda name: torch.zeros_like(passed.activities[name]))
        assert silent is not None
        return Drive(matrices, vector(silent))

    def result(self, target: str) -> sparse.csr_array | None:
        """Return the matrix from a population to its function, (function's units, units); None if they are the same."""
        current = self._current(target)
        if current.is_whole:
            return None

        def send(signals: Tensor) -> list[Tensor]:
            return [torch.stack([current.above(x) for x in signals])]

        if ("result", target) not in self._matrices:
            with torch.no_grad():
                (self._matrices["result", target],) = self._matrices_of(self._like(target), send)
        return self._matrices["result", target]

    def _along(self, projection: Any, what: str) -> sparse.csr_array:
        """Return op^T after the transpose of its target's piece, or of the part below the piece's function."""
        key = what, projection.name
        if key not in self._matrices:
            with torch.no_grad():
                self._transpose(projection.target) if what == "sent" else self._split(projection.target)
        return self._matrices[key]

    def _transpose(self, target: str) -> None:
        """Compute the matrices of all projections into a population or relay."""
        projections = self._into(target)
        found = self._matrices_of(self._like(target), partial(self._sent, projections))
        self.passed.forget(target)
        self._matrices |= {("sent", p.name): matrix for p, matrix in zip(projections, found, strict=True)}

    def _split(self, target: str) -> None:
        """Compute the matrices of all projections below the pointwise function of a population."""
        projections, current = self._into(target), self._current(target)
        like = self.problem.clamped.new_zeros(current.shape)
        for what in ("read", "drive"):
            found = self._matrices_of(like, partial(self._below, projections, current, own=what == "drive"))
            self._matrices |= {(what, p.name): matrix for p, matrix in zip(projections, found, strict=True)}

    def _matrices_of(self, like: Tensor, send: Send) -> list[sparse.csr_array]:
        """Return `send` as matrices, one for each of its results, for signals of the shape of `like`."""
        batch, mixes = len(self.problem.clamped), self._mixes(like, send)
        units = np.arange(like.numel() if mixes else like[0].numel())
        columns: list[list[sparse.csc_array]] = []
        for some in np.array_split(units, max(1, -(-len(units) // TOGETHER))):
            signals = like.new_zeros(len(some), *like.shape)
            rows = signals.view(len(some), *([-1] if mixes else [batch, -1]))
            rows[np.arange(len(some)), ..., some] = 1.0
            columns.append([sparse.csc_array(vector(x).reshape(len(x), -1).T) for x in send(signals)])
        whole = [sparse.hstack(parts, format="csc") for parts in zip(*columns, strict=True)]
        return [(matrix if mixes else _by_sample(matrix, batch)).tocsr() for matrix in whole]

    def _into(self, target: str) -> list[Any]:
        return [p for p in self.problem.network.incoming[target] if p.source != self.problem.network.input]

    def _current(self, target: str) -> CurrentDrive:
        return self.passed.current(self.passed.path.names.index(target))

    def _units_of(self, target: str) -> int:
        """Return the number of units of a population or relay: of one sample if its piece does not mix samples."""
        like, projections = self._like(target), self._into(target)
        if not projections:
            return 0
        units = like.numel() if self._mixes(like, partial(self._sent, projections)) else like[0].numel()
        if all(self.problem.activity_gain(p) != "current" for p in projections) or self._current(target).is_whole:
            return units
        return units + math.prod(self._current(target).shape[1:])

    def _like(self, name: str) -> Tensor:
        """Return a tensor of the shape of a population or relay."""
        node, slot = self.passed.edges[self.passed.path.names.index(name)]
        shape = tuple(node.variable.shape) if hasattr(node, "variable") else tuple(node._input_metadata[slot].shape)
        return self.problem.clamped.new_zeros(shape)

    def _mixes(self, like: Tensor, send: Send) -> bool:
        """Return whether signals of one sample reach others, tested with one signal."""
        batch = len(self.problem.clamped)
        if batch == 1 or like.dim() == 0 or len(like) != batch:
            return True
        signal = torch.zeros_like(like)
        signal[0] = torch.arange(1, signal[0].numel() + 1, device=like.device).view_as(signal[0]).to(like).cos()
        for values in send(signal[None]):
            if values.dim() < 2 or values.shape[1] != batch or bool(values[0, 1:].any()):
                return True
        return False

    def _sent(self, projections: Sequence[Any], signals: Tensor) -> list[Tensor]:
        """Return the signals at the source of each projection, (signals, *source shape), with frozen gains."""
        read = self.passed.activities.__getitem__
        sent = [[self.passed.sent(p, signal, read) for p in projections] for signal in signals]
        columns = zip(projections, zip(*sent, strict=True), strict=True)
        return [torch.stack(list(carried(self.problem, p, given))) for p, given in columns]

    def _below(
        self, projections: Sequence[Any], current: CurrentDrive, signals: Tensor, own: bool = False
    ) -> list[Tensor]:
        """Carry signals from a drive to the source of each projection, by its psi or its own weight."""
        sent, found = [current.below(signal) for signal in signals], []
        for p in projections:
            given, route = [each[p.name] for each in sent], self.problem.feedforward.routes[p.name]
            if own and route is not None:
                found.append(torch.stack([signal_of(route, y) for y in given]))  # type: ignore[arg-type]
            else:
                found.append(torch.stack(list(carried(self.problem, p, given))))
        return found


def _by_sample(stacked: sparse.csc_array, batch: int) -> sparse.csr_array:
    """Return a block per sample of a matrix in which the samples' rows are below each other."""
    rows = stacked.tocsr()
    size = rows.shape[0] // batch
    return sparse.block_diag([rows[i * size : (i + 1) * size] for i in range(batch)], format="csr")
