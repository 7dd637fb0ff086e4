"""Drives that run away.

Why do converged relaxations without derivatives fail: because units saturate, or because drives grow? The second
paper's CNN (Millidge, Tschantz, Seth & Buckley 2020, arXiv 2010.06219) learns CIFAR-10 by its protocol, relaxed until
settled, with f' and with f' dropped in the convolutions, under tanh, which is flat on both sides, and under relu and
softplus, which are flat on the silent side only. Two interventions add a decay to the relaxed activity x in the weight
update of the convolutions:

    decay of activities  c xbar, c times the feedforward activity, as relaxations that stop early do by themselves
    decay of drives      c a, c times the feedforward drive, which pulls the drives of silent units back as well;
                         as a control, it is also applied with f' kept

Drives grow without f' under all three, so units need not saturate for it to fail. A decay of drives keeps them
small, and brings back most of the lost accuracy under all three with c = 0.0001. A decay of activities does so under
tanh alone; under relu and softplus no activity is negative, so that it can't pull a negative drive back. Where f' is
kept, the decay of drives gains nothing.

Upper row: test accuracy. Lower row: root mean square of the first convolution's drives over test images. Bands are 95 %
intervals over seeds.

It takes 90 minutes on one core.

The last line on screen:  relu, decay of drives, c = 0.0003: 53.1% of test images, drives 0.75, mean f' 0.59
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from actrelax import Network
from actrelax.analysis import figures
from actrelax.analysis.style import written
from actrelax.models.learning import Backward
from actrelax.simulations.studies.common import OUT, at_epoch, curves, followed, report
from actrelax.simulations.studies.saturation import BASE, MEASURED, mean_slope
from actrelax.simulations.suites.shared import CONVERGED, ar
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback
from actrelax.simulations.training.state import Training

ACTIVATIONS = ("tanh", "softplus", "relu")
DECAYING = ("activities", "drives")
DECAYS = (1e-4, 3e-4)
SEEDS = 3


def main(out: Path = OUT, base: Experiment = BASE, seeds: int = SEEDS) -> pd.DataFrame:
    """Train under each condition and activation, measure the drives after each epoch, and draw.

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
        Columns of `followed`, "activation", and, of the lowest population, "drive", the root mean square of its drives,
        and "slope", the mean f'.
    """
    rows = pd.concat([trained(activation, base, seeds) for activation in ACTIVATIONS])
    _draw(out / "runaway.png", rows)
    numbers: dict[str, dict[str, Any]] = {activation: {} for activation in ACTIVATIONS}
    lines = []
    for (activation, condition), of in rows.groupby(["activation", "condition"], sort=False):
        last = at_epoch(of, base.epochs)
        numbers[activation][condition] = {"first": at_epoch(of, 0), "last": last}
        reached = f"{last['accuracy']:.1f}% of test images, drives {last['drive']:.2f}, mean f' {last['slope']:.2f}"
        lines.append(f"{activation}, {condition}: {reached}")
    report(out / "runaway.json", numbers, *lines)
    return rows


def trained(activation: str, base: Experiment, seeds: int) -> pd.DataFrame:
    """Return the rows of all conditions under one activation."""
    own = varied(base, {"activation": activation})
    kept, dropped = ar(**CONVERGED), ar("no-derivatives-conv", **CONVERGED)
    decays: dict[str, Callback] = {
        f"decay of {kind}, c = {rate:g}": Decay(rate, kind, own) for kind in DECAYING for rate in DECAYS
    }
    control = f"AR, decay of drives, c = {DECAYS[0]:g}"
    conditions = {"AR": kept, control: kept, "no derivatives": dropped, **dict.fromkeys(decays, dropped)}
    decays[control] = Decay(DECAYS[0], "drives", own)
    rows = followed(own, conditions, measure, seeds, Execution(threads=1), decays)
    return rows.assign(activation=activation)


def _draw(path: Path, rows: pd.DataFrame) -> None:
    with written(path, (4.2 * len(ACTIVATIONS), 6.4)) as figure:
        axes = figure.subplots(2, len(ACTIVATIONS), sharex=True, sharey="row", squeeze=False)
        for column, activation in enumerate(ACTIVATIONS):
            of = rows[rows["activation"] == activation]
            figures.over_epochs(axes[0][column], curves(of, "accuracy"), "test accuracy (%)", percent=True)
            drives = curves(of, "drive")
            figures.over_epochs(axes[1][column], drives, "drives of the first convolution (rms)", log=True)
            axes[0][column].set(title=activation, xlabel="")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


class Decay(Callback):
    """Callback that adds `rate` times the feedforward activities or drives to the postsynaptic factor of convolutions.

    The factor has no derivative, like that of the rule without derivatives; `experiment` says how updates are scaled.
    """

    def __init__(self, rate: float, of: str, experiment: Experiment) -> None:
        self.rate, self.of, self.optimisation = rate, of, experiment.optimisation

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        scale = self.rate * self.optimisation.conv_factor / (len(x) if self.optimisation.reduction == "mean" else 1)
        with torch.no_grad():
            self._add(training.network, x, scale)

    def _add(self, network: Network, x: Tensor, scale: float) -> None:
        passed = network.feedforward(x)
        decaying = {"activities": passed.activities, "drives": passed.drives}[self.of]
        for projection in network.projections.values():
            if network.kind(projection) != "conv":
                continue
            routes = passed.routes[projection.name]
            pre = projection.presynaptic(passed.activities[projection.source], routes)
            post = projection.postsynaptic(decaying[projection.target], routes)
            for slot, update in projection.plasticity(pre, post, scale).items():
                getattr(projection, slot).grad.add_(update)


@torch.no_grad()
def measure(training: Training, options: Options) -> dict[str, float]:
    """Return "drive" and "slope" of the lowest hidden population."""
    network, test = training.network, training.batches.data.test
    x = training.batches.preprocess(test.images[:MEASURED])
    drive = network.feedforward(x).drives[network.hidden[0]]
    return {"drive": float(drive.square().mean().sqrt()), "slope": mean_slope(network, x, network.hidden[0])}


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
