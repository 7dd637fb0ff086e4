"""What the authors' program does differently.

Is the loss of "simplified" (no derivatives, and learned feedback in the dense layers) in the second paper's CNN
(Millidge, Tschantz, Seth & Buckley 2020, arXiv 2010.06219) a matter of protocol? The authors' program differs from this
one in two ways that reach it: its rule for biases keeps f' where the rule for weights drops it, and its batches are
composed once, so that every epoch goes through the same batches in the same order. Here each is switched on by itself,
then both, on CIFAR-10 by the paper's protocol. (A third, an input that relaxes as well, is read by current activities
and gains alone.)

Left: test accuracy. Right: training accuracy. Bands are 95 % intervals over seeds.

It takes half an hour on one core.

The last line on screen:  simplified, both: 38.8% of test images
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from actrelax.analysis import figures
from actrelax.models.learning import Backward, BackwardOptions, Updates, relax_backward
from actrelax.simulations.data import Split
from actrelax.simulations.studies.common import OUT, at_epoch, curves, followed, report
from actrelax.simulations.studies.saturation import BASE
from actrelax.simulations.suites.shared import BACKPROP, ar
from actrelax.simulations.suites.suite import Options
from actrelax.simulations.training.assumption_names import assumptions_named
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback
from actrelax.simulations.training.state import Training

SEEDS = 3
KEPT = "simplified,dense.weight-gain=feedforward"
"""The assumptions whose updates of biases the authors' program has."""


def main(out: Path = OUT, base: Experiment = BASE, seeds: int = SEEDS) -> pd.DataFrame:
    """Train with each difference switched on, and draw.

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
        Columns of `followed`, and "train", the training accuracy.
    """
    changes: dict[str, Callback] = {
        "simplified, their bias rule": BiasRule(base),
        "simplified, batches composed once": ComposedOnce(),
        "simplified, both": Both(BiasRule(base), ComposedOnce()),
    }
    conditions = {"backprop": BACKPROP, "AR": ar(), "simplified": ar("simplified")}
    conditions |= dict.fromkeys(changes, ar("simplified"))
    rows = followed(base, conditions, train_accuracy, seeds, Execution(threads=1), changes)
    with figures.saved(out / "authors_program.png", columns=2, legend="below") as (_, axes):
        for ax, column, label in zip(axes, ("accuracy", "train"), ("test", "training"), strict=True):
            figures.over_epochs(ax, curves(rows, column), f"{label} accuracy (%)", percent=True)
    numbers: dict[str, Mapping[str, Any]] = {}
    lines = []
    for condition, of in rows.groupby("condition", sort=False):
        last = numbers[str(condition)] = at_epoch(of, base.epochs)
        lines.append(f"{condition}: {last['accuracy']:.1f}% of test images")
    report(out / "authors_program.json", numbers, *lines)
    return rows


def train_accuracy(training: Training, options: Options) -> dict[str, float]:
    """Return "train", the accuracy of the last row of metrics on training images."""
    return {"train": training.tables["metrics"][-1]["train_accuracy"]}


class BiasRule(Callback):
    """Callback that replaces the updates of biases by those of a rule that keeps f' in the weight update."""

    def __init__(self, base: Experiment) -> None:
        o = base.optimisation
        updates = Updates(factors={"conv": o.conv_factor}, clip=o.update_clip)
        options = BackwardOptions(updates=updates, reduction=o.reduction)
        self.rule = partial(
            relax_backward, loss=base.model.as_loss, assumptions=assumptions_named(KEPT), options=options
        )

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        named = dict(training.network.named_parameters())
        updates = {name: parameter.grad for name, parameter in named.items()}
        training.optimiser.zero_grad()
        self.rule(training.network, x, y)
        for name, parameter in named.items():
            if not name.endswith("bias"):
                parameter.grad = updates[name]


class ComposedOnce(Callback):
    """Callback that repeats the first epoch's batches, in their order, in all epochs."""

    def on_start(self, training: Training) -> None:
        training.batches = FirstEpoch(**vars(training.batches))


class FirstEpoch(Batches):
    """Batches of which every epoch is the first."""

    def epoch(self, number: int, first: int = 0) -> Iterator[Split]:
        return super().epoch(1, first)


class Both(Callback):
    """Two callbacks as one."""

    def __init__(self, bias: BiasRule, batches: ComposedOnce) -> None:
        self.bias, self.batches = bias, batches

    def on_start(self, training: Training) -> None:
        self.batches.on_start(training)

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        self.bias.on_gradient(training, x, y, result)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
