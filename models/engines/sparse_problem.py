"""A relaxation as a sparse vector field (`sparse_system`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from actrelax.models.engines.captured_feedback import CapturedFeedback
from actrelax.models.engines.captured_feedback import refused as refused_capture
from actrelax.models.engines.connections import Connection, connections_of, current_functions
from actrelax.models.engines.sparse_system import Activities, Drive, SparseSystem, Vector, vector
from actrelax.models.network import CapturedNetwork, Population, Projection
from actrelax.models.problem import InitialValueProblem, RelaxationProblem


@dataclass(frozen=True)
class Feedback:
    """The feedback of one connection.

    connection  its names and its gain
    matrix      op^T, (batch * source units, batch * target units)
    """

    connection: Connection
    matrix: sparse.csr_array


class SparseProblem(SparseSystem):
    """The ODE of a `RelaxationProblem`: u is feedback.

    Each matrix has one block per sample, each with all weights: use small batches.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        super().__init__(problem)
        self.shapes = {name: tuple(problem.feedforward.activities[name].shape) for name in self.network.populations}
        self.sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        self.connections = connections_of(problem)
        self.clamped = vector(problem.clamped)
        self.stimulus = vector(problem.feedforward.activities[self.network.input])
        ones = {name: torch.ones_like(x) for name, x in problem.feedforward.activities.items()}
        driven = [*self.network.hidden, self.network.output]
        self.gains = {name: vector(problem.apply_gain(name, "feedforward", ones[name])) for name in driven}

    @property
    def held(self) -> Activities:
        """The stimulus and the clamped output."""
        return {self.network.input: self.stimulus, self.network.output: self.clamped}

    @cached_property
    def feedback(self) -> dict[str, Feedback]:
        """Feedback by connection."""
        problem = self.problem
        if self._captured is not None:
            return {name: Feedback(c, self._captured.matrix(c)) for name, c in self.connections.items()}
        return {
            name: Feedback(c, _matrix_of(problem, problem.feedback_projections[name]))
            for name, c in self.connections.items()
        }

    @cached_property
    def _captured(self) -> CapturedFeedback | None:
        return CapturedFeedback(self.problem) if isinstance(self.network, CapturedNetwork) else None

    def sent_at_first(self, connection: str) -> Vector:
        """Return what a connection sends at t = 0: gain times activity, (batch * target units,)."""
        if self._captured is not None:
            return self._sent(self.connections[connection], self.activities(self.initial_state))
        return super().sent_at_first(connection)

    @cached_property
    def functions(self) -> dict[str, Population]:
        """Population that sends with the current gain -> the units of its pointwise function."""
        return {name: function.population for name, function in current_functions(self.problem).items()}

    @cached_property
    def drives(self) -> dict[str, Drive]:
        """Population that sends with the current gain -> the drive of its pointwise function."""
        if self._captured is not None:
            return {name: self._captured.drive(name) for name in self.functions}
        return {name: self.drive_of(name, self.problem.feedforward.routes) for name in self.functions}

    @cached_property
    def results(self) -> dict[str, sparse.csr_array]:
        """Population with pooling after its function -> the matrix from its units to the function's."""
        found = {} if self._captured is None else {name: self._captured.result(name) for name in self.functions}
        return {name: matrix for name, matrix in found.items() if matrix is not None}

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        if self._captured is not None:
            return self._captured.drive_matrix(projection)
        return projection.as_sparse(self.problem.feedforward.routes[projection.name], projection.weight)

    def _unit_input(self, population: str, x: Activities) -> Vector:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's connections."""
        feedback = [f for f in self.feedback.values() if f.connection.source == population]
        return np.asarray(sum(f.matrix @ self._sent(f.connection, x) for f in feedback))

    def _sent(self, connection: Connection, x: Activities) -> Vector:
        """Return gain times activity of a connection's target."""
        return np.asarray(self._gain(connection, x) * self._at_result(connection, x))

    def _at_result(self, connection: Connection, x: Activities) -> Vector:
        """Return the factor of the gain: the target's activity, transposed through pooling if pooling follows."""
        name = connection.target
        return np.asarray(self.results[name] @ x[name]) if self.is_pooled(connection) else x[name]

    def is_pooled(self, connection: Connection) -> bool:
        """Return whether pooling lies between a connection's target and the function with its gain (`results`)."""
        return connection.gain == "current" and connection.target in self.results

    def _input_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
        """Return the derivatives of a population's feedback with respect to each population's activity."""
        row = {name: sparse.csr_array((self.sizes[population], self.sizes[name])) for name in self.problem.units}
        for feedback in self.feedback.values():
            connection, matrix = feedback.connection, feedback.matrix
            target = connection.target
            if connection.source != population:
                continue
            if target in row:
                gain = np.broadcast_to(self._gain(connection, x), matrix.shape[1])
                through = matrix @ sparse.diags_array(gain)
                row[target] = row[target] + (through @ self.results[target] if self.is_pooled(connection) else through)
            if connection.gain == "current":
                curved = matrix @ sparse.diags_array(self._curvature(target, x) * self._at_result(connection, x))
                for source, drives in self.drives[target].matrices.items():
                    if source in row:
                        row[source] = row[source] + curved @ drives
        return list(row.values())

    def _gain(self, connection: Connection, x: Activities) -> Vector | float:
        """Return the gain of the connection's target."""
        name = connection.target
        if connection.gain == "none":
            return 1.0
        if connection.gain == "feedforward":
            return self.gains[name]
        return vector(self.functions[name].activation.derivative(torch.from_numpy(self._current_drive(name, x))))

    def _curvature(self, population: str, x: Activities) -> Vector:
        """Return f'' at the current drive, by autograd."""
        drive = torch.from_numpy(self._current_drive(population, x)).requires_grad_()
        with torch.enable_grad():
            gain = self.functions[population].activation.derivative(drive)
            if not gain.requires_grad:
                return np.zeros(len(drive))
            return vector(torch.autograd.grad(gain.sum(), drive)[0])

    def _current_drive(self, population: str, x: Activities) -> Vector:
        drive = self.drives[population]
        return np.asarray(drive.bias + sum(matrix @ x[source] for source, matrix in drive.matrices.items()))


def refused(problem: InitialValueProblem) -> str | None:
    """Return None, or one sentence that says why only PyTorch can run the problem."""
    if not isinstance(problem, RelaxationProblem):
        return None
    if isinstance(problem.network, CapturedNetwork):
        reason = refused_capture(problem)
        if reason is not None:
            return reason
    if problem.assumptions.is_continuous:
        return "continuous plasticity changes weights during the relaxation: use relax_continuously."
    return None


def _matrix_of(problem: RelaxationProblem, projection: Projection) -> sparse.csr_array:
    """Return op^T of a projection, (batch * source units, batch * target units)."""
    route = problem.feedforward.routes[projection.name]
    return projection.as_sparse(route, problem.feedback_weight(projection)).T.tocsr()
