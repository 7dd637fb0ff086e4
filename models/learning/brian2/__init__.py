"""Learning inside Brian2: both phases and the change of the weights in one simulation."""

from actrelax.models.learning.brian2.learner import Learner, Phases

__all__ = ["Learner", "Phases"]
