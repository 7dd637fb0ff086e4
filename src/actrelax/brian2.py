"""Relaxations and learning in Brian2, alongside your own objects; importing this module loads Brian2."""

from actrelax.models.engines.brian2 import UNIT, Simulation, adjoint, build, delay_line, generating, shift, targets
from actrelax.models.learning.brian2 import Learner, Phases

__all__ = [
    "UNIT",
    "Learner",
    "Phases",
    "Simulation",
    "adjoint",
    "build",
    "delay_line",
    "generating",
    "shift",
    "targets",
]
