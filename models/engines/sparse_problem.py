"""A problem in NumPy: one vector field y' = A y + B u(x), x = C y, with sparse matrices (docs/theory.md).

SciPy, Brian2 and all uses of the Jacobian share it. y holds the variables of all units that change in time, x their
activities, u their feedback.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from actrelax.models.assumptions import Gain
from actrelax.models.network import CapturedNetwork, Projection
from actrelax.models.problem import InitialValueProblem, Leaky, RelaxationProblem, State, StateSpace, Value

Vector = NDArray[np.float64]
Activities = dict[str, Vector]
"""Population -> (batch * units,), one sample after the other."""


@dataclass(frozen=True)
class Feedback:
    """The feedback of one projection.

    projection  the projection
    gain        knob for the gain that multiplies the target's activity
    matrix      op^T, (batch * source units, batch * target units)
    """

    projection: Projection
    gain: Gain
    matrix: sparse.csr_array


@dataclass(frozen=True)
class Drive:
    """The drive of a population as a function of the current activities.

    matrices  source -> (batch * units, batch * source units)
    bias      (batch * units,)
    """

    matrices: Mapping[str, sparse.csr_array]
    bias: Vector


class SparseProblem:
    """The ODE of a `RelaxationProblem` as one vector field, in float64 on the CPU, without noise and delays.

    Each matrix has one block per sample, each with all weights: use small batches.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem, self.network = problem, problem.network
        self.batch = len(problem.clamped)
        self.sizes = {name: self.batch * math.prod(p.shape) for name, p in self.network.populations.items()}
        self.clamped = vector(problem.clamped)
        self.stimulus = vector(problem.feedforward.activities[self.network.input])
        ones = {name: torch.ones_like(x) for name, x in problem.feedforward.activities.items()}
        driven = [*self.network.hidden, self.network.output]
        self.gains = {name: vector(problem.apply_gain(name, "feedforward", ones[name])) for name in driven}

    @cached_property
    def feedback(self) -> dict[str, Feedback]:
        """Feedback by projection."""
        problem = self.problem
        return {
            name: Feedback(
                p,
                problem.activity_gain(p),
                p.as_sparse(problem.feedforward.routes[name], problem.feedback_weight(p)).T.tocsr(),
            )
            for name, p in problem.feedback_projections.items()
        }

    @cached_property
    def drives(self) -> dict[str, Drive]:
        """Drive by population, for the populations that send feedback with the current gain."""
        sending = {f.projection.target for f in self.feedback.values() if f.gain == "current"}
        return {name: self._drive(name) for name in self.network.populations if name in sending}

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        return projection.as_sparse(self.problem.feedforward.routes[projection.name], projection.weight)

    def per_neuron(self, value: Value) -> Vector | float:
        """Return a population's quantity as one number, or as one per neuron and sample, (batch * units,)."""
        if not isinstance(value, Tensor) or value.dim() == 0:
            return float(value)
        return np.tile(vector(value), self.batch)

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
        populations = self.network.populations
        shapes = {v: populations[name].shape for name, unit in self.problem.units.items() for v in unit.variables}
        device = self.problem.clamped.device
        return {
            v: torch.from_numpy(np.ascontiguousarray(x)).reshape(self.batch, *shapes[v]).to(device)
            for v, x in state.items()
        }

    def activities(self, y: Vector) -> Activities:
        """Return the current activities of all populations."""
        ends = {self.network.input: self.stimulus, self.network.output: self.clamped}
        return ends | _parts(self._system[2] @ y, {name: self.sizes[name] for name in self.problem.units})

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
        R = sparse.block_array([self._feedback_row(name, x) for name in self.problem.units], format="csr")
        result = A + B @ R @ C
        if self.problem.clip is not None:
            u = _concatenated(self._unit_input(name, x) for name in self.problem.units)
            result = sparse.diags_array((np.abs(u - C @ y) <= self.problem.clip).astype(float)) @ result
        return result.tocsr()

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
        rate = sparse.diags_array(np.broadcast_to(1 / np.asarray(self.per_neuron(unit.tau)), self.sizes[population]))
        return -rate, rate, identity

    def _unit_input(self, population: str, x: Activities) -> Vector:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's projections."""
        feedback = [self.feedback[p.name] for p in self.network.outgoing[population]]
        return np.asarray(sum(f.matrix @ (self._gain(f, x) * x[f.projection.target]) for f in feedback))

    def _feedback_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
        """Return the derivatives of a population's feedback with respect to each population's activity."""
        row = {name: sparse.csr_array((self.sizes[population], self.sizes[name])) for name in self.problem.units}
        for p in self.network.outgoing[population]:
            feedback, target = self.feedback[p.name], p.target
            if target in row:
                gain = np.broadcast_to(self._gain(feedback, x), self.sizes[target])
                row[target] = row[target] + feedback.matrix @ sparse.diags_array(gain)
            if feedback.gain == "current":
                curved = feedback.matrix @ sparse.diags_array(self._curvature(target, x) * x[target])
                for source, matrix in self.drives[target].matrices.items():
                    if source in row:
                        row[source] = row[source] + curved @ matrix
        return list(row.values())

    def _gain(self, feedback: Feedback, x: Activities) -> Vector | float:
        """Return the gain of the projection's target."""
        name = feedback.projection.target
        if feedback.gain == "none":
            return 1.0
        if feedback.gain == "feedforward":
            return self.gains[name]
        drive = torch.from_numpy(self._current_drive(name, x))
        return vector(self.network.populations[name].activation.derivative(drive))

    def _curvature(self, population: str, x: Activities) -> Vector:
        """Return f'' at the current drive, by autograd."""
        drive = torch.from_numpy(self._current_drive(population, x)).requires_grad_()
        with torch.enable_grad():
            gain = self.network.populations[population].activation.derivative(drive)
            if not gain.requires_grad:
                return np.zeros(self.sizes[population])
            return vector(torch.autograd.grad(gain.sum(), drive)[0])

    def _current_drive(self, population: str, x: Activities) -> Vector:
        drive = self.drives[population]
        return np.asarray(drive.bias + sum(matrix @ x[source] for source, matrix in drive.matrices.items()))

    def _drive(self, population: str) -> Drive:
        routes, activities = self.problem.feedforward.routes, self.problem.feedforward.activities
        matrices: dict[str, sparse.csr_array] = {}
        bias = np.zeros(1)
        with torch.no_grad():
            for p in self.network.incoming[population]:
                matrix = self.drive_matrix(p)
                matrices[p.source] = matrices[p.source] + matrix if p.source in matrices else matrix
                bias = bias + vector(p.drive(torch.zeros_like(activities[p.source]), routes[p.name]))
        return Drive(matrices, bias)


def refused(problem: InitialValueProblem) -> str | None:
    """Return None, or one sentence that says why only PyTorch can run the problem."""
    if not isinstance(problem, RelaxationProblem):
        return 'the forward phase runs on PyTorch only: pass engine="torch".'
    if isinstance(problem.network, CapturedNetwork):
        return 'a captured network runs on PyTorch only: pass engine="torch".'
    if problem.assumptions.is_continuous:
        return "continuous plasticity changes weights during the relaxation: use relax_continuously."
    return None


def vector(x: Tensor) -> Vector:
    """Return a tensor as a vector of float64."""
    return x.detach().cpu().double().reshape(-1).numpy()


def _concatenated(parts: Iterable[Vector]) -> Vector:
    return np.concatenate([np.zeros(0), *parts])


def _parts(x: Vector, sizes: Mapping[str, int]) -> dict[str, Vector]:
    """Split a vector into consecutive parts: name -> the next `size` entries."""
    edges = np.cumsum([0, *sizes.values()])
    return {name: x[edges[i] : edges[i + 1]] for i, name in enumerate(sizes)}
