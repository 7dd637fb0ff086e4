"""What suites share: options of rules, sizes of data sets, and how to vary an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.suites.suite import Options, varied
from actrelax.simulations.training.assemble import learning_rate_factor
from actrelax.simulations.training.experiment import Experiment, Optimisation


def ar(assumptions: str = "ar", **options: Any) -> Options:
    """Return the options of a condition that learns by AR."""
    return {"rule": "ar", "assumptions": assumptions, **options}


BACKPROP: Options = {"rule": "backprop"}


def forgetting(experiment: Experiment) -> float:
    """Return the decay per update that shrinks the initial W and psi by exp(-2) over the whole training.

    With a much smaller decay, Kolen-Pollack feedback would hardly differ from learned feedback. Momentum m multiplies
    the rate by 1 / (1 - m), and a schedule lowers it on average: a linear or cosine one to half.
    """
    if experiment.images.dataset not in IMAGES:
        raise ActrelaxError(
            f"the decay of Kolen-Pollack feedback needs the number of training images, unknown for --dataset "
            f"{experiment.images.dataset}: choose among {', '.join(IMAGES)}."
        )
    images = (experiment.images.train_images or IMAGES[experiment.images.dataset]) - experiment.images.validation
    if images < 1:
        raise ActrelaxError(f"--validation {experiment.images.validation} leaves no images for training.")
    steps = experiment.epochs * math.ceil(images / experiment.batch_size)
    o = experiment.optimisation
    if o.momentum >= 1:
        raise ActrelaxError(f"--momentum must be below 1, got {o.momentum:g}.")
    rate = o.lr / (1 - o.momentum) * _mean_factor(o, experiment.epochs)
    return float(f"{2 / (rate * steps):.3g}")


def _mean_factor(o: Optimisation, epochs: int, each: int = 20) -> float:
    """Return the learning rate relative to `o.lr`, on average over the training; by `each` points of an epoch."""
    if not o.warmup and o.schedule != "step":
        return 1.0 if o.schedule == "constant" else 0.5
    return fmean(learning_rate_factor(o, step, epochs=epochs, batches=each) for step in range(each * epochs))


def on(base: Experiment, dataset: str, **options: Any) -> Experiment:
    """Return an experiment on another data set, with other options changed too."""
    return varied(base, {"dataset": dataset, **options})


def without(conditions: Mapping[str, Options], *names: str) -> Mapping[str, Options]:
    """Return the conditions without the named ones."""
    return {name: options for name, options in conditions.items() if name not in names}


IMAGES = {
    "digits": 1_437,
    "mnist": 60_000,
    "fashion-mnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "svhn": 73_257,
    "svhn10k": 8_001,
}
"""Number of training images of each data set."""

CONVERGED = {"steps": "auto"}
"""Relaxations until they have settled."""
