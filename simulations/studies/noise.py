"""How much noise in the relaxation can learning stand?

Up to half of a neuron's range, and more at a lower rate. Every hidden neuron is noisy while it relaxes,
tau dx = (...) dt + sigma sqrt(2 tau) dW, so that sigma is the standard deviation of a neuron without input, and its
weights change by what it holds at the end, noise included.

Left: accuracy after training. Right: the angle between AR's updates of a batch and backprop's; circles are the law of
the scheme (`analysis.noise`). Each image has other noise, so over a batch of B it counts by 1 / sqrt(B), and over the
batches of a training it averages out: the angle is large long before accuracy is lost.

It takes 6 minutes.

The last line on screen:  rate 0.1: a point lost from 1 on, worse than fixed hidden weights at no level
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from actrelax import RelaxationProblem
from actrelax.analysis.noise import expected_noise_angles
from actrelax.models.network import Network
from actrelax.simulations.studies.common import OUT
from actrelax.simulations.studies.perturbation import DT, DURATION, EPOCHS, RATE, SEEDS, study
from actrelax.simulations.training.experiment import Experiment

# sigma, in units of activity (tanh: up to 1)
LEVELS = (0.0, 0.03, 0.1, 0.3, 0.5, 1.0)
# learning rates: that of the other studies, and a slower one, whose updates average over more batches
RATES = (RATE, RATE / 4)


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles that the law expects of this batch."""
    problem = RelaxationProblem.from_batch(network, x, y, noise=experiment.relaxation.noise)
    return expected_noise_angles(problem, dt=DT, steps=round(DURATION / DT))


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train at every level of noise and at two rates, and draw; see `perturbation.study`."""
    return study(
        out / "noise.png",
        {f"rate {rate:g}": {sigma: {"noise": sigma, "lr": rate} for sigma in levels} for rate in RATES},
        xlabel="noise of a lone neuron, sigma (units of activity)",
        scale="symlog",
        seeds=seeds,
        epochs=epochs,
        predicted=predicted,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
