"""How long may feedback travel, if the time to relax is given?

All feedback arrives late, by the same delay for each projection, and relaxations take 10 tau as without it. They come
to the gradient all the same; only when is another question. What the output sends never changes, so its delay costs
nothing; each projection below costs its own. A population k projections below the highest hidden one has relaxed for
T - k d only: learning breaks where the lowest has hardly heard of the output. Circles: the law (`analysis.delays`).

The last line on screen:  AR, delayed: a point lost from 3 on, worse than fixed hidden weights from 4 on
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from actrelax import RelaxationProblem, relax_backward
from actrelax.analysis.alignment import update_angles
from actrelax.analysis.delays import delayed_state
from actrelax.models.network import Network
from actrelax.simulations.studies.perturbation import BASE, grid, study
from actrelax.simulations.studies.perturbation_results import Learned
from actrelax.simulations.training.experiment import Experiment

# in units of tau; relaxations take 10
LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
SEEDS = 5


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles of where the law says that late feedback has brought this batch."""
    dt, steps = grid(experiment)
    problem = RelaxationProblem.from_batch(network, x, y, delays=experiment.relaxation.delay)
    there = copy.deepcopy(network)  # whose .grad is free
    there.zero_grad()
    relax_backward(there, x, y, integrator="euler", dt=dt, steps=0, start=delayed_state(problem, dt=dt, steps=steps))
    return update_angles(there, x, y)


def main(
    out: Path = Path("runs/studies"), levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = BASE.epochs
) -> list[Learned]:
    """Train with every delay, and draw what comes of it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its table.
    levels : sequence of float
        Delays, in units of tau.
    seeds, epochs : int
        How many trainings a level, and how long.

    Returns
    -------
    list of Learned
        One per training.
    """
    return study(
        out / "delays_in_learning.png",
        {"AR, delayed": {delay: {"delay": delay} for delay in levels}},
        xlabel="delay of each projection's feedback (tau)",
        seeds=seeds,
        base=replace(BASE, epochs=epochs),
        predicted=predicted,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
