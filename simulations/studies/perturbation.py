"""Training at several levels of a perturbation, with a table; `perturbation_figure` draws it.

The table has one row per training: series, level (nan for the references), seed, accuracy from 0 to 1, and angles to
backprop's updates in degrees: "angle PROJECTION", the mean over the training, "predicted PROJECTION", the mean
prediction, and "first PROJECTION", the angle at the first batch. Projections to the output are left out, because their
updates are exact.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from actrelax.analysis.convergence import stays_below
from actrelax.analysis.files import write_text
from actrelax.models.learning import Backward
from actrelax.models.network import Network
from actrelax.models.problem import apply_transform, transform_named
from actrelax.simulations.data import Dataset
from actrelax.simulations.studies.common import DIGITS, EXECUTION, report
from actrelax.simulations.studies.perturbation_figure import Scale, draw
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.assemble import assemble, load_images
from actrelax.simulations.training.callbacks import Alignment
from actrelax.simulations.training.experiment import Experiment
from actrelax.simulations.training.loop import Callback, train
from actrelax.simulations.training.state import Training

RATE = 0.4
EPOCHS = 15
SEEDS = 5
DT, DURATION = 0.2, 10.0  # unit of tau
EVERY = 5  # batches between two measurements of angles

BASE = varied(
    DIGITS,
    {
        "network": "mlp-4x32",
        "integrator": "euler",
        "dt": DT,
        "duration": DURATION,
        "lr": RATE,
        "schedule": "cosine",
        "epochs": EPOCHS,
        "precision": "fp64",
    },
)
"""Three hidden populations of 32 tanh units learn the digits; relaxations take 10 tau, in 50 steps.

All levels use one learning rate, chosen for AR without perturbation. Of the rates 0.05, 0.1, ..., 1.6, with 144
validation images and three seeds, 0.8 reaches 95.6 %, 0.4 reaches 95.4 %, and 1.6 fails to learn; 0.4 keeps a distance
from that limit. For each RATE and SEED:

    actrelax train --dataset digits --network mlp-4x32 --integrator euler --dt 0.2 --duration 10 --schedule cosine \\
        --epochs 15 --precision fp64 --validation 144 --lr RATE --seed SEED
"""

BACKPROP, OUTPUT_ALONE = "backprop", "output alone learns"

REFERENCES: Mapping[str, Options] = {
    BACKPROP: {"rule": "backprop"},
    # silent hidden populations leave the weights below them unchanged
    OUTPUT_ALONE: {"steps": 0, "duration": None, "start": "zero"},
}
"""References for perturbed learning: the exact gradient, and fixed random hidden weights."""

Prediction = Callable[[Experiment, Network, Tensor, Tensor], Mapping[str, float]]
"""(experiment, network, images, labels) -> projection -> angle in degrees, for the current weights."""


def study(
    path: Path,
    series: Mapping[str, Mapping[float, Options]],
    *,
    xlabel: str,
    scale: Scale = "linear",
    seeds: int = SEEDS,
    epochs: int = EPOCHS,
    base: Experiment = BASE,
    predicted: Prediction | None = None,
    first: bool = False,
) -> pd.DataFrame:
    """Train at every level, and draw, print and write accuracy and angles against the level.

    Parameters
    ----------
    path : pathlib.Path
        Path of the figure; the table and the numbers are written beside it, as .csv and .json.
    series : mapping
        Label -> level -> options that differ from `base`, with levels ordered from harmless to severe.
    xlabel : str
        Quantity of the levels, with its unit.
    scale : {"linear", "log", "symlog"}, default "linear"
    seeds, epochs : int
        Number of trainings per level, with seeds 0, 1, ..., and their length in epochs.
    base : Experiment, default BASE
    predicted : callable, optional
        Prediction of the angles, evaluated for the batches on which they are measured.
    first : bool, default False
        Evaluate the prediction for the first batch only, because it holds for untrained weights, and also draw the
        angles measured on that batch.

    Returns
    -------
    pandas.DataFrame
        One row per training, with the `REFERENCES` last.
    """
    wanted = [(name, level, options) for name, levels in series.items() for level, options in levels.items()]
    wanted += [(name, math.nan, options) for name, options in REFERENCES.items()]
    data = load_images(base.images)
    rows = pd.DataFrame(
        {"series": name, "level": float(level), "seed": seed}
        | learn(
            varied(base, {**options, "epochs": epochs, "seed": seed}),
            data,
            predicted,
            first,
            None if name in REFERENCES else EVERY,
        )
        for name, level, options in tqdm(wanted, desc=path.stem, unit=" levels", leave=False, disable=None)
        for seed in range(seeds)
    )
    write_text(path.with_suffix(".csv"), rows.to_csv(index=False))
    draw(path, rows, xlabel=xlabel, scale=scale, chance=1 / data.classes)
    found = numbers(rows)
    lines = [", ".join(f"{name}: accuracy {found[name]['accuracy']:.1f} %" for name in REFERENCES)]
    for name in series:
        for level, of in found[name]["levels"].items():
            lines.append(f"{name}, {level:g}: accuracy {of['accuracy']:.1f} %, angle {of['angle']:.1f} degrees")
        lost, useless = ("at no level" if at is None else f"from {at:g} on" for at in limits(rows, name))
        lines.append(f"{name}: a point lost {lost}, worse than fixed hidden weights {useless}")
    report(path.with_suffix(".json"), found, *lines)
    return rows


def learn(
    experiment: Experiment,
    data: Dataset,
    predicted: Prediction | None = None,
    first: bool = False,
    every: int | None = EVERY,
) -> dict[str, float]:
    """Train once, and return accuracy and mean angles; arguments are those of `study`."""
    parts = assemble(experiment, EXECUTION, data=data)
    training = parts.training
    callbacks: list[Callback] = []
    laws: list[Mapping[str, float]] = []
    if every is not None:
        callbacks.append(Alignment(every, parts.loss, parts.options, experiment.relaxation.knobs))
        if predicted is not None:
            callbacks.append(_Predicting(experiment, predicted, sys.maxsize if first else every, laws))
    train(training, callbacks)
    measured = training.tables["alignment"]
    hidden = [name for name, p in training.network.projections.items() if p.target != training.network.output]
    row = {"accuracy": training.tables["metrics"][-1]["test_accuracy"]}
    for kind, table in (("angle", measured), ("predicted", laws), ("first", measured[:1] if first else [])):
        means = pd.DataFrame(table, columns=hidden, dtype=float).mean().dropna()
        row |= {f"{kind} {name}": float(angle) for name, angle in means.items()}
    return row


class _Predicting(Callback):
    """Callback that evaluates a prediction for the first of every `every` batches."""

    def __init__(self, experiment: Experiment, law: Prediction, every: int, rows: list[Mapping[str, float]]) -> None:
        self.experiment, self.law, self.every, self.rows = experiment, law, every, rows

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        if training.done % self.every == 0:
            self.rows.append(self.law(self.experiment, training.network, x, y))


def feedback_angles(experiment: Experiment, network: Network, x: Tensor, y: Tensor) -> Mapping[str, float]:
    """Predict the angles for transformed feedback at equilibrium, if signals are independent of the weights.

    The cosine of a population's angle is the product of the cosines between weights and transformed weights, over all
    projections from the population to the output. A `Prediction`.
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


def mean_angles(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the angle of each training, averaged over projections; nan if it was not measured."""
    return rows.filter(like="angle ").mean(axis=1)


def limits(rows: pd.DataFrame, series: str) -> tuple[float | None, float | None]:
    """Return the levels from which mean accuracy is a point below the first level, and below fixed hidden weights.

    The condition must hold at the level and at all later ones; None if it does not hold at the last level.
    """
    means = rows[rows["series"] == series].groupby("level", sort=False)["accuracy"].mean()
    alone = rows.loc[rows["series"] == OUTPUT_ALONE, "accuracy"].mean()
    found = [stays_below(means.to_numpy(), bound) for bound in (means.iloc[0] - 0.01, alone)]
    lost, useless = (None if at is None else float(means.index[at]) for at in found)
    return lost, useless


def numbers(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers for docs/findings.md.

    reference  -> "accuracy" in percent
    series     -> "a point lost from", "useless from" (see `limits`), and "levels": level -> "accuracy" and "lowest
                  accuracy" in percent, "angle", the mean over projections, and each column of angles
    """
    found: dict[str, Any] = {
        name: {"accuracy": 100 * rows.loc[rows["series"] == name, "accuracy"].mean()} for name in REFERENCES
    }
    for name, of_series in rows.dropna(subset="level").groupby("series", sort=False):
        lost, useless = limits(rows, str(name))
        levels = {
            level: {
                "accuracy": 100 * of["accuracy"].mean(),
                "lowest accuracy": 100 * of["accuracy"].min(),
                "angle": mean_angles(of).mean(),
                **of.filter(regex="^(angle|predicted|first) ").mean().dropna(),
            }
            for level, of in of_series.groupby("level", sort=False)
        }
        found[str(name)] = {"a point lost from": lost, "useless from": useless, "levels": levels}
    return found
