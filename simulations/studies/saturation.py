"""Where dropped derivatives fail: units saturate, unless the relaxation is stopped early.

The second paper's CNN (Millidge, Tschantz, Seth & Buckley 2020, arXiv 2010.06219) learns CIFAR-10 by its protocol, with
f' and with f' dropped in the convolutions (in the relaxation and in the update), by 100 steps of eta = 0.1 from the
feedforward state as in the paper, and by relaxations that have converged.

Left: test accuracy. Middle: mean f' of the first convolution's tanh units over test images: without f', what converged
relaxations teach drives them into saturation. Right: what the activity that 100 steps leave over would do to these
units' drives if it were all that they learned from, as the cosine between the change and the drives: it brakes them.
Bands are 95 % intervals over seeds. Some 20 minutes on one core.

The last line on screen:  no derivatives in convolutions, converged: 41.5% of test images, mean f' 0.03, cosine -0.79
"""

from __future__ import annotations

import copy
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actrelax import Network, relax_backward
from actrelax.analysis import figures
from actrelax.simulations.suites.definitions import CONVERGED, SUITES, ar
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import assemble, load_images
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback, Training, train

# the second paper's protocol
BASE = varied(SUITES["cnn-cifar10"].base, {"epochs": 10})
EXECUTION = Execution(threads=1)
SEEDS = 3
STEPS, ETA = 100, 0.1
MEASURED = 500
"""Test images over which f' and changes of drives are averaged."""

CONDITIONS = {
    "AR, 100 steps": ar(),
    "AR, converged": ar(**CONVERGED),
    "no derivatives in convolutions, 100 steps": ar("no-derivatives-conv"),
    "no derivatives in convolutions, converged": ar("no-derivatives-conv", **CONVERGED),
}

OverEpochs = dict[float, list[float]]
"""Epoch -> a value for each seed."""


def main(
    out: Path = Path("runs/studies"), base: Experiment = BASE, seeds: int = SEEDS
) -> dict[str, dict[str, OverEpochs]]:
    """Train under each condition, average f' after each epoch, draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    base : Experiment
        What the conditions have in common.
    seeds : int

    Returns
    -------
    dict
        Condition -> "accuracy" on the test images, "slope", the lowest population's mean f', and "brake", the cosine
        between its drives and what is left over makes of them -> epoch -> a value for each seed.
    """
    data = load_images(base.images)
    found: dict[str, dict[str, OverEpochs]] = {}
    for condition, options in CONDITIONS.items():
        found[condition] = defaultdict(lambda: defaultdict(list))
        for seed in range(seeds):
            experiment = varied(base, {**options, "seed": seed})
            train(assemble(experiment, EXECUTION, data=data).training, [Look(experiment, found[condition])])
    with figures.saved(out / "saturation.png", columns=3, legend="below") as (_, axes):
        for ax, what, said in zip(
            axes,
            ("accuracy", "slope", "brake"),
            (
                "test accuracy (%)",
                "mean f' in the first convolution",
                "cosine of its drives and their change\nby what 100 steps leave over",
            ),
            strict=True,
        ):
            measured = {condition: values[what] for condition, values in found.items()}
            figures.over_epochs(ax, measured, said, percent=what == "accuracy")
        axes[1].set(ylim=(0, 1.02))
        axes[2].set(ylim=(-1.02, 0.1))  # no cosine is below -1, whatever Student's interval says
        axes[2].axhline(0, color="0.3", linewidth=0.8)
    for condition, values in found.items():
        accuracy, slope, brake = (fmean(by_epoch[base.epochs]) for by_epoch in values.values())
        print(f"{condition}: {accuracy:.1%} of test images, mean f' {slope:.2f}, cosine {brake:.2f}")
    return found


class Look(Callback):
    """Look at the lowest hidden population before the first epoch and after each."""

    def __init__(self, experiment: Experiment, found: dict[str, OverEpochs]) -> None:
        self.experiment, self.found = experiment, found

    def on_start(self, training: Training) -> None:
        self.on_epoch(training)

    def on_epoch(self, training: Training) -> None:
        test, network = training.batches.data.test, training.network
        x, y = training.batches.preprocess(test.images[:MEASURED]), test.labels[:MEASURED]
        for what, value in (
            ("accuracy", training.tables["metrics"][-1]["test_accuracy"]),
            ("slope", mean_slope(network, x, network.hidden[0])),
            ("brake", brake(network, x, y, self.experiment)),
        ):
            self.found[what][training.epoch].append(value)


@torch.no_grad()
def mean_slope(network: Network, x: Tensor, population: str) -> float:
    """Return f' at the feedforward drives, mean over a population's units and the stimuli.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        (batch, *input shape)
    population : str
    """
    drive = network.feedforward(x).drives[population]
    return float(network.populations[population].activation.derivative(drive).mean())


@torch.no_grad()
def brake(network: Network, x: Tensor, y: Tensor, experiment: Experiment) -> float:
    """Return the cosine between the lowest population's drives and their change by leftover activity alone.

    Leftover is the update after 100 steps of 0.1 minus that of the equilibrium; the change is that of a small step
    against it. Negative where it weakens drives.
    """
    population = network.hidden[0]
    (projection,) = network.incoming[population]
    learn = partial(relax_backward, loss=experiment.model.loss, assumptions=experiment.relaxation.assumptions)
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
