"""Learning inside Brian2: a network that runs both phases and changes its weights."""

from actrelax.models.learning.brian2.learner import Learner, Phases

__all__ = ["Learner", "Phases"]
