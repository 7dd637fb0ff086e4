"""Learning by the local rule, from a relaxed state to `.grad`, and by backprop."""

from actrelax.models.learning.backprop import activity_gradients, backprop_backward, parameter_gradients
from actrelax.models.learning.continuous import relax_continuously
from actrelax.models.learning.gradients import Backward, Updates
from actrelax.models.learning.relax import relax_backward

__all__ = [
    "Backward",
    "Updates",
    "activity_gradients",
    "backprop_backward",
    "parameter_gradients",
    "relax_backward",
    "relax_continuously",
]
