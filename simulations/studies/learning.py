"""Learning the digits with a look at the network after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from actrelax import Network
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.training.accuracy import accuracy as share_correct

BATCH = 64


def as_stimuli(network: Network, images: Tensor) -> Tensor:
    """Return (images, *input shape) in the type of the network's weights."""
    return images.reshape(len(images), *network.populations[network.input].shape).to(next(network.parameters()))


def epochs_of(
    network: Network,
    optimiser: torch.optim.Optimizer,
    backward: Callable[[Network, Tensor, Tensor], object],
    *,
    epochs: int,
    seed: int,
    images: Tensor | None = None,
) -> Iterator[int]:
    """Train on the digits, and yield how many epochs are done: 0 first.

    Parameters
    ----------
    network : Network
    optimiser : torch.optim.Optimizer
    backward : callable
        (network, x, y) -> anything; adds each update to `.grad`.
    epochs : int
    seed : int
        Decides the batches.
    images : torch.Tensor, optional
        What is seen in place of the training images: the same made of another shape.
    """
    train = digits().train
    x, labels = as_stimuli(network, train.images if images is None else images), train.labels
    yield 0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=random_stream(seed, "order", epoch))
        for i in torch.split(order, BATCH):
            optimiser.zero_grad()
            backward(network, x[i], labels[i])
            optimiser.step()
        yield epoch + 1


def accuracy(network: Network) -> float:
    """Return the share of the digits' test images that the network classifies correctly."""
    return share_correct(network, digits().test, partial(as_stimuli, network))
