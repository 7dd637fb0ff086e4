"""Relaxations in Brian2: names, equations, delay lines, and the engine."""

from actrelax.models.engines.brian2.build import UNIT, Simulation, build
from actrelax.models.engines.brian2.codegen import generating, targets
from actrelax.models.engines.brian2.delay_line import delay_line, shift

__all__ = ["UNIT", "Simulation", "build", "delay_line", "generating", "shift", "targets"]
