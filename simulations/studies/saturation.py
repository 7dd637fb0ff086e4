"""Saturation of units when the derivative f' is dropped.

Without f', converged relaxations drive tanh units into saturation; the initial activities that remain after 100 steps
counteract it. The second paper's CNN (Millidge, Tschantz, Seth & Buckley 2020, arXiv 2010.06219) learns CIFAR-10 by its
protocol, with f', and with f' dropped in the convolutions (in the relaxation and in the update). Relaxations take 100
steps of eta = 0.1 from the feedforward state, as in the paper, or converge; without f' also 100 steps from zero.

Left: test accuracy. Middle: mean f' of the first convolution's units over test images. Right: cosine between the drives
of these units and the change of their drives by an update from the remaining initial activities alone. Bands are 95 %
intervals over seeds.

It takes 30 minutes on one core.

The last line on screen:  no derivatives in convolutions, converged: 41.5% of test images, mean f' 0.03, cosine -0.79
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actrelax import Network, relax_backward
from actrelax.analysis import figures
from actrelax.simulations.studies.common import OUT, at_epoch, curves, followed, report
from actrelax.simulations.suites.definitions import SUITES
from actrelax.simulations.suites.shared import CONVERGED, ar
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.state import Training

# the second paper's protocol
BASE = varied(SUITES["cnn-cifar10"].base, {"epochs": 10})
SEEDS = 3
STEPS, ETA = 100, 0.1
MEASURED = 500
"""Number of test images over which f' and changes of drives are averaged."""

CONDITIONS = {
    "AR, 100 steps": ar(),
    "AR, converged": ar(**CONVERGED),
    "no derivatives in convolutions, 100 steps": ar("no-derivatives-conv"),
    "no derivatives in convolutions, 100 steps from zero": ar("no-derivatives-conv", start="zero"),
    "no derivatives in convolutions, converged": ar("no-derivatives-conv", **CONVERGED),
}


def main(out: Path = OUT, base: Experiment = BASE, seeds: int = SEEDS) -> pd.DataFrame:
    """Train under each condition, measure the mean f' after each epoch, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    base : Experiment
        Options of all conditions.
    seeds : int

    Returns
    -------
    pandas.DataFrame
        Columns of `followed`, "slope", the mean f' of the lowest population, and "brake", the cosine between its drives
        and their change by the remaining initial activities.
    """
    measured = partial(measure, loss=base.model.loss)
    rows = followed(base, CONDITIONS, measured, seeds, Execution(threads=1))
    with figures.saved(out / "saturation.png", columns=3, legend="below") as (_, axes):
        labels = (
            "test accuracy (%)",
            "mean f' in the first convolution",
            "cosine of its drives and their change\nby remaining initial activity",
        )
        for ax, column, label in zip(axes, ("accuracy", "slope", "brake"), labels, strict=True):
            figures.over_epochs(ax, curves(rows, column), label, percent=column == "accuracy")
        axes[1].set(ylim=(0, 1.02))
        axes[2].set(ylim=(-1.02, 0.1))  # Student's interval may extend below -1, a cosine can't
        axes[2].axhline(0, color="0.3", linewidth=0.8)
    numbers: dict[str, Any] = {"brake": {"weakest": rows["brake"].max(), "strongest": rows["brake"].min()}}
    lines = []
    for condition, of in rows.groupby("condition", sort=False):
        first, last = (at_epoch(of, epoch) for epoch in (0, base.epochs))
        numbers[str(condition)] = {"first": first, "last": last}
        reached = f"{last['accuracy']:.1f}% of test images, mean f' {last['slope']:.2f}, cosine {last['brake']:.2f}"
        lines.append(f"{condition}: {reached}")
    report(out / "saturation.json", numbers, *lines)
    return rows


def measure(training: Training, options: Options, loss: str) -> dict[str, float]:
    """Return "slope" and "brake" of the lowest hidden population."""
    test, network = training.batches.data.test, training.network
    x, y = training.batches.preprocess(test.images[:MEASURED]), test.labels[:MEASURED]
    return {
        "slope": mean_slope(network, x, network.hidden[0]),
        "brake": brake(network, x, y, loss, options["assumptions"]),
    }


@torch.no_grad()
def mean_slope(network: Network, x: Tensor, population: str) -> float:
    """Return the mean f' at the feedforward drives, over a population's units and stimuli (batch, *input shape)."""
    drive = network.feedforward(x).drives[population]
    return float(network.populations[population].activation.derivative(drive).mean())


@torch.no_grad()
def brake(network: Network, x: Tensor, y: Tensor, loss: str, assumptions: str) -> float:
    """Return the cosine between the lowest population's drives and their change by the remaining initial activity.

    The contribution of the remaining activity is the update after 100 steps of 0.1 minus the update at equilibrium. The
    change is measured after a small step against it; a negative cosine means weaker drives.
    """
    population = network.hidden[0]
    (projection,) = network.incoming[population]
    learn = partial(relax_backward, loss=loss, assumptions=assumptions)
    stopped, settled, moved = (copy.deepcopy(network) for _ in range(3))
    learn(stopped, x, y, steps=STEPS, eta=ETA)
    learn(settled, x, y, integrator="equilibrium")
    leftover = _update(stopped, projection.name) - _update(settled, projection.name)
    weight = moved.projections[projection.name].weight
    assert weight is not None
    weight.sub_(1e-3 * weight.norm() / leftover.norm() * leftover)
    drive = network.feedforward(x).drives[population]
    change = moved.feedforward(x).drives[population] - drive
    return float(cosine_similarity(change.flatten(), drive.flatten(), dim=0))


def _update(network: Network, projection: str) -> Tensor:
    weight = network.projections[projection].weight
    assert weight is not None
    assert weight.grad is not None
    return weight.grad


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
