"""Common parts of the studies of networks with loops: trained networks, their eigenvalues, and angles of gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import Tensor

from actrelax import Network, RelaxationProblem, Settle, Steps, settle, solve
from actrelax.analysis.recurrent_gradients import updates
from actrelax.analysis.spectra import rightmost_eigenvalue
from actrelax.analysis.stability import Phase, loop_matrix
from actrelax.models.problem import State
from actrelax.simulations.data import digits
from actrelax.simulations.studies.common import DIGITS, trained
from actrelax.simulations.suites.suite import Options, varied

HIERARCHY = varied(
    DIGITS,
    {"network": "hierarchy", "rule": "ar", "optimiser": "adam", "schedule": "cosine", "lr": 0.001, "clip_norm": 1.0},
)
"""Three populations of 100 tanh units with bottom-up, top-down and lateral connections learn the digits by AR."""


def learned(epochs: int, seed: int, options: Options | None = None) -> Network:
    """Return a hierarchy that has learned the digits, in float64."""
    with warnings.catch_warnings(action="ignore"):  # about single samples that do not settle during training
        return trained(varied(HIERARCHY, {"epochs": epochs, "seed": seed, **(options or {})})).double()


def settled_problem(network: Network, samples: int) -> RelaxationProblem:
    """Return the relaxation from zero for the first test digits, with their rates settled."""
    test = digits().test
    x, y = test.images[:samples].double(), test.labels[:samples]
    rates = settle(network, x, Settle(Steps.until(1e-10, eta=0.5)))
    return RelaxationProblem.from_batch(network, rates, y, start="zero")


MEASURES = ("update", "digit")
"""Angles: of the update for a batch, and of the activities for single digits (their median)."""


@dataclass(frozen=True)
class Gradient:
    """The gradient of a batch at settled rates: of all weights and biases as one vector, and of the activities."""

    update: Tensor
    activities: State

    @classmethod
    def of(cls, problem: RelaxationProblem) -> Gradient:
        """Return the gradient at which a relaxation rests."""
        final = dict(solve(problem, "equilibrium", Steps.until(1e-9)).final)
        return cls(updates(problem, final), {name: final[name] for name in problem.relaxing})

    def angles(self, problem: RelaxationProblem, state: State) -> tuple[float, float]:
        """Return the angle of the update, and the median angle of a sample's activities, in degrees."""
        names = problem.relaxing
        ours, theirs = (torch.cat([of[name].flatten(1) for name in names], 1) for of in (state, self.activities))
        each = [angle(x, exact) for x, exact in zip(ours, theirs, strict=True)]
        return angle(updates(problem, state), self.update), median(each)


Angles = dict[str, dict[float, list[float]]]
"""Measure -> time or number of hops -> angle for each network."""


def by_measure(networks: Iterable[Iterable[tuple[float, tuple[float, float]]]]) -> Angles:
    """Sort the angles of each network, at one time or number of hops after another, by measure."""
    found: Angles = {measure: {} for measure in MEASURES}
    for network in networks:
        for at, angles in network:
            for measure, value in zip(MEASURES, angles, strict=True):
                found[measure].setdefault(at, []).append(value)
    return found


def means(of: Mapping[float, Iterable[float]]) -> dict[float, float]:
    """Return the means over the networks."""
    return {at: fmean(values) for at, values in of.items()}


def abscissae(problem: RelaxationProblem, samples: int, phase: Phase = "backward") -> list[float]:
    """Return the largest real part of an eigenvalue of the loop, for each of the first samples."""
    network, passed = problem.network, problem.feedforward
    parts = [slice(i, i + 1) for i in range(samples)]
    ones = [problem.of_batch(network, passed.of_samples(i), problem.clamped[i]) for i in parts]
    return [rightmost_eigenvalue(loop_matrix(one, phase)).real for one in ones]


def angle(update: Tensor, exact: Tensor) -> float:
    """Return the angle between two updates, in degrees."""
    cosine = float(update @ exact / (update.norm() * exact.norm()))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
