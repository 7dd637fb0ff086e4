"""Training a network, whatever the rule: a loop of a few lines, and what it measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.errors import DivergenceError
from actrelax.models.network import Network
from actrelax.models.updates import Backward
from actrelax.simulations.datasets import Dataset

Rule = Callable[[Network, Tensor, Tensor], Backward]


@dataclass(frozen=True)
class Epoch:
    """What is measured after an epoch; the loss is the mean over its batches, accuracies lie in [0, 1]."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float


def train(
    network: Network,
    dataset: Dataset,
    rule: Rule,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[Epoch]:
    """Train, and yield the measurements before the first epoch (its loss nan) and after each.

    Parameters
    ----------
    network : Network
    dataset : Dataset
    rule : callable
        (network, x, y) -> Backward, which leaves gradients in `.grad`: `relax_backward` or `backprop_backward`
        with the options filled in.
    optimiser : torch.optim.Optimizer
        Of the network's parameters.
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    generator : torch.Generator
        Source of the order of the images: the same for every rule under one seed.

    Raises
    ------
    DivergenceError
        If the loss, or a relaxation, becomes non-finite.
    """
    yield _measured(0, float("nan"), network, dataset)
    count = len(dataset.x_train)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch, chosen in enumerate(torch.randperm(count, generator=generator).split(batch_size), 1):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss = float(rule(network, dataset.x_train[chosen], dataset.y_train[chosen]).loss)
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss became {loss} in batch {batch} of epoch {epoch}: lower the learning rate."
                )
            total += loss * len(chosen)
            optimiser.step()
        yield _measured(epoch, total / count, network, dataset)


@torch.no_grad()
def accuracy(network: Network, x: Tensor, y: Tensor) -> float:
    """Return the share of images whose largest output is their label."""
    return int((network(x).argmax(1) == y).sum()) / len(y)


def _measured(epoch: int, loss: float, network: Network, dataset: Dataset) -> Epoch:
    return Epoch(
        epoch,
        loss,
        accuracy(network, dataset.x_train, dataset.y_train),
        accuracy(network, dataset.x_test, dataset.y_test),
    )
