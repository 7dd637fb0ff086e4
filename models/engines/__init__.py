"""Engines: PyTorch, SciPy and Brian2 behind one `solve`."""

from actrelax.models.engines.methods import BRIAN2, INTEGRATORS, SCIPY, integrator_named
from actrelax.models.engines.solve import ENGINES, solve, unsupported

__all__ = ["BRIAN2", "ENGINES", "INTEGRATORS", "SCIPY", "integrator_named", "solve", "unsupported"]
