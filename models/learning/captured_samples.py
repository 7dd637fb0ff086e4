"""Samples without a loss gradient in captured networks: they give no updates, unless the module mixes samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from actrelax.models.learning.plasticity import counted_samples
from actrelax.models.network import CapturedPass
from actrelax.models.network.captured import signal_of
from actrelax.models.problem import RelaxationProblem


class Samples(NamedTuple):
    """How the samples of a population lie along one dimension, which may be a multiple of the batch.

    dimension    number of the dimension
    is_together  whether the slices of a sample follow each other, 0 0 1 1, rather than alternate, 0 1 0 1
    """

    dimension: int
    is_together: bool

    def owners(self, size: int, batch: int, device: torch.device) -> Tensor:
        """Return the number of the sample that owns each of the slices along the dimension."""
        slices = torch.arange(size, device=device)
        return slices // (size // batch) if self.is_together else slices % batch


_KNOWN: WeakKeyDictionary[object, dict[int, Samples]] = WeakKeyDictionary()


class Counted:
    """Which samples of a batch count in the updates of a captured network: those with a loss gradient.

    Other samples have only remains of their initial activity. Where they receive signals of samples that count, as
    below BatchNorm in training, all count.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        passed = problem.feedforward
        assert isinstance(passed, CapturedPass)
        self._counted = counted_samples(problem)
        is_needed = self._counted.device.type != "cpu" or not bool(self._counted.all())
        self._found = samples_in(passed, problem.clamped) if is_needed else {}

    def of(self, number: int, x: Tensor) -> Tensor:
        """Return the activity of a population, zero for samples that do not count."""
        samples, batch = self._found.get(number), len(self._counted)
        if samples is None or x.shape[samples.dimension] % batch:
            return x * self._counted if batch == 1 else x
        size = x.shape[samples.dimension]
        counted = self._counted[samples.owners(size, batch, x.device)]
        return x * counted.view(-1, *[1] * (x.dim() - 1 - samples.dimension))


@torch.no_grad()
def samples_in(passed: CapturedPass, clamped: Tensor) -> dict[int, Samples]:
    """Return number of a population -> how its samples lie, for populations that keep samples apart.

    Sizes alone can't tell a batch from a sequence of the same length, so a signal of the second sample is carried down
    once per path. A population is missing if this leaves several answers. A single sample gives an empty result.
    """
    if len(clamped) == 1:
        return {}
    known = _KNOWN.get(passed.path)
    if known is not None:
        return known
    signal, found, is_complete = torch.zeros_like(clamped), dict[int, Samples](), True
    signal[1] = torch.arange(1, signal[1].numel() + 1, device=clamped.device).view_as(signal[1]).to(clamped).cos()
    arrived = {0: signal}
    for number, wires in enumerate(passed.path.incoming):
        x = arrived.pop(number, None)
        if x is None:
            continue
        is_complete &= bool(x.any())  # no signal passes weights of zero, for example
        possible = list(_possible(x, len(clamped)))
        if len(possible) == 1:
            found[number] = possible[0]
        for wire, sent in zip(wires, passed.transposed(number, x, keep=True, learn=False), strict=True):
            if wire.source is not None and sent is not None:
                down = sent if wire.operation is None else signal_of(passed.operations[wire.operation], sent)
                arrived[wire.source] = arrived[wire.source] + down if wire.source in arrived else down
    if is_complete:
        _KNOWN[passed.path] = found
    return found


def _possible(x: Tensor, batch: int) -> Iterator[Samples]:
    """Yield how the samples may lie, given the activity that a signal of the second one has caused."""
    for dimension, size in enumerate(x.shape):
        if size and size % batch == 0:
            active = x.transpose(0, dimension).reshape(size, -1).any(1)
            for is_together in (True, False)[: 1 if size == batch else 2]:
                samples = Samples(dimension, is_together)
                if set(samples.owners(size, batch, x.device)[active].tolist()) == {1}:
                    yield samples
