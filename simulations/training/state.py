"""The state of a training: network, position, totals and tables, as checkpoints have it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from actrelax.analysis.runs import TABLES
from actrelax.models.learning import Backward, Rule
from actrelax.models.network import Network
from actrelax.simulations.training.accuracy import Convert, is_right
from actrelax.simulations.training.batches import Batches
from actrelax.simulations.training.parallel import SharedBackward, unsettled_in
from actrelax.simulations.training.processes import Processes

Row = dict[str, float]

EXPLODED = 1e6
"""Ratio to the first batch's loss above which a loss counts as diverged; saturated units can keep it finite."""


@dataclass
class Training:
    """Training in progress, whose complete state is in `state_dict`.

    network          network on the device of the batches
    batches          training images; their order depends on seed and epoch
    rule             function (network, x, y) -> Backward that sets `.grad` or updates the weights itself; its
                     `state_dict`, if it has one, is saved, too
    optimiser        optimiser of the network's parameters
    schedule         schedule of the learning rate, stepped after each batch
    epochs           number of epochs
    loss_is_sum      True if the rule's loss is a sum over the batch, False for a mean
    clip_norm        bound on the norm of all gradients of a batch; None for no bound
    recurrent_bound  bound on the norm of the linear map of each cycle, after each update; None for no bound
    drops_unsettled  True if images that have not settled change no weights and count in no loss
    patience         number of epochs without a better validation accuracy after which training ends, or None
    respond          function of stimuli that returns the outputs to test; None for the network
    epoch, batch     number of finished epochs, and of finished batches of the current epoch
    since            number of these batches at the last row of metrics
    seconds          learning time since then, in seconds
    totals           sums since then, on the device: loss, correct answers, a flag for divergence, and with cycles the
                     number of images that have not settled
    first_loss       loss per image of the first batch, the reference for divergence
    learning_rate    learning rate of the last batch; nan before the first
    tables           name -> rows: metrics and alignment, which the seed determines, and timing
    """

    network: Network
    batches: Batches
    rule: Rule
    optimiser: torch.optim.Optimizer
    schedule: LRScheduler
    epochs: int
    loss_is_sum: bool = False
    clip_norm: float | None = None
    recurrent_bound: float | None = None
    drops_unsettled: bool = False
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
        """Set the totals to zero."""
        device = self.batches.data.train.labels.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.totals = {
            "loss": torch.zeros((), dtype=exact, device=device),
            "correct": torch.zeros((), dtype=torch.int64, device=device),
            "sound": torch.ones((), dtype=torch.bool, device=device),
        }
        if self.network.is_recurrent:
            self.totals["unsettled"] = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def processes(self) -> Processes:
        """Processes that share each batch; all must call the same methods at the same batch."""
        return self.batches.processes

    def count(self, result: Backward, y: Tensor) -> None:
        """Add a batch to the totals, without waiting for the device."""
        loss = result.loss.to(self.totals["loss"])
        if self.loss_is_sum:
            loss = loss / result.samples
        if self.first_loss is None:
            self.first_loss = loss
        self.totals["loss"] += loss * result.samples
        if isinstance(result, SharedBackward):  # its output is only a share of the batch
            self.totals["correct"] += result.correct
        else:
            self.totals["correct"] += is_right(result.output, y).sum()
        unsettled = unsettled_in(result)
        if unsettled is not None:
            self.totals["unsettled"] += unsettled
        self.totals["sound"] &= result.finite & (loss < EXPLODED * (1 + self.first_loss))

    def is_sound(self) -> bool:
        """Return False if states or weights are non-finite, or the loss has exploded; wait for the device."""
        flags = [torch.isfinite(p).all() for p in self.network.parameters()]
        return bool(torch.stack([self.totals["sound"], *flags]).all())

    def unsound(self) -> str:
        """Return the reason why a training is not sound, as part of a message."""
        for name, weight in self.network.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                return f"the weights {name!r} became non-finite"
        return f"the loss of population {self.network.output!r} became non-finite or grew {EXPLODED:,.0f}-fold"

    @property
    def best_epoch(self) -> int | None:
        """First epoch with the best validation accuracy; None if there is none."""
        rows = [row for row in self.tables["metrics"] if row["epoch"] >= 1 and "validation_accuracy" in row]
        return int(max(rows, key=lambda row: row["validation_accuracy"])["epoch"]) if rows else None

    @property
    def unsettled_so_far(self) -> int | None:
        """Number of images that had not settled when the network learned from them; None without cycles."""
        if not self.network.is_recurrent:
            return None
        return int(sum(row.get("unsettled", 0) for row in self.tables["metrics"]))

    @property
    def is_over(self) -> bool:
        """True after the last epoch, or after `patience` epochs without improvement."""
        best = self.best_epoch if self.patience is not None else None
        return self.epoch >= self.epochs or (best is not None and self.epoch - best >= (self.patience or 0))

    @property
    def done(self) -> int:
        """Number of finished batches since the beginning."""
        return self.epoch * len(self.batches) + self.batch

    @property
    def seen(self) -> int:
        """Number of images seen in the current epoch."""
        return min(self.batch * self.batches.size, len(self.batches.data.train.images))

    @property
    def counted(self) -> int:
        """Number of images in the totals."""
        return self.seen - self.since * self.batches.size

    def is_due(self, every: int) -> bool:
        """Return whether the number of the batch is a multiple of `every`, or the batch is the epoch's last."""
        return self.batch % every == 0 or self.batch == len(self.batches)

    def averages(self) -> Row:
        """Return mean loss and accuracy since the last row, each batch before its update; wait for the device.

        The mean loss is over the images that learned.
        """
        loss, correct, images = float(self.totals["loss"]), int(self.totals["correct"]), self.counted
        unsettled = int(self.totals["unsettled"]) if self.network.is_recurrent else 0
        learned = images - unsettled if self.drops_unsettled else images
        row: Row = {"train_loss": loss / (learned or math.nan), "train_accuracy": correct / (images or math.nan)}
        return row | {"unsettled": unsettled} if self.network.is_recurrent else row

    def time_taken(self) -> tuple[float, float]:
        """Return the total time of a finished training in seconds, including tests, and its images per second."""
        learning, testing = (
            sum(row[f"{what}_seconds"] for row in self.tables["timing"]) for what in ("train", "evaluate")
        )
        images = self.epoch * len(self.batches.data.train.images)
        return learning + testing, images / learning if learning else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training, including torch's generators, and the preprocessing of images.

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
        """Restore a state from `state_dict`, from which training continues exactly."""
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
