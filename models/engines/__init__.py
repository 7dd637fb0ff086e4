"""Engines: PyTorch, SciPy and Brian2 behind one `solve`."""

from actrelax.models.engines.methods import BRIAN2, INTEGRATORS, SCIPY, integrator_named
from actrelax.models.engines.solve import ENGINES, solve, unsupported
from actrelax.models.engines.sparse_problem import SparseProblem, Vector, vector
from actrelax.models.engines.steps import schedule

__all__ = [
    "BRIAN2",
    "ENGINES",
    "INTEGRATORS",
    "SCIPY",
    "SparseProblem",
    "Vector",
    "integrator_named",
    "schedule",
    "solve",
    "unsupported",
    "vector",
]
