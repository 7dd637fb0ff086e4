"""A problem in NumPy: sparse feedback matrices, flat vectors, one vector field, its Jacobian (THEORY.md section 1).

The engines outside PyTorch read a problem through this. It has the methods that integrators step by (`Steppable`),
so that our own schemes run on it as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from actrelax.models.assumptions import Gain
from actrelax.models.network import Projection
from actrelax.models.problem import Leaky, RelaxationProblem, State, StateSpace, Unit, Value
from actrelax.models.problem.system import Steppable
from actrelax.models.problem.unit_dynamics import Variables

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Feedback:
    """One projection's feedback.

    projection  whose
    gain        the knob: which gain the target's activity is sent with
    matrix      (batch * source units, batch * target units): op^T
    """

    projection: Projection
    gain: Gain
    matrix: sparse.csr_array


@dataclass(frozen=True)
class Drive:
    """What a population is driven by at this moment.

    matrices  source -> (batch * units, batch * source units)
    bias      (batch * units,)
    """

    matrices: Mapping[str, sparse.csr_array]
    bias: Vector


@dataclass(frozen=True)
class Space:
    """A population's units near this moment: ds/dt = A s + b u, x = c s; entries are numbers or (batch * units,)."""

    A: list[list[Vector]]
    b: list[Vector]
    c: list[float]


class SparseProblem(Steppable):
    """The ODE of a `RelaxationProblem` over vectors: a population's activities of all samples in one, (batch * units,).

    Always in float64 on the CPU. Without noise and delays. Matrices hold a block per sample, dense weights once in
    each: it is meant for batches of a few.

    Parameters
    ----------
    problem : RelaxationProblem
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem, self.network = problem, problem.network
        self.batch = len(problem.clamped)
        self.clamped = vector(problem.clamped)
        self.stimulus = vector(problem.feedforward.activities[self.network.input])
        self.gains = {name: vector(gain) for name, gain in problem.frozen_gains.items()}

    @cached_property
    def units(self) -> dict[str, Unit]:
        """Dynamics of what moves, with vectors for time constants."""
        return {name: self._flat(unit) for name, unit in self.problem.units.items()}

    @cached_property
    def feedback(self) -> dict[str, Feedback]:
        """Projection -> its feedback."""
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
        """Population -> its drive, of those that send with the gain of this moment."""
        sending = {f.projection.target for f in self.feedback.values() if f.gain == "current"}
        return {name: self.drive_of(name) for name in self.network.populations if name in sending}

    def drive_of(self, population: str) -> Drive:
        """Return what drives a population."""
        routes, activities = self.problem.feedforward.routes, self.problem.feedforward.activities
        matrices: dict[str, sparse.csr_array] = {}
        bias = np.zeros(1)
        with torch.no_grad():
            for p in self.network.incoming[population]:
                matrix = self.drive_matrix(p)
                matrices[p.source] = matrices[p.source] + matrix if p.source in matrices else matrix
                bias = bias + vector(p.drive(torch.zeros_like(activities[p.source]), routes[p.name]))
        return Drive(matrices, bias)

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        return projection.as_sparse(self.problem.feedforward.routes[projection.name], projection.weight)

    def initial_state(self) -> Variables:
        """Return the units' variables at t = 0."""
        return {name: vector(x) for name, x in self.problem.initial_state().items()}

    def per_neuron(self, value: Value) -> Vector | float:
        """Return a quantity of one population as a number, or one per neuron of all samples, (batch * units,)."""
        if not isinstance(value, Tensor) or value.dim() == 0:
            return float(value)
        return np.tile(vector(value), self.batch)

    def activities(self, state: Variables) -> Variables:
        """Return all populations at this moment."""
        return {name: self.activity(name, state) for name in (self.network.input, self.network.output, *self.units)}

    def activity(self, population: str, state: Variables) -> Vector:
        """Return one population at this moment."""
        if population in self.units:
            return np.asarray(self.units[population].activity(state))
        return self.stimulus if population == self.network.input else self.clamped

    def received(self, population: str, state: Variables) -> Vector:
        """sum over the population's projections of op_p^T(g_c x_c; psi_p)."""
        total = 0.0
        for p in self.network.outgoing[population]:
            feedback = self.feedback[p.name]
            total = total + feedback.matrix @ (self.gain(feedback, state) * self.activity(p.target, state))
        return np.asarray(total)

    def gain(self, feedback: Feedback, state: Variables) -> Vector | float:
        """Return the gain that the projection's target sends with."""
        name = feedback.projection.target
        if feedback.gain == "none":
            return 1.0
        if feedback.gain == "feedforward":
            return self.gains[name]
        return self._derivative(name, self._drive(name, state))

    def passed_on(self, state: Variables) -> Variables:
        """Return no delay lines: there are none here."""
        return {}

    def joined(self, state: Variables) -> Vector:
        """Return all variables in one vector."""
        parts = [state[variable] for unit in self.units.values() for variable in unit.variables]
        return np.concatenate(parts) if parts else np.zeros(0)

    def split(self, y: Vector) -> Variables:
        """Undo `joined`."""
        state: Variables = {}
        for name, unit in self.units.items():
            for variable in unit.variables:
                size = self.gains[name].size
                state[variable], y = y[:size], y[size:]
        return state

    def as_tensors(self, state: Variables) -> State:
        """Return the variables in the problem's shapes, sharing memory."""
        shapes = {
            v: (self.batch, *self.network.populations[n].shape) for n, u in self.units.items() for v in u.variables
        }
        return {v: torch.from_numpy(np.ascontiguousarray(x)).reshape(shapes[v]) for v, x in state.items()}

    def jacobian(self, state: Variables) -> sparse.csr_array:
        """Return the derivative of the vector field by all variables, in the order of `joined`.

        Where gains are current, with the derivative of the gain by the drive; at a kink it is taken as zero.
        """
        spaces = {name: self._state_space(name, state) for name in self.units}
        rows = []
        for name in self.units:
            received = self._received_by(name, state)
            rows += [self._row(name, i, received, spaces) for i in range(len(spaces[name].b))]
        return sparse.block_array(rows, format="csr") if rows else sparse.csr_array((0, 0))

    def _row(
        self, name: str, i: int, received: Mapping[str, sparse.csr_array], spaces: Mapping[str, Space]
    ) -> list[sparse.csr_array]:
        """Return the derivative of one variable's rate, a block for each variable."""
        size, row = self.gains[name].size, []
        own = spaces[name]
        sensitive = np.any(own.b[i])
        for other, space in spaces.items():
            part = None
            if other in received and sensitive:
                part = sparse.diags_array(np.broadcast_to(own.b[i], size)) @ received[other]
            for j, c in enumerate(space.c):
                block = sparse.diags_array(np.broadcast_to(own.A[i][j], size)) if other == name else None
                if part is not None:
                    block = part * c if block is None else block + part * c
                row.append(sparse.csr_array((size, self.gains[other].size)) if block is None else block)
        return row

    def _received_by(self, population: str, state: Variables) -> dict[str, sparse.csr_array]:
        """Population -> the derivative of what this one receives by its activity."""
        result: dict[str, sparse.csr_array] = {}
        for p in self.network.outgoing[population]:
            feedback, target = self.feedback[p.name], p.target
            if target in self.units:
                gain = np.broadcast_to(self.gain(feedback, state), self.gains[target].size)
                _add(result, target, feedback.matrix @ sparse.diags_array(gain))
            if feedback.gain == "current":
                curved = self._curvature(target, self._drive(target, state)) * self.activity(target, state)
                through = feedback.matrix @ sparse.diags_array(curved)
                for source, matrix in self.drives[target].matrices.items():
                    if source in self.units:
                        _add(result, source, through @ matrix)
        return result

    def _state_space(self, name: str, state: Variables) -> Space:
        """A, b and c of a population's units; of leaky ones, zero where a clip holds the bracket."""
        unit = self.units[name]
        if isinstance(unit, StateSpace):
            d = unit.dynamics
            return Space([[np.asarray(a) for a in row] for row in d.A], [np.asarray(b) for b in d.b], list(d.c))
        assert isinstance(unit, Leaky)
        rate = 1 / np.asarray(unit.tau)
        if unit.clip is not None:
            rate = rate * (np.abs(self.received(name, state) - state[name]) <= unit.clip)
        return Space([[-rate]], [rate], [1.0])

    def _drive(self, population: str, state: Variables) -> Vector:
        drive = self.drives[population]
        return np.asarray(drive.bias + sum(m @ self.activity(source, state) for source, m in drive.matrices.items()))

    def _derivative(self, population: str, drive: Vector) -> Vector:
        return vector(self.network.populations[population].activation.derivative(torch.from_numpy(drive)))

    def _curvature(self, population: str, drive: Vector) -> Vector:
        """f'' at the drive, by autograd."""
        a = torch.from_numpy(drive).requires_grad_()
        with torch.enable_grad():
            gain = self.network.populations[population].activation.derivative(a)
            if not gain.requires_grad:
                return np.zeros_like(drive)
            return vector(torch.autograd.grad(gain.sum(), a)[0])

    def _flat(self, unit: Unit) -> Unit:
        """Return a unit whose time constants are a number or (batch * units,)."""
        return Leaky(unit.name, self.per_neuron(unit.tau), unit.clip) if isinstance(unit, Leaky) else unit


def refused(problem: RelaxationProblem) -> str | None:
    """Return None, or one sentence that says what no engine outside PyTorch does."""
    if problem.assumptions.is_continuous:
        return "weights that change while it relaxes are for relax_continuously; here they are held."
    return None


def vector(x: Tensor) -> Vector:
    """Return a tensor as a vector of float64."""
    return x.detach().cpu().double().reshape(-1).numpy()


def _add(result: dict[str, sparse.csr_array], name: str, matrix: sparse.csr_array) -> None:
    result[name] = result[name] + matrix if name in result else matrix
