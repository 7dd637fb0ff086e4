"""Callbacks of a training: divergence checks, angles to backprop, tests, progress bar and TensorBoard."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from tqdm import tqdm

from actrelax.analysis.alignment import aligned, update_angles
from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.learning import Backward, BackwardOptions
from actrelax.models.problem import Loss
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.loop import Callback, measure
from actrelax.simulations.training.modules import draw_anew, is_module
from actrelax.simulations.training.state import Row, Training


class DivergenceCheck(Callback):
    """Check for divergence every `every` batches: non-finite weights, relaxations or losses, or an exploding loss.

    Each check waits for the device. The `DivergenceError` names the batches since the last check.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.checked: int | None = None  # batches of the epoch at the last check

    def on_start(self, training: Training) -> None:
        self.look(training)

    def on_batch(self, training: Training) -> None:
        if training.is_due(self.every):
            self.look(training)

    def on_epoch(self, training: Training) -> None:
        self.look(training)

    def look(self, training: Training) -> None:
        """Raise a `DivergenceError` if the training has diverged."""
        if not training.is_sound():
            if self.checked is None:
                raise DivergenceError("the initial weights are not finite: check the network and --weight-std.")
            first, last = self.checked + 1, training.batch
            batches = f"batch {last}" if first == last else f"batches {first} to {last}"
            raise DivergenceError(
                f"training diverged in {batches} of epoch {training.epoch + 1}, {training.unsound()}: "
                "lower the learning rate, eta or the scale of the feedback weights."
            )
        self.checked = training.batch


class NothingLearned(Callback):
    """Warning of the first epoch whose images were all dropped because they had not settled."""

    warned = False

    def on_epoch(self, training: Training) -> None:
        images, row = len(training.batches.data.train.images), training.tables["metrics"][-1]
        if self.warned or not training.drops_unsettled or row.get("unsettled", 0) < images:
            return
        self.warned = True
        if training.processes.is_first:
            warn(
                f"no image of epoch {training.epoch} had settled, so that --unsettled drop left none to learn from: "
                "raise --settle-steps or --unsettled-above, change --settle-eta, or leave --unsettled out."
            )


class Alignment(Callback):
    """Measurement of the angle between AR's and backprop's updates every `every` batches.

    Each measurement is a row of the table "alignment" (epoch, batch, one column per projection, and their mean); means
    over the epoch become the columns "angle PROJECTION" and "angle mean" of the metrics.
    """

    def __init__(self, every: int, loss: Loss, options: BackwardOptions, assumptions: Assumptions) -> None:
        self.every, self.loss, self.options, self.assumptions = every, loss, options, assumptions

    def on_start(self, training: Training) -> None:
        self.columns = [*aligned(training.network), "mean"]
        for row in training.tables["metrics"]:
            for name in self.columns:
                row.setdefault(f"angle {name}", math.nan)

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        if training.done % self.every:
            return
        if training.processes.count > 1:  # gradients belong to the whole batch
            shares = training.processes.gathered((x.cpu(), y.cpu()))
            x, y = (torch.cat(parts).to(x.device) for parts in zip(*shares, strict=True))
        with training.network.fork_state(x):
            if is_module(training.network):  # with the same units dropped
                draw_anew(training.batches.seed, training.done, training.processes.rank)
            angles = update_angles(
                training.network, x, y, loss=self.loss, assumptions=self.assumptions, options=self.options
            )
        row = {"epoch": training.epoch + 1, "batch": training.batch + 1, **angles}
        training.tables["alignment"].append({**row, "mean": _mean(list(angles.values()))})

    def on_epoch(self, training: Training) -> None:
        rows = [row for row in training.tables["alignment"] if row["epoch"] == training.epoch]
        for name in self.columns:
            training.tables["metrics"][-1][f"angle {name}"] = _mean([row[name] for row in rows])


class ProgressBar(Callback):
    """Progress bar over the images of the run on a terminal, and one line per epoch, on standard error.

    The bar waits for the device every `every` batches; `quiet` leaves out the lines.
    """

    bar: tqdm[None] | None = None

    def __init__(self, label: str, every: int, quiet: bool = False) -> None:
        self.label, self.every, self.quiet = label, every, quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_start(self, training: Training) -> None:
        images = len(training.batches.data.train.images)
        self.bar = tqdm(
            desc=self.label,
            total=training.epochs * images,
            initial=training.epoch * images + training.seen,
            unit=" images",
            unit_scale=True,
            leave=False,
            disable=None,
        )

    def on_batch(self, training: Training) -> None:
        if self.bar is None or self.bar.disable or not training.is_due(self.every):
            return
        images = len(training.batches.data.train.images)
        averages = training.averages()
        postfix = f"{_loss(averages)}, accuracy {averages['train_accuracy']:.1%}"
        self.bar.set_postfix_str(postfix, refresh=False)
        self.bar.update(training.epoch * images + training.seen - self.bar.n)

    def on_epoch(self, training: Training) -> None:
        if self.quiet:
            return
        metrics, timing = training.tables["metrics"][-1], training.tables["timing"][-1]
        accuracies = [f"{part} {metrics[f'{part}_accuracy']:.1%}" for part in training.batches.data.parts]
        tqdm.write(
            f"{self.label}  epoch {training.epoch} of {training.epochs}  {_loss(metrics)}  "
            f"accuracy: {', '.join(accuracies)}  {timing['images_per_second']:,.0f} images/s",
            file=sys.stderr,
        )


class TensorBoard(Callback):
    """Writer of each epoch's metrics for TensorBoard, which must be installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ActrelaxError("--tensorboard needs the package tensorboard: pip install tensorboard.") from error
        self.folder, self.open = folder, SummaryWriter

    def on_start(self, training: Training) -> None:
        # replace the curves of an interrupted run, which may extend beyond its checkpoint
        self.writer = self.open(self.folder, purge_step=0)
        for row in training.tables["metrics"]:
            self.write(row)

    def on_epoch(self, training: Training) -> None:
        self.write(training.tables["metrics"][-1])

    def write(self, row: Row) -> None:
        """Write and flush a row of metrics."""
        for name, value in row.items():
            if name != "epoch" and not math.isnan(value):
                self.writer.add_scalar(name, value, int(row["epoch"]))
        self.writer.flush()

    def on_end(self, training: Training) -> None:
        self.writer.close()


def _loss(row: Row) -> str:
    """Return the mean loss in words; nan is the mean over no image, because a loss that diverges ends the training."""
    return "no loss" if math.isnan(row["train_loss"]) else f"loss {row['train_loss']:.4f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


class MeasureEachBatch(Callback):
    """Measurement of metrics after each batch, with the number of stimuli in all rows."""

    def on_start(self, training: Training) -> None:
        if training.done == 0:
            self._number(training)

    def on_batch(self, training: Training) -> None:
        if training.batch < len(training.batches):
            measure(training)
            self._number(training)

    def on_epoch(self, training: Training) -> None:
        self._number(training)

    def _number(self, training: Training) -> None:
        images, rows = len(training.batches.data.train.labels), training.tables["metrics"]
        stimuli = training.epoch * images + training.seen
        rows[-1] |= {"epoch": stimuli / images, "stimuli": stimuli}
