"""Relaxation of an MLP, written by hand in Brian2 for comparison with this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import brian2 as b2
import numpy as np


def handwritten(
    weights: Sequence[np.ndarray], gains: Sequence[np.ndarray], start: Sequence[np.ndarray], dt: float
) -> Any:
    """Return a `brian2.Network` of a chain of populations with a clamped output.

    Parameters
    ----------
    weights : sequence of numpy.ndarray
        Weights between neighbours, (target, source), from the lowest hidden population up.
    gains, start : sequence of numpy.ndarray
        Initial f' and x of each population, ending with the clamped output.
    dt : float
        Step size in ms; tau is 1 ms.
    """
    b2.defaultclock.dt = dt * b2.ms
    equations = """
    dx/dt = (feedback - x) / tau : 1
    feedback : 1
    gain : 1 (constant)
    tau : second (constant)
    """
    groups = []
    for gain, x in zip(gains, start, strict=True):
        clamped = len(groups) == len(weights)
        group = b2.NeuronGroup(len(x), "x : 1\ngain : 1 (constant)" if clamped else equations, method="euler")
        group.x, group.gain = x, gain
        if not clamped:
            group.tau = 1 * b2.ms
        groups.append(group)
    projections = []
    for lower, upper, weight in zip(groups, groups[1:], weights, strict=False):
        synapses = b2.Synapses(upper, lower, "w : 1 (constant)\nfeedback_post = w * gain_pre * x_pre : 1 (summed)")
        synapses.connect()
        synapses.w = weight.ravel()  # row by row, since pre is the upper population
        projections.append(synapses)
    return b2.Network(*groups, *projections)
