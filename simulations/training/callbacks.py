"""What watches a training: the progress bar, the look for nan and inf, angles to backprop's gradient, TensorBoard."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from tqdm import tqdm

from actrelax.analysis.alignment import aligned, update_angles
from actrelax.models.assumptions import Assumptions
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import Backward, BackwardOptions, Rule
from actrelax.models.problem import Loss
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.loop import Callback, Training, learn, where


class DivergenceCheck(Callback):
    """Look every so many batches whether all is well; if not, replay the batches since and say where it began.

    Parameters
    ----------
    every : int
        Batches between two looks; each waits for the device.
    careful : callable
        The training's rule, but looking for nan and inf in each relaxation, and of this process's share alone.

    Raises
    ------
    DivergenceError
        From `on_start`, `on_batch` and `on_epoch`; the training is back at the last look then, and sound.
    """

    def __init__(self, every: int, careful: Rule) -> None:
        self.every, self.careful = every, careful
        self.last: dict[str, Any] = {}

    def on_start(self, training: Training) -> None:
        self.look(training)

    def on_batch(self, training: Training) -> None:
        if training.is_due(self.every):
            self.look(training)

    def on_epoch(self, training: Training) -> None:
        self.look(training)

    def look(self, training: Training) -> None:
        """Look now."""
        training.pool()
        if training.is_sound():
            self.last = copy.deepcopy(training.state_dict())
            return
        if not self.last:
            raise DivergenceError("the initial weights are not finite: look at the network and --weight-std.")
        training.load_state_dict(copy.deepcopy(self.last))
        try:
            self._replay(training)
        finally:
            training.load_state_dict(self.last)

    def _replay(self, training: Training) -> None:
        for x, y in training.batches.epoch(training.epoch + 1, first=training.batch):
            place = where(training)
            found = self._found(training, x, y)
            said = next(filter(None, training.processes.gathered(str(found or ""))), None)
            if said is not None:
                raise DivergenceError(f"{place}: {said}", found.trajectory if found else None) from found
            result = learn(training, training.rule, x, y)
            for name, parameter in training.network.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise DivergenceError(f'{place}: "{name}" became non-finite: lower the learning rate.')
            if not training.is_sound():
                loss = float(training.loss_of(result))
                raise DivergenceError(f"{place}: the loss became {loss:.3g} an image: lower the learning rate.")
        raise DivergenceError(
            "something diverged that did not when the batches were replayed: look at every batch with --read-every 1."
        )

    def _found(self, training: Training, x: Tensor, y: Tensor) -> DivergenceError | None:
        """Return what diverges in this process's share of a batch, in a copy of the network: nothing is learned."""
        if len(x) == 0:
            return None
        with torch.no_grad():
            activities = training.network.feedforward(x).activities
        for name, activity in activities.items():
            if not torch.isfinite(activity).all():
                return DivergenceError(
                    f'population "{name}" became non-finite in the feedforward pass: lower the learning rate.'
                )
        try:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                self.careful(copy.deepcopy(training.network), x, y)
        except DivergenceError as error:
            return error
        return None


class Alignment(Callback):
    """Measure the angle between AR's and backprop's updates every so many batches.

    Each measurement is a row of the table "alignment" (epoch, batch, a column a projection, their mean); the epoch's
    means become the columns "angle PROJECTION" and "angle mean" of the metrics.
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
        if training.processes.count > 1:  # the gradients are of the whole batch
            shares = training.processes.gathered((x.cpu(), y.cpu()))
            x, y = (torch.cat(parts).to(x.device) for parts in zip(*shares, strict=True))
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
    """A bar over the images of the whole run on a terminal, and a line per epoch; both on standard error.

    Parameters
    ----------
    label : str
    every : int
        Batches between two looks at the device.
    quiet : bool
        Leave out the lines.
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
        postfix = f"loss {averages['train_loss']:.4f}, accuracy {averages['train_accuracy']:.1%}"
        self.bar.set_postfix_str(postfix, refresh=False)
        self.bar.update(training.epoch * images + training.seen - self.bar.n)

    def on_epoch(self, training: Training) -> None:
        if self.quiet:
            return
        metrics, timing = training.tables["metrics"][-1], training.tables["timing"][-1]
        accuracies = [
            f"{name.removesuffix('_accuracy')} {value:.1%}"
            for name, value in metrics.items()
            if name.endswith("_accuracy")
        ]
        tqdm.write(
            f"{self.label}  epoch {training.epoch} of {training.epochs}  loss {metrics['train_loss']:.4f}  "
            f"accuracy: {', '.join(accuracies)}  {timing['images_per_second']:,.0f} images/s",
            file=sys.stderr,
        )


class TensorBoard(Callback):
    """Write each epoch's metrics for TensorBoard.

    Raises
    ------
    ActrelaxError
        If the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ActrelaxError("--tensorboard needs the package tensorboard: pip install tensorboard.") from error
        self.folder, self.open = folder, SummaryWriter

    def on_start(self, training: Training) -> None:
        self.writer = self.open(self.folder)

    def on_epoch(self, training: Training) -> None:
        for name, value in training.tables["metrics"][-1].items():
            if name != "epoch":
                self.writer.add_scalar(name, value, training.epoch)

    def on_end(self, training: Training) -> None:
        self.writer.close()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
