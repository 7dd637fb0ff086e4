"""Learning with delayed feedback and relaxations of 10 tau.

A delay of 3 tau per projection costs a point of accuracy. All feedback arrives late, by the same delay d for each
projection. Relaxations still converge to the gradient, but later. The output is constant, so the delay of its feedback
has no effect; every projection below adds d, so that a population k projections below the highest hidden one has
effectively relaxed for T - k d.

Left: accuracy after training. Right: angle to backprop's updates; circles are predictions (`analysis.delays`).

It takes 4 minutes.

The last line on screen:  AR, delayed: a point lost from 3 on, worse than fixed hidden weights from 4 on
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from actrelax import RelaxationProblem, relax_backward
from actrelax.analysis.alignment import update_angles
from actrelax.analysis.delays import delayed_state
from actrelax.models.network import Network
from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import DT, DURATION, EPOCHS, SEEDS, study
from actrelax.simulations.training.experiment import Experiment

# delays, in units of tau
LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles for a batch, predicted by the closed form of delayed relaxations."""
    problem = RelaxationProblem.from_batch(network, x, y, delays=experiment.relaxation.delay)
    state = delayed_state(problem, dt=DT, steps=round(DURATION / DT))
    there = copy.deepcopy(network)  # keeps .grad of the original
    there.zero_grad()
    relax_backward(there, x, y, integrator="euler", dt=DT, steps=0, start=state)
    return update_angles(there, x, y)


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with each delay, and draw the results; see `perturbation.study`."""
    return study(
        out / "delays_in_learning.png",
        {"AR, delayed": {delay: {"delay": delay} for delay in levels}},
        xlabel="delay of each projection's feedback (tau)",
        seeds=seeds,
        epochs=epochs,
        predicted=predicted,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
