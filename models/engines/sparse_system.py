"""The ODE of a problem in NumPy: one vector field y' = A y + B u(x), x = C y, with sparse matrices (docs/theory.md).

SciPy, Brian2 and all uses of the Jacobian share it. y holds the variables of all units that change in time, x their
activities, u the input that they receive.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from actrelax.models.network import ProjectionRoute
from actrelax.models.problem import Leaky, State, StateSpace, Value

Vector = NDArray[np.float64]
Activities = dict[str, Vector]
"""Population -> (batch * units,), one sample after the other."""


@dataclass(frozen=True)
class Drive:
    """The drive of a population as a function of the current activities.

    matrices  source -> (batch * units, batch * source units)
    bias      (batch * units,)
    """

    matrices: Mapping[str, sparse.csr_array]
    bias: Vector


class SparseSystem(ABC):
    """The ODE of a problem as one vector field, in float64 on the CPU, without noise and delays.

    Each matrix has one block per sample, each with all weights: use small batches.
    """

    def __init__(self, problem: Any) -> None:
        self.problem, self.network = problem, problem.network
        self.batch = len(problem.like)
        self.shapes = {name: (self.batch, *p.shape) for name, p in self.network.populations.items()}
        self.sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}

    @property
    @abstractmethod
    def held(self) -> Activities:
        """The activities that are constant in time."""

    @abstractmethod
    def _unit_input(self, population: str, x: Activities) -> Vector:
        """Return the input of a population's units, (batch * units,)."""

    @abstractmethod
    def _input_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
        """Return the derivatives of a population's input with respect to each population's activity."""

    def drive_of(self, population: str, routes: Mapping[str, ProjectionRoute]) -> Drive:
        """Return a population's drive along the routes of a batch."""
        matrices: dict[str, sparse.csr_array] = {}
        bias = np.zeros(1)
        with torch.no_grad():
            for p in self.network.incoming[population]:
                route = routes[p.name]
                matrix = p.as_sparse(route, p.weight)
                matrices[p.source] = matrices[p.source] + matrix if p.source in matrices else matrix
                silent = self.problem.like.new_zeros(self.batch, *self.network.populations[p.source].shape)
                bias = bias + vector(p.drive(silent, route))
        return Drive(matrices, bias)

    def per_neuron(self, population: str, value: Value) -> Vector | float:
        """Return a population's quantity as one number, or as one per neuron and sample, (batch * units,)."""
        if not isinstance(value, Tensor) or value.dim() == 0:
            return float(value)
        return np.tile(vector(value), self.sizes[population] // value.numel())

    def sent_at_first(self, projection: str) -> Vector:
        """Return the signal that enters a projection at t = 0, before its delay."""
        return vector(self.problem.sent(self.problem.carriers[projection], self.problem.initial_state()))

    @cached_property
    def initial_state(self) -> Vector:
        """All variables at t = 0."""
        return self.join({v: vector(x) for v, x in self.problem.initial_state().items()})

    def join(self, state: Mapping[str, Vector]) -> Vector:
        """Return one vector of all variables, from the top population down."""
        return _concatenated(state[v] for unit in self.problem.units.values() for v in unit.variables)

    def split(self, y: Vector) -> dict[str, Vector]:
        """Return variable -> (batch * units,): the inverse of `join`."""
        return _parts(y, {v: self.sizes[name] for name, unit in self.problem.units.items() for v in unit.variables})

    def as_tensors(self, state: Mapping[str, Vector]) -> State:
        """Return the variables in the problem's shapes, on its device; on the CPU memory is shared."""
        shapes = {v: self.shapes[name] for name, unit in self.problem.units.items() for v in unit.variables}
        device = self.problem.like.device
        return {v: torch.from_numpy(np.ascontiguousarray(x)).reshape(shapes[v]).to(device) for v, x in state.items()}

    def activities(self, y: Vector) -> Activities:
        """Return the current activities of all populations."""
        return self.held | _parts(self._system[2] @ y, {name: self.sizes[name] for name in self.problem.units})

    def vector_field(self, y: Vector) -> Vector:
        """Return dy/dt."""
        A, B, C = self._system
        x = self.activities(y)
        u = _concatenated(self._unit_input(name, x) for name in self.problem.units)
        clip = self.problem.clip
        if clip is None:
            return np.asarray(A @ y + B @ u)
        return np.asarray(B @ np.clip(u - C @ y, -clip, clip))  # clips need leaky units: A = -B C

    def jacobian(self, y: Vector) -> sparse.csr_array:
        """Return the Jacobian of `vector_field`, in the order of `join`.

        It includes derivatives of current gains, zero at a kink; rows of clipped units are zero.
        """
        if not y.size:
            return sparse.csr_array((0, 0))
        A, B, C = self._system
        x = self.activities(y)
        R = sparse.block_array([self._input_row(name, x) for name in self.problem.units], format="csr")
        result = A + B @ R @ C
        if self.problem.clip is not None:
            u = _concatenated(self._unit_input(name, x) for name in self.problem.units)
            result = sparse.diags_array((np.abs(u - C @ y) <= self.problem.clip).astype(float)) @ result
        return result.tocsr()

    @property
    def state_space(self) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """A, B and C of all units: y' = A y + B u, x = C y."""
        return self._system

    @cached_property
    def _system(self) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """A, B and C of all units, with one block per population."""
        spaces = [self._state_space(name) for name in self.problem.units]
        if not spaces:
            return (sparse.csr_array((0, 0)),) * 3
        A, B, C = (sparse.block_diag(blocks, format="csr") for blocks in zip(*spaces, strict=True))
        return A, B, C

    def _state_space(self, population: str) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """Return A, b and c of one population: -1/tau, 1/tau and 1 for leaky units."""
        unit, identity = self.problem.units[population], sparse.diags_array(np.ones(self.sizes[population]))
        if isinstance(unit, StateSpace):
            d = unit.dynamics
            A, b, c = (np.atleast_2d(values) for values in (d.A, d.b, d.c))
            return sparse.kron(A, identity), sparse.kron(b.T, identity), sparse.kron(c, identity)
        assert isinstance(unit, Leaky)
        rate = sparse.diags_array(
            np.broadcast_to(1 / np.asarray(self.per_neuron(population, unit.tau)), self.sizes[population])
        )
        return -rate, rate, identity


def vector(x: Tensor) -> Vector:
    """Return a tensor as a vector of float64."""
    return x.detach().cpu().double().reshape(-1).numpy()


def _concatenated(parts: Iterable[Vector]) -> Vector:
    return np.concatenate([np.zeros(0), *parts])


def _parts(x: Vector, sizes: Mapping[str, int]) -> dict[str, Vector]:
    """Split a vector into consecutive parts: name -> the next `size` entries."""
    edges = np.cumsum([0, *sizes.values()])
    return {name: x[edges[i] : edges[i + 1]] for i, name in enumerate(sizes)}
