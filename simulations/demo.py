"""Activation relaxation learns handwritten digits as well as backprop does.

Trains a small CNN on scikit-learn's bundled 8x8 digits (1,437 images for training, 360 for testing) from one seed:
by backprop, by activation relaxation (Millidge, Tschantz, Buckley & Seth 2020, arXiv 2009.05359) in 100 steps of
eta = 0.1, and by AR with learned feedback weights in the dense layers and no nonlinear derivatives anywhere
(Millidge, Tschantz, Seth & Buckley 2020, arXiv 2010.06219). The network's width, learning rate and weight decay
were chosen by cross-validation within the training images; --validation 287 shows such a split.

Writes, below --out, a folder per run with summary.json and metrics.csv, the learning curves, and each layer's error
against backprop over a relaxation.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from actrelax.analysis import figures
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.runs import Summary, versions, write_run
from actrelax.models.architectures import build
from actrelax.models.backprop import activity_gradients, backprop_backward
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import relax_backward
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.datasets import Dataset, digits
from actrelax.simulations.training import Rule, train

NETWORK = "digits-cnn"
RUNS = {"backprop": "", "AR": "ar", "AR, simplified": "simplified"}
"""Label -> assumptions; none for backprop."""


@dataclass(frozen=True)
class Config:
    """Options of the demo."""

    out: Path = Path("runs/demo")
    """Folder for results and figures."""
    epochs: int = 20
    """Passes through the training images."""
    lr: float = 0.1
    """Learning rate of stochastic gradient descent on the mean over a batch."""
    momentum: float = 0.9
    """Of the optimiser."""
    weight_decay: float = 0.003
    """The optimiser's, on forward and feedback weights alike."""
    batch_size: int = 64
    """Images a batch."""
    steps: int = 100
    """Relaxation steps a batch, a sequential sweep each."""
    eta: float = 0.1
    """Size of a relaxation step, dt / tau."""
    seed: int = 0
    """Fixes initial weights, feedback weights and the order of the images."""
    threads: int = 1
    """CPU threads; another number changes the rounding, and with it what a seed gives."""
    validation: int = 0
    """Hold out so many training images and report on them instead of the test set: for tuning."""
    json: bool = False
    """Print the summaries as JSON, and nothing else, on standard output."""


def main(config: Config) -> None:
    """Train the three networks, draw the figures, print the table."""
    if min(config.epochs, config.batch_size, config.threads) < 1:
        raise ActrelaxError("epochs, batch_size and threads must be 1 or more.")
    if min(config.lr, config.momentum, config.weight_decay, config.steps) < 0:
        raise ActrelaxError("lr, momentum, weight_decay and steps must be 0 or more.")
    torch.set_num_threads(config.threads)
    dataset = digits().validating(config.validation) if config.validation else digits()
    say = partial(print, file=sys.stderr if config.json else sys.stdout)
    say(f"{len(dataset.x_train):,} digits for training, {len(dataset.x_test):,} for testing.\n")
    say(_network(config, dataset))
    draw_relaxation(config, dataset)
    runs = {label: learn(config, dataset, label) for label in RUNS}
    with figures.saved(config.out / "figures" / "learning-curves.png", columns=2) as (_, axes):
        for ax, measure in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            figures.learning_curves(ax, {label: metrics for label, (_, metrics) in runs.items()}, measure)
    if config.json:
        print(json.dumps([asdict(summary) for summary, _ in runs.values()]))
    say(f"\n{'rule':16}test accuracy  train accuracy  seconds")
    for label, (summary, _) in runs.items():
        row = f"{label:16}{summary.test_accuracy:13.1%}  {summary.train_accuracy:14.1%}  {summary.wall_seconds:7.1f}"
        say(row)
    say(f"\nresults and figures: {config.out}")


def learn(config: Config, dataset: Dataset, label: str) -> tuple[Summary, list[dict[str, float]]]:
    """Train one network by one rule and write its run folder."""
    network, assumptions = _network(config, dataset), RUNS[label]
    rule: Rule = backprop_backward
    if assumptions:
        network.add_feedback(assumptions, torch.Generator().manual_seed(config.seed + 1))
        rule = partial(relax_backward, assumptions=assumptions, steps=config.steps, eta=config.eta)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    order = torch.Generator().manual_seed(config.seed)
    epochs = train(
        network, dataset, rule, optimiser, epochs=config.epochs, batch_size=config.batch_size, generator=order
    )
    start = time.perf_counter()
    metrics = []
    with tqdm(desc=label, total=config.epochs, unit="epoch", leave=False, disable=None) as bar:
        for measured in epochs:
            metrics.append(asdict(measured))
            bar.set_postfix(loss=f"{measured.train_loss:.3f}", test=f"{measured.test_accuracy:.1%}", refresh=False)
            bar.update(min(measured.epoch, 1))
    seconds = time.perf_counter() - start
    summary = Summary(
        test_accuracy=metrics[-1]["test_accuracy"],
        train_accuracy=metrics[-1]["train_accuracy"],
        rule="ar" if assumptions else "backprop",
        assumptions=assumptions,
        dataset=dataset.name,
        network=NETWORK,
        epochs=config.epochs,
        seed=config.seed,
        wall_seconds=seconds,
        images_per_second=config.epochs * len(dataset.x_train) / seconds,
        device="cpu",
        versions=versions(),
    )
    write_run(config.out / (assumptions or "backprop"), summary, metrics)
    return summary, metrics


def draw_relaxation(config: Config, dataset: Dataset) -> None:
    """Relax the first batch in an untrained network for three times as long, and draw each layer's error."""
    network = _network(config, dataset).double()
    x, y = dataset.x_train[: config.batch_size].double(), dataset.y_train[: config.batch_size]
    problem = RelaxationProblem.from_batch(network, x, y)
    trajectory = errors_over_time(problem, activity_gradients(network, x, y), steps=3 * config.steps, eta=config.eta)
    with figures.saved(config.out / "figures" / "relaxation.png") as (_, (ax,)):
        figures.errors(ax, trajectory)
        ax.axvline(config.steps, color="0.4", linewidth=1, linestyle="-")
        ax.annotate(
            "relaxation used\nin training",
            (config.steps, 0.02),
            (-4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
        )


def _network(config: Config, dataset: Dataset) -> Network:
    generator = torch.Generator().manual_seed(config.seed)
    return build(NETWORK, input_shape=dataset.input_shape, classes=dataset.classes, generator=generator)


if __name__ == "__main__":
    from actrelax.simulations.cli import run

    raise SystemExit(run("demo", sys.argv[1:]))
