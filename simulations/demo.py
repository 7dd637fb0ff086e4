"""Train a small CNN on handwritten digits by activation relaxation and by backprop, with equal accuracy.

Trains on scikit-learn's bundled 8x8 digits (1,437 images for training, 360 for testing) from one seed: by backprop, by
activation relaxation (Millidge, Tschantz, Buckley & Seth 2020, arXiv 2009.05359) in 100 steps of eta = 0.1, and by AR
with learned feedback weights in the dense layers and without nonlinear derivatives (Millidge, Tschantz, Seth & Buckley
2020, arXiv 2010.06219). The network's width, learning rate, weight decay and schedule were chosen by validation within
the training images (`actrelax train --validation`).

First PyTorch, SciPy and Brian2 relax two digits in this network, and are compared with each other, with the closed form
of each scheme and with autograd, a short version of `actrelax check`.

Writes to --out the folders of the three runs, replacing those of an earlier demo, the learning curves, the error of
each layer against backprop during a relaxation, and a report to open in a browser. The last lines on screen name the
report and the folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from actrelax.analysis import figures
from actrelax.analysis.checks.compare import Report, verify
from actrelax.analysis.convergence import errors_over_time
from actrelax.analysis.files import claimed
from actrelax.analysis.reports import run_report
from actrelax.analysis.reports.load_runs import gather
from actrelax.analysis.reports.page import Picture, Section, write
from actrelax.analysis.runs import RunFolder
from actrelax.analysis.summary import Summary
from actrelax.models.engines import Steps
from actrelax.models.learning import activity_gradients
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem
from actrelax.simulations.data import Dataset, digits
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.ledgers import ledger_sections
from actrelax.simulations.training.networks import make_network
from actrelax.simulations.training.relaxation import Relaxation
from actrelax.simulations.training.run import Recording, run

RUNS = {"backprop": "", "AR": "ar", "AR, simplified": "simplified"}
"""Label -> assumptions, or "" for backprop."""


CHECKED = ("euler", "sequential", "equilibrium", "scipy:DOP853", "brian2:rk4")
"""Integrators that are compared on all engines that support them."""


@dataclass(frozen=True)
class Config:
    """Options of the demo."""

    out: Path = Path("runs/demo")
    """Folder for results and figures."""
    epochs: int = 20
    """Number of passes through the training images."""
    lr: float = 0.1
    """Initial learning rate of stochastic gradient descent; it follows a cosine to 0."""
    momentum: float = 0.9
    """Momentum of the optimiser."""
    weight_decay: float = 0.003
    """Weight decay by the optimiser, of forward and feedback weights."""
    batch_size: int = 64
    """Number of images per batch."""
    steps: int = 100
    """Number of relaxation steps (sequential sweeps) per batch."""
    eta: float = 0.1
    """Step size dt / tau of the relaxation."""
    seed: int = 0
    """Seed of initial weights, feedback weights and the order of the images."""
    threads: int = 1
    """Number of CPU threads, which affects rounding and hence the result of a seed."""
    json: bool = False
    """Print only the summaries, as JSON, on standard output."""


def main(config: Config) -> int:
    """Run the demo with its output folder locked, and return the exit status."""
    with claimed(config.out):
        return demonstrate(config)


def demonstrate(config: Config) -> int:
    """Check the engines, train three networks, draw figures, print a table, and return the exit status."""
    experiments = {label: experiment(config, assumptions) for label, assumptions in RUNS.items()}
    for each in experiments.values():
        each.check()
    say = partial(print, file=sys.stderr if config.json else sys.stdout)
    dataset = digits()
    network, _ = make_network(experiments["AR"].model, dataset.input_shape, dataset.classes, config.seed)
    say(f"{len(dataset.train.images):,} digits for training, {len(dataset.test.images):,} for testing.\n")
    say(network)
    report = check_engines(network.double(), dataset)
    say(f"\n{verdict(report)}")
    draw_relaxation(config, network, dataset)
    summaries: dict[str, Summary] = {}
    for label, each in experiments.items():
        recording = Recording(folder_of(config, label), overwrite=True, quiet=True)
        summaries[label] = run(each, Execution(threads=config.threads), recording)
    draw_learning(config)
    write_report(config, report)
    if config.json:
        print(json.dumps([asdict(summary) for summary in summaries.values()]))
    say(f"\n{'rule':16}test accuracy  train accuracy  seconds")
    for label, s in summaries.items():
        say(f"{label:16}{s.test_accuracy:13.1%}  {s.train_accuracy:14.1%}  {s.wall_seconds:7.1f}")
    say(f"\nreport, to open in a browser: {config.out / 'report.html'}")
    say(f"results and figures: {config.out}")
    return 0 if report.ok else 1


def check_engines(network: Network, dataset: Dataset) -> Report:
    """Relax two digits on all engines, for few enough steps that schemes differ, and compare the results."""
    images, labels = dataset.test
    x, y = images[:2].double(), labels[:2]
    problem = RelaxationProblem.from_batch(network, x, y)
    return verify(problem, activity_gradients(network, x, y), Steps(12, eta=0.2), integrators=CHECKED)


def verdict(report: Report) -> str:
    """Return a sentence on the agreement of the engines."""
    wrong = [row for row in report.rows if not row.ok]
    if not wrong:
        worst = max(row.error for row in report.rows)
        fixed = max(row.error for row in report.rows if row.bound <= 1e-10)
        return (
            "PyTorch, SciPy and Brian2 agree with each other, with the closed form and with autograd, in "
            f"{len(report.rows)} comparisons:\nto {fixed:.0e} for fixed steps, to {worst:.0e} for adaptive steps."
        )
    listed = [f"{r.engine} {r.integrator} and {r.reference} differ by {r.error:.2g} in {r.population}" for r in wrong]
    return "\n".join(["ENGINES DISAGREE:", *listed])


def experiment(config: Config, assumptions: str) -> Experiment:
    """Return the options of one of the three runs."""
    return Experiment(
        rule="ar" if assumptions else "backprop",
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        model=Model("digits-cnn"),
        relaxation=Relaxation(assumptions or "ar", steps=config.steps, eta=config.eta),
        optimisation=Optimisation(
            lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, schedule="cosine"
        ),
    )


def folder_of(config: Config, label: str) -> Path:
    """Return the folder of a run."""
    return config.out / (RUNS[label] or "backprop")


def draw_learning(config: Config) -> None:
    """Draw the learning curves of the three runs."""
    metrics = {label: RunFolder(folder_of(config, label)).table("metrics") for label in RUNS}
    with figures.saved(config.out / "figures" / "learning-curves.png", columns=2) as (_, axes):
        for ax, measure in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            figures.learning_curves(ax, metrics, measure)


def write_report(config: Config, checked: Report) -> None:
    """Write the HTML report on the three runs and the relaxation."""
    places = config.out / "figures"
    caption = "Error of each population against its gradient; relaxations in training end at the vertical line."
    picture = Picture.read(places / "relaxation.png", "Errors decrease over time, later in lower layers.", caption)
    relaxation = Section("One relaxation of the untrained network", [verdict(checked)], pictures=[picture])
    runs = gather([RunFolder(folder_of(config, label)) for label in RUNS])
    write(config.out / "report.html", run_report.page(runs, places, [relaxation, *ledger_sections(runs)]))


def draw_relaxation(config: Config, network: Network, dataset: Dataset) -> None:
    """Relax the first batch in the untrained network for three times as many steps, and draw each layer's error."""
    images, labels = dataset.train
    x, y = images[: config.batch_size].double(), labels[: config.batch_size]
    problem = RelaxationProblem.from_batch(network, x, y)
    steps = Steps(3 * config.steps, eta=config.eta)
    trajectory = errors_over_time(problem, activity_gradients(network, x, y), "sequential", steps)
    with figures.saved(config.out / "figures" / "relaxation.png") as (_, (ax,)):
        errors = {name: error.tolist() for name, error in trajectory.recorded.items()}
        figures.approach(ax, trajectory.times, errors, unit=trajectory.time_unit)
        end = config.steps * config.eta
        ax.axvline(end, color="0.4", linewidth=1, linestyle="-")
        ax.annotate(
            "relaxation used\nin training",
            (end, 0.02),
            (-4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
        )


if __name__ == "__main__":
    from actrelax.simulations.cli import run as run_simulation

    raise SystemExit(run_simulation("demo", sys.argv[1:]))
