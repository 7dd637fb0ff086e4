"""A relaxation as a sparse vector field (`sparse_system`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from actrelax.models.assumptions import Gain
from actrelax.models.engines.sparse_system import Activities, Drive, SparseSystem, Vector, vector
from actrelax.models.network import CapturedNetwork, Projection
from actrelax.models.problem import InitialValueProblem, RelaxationProblem


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


class SparseProblem(SparseSystem):
    """The ODE of a `RelaxationProblem`: u is feedback.

    Each matrix has one block per sample, each with all weights: use small batches.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        super().__init__(problem)
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
        routes = self.problem.feedforward.routes
        return {name: self.drive_of(name, routes) for name in self.network.populations if name in sending}

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        return projection.as_sparse(self.problem.feedforward.routes[projection.name], projection.weight)

    def _unit_input(self, population: str, x: Activities) -> Vector:
        """Return sum_p op_p^T(g_c x_c; psi_p) over the population's projections."""
        feedback = [self.feedback[p.name] for p in self.network.outgoing[population]]
        return np.asarray(sum(f.matrix @ (self._gain(f, x) * x[f.projection.target]) for f in feedback))

    def _input_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
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


def refused(problem: InitialValueProblem) -> str | None:
    """Return None, or one sentence that says why only PyTorch can run the problem."""
    if not isinstance(problem, RelaxationProblem):
        return None
    if isinstance(problem.network, CapturedNetwork):
        return 'a captured network runs on PyTorch only: pass engine="torch".'
    if problem.assumptions.is_continuous:
        return "continuous plasticity changes weights during the relaxation: use relax_continuously."
    return None
