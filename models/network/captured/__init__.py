"""Any PyTorch module as a network: its forward pass on a tape, the pieces it falls into, and the recorded path.

What the closed form, engines and rules of captured networks share; the networks themselves are in `network`.
"""

from actrelax.models.network.captured.current import CurrentDrive
from actrelax.models.network.captured.functions import FORMULATED
from actrelax.models.network.captured.operations import (
    Convolution,
    Linear,
    leaves_of,
    refuse_overwritten,
    refuse_stale,
    signal_of,
)
from actrelax.models.network.captured.psi import parameter_of, trial_pass, whole_weight
from actrelax.models.network.captured.sums import Sums

__all__ = [
    "FORMULATED",
    "Convolution",
    "CurrentDrive",
    "Linear",
    "Sums",
    "leaves_of",
    "parameter_of",
    "refuse_overwritten",
    "refuse_stale",
    "signal_of",
    "trial_pass",
    "whole_weight",
]
