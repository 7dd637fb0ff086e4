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
from actrelax.models.engines.connections import Connection, connections_of
from actrelax.models.engines.sparse_system import Activities, Drive, SparseSystem, Vector, vector
from actrelax.models.network import CapturedNetwork, Projection
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
        if isinstance(self.network, CapturedNetwork):
            captured = CapturedFeedback(problem)
            return {name: Feedback(c, captured.matrix(c)) for name, c in self.connections.items()}
        return {
            name: Feedback(c, _matrix_of(problem, problem.feedback_projections[name]))
            for name, c in self.connections.items()
        }

    def sent_at_first(self, connection: str) -> Vector:
        """Return what a connection sends at t = 0: gain times activity, (batch * target units,)."""
        if isinstance(self.network, CapturedNetwork):
            start = self.problem.initial_state()
            return vector(self.problem.activity_of(self.connections[connection].target, start))
        return super().sent_at_first(connection)

    @cached_property
    def drives(self) -> dict[str, Drive]:
        """Drive by population, for the populations that send feedback with the current gain."""
        sending = {c.target for c in self.connections.values() if c.gain == "current"}
        routes = self.problem.feedforward.routes
        return {name: self.drive_of(name, routes) for name in self.network.populations if name in sending}

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        return projection.as_sparse(self.problem.feedforward.routes[projection.name], projection.weight)

    def _unit_input(self, population: str, x: Activities) -> Vector:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's connections."""
        feedback = [f for f in self.feedback.values() if f.connection.source == population]
        return np.asarray(sum(f.matrix @ (self._gain(f, x) * x[f.connection.target]) for f in feedback))

    def _input_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
        """Return the derivatives of a population's feedback with respect to each population's activity."""
        row = {name: sparse.csr_array((self.sizes[population], self.sizes[name])) for name in self.problem.units}
        for feedback in self.feedback.values():
            target = feedback.connection.target
            if feedback.connection.source != population:
                continue
            if target in row:
                gain = np.broadcast_to(self._gain(feedback, x), self.sizes[target])
                row[target] = row[target] + feedback.matrix @ sparse.diags_array(gain)
            if feedback.connection.gain == "current":
                curved = feedback.matrix @ sparse.diags_array(self._curvature(target, x) * x[target])
                for source, matrix in self.drives[target].matrices.items():
                    if source in row:
                        row[source] = row[source] + curved @ matrix
        return list(row.values())

    def _gain(self, feedback: Feedback, x: Activities) -> Vector | float:
        """Return the gain of the connection's target."""
        name = feedback.connection.target
        if feedback.connection.gain == "none":
            return 1.0
        if feedback.connection.gain == "feedforward":
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
