"""Several vectors of one population in one tensor, and the small matrices that combine them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from actrelax.models.closed_form.plan import Generators


@dataclass(slots=True, eq=False)
class Stack:
    """Several vectors of one population in one tensor.

    data   (count, batch, *population.shape); for a single vector (batch, *population.shape), so that it uses the
           kernels of a plain activity
    count  number of vectors
    """

    data: Tensor
    count: int

    @property
    def rows(self) -> Tensor:
        """(count, batch * size), one row per vector."""
        return self.data.reshape(self.count, -1)

    @property
    def shape(self) -> torch.Size:
        """(batch, *population.shape) of one vector."""
        return self.data.shape if self.count == 1 else self.data.shape[1:]

    @property
    def activity(self) -> Tensor:
        """The first vector."""
        return self.data if self.count == 1 else self.data[0]

    @property
    def vectors(self) -> list[Tensor]:
        """The vectors after the activity; a single vector is both."""
        return [self.data] if self.count == 1 else list(self.data[1:])

    def sent(self, taken: tuple[int, ...]) -> Stack:
        """Return some of the vectors after the activity; a single vector is both."""
        if self.count == 1:
            return self
        if len(taken) == 1:
            return Stack(self.data[1 + taken[0]], 1)
        if taken == tuple(range(len(taken))):
            return Stack(self.data[1 : 1 + len(taken)], len(taken))
        return Stack(self.data[1:][_constant(_index, taken, self.data.device)], len(taken))


def combine(generators: Generators, own: Tensor | None, arrived: Stack | None) -> Stack:
    """Return a population's activity and, after it, the vectors to send: `generators.matrix` @ (own, arrived)."""
    if own is None:
        assert arrived is not None
        return arrived if generators.is_copy else _stacked(_on(generators, arrived.data) @ arrived.rows, arrived.shape)
    if arrived is None:
        return Stack(own, 1) if generators.is_copy else _stacked(_on(generators, own) @ own.reshape(1, -1), own.shape)
    matrix = _on(generators, own)
    rows = matrix[:, 1:] @ arrived.rows
    return _stacked(rows.addr_(matrix[:, 0], own.flatten()), own.shape)  # without copying own into one stack


def _stacked(rows: Tensor, shape: torch.Size) -> Stack:
    count = len(rows)
    return Stack(rows.view(shape if count == 1 else (count, *shape)), count)


def each(stack: Stack, carry: Callable[[Tensor], Tensor]) -> Stack:
    """Apply a map to all vectors at once, concatenated along the batch dimension."""
    if stack.count == 1:
        return Stack(carry(stack.data), 1)
    data = carry(stack.data.flatten(0, 1))
    return Stack(data.view(stack.count, -1, *data.shape[1:]), stack.count)


def add(arrived: Stack | None, signal: Stack, generators: Generators, source: str, count: int) -> Stack:
    """Add the vectors that a projection sends to its source's slots; return the vectors of all `count` slots."""
    # never in place: a projection without weights returns the tensor that was sent
    slots, taken = generators.slots[source], generators.taken[source]
    if slots == tuple((vector, slot) for slot, vector in enumerate(taken)) and len(taken) == count:
        return signal if arrived is None else Stack(arrived.data + signal.data, count)
    data = signal.data[None] if signal.count == 1 else signal.data
    if len(slots) > len(taken):
        data = data[_constant(_index, tuple(taken.index(vector) for vector, _ in slots), data.device)]
    before = data.new_zeros(count, *data.shape[1:]) if arrived is None else arrived.data
    return Stack(before.index_add(0, _constant(_index, tuple(slot for _, slot in slots), data.device), data), count)


@lru_cache(maxsize=1024)
def _matrix(generators: Generators, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the generators' matrix as a tensor."""
    matrix = torch.from_numpy(generators.matrix).to(dtype)
    # subnormal numbers are slow and have no effect
    return torch.where(matrix.abs() < torch.finfo(dtype).tiny, 0.0, matrix).to(device)


@lru_cache(maxsize=1024)
def _index(slots: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(slots, device=device)


def _on(generators: Generators, like: Tensor) -> Tensor:
    """Return the generators' matrix with the dtype and device of a tensor."""
    return _constant(_matrix, generators, like.dtype, like.device)


def _constant(make: Any, *arguments: object) -> Tensor:
    """Return a cached tensor; under torch.compile, whose tensors have no values yet, a new one."""
    constant: Tensor = (make.__wrapped__ if torch.compiler.is_compiling() else make)(*arguments)
    if type(constant) is not Tensor:  # made under a mode such as FakeTensorMode, useless outside it
        make.cache_clear()
    return constant
