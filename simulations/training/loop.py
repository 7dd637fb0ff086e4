"""Training of a network by any rule: loop and callbacks; its state is in `state`.

A custom loop does not need this module: a few lines around `relax_backward` are enough, as in the README.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from actrelax.models.learning import Backward
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.modules import evaluating
from actrelax.simulations.training.state import Row, Training


class Callback:
    """Observer of a training, whose methods do nothing by default.

    `on_batch`, `on_epoch` and `on_end` may save the training, or stop it by an exception.
    """

    def on_start(self, training: Training) -> None:
        """Called before the first batch, or before a training is resumed."""

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        """Called with the gradients of a batch in `.grad`, before the weights change."""

    def on_batch(self, training: Training) -> None:
        """Called after the weights have changed."""

    def on_epoch(self, training: Training) -> None:
        """Called after an epoch, whose rows are the last of the tables."""

    def on_end(self, training: Training) -> None:
        """Called after the last epoch."""


def train(training: Training, callbacks: Sequence[Callback] = ()) -> None:
    """Continue a training to its last epoch.

    Raises
    ------
    DivergenceError
        If the rule finds non-finite values; the message names batch and epoch.
    """
    if not training.tables["metrics"]:
        measure(training)
    for callback in callbacks:
        callback.on_start(training)
    while not training.is_over:
        training.started = time.perf_counter() - training.seconds
        for x, y in training.batches.epoch(training.epoch + 1, first=training.batch):
            learn(training, x, y, callbacks)
            training.seconds = time.perf_counter() - training.started
            for callback in callbacks:
                callback.on_batch(training)
        training.seconds = time.perf_counter() - training.started  # including the check at the end of the epoch
        training.epoch += 1
        measure(training)
        training.batch = training.since = 0
        for callback in callbacks:
            callback.on_epoch(training)
    for callback in callbacks:
        callback.on_end(training)


def learn(training: Training, x: Tensor, y: Tensor, callbacks: Sequence[Callback] = ()) -> Backward:
    """Learn from one batch."""
    training.optimiser.zero_grad()
    try:
        result = training.rule(training.network, x, y)
    except DivergenceError as error:
        where = f"batch {training.batch + 1} of epoch {training.epoch + 1}"
        raise DivergenceError(f"{where}: {error}", error.trajectory) from error
    for callback in callbacks:
        callback.on_gradient(training, x, y, result)
    if training.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), training.clip_norm)
    training.learning_rate = training.optimiser.param_groups[0]["lr"]
    training.optimiser.step()
    if training.recurrent_bound is not None:
        training.network.bound_recurrence(training.recurrent_bound)
    training.schedule.step()
    training.batch += 1
    training.count(result, y)
    return result


def measure(training: Training) -> None:
    """Add a row of metrics and a row of timing, and reset the totals; the first row is the untrained network's."""
    data, start = training.batches.data, time.perf_counter()
    row: Row = {"epoch": training.epoch, "learning_rate": training.learning_rate}
    row |= training.averages()
    respond, preprocess = training.respond or training.network, training.batches.preprocess
    with evaluating(training.network):
        for name, part in data.parts.items():
            if name != "train":
                row[f"{name}_accuracy"] = accuracy(respond, part, preprocess, training.processes)
    training.tables["metrics"].append(row)
    training.tables["timing"].append(
        {
            "epoch": training.epoch,
            "train_seconds": training.seconds,
            "evaluate_seconds": time.perf_counter() - start,
            "images_per_second": training.counted / training.seconds if training.seconds else math.nan,
        }
    )
    training.reset_totals()
    training.since, training.seconds, training.started = training.batch, 0.0, time.perf_counter()
