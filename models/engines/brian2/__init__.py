"""Relaxations in Brian2: the engine, and `build` for simulations with further objects."""

from actrelax.models.engines.brian2.adjoint import Adjoint, adjoint
from actrelax.models.engines.brian2.build import UNIT, Simulation, build
from actrelax.models.engines.brian2.codegen import generating, target_named, targets
from actrelax.models.engines.brian2.delay_line import delay_line, shift

__all__ = [
    "UNIT",
    "Adjoint",
    "Simulation",
    "adjoint",
    "build",
    "delay_line",
    "generating",
    "shift",
    "target_named",
    "targets",
]
