"""Learning by the local rule, from a relaxed state to `.grad`, and by backprop."""

from actrelax.models.learning.activation_relaxation import ActivationRelaxation
from actrelax.models.learning.backprop import activity_gradients, backprop_backward, parameter_gradients
from actrelax.models.learning.bptt import bptt_backward
from actrelax.models.learning.continuous import relax_continuously
from actrelax.models.learning.gradients import (
    SETTLE,
    Backward,
    BackwardOptions,
    Rule,
    Updates,
    add_to_grad,
    is_finite,
    learning_slots,
    refuse_hooks,
)
from actrelax.models.learning.plasticity import local_updates, postsynaptic_factor, presynaptic_factor
from actrelax.models.learning.relax import relax_backward
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import SOLVE

__all__ = [
    "SETTLE",
    "SOLVE",
    "ActivationRelaxation",
    "Backward",
    "BackwardOptions",
    "Rule",
    "SettlingReport",
    "Updates",
    "activity_gradients",
    "add_to_grad",
    "backprop_backward",
    "bptt_backward",
    "is_finite",
    "learning_slots",
    "local_updates",
    "parameter_gradients",
    "postsynaptic_factor",
    "presynaptic_factor",
    "refuse_hooks",
    "relax_backward",
    "relax_continuously",
]
