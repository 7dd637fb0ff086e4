"""The feedback of a captured network as sparse matrices: pieces and weighted operations transposed unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from actrelax.models.closed_form import carried
from actrelax.models.engines.connections import Connection
from actrelax.models.engines.sparse_system import vector
from actrelax.models.network import CapturedPass, refuse_stale
from actrelax.models.problem import RelaxationProblem

MOST_UNITS = 20_000
"""The most units of which matrices are made, each by a backward pass: of one sample where samples don't mix."""
TOGETHER = 64
"""Signals that weighted operations carry together."""
_KNOWN: WeakKeyDictionary[RelaxationProblem, tuple[object, dict[str, sparse.csr_array]]] = WeakKeyDictionary()


def refused(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says why the feedback of a captured network can't be made into matrices."""
    if not problem.is_frozen:
        return 'a captured network with current gains runs on PyTorch only: pass engine="torch", or frozen gains.'
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
        """Number of units, relays included, that take a backward pass."""
        return sum(self._units_of(name) for name in self.passed.path.names)

    def matrix(self, connection: Connection) -> sparse.csr_array:
        """Return the signals at the source as a matrix, (source units, target units), the batch included."""
        paths = [[self._along(projection) for projection in path] for path in connection.paths]
        products = [reduce(lambda above, below: below @ above, matrices) for matrices in paths]
        total = sum(products[1:], products[0]).tocsr()
        total.eliminate_zeros()
        return total

    def _along(self, projection: Any) -> sparse.csr_array:
        """Return op^T after the transpose of its target's piece."""
        if projection.name not in self._matrices:
            with torch.no_grad():
                self._transpose(projection.target)
        return self._matrices[projection.name]

    def _transpose(self, target: str) -> None:
        """Compute the matrices of all projections into a population or relay."""
        projections, like, batch = self._into(target), self._like(target), len(self.problem.clamped)
        columns: dict[str, list[sparse.csc_array]] = {p.name: [] for p in projections}
        units = np.arange(self._units_of(target))
        mixes = len(units) == like.numel()
        for some in np.array_split(units, max(1, -(-len(units) // TOGETHER))):
            signals = like.new_zeros(len(some), *like.shape)
            rows = signals.view(len(some), *([-1] if mixes else [batch, -1]))
            rows[np.arange(len(some)), ..., some] = 1.0
            for p, values in zip(projections, self._sent(projections, signals), strict=True):
                columns[p.name].append(sparse.csc_array(vector(values).reshape(len(values), -1).T))
        self.passed.forget(target)
        for name, parts in columns.items():
            whole = sparse.hstack(parts, format="csc")
            self._matrices[name] = (whole if mixes else _by_sample(whole, batch)).tocsr()

    def _into(self, target: str) -> list[Any]:
        return [p for p in self.problem.network.incoming[target] if p.source != self.problem.network.input]

    def _units_of(self, target: str) -> int:
        """Return the number of units of a population or relay: of one sample if its piece does not mix samples."""
        like, projections = self._like(target), self._into(target)
        if not projections:
            return 0
        return like.numel() if self._mixes(projections, like) else like[0].numel()

    def _like(self, name: str) -> Tensor:
        """Return a tensor of the shape of a population or relay."""
        node, slot = self.passed.edges[self.passed.path.names.index(name)]
        shape = tuple(node.variable.shape) if hasattr(node, "variable") else tuple(node._input_metadata[slot].shape)
        return self.problem.clamped.new_zeros(shape)

    def _mixes(self, projections: Sequence[Any], like: Tensor) -> bool:
        """Return whether signals of one sample reach others, which one signal tells, or may do so."""
        batch = len(self.problem.clamped)
        if batch == 1 or like.dim() == 0 or len(like) != batch:
            return True
        signal = torch.zeros_like(like)
        signal[0] = torch.arange(1, signal[0].numel() + 1, device=like.device).view_as(signal[0]).to(like).cos()
        for values in self._sent(projections, signal[None]):
            if values.dim() < 2 or values.shape[1] != batch or bool(values[0, 1:].any()):
                return True
        return False

    def _sent(self, projections: Sequence[Any], signals: Tensor) -> list[Tensor]:
        """Return what arrives at the source of each projection, (signals, *source shape)."""
        sent = [[self.passed.sent(p, signal) for p in projections] for signal in signals]
        columns = zip(projections, zip(*sent, strict=True), strict=True)
        return [torch.stack(list(carried(self.problem, p, given))) for p, given in columns]


def _by_sample(stacked: sparse.csc_array, batch: int) -> sparse.csr_array:
    """Return a block per sample of a matrix in which the samples' rows are below each other."""
    rows = stacked.tocsr()
    size = rows.shape[0] // batch
    return sparse.block_diag([rows[i * size : (i + 1) * size] for i in range(batch)], format="csr")
