"""Training at several levels of a perturbation: what the studies of robustness have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from actrelax.models.learning import Backward
from actrelax.models.network import Network
from actrelax.models.problem import apply_transform, transform_named
from actrelax.simulations.data import Dataset
from actrelax.simulations.studies.perturbation_results import Learned, Scale, accuracies, draw, first_below, write
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.assemble import assemble, load_images
from actrelax.simulations.training.callbacks import Alignment
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Images, Model, Optimisation
from actrelax.simulations.training.loop import Callback, Training, train
from actrelax.simulations.training.options import Relaxation

RATE = 0.4

BASE = Experiment(
    epochs=15,
    precision="fp64",
    batch_size=64,
    images=Images("digits"),
    model=Model("mlp-4x32"),
    relaxation=Relaxation(integrator="euler", dt=0.2, duration=10.0),
    optimisation=Optimisation(lr=RATE, schedule="cosine"),
)
"""Three hidden populations of 32 tanh units learn the digits; relaxations take 10 tau, in 50 steps.

The rate is that of AR without perturbation, and is not chosen again: of 0.05, 0.1, ... 1.6, with 144 training images
held out and three seeds, 0.8 is best with 95.6 %, 0.4 has 95.4 %, and 1.6 learns nothing. 0.4 is taken, farther from
that edge. For each RATE and SEED:

    actrelax train --dataset digits --network mlp-4x32 --integrator euler --dt 0.2 --duration 10 --schedule cosine \\
        --epochs 15 --precision fp64 --validation 144 --lr RATE --seed SEED
"""

# a list of kernels is worth its making in longer trainings only
EXECUTION = Execution(threads=1, compile="no", measure_alignment=5)

BACKPROP, OUTPUT_ALONE = "backprop", "output alone learns"

REFERENCES: Mapping[str, Options] = {
    BACKPROP: {"rule": "backprop"},
    # hidden populations that are silent at the end move no weight below them
    OUTPUT_ALONE: {"steps": 0, "duration": None, "start": "zero"},
}
"""What perturbed learning is compared with: the exact gradient, and hidden weights that stay as they were drawn."""

Prediction = Callable[[Experiment, Network, Tensor, Tensor], Mapping[str, float]]
"""(experiment, network, images, labels) -> projection -> angle in degrees, at the weights of this moment."""


def study(
    path: Path,
    series: Mapping[str, Mapping[float, Options]],
    *,
    xlabel: str,
    scale: Scale = "linear",
    seeds: int = 5,
    base: Experiment = BASE,
    predicted: Prediction | None = None,
    first: bool = False,
) -> list[Learned]:
    """Train at every level, draw accuracy and angles against it, and print them.

    Parameters
    ----------
    path : pathlib.Path
        Of the figure; the table goes beside it, as .csv.
    series : mapping
        Label -> level -> what it means as options of `base`, from the harmless level to the worst.
    xlabel : str
        What the levels are, with their unit.
    scale : {"linear", "log", "symlog"}, default "linear"
    seeds : int, default 5
        How many seeds (0, 1, ...), the same at every level.
    base : Experiment, default BASE
    predicted : callable, optional
        What a law says about the angles, asked at the batches where they are measured.
    first : bool, default False
        Whether the law is one of weights that have learned nothing: it is asked at the first batch alone, and the
        angles that are measured there are drawn, too.

    Returns
    -------
    list of Learned
        One per training, those of `REFERENCES` last.
    """
    wanted = [(name, level, options) for name, levels in series.items() for level, options in levels.items()]
    wanted += [(name, math.nan, options) for name, options in REFERENCES.items()]
    data = load_images(base.images)
    rows = [
        learn(name, level, varied(base, {**options, "seed": seed}), data, predicted, first)
        for name, level, options in tqdm(wanted, desc=path.stem, unit=" levels", leave=False, disable=None)
        for seed in range(seeds)
    ]
    write(path.with_suffix(".csv"), rows)
    draw(path, rows, xlabel=xlabel, scale=scale, chance=1 / data.classes, first=first)
    print(", ".join(f"{name}: accuracy {100 * reference(rows, name):.1f} %" for name in REFERENCES))
    for name in series:
        _report(rows, name)
    return rows


def learn(
    series: str,
    level: float,
    experiment: Experiment,
    data: Dataset,
    predicted: Prediction | None = None,
    first: bool = False,
) -> Learned:
    """Train once.

    Parameters
    ----------
    series, level
        As the outcome is to be called.
    experiment : Experiment
        Whose angles are measured if it says so.
    data : Dataset
        That it names.
    predicted, first
        As for `study`.
    """
    every = None if series in REFERENCES else EXECUTION.measure_alignment
    parts = assemble(experiment, replace(EXECUTION, measure_alignment=every), data=data)
    training = parts.training
    watchers: list[Callback] = []
    if every is not None:
        watchers.append(Alignment(every, parts.loss, parts.options, experiment.relaxation.knobs))
    law = None
    if every is not None and predicted is not None:
        law = Predicting(experiment, predicted, math.inf if first else every)
        watchers.append(law)
    train(training, watchers)
    hidden = [name for name, p in training.network.projections.items() if p.target != training.network.output]
    measured = training.tables["alignment"]
    return Learned(
        series,
        level,
        experiment.seed,
        accuracy=training.tables["metrics"][-1]["test_accuracy"],
        angles=_means(measured, hidden),
        predicted={} if law is None else _means(law.rows, hidden),
        first=_means(measured[:1], hidden),
    )


class Predicting(Callback):
    """Ask a law for the angles every so many batches, the first included."""

    def __init__(self, experiment: Experiment, law: Prediction, every: float) -> None:
        self.experiment, self.law, self.every = experiment, law, every
        self.rows: list[Mapping[str, float]] = []

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        if training.done % self.every == 0:
            self.rows.append(self.law(self.experiment, training.network, x, y))


def _means(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Return the mean of each column over the rows where it is a number; columns without any are left out."""
    found = {name: [row[name] for row in rows if not math.isnan(row.get(name, math.nan))] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def grid(experiment: Experiment) -> tuple[float, int]:
    """Return dt and the number of steps of an experiment that has --dt and --duration."""
    dt, duration = experiment.relaxation.dt, experiment.relaxation.duration
    assert dt is not None
    assert duration is not None
    return dt, round(duration / dt)


def feedback_angles(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Return the angles at the equilibrium of transformed feedback, if signals don't know the weights: a `Prediction`.

    cos(angle) of a population is the product, over the projections on its way to the output, of the cosine between
    the weights and what the transform has made of them.
    """
    transform = transform_named(experiment.relaxation.feedback_transform, experiment.seed)
    angles, cosine = {}, 1.0
    for population in reversed(network.hidden):
        (above,), (below,) = network.outgoing[population], network.incoming[population]
        assert above.weight is not None
        if transform is not None:
            flat = above.weight.detach().flatten(), apply_transform(transform, above.weight, above.name).flatten()
            cosine *= float(cosine_similarity(*flat, dim=0))
        angles[below.name] = math.degrees(math.acos(min(1.0, cosine)))
    return angles


def reference(rows: Sequence[Learned], name: str) -> float:
    """Return the mean accuracy of one of the `REFERENCES`, from 0 to 1."""
    return float(np.mean([row.accuracy for row in rows if row.series == name]))


def limits(rows: Sequence[Learned], series: str) -> tuple[float | None, float | None]:
    """Return from which level on a point of accuracy is lost, and hidden weights had better stay as they were drawn.

    Of mean accuracies: a point below that of the series' first level, and below that of the output alone; None where
    the worst level is not enough.
    """
    by_level = accuracies(rows, series)
    undisturbed = float(np.mean(next(iter(by_level.values()))))
    return first_below(by_level, undisturbed - 0.01), first_below(by_level, reference(rows, OUTPUT_ALONE))


def _report(rows: Sequence[Learned], series: str) -> None:
    for level, values in accuracies(rows, series).items():
        turned = [row.mean_angle for row in rows if row.series == series and row.level == level]
        print(f"{series}, {level:g}: accuracy {100 * np.mean(values):.1f} %, angle {np.mean(turned):.1f} degrees")
    lost, useless = limits(rows, series)
    print(f"{series}: a point lost {_said(lost)}, worse than fixed hidden weights {_said(useless)}")


def _said(level: float | None) -> str:
    return "at no level" if level is None else f"from {level:g} on"
