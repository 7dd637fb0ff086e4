"""Learning in Brian2: both phases and plasticity in one simulation."""

from actrelax.models.learning.brian2.learner import Learner
from actrelax.models.learning.brian2.phases import Phases

__all__ = ["Learner", "Phases"]
