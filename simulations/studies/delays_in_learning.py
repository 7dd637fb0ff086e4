"""How long may feedback travel, if the time to relax is given?

As long as the lowest population still hears enough of the output: within 10 tau a point is lost at 3 tau a projection.
All feedback arrives late, by the same delay for each projection. Relaxations come to the gradient all the same, only
later. What the output sends never changes, so its delay costs nothing; each projection below costs its own: a
population k projections below the highest hidden one has relaxed for T - k d only.

Left: accuracy after training. Right: the angle of updates to backprop's; circles are the law (`analysis.delays`).

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

# units of tau; relaxations take 10
LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles of the state to which late feedback has brought this batch, by the law."""
    problem = RelaxationProblem.from_batch(network, x, y, delays=experiment.relaxation.delay)
    state = delayed_state(problem, dt=DT, steps=round(DURATION / DT))
    there = copy.deepcopy(network)  # whose .grad is free
    there.zero_grad()
    relax_backward(there, x, y, integrator="euler", dt=DT, steps=0, start=state)
    return update_angles(there, x, y)


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train with every delay, and draw; see `perturbation.study`."""
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
