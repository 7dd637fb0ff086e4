"""How much noise in the relaxation can learning stand?

Every hidden neuron is noisy while it relaxes: tau dx = (...) dt + sigma sqrt(2 tau) dW, so that sigma is the standard
deviation of a neuron without input. Its weights change by what it holds at the end, noise included.

Left: accuracy after training. Right: the angle between AR's updates of a batch and backprop's, and what the law of
the scheme says (`analysis.noise`): noise is another for each image, so over a batch of B it counts by 1 / sqrt(B), and
over the batches of a training it averages out: the angle is large long before accuracy is lost.

It takes 3 minutes.

The last line on screen:  rate 0.1: a point lost from 1 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from actrelax import RelaxationProblem
from actrelax.analysis.noise import expected_noise_angles
from actrelax.models.network import Network
from actrelax.simulations.studies.perturbation import BASE, RATE, grid, study
from actrelax.simulations.studies.perturbation_results import Learned
from actrelax.simulations.training.experiment import Experiment

# sigma, in units of activity (tanh: up to 1)
LEVELS = (0.0, 0.03, 0.1, 0.3, 0.5, 1.0)
# learning rates: that of the other studies, and a slower one, whose updates average over more batches
RATES = (RATE, RATE / 4)
SEEDS = 5


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles that the law expects of this batch."""
    dt, steps = grid(experiment)
    problem = RelaxationProblem.from_batch(network, x, y, noise=experiment.relaxation.noise)
    return expected_noise_angles(problem, dt=dt, steps=steps)


def main(
    out: Path = Path("runs/studies"), levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = BASE.epochs
) -> list[Learned]:
    """Train at every level of noise, and draw what comes of it.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its table.
    levels : sequence of float
        sigma.
    seeds, epochs : int
        How many trainings a level, and how long.

    Returns
    -------
    list of Learned
        One per training.
    """
    return study(
        out / "noise.png",
        {f"rate {rate:g}": {sigma: {"noise": sigma, "lr": rate} for sigma in levels} for rate in RATES},
        xlabel="noise of a lone neuron, sigma (units of activity)",
        scale="symlog",
        seeds=seeds,
        base=replace(BASE, epochs=epochs),
        predicted=predicted,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
