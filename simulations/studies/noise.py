"""Learning with noise in the relaxation.

Noise of 0.3 of a tanh neuron's largest activity costs less than a point; at 1 a lower learning rate saves the
training. Every hidden neuron is noisy while it relaxes, tau dx = (...) dt + sigma sqrt(2 tau) dW, so sigma is the
standard deviation of a neuron without input. Weights learn from the final activity, including its noise.

Left: accuracy after training. Right: angle between AR's and backprop's updates of a batch; circles are predictions
(`analysis.noise`). Noise is independent across images, so it shrinks by 1 / sqrt(B) in a batch of B, and averages out
over the batches of a training: the angle is large long before accuracy suffers.

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

# sigma, in units of activity; that of a tanh neuron is at most 1
LEVELS = (0.0, 0.03, 0.1, 0.3, 0.5, 1.0)
# learning rates: the rate of the other studies, and a quarter of it, which averages over more batches
RATES = (RATE, RATE / 4)


def predicted(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the expected angles for a batch."""
    problem = RelaxationProblem.from_batch(network, x, y, noise=experiment.relaxation.noise)
    return expected_noise_angles(problem, dt=DT, steps=round(DURATION / DT))


def main(out: Path = OUT, levels: Sequence[float] = LEVELS, seeds: int = SEEDS, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train at each level of noise and each learning rate, and draw the results; see `perturbation.study`."""
    return study(
        out / "noise.png",
        {f"rate {rate:g}": {sigma: {"noise": sigma, "lr": rate} for sigma in levels} for rate in RATES},
        xlabel="noise of a neuron without input, sigma (units of activity)",
        scale="symlog",
        seeds=seeds,
        epochs=epochs,
        predicted=predicted,
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
