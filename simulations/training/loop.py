"""Training a network, whatever the rule: what changes, the loop that changes it, and callbacks that watch.

A loop of your own needs none of this; it is a few lines around `relax_backward`, as the README shows.
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
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.processes import Processes

Row = dict[str, float]

EXPLODED = 1e6
"""A loss so many times the first batch's counts as diverged: saturated units can keep it finite for ever."""


@dataclass
class Training:
    """A training under way; all that changes is in its `state_dict`.

    network       on the device of the batches
    batches       the images; their order is a function of seed and epoch
    rule          (network, x, y) -> Backward, which leaves gradients in `.grad`: `relax_backward` or
                  `backprop_backward` with the options filled in
    optimiser     of the network's parameters
    schedule      of the learning rate, stepped after each batch
    epochs        how many there shall be
    loss_is_sum   whether the rule's loss is a sum over the batch; a mean otherwise
    epoch, batch  how many are done, and how many batches of the next
    seconds       spent so far on the batches of that epoch
    totals        over these batches, on the device: loss and correct answers, and whether all was sound
    answered      correct answers of this process, one of several, that are not in the totals yet
    first_loss    of the very first batch, an image: what a loss that explodes is held against
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
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    totals: dict[str, Tensor] = field(default_factory=dict)
    answered: int | Tensor = 0
    first_loss: Tensor | None = None
    learning_rate: float = math.nan
    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def __post_init__(self) -> None:
        self.reset_totals()

    def reset_totals(self) -> None:
        """Begin an epoch's totals."""
        device = self.batches.data.train.labels.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.totals = {
            "loss": torch.zeros((), dtype=exact, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "sound": torch.ones((), dtype=torch.bool, device=device),
        }
        self.answered = 0

    @property
    def processes(self) -> Processes:
        """Those that share each batch: all training's methods are called by all of them, at the same batch."""
        return self.batches.processes

    def loss_of(self, result: Backward) -> Tensor:
        """Return a batch's loss, the mean over its images."""
        loss = result.loss.to(self.totals["loss"])
        return loss / result.samples if self.loss_is_sum else loss

    def count(self, result: Backward, y: Tensor) -> None:
        """Add a batch to the totals, without waiting for the device."""
        loss = self.loss_of(result)
        if self.first_loss is None:
            self.first_loss = loss
        self.totals["loss"] += loss * result.samples
        correct = (result.output.argmax(1) == y).sum()
        if self.processes.count == 1:
            self.totals["correct"] += correct
        else:
            self.answered += correct
        self.totals["sound"] &= result.finite & (loss < EXPLODED * (1 + self.first_loss))

    def pool(self) -> None:
        """Put into the totals what each of several processes has counted since the last time."""
        if self.processes.count > 1:
            self.totals["correct"] += sum(self.processes.gathered(int(self.answered)))
            self.answered = 0

    def is_sound(self) -> bool:
        """Whether the epoch's relaxed states and all weights are finite and its losses reasonable: one look."""
        flags = [torch.isfinite(p).all() for p in self.network.parameters()]
        sound = bool(torch.stack([self.totals["sound"], *flags]).all())
        return not self.processes.largest(not sound)

    @property
    def done(self) -> int:
        """Batches that are done in all."""
        return self.epoch * len(self.batches) + self.batch

    @property
    def seen(self) -> int:
        """Images of the epoch under way that are done."""
        return min(self.batch * self.batches.size, len(self.batches.data.train.images))

    def is_due(self, every: int) -> bool:
        """Whether so many batches are done since the epoch's beginning or the last time; the last one always is."""
        return self.batch % every == 0 or self.batch == len(self.batches)

    def averages(self) -> Row:
        """Loss and accuracy over the epoch under way, of each batch before its update: one look at the device.

        Of several processes, once they have pooled what they know.
        """
        loss, correct = float(self.totals["loss"]), int(self.totals["correct"])
        seen = self.seen or float("nan")
        return {"train_loss": loss / seen, "train_accuracy": correct / seen}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, the generators of torch included; tensors are not copied.

        And, of what it doesn't change, what the trained network must know of its images.
        """
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        random, *others = self.processes.gathered({"cpu": torch.get_rng_state(), "cuda": cuda})
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "position": {name: getattr(self, name) for name in ("epoch", "batch", "seconds", "learning_rate")},
            "totals": self.totals,
            "first_loss": self.first_loss,
            "tables": self.tables,
            "random": random,
            **({"random of others": others} if others else {}),
            "images": {
                "shape": list(self.batches.data.input_shape),
                "classes": self.batches.data.classes,
                "mean": self.batches.preprocess.mean,
                "std": self.batches.preprocess.std,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; the next batch is the one that would have come then."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        self.totals = {name: total.to(self.totals[name], copy=True) for name, total in state["totals"].items()}
        first = state["first_loss"]
        self.first_loss = None if first is None else first.to(self.totals["loss"])
        self.tables = {name: [dict(row) for row in rows] for name, rows in state["tables"].items()}
        self.answered = 0
        random = [state["random"], *state.get("random of others", [])][self.processes.rank]
        torch.set_rng_state(random["cpu"])
        if random["cuda"]:
            torch.cuda.set_rng_state_all(random["cuda"])


class Callback:
    """What watches a training; each method is called with it, and does nothing unless overridden.

    A training is consistent in `on_batch`, `on_epoch` and `on_end`: it can be saved there, and an exception raised
    there stops it.
    """

    def on_start(self, training: Training) -> None:
        """Before the first batch of this process; a resumed training may be anywhere."""

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
        _measure(training)
    for callback in callbacks:
        callback.on_start(training)
    while training.epoch < training.epochs:
        _train_epoch(training, callbacks)
        training.epoch += 1
        _measure(training)
        for callback in callbacks:
            callback.on_epoch(training)
    for callback in callbacks:
        callback.on_end(training)


def learn(training: Training, rule: Rule, x: Tensor, y: Tensor, callbacks: Sequence[Callback] = ()) -> Backward:
    """Learn from one batch."""
    training.optimiser.zero_grad()
    try:
        result = rule(training.network, x, y)
    except DivergenceError as error:
        raise DivergenceError(f"{where(training)}: {error}", error.trajectory) from error
    for callback in callbacks:
        callback.on_gradient(training, x, y, result)
    training.learning_rate = training.optimiser.param_groups[0]["lr"]
    training.optimiser.step()
    training.schedule.step()
    training.batch += 1
    training.count(result, y)
    return result


def where(training: Training) -> str:
    """Name the batch that is next."""
    return f"batch {training.batch + 1} of epoch {training.epoch + 1}"


def _train_epoch(training: Training, callbacks: Sequence[Callback]) -> None:
    start = time.perf_counter() - training.seconds
    for x, y in training.batches.epoch(training.epoch + 1, first=training.batch):
        learn(training, training.rule, x, y, callbacks)
        training.seconds = time.perf_counter() - start
        for callback in callbacks:
            callback.on_batch(training)
    training.seconds = time.perf_counter() - start  # with the look at the device that ends the epoch


def _measure(training: Training) -> None:
    """Close an epoch, the one before the first included: a row of metrics, one of timing, and a fresh count."""
    data, start = training.batches.data, time.perf_counter()
    row: Row = {"epoch": training.epoch, "learning_rate": training.learning_rate}
    training.pool()
    row |= training.averages()
    for name, part in data.parts.items():
        if name != "train":
            row[f"{name}_accuracy"] = accuracy(training.network, part, training.batches.preprocess, training.processes)
    training.tables["metrics"].append(row)
    training.tables["timing"].append(
        {
            "epoch": training.epoch,
            "train_seconds": training.seconds,
            "evaluate_seconds": time.perf_counter() - start,
            "images_per_second": training.seen / training.seconds if training.seconds else float("nan"),
        }
    )
    training.batch, training.seconds = 0, 0.0
    training.reset_totals()
