"""The forward phase as a sparse vector field (`sparse_system`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.engines.sparse_problem import refused as refused_relaxation
from actrelax.models.engines.sparse_system import Activities, Drive, SparseSystem, Vector, vector
from actrelax.models.network import Projection, ProjectionRoute
from actrelax.models.network.pooling import MaxPool2d
from actrelax.models.problem import ForwardProblem, InitialValueProblem


class SparseForward(SparseSystem):
    """The ODE of a `ForwardProblem`: u is f(a(r)), and the Jacobian of leaky units T^-1 (diag(f'(a)) W - I)."""

    def __init__(self, problem: ForwardProblem) -> None:
        super().__init__(problem)
        self.stimulus = vector(problem.stimulus)

    @property
    def held(self) -> Activities:
        """The stimulus, unless the input is noisy: then its rate is a part of the state."""
        return dict.fromkeys(self.problem.held, self.stimulus)

    @cached_property
    def routes(self) -> Mapping[str, ProjectionRoute]:
        """Routes at the initial rates; without max pooling, routes don't depend on the rates."""
        routes: Mapping[str, ProjectionRoute] = self.problem.feedforward_pass(self.problem.initial_state()).routes
        return routes

    @cached_property
    def drives(self) -> dict[str, Drive]:
        """Drive by population."""
        return {name: self.drive_of(name, self.routes) for name in self.problem.relaxing}

    def drive_matrix(self, projection: Projection) -> sparse.csr_array:
        """Return a projection's drive without its bias, (batch * target units, batch * source units)."""
        return projection.as_sparse(self.routes[projection.name], projection.weight)

    def _drive(self, population: str, x: Activities) -> torch.Tensor:
        drive = self.drives[population]
        return torch.from_numpy(
            np.asarray(drive.bias + sum(matrix @ x[source] for source, matrix in drive.matrices.items()))
        )

    def _unit_input(self, population: str, x: Activities) -> Vector:
        return vector(self.network.populations[population].activation(self._drive(population, x)))

    def _input_row(self, population: str, x: Activities) -> list[sparse.csr_array]:
        row = {name: sparse.csr_array((self.sizes[population], self.sizes[name])) for name in self.problem.units}
        gain = vector(self.network.populations[population].activation.derivative(self._drive(population, x)))
        for source, matrix in self.drives[population].matrices.items():
            if source in row:
                row[source] = sparse.diags_array(gain) @ matrix
        return list(row.values())


def sparse_system(problem: InitialValueProblem) -> SparseProblem | SparseForward:
    """Return a problem's ODE as a sparse vector field."""
    return SparseForward(problem) if isinstance(problem, ForwardProblem) else SparseProblem(problem)  # type: ignore[arg-type]


def refused(problem: InitialValueProblem) -> str | None:
    """Return None, or one sentence that says why only PyTorch can run the problem."""
    if isinstance(problem, ForwardProblem):
        projections = problem.network.projections.values()
        if any(isinstance(stage, MaxPool2d) for p in projections for stage in (*p.before, *p.after)):
            return 'max pooling routes by the rates of the moment in the forward phase: pass engine="torch".'
    return refused_relaxation(problem)
