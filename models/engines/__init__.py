"""Engines: PyTorch, SciPy and Brian2 behind one `solve`."""

from actrelax.models.engines.connections import Connection, current_functions
from actrelax.models.engines.methods import BRIAN2, INTEGRATORS, SCIPY, integrator_named
from actrelax.models.engines.options import Brian2Options, SciPyOptions, TorchOptions
from actrelax.models.engines.request import Agree
from actrelax.models.engines.schedule import require_stable, schedule
from actrelax.models.engines.settle import Settle, settle, settled_pass
from actrelax.models.engines.solve import ENGINES, OPTIONS, solve, unsupported
from actrelax.models.engines.sparse_forward import SparseForward
from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.engines.sparse_system import Vector, vector
from actrelax.models.engines.steps import PAPERS, Steps, StepSize

__all__ = [
    "BRIAN2",
    "ENGINES",
    "INTEGRATORS",
    "OPTIONS",
    "PAPERS",
    "SCIPY",
    "Agree",
    "Brian2Options",
    "Connection",
    "SciPyOptions",
    "Settle",
    "SparseForward",
    "SparseProblem",
    "StepSize",
    "Steps",
    "TorchOptions",
    "Vector",
    "current_functions",
    "integrator_named",
    "require_stable",
    "schedule",
    "settle",
    "settled_pass",
    "solve",
    "unsupported",
    "vector",
]
