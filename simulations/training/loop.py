"""Training a network by any rule: its state, the loop, and callbacks.

Your own loop needs none of this; it is a few lines around `relax_backward`, as the README shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from actrelax.analysis.runs import TABLES
from actrelax.models.learning import Backward, Rule
from actrelax.models.network import Network
from actrelax.models.results import DivergenceError
from actrelax.simulations.training.accuracy import Convert, accuracy
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.parallel import SharedBackward
from actrelax.simulations.training.processes import Processes

Row = dict[str, float]

EXPLODED = 1e6
"""A loss this many times the first batch's counts as diverged: saturated units can keep it finite for ever."""


@dataclass
class Training:
    """A training in progress; all that changes is in its `state_dict`.

    network       on the device of the batches
    batches       the images; their order is a function of seed and epoch
    rule          (network, x, y) -> Backward, which leaves gradients in `.grad` or moves the weights itself; if it has
                  a `state_dict`, that is kept, too
    optimiser     of the network's parameters
    schedule      of the learning rate, stepped after each batch
    epochs        number of epochs
    loss_is_sum   whether the rule's loss is a sum over the batch; a mean otherwise
    clip_norm     bound on the norm of a batch's gradients together; None for none
    patience      epochs without a better validation accuracy after which training ends; None for all epochs
    respond       stimuli -> outputs that are tested; the network unless given
    epoch, batch  number of epochs done, and of batches of the next
    since         number of these batches before the last row of metrics
    seconds       spent since then on learning
    totals        since then, on the device: loss and correct answers, and whether all was sound
    first_loss    of the very first batch, per image: a loss that explodes is compared with it
    learning_rate of the last batch; nan before the first
    tables        name -> rows: metrics and alignment, which the seed determines, and timing
    """

    network: Network
    batches: Batches
    rule: Rule
    optimiser: torch.optim.Optimizer
    schedule: LRScheduler
    epochs: int
    loss_is_sum: bool = False
    clip_norm: float | None = None
    patience: int | None = None
    respond: Convert | None = None
    epoch: int = 0
    batch: int = 0
    since: int = 0
    seconds: float = 0.0
    started: float = field(default=0.0, init=False)
    totals: dict[str, Tensor] = field(default_factory=dict)
    first_loss: Tensor | None = None
    learning_rate: float = math.nan
    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def __post_init__(self) -> None:
        self.reset_totals()

    def reset_totals(self) -> None:
        """Begin new totals."""
        device = self.batches.data.train.labels.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.totals = {
            "loss": torch.zeros((), dtype=exact, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "sound": torch.ones((), dtype=torch.bool, device=device),
        }

    @property
    def processes(self) -> Processes:
        """Processes that share each batch; all call all methods of the training, at the same batch."""
        return self.batches.processes

    def count(self, result: Backward, y: Tensor) -> None:
        """Add a batch to the totals, without waiting for the device."""
        loss = result.loss.to(self.totals["loss"])
        if self.loss_is_sum:
            loss = loss / result.samples
        if self.first_loss is None:
            self.first_loss = loss
        self.totals["loss"] += loss * result.samples
        if isinstance(result, SharedBackward):  # the output is only a share
            self.totals["correct"] += result.correct
        else:
            self.totals["correct"] += (result.output.argmax(1) == y).sum()
        self.totals["sound"] &= result.finite & (loss < EXPLODED * (1 + self.first_loss))

    def is_sound(self) -> bool:
        """Return whether relaxed states and weights are finite and losses have not exploded; wait for the device."""
        flags = [torch.isfinite(p).all() for p in self.network.parameters()]
        return bool(torch.stack([self.totals["sound"], *flags]).all())

    def unsound(self) -> str:
        """Return what is not finite, or grew without bound, of a training that is not sound."""
        for name, weight in self.network.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                return f"the weights {name!r} became non-finite"
        return f"the loss of population {self.network.output!r} became non-finite or grew {EXPLODED:,.0f}-fold"

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the best validation accuracy, the first of equals; None before there is one."""
        rows = [row for row in self.tables["metrics"] if row["epoch"] >= 1 and "validation_accuracy" in row]
        return int(max(rows, key=lambda row: row["validation_accuracy"])["epoch"]) if rows else None

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or patience has come to its end."""
        best = self.best_epoch if self.patience is not None else None
        return self.epoch >= self.epochs or (best is not None and self.epoch - best >= (self.patience or 0))

    @property
    def done(self) -> int:
        """Number of batches done since the beginning."""
        return self.epoch * len(self.batches) + self.batch

    @property
    def seen(self) -> int:
        """Number of images done in this epoch."""
        return min(self.batch * self.batches.size, len(self.batches.data.train.images))

    @property
    def counted(self) -> int:
        """Number of images in the totals."""
        return self.seen - self.since * self.batches.size

    def is_due(self, every: int) -> bool:
        """Return whether the batch is one of every `every`, or the epoch's last."""
        return self.batch % every == 0 or self.batch == len(self.batches)

    def averages(self) -> Row:
        """Return loss and accuracy since the last row, of each batch before its update; wait for the device."""
        loss, correct, images = float(self.totals["loss"]), int(self.totals["correct"]), self.counted or math.nan
        return {"train_loss": loss / images, "train_accuracy": correct / images}

    def time_taken(self) -> tuple[float, float]:
        """Return a finished training's seconds, tests included, and the images per second that it learned."""
        learning, testing = (
            sum(row[f"{what}_seconds"] for row in self.tables["timing"]) for what in ("train", "evaluate")
        )
        images = self.epoch * len(self.batches.data.train.images)
        return learning + testing, images / learning if learning else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return all that training changes, torch's generators included, and how images are preprocessed.

        Tensors are not copied.
        """
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        random, *others = self.processes.gathered({"cpu": torch.get_rng_state(), "cuda": cuda})
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "position": {name: getattr(self, name) for name in ("epoch", "batch", "since", "seconds", "learning_rate")},
            **({"rule": self.rule.state_dict()} if hasattr(self.rule, "state_dict") else {}),
            "totals": self.totals,
            "first_loss": self.first_loss,
            "tables": self.tables,
            "random": random,
            **({"random of others": others} if others else {}),
            "images": {
                "shape": list(self.batches.data.input_shape),
                "classes": self.batches.data.classes,
                "names": self.batches.data.names,
                "mean": self.batches.preprocess.mean,
                "std": self.batches.preprocess.std,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the same batch comes next."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        if hasattr(self.rule, "load_state_dict"):
            self.rule.load_state_dict(state["rule"])
        self.totals = {name: total.to(self.totals[name], copy=True) for name, total in state["totals"].items()}
        first = state["first_loss"]
        self.first_loss = None if first is None else first.to(self.totals["loss"])
        self.tables = {name: [dict(row) for row in rows] for name, rows in state["tables"].items()}
        random = [state["random"], *state.get("random of others", [])][self.processes.rank]
        torch.set_rng_state(random["cpu"])
        if random["cuda"]:
            torch.cuda.set_rng_state_all(random["cuda"])


class Callback:
    """An observer of a training, whose methods do nothing unless overridden.

    In `on_batch`, `on_epoch` and `on_end` the training can be saved, or stopped by an exception.
    """

    def on_start(self, training: Training) -> None:
        """Before the first batch; a resumed training may be anywhere."""

    def on_gradient(self, training: Training, x: Tensor, y: Tensor, result: Backward) -> None:
        """With the gradients of a batch in `.grad`, before the weights move."""

    def on_batch(self, training: Training) -> None:
        """After the weights have moved."""

    def on_epoch(self, training: Training) -> None:
        """After an epoch; its rows end the tables."""

    def on_end(self, training: Training) -> None:
        """After the last epoch."""


def train(training: Training, callbacks: Sequence[Callback] = ()) -> None:
    """Train on, from where the training is to its last epoch.

    Raises
    ------
    DivergenceError
        If the rule finds something non-finite; the message names batch and epoch.
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
        training.seconds = time.perf_counter() - training.started  # with the check that ends the epoch
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
    training.schedule.step()
    training.batch += 1
    training.count(result, y)
    return result


def measure(training: Training) -> None:
    """Add a row of metrics and one of timing, and begin new totals; the first row is the untrained network's."""
    data, start = training.batches.data, time.perf_counter()
    row: Row = {"epoch": training.epoch, "learning_rate": training.learning_rate}
    row |= training.averages()
    respond, preprocess = training.respond or training.network, training.batches.preprocess
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
